"""A candidate beside the champion on the examples that decide: opened, predicted, the look counted, then shown."""

import sys
from dataclasses import dataclass

import mlflow
from rich.console import Console
from rich.table import Table

from pipeline.data.dataset import Dataset
from pipeline.mlflow_client import searches
from pipeline.registry import looks
from pipeline.registry.candidates import Entry
from pipeline.registry.evaluation import TEST, Deciding, data_of, deciding, opened, predicted
from pipeline.registry.judgement import Verdict, claim_of, judge, level_of
from pipeline.registry.tags import DIGEST
from pipeline.registry.versions import Loaded, NotServableError

EARLIER = "promotion.mcnemar"  # on versions that were compared on the test examples before looks were counted


@dataclass(frozen=True)
class Challenge:
    """Two versions, open, and the examples that decide between them."""

    candidate: Entry
    champion: Entry
    candidate_model: Loaded
    champion_model: Loaded
    source: Dataset
    examples: Deciding

    @property
    def look(self) -> str:
        """The tag of the look at them that this is."""
        lie = [each.source or each.uri for each in (self.champion, self.candidate)]
        return looks.key_of(self.examples.images, *lie)


def prepare(name: str, candidate: Entry, champion: Entry, data_dir: str, *, force: str) -> Challenge | None:
    """Open both and find the examples that decide; None if a champion that is to go does not open.

    Raises:
        NotServableError: if one of them does not open.
        ValueError: if the two were made for different data, or the data here is not theirs.
    """
    source = data_of(candidate, champion, data_dir)
    model = opened(name, candidate)
    try:
        return Challenge(
            candidate, champion, model, opened(name, champion), source, deciding(source, candidate, champion)
        )
    except NotServableError as error:
        if force:
            print(f"not compared: the champion, {error}", file=sys.stderr)
            return None
        raise NotServableError(f"the champion, {error}; --force REASON replaces it without a comparison") from None


def compare(client: mlflow.MlflowClient, name: str, these: Challenge, margin: float, when: str) -> Verdict:
    """Let both predict, count the look, then show what was found."""
    split, models = these.examples.examples, (these.champion_model, these.candidate_model)
    champion, candidate = (predicted(model, split.inputs) for model in models)
    note = f"version {these.candidate.version} against {these.champion.version}, {when}"
    look = looks.count(client, name, these.look, note, _earlier_looks(client, name, these))
    verdict = judge(split.labels, champion, candidate, look, margin)
    _print_table(name, these, verdict)
    if these.examples.part != TEST:
        test = these.source.test
        old, new = (float((predicted(model, test.inputs) == test.labels).mean()) for model in models)
        print(f"of the {len(test.labels):,} test examples, which decide nothing here: {new:.2%} against {old:.2%}")
    return verdict


def _earlier_looks(client: mlflow.MlflowClient, name: str, these: Challenge) -> int:
    """Versions that were compared on the test examples by the rule of before; others' data cannot be compared."""
    if these.examples.part != TEST:
        return 0
    digests = (these.source.digest, "")
    return sum(
        EARLIER in each.tags and each.tags.get(DIGEST, "") in digests for each in searches.versions(client, name)
    )


def tell_what_it_takes(client: mlflow.MlflowClient, name: str, these: Challenge, margin: float) -> None:
    """A comparison that is shown is a look, whoever calls it a trial: so there is none."""
    look = looks.upcoming(client, name, these.look, _earlier_looks(client, name, these))
    _tell_reason(these.examples)
    print(
        f"{name}: version {these.candidate.version} would be compared with version {these.champion.version}, champion, "
        f"on {these.examples.words}"
    )
    print(
        f"it would be look {look} at them: to be shown {claim_of(margin)} the candidate needs p < {level_of(look):.3g}"
    )
    print("what the two get right is not shown: that would be the look")


def _tell_reason(examples: Deciding) -> None:
    if examples.reason:
        print(f"the test examples decide: {examples.reason}")


def _print_table(name: str, these: Challenge, verdict: Verdict) -> None:
    _tell_reason(these.examples)
    columns = (name, "right", "accuracy", "right alone")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for who, right, alone in (
        (f"version {these.champion.version}, champion", verdict.champion, verdict.only_champion),
        (f"version {these.candidate.version}, candidate", verdict.candidate, verdict.only_candidate),
    ):
        table.add_row(who, f"{right:,}", f"{right / verdict.images:.2%}", str(alone))
    Console(file=sys.stdout, highlight=False).print(table)
    print(f"look {verdict.look} at {these.examples.words}")
