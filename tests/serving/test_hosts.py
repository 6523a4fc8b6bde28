"""Names that a foreign site can take over are refused, whatever the spelling; all others are let in."""

import socket

import pytest

from pipeline.serving.hosts import Hosts

SAFE = ["", "localhost", "localhost:5000", "LOCALHOST", "digits", "digits:80", "digits.localhost", "localhost."]
SAFE += ["127.0.0.1", "127.0.0.1:5000", "10.0.0.7", "[::1]", "[::1]:80", "[fe80::1]:5000", "0.0.0.0"]
FOREIGN = [
    "evil.example",
    "evil.example:80",
    "EVIL.example",
    "evil.example.",
    "127.0.0.1.evil.example",
    "1.2.3",
    "1.2.3.4.5",
]
FOREIGN += ["localhost.evil.example", "evil.example:localhost", "localhost@evil.example", "256.0.0.1"]
FOREIGN += ["evillocalhost.x", "[::1", "[::g]", "[localhost.x]"]


def allows(names, header):
    return Hosts(names).allows(header if isinstance(header, bytes) else header.encode())


@pytest.mark.parametrize("header", SAFE)
def test_numbers_and_names_that_nobody_can_take_over_are_allowed(header):
    assert allows([], header) is True


@pytest.mark.parametrize("header", FOREIGN)
def test_a_name_with_a_dot_is_not(header):
    assert allows([], header) is False
    assert allows(["digits.example.com", "*.x.org"], header) is False


@pytest.mark.parametrize("header", ["b\xfccher.example", "\x80", "d\xe9"])
def test_what_is_not_ascii_is_no_host(header):
    assert allows([], header.encode("latin-1")) is False
    assert allows(["*"], header.encode("latin-1")) is False


def test_this_machines_own_name_is_allowed(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Box.Lab.Example")
    assert allows([], "box.lab.example:5000") is True
    assert allows([], "other.lab.example") is False


def test_names_are_allowed_in_any_spelling_and_no_others():
    names = ["Digits.Example.com", "second.example", "X.ORG"]
    for header in ("digits.example.com", "DIGITS.example.COM:443", "digits.example.com.", "second.example", "x.org"):
        assert allows(names, header) is True
    for header in ("a.digits.example.com", "xdigits.example.com", "example.com", "digits.example.com.evil.example"):
        assert allows(names, header) is False


def test_a_star_allows_all_names_below_but_not_the_name_itself_nor_one_that_ends_alike():
    for header in ("a.x.org", "a.b.x.org:80", "A.X.ORG"):
        assert allows(["*.x.org"], header) is True
    for header in ("x.org", "ax.org", "evilx.org", "a.x.org.evil.example", "x.org.evil.example"):
        assert allows(["*.x.org"], header) is False
    assert allows(["first.example", "*.x.org", "*.Y.org"], "a.y.org") is True


def test_a_plain_name_allows_nothing_below_it():
    assert allows(["xx.org"], "a.xx.org") is False  # its first two letters are no `*.`
    assert allows(["x.org"], "a.x.org") is False


def test_a_star_alone_allows_all():
    assert allows(["*"], "evil.example") is True
    assert allows(["a.example", "*"], "evil.example:80") is True


@pytest.mark.parametrize(
    "name", ["", "*.", "a/b", "http://x.org", "x.org:80", "me@x.org", "a b", "**", "*.*.org", "a*"]
)
def test_what_is_no_name_is_told(name):
    with pytest.raises(ValueError, match="is no host name") as told:
        Hosts(["good.example", name])
    assert str(told.value) == f"{name!r} is no host name; give names as digits.example.com, *.example.com or *"


def test_a_header_is_looked_at_once_and_not_every_one_is_remembered():
    hosts = Hosts()
    for number in range(300):
        hosts.allows(b"h%d" % number)
    hosts.allows(b"h299")
    assert hosts.allows.cache_info()[:1] + hosts.allows.cache_info()[2:] == (1, 256, 256)
