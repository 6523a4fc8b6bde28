"""Room for connections: who only waits makes room, who has a request under way never, and no address takes all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.connections import Limits, Room

FEW = Limits(most=6, per_address=4, spare=2)


class Visitor:
    """What a room sees of a connection."""

    def __init__(self, address="a"):
        self.address, self.inside, self.crowded, self.ends = address, False, False, []

    def end(self, reason):
        assert not self.inside, "it was to be forgotten first"
        self.ends.append(reason)


class Rooms(Room):
    """A room and who came, in their order; `ended` gets what the room itself says."""

    def __init__(self, limits=FEW):
        self.said, self.came = [], []
        super().__init__(limits, self.said.append)

    def come(self, address="a", works=False):
        """The visitor, and whether there was room."""
        new = Visitor(address)
        entered = self.enter(new)
        assert entered == new.inside
        if entered and works:
            self.works(new)
        self.came.append(new)
        return new

    def works(self, visitor):
        """A request of it is under way."""
        self.waiting.pop(visitor, None)

    def waits(self, visitor):
        """Its request is answered."""
        self.waiting[visitor] = None


def test_the_limits_are_those_that_are_documented():
    assert Limits() == Limits(1000, 900, 50, 10.0, 30.0, 20.0, 0.3, 64 * 1024)
    assert Limits().files == 1050


@pytest.mark.parametrize("files", [1050, 1051, 10**6])
def test_limits_that_fit_stay_as_they_are(files):
    assert Limits().scaled_to(files) == Limits()


SCALED = {1049: (944, 849, 104), 100: (90, 81, 10), 20: (18, 16, 2), 10: (9, 8, 2), 8: (8, 7, 2), 0: (8, 7, 2)}


@pytest.mark.parametrize("files", SCALED)
def test_limits_shrink_to_the_files_that_may_be_open(files):
    most, per_address, spare = SCALED[files]
    assert Limits().scaled_to(files) == Limits(most, per_address, spare)


def test_times_and_sizes_do_not_shrink():
    limits = Limits(1000, 900, 50, 1.0, 2.0, 3.0, 4.0, 5).scaled_to(100)
    assert limits == Limits(90, 81, 10, 1.0, 2.0, 3.0, 4.0, 5)


def test_an_address_takes_its_share_and_beyond_it_its_longest_waiting_makes_room():
    room = Rooms()
    other, *mine = [room.come("b"), *(room.come("a") for _ in range(6))]
    assert [visitor.ends for visitor in mine] == [["made room"], ["made room"], [], [], [], []]
    assert (other.ends, room.total, room.said) == ([], 5, [])
    assert not any(visitor.crowded for visitor in room.came)


def test_beyond_all_places_the_longest_waiting_of_the_largest_address_makes_room():
    room = Rooms()
    few, *many = [room.come("b"), *(room.come("a") for _ in range(3)), room.come("b"), room.come("c")]
    room.come("c")
    assert [many[0].ends, many[1].ends, few.ends] == [["made room"], [], []]
    assert room.total == 6
    assert not any(visitor.crowded for visitor in room.came)


def test_who_waits_anew_waits_less_long_than_those_who_have_waited_on():
    room = Rooms()
    first, second, *_ = [room.come() for _ in range(4)]
    room.works(first)
    room.waits(first)
    room.come()
    assert (first.ends, second.ends) == ([], ["made room"])


def test_who_has_a_request_under_way_is_not_ended_and_the_newcomer_is_crowded():
    room = Rooms()
    busy = [room.come(works=True) for _ in range(4)]
    assert [visitor.crowded for visitor in busy] == [False] * 4
    assert room.come(works=True).crowded
    assert not room.come("b").crowded
    assert not any(visitor.ends for visitor in room.came)
    assert room.total == 6


def test_when_only_smaller_addresses_wait_they_make_room():
    room = Rooms()
    for _ in range(4):
        room.come("a", works=True)
    first, second = room.come("b"), room.come("c")
    third = room.come("d")
    assert [visitor.ends for visitor in (first, second, third)] == [["made room"], [], []]
    assert not third.crowded


def test_a_full_address_is_crowded_though_others_wait():
    room = Rooms()
    waiting = room.come("b")
    for _ in range(4):
        room.come("a", works=True)
    assert room.come("a").crowded
    assert waiting.ends == []


def test_beyond_the_spare_places_a_newcomer_is_turned_away_unless_somebody_waits():
    room = Rooms()
    busy = [room.come(address, works=True) for address in "aaabbbcc"]
    assert [visitor.crowded for visitor in busy] == [False] * 6 + [True] * 2
    assert (room.total, room.said) == (8, [])
    assert not room.come("d").inside
    assert (room.total, room.said) == (8, ["turned away"])
    room.waits(busy[0])
    assert room.come("d").inside
    assert (busy[0].ends, room.total, room.said) == (["made room"], 8, ["turned away"])


def test_one_address_beyond_its_share_is_turned_away_though_others_wait():
    room = Rooms()
    for _ in range(5):
        room.come("a", works=True)
    other, *_ = [room.come("b", works=True) for _ in range(3)]
    room.waits(other)
    assert not room.come("a").inside
    assert (room.total, room.said, other.ends) == (8, ["turned away"], [])


def test_who_has_left_leaves_nothing_behind_and_leaves_once():
    room = Rooms()
    for address in "aab":
        room.come(address)
    for visitor in room.came:
        for _ in range(2):
            room.leave(visitor)
    assert (room.total, room.held, room.waiting) == (0, {}, {})
    assert not any(visitor.inside for visitor in room.came)
    room.leave(Visitor("x"))
    assert room.total == 0


@given(st.lists(st.tuples(st.sampled_from(["come", "works", "waits", "leaves"]), st.integers(0, 30)), max_size=60))
def test_whoever_comes_and_goes_all_are_counted_and_nobody_at_work_is_ended(events):
    room, at_work = Rooms(), set()
    for event, number in events:
        inside = [visitor for visitor in room.came if visitor.inside]
        if event == "come":
            room.come("abc"[number % 3])
        elif inside:
            visitor = inside[number % len(inside)]
            if event == "works":
                room.works(visitor)
                at_work.add(visitor)
            elif event == "waits":
                room.waits(visitor)
                at_work.discard(visitor)
            else:
                room.leave(visitor)
                at_work.discard(visitor)
        inside = [visitor for visitor in room.came if visitor.inside]
        assert room.total == len(inside) <= FEW.files
        assert room.held == {key: n for key in "abc" if (n := sum(visitor.address == key for visitor in inside))}
        assert set(room.waiting) == set(inside) - at_work
        assert not any(visitor.ends for visitor in at_work)
        assert all(visitor.ends in ([], ["made room"]) for visitor in room.came)
        well = [visitor for visitor in inside if not visitor.crowded]
        assert len(well) <= FEW.most
        assert all(sum(visitor.address == key for visitor in well) <= FEW.per_address for key in "abc")
