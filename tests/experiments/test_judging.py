"""What a look has spent stays spent: changes after it are told, and give no verdict."""

import json
from pathlib import Path

import pytest

from pipeline.comparing.looks import UNREADABLE, Plan
from pipeline.experiments import experiment
from pipeline.experiments.judging import Judged, Looked
from pipeline.experiments.spec import read_question
from pipeline.mlflow_client.naming import MAX_TAG
from pipeline.tracking.folders import all_folders
from tests.trials import TRIAL, HandPool, HeldJournal, trial

__all__ = ["trial"]

FILE = Path("experiments/trial.yaml")
TEXT = TRIAL.replace("[2, 1]", "%s")
FIVE, TEN = [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def ask(seeds, text=TEXT, **how):
    FILE.write_text(text % seeds)
    return answered(FILE, **how)


def answered(file, **how):
    try:
        return experiment.experiment(str(file), 1, "runs", {}, **how)
    finally:
        HeldJournal.let_go()


def parents():
    return [folder for folder in all_folders("runs") if folder.started()["tags"].get("question")]


def tag(folder):
    tags = {}
    for event in folder.events():
        tags |= event.get("tags", {})
    return json.loads(tags["plan"])


@pytest.fixture(autouse=True)
def plain_to_see(trial, monkeypatch):
    """Runs whose variants are far apart, each seed a little off."""
    FILE.parent.mkdir()
    monkeypatch.setattr("tests.trials.accuracy_of", lambda config: 0.5 + 0.3 * config.dropout + noise(config))


def noise(config):
    return 1e-4 * (config.seed * 37 % (11 if config.dropout else 13))


def test_a_look_is_kept_with_what_was_looked_at(trial):
    assert ask(FIVE) == 0
    variants = read_question(FILE, runs_dir="runs").trainings
    assert tag(parents()[0]) == {
        **{"seeds": "1 2 3 4 5", "contrasts": 1, "asked": 1, "look": 5, "baseline": "none", "metric": "val_accuracy"},
        **{"file": str(FILE.absolute()), "variants": variants},
        "asks": {"baseline": "none", "metric": "val_accuracy"},
        "seen": {"code-1/data-1": ["none", "half"]},
        "now": "code-1/data-1",
    }
    assert list(variants) == ["none", "half"]


def test_seeds_that_are_added_at_the_end_lead_to_the_next_look(trial):
    ask(FIVE)
    ask(TEN)
    first, second = (compared for compared, _ in trial.written)
    assert [each.contrasts[0].look for each in (first, second)] == [5, 10]
    assert second.contrasts[0].verdict == "better"
    assert tag(parents()[0])["look"] == 10


@pytest.mark.parametrize("seeds", [[2, 3, 4, 5, 6], [5, 4, 3, 2, 1], [9, 1, 2, 3, 4, 5, 6, 7, 8, 10]])
def test_seeds_that_were_changed_after_a_look_give_no_verdict_and_it_is_told(trial, seeds, capsys):
    ask(FIVE)
    ask(seeds)
    (contrast,) = trial.written[-1][0].contrasts
    assert contrast.verdict == "none"
    assert contrast.reason.startswith("the seeds were changed after the look at 5 (1, 2, 3, 4, 5 then, ")
    assert contrast.reason.endswith("ask it as a question of its own, in a file of another name")
    assert (tag(parents()[0])["seeds"], tag(parents()[0])["look"]) == ("1 2 3 4 5", 5)
    ask(FIVE)  # given back
    assert trial.written[-1][0].contrasts[0].verdict == "better"


def test_before_the_first_look_seeds_may_change(trial):
    ask(FIVE[:3])
    ask([7, 8, 9, 10, 11])
    assert trial.written[-1][0].contrasts[0].verdict == "better"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("baseline: none", "baseline: half", "the baseline was none at the look at 5 and is half now"),
        (
            "baseline: none",
            "baseline: none\nmetric: val_loss",
            "the metric was val_accuracy at the look at 5 and is val_",
        ),
    ],
)
def test_another_baseline_or_metric_after_a_look_is_another_question(trial, old, new, words):
    ask(FIVE)
    ask(FIVE, TEXT.replace(old, new))
    (contrast,) = trial.written[-1][0].contrasts
    assert contrast.verdict == "none"
    assert contrast.reason.startswith(words)


def test_the_error_is_shared_by_all_contrasts_that_were_ever_asked(trial):
    ask(FIVE, TEXT.replace("baseline", "  most: {dropout: 0.9}\n  all: {dropout: 0.99}\nbaseline"))
    ask(FIVE)
    plan = trial.written[-1][0].plan
    assert (plan.contrasts, plan.asked, plan.level(5)) == (3, 3, pytest.approx(0.05 * 0.01 / 3))


ELSEWHERE = "after the look at 5: ask it as a question of its own, in a file of another name"


def verdicts(trial):
    return {each.label: (each.verdict, each.reason) for each in trial.written[-1][0].contrasts}


def test_a_variant_that_is_added_or_changed_after_a_look_gets_no_verdict_and_the_others_keep_theirs(trial):
    ask(FIVE)
    added = TEXT.replace("baseline", "  most: {dropout: 0.9}\nbaseline")
    ask(FIVE, added)
    assert verdicts(trial) == {"half": ("better", ""), "most": ("none", f"it was added {ELSEWHERE}")}
    ask(FIVE, added)  # what has been told once is told again
    assert verdicts(trial)["most"] == ("none", f"it was added {ELSEWHERE}")
    ask(FIVE, TEXT.replace("dropout: 0.5", "dropout: 0.6"))
    assert verdicts(trial) == {"half": ("none", f"its knobs were changed {ELSEWHERE}")}
    ask(FIVE, TEXT.replace("half:", "most:"))
    assert verdicts(trial) == {"most": ("none", f"it was added {ELSEWHERE}")}
    ask(FIVE)  # given back
    assert verdicts(trial) == {"half": ("better", "")}


def test_knobs_of_the_baseline_that_were_changed_after_a_look_leave_no_verdict(trial):
    ask(FIVE)
    ask(FIVE, TEXT.replace("epochs: 3", "epochs: 4"))
    assert verdicts(trial) == {"half": ("none", f"the knobs of the baseline none were changed {ELSEWHERE}")}
    found = trial.written[-1][0]
    assert {run.params["epochs"] for each in found.groups for run in each.runs} == {"4"}


def test_looks_of_an_earlier_run_of_the_question_count(trial, monkeypatch):
    """As `mlflow run` opens a new one each time."""
    ask(FIVE)
    monkeypatch.setenv("MLFLOW_RUN_ID", "another")
    ask([6, 7, 8, 9, 10])
    assert len(parents()) == 2
    assert trial.written[-1][0].contrasts[0].verdict == "none"


def test_runs_of_other_code_than_at_the_look_before_are_told(trial, monkeypatch):
    ask(FIVE)
    monkeypatch.setattr("tests.trials.CODE", "code-2")
    for module in ("pipeline.experiments.plan", "pipeline.experiments.experiment"):
        monkeypatch.setattr(f"{module}.code_digest", lambda paths: "code-2")
    for _ in range(3):  # it is not forgotten when that of now was looked at too
        ask(FIVE)
        found = trial.written[-1][0]
        assert found.notes[-1] == (
            "looked at before, at 5 seeds, with other runs: code code-1 then and code-2 now; each has its own 5 %"
        )
        assert found.contrasts[0].verdict == "better"
    assert tag(parents()[0])["seen"] == {"code-1/data-1 code-2/data-1": ["none", "half"]}
    assert tag(parents()[0])["now"] == "code-2/data-1"


def test_a_variant_that_was_added_after_a_look_takes_nothing_from_the_others(trial):
    drawn = TEXT % "20"
    FILE.write_text(drawn)
    assert answered(FILE, until_decided=True) == 0
    before = trial.written[-1][0].contrasts[0]
    FILE.write_text(drawn.replace("baseline", "  most: {dropout: 0.9}\n  all: {dropout: 0.99}\nbaseline"))
    assert answered(FILE) == 0
    late = trial.written[-1][0]
    assert (late.plan.contrasts, late.plan.asked, late.plan.level(5)) == (1, 1, pytest.approx(0.05 * 0.01))
    assert {name for name, _ in HandPool.trained if name.startswith("none")} == {
        f"none seed={seed}" for seed in read_question(FILE, runs_dir="runs").seeds
    }
    assert (before.look, late.contrast("half").look) == (5, 20)
    FILE.write_text(drawn)
    answered(FILE)
    assert trial.written[-1][0].contrasts == (late.contrast("half"),)


def test_a_variant_that_is_removed_after_a_look_leaves_the_baseline_its_seeds(trial):
    drawn = TEXT % "5"
    FILE.write_text(drawn.replace("baseline", "  most: {dropout: 0.9}\n  all: {dropout: 0.99}\nbaseline"))
    assert answered(FILE) == 0
    before = trial.written[-1][0]
    FILE.write_text(drawn)
    assert answered(FILE) == 0
    found = trial.written[-1][0]
    assert [len(each.runs) for each in found.groups] == [9, 5]  # the root of three times as many
    assert (found.contrasts[0].look, found.plan.level(5)) == (5, before.plan.level(5))


def test_what_cannot_be_read_of_earlier_looks_gives_no_verdict_and_stays(trial):
    ask(FIVE)
    text = json.dumps(tag(parents()[0]))[:200]
    journal = HeldJournal(parents()[0])
    journal.append("tags", tags={"plan": text})
    journal.close()
    for _ in range(2):
        ask(FIVE)
        assert verdicts(trial) == {"half": ("none", UNREADABLE)}
    assert all(event.get("tags", {}).get("plan", text) == text for event in parents()[0].events()[-5:])


def test_a_plan_of_many_variants_and_seeds_has_room_in_a_tag(trial):
    many = "".join(f"  variant number {count}: {{dropout: 0.{count}}}\n" for count in range(51, 91))
    FILE.write_text(TEXT.replace("baseline", many + "baseline") % 640)
    now = read_question(FILE, runs_dir="runs")
    plan = Plan.of(now.seeds, now.baseline_seeds, 1, 1)
    looked = Looked(plan, 5, {"baseline": "none"}, {label: now.trainings[label] for label in ("none", "half")})
    asked = dict.fromkeys(now.variants, ("0123456789ab", "0123456789abcdef"))
    text = Judged.after(now, looked, asked).tag(None)["plan"]
    assert len(text) < MAX_TAG
    assert Looked.of_tag(text).seen.now == asked
    assert Looked.of_tag(text).objections(now) == looked.objections(now)
    assert len(looked.objections(now)) == 40


def test_another_file_of_the_same_name_is_refused_before_anything_is_trained(trial):
    ask(FIVE)
    other = Path("elsewhere/trial.yaml")
    other.parent.mkdir()
    other.write_text(TEXT % FIVE + "# another\n")
    trained = len(HandPool.trained)
    with pytest.raises(
        ValueError, match=r"is asked by .*experiments/trial\.yaml already.*give one of the files another"
    ):
        answered(other)
    assert len(HandPool.trained) == trained
    other.write_text(FILE.read_text())  # a copy asks the same
    assert answered(other) == 0


def test_a_plan_that_cannot_be_read_is_none():
    for text in ("", "{", "[]", "3", '{"seeds": 3}', '{"seeds": "1"}', '{"seeds": "1", "contrasts": "x", "asked": 1}'):
        assert Plan.from_text(text) is None


def test_a_plan_comes_back_from_its_text():
    for plan in (Plan.of([1, 2], [1, 2], 1, 1), Plan.of([1, 2], [1, 2, 3], 2, 2, 4)):
        assert Plan.from_text(plan.as_text(look=5)) == (plan, {"look": 5})


# Until decided


def test_until_decided_trains_look_by_look_what_is_undecided_only(trial, monkeypatch, capsys):
    text = TEXT.replace("baseline", "  near: {dropout: 0.01}\nbaseline")
    monkeypatch.setattr(
        "tests.trials.accuracy_of",
        lambda config: 0.5 + 0.3 * config.dropout + (100 if config.dropout == 0.01 else 1) * noise(config),
    )
    assert ask(TEN, text, until_decided=True) == 0
    names = [name for name, _ in HandPool.trained]
    assert sum(name.startswith("half") for name in names) == 5
    assert sum(name.startswith("none") for name in names) == 10
    out = capsys.readouterr().out
    assert "look 1 of 5, 10: 5 seeds of half, near\n" in out
    assert "look 2 of 5, 10: 10 seeds of near\n" in out
    found = trial.written[-1][0]
    assert {each.label: (each.verdict, each.look) for each in found.contrasts} == {
        "half": ("better", 5),
        "near": ("undecided", 10),
    }


def test_until_decided_stops_where_all_is_decided(trial, capsys):
    assert ask(TEN, until_decided=True) == 0
    assert len(HandPool.trained) == 10
    assert "look 2" not in capsys.readouterr().out


def test_until_decided_stops_at_a_run_that_failed(trial, capsys):
    HandPool.fates = {"half seed=3": ("FAILED", "out of memory")}
    assert ask(TEN, until_decided=True) == 1
    assert len(HandPool.trained) == 10
    assert "failed: half seed=3: out of memory" in capsys.readouterr().err
