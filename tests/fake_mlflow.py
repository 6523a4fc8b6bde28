"""A hand-made MLflow in memory: client and store in one, which can fail before, amid or after any of its calls."""

import functools
import itertools
import os
from pathlib import Path
from types import SimpleNamespace

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)

RUN_KEY = "pipeline.run"
LONGEST_KEY, LONGEST_TAG = 250, 8000
NEVER = "never"  # a key that begins so is one that MLflow has its own reasons never to take


class Killed(BaseException):
    """The process ends here: nothing on the way handles it."""


def refusal(code=INVALID_PARAMETER_VALUE, words="no"):
    """MLflow's own word."""
    return MlflowException(words, code)


def the_run(fake):
    """The only one that there is."""
    (run,) = fake.record()["runs"]
    return run


def gateway(status=502):
    """What MLflow's client makes of an answer that is not MLflow's."""
    words = f"API request to http://mlflow/api failed with exception: too many {status} error responses"
    return MlflowException(words)


class Page(list):
    """A page of an answer; there are no more."""

    token = None


def call(method):
    """Count the call and let it fail as it is to fail."""

    @functools.wraps(method)
    def called(self, *words, **options):
        number = len(self.calls)
        self.calls.append((method.__name__, words, options))
        when, error = self.faults.get(number, ("", None))
        error = error or self.refuse(method.__name__, words, options)
        if error and when != "after":
            if when == "amid" and method.__name__.startswith("log_"):
                self.only_first = True
                try:
                    method(self, *words, **options)
                finally:
                    self.only_first = False
            raise error
        answer = method(self, *words, **options)
        if error:
            raise error
        return answer

    return called


class FakeMlflow:
    """What the writer, the delivery and the registry ask of an `MlflowClient`, answered from dictionaries.

    Attributes:
        calls: (name, arguments, named arguments) of every call, in order.
        faults: number of a call -> ("before" | "amid" | "after", what it raises).
        refuse: (name, arguments, named arguments) of a call -> what it raises instead of being done, or None.
        uploads: every file that was uploaded, as often as it was.
    """

    def __init__(self):
        self.calls, self.faults, self.uploads = [], {}, []
        self.refuse = lambda name, words, options: None
        self.only_first = False
        self.experiments, self.runs, self.logged, self.registered = {}, {}, {}, {}
        self._numbers = itertools.count(1)

    def named(self, *names):
        """The arguments of the calls of these names, in order."""
        return [words for name, words, _ in self.calls if name in names]

    # experiments

    @call
    def create_experiment(self, name):
        if any(each.name == name for each in self.experiments.values()):
            raise refusal(RESOURCE_ALREADY_EXISTS)
        identity = str(next(self._numbers))
        self.experiments[identity] = SimpleNamespace(
            experiment_id=identity, name=name, lifecycle_stage="active", tags={}
        )
        return identity

    @call
    def get_experiment(self, identity):
        if identity not in self.experiments:
            raise refusal(RESOURCE_DOES_NOT_EXIST)
        return self.experiments[identity]

    @call
    def get_experiment_by_name(self, name):
        return next((each for each in self.experiments.values() if each.name == name), None)

    @call
    def set_experiment_tag(self, identity, name, text):
        self.experiments[identity].tags[name] = text

    # runs

    @call
    def create_run(self, experiment_id, start_time, tags, run_name):
        if experiment_id not in self.experiments:
            raise refusal(RESOURCE_DOES_NOT_EXIST)
        if self.experiments[experiment_id].lifecycle_stage == "deleted":
            raise refusal()
        if any(name.startswith(NEVER) for name in tags):
            raise refusal(words="a key is not allowed")
        identity = f"run{next(self._numbers):04}"
        info = SimpleNamespace(
            run_id=identity,
            experiment_id=experiment_id,
            run_name=run_name,
            status="RUNNING",
            start_time=start_time,
            end_time=None,
            lifecycle_stage="active",
            artifact_uri=f"mlflow-artifacts:/{identity}/artifacts",
        )
        data = SimpleNamespace(params={}, metrics={}, tags={**tags, "mlflow.runName": run_name})
        self.runs[identity] = SimpleNamespace(info=info, data=data, history={}, datasets={}, outputs=None, artifacts={})
        return self.runs[identity]

    @call
    def get_run(self, run_id):
        return self._run(run_id)

    def _run(self, run_id, to_write=False):
        if run_id not in self.runs:
            raise refusal(RESOURCE_DOES_NOT_EXIST)
        if to_write and self.runs[run_id].info.lifecycle_stage != "active":
            raise refusal()
        return self.runs[run_id]

    @call
    def search_runs(self, experiment_ids, filter_string="", run_view_type=1, max_results=1000, page_token=None):
        found = [run for run in self.runs.values() if run.info.experiment_id in experiment_ids]
        return Page(run for run in reversed(found) if run.info.lifecycle_stage == "active")

    @call
    def delete_run(self, run_id):
        self._run(run_id).info.lifecycle_stage = "deleted"

    @call
    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        run = self._run(run_id, to_write=True)
        items = [*metrics, *params, *tags]
        if any(not item.key or len(item.key) > LONGEST_KEY or "?" in item.key for item in items):
            raise refusal(words="a key is not allowed")
        if any(item.key.startswith(NEVER) for item in items):
            raise refusal(words="a key is not allowed")
        for param in params:
            if run.data.params.get(param.key, param.value) != param.value:
                raise refusal(words="a param has another value already")
        for param in params[:1] if self.only_first else params:
            run.data.params[param.key] = param.value
        for metric in metrics[:1] if self.only_first else metrics:
            row = (metric.step, metric.value, metric.timestamp)
            if row not in run.history.setdefault(metric.key, []):
                run.history[metric.key].append(row)
            run.data.metrics[metric.key] = max(run.history[metric.key])[1]
        for tag in tags[:1] if self.only_first else tags:
            run.data.tags[tag.key] = tag.value[:LONGEST_TAG]
            if tag.key == "mlflow.runName":
                run.info.run_name = tag.value

    @call
    def delete_tag(self, run_id, name):
        if name not in self._run(run_id, to_write=True).data.tags:
            raise refusal(RESOURCE_DOES_NOT_EXIST)
        del self.runs[run_id].data.tags[name]

    @call
    def log_inputs(self, run_id, datasets):
        run = self._run(run_id, to_write=True)
        for each in datasets:
            run.datasets[each.dataset.name, each.dataset.digest] = each.tags[0].value

    @call
    def update_run(self, run_id, status):
        self._run(run_id, to_write=True).info.status = status

    @call
    def set_terminated(self, run_id, status, end_time):
        info = self._run(run_id, to_write=True).info
        info.status, info.end_time = status, end_time

    @call
    def log_artifact(self, run_id, local_path, artifact_path=None):
        run, path = self._run(run_id, to_write=True), Path(local_path)
        below = os.path.join(artifact_path or "", path.name if path.is_dir() else "")  # noqa: PTH118
        self._upload(run.artifacts, path, below)

    def _upload(self, artifacts, path, below):
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in files[:1] if self.only_first else files:
            name = str(Path(below) / (file.relative_to(path) if path.is_dir() else file.name))
            content = file.read_bytes()
            artifacts[name] = content[: len(content) // 2] if self.only_first else content
            self.uploads.append(name)

    # logged models

    @call
    def create_logged_model(self, experiment_id, name, source_run_id, model_type):
        identity = f"m-{next(self._numbers):04}"
        self.logged[identity] = SimpleNamespace(
            model_id=identity,
            name=name,
            source_run_id=source_run_id,
            experiment_id=experiment_id,
            model_type=model_type,
            status="PENDING",
            creation_timestamp=len(self.logged),
            artifact_location=f"mlflow-artifacts:/{identity}",
            files={},
        )
        return self.logged[identity]

    @call
    def search_logged_models(self, experiment_ids, filter_string=None, max_results=1000, page_token=None):
        return Page(model for model in self.logged.values() if model.experiment_id in experiment_ids)

    @call
    def delete_logged_model(self, model_id):
        del self.logged[model_id]

    @call
    def log_outputs(self, run_id, models):
        run = self._run(run_id, to_write=True)
        before = run.outputs.model_outputs if run.outputs else []
        if {each.model_id for each in before} & {each.model_id for each in models}:
            raise refusal(BAD_REQUEST, "UNIQUE constraint failed")
        run.outputs = SimpleNamespace(model_outputs=[*before, *models])

    @call
    def log_model_artifacts(self, model_id, local_dir):
        self._upload(self.logged[model_id].files, Path(local_dir), "")

    @call
    def finalize_logged_model(self, model_id, status):
        self.logged[model_id].status = status

    # the registry

    @call
    def create_registered_model(self, name, description):
        if name in self.registered:
            raise refusal(RESOURCE_ALREADY_EXISTS)
        self.registered[name] = SimpleNamespace(aliases={}, versions={}, last=0)

    @call
    def get_registered_model(self, name):
        return self.registered[name]

    @call
    def create_model_version(self, name, source, run_id, tags, description, model_id):
        model = self.registered[name]
        model.last += 1  # a number that was deleted is not given again
        model.versions[str(model.last)] = SimpleNamespace(
            name=name,
            version=str(model.last),
            source=source,
            run_id=run_id,
            tags=dict(tags),
            description=description,
            model_id=model_id,
            aliases=[],
        )
        return model.versions[str(model.last)]

    @call
    def search_model_versions(self, filter_string=None, max_results=1000, page_token=None):
        return Page(version for model in self.registered.values() for version in model.versions.values())

    @call
    def get_model_version(self, name, version):
        found = self.registered[name].versions[version]
        found.aliases = [alias for alias, number in self.registered[name].aliases.items() if number == version]
        return found

    @call
    def set_model_version_tag(self, name, version, key, value):
        self.registered[name].versions[version].tags[key] = value

    @call
    def delete_model_version(self, name, version):
        del self.registered[name].versions[version]
        aliases = self.registered[name].aliases
        self.registered[name].aliases = {alias: number for alias, number in aliases.items() if number != version}

    @call
    def set_registered_model_alias(self, name, alias, version):
        self.registered[name].aliases[alias] = version

    def record(self):
        """All that a person finds here, by names that are the same whatever became of the calls on the way."""
        keys = {run_id: f"run of {run.data.tags[RUN_KEY]}" for run_id, run in self.runs.items()}
        models = {model_id: f"model of {keys[model.source_run_id]}" for model_id, model in self.logged.items()}

        def told(text):
            for identity, name in {**keys, **models}.items():
                text = text.replace(identity, name)
            return text

        return {
            "experiments": {each.name: each.tags for each in self.experiments.values()},
            "runs": [
                {
                    "key": keys[run_id],
                    "experiment": self.experiments[run.info.experiment_id].name,
                    **{name: getattr(run.info, name) for name in ("run_name", "status", "start_time", "end_time")},
                    "params": run.data.params,
                    "tags": {name: told(text) for name, text in run.data.tags.items()},
                    "metrics": {name: sorted(rows) for name, rows in run.history.items()},
                    "artifacts": run.artifacts,
                    "datasets": run.datasets,
                    "outputs": [models[each.model_id] for each in run.outputs.model_outputs] if run.outputs else [],
                }
                for run_id, run in self.runs.items()
                if run.info.lifecycle_stage == "active"
            ],
            "models": [
                (models[each.model_id], each.name, str(each.status), each.files) for each in self.logged.values()
            ],
            "versions": [
                (name, each.version, told(each.source), keys[each.run_id], _told_tags(each, told), each.description)
                for name, model in self.registered.items()
                for each in model.versions.values()
            ],
            "aliases": {name: model.aliases for name, model in self.registered.items()},
        }


def _told_tags(version, told):
    return {name: told(text) for name, text in version.tags.items()}
