"""The version that serves: the one that has the alias, exchanged whole when the alias moves."""

import logging
import tempfile
import threading
import time
from pathlib import Path

import mlflow

from pipeline.addresses import without_secrets
from pipeline.connection import in_words
from pipeline.serving.telemetry import Telemetry
from pipeline.versions import Loaded, NotServableError, UnknownModelError, load, version_by_alias

log = logging.getLogger("pipeline.serving")

KEPT_OPEN = 3
LONGEST_PAUSE_S = 30.0


class Follower:
    """Looks at the alias every so often and exchanges the version that serves.

    A request takes `current` once and keeps it, so none is answered by two versions. A registry that does not answer,
    or a version that does not open, leaves the old one serving; `trouble` says so.
    """

    def __init__(self, client: mlflow.MlflowClient, name: str, alias: str, poll_s: float, telemetry: Telemetry) -> None:
        """Follow `models:/NAME@ALIAS`; nothing is loaded before `look` or `start`."""
        self.client, self.name, self.alias, self.poll_s = client, name, alias, poll_s
        self.telemetry = telemetry
        self.current: Loaded | None = None
        self.trouble: str | None = None
        self.looked_at = 0.0
        self._open: dict[str, Loaded] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)

    def start(self) -> None:
        """Follow in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()

    def look(self) -> None:
        """Look once and exchange if the alias has moved.

        Raises:
            UnknownModelError: if the registry has no such model or alias.
            NotServableError: if its version does not open.
            Exception: what the registry gives as a reason not to answer.
        """
        entry = version_by_alias(self.client, self.name, self.alias)
        version = str(entry.version)
        if self.current is None or self.current.version != version:
            loaded = self._open.get(version) or self._load(version, entry.run_id or "")
            self._open[version] = loaded
            before = self.current.version if self.current else None
            self.current = loaded
            self.telemetry.serving(self.name, version)
            log.info("model exchanged", extra={"facts": {"model": self.name, "version": version, "before": before}})
            for old in list(self._open)[:-KEPT_OPEN]:
                if old != version:
                    del self._open[old]
        self.looked_at = time.time()

    def _load(self, version: str, run_id: str) -> Loaded:
        with tempfile.TemporaryDirectory(prefix="pipeline-model-") as folder:
            return load(f"models:/{self.name}/{version}", self.name, version, run_id, Path(folder))

    def _follow(self) -> None:
        pause = self.poll_s
        while not self._stop.wait(pause):
            try:
                self.look()
            except Exception as error:  # whatever it is, the old version goes on serving, and it is said
                self.note(error)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                self.note(None)
                pause = self.poll_s

    def note(self, error: Exception | None) -> None:
        """Say how a look went, where it can be seen: health, metrics, log."""
        if isinstance(error, NotServableError | UnknownModelError):
            kind, words = "version", without_secrets(str(error))
        else:
            kind, words = "registry", in_words(error) if error else ""
        if error is not None:
            self.telemetry.follow_failed(kind)
        if (words or None) != self.trouble:
            self.trouble = words or None
            log.warning("following the alias", extra={"facts": {"trouble": self.trouble}})
        self.telemetry.follow_ok(error is None)
