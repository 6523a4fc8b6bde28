"""What this machine has: memory and cores, as far as its container lets them be used."""

import math
import os
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
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
    """The cores that this process may use, by its affinity and its control group, where the system has them."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_LIMIT.read_text().split())
        return max(1, min(count, math.ceil(quota / period)))
    except (OSError, ValueError, ZeroDivisionError):  # not there, or `max`
        return count


def in_gigabytes(size: float) -> str:
    """`0.3 GB`, `1,234 GB`."""
    return f"{size / 1e9:,.1f} GB" if size < 1e11 else f"{size / 1e9:,.0f} GB"
