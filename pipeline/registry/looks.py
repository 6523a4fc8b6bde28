"""How often the images that decide have been looked at: each look is a tag of the registered model.

A registry has no counter that two can raise at once: a tag is overwritten without a word, whatever it held. So each
look has a tag of its own, `promotion.look.IMAGES.MODELS`, which is written before the comparison is shown; then all of
them are read again and counted. Of several at once, on whatever machines, the last to write sees the others', so that
at most k looks are taken for one of the first k, and the levels add up to what they are meant to. One that is killed in
between stays counted. The name says which two models were compared, so that the same two are one look, however often
they are compared, and keep its number.
"""

import hashlib
import re

import mlflow

from pipeline.terminal.shell import UnreachableError

LOOK = "promotion.look"


def key_of(images: str, champion: str, candidate: str) -> str:
    """The tag of a look.

    Args:
        images: what the images that decide are called.
        champion, candidate: where the two models lie.
    """
    models = hashlib.sha256(f"{champion}\0{candidate}".encode()).hexdigest()[:16]
    return f"{LOOK}.{images}.{models}"


def recorded(client: mlflow.MlflowClient, name: str, key: str) -> int | None:
    """The number of a look that was taken before; None if it was not, or was cut off before it had one."""
    # what somebody has written there by hand counts as a look, and gets its number like one that was cut off
    found = re.match(r"look ([1-9]\d{0,8}):", _tags(client, name).get(key, ""))
    return int(found[1]) if found else None


def upcoming(client: mlflow.MlflowClient, name: str, key: str, earlier: int) -> int:
    """The number that the look would get; `earlier` as in `count`."""
    return earlier + len({*_looks(client, name, key), key})


def count(client: mlflow.MlflowClient, name: str, key: str, note: str, earlier: int) -> int:
    """Record a look and return its number, from 1; it keeps the number that it has.

    Args:
        client: of the registry.
        name: the registered model.
        key: the look's tag.
        note: what is recorded with it.
        earlier: looks at the same images that have no tag.

    Raises:
        UnreachableError: if the registry does not show what was written.
    """
    if number := recorded(client, name, key):
        return number
    client.set_registered_model_tag(name, key, note)
    looks = _looks(client, name, key)
    if key not in looks:
        raise UnreachableError(f"the registry does not show the tag {key} that was just written, so no look is taken")
    number = earlier + len(looks)
    client.set_registered_model_tag(name, key, f"look {number}: {note}")
    return number


def _looks(client: mlflow.MlflowClient, name: str, key: str) -> set[str]:
    """The tags of all looks at the images that the key names."""
    images = key.rpartition(".")[0]
    return {each for each in _tags(client, name) if each.rpartition(".")[0] == images}


def _tags(client: mlflow.MlflowClient, name: str) -> dict[str, str]:
    return dict(client.get_registered_model(name).tags)
