"""One config by every way in: flags, a file, MLproject's command, MLflow's params, the journal, a worker's job."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlflow.projects.utils import load_project

from pipeline import cli
from pipeline.commands import flags
from pipeline.commands.parsing import Parser
from pipeline.config import KNOBS, OWNERS, ROLES, ConfigError, RunConfig
from pipeline.config.roles import names_of
from pipeline.config.words import choices_of, kind_of
from pipeline.delivery.writer import Writer
from pipeline.experiments.plan import _deciding
from pipeline.recording import resuming
from pipeline.tracking import lines
from pipeline.tracking.journal import RunFolder
from tests.conftest import ROOT

MAIN = load_project(str(ROOT)).get_entry_point("main")
# As a person types it: no space around it, which is not kept, and no NUL, which nothing takes.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30).map(str.strip)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def values_of(name):
    """Any value that the knob takes."""
    ends = {type(each): each for each in KNOBS[name].metadata}
    gt, ge, lt, le = (getattr(ends.get(kind), kind.__name__.lower(), None) for kind in (Gt, Ge, Lt, Le))
    if choices_of(KNOBS[name]):
        return st.sampled_from(choices_of(KNOBS[name]))
    if shipped := names_of(KNOBS[name]):
        return st.just(KNOBS[name].default) if name in OWNERS else st.sampled_from(shipped.shipped)
    if name == "data_name":
        return st.just("") | names
    if kind_of(KNOBS[name]) is bool:
        return st.booleans()
    if kind_of(KNOBS[name]) is int:
        return st.integers(ge, le)
    if kind_of(KNOBS[name]) is float:
        low = ge if ge is not None else gt
        return st.floats(low, lt, exclude_min=gt is not None, exclude_max=lt is not None, allow_infinity=False)
    return words


@st.composite
def configs(draw):
    """Any config that is valid, of any of its knobs."""
    given = draw(st.fixed_dictionaries({}, optional={name: values_of(name) for name in KNOBS}))
    try:
        return RunConfig.from_mapping(given)
    except ConfigError:
        assume(False)


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of 36 knobs each
@given(configs())
def test_any_config_comes_back_from_its_flags(config):
    typed = [f"--{name}={value}" for name, value in config.as_dict().items()]
    assert loaded(typed) == config
    dashed = [f"--{name.replace('_', '-')}={value}" for name, value in config.as_dict().items()]
    assert loaded(dashed) == config
    assume(not any(str(value).startswith("--") for value in config.as_dict().values()))
    assert loaded([word for name, value in config.as_dict().items() for word in (f"--{name}", str(value))]) == config


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of 36 knobs each
@given(configs())
def test_any_config_comes_back_from_a_file_of_it(config):
    for text in (yaml.safe_dump(config.as_dict()), resuming.config_text(config)):
        Path("knobs.yaml").write_text(text)
        assert loaded(["--config", "knobs.yaml"]) == config
        assert loaded(["--config", "knobs.yaml", "--project_defaults"]) == config


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of 36 knobs each
@given(configs())
def test_any_config_comes_back_from_the_command_that_mlflow_makes_of_mlproject(config):
    assume(not any(str(value).startswith("--") for value in config.as_dict().values()))
    given = {name: str(value) for name, value in config.as_dict().items()}
    words = shlex.split(MAIN.compute_command(given, None))
    assert words[:4] == ["python", "-m", "pipeline", "train"]
    assert loaded(words[4:]) == config


class Mlflow:
    """Takes params as MLflow's client does."""

    def __init__(self):
        self.params = {}

    def get_run(self, run_id):
        info = SimpleNamespace(experiment_id="1", run_name="x")
        return SimpleNamespace(info=info, data=SimpleNamespace(params={}, tags={}))

    def get_experiment(self, experiment_id):
        return SimpleNamespace(tags={"mlflow.experimentKind": "custom_model_development"})

    def set_experiment_tag(self, *_):
        pass

    def log_batch(self, run_id, params=(), tags=()):
        self.params |= {param.key: param.value for param in params}


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of 36 knobs each
@given(configs())
def test_any_config_comes_back_from_the_params_of_its_run(config):
    start = {"kind": "start", "time": 0, "n": 0, "mlflow_run_id": None, "run_key": "k", "params": config.as_dict()}
    start |= {"tags": {}, "parent": ""}
    client = Mlflow()
    assert Writer(RunFolder("run"), client, run_id="r").write(start) == []
    assert set(client.params) == set(KNOBS)
    assert all(type(text) is str for text in client.params.values())
    assert RunConfig.from_mapping(client.params) == config


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # of 36 knobs each
@given(configs())
def test_any_config_comes_back_from_its_journal_and_from_a_workers_job(config):
    journal = lines.parse(lines.line_of({"kind": "start", "time": 0, "params": config.as_dict()})[:-1])
    assert RunConfig.from_mapping(journal["params"]) == config
    assert RunConfig.from_mapping(json.loads(json.dumps(config.as_dict()))) == config
    # and an experiment knows by it that the run is there already
    assert _deciding(journal["params"]) == _deciding(config.as_dict())


def loaded(words):
    options, values = flags.parse_knobs(Parser("train"), words)
    return RunConfig.from_mapping(flags.given_knobs(values, options.config, options.project_defaults))


# Of every knob a value that is not its default, and another one.
OTHER = {
    "dataset": ("digits", "kmnist"), "data_dir": ("a", "b"), "data_name": ("mine", "yours"),
    "validation_size": (7, 8), "validation_seed": (7, 8),
    "epochs": (7, 8), "batch_size": (7, 8), "hidden_units": (7, 8),
    "hidden_layers": (7, 8), "dropout": (0.25, 0.5), "optimizer": ("sgd", "adam"), "learning_rate": (0.5, 1.0),
    "rho": (0.25, 0.5), "epsilon": (0.25, 0.5), "momentum": (0.25, 0.5), "early_stopping": (7, 8),
    "keep_best": (True, False), "on_divergence": ("continue", "stop"), "seed": (7, 2**32 - 1),
    "accelerator": ("cpu", "gpu"), "devices": ("1", "2"), "strategy": ("ddp", "fsdp"), "num_nodes": (2, 3),
    "weight_decay": (0.25, 0.5), "schedule": ("cosine", "step"), "gradient_clip": (0.25, 0.5),
    "augment": ("shift", "my:augment"), "metric": ("macro_f1", "my:f1,macro_f1"), "callback": ("my:A", "my:A,my:B"),
    "precision": ("64-true", "bf16-mixed"), "matmul_precision": ("high", "medium"), "verbose": ("0", "2"),
    "experiment_name": ("a", "b"), "run_name": ("a", "b"), "model_name": ("a", ""), "runs_dir": ("a", "b"),
    "record": ("light", "full"),
}  # fmt: skip


def test_every_knob_stands_here_with_two_values():
    assert set(OTHER) == set(KNOBS) - {"network"}  # of which each has knobs of its own: tests/test_own_knobs.py


@pytest.mark.parametrize("name", OTHER)
def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(name):
    in_file, typed = OTHER[name]
    others = {"validation_size": 5} if name in ("early_stopping", "keep_best") else {}
    Path("knobs.yaml").write_text(yaml.safe_dump({name: in_file, **others}))
    of_file, of_both = loaded(["--config", "knobs.yaml"]), loaded([f"--{name}={typed}", "--config=knobs.yaml"])
    assert of_file == RunConfig(**{name: in_file, **others})
    assert of_both == RunConfig(**{name: typed, **others})
    default = getattr(RunConfig(), name)
    assert loaded(["--config", "knobs.yaml", f"--{name}", str(default)]) == RunConfig(
        **others
    )  # a flag, default or not
    of_mlproject = ["--project_defaults", "--config", "knobs.yaml"]
    assert loaded(of_mlproject) == of_file
    if typed != default:
        assert loaded([*of_mlproject, f"--{name}={typed}"]) == RunConfig(**{name: typed, **others})
    repeated = of_file if name in MAIN.parameters else RunConfig(**others)  # what MLproject does not give was typed
    assert loaded([*of_mlproject, f"--{name}={default}"]) == repeated
    Path("empty.yaml").write_text("{}")
    assert loaded(["--config", "empty.yaml"]) == loaded([]) == RunConfig()


def test_the_knobs_that_mlproject_gives_by_itself_are_those_it_declares():
    assert {name for name, role in ROLES.items() if role.of_mlproject} == set(MAIN.parameters)
    options, values = flags.parse_knobs(Parser("train"), shlex.split(MAIN.compute_command({}, None))[4:])
    assert set(values) == set(MAIN.parameters)
    assert flags.given_knobs(values, None, options.project_defaults) == {}


def test_the_last_of_two_flags_counts():
    assert loaded(["--epochs", "3", "--epochs=5"]).epochs == 5


class Workflow:
    """Stands in for `pipeline.commands.recorded_training`: what it was called with."""

    def __init__(self, monkeypatch, local=None):
        self.calls = []
        monkeypatch.setattr("pipeline.commands.recorded_training.train", lambda config: self.called("train", config))
        monkeypatch.setattr("pipeline.commands.recorded_training.resume", lambda *words: self.called("resume", *words))
        monkeypatch.setattr("pipeline.commands.recorded_training.local_run_of_mlflow", lambda runs_dir: local)
        monkeypatch.setattr("pipeline.cli.set_launchers_aside", lambda: None)

    def called(self, *words):
        self.calls.append(words)
        return 7


def test_the_train_verb_trains_with_the_flags_over_the_file(monkeypatch):
    did = Workflow(monkeypatch)
    Path("knobs.yaml").write_text("epochs: 5\ndropout: 0.5\nseed: 3\n")
    assert cli.main(["train", "--config", "knobs.yaml", "--epochs", "20", "--dropout", "0.25"]) == 7
    assert cli.main(["train", "--config", "knobs.yaml", "--project_defaults", "--epochs", "20", "--dropout=0.25"]) == 7
    assert did.calls == [
        ("train", RunConfig(epochs=20, dropout=0.25, seed=3)),
        ("train", RunConfig(epochs=5, dropout=0.25, seed=3)),
    ]


def test_a_resumed_run_gets_what_was_given_anew_with_the_flags_over_the_file(monkeypatch):
    did = Workflow(monkeypatch)
    Path("knobs.yaml").write_text("epochs: 5\nverbose: 2\n")
    cli.main(["train", "--resume", "last", "--epochs", "30", "--runs_dir", "there"])
    cli.main(["train", "--resume", "last", "--config", "knobs.yaml", "--epochs", "30"])
    cli.main(["train", "--resume", "last", "--config", "knobs.yaml", "--epochs", "20", "--project_defaults"])
    assert did.calls == [
        ("resume", "last", {"epochs": "30", "runs_dir": "there"}, "there"),
        ("resume", "last", {"epochs": "30", "verbose": 2}, "runs"),
        ("resume", "last", {"epochs": 5, "verbose": 2}, "runs"),
    ]


def test_a_run_that_mlflow_asks_to_go_on_with_is_resumed_unless_another_is_named(monkeypatch):
    did = Workflow(monkeypatch, local="abc")
    cli.main(["train", "--project_defaults", "--epochs", "20", "--rho", "0.5"])
    cli.main(["train", "--resume", "this"])
    assert did.calls == [("resume", "abc", {"rho": "0.5"}, "runs"), ("resume", "this", {}, "runs")]


@pytest.mark.parametrize("local", [None, "abc"])
def test_a_run_to_go_on_with_is_looked_for_where_the_file_says_that_runs_lie(monkeypatch, local):
    did, asked = Workflow(monkeypatch), []
    monkeypatch.setattr(
        "pipeline.commands.recorded_training.local_run_of_mlflow", lambda runs_dir: asked.append(runs_dir) or local
    )
    Path("knobs.yaml").write_text("runs_dir: ~/there\n")
    monkeypatch.setenv("HOME", "/home/ada")
    named = [] if local else ["--resume", "last"]
    cli.main(["train", *named, "--config", "knobs.yaml"])
    cli.main(["train", *named, "--config", "knobs.yaml", "--runs_dir", "here"])
    run = local or "last"
    assert [(call[0], call[1], call[3]) for call in did.calls] == [
        ("resume", run, "/home/ada/there"),
        ("resume", run, "here"),
    ]
    assert asked == (["/home/ada/there", "here"] if local else [])


@pytest.mark.parametrize("verb", [["train"], ["train", "--resume", "last"]])
def test_a_file_of_knobs_is_read_once_for_it_may_be_a_pipe(monkeypatch, verb):
    did, reads = Workflow(monkeypatch), []
    read = flags.read_knobs
    monkeypatch.setattr(flags, "read_knobs", lambda path: reads.append(path) or read(path))
    Path("knobs.yaml").write_text("epochs: 5\n")
    assert cli.main([*verb, "--config", "knobs.yaml"]) == 7
    assert (reads, len(did.calls)) == ([Path("knobs.yaml")], 1)


def test_wrong_knobs_of_a_resumed_run_are_told_before_the_run_is_looked_for(monkeypatch, capsys):
    did = Workflow(monkeypatch)
    assert cli.main(["train", "--resume", "last", "--epochs", "0"]) == 2
    assert (did.calls, capsys.readouterr().err) == ([], "pipeline: epochs 0 is out of range: at least 1\n")
