"""A run's own folder: what it records, how that is found again, where its numbers came from.

`from pipeline.tracking import RunLogger` gives any Lightning script the record alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.tracking.logger import RunLogger

__all__ = ["RunLogger"]


def __getattr__(name: str) -> Any:
    """The logger, which needs Lightning, imported when it is asked for."""
    if name != "RunLogger":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.tracking.logger import RunLogger

    return RunLogger
