"""The version that serves: the one that has the alias, exchanged whole when the alias moves."""

import logging
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import mlflow

from pipeline.mlflow_client.errors import in_words
from pipeline.redaction import without_secrets
from pipeline.registry.versions import Loaded, NotServableError, UnknownModelError, load, version_by_alias
from pipeline.serving.metrics import Telemetry
from pipeline.serving.refusals import RefusalError

log = logging.getLogger("pipeline.serving")

KEPT_OPEN = 3
LONGEST_PAUSE_S = 30.0


class Identity(NamedTuple):
    """What a version is: its number alone is given again when a model is deleted and made anew."""

    version: str
    run_id: str
    model_id: str
    source: str
    created: int


def identity_of(entry: Any) -> Identity:
    """The identity of a registry's entry."""
    model_id = getattr(entry, "model_id", None) or ""
    created = int(entry.creation_timestamp or 0)
    return Identity(str(entry.version), entry.run_id or "", model_id, entry.source or "", created)


class AliasWatcher:
    """Looks at the alias `models:/NAME@ALIAS` every so often and exchanges the version that serves.

    A request takes `current` once and keeps it, so none is read for one version and answered by another. A registry
    that does not answer, or a version that does not open, leaves the old one serving; `trouble` says so.
    """

    def __init__(self, client: mlflow.MlflowClient, name: str, alias: str, poll_s: float, telemetry: Telemetry) -> None:
        self.client, self.name, self.alias, self.poll_s = client, name, alias, poll_s
        self.telemetry = telemetry
        self.current: Loaded | None = None
        self.trouble: str | None = None
        self._serving: Identity | None = None
        self._opened = lru_cache(KEPT_OPEN)(self._load)
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._follow, name="alias watcher", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def serving(self) -> Loaded:
        """The version that serves.

        Raises:
            RefusalError: if there is none yet.
        """
        if self.current is None:
            words = f"no model serves yet ({self.trouble or 'it is being loaded'}); ask /ready, try again later"
            raise RefusalError(503, "TEMPORARILY_UNAVAILABLE", words)
        return self.current

    def look(self) -> None:
        """Look once and exchange if the alias has moved.

        Raises:
            UnknownModelError: if the registry has no such model or alias.
            NotServableError: if its version does not open.
            Exception: what the registry gives as a reason not to answer.
        """
        identity = identity_of(version_by_alias(self.client, self.name, self.alias))
        if self._serving == identity:
            return
        loaded = self._opened(identity)
        facts = {"model": self.name, "version": identity.version, "run_id": identity.run_id}
        log.info("model exchanged", extra={**facts, "before": self.current.version if self.current else None})
        self.current, self._serving = loaded, identity
        self.telemetry.serving(self.name, identity.version, loaded.spec.classes)

    def _load(self, identity: Identity) -> Loaded:
        """Fetch and open a version; the registry is asked again, as it may have changed while files were fetched."""
        version = identity.version
        with tempfile.TemporaryDirectory(prefix="pipeline-model-") as folder:
            loaded = load(f"models:/{self.name}/{version}", self.name, version, identity.run_id, Path(folder))
        if identity_of(self.client.get_model_version(self.name, version)) != identity:
            raise NotServableError(f"{self.name} version {version} was made anew while it was fetched")
        return loaded

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
        trouble = None
        if error is not None:
            is_versions = isinstance(error, NotServableError | UnknownModelError)
            trouble = without_secrets(str(error)) if is_versions else in_words(error)
            self.telemetry.follow_failures.labels("version" if is_versions else "registry").inc()
        if trouble != self.trouble:
            self.trouble = trouble
            log.warning("following the alias", extra={"trouble": trouble})
        self.telemetry.following.set(error is None)
