"""Params, metrics and tags as MLflow takes them: two names never become one, no text is too long."""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from pipeline.mlflow_client.naming import MAX_TAG
from pipeline.tracking.lines import as_text

LONGEST = 250
_NOT_TAKEN = re.compile(r"[^/\w.\- :]")
_LIKE_AN_ESCAPE = re.compile(r"_(?=x[0-9a-f]+(?:_|[^/\w.\- :]))")
_NOTHING = "_x00_"  # between two slashes; a NUL is `_x0_`


def key_of(name: str) -> str:
    """The name, where MLflow takes it; else each character that it does not take as `_xHEX_`, as Excel writes it.

    `loss@2` becomes `loss_x40_2`, and a name that holds `_x40_` already `_x5f_x40_`. Too long a name ends in a hash.
    """
    key = _NOT_TAKEN.sub(_escaped, _LIKE_AN_ESCAPE.sub("_x5f_", name))
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":  # it would be another name's path
        key = "/".join(part if part.strip(".") else part.replace(".", "_x2e_") or _NOTHING for part in key.split("/"))
        key = f"_x2e_{key[1:]}" if key.startswith("..") else key
    if len(key) > LONGEST:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        key = f"{key[: LONGEST - 18]}_x{digest}"
    return key


def with_key(item: Any) -> Any:
    """The param, metric or tag under a name that MLflow takes."""
    key = key_of(item.key)
    return item if key == item.key else type(item)(**{**dict(item), "key": key})


def texts_of(tags: Mapping[str, Any]) -> dict[str, str]:
    """The tags as texts that MLflow takes whole."""
    return {name: as_text(value)[:MAX_TAG] for name, value in tags.items()}


def _escaped(found: re.Match[str]) -> str:
    return f"_x{ord(found[0]):x}_"
