"""A run that is gone on with, and gone on with again: it knows all that it knew."""

import pytest
import torch
import yaml

from pipeline.config import RunConfig
from pipeline.recording import record as recording
from pipeline.recording import resuming
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from pipeline.training import checkpoints, fit
from pipeline.training.news import EpochNews
from tests.fuzz_runs import same
from tests.ranks import small_data, weights_of
from tests.tracking.idle_uploader import IdleUploader

CONFIG = RunConfig(dataset="digits", epochs=3, hidden_units=2)


@pytest.fixture(autouse=True)
def only_what_is_asked(monkeypatch):
    """No look at git and packages, which cost a second."""
    monkeypatch.setattr("pipeline.tracking.run.Run.provenance", lambda self: None)
    for place in ("pipeline.tracking.run.git_tags", "pipeline.recording.record.git_tags"):
        monkeypatch.setattr(place, dict)


def interrupted(journal):
    journal.append("end", status="KILLED", tags={})
    journal.close()


@pytest.fixture
def run(tmp_path):
    """A run that was interrupted; its folder."""
    journal = Journal(RunFolder(tmp_path / "run"))
    recording.start(CONFIG, Run(journal, IdleUploader()), small_data(), {})
    interrupted(journal)
    return journal.folder


def resume(folder, **given):
    """Go on with the run, and be interrupted; returns the config it goes on with, and the resumption's event."""
    config = resuming.resumed_config(folder, given)
    journal = Journal(folder)
    recording.resume(config, Run(journal, IdleUploader()), small_data())
    interrupted(journal)
    return config, [event for event in folder.events() if event["kind"] == "resume"][-1]


def test_epochs_that_grew_once_are_not_forgotten_by_the_next_resumption(run):
    assert resume(run)[0].epochs == 3
    assert resume(run, epochs=5)[0].epochs == 5
    assert resume(run)[0].epochs == 5
    assert resume(run)[0] == CONFIG.replace(epochs=5)
    assert resume(run, epochs=8)[0].epochs == 8
    assert resume(run, epochs=8)[0].epochs == 8
    with pytest.raises(ValueError, match="epochs was 8, not 5"):
        resuming.resumed_config(run, {"epochs": 5})
    assert resuming.recorded_config(run) == CONFIG.replace(epochs=8)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["epochs"] == 8
    events = [event for event in run.events() if event["kind"] == "resume"]
    assert [event["params"] for event in events] == [{}, {"epochs": 5}, {}, {}, {"epochs": 8}, {}]
    assert [event["tags"].get("resumed.epochs") for event in events] == [None, "5", None, None, "8", None]


def test_a_run_resumed_on_other_data_is_refused_each_time_and_left_as_it_is(run):
    resume(run)
    other, journal = small_data(), Journal(run)
    other.source.train.inputs[3, 4, 5] ^= 1
    before = len(run.events())
    for _ in range(2):
        with pytest.raises(ValueError, match=r"run run began on data with digest [0-9a-f]{16}, here lies [0-9a-f]{16}"):
            recording.resume(CONFIG, Run(journal, IdleUploader()), other)
    journal.close()
    assert len(run.events()) == before


CONTENT = {"state_dict": {}, "optimizer_states": [], "loops": {}, "global_step": 1}


def test_the_epoch_of_the_checkpoint_is_what_is_gone_on_from(run, capsys):
    assert resume(run)[1]["tags"]["resumed_after_epoch"] == "0"
    run.checkpoints.mkdir()
    for epoch in (4, 5):
        content = {**CONTENT, "epoch": epoch - 1, "callbacks": {}}
        torch.save(content, checkpoints.path_of(run.checkpoints, epoch))
    assert resume(run)[1]["tags"]["resumed_after_epoch"] == "5"
    checkpoints.path_of(run.checkpoints, 5).write_bytes(b"PK")
    assert resume(run)[1]["tags"]["resumed_after_epoch"] == "4"
    damaged = "warning: checkpoint epoch-0005.ckpt is damaged; falling back to the one before\n"
    assert capsys.readouterr().err == damaged


@pytest.mark.parametrize("keep_best", [True, False])
def test_a_lost_best_epoch_is_trained_again_from_the_first_where_it_is_to_be_kept(run, capsys, keep_best):
    run.checkpoints.mkdir()
    callbacks = {"EpochEnd": {"history": {1: {"val_loss": 0.1}, 2: {"val_loss": 0.2}}, "best_loss": 0.1}}
    last = checkpoints.path_of(run.checkpoints, 2)
    torch.save({**CONTENT, "epoch": 1, "callbacks": callbacks}, last)
    config = CONFIG.replace(validation_size=3, keep_best=keep_best)
    assert recording._checkpoint_to_continue(run, config) == (None if keep_best else last)
    lost = "warning: the weights of the best epoch are lost; training again from the first one\n"
    assert capsys.readouterr().err == (lost if keep_best else "")
    torch.save({**CONTENT, "epoch": 0, "callbacks": callbacks}, run.checkpoints / checkpoints.BEST)
    assert recording._checkpoint_to_continue(run, config) == last


OPTIMIZERS = {
    "rmsprop": {"average"},
    "sgd": {"momentum_buffer"},
    "adagrad": {"step", "sum"},
    "adadelta": {"step", "square_avg", "acc_delta"},
    "adam": {"step", "exp_avg", "exp_avg_sq"},
}
SMALL = RunConfig(batch_size=4, hidden_units=3, momentum=0.5, validation_size=9, keep_best=True, accelerator="cpu")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_where_it_was(tmp_path, optimizer):
    """Twice resumed, of three epochs each on its own, the second from the best so far."""
    config = SMALL.replace(optimizer=optimizer, learning_rate=0.05)
    whole = fit.fit(config.replace(epochs=3), data=small_data(config), folder=tmp_path / "whole")
    folder, parts = tmp_path / "parts", []
    for epochs in (1, 2, 3):
        last = checkpoints.latest(folder)[0]
        trained = []
        part = fit.fit(
            config.replace(epochs=epochs),
            data=small_data(config),
            folder=folder,
            resume_from=last,
            callbacks=[EpochNews(lambda epoch, _, trained=trained: trained.append(epoch))],
        )
        assert trained == [epochs]  # from the beginning it would come to the same numbers
        assert list(part.history) == [*range(1, epochs + 1)]
        if parts:
            assert [part.history[epoch] for epoch in parts[-1].history] == [*parts[-1].history.values()]
        parts.append(part)
    one, other = (checkpoints.load(checkpoints.path_of(each, 3)) for each in (tmp_path / "whole", folder))
    ((first, *others),) = [state["state"].values() for state in one["optimizer_states"]]
    assert set(first) == OPTIMIZERS[optimizer]
    for name, value in first.items():
        assert torch.as_tensor(value).abs().max() > 0, name
    assert same(one["optimizer_states"], other["optimizer_states"])
    assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])
    assert torch.equal(weights_of(whole.classifier), weights_of(parts[-1].classifier))
    assert whole.test == parts[-1].test
    assert parts[-1].trainer.global_step == whole.trainer.global_step == 18
    histories = [each["callbacks"]["EpochEnd"]["history"] for each in (one, other)]
    assert histories == [whole.history, parts[-1].history]
    assert len(others) == 5  # weights and biases of three layers
