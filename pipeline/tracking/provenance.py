"""What a run's record says of where its numbers came from: commit, code, packages, machine."""

import contextlib
import functools
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from pipeline.terminal.shell import user_name
from pipeline.tracking.checkout import checkout

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "mlflow", "numpy", "onnxruntime")
CPU_INFO = Path("/proc/cpuinfo")  # Linux only


def git_tags() -> dict[str, str]:
    """The commit of the code, and whether the tree had changes that it does not hold."""
    return checkout().tags()


def machine_tags() -> dict[str, str]:
    """Host, processor, device, threads and package versions."""
    import torch

    return {
        "host": platform.node(),
        "cpu": cpu_name(),
        "cpu_count": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "package.python": platform.python_version(),
        **_versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[f"package.{name}"] = metadata.version(name)
    return versions


def script() -> Path | None:
    """The script that runs; None in a notebook or at a prompt."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute() if file else None


def script_tags() -> dict[str, str]:
    """Who runs which script, as MLflow names it."""
    file = script()
    source = {"mlflow.source.name": str(file or "notebook"), "mlflow.source.type": "LOCAL" if file else "NOTEBOOK"}
    return {"mlflow.user": user_name(), **source}


def cpu_name() -> str:
    """The processor as its maker names it, where the system tells."""
    found = re.search(r"model name\s*:\s*(.+)", _content(CPU_INFO))
    return found[1] if found else platform.processor() or platform.machine() or "unknown"


def _content(path: Path) -> str:
    """The content of a file that other systems do not have; nothing there."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@functools.cache
def installed() -> tuple[str, ...]:
    """Every installed package as `name==version`, as this process found them first: to look takes 0.3 s."""
    return tuple(sorted({f"{each.name}=={each.version}" for each in metadata.distributions()}, key=str.lower))
