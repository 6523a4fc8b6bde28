"""The rules of the house, held by a test: which module may import which."""

import ast

import pytest

from pipeline.surroundings import DECIDING
from tests.conftest import ROOT

PACKAGE = ROOT / "pipeline"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
}
# From the bottom to the top: a module may import those on lines before its own.
LAYERS = [
    {
        "addresses",
        "bars",
        "checkout",
        "divergence",
        "dropout",
        "image_files",
        "imports",
        "inference",
        "interrupts",
        "launchers",
        "lines",
        "lookups",
        "naming",
        "optimizer",
        "outputs",
        "pictures",
        "predictor",
        "randomness",
        "searches",
        "serving.connections",
        "serving.hosts",
        "serving.images",
        "shell",
        "speed",
        "tracking_uri",
        "values",
        "yaml_files",
    },
    {
        "account",
        "archives",
        "comparison",
        "config",
        "connection",
        "journal",
        "known_data",
        "network",
        "promotion_lock",
        "serving.telemetry",
        "surroundings",
    },
    {
        "asking",
        "backprop",
        "building",
        "downloads",
        "export",
        "flags",
        "preflight",
        "questions",
        "record",
        "serving.gate",
        "tables",
    },
    {"charts", "checkpoints", "classifier", "datasets", "recovery", "store", "ui", "versions"},
    {"console", "data", "epoch_end", "registry", "report", "sender", "serving.follower", "serving.protocol", "steps"},
    {"answers", "candidates", "crew", "resend", "serving.batcher", "tracking", "training", "writer"},
    {"delivery", "outcome", "progress", "promotion", "reproduction", "serving.app"},
    {"experiment", "recording", "serving.server", "sync"},
    {"worker", "workflow"},
    {"cli"},
]
# The sender's own process imports MLflow's side, the training's does not.
LAZY = {("sender", "delivery"), ("sender", "connection")}
ONLY = {
    "mlflow": {
        "asking",
        "candidates",
        "connection",
        "delivery",
        "predictor",
        "promotion",
        "promotion_lock",
        "registry",
        "resend",
        "searches",
        "serving.follower",
        "store",
        "versions",
        "writer",
    },
    "argparse": {"cli", "flags", "tracking"},  # tracking: the type of Lightning's log_hyperparams
    "fastapi": {"serving.app"},
    "rich": {"bars", "progress", "promotion", "tables"},
}
LIGHT = {"torch", "pytorch_lightning"}
NEVER = {
    "config": {"torch", "numpy", "pytorch_lightning", "yaml"},
    "record": {"torch", "numpy", "pytorch_lightning", "mlflow"},
    "sender": {"torch", "numpy", "pytorch_lightning"},
    "backprop": {"pytorch_lightning", "mlflow"},
    "network": {"pytorch_lightning", "mlflow"},
    "optimizer": {"pytorch_lightning", "mlflow"},
    "predictor": {"torch", "pipeline"},
    "delivery": {"torch", "pytorch_lightning"},
    "registry": {"torch", "pytorch_lightning"},
    "comparison": {"mlflow", "matplotlib", *LIGHT},
    "experiment": LIGHT,
    **dict.fromkeys(("answers", "candidates", "crew", "promotion", "report", "store", "versions"), LIGHT),
    **{name: LIGHT for name in MODULES if name.startswith("serving")},
}


def imports_of(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            packages = ("pipeline", "pipeline.serving")
            names |= {f"{base}.{alias.name}" for alias in node.names} if base in packages else {base}
    return names


def test_every_module_has_its_layer():
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards_only(module):
    height = next(index for index, layer in enumerate(LAYERS) if module in layer)
    below = {name for layer in LAYERS[:height] for name in layer}
    ours = {name.removeprefix("pipeline.") for name in imports_of(MODULES[module]) if name.startswith("pipeline.")}
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


def test_the_code_that_decides_a_trainings_numbers_is_all_in_its_digest():
    """`surroundings.DECIDING`: whatever `training` imports of ours, but for what only names, writes or stops."""
    reached, waiting = set(), {"training"}
    while waiting:
        module = waiting.pop()
        reached.add(module)
        ours = {name.removeprefix("pipeline.") for name in imports_of(MODULES[module]) if name.startswith("pipeline.")}
        waiting |= ours - reached
    assert reached - set(DECIDING) == {
        "checkpoints",
        "config",
        "divergence",
        "interrupts",
        "journal",
        "lines",
        "record",
        "shell",
        "steps",
        "values",
    }
    assert set(DECIDING) <= reached
