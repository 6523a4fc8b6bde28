"""What MLflow refuses of a record, for good or for now: what becomes of it, of the rest, and of the run's status."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException, RestException
from requests import ConnectionError as NoConnection
from requests import HTTPError, Response, Timeout

from pipeline.delivery import blocked, opening, writer
from pipeline.delivery import delivery as delivery_module
from pipeline.delivery.blocked import BlockedError, Left, LeftError
from pipeline.delivery.delivery import REFUSED_REASON, Delivery
from pipeline.mlflow_client import connection
from tests.fake_mlflow import gateway, refusal, the_run
from tests.recorded import Held, append, artifact, dataset, end, metrics, model, resume, run_of, start, tags

BAD, WORSE = "never", "never too"
WORDS = "MlflowException: a key is not allowed"
pytestmark = pytest.mark.usefixtures("address")


@pytest.fixture
def held(tmp_path):
    def make(*events):
        return Held(tmp_path / "runs/run", start(), *events)

    return make


def waits(fake, name):
    """Answer 403 the first time that this tag comes: its event is passed over, and comes again after the others."""
    seen = []

    def refuse(called, words, options):
        if called == "log_batch" and not seen and any(tag.key == name for tag in options.get("tags", [])):
            seen.append(name)
            return gateway(403)
        return None

    fake.refuse = refuse


def refuses(fake, name, error, times=10**9):
    """Answer the first so many calls of that name with the error; returns how many are left."""
    left = [times]

    def refuse(called, words, options):
        if called == name and left[0] > 0:
            left[0] -= 1
            return error
        return None

    fake.refuse = refuse
    return left


def test_of_a_batch_only_what_is_bad_is_refused_for_good_and_the_run_says_so(fake, held):
    folder = held(metrics(1, train_loss=0.5, **{BAD: 1.0, WORSE: 2.0}), tags(good="1", **{BAD: "2"}), end())
    delivery = Delivery(folder, fake)
    delivery.deliver()
    words = f"metrics {BAD}, {WORSE}: {WORDS}", f"tags {BAD}: {WORDS}"
    assert delivery.left == delivery.refused
    assert delivery.refused == [Left(1, words[0], True, [BAD, WORSE]), Left(2, words[1], True, [BAD])]
    assert (delivery.delivered, delivery.done) == (4, 2)
    run = the_run(fake)
    assert (run["status"], run["end_time"]) == ("FAILED", folder.events()[-1]["time"])
    assert run["metrics"] == {"train_loss": [(1, 0.5, folder.events()[1]["time"])]}
    told = {"failure_reason": REFUSED_REASON, "pipeline.refused": "; ".join(words), "good": "1"}
    assert told.items() <= run["tags"].items()
    assert REFUSED_REASON == "MLflow refused a part of the record, see pipeline.refused"


def test_what_is_refused_for_good_is_asked_again_only_by_retry(fake, held):
    folder = held(metrics(1), end())
    one = lambda name, words, options: (  # noqa: E731
        refusal() if any(item.key == "val_loss" for item in options.get("metrics", [])) else None
    )
    fake.refuse = one
    Delivery(folder, fake).deliver()
    fake.calls.clear()
    Delivery(folder, fake).deliver()
    assert fake.calls == []
    again = Delivery(folder, fake)
    again.deliver(retry=True)
    assert [len(options["metrics"]) for _, _, options in fake.calls if "metrics" in options] == [1]
    assert (the_run(fake)["status"], len(again.refused)) == ("FAILED", 1)
    fake.refuse = lambda name, words, options: None
    Delivery(folder, fake).deliver(retry=True)
    run = the_run(fake)
    assert (run["status"], run["end_time"]) == ("FINISHED", folder.events()[-1]["time"])
    assert not {"failure_reason", "pipeline.refused"} & set(run["tags"])
    assert set(run["metrics"]) == {"train_loss", "val_loss"}
    assert (folder.state()["refused"], folder.state()["told"]) == ([], "")


@pytest.mark.parametrize(
    "error",
    [gateway(403), gateway(404), gateway(400), RestException({"error_code": "PERMISSION_DENIED", "message": "no"})],
)
def test_an_event_that_an_answer_refuses_for_now_waits_and_the_others_arrive(fake, held, error):
    folder = held(metrics(1), artifact("notes.txt"), metrics(2), end())
    refuses(fake, "log_artifact", error)
    delivery = Delivery(folder, fake)
    with pytest.raises(LeftError, match=r"^artifact: "):
        delivery.deliver()
    assert (delivery.delivered, delivery.done, delivery.refused) == (5, 4, [])
    assert [(left.event, left.final, left.names) for left in delivery.left] == [(2, False, [])]
    run = the_run(fake)
    assert (run["status"], len(run["metrics"]["train_loss"]), run["artifacts"]) == ("FINISHED", 2, {})
    assert "pipeline.refused" not in run["tags"]
    with pytest.raises(LeftError):
        Delivery(folder, fake).deliver()
    assert len(fake.named("log_artifact")) == 3  # each delivery asks again: once more within the first
    fake.refuse = lambda name, words, options: None
    Delivery(folder, fake).deliver()
    assert the_run(fake)["artifacts"] == {"notes.txt": b"what stands in notes.txt\n"}
    assert folder.state()["refused"] == []


def unreachable():
    """What MLflow's client makes of a connection that nobody takes."""
    return MlflowException("API request to http://x failed with exception Connection refused")


def falls_silent(fake, name, error):
    """From the first call of that name on every call meets the error."""
    silent = []

    def refuse(called, words, options):
        silent.extend([called] * (called == name))
        return error if silent else None

    fake.refuse = refuse


@pytest.mark.parametrize(
    "error", [gateway(429), unreachable(), ConnectionError("reset"), Timeout(), OSError(28, "full")]
)
def test_where_the_server_itself_does_not_answer_nothing_is_passed_over(fake, held, error):
    folder = held(metrics(1), artifact("notes.txt"), metrics(2), end())
    falls_silent(fake, "log_artifact", error)
    delivery = Delivery(folder, fake)
    with pytest.raises(type(error)) as caught:
        delivery.deliver()
    assert (caught.value, delivery.delivered, delivery.left) == (error, 2, [])
    assert folder.state()["delivered"] == 2


def http_error(status, content):
    response = Response()
    response.status_code, response._content = status, content
    return HTTPError(f"{status}", response=response)


def test_a_file_that_mlflow_itself_never_takes_is_refused_for_good_one_that_a_gateway_refuses_waits(fake, held):
    refuses(fake, "log_artifact", http_error(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}'))
    delivery = Delivery(held(artifact("notes.txt"), end()), fake)
    delivery.deliver()
    assert delivery.left == [Left(1, "artifact: http://mlflow.test answers 400", True, [])]
    refuses(fake, "log_artifact", http_error(413, b"<html>too large</html>"))
    with pytest.raises(LeftError, match=r"^artifact: http://mlflow.test answers 413$"):
        Delivery(delivery.folder, fake).deliver(retry=True)
    assert Delivery(delivery.folder, fake).left == [Left(1, "artifact: http://mlflow.test answers 413", False, [])]


def test_four_events_in_a_row_that_are_refused_are_the_servers_trouble(fake, held):
    folder = held(*(dataset(str(number)) for number in range(5)), end())
    left = refuses(fake, "log_inputs", gateway(403), 5)
    delivery = Delivery(folder, fake)
    with pytest.raises(type(gateway(403))):
        delivery.deliver()
    assert (delivery.delivered, [each.event for each in delivery.left], left) == (4, [1, 2, 3], [1])
    delivery.deliver()  # the fifth answer is a no as well: one more waits, and comes within this delivery
    assert (delivery.delivered, delivery.left, left) == (7, [], [0])
    assert [words[1][0].dataset.name for words in fake.named("log_inputs")][5:] == ["4", "0", "1", "2", "3"]


def test_one_that_arrives_between_them_begins_the_row_anew(fake, held):
    folder = held(
        *(artifact(f"{number}.txt") for number in range(3)), metrics(1), *(artifact(f"{n}.txt") for n in "567"), end()
    )
    refuses(fake, "log_artifact", gateway(404))
    delivery = Delivery(folder, fake)
    with pytest.raises(LeftError) as caught:
        delivery.deliver()
    assert str(caught.value) == "artifact: http://mlflow.test answers 404 (6 times)"
    assert delivery.delivered == 9


@pytest.mark.parametrize(("call", "begun"), [("create_run", ""), ("log_batch", "run0002")])
def test_the_start_is_never_passed_over(fake, held, call, begun):
    folder = held(metrics(1), end())
    refuses(fake, call, gateway(403))
    delivery = Delivery(folder, fake)
    with pytest.raises(type(gateway(403))):
        delivery.deliver()
    assert (delivery.delivered, delivery.left, delivery.run_id) == (0, [], begun)


def test_a_file_that_is_gone_is_refused_for_good_and_comes_with_retry_once_it_is_back(fake, held):
    folder = held(artifact("notes.txt"), model(), end())
    (folder.artifacts / "notes.txt").unlink()
    (folder.path / "network.onnx").unlink()
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert [(left.words, left.final) for left in delivery.left] == [
        ("artifact: notes.txt is no longer in the run's folder", True),
        ("model: network.onnx is no longer in the run's folder", True),
    ]
    assert the_run(fake)["status"] == "FAILED"
    (folder.artifacts / "notes.txt").write_text("again")
    delivery.deliver(retry=True)
    run = the_run(fake)
    assert (run["artifacts"], run["status"]) == ({"notes.txt": b"again"}, "FAILED")
    assert run["tags"]["pipeline.refused"] == "model: network.onnx is no longer in the run's folder"


def test_a_kind_of_event_that_is_not_known_is_refused_and_the_rest_arrives(fake, held):
    delivery = Delivery(held(("hologram", {}), metrics(1), end()), fake)
    delivery.deliver()
    words = "hologram hologram: a kind of record that this version of the pipeline does not know"
    assert [left.words for left in delivery.left] == [words]
    assert len(the_run(fake)["metrics"]) == 2


def test_a_record_that_was_damaged_is_passed_over(fake, held):
    delivery = Delivery(held(("lost", {"was": "metrics", "about": ""}), metrics(1), end()), fake)
    delivery.deliver()
    assert (delivery.left, delivery.delivered, the_run(fake)["status"]) == ([], 4, "FINISHED")


def test_an_older_value_that_waited_does_not_overwrite_a_newer_one(fake, held):
    folder = held(tags(note="older", only="older"), tags(note="newer"), resume(note="newest"))
    waits(fake, "only")
    Delivery(folder, fake).deliver()
    assert {"note": "newest", "only": "older"}.items() <= the_run(fake)["tags"].items()


def test_the_tags_of_a_model_are_the_versions_and_overwrite_none_of_the_runs(fake, held):
    folder = held(tags(note="run's", dataset="mine"), model(dataset="version's"))
    waits(fake, "dataset")
    Delivery(folder, fake).deliver()
    assert {"note": "run's", "dataset": "mine"}.items() <= the_run(fake)["tags"].items()
    ((_, _, _, _, about, _),) = fake.record()["versions"]
    assert about["dataset"] == "version's"


def test_the_models_tags_are_not_thinned_by_later_ones_of_the_run(fake, held):
    folder = held(model(dataset="version's"), tags(dataset="run's"), end())
    refuses(fake, "create_model_version", gateway(403), 1)
    Delivery(folder, fake).deliver()
    ((_, _, _, _, about, _),) = fake.record()["versions"]
    assert about["dataset"] == "version's"


@pytest.mark.parametrize(
    ("events", "refused", "status", "ended"),
    [
        ([end("KILLED"), resume(), metrics(1), end()], "set_terminated", "FINISHED", 4),
        ([end("KILLED"), resume()], "set_terminated", "RUNNING", None),
        ([end("KILLED"), resume(), end()], "update_run", "FINISHED", 3),
    ],
)
def test_a_status_that_waited_does_not_overwrite_a_later_one(fake, held, events, refused, status, ended):
    folder = held(*events)
    refuses(fake, refused, gateway(403), 1)
    Delivery(folder, fake).deliver()
    run = the_run(fake)
    assert run["status"] == status
    if ended:
        assert run["end_time"] == folder.events()[ended]["time"]


def test_metrics_go_in_one_request_each_at_its_step_and_time(fake, held):
    folder = held(
        *(metrics(step, loss=1.0 / step, other=2.0) for step in range(1, 601)), tags(a="1"), metrics(601), end()
    )
    Delivery(folder, fake).deliver()
    sent = [
        options["metrics"] if "metrics" in options else words[1]
        for name, words, options in fake.calls
        if name == "log_batch" and ("metrics" in options or len(words) > 1)
    ]
    assert [len(each) for each in sent] == [992, 210]  # the first with the start's params and tags, 1,000 at most
    times = {event["step"]: event["time"] for event in folder.events() if event["kind"] == "metrics"}
    assert the_run(fake)["metrics"]["loss"] == [(step, 1.0 / step, times[step]) for step in range(1, 601)]


def test_of_metrics_that_go_together_only_what_is_bad_is_refused(fake, held):
    folder = held(metrics(1, loss=1.0), metrics(2, loss=0.5, **{BAD: 1.0}), metrics(3, loss=0.25), end())
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert [(left.event, left.names) for left in delivery.left] == [(2, [BAD])]
    assert [step for step, _, _ in the_run(fake)["metrics"]["loss"]] == [1, 2, 3]


def test_metrics_that_nobody_answers_for_wait_all_of_them(fake, held):
    folder = held(metrics(1), metrics(2), end())
    delivery = Delivery(folder, fake)
    fake.refuse = lambda name, words, options: ConnectionError("refused") if "log_batch" in name else None
    for _ in range(2):
        with pytest.raises(ConnectionError):
            delivery.deliver()
    fake.refuse = lambda name, words, options: None
    delivery.deliver()
    assert (delivery.delivered, the_run(fake)["status"]) == (4, "FINISHED")


def test_an_artifact_that_was_taken_back_before_it_could_be_sent_is_no_loss(fake, held, monkeypatch):
    deleted = []
    monkeypatch.setattr(writer, "get_artifact_repository", lambda uri: SimpleNamespace(delete_artifacts=deleted.append))
    folder = held(artifact("first.txt"), artifact("second.txt"), ("removal", {"path": "first.txt"}), end())
    (folder.artifacts / "first.txt").unlink()
    (folder.artifacts / "second.txt").unlink()
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert [left.event for left in delivery.left] == [2]
    assert deleted == ["first.txt"]


# the place of the files is another's than the server


NO_BOTO = ModuleNotFoundError("No module named 'boto3'")
PLACES = [
    (NO_BOTO, "ModuleNotFoundError: No module named 'boto3'"),
    (PermissionError(13, "Permission denied", "/srv/mlflow"), "Permission denied: /srv/mlflow"),
    (OSError(28, "No space left on device"), "no space left on the disk"),
    (NoConnection("no host bucket"), "ConnectionError: no host bucket"),
    (NoConnection(f"{'x' * 125} http://bob:S3cret@place"), f"ConnectionError: {'x' * 125} http://place"),
    (FileNotFoundError(2, "No such file or directory", "/mnt/share"), "No such file or directory: /mnt/share"),
    (MlflowException("Could not find a registered artifact repository"), None),
    (unreachable(), None),
    (gateway(500), "http://mlflow.test answers 500"),
]


@pytest.mark.parametrize(("error", "words"), PLACES)
def test_a_place_that_takes_no_files_keeps_neither_metrics_nor_the_end_from_arriving(fake, held, error, words):
    folder = held(artifact("packages.txt"), metrics(1), *(artifact(f"{n}.txt") for n in range(20)), metrics(2), end())
    refuses(fake, "log_artifact", error)
    delivery = Delivery(folder, fake)
    for _ in range(2):
        with pytest.raises(LeftError) as caught:
            delivery.deliver()
        assert words is None or str(caught.value) == f"artifact: {words} (21 times)"
        assert (delivery.delivered, delivery.done, delivery.refused) == (25, 4, [])
        run = the_run(fake)
        assert (run["status"], len(run["metrics"]["train_loss"]), run["artifacts"]) == ("FINISHED", 2, {})
        assert "pipeline.refused" not in run["tags"]
    assert len(fake.named("log_artifact")) == 3 + 3  # a place that fails three times in a row is asked no more for now
    fake.refuse = lambda name, words, options: None
    Delivery(folder, fake).deliver()
    assert (len(the_run(fake)["artifacts"]), folder.state()["refused"]) == (21, [])


@pytest.fixture
def clock(monkeypatch):
    """One that stands still, but for what is added to it."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(delivery_module, "time", clock)
    return clock


def takes(fake, clock, seconds, error):
    """Let each file keep whoever sends it waiting for so long, for an error."""

    def refuse(called, words, options):
        clock.now += seconds * (called == "log_artifact")
        return error if called == "log_artifact" else None

    fake.refuse = refuse


@pytest.mark.parametrize(
    ("seconds", "error", "longest_s", "sent"),
    [
        (300, NoConnection("connect timeout on bucket"), 10, 1),  # as S3's client waits by itself
        (5, NoConnection("refused"), 10, 3),
        (300, gateway(413), 10, 3),  # an answer, to a large file
        (80, Timeout(), 80, 1),
        (10, Timeout(), 300, 1),  # as a user has said
    ],
)
def test_a_place_that_keeps_everybody_waiting_is_asked_once_a_round_by_all_the_runs_of_its_experiment(
    tmp_path, fake, clock, monkeypatch, seconds, error, longest_s, sent
):
    monkeypatch.setenv(connection.TIMEOUT, str(longest_s))
    known = opening.Known()
    runs = [
        Held(tmp_path / f"runs/{name}", start(run_key=name), artifact("a.txt"), artifact("b.txt"), metrics(1), end())
        for name in ("one", "two")
    ]
    takes(fake, clock, seconds, error)
    deliveries = [Delivery(folder, fake, known) for folder in runs]
    for each in deliveries:
        with pytest.raises(LeftError, match=r"^artifact: .*\(2 times\)$"):
            each.deliver()
        assert (each.done, each.artifact_store.is_silent) == (3, sent == 1)
    assert len(fake.named("log_artifact")) == (1 if sent == 1 else 2 * 3)
    assert [run["status"] for run in fake.record()["runs"]] == ["FINISHED", "FINISHED"]
    fake.refuse = lambda name, words, options: None
    for each in deliveries:
        each.deliver()
    assert [len(run["artifacts"]) for run in fake.record()["runs"]] == [2, 2]


def test_a_place_whose_answers_may_take_longer_is_waited_for_until_they_take_the_longest_time(
    tmp_path, fake, clock, monkeypatch
):
    monkeypatch.setenv(connection.TIMEOUT, "10")
    folder = Held(tmp_path / "runs/one", start(), *(artifact(f"{n}.txt") for n in range(9)))
    takes(fake, clock, 10, Timeout())
    delivery, sent = Delivery(folder, fake), []
    for _ in range(3):
        with pytest.raises(LeftError):
            delivery.deliver()
        sent.append((len(fake.named("log_artifact")), delivery.artifact_store.is_silent))
    assert sent == [(3, False), (4, True), (5, True)]  # for 10, 20 and 40 s, for 80 in each round from now on


def test_the_silent_place_of_one_experiment_keeps_no_files_of_another_from_theirs(tmp_path, fake, clock):
    known = opening.Known()
    takes(fake, clock, 60, NoConnection("no"))
    with pytest.raises(LeftError):
        Delivery(Held(tmp_path / "runs/one", start(), artifact("a.txt")), fake, known).deliver()
    fake.refuse = lambda name, words, options: None
    other = start(run_key="two", experiment_name="another")
    Delivery(Held(tmp_path / "runs/two", other, artifact("a.txt")), fake, known).deliver()
    assert list(known.silent_stores.values()) == ["ConnectionError: no"]


def test_the_trouble_stands_while_files_wait_though_the_rest_arrives_and_is_over_with_them(fake, held):
    folder = held(artifact("packages.txt"), *map(metrics, (1, 2, 3)), end())
    trouble = {"since": 1, "error": "no", "advice": ""}
    noted = []
    refuses(fake, "log_artifact", NO_BOTO)
    delivery = Delivery(folder, fake)
    for _ in range(2):
        with pytest.raises(LeftError):
            delivery.deliver()
        noted.append(folder.state()["trouble"])
        folder.write_state({**folder.state(), "trouble": trouble})
    fake.refuse = lambda name, words, options: None
    delivery.deliver()
    assert (noted, folder.state()["trouble"]) == ([None, trouble], None)


def test_advice_that_was_followed_is_no_trouble_of_the_files_that_wait(fake, held):
    folder = held(artifact("packages.txt"), end())
    refuses(fake, "log_artifact", NO_BOTO)
    folder.write_state({"trouble": {"since": 1, "error": "it is deleted", "advice": "restore it"}})
    with pytest.raises(LeftError):
        Delivery(folder, fake).deliver()
    assert folder.state()["trouble"] is None


def test_files_that_their_place_never_takes_keep_no_others_from_it(fake, held):
    folder = held(*(artifact(f"{n}.txt") for n in range(8)), end())
    fake.refuse = lambda name, words, options: (
        NO_BOTO if name == "log_artifact" and Path(words[1]).stem in "0123" else None
    )
    delivery = Delivery(folder, fake)
    for _ in range(3):
        with pytest.raises(LeftError):
            delivery.deliver()
    assert sorted(the_run(fake)["artifacts"]) == ["4.txt", "5.txt", "6.txt", "7.txt"]


def test_a_model_whose_files_are_not_taken_waits_as_well_and_comes_once_whole(fake, held):
    folder = held(model(), metrics(1), end())
    refuses(fake, "log_model_artifacts", NO_BOTO, 2)
    with pytest.raises(LeftError, match=r"^model: ModuleNotFoundError: No module named 'boto3'$"):
        Delivery(folder, fake).deliver()
    assert the_run(fake)["status"] == "FINISHED"
    Delivery(folder, fake).deliver()
    record = fake.record()
    assert (len(record["models"]), len(record["versions"]), record["runs"][0]["status"]) == (1, 1, "FINISHED")


def test_a_run_begins_also_where_the_client_of_its_place_cannot_be_made(fake, held, monkeypatch):
    def refuse(*words):
        raise ImportError("cannot import name 'storage' from 'google.cloud'")

    monkeypatch.setattr(opening, "remember_place", refuse)
    Delivery(held(metrics(1), end()), fake).deliver()
    assert the_run(fake)["status"] == "FINISHED"


def test_slow_files_get_more_time_though_the_server_answers(fake, held, monkeypatch):
    longer = []
    monkeypatch.setattr(blocked, "wait_longer", lambda: longer.append(True) or True)
    folder = held(artifact("large.bin"), end())
    refuses(fake, "log_artifact", Timeout(), 1)
    Delivery(folder, fake).deliver()
    assert (longer, the_run(fake)["status"]) == ([True], "FINISHED")


@pytest.fixture
def removed(fake, monkeypatch):
    """What was deleted of the run's files; a place that cannot delete has `error`."""
    removed = SimpleNamespace(paths=[], error=None)

    def delete(path):
        if removed.error:
            raise removed.error
        removed.paths.append(path)
        for run in fake.runs.values():
            run.artifacts.pop(path, None)

    monkeypatch.setattr(writer, "get_artifact_repository", lambda uri: SimpleNamespace(delete_artifacts=delete))
    return removed


def test_a_place_that_never_deletes_keeps_the_file_and_nothing_waits(fake, held, removed):
    removed.error = NotImplementedError()
    delivery = Delivery(held(artifact("a.txt"), ("removal", {"path": "a.txt"}), end()), fake)
    delivery.deliver()
    assert (delivery.left, list(the_run(fake)["artifacts"])) == ([], ["a.txt"])


def test_a_removal_that_waited_takes_away_no_file_that_has_come_after_it(fake, held, removed):
    removed.error = PermissionError(13, "Permission denied")
    folder = held(artifact("a.txt"), ("removal", {"path": "a.txt"}), artifact("a.txt"), end())
    Delivery(folder, fake).deliver()
    removed.error = None
    Delivery(folder, fake).deliver()
    assert (list(the_run(fake)["artifacts"]), removed.paths) == (["a.txt"], [])


def test_nor_does_a_file_that_waited_come_back_after_its_removal(fake, held, removed):
    folder = held(artifact("a.txt"), ("removal", {"path": "a.txt"}), end())  # the disk did not delete it
    refuses(fake, "log_artifact", NO_BOTO, 1)
    Delivery(folder, fake).deliver()
    assert (the_run(fake)["artifacts"], removed.paths) == ({}, ["a.txt"])


@pytest.mark.parametrize("error", [FileNotFoundError("a.ckpt"), RuntimeError("as a store of its own says it")])
@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_that_is_deleted_while_it_is_sent_is_no_loss(tmp_path, fake, removed, error, again):
    folder = run_of(tmp_path / "runs/run", start(), artifact("a.ckpt"))

    def delete(name, words, options):
        """As ModelCheckpoint does, whose event stands before its file is gone."""
        if name != "log_artifact" or len(folder.events()) > 2:
            return None
        append(folder, "removal", path="a.ckpt")
        (folder.artifacts / "a.ckpt").unlink()
        if again:
            (folder.artifacts / "a.ckpt").write_text("another")
            append(folder, "artifact", path="a.ckpt")
        return error

    fake.refuse = delete
    delivery = Delivery(folder, fake)
    delivery.deliver()
    append(folder, "end", status="FINISHED", tags={})
    delivery.deliver()
    assert (delivery.left, the_run(fake)["status"]) == ([], "FINISHED")
    assert the_run(fake)["artifacts"] == ({"a.ckpt": b"another"} if again else {})


def test_a_checkpoint_folder_that_is_replaced_while_it_is_sent_comes_with_its_next_event(tmp_path, fake):
    folder = run_of(tmp_path / "runs/run", start(), artifact("sharded"))
    refuses(fake, "log_artifact", FileNotFoundError("sharded/first.txt"), 1)
    append(folder, "end", status="FINISHED", tags={})
    delivery = Delivery(folder, fake)
    delivery.deliver()
    assert (delivery.left, len(the_run(fake)["artifacts"])) == ([], 2)


def test_a_deleted_run_whose_files_are_refused_is_told_as_deleted(tmp_path, fake, held):
    folder = held(metrics(1), artifact("notes.txt"), end())
    refuses(fake, "log_artifact", NO_BOTO)
    delivery = Delivery(folder, fake)
    delivery._deliver_new(folder.events()[:2])
    fake.delete_run(delivery.run_id)
    with pytest.raises(BlockedError, match="is deleted in MLflow"):
        delivery.deliver()
