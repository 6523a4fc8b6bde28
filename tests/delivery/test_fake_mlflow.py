"""The MLflow that tests hold in memory answers as the real one does: both are asked the same, once, on SQLite."""

import mlflow
import pytest
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pipeline.delivery.delivery import Delivery
from pipeline.mlflow_client.connection import connect
from tests import recorded
from tests.conftest import ready_store
from tests.fake_mlflow import FakeMlflow
from tests.recorded import WHOLE, run_of

RUN = "0" * 32


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield connect(ready_store(folder))
    mlflow.set_tracking_uri(None)


@pytest.fixture
def both(real, tmp_path, monkeypatch):
    """The same run, delivered twice to each, the second time by an uploader that knows nothing of the first."""
    recorded.quick(monkeypatch)
    delivered = []
    for client in (FakeMlflow(), real):
        folder = run_of(tmp_path / type(client).__name__ / "run", *WHOLE)
        for _ in range(2):
            folder.write_state({})
            one = Delivery(folder, client)
            one.deliver()
            assert one.left == []
        delivered.append((client, one.run_id))
    return delivered


def seen(client, run_id):
    """What a client shows of a run, its model and its version."""
    run = client.get_run(run_id)
    ignored = {"mlflow.user", "mlflow.source.name", "mlflow.source.type"}
    names = ("run_name", "status", "start_time", "end_time", "lifecycle_stage")
    (model,) = client.search_logged_models([run.info.experiment_id])
    (version,) = client.search_model_versions("name = 'digits-mlp'")
    model_ids = [each.model_id for each in run.outputs.model_outputs]
    return {
        **{name: getattr(run.info, name) for name in names},
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": {name: text for name, text in run.data.tags.items() if name not in ignored},
        "model": (model.name, str(model.status), model.source_run_id == run_id, model_ids == [model.model_id]),
        "version": (
            str(version.version),
            version.description,
            version.source == f"models:/{model.model_id}",
            {name: text for name, text in version.tags.items() if name != "run_id"},
            version.tags["run_id"] == run_id,
        ),
        "aliases": {alias: str(number) for alias, number in client.get_registered_model("digits-mlp").aliases.items()},
        "experiment": client.get_experiment(run.info.experiment_id).tags,
    }


def files(client, run_id, path=None):
    found = client.list_artifacts(run_id, path)
    return sorted(name for each in found for name in (files(client, run_id, each.path) if each.is_dir else [each.path]))


def outcome(act, *words, **options):
    """What kind of answer it is, or the code of the refusal."""
    try:
        answer = act(*words, **options)
    except MlflowException as error:
        return error.error_code
    return "nothing" if answer is None else "an answer"


def test_a_record_delivered_twice_is_the_same_in_both(both):
    (fake, fake_id), (real, real_id) = both
    assert seen(fake, fake_id) == seen(real, real_id)
    run = fake.runs[fake_id]
    for name, rows in run.history.items():
        there = real.get_metric_history(real_id, name)
        assert sorted(rows) == sorted((each.step, each.value, each.timestamp) for each in there)
    assert sorted(run.artifacts) == files(real, real_id)
    there = [
        (each.dataset.name, each.dataset.digest, each.tags[0].value)
        for each in real.get_run(real_id).inputs.dataset_inputs
    ]
    assert [(*key, context) for key, context in run.datasets.items()] == there
    # And what either refuses, it refuses with the same code.
    for act in REFUSED:
        assert (act, REFUSED[act](fake, fake_id)) == (act, REFUSED[act](real, real_id))


def batch(**items):
    return lambda client, run_id: outcome(client.log_batch, run_id, **items)


def twice(client, run_id):
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    return outcome(client.log_outputs, run_id, [LoggedModelOutput(model.model_id, step=0)])


def deleted(client, run_id):
    client.delete_run(run_id)
    return [
        outcome(client.log_batch, run_id, tags=[RunTag("a", "1")]),
        outcome(client.set_terminated, run_id, "FAILED", 1),
        outcome(client.get_run, run_id),
        client.get_run(run_id).info.lifecycle_stage,
        len(client.search_runs([client.get_run(run_id).info.experiment_id], "", ViewType.ACTIVE_ONLY)),
    ]


def numbers(client, run_id):
    """A number that was deleted is given again only if it is the last."""
    (model,) = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    source, made = f"models:/{model.model_id}", []
    for _ in range(2):
        version = client.create_model_version(
            "digits-mlp", source, run_id, tags={}, description=None, model_id=model.model_id
        )
        made.append(str(version.version))
        client.delete_model_version("digits-mlp", version.version)
    return made


REFUSED = {
    "an experiment that is there": lambda client, run_id: outcome(client.create_experiment, "here"),
    "an experiment that is not there": lambda client, run_id: outcome(client.get_experiment, "77"),
    "its name": lambda client, run_id: outcome(client.get_experiment_by_name, "nowhere"),
    "a run there": lambda client, run_id: outcome(client.create_run, "77", 1, {}, run_name="x"),
    "a run that is not there": lambda client, run_id: outcome(client.get_run, RUN),
    "writing into it": lambda client, run_id: outcome(client.log_batch, RUN, tags=[RunTag("a", "1")]),
    "another param": batch(params=[Param("epochs", "99")]),
    "the same param": batch(params=[Param("epochs", "2")]),
    "a bad key": batch(metrics=[Metric("what?", 1.0, 1, 1)]),
    "a long key": batch(tags=[RunTag("x" * 251, "1")]),
    "a key that just fits": batch(tags=[RunTag("x" * 250, "1")]),
    "an empty key": batch(metrics=[Metric("", 1.0, 1, 1)]),
    "a tag to be deleted": lambda client, run_id: outcome(client.delete_tag, run_id, "nothing"),
    "a model that is there": lambda client, run_id: outcome(
        client.create_registered_model, "digits-mlp", description=""
    ),
    "an output twice": twice,
    "versions": numbers,
    "a run that is deleted": deleted,
}
