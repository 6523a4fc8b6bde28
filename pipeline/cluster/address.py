"""Where an experiment trains, as `--on` says it, and whether that is safe to speak to. Standard library only."""

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

LOCAL = "local"
FORMS = "local, ray, ray:HOST:PORT of a cluster that this machine is a node of, ray:http://HEAD:8265 for a job there"
# What a run asks of Ray, and how Ray is asked: a flag each, handed on to a job and to who goes on.
DEFAULTS: dict[str, float | bool] = {"cpus": 1.0, "gpus": 0.0, "checkpoint_every": 0.0, "insecure": False}
TURN_ON = "export RAY_AUTH_MODE=token, here and where Ray is started"


@dataclass(frozen=True)
class Place:
    """Where to train.

    Attributes:
        kind: `local`; `ray`, one that is started or found here; `node` of a cluster; `job` of one.
        address: of the cluster; empty: whichever is here.
    """

    kind: str
    address: str = ""

    @property
    def parts(self) -> SplitResult:
        """The address, taken apart."""
        return urlsplit(self.address if "//" in self.address else f"//{self.address}")

    @property
    def host(self) -> str:
        """The host that the address names."""
        return self.parts.hostname or ""


def place_of(text: str) -> Place:
    """What `--on` says.

    Raises:
        ValueError: if it is none of the forms.
    """
    kind, _, address = text.partition(":")
    if text in (LOCAL, "ray"):
        return Place(text)
    if kind == "ray" and re.fullmatch(r"https?://[^\s/?#@]+/?", address):
        return Place("job", address.rstrip("/"))
    if kind == "ray" and re.fullmatch(r"[^\s/?#@]+:\d{1,5}", address):
        return Place("node", address)
    if address.startswith("//") and kind == "ray":
        raise ValueError(f"{text} is Ray Client, which Ray advises against; submit a job: --on ray:http://HEAD:8265")
    raise ValueError(f"{text!r} is no place to train on; give {FORMS}")


def flags_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked of Ray other than by default, as flags: name -> value, True for a flag without one."""
    differing = {name: asked[name] for name, default in DEFAULTS.items() if asked[name] != default}
    return {name: value if value is True else f"{value:g}" for name, value in differing.items()}


def check_safe(place: Place, insecure: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Refuse a cluster that others can reach and that asks nobody for a token: its ports run code for whoever comes.

    Raises:
        ValueError: with the line that turns Ray's token authentication on.
    """
    if insecure or environ.get("RAY_AUTH_MODE", "").lower() == "token" or not place.host or is_loopback(place.host):
        return
    raise ValueError(
        f"{place.address} is not on this machine and Ray's token authentication is off: whoever reaches its ports runs "
        f"code there; turn it on ({TURN_ON}), or take the risk with --insecure"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host's ports."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_answers(place: Place, patience_s: float = 5.0) -> None:
    """Make sure that somebody listens: Ray itself would try for half a minute.

    Raises:
        ValueError: if nobody does.
    """
    try:
        port = place.parts.port or (443 if place.parts.scheme == "https" else 80)
        socket.create_connection((place.host, port), patience_s).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"no Ray answers at {place.address} ({reason}); start one there (ray start --head), or give another --on"
        ) from None
