"""What a run's record says of where its numbers came from: commit, code, packages, machine."""

import ast
import functools
import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "mlflow", "numpy", "onnxruntime")
HERE = Path(__file__).parent

# The modules whose code decides a training's numbers. A change elsewhere leaves finished runs comparable and reusable.
DECIDING = (
    "backprop",
    "building",
    "classifier",
    "data",
    "datasets",
    "dropout",
    "network",
    "optimizer",
    "randomness",
    "speed",
    "training",
)


@functools.cache
def code_digest() -> str:
    """Twelve hex digits of the code (comments and layout left out) and of the torch version that decide the numbers."""
    parts = [ast.unparse(ast.parse((HERE / f"{name}.py").read_text())) for name in DECIDING]
    return hashlib.sha256("\0".join([metadata.version("torch"), *parts]).encode()).hexdigest()[:12]


def git(*words: str) -> str:
    """What git says of the project's tree, or nothing where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def git_tags() -> dict[str, str]:
    """The commit of the code, and whether the tree had changes that it does not hold."""
    commit = git("rev-parse", "HEAD").strip()
    if not commit:
        return {"git.commit": "unknown"}
    dirty = "true" if git("status", "--porcelain").strip() else "false"
    return {"git.commit": commit, "git.dirty": dirty, "mlflow.source.git.commit": commit}


def machine_tags() -> dict[str, str]:
    """Host, processor, device, threads and package versions."""
    import torch

    versions = {f"package.{name}": metadata.version(name) for name in PACKAGES}
    return {
        "host": platform.node(),
        "cpu": cpu_name(),
        "cpu_count": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "package.python": platform.python_version(),
        **versions,
    }


def cpu_name() -> str:
    """The processor as its maker names it, where the system tells."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def installed() -> list[str]:
    """Every installed package as `name==version`."""
    return sorted({f"{each.name}=={each.version}" for each in metadata.distributions()}, key=str.lower)
