"""A run's record as Lightning's Trainer takes it: what Lightning expects of every logger, what people ask of one."""

import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from pipeline.tracking import RunLogger, checkpoint_artifacts, folders, identity, live_run, recovery, run
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.logger import LONGEST_PARAM
from pipeline.tracking.run import Run
from tests.conftest import environment
from tests.tracking.idle_uploader import IdleUploader

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def background(monkeypatch):
    """No process is started, no git asked, what a test leaves open ends with it; returns what was to be delivered."""
    delivered = []
    found = SimpleNamespace(tags=lambda: {"git.commit": "c0ffee"}, diff=b"a diff")
    monkeypatch.setattr(live_run, "UploaderProcess", IdleUploader)
    monkeypatch.setattr(recovery, "deliver_in_background", lambda folders, cwd: delivered.append(list(folders)))
    monkeypatch.setattr(live_run, "checkout", lambda here: found)
    monkeypatch.setattr(run, "installed", lambda: ["torch==2"])
    monkeypatch.setattr(identity, "_numbers", iter(range(1000)))
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    monkeypatch.delenv(identity.FOLDERS, raising=False)
    monkeypatch.delattr(sys, "last_value", raising=False)
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    yield delivered
    for live in list(live_run._open.values()):
        live.close()


class Model(BoringModel):
    """Lightning's own demo, with params and a loss that is logged; fails on request."""

    def __init__(self, width=3, fails_in_epoch=None, error=RuntimeError):
        super().__init__()
        self.save_hyperparameters("width")
        self.fails_in_epoch, self.error = fails_in_epoch, error

    def training_step(self, batch, index):
        loss = self.step(batch)
        self.log("train_loss", loss)
        if self.current_epoch == self.fails_in_epoch:
            raise self.error("no such flower")
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", self.step(batch))

    def test_step(self, batch, index):
        self.log("test_loss", self.step(batch))


def trainer(logger, epochs=1, **options):
    return Trainer(
        **{
            "max_epochs": epochs,
            "logger": logger,
            "limit_train_batches": 3,
            "limit_val_batches": 1,
            "limit_test_batches": 1,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            **options,
        }
    )


def events(logger, kind=None):
    return [event for event in RunFolder(logger.log_dir).events() if kind in (None, event["kind"])]


def kinds(logger):
    return [event["kind"] for event in events(logger)]


def ends(logger):
    return [(event["status"], event["tags"].get("failure_reason")) for event in events(logger, "end")]


def rows(logger, name):
    return [(event["step"], event["values"][name]) for event in events(logger, "metrics") if name in event["values"]]


def steps(logger, name):
    return [step for step, _ in rows(logger, name)]


def tags(logger):
    return {name: text for event in events(logger) for name, text in event.get("tags", {}).items()}


def params(logger):
    return {name: value for event in events(logger) for name, value in event.get("params", {}).items()}


def artifacts(logger):
    return [event["path"] for event in events(logger, "artifact")]


# what it records


def test_three_lines_record_a_fit_with_its_params_metrics_code_packages_and_machine():
    logger = RunLogger(experiment_name="flowers", run_name="resnet18", tags={"team": "botany", "beds": 3})
    trainer(logger, epochs=2).fit(Model())
    logger.close()
    (start,) = events(logger, "start")
    assert start["experiment_name"] == "flowers"
    told = {"mlflow.runName": "resnet18", "team": "botany", "beds": "3", "git.commit": "c0ffee"}
    assert told.items() <= start["tags"].items()
    assert {"host", "cpu", "device", "package.torch", "mlflow.user", "mlflow.source.name"} <= set(start["tags"])
    assert params(logger) == {"width": "3"}
    assert steps(logger, "train_loss") == [0, 1, 2, 3, 4, 5]
    assert steps(logger, "val_loss") == [2, 5]
    assert artifacts(logger) == ["packages.txt", "uncommitted.diff"]
    assert ends(logger) == [("FINISHED", None)]


def test_metrics_stand_at_the_epoch_where_that_is_asked_for():
    logger = RunLogger("flowers", step="epoch")
    trainer(logger, epochs=2).fit(Model())
    assert steps(logger, "val_loss") == [0, 1]
    assert steps(logger, "train_loss") == [0, 0, 0, 1, 1, 1]
    assert rows(logger, "epoch") == []
    logger.log_metrics({"later": 1.0}, step=99)
    assert steps(logger, "later") == [1]


def test_nothing_is_written_before_there_is_something_to_record(tmp_path):
    logger = RunLogger("flowers")
    assert (logger.version, trainer(logger).logger) == (os.path.basename(logger.log_dir), logger)  # noqa: PTH119
    logger.finalize("success")
    logger.save()
    assert list(tmp_path.iterdir()) == []


def test_nested_and_odd_params_are_texts_and_none_of_them_raises():
    @dataclass
    class Bed:
        roses: int = 3

    class Wordless:
        def __str__(self):
            raise RuntimeError("no word")

    given = {
        "none": None,
        "nested": {"deep": {"er": 1}, 5: 2},
        "list": [1, 2],
        "of dicts": [{"a": 1}, {"b": 2}],
        "tensor": torch.ones(2),
        "numpy": np.float32(0.5),
        "layer": torch.nn.BatchNorm1d,
        "function": test_nested_and_odd_params_are_texts_and_none_of_them_raises,
        "dataclass": Bed(),
        "namespace": Namespace(a=1),
        "nan": math.nan,
        "wordless": Wordless(),
    }
    logger = RunLogger("flowers")
    logger.log_hyperparams(given)
    logger.log_hyperparams(Namespace(of_a_namespace=True))
    logger.log_hyperparams(None)
    found = params(logger)
    assert all(isinstance(text, str) for text in found.values())
    assert found.pop("function").startswith("<function test_nested")
    assert found == {
        "none": "None",
        "nested/deep/er": "1",
        "nested/5": "2",
        "list": "[1, 2]",
        "of dicts/0/a": "1",
        "of dicts/1/b": "2",
        "tensor": "tensor([1., 1.])",
        "numpy": "0.5",
        "layer": "<class 'torch.nn.modules.batchnorm.BatchNorm1d'>",
        "dataclass/roses": "3",
        "namespace/a": "1",
        "nan": "nan",
        "wordless": "<Wordless that has no text: RuntimeError>",
        "of_a_namespace": "True",
    }


def test_params_that_come_again_are_nothing_and_changed_ones_a_tag():
    logger = RunLogger("flowers")
    for width in (3, 3, 4, 4):
        logger.log_hyperparams({"width": width, "depth": 1})
    assert [event["params"] for event in events(logger, "params")] == [{"width": "3", "depth": "1"}]
    assert [event["tags"] for event in events(logger, "tags")] == [{"changed.width": "4"}]


def test_a_long_param_lies_whole_in_an_artifact():
    longest, long = "x" * LONGEST_PARAM, "y" * (LONGEST_PARAM + 1)
    logger = RunLogger("flowers")
    logger.log_hyperparams({"longest": longest, "a/b": long, "a_b": long})
    found = params(logger)
    assert found["longest"] == longest
    assert re.fullmatch(r"y+\.\.\. [0-9a-f]{8}", found["a/b"])
    assert len(found["a/b"]) == LONGEST_PARAM
    written = [path for path in artifacts(logger) if path.startswith("params/")]
    assert len(set(written)) == 2
    assert all((RunFolder(logger.log_dir).artifacts / path).read_text() == long for path in written)


def test_a_long_param_that_comes_again_after_a_resumption_is_nothing_and_another_is_a_change():
    long = "y" * 10_000
    logger = RunLogger("flowers")
    logger.log_hyperparams({"long": long})
    logger.close()
    again = RunLogger("flowers", resume=logger.version)
    again.log_hyperparams({"long": long})
    assert "changed.long" not in tags(again)
    again.log_hyperparams({"long": long + "z"})
    assert tags(again)["changed.long"] != params(again)["long"]
    written = RunFolder(again.log_dir).artifacts / "params/long.txt"
    assert written.read_text() == long + "z"


def test_a_full_disk_costs_the_text_of_a_long_param_and_not_the_training(monkeypatch):
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0})
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(Run, "text_artifact", lambda self, *words: (_ for _ in ()).throw(full))
    logger.log_hyperparams({"long": "y" * 10_000})
    assert params(logger)["long"].startswith("yyy")


def test_a_param_is_as_long_as_mlflow_takes_it():
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    assert LONGEST_PARAM == MAX_PARAM_VAL_LENGTH


def test_whatever_is_a_number_is_a_metric_and_a_text_is_a_tag():
    logger = RunLogger("flowers")
    logged = {
        "float": 0.1,
        "int": 3,
        "bool": True,
        "tensor": torch.tensor(0.1),
        "numpy": np.float64(0.2),
        "text": "red",
        "image": torch.ones(2, 2),
        "huge": 10**400,
    }
    before = dict(logged)
    logger.log_metrics(logged, step=7)
    (event,) = events(logger, "metrics")
    assert event["values"] == {
        "float": 0.1,
        "int": 3.0,
        "bool": 1.0,
        "tensor": torch.tensor(0.1).item(),
        "numpy": 0.2,
    }
    told = tags(logger)
    assert (told["text"], told["image"], len(told["huge"])) == ("red", str(torch.ones(2, 2)), 401)
    assert logged.keys() == before.keys()


def test_nan_and_infinities_are_exact_in_the_journal_and_kept_from_mlflow_where_a_tag_tells_of_them():
    logger = RunLogger("flowers")
    for step in range(3):
        logger.log_metrics({"loss": math.nan, "norm": math.inf, "low": -math.inf, "fine": 1.0}, step)
    logger.log_metrics({"loss": 0.5}, 3)
    found = events(logger, "metrics")
    assert [event["values"] for event in found] == [{"fine": 1.0}] * 3 + [{"loss": 0.5}]
    for event in found[:3]:
        assert math.isnan(event["not_finite"]["loss"])
        assert (event["not_finite"]["norm"], event["not_finite"]["low"]) == (math.inf, -math.inf)
    told = {name: text for name, text in tags(logger).items() if name.startswith("not_finite.")}
    assert told == {
        "not_finite.loss": "nan at step 0",
        "not_finite.norm": "inf at step 0",
        "not_finite.low": "-inf at step 0",
    }
    assert len(events(logger, "tags")) == 1


def test_ten_thousand_metrics_in_one_call_and_a_thousand_calls():
    logger = RunLogger("flowers")
    many = {f"metric {number}": float(number) for number in range(10_000)}
    logger.log_metrics(many, 1)
    for step in range(1000):
        logger.log_metrics({"loss": 1.0 / (step + 1)}, step)
    assert events(logger, "metrics")[0]["values"] == many
    assert steps(logger, "loss") == list(range(1000))


def test_steps_that_go_back_come_again_or_are_missing_are_all_there():
    logger = RunLogger("flowers")
    for step, value in ((5, 1.0), (2, 2.0), (2, 3.0), (None, 4.0), (0, 5.0), (None, 6.0)):
        logger.log_metrics({"loss": value}, step)
    assert rows(logger, "loss") == [(5, 1.0), (2, 2.0), (2, 3.0), (2, 4.0), (0, 5.0), (0, 6.0)]


def test_without_any_step_it_is_the_first():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0})
    assert rows(logger, "loss") == [(0, 1.0)]


def test_two_optimizers_log_each_step_as_lightning_counts_it():
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, index):
            for number, optimizer in enumerate(self.optimizers()):
                optimizer.zero_grad()
                loss = self.step(batch)
                self.manual_backward(loss)
                optimizer.step()
                self.log(f"loss_{number}", loss)

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.01)]

    logger = RunLogger("flowers")
    trainer(logger, epochs=2).fit(Two())
    assert steps(logger, "loss_0") == steps(logger, "loss_1") == [0, 1, 2, 3, 4, 5]


def test_files_and_folders_are_recorded_as_they_are_then(tmp_path):
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "loss.txt").write_text("first")
    logger = RunLogger("flowers")
    logger.log_file("curves")
    logger.log_file(tmp_path / "curves" / "loss.txt", "figures/of the loss.txt")
    (tmp_path / "curves" / "loss.txt").write_text("later")
    assert artifacts(logger)[-2:] == ["curves", "figures/of the loss.txt"]
    folder = RunFolder(logger.log_dir).artifacts
    assert (folder / "curves/loss.txt").read_text() == (folder / "figures/of the loss.txt").read_text() == "first"
    with pytest.raises(ValueError, match="leads out of the run's artifacts"):
        logger.log_file(tmp_path / "curves", "../../elsewhere")


# where it lies


def test_each_run_has_a_folder_of_its_own_in_save_dir_with_checkpoints_and_the_cli_config_inside(tmp_path):
    logger = RunLogger("flowers", save_dir=tmp_path / "my runs")
    fit = trainer(logger, enable_checkpointing=True)
    fit.fit(Model())
    home = tmp_path / "my runs" / logger.version
    assert (logger.save_dir, logger.root_dir, logger.log_dir) == (str(home.parent), str(home.parent), str(home))
    assert fit.log_dir == str(home)  # where LightningCLI puts config.yaml
    assert [path.name for path in (home / "checkpoints").iterdir()] == ["epoch=0-step=3.ckpt"]
    assert [path.name for path in tmp_path.iterdir()] == ["my runs"]
    assert RunLogger("flowers", save_dir="my runs").version != logger.version


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    logger = RunLogger("flowers", save_dir=tmp_path / "file")
    with pytest.raises(ValueError, match=r"save_dir .*file cannot be written .*give RunLogger another save_dir"):
        logger.log_metrics({"loss": 1.0}, 1)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder that not even root may write into")  # noqa: PTH112
def test_where_the_working_directory_cannot_be_written_the_database_lies_beside_the_runs(tmp_path, monkeypatch):
    logger = RunLogger("flowers", save_dir=tmp_path / "runs")
    assert logger.experiment.uploader.cwd is None
    monkeypatch.chdir("/proc")
    other = RunLogger("flowers", save_dir=tmp_path / "runs")
    assert other.experiment.uploader.cwd == tmp_path / "runs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"experiment_name": " "}, "experiment_name ' ' is empty"),
        ({"experiment_name": "a", "step": "batch"}, "step 'batch' is not one of step, epoch"),
        ({"experiment_name": "a", "checkpoints": "all"}, "checkpoints 'all' is not one of True, False, 'best'"),
        ({"experiment_name": "a", "resume": "nothing"}, "no run 'nothing' in"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        RunLogger(**arguments)


# Lightning's own expectations, tests/loggers/test_all.py of it


def test_it_is_a_logger_as_the_trainer_asks():
    logger = RunLogger("flowers")
    assert isinstance(logger, Logger | CSVLogger)
    assert (logger.group_separator, logger.name) == ("/", "")
    assert isinstance(logger.experiment, Run)
    logger.log_graph(Model())
    logger.save()


def test_pickled_it_is_the_same_run_also_when_it_is_open_and_both_log_on():
    logger = RunLogger("flowers")
    closed = pickle.loads(pickle.dumps(logger))
    logger.log_metrics({"loss": 1.0}, 1)
    again = pickle.loads(pickle.dumps(trainer(logger))).logger
    again.log_metrics({"loss": 2.0}, 1)
    logger.log_metrics({"loss": 3.0}, 1)
    closed.log_metrics({"loss": 4.0}, 1)
    assert len({(each.name, each.version, each.save_dir) for each in (logger, again, closed)}) == 1
    assert rows(logger, "loss") == [(1, 1.0), (1, 2.0), (1, 3.0), (1, 4.0)]
    assert len(events(logger, "start")) == 1
    assert not events(logger, "resume")
    logger.close()
    assert ends(logger) == [("FINISHED", None)]


def test_sent_to_another_process_its_lock_goes_along():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    pickle.dumps(logger)
    elsewhere = Journal(RunFolder(logger.log_dir))
    elsewhere.append("metrics", values={"loss": 2.0}, step=2)
    with pytest.raises(RunIsAliveError):
        logger.log_metrics({"loss": 3.0}, 3)
    elsewhere.close()
    logger.log_metrics({"loss": 3.0}, 3)
    assert rows(logger, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [event["n"] for event in events(logger)] == list(range(len(events(logger))))


@pytest.mark.parametrize("rank", [1, 2])
def test_only_rank_zero_writes_and_the_others_know_its_folder(rank, monkeypatch, tmp_path):
    first = RunLogger("flowers"), RunLogger("flowers")
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    monkeypatch.setattr(identity, "_numbers", iter(range(1000)))
    helpers = RunLogger("flowers"), RunLogger("flowers"), RunLogger("flowers")
    assert [each.version for each in helpers] == [first[0].version, first[1].version, ""]
    assert [each.log_dir for each in helpers[:2]] == [each.log_dir for each in first]
    for helper in helpers:
        helper.experiment.text_artifact("a.txt", "a")
        helper.log_metrics({"loss": 1.0}, 1)
        helper.log_hyperparams({"a": 1})
        helper.log_file("nothing")
        helper.after_save_checkpoint(ModelCheckpoint())
        helper.save()
        helper.finalize("success")
        helper.close()
    assert list(tmp_path.iterdir()) == []


def test_a_script_that_another_one_starts_is_not_told_of_its_folders(monkeypatch):
    RunLogger("flowers"), RunLogger("flowers")
    monkeypatch.setattr(identity, "_numbers", iter(range(1000)))
    other = RunLogger("flowers")
    assert json.loads(os.environ[identity.FOLDERS]) == {"0": other.log_dir}


@pytest.mark.parametrize(
    ("status", "found"),
    [("success", "FINISHED"), ("finished", "FINISHED"), ("failed", "FAILED"), ("aborted", "FAILED")],
)
def test_each_status_that_lightning_gives_ends_it(status, found):
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    logger.finalize(status)
    logger.close()
    assert ends(logger) == [(found, None)]


def test_sixteen_devices_and_their_logger_can_be_told_apart_by_the_version_of_the_bar():
    logger = RunLogger("flowers")
    assert trainer(logger, enable_progress_bar=True).progress_bar_callback.get_metrics(
        SimpleNamespace(loggers=[logger], progress_bar_metrics={}), Model()
    ) == {"v_num": logger.version[-4:]}


# how it ends


def test_no_status_stands_before_the_test_has_ended():
    logger = RunLogger("flowers")
    fit = trainer(logger)
    fit.fit(Model())
    assert ends(logger) == []
    fit.test(Model(), verbose=False)
    assert ends(logger) == []
    assert steps(logger, "test_loss") == [3]
    logger.close()
    assert ends(logger) == [("FINISHED", None)]


def test_it_ends_when_nothing_refers_to_it_any_more():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    folder, uploader = RunFolder(logger.log_dir), logger.experiment.uploader
    assert folder.is_alive()
    del logger
    assert folder.ended()["status"] == "FINISHED"
    assert (folder.is_alive(), uploader.closed) == (False, True)


def test_an_error_is_its_end_with_the_traceback():
    logger = RunLogger("flowers")
    with pytest.raises(RuntimeError):
        trainer(logger, epochs=3).fit(Model(fails_in_epoch=1))
    assert ends(logger) == [("FAILED", "RuntimeError: no such flower")]
    assert "in training_step" in (RunFolder(logger.log_dir).artifacts / "traceback.txt").read_text()
    logger.close()
    assert len(ends(logger)) == 1
    assert steps(logger, "train_loss") == [0, 1, 2]


@pytest.mark.parametrize(("error", "reason"), [(KeyboardInterrupt, "no such flower"), (SIGTERMException, "SIGTERM")])
def test_ctrl_c_and_sigterm_have_killed_it_and_nothing_later_says_otherwise(error, reason):
    before = signal.getsignal(signal.SIGINT)
    logger = RunLogger("flowers")
    try:
        with pytest.raises(SystemExit):
            trainer(logger, epochs=3).fit(Model(fails_in_epoch=1, error=error))
        logger.experiment.tags({"noted": "in a finally"})
        logger.log_file(__file__)
        logger.log_metrics({"noted": 1.0})
        logger.finalize("failed")
        logger.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert {status for status, _ in ends(logger)} == {"KILLED"}
    assert ends(logger)[0][1] == reason
    assert kinds(logger)[-1] == "end"


def test_an_uncaught_error_after_the_fit_is_its_end(monkeypatch):
    logger = RunLogger("flowers")
    trainer(logger).fit(Model())
    monkeypatch.setattr(sys, "last_value", ValueError("no such bed"), raising=False)
    logger.close()
    assert ends(logger) == [("FAILED", "ValueError: no such bed")]


def test_at_a_prompt_an_error_before_is_not_its_end(monkeypatch):
    logger = RunLogger("flowers")
    trainer(logger).fit(Model())
    monkeypatch.setattr(sys, "last_value", ValueError("a typing error"), raising=False)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    logger.close()
    assert ends(logger) == [("FINISHED", None)]


def test_a_test_after_a_fit_that_failed_opens_it_again():
    logger = RunLogger("flowers")
    with pytest.raises(RuntimeError):
        trainer(logger).fit(Model(fails_in_epoch=0))
    trainer(logger).test(Model(), verbose=False)
    assert kinds(logger)[-3:] == ["end", "resume", "metrics"]
    logger.close()
    assert ends(logger) == [("FAILED", "RuntimeError: no such flower"), ("FINISHED", None)]


def test_several_trainers_fits_and_tests_of_one_logger_are_one_run():
    logger = RunLogger("flowers")
    for _ in range(2):
        fit = trainer(logger)
        fit.fit(Model())
        fit.test(Model(), verbose=False)
    logger.close()
    assert (len(events(logger, "start")), ends(logger)) == (1, [("FINISHED", None)])
    assert steps(logger, "train_loss") == [0, 1, 2, 0, 1, 2]


def test_each_logger_of_a_process_is_a_run_and_one_that_is_complete_ends_when_the_next_begins():
    first, second = RunLogger("flowers"), RunLogger("flowers")
    trainer(first).fit(Model())
    with pytest.raises(RuntimeError):
        trainer(second).fit(Model(fails_in_epoch=0))
    assert ends(first) == [("FINISHED", None)]
    assert ends(second) == [("FAILED", "RuntimeError: no such flower")]
    first.log_metrics({"after": 1.0})
    first.close()
    assert ends(first) == [("FINISHED", None)] * 2


def test_two_loggers_of_one_trainer_each_get_everything():
    loggers = [RunLogger("flowers"), RunLogger("trees")]
    trainer(loggers).fit(Model())
    assert [steps(logger, "train_loss") for logger in loggers] == [[0, 1, 2]] * 2
    assert [ends(logger) for logger in loggers] == [[], []]


def test_only_the_first_run_of_a_process_is_the_one_that_mlflow_run_has_created(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    found = []
    for _ in range(2):
        logger = RunLogger("flowers")
        logger.log_metrics({"loss": 1.0})
        found.append(events(logger, "start")[0]["mlflow_run_id"])
    assert found == ["abc", None]


# gone on with


def test_a_run_goes_on_in_the_same_record_and_repeats_nothing():
    logger = RunLogger("flowers", run_name="first")
    logger.log_hyperparams({"width": 3})
    for step in range(4):
        logger.log_metrics({"loss": float(step), "odd": math.nan}, step)
    logger.close()
    again = RunLogger("flowers", tags={"second": "yes"}, resume="last")
    assert again.log_dir == logger.log_dir
    again.log_hyperparams({"width": 3, "depth": 2})
    for step in (2, 3, 4, 4):
        again.log_metrics({"loss": step + 0.5, "odd": math.nan}, step)
    again.log_metrics({"later": 1.0})
    again.close()
    assert rows(logger, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (4, 4.5)]
    assert steps(logger, "later") == [4]
    assert [event["params"] for event in events(logger, "params")] == [{"width": "3"}, {"depth": "2"}]
    (resume,) = events(logger, "resume")
    assert (resume["tags"]["second"], resume["tags"]["resumed.git.commit"]) == ("yes", "c0ffee")
    assert tags(logger)["mlflow.runName"] == "first"
    assert ends(logger) == [("FINISHED", None)] * 2


def test_a_run_whose_step_is_the_epoch_goes_on_amid_the_values_of_one():
    logger = RunLogger("flowers", step="epoch")
    logger.log_metrics({"epoch": 0, "loss": 0.9}, 0)
    logger.log_metrics({"epoch": 0, "loss": 0.8}, 1)
    logger.log_metrics({"epoch": 1, "loss": 0.7}, 2)
    logger.close()
    again = RunLogger("flowers", step="epoch", resume="last")
    again.log_metrics({"epoch": 1, "loss": 0.7}, 2)
    again.log_metrics({"epoch": 1, "loss": 0.6}, 3)
    again.close()
    assert rows(logger, "loss") == [(0, 0.9), (0, 0.8), (1, 0.7), (1, 0.6)]


def dead(runs="runs", **more):
    """A run whose process died without a word."""
    journal = Journal(new_folder(runs))
    tags = {"mlflow.runName": "a", **more}
    journal.append(
        "start", run_key=journal.folder.path.name, experiment_name="flowers", params={}, parent="", tags=tags
    )
    journal.metrics({"loss": 1.0}, 1)
    journal.close()
    return journal.folder


def test_a_run_that_died_is_told_by_the_next_start_and_delivered(background, capsys, monkeypatch):
    monkeypatch.setattr(folders, "_told", set())
    folder = dead(**{"mlflow.source.name": "/home/me/flowers.py"})
    waits = dead()
    for each, trouble in ((waits, {"since": 1, "error": "no answer", "advice": ""}),):
        journal = Journal(each)
        journal.append("end", status="FINISHED", tags={})
        journal.close()
        each.write_state({"run_id": "x", "trouble": trouble})
    RunLogger("flowers").log_metrics({"loss": 1.0})
    assert folder.ended()["status"] == "FAILED"
    assert "died without a word" in folder.ended()["tags"]["failure_reason"]
    (delivered,) = background
    assert [each.path.name for each in delivered] == [folder.path.name, waits.path.name]
    assert f"RunLogger(..., resume='{folder.path.name}')" in capsys.readouterr().err


def test_a_dead_run_is_resumed_by_its_name_with_its_death_on_record():
    folder = dead()
    logger = RunLogger("flowers", resume=folder.path.name)
    logger.log_metrics({"loss": 2.0}, 2)
    logger.close()
    assert [each for each in kinds(logger) if each in ("end", "resume")] == ["end", "resume", "end"]
    assert [status for status, _ in ends(logger)] == ["FAILED", "FINISHED"]


def test_a_run_that_lives_is_not_gone_on_with():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0})
    name, folder = logger.version, RunFolder(logger.log_dir)
    logger.close()
    journal = Journal(folder)
    with pytest.raises(RunIsAliveError, match="still running in another process"):
        RunLogger("flowers", resume=name).log_metrics({"loss": 1.0})
    journal.close()


def test_another_script_or_experiment_of_a_requeued_job_begins_a_run_of_its_own(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    number = iter([0, 0, 0])
    monkeypatch.setattr(identity, "_numbers", number)
    assert RunLogger("flowers").version == logger.version
    assert RunLogger("trees").version != logger.version
    monkeypatch.setattr(identity, "script_tags", lambda: {"mlflow.source.name": "other.py"})
    assert RunLogger("flowers").version != logger.version


def test_what_was_sent_away_while_open_is_ended_by_whoever_has_it():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    uploader = logger.experiment.uploader
    pickle.dumps(logger)
    elsewhere = Journal(RunFolder(logger.log_dir))
    folder = RunFolder(logger.log_dir)
    logger.close()
    assert (folder.ended(), uploader.closed) == (None, True)
    elsewhere.append("end", status="KILLED", tags={})
    elsewhere.close()
    assert ends(logger) == [("KILLED", None)]


def test_sent_away_and_never_opened_there_it_ends_here():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    pickle.dumps(logger)
    logger.close()
    assert ends(logger) == [("FINISHED", None)]


@pytest.mark.parametrize("finished", [False, True])
def test_a_requeued_job_goes_on_with_its_run_unless_that_is_finished(finished, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    folders = [RunLogger("flowers") for _ in range(2)]
    for logger in folders:
        logger.log_metrics({"loss": 1.0}, 1)
    for logger in folders:
        logger.finalize("finished")  # as Lightning's Slurm handler does before it requeues
    journals = [logger.experiment.journal for logger in folders]
    if finished:
        for logger in folders:
            logger.close()
    else:
        for journal in journals:
            journal.close()
        live_run._open.clear()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(identity, "_numbers", iter(range(1000)))
    again = [RunLogger("flowers") for _ in range(2)]
    same = [one.version == other.version for one, other in zip(folders, again, strict=True)]
    assert same == [not finished] * 2
    if not finished:
        again[1].log_metrics({"loss": 2.0}, 2)
        assert kinds(again[1])[-2:] == ["resume", "metrics"] or "resume" in kinds(again[1])
        assert RunFolder(again[1].log_dir).ended() is None


# checkpoints


def kept(logger):
    """What MLflow has of the checkpoints once all is delivered."""
    found = {}
    for event in events(logger):
        if event["kind"] == "artifact" and event["path"].startswith("checkpoints/"):
            found[event["path"]] = event["source"]
        elif event["kind"] == "removal":
            del found[event["path"]]
    return sorted(path.removeprefix("checkpoints/") for path in found)


class Falling(Model):
    """Its losses are those given, an epoch each."""

    def __init__(self, losses, **options):
        super().__init__(**options)
        self.losses = losses

    def validation_step(self, batch, index):
        self.log("val_loss", torch.tensor(self.losses[self.current_epoch]))


LOSSES = (0.5, 0.4, 0.6, 0.3, 0.7)


@pytest.mark.parametrize(
    ("checkpoints", "top", "found"),
    [
        (False, 2, []),
        ("best", 2, ["3.ckpt"]),
        (True, 2, ["1.ckpt", "3.ckpt"]),
        (True, 1, ["3.ckpt"]),
        (True, -1, ["0.ckpt", "1.ckpt", "2.ckpt", "3.ckpt", "4.ckpt"]),
    ],
)
def test_the_best_k_checkpoints_are_kept_and_the_others_deleted(checkpoints, top, found, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    logger = RunLogger("flowers", checkpoints=checkpoints)
    callback = ModelCheckpoint(monitor="val_loss", save_top_k=top, filename="{epoch}", auto_insert_metric_name=False)
    trainer(logger, epochs=5, enable_checkpointing=True, callbacks=[callback]).fit(Falling(LOSSES))
    assert kept(logger) == found
    folder = RunFolder(logger.log_dir)
    here = folder.artifacts / "checkpoints"
    assert sorted(path.name for path in here.glob("*")) == found
    for name in found:
        assert (here / name).samefile(folder.checkpoints / name)


def elsewhere(path):
    """A folder for temporary files on another disk than the path."""
    for place in (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
        if os.access(place, os.W_OK) and place.stat().st_dev != path.stat().st_dev:
            return place
    return pytest.skip("all folders for temporary files lie on one disk")


@pytest.mark.parametrize("temporary", ["on this disk", "on another"])
def test_the_last_checkpoint_is_recorded_each_time_it_is_written_over_as_it_was_then(tmp_path, monkeypatch, temporary):
    """Lightning moves it from the temporary folder: on one disk another file, from another the same, written over."""
    there = tmp_path if temporary == "on this disk" else elsewhere(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(there))
    logger = RunLogger("flowers", checkpoints=True)
    folder = RunFolder(logger.log_dir)
    steps_then, before = [], []
    take = logger.after_save_checkpoint

    def taking(callback):
        take(callback)
        taken = folder.artifacts / "checkpoints/last.ckpt"
        if not taken.exists():
            return
        steps_then.append(torch.load(taken, weights_only=False)["global_step"])
        (tmp_path / f"held {len(before)}").hardlink_to(taken)  # as an uploader may have it open
        before.append(tmp_path / f"held {len(before)}")

    monkeypatch.setattr(logger, "after_save_checkpoint", taking)
    callback = ModelCheckpoint(save_last=True)
    trainer(logger, 2, enable_checkpointing=True, callbacks=[callback]).fit(Model())
    assert sorted(set(steps_then)) == [3, 6]
    assert [torch.load(path, weights_only=False)["global_step"] for path in before] == steps_then
    assert artifacts(logger).count("checkpoints/last.ckpt") == 2


def test_a_checkpoint_that_is_saved_on_an_interrupt_is_recorded_before_the_end():
    before = signal.getsignal(signal.SIGINT)
    logger = RunLogger("flowers", checkpoints=True)
    callback = ModelCheckpoint(filename="on exception {step}", save_on_exception=True)
    fit = trainer(logger, epochs=3, enable_checkpointing=True, callbacks=[callback])
    try:
        with pytest.raises(SystemExit):
            fit.fit(Model(fails_in_epoch=1, error=KeyboardInterrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    (name,) = [name for name in kept(logger) if "step=3" in name or "step=4" in name][-1:]
    assert name in kept(logger)
    assert kinds(logger)[-1] == "end"


def test_checkpoints_of_one_name_in_two_folders_are_two(tmp_path):
    logger = RunLogger("flowers", checkpoints=True)
    callbacks = [ModelCheckpoint(tmp_path / name, filename="same", monitor="val_loss") for name in ("one", "two")]
    callbacks[1].mode = "max"
    trainer(logger, enable_checkpointing=True, callbacks=callbacks).fit(Model())
    assert kept(logger) == ["same.ckpt", "two/same.ckpt"]


def test_a_resumed_run_deletes_what_it_kept_before(tmp_path):
    name = None
    for epochs in (2, 5):
        logger = RunLogger("flowers", checkpoints=True, resume=name or "")
        name = logger.version
        callback = ModelCheckpoint(monitor="val_loss", filename="{epoch}", auto_insert_metric_name=False)
        fit = trainer(logger, epochs, enable_checkpointing=True, callbacks=[callback])
        fit.fit(Falling(LOSSES), ckpt_path=callback.best_model_path or (tmp_path / "best" if epochs > 2 else None))
        (tmp_path / "best").write_bytes(open(callback.best_model_path, "rb").read())  # noqa: SIM115, PTH123
        logger.close()
        del fit, callback
    assert kept(logger) == ["3.ckpt"]


def test_a_disk_that_knows_no_second_names_gets_copies(monkeypatch):
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(18, "another device")))
    logger = RunLogger("flowers", checkpoints=True)
    trainer(logger, enable_checkpointing=True).fit(Model())
    (name,) = kept(logger)
    folder = RunFolder(logger.log_dir)
    assert (folder.artifacts / "checkpoints" / name).read_bytes() == (folder.checkpoints / name).read_bytes()


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(monkeypatch, capsys):
    logger = RunLogger("flowers", checkpoints=True)
    logger.log_metrics({"loss": 1.0})
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(Run, "artifact", lambda self, *words: (_ for _ in ()).throw(full))
    trainer(logger, enable_checkpointing=True).fit(Model())
    assert "was not recorded (No space left on device)" in capsys.readouterr().err


def test_a_checkpoint_folder_stands_until_the_next_of_its_name_is_whole(tmp_path, monkeypatch):
    source, target = tmp_path / "sharded", tmp_path / "artifacts/sharded"
    target.parent.mkdir()
    there = []
    real = checkpoint_artifacts._link
    monkeypatch.setattr(checkpoint_artifacts, "_is_replaced_whole", lambda source: True)
    monkeypatch.setattr(
        checkpoint_artifacts, "_link", lambda *names: (there.append((target / "0.pt").exists()), real(*names))
    )
    for content in ("first", "second", "third"):
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        for name in ("0.pt", "1.pt"):
            (source / name).write_text(content)
        checkpoint_artifacts._place(source, target)
        assert [path.read_text() for path in sorted(target.iterdir())] == [content] * 2
    assert there == [False] * 2 + [True] * 4
    assert [path.name for path in target.parent.iterdir()] == ["sharded"]


# processes


def test_a_fork_leaves_the_run_to_its_parent():
    logger = RunLogger("flowers")
    logger.log_metrics({"loss": 1.0}, 1)
    lock = logger.experiment.journal._lock
    child = os.fork()
    if not child:
        held = True
        try:
            os.fstat(lock)
        except OSError:
            held = False
        live_run.LiveRun.__del__ = None
        os._exit(int(held) + 2 * bool(live_run._open))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert RunFolder(logger.log_dir).ended() is None
    logger.log_metrics({"loss": 2.0}, 2)
    assert steps(logger, "loss") == [1, 2]


def test_the_package_gives_the_logger_without_importing_lightning_before():
    code = "import sys, pipeline.tracking as t; print('torch' in sys.modules); t.RunLogger; print(t.nothing)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment())
    assert done.stdout == "False\n"
    assert "has no attribute 'nothing'" in done.stderr
