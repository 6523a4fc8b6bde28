"""What a config has of its network and dataset, what it names and reads, and which knobs do not go together."""

import sys

import pytest

from pipeline.config import COMMON, ConfigError, RunConfig, class_of, problems_of
from pipeline.config.run_config import class_with_knobs_of

CODE = """
from typing import Annotated
from pydantic import Field

def net(spec, depth: int, rate=0.5, part: Annotated[float, Field(lt=1.0)] = 0.5,
        even: Annotated[int, Field(multiple_of=2)] = 2,
        word: Annotated[str, Field(pattern="^a", max_length=3)] = "a"): pass
def clash(spec, seed: int = 3, image_size: int = 5, mine: int = 1): pass
def My_Flowers(data_dir): pass
"""
ALREADY = "already; call it otherwise"


@pytest.fixture(autouse=True)
def my_code(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_whole.py").write_text(CODE)
    yield
    sys.modules.pop("my_whole", None)


def problems(**knobs):
    with pytest.raises(ConfigError) as caught:
        RunConfig(**knobs)
    return caught.value.problems


def test_network_and_dataset_have_the_knobs_of_their_own_signatures():
    config = RunConfig(dataset="folder", image_size="64", network="cnn", dropout=0.25)
    assert config.own_knobs("dataset") == {"image_size": 64, "test_share": 0.2, "split_seed": 0}
    assert config.own_knobs("network") == {"channels": 32, "dropout": 0.25}
    assert RunConfig().own_knobs("dataset") == {}
    assert RunConfig(hidden_units=5).own_knobs("network") == {"hidden_units": 5, "hidden_layers": 2, "dropout": 0.2}


def test_the_knobs_of_every_training_stand_first_then_the_datasets_then_the_networks():
    names = list(RunConfig(dataset="folder", network="cnn").as_dict())
    assert names == [*COMMON, "image_size", "test_share", "split_seed", "channels", "dropout"]
    assert list(RunConfig().as_dict()) == [*COMMON, "hidden_units", "hidden_layers", "dropout"]
    assert class_of({}) is class_of({"network": "mlp", "epochs": 3}) is class_with_knobs_of("mnist", "mlp")
    assert class_of({"dataset": "folder"}) is class_with_knobs_of("folder", "mlp")


def test_the_knobs_of_the_data_say_which_are_read_and_nothing_of_the_training():
    assert RunConfig(data_dir="/d", seed=3).data_knobs() == {"dataset": "mnist", "data_dir": "/d", "data_name": ""}
    config = RunConfig(dataset="table", data_dir="/t", data_name="iris", target="kind", split_seed=4, network="cnn")
    which = {"dataset": "table", "data_dir": "/t", "data_name": "iris"}
    assert config.data_knobs() == {**which, "target": "kind", "test_share": 0.2, "split_seed": 4}


def test_own_code_is_every_import_path_once_sorted():
    assert RunConfig(run_name="a:b", data_dir="c:d").own_code() == []
    config = RunConfig(
        dataset="my_whole:My_Flowers",
        network="my_whole:net",
        depth=1,
        optimizer="z:step",
        schedule="b:rate",
        augment="b:noise",
        metric="z:share,macro_f1,a:share2",
        callback="z:step,b.c:Tells",
    )
    own = ["a:share2", "b.c:Tells", "b:noise", "b:rate", "my_whole:My_Flowers", "my_whole:net", "z:share", "z:step"]
    assert config.own_code() == own


def test_a_model_is_named_after_what_own_code_is_called_in_its_module():
    config = RunConfig(dataset="my_whole:My_Flowers", network="my_whole:net", depth=1)
    assert config.settled() == config.replace(model_name="my-flowers-net")
    assert RunConfig(dataset="folder", data_name="Cats_2", network="cnn").settled().model_name == "cats-2-cnn"


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        (
            {"optimizer": "nesterov"},
            ["momentum needs to be above 0 with optimizer nesterov, which looks ahead by it"],
        ),
        (
            {"metric": "macro_f1,my:macro_f1"},
            ["metric macro_f1 is called like loss, accuracy, a knob or another metric; call it otherwise"],
        ),
        (
            {"metric": "my:seed"},
            ["metric seed is called like loss, accuracy, a knob or another metric; call it otherwise"],
        ),
        (
            {"dataset": "my_whole:My_Flowers", "data_name": "mine"},
            ["data_name goes with files that have no name; my_whole:My_Flowers is one"],
        ),
        (
            {"schedule": "cosin"},
            [
                "schedule 'cosin' is not one of constant, cosine, step, or a function of your own, module:name; "
                "did you mean 'cosine'?"
            ],
        ),
        ({"callback": "mine"}, ["callback 'mine' is not a class, module:name"]),
        ({"callback": "my:A,b:"}, ["callback 'b:' is not module:function, like my_flowers:flowers"]),
        ({"dataset": "table"}, ["target is missing: it has no default"]),
    ],
)
def test_what_does_not_go_is_told_word_for_word(knobs, told):
    assert problems(**knobs) == told


def test_a_wrong_name_of_own_code_is_told_with_all_else_that_is_wrong():
    like = "is not module:function, like my_flowers:flowers"
    assert problems(dataset="my data:x", network=":Net", epochs=0) == [
        f"dataset 'my data:x' {like}",
        "epochs 0 is out of range: at least 1",
        f"network ':Net' {like}",
    ]


def test_code_that_is_not_there_is_a_problem_like_any_other(tmp_path):
    words = f"my_whole:nett: {tmp_path / 'my_whole.py'} has no nett; did you mean 'net'?"
    assert problems_of({"network": "my_whole:nett", "epochs": 3}) == [words]


def test_parameters_that_mean_something_else_already_are_told_all_at_once():
    with pytest.raises(ConfigError) as caught:
        RunConfig(dataset="folder", network="my_whole:clash")
    assert caught.value.problems == [
        f"my_whole:clash has a parameter seed, which is a knob of every training {ALREADY}",
        f"my_whole:clash has a parameter image_size, which is a knob of folder {ALREADY}",
    ]
    assert problems(network="my_whole:clash") == caught.value.problems[:1]


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"dataset": "table", "target": " "}, "target '' is out of range: length at least 1"),
        ({"word": "abcd"}, "word 'abcd' is out of range: length at most 3, of the form ^a"),
        ({"word": "b"}, "word 'b' is out of range: length at most 3, of the form ^a"),
        ({"even": 3}, "even 3 is out of range: a multiple of 2"),
        ({"part": 1}, "part 1.0 is out of range: below 1"),
        ({"rate": "inf"}, "rate inf is out of range: finite"),
    ],
)
def test_any_limit_that_a_signature_sets_is_told_to_whoever_missed_it(knobs, told):
    own = {} if "dataset" in knobs else {"network": "my_whole:net", "depth": 1}
    assert problems(**own, **knobs) == [told]
