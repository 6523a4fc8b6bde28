"""Whom a request may take the service for.

A page of a foreign site can let its own name point at this machine (DNS rebinding) and then read what is served here;
the browser still sends that name as the Host. Such a name has a dot; numbers, `localhost` and names of the local
network without a dot cannot be taken over like that.
"""

import ipaddress
import socket
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

ANY = "*"


class Hosts:
    """The names by which the service may be called."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """Allow the names besides numbers, names without a dot and this machine's; `*` allows all, `*.x.org` many.

        Raises:
            ValueError: for what is no name.
        """
        for name in names:
            plain = name.removeprefix("*.")
            if name != ANY and (not plain or set(plain) & set("*/:@ ")):
                raise ValueError(f"{name!r} is no host name; give names as digits.example.com, *.example.com or *")
        self.names = {name.lower() for name in names} | {socket.gethostname().lower()}
        self.allows = lru_cache(maxsize=256)(self._allows)

    def _allows(self, header: bytes) -> bool:
        """Whether a Host header is one of them; a browser always sends one, so that none is taken as well."""
        try:
            name = (urlsplit(f"//{header.decode('ascii')}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if ANY in self.names or name in self.names or "." not in name or name.endswith(".localhost"):
            return True
        return is_number(name) or any(pattern[:2] == "*." and name.endswith(pattern[1:]) for pattern in self.names)


def is_number(name: str) -> bool:
    """Whether it is an address, of IPv4 or IPv6, and no name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
