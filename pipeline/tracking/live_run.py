"""A run that a logger keeps open for as long as its process, or the logger itself, lives; with its true end."""

import contextlib
import os
import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.signals import last_words, last_words_on_termination, uninterrupted
from pipeline.terminal.shell import command, shown
from pipeline.tracking import recovery
from pipeline.tracking.checkout import Checkout, checkout
from pipeline.tracking.folders import original_of, refusal_of_copy
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.provenance import machine_tags, script, script_tags
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import UploaderProcess
from pipeline.values import counted

_open: "weakref.WeakValueDictionary[Path, LiveRun]" = weakref.WeakValueDictionary()


def opened(
    folder: RunFolder, experiment_name: str, tags: Mapping[str, str], *, has_begun: bool, adopt: bool
) -> "LiveRun":
    """The folder's run, open in this process: begun, gone on with, or shared with a copy of the logger.

    Args:
        folder: the run's.
        experiment_name: where a new run belongs.
        tags: of the run.
        has_begun: whether this logger had the run open before, here or where it was sent from.
        adopt: whether a new run is the one that `mlflow run` has created for this process, if there is one.

    Raises:
        ValueError: if the folder cannot be written, another process holds it, or it is the copy of a run beside it.
    """
    path = folder.path.absolute()
    if path in _open:
        return _open[path]
    recovery.deliver_what_others_left(path.parent, _place_of_store(path.parent))
    if not has_begun and folder.started():
        if original := original_of(folder):
            raise ValueError(refusal_of_copy(folder, original))
        if folder.ended() is None:
            recovery.close_as_dead(folder)
    for other in list(_open.values()):
        other.ending.end_if_complete()
    live = _open[path] = LiveRun(folder)
    if has_begun:
        live.run.journal.forget_before()
    elif live.run.journal.count:
        live.resume(tags)
    else:
        live.start(experiment_name, tags, adopt)
    return live


class LiveRun:
    """A run's record with what belongs to it while it is open: its uploader, the last words on a signal, its end.

    Attributes:
        run: the record.
        ending: writes the end when the process ends, or when nothing refers to this any more.
    """

    def __init__(self, folder: RunFolder) -> None:
        try:
            journal = Journal(folder)
        except OSError as error:
            raise ValueError(
                f"save_dir {folder.path.parent} cannot be written ({error.strerror}); give RunLogger another save_dir"
            ) from None
        self.uploader = UploaderProcess(folder, _place_of_store(folder.path.parent))
        self.run = Run(journal, self.uploader)
        self.ending = Ending(self.run, self.uploader)
        self._finalizer = weakref.finalize(self, self.ending.write)

    def start(self, experiment_name: str, tags: Mapping[str, str], adopt: bool) -> None:
        """Begin the record, with the commit of the script, the packages and the machine."""
        code = _script_checkout()
        self.run.start(experiment_name, {}, {**machine_tags(), **script_tags(), **tags}, code=code, adopt=adopt)
        self._add_provenance()

    def resume(self, tags: Mapping[str, str]) -> None:
        """Go on with the record of a process before this one."""
        kept = {name: text for name, text in tags.items() if name != "mlflow.runName"}
        resumed = {f"resumed.{name}": text for name, text in _script_checkout().tags().items()}
        self.run.resume({}, {**machine_tags(), **kept, **resumed})
        self._add_provenance()

    def _add_provenance(self) -> None:
        with contextlib.suppress(OSError):  # a full disk is no reason to end a training
            self.run.provenance(_script_checkout())

    def go_on(self) -> None:
        """Be ready for more: what has ended is open again, for a test after a fit that failed."""
        if self.run.journal.is_closed:
            end = self.run.folder.ended()
            self.ending.former = (end["status"], end["tags"].get("failure_reason", "")) if end else None
            self.run.resume({}, {})
        self.ending.complete = False

    def close(self) -> None:
        """Write the end now, and let other processes have the folder."""
        _open.pop(self.run.folder.path.absolute(), None)
        self._finalizer()


@dataclass
class Ending:
    """How a run ends with its process: FINISHED, unless an uncaught error says FAILED.

    Attributes:
        complete: whether what came last, a fit or a test, ended well.
        former: status and reason of an end that more was logged after: it stands again unless that ended well.
    """

    run: Run
    uploader: UploaderProcess
    complete: bool = False
    former: tuple[str, str] | None = None
    process: int = field(default_factory=os.getpid)
    signals: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.signals.enter_context(last_words(lambda reason: self.run.end("KILLED", reason)))
        self.signals.enter_context(last_words_on_termination())

    def end_if_complete(self) -> None:
        """Write the end of what is done: another run begins in this process."""
        if self.complete:
            self.run.end("FINISHED")

    def write(self) -> None:
        """Write the end, unless it stands, and let the uploader do the rest by itself."""
        if os.getpid() != self.process:  # a fork, whose parent has the run
            return
        with self.signals, uninterrupted():
            with contextlib.suppress(OSError, RunIsAliveError):  # it was sent to another process, which has it still
                if not self.run.journal.is_held:
                    self.run.journal.acquire()
                self._end()
                self.run.journal.write_held()
                self.run.journal.close()
            self.uploader.close()
        _tell_lost(self.run)
        _tell_waiting(self.run)

    def _end(self) -> None:
        error = _uncaught()
        if error is None and self.former and not self.complete:
            self.run.end(*self.former)
        self.run.end_by(error)


def _uncaught() -> BaseException | None:
    """The error that is ending this process; an interpreter that a person types into goes on after its errors."""
    return None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)


def _tell_lost(run: Run) -> None:
    """Say on the error output what the disk has not taken to the last."""
    if lost := len(run.journal.held):
        print(
            f"no space left on the disk of {shown(run.folder.path)}: {counted(lost, 'record', 'are')} lost",
            file=sys.stderr,
        )


def _tell_waiting(run: Run) -> None:
    """Say on the error output what MLflow does not have, if it has not answered; nobody waits for it."""
    trouble = run.folder.state().get("trouble")
    if trouble:
        again = trouble.get("advice") or f"when it answers: {command('sync', runs_dir=run.folder.path.parent)}"
        print(f"records wait for MLflow in {shown(run.folder.path)} ({trouble['error']}); {again}", file=sys.stderr)


def _script_checkout() -> Checkout:
    """The tree of the script that runs; of a notebook or a prompt, that of the working directory."""
    file = script()
    return checkout(file.parent if file else Path.cwd())


def _place_of_store(save_dir: Path) -> Path | None:
    """Where `mlflow.db` lies if no address is given: here (None), or beside the runs where nobody may write here."""
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            return None
    except OSError:
        return save_dir


def _leave_to_the_parent() -> None:
    """In a fork, as a DataLoader's workers are: hold neither the run's lock nor the uploader's input open."""
    for live in list(_open.values()):
        live.run.journal.close()
        live.uploader.close()
    _open.clear()


os.register_at_fork(after_in_child=_leave_to_the_parent)
