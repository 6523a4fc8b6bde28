"""Prints the README's table of knobs, made from RunConfig; a test holds the README to it."""

import dataclasses

from pipeline.config import RunConfig
from pipeline.values import range_text


def table() -> str:
    """The table in Markdown."""
    default = RunConfig(data_dir="data")
    rows = ["| knob | default | meaning | range |", "| --- | --- | --- | --- |"]
    for knob in dataclasses.fields(RunConfig):
        value = f"`{getattr(default, knob.name)}`"
        rows.append(
            f"| `{knob.name}` | {value if value != '``' else ''} | {knob.metadata['meaning']} | {range_text(knob)} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
