"""The record of any Lightning script: what its Trainer logs, into a run's folder and from there into MLflow."""

import contextlib
import math
import os
import re
import sys
import zlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.logger import _convert_params, _flatten_dict
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from pipeline.tracking import identity
from pipeline.tracking.checkpoint_artifacts import CheckpointArtifacts
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.lines import as_texts
from pipeline.tracking.live_run import LiveRun, opened
from pipeline.tracking.run import Run, sorted_out

LONGEST_PARAM = 6000  # characters that MLflow takes; a test holds it to that
NOT_FINITE, CHANGED = "not_finite.", "changed."


class RunLogger(CSVLogger):
    """Logs any Lightning script to a folder of its own, from which a process of its own delivers to MLflow.

        logger = RunLogger(experiment_name="flowers", run_name="resnet18", tags={"team": "botany"})
        trainer = Trainer(max_epochs=5, logger=logger)
        trainer.fit(model, data)

    It never waits for MLflow. The run is opened with the first fit or log call, on rank 0 alone, and ends with the
    process (or `close`): FINISHED; FAILED with the traceback after an error; KILLED after Ctrl-C or SIGTERM. What was
    logged after such an end opens it again. A process that died without a word is told by the next start. Where
    MLFLOW_TRACKING_URI is not set, records go to `mlflow.db` in the working directory.

    It is a CSVLogger only because that is whom the Trainer asks for the folder of a run (`trainer.log_dir`, where
    LightningCLI puts its config); of other loggers it takes the folder of all runs.
    """

    def __init__(
        self,
        experiment_name: str,
        run_name: str = "",
        *,
        tags: Mapping[str, Any] | None = None,
        save_dir: str | Path = "runs",
        step: Literal["step", "epoch"] = "step",
        resume: str = "",
        checkpoints: bool | Literal["best"] = False,
    ) -> None:
        """Choose the run's folder; nothing is written yet.

        Args:
            experiment_name: MLflow's experiment, created if it is new.
            run_name: the run's name there; empty: its folder's.
            tags: tags of the run.
            save_dir: gets the run's folder, and in that the checkpoints that have no place of their own.
            step: what metrics are logged against: Lightning's step, or the epoch (from 0, as Lightning counts).
            resume: a run to go on with in the same record: `last`, a folder, its name or MLflow's run id. Values that
                stand there already stay as they are.
            checkpoints: whether MLflow gets what ModelCheckpoint keeps, the best alone, or none.

        Raises:
            ValueError: for a run to resume that is not there, or an argument that is none of those above.
        """
        if not experiment_name.strip():
            raise ValueError(f"experiment_name {experiment_name!r} is empty: an MLflow experiment needs a name")
        if step not in ("step", "epoch"):
            raise ValueError(f"step {step!r} is not one of step, epoch")
        if checkpoints not in (True, False, "best"):
            raise ValueError(f"checkpoints {checkpoints!r} is not one of True, False, 'best'")
        self.experiment_name, self.run_name, self.tags = experiment_name, run_name, dict(tags or {})
        self._save_dir, self._step, self._checkpoints = str(Path(save_dir).absolute()), step, checkpoints
        self._number = identity.next_number()
        self._folder: RunFolder | None = None
        if not _is_helper():
            self._folder = identity.chosen(Path(self._save_dir), experiment_name, resume, self._number)
        self._has_begun = self._has_travelled = False
        self._live: LiveRun | None = None
        self._params: dict[str, str] = {}
        self._told_not_finite: set[str] = set()
        self._last_step = 0

    # where it is

    @property
    def save_dir(self) -> str:
        """The folder of all runs."""
        return self._save_dir

    @property
    def name(self) -> str:
        """Nothing: the runs' folders lie in `save_dir`, without one for each experiment between."""
        return ""

    @property
    def version(self) -> str:
        """The name of the run's folder, on all ranks; empty on one that cannot know it yet."""
        folder = self._place()
        return folder.path.name if folder else ""

    @property
    def root_dir(self) -> str:
        """The folder of all runs."""
        return self._save_dir

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(Path(self._save_dir) / self.version)

    def _place(self) -> RunFolder | None:
        if _is_helper() and not self._has_travelled:
            self._folder = identity.learned(self._number)
        return self._folder

    # opening

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run's record, opened; for what a Trainer does not log: `logger.experiment.tags({"a": "1"})`."""
        live = self._opened()
        identity.publish(self._number, live.run.folder)
        return live.run

    def _opened(self) -> LiveRun:
        if self._live is None or self._live.ending.process != os.getpid():
            self._live = self._open()
        if not self._live.run.journal.is_held:  # this logger was sent to another process, which may have it
            self._live.run.journal.acquire()
            self._live.run.journal.forget_before()
        return self._live

    def _open(self) -> LiveRun:
        assert self._folder is not None
        tags = {**identity.job_tags(self._number), **as_texts(self.tags)}
        tags["mlflow.runName"] = self.run_name or self._folder.path.name
        live = opened(self._folder, self.experiment_name, tags, has_begun=self._has_begun, adopt=self._number == 0)
        self._has_begun = True
        events = self._folder.events()
        for event in events:
            self._params |= {name: str(value) for name, value in event.get("params", {}).items()}
            self._last_step = event.get("step", self._last_step)
        self._kept = CheckpointArtifacts(live.run, events, self._checkpoints == "best")
        return live

    def __getstate__(self) -> dict[str, Any]:
        """Which run it is, and no open file; the lock goes to whoever logs next."""
        if self._live and self._live.run.journal.is_held:
            self._live.run.journal.close()
        return {name: value for name, value in vars(self).items() if name not in ("_live", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._live, self._has_travelled = None, True

    # logging

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record what is a number; NaN and infinities in the folder alone, with a tag; texts as tags.

        Args:
            metrics: name -> value; a tensor of one element is a number.
            step: of all of them; None: the last that was given.
        """
        live = self._opened()
        live.go_on()
        values, texts = sorted_out(metrics)
        if self._step == "epoch":
            step = int(values.pop("epoch", self._last_step))
        self._last_step = self._last_step if step is None else int(step)
        not_finite = {name: value for name, value in values.items() if not math.isfinite(value)}
        finite = {name: value for name, value in values.items() if name not in not_finite}
        live.run.metrics(finite, self._last_step, not_finite=not_finite)
        for name in not_finite.keys() - self._told_not_finite:
            texts[f"{NOT_FINITE}{name}"] = f"{not_finite[name]} at step {self._last_step}"
        self._told_not_finite |= set(not_finite)
        if texts:
            live.run.tags(texts)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        """Record params, nested ones as `a/b`. One that changes keeps its value in MLflow; the new one is a tag."""
        given = as_texts(_flatten_dict(_convert_params(params)))
        live = self._opened()
        changes = {name: _short(text) for name, text in given.items() if self._params.get(name) != _short(text)}
        if not changes:
            return
        live.go_on()
        for name in changes:
            if len(given[name]) > LONGEST_PARAM:
                with contextlib.suppress(OSError):  # a full disk is no reason to end a training
                    live.run.text_artifact(f"params/{_file_name(name)}.txt", given[name])
        if new := {name: text for name, text in changes.items() if name not in self._params}:
            live.run.params(new)
        if tags := {f"{CHANGED}{name}": text for name, text in changes.items() if name not in new}:
            live.run.tags(tags)
        self._params |= changes

    @rank_zero_only
    def log_file(self, path: str | Path, name: str = "") -> None:
        """Record a file or folder as it is now, under its own name or the one given (`figures/curve.png`).

        Raises:
            ValueError: if the name leads out of the run's artifacts.
        """
        self._opened().run.copied_artifact(Path(path), name)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Record what the callback has saved, if checkpoints are asked for."""
        if self._checkpoints:
            self._opened()
            self._kept.take(checkpoint_callback)

    @rank_zero_only
    def save(self) -> None:
        """Nothing has to be saved; but checkpoints that ModelCheckpoint has deleted are deleted."""
        if self._live and self._checkpoints:
            self._kept.sweep()

    # the end

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run if it failed; after a success more may come, so that its end is written with the process'.

        Lightning says "failed" of Ctrl-C and SIGTERM as well: which it was, the exception in flight tells.
        """
        if self._live is None:
            return
        if status != "finished":  # so Lightning says in a signal handler, which may be amid a write
            self.save()
        run, error = self._live.run, sys.exc_info()[1]
        if status in ("success", "finished"):
            self._live.ending.complete = True
        elif isinstance(error, SIGTERMException):
            run.end("KILLED", "SIGTERM")
        elif error:
            run.end_by(error)
        else:
            run.end(*self._live.ending.former or ("FAILED",))

    @rank_zero_only
    def close(self) -> None:
        """Write the run's end now, not with the process': FINISHED, if it has none yet."""
        if self._live:
            self._live.close()
            self._live = None


def _is_helper() -> bool:
    """Whether this process is another than rank 0, as far as it knows by now."""
    return bool(getattr(rank_zero_only, "rank", 0))


def _short(text: str) -> str:
    """A param's value that MLflow takes; of one that is longer, and lies whole in an artifact, with its checksum."""
    if len(text) <= LONGEST_PARAM:
        return text
    return f"{text[: LONGEST_PARAM - 12]}... {zlib.crc32(text.encode(errors='replace')):08x}"


def _file_name(param: str) -> str:
    """A name for the param's file; `a/b` and `a_b` are two."""
    plain = re.sub(r"[^\w.-]", "_", param)
    return plain if plain == param else f"{plain}-{zlib.crc32(param.encode(errors='replace')):08x}"
