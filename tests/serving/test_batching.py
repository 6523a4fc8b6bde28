"""Every client gets the answer to its own images, whoever else asks, leaves or fails at the same moment."""

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.batching import Batcher


class Model:
    """Answers an image with its own first ten pixels, shifted, and remembers what it was shown."""

    def __init__(self, shift=0):
        self.shown, self.shift = [], shift

    def predict(self, images):
        self.shown.append(images)
        if (images < 0).any():
            raise RuntimeError("no such image")
        return images[:, 0, :10] + self.shift


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
    """What clients of one moment get; each is a version and images for it."""

    async def ask():
        return await ended([asyncio.ensure_future(batcher.predict(*each)) for each in requests])

    return asyncio.run(ask())


clients = st.tuples(
    st.integers(0, 1),  # the version
    st.integers(0, 4),  # images
    st.integers(0, 3),  # turns of the event loop before it asks
    st.none() | st.integers(0, 3),  # turns after which it leaves
)


@given(st.lists(clients, min_size=1, max_size=8))
def test_each_client_gets_the_answer_to_its_own_images_by_its_own_version_however_they_interleave(drawn):
    batcher, models = Batcher(), [Model(), Model(shift=1000)]

    async def client(number, version, count, before, patience):
        for _ in range(before):
            await asyncio.sleep(0)
        asking = asyncio.ensure_future(batcher.predict(models[version], images_of(number, count)))
        if patience is not None:
            for _ in range(patience):
                await asyncio.sleep(0)
            asking.cancel()
        return await asking

    async def all_of_them():
        return await ended([asyncio.ensure_future(client(k, *each)) for k, each in enumerate(drawn)])

    for number, (found, drawn_one) in enumerate(zip(asyncio.run(all_of_them()), drawn, strict=True)):
        version, count, _, patience = drawn_one
        if isinstance(found, asyncio.CancelledError):
            assert patience is not None
        else:
            assert np.array_equal(found, images_of(number, count)[:, 0, :10] + 1000 * version)
    assert batcher._waiting == {}


def test_all_images_of_one_moment_are_predicted_in_one_pass_and_those_of_the_next_in_another():
    batcher, model = Batcher(), Model()
    answers(batcher, (model, images_of(1, 2)), (model, images_of(2)), (model, images_of(3, 3)))
    answers(batcher, (model, images_of(4)))
    assert [len(shown) for shown in model.shown] == [6, 1]


def test_one_request_alone_is_not_copied():
    model = Model()
    answers(Batcher(), (model, alone := images_of(1, 2)))
    assert model.shown[0] is alone


def test_for_clients_that_have_left_nothing_is_computed_and_the_others_get_theirs():
    batcher, model = Batcher(), Model()

    async def ask(leaving):
        asked = [asyncio.ensure_future(batcher.predict(model, images_of(number))) for number in range(3)]
        await asyncio.sleep(0)
        for number in leaving:
            asked[number].cancel()
        return await ended(asked)

    first, left, third = asyncio.run(ask([1]))
    assert isinstance(left, asyncio.CancelledError)
    assert np.array_equal(first, images_of(0)[:, 0, :10])
    assert np.array_equal(third, images_of(2)[:, 0, :10])
    assert [len(shown) for shown in model.shown] == [2]
    asyncio.run(ask([0, 1, 2]))
    assert len(model.shown) == 1


def test_a_model_that_raises_tells_those_whose_images_it_does_not_take_and_no_others():
    batcher, model, other = Batcher(), Model(), Model()
    requests = [(model, images_of(1)), (model, -images_of(2)), (other, images_of(5)), (model, images_of(3))]
    first, failed, others, third = answers(batcher, *requests)
    assert str(failed) == "no such image"
    for number, found in {1: first, 5: others, 3: third}.items():
        assert np.array_equal(found, images_of(number)[:, 0, :10])
    (found,) = answers(batcher, (model, images_of(4)))
    assert np.array_equal(found, images_of(4)[:, 0, :10])


def test_of_one_moment_only_what_is_for_the_same_version_is_one_batch_whatever_its_shape():
    batcher, old, new = Batcher(), Model(), Model(shift=1000)
    large = np.full((2, 64, 64, 3), 5, np.float32)
    found = answers(batcher, (old, images_of(1)), (new, large), (old, images_of(2)), (new, large[:1]))
    assert [[len(shown) for shown in model.shown] for model in (old, new)] == [[2], [3]]
    assert np.array_equal(found[2], images_of(2)[:, 0, :10])
    assert (found[1].shape[0], found[3].shape[0]) == (2, 1)
    assert (found[1] == 1005).all()
