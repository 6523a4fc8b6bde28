"""MLflow's client, as far as the registry needs it, in memory: every write is noted, every search gives small pages."""

from types import SimpleNamespace

from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList


def missing(what):
    return MlflowException(f"{what} not found", RESOURCE_DOES_NOT_EXIST)


class FakeRegistry:
    """Only names, versions, aliases, tags, runs and logged models; filters find everything, as a weak server's may."""

    page = 2

    def __init__(self, name="m", versions=0, **aliases):
        self.aliases, self.entries, self.models, self.runs, self.writes = {name: dict(aliases)}, [], [], {}, []
        self.filters, self.tags = [], {}
        for number in range(1, versions + 1):
            self.add(name, number)

    def add(self, name, number, **tags):
        """A version as if it had been there."""
        entry = SimpleNamespace(
            name=name, version=number, run_id=f"run{number}", source=f"models:/m-{number}", tags=tags, description=None
        )
        self.entries.append(entry)
        return entry

    def add_run(self, run_id, **data):
        run = SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, run_name=f"name of {run_id}", status="FINISHED", experiment_id="7"),
            data=SimpleNamespace(params=data.get("params", {}), metrics=data.get("metrics", {}), tags={}),
            inputs=SimpleNamespace(
                dataset_inputs=[
                    SimpleNamespace(dataset=SimpleNamespace(digest=each)) for each in data.get("digests", ())
                ]
            ),
            outputs=SimpleNamespace(model_outputs=[]),
        )
        self.runs[run_id] = run
        return run

    def add_model(self, model_id, run_id, name="model", status=LoggedModelStatus.READY, created=0):
        model = SimpleNamespace(
            model_id=model_id,
            source_run_id=run_id,
            name=name,
            status=status,
            creation_timestamp=created,
            artifact_location=f"somewhere/{model_id}",
        )
        self.models.append(model)
        return model

    def wrote(self, *what):
        self.writes.append(what)

    # What the client can do

    def _pages(self, found, max_results, page_token):
        start = int(page_token or 0)
        end = start + min(max_results, self.page)
        return PagedList(found[start:end], str(end) if end < len(found) else None)

    def search_model_versions(self, filter_string=None, max_results=100, page_token=None):
        self.filters.append(filter_string)
        return self._pages(list(reversed(self.entries)), max_results, page_token)

    def search_registered_models(self, max_results=100, page_token=None):
        models = [SimpleNamespace(name=name, aliases=aliases) for name, aliases in self.aliases.items()]
        return self._pages(models, max_results, page_token)

    def search_logged_models(self, experiment_ids, filter_string=None, max_results=100, page_token=None):
        assert experiment_ids == ["7"]
        self.filters.append(filter_string)
        return self._pages(self.models, max_results, page_token)

    def get_run(self, run_id):
        if run_id not in self.runs:
            raise missing(f"Run {run_id}")
        return self.runs[run_id]

    def get_registered_model(self, name):
        return SimpleNamespace(name=name, aliases=dict(self.aliases[name]), tags=dict(self.tags))

    def set_registered_model_tag(self, name, key, value):
        self.wrote("look", key, value)
        self.tags[key] = value

    def get_model_version(self, name, version):
        entry = next(each for each in self.entries if (each.name, str(each.version)) == (name, str(version)))
        entry.aliases = [alias for alias, of in self.aliases[name].items() if str(of) == str(version)]
        return entry

    def get_model_version_by_alias(self, name, alias):
        if alias not in self.aliases.get(name, {}):
            raise missing(f"alias {alias}")
        return self.get_model_version(name, self.aliases[name][alias])

    def set_registered_model_alias(self, name, alias, version):
        self.wrote("alias", alias, str(version))
        self.aliases[name][alias] = str(version)

    def set_model_version_tag(self, name, version, key, value):
        self.wrote("tag", str(version), key, value)
        self.get_model_version(name, version).tags[key] = value

    def create_registered_model(self, name, tags=None, description=None):
        if name in self.aliases:
            raise MlflowException(f"Registered Model (name={name}) already exists.", RESOURCE_ALREADY_EXISTS)
        self.wrote("model", name, description)
        self.aliases[name] = {}

    def create_model_version(self, name, source, run_id=None, tags=None, description=None, model_id=None):
        number = max([each.version for each in self.entries if each.name == name], default=0) + 1
        self.wrote("version", str(number), source, run_id, tags, description, model_id)
        entry = self.add(name, number, **tags)
        entry.run_id, entry.source = run_id, source
        return entry

    def delete_model_version(self, name, version):
        self.wrote("delete", str(version))
        self.entries.remove(self.get_model_version(name, version))

    def delete_logged_model(self, model_id):
        self.wrote("delete", model_id)
        self.models = [each for each in self.models if each.model_id != model_id]

    def create_logged_model(self, experiment_id, name=None, source_run_id=None, model_type=None):
        self.wrote("logged model", experiment_id, name, source_run_id, model_type)
        return self.add_model(f"m-{len(self.models) + 1}", source_run_id, name, LoggedModelStatus.PENDING)

    def log_outputs(self, run_id, models):
        self.wrote("outputs", run_id, [(each.model_id, each.step) for each in models])
        self.runs[run_id].outputs.model_outputs += models

    def finalize_logged_model(self, model_id, status):
        self.wrote("final", model_id, status)
        next(each for each in self.models if each.model_id == model_id).status = status
