"""Where the next delivery of a run goes: written into its folder, with its runs, or refused and nothing changed."""

import mlflow
import pytest
from filelock import FileLock
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from pipeline.delivery import resend
from pipeline.delivery.delivery import Delivery
from pipeline.delivery.resend import children_of, parent_of, send_elsewhere
from pipeline.terminal.shell import UnreachableError
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from tests.fake_mlflow import FakeMlflow, gateway, refusal
from tests.recorded import end, metrics, run_of, start

URI = "http://mlflow.test"


@pytest.fixture
def fake(monkeypatch):
    """The store that everything goes to; `asked` are the addresses that were connected to."""
    fake = FakeMlflow()
    fake.asked = []
    monkeypatch.setattr(resend, "connect", lambda uri: fake.asked.append(uri) or fake)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", URI)
    mlflow.set_tracking_uri(URI)
    yield fake
    mlflow.set_tracking_uri(None)


@pytest.fixture
def run(tmp_path, fake):
    """Make a run's folder; delivered, if it is to be."""

    def make(name="one", parent="", delivered=True, **about):
        about = {"run_key": f"key of {name}", "parent": parent, **about}
        folder = run_of(tmp_path / "runs" / name, start(**about), metrics(1), end())
        if delivered:
            Delivery(folder, fake).deliver()
        return folder

    return make


def keys(fake):
    return sorted(run.data.tags["pipeline.run"] for run in fake.runs.values())


def test_as_new_it_gets_a_key_of_its_own_and_all_of_it_is_sent_again(run, fake, capsys):
    folder = run()
    before = folder.state()["run_id"]
    assert send_elsewhere([folder], "", as_new=True) == [folder]
    assert capsys.readouterr().out == f"runs/one: sent as a new run, {before} is forgotten\n"
    state = folder.state()
    key = state["elsewhere"]["run_key"]
    assert state == {"tracking_uri": URI, "elsewhere": {"run_key": key, "keep_experiment_id": True}}
    assert len(key) == 32
    Delivery(folder, fake).deliver()
    assert keys(fake) == sorted(["key of one", key])
    assert [each["metrics"] for each in fake.record()["runs"]] == [fake.record()["runs"][0]["metrics"]] * 2
    send_elsewhere([folder], "", as_new=True)
    assert folder.state()["elsewhere"]["run_key"] != key


def test_in_another_experiment_it_keeps_its_key_and_loses_the_id_of_its_experiment(run, fake, capsys):
    folder = run(delivered=False, experiment_id="77")
    assert send_elsewhere([folder], "it's new", as_new=False) == [folder]
    assert capsys.readouterr().out == 'runs/one: sent in experiment "it\'s new"\n'
    wanted = {"experiment_name": "it's new", "keep_experiment_id": False}
    assert folder.state() == {"tracking_uri": URI, "elsewhere": wanted}
    Delivery(folder, fake).deliver()
    assert [(each["key"], each["experiment"]) for each in fake.record()["runs"]] == [("run of key of one", "it's new")]


def test_both_and_later_one_of_them_are_remembered_together(run, fake, capsys):
    folder = run()
    run_id = folder.state()["run_id"]
    send_elsewhere([folder], "there", as_new=True)
    assert capsys.readouterr().out == f"runs/one: sent as a new run in experiment 'there', {run_id} is forgotten\n"
    key = folder.state()["elsewhere"]["run_key"]
    send_elsewhere([folder], "elsewhere", as_new=False)
    wanted = {"run_key": key, "experiment_name": "elsewhere", "keep_experiment_id": False}
    assert folder.state()["elsewhere"] == wanted
    assert capsys.readouterr().out == "runs/one: sent in experiment 'elsewhere'\n"


@pytest.mark.parametrize(("before", "kept"), [(URI, True), ("http://another.test", False), (None, True)])
def test_the_id_of_an_experiment_is_kept_only_in_its_own_store(run, fake, before, kept):
    folder = run(delivered=False)
    folder.write_state({"tracking_uri": before} if before else {})
    send_elsewhere([folder], "", as_new=True)
    assert folder.state()["elsewhere"]["keep_experiment_id"] is kept
    assert folder.state()["tracking_uri"] == URI


def test_a_password_of_the_store_is_not_written_down_and_the_same_store_is_known_without_it(run, fake, monkeypatch):
    folder = run(delivered=False)
    folder.write_state({"tracking_uri": "http://mlflow.test"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:secret@mlflow.test")
    send_elsewhere([folder], "", as_new=True)
    assert folder.state()["tracking_uri"] == "http://mlflow.test"
    assert folder.state()["elsewhere"]["keep_experiment_id"] is True


def refused(*words):
    """The error's text."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        send_elsewhere(*words)
    return str(caught.value)


def test_what_mlflow_has_already_is_not_sent_elsewhere_but_as_new(run, fake):
    one, two = run("one", delivered=False), run("two two")
    before = one.state(), two.state()
    again = "python -m pipeline sync 'two two' --as-new --experiment_name there"
    run_id = two.state()["run_id"]
    assert refused([one, two], "there", False) == (
        f"MLflow has run two two already, as {run_id}; all of it as a new run: {again}"
    )
    assert (one.state(), two.state()) == before


def test_an_experiments_name_is_one_that_mlflow_takes(run):
    folder = run()
    assert refused([folder], "x" * 300, True) == f"experiment_name {'x' * 300!r} has 300 characters, MLflow takes 256"
    assert "elsewhere" not in folder.state()


@pytest.mark.parametrize("alive", ["one", "child"])
def test_a_run_that_lives_or_whose_run_lives_stays_where_it_is(run, alive):
    folders = {"one": run("one"), "child": run("child", parent="one")}
    before = folders["one"].state()
    journal = Journal(folders[alive])
    with pytest.raises(RunIsAliveError) as caught:
        send_elsewhere([folders["one"]], "", as_new=True)
    journal.close()
    assert str(caught.value) == f"run {alive} is still running; end it before it is sent elsewhere"
    assert folders["one"].state() == before


def test_one_that_is_being_delivered_stays_where_it_is(run, monkeypatch):
    folder = run()
    before = folder.state()
    monkeypatch.setattr(resend, "DELIVERING_PATIENCE_S", 0)
    with FileLock(folder.path / "sender.lock"), pytest.raises(RunIsAliveError) as caught:
        send_elsewhere([folder], "", as_new=True)
    assert str(caught.value) == "run one is being delivered by another process; try again"
    assert folder.state() == before
    assert resend.DELIVERING == "sender.lock"


def test_while_its_state_is_written_nobody_delivers_it(run, monkeypatch):
    folder, seen = run(), []
    write = RunFolder.write_state

    def write_state(self, state):
        seen.append(FileLock(self.path / "sender.lock"))
        with pytest.raises(Exception, match="could not be acquired"):
            seen[-1].acquire(timeout=0)
        write(self, state)

    monkeypatch.setattr(RunFolder, "write_state", write_state)
    send_elsewhere([folder], "", as_new=True)
    assert len(seen) == 1
    seen[0].acquire(timeout=0)
    seen[0].release()


def test_a_folder_that_cannot_be_written_is_named(run, monkeypatch):
    folder = run()

    def full(self, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_state", full)
    assert refused([folder], "", True) == "runs/one cannot be written (No space left on device)"


def test_whose_run_a_run_is(run, tmp_path):
    one, child, other = run("one"), run("child", parent="one"), run("other", parent="child")
    moved = run("moved", parent="child")
    journal = Journal(moved)
    journal.append("parent", parent="one")
    journal.close()
    assert [parent_of(each) for each in (one, child, other, moved)] == ["", "one", "child", "one"]
    assert [each.path.name for each in children_of(one)] == ["child", "moved"]
    assert [each.path.name for each in children_of(child)] == ["other"]
    itself = run("itself", parent="itself")
    assert children_of(itself) == []


def test_with_an_experiments_run_go_its_runs_and_those_that_are_there_are_nested_anew(run, fake, capsys):
    parent = run("a-parent")
    there, gone, never = run("there", "a-parent"), run("gone", "a-parent"), run("never", "a-parent", delivered=False)
    stays = run("of another")
    before = stays.state(), there.state()
    fake.delete_run(gone.state()["run_id"])
    fake.asked.clear()
    folders = send_elsewhere([parent], "", as_new=True)
    assert sorted(each.path.name for each in folders) == ["a-parent", "gone", "never", "there"]
    assert folders[0] is parent
    assert (stays.state(), there.state()) == before
    assert [each["kind"] for each in there.events()] == ["start", "metrics", "end", "parent"]
    assert there.events()[-1]["parent"] == "a-parent"
    assert ["elsewhere" in each.state() for each in (parent, gone, never)] == [True] * 3
    assert not there.is_alive()
    assert fake.asked == [URI] * 2  # not for the one that never was there
    for folder in [parent, there, gone, never]:
        Delivery(folder, fake).deliver()
    nested = [fake.runs[each.state()["run_id"]].data.tags["mlflow.parentRunId"] for each in (there, gone, never)]
    assert nested == [parent.state()["run_id"]] * 3


def test_one_that_the_store_does_not_know_is_sent_anew_as_well(run, fake):
    parent, child = run("a-parent"), run("child", "a-parent")
    fake.refuse = lambda name, words, options: refusal(RESOURCE_DOES_NOT_EXIST) if name == "get_run" else None
    send_elsewhere([parent], "", as_new=True)
    assert "run_key" in child.state()["elsewhere"]


@pytest.mark.parametrize("error", [gateway(404), gateway(502)])
def test_a_store_that_does_not_say_so_is_not_believed(run, fake, error):
    parent, child = run("a-parent"), run("child", "a-parent")
    fake.refuse = lambda name, words, options: error if name == "get_run" else None
    with pytest.raises(UnreachableError):
        send_elsewhere([parent], "", as_new=True)
    assert "elsewhere" not in child.state()


def test_in_another_experiment_all_of_its_runs_are_sent_anew(run, fake):
    parent, child = run("a-parent"), run("child", "a-parent")
    fake.asked.clear()
    send_elsewhere([parent], "there", as_new=True)
    assert child.state()["elsewhere"]["experiment_name"] == "there"
    assert child.state()["elsewhere"]["run_key"] != parent.state()["elsewhere"]["run_key"]
    assert fake.asked == []


def test_a_run_that_is_named_beside_its_parent_is_sent_once(run, fake, capsys):
    parent, child = run("a-parent"), run("child", "a-parent")
    assert send_elsewhere([parent, child], "", as_new=True) == [parent, child]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_as_new_an_experiments_runs_stay(run, fake):
    parent, child = run("a-parent", delivered=False), run("child", "a-parent", delivered=False)
    assert send_elsewhere([parent], "there", as_new=False) == [parent]
    assert "elsewhere" not in child.state()
