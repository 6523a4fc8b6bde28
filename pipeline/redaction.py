"""What may be told of an address or a message: no user, password or token. The one place that decides it."""

import os
import re

# A variable of such a name holds what no file, log line or screen may show.
SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
SHORTEST_SECRET = 5  # a shorter value would blank out innocent words
HIDDEN = "***"

# Up to the last @ where a password follows the user: it may have a / ? # or @ that should have been escaped. What a
# server's address has of a whole port and a path is no password. A quote is part of it where words go on behind it.
_QUOTE = r"['\"](?![\s,;:)\]}>]|$)"
_PORT = r"(?:(?<=http://)|(?<=https://))[^\s/?#'\"@:\[]*:\d+/"
_PASSWORD = rf"(?:[^\s/?#'\"@:\[]|{_QUOTE})*:(?:(?!://)[^\s'\"]|{_QUOTE})*"
_USERINFO = re.compile(rf"(?<=://)(?!{_PORT})(?:{_PASSWORD}|(?:[^\s/?#'\"]|{_QUOTE})*)@")
# In an address by itself: a server's whole, since no other @ is taken there; a database's as SQLAlchemy reads it.
_ITS_USERINFO = re.compile(r"\A(https?://)[^/].*@|\A([\w+]+://)[^:/]*(?::[^@]*)?@", re.DOTALL)
_QUERY = re.compile(r"([?&;](?=[\w.-]*(?:password|passwd|secret|token|credential|sig|key))[\w.-]+=)[^&;\s#'\"]+", re.I)


def without_secrets(text: str) -> str:
    """The text with no userinfo in any address, no secret in a query, and no value of a secret environment variable.

    `http://bob:pw@host/x` becomes `http://host/x`, `postgresql://h/db?password=pw` ends in `password=***`.
    """
    text = _QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub("", text))
    for value in secrets():
        text = text.replace(value, HIDDEN)
    return text


def address_without_secrets(address: str) -> str:
    """The same for an address by itself, also one that lacks its scheme: `bob:pw@host:5000` becomes `host:5000`."""
    if "://" in address:
        return without_secrets(_ITS_USERINFO.sub(r"\1\2", address))
    return without_secrets(f"http://{address}").removeprefix("http://")


def secrets() -> list[str]:
    """The values of the environment's secret variables, longest first."""
    values = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET}
    return sorted(values, key=lambda value: (-len(value), value))
