"""The run's folder here becomes what it is on the node: events, files, checkpoints; whole or not at all."""

import errno
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.cluster.link import Link
from pipeline.cluster.remote_journal import RemoteJournal, Unheard
from pipeline.cluster.replica import Replica
from pipeline.tracking.journal import JOURNAL, VITAL, Journal, RunFolder
from pipeline.tracking.run import Run


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Pair:
    """A node's run and its replica, without a network between them."""

    def __init__(self, tmp_path, name="run"):
        self.there, self.here = RunFolder(tmp_path / "node" / name), RunFolder(tmp_path / "runs" / name)
        self.told = []
        self.link, self.taken = Link(), 0
        self.there.path.parent.mkdir(exist_ok=True)
        uploader = SimpleNamespace(notify=lambda: self.told.append("notified"))
        self.replica = Replica(self.here, uploader, {"experiment_name": "ours", "mlflow_run_id": None})
        self.run = Run(RemoteJournal(self.there, self.link), Unheard(self.there))

    def deliver(self):
        for number, message in self.link.poll(self.taken, patience_s=0):
            if "news" not in message:
                self.replica.take(message)
            self.taken = number
        self.link.poll(self.taken, patience_s=0)

    def begin(self):
        self.run.start("node's", {"epochs": 2}, {"a": "b"}, parent="p")


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path)


def test_events_and_files_arrive_as_they_are(pair):
    pair.begin()
    pair.run.text_artifact("words.txt", "some")
    pair.run.metrics({"train_loss": 0.1 + 0.2}, 1)
    pair.run.end("FINISHED")
    pair.deliver()
    here, there = pair.here.events(), pair.there.events()
    assert [(event["kind"], event["time"], event["n"]) for event in here] == [
        (event["kind"], event["time"], event["n"]) for event in there
    ]
    assert here[2]["values"] == {"train_loss": 0.1 + 0.2}
    assert (pair.here.artifacts / "words.txt").read_text() == "some"
    assert pair.here.ended()["status"] == "FINISHED"
    assert len(pair.told) == 4


def test_the_disk_of_the_experiment_is_waited_for_and_no_node_s_own(pair, monkeypatch):
    waited_for = []
    monkeypatch.setattr("os.fsync", lambda file: waited_for.append(Path(f"/proc/self/fd/{file}").readlink()))
    pair.begin()
    pair.run.metrics({"train_loss": 0.5}, 1)
    assert waited_for == []
    pair.deliver()
    journals = [path for path in waited_for if path.suffix == ".jsonl"]
    assert journals == [pair.here.path / name for name in (JOURNAL, VITAL, JOURNAL)]


def test_what_the_environment_says_of_a_run_is_this_process_and_the_folder_is_the_one_here(pair):
    pair.begin()
    pair.deliver()
    start = pair.here.started()
    assert (start["experiment_name"], start["folder"]) == ("ours", str(pair.here.path))
    assert start["tags"]["a"] == "b"


def test_a_folder_of_artifacts_and_a_model_come_with_all_their_files(pair):
    pair.begin()
    pictures = pair.there.artifacts / "pictures"
    (pictures / "below").mkdir(parents=True)
    (pictures / "one.png").write_bytes(b"1")
    (pictures / "below/two.png").write_bytes(b"2")
    pair.run.artifact(pictures)
    (pair.there.path / "model").mkdir()
    for name in ("network.onnx", "example.npy"):
        (pair.there.path / "model" / name).write_bytes(name.encode())
    pair.run.model(pair.there.path / "model/network.onnx", pair.there.path / "model/example.npy", "", {})
    pair.deliver()
    assert (pair.here.artifacts / "pictures/below/two.png").read_bytes() == b"2"
    assert (pair.here.path / "model/network.onnx").read_bytes() == b"network.onnx"
    assert not list(pair.here.path.rglob("*.partial"))


def test_a_file_that_did_not_come_whole_is_not_there(pair):
    pair.replica.take({"pieces": [("checkpoints/epoch-0001.ckpt", 0, b"half")]})
    assert not (pair.here.checkpoints / "epoch-0001.ckpt").exists()
    pair.replica.take(
        {"pieces": [("checkpoints/epoch-0001.ckpt", 4, b"whole")], "place": ["checkpoints/epoch-0001.ckpt"]}
    )
    assert (pair.here.checkpoints / "epoch-0001.ckpt").read_bytes() == b"halfwhole"


def checkpoint(pair, number, content):
    name = f"checkpoints/epoch-{number:04d}.ckpt"
    pair.replica.take({"pieces": [(name, 0, content)], "place": [name]})


def test_the_last_two_checkpoints_are_kept_also_beyond_the_9999th(pair):
    for number in (9998, 9999, 10000):
        checkpoint(pair, number, b"x")
    assert sorted(path.name for path in pair.here.checkpoints.iterdir()) == ["epoch-10000.ckpt", "epoch-9999.ckpt"]


def test_another_node_goes_on_with_the_newest_whole_checkpoint(pair, tmp_path):
    import zipfile

    pair.begin()
    pair.deliver()
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("data", b"weights")
    checkpoint(pair, 1, whole.read_bytes())
    checkpoint(pair, 2, b"torn")
    names = pair.replica.to_go_on_with()
    assert set(names) == {"journal.jsonl", "vital.jsonl", "checkpoints/epoch-0001.ckpt"}
    assert names["checkpoints/epoch-0001.ckpt"].read_bytes() == whole.read_bytes()


def test_a_run_that_did_not_begin_has_nothing_to_go_on_with_and_leaves_no_folder(pair):
    assert pair.replica.to_go_on_with() == {}
    assert pair.replica.close() == ""
    assert not pair.here.path.exists()


def test_a_record_that_goes_on_elsewhere_counts_on_and_repeats_no_value(pair, tmp_path):
    pair.begin()
    pair.run.metrics({"train_loss": 0.5}, 1)
    pair.deliver()
    second = tmp_path / "node" / "again"
    second.mkdir()
    for name, path in pair.replica.to_go_on_with().items():
        (second / name).write_bytes(path.read_bytes())
    link, taken = Link(), 0
    run = Run(RemoteJournal(RunFolder(second), link), Unheard(RunFolder(second)))
    run.resume({}, {"resumed_after_epoch": "0"})
    run.metrics({"train_loss": 0.5}, 1)
    run.metrics({"train_loss": 0.4}, 2)
    for _, message in link.poll(taken, patience_s=0):
        pair.replica.take(message)
    assert [(event["kind"], event.get("step")) for event in pair.here.events()] == [
        ("start", None),
        ("metrics", 1),
        ("resume", None),
        ("metrics", 2),
    ]


@pytest.mark.parametrize("name", ["../outside", "artifacts/../../outside", "/etc/outside"])
def test_a_file_that_leads_out_of_the_folder_is_refused(pair, name):
    with pytest.raises(ValueError, match="leads out of the run's folder"):
        pair.replica.take({"pieces": [(name, 0, b"x")], "place": [name]})


def test_the_end_that_a_node_could_not_write_is_written_here_once(pair):
    pair.begin()
    pair.deliver()
    pair.replica.end("KILLED", "Ctrl-C")
    pair.replica.end("FAILED", "again")
    end = pair.here.ended()
    assert (end["status"], end["tags"]) == ("KILLED", {"failure_reason": "Ctrl-C"})
    assert pair.replica.close() == ""
    assert not pair.here.is_alive()


def test_events_that_the_disk_refuses_wait_and_are_told_if_they_never_fit(pair, monkeypatch):
    pair.begin()
    pair.deliver()

    def full(self, event):
        raise OSError(errno.ENOSPC, "No space left on device")

    write = Journal._write
    monkeypatch.setattr(Journal, "_write", full)
    pair.replica.take({"event": {"kind": "tags", "time": 1, "tags": {"a": "c"}, "n": 1}})
    assert "1 record is lost" in pair.replica.close()
    monkeypatch.setattr(Journal, "_write", write)


def test_an_error_of_the_disk_here_reaches_the_training_there(pair):
    pair.begin()
    waiting = []

    def train():
        try:
            pair.link.wait_until_taken()
        except OSError as error:
            waiting.append(error.errno)

    thread = threading.Thread(target=train)
    thread.start()
    pair.link.poll(1, (errno.ENOSPC, "No space left on device"), patience_s=0)
    thread.join(300)
    assert waiting == [errno.ENOSPC]
