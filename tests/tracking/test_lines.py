"""The journal's format: what is written comes back, a cut leaves a prefix, a damaged byte costs its own event alone."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking import lines

TEXTS = st.text(max_size=6) | st.sampled_from(["\ud800", "\udfff\ud800x", "a\nb", "\x00", "Übung", "𝄞", "00000000 {"])
VALUES = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.just(-(10**400)) | st.floats() | TEXTS
NESTED = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(TEXTS, VALUES, max_size=2)
CONTENTS = st.lists(st.dictionaries(TEXTS, NESTED, max_size=3), min_size=1, max_size=4)


def numbered(*contents):
    """Events as a journal numbers them."""
    times = enumerate(contents)
    return [{"kind": "tags", "time": 1000 + 7 * n, "values": content, "n": n} for n, content in times]


def written(events):
    return b"".join(map(lines.line_of, events))


def events_of(*kinds):
    return [{"kind": kind, "time": 1000 + 7 * n, "n": n} for n, kind in enumerate(kinds)]


def lost(n, time, was="", about=""):
    return {"kind": "lost", "time": time, "n": n, "was": was, "about": about}


def test_a_line_is_the_checksum_in_eight_digits_and_compact_json():
    assert lines.line_of({"kind": "a", "time": 1}) == b'e05662d8 {"kind":"a","time":1}\n'
    padded = next(line for time in range(1000) if (line := lines.line_of({"kind": "a", "time": time}))[:1] == b"0")
    assert lines.parse(padded[:-1])["kind"] == "a"


@settings(max_examples=30)
@given(CONTENTS)
def test_any_value_comes_back_as_it_was_written(contents):
    events = numbered(*contents)
    content = written(events)
    assert content.count(b"\n") == len(events)
    assert repr(lines.read(content)) == repr((events, len(content)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 1.7976931348623157e308])
def test_floats_that_json_has_no_word_for_come_back(value):
    (event,) = lines.read(written(numbered({"loss": value})))[0]
    assert repr(event["values"]["loss"]) == repr(value)


@settings(max_examples=30)
@given(CONTENTS, st.data())
def test_any_cut_of_a_journal_leaves_the_events_before_it(contents, data):
    events = numbered(*contents)
    content = written(events)
    ends = [len(written(events[:k])) for k in range(len(events) + 1)]
    cut = data.draw(st.integers(0, len(content)))
    whole = max(k for k, end in enumerate(ends) if end <= cut + 1)  # one that lacks only its line break is whole
    found, stands = lines.read(content[:cut])
    assert repr(found) == repr(events[:whole])
    assert stands == min(cut, ends[whole])


@settings(max_examples=30)
@given(CONTENTS, st.data())
def test_any_damaged_byte_costs_its_own_event_and_moves_no_other(contents, data):
    events = numbered(*contents)
    content = bytearray(written(events))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    mine = bytes(content[:at]).count(b"\n")  # the line breaks before it are all undamaged
    assert_costs_one(bytes(content), events, mine)


@pytest.mark.parametrize("byte", [0x00, 0x0A, 0x0B, 0x20, 0x22, 0x30, 0x7B, 0x7D, 0xC3, 0xFF])
def test_no_byte_at_no_place_costs_more_than_its_own_event(byte):
    events = numbered({"tags": {"a": "1"}}, {"step": 2}, {"step": 3}, {"tags": {}})
    whole = written(events)
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([byte]) + whole[at + 1 :]
        if damaged != whole:
            assert_costs_one(damaged, events, whole[:at].count(b"\n"))


def assert_costs_one(content, events, mine):
    found, _ = lines.read(content)
    assert len(found) in (len(events), mine)  # the last line may be taken for one that was torn
    assert len(found) == len(events) or mine == len(events) - 1
    if content.count(b"\n") < len(events):  # a damaged line break costs nothing
        assert repr(found) == repr(events)
    for event, before in zip(found, events, strict=False):
        assert repr(event) == repr(before) or (event["kind"], event["n"]) == ("lost", mine)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'"start"',
        b"3",
        b"{",
        b'{"kind":"a"}',
        b'{"time":1}',
        b'{"kind":3,"time":1}',
        b'{"kind":"a","time":"1"}',
        b'{"kind":"a","time":true}',
        b'{"kind":"a","time":null}',
        b"[" * 100_000,
        b'{"kind":"a","time":' + b"1" * 5000 + b"}",
        b'{"kind":"\xff","time":1}',
    ],
)
def test_a_line_with_the_right_checksum_is_an_event_only_if_it_has_a_kind_and_a_time(text):
    assert lines.parse(b"%08x %s" % (zlib.crc32(text), text)) is None
    text = b'{"kind":"a","time":1.5}'
    assert lines.parse(b"%08x %s" % (zlib.crc32(text), text)) == {"kind": "a", "time": 1.5}


def test_a_line_with_another_checksum_is_none():
    line = lines.line_of({"kind": "a", "time": 1})[:-1]
    assert lines.parse(line) == {"kind": "a", "time": 1}
    for damaged in (b"", b" ", line[1:], line.upper(), line + b" ", line[:8] + line[9:], line.replace(b"1", b"2", 1)):
        assert lines.parse(damaged) is None


def damaged_line(event, change=lambda line: line.replace(b'"time"', b'"tIme"')):
    return change(lines.line_of(event))


@pytest.mark.parametrize(
    ("content", "change", "was", "about"),
    [
        ({"kind": "metrics", "step": 12}, (b'"time"', b'"tIme"'), "metrics", "metrics of epoch 12"),
        ({"kind": "metrics", "step": 12}, (b"metrics", b"mEtrics"), "", "of epoch 12"),
        ({"kind": "model"}, (b'"time"', b'"tIme"'), "model", "model"),
        ({"kind": "model"}, (b"model", b"m\xf6del"), "", ""),
    ],
)
def test_of_a_damaged_line_stands_what_can_still_be_read(content, change, was, about):
    first, last = {"kind": "start", "time": 5, "n": 0}, {"kind": "end", "time": 9, "n": 2}
    middle = lines.line_of({**content, "time": 7, "n": 1}).replace(*change)
    read, stands = lines.read(written([first]) + middle + written([last]))
    assert read == [first, lost(1, 5, was, about), last]
    assert stands == len(written([first, last])) + len(middle)
    assert lines.read(written([first]) + middle)[0] == [first, lost(1, 5, was, about)]
    renumbered = [{**last, "n": 1}]
    assert lines.read(middle.replace(b'"n":1', b'"n":0') + written(renumbered))[0] == [
        lost(0, 0, was, about),
        *renumbered,
    ]


def test_missing_lines_leave_placeholders_with_the_time_of_what_stands_before():
    events = events_of("start", "metrics", "tags", "end")
    assert lines.read(written(events[3:]))[0] == [lost(0, 0), lost(1, 0), lost(2, 0), events[3]]
    assert lines.read(written([events[0], events[3]]))[0] == [events[0], lost(1, 1000), lost(2, 1000), events[3]]


def test_damaged_lines_stand_at_the_number_that_can_be_read_of_them_and_else_in_their_order():
    events = events_of("start", "metrics", "tags", "model", "dataset", "end")
    head, tail = written(events[:1]), written(events[5:])
    unnumbered = damaged_line(events[1], lambda line: line.replace(b'"n":1', b'"m":1'))
    content = head + damaged_line(events[3]) + unnumbered + tail
    assert lines.read(content)[0] == [
        events[0],
        lost(1, 1000, "metrics", "metrics"),
        lost(2, 1000),
        lost(3, 1000, "model", "model"),
        lost(4, 1000),
        events[5],
    ]
    # Of one whose number cannot be its own nothing is told at the wrong place.
    wrong = damaged_line(events[1], lambda line: line.replace(b'"n":1', b'"n":9'))
    assert lines.read(head + wrong + written([{**events[5], "n": 2}]))[0][1] == lost(1, 1000)


def test_what_was_damaged_before_a_whole_line_is_not_told_of_a_later_gap():
    start, second, end = {"kind": "start", "time": 1, "n": 0}, {"kind": "tags", "time": 2, "n": 2}, {"kind": "end"}
    end |= {"time": 3, "n": 4}
    content = written([start]) + damaged_line({"kind": "model", "time": 1, "n": 1}) + written([second, end])
    assert lines.read(content)[0] == [start, lost(1, 1, "model", "model"), second, lost(3, 2), end]


def test_damaged_lines_at_the_end_each_leave_a_placeholder_but_a_line_torn_in_two_leaves_one():
    events = events_of("start", "model", "tags")
    damaged = damaged_line(events[1]) + damaged_line(events[2])
    found = lines.read(written(events[:1]) + damaged)[0]
    assert found == [events[0], lost(1, 1000, "model", "model"), lost(2, 1000, "tags", "tags")]
    torn = lines.line_of(events[1])
    for at in (3, 8, 15, len(torn) - 3):
        found = lines.read(written(events[:1]) + torn[:at] + b"\n" + torn[at:])[0]
        assert [(event["kind"], event["n"]) for event in found] == [("start", 0), ("lost", 1)]


def test_a_number_that_stands_already_is_not_taken_twice_and_what_was_lost_is_put_back():
    events = events_of("start", "tags", "end")
    again = [{**events[1], "time": 1}]
    assert lines.read(written(events + again))[0] == events
    assert lines.read(written([events[0], events[2], events[1]]))[0] == events


@pytest.mark.parametrize("number", [None, True, False, -1, "1", 1.0])
def test_an_event_without_a_number_comes_after_those_before_it_also_after_damaged_ones(number):
    first, last = {"kind": "start", "time": 1, "n": 0}, {"kind": "end", "time": 3, "n": number}
    middle = damaged_line({"kind": "tags", "time": 2})
    assert lines.read(written([first, last]))[0] == [first, last]
    assert lines.read(written([first]) + middle + written([last]))[0] == [first, lost(1, 1, "tags", "tags"), last]
    assert lines.read(written([first]) + middle * 2 + written([last]))[0][3] == last


def test_what_stands_elsewhere_fills_the_gaps_and_goes_on_behind_the_end_and_overwrites_nothing():
    events = events_of("start", "tags", "end", "resume")
    elsewhere = [{**events[0], "time": 5}, events[2], events[3]]
    assert lines.read(written(events[:2]), elsewhere)[0] == events
    assert lines.read(written(events[1:2]), [events[0]])[0] == events[:2]
    assert lines.read(b"", [events[2]])[0] == [lost(0, 0), lost(1, 0), events[2]]
    assert lines.read(b"", [events[0]]) == (events[:1], 0)


def test_only_whole_events_are_taken_from_the_second_file():
    events = events_of("start", "tags", "end")
    assert lines.whole(written(events)) == events
    assert lines.whole(written(events[:1]) + damaged_line(events[1]) + written(events[2:])) == [events[0], events[2]]
    assert lines.whole(b"") == []
    assert lines.whole(written(events)[:-9]) == events[:2]


def test_what_was_written_down_as_lost_stays_so_and_in_its_place():
    start, end = {"kind": "start", "time": 1, "n": 0}, {"kind": "end", "time": 3, "n": 3}
    gone = [lost(1, 1, "model", "model"), lost(2, 1)]
    assert lines.read(written([start, *gone]))[0] == [start, *gone]
    assert lines.read(written([start, *gone, end]))[0] == [start, *gone, end]


def test_lines_that_have_run_together_are_all_read_and_a_torn_last_one_is_not():
    events = events_of("start", "metrics", "tags", "end")
    joined = b"".join(lines.line_of(event)[:-1] for event in events)
    assert lines.read(joined + b"\n") == (events, len(joined) + 1)
    last = len(lines.line_of(events[3])) - 1
    assert lines.read(joined[:-4]) == (events[:3], len(joined) - last)
    two = b"".join(lines.line_of(event)[:-1] for event in events[:2])
    assert lines.read(two[:-4]) == (events[:1], len(lines.line_of(events[0])) - 1)
    spaced = b"\x0b".join(lines.line_of(event)[:-1] for event in events) + b"\n"
    assert lines.read(spaced) == (events, len(spaced))


@pytest.mark.parametrize(("tail", "stands"), [(b"", 0), (b"\n", 1), (b"\x0b", 0)])
def test_a_last_line_that_lacks_its_line_break_stands_and_what_took_its_place_does_not(tail, stands):
    events = events_of("start", "end")
    bare = written(events)[:-1]
    assert lines.read(bare + tail) == (events, len(bare) + stands)
    assert lines.read(bare[: len(written(events[:1])) - 1] + tail) == (
        events[:1],
        len(written(events[:1])) - 1 + stands,
    )


def test_a_journal_that_holds_nothing_whole_has_no_events():
    assert lines.read(b"") == ([], 0)
    assert lines.read(b"torn") == ([], 0)
    assert lines.read(b"\n\n") == ([], 2)
    assert lines.read(b"noise\n") == ([lost(0, 0)], 6)


def test_a_text_that_ends_like_the_begin_of_a_line_splits_none_that_is_damaged_or_torn():
    start, tags = events_of("start", "tags")
    line = lines.line_of({**tags, "tags": {"note": "stopped at deadbeef {", "why": "?"}})
    assert lines.read(written([start]) + line[:-4]) == ([start], len(written([start])))
    damaged = line.replace(b"?", b"!")
    assert lines.read(written([start]) + damaged)[0] == [start, lost(1, 1000, "tags", "tags")]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("caf\udce9", "caf\ufffd"),
        ("\ud83dx\udca9", "\ufffdx\ufffd"),
        ("\U0001f4a9 Übung", "\U0001f4a9 Übung"),
        (3, "3"),
        (None, "None"),
    ],
)
def test_a_text_holds_nothing_that_no_protocol_takes(value, found):
    assert lines.as_text(value) == found
    lines.as_text(value).encode()


def test_what_is_refused_for_now_waits_as_well_and_what_is_refused_for_good_does_not():
    final, names = {"event": 1, "final": True}, [{"event": 2, "final": False, "names": [name]} for name in "ab"]
    assert lines.waiting({}, 5) == 5
    assert lines.waiting({"delivered": 4, "refused": ["of an older version", final]}, 5) == 1
    assert lines.waiting({"delivered": 4, "refused": [final, *names]}, 5) == 2


def logged(step, **values):
    return {"kind": "metrics", "step": step, "values": values}


def test_a_fit_that_was_cut_off_before_its_first_validation_has_no_values_of_the_one_before():
    first = [logged(0, loss=1.0, epoch=0.0), logged(1, loss=0.9, epoch=0.0), logged(1, val_loss=0.8, epoch=0.0)]
    assert lines.steps_of(first) == {"loss": {0: 1, 1: 1}, "epoch": {0: 1, 1: 2}, "val_loss": {1: 1}}
    assert lines.steps_of([*first, logged(0, loss=0.7, epoch=0.0)]) == {"loss": {0: 1}, "epoch": {0: 1}}


def test_what_a_script_counts_by_itself_and_the_epoch_at_a_validations_steps_begin_no_fit():
    training = [logged(5, loss=1.0, epoch=0.0), logged(1, batch=1.0), logged(0, batch=2.0)]
    validation = [logged(2, val_loss_step=1.0, epoch=0.0), logged(6, loss=0.9, epoch=1.0)]
    assert lines.steps_of([*training, *validation]) == {
        "loss": {5: 1, 6: 1},
        "epoch": {5: 1, 2: 1, 6: 1},
        "batch": {0: 1},
        "val_loss_step": {2: 1},
    }
