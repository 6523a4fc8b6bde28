"""What this machine has: memory and cores, as far as its container lets them be used."""

import os
from collections.abc import MutableMapping
from pathlib import Path

# How long a thread of OpenMP's waits awake for the next part of a product (GNU's and LLVM's words for it): rounds that
# GNU's takes itself where it knows of more threads than cores, which it only knows of its own process'.
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
BUSY = 0.5  # of the cores
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_here() -> int:
    """Bytes of memory that this machine has, or that its container may use, if that is less."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**63
    for path in LIMITS:
        try:
            memory = min(memory, int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return memory


def cores_here() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_waiting_threads_sleep(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of a matrix product that wait for each other give their core away, where others want it.

    To be called before torch is imported. Where other programs compute as well, a thread that waits awake keeps the one
    that it waits for from its core, some twenty times a step: an epoch of the sample took 83 s so, and takes 12 s. On a
    machine with nothing else to do, going to sleep and waking up would cost a fifth. The user's own word stands.
    """
    if "OMP_WAIT_POLICY" not in environ and _others_at_work() > cores_here() * BUSY:
        for name, value in WAITING.items():
            environ.setdefault(name, value)


def _others_at_work() -> float:
    """Programs that have wanted a core in the last minute, in the mean."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def in_gigabytes(size: float) -> str:
    """`0.3 GB`, `1,234 GB`."""
    return f"{size / 1e9:,.1f} GB" if size < 1e11 else f"{size / 1e9:,.0f} GB"
