"""An actor of Ray's as a worker: which of Ray's errors are the worker's end, and which only an answer's."""

from types import SimpleNamespace

import pytest

from pipeline.cluster import ray_worker
from pipeline.cluster.pool import LostError
from pipeline.cluster.ray_worker import ANSWERS_LOST, GONE, RayWorker

ANSWER = [(3, {"news": {"epoch": 1}})]


class RayError(Exception):
    """The names and the family of Ray's own, which is not installed everywhere."""


ERRORS = {name: type(name, (RayError,), {}) for name in (*GONE, "ObjectLostError")}
ERRORS |= {"ActorUnavailableError": type("ActorUnavailableError", (ERRORS["RayActorError"],), {})}
ERRORS |= {"ObjectReconstructionFailedError": type("Reconstruction", (ERRORS["ObjectLostError"],), {})}


class Ray:
    """Answers each poll with the next of what is given: an answer, or an error."""

    def __init__(self, *answers):
        self.exceptions, self.answers, self.asked = SimpleNamespace(**ERRORS), list(answers), []

    def remote(self, **options):
        call = SimpleNamespace(remote=lambda *words: self.asked.append(words) or words)
        poll = SimpleNamespace(options=lambda concurrency_group, enable_task_events: call)
        actor = SimpleNamespace(poll=poll, get_ready=SimpleNamespace(remote=lambda: None))
        return lambda kind: SimpleNamespace(remote=lambda: actor)

    def get(self, asked):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(ray_worker, "AGAIN_S", 0.0)


@pytest.mark.parametrize("name", ["ActorUnavailableError", "ObjectLostError", "ObjectReconstructionFailedError"])
def test_an_answer_that_was_lost_on_its_way_is_asked_for_again(name):
    ray = Ray(ERRORS[name]("lost with its node"), ERRORS[name]("again"), ANSWER)
    assert RayWorker(ray, 1, 0).poll(2, None) == ANSWER
    assert ray.asked == [(2, None)] * 3


@pytest.mark.parametrize("name", GONE)
def test_a_worker_that_is_gone_is_lost(name):
    with pytest.raises(LostError, match="the node is gone"):
        RayWorker(Ray(ERRORS[name]("the node is gone\nand more")), 1, 0).poll(0, None)


def test_answers_that_never_arrive_end_the_worker_and_not_the_experiment():
    ray = Ray(*[ERRORS["ObjectLostError"]("fetch timed out")] * (ANSWERS_LOST + 1))
    with pytest.raises(LostError, match=f"{ANSWERS_LOST + 1} of its answers did not arrive: fetch timed out"):
        RayWorker(ray, 1, 0).poll(0, None)


def test_what_no_one_expects_is_not_taken_for_a_worker_s_death():
    with pytest.raises(ZeroDivisionError):
        RayWorker(Ray(ZeroDivisionError()), 1, 0).poll(0, None)


def test_ray_has_these_errors_in_this_family():
    errors = pytest.importorskip("ray", reason="Ray is not installed: make ray").exceptions
    assert all(issubclass(getattr(errors, name), errors.RayError) for name in GONE)
    assert issubclass(errors.ActorUnavailableError, errors.RayActorError)
    assert issubclass(errors.ObjectReconstructionFailedError, errors.ObjectLostError)
