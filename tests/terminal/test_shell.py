"""What is printed can be pasted, and what is typed arrives as it was typed."""

import os
import shlex
import shutil
import subprocess

import pytest

from pipeline import cli
from pipeline.commands import flags
from pipeline.commands.parsing import Parser
from pipeline.config import RunConfig
from pipeline.delivery import console, ui
from pipeline.mlflow_client.tracking_uri import sqlite_uri
from pipeline.terminal import shell
from pipeline.tracking.journal import Journal, RunFolder
from tests.conftest import ROOT

ODD = "my 'dir $HOME #1"


def pasted(line):
    """The words that a shell makes of a line, when `python`, `make` and `mlflow` are typed in it."""
    stub = 'say() { printf "%s\\n" "$@"; }; python() { say "$@"; }; mlflow() { say "$MLFLOW_TRACKING_URI" "$@"; }\n'
    return subprocess.run(["bash", "-c", stub + line], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def odd(tmp_path, monkeypatch):
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_command_names_the_runs_dir_unless_it_is_the_default_here(odd):
    assert shell.command("sync", runs_dir=odd / "runs") == "python -m pipeline sync"
    assert pasted(shell.command("sync", runs_dir=odd / ODD)) == ["-m", "pipeline", "sync", "--runs_dir", ODD]
    outside = odd.parent / "o u"
    assert pasted(shell.command("train", insecure=True, gpus=None))[-2:] == ["train", "--insecure"]
    assert pasted(shell.command("train", runs_dir=outside))[-2:] == ["--runs_dir", str(outside)]


def test_what_waits_is_delivered_by_the_printed_command(odd, capsys):
    folder = RunFolder(odd / ODD / "run")
    journal = Journal(folder)
    journal.append("start", tags={})
    console.tell_delivery(folder, delivered=False)
    line = capsys.readouterr().err.rpartition("answers again: ")[2]
    assert pasted(line) == ["-m", "pipeline", "sync", "--runs_dir", ODD]
    journal.close()


def test_the_next_lines_can_be_pasted_as_a_whole(odd):
    state = {"tracking_uri": f"sqlite:///{odd}/mlflow.db", "experiment_id": "7"}
    show, serve = console._next_commands(RunConfig(model_name="it's"), state)
    assert pasted(show)[1:] == ["ui", "--backend-store-uri", state["tracking_uri"]]
    assert show.endswith("/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=loss-and-accuracy")
    assert pasted(serve)[:5] == [state["tracking_uri"], "models", "serve", "-m", "models:/it's@champion"]


def test_from_elsewhere_paths_are_absolute_and_commands_go_to_the_project_first(odd, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "1")
    shell._standing_of.cache_clear()
    monkeypatch.setattr(shell, "_standing_of", lambda cwd, run_of_mlflow: None)
    assert shell.shown(odd / "runs") == str(odd / "runs")
    assert pasted(f"cd /; {shell.command('sync')}; pwd")[-1] == str(odd)


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c").write_text("epochs: 3")
    options, values = flags.parse_knobs(Parser("train"), ["--runs_dir=~/r", "--data_dir", "~/d", "--config", "~/c"])
    config = RunConfig.from_mapping(values)
    assert (config.runs_dir, config.data_dir) == tuple(f"{tmp_path}/{name}" for name in "rd")
    assert options.config == {"epochs": 3}
    assert cli.main(["sync", "--runs_dir", "~/r"]) == 0
    assert not (tmp_path / "~").exists()


def test_make_hands_values_on_as_they_were_typed(odd):
    shutil.copy(ROOT / "Makefile", odd)
    stubs = odd / ".venv/bin"
    stubs.mkdir(parents=True)
    (odd / "requirements.lock").touch()
    for name in ("mlflow", "python"):
        (stubs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (stubs / name).chmod(0o755)
    (odd / ".venv/installed").touch()
    value = '/my data/it\'s $HOME "#1" ~'

    def make(*words):
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
        return subprocess.run(
            ["make", *words], env=kept, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert make("train", f"DATA_DIR={value}", "EPOCHS=2", "ARGS=-P run_name='a b'")[6:] == [
        *("-P", "epochs=2", "-P", f"data_dir={value}", "-P", "run_name=a b"),
    ]
    assert make("experiment", f"FILE={value}", "RUNS_DIR=a b")[2:] == ["experiment", value, "--runs_dir", "a b"]
    assert make("compare", f"WHAT={value}")[2:] == ["compare", value]
    assert shlex.join(make("compare")) == "-m pipeline compare"


def test_make_ui_finds_the_experiment_of_the_newest_run_in_this_store(tmp_path):
    for name, experiment_id, uri in (("1", "5", "sqlite:///here"), ("2", "6", "http://elsewhere")):
        folder = RunFolder(tmp_path / "runs" / name)
        journal = Journal(folder)
        journal.append("start", tags={})
        journal.close()
        folder.write_state({"experiment_id": experiment_id, "tracking_uri": uri})
    assert ui.newest_experiment("runs", "sqlite:///here") == "5"
    assert ui.newest_experiment("runs", "sqlite:///nowhere") == ""
    assert ui.run_list("http://host:1", "") == "http://host:1/#/experiments"


def test_make_ui_finds_the_experiment_also_in_a_folder_whose_name_an_address_escapes(tmp_path, monkeypatch, capsys):
    (here := tmp_path / "50%?").mkdir()
    monkeypatch.chdir(here)
    folder = RunFolder(here / "runs/1")
    journal = Journal(folder)
    journal.append("start", tags={})
    journal.close()
    folder.write_state({"experiment_id": "5", "tracking_uri": sqlite_uri(here / "mlflow.db")})
    assert ui.main("1", "runs") == 0
    assert "#/experiments/5/runs" in capsys.readouterr().out
