"""What each event of the journal is in MLflow, and that writing it again changes nothing."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_ALREADY_EXISTS

from pipeline.delivery import ui
from pipeline.delivery.opening import Known
from pipeline.delivery.writer import PARENT, Refusal, Writer, _is_random_name
from tests.fake_mlflow import gateway, refusal, the_run
from tests.recorded import Held, artifact, dataset, end, metrics, model, resume, run_of, start, tags

pytestmark = pytest.mark.usefixtures("address")


def event(kind, content, time=7):
    return {"kind": kind, "time": time, **content}


@pytest.fixture
def make(tmp_path, fake):
    """A writer for a folder with these events, none of them written."""

    def made(*events, **about):
        return Writer(Held(tmp_path / "runs/run", *events), fake, **about)

    return made


@pytest.fixture
def writer(make):
    """A writer that has begun its run."""
    writer = make(start())
    assert writer.write(event(*start())) == []
    return writer


def test_the_start_makes_experiment_and_run_with_params_tags_and_name(writer, fake):
    (experiment,) = fake.experiments.values()
    assert (writer.run_id, writer.experiment_id) == ("run0002", experiment.experiment_id)
    run = the_run(fake)
    assert {name: run[name] for name in ("key", "experiment", "run_name", "start_time", "status", "params")} == {
        "key": "run of key",
        "experiment": "here",
        "run_name": "a run",
        "start_time": 7,
        "status": "RUNNING",
        "params": {"epochs": "2", "seed": "1"},
    }
    assert run["tags"] == {"pipeline.run": "key", "mlflow.runName": "a run", "note": "first"}
    view = {ui.VIEW_TAG: ui.VIEW_STATE, "mlflow.experimentKind": "custom_model_development"}
    assert experiment.tags == view


BORN_WITH = {"note": "first", "pipeline.run": "key"}


def test_key_and_tags_are_there_from_the_runs_first_moment(writer, fake):
    assert fake.named("create_run") == [("1", 7, BORN_WITH)]
    assert [options for name, _, options in fake.calls if "tags" in options] == []


def test_a_run_is_born_with_its_key_alone_where_mlflow_does_not_take_a_tag(make, fake):
    tags = {"mlflow.runName": "a run", "never": "1", "good": "1"}
    refused = make().write(event(*start(tags=tags)))
    assert [each.name for each in refused] == ["never"]
    assert [words[2] for words in fake.named("create_run")] == [
        {"never": "1", "good": "1", "pipeline.run": "key"},
        {"pipeline.run": "key"},
    ]
    assert the_run(fake)["tags"] == {"mlflow.runName": "a run", "good": "1", "pipeline.run": "key"}


def test_what_a_run_that_is_found_has_already_is_not_written_again(make, fake):
    make().write(event(*start()))
    fake.calls.clear()
    make().write(event(*start()))
    assert fake.named("log_batch", "create_run", "set_experiment_tag") == []


def test_a_process_asks_for_an_experiment_once(make, fake):
    known = Known()
    for key in ("key", "another", "third"):
        make(known=known, is_new=True).write(event(*start(run_key=key)))
    assert len(fake.runs) == 3
    assert fake.named("get_experiment_by_name", "create_experiment", "get_experiment") == [("here",), ("here",), ("1",)]
    assert len(fake.named("set_experiment_tag")) == 2


def test_an_experiment_that_was_deleted_meanwhile_is_asked_for_again(make, fake):
    known = Known()
    make(known=known).write(event(*start()))
    del fake.experiments["1"]
    with pytest.raises(MlflowException):
        make(known=known, is_new=True).write(event(*start(run_key="another")))
    make(known=known, is_new=True).write(event(*start(run_key="another")))
    (experiment,) = fake.experiments.values()
    assert (experiment.name, experiment.experiment_id) == ("here", "3")


def test_a_run_that_nobody_can_have_created_is_not_looked_for_nor_are_its_doubles(make, fake):
    writer = make(start(), model(), is_new=True)
    writer.write(event(*start()))
    writer.write(event(*model()))
    writer.remove_doubles(event(*start()))
    assert fake.named("search_runs", "search_logged_models", "get_run") == []
    assert [name for name, *_ in fake.calls].count("search_model_versions") == 1  # for the first champion


def test_a_model_whose_creation_was_not_answered_is_looked_for(make, fake):
    writer = make(start(), model(), is_new=True)
    writer.write(event(*start()))
    fake.faults = {len(fake.calls): ("after", gateway())}
    with pytest.raises(MlflowException):
        writer.write(event(*model()))
    assert writer.write(event(*model())) == []
    assert len(fake.logged) == 1


def test_what_the_experiment_shows_already_is_left_alone(make, fake):
    identity = fake.create_experiment("here")
    fake.experiments[identity].tags = {"mlflow.experimentKind": "genai_development", ui.VIEW_TAG: ui.VIEW_STATE}
    make(start()).write(event(*start()))
    assert fake.experiments[identity].tags["mlflow.experimentKind"] == "genai_development"
    assert fake.named("set_experiment_tag") == []


def test_an_experiment_that_is_given_by_its_id_is_not_looked_for_by_name(make, fake):
    identity = fake.create_experiment("by id")
    make().write(event(*start(experiment_id=identity)))
    assert the_run(fake)["experiment"] == "by id"
    assert [name for name, *_ in fake.calls].count("create_experiment") == 1
    assert fake.named("get_experiment_by_name") == []


def test_an_experiment_that_another_has_just_made_is_taken(make, fake):
    def made_meanwhile(name, words, options):
        if name == "create_experiment" and not fake.experiments:
            fake.refuse = lambda *words: None
            fake.create_experiment("here")
            return refusal(RESOURCE_ALREADY_EXISTS)
        return None

    fake.refuse = made_meanwhile
    make().write(event(*start()))
    assert the_run(fake)["experiment"] == "here"


@pytest.mark.parametrize("there", [True, False])
def test_an_experiment_that_cannot_be_made_is_an_error(make, fake, there):
    error = refusal() if there else refusal(RESOURCE_ALREADY_EXISTS)

    def refuse(name, words, options):
        if name != "create_experiment":
            return None
        fake.refuse = lambda *words: None
        if there:
            fake.create_experiment("here")
        return error

    fake.refuse = refuse
    with pytest.raises(MlflowException) as caught:
        make().write(event(*start()))
    assert caught.value is error


@pytest.mark.parametrize("by", ["experiment_id", "experiment_name"])
def test_a_run_that_an_earlier_attempt_has_made_is_found_by_its_key(make, fake, by):
    identity = fake.create_experiment("here")
    other = fake.create_run(identity, 0, {"pipeline.run": "another"}, "other").info.run_id
    mine = fake.create_run(identity, 0, {"pipeline.run": "key"}, "mine").info.run_id
    about = {"experiment_id": identity} if by == "experiment_id" else {}
    writer = make()
    writer.write(event(*start(**about)))
    assert writer.run_id == mine
    assert (len(fake.runs), fake.runs[other].data.params) == (2, {})


def test_of_several_it_is_the_one_that_has_most(make, fake):
    identity = fake.create_experiment("here")
    made = [fake.create_run(identity, 0, {"pipeline.run": "key"}, "x") for _ in range(5)]
    made[1].data.params["epochs"] = "2"
    made[2].data.params["epochs"] = "2"
    made[2].data.metrics["loss"] = 1.0
    made[3].data.params["epochs"] = "2"
    made[4].data.metrics |= {"loss": 1.0, "other": 2.0}
    writer = make()
    assert writer._opening.find(event(*start())) == made[2].info.run_id
    assert [run.info.run_id for run in writer._opening.of_key(identity, "key")] == [
        made[k].info.run_id for k in (2, 1, 3, 4, 0)
    ]
    assert writer._opening.of_key(identity, "no such key") == []


def test_empty_doubles_are_deleted_and_nothing_else(make, fake):
    identity = fake.create_experiment("here")
    writer = make()
    writer.write(event(*start()))
    empty, params, values = (fake.create_run(identity, 0, {"pipeline.run": "key"}, "x") for _ in range(3))
    fake.create_run(identity, 0, {"pipeline.run": "another"}, "x")
    params.data.params["epochs"] = "2"
    values.data.metrics["loss"] = 1.0
    writer.remove_doubles(event(*start()))
    assert fake.named("delete_run") == [(empty.info.run_id,)]


def test_a_run_of_mlflow_run_keeps_its_source_and_the_name_that_a_person_gave(make, fake):
    run = fake.create_run(fake.create_experiment("here"), 0, {}, "my name")
    about = {"mlflow.runName": "ours", "mlflow.source.name": "pipeline", "mlflow.source.type": "LOCAL", "note": "1"}
    writer = make()
    writer.write(event(*start(mlflow_run_id=run.info.run_id, tags=about)))
    assert writer.run_id == run.info.run_id
    assert run.data.tags == {"mlflow.runName": "my name", "note": "1", "pipeline.run": "key"}
    assert fake.named("create_run") == [("1", 0, {}, "my name")]


def test_a_name_that_mlflow_made_up_is_replaced(make, fake):
    run = fake.create_run(fake.create_experiment("here"), 0, {}, "gregarious-shrike-301")
    make().write(event(*start(mlflow_run_id=run.info.run_id)))
    assert run.info.run_name == "a run"


@pytest.mark.parametrize(
    ("name", "random"),
    [
        ("gregarious-shrike-301", True),
        ("a-b-1", True),
        ("a-b-12", True),
        ("a-b-1234", False),
        ("a-b-", False),
        ("a-b", False),
        ("A-b-1", False),
        ("a-b-1 again", False),
        ("my a-b-1", False),
        ("", False),
        (None, False),
    ],
)
def test_names_that_mlflow_makes_up(name, random):
    assert _is_random_name(name) is random


def test_a_run_of_ones_own_gets_source_and_name(make, fake):
    make().write(event(*start(tags={"mlflow.runName": "ours", "mlflow.source.name": "pipeline"})))
    assert the_run(fake)["tags"]["mlflow.source.name"] == "pipeline"


def test_a_param_that_is_there_is_not_sent_again(make, fake):
    run = fake.create_run(fake.create_experiment("here"), 0, {"pipeline.run": "key"}, "x")
    run.data.params |= {"epochs": "another", "more": "1"}
    assert make().write(event(*start())) == []
    assert run.data.params == {"epochs": "another", "more": "1", "seed": "1"}


def test_a_second_start_writes_into_the_run_that_it_knows(writer, fake):
    before = fake.record()
    assert writer.write(event(*start())) == []
    assert (fake.record(), fake.named("create_run")) == (before, [("1", 7, BORN_WITH)])


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 201])
def test_many_params_go_in_hundreds(make, fake, count):
    params = {f"knob {number}": number for number in range(count)}
    make().write(event(*start(params=params)))
    assert the_run(fake)["params"] == {name: str(value) for name, value in params.items()}
    sizes = [len(options["params"]) for _, _, options in fake.calls if "params" in options]
    assert sizes == [min(100, count - first) for first in range(0, count, 100)]


def test_of_a_start_only_the_named_parts_are_written(make, fake):
    writer = make()
    writer.write(event(*start()), ["seed", "note"])
    assert (the_run(fake)["params"], the_run(fake)["tags"]["note"]) == ({"seed": "1"}, "first")
    assert "params" in [key for _, _, options in fake.calls for key in options]


def test_the_parts_that_are_bad_are_named_and_the_others_are_written(make, fake):
    params = {f"knob {number}": number for number in range(150)} | {"never": 1}
    refused = make().write(
        event(*start(params=params, tags={"mlflow.runName": "a run", "never too": "1", "good": "1"}))
    )
    words = "MlflowException: a key is not allowed"
    assert refused == [Refusal("never", words), Refusal("never too", words)]
    assert (len(the_run(fake)["params"]), the_run(fake)["tags"]["good"]) == (150, "1")
    assert Refusal("x", "y").final is True


@pytest.mark.parametrize("error", [gateway(502), gateway(403), MlflowException("?", INTERNAL_ERROR)])
def test_a_batch_that_is_not_refused_for_good_is_not_taken_apart(writer, fake, error):
    fake.refuse = lambda name, words, options: error if name == "log_batch" else None
    before = len(fake.calls)
    with pytest.raises(MlflowException) as caught:
        writer.write(event(*metrics(1)))
    assert (caught.value, len(fake.calls) - before) == (error, 1)


def test_nor_is_one_of_a_run_that_is_deleted(writer, fake):
    fake.delete_run(writer.run_id)
    with pytest.raises(MlflowException):
        writer.write(event(*metrics(1)))
    assert writer.is_open() is False
    fake.runs[writer.run_id].info.lifecycle_stage = "active"
    assert writer.is_open() is True


def test_datasets_are_inputs_with_their_context(writer, fake):
    both = {"inputs": [*dataset()[1]["inputs"], *dataset("digits-testing", "5678", "testing")[1]["inputs"]]}
    assert writer.write(event("dataset", both)) == []
    assert the_run(fake)["datasets"] == {("digits-training", "1234"): "training", ("digits-testing", "5678"): "testing"}
    ((run_id, inputs),) = fake.named("log_inputs")
    assert run_id == writer.run_id
    assert [(tag.key, tag.value) for tag in inputs[0].tags] == [("mlflow.data.context", "training")]
    about = inputs[0].dataset
    told = (about.name, about.digest, about.source_type, about.source, about.schema, about.profile)
    assert told == ("digits-training", "1234", "local", "{}", "{}", "{}")


def test_metrics_have_the_time_and_step_of_their_event(writer, fake):
    writer.write(event(*metrics(3, train_loss=0.5, val_loss=0.25), time=1234))
    assert the_run(fake)["metrics"] == {"train_loss": [(3, 0.5, 1234)], "val_loss": [(3, 0.25, 1234)]}
    writer.write(event(*metrics(4, train_loss=0.5, val_loss=0.25), time=2345), ["val_loss"])
    assert the_run(fake)["metrics"] == {"train_loss": [(3, 0.5, 1234)], "val_loss": [(3, 0.25, 1234), (4, 0.25, 2345)]}


def test_tags_are_texts_that_mlflow_takes_whole(writer, fake):
    writer.write(event(*tags(number=3, long="x" * 9000)))
    assert the_run(fake)["tags"]["number"] == "3"
    assert the_run(fake)["tags"]["long"] == "x" * 8000
    (batch,) = [options["tags"] for _, _, options in fake.calls if len(options.get("tags", [])) == 2]
    assert [len(tag.value) for tag in batch] == [1, 8000]
    writer.write(event(*tags(one="1", two="2")), ["two"])
    assert "one" not in the_run(fake)["tags"]


NOTE = "mlflow.note.content"


def test_a_description_of_ones_own_is_replaced_and_a_persons_is_not(make, fake):
    long = "ours" + "x" * 9000
    writer = make(start(), tags(note="x"), tags(**{NOTE: long}), tags(**{NOTE: "newer"}))
    writer.write(event(*start()))
    for text, wanted in ((long, long[:8000]), ("newer", "newer")):
        writer.write(event(*tags(**{NOTE: text})))
        assert the_run(fake)["tags"][NOTE] == wanted
    fake.runs[writer.run_id].data.tags[NOTE] = "a person's own"
    writer.write(event(*tags(**{NOTE: "newer", "other": "1"})))
    assert (the_run(fake)["tags"][NOTE], the_run(fake)["tags"]["other"]) == ("a person's own", "1")
    fake.runs[writer.run_id].data.tags[NOTE] = "None"
    writer.write(event(*tags(other="2")))
    assert the_run(fake)["tags"]["other"] == "2"


def test_an_artifact_lies_where_it_lies_in_the_folder(make, fake):
    events = [start(), artifact("a.txt"), artifact("deep/er/b.txt"), artifact("whole")]
    writer = make(*events)
    for number, each in enumerate(events):
        assert writer.write(event(*each, time=number)) == []
    assert the_run(fake)["artifacts"] == {
        "a.txt": b"what stands in a.txt\n",
        "deep/er/b.txt": b"what stands in b.txt\n",
        "whole/first.txt": b"what stands in first.txt\n",
        "whole/below/second.txt": b"what stands in second.txt\n",
    }
    assert [words[2] for words in fake.named("log_artifact")] == [None, "deep/er", None]


@pytest.mark.parametrize("missing", ["network.onnx", "example.npy"])
def test_what_is_not_there_is_named(make, fake, missing):
    writer = make(start(), model())
    writer.write(event(*start()))
    (writer.folder.path / missing).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        writer.write(event(*model()))
    assert str(caught.value) == f"{missing} is no longer in the run's folder"
    assert fake.logged == {}


def test_a_model_is_stored_registered_and_remembered(make, fake):
    writer = make(start(), model())
    writer.write(event(*start()))
    for _ in range(2):
        assert writer.write(event(*model(seed="1"))) == []
    record = fake.record()
    assert [kind for _, kind, _, _ in record["models"]] == ["model"]
    ((name, version, _, run, about, description),) = record["versions"]
    assert (name, version, run, description) == ("digits-mlp", "1", "run of key", "good")
    assert about == {"dataset": "digits", "seed": "1", "run_id": "run of key", "first_champion": "true"}
    assert writer.versions == {"digits-mlp": "1"}


def test_a_model_without_a_name_is_stored_only_and_an_old_one_has_no_description(make, fake):
    writer = make(start(), model(""))
    writer.write(event(*start()))
    writer.write(event(*model("")))
    assert (len(fake.logged), fake.registered, writer.versions) == (1, {}, {})
    old = event(*model())
    del old["description"]
    writer.write(old)
    assert fake.record()["versions"][0][-1] is None


def test_a_redelivery_makes_no_version_and_takes_no_crown_back(make, fake):
    writer = make(start(), model())
    writer.write(event(*start()))
    writer.write(event(*model()))
    second = fake.create_run("1", 0, {"pipeline.run": "second"}, "x").info.run_id
    fake.create_model_version("digits-mlp", "x", second, {}, "", "m")
    fake.registered["digits-mlp"].aliases["champion"] = "2"
    for mark in ("true", None):  # and without it, as a pipeline from before there was one has left it
        if mark is None:
            del fake.registered["digits-mlp"].versions["1"].tags["first_champion"]
        writer.write(event(*model()))
        assert fake.record()["aliases"] == {"digits-mlp": {"champion": "2"}}
    fake.registered["digits-mlp"].versions["1"].tags["first_champion"] = "true"
    fake.registered["digits-mlp"].aliases.clear()
    writer.write(event(*model()))
    assert fake.record()["aliases"] == {"digits-mlp": {}}
    assert [version for _, version, *_ in fake.record()["versions"]] == ["1", "2"]


def test_resume_and_end_set_status_time_and_tags(writer, fake):
    writer.write(event(*end("KILLED", failure_reason="Ctrl-C"), time=50))
    run = the_run(fake)
    assert (run["status"], run["end_time"], run["tags"]["failure_reason"]) == ("KILLED", 50, "Ctrl-C")
    writer.write(event(*resume(resumed="1"), time=60))
    assert (the_run(fake)["status"], the_run(fake)["tags"]["resumed"]) == ("RUNNING", "1")
    writer.write(event(*end(), time=70))
    assert (the_run(fake)["status"], the_run(fake)["end_time"]) == ("FINISHED", 70)


def test_without_the_status_only_their_tags_are_written(writer, fake):
    writer.write(event(*end()))
    writer.write(event(*resume(resumed="1", more="2")), ["resumed"], status=False)
    assert the_run(fake)["status"] == "FINISHED"
    writer.write(event(*end("FAILED", why="x", more="3")), ["why"], status=False)
    run = the_run(fake)
    assert (run["status"], run["tags"]["resumed"], run["tags"]["why"]) == ("FINISHED", "1", "x")
    assert "more" not in run["tags"]


def test_a_lost_event_is_nothing_and_an_unknown_one_is_refused(writer, fake):
    before = len(fake.calls)
    assert writer.write(event("lost", {"was": "end"})) == []
    words = "a kind of record that this version of the pipeline does not know"
    for kind in ("hologram", "log", "begin"):  # the latter two are names of what is private here
        assert writer.write(event(kind, {})) == [Refusal(kind, words, True)]
    assert len(fake.calls) == before


@pytest.fixture
def parent(tmp_path):
    return run_of(tmp_path / "runs/parent", start(run_key="parent"))


def test_a_run_is_nested_once_its_parent_has_an_id(make, fake, parent):
    child = make()
    waits = "the record of parent, which this run belongs to, comes first"
    assert child.write(event(*start(parent="parent"))) == [Refusal(PARENT, waits, False)]
    parent.write_state({"run_id": "run of the parent"})
    assert child.write(event(*start(parent="parent")), ["seed"]) == []
    assert "mlflow.parentRunId" not in the_run(fake)["tags"]
    assert child.write(event(*start(parent="parent")), [PARENT]) == []
    assert the_run(fake)["tags"]["mlflow.parentRunId"] == "run of the parent"
    parent.write_state({"run_id": "another"})
    assert child.write(event("parent", {"parent": "parent"})) == []
    assert the_run(fake)["tags"]["mlflow.parentRunId"] == "another"


def test_a_parent_whose_folder_is_not_there_is_named(make, fake):
    missing = "the record of parent, which this run belongs to, is not beside its folder"
    assert make().write(event(*start(parent="parent"))) == [Refusal(PARENT, missing, False)]
    assert PARENT == "(parent)"


def test_names_that_mlflow_does_not_take_are_written_under_ones_that_it_takes(make, fake):
    writer = make()
    writer.write(event(*start(params={"p?": 1}, tags={"mlflow.runName": "a run", "t?": "x"})))
    writer.write(event(*start(params={"p?": 1}, tags={"mlflow.runName": "a run", "t?": "x"})))
    writer.write(event("params", {"params": {"q?": "2", "q": "3"}}))
    assert writer.write(event(*metrics(3, **{"m?": 1.0}))) == []
    writer.write_together([event(*metrics(4, **{"m?": 2.0})), event(*metrics(4, **{"m@": 3.0}))])
    run = the_run(fake)
    assert run["params"] == {"p_x3f_": "1", "q_x3f_": "2", "q": "3"}
    assert run["tags"]["t_x3f_"] == "x"
    assert run["metrics"] == {"m_x3f_": [(3, 1.0, 7), (4, 2.0, 7)], "m_x40_": [(4, 3.0, 7)]}


def test_no_metrics_are_no_request(writer, fake):
    before = len(fake.calls)
    writer.write_together([event("metrics", {"values": {}, "not_finite": {"loss": 1.0}, "step": 1})])
    assert len(fake.calls) == before


def test_half_a_character_in_a_record_keeps_no_run_from_arriving(make, fake):
    odd = {"data_dir": "/caf\udce9"}
    writer = make(start(params=odd, tags={"mlflow.runName": "a run", "source": "caf\udce9.py"}))
    assert writer.write(event(*start(params=odd, tags={"mlflow.runName": "a run", "source": "caf\udce9.py"}))) == []
    writer.write_together([event("params", {"params": {"other": "\udce9"}}), event(*tags(note="\udce9"))])
    run = the_run(fake)
    assert run["params"] == {"data_dir": "/caf\ufffd", "other": "\ufffd"}
    assert (run["tags"]["source"], run["tags"]["note"]) == ("caf\ufffd.py", "\ufffd")
