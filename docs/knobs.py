"""Prints the README's table of knobs, made from RunConfig; a test holds the README to it."""

from pipeline.config import KNOBS, RunConfig, range_text


def table() -> str:
    """The table in Markdown."""
    default = RunConfig(data_dir="data")
    rows = ["| knob | default | meaning | range |", "| --- | --- | --- | --- |"]
    for name, knob in KNOBS.items():
        value = f"`{getattr(default, name)}`"
        rows.append(f"| `{name}` | {value if value != '``' else ''} | {knob.description} | {range_text(name)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
