"""The uploader as a process: what it does before and after sending, and that it insists on KILLED."""

import sys
from types import SimpleNamespace

import pytest

from pipeline.delivery import upload_loop
from pipeline.mlflow_client import connection
from tests.recorded import end, metrics, run_of, start
from tests.uploads import BLOCKED


@pytest.fixture
def folder(tmp_path):
    return run_of(tmp_path / "runs/one", start(), metrics(1), end())


@pytest.fixture
def started(world, monkeypatch):
    """What `main` does besides sending, and the processes that it starts."""
    done = []
    monkeypatch.setattr(
        upload_loop, "signal", SimpleNamespace(SIGINT="int", SIG_IGN="ign", signal=lambda *a: done.append(a))
    )
    monkeypatch.setattr(connection, "import_store", lambda: done.append("imported"))
    monkeypatch.setattr(upload_loop.subprocess, "Popen", lambda *words, **options: done.append((words, options)))
    return done


def test_it_ignores_ctrl_c_imports_ahead_and_ends_with_the_code_of_the_sending(world, started, folder):
    world.news = [(100, None)]
    assert upload_loop.main(str(folder.path)) == 0
    assert started == [("int", "ign"), "imported"]
    assert [name for _, name in world.met] == ["one"]


@pytest.mark.parametrize(("flags", "goes_to"), [([], "http://mlflow.test"), (["--left"], "http://before.test")])
def test_what_others_left_goes_where_it_went_and_ones_own_where_the_environment_says(
    world, started, folder, flags, goes_to
):
    folder.write_state({"tracking_uri": "http://before.test"})
    world.news = [(100, None)]
    assert upload_loop.main(str(folder.path), *flags) == 0
    assert world.asked_for == [goes_to]


def test_something_left_is_its_exit_code(world, started, folder):
    world.news = [(100, None)]
    world.meets = [BLOCKED] * 9
    assert upload_loop.main(str(folder.path)) == 1


@pytest.mark.parametrize(
    ("about", "status", "blocked", "insists"),
    [
        ("run of mlflow run", "KILLED", False, True),
        ("run of mlflow run", "KILLED", True, False),
        ("run of mlflow run", "FAILED", False, False),
        ("run of mlflow run", "", False, False),
        (None, "KILLED", False, False),
    ],
)
def test_a_killed_run_of_mlflow_run_is_insisted_on(world, started, tmp_path, about, status, blocked, insists):
    events = [start(mlflow_run_id=about, tags={"host": "elsewhere"}), *([end(status)] if status else [])]
    folder = run_of(tmp_path / "runs/killed", *events)
    world.news = [(100, None)]
    world.meets = [BLOCKED] * blocked
    upload_loop.main(str(folder.path))
    command = [sys.executable, "-m", "pipeline.delivery.upload_loop", str(folder.path), "--insist"]
    assert started[2:] == ([(([*command],), {"start_new_session": True})] if insists else [])


def test_it_lets_the_former_uploader_of_the_run_end_first_and_takes_its_place_at_once(folder, monkeypatch):
    waited = []

    class Lock:
        def __init__(self, path):
            waited.append(path)

        def acquire(self):
            waited.append("taken")

    monkeypatch.setattr(upload_loop, "FileLock", Lock)
    upload_loop._lock_of(folder)
    assert waited == [folder.path / "sender.lock", "taken"]
    monkeypatch.setattr(Lock, "acquire", lambda self: (_ for _ in ()).throw(OSError(28, "full")))
    upload_loop._lock_of(folder)


def test_nobody_else_delivers_a_run_while_its_uploader_imports(world, started, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(connection, "import_store", lambda: seen.append(folder.is_locked("sender.lock")))
    world.news = [(100, None)]
    assert upload_loop.main(str(folder.path)) == 0
    assert (seen, folder.is_locked("sender.lock")) == ([True], False)


@pytest.fixture
def client(world, monkeypatch):
    """MLflow, in which `mlflow run` overwrites the status after a while."""
    client = SimpleNamespace(status="KILLED", overwritten_at=103.0, told=[], asked=[])

    def get_run(run_id):
        client.asked.append(world.now - 100)
        status = client.status if world.now < client.overwritten_at else "FAILED"
        return SimpleNamespace(info=SimpleNamespace(status=status))

    client.get_run, client.set_terminated = get_run, lambda *words: client.told.append((world.now, *words))
    monkeypatch.setattr(connection, "connect", lambda uri: client)
    return client


def test_killed_is_put_back_once_mlflow_run_has_written_over_it(client, world, tmp_path):
    folder = run_of(tmp_path / "runs/killed", start(), end("KILLED"))
    folder.write_state({"run_id": "the run"})
    assert upload_loop.insist_on_killed(str(folder.path)) == 0
    assert client.told == [(103, "the run", "KILLED", folder.events()[-1]["time"])]
    assert world.slept == [0.5] * 6


def test_after_fifteen_seconds_nobody_will(client, world, tmp_path):
    client.overwritten_at = 1000
    folder = run_of(tmp_path / "runs/killed", start(), end("KILLED"))
    folder.write_state({"run_id": "the run"})
    assert upload_loop.insist_on_killed(str(folder.path)) == 0
    assert (client.told, len(client.asked), world.now) == ([], 30, 115)


def test_a_run_that_goes_on_meanwhile_is_left_alone(client, world, tmp_path):
    folder = run_of(tmp_path / "runs/killed", start(), metrics(1))
    folder.write_state({"run_id": "the run"})
    assert upload_loop.insist_on_killed(str(folder.path)) == 0
    assert (client.told, client.asked) == ([], [])
