"""Where `--on` leads, and which clusters are not spoken to."""

import socket

import pytest

from pipeline.cluster.address import DEFAULTS, Place, check_answers, check_safe, flags_of, is_loopback, place_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("local", Place("local")),
        ("ray", Place("ray")),
        ("ray:http://head:8265", Place("job", "http://head:8265")),
        ("ray:https://10.0.0.5/", Place("job", "https://10.0.0.5")),
        ("ray:head:6379", Place("node", "head:6379")),
    ],
)
def test_each_form_names_its_place(text, place):
    assert place_of(text) == place


def test_what_is_asked_of_ray_other_than_by_default_is_handed_on_as_flags():
    assert flags_of(DEFAULTS) == {}
    asked = {"cpus": 2.0, "gpus": 0.25, "checkpoint_every": 60.0, "insecure": True}
    assert flags_of(asked) == {"cpus": "2", "gpus": "0.25", "checkpoint_every": "60", "insecure": True}
    assert asked.keys() == DEFAULTS.keys()


@pytest.mark.parametrize("text", ["", "slurm", "ray:", "ray:head", "ray:http://", "ray:http://u:p@head:1", "rays"])
def test_what_is_no_place_is_refused_with_the_forms(text):
    with pytest.raises(ValueError, match=r"is no place to train on; give local, ray, ray:HOST:PORT"):
        place_of(text)


def test_ray_client_is_refused_with_the_job_in_its_place():
    with pytest.raises(ValueError, match=r"ray://head:10001 is Ray Client.*--on ray:http://HEAD:8265"):
        place_of("ray://head:10001")


@pytest.mark.parametrize("address", ["http://10.0.0.5:8265", "head:6379", "http://[fe80::1]:8265", "192.0.2.2:6379"])
def test_a_cluster_that_others_reach_is_refused_without_a_token_and_not_otherwise(address):
    place = Place("job", address)
    with pytest.raises(ValueError, match=r"token authentication is off.*export RAY_AUTH_MODE=token.*--insecure"):
        check_safe(place, False, {})
    with pytest.raises(ValueError, match="is off"):
        check_safe(place, False, {"RAY_AUTH_MODE": "disabled"})
    check_safe(place, False, {"RAY_AUTH_MODE": "token"})
    check_safe(place, True, {})


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "localhost:6379", "http://[::1]:8265", ""])
def test_one_that_only_this_machine_reaches_is_not(address):
    check_safe(Place("job", address), False, {})


def test_a_name_that_merely_begins_like_loopback_is_not_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "localhost", "127.0.0.1.evil.example")] == [
        *[True] * 3,
        False,
    ]


def test_nobody_at_the_address_is_said_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # held, so that nobody else comes to listen there
        with pytest.raises(ValueError, match=rf"^no Ray answers at 127.0.0.1:{port} \(Connection refused\); start"):
            check_answers(Place("node", f"127.0.0.1:{port}"))
    with pytest.raises(ValueError, match=r"no Ray answers at http://127.0.0.1:99999"):
        check_answers(Place("job", "http://127.0.0.1:99999"))


def test_somebody_at_the_address_is_enough():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_answers(Place("job", f"http://127.0.0.1:{server.getsockname()[1]}"))
