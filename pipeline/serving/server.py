"""The subcommand serve: uvicorn around the service."""

import asyncio
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from typing import cast

import uvicorn

from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.registry.versions import NotServableError, UnknownModelError
from pipeline.serving.alias_watcher import AliasWatcher
from pipeline.serving.app import make_app
from pipeline.serving.connections import Connection, Limits, Room
from pipeline.serving.hosts import Hosts, is_number
from pipeline.serving.metrics import Telemetry, log_as_json

TOKEN = "PIPELINE_TOKEN"
OWN_FILES = 128  # besides connections: the registry, a model that is being fetched, libraries
FINISH_WITHIN_S = 10
GIVE_WAY_S = 0.0005  # a request waits so long for the thread that looks at the alias; Python's own 5 ms are its p99
log = logging.getLogger("pipeline.serving")


def serve(
    *, model: str, alias: str, host: str, port: int, poll_s: float, log_level: str, allowed_hosts: Sequence[str] = ()
) -> None:
    """Serve the version that has the alias until SIGTERM or Ctrl-C.

    Raises:
        ValueError: if there is no such model, alias or store, it does not open, or the port is taken.
        UnreachableError: if a database does not answer; a tracking server is waited for.
    """
    hosts = Hosts([*allowed_hosts, *([host] if host and not is_number(host) else [])])
    log_as_json(log_level)
    with asking():
        client = connect(looking_for="models")
    listening = _listen(host, port)
    telemetry = Telemetry()
    watcher = AliasWatcher(client, model, alias, poll_s, telemetry)
    try:
        watcher.look()
        watcher.note(None)
    except (UnknownModelError, NotServableError):
        listening.close()
        raise
    except Exception as error:  # the registry does not answer: begin all the same, not ready until it does
        watcher.note(error)
    app = make_app(watcher, telemetry, os.environ.get(TOKEN, ""), hosts)
    room = Room(Limits().scaled_to(_files_for(Limits().files)), lambda reason: telemetry.ends.labels(reason).inc())
    telemetry.connections.set_function(lambda: room.total)
    _tell(host, listening.getsockname()[1], watcher)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FINISH_WITHIN_S,
        http=cast("type[asyncio.Protocol]", functools.partial(Connection, room=room)),
        ws="none",
        lifespan="off",
        timeout_keep_alive=room.limits.idle,  # type: ignore[arg-type]
    )
    gc.freeze()
    sys.setswitchinterval(GIVE_WAY_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # uvicorn raises it again when all is answered
    watcher.start()
    uvicorn.Server(config).run(sockets=[listening])
    watcher.stop()
    telemetry.access.flush()


def _files_for(connections: int) -> int:
    """How many files may be open for connections, with the limit raised to what they need where it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    needed = connections + OWN_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(0, soft - OWN_FILES)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port that is taken is told before anything is loaded."""
    is_six = ":" in host
    family = socket.AF_INET6 if is_six else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=is_six)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise ValueError(f"cannot listen at {_shown(host)}:{port} ({reason}); give another with --port") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tell(host: str, port: int, watcher: AliasWatcher) -> None:
    loaded = watcher.current
    what = f"{watcher.name} version {loaded.version}" if loaded else f"nothing yet ({watcher.trouble})"
    print(
        f"serving {what} at http://{_shown(host)}:{port} - ask it there in a browser, or POST /invocations, /predict",
        flush=True,
    )
    if host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get(TOKEN):
        print(f"warning: open to the network without a token; set {TOKEN} to ask clients for one", flush=True)
