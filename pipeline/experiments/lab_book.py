"""The lab book: what MLflow's runs have answered to the questions, as a page of Markdown with pictures."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.analysis import report, store, tables
from pipeline.analysis.comparison import Comparison, Run
from pipeline.experiments.spec import Question, read_question
from pipeline.files import replaced_whole
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.terminal.shell import command, shown

LAB_BOOK, RESULTS = "README.md", "results"
BOOK_FILES = ("curves.png", "intervals.png", "runs.csv", "comparison.json")
INTRODUCTION = """# The lab book

What the Keras sample's own page claims, asked of the machine: each question is a YAML file here, its answer below was
written by `python -m pipeline report` from the records in MLflow, never by hand. Variants are compared on held-out
training images (`validation_size`); the test set is read once per run, at its end, and decides nothing. Intervals are
95 % (Student's t over seeds), p values are of paired t tests over common seeds with Holm's correction, and a verdict of
"too few runs" says how many would show a difference of 0.1 points. Runs train two at a time on one thread each, and
whatever else the machine does meanwhile shows in their seconds per epoch: mind the standard deviation there.

`baseline.yaml` is no question but the sample's knobs: `python -m pipeline train --config experiments/baseline.yaml`.
"""


def write_lab_book(files: Sequence[str], folder: str) -> int:
    """Write the lab book from the records; returns the exit code.

    Args:
        files: experiment files to measure anew; none: all in the folder.
        folder: the experiments' folder, which gets `README.md` and `results/`.

    Raises:
        ValueError: if a file is wrong, or the store has runs of none of them.
    """
    home = Path(folder)
    questions = [read_question(file) for file in files] or _questions_in(home)
    with asking():
        client = connect(looking_for="runs")
        measured = [each for each in questions if _measure(client, each, home / RESULTS / each.name)]
    if not measured:
        names = ", ".join(question.name for question in questions)
        raise ValueError(f"the store has finished runs of none of {names}; {command('experiment', 'FILE')} first")
    sections = [home / RESULTS / question.name / "section.md" for question in _questions_in(home)]
    text = "\n".join([INTRODUCTION, *[path.read_text() for path in sections if path.exists()]])
    with replaced_whole(home / LAB_BOOK) as partial:
        partial.write_text(text)
    print(f"{shown((home / LAB_BOOK).absolute())}: {len(measured)} of {len(questions)} experiments written anew")
    return 0


def _questions_in(home: Path) -> list[Question]:
    files = sorted(path for path in home.glob("*.yaml") if "variants:" in path.read_text())
    if not files:
        raise ValueError(f"no experiment files in {home}; run from the project's folder, or give --folder")
    return [read_question(path) for path in files]


def _measure(client: Any, question: Question, folder: Path) -> bool:
    """Write the question's section, table and pictures; False if the store has no finished run of it."""
    try:
        runs = [run for run in store.find_runs(client, [question.name]) if _belongs(run, question)]
        found = question.compare(store.with_curves(client, runs))
    except ValueError as error:
        print(f"{question.name}: left as it is ({error})", file=sys.stderr)
        return False
    report.write_files(found, folder, only=BOOK_FILES)
    (folder / "section.md").write_text(_section(question, found))
    return True


def _belongs(run: Run, question: Question) -> bool:
    """Whether the run is of the variants and seeds that the file asks for now."""
    return run.tags.get("variant") in question.variants and run.seed in map(str, question.seeds)


def _section(question: Question, found: Comparison) -> str:
    name, where = question.name, f"{RESULTS}/{question.name}"
    facts = [f"{line}. " for line in (*tables.how_tested(found), *tables.notes(found))]
    paragraphs = [
        f"## {name}: {question.question}",
        f"`python -m pipeline experiment experiments/{name}.yaml`",
        f"**Answer.** {tables.sentence(found)}",
        tables.markdown(found),
        "\n".join([*facts, _hardware(found)]),
        f"![final values of {name}]({where}/intervals.png)",
        f"![learning curves of {name}]({where}/curves.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _hardware(found: Comparison) -> str:
    """On what, when, with what code the runs were made."""
    runs = [run for group in found.groups for run in group.everyone]

    def values(tag: str) -> str:
        return ", ".join(sorted({run.tags[tag] for run in runs if tag in run.tags}))

    days = sorted({time.strftime("%Y-%m-%d", time.gmtime(run.started_ms / 1000)) for run in runs})
    return (
        f"{len(runs)} runs on {values('cpu')} ({values('cpu_count')} cores, {values('threads')} thread a run), "
        f"torch {values('package.torch')}, pytorch-lightning {values('package.pytorch-lightning')}, "
        f"code {values('code')}, {' to '.join(dict.fromkeys([days[0], days[-1]]))}."
    )
