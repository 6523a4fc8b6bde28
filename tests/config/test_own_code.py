"""Code of a user's own by import path: found, its parameters taken for knobs, and what is wrong told in one line."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import cli
from pipeline.commands import flags
from pipeline.commands.parsing import Parser
from pipeline.config import ConfigError, RunConfig, own_code
from pipeline.config.own_code import OwnCodeError

NET = """
from typing import Annotated, Literal
from pydantic import Field

class Net:
    def __init__(self, spec, channels: Annotated[int, Field(ge=1, le=64, description="filters")] = 16, rate=0.5,
                 kind: Literal["wide", "deep"] = "wide", bias: bool = True, **rest):
        pass

def needs(spec, depth: int): pass
def clash(spec, epochs: int = 3): pass
def strange(spec, sizes: list = (1, 2)): pass
def nothing(): pass
def flag(spec, config: str = "x"): pass
def switch(spec, resume: bool = False): pass
def helps(spec, help: str = ""): pass
def defaults(spec, project_defaults: int = 1): pass
def attribute(spec, replace: bool = True): pass
def hidden(spec, _depth: int = 1): pass
value = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with code of the user's own, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "my_net.py").write_text(NET)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def write(folder, sources):
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)


def files(here, *names):
    return [path.relative_to(here).as_posix() for path in own_code.files_of(names)]


def problems(**knobs):
    with pytest.raises((ConfigError, OwnCodeError)) as caught:
        RunConfig(**knobs)
    return getattr(caught.value, "problems", [str(caught.value)])


def test_the_parameters_of_a_network_are_knobs_with_their_ranges_and_defaults():
    config = RunConfig(network="my_net:Net", channels="32", kind="deep")
    own = {"channels": 32, "rate": 0.5, "kind": "deep", "bias": True}
    assert config.own_knobs("network") == own
    assert config.as_dict().items() >= own.items()
    assert "hidden_units" not in config.as_dict()
    assert RunConfig.from_mapping({name: str(value) for name, value in config.as_dict().items()}) == config
    assert problems(network="my_net:Net", channels=65, rate="x", kind="tall", bias="maybe") == [
        "bias 'maybe' is not true or false",
        "channels 65 is out of range: at least 1, at most 64",
        "kind 'tall' is not one of wide, deep",
        "rate 'x' is not a number",
    ]


def test_a_knob_that_only_another_network_has_is_refused_by_name():
    assert problems(network="my_net:Net", hidden_units=5) == [
        "hidden_units is a knob of network mlp, which is not the one that was chosen"
    ]
    assert problems(network="cnn", channel=5) == ["unknown knob 'channel'; did you mean 'channels'?"]
    assert problems(image_size=64) == ["image_size is a knob of dataset folder, which is not the one that was chosen"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_nett:Net", "no module my_nett in .* or installed; did you mean 'my_net'"),
        ("my_net:Ned", "my_net.py has no Ned; did you mean 'Net'"),
        ("my_net:value", "value in .*my_net.py is int, expected a function or a class"),
        ("my_net:strange", "its parameter sizes is list, which no flag can give: expected int, float, bool, str"),
        ("my_net:nothing", "takes no argument; the first is what the pipeline gives it"),
        ("my_net:", "is not module:function, like my_flowers:flowers"),
        ("my net:Net", "is not module:function, like my_flowers:flowers"),
        ("my_net:clash", "my_net:clash has a parameter epochs, which is a knob of every training already"),
        ("my_net:needs", "depth is missing: it has no default"),
        ("my_net:flag", "^my_net:flag has a parameter config, which is a flag of train already; call it otherwise$"),
        ("my_net:switch", "has a parameter resume, which is a flag of train already; call it otherwise"),
        ("my_net:helps", "has a parameter help, which is a flag of train already; call it otherwise"),
        ("my_net:defaults", "has a parameter project_defaults, which is a flag of train already; call it otherwise"),
        ("my_net:attribute", "has a parameter replace, which is an attribute of the config already; call it otherwise"),
        (
            "my_net:hidden",
            "has a parameter _depth, which begins with an underscore, as no knob does; call it otherwise",
        ),
        ("my_net.deeper:Net", "no module my_net.deeper in .* or installed"),
        ("my_lacking.nets:Net", "no module my_lacking.nets in .* or installed"),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(name, words):
    (problem,) = problems(network=name)
    assert re.search(words, problem)
    assert "\n" not in problem


def test_a_module_that_python_has_no_file_of_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_main", ModuleType("my_main"))
    assert problems(network="my_main:Net")[0].startswith("my_main:Net: no module my_main in ")


def test_two_owners_of_one_knob_are_told(here):
    (here / "my_data.py").write_text("def data(data_dir, channels: int = 3): pass\n")
    assert problems(network="my_net:Net", dataset="my_data:data") == [
        "my_net:Net has a parameter channels, which is a knob of my_data:data already; call it otherwise"
    ]


def test_an_error_of_the_module_itself_is_raised_whole(here):
    (here / "my_broken.py").write_text("import json\njson.loads('{')\n")
    with pytest.raises(ValueError, match="Expecting property name") as caught:
        own_code.load("my_broken:x")
    assert own_code.raised_in_own(caught.value)
    assert own_code.place_of(caught.value, "my_broken:x") == "my_broken.py:2"


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("import my_missing", ModuleNotFoundError, "No module named 'my_missing'"),
        ("import my_garden.missing", ModuleNotFoundError, "No module named 'my_garden.missing'"),
        ("int('three')", ValueError, "invalid literal for int"),
    ],
)
def test_an_error_of_a_package_on_the_way_to_the_module_is_raised_whole(here, source, error, words):
    write(here, {"my_garden/__init__.py": f"\n{source}\n", "my_garden/nets.py": "Net = dict\n"})
    with pytest.raises(error, match=words) as caught:
        own_code.load("my_garden.nets:Net")
    assert own_code.raised_in_own(caught.value)
    assert (here / "my_garden/__init__.py", 1) in [(Path(each.path), each.lineno) for each in caught.traceback]


NETS = """
import functools

class Net:
    def __init__(self, spec):
        raise ValueError("no such width")

def plain(call):
    return functools.wraps(call)(lambda *given: call(*given))

@plain
def net(spec):
    return Net(spec)
"""


@pytest.mark.parametrize("name", ["Net", "net"])
def test_an_error_of_what_another_module_hands_on_has_the_place_that_it_came_from(here, name):
    write(here, {"my_garden/__init__.py": "from my_garden.nets import Net, net\n", "my_garden/nets.py": NETS})
    make = own_code.load(f"my_garden:{name}")
    with pytest.raises(ValueError, match="no such width") as caught:
        make(None)
    assert own_code.raised_in_own(caught.value)
    assert own_code.place_of(caught.value, f"my_garden:{name}") == "nets.py:6"


def test_what_has_no_source_is_loaded_all_the_same(here):
    write(here, {"my_parts.py": "from functools import partial\nmake = partial(int, base=2)\ncount = len\n"})
    assert own_code.load("my_parts:make")("11") == 3
    assert own_code.load("my_parts:count") is len


def test_an_error_of_ours_out_of_a_users_module_stays_one_line(here):
    (here / "my_data.py").write_text(
        "from pipeline.data import Dataset\n\n\ndef data(data_dir):\n    return Dataset(([[1]], [0]), ([[1]], [0]))\n"
    )
    from pipeline.data import DataError, datasets

    with pytest.raises(DataError, match=r"^my_data:data \(my_data.py:5\): train has images of shape") as caught:
        datasets.load("my_data:data", here)
    assert not own_code.raised_in_own(caught.value)


def test_help_shows_the_knobs_of_the_network_that_is_given(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["train", "--network", "my_net:Net", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.lstrip().startswith("--channels")]
    assert line.split(maxsplit=1)[1] == "filters (at least 1, at most 64; default: 16)"
    assert not [line for line in lines if "--hidden_units" in line]


def test_the_files_of_a_module_are_its_own_and_what_it_imports_from_beside_it(here):
    (here / "my_model.py").write_text("import json, my_parts.layers\nfrom my_net import Net\n")
    (here / "my_parts").mkdir()
    (here / "my_parts/layers.py").write_text("import my_model\n")
    found = own_code.files_of(["my_model:x"])
    assert [path.relative_to(here).as_posix() for path in found] == ["my_model.py", "my_net.py", "my_parts/layers.py"]


GARDEN = {
    "my_garden/__init__.py": "from my_garden.nets import Net\n",
    "my_garden/nets.py": "from my_garden.layers import K\nNet = dict\n",
    "my_garden/layers.py": "import torch\nfrom my_tools import depth\nK = 1\n",
    "my_garden/other.py": "",
    "my_tools/depth.py": "",
    "my_tools/other.py": "",
}


@pytest.mark.parametrize("name", ["my_garden:Net", "my_garden.nets:Net"])
def test_the_files_of_a_module_in_a_package_are_those_that_its_package_has_it_import(here, name):
    write(here, GARDEN)
    garden = ["my_garden/__init__.py", "my_garden/layers.py", "my_garden/nets.py"]
    assert files(here, name) == [*garden, "my_tools/depth.py"]


def test_a_relative_import_leads_as_many_folders_up_as_it_has_dots_and_packages_count_with_their_own_files(here):
    deep = "from ..layers import K\nfrom . import same\nfrom .... import beyond\n"
    write(here, GARDEN | {"my_garden/deep/nets.py": deep, "my_garden/deep/layers.py": "", "my_garden/deep/same.py": ""})
    write(here, {"my_garden/deep/__init__.py": "", "my_garden/same.py": "", "beyond.py": ""})
    assert files(here, "my_garden.deep.nets:Net") == [
        *("my_garden/__init__.py", "my_garden/deep/__init__.py", "my_garden/deep/nets.py"),
        *("my_garden/deep/same.py", "my_garden/layers.py", "my_garden/nets.py", "my_tools/depth.py"),
    ]


def test_a_relative_import_of_a_module_in_no_package_leads_to_no_file_beside_the_folder(here):
    write(here, {"my_model.py": "try:\n    from . import my_net\nexcept ImportError:\n    import my_net\n"})
    here.with_name(f"{here.name}.py").write_text("")
    assert files(here, "my_model:x") == ["my_model.py", "my_net.py"]


def test_files_of_this_pipeline_are_none_of_a_users_unless_they_are_named(here):
    sources = {"my_model.py": "from pipeline.data import Dataset\nimport pipeline.cli\n", "pipeline/cli.py": ""}
    write(here, sources | {"pipeline/__init__.py": "", "pipeline/data/__init__.py": ""})
    assert files(here, "my_model:x") == ["my_model.py"]
    (path,) = own_code.files_of(["pipeline.networks.mlp:MLP"])
    assert path.parts[-3:] == ("pipeline", "networks", "mlp.py")


def test_of_what_is_installed_only_its_own_package_is_looked_through_and_of_torch_nothing(here, monkeypatch):
    installed = here / "lib/site-packages"
    write(
        installed,
        GARDEN | {"my_single.py": "import my_tools.depth\n", "my_garden/deep.py": "from my_garden import Net"},
    )
    monkeypatch.syspath_prepend(str(installed))
    assert files(installed, "my_single:x") == ["my_single.py"]
    assert files(installed, "my_garden.layers:K") == ["my_garden/layers.py"]
    garden = ["my_garden/__init__.py", "my_garden/deep.py", "my_garden/layers.py", "my_garden/nets.py"]
    assert files(installed, "my_garden.deep:Net") == garden
    assert [path.parts[-2:] for path in own_code.files_of(["torch.optim:NAdam"])] == [("optim", "__init__.py")]


def test_files_are_in_the_order_of_their_places_wherever_the_folders_lie_that_they_are_found_under(here, monkeypatch):
    write(here, {"z/src/my_b/__init__.py": "", "z/src/my_b/nets.py": "", "my_a.py": "", "my_c.py": ""})
    monkeypatch.syspath_prepend(str(here / "z/src"))
    names = ["my_c:x", "my_b.nets:x", "my_a:x"]
    assert files(here, *names) == ["my_a.py", "z/src/my_b/__init__.py", "z/src/my_b/nets.py", "my_c.py"]


def test_what_mlproject_gives_of_itself_goes_with_any_network():
    given = ["--project_defaults", "--network", "my_net:Net", "--channels", "3", "--epochs", "20", "--dataset", "mnist"]
    options, values = flags.parse_knobs(Parser("train"), given)
    config = RunConfig.from_mapping(flags.given_knobs(values, options.config, options.project_defaults))
    assert config == RunConfig(network="my_net:Net", channels=3)


def test_the_network_of_a_file_brings_its_knobs_for_the_flags_over_it(here):
    (here / "knobs.yaml").write_text("network: my_net:Net\nchannels: 3\nepochs: 2\n")
    options, values = flags.parse_knobs(Parser("train"), ["--config", "knobs.yaml", "--channels", "4"])
    config = RunConfig.from_mapping(flags.given_knobs(values, options.config))
    assert config == RunConfig(network="my_net:Net", channels=4, epochs=2)


def test_a_flag_of_another_network_is_told_as_such(capsys):
    assert cli.main(["train", "--network", "cnn", "--hidden_units", "5"]) == 2
    assert capsys.readouterr().err == (
        "pipeline: hidden_units is a knob of network mlp, which is not the one that was chosen\n"
    )
