"""RunConfig and its values: taken exactly up to the edges of their ranges, refused one step past, told in one line."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config
from pipeline.config import DATASETS, KNOBS, ROLES, ConfigError, RunConfig, as_recorded
from pipeline.config.words import choices_of, kind_of, range_of
from pipeline.mlflow_client.naming import problems_of as mlflow_problems
from pipeline.values import did_you_mean, exactly, unknown_name

BELOW_1, ABOVE_1 = math.nextafter(1, 0), math.nextafter(1, 2)
TINY = math.ulp(0.0)  # the smallest number above zero
HUGE = math.nextafter(math.inf, 0)
WHOLE = 2**53  # the largest whole number of any knob


def problems_of(**knobs):
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_mapping(knobs)
    return caught.value.problems


def test_defaults_are_the_keras_sample():
    config = RunConfig()
    sample = {"epochs": 20, "batch_size": 128, "hidden_units": 512, "hidden_layers": 2, "dropout": 0.2}
    sample |= {"optimizer": "rmsprop", "learning_rate": 1e-3, "rho": 0.9, "epsilon": 1e-7, "validation_size": 0}
    assert {name: getattr(config, name) for name in sample} == sample


def test_text_becomes_the_type_of_the_knob():
    config = RunConfig.from_mapping({"epochs": "5", "learning_rate": "1e-4", "devices": 2, "validation_size": "1e4"})
    assert (config.epochs, config.learning_rate, config.devices, config.validation_size) == (5, 1e-4, "2", 10_000)


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("seed", "010", 10),
        ("epochs", "+5", 5),
        ("epochs", "5.", 5),
        ("epochs", " 5 ", 5),
        ("epochs", "1e15", 10**15),
        ("batch_size", "9007199254740991.0", 9007199254740991),
        ("dropout", "-0.0", 0.0),
        ("dropout", ".5", 0.5),
    ],
)
def test_a_number_is_taken_exactly(name, typed, value):
    taken = getattr(RunConfig.from_mapping({name: typed}), name)
    assert repr(taken) == repr(value)


# Knob -> (values at the edges of its range, values one step past them).
EDGES = {
    "validation_size": ([0, WHOLE], [-1, WHOLE + 1]),
    "epochs": ([1, 1024, WHOLE], [0, WHOLE + 1]),
    "batch_size": ([1, 1024, WHOLE], [0, WHOLE + 1]),
    "hidden_units": ([1, 1024, WHOLE], [0, WHOLE + 1]),
    "hidden_layers": ([0, 1000], [-1, 1001]),
    "dropout": ([0.0, TINY, BELOW_1], [-TINY, 1.0]),
    "learning_rate": ([TINY, BELOW_1, 1.0, ABOVE_1, HUGE], [0.0, -TINY, math.inf]),
    "rho": ([0.0, TINY, BELOW_1], [-TINY, 1.0]),
    "epsilon": ([1e-30, 1.0, HUGE], [math.nextafter(1e-30, 0), 0.0, math.inf]),
    "momentum": ([0.0, TINY, BELOW_1], [-TINY, 1.0]),
    "weight_decay": ([0.0, TINY, HUGE], [-TINY, math.inf]),
    "gradient_clip": ([0.0, TINY, HUGE], [-TINY, math.inf]),
    "early_stopping": ([0, WHOLE], [-1, WHOLE + 1]),
    "seed": ([0, 2**32 - 1], [-1, 2**32]),
    "validation_seed": ([0, 2**32 - 1], [-1, 2**32]),
    "num_nodes": ([1, 1000], [0, -1]),
}


def test_the_edges_of_every_number_are_listed_here():
    assert set(EDGES) == {name for name in KNOBS if kind_of(KNOBS[name]) in (int, float)}


@pytest.mark.parametrize("as_typed", [lambda value: value, repr], ids=["value", "text"])
@pytest.mark.parametrize("name", EDGES)
def test_a_number_is_taken_at_the_edge_of_its_range_and_refused_one_step_past(name, as_typed):
    inside, outside = EDGES[name]
    held_out = {"validation_size": 1} if name != "validation_size" else {}  # without which nothing may be selected
    for value in inside:
        taken = getattr(RunConfig.from_mapping({name: as_typed(value), **held_out}), name)
        assert (taken, type(taken)) == (value, type(value))
    for value in outside:
        (problem,) = problems_of(**{**held_out, name: as_typed(value)})
        assert problem.startswith(f"{name} {value} is out of range: {range_of(KNOBS[name])}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seed", "at least 0, at most 4294967295"),
        ("learning_rate", "above 0"),
        ("dropout", "at least 0, below 1"),
        ("hidden_layers", "at least 0, at most 1000"),
        ("epsilon", "at least 1e-30"),
        ("on_divergence", "one of stop, continue"),
        ("data_dir", ""),
    ],
)
def test_a_range_is_told_in_words(name, words):
    assert range_of(KNOBS[name]) == words


def test_the_largest_whole_number_is_told_to_whoever_went_beyond_it_alone():
    for value, words in (
        (None, "at least 1"),
        (WHOLE, "at least 1"),
        (WHOLE + 1, "at least 1, at most 9007199254740992"),
    ):
        assert range_of(KNOBS["epochs"], *([] if value is None else [value])) == words
    assert range_of(KNOBS["hidden_layers"], WHOLE + 1) == "at least 0, at most 1000"


def test_what_is_wrong_can_be_asked_without_making_a_config():
    assert config.problems_of({"epochs": 3}) == []
    assert config.problems_of({"epochs": 0, "epoch": 3}) == problems_of(epochs=0, epoch=3)


def test_every_knob_has_its_role():
    assert list(ROLES) == list(KNOBS)
    assert {name for name, role in ROLES.items() if role.resumes == "larger"} == {"epochs"}
    assert not [
        name for name, role in ROLES.items() if role.groups and not role.decides
    ]  # another group is another run


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_is_taken_exactly_as_a_value_and_as_text(value):
    for typed in (value, repr(value), f" {value!r}\n"):
        assert exactly(typed, float) == value
    assert math.copysign(1, exactly(-0.0, float)) == 1


@given(st.integers(-(10**300), 10**300))
def test_any_whole_number_is_taken_exactly_however_it_is_written(value):
    for typed in (value, str(value), f"{value}.0", f"{value}e0", f"{value}0E-1"):
        assert exactly(typed, int) == value
        assert type(exactly(typed, int)) is int


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        *((word, True) for word in ("true", "YES", "On", "1", 1, True)),
        *((word, False) for word in ("FALSE", "no", "off", "0", 0, False)),
    ],
)
def test_true_and_false_are_taken_in_the_words_that_people_use(typed, value):
    assert exactly(typed, bool) is value


def test_a_value_may_have_ten_thousand_characters_and_no_more():
    text = "x" * 10_000
    assert exactly(f" {text} ", str) == text
    with pytest.raises(ValueError, match=r"^'x{59}\.\.\. \(10,003 characters\) is not text$"):
        exactly(text + "x", str)
    assert unknown_name("knob", "x" * 78, []) == f"unknown knob '{'x' * 78}'"
    assert unknown_name("knob", "x" * 79, []) == f"unknown knob '{'x' * 59}... (81 characters)"


def test_a_guess_is_made_of_a_flag_with_its_dashes_and_of_the_first_80_characters():
    assert (
        unknown_name("flag", "--batch-sise", ["batch_size"])
        == "unknown flag '--batch-sise'; did you mean 'batch_size'?"
    )
    name = "x" * 80
    assert did_you_mean("epoch", iter(["seed", "epochs", "epoch_s"])) == "; did you mean 'epochs'?"
    assert unknown_name("knob", name + "y" * 100, [name]).endswith(f"; did you mean {name!r}?")
    assert problems_of(dataset="digit")[0].endswith("; did you mean 'digits'?")


def test_a_guess_leaves_out_the_dashes_in_front_alone_and_takes_those_within_for_underscores():
    for name, known in (("--rh", "rho"), ("-X", "Xa"), ("b--", "a__")):
        assert unknown_name("flag", name, [known]) == f"unknown flag {name!r}; did you mean {known!r}?"
    assert unknown_name("flag", "rh--", ["rho"]) == "unknown flag 'rh--'"


def test_a_guess_looks_at_80_characters_exactly():
    known = "x" * 36 + "z" * 4  # of 80 characters 36 are just enough
    assert unknown_name("knob", "x" * 36 + "y" * 100, [known]).endswith(f"; did you mean {known!r}?")
    assert "did you mean" not in unknown_name("knob", "x" * 35 + "y" * 100, [known])
    assert did_you_mean("x" * 36 + "y" * 100, [known]) == f"; did you mean {known!r}?"


def test_all_problems_are_told_at_once():
    assert problems_of(epochs=-1, dropout=1.5, batch_size="many") == [
        "batch_size 'many' is not a whole number",
        "dropout 1.5 is out of range: at least 0, below 1",
        "epochs -1 is out of range: at least 1",
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("epochs", "2.5", "epochs '2.5' is not a whole number"),
        ("epochs", True, "epochs True is not a whole number"),
        ("learning_rate", "nan", "learning_rate nan is out of range: above 0"),
        ("epochs", "1e400", "epochs '1e400' is not a whole number"),
        ("epochs", "nan", "epochs 'nan' is not a whole number"),
        ("epochs", "1_000", "epochs '1_000' is not a whole number"),
        ("epochs", "１２", "epochs '１２' is not a whole number"),
        ("epochs", "0x10", "epochs '0x10' is not a whole number"),
        ("epochs", "", "epochs '' is not a whole number"),
        ("epochs", None, "epochs None is not a whole number"),
        (
            "epochs",
            "1e300",
            f"epochs 1{'0' * 59}... (301 characters) is out of range: at least 1, at most 9007199254740992",
        ),
        (
            "epochs",
            "9" * 400,
            f"epochs {'9' * 60}... (400 characters) is out of range: at least 1, at most 9007199254740992",
        ),
        ("epochs", "9" * 10**6, f"epochs '{'9' * 59}... (1,000,002 characters) is not a whole number"),
        ("batch_size", 2**53 + 1, "batch_size 9007199254740993 is out of range: at least 1, at most 9007199254740992"),
        ("batch_size", "9007199254740993.5", "batch_size '9007199254740993.5' is not a whole number"),
        ("hidden_layers", 10**6, "hidden_layers 1000000 is out of range: at least 0, at most 1000"),
        ("learning_rate", "1_0.5", "learning_rate '1_0.5' is not a number"),
        ("epsilon", "1e-40", "epsilon 1e-40 is out of range: at least 1e-30"),
        ("data_dir", "a\0b", "data_dir 'a\\x00b' is not text"),
        ("run_name", "x" * 10**6, f"run_name '{'x' * 59}... (1,000,002 characters) is not text"),
        ("dataset", "x" * 10**6, f"dataset '{'x' * 59}... (1,000,002 characters) is not text"),
        ("x" * 10**6, 1, f"unknown knob '{'x' * 59}... (1,000,002 characters)"),
        ("learning_rate", "inf", "learning_rate inf is out of range: above 0"),
        ("learning_rate", 0, "learning_rate 0.0 is out of range: above 0"),
        ("seed", 2**32, "seed 4294967296 is out of range: at least 0, at most 4294967295"),
        ("keep_best", "maybe", "keep_best 'maybe' is not true or false"),
        (
            "dataset",
            "mnis",
            "dataset 'mnis' is not one of mnist, fashion_mnist, kmnist, digits, folder, table, or a function of your "
            "own, module:name; did you mean 'mnist'?",
        ),
        ("matmul_precision", "best", "matmul_precision 'best' is not one of auto, highest, high, medium"),
        ("data_dir", ["a"], "data_dir ['a'] is not text"),
        ("hidden_unit", 3, "unknown knob 'hidden_unit'; did you mean 'hidden_units'?"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(name, value, problem):
    assert problems_of(**{name: value}) == [problem]


@pytest.mark.parametrize("name", ["early_stopping", "keep_best"])
def test_nothing_is_selected_on_the_test_set(name):
    assert problems_of(**{name: 1}) == [
        f"{name} needs validation_size above 0: without held-out images it would select on the test set, "
        "and the test result would no longer be an honest estimate"
    ]
    assert getattr(RunConfig.from_mapping({name: 1, "validation_size": 1}), name) == 1
    assert len(problems_of(early_stopping=1, keep_best=1)) == 2


def test_mnist_dir_is_the_default_of_data_dir_for_mnist_alone(monkeypatch):
    assert RunConfig().data_dir == "data"
    monkeypatch.setenv("MNIST_DIR", "/somewhere")
    assert RunConfig().data_dir == "/somewhere"
    assert RunConfig(data_dir="here").data_dir == "here"
    assert RunConfig(dataset="fashion_mnist").data_dir == RunConfig(dataset="digits").data_dir == "data"


def test_data_of_ones_own_have_a_name_of_their_own():
    assert RunConfig(data_name="my_digits").settled().model_name == "my-digits-mlp"
    for name in ("0", "A.b-c_D", "x" * 100):
        assert RunConfig.from_mapping({"data_name": name}).data_name == name
    for name in ("a b", "a/b", "_a", ".a", "-a", "ä", "x" * 101, "a\nb"):
        with pytest.raises(ConfigError) as caught:
            RunConfig(data_name=name)
        words = "is not a name of up to 100 letters, digits, dots, dashes, underscores"
        assert caught.value.problems == [f"data_name {name!r} {words}"]
    for name in DATASETS:
        assert problems_of(data_name=name) == [
            f"data_name {name!r} is that of known data; give --dataset {name}, or another"
        ]
    assert problems_of(data_name="mine", dataset="digits") == [
        "data_name goes with files of your own; dataset digits comes with scikit-learn and has none"
    ]


def test_the_registered_model_is_named_after_dataset_and_network_unless_given():
    assert RunConfig().settled().model_name == "mnist-mlp"
    assert RunConfig(dataset="fashion_mnist", network="cnn").settled().model_name == "fashion-mnist-cnn"
    assert RunConfig(dataset="digits", model_name="mine").settled().model_name == "mine"
    assert RunConfig(model_name="").settled().model_name == ""


def test_every_choice_of_a_knob_is_taken_and_nothing_else():
    for name in KNOBS:
        for word in choices_of(KNOBS[name]):
            assert getattr(RunConfig.from_mapping({name: word}), name) == word
            (problem,) = problems_of(**{name: word.upper() + "."})
            assert problem.startswith(
                f"{name} {word.upper() + '.'!r} is not one of {', '.join(choices_of(KNOBS[name]))}"
            )


def test_every_knob_has_a_meaning_and_a_default_within_its_range():
    for name, each in KNOBS.items():
        assert each.description
        assert RunConfig(**{name: each.default}) == RunConfig()
    assert mlflow_problems(RunConfig().settled().as_dict()) == []


def test_a_config_is_a_value_that_nobody_changes():
    config = RunConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3
    assert config.replace(epochs="3") == RunConfig(epochs=3) != config
    assert {config, RunConfig(epochs=20), RunConfig(seed=2)} == {config, RunConfig(seed=2)}
    with pytest.raises(ConfigError, match=r"^epochs 0 is out of range: at least 1$"):
        config.replace(epochs=0)


def test_what_is_wrong_together_is_told_beside_what_is_wrong_alone():
    assert [line.split()[0] for line in problems_of(keep_best="yes", dropout=2, early_stoping=1)] == [
        "dropout",
        "keep_best",
        "unknown",
    ]
    # of a knob that is wrong itself nothing more can be said
    assert problems_of(keep_best="yes", validation_size="some") == ["validation_size 'some' is not a whole number"]
    assert problems_of(data_name="mine", dataset="digit")[0].startswith("dataset 'digit' is not one of")


def test_params_are_told_as_our_own_records_have_them_where_a_knob_takes_them():
    typed = {
        "learning_rate": "1e-3",
        "epochs": "5.0",
        "keep_best": "yes",
        "seed": " 1",
        "dropout": "much",
        "alpha": "1e-3",
    }
    assert as_recorded(typed) == {
        **{
            "learning_rate": "0.001",
            "epochs": "5",
            "keep_best": "True",
            "seed": "1",
            "dropout": "much",
            "alpha": "1e-3",
        }
    }
    own = {name: str(value) for name, value in RunConfig().as_dict().items()}
    assert as_recorded(own) == own


def test_one_problem_is_the_message_and_several_stand_below_each_other():
    assert str(ConfigError(["one"])) == "one"
    assert str(ConfigError(["one", "two"])) == "wrong input:\n  one\n  two"


def test_folders_of_the_home_are_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = RunConfig(data_dir="~/data", runs_dir="~")
    assert (config.data_dir, config.runs_dir) == ("/home/ada/data", "/home/ada")


def test_did_you_mean_stays_silent_when_nothing_is_close():
    assert did_you_mean("zzz", ["epochs"]) == ""
