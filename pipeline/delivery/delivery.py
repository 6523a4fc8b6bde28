"""The way from the run's folder to MLflow: in order, each event once, for as long as it takes."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from requests import HTTPError, Timeout

from pipeline.delivery.batches import BATCHED, FILES, directed, is_overtaken, next_batch, without_overwritten
from pipeline.delivery.blocked import A_ROW, ArtifactStore, BlockedError, Left, LeftError, lefts, why_blocked
from pipeline.delivery.follower import Follower
from pipeline.delivery.opening import Known
from pipeline.delivery.writer import Writer
from pipeline.mlflow_client.connection import once, wait_longer
from pipeline.mlflow_client.errors import in_words, is_answer, is_final, is_silence, told_tracking_uri
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.lines import LOST, Event

SAVE_EACH_S = 0.2  # what a process that is killed has not written down is delivered again: that much work at most
ASKED = "asked"  # in the state: the run may have been created, though it has no id here
REFUSED_TAG, REASON_TAG = "pipeline.refused", "failure_reason"
REFUSED_REASON = "MLflow refused a part of the record, see pipeline.refused"


class Delivery:
    """Carries one run's journal to MLflow; what is done stands in the folder's state, so that it can stop anywhere.

    Attributes:
        delivered: number of events that have been dealt with.
        left: what of them MLflow has refused.
        end: the event that closed the run, if there was one when it was last delivered.
    """

    end: Event | None = None

    def __init__(self, folder: RunFolder, client: mlflow.MlflowClient, known: Known | None = None) -> None:
        """Take up where the folder's state says.

        Args:
            folder: the run's.
            client: of the tracking server.
            known: what this process has learned of that server.
        """
        state = folder.state()
        self.folder, self._journal = folder, Follower(folder)
        self._sent_up_to, self._one_by_one_up_to, self._saved_at = 0, 0, 0.0
        ids = state.get("run_id", ""), state.get("experiment_id", ""), state.get("versions", {})
        self.writer = Writer(folder, client, *ids, known or Known())
        self.artifact_store = ArtifactStore(self.writer)
        self.delivered: int = state.get("delivered", 0)
        self._saved = self.delivered
        refused = state.get("refused", [])
        self.left = [Left(**each) for each in refused if isinstance(each, dict)]
        # From before a state said of which events.
        self.of_unknown_events = [each for each in refused if isinstance(each, str)]
        self._elsewhere: dict[str, Any] = state.get("elsewhere", {})
        self._told: str = state.get("told", "?" if refused else "")

    @property
    def run_id(self) -> str:
        """MLflow's id of the run; empty before it has one."""
        return self.writer.run_id

    @property
    def refused(self) -> list[Left]:
        """What MLflow says that it will never take."""
        return [left for left in self.left if left.final]

    @property
    def done(self) -> int:
        """How many events MLflow has whole; while this grows, the delivery gets on."""
        return self.delivered - len({left.event for left in self.left})

    def deliver(self, retry: bool = False) -> None:
        """Deliver every event that the journal has, then again what was refused for now.

        Args:
            retry: send again also what was refused for good.

        Raises:
            BlockedError: if the run cannot be delivered before somebody does something.
            LeftError: if all is delivered but what MLflow does not take for now.
            Exception: whatever the server or the network gives as a reason to try again later.
        """
        events = directed(self._journal.events(), self._elsewhere)
        self.end = self._journal.end
        self.artifact_store.ask_again()
        if retry and self.of_unknown_events:
            self.delivered, self.of_unknown_events = 0, []
        self.delivered = min(self.delivered, len(events))
        if events and events[0]["kind"] == LOST and not self.run_id:
            raise BlockedError(
                "its first record, which says what run this is, is damaged", "the rest stays in the folder, to be read"
            )
        with once(), self._explained(events):
            self._deliver_new(events)
            self._deliver_left(events, retry)
            self._tell_refusals()
        if waiting := Counter(left.words for left in self.left if not left.final):
            raise LeftError("; ".join(f"{words} ({n} times)" if n > 1 else words for words, n in waiting.items()))

    def check(self) -> None:
        """Make sure that MLflow still knows the run.

        Raises:
            BlockedError: if it does not.
        """
        if self.run_id:
            with self._explained([]):
                self._be_open()

    def _deliver_new(self, events: list[Event]) -> None:
        in_a_row = 0
        while self.delivered < len(events):
            if events[self.delivered]["kind"] == "start" and not self.run_id:
                self.writer.is_new = self._is_new(events[self.delivered])  # before anything is sent
            self._send_together(events)
            event = events[self.delivered]
            left = []
            if self.delivered >= self._sent_up_to or event["kind"] not in BATCHED:
                try:
                    left = self._write(self.delivered, events, [], in_a_row < A_ROW)
                except Exception:
                    if self.delivered > self._saved:
                        self._save()
                    raise
            is_refused = event["kind"] not in FILES and any(not each.final and not each.names for each in left)
            in_a_row = in_a_row + 1 if is_refused else 0
            if event["kind"] == "end":
                if events[0]["kind"] == "start":
                    self.writer.remove_doubles(events[0])
                self._told = "?" if self._told else ""
            self.left += left
            self.delivered += 1
            if self.delivered == len(events) or time.monotonic() - self._saved_at > SAVE_EACH_S:
                self._save()

    def _is_new(self, start: Event) -> bool:
        """Whether nothing can have been sent of the run; the state says from now on that something may have been."""
        state, is_whole = self.folder.checked_state()
        since = self.writer.known.since
        if ASKED in state or self._elsewhere or not is_whole or since is None or start["time"] < since:
            return False
        try:
            self.folder.write_state({**state, ASKED: True})
        except OSError:  # whoever comes next would not know
            return False
        return True

    def _send_together(self, events: list[Event]) -> None:
        """Send params, metrics and tags that come next in one request; none of one event, or what MLflow refuses."""
        if self.delivered < max(self._sent_up_to, self._one_by_one_up_to):
            return
        together, up_to = next_batch(events, self.delivered)
        if len(together) < 2:
            return
        try:
            refused = self.writer.write_together(together)
        except MlflowException as error:
            if not self._is_of_the_event(error, True):
                raise
            self._one_by_one_up_to = up_to
            return
        self._sent_up_to = up_to
        self.left += lefts(refused, 0, "start")
        self._save()

    def _deliver_left(self, events: list[Event], retry: bool) -> None:
        again = [left for left in self.left if (retry or not left.final) and left.event < len(events)]
        for left in again:
            if events[left.event]["kind"] in FILES and self.artifact_store.why_not:
                continue
            still = self._write(left.event, events, left.names, True)
            self.left = [each for each in self.left if each is not left] + still
            self._save()

    def _write(self, index: int, events: list[Event], names: list[str], may_pass: bool) -> list[Left]:
        """Write one event, or parts of it; returns what MLflow refuses of it.

        Raises:
            Exception: if it is not the event that is at fault, or it may not be passed over.
        """
        event, later = events[index], events[index + 1 : self.delivered]
        if event["kind"] in FILES:
            return [] if is_overtaken(event, later) else self._write_files(index, event)
        status = not any(each["kind"] in ("resume", "end") for each in later)
        try:
            refusals = self.writer.write(without_overwritten(event, later), names, status)
        except (MlflowException, HTTPError) as error:
            if event["kind"] == "start" or not self._is_of_the_event(error, may_pass):
                raise
            return [Left(index, f"{event['kind']}: {in_words(error)}", is_final(error))]
        return lefts(refusals, index, event["kind"])

    def _write_files(self, index: int, event: Event) -> list[Left]:
        """Write an event with its files; returns it if the artifact store refuses.

        Raises:
            Exception: if the server does not answer either, or the run is deleted there.
        """
        if why := self.artifact_store.why_not:
            return [Left(index, f"{event['kind']}: {why}", False)]
        began = time.monotonic()
        try:
            self.writer.write(event)
        except Exception as error:
            if gone := self.writer.gone(event):
                is_void = is_overtaken(event, self._journal.events()[index + 1 :])  # what stands there by now
                return [] if is_void else [Left(index, f"{event['kind']}: {gone}", True)]
            seconds = time.monotonic() - began
            self._be_open()
            return [Left(index, f"{event['kind']}: {self.artifact_store.note(error, seconds)}", is_final(error))]
        self.artifact_store.refused = 0
        return []

    def _is_of_the_event(self, error: Exception, may_pass: bool) -> bool:
        """Whether MLflow takes the run as such, so that the others are not to wait for this event."""
        if not is_final(error) and not (may_pass and is_answer(error)):
            return False
        try:
            return self.writer.is_open()
        except MlflowException:
            return False

    def _be_open(self) -> None:
        if not self.writer.is_open():
            raise MlflowException("the run is deleted", RESOURCE_DOES_NOT_EXIST)

    def _tell_refusals(self) -> None:
        """Let the ended run's status and tags in MLflow say what is refused, or that nothing is any more."""
        words = "; ".join([*self.of_unknown_events, *(left.words for left in self.refused)])
        if self.end is None or words == self._told:
            return
        end, run = self.end, self.writer.client.get_run(self.run_id)
        tags = {REFUSED_TAG: words} if words else {}
        if words and end["status"] == "FINISHED":
            self.writer.close(end, "FAILED")
            tags[REASON_TAG] = REFUSED_REASON
        elif not words:
            self.writer.close(end, end["status"])
            for name in {REFUSED_TAG, REASON_TAG} & set(run.data.tags):
                if name == REFUSED_TAG or run.data.tags[name] == REFUSED_REASON:
                    self.writer.client.delete_tag(self.run_id, name)
        self.writer.write({"kind": "tags", "tags": tags})
        self._told = words
        self._save()

    @contextlib.contextmanager
    def _explained(self, events: list[Event]) -> Iterator[None]:
        """Turn MLflow's final word on the run as a whole into what to do about it; after silence wait longer."""
        try:
            yield
        except (MlflowException, HTTPError, Timeout) as error:
            if is_silence(error):
                wait_longer()
            if isinstance(error, MlflowException) and (blocked := why_blocked(error, self.writer, events)):
                raise blocked from None
            raise

    def _trouble(self) -> dict[str, Any] | None:
        """The trouble that stands in the state, as long as something waits; its end is the end of all that waits."""
        waits = any(not left.final for left in self.left)
        trouble: dict[str, Any] = (self.folder.state().get("trouble") if waits else None) or {}
        return trouble if trouble and not trouble.get("advice") else None

    def _save(self) -> None:
        """Write down how far it is. A full disk is no reason to stop: what is not written down is delivered again."""
        self._saved, self._saved_at = self.delivered, time.monotonic()
        with contextlib.suppress(OSError):
            self.folder.write_state(
                {
                    "run_id": self.run_id,
                    "experiment_id": self.writer.experiment_id,
                    "delivered": self.delivered,
                    "refused": [*self.of_unknown_events, *(asdict(left) for left in self.left)],
                    "told": self._told,
                    "versions": self.writer.versions,
                    "tracking_uri": told_tracking_uri(),
                    "trouble": self._trouble(),
                    **({"elsewhere": self._elsewhere} if self._elsewhere else {}),
                }
            )
