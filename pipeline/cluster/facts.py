"""What must be the same on all nodes for their numbers to be the same, and for what one sends to be read by another."""

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata

from pipeline.recording.code_digest import code_digest

PACKAGES = ("ray", "torch", "pytorch-lightning", "numpy", "onnx", "onnxruntime", "pydantic")


def facts() -> dict[str, str]:
    """Versions of Python and of the packages, and the digest of the code, of this process."""
    found = {"Python": platform.python_version(), "the code": code_digest()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def difference(node: str, there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """`node 10.0.0.7 has torch 2.14.0, here is 2.14.1; ...`, or nothing."""
    names = [
        name for name in (*here, *(name for name in there if name not in here)) if here.get(name) != there.get(name)
    ]
    if not names:
        return ""
    told = ", ".join(f"{name} {there.get(name, 'missing')} (here {here.get(name, 'missing')})" for name in names)
    return f"node {node} has {told}; install the same everywhere: make ray"
