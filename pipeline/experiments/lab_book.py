"""The lab book: what MLflow's runs have answered to the questions, as a page of Markdown with pictures."""

import hashlib
import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from statsmodels.stats.multitest import multipletests

from pipeline.analysis import report, store, tables, words
from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Run
from pipeline.comparing.looks import ERROR, PLAN
from pipeline.comparing.verdicts import BETTER, WORSE
from pipeline.config import ROLES
from pipeline.experiments.judging import Judged, Looked
from pipeline.experiments.question import Question
from pipeline.experiments.spec import read_question
from pipeline.files import replaced_whole
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import asking
from pipeline.terminal.shell import DONE, command, shown
from pipeline.values import counted

LAB_BOOK, RESULTS, JSON = "README.md", "results", "comparison.json"
BOOK_FILES = ("curves.png", "intervals.png", "runs.csv", JSON)
INTRODUCTION = """# The lab book

What the Keras sample's own page claims, asked of the machine: each question is a YAML file here, its answer below was
written by `python -m pipeline report` from the records in MLflow, never by hand. Variants are compared on held-out
training images (`validation_size`); the test set is read once per run, at its end, and decides nothing.

A question is looked at when 5, 10, 20, ... seeds of a variant are there, and each look spends a fixed share of the 5 %:
the intervals of all looks and all variants of a question hold together with 95 %, and a verdict is what the interval
says. *better* or *worse*: it leaves out zero. *same within ±0.1*: it lies inside. *undecided*: neither, and how many
seeds would show a difference of that size in 80 %. An interval speaks of new seeds on the same split of the images, if
nothing else is said. Each question has seeds of its own, and its baseline more of them than a variant. Runs train two
at a time on one thread each, and whatever else the machine does meanwhile shows in their seconds per epoch: mind the
standard deviation there.

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
    folders = [home / RESULTS / question.name for question in _questions_in(home)]
    sections = [folder / "section.md" for folder in folders if (folder / "section.md").exists()]
    text = "\n".join([INTRODUCTION, *_together(folders), *(section.read_text() for section in sections)])
    with replaced_whole(home / LAB_BOOK) as partial:
        partial.write_text(text)
    print(f"{shown((home / LAB_BOOK).absolute())}: {len(measured)} of {len(questions)} experiments written anew")
    return DONE


def _together(folders: Sequence[Path]) -> list[str]:
    """What the questions are worth together: how many contrasts they hold, and which of them share runs."""
    contents = {folder.name: answer for folder in folders if (answer := _answer_in(folder))}
    tested = [
        (f"{name}: {each['label']}", each["verdict"], float(each["p"]))
        for name, content in contents.items()
        for each in content["contrasts"]
        if each.get("p") is not None
    ]
    lines = []
    if tested:
        left = multipletests([p for *_, p in tested], alpha=ERROR, method="holm")[0]
        claimed = [name for name, verdict, _ in tested if verdict in (BETTER, WORSE)]
        lost = [name for (name, *_), stays in zip(tested, left, strict=True) if name in claimed and not stays]
        what = f"all but {', '.join(lost)}" if lost else "all"
        size = f"{counted(len(tested), 'contrast')} in {counted(len(contents), 'question')}"
        lines.append(
            f"The book holds {size}, {len(claimed)} better or worse. Each question errs in at most 5 %; held to 5 % "
            f"together (Holm), {what} of these stay.\n"
        )
    shared = [
        f"{one} and {other} ({len(common)})"
        for one, other in itertools.combinations(contents, 2)
        if (common := set(contents[one].get("trainings", [])) & set(contents[other].get("trainings", [])))
    ]
    return [
        *lines,
        *([f"Questions that share trainings of the same knobs and seed: {', '.join(shared)}.\n"] if shared else []),
    ]


def _answer_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if (path := folder / JSON).exists() else {}


def _questions_in(home: Path) -> list[Question]:
    files = sorted(path for path in home.glob("*.yaml") if "variants:" in path.read_text())
    if not files:
        raise ValueError(f"no experiment files in {home}; run from the project's folder, or give --folder")
    return [read_question(path) for path in files]


def _measure(client: Any, question: Question, folder: Path) -> bool:
    """Write the question's section, table and pictures; False if the store has no finished run of it."""
    try:
        runs = store.find_runs(client, [question.name])
        judged = Judged.after(question, _looked(client, question, runs))
        runs = [run for run in runs if _belongs(run, judged.question)]
        found = judged.compare(store.with_curves(client, runs, math.inf))
    except ValueError as error:
        print(f"{question.name}: left as it is ({error})", file=sys.stderr)
        return False
    report.write_files(found, folder, only=BOOK_FILES)
    _note_trainings(found, folder / JSON)
    (folder / "section.md").write_text(_section(question, found))
    return True


def _belongs(run: Run, question: Question) -> bool:
    """Whether the run is of the variants and seeds that the file asks for now."""
    return run.tags.get("variant") in question.variants and run.seed in question.plan().baseline_seeds


def _looked(client: Any, question: Question, runs: Sequence[Run]) -> Looked:
    """What the question's own run says of earlier looks: the newest of this file, or of any where it has none."""
    parents = store.parents_of(client, runs[0].experiment_id, question.name) if runs else []
    found = [Looked.of_tag(parent.data.tags.get(PLAN, "")) for parent in parents]
    of_file = (each for each in found if each.facts.get("file") == str(question.path))
    return next(of_file, next(iter(found), Looked()))


def _note_trainings(found: Comparison, path: Path) -> None:
    """Add to the file which trainings the runs were, so that those of two questions that are the same are found."""
    decide = [name for name, role in ROLES.items() if role.decides]
    trainings = {
        hashlib.sha256(repr([*map(run.params.get, decide), run.tags.get("code"), run.data]).encode()).hexdigest()[:12]
        for each in found.groups
        for run in each.everyone
    }
    content = json.loads(path.read_text()) | {"trainings": sorted(trainings)}
    path.write_text(json.dumps(content, indent=1) + "\n")


def _section(question: Question, found: Comparison) -> str:
    name, where = question.name, f"{RESULTS}/{question.name}"
    facts = [f"{line}. " for line in (*words.how_tested(found), *words.notes(found))]
    paragraphs = [
        f"## {name}: {question.question}",
        f"`python -m pipeline experiment experiments/{name}.yaml`",
        f"**Answer.** {words.sentence(found)}",
        *([f"**Claimed.** {' '.join(_claims(question, found))}"] if question.claims else []),
        tables.markdown(found),
        "\n".join([*facts, _hardware(found)]),
        f"![final values of {name}]({where}/intervals.png)",
        f"![learning curves of {name}]({where}/curves.png)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _claims(question: Question, found: Comparison) -> list[str]:
    """What others say of the variants, with what the runs have."""
    measured = {each.label: each for each in found.groups}
    return [
        words.claim_text(
            claim.variant,
            claim.metric,
            claim.value,
            claim.source,
            group.estimate(claim.metric) if (group := measured.get(claim.variant)) else None,
        )
        for claim in question.claims
    ]


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
