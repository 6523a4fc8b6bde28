"""The same training with nothing recorded: what tracking costs is the difference."""

import sys

from pipeline.__main__ import leave
from pipeline.imports import gc_paused

with gc_paused():
    from pipeline.config import RunConfig
    from pipeline.training.fit import fit
    from pipeline.training.news import EpochNews

result = fit(RunConfig(epochs=int(sys.argv[1]), accelerator="cpu"), callbacks=[EpochNews(print)])
print(result.test)
leave(0)
