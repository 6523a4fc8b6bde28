import dataclasses

import pytest

from pipeline.config import ConfigError, RunConfig
from pipeline.values import did_you_mean, range_text


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
        ("epochs", "1e300", f"epochs 1{'0' * 59}... (301 characters) is out of range: at least 1, at most 9.0072e+15"),
        ("epochs", "9" * 400, f"epochs {'9' * 60}... (400 characters) is out of range: at least 1, at most 9.0072e+15"),
        ("epochs", "9" * 10**6, f"epochs '{'9' * 59}... (1,000,002 characters) is not a whole number"),
        ("batch_size", 2**53 + 1, "batch_size 9007199254740993 is out of range: at least 1, at most 9.0072e+15"),
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
        ("seed", 2**32, "seed 4294967296 is out of range: at least 0, at most 4.29497e+09"),
        ("keep_best", "maybe", "keep_best 'maybe' is not true or false"),
        ("dataset", "mnis", "dataset 'mnis' is not one of mnist, fashion_mnist, kmnist, digits; did you mean 'mnist'?"),
        ("matmul_precision", "best", "matmul_precision 'best' is not one of auto, highest, high, medium"),
        ("data_dir", ["a"], "data_dir ['a'] is not text"),
        ("hidden_unit", 3, "unknown knob 'hidden_unit'; did you mean 'hidden_units'?"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(name, value, problem):
    assert problems_of(**{name: value}) == [problem]


@pytest.mark.parametrize("knob", ["early_stopping", "keep_best"])
def test_nothing_is_selected_on_the_test_set(knob):
    (problem,) = problems_of(**{knob: 1})
    assert problem.startswith(f"{knob} needs validation_size above 0: without held-out images it would select on")
    assert getattr(RunConfig.from_mapping({knob: 1, "validation_size": 100}), knob) == 1


def test_mnist_dir_is_the_default_of_data_dir_for_mnist_alone(monkeypatch):
    assert RunConfig().data_dir == "data"
    monkeypatch.setenv("MNIST_DIR", "/somewhere")
    assert RunConfig().data_dir == "/somewhere"
    assert RunConfig(data_dir="here").data_dir == "here"
    assert RunConfig(dataset="fashion_mnist").data_dir == RunConfig(dataset="digits").data_dir == "data"


def test_data_of_ones_own_have_a_name_of_their_own():
    assert RunConfig(data_name="my_digits").named_after("MLP").model_name == "my-digits-mlp"
    for name, words in (("kmnist", "is that of known data"), ("a b", "is not a name"), ("a/b", "is not a name")):
        with pytest.raises(ConfigError, match=words):
            RunConfig(data_name=name)
    with pytest.raises(ConfigError, match="comes with scikit-learn"):
        RunConfig(data_name="mine", dataset="digits")


def test_the_registered_model_is_named_after_dataset_and_network_unless_given():
    assert RunConfig().named_after("MLP").model_name == "mnist-mlp"
    assert RunConfig(dataset="fashion_mnist").named_after("CNN").model_name == "fashion-mnist-cnn"
    assert RunConfig(dataset="digits", model_name="mine").named_after("MLP").model_name == "mine"
    assert RunConfig(model_name="").named_after("MLP").model_name == ""


def test_a_config_survives_its_own_mapping():
    config = RunConfig(epochs=3, dropout=0.5, keep_best=True, validation_size=10)
    assert RunConfig.from_mapping(config.as_dict()) == config


def test_every_knob_has_a_meaning_and_a_default_within_its_range():
    for knob in dataclasses.fields(RunConfig):
        assert knob.metadata["meaning"]
    assert (
        range_text(next(knob for knob in dataclasses.fields(RunConfig) if knob.name == "rho")) == "at least 0, below 1"
    )


def test_did_you_mean_stays_silent_when_nothing_is_close():
    assert did_you_mean("zzz", ["epochs"]) == ""
