"""YAML files that a person wrote, read strictly: what YAML lets pass in silence is refused in one line.

Words stay as typed: whatever is not null or a plain whole number is text here (`010`, `1_000`, `on` and `12:30`, which
YAML 1.1 takes for 8, 1000, true and 750), and a knob takes or refuses it as it does on the command line.
"""

import re
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 64_000  # what the parser, plain Python, reads within a second
MOST_VALUES = 5_000  # with every alias written out
MOST_LEVELS = 50
PLAIN = "tag:yaml.org,2002:"
MERGE, TEXT = f"{PLAIN}merge", f"{PLAIN}str"
TAGS = {MERGE, TEXT, *(PLAIN + kind for kind in ("null", "int", "seq", "map"))}


class YamlFileError(ValueError):
    """A file that is not the YAML that is meant; the message names the file and the line."""


class _RefusedError(Exception):
    """Something that YAML allows and this project does not."""

    def __init__(self, mark: Any, words: str) -> None:
        super().__init__(f"line {mark.line + 1}: {words}")


class _Loader(yaml.SafeLoader):
    """Whole numbers, nulls and merge keys; everything else is text. Stops reading what is too much."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML wants it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = self.level = 0
        self.sizes: dict[int, int] = {}  # of each node that is read whole: its values, with every alias written out

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, counted and checked; an alias counts as what it stands for."""
        event, before = self.peek_event(), self.values  # type: ignore[no-untyped-call]
        self.values += 1
        self.level += 1
        if self.level > MOST_LEVELS:
            raise _RefusedError(event.start_mark, f"is nested too deep (over {MOST_LEVELS} levels)")
        if self.values > MOST_VALUES:
            raise _RefusedError(event.start_mark, f"holds over {MOST_VALUES:,} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _RefusedError(event.start_mark, "contains itself (an alias within its own anchor)")
            self.values = before + self.sizes[id(node)]
        elif node is not None:
            _check(node)
        if self.values > MOST_VALUES:
            words = f"holds over {MOST_VALUES:,} values once its aliases are written out"
            raise _RefusedError(event.start_mark, words)
        self.sizes[id(node)] = self.values - before
        self.level -= 1
        return node


def _add(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(PLAIN + kind, re.compile(rf"^(?:{pattern})$", re.ASCII), list(first))


_add("null", "~|null|Null|NULL|", "~nN")
_Loader.yaml_implicit_resolvers[""] = list(_Loader.yaml_implicit_resolvers["~"])
_add("int", "0|-?[1-9][0-9]{0,300}", "-0123456789")
_add("merge", "<<", "<")


def read_yaml(path: Path, kind: str) -> tuple[str, Any]:
    """The file's text and its content: dictionaries with text keys, lists, text, whole numbers, None.

    Args:
        path: a file, or a pipe.
        kind: what the file is to a person: `config file`.

    Raises:
        OSError: if it cannot be read.
        YamlFileError: if it is no YAML, says a key twice, or is made to grow out of bounds.
    """
    text = _text_of(path, kind)
    try:
        root = _Loader(text).get_single_node()
        return text, None if root is None else _Loader("").construct_document(root)
    except _RefusedError as refusal:
        raise YamlFileError(f"{kind} {path}, {refusal}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlFileError(f"{kind} {path} is not YAML ({_in_words(error)})") from None


def _text_of(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YamlFileError(f"{kind} {path} is too large: over {MOST_BYTES // 1000} kB; it holds a few lines of knobs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise YamlFileError(f"{kind} {path}, line {line}: is not UTF-8 text; save it as UTF-8") from None


def _check(node: yaml.Node) -> None:
    """Refuse a tag, and in a mapping keys that are repeated or no text."""
    if node.tag not in TAGS:
        raise _RefusedError(node.start_mark, f"tag {_short(node.tag)} is not taken; write plain values")
    lines: dict[str, int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            raise _RefusedError(key.start_mark, "a key that is no text; write `name: value`")
        if key.tag != MERGE:
            key.tag = TEXT
        if key.value in lines:
            words = f"key {_short(key.value)} stands twice (first in line {lines[key.value]}); only one can hold"
            raise _RefusedError(key.start_mark, words)
        lines[key.value] = key.start_mark.line + 1


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def _in_words(error: Exception) -> str:
    """One line: where and what; a tab and a second document by their names."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    if "'\\t'" in problem:
        return f"{where}a tab where spaces are meant; YAML is indented by spaces"
    if isinstance(error, yaml.composer.ComposerError) and "another document" in problem:
        return f"{where}a second document begins (`---`); one is expected"
    return where + " ".join(problem.split())[:200]
