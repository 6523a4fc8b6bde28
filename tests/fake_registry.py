"""A model registry of this process, whose alias, versions and answers change as a test wants, and its watcher."""

import itertools
from pathlib import Path
from types import SimpleNamespace

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from pipeline.data_spec import MNIST
from pipeline.registry.versions import NotServableError
from pipeline.serving.alias_watcher import AliasWatcher
from pipeline.serving.metrics import Telemetry

AWAY = "API request to http://x failed with timeout exception"


class Page(list):
    token = None


class Registry:
    """Versions by number and the alias, of one model; each entry opens as a model of its own, unless it is broken."""

    def __init__(self):
        self.entries, self.champion, self.away = {}, None, False
        self.made, self.opened, self.broken = itertools.count(1), [], set()

    def new(self, version, **facts):
        """A version under that number, another one than any before."""
        number = next(self.made)
        entry = {"version": version, "run_id": f"run{number}", "source": f"models:/m{number}", "model_id": f"m{number}"}
        self.entries[str(version)] = SimpleNamespace(**{**entry, "creation_timestamp": number, **facts})

    def get_model_version_by_alias(self, name, alias):
        assert (name, alias) == ("digits", "champion")
        self.answers()
        if self.champion not in self.entries:
            raise MlflowException("not there", RESOURCE_DOES_NOT_EXIST)
        return self.entries[self.champion]

    def get_model_version(self, name, version):
        assert name == "digits"
        self.answers()
        return self.entries[version]

    def search_registered_models(self, max_results, page_token):
        return Page([SimpleNamespace(name="digits", aliases={})] if self.entries else [])

    def answers(self):
        if self.away:
            raise MlflowException(AWAY, INTERNAL_ERROR)

    def load(self, uri, name, version, run_id, folder):
        assert (uri, name, run_id) == (f"models:/digits/{version}", "digits", self.entries[version].run_id)
        assert Path(folder).is_dir()
        assert Path(folder).name.startswith("pipeline-model-")
        self.opened.append(run_id)
        if run_id in self.broken:
            raise NotServableError(f"{name} version {version} cannot be opened")
        return SimpleNamespace(name=name, version=version, run_id=run_id, spec=MNIST)


def watcher_of(registry, poll_s=1.0):
    return AliasWatcher(registry, "digits", "champion", poll_s, Telemetry())


def look(watcher):
    """As the watcher's thread does it, once."""
    waits = iter([False, True])
    watcher._stop = SimpleNamespace(wait=lambda pause: next(waits))
    watcher._follow()
