"""What MLflow does not take: of a run, parts for now or for good; or no more of it before somebody does something."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import mlflow
from mlflow.exceptions import MlflowException
from requests import HTTPError, RequestException

from pipeline.delivery.writer import Refusal, Writer
from pipeline.mlflow_client.connection import wait_longer
from pipeline.mlflow_client.errors import ToldError, in_words, is_answer, is_final, is_silence, told_tracking_uri
from pipeline.terminal.shell import command, quoted
from pipeline.tracking.lines import Event

A_ROW = 3  # so many events refused for now, one after the other, and it is the server's trouble, not theirs
SLOW_S = 8.0  # an artifact store that fails after longer, without an answer, has been waited for long enough


class BlockedError(ToldError):
    """MLflow answers, and will not take the run until somebody does something: what, its `advice` says."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


class LeftError(ToldError):
    """Everything is delivered but what MLflow does not take for now; it is tried again with the next delivery."""


@dataclass(frozen=True)
class Left:
    """An event, or parts of it, that MLflow has refused.

    Attributes:
        event: its index in the journal.
        words: what it is and why, in one line.
        final: whether MLflow says that it never will take it; else it is tried again and again.
        names: the params, metrics and tags that are left of it; none: all of it.
    """

    event: int
    words: str
    final: bool
    names: list[str] = field(default_factory=list)


def lefts(refusals: Iterable[Refusal], index: int, kind: str) -> list[Left]:
    """The refused parts of an event: those for good, and those for now."""
    of_kind: dict[bool, list[Refusal]] = {}
    for refusal in refusals:
        of_kind.setdefault(refusal.final, []).append(refusal)
    return [
        Left(
            index,
            f"{kind} {', '.join(each.name for each in some)}: {some[0].reason}",
            final,
            [each.name for each in some],
        )
        for final, some in of_kind.items()
    ]


class ArtifactStore:
    """Where a run's files go, which may be another's than the server, as its refusals show it.

    Attributes:
        refused: how many files in a row it has refused for now.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.refused, self._why, self._has_found_it_silent = 0, "", False

    def ask_again(self) -> None:
        """Begin a round: whoever has found it silent is who looks again, the other runs of the experiment wait."""
        self.refused = 0
        if self._has_found_it_silent:
            self._writer.known.silent_stores.pop(self._writer.experiment_id, None)
        self._has_found_it_silent = False

    def note(self, error: Exception, seconds: float) -> str:
        """Note that it did not take a file, after so many seconds; returns why, in words."""
        self.refused, self._why = self.refused + (not is_final(error)), _of_the_store(error)
        is_slow = seconds > SLOW_S and not is_answer(error)
        if not wait_longer() if is_silence(error) else is_slow:
            self._writer.known.silent_stores[self._writer.experiment_id] = self._why
            self._has_found_it_silent = True
        return self._why

    @property
    def why_not(self) -> str:
        """Why it is asked no more for now, in words; nothing if it is."""
        why = self._why if self.refused >= A_ROW else ""
        return self._writer.known.silent_stores.get(self._writer.experiment_id, why)

    @property
    def is_silent(self) -> bool:
        """Whether it keeps everybody waiting for nothing, as long as we wait at most."""
        return self._writer.experiment_id in self._writer.known.silent_stores


def _of_the_store(error: Exception) -> str:
    """In words, why the artifact store does not take a file; a connection that fails need not be the server's."""
    is_connection = isinstance(error, ConnectionError | RequestException) and not isinstance(error, HTTPError)
    return in_words(ToldError(f"{type(error).__name__}: {error}"))[:160] if is_connection else in_words(error)


def why_blocked(error: MlflowException, writer: Writer, events: list[Event]) -> BlockedError | None:
    """Why the run cannot be delivered and what to do, if MLflow has said so."""
    if not is_final(error):
        return None
    folder, client, name, uri = writer.folder, writer.client, writer.folder.path.name, told_tracking_uri()
    place = str(folder.path.parent)
    again = f"then: {command('sync', name, runs_dir=place)}; or send it as a new run: "
    again += command("sync", name, "--as-new", runs_dir=place)
    try:
        experiment = _deleted_experiment(client, writer.run_id, events)
        if experiment:
            restore = f"mlflow experiments restore -x {quoted(experiment.experiment_id)}"
            return BlockedError(f"experiment {experiment.name!r} is deleted in MLflow", f"{restore}, {again}")
        if writer.run_id and not writer.is_open():
            restore = f"mlflow runs restore --run-id {writer.run_id}"
            return BlockedError(f"run {writer.run_id} is deleted in MLflow", f"{restore}, {again}")
    except MlflowException as other:
        if not is_final(other):
            return None
        error = other
    if writer.run_id and error.error_code == "RESOURCE_DOES_NOT_EXIST":
        before = folder.state().get("tracking_uri", uri)
        went = f"; it went to {before}" if before != uri else " (any more)"
        return BlockedError(
            f"{uri} does not know run {writer.run_id}{went}",
            f"send it as a new run: {command('sync', name, '--as-new', runs_dir=place)}",
        )
    elsewhere = command("sync", name, "--experiment_name", "NAME", runs_dir=place)
    return BlockedError(f"MLflow does not take the run: {in_words(error)}", f"send it elsewhere: {elsewhere}")


def _deleted_experiment(
    client: mlflow.MlflowClient, run_id: str, events: list[Event]
) -> mlflow.entities.Experiment | None:
    """The experiment of the run, or that it was to come into, if it is deleted."""
    start = events[0] if events else {}
    experiment: mlflow.entities.Experiment | None
    if run_id:
        experiment = client.get_experiment(client.get_run(run_id).info.experiment_id)
    elif start.get("experiment_id"):
        experiment = client.get_experiment(start["experiment_id"])
    else:
        experiment = client.get_experiment_by_name(start.get("experiment_name", ""))
    return experiment if experiment and experiment.lifecycle_stage == "deleted" else None
