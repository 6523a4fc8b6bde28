"""The command line as a person meets it: flags and file together, wrong words, help, exit codes."""

import argparse
import signal
import subprocess
import sys

import pytest
import yaml

from pipeline import cli, launchers
from pipeline.commands import flags, parsing
from pipeline.config import KNOBS, ConfigError, RunConfig
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.shell import UnreachableError
from tests.conftest import environment, run_pipeline


def loaded(*arguments):
    options, values = flags.parse_knobs(parsing.Parser("train"), list(arguments))
    return RunConfig.from_mapping(flags.given_knobs(values, options.config, options.project_defaults))


def test_flags_become_knobs_with_underscores_or_dashes():
    config = loaded("--epochs", "3", "--batch-size=64", "--hidden_units", "7")
    assert (config.epochs, config.batch_size, config.hidden_units) == (3, 64, 7)


def test_flags_win_over_the_config_file(tmp_path):
    (tmp_path / "knobs.yaml").write_text("epochs: 5\ndropout: 0.5\n")
    config = loaded("--config", "knobs.yaml", "--epochs", "20")
    assert (config.epochs, config.dropout) == (20, 0.5)


def test_defaults_that_mlproject_repeats_do_not_win_over_the_config_file(tmp_path):
    (tmp_path / "knobs.yaml").write_text("epochs: 5\ndropout: 0.5\n")
    config = loaded("--project_defaults", "--epochs", "20", "--dropout", "0.1", "--config", "knobs.yaml")
    assert (config.epochs, config.dropout) == (5, 0.1)


def test_a_logged_config_can_be_used_again(tmp_path):
    config = RunConfig(epochs=3, seed=7, model_name="")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.as_dict()))
    assert loaded("--config", "config.yaml") == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [", "is not YAML"),
        ("- epochs", "holds list, expected lines like `epochs: 20`"),
        ("epoch: 3", "unknown knob 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_wrong_config_file_is_told(tmp_path, content, message):
    (tmp_path / "knobs.yaml").write_text(content)
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("?", r"\?")):
        loaded("--config", "knobs.yaml")


def test_a_missing_config_file_is_told():
    with pytest.raises(ValueError, match=r"config file none\.yaml cannot be read \(No such file or directory\)"):
        loaded("--config", "none.yaml")


def test_unknown_flags_and_wrong_values_are_told_together():
    with pytest.raises(ConfigError) as caught:
        loaded("--epoch", "3", "--dropout", "1.5", "stray")
    assert caught.value.problems == [
        "unknown flag '--epoch'; did you mean --epochs?",
        "what is 'stray'? Knobs are given as --name value",
        "dropout 1.5 is out of range: at least 0, below 1",
    ]


@pytest.mark.parametrize("words", [["--epochs"], ["--epochs", "--seed", "1"]])
def test_a_flag_without_a_value_is_told(words):
    with pytest.raises(ValueError, match="--epochs has no value"):
        loaded(*words)


def test_wrong_input_ends_with_one_message_and_exit_code_2_before_anything_is_written(tmp_path):
    done = run_pipeline("train", "--epochs", "-1", "--dropout", "1.5", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "pipeline: wrong input:",
        "  dropout 1.5 is out of range: at least 0, below 1",
        "  epochs -1 is out of range: at least 1",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def here(monkeypatch):
    """This process is one that a person has started: it has imported already what takes a new one five seconds."""
    monkeypatch.setenv(launchers.OURS, "1")


def test_missing_data_ends_with_exit_code_2_and_leaves_no_run(here, tmp_path, capfd):
    (tmp_path / "afile").write_text("")
    assert cli.main(["train", "--data_dir", "afile"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("pipeline: data_dir afile is a file; expected the folder that holds train-images-idx3")
    assert err.count("\n") == 1
    assert list((tmp_path / "runs").iterdir()) == []


def test_hardware_that_is_not_there_is_told_before_a_run_begins(here, tmp_path, capfd):
    assert cli.main(["train", "--dataset", "digits", "--accelerator", "tpu"]) == 2
    told = "pipeline: Lightning cannot train with accelerator tpu, devices auto, num_nodes 1, strategy auto"
    assert told in capfd.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("convert", "taken", "refused", "words"),
    [
        (parsing.port, {"0": 0, "65535": 65535}, ["65536", "-1", "", "80.0"], "is not a port from 0 to 65535"),
        (
            parsing.seconds,
            {"0.05": 0.05, "3600": 3600.0, "1e0": 1.0},
            ["0.0499", "3600.1", "nan", "inf", "-1", "soon"],
            "is not a number of seconds from 0.05 to 3600",
        ),
        (
            parsing.count,
            {"1": 1, "1024": 1024, "auto": 0},
            ["0", "-1", "1.0", ""],
            "is not a whole number from 1, or auto",
        ),
    ],
)
def test_an_option_is_taken_up_to_its_edges_and_refused_past_them(convert, taken, refused, words):
    assert {text: convert(text) for text in taken} == taken
    for text in refused:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            convert(text)
        assert str(caught.value) == f"{text!r} {words}"


def test_the_experiment_verb_passes_on_what_was_typed(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pipeline.experiments.experiment.experiment", lambda *words, **how: asked.append((*words, how)) or 5
    )
    monkeypatch.setattr(cli, "set_launchers_aside", lambda: None)
    assert cli.main(["experiment", "a.yaml"]) == 5
    assert cli.main(["experiment", "a.yaml", "--jobs", "3", "--data_dir", "here", "--runs_dir=there"]) == 5
    assert cli.main(["experiment", "a.yaml", "--until", "decided"]) == 5
    whole, decided = ({"until_decided": word, "engine": None} for word in (False, True))
    assert asked == [
        ("a.yaml", 0, "runs", {}, whole),
        ("a.yaml", 3, "there", {"data_dir": "here"}, whole),
        ("a.yaml", 0, "runs", {}, decided),
    ]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("wrong"), 2, "pipeline: wrong\n"),
        (UnreachableError("no answer"), 3, "pipeline: no answer\n"),
        (BrokenPipeError(), 1, ""),
        (SystemExit("set FLOWERS_HOME first"), 2, "pipeline: set FLOWERS_HOME first\n"),
        (SystemExit(4), 4, ""),
        (SystemExit(), 0, ""),
        (Interrupted(signal.SIGTERM), 143, "pipeline: stopped by SIGTERM\n"),
        (Interrupted(signal.SIGINT), 130, "pipeline: stopped by Ctrl-C\n"),
    ],
)
def test_every_end_of_a_verb_has_its_exit_code_and_its_line(monkeypatch, capsys, error, code, told):
    def fail(parser, arguments):
        raise error

    monkeypatch.setattr("pipeline.commands.sync.main", fail)
    assert cli.main(["sync"]) == code
    assert capsys.readouterr() == ("", told)


def test_ctrl_c_waits_until_the_subcommand_is_imported(monkeypatch, capsys):
    done = []

    def load(name):
        signal.raise_signal(signal.SIGINT)
        done.append(name)

    monkeypatch.setattr(cli.importlib, "import_module", load)
    with interruptions():
        assert cli.main(["compare"]) == 130
    assert done == ["pipeline.commands.compare"]
    assert capsys.readouterr() == ("", "pipeline: stopped by Ctrl-C\n")


def test_an_unknown_verb_gets_a_guess(capsys):
    assert cli.main(["trian"]) == 2
    assert "unknown subcommand 'trian'; did you mean 'train'?" in capsys.readouterr().err


def test_help_explains_every_knob_with_range_and_default(capsys):
    assert cli.main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, knob in KNOBS.items():
        assert f"--{name} {knob.description} (" in text
    assert "(at least 0, below 1; default: 0.2)" in text
    shipped = "one of rmsprop, sgd, nesterov, adagrad, adadelta, adam, adamw"
    assert f"({shipped}, or a function of your own, module:name; default: rmsprop)" in text


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_help_has_a_word_for_every_flag(monkeypatch, name):
    without = []

    def format_help(parser):
        without.append([action.dest for action in parser._actions if not action.help])
        return ""

    monkeypatch.setattr(parsing.Parser, "format_help", format_help)
    assert cli.main([name, "--help"]) == 0
    assert without == [[]]


def test_promote_says_where_it_looks_for_data_that_are_no_images_of_digits(capsys):
    assert cli.main(["promote", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: where the champion's run found it; MNIST and its relatives as train finds them)" in text


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--epochs", "0"]])
def test_help_and_wrong_input_import_nothing_heavy(words):
    code = (
        "import sys; from pipeline.cli import main; main(sys.argv[1:]);"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow', 'numpy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
