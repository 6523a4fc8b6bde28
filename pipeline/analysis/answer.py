"""What a set of MLflow's runs shows: found, compared, printed, written, logged."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.analysis import comparison, store, tables
from pipeline.analysis.comparison import Comparison
from pipeline.mlflow_client.asking import asking
from pipeline.terminal.shell import shown


def compare(
    words: Sequence[str], filter_text: str, baseline: str | None, metric: str, smallest: float | None, out: str | None
) -> int:
    """Compare the runs that the words and the filter name; returns the exit code.

    Args:
        words: MLflow experiments, run ids or run names; none: everything.
        filter_text: MLflow's filter language.
        baseline: the group that the others are compared with.
        metric: the final value that decides.
        smallest: the smallest difference of interest.
        out: folder for the HTML report, pictures, CSV and JSON; None: none are written.

    Raises:
        ValueError: if nothing is found, or nothing of it can be compared.
    """
    with asking():
        return _compare(words, filter_text, baseline, metric, smallest, out)


def _compare(
    words: Sequence[str], filter_text: str, baseline: str | None, metric: str, smallest: float | None, out: str | None
) -> int:
    client = store.open_store()
    runs = store.find_runs(client, words, filter_text)
    parent = store.parent_of(client, runs[0].experiment_id, words[0]) if len(words) == 1 and not filter_text else None
    title = "" if parent is None else _question_of(parent)
    if parent is not None and baseline is None:
        baseline = parent.data.params.get("baseline")
    order = [] if parent is None else parent.data.params.get("variants", "").split(", ")
    title = title or _title(words, filter_text)
    if parent is not None or out:
        runs = store.all_with_curves(client, runs)
    found = comparison.compare(runs, title=title, baseline=baseline, metric=metric, smallest=smallest, order=order)
    tables.print_comparison(found)
    print(f"\nanswer     {tables.sentence(found)}")
    if out:
        print(f"report     {shown(_write(found, Path(out)) / 'report.html')}")
    if parent is not None:
        _log(client, parent, found)
    return 0


def _question_of(parent: Any) -> str:
    note = str(parent.data.tags.get("mlflow.note.content", ""))
    return note.splitlines()[0].strip("* ") if note else ""


def _title(words: Sequence[str], filter_text: str) -> str:
    return " ".join(filter(None, [", ".join(words), f"where {filter_text}" if filter_text else ""])) or "all runs"


def _write(found: Comparison, folder: Path) -> Path:
    from pipeline.analysis import report  # pictures and pages take a second to import

    try:
        report.write_files(found, folder.absolute(), store.ui_link())
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be written ({error.strerror}); give another folder") from None
    return folder.absolute()


def _log(client: Any, parent: Any, found: Comparison) -> None:
    """Put the comparison on the run that holds the question, so that the MLflow UI shows it too."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = _write(found, Path(scratch) / "comparison")
        store.log_comparison(client, parent.info.run_id, str(folder), {"answer": tables.sentence(found)})
    print(f"logged to  run {parent.info.run_id} (artifacts: comparison/report.html)")
