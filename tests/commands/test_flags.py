"""Knobs as flags and as a file: what was typed arrives, the flag wins, and every wrong word is told."""

import dataclasses

import pytest

from pipeline.commands import flags
from pipeline.config import ConfigError, RunConfig


def test_options_are_told_from_knobs():
    options, values = flags.parse_knobs(["--config", "a.yaml", "--resume", "last", "--project_defaults", "--seed", "3"])
    assert (
        vars(options).items() >= {"config": "a.yaml", "resume": "last", "project_defaults": True, "help": False}.items()
    )
    assert values == {"seed": "3"}
    options, values = flags.parse_knobs([])
    assert vars(options).items() >= {"config": None, "resume": None, "project_defaults": False, "help": False}.items()
    assert values == {}


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_given_whatever_else_is_wrong(word):
    options, _ = flags.parse_knobs([word, "stray", "--epoch=3"])
    assert options.help is True
    assert flags.parse_knobs(["--epochs", "3", word])[0].help is True


def test_values_may_begin_with_a_dash_and_hold_equals_signs():
    _, values = flags.parse_knobs(["--seed", "-1", "--data-dir", "a=b", "--model_name=x=y"])
    assert values == {"seed": "-1", "data_dir": "a=b", "model_name": "x=y"}


def test_flags_are_not_abbreviated_and_every_wrong_word_is_told():
    with pytest.raises(ConfigError) as caught:
        flags.parse_knobs(["--learning=0.1", "--epoch=3", "--confi=x", "stray", "--dropout", "2"])
    assert caught.value.problems == [
        "unknown flag '--learning'; did you mean 'learning_rate'?",
        "unknown flag '--epoch'; did you mean 'epochs'?",
        "unknown flag '--confi'; did you mean 'config'?",
        "what is 'stray'? Knobs are given as --name value",
        "dropout 2.0 is out of range: at least 0, below 1",
    ]
    with pytest.raises(ConfigError) as caught:
        flags.parse_knobs(["--resum=x", "--dropout", "0.3"])
    assert caught.value.problems == ["unknown flag '--resum'; did you mean 'resume'?"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs"], "--epochs has no value"),
        (["--epochs", "--seed", "1"], "--epochs has no value: the next word is --seed"),
        (["--help=yes"], "--help/-h: ignored explicit argument 'yes'"),
    ],
)
def test_a_flag_without_its_value_is_told(words, message):
    with pytest.raises(ValueError, match=r"has no value|ignored") as caught:
        flags.parse_knobs(words)
    assert str(caught.value) in (message, message.replace("--help/-h", "-h/--help"))


def test_the_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    file = tmp_path / "knobs.yaml"
    file.write_text("epochs: 5\ndropout: 0.5\n")
    config = flags.load_config({"epochs": "7"}, str(file))
    assert (config.epochs, config.dropout, config.seed) == (7, 0.5, RunConfig().seed)
    given = {"epochs": "20", "dropout": "0.3"}
    assert flags.load_config(given, str(file)).epochs == 20
    assert flags.load_config(given, str(file), project_defaults=True) == RunConfig(epochs=5, dropout=0.3)
    assert flags.load_config(given, None, project_defaults=True) == RunConfig(epochs=20, dropout=0.3)


def test_only_what_repeats_its_own_default_is_left_out():
    given = {"epochs": "20", "seed": 1, "batch_size": "20", "dropout": 0.25}
    assert flags.without_defaults(given) == {"batch_size": "20", "dropout": 0.25}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- epochs", " holds list, expected lines like `epochs: 20`"),
        (b"", " holds NoneType, expected lines like `epochs: 20`"),
        (b"\xff", ", line 1: is not UTF-8 text"),
        (b"a: [", " is not YAML (line 1: expected the node content, but found '<stream end>')"),
    ],
)
def test_a_file_that_holds_no_knobs_is_told_in_one_line(tmp_path, content, words):
    file = tmp_path / "knobs.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="config file") as caught:
        flags.read_knobs(file)
    assert str(caught.value).startswith(f"config file {file}{words}")
    assert str(caught.value).endswith("expected lines like `epochs: 20`")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ValueError, match="cannot be read") as caught:
        flags.read_knobs(tmp_path)
    expected = f"config file {tmp_path} cannot be read (Is a directory); give a YAML file of knobs"
    assert str(caught.value) == expected


def test_the_help_lists_usage_options_and_every_knob_with_its_facts():
    lines = flags.train_help().splitlines()
    assert lines[:10] == [
        "usage: python -m pipeline train [--config FILE] [--KNOB VALUE ...]",
        "       python -m pipeline train --resume RUN [--epochs MORE]",
        "",
        "Train once, record the run in MLflow, register the model; or go on with an interrupted run.",
        "",
        "  --resume RUN        `last`, a run folder, its name or its MLflow run id",
        "  --config FILE       YAML file of knobs; flags win over it (every run logs its own config.yaml)",
        "",
        "knobs:",
        lines[9],
    ]
    assert lines[9:11] == [
        "  --dataset           what to learn; digits is a small trial that needs no network",
        "                      (one of mnist, fashion_mnist, kmnist, digits; default: mnist)",
    ]
    fields = {knob.name: knob for knob in dataclasses.fields(RunConfig)}
    assert [line.split()[0] for line in lines[9::2]] == [f"--{name}" for name in fields]
    at = lines.index(f"  --dropout           {fields['dropout'].metadata['meaning']}")
    assert lines[at + 1] == " " * 22 + "(at least 0, below 1; default: 0.2)"
    at = lines.index(f"  --model_name        {fields['model_name'].metadata['meaning']}")
    assert lines[at + 1] == " " * 22 + "(default: auto)"
    at = lines.index(f"  --run_name          {fields['run_name'].metadata['meaning']}")
    assert lines[at + 1] == " " * 22 + "(default: empty)"
    at = lines.index(f"  --keep_best         {fields['keep_best'].metadata['meaning']}")
    assert lines[at + 1] == " " * 22 + "(default: False)"


def test_folders_of_the_home_are_written_out_in_every_path_that_is_typed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["--data_dir=~/data", "--runs_dir=~/runs", "--config=~/knobs.yaml", "--resume=~/runs/1", "--run_name=~/x"]
    options, values = flags.parse_knobs(words)
    assert values == {"data_dir": "/home/ada/data", "runs_dir": "/home/ada/runs", "run_name": "~/x"}
    assert (options.config, options.resume) == ("/home/ada/knobs.yaml", "/home/ada/runs/1")


def test_a_wrong_word_beside_help_is_no_mistake_and_beside_knobs_all_is_told(monkeypatch):
    assert flags.parse_knobs(["--help", "--epoch=3", "--dropout=2"])[1] == {"dropout": "2"}
    with pytest.raises(ConfigError) as caught:
        flags.parse_knobs(["--dropout=0.1", "-x", "--batch-sise=1"])
    assert caught.value.problems == [
        "unknown flag '-x'",
        "unknown flag '--batch-sise'; did you mean 'batch_size'?",
    ]
