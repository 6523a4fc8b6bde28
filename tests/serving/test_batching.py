"""Every client gets the answer to its own images, whoever else asks, leaves or fails at the same moment."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.batching import Batcher
from pipeline.serving.refusals import RefusalError


class Model:
    """Answers an image with its own first ten pixels, and remembers what it was shown."""

    def __init__(self):
        self.shown = []

    def predict(self, images):
        self.shown.append(images)
        if any(image[0, 0] < 0 for image in images):
            raise RuntimeError("no such image")
        return images[:, 0, :10].copy()


def served_by(model, trouble=None):
    return Batcher(SimpleNamespace(current=model, trouble=trouble))


def images_of(client, count=1):
    """Images that no other client sends."""
    images = np.zeros((count, 28, 28), np.float32)
    images[:, 0, :10] = 100 * client + np.arange(count)[:, None] + np.arange(10) / 16
    return images


async def ended(tasks):
    """What became of each, an answer or the exception, a few turns of the event loop later: nobody waits for ever."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert all(task.done() for task in tasks)
    return await asyncio.gather(*tasks, return_exceptions=True)


def answers(batcher, *requests):
    """What clients of one moment get."""

    async def ask():
        return await ended([asyncio.ensure_future(batcher.predict(images)) for images in requests])

    return asyncio.run(ask())


clients = st.tuples(
    st.integers(0, 4),  # images
    st.integers(0, 3),  # turns of the event loop before it asks
    st.none() | st.integers(0, 3),  # turns after which it leaves
)


@given(st.lists(clients, min_size=1, max_size=8))
def test_each_client_gets_the_answer_to_its_own_images_however_they_interleave(drawn):
    batcher = served_by(model := Model())

    async def client(number, count, before, patience):
        for _ in range(before):
            await asyncio.sleep(0)
        asking = asyncio.ensure_future(batcher.predict(images_of(number, count)))
        if patience is not None:
            for _ in range(patience):
                await asyncio.sleep(0)
            asking.cancel()
        return await asking

    async def all_of_them():
        return await ended([asyncio.ensure_future(client(k, *each)) for k, each in enumerate(drawn)])

    for number, (found, (count, _, patience)) in enumerate(zip(asyncio.run(all_of_them()), drawn, strict=True)):
        if isinstance(found, asyncio.CancelledError):
            assert patience is not None
        else:
            assert found[0] is model
            assert np.array_equal(found[1], images_of(number, count)[:, 0, :10])
    assert batcher._waiting == []


def test_all_images_of_one_moment_are_predicted_in_one_pass_and_those_of_the_next_in_another():
    batcher = served_by(model := Model())
    answers(batcher, images_of(1, 2), images_of(2), images_of(3, 3))
    answers(batcher, images_of(4))
    assert [len(shown) for shown in model.shown] == [6, 1]


def test_one_request_alone_is_not_copied():
    batcher = served_by(model := Model())
    answers(batcher, alone := images_of(1, 2))
    assert model.shown[0] is alone


def test_for_clients_that_have_left_nothing_is_computed_and_the_others_get_theirs():
    batcher = served_by(model := Model())

    async def ask(leaving):
        asked = [asyncio.ensure_future(batcher.predict(images_of(number))) for number in range(3)]
        await asyncio.sleep(0)
        for number in leaving:
            asked[number].cancel()
        return await ended(asked)

    first, left, third = asyncio.run(ask([1]))
    assert isinstance(left, asyncio.CancelledError)
    assert np.array_equal(first[1], images_of(0)[:, 0, :10])
    assert np.array_equal(third[1], images_of(2)[:, 0, :10])
    assert [len(shown) for shown in model.shown] == [2]
    asyncio.run(ask([0, 1, 2]))
    assert len(model.shown) == 1


def test_a_model_that_raises_tells_all_of_its_batch_and_the_next_batch_is_answered():
    batcher = served_by(Model())
    failed = answers(batcher, images_of(1), -images_of(2), images_of(3))
    assert [str(error) for error in failed] == ["no such image"] * 3
    ((_, found),) = answers(batcher, images_of(4))
    assert np.array_equal(found, images_of(4)[:, 0, :10])


def test_a_batch_is_answered_by_the_version_that_serves_when_it_begins():
    batcher = served_by(old := Model())
    before = answers(batcher, images_of(1), images_of(2))
    batcher.follower.current = new = Model()
    after = answers(batcher, images_of(1), images_of(2))
    assert [loaded for loaded, _ in before + after] == [old, old, new, new]


def test_an_alias_that_moves_while_a_batch_is_predicted_changes_neither_its_answer_nor_the_name_on_it():
    """The follower exchanges versions in a thread of its own, so in the middle of a forward pass as well."""

    class Moving(Model):
        def predict(self, images):
            batcher.follower.current = new
            return super().predict(images)

    batcher, new = served_by(old := Moving()), Model()
    before = answers(batcher, images_of(1), images_of(2))
    after = answers(batcher, images_of(1))
    assert [loaded for loaded, _ in before + after] == [old, old, new]
    assert [len(model.shown) for model in (old, new)] == [1, 1]


@pytest.mark.parametrize(
    ("trouble", "reason"), [(None, "it is being loaded"), ("registry is away", "registry is away")]
)
def test_before_a_version_serves_all_are_refused_with_the_reason(trouble, reason):
    refusals = answers(served_by(None, trouble), images_of(1), images_of(2))
    for refusal in refusals:
        assert isinstance(refusal, RefusalError)
        assert (refusal.status, refusal.code) == (503, "TEMPORARILY_UNAVAILABLE")
        assert refusal.message == f"no model serves yet ({reason}); ask /ready, try again later"
