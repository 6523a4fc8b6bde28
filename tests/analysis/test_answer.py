"""compare and report, on a store of hand-made runs."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Metric, Param, RunTag
from scipy import stats

from pipeline import cli
from pipeline.comparing.groups import training_of
from pipeline.comparing.looks import Plan
from pipeline.experiments.judging import Judged, Looked
from pipeline.experiments.spec import read_question
from pipeline.mlflow_client.connection import connect
from tests.conftest import environment, ready_store

ACCURACIES = {"none": [0.971, 0.972, 0.973, 0.972, 0.972], "half": [0.980, 0.981, 0.982, 0.981, 0.981]}
PLAN = Plan.of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1, 1)
QUESTION = """
question: Does dropout help?
shared: {epochs: 2, validation_size: 100}
variants:
  none: {dropout: 0.0}
  half: {dropout: 0.5}
baseline: none
seeds: [1, 2, 3, 4, 5]
"""


def log(client, experiment_id, variant, seed, accuracy, *, dropout, epochs=2, parent=""):
    run_id = client.create_run(experiment_id, run_name=f"{variant} seed={seed}").info.run_id
    params = {"dropout": dropout, "seed": seed, "epochs": epochs, "validation_size": 100}
    tags = {"variant": variant, "seed": str(seed), "experiment": "trial", "code": "abc", "cpu": "a CPU", "threads": "1"}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    metrics = [
        Metric(name, value + shift, 1, epoch)
        for epoch, shift in ((1, -0.01), (2, 0.0))
        for name, value in (("val_accuracy", accuracy), ("val_loss", 1 - accuracy))
    ]
    metrics.append(Metric("seconds_per_epoch", 1.5, 1, 2))
    client.log_batch(
        run_id, metrics, [Param(k, str(v)) for k, v in params.items()], [RunTag(k, v) for k, v in tags.items()]
    )
    client.set_terminated(run_id, "FINISHED")
    return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    client = connect(ready_store(folder))
    experiment = client.create_experiment("trial", artifact_location=str(folder / "artifacts"))
    client.create_experiment("empty")
    plan = PLAN.as_text(look=5, metric="val_accuracy")
    tags = {"question": "trial", "mlflow.note.content": "Does dropout help?", "plan": plan}
    head = client.create_run(experiment, run_name="trial", tags=tags).info.run_id
    client.log_param(head, "baseline", "none")
    for variant, dropout in (("none", "0.0"), ("half", "0.5")):
        for seed, accuracy in enumerate(ACCURACIES[variant], start=1):
            log(client, experiment, variant, seed, accuracy, dropout=dropout, parent=head)
    mlflow.set_tracking_uri(before)
    return folder


@pytest.fixture
def pipeline(store, capsys, monkeypatch):
    """`python -m pipeline` in this process, on the store: (exit code, output, error output)."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        code = cli.main(list(arguments))
        return code, *capsys.readouterr()

    yield run
    mlflow.set_tracking_uri(before)


def test_an_experiment_is_compared_with_the_baseline_of_its_question(pipeline, store):
    code, out, err = pipeline("compare", "trial")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "Does dropout help?"
    assert any(re.fullmatch(r"none +0.0 +5 +97.20 ± 0.07 .*", line.strip()) for line in lines), out
    # every pair differs by 0.9 but for rounding, so Welch's 5 and 5 runs, 8 degrees of freedom, at the look's level
    half = -stats.t.ppf(0.05 * 0.01 / 2, 8) * math.sqrt(2 * 5e-7 / 5) * 100
    words = rf"half +\+0.90 \[\+{0.9 - half:.2f}, \+{0.9 + half:.2f}\] +better"
    assert any(re.fullmatch(words, line.strip()) for line in lines), out
    assert "all intervals, of all looks, hold with 95 %, for new seeds on the same split" in " ".join(out.split())
    assert "common to all: epochs=2, validation_size=100" in out
    client = mlflow.MlflowClient()
    head = client.search_runs([client.get_experiment_by_name("trial").experiment_id], "tags.question = 'trial'")[0]
    assert "half better (+0.90 points)" in head.data.tags["answer"]
    assert "comparison/report.html" in [each.path for each in client.list_artifacts(head.info.run_id, "comparison")]


def test_a_filter_or_a_list_of_runs_chooses(pipeline):
    _, out, _ = pipeline("compare", "--filter", "params.seed != '3'")
    assert "half  +0.90" in out
    assert "none: no plan" in out
    _, out, _ = pipeline("compare", "none seed=1", "half seed=1", "--baseline", "none")
    assert "half without a verdict (+0.90 points)." in out
    assert "no verdict: no plan made these runs" in out


def test_another_metric_or_baseline_than_the_plans_has_intervals_and_no_verdict(pipeline):
    _, out, _ = pipeline("compare", "trial", "--metric", "val_loss", "--baseline", "half")
    reason = "the plan is for baseline none and metric val_accuracy"
    assert re.search(rf"none +\+0\.0090 \[\+0\.00.., \+0\.01..\] +none: {reason}", " ".join(out.split()))


def test_the_report_needs_no_network_and_shows_everything(pipeline, tmp_path):
    assert pipeline("compare", "trial", "--out", "found")[0] == 0
    page = (tmp_path / "found/report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|http://127\.0\.0\.1:5000/#/experiments/)', page) == []
    assert page.count("data:image/png;base64,") == 2
    assert page.count("/runs/") == 10
    for words in ("Does dropout help?", "half better (+0.90 points)", "97.20 ± 0.07", "none seed=1"):
        assert words in page
    rows = (tmp_path / "found/runs.csv").read_text().splitlines()
    assert rows[0] == "group,run_id,seed,dropout,seconds_per_epoch,val_accuracy,val_loss,diverged_in_epoch"
    assert len(rows) == 11
    found = json.loads((tmp_path / "found/comparison.json").read_text())
    assert found["contrasts"][0]["verdict"] == "better"
    assert found["groups"][1]["val_accuracy"]["n"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trail"], "'trail' is no experiment, run id or run name; did you mean 'trial'? (experiments here:"),
        (["empty"], "no runs in empty; experiments here: Default, empty, trial"),
        (["--filter", "params.dropout = '0.7'"], "no runs in any experiment with \"params.dropout = '0.7'\""),
        (["--filter", "dropout ~ 3"], "write it like params.optimizer = 'sgd'"),
        (["trial", "--baseline", "nnoe"], "baseline 'nnoe' is not among the groups: none, half"),
        (["trial", "--metric", "f1"], "none of 10 runs is finished and has f1"),
        (["trial", "--smallest", "nan"], "argument --smallest: 'nan' is not a number above 0"),
        (["trial", "--smallest", "0"], "argument --smallest: '0' is not a number above 0"),
        (["trial", "--metrik", "f1"], "unknown flag '--metrik'; did you mean --metric?"),
        (["trial", "--out", "/proc/nowhere"], "--out /proc/nowhere cannot be written"),
    ],
)
def test_a_mistake_is_one_clear_line(pipeline, arguments, words):
    code, _, err = pipeline("compare", *arguments)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_without_a_store_it_says_where_to_go(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "compare"], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "the file does not exist; run from the project's folder, or set MLFLOW_TRACKING_URI" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_comparing_needs_neither_torch_nor_lightning():
    modules = "pipeline.analysis.answer, pipeline.experiments.lab_book"
    code = f"import sys, {modules}; print({{'torch', 'pytorch_lightning'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_lab_book_is_written_from_the_records_and_again_the_same(pipeline, tmp_path):
    (tmp_path / "experiments").mkdir()
    claim = "claims: {half: {val_accuracy: 0.99, source: its page}}\n"
    (tmp_path / "experiments/trial.yaml").write_text(QUESTION + claim)
    (tmp_path / "experiments/never.yaml").write_text(QUESTION)
    code, out, err = pipeline("report")
    assert code == 0
    assert "1 of 2 experiments written anew" in out
    assert "never: left as it is" in err
    book = (tmp_path / "experiments/README.md").read_text()
    for words in (
        "## trial: Does dropout help?",
        "`python -m pipeline experiment experiments/trial.yaml`",
        "**Answer.** validation accuracy of none is 97.20 %",
        "**Claimed.** half: a validation accuracy of 99 % is claimed (its page); here it is 98.10 % (95 % interval",
        "| half | 0.5 | 5 | 98.10 ± 0.07 |",
        "10 runs on a CPU",
        "The book holds 1 contrast in 1 question, 1 better or worse.",
        "](results/trial/intervals.png)",
    ):
        assert words in book
    assert (tmp_path / "experiments/results/trial/curves.png").exists()
    assert pipeline("report")[0] == 0
    assert (tmp_path / "experiments/README.md").read_text() == book


def test_a_report_judges_the_file_as_it_is_now_by_the_look_of_then(pipeline, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/trial.yaml").write_text(QUESTION + "metric: val_loss\n")
    assert pipeline("report")[0] == 0
    book = (tmp_path / "experiments/README.md").read_text()
    assert "none: the metric was val_accuracy at the look at 5 and is val_loss now: ask it as a question of" in book
    assert ", 0 better or worse." in book


def test_a_report_of_nothing_is_refused(pipeline, tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/never.yaml").write_text(QUESTION)
    code, _, err = pipeline("report")
    assert code == 2
    assert "the store has finished runs of none of never" in err
    assert not (tmp_path / "experiments/README.md").exists()


def test_a_question_is_compared_as_its_plan_has_it_and_runs_of_former_knobs_are_left_out(tmp_path, pipeline):
    client = connect(ready_store(tmp_path))
    experiment = client.create_experiment("moved", artifact_location=str(tmp_path / "artifacts"))
    now = {"epochs": 3, "validation_size": 100}
    variants = {name: training_of({**now, "dropout": dropout}) for name, dropout in (("half", 0.5), ("none", 0.0))}
    plan = PLAN.as_text(look=5, metric="val_accuracy", baseline="half", variants=variants)
    head = client.create_run(experiment, run_name="moved", tags={"question": "moved", "plan": plan}).info.run_id
    client.log_param(head, "baseline", "none")
    for epochs in (2, 3):
        for variant, dropout in (("none", "0.0"), ("half", "0.5")):
            for seed, accuracy in enumerate(ACCURACIES[variant], start=1):
                log(client, experiment, variant, seed, accuracy, dropout=dropout, epochs=epochs, parent=head)
    code, out, err = pipeline("compare", "moved")
    assert (code, err) == (0, "")
    assert re.search(r"none +-0\.90 \[-\d\.\d\d, -\d\.\d\d\] +worse", out), out
    assert "epochs=3" in out
    assert "note: 10 runs of knobs that the question asks no more for, left out" in out


def asked_anew(client, folder, tmp_path, text, *, code="abc"):
    """A question that was looked at as `QUESTION` asks it, and is asked by the text now; returns its own run's id."""
    (tmp_path / "renamed.yaml").write_text(QUESTION)
    then = read_question(tmp_path / "renamed.yaml")
    facts = {"look": 5, "metric": "val_accuracy", "baseline": "none", "variants": then.trainings}
    (tmp_path / "renamed.yaml").write_text(text)
    now = Judged(read_question(tmp_path / "renamed.yaml"), Looked.of_tag(PLAN.as_text(**facts)))
    experiment = client.create_experiment("renamed", artifact_location=str(folder / "artifacts"))
    tags = {"question": "renamed", "code": code, **now.tag(None)}
    head = client.create_run(experiment, run_name="renamed", tags=tags).info.run_id
    renamed = {"off": "0.0"} if "off:" in text else {}
    for variant, dropout in {"none": "0.0", "half": "0.5", **renamed}.items():
        for seed, accuracy in enumerate(ACCURACIES.get(variant, ACCURACIES["none"]), start=1):
            log(client, experiment, variant, seed, accuracy, dropout=dropout, parent=head)
    return head


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("none", "off", r"half +\+0.90 \[.*\] +none: the baseline was none at the look at 5 and is off now"),
        ("baseline: none", "baseline: half", r"none +-0.90 .* the baseline was none at the look at 5 and is half now"),
        (
            "baseline: none",
            "metric: val_loss",
            r"half +-0\.0090 .* the metric was val_accuracy at the look at 5 and is",
        ),
        ("[1, 2, 3, 4, 5]", "[2, 3, 4, 5, 6]", r"note: of none 1 run is left out, for want of a planned seed"),
    ],
)
def test_a_question_is_compared_as_it_is_asked_now_with_the_objection(tmp_path, pipeline, old, new, words):
    client = connect(ready_store(tmp_path))
    head = asked_anew(client, tmp_path, tmp_path, QUESTION.replace(old, new))
    code, out, err = pipeline("compare", "renamed")
    assert (code, err) == (0, "")
    assert re.search(words, " ".join(out.split())), out
    assert "ask it as a question of its own" in " ".join(out.split())
    assert "without a verdict" in client.get_run(head).data.tags["answer"]


def test_of_two_files_of_one_name_the_newest_is_compared_with_a_word_and_the_report_keeps_to_its_own(
    tmp_path, pipeline
):
    client = connect(ready_store(tmp_path))
    (tmp_path / "experiments").mkdir()
    head = asked_anew(client, tmp_path, tmp_path / "experiments", QUESTION)
    plan = json.loads(client.get_run(head).data.tags["plan"])
    theirs = {**plan, "file": "/theirs/renamed.yaml", "baseline": "half", "asks": {"baseline": "half"}}
    tags = {"question": "renamed", "plan": json.dumps(theirs)}
    client.create_run(client.get_run(head).info.experiment_id, run_name="renamed", tags=tags)
    words = f"note       {tmp_path}/experiments/renamed.yaml asked something else under this name"
    assert words in pipeline("compare", "renamed")[1]
    assert pipeline("report")[0] == 0
    assert "half better (+0.90 points)" in (tmp_path / "experiments/README.md").read_text()


@pytest.mark.parametrize("flags", [["--metric", "val_loss"], ["--baseline", "half"], ["--smallest", "0.5"]])
def test_a_comparison_that_is_asked_otherwise_leaves_the_questions_own_as_it_was(pipeline, store, flags):
    pipeline("compare", "trial")
    client = mlflow.MlflowClient()
    ids = [client.get_experiment_by_name("trial").experiment_id]
    before = client.search_runs(ids, "tags.question = 'trial'")[0]
    table = client.download_artifacts(before.info.run_id, "comparison/comparison.json")
    _, out, _ = pipeline("compare", "trial", *flags)
    assert "logged to  no run: the question's own run keeps its comparison as the question asks it\n" in out
    after = client.search_runs(ids, "tags.question = 'trial'")[0]
    assert after.data.tags == before.data.tags
    kept = client.download_artifacts(after.info.run_id, "comparison/comparison.json")
    assert json.loads(Path(kept).read_text()) == json.loads(Path(table).read_text())
    assert json.loads(Path(kept).read_text())["contrasts"][0]["verdict"] == "better"


def test_what_a_question_asks_is_given_once_more_and_logged(pipeline):
    _, out, _ = pipeline("compare", "trial", "--metric", "val_accuracy", "--baseline", "none")
    assert "logged to  run " in out


def test_a_plan_that_was_cut_gives_no_verdict_in_compare_and_report(tmp_path, pipeline):
    client = connect(ready_store(tmp_path))
    (tmp_path / "experiments").mkdir()
    head = asked_anew(client, tmp_path, tmp_path / "experiments", QUESTION)
    assert "half better" in pipeline("compare", "renamed")[1]
    client.set_tag(head, "plan", client.get_run(head).data.tags["plan"][:-9])
    client.log_param(head, "baseline", "none")
    _, out, _ = pipeline("compare", "renamed")
    assert "none: what was looked at cannot be read" in out
    assert pipeline("report")[0] == 0
    assert "none: what was looked at cannot be read" in (tmp_path / "experiments/README.md").read_text()


def test_runs_of_other_code_that_were_looked_at_are_told_by_compare_and_report(tmp_path, pipeline):
    client = connect(ready_store(tmp_path))
    (tmp_path / "experiments").mkdir()
    head = asked_anew(client, tmp_path, tmp_path / "experiments", QUESTION)
    plan = json.loads(client.get_run(head).data.tags["plan"])
    client.set_tag(head, "plan", json.dumps({**plan, "seen": {"former/ abc/": ["none", "half"]}}))
    words = "looked at before, at 5 seeds, with other runs: code former then and abc now; each has its own 5 %"
    assert words in " ".join(pipeline("compare", "renamed")[1].split())
    assert pipeline("report")[0] == 0
    assert words in (tmp_path / "experiments/README.md").read_text()


def test_a_run_that_was_resumed_for_more_epochs_is_one_of_so_many(tmp_path, pipeline):
    client = connect(ready_store(tmp_path))
    experiment = client.create_experiment("longer", artifact_location=str(tmp_path / "artifacts"))
    for seed in (1, 2):
        run_id = log(client, experiment, "", seed, 0.97, dropout="0.2", epochs=5)
        client.set_tag(run_id, "resumed.epochs", "10")
        log(client, experiment, "", seed + 2, 0.97, dropout="0.2", epochs=10)
    _, out, _ = pipeline("compare", "longer")
    assert "epochs=10" in out
    assert "n = 4" in out


def test_params_are_compared_by_what_they_are_however_they_were_typed(tmp_path, pipeline):
    client = connect(ready_store(tmp_path))
    experiment = client.create_experiment("typed", artifact_location=str(tmp_path / "artifacts"))
    for seed, dropout, epochs in (("1", "2e-1", 2), ("2.0", "0.2", "2.0"), ("3", 0.20, " 2"), ("4", "0.5", 2)):
        log(client, experiment, "", seed, 0.97, dropout=dropout, epochs=epochs)
    code, out, err = pipeline("compare", "typed")
    assert (code, err) == (0, "")
    assert set(re.findall(r"dropout=[\d.e-]+", out)) == {"dropout=0.2", "dropout=0.5"}
    assert "n = 3" in out
