"""The rules of the house, held by a test: which module may import which."""

import ast

import pytest

from tests.conftest import ROOT

MODULES = {path.stem: path for path in (ROOT / "pipeline").glob("*.py") if path.stem not in ("__init__", "__main__")}
# From the bottom to the top: a module may import those on lines before its own.
LAYERS = [
    {"interrupts"},
    {
        "config",
        "record",
        "randomness",
        "predictor",
        "speed",
        "datasets",
        "dropout",
        "optimizer",
        "pictures",
    },
    {"recovery", "registry", "network", "data", "checkpoints"},
    {"sender", "delivery", "console", "classifier", "export"},
    {"training", "tracking", "sync"},
    {"outcome", "reproduction"},
    {"workflow"},
    {"cli"},
]
LAZY = {("sender", "delivery")}  # the sender's own process imports MLflow's side, the training's does not
ONLY = {
    "mlflow": {"delivery", "registry", "predictor"},
    "argparse": {"cli", "tracking"},  # tracking: the type of Lightning's log_hyperparams
}
NEVER = {
    "config": {"torch", "numpy", "pytorch_lightning", "yaml"},
    "record": {"torch", "numpy", "pytorch_lightning", "mlflow"},
    "sender": {"torch", "numpy", "pytorch_lightning"},
    "network": {"pytorch_lightning", "mlflow"},
    "optimizer": {"pytorch_lightning", "mlflow"},
    "predictor": {"torch", "pipeline"},
    "delivery": {"torch", "pytorch_lightning"},
    "registry": {"torch", "pytorch_lightning"},
}


def imports_of(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "pipeline" else {base}
    return names


def test_every_module_has_its_layer():
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards_only(module):
    height = next(index for index, layer in enumerate(LAYERS) if module in layer)
    below = {name for layer in LAYERS[:height] for name in layer}
    ours = {name.split(".")[1] for name in imports_of(MODULES[module]) if name.startswith("pipeline.")}
    assert {name for name in ours if (module, name) not in LAZY} <= below


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_are_imported_only_where_they_belong(module):
    packages = {name.split(".")[0] for name in imports_of(MODULES[module])}
    for package, allowed in ONLY.items():
        assert package not in packages or module in allowed
    assert not packages & NEVER.get(module, set())


def test_functions_are_short_and_modules_are_rooms_not_halls():
    for path in MODULES.values():
        assert len(path.read_text().splitlines()) <= 300, path.name
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"
