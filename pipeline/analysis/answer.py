"""What a set of MLflow's runs shows: found, compared, printed, written, logged."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow

from pipeline.analysis import store, tables
from pipeline.analysis.words import sentence
from pipeline.comparing import comparison
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.looks import PLAN, UNREADABLE, Plan, ungrouped
from pipeline.comparing.quantities import DIRECTIONS, METRIC
from pipeline.comparing.seen import Seen
from pipeline.comparing.verdicts import EVERY
from pipeline.delivery.ui import HOST, PORT
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.redaction import without_secrets
from pipeline.terminal.shell import DONE, shown


@asking()
def compare(
    words: Sequence[str],
    *,
    filter_text: str,
    baseline: str | None,
    metric: str | None,
    smallest: float | None,
    out: str | None,
) -> int:
    """Compare the runs that the words and the filter name; returns the exit code.

    Args:
        words: MLflow experiments, run ids or run names; none: everything.
        filter_text: MLflow's filter language.
        baseline, metric, smallest: see `comparison.compare`.
        out: folder for the HTML report, pictures, CSV and JSON; None: none are written.

    Raises:
        ValueError: if nothing is found, or nothing of it can be compared.
    """
    client = connect(looking_for="runs")
    runs = store.find_runs(client, words, filter_text)
    parents = store.parents_of(client, runs[0].experiment_id, words[0]) if len(words) == 1 and not filter_text else []
    parent = next(iter(parents), None)
    title = " ".join(filter(None, [", ".join(words), f"where {filter_text}" if filter_text else ""])) or "all runs"
    asked: dict[str, Any] = {}
    is_as_asked = False
    if parent is not None:
        title = _question_of(parent) or title
        asked, is_as_asked = _as_asked(parent, baseline, metric, smallest)
    if parent is not None or out:
        runs = store.with_curves(client, runs)
    given = {"baseline": baseline, "metric": metric or METRIC, "smallest": smallest}
    found = comparison.compare(runs, title=title, **{**given, **asked})
    tables.print_comparison(found)
    print(f"\nanswer     {sentence(found)}")
    if files := _other_files(parents):
        print(f"note       {', '.join(files)} asked something else under this name; this is the newest question")
    if out:
        print(f"report     {shown(_write(found, Path(out)) / 'report.html')}")
    if parent is not None and is_as_asked:
        _log(client, parent.info.run_id, found)
    elif parent is not None:
        print("logged to  no run: the question's own run keeps its comparison as the question asks it")
    return DONE


def _question_of(parent: Any) -> str:
    note = str(parent.data.tags.get("mlflow.note.content", ""))
    return note.splitlines()[0].strip("* ") if note else ""


def _other_files(parents: Sequence[Any]) -> list[str]:
    """The files that have asked something else under the name of the newest question."""
    plans = [Plan.from_text(parent.data.tags.get(PLAN, "")) for parent in parents]
    newest, *others = [plan[1] if plan else {} for plan in plans] or [{}]
    asked = ("variants", "baseline", "metric")
    return sorted(
        {
            str(each["file"])
            for each in others
            if each.get("file", newest.get("file")) != newest.get("file")
            and any(each.get(name) != newest.get(name) for name in asked)
        }
    )


def _as_asked(
    parent: Any, baseline: str | None, metric: str | None, smallest: float | None
) -> tuple[dict[str, Any], bool]:
    """What the question itself asks of its comparison now, and whether nothing else was given.

    With another baseline or metric it gets no verdict.
    """
    params, text = parent.data.params, parent.data.tags.get(PLAN, "")
    plan, facts = Plan.from_text(text) or (None, {})
    asks = {**{name: params.get(name) for name in ("baseline", "metric")}, **facts, **facts.get("asks", {})}
    if "plan" in asks:
        plan = Plan.from_facts(asks["plan"])
    planned = {"baseline": asks["baseline"], "metric": asks["metric"] or METRIC, "smallest": facts.get("smallest")}
    given = {"baseline": baseline, "metric": metric, "smallest": smallest}
    other = [name for name, value in given.items() if value not in (None, planned[name])]
    objections = ungrouped(facts.get("objections", {})) if plan or not text else {EVERY: UNREADABLE}
    if words := [f"{name} {planned[name]}" for name in other if name != "smallest"]:
        objections = {EVERY: f"the plan is for {' and '.join(words)}"}
    asked = {
        **{name: planned[name] if value is None else value for name, value in given.items()},
        "order": [*facts.get("variants", params.get("variants", "").split(", "))],
        "plan": plan,
        "objections": objections,
        "trainings": facts.get("variants", {}),
        "seen": Seen.of_facts(facts.get("look", 0), facts, facts.get("variants", {})),
        "higher_better": None if "metric" in other else DIRECTIONS.get(str(facts.get("better", ""))),
    }
    return asked, not other


def _write(found: Comparison, folder: Path) -> Path:
    from pipeline.analysis import report  # pictures and pages take a second to import

    uri = without_secrets(mlflow.get_tracking_uri())
    page = uri.rstrip("/") if uri.startswith("http") else f"http://{HOST}:{PORT}"  # where `make ui` shows a file
    try:
        report.write_files(found, folder.absolute(), links=page)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be written ({error.strerror}); give another folder") from None
    return folder.absolute()


def _log(client: mlflow.MlflowClient, run_id: str, found: Comparison) -> None:
    """Put the comparison on the run that holds the question, so that the MLflow UI shows it too."""
    with tempfile.TemporaryDirectory() as scratch:
        client.log_artifacts(run_id, str(_write(found, Path(scratch) / "comparison")), "comparison")
    client.set_tag(run_id, "answer", sentence(found))
    print(f"logged to  run {run_id} (artifacts: comparison/report.html)")
