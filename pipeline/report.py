"""A comparison as files: a self-contained HTML page, pictures, a table in Markdown, CSV and JSON."""

import base64
import time
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape

from pipeline import charts, tables
from pipeline.comparison import Comparison

PAGES = Path(__file__).parent / "pages"
RUN_METRICS = ("val_accuracy", "val_loss", "train_loss", "test_accuracy", tables.SECONDS)


def write_files(comparison: Comparison, folder: Path, links: str = "", made: str = "") -> list[Path]:
    """Write the comparison into the folder; returns the files.

    Args:
        comparison: what was found.
        folder: made if it is not there.
        links: where MLflow's UI answers, for links to the runs; empty: no links.
        made: a line that says how and where the page was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    has_curves = any(run.curves for group in comparison.groups for run in group.runs)
    contents: dict[str, bytes] = {
        "report.html": html(comparison, links, made).encode(),
        "intervals.png": charts.intervals(comparison),
        "table.md": (tables.markdown(comparison) + "\n").encode(),
        "runs.csv": tables.as_csv(comparison).encode(),
        "comparison.json": tables.as_json(comparison).encode(),
    }
    if has_curves:
        contents["curves.png"] = charts.curves(comparison)
    for name, content in contents.items():
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
    return [folder / name for name in contents]


def html(comparison: Comparison, links: str = "", made: str = "") -> str:
    """The page: needs no network and no other file."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=select_autoescape())
    runs = [run for group in comparison.groups for run in group.runs]
    shown = [name for name in RUN_METRICS if any(name in run.metrics for run in runs)]
    return environment.get_template("report.html").render(
        title=comparison.title or "Comparison",
        answer=tables.sentence(comparison),
        notes=comparison.notes,
        header=tables.header(comparison),
        rows=tables.rows(comparison),
        facts=[line for line in tables.facts(comparison) if not line.startswith("note")],
        metric=comparison.metric.replace("_", " "),
        intervals=base64.b64encode(charts.intervals(comparison)).decode(),
        curves=base64.b64encode(charts.curves(comparison)).decode() if any(run.curves for run in runs) else "",
        run_metrics=[name.replace("_", " ") for name in shown],
        runs=[
            {
                "group": group.label,
                "name": run.name,
                "seed": run.seed,
                "link": f"{links}/#/experiments/{run.experiment_id}/runs/{run.run_id}" if links and run.run_id else "",
                "metrics": [f"{run.metrics[name]:.4f}" if name in run.metrics else "" for name in shown],
            }
            for group in comparison.groups
            for run in group.runs
        ],
        made=made or time.strftime("made on %Y-%m-%d"),
    )
