"""The rules of the house, held by a test: which room may import which; and what others import of ours is there."""

import ast
import textwrap

import pytest

from pipeline.recording.code_digest import DECIDING
from tests.conftest import ROOT

PACKAGE = ROOT / "pipeline"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}
# From the bottom to the top: a room may import those on lines before its own. `root` is the package itself.
LAYERS = (
    {"root"},
    {"config", "terminal"},
    {"mlflow_client", "data", "networks", "optim"},
    {"fast_cpu"},
    {"tracking"},
    {"training", "registry"},
    {"recording"},
    {"delivery", "serving"},
    {"comparing"},
    {"analysis"},
    {"experiments"},
    {"cluster"},
    {"commands"},
    {"cli"},
)
# What else a room may not import of ours, though it lies below.
SELF_CONTAINED = {
    "networks": {"root"},
    "optim": {"root", "config"},
    "serving": {"root", "mlflow_client", "registry"},
    "tracking": {"root", "terminal"},
}
ONLY = {
    "mlflow": {"mlflow_client", "registry", "delivery", "serving", "analysis"},
    "argparse": {"commands", "tracking"},  # tracking: the type of Lightning's log_hyperparams
    "fastapi": {"serving"},
    "ray": {"cluster"},
    "rich": {"terminal", "experiments", "registry", "analysis"},
    "pytorch_lightning": {"data", "fast_cpu", "training", "tracking", "recording"},
    "torch": {"data", "networks", "optim", "fast_cpu", "tracking", "training"},
}
MOST_MODULES = 12
SCRIPTS = sorted(
    path
    for room in ("benchmarks", "docs", "examples")
    for pattern in ("*.py", "*/*.py")
    for path in (ROOT / room).glob(pattern)
)


def room_of(module):
    if module in ("cli", "__main__"):
        return "cli"
    return module.partition(".")[0] if "." in module else "root"


def imports_of(module):
    """The modules of ours and the packages that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("pipeline.") for name in names if name.startswith("pipeline.")}
    ours = {name if name in MODULES else name.rpartition(".")[0] for name in ours} & set(MODULES)
    return ours, {name.partition(".")[0] for name in names}


def programs_in(path):
    """The file's code, and that of its texts which it has other processes run."""
    tree = ast.parse(path.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [tree, *(ast.parse(textwrap.dedent(text)) for text in texts if "\nfrom pipeline" in text)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_scripts_take_of_ours_is_there(path):
    """No test runs the benchmarks whole."""
    for node in (node for program in programs_in(path) for node in ast.walk(program)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "pipeline":
            exec(compile(ast.Module([node], []), path, "exec"), {})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    room, (ours, packages) = room_of(module), imports_of(module)
    height = next(index for index, layer in enumerate(LAYERS) if room in layer)
    allowed = SELF_CONTAINED.get(room, set().union(*LAYERS[:height]))
    assert {room_of(name) for name in ours} - {room} <= allowed
    assert not {package for package, rooms in ONLY.items() if package in packages and room not in rooms}


def test_no_room_is_a_hall():
    rooms = [room_of(module) for module in MODULES]
    assert max(map(rooms.count, rooms)) <= MOST_MODULES
    for module, path in MODULES.items():
        assert len(path.read_text().splitlines()) <= 300, module
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{module}: {node.name}"


def test_the_model_that_mlflow_stores_needs_nothing_of_ours():
    ours, packages = imports_of("registry.predictor")
    assert not ours
    assert "torch" not in packages


def test_the_code_that_decides_a_trainings_numbers_is_all_in_its_digest():
    """`code_digest.DECIDING`: whatever `training.fit` imports of ours, but for what only names, writes or stops."""
    reached, waiting = set(), {"training.fit", "data.folder", "data.table"}  # the last two are imported by name
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= imports_of(module)[0] - reached
    deciding = {name.replace("/", ".") for name in DECIDING}
    assert reached - deciding == {
        "config.own_code",
        "config.signatures",
        "divergence",
        "files",
        "launchers",
        "machine",
        "training.checkpoints",
        "signals",
        "values",
    }
    assert deciding <= reached
