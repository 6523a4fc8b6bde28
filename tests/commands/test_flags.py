"""Knobs as flags and as a file: what was typed arrives, the flag wins, and every wrong word is told."""

import pytest

from pipeline import cli
from pipeline.commands import flags
from pipeline.commands.parsing import Parser
from pipeline.config import KNOBS, ConfigError, RunConfig
from pipeline.config.signatures import FLAGS


def parsed(*words):
    return flags.parse_knobs(Parser("train"), list(words))


def test_options_are_told_from_knobs(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\n")
    options, values = parsed("--config", f"{tmp_path}/a.yaml", "--resume", "last", "--project_defaults", "--seed", "3")
    assert vars(options).items() >= {"config": {"epochs": 3}, "resume": "last", "project_defaults": True}.items()
    assert values == {"seed": "3"}
    options, values = parsed()
    assert vars(options) == {"config": None, "resume": None, "project_defaults": False}
    assert values == {}


@pytest.mark.parametrize(
    "words", [["stray", "--epoch=3"], ["--epochs", "many"], ["--dropout=2", "--epoch", "--seed=1"]]
)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_given_whatever_else_is_wrong(capsys, words, word):
    for asked in ([word, *words], [*words, word]):
        assert cli.main(["train", *asked]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("usage: python -m pipeline train [--config FILE] [--KNOB VALUE ...]\n")
        assert err == ""


def test_values_may_begin_with_a_dash_and_hold_equals_signs():
    _, values = parsed("--seed", "-1", "--data-dir", "a=b", "--model_name=x=y", "--run_name", "-x", "--data-name=")
    assert values == {"seed": "-1", "data_dir": "a=b", "model_name": "x=y", "run_name": "-x", "data_name": ""}


def test_flags_are_not_abbreviated_and_every_wrong_word_is_told():
    with pytest.raises(ConfigError) as caught:
        parsed("--learning=0.1", "--epoch=3", "--confi=x", "stray", "--dropout", "2")
    assert caught.value.problems == [
        "unknown flag '--learning'; did you mean --learning_rate?",
        "unknown flag '--epoch'; did you mean --epochs?",
        "unknown flag '--confi'; did you mean --config?",
        "what is 'stray'? Knobs are given as --name value",
        "dropout 2.0 is out of range: at least 0, below 1",
    ]
    with pytest.raises(ConfigError) as caught:
        parsed("--resum=x", "--dropout", "0.3")
    assert caught.value.problems == ["unknown flag '--resum'; did you mean --resume?"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs"], "--epochs has no value"),
        (["--epochs", "--seed", "1"], "--epochs has no value: the next word is --seed"),
        (["--batch-size", "--seed", "1"], "--batch_size has no value: the next word is --seed"),
        (["--help=yes"], "argument -h/--help: ignored explicit argument 'yes' (see python -m pipeline train --help)"),
    ],
)
def test_a_flag_without_its_value_is_told(words, message):
    with pytest.raises(ValueError, match=r"has no value|ignored") as caught:
        parsed(*words)
    assert str(caught.value) == message


def test_an_unknown_flag_without_a_value_is_an_unknown_flag():
    for words in (["--epoch"], ["--epoch", "--seed=1"]):
        with pytest.raises(ConfigError) as caught:
            parsed(*words)
        assert caught.value.problems == ["unknown flag '--epoch'; did you mean --epochs?"]


def test_the_flag_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    path = tmp_path / "knobs.yaml"
    path.write_text("epochs: 5\ndropout: 0.5\n")
    file = flags.read_knobs(path)
    assert flags.given_knobs({"epochs": "7"}, file) == {"epochs": "7", "dropout": "0.5"}
    given = {"epochs": "20", "dropout": "0.3"}
    assert flags.given_knobs(given, file) == given
    assert flags.given_knobs(given, file, project_defaults=True) == {"epochs": 5, "dropout": "0.3"}
    assert flags.given_knobs(given, None, project_defaults=True) == {"dropout": "0.3"}


def test_only_what_repeats_its_own_default_is_left_out():
    given = {"epochs": "20", "seed": 1, "batch_size": "20", "dropout": 0.25}
    assert flags.given_knobs(given, None, project_defaults=True) == {"batch_size": "20", "dropout": 0.25}


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


def test_the_help_lists_usage_options_and_every_knob_with_its_facts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # a knob a line
    monkeypatch.setenv("MNIST_DIR", "/100 % mine")
    assert cli.main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "usage: python -m pipeline train [--config FILE] [--KNOB VALUE ...]",
        "       python -m pipeline train --resume RUN [--epochs MORE]",
        "",
        "train once, record the run in MLflow, register the model; or resume a run",
    ]
    options, knobs = lines[6 : lines.index("knobs:") - 1], lines[lines.index("knobs:") + 1 :]
    assert [line.split()[0] for line in options] == ["-h,", "--resume", "--config"]
    assert [line.split()[0] for line in knobs] == [f"--{name}" for name in KNOBS]
    facts = {
        "dropout": "(at least 0, below 1; default: 0.2)",
        "epochs": "(at least 1; default: 20)",
        "model_name": "(default: auto)",
        "run_name": "(default: empty)",
        "keep_best": "(default: False)",
        "data_dir": "(default: /100 % mine)",
        "dataset": "(one of mnist, fashion_mnist, kmnist, digits, folder, table, or a function of your own, "
        "module:name; default: mnist)",
    }
    told = {line.split()[0].removeprefix("--"): line.split(maxsplit=1)[1] for line in knobs}
    for name, words in facts.items():
        assert told[name] == f"{KNOBS[name].description} {words}"


def test_folders_of_the_home_are_written_out_in_every_path_that_is_typed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    words = ["--data_dir=~/data", "--runs_dir=~/runs", "--resume=~/runs/1", "--run_name=~/x"]
    options, values = parsed(*words)
    config = RunConfig.from_mapping(values)
    assert (config.data_dir, config.runs_dir, config.run_name) == ("/home/ada/data", "/home/ada/runs", "~/x")
    assert options.resume == "/home/ada/runs/1"
    with pytest.raises(ValueError, match=r"config file /home/ada/knobs\.yaml cannot be read"):
        parsed("--config=~/knobs.yaml")


def test_every_wrong_word_is_told_beside_knobs():
    with pytest.raises(ConfigError) as caught:
        parsed("--dropout=0.1", "-x", "--batch-sise=1")
    assert caught.value.problems == [
        "unknown flag '-x'; see --help",
        "unknown flag '--batch-sise'; did you mean --batch_size?",
    ]


def test_flags_of_any_subcommand_are_written_with_dashes_or_underscores_and_take_values_that_begin_with_a_dash():
    parser = Parser("sync").with_runs_dir()
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--as-new", action="store_true")
    for typed in ("--as-new", "--as_new"):
        options = parser.read(["a", typed, "b", "--runs-dir", "-x"])
        assert vars(options) == {"runs": ["a", "b"], "as_new": True, "runs_dir": "-x"}
    with pytest.raises(ConfigError) as caught:
        parser.read(["--as_gnu", "--run-dir", "x", "-r"])
    assert caught.value.problems == [
        "unknown flag '--as_gnu'; did you mean --as-new?",
        "unknown flag '--run-dir'; did you mean --runs_dir?",
        "unknown flag '-r'; see --help",
    ]


def test_no_own_parameter_may_be_called_like_a_flag_of_train():
    parser = Parser("train")
    flags.parse_knobs(parser, [])
    assert sorted({action.dest for action in parser._actions} - KNOBS.keys() - flags.ELSEWHERE) == sorted(FLAGS)
