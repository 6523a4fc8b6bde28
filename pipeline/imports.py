"""Importing big libraries without the second that they spend in vain."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

SIGNAL = "scipy.signal"


@contextmanager
def gc_paused() -> Iterator[None]:
    """Import what Lightning or MLflow need to begin, no more.

    - Nobody looks for garbage among half a million new objects, nor later: 0.4 s.
    - torchmetrics, which Lightning imports, loads SciPy's signal processing only to give it an old name back: 0.7 s.
      It is handed an empty module instead; whoever imports the real one afterwards gets it.
    """
    stand_in = ModuleType(SIGNAL)
    stand_in.hamming = None  # type: ignore[attr-defined]
    spared = sys.modules.setdefault(SIGNAL, stand_in) is stand_in
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if spared:
            del sys.modules[SIGNAL]
