"""Prints the tables of knobs, made from the config and the signatures; a test holds the page to them."""

from pipeline.config import KNOBS, RunConfig, class_of
from pipeline.config.signatures import DATASETS, NETWORKS, knobs_of
from pipeline.config.words import range_of

HEAD = "| default | meaning | range |"


def table() -> str:
    """The sample's knobs, in Markdown."""
    default = RunConfig(data_dir="data")
    rows = [f"| knob {HEAD}", "| --- | --- | --- | --- |"]
    for name, knob in KNOBS.items():
        value = f"`{getattr(default, name)}`"
        rows.append(f"| `{name}` | {value if value != '``' else ''} | {knob.description} | {range_of(knob)} |")
    return "\n".join(rows)


def table_of_others() -> str:
    """The knobs of the other networks and datasets that come along, in Markdown."""
    rows = [f"| with | knob {HEAD}", "| --- | --- | --- | --- | --- |"]
    for kind, shipped in (("network", NETWORKS), ("dataset", DATASETS)):
        for owner in shipped:
            known = class_of({kind: owner})
            for name in knobs_of(owner).keys() if owner != "mlp" else ():
                field = known.model_fields[name]
                value = "(needed)" if field.is_required() else f"`{field.default}`"
                facts = f"{value} | {field.description} | {range_of(field)}"
                rows.append(f"| `--{kind} {owner}` | `{name}` | {facts} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(f"{table()}\n\n{table_of_others()}")
