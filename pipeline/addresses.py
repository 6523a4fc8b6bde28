"""Addresses and messages as they may be told: without user, password or token. The one place that decides it."""

import os
import re

# A variable of such a name holds what no file, log line or screen may show.
SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
SHORTEST_SECRET = 5  # a shorter value would blank out innocent words
HIDDEN = "***"

_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"]*@")
_QUERY = re.compile(r"([?&;](?:[\w.-]*(?:password|passwd|secret|token|credential|sig|key)[\w.-]*)=)[^&;\s#'\"]+", re.I)


def without_secrets(text: str) -> str:
    """The text with no userinfo in any address, no secret in a query, and no value of a secret environment variable.

    `http://bob:pw@host/x` becomes `http://host/x`, `postgresql://h/db?password=pw` ends in `password=***`.
    """
    text = _QUERY.sub(rf"\1{HIDDEN}", _USERINFO.sub(r"\1", text))
    for value in secrets():
        text = text.replace(value, HIDDEN)
    return text


def secrets() -> list[str]:
    """The values of the environment's secret variables, longest first."""
    values = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET}
    return sorted(values, key=lambda value: (-len(value), value))
