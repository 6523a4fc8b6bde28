"""Connections that only wait: real sockets against uvicorn with our protocol, its times short."""

import contextlib
import functools
import json
import socket
import threading
import time

import pytest
import uvicorn

from pipeline.serving.connections import CROWDED, Connection, Limits, Room
from tests.faults import wait_until

SHORT = Limits(headers_within=0.3, idle=0.3, taken_within=0.3)
HALF = b"GET /ping HTTP/1.1\r\nHost: x\r\nX-"
WHOLE = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    body = b"crowded" if CROWDED in scope["state"] else b"well"
    size = int(scope["query_string"] or len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    await send({"type": "http.response.body", "body": body.ljust(size)})


@pytest.fixture
def serving():
    """start(limits) -> (port, reasons for which connections were ended)."""
    servers = []

    def start(limits):
        reasons = []
        room = Room(limits, reasons.append)
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        protocol = functools.partial(Connection, room=room)
        config = uvicorn.Config(app, http=protocol, lifespan="off", timeout_keep_alive=limits.idle, log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        servers.append((server, thread))
        return listening.getsockname()[1], reasons

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()


def connect(port, said=b"", source="127.0.0.1"):
    connection = socket.create_connection(("127.0.0.1", port), timeout=300, source_address=(source, 0))
    connection.sendall(said)
    return connection


def everything(connection):
    """What comes until the server closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_half_a_header_is_refused_in_time_however_it_dribbles(serving):
    port, reasons = serving(SHORT)
    connection = connect(port, HALF)
    dribbling = connect(port, HALF)
    for _ in range(3):
        time.sleep(0.05)
        with contextlib.suppress(OSError):  # it is refused already, where this process was kept from going on
            dribbling.sendall(b"a")
    for each in (connection, dribbling):
        head, body = everything(each).split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert "did not come within 0.3 s" in json.loads(body)["message"]
    assert reasons == ["slow headers"] * 2


def test_idle_connections_are_closed_before_and_after_an_answer(serving):
    port, reasons = serving(SHORT)
    assert everything(connect(port)) == b""
    assert everything(connect(port, b"\r\n")) == b""
    assert everything(connect(port, WHOLE)).endswith(b"well")
    assert reasons == ["idle"] * 3


def test_headers_after_an_answer_must_come_in_time_too(serving):
    port, reasons = serving(SHORT)
    assert b"408" in everything(connect(port, WHOLE + HALF))
    assert reasons == ["slow headers"]


def test_endless_headers_and_what_is_no_http_are_refused_in_words(serving):
    port, _ = serving(Limits(header_bytes=1000))
    assert b"431" in everything(connect(port, HALF + b"a" * 2000)).splitlines()[0]
    assert b"without TLS" in everything(connect(port, b"\x16\x03\x01" + bytes(50)))


def test_a_client_that_does_not_read_is_let_go(serving):
    port, reasons = serving(SHORT)
    connection = connect(port, WHOLE.replace(b"/ping", b"/ping?50000000"))
    wait_until(lambda: reasons)
    assert reasons == ["not read"]
    connection.close()


def test_who_only_waits_makes_room_and_no_address_takes_all(serving):
    port, reasons = serving(Limits(most=200, per_address=150, spare=10, headers_within=300.0, idle=300.0))
    other = connect(port, WHOLE, source="127.0.0.2")
    assert other.recv(1000).endswith(b"well")
    held = [connect(port, HALF) for _ in range(400)]
    asked = connect(port, WHOLE)
    assert asked.recv(1000).endswith(b"well")
    other.sendall(WHOLE)
    assert other.recv(1000).endswith(b"well")
    assert set(reasons) == {"made room"}
    assert len(reasons) == 400 + 1 - 150
    for each in (*held, asked, other):
        each.close()
