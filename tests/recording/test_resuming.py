"""The second time: what a run that is gone on with keeps, takes and refuses."""

import zlib
from types import SimpleNamespace

import pytest

from pipeline.commands import recorded_training
from pipeline.config import ConfigError, RunConfig
from pipeline.recording import record as recording
from pipeline.recording import resuming
from pipeline.recording.code_digest import code_digest
from pipeline.tracking import recovery, run
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.run import Run
from tests import recorded
from tests.recorded import append
from tests.tracking.idle_uploader import IdleUploader

OTHER = {
    "dataset": "digits",
    "data_name": "mine",
    "validation_size": 100,
    "validation_seed": 3,
    "epochs": 19,
    "batch_size": 64,
    "hidden_units": 16,
    "hidden_layers": 1,
    "dropout": 0.5,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "network": "cnn",
    "weight_decay": 0.5,
    "schedule": "cosine",
    "gradient_clip": 1.0,
    "augment": "shift",
    "metric": "macro_f1",
    "callback": "my:Callback",
    "rho": 0.95,
    "epsilon": 1e-6,
    "momentum": 0.9,
    "early_stopping": 3,
    "keep_best": True,
    "seed": 2,
    "accelerator": "cpu",
    "devices": "2",
    "num_nodes": 2,
    "strategy": "ddp",
    "precision": "bf16-mixed",
    "matmul_precision": "high",
    "experiment_name": "another",
    "run_name": "named",
    "model_name": "another",
}
FREE = {"verbose": "0", "data_dir": "/elsewhere", "runs_dir": "there", "on_divergence": "continue", "record": "light"}


@pytest.fixture(autouse=True)
def same_provenance(monkeypatch):
    """What git and the packages say costs seconds, and is test_provenance'."""
    for place in (run, recording):
        monkeypatch.setattr(place, "git_tags", lambda: {"commit": "c0ffee"})
    monkeypatch.setattr(run, "installed", lambda: ["torch==2"])
    monkeypatch.setattr(run, "checkout", lambda: SimpleNamespace(diff=b""))


def interrupted(path, tags=None, end="KILLED", digest="d1", **knobs):
    """A run of so many epochs that was stopped."""
    journal = Journal(RunFolder(path))
    params = RunConfig(**knobs).as_dict()
    journal.append("start", run_key=path.name, params=params, tags=tags or {}, parent="")
    journal.append("dataset", inputs=[{"dataset": {"digest": digest}}])
    if end:
        journal.append("end", status=end, tags={})
    journal.close()
    return RunFolder(path)


def reopened(folder, config, digest="d1"):
    journal = Journal(folder)
    try:
        data = SimpleNamespace(source=SimpleNamespace(digest=digest))
        return recording.resume(config, Run(journal, IdleUploader()), data)
    finally:
        journal.close()


def test_epochs_that_one_resumption_has_added_are_kept_by_the_next(tmp_path):
    folder = interrupted(tmp_path / "run")
    for given, epochs in (({"epochs": 30}, 30), ({}, 30), ({"epochs": 40}, 40), ({}, 40)):
        config = resuming.resumed_config(folder, given)
        assert config == RunConfig(epochs=epochs)
        reopened(folder, config)
        assert resuming.recorded_config(folder) == config
        append(folder, "end", status="KILLED", tags={})
    resumes = [event for event in folder.events() if event["kind"] == "resume"]
    assert [event["params"] for event in resumes] == [{"epochs": 30}, {}, {"epochs": 40}, {}]
    code = {"resumed_after_epoch": "0", "resumed.commit": "c0ffee", "resumed.code": code_digest()}
    assert resumes[0]["tags"] == {**code, "resumed.epochs": "30"}
    assert resumes[1]["tags"] == code
    with pytest.raises(ConfigError, match="epochs was 40, not 39"):
        resuming.resumed_config(folder, {"epochs": 39})


def test_a_resumed_run_keeps_its_config_where_its_helpers_and_its_readers_look(tmp_path):
    folder = interrupted(tmp_path / "run")
    reopened(folder, RunConfig(epochs=30))
    text = (folder.path / "config.yaml").read_text()
    assert text == resuming.config_text(RunConfig(epochs=30)) == (folder.artifacts / "config.yaml").read_text()
    paths = [event["path"] for event in folder.events() if event["kind"] == "artifact"]
    assert paths == ["packages.txt", "config.yaml"]


def test_a_run_is_not_gone_on_with_on_other_data_and_stays_as_it_is(tmp_path):
    folder = interrupted(tmp_path / "run")
    before = folder.events()
    with pytest.raises(ValueError, match=r"^run run began on data with digest d1, here lies d2$"):
        reopened(folder, RunConfig(), digest="d2")
    assert folder.events() == before
    assert folder.ended()["status"] == "KILLED"
    recovery.check_same_data(folder, "d1")
    recovery.check_same_data(RunFolder(tmp_path / "none that has looked at data"), "d2")


def test_every_knob_that_changes_numbers_or_names_is_kept_and_all_that_differ_are_told(tmp_path):
    folder = interrupted(tmp_path / "run")
    before = RunConfig().as_dict()
    assert before.keys() == OTHER.keys() | FREE.keys()
    for name, value in OTHER.items():
        given = {name: value, **({"validation_size": 100} if name in ("early_stopping", "keep_best") else {})}
        with pytest.raises(ConfigError) as caught:
            resuming.resumed_config(folder, given)
        assert f"{name} was {before[name]}, not {value}" in str(caught.value), name
    with pytest.raises(ConfigError) as caught:
        resuming.resumed_config(folder, {"seed": 2, "dropout": 0.5, "epochs": 21})
    assert str(caught.value).splitlines()[-3:] == [
        "  seed was 1, not 2",
        "  dropout was 0.2, not 0.5",
        "  a resumed run goes on with the knobs it began with (only epochs may grow); start a new run for others",
    ]


def test_where_things_lie_and_what_is_printed_may_change(tmp_path):
    folder = interrupted(tmp_path / "run", model_name="mnist-mlp")
    for given in ({name: value} for name, value in FREE.items()):
        assert resuming.resumed_config(folder, given) == RunConfig(model_name="mnist-mlp", **given)
    assert resuming.resumed_config(folder, FREE) == RunConfig(model_name="mnist-mlp", **FREE)


def test_a_model_name_that_was_settled_as_the_run_began_is_not_asked_again(tmp_path):
    folder = interrupted(tmp_path / "run", model_name="mnist-mlp")
    assert resuming.resumed_config(folder, {"model_name": "auto"}).model_name == "mnist-mlp"
    with pytest.raises(ConfigError, match="model_name was mnist-mlp, not other"):
        resuming.resumed_config(folder, {"model_name": "other"})


def test_a_run_that_lives_or_is_finished_is_not_gone_on_with(tmp_path):
    folder = interrupted(tmp_path / "alive", end="")
    journal = Journal(folder)
    with pytest.raises(RunIsAliveError) as caught:
        resuming.resumed_config(folder, {})
    assert str(caught.value) == "run alive is still running in another process; nothing to resume"
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    with pytest.raises(ValueError, match=r"^run alive is finished") as caught:
        resuming.resumed_config(folder, {"epochs": 30})
    assert str(caught.value) == (
        "run alive is finished; there is nothing to resume. "
        "For more epochs start a new run, with the same seed: it repeats these epochs bit for bit"
    )


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_run_that_was_stopped_or_failed_is_gone_on_with(tmp_path, status):
    assert resuming.resumed_config(interrupted(tmp_path / "run", end=status), {}) == RunConfig()


def test_a_run_that_diverged_would_again_unless_it_is_to_go_on_all_the_same(tmp_path):
    folder = interrupted(tmp_path / "run")
    append(folder, "tags", tags={"diverged_in_epoch": "3"})
    with pytest.raises(ValueError, match="diverged") as caught:
        resuming.resumed_config(folder, {})
    assert str(caught.value) == (
        "run run diverged in epoch 3 and would again: the same knobs give the same numbers. Start a new run with "
        "others (a lower learning_rate), or go on all the same with --on_divergence continue"
    )
    assert resuming.resumed_config(folder, {"on_divergence": "continue"}).on_divergence == "continue"


def test_the_run_of_an_experiment_trains_nothing_that_could_be_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = interrupted(tmp_path / "runs" / "run", tags={"question": "dropout"})
    with pytest.raises(ValueError, match="experiment") as caught:
        resuming.resumed_config(folder, {})
    assert str(caught.value) == (
        "run is the run of experiment 'dropout', which trains nothing itself; "
        "go on with it: python -m pipeline experiment FILE"
    )


def test_a_folder_without_a_run_is_no_run_to_go_on_with(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="holds no run") as caught:
        resuming.resumed_config(RunFolder(tmp_path / "run"), {})
    words = f"{tmp_path / 'run'} holds no run that has begun; start a new one: python -m pipeline train"
    assert str(caught.value) == words


@pytest.mark.parametrize("content", [None, "[", "- 1\n", "epochs: many\n", "", "# checksum 00000000\nepochs: 7\n"])
def test_knobs_that_nothing_says_any_more_are_not_guessed(tmp_path, content):
    folder = interrupted(tmp_path / "run")
    (folder.path / "vital.jsonl").unlink()
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"start", b"stArt"))
    if content is not None:
        (folder.path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"^the first record of run is damaged and config.yaml cannot be read \(") as e:
        resuming.recorded_config(folder)
    assert str(e.value).endswith("): nothing says what was trained; start a new run: python -m pipeline train")


def test_the_config_file_is_the_knobs_in_their_order_below_a_checksum():
    text = resuming.config_text(RunConfig())
    first, *rest = text.splitlines()
    assert [line.partition(":")[0] for line in rest] == list(RunConfig().as_dict())
    assert text.endswith("\n")
    assert first == f"# checksum {zlib.crc32(text.partition(chr(10))[2].encode()):08x}"


def test_a_run_that_died_is_closed_as_failed_before_it_is_gone_on_with(tmp_path, monkeypatch):
    folder = interrupted(tmp_path / "run", end="")
    seen = {}

    def trained(config, journal, begin):
        seen.update(config=config, closed=journal.is_closed, alive=folder.is_alive(), begin=begin)
        journal.close()
        return 0

    monkeypatch.setattr(recorded_training, "check_record", lambda folder: None)
    monkeypatch.setattr(recorded_training, "_train_recorded", trained)
    assert recorded_training.resume("run", {"epochs": 30}, str(tmp_path)) == 0
    assert seen == {"config": RunConfig(epochs=30), "closed": True, "alive": True, "begin": recording.resume}
    assert folder.ended()["tags"] == {"failure_reason": recovery.DIED}
    assert folder.ended()["status"] == "FAILED"


def test_a_run_of_another_script_is_that_scripts_to_go_on_with(tmp_path):
    tags = {"mlflow.source.name": "/home/me/flowers.py", "mlflow.runName": "a"}
    folder = recorded.run_of(tmp_path / "runs" / "run", recorded.start(params={}, tags=tags))
    with pytest.raises(ValueError, match=r"run is a run of /home/me/flowers.py, .*RunLogger\(..., resume='run'\)"):
        resuming.recorded_config(folder)
