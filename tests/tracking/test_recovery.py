"""Who died and who lives, what is lost and who still has it: no wrong status for a damaged, foreign or copied run."""

import platform
import shutil

import pytest
from filelock import FileLock

from pipeline.commands import recorded_training
from pipeline.config import RunConfig
from pipeline.recording import resuming
from pipeline.tracking import folders, lines, recovery
from pipeline.tracking.folders import all_folders, find_folder, original_of
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.uploader import DELIVERING


def begun(path, **more):
    journal = Journal(RunFolder(path))
    journal.append("start", run_key=path.name, params=RunConfig().as_dict(), tags={}, parent="", **more)
    for step in (1, 2, 3):
        journal.metrics({"train_loss": 1 / step}, step)
    return journal


def finished(path):
    journal = begun(path)
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    return RunFolder(path)


def delivered(folder, count=None):
    folder.write_state({"run_id": "abc", "delivered": len(folder.events()) if count is None else count})
    return folder


def left(runs):
    return [each.path.name for each in recovery.left_by_others(runs)]


def test_a_flipped_bit_in_a_finished_run_changes_no_status_and_is_told(tmp_path):
    folder = finished(tmp_path / "runs/run")
    folder.write_state({"run_id": "abc", "delivered": 5})
    path = folder.path / "journal.jsonl"
    before = path.read_bytes().replace(b'"step":2', b'"step":0')
    path.write_bytes(before)
    assert recovery.left_by_others(tmp_path / "runs") == []
    assert folder.ended()["status"] == "FINISHED"
    assert recovery.losses(folder) == ["record 3 (metrics of epoch 0) is damaged: MLflow has it"]
    folder.write_state({"run_id": "abc", "delivered": 2})
    assert recovery.losses(folder) == ["record 3 (metrics of epoch 0) is damaged: it is lost"]
    assert path.read_bytes() == before


def test_a_run_whose_end_may_be_what_was_lost_is_not_called_dead(tmp_path, capsys):
    folder = finished(tmp_path / "run")
    (folder.path / "vital.jsonl").unlink()  # as a folder of an older version
    path = folder.path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"kind":"end"', b'"kind":"eNd"'))
    assert not recovery.mark_if_dead(folder)
    assert "nobody can say how it ended; left as it is" in capsys.readouterr().err
    folder.write_state({"run_id": "abc", "delivered": 5})
    path.write_bytes(whole[: whole.index(b'"kind":"end"') - 10])
    assert not recovery.mark_if_dead(folder)
    assert recovery.losses(folder) == ["the last 1 record is missing; MLflow has them"]


def test_a_run_that_really_died_is_marked_once(tmp_path):
    begun(tmp_path / "run").close()
    folder = RunFolder(tmp_path / "run")
    assert recovery.mark_if_dead(folder)
    assert folder.ended()["tags"]["failure_reason"] == recovery.DIED
    assert not recovery.mark_if_dead(folder)


def test_a_lost_first_record_leaves_the_knobs_to_the_config_file(tmp_path):
    folder = finished(tmp_path / "run")
    (folder.path / "vital.jsonl").unlink()
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"start", b"stArt"))
    with pytest.raises(ValueError, match=r"the first record of run is damaged and config.yaml cannot be read"):
        resuming.recorded_config(folder)
    (folder.path / "config.yaml").write_text("epochs: 7\n")
    assert resuming.recorded_config(folder) == RunConfig(epochs=7)
    text = resuming.config_text(RunConfig(epochs=7))
    (folder.path / "config.yaml").write_text(text)
    assert resuming.recorded_config(folder) == RunConfig(epochs=7)
    (folder.path / "config.yaml").write_text(text.replace("epochs: 7", "epochs: 5"))
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        resuming.recorded_config(folder)


def test_a_copy_is_neither_marked_dead_nor_resumed_nor_last(tmp_path):
    journal = begun(tmp_path / "original")
    original, copy = RunFolder(tmp_path / "original"), RunFolder(tmp_path / "renamed copy")
    shutil.copytree(original.path, copy.path)
    journal.close()
    assert original_of(copy).path == original.path
    assert not recovery.mark_if_dead(copy)
    assert find_folder(tmp_path, "last").path == original.path
    with pytest.raises(ValueError, match=r"sync 'renamed copy' --as-new --runs_dir"):
        resuming.resumed_config(copy, {})


def test_a_copy_elsewhere_of_a_run_that_lives_is_not_marked_dead(tmp_path):
    journal = begun(tmp_path / "runs/run")
    shutil.copytree(tmp_path / "runs/run", tmp_path / "backup/run")
    copy = RunFolder(tmp_path / "backup/run")
    assert not recovery.mark_if_dead(copy)
    journal.close()
    assert recovery.mark_if_dead(copy)


def test_a_run_that_another_process_has_finished_meanwhile_is_not_resumed(tmp_path, monkeypatch):
    journal = begun(tmp_path / "run")
    journal.append("end", status="KILLED", tags={})
    real = recorded_training.open_journal

    def after_another(folder):
        journal.append("end", status="FINISHED", tags={})
        journal.close()
        return real(folder)

    monkeypatch.setattr(recorded_training, "open_journal", after_another)
    monkeypatch.setattr(RunFolder, "is_alive", lambda self: False)
    with pytest.raises(ValueError, match="run run is finished; there is nothing to resume"):
        recorded_training.resume("run", {}, str(tmp_path))


@pytest.mark.parametrize("name", ["with space", 'it\'s "quoted"', "Übung", "line\nbreak", "*[a]?"])
def test_runs_lie_in_a_folder_of_any_name(tmp_path, name):
    runs = tmp_path / name
    folder = finished(runs / "run")
    assert [each.path for each in all_folders(runs)] == [folder.path]
    assert find_folder(runs, "last").path == folder.path


@pytest.mark.parametrize(("host", "dies"), [("this", True), ("another", False), (None, True)])
def test_only_a_run_of_this_machine_is_called_dead_by_it(tmp_path, monkeypatch, host, dies):
    monkeypatch.setattr(platform, "node", lambda: "this")
    journal = Journal(RunFolder(tmp_path / "run"))
    journal.append("start", run_key="k", params={}, tags={"host": host} if host else {}, parent="")
    before = journal.count
    journal.close()
    assert recovery.mark_if_dead(journal.folder) is dies
    assert [event["kind"] for event in journal.folder.events()[before:]] == ["end"] * dies
    assert left(tmp_path) == ["run"] * dies


def test_a_run_whose_lock_is_held_is_not_called_dead_and_is_as_soon_as_it_is_free(tmp_path):
    journal = begun(tmp_path / "run")
    assert not recovery.mark_if_dead(journal.folder)
    assert not recovery.close_as_dead(journal.folder)
    assert journal.folder.ended() is None
    journal.close()
    assert [each.path for each in recovery.left_by_others(tmp_path)] == [tmp_path / "run"]
    end = journal.folder.events()[-1]
    words = "the process died without a word (kill -9, out of memory, power loss)"
    assert (end["kind"], end["status"], end["tags"]) == ("end", "FAILED", {"failure_reason": words})
    assert not journal.folder.is_alive()


def test_a_run_that_came_to_life_just_now_is_left_alone(tmp_path, monkeypatch):
    journal = begun(tmp_path / "run")
    monkeypatch.setattr(RunFolder, "is_alive", lambda self: False)
    assert not recovery.mark_if_dead(journal.folder)
    assert journal.folder.ended() is None


@pytest.mark.parametrize("moved", [True, False])
def test_a_folder_that_was_moved_is_marked_where_it_lies_now(tmp_path, moved):
    begun(tmp_path / "a" / "run").close()
    if moved:
        shutil.move(tmp_path / "a" / "run", tmp_path / "b")
    assert recovery.mark_if_dead(RunFolder(tmp_path / "b" if moved else tmp_path / "a" / "run"))


def test_a_run_that_never_began_is_removed_and_not_marked(tmp_path):
    Journal(RunFolder(tmp_path / "never")).close()
    assert not recovery.mark_if_dead(RunFolder(tmp_path / "never"))
    delivered(finished(tmp_path / "finished"))
    assert left(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


def test_an_ended_run_is_closed_as_it_ended(tmp_path):
    folder = finished(tmp_path / "run")
    assert recovery.close_as_dead(folder)
    assert folder.events()[-1]["status"] == "FINISHED"
    assert len(folder.events()) == 5


def test_where_it_cannot_be_written_that_is_told_and_nothing_is_marked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_told", set())
    begun(tmp_path / "run").close()

    def read_only(folder):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(recovery, "Journal", read_only)
    for _ in range(2):
        assert not recovery.mark_if_dead(RunFolder(tmp_path / "run"))
    told = "run: died without a word, but cannot be marked so here (Read-only file system)\n"
    assert capsys.readouterr() == ("", told)


def test_what_cannot_be_known_of_an_end_is_told_in_these_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_told", set())
    begun(tmp_path / "run").close()
    RunFolder(tmp_path / "run").write_state({"run_id": "abc", "delivered": 9})
    assert not recovery.mark_if_dead(RunFolder(tmp_path / "run"))
    told = "run: its last records are lost, so that nobody can say how it ended; left as it is\n"
    assert capsys.readouterr() == ("", told)


def lose(folder, *numbers):
    """Damage records, from 0."""
    path = folder.path / "journal.jsonl"
    found = path.read_bytes().splitlines(keepends=True)
    for number in numbers:
        found[number] = found[number].replace(b'"time"', b'"tIme"')
    path.write_bytes(b"".join(found))


def test_of_what_is_lost_ten_are_told_and_the_rest_counted(tmp_path):
    journal = begun(tmp_path / "run")
    for step in range(4, 15):
        journal.metrics({"train_loss": 1.0}, step)
    journal.close()
    lose(journal.folder, *range(2, 12))
    assert recovery.losses(journal.folder) == [
        f"record {number} (metrics of epoch {number - 1}) is damaged: it is lost" for number in range(3, 13)
    ]
    lose(journal.folder, 12, 13)
    assert recovery.losses(journal.folder)[9:] == [
        "record 12 (metrics of epoch 11) is damaged: it is lost",
        "and 2 more",
    ]


def test_what_is_lost_is_told_with_who_still_has_it(tmp_path):
    folder = finished(tmp_path / "run")
    assert recovery.losses(folder) == []
    folder.write_state({"run_id": "abc", "delivered": 5})
    assert recovery.losses(folder) == []
    (folder.path / "delivery.json").write_text("{")
    state = "delivery.json is damaged: what MLflow has already is found there again"
    assert recovery.losses(folder) == [state]
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'metrics"', b'mEtrics"', 1).replace(b'"step":1', b'"sTep":1', 1))
    assert recovery.losses(folder) == ["record 2 is damaged: it is lost", state]
    path.unlink()
    (folder.path / "vital.jsonl").unlink()
    nothing = "no record can be read in journal.jsonl; what MLflow has of the run stays as it is"
    assert recovery.losses(folder) == [nothing, state]
    folder.write_state({"run_id": "abc", "delivered": 5})
    assert recovery.losses(folder) == [nothing]


def test_a_run_of_an_older_version_that_does_not_say_where_it_began_is_marked_too(tmp_path):
    folder = RunFolder(tmp_path / "run")
    Journal(folder).close()
    event = {"kind": "start", "time": 5, "run_key": "k", "tags": {}, "params": {}}
    (folder.path / "journal.jsonl").write_bytes(lines.line_of(event))
    assert recovery.mark_if_dead(folder)
    assert [event["kind"] for event in folder.events()] == ["start", "end"]


def test_of_a_run_whose_begin_is_lost_nobody_says_that_it_died(tmp_path):
    journal = begun(tmp_path / "run")
    journal.close()
    (tmp_path / "run" / "vital.jsonl").unlink()
    lose(journal.folder, 0)
    assert journal.folder.started() is None
    assert not recovery.mark_if_dead(journal.folder)
    assert len(journal.folder.events()) == 4


def test_of_a_run_that_lives_nothing_is_said_and_nobody_tries_to_take_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_told", set())
    journal = begun(tmp_path / "run")
    journal.folder.write_state({"run_id": "abc", "delivered": 9})
    monkeypatch.setattr(recovery, "Journal", lambda folder: pytest.fail("tried to take it"))
    assert not recovery.mark_if_dead(journal.folder)
    assert capsys.readouterr() == ("", "")


def test_what_others_left_is_marked_told_with_how_it_goes_on_and_delivered(tmp_path, monkeypatch, capsys):
    delivered = []
    monkeypatch.setattr(recovery, "deliver_in_background", lambda folders, cwd: delivered.append((list(folders), cwd)))
    monkeypatch.setattr(folders, "_told", set())
    runs = tmp_path / "runs"
    for name, tags in (
        ("a", {"mlflow.source.name": "pipeline"}),
        ("b", {"mlflow.source.name": "pipeline", "experiment": "dropout"}),
        ("c", {"mlflow.source.name": "/home/me/flowers.py"}),
        ("waits", {}),
        ("needs a person", {}),
        ("is delivered", {}),
    ):
        journal = Journal(RunFolder(runs / name))
        journal.append("start", run_key=name, tags=tags, params={})
        if name in ("waits", "needs a person", "is delivered"):
            journal.append("end", status="FINISHED", tags={})
            advice = "restore it" if name == "needs a person" else ""
            trouble = None if name == "is delivered" else {"since": 1, "error": "no answer", "advice": advice}
            count = 2 if name == "is delivered" else 0
            journal.folder.write_state({"run_id": name, "trouble": trouble, "delivered": count})
        journal.close()
    recovery.deliver_what_others_left(runs, tmp_path)
    assert [([each.path.name for each in found], cwd) for found, cwd in delivered] == [
        (["a", "b", "c", "waits"], tmp_path)
    ]
    told = "had died without a word and is now marked FAILED; go on with it: "
    assert capsys.readouterr().err.splitlines() == [
        f"run a {told}python -m pipeline train --resume a",
        f"run b of experiment dropout {told}python -m pipeline experiment FILE",
        f"run c {told}RunLogger(..., resume='c')",
    ]


@pytest.mark.parametrize("count", [0, 1, 4, None])
def test_a_run_that_is_over_waits_until_all_of_it_is_delivered_also_where_nobody_noted_trouble(tmp_path, count):
    folder = finished(tmp_path / "run")
    assert left(tmp_path) == ["run"]  # its uploader died before it wrote anything down
    delivered(folder, count)
    assert left(tmp_path) == ([] if count is None else ["run"])
    journal = Journal(folder)
    journal.append("tags", tags={"logged": "after its end"})
    journal.close()
    assert left(tmp_path) == ["run"]
    delivered(folder)
    assert left(tmp_path) == []


@pytest.mark.parametrize("final", [True, False])
def test_files_that_are_refused_for_now_wait_though_the_rest_is_delivered_and_for_good_they_do_not(tmp_path, final):
    folder = delivered(finished(tmp_path / "run"))
    file = {"event": 1, "words": "artifact: no", "final": final, "names": []}
    folder.write_state({**folder.state(), "refused": [file], "trouble": None})
    assert left(tmp_path) == ([] if final else ["run"])


def test_a_run_that_lives_or_is_being_delivered_does_not_wait(tmp_path):
    folder = finished(tmp_path / "run")
    with FileLock(folder.path / DELIVERING):
        assert left(tmp_path) == []
    assert left(tmp_path) == ["run"]
    journal = Journal(folder)
    assert left(tmp_path) == []
    journal.close()
    (folder.path / "lock").unlink()  # as in a folder that was copied from another machine
    assert left(tmp_path) == ["run"]


def test_what_needs_a_person_first_does_not_wait_however_little_of_it_is_delivered(tmp_path):
    folder = finished(tmp_path / "run")
    folder.write_state({"trouble": {"since": 1, "error": "it is deleted", "advice": "restore it"}})
    assert left(tmp_path) == []


def test_a_copy_of_a_run_does_not_wait_beside_it(tmp_path):
    folder = finished(tmp_path / "run")
    shutil.copytree(folder.path, tmp_path / "copy of it")
    assert left(tmp_path) == ["run"]
    delivered(folder)
    assert left(tmp_path) == []


def test_that_all_is_delivered_is_seen_at_the_journals_end_however_long_it_is(tmp_path, monkeypatch):
    for name in ("a", "b"):
        delivered(finished(tmp_path / name))
    delivered(RunFolder(tmp_path / "b"), 4)
    monkeypatch.setattr(RunFolder, "read", lambda self: pytest.fail("read whole"))
    assert left(tmp_path) == ["b"]


def test_where_the_last_line_is_damaged_the_records_are_counted(tmp_path):
    folder = delivered(finished(tmp_path / "run"))
    lose(folder, 4)
    assert left(tmp_path) == []
    delivered(folder, 4)
    assert left(tmp_path) == ["run"]
