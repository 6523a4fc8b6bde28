"""The same training with nothing recorded: what tracking costs is the difference."""

import sys

from pipeline.__main__ import leave
from pipeline.imports import gc_paused

with gc_paused():
    from pipeline.config import RunConfig
    from pipeline.training.fit import fit

result = fit(RunConfig(epochs=int(sys.argv[1]), accelerator="cpu"), report=lambda epoch, metrics: print(epoch, metrics))
print(result.test)
leave(0)
