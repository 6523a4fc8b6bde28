"""The uploader: when it delivers, how long it waits, whom it tells of trouble, when it ends. On a clock of its own."""

import itertools
import json
from pathlib import Path

import pytest
from filelock import FileLock
from requests import Timeout

from pipeline.delivery import upload_loop
from pipeline.delivery.upload_loop import UploadLoop
from pipeline.mlflow_client import connection, tracking_uri
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import DELIVERING
from tests.recorded import append, end, metrics, run_of, start
from tests.uploads import BLOCKED, NO


@pytest.fixture
def log(world, monkeypatch, tmp_path):
    """The lines of the uploader's log."""
    with (tmp_path / "log").open("wb") as file:
        monkeypatch.setattr(upload_loop.sys, "stdout", file)
        yield lambda: (tmp_path / "log").read_text().splitlines()


@pytest.fixture
def folder(tmp_path):
    return run_of(tmp_path / "runs/one", start(), metrics(1))


def line(folder):
    return json.dumps(str(folder.path)).encode() + b"\n"


def trouble(folder):
    return folder.state().get("trouble")


def test_it_delivers_at_each_word_and_once_more_at_the_end(world, folder):
    world.news = [(101, line(folder)), (150, line(folder)), (200, None)]
    assert UploadLoop(folder).run() == 0
    assert world.met == [(0.5, "one"), (1, "one"), (50, "one"), (100, "one")]  # first what it was started for
    assert world.connected == [("one", "client of http://mlflow.test")]
    assert world.slept == []


def test_without_a_word_it_delivers_nothing_more_until_the_training_dies(world, folder):
    world.news = [(5000, None)]
    sending = UploadLoop(folder)
    assert sending.run() == 0
    assert world.met == [(0.5, "one"), (4900, "one")]
    assert sending.waiting == {}


def test_in_trouble_it_tries_again_twice_as_late_each_time_up_to_fifteen_seconds(world, folder, log):
    world.news = [(100, line(folder)), (180, None)]
    world.meets = [NO] * 8
    assert UploadLoop(folder).run() == 0
    assert [time for time, _ in world.met] == [0, 1, 3, 7, 15, 30, 45, 60, 75, 80]


def test_news_do_not_hasten_it_in_trouble_and_are_delivered_with_the_next_attempt(world, folder, log, tmp_path):
    other = run_of(tmp_path / "runs/other", start())
    world.news = [(100, line(folder)), (100.25, line(other)), (100.5, line(folder)), (110, None)]
    world.meets = [NO]
    assert UploadLoop(folder).run() == 0
    assert world.met == [(0, "one"), (1, "one"), (1, "other"), (10, "one"), (10, "other")]


def test_once_it_is_over_the_next_trouble_begins_with_a_short_pause(world, folder, log):
    world.news = [(100, line(folder)), (120, line(folder)), (130, None)]
    world.meets = [NO, NO, NO, None, NO, None]
    assert UploadLoop(folder).run() == 0
    assert [time for time, _ in world.met] == [0, 1, 3, 7, 20, 21, 30]


def test_the_last_rounds_go_on_for_eight_seconds_and_then_something_is_left(world, folder, log):
    world.news = [(100, None)]
    world.meets = [NO] * 99
    assert UploadLoop(folder).run() == 1
    assert world.slept == [1.0] * 9
    assert [time for time, _ in world.met] == list(range(10))


def test_the_first_of_the_last_pauses_is_as_short_as_trouble_begins(world, folder, log):
    world.news = [(100, None)]
    world.meets = [NO]
    sending = UploadLoop(folder)
    sending.pause_s = 0.25
    assert sending.run() == 0
    assert world.slept == [0.5]


def test_and_longer_as_long_as_events_arrive(world, folder, log):
    world.news = [(100, None)]
    gained = iter(range(1, 100))

    def deliver(one):
        world.met.append((world.now - 100, one.path.name))
        if world.now - 100 < 30:
            world.done[one.path] = next(gained)
        raise NO

    world.deliver = deliver
    assert UploadLoop(folder).run() == 1
    assert world.now - 100 == 38  # the last event arrived at 29


def test_what_needs_somebody_to_do_something_is_not_waited_for(world, folder, log):
    world.news = [(100, None)]
    world.meets = [BLOCKED] * 9
    assert UploadLoop(folder).run() == 1
    assert (len(world.met), world.slept) == (1, [])
    assert trouble(folder) == {"since": 100_000, "error": "the run is deleted", "advice": "restore it"}


def test_but_another_run_that_may_still_arrive_is(world, folder, log, tmp_path):
    other = run_of(tmp_path / "runs/other", start())
    world.news = [(100, None)]
    world.meets = [BLOCKED, NO, BLOCKED, None]
    assert UploadLoop(folder, other).run() == 1
    assert [name for _, name in world.met] == ["one", "other"] * 2
    assert trouble(other) is None


def test_of_several_runs_only_those_that_wait_are_delivered(world, folder, log, tmp_path):
    other = run_of(tmp_path / "runs/other", start())
    world.news = [(100, line(folder) + line(other)), (110, line(other)), (120, None)]
    world.meets = [NO, None, None]
    assert UploadLoop(folder).run() == 0
    assert world.met == [
        (0, "one"),
        (0, "other"),
        (1, "one"),
        (10, "other"),
        (20, "one"),
        (20, "other"),
    ]


def test_news_are_lines_wherever_the_pipe_cuts_them(world, folder, tmp_path):
    odd = run_of(tmp_path / "runs/a\nb ü", start())
    content = line(folder) + line(odd)
    sending = UploadLoop(folder)
    for cut in range(len(content)):
        sending.waiting.clear()
        sending._take(content[:cut])
        sending._take(content[cut:])
        assert list(sending.waiting) == [folder.path, odd.path]
    assert sending.folders[folder.path] is folder
    assert list(sending.folders) == [folder.path, odd.path]


def test_a_run_that_died_without_a_word_is_marked_before_the_last_delivery(world, tmp_path):
    folder = run_of(tmp_path / "runs/died", start(), metrics(1))
    world.news = [(100, None)]
    seen = []
    world.deliver = lambda one: seen.append(one.events()[-1])
    assert UploadLoop(folder).run() == 0
    assert [(event["kind"], event["status"]) for event in seen] == [("end", "FAILED")]


@pytest.mark.parametrize(("seconds", "marked"), [(0.1, True), (2.9, True), (1000, False)])
def test_a_lock_that_is_let_go_a_little_later_than_the_input_is_waited_for(
    world, monkeypatch, tmp_path, seconds, marked
):
    """As the kernel ends a killed process: one handle after the other."""
    folder = run_of(tmp_path / "runs/dying", start(), metrics(1))
    world.news = [(100, None)]
    monkeypatch.setattr(RunFolder, "is_alive", lambda one: world.now < 100 + seconds)
    assert UploadLoop(folder).run() == 0
    assert (folder.ended() is not None) is marked
    assert world.now < 104


def test_a_run_that_has_ended_is_not_waited_for(world, monkeypatch, folder):
    append(folder, "end", status="FINISHED", tags={})
    world.news = [(100, None)]
    monkeypatch.setattr(RunFolder, "is_alive", lambda one: True)
    assert UploadLoop(folder).run() == 0
    assert world.slept == []


def test_a_disk_that_takes_no_mark_ends_nothing(world, folder, monkeypatch, tmp_path):
    def full(one):
        marked.append(one.path.name)
        raise OSError(28, "No space left on device")

    marked = []
    monkeypatch.setattr(upload_loop, "mark_if_dead", full)
    other = run_of(tmp_path / "runs/other", start())
    world.news = [(100, None)]
    assert UploadLoop(folder, other).run() == 0
    assert marked == ["one", "other"]
    assert len(world.met) == 2


def test_trouble_is_told_since_when_it_stands_and_taken_back_when_it_is_over(world, folder, log):
    before = {"run_id": "kept", "delivered": 1, "tracking_uri": "http://mlflow.test"}
    folder.write_state(before)
    world.meets = [NO, ConnectionError("still"), None]
    sending = UploadLoop(folder)
    assert sending._deliver() is False
    assert trouble(folder) == {"since": 100_000, "error": "no answer from sqlite:///mlflow.db", "advice": ""}
    world.now = 105
    assert sending._deliver() is False
    assert trouble(folder)["since"] == 100_000
    assert sending._deliver() is True
    assert folder.state() == {**before, "trouble": None}
    assert sending.trouble == {}
    assert log() == ["12:34:56 no answer from sqlite:///mlflow.db"] * 2


@pytest.fixture(autouse=True)
def told_address(monkeypatch):
    """What an error says of the address."""
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "sqlite:///mlflow.db")


def test_no_secret_stands_in_the_log_or_the_state(world, folder, log, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open-sesame")
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://bob:open-sesame@mlflow.test")
    world.meets = [NO, ValueError("https://bob:pw1@host: open-sesame"), PermissionError(13, "no", "/x?token=abcdef")]
    sending = UploadLoop(folder)
    for _ in range(3):
        sending._deliver()
        assert not any(secret in json.dumps(folder.state()) for secret in ("open-sesame", "pw1", "abcdef"))
    assert log() == [
        "12:34:56 no answer from http://mlflow.test",
        "12:34:56 ValueError: https://host: ***",
        "12:34:56 no: /x?token=***",
    ]


def test_a_state_that_needs_no_taking_back_is_not_written(world, folder, monkeypatch):
    folder.write_state({"tracking_uri": "http://mlflow.test"})
    monkeypatch.setattr(RunFolder, "write_state", lambda self, state: pytest.fail("written"))
    assert UploadLoop(folder)._deliver() is True


def test_a_run_that_has_not_begun_is_not_connected_for(world, tmp_path):
    folder = run_of(tmp_path / "runs/empty")
    sending = UploadLoop(folder)
    assert sending._deliver() is True
    assert (world.connected, world.met, sending.deliveries) == ([], [], {})
    assert (folder.path / DELIVERING).exists()


def test_a_run_goes_where_it_went_before(world, folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    folder.write_state({"tracking_uri": "http://before.test"})
    UploadLoop(folder)._deliver()
    assert world.connected == [("one", "client of http://before.test")]


@pytest.mark.parametrize("here", ["http://mlflow.test", "sqlite:////here/mlflow.db", None])
@pytest.mark.parametrize(
    ("before", "goes_to"),
    [
        ("http://before.test", "http://before.test"),
        ("sqlite:////dev/null", "sqlite:////dev/null"),  # a file that is there
        ("sqlite:////gone/mlflow.db", None),
        ("", None),
    ],
)
def test_what_others_left_goes_where_it_went_whatever_the_environment_says_now(
    world, folder, monkeypatch, here, before, goes_to
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", here) if here else monkeypatch.delenv("MLFLOW_TRACKING_URI")
    folder.write_state({"tracking_uri": before} if before else {})
    UploadLoop(folder, as_before=True)._deliver()
    assert world.asked_for == [goes_to or here or tracking_uri.default_uri()]


def test_what_others_left_goes_where_it_went_with_the_password_that_the_environment_has_for_it(
    world, folder, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://bob:secret@db/mlflow")
    folder.write_state({"tracking_uri": "postgresql://db/mlflow"})
    UploadLoop(folder, as_before=True)._deliver()
    assert world.asked_for == ["postgresql://bob:secret@db/mlflow"]


@pytest.mark.parametrize("state", [{}, {"asked": True}])
def test_where_a_run_goes_is_written_down_before_anything_is_sent_and_without_a_password(
    world, folder, monkeypatch, state
):
    noted = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:secret@mlflow.test")
    monkeypatch.setattr(connection, "connect", lambda uri: noted.append((uri, folder.state())))
    folder.write_state(state)
    UploadLoop(folder)._deliver()
    assert noted == [("http://bob:secret@mlflow.test", {**state, "tracking_uri": "http://mlflow.test"})]


def test_of_a_damaged_state_it_is_not_as_the_run_would_be_taken_for_new(world, folder):
    (folder.path / "delivery.json").write_bytes(b"{")
    UploadLoop(folder)._deliver()
    assert folder.checked_state() == ({}, False)


def test_no_two_deliver_one_run_at_a_time(world, folder, log):
    first, second = UploadLoop(folder), UploadLoop(folder)
    world.meets = [NO]
    assert first._deliver() is False
    before = folder.state()
    assert second._deliver() is False
    assert second.trouble[folder.path]["error"] == "another process is delivering it"
    assert (folder.state(), len(world.met), second.locks) == (before, 1, {})
    first.locks[folder.path].release()
    assert second._deliver() is True
    assert len(world.met) == 2
    with pytest.raises(Exception, match=r"could not be acquired"):
        FileLock(folder.path / DELIVERING).acquire(timeout=0)


def test_the_lock_is_taken_once_and_kept(world, folder):
    sending = UploadLoop(folder)
    sending._deliver()
    lock = sending.locks[folder.path]
    sending.waiting[folder.path] = None
    assert sending._deliver() is True
    assert sending.locks == {folder.path: lock}
    assert lock.is_locked


def test_a_log_or_a_state_on_a_full_disk_is_no_end(world, folder, monkeypatch):
    def full(self, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_state", full)
    world.meets = [NO]
    sending = UploadLoop(folder)
    with Path("/dev/full").open("w") as nowhere:
        monkeypatch.setattr(upload_loop.sys, "stdout", nowhere)
        assert sending._deliver() is False
    assert sending._deliver() is True


def test_nothing_is_kept_of_runs_that_are_over_and_delivered(world, tmp_path):
    runs = [run_of(tmp_path / f"runs/{number}", start(), metrics(1), end()) for number in range(5)]
    world.news = [(101 + number, line(folder)) for number, folder in enumerate(runs)] + [(200, None)]
    sending = UploadLoop()
    assert sending.run() == 0
    assert [name for _, name in world.met] == ["0", "1", "2", "3", "4"]  # and none of them again at the end
    assert (sending.deliveries, sending.locks, sending.folders, sending.waiting) == ({}, {}, {}, {})
    assert sending._done() == 15
    FileLock(runs[0].path / DELIVERING).acquire(timeout=0)


def test_a_run_that_ends_while_it_is_delivered_is_delivered_to_its_end(world, folder):
    def deliver(one):
        world.met.append((world.now - 100, one.path.name))
        if len(world.met) == 1:
            append(folder, "end", status="FINISHED", tags={})

    world.deliver = deliver
    world.news = [(200, None)]
    sending = UploadLoop(folder)
    assert sending.run() == 0
    assert (len(world.met), sending.folders) == (2, {})


def test_a_run_that_goes_on_after_its_end_is_delivered_again(world, tmp_path):
    folder = run_of(tmp_path / "runs/one", start(), end("KILLED"))
    world.news = [(101, line(folder)), (120, line(folder)), (130, None)]
    assert UploadLoop().run() == 0
    assert [time for time, _ in world.met] == [1, 20]


def test_two_deliveries_are_half_a_second_apart(world, folder):
    world.news = [(100.01 + k / 100, line(folder)) for k in range(200)] + [(110, None)]
    assert UploadLoop(folder).run() == 0
    times = [time for time, _ in world.met]
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))
    assert 4 <= len(times) <= 7


def test_a_store_is_connected_to_once(world, folder, tmp_path):
    other = run_of(tmp_path / "runs/other", start())
    sending = UploadLoop(folder, other)
    sending._deliver()
    assert world.asked_for == ["http://mlflow.test"]
    known = {id(delivery.known) for delivery in sending.deliveries.values()}
    assert len(known) == 1


def test_a_killed_run_of_mlflow_run_is_remembered_for_the_end(world, tmp_path):
    folder = run_of(tmp_path / "runs/one", start(mlflow_run_id="r"), end("KILLED"))
    own = run_of(tmp_path / "runs/own", start(), end("KILLED"))
    world.news = [(101, line(folder) + line(own)), (120, None)]
    sending = UploadLoop()
    assert sending.run() == 0
    assert list(sending.killed) == [folder.path]


@pytest.fixture
def many(tmp_path):
    """The runs of an experiment."""
    return [run_of(tmp_path / f"runs/{number:02}", start(), metrics(1)) for number in range(25)]


def keeps_waiting(world, error, seconds, doubles=False):
    """A server that keeps every request waiting, and as long again the next time where the client's patience grows."""
    lasts = itertools.chain((10, 20, 40), itertools.repeat(80)) if doubles else itertools.repeat(seconds)

    def deliver(one):
        world.met.append((world.now - 100, one.path.name))
        world.now += next(lasts)
        raise error

    world.deliver = deliver


def test_of_a_server_that_says_nothing_one_run_hears_it_and_the_others_of_its_store_wait(world, many, log):
    keeps_waiting(world, Timeout(), 0, doubles=True)
    world.news = [(100, None)]
    sending = UploadLoop(*many)
    assert sending.run() == 1
    assert world.met == [(0, "00")]
    assert world.now - 100 == 10
    assert len(sending.trouble) == 25
    assert {each["error"] for each in sending.trouble.values()} == {"no answer from sqlite:///mlflow.db"}


def test_where_those_go_that_wait_without_being_tried_is_written_down_before_anybody_is_waited_for(
    world, many, log, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.test")
    noted = []

    def deliver(one):
        noted.append([folder.state().get("tracking_uri") for folder in many])
        raise Timeout

    world.deliver = deliver
    UploadLoop(*many)._deliver()
    assert noted == [["http://mlflow.test"] * 25]


def test_one_whose_store_is_another_is_tried_all_the_same(world, many, log, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for number, folder in enumerate(many[:4]):
        folder.write_state({"tracking_uri": f"http://{'ab'[number % 2]}.test"})
    keeps_waiting(world, Timeout(), 1)
    UploadLoop(*many[:4])._deliver()
    assert [name for _, name in world.met] == ["00", "01"]


def test_who_answers_late_and_not_as_mlflow_is_asked_for_one_run_as_well(world, many, log):
    keeps_waiting(world, NO, 60)
    world.news = [(100, None)]
    assert UploadLoop(*many).run() == 1
    assert world.now - 100 == 60


def test_once_the_grace_is_over_no_run_is_tried_again_and_each_was_tried_once(world, many, log):
    keeps_waiting(world, NO, 1)
    world.news = [(100, None)]
    sending = UploadLoop(*many[:20])
    sending._deliver()
    sending.folders |= {folder.path: folder for folder in many}
    assert sending.run() == 1
    names = [folder.path.name for folder in many]
    assert [name for _, name in world.met] == [*names[:20], *names[:9], *names[20:]]
    assert world.now - 100 == 20 + 9 + 5


def test_after_silence_the_runs_that_waited_are_tried_and_arrive(world, many, log):
    world.meets = [Timeout()]
    world.news = [(100, None)]
    assert UploadLoop(*many).run() == 0
    assert [name for _, name in world.met] == ["00", *(folder.path.name for folder in many)]


def test_of_a_run_that_goes_on_no_journal_is_read_whole_to_see_whether_it_has_ended(world, folder, monkeypatch):
    sending = UploadLoop(folder)
    monkeypatch.setattr(RunFolder, "ended", lambda self: None)
    sending._deliver()
    monkeypatch.setattr(RunFolder, "read", lambda self: pytest.fail("read whole"))
    monkeypatch.setattr(RunFolder, "ended", lambda self: pytest.fail("looked for its end"))
    monkeypatch.setattr(RunFolder, "started", lambda self: pytest.fail("looked for its begin"))
    world.deliver = lambda one: None
    type(sending.deliveries[folder.path]).deliver = lambda self: None
    sending.waiting[folder.path] = None
    assert sending._deliver() is True
