"""A journal read on while it grows gives what reading all of it gives, and reads each line once."""

import pytest

from pipeline.delivery.follower import Follower
from pipeline.tracking import lines
from pipeline.tracking.journal import JOURNAL, Journal, RunFolder


@pytest.fixture
def journal(tmp_path):
    journal = Journal(RunFolder(tmp_path / "run"))
    journal.append("start", run_key="key", params={}, tags={})
    return journal


@pytest.fixture
def parsed(monkeypatch):
    """The lines that were parsed."""
    found = []
    parse = lines.parse
    monkeypatch.setattr(lines, "parse", lambda line: found.append(line) or parse(line))
    return found


def test_only_what_is_new_is_read(journal, parsed):
    follower = Follower(journal.folder)
    for step in range(20):
        journal.metrics({"loss": 1.0}, step)
        assert [event.get("step") for event in follower.events()] == [None, *range(step + 1)]
    before = follower.events()
    assert follower.events() == journal.folder.events() == before
    metrics = [line for line in parsed if b"metrics" in line]
    assert len(metrics) < 2 * 20 + 20  # `Journal` and `folder.events` above read them as well


def test_what_was_given_before_does_not_change(journal):
    follower = Follower(journal.folder)
    before = follower.events()
    journal.metrics({"loss": 1.0}, 1)
    assert (len(before), len(follower.events())) == (1, 2)


def test_a_line_that_is_not_whole_yet_waits(journal):
    follower = Follower(journal.folder)
    assert len(follower.events()) == 1
    line = lines.line_of({"kind": "tags", "time": 1, "tags": {}, "n": 1})
    path = journal.folder.path / JOURNAL
    with path.open("ab") as file:
        file.write(line[:10])
    assert len(follower.events()) == 1
    with path.open("ab") as file:
        file.write(line[10:])
    assert [event["kind"] for event in follower.events()] == ["start", "tags"]


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_damaged_leaves_its_placeholder_as_in_a_reading_of_all(journal, number):
    follower = Follower(journal.folder)
    follower.events()
    for step in range(3):
        journal.metrics({"loss": 1.0}, step)
    path = journal.folder.path / JOURNAL
    content = path.read_bytes().splitlines(keepends=True)
    content[number] = content[number].replace(b"loss", b"lost")
    path.write_bytes(b"".join(content))
    assert [event["kind"] for event in follower.events()].count("lost") == 1
    journal.metrics({"loss": 1.0}, 7)
    assert follower.events() == journal.folder.events()


def test_a_journal_that_was_cut_is_read_anew(journal):
    follower = Follower(journal.folder)
    journal.metrics({"loss": 1.0}, 1)
    assert len(follower.events()) == 2
    path = journal.folder.path / JOURNAL
    path.write_bytes(path.read_bytes()[:-30])
    assert [event["kind"] for event in follower.events()] == ["start"]


def test_the_end_is_the_last_one_that_was_read_unless_the_run_goes_on(journal, parsed):
    follower = Follower(journal.folder)
    assert follower.end is None
    for kind, is_over in (
        ("tags", False),
        ("end", True),
        ("tags", True),
        ("resume", False),
        ("tags", False),
        ("end", True),
    ):
        event = journal.append(kind, tags={}, status="FINISHED")
        before = follower.end
        follower.events()
        assert follower.end == (event if kind == "end" else before if is_over else None)
        assert follower.end == journal.folder.ended()


def test_the_end_of_a_damaged_journal_is_that_of_a_reading_of_all(journal):
    journal.append("end", tags={}, status="FINISHED")
    path = journal.folder.path / JOURNAL
    path.write_bytes(path.read_bytes().replace(b'"run_key"', b'"rUn_key"'))
    follower = Follower(journal.folder)
    follower.events()
    assert follower.end == journal.folder.ended()
    journal.append("resume", tags={})
    follower.events()
    assert follower.end is None
