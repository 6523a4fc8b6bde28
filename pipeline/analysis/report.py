"""A comparison as files: a self-contained HTML page, pictures, a table in Markdown, CSV and JSON."""

import base64
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape

from pipeline import divergence
from pipeline.analysis import charts, tables, words
from pipeline.comparing.comparison import Comparison
from pipeline.files import replaced_whole

ALL_FILES = ("report.html", "intervals.png", "curves.png", "table.md", "runs.csv", "comparison.json")
PAGES = Path(__file__).parent / "pages"
RUN_METRICS = ("val_accuracy", "val_loss", "train_loss", "test_accuracy", words.SECONDS)


def write_files(
    comparison: Comparison, folder: Path, *, links: str = "", made: str = "", only: Sequence[str] = ALL_FILES
) -> list[Path]:
    """Write the comparison into the folder; returns the files.

    Args:
        comparison: what was found.
        folder: made if it is not there.
        links: where MLflow's UI answers, for links to the runs; empty: no links.
        made: a line that says how and where the page was made.
        only: which of the files; curves.png is written where the runs' curves are there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"intervals.png": charts.intervals(comparison)}
    if any(run.curves for group in comparison.groups for run in group.everyone):
        pictures["curves.png"] = charts.curves(comparison)
    contents: dict[str, bytes] = {
        **pictures,
        "table.md": (tables.markdown(comparison) + "\n").encode(),
        "runs.csv": tables.as_csv(comparison).encode(),
        "comparison.json": tables.as_json(comparison).encode(),
    }
    if "report.html" in only:
        contents["report.html"] = _html(comparison, pictures, links, made).encode()
    written = [folder / name for name in contents if name in only]
    for path in written:
        with replaced_whole(path) as partial:
            partial.write_bytes(contents[path.name])
    return written


def _html(comparison: Comparison, pictures: Mapping[str, bytes], links: str, made: str) -> str:
    """The page: needs no network and no other file."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=select_autoescape())
    runs = [run for group in comparison.groups for run in group.everyone]
    return environment.get_template("report.html").render(
        comparison=comparison,
        answer=words.sentence(comparison),
        header=tables.header(comparison),
        rows=tables.rows(comparison),
        facts=[*words.how_tested(comparison), words.in_common(comparison)],
        **{path.removesuffix(".png"): base64.b64encode(picture).decode() for path, picture in pictures.items()},
        run_metrics=[name for name in RUN_METRICS if any(name in run.metrics for run in runs)],
        diverged=divergence.TAG,
        links=links,
        made=made or time.strftime("made on %Y-%m-%d"),
    )
