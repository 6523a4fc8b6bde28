"""Experiment files: what is asked of them, and every mistake in one as a line with what is meant."""

import pytest

from pipeline.comparing import comparison
from pipeline.comparing.groups import training_of
from pipeline.comparing.looks import drawn_seeds
from pipeline.comparing.seen import Seen
from pipeline.config import ConfigError
from pipeline.experiments.spec import A_CLAIM, EXAMPLE, Claim, read_question
from tests.conftest import ROOT

GOOD = """
question: Does dropout help?
shared: {dataset: digits, epochs: 3, validation_size: 300}
variants:
  none: {dropout: 0.0}
  half: {dropout: 0.5}
baseline: half
seeds: [1, 2]
"""


def read(tmp_path, text):
    (tmp_path / "trial.yaml").write_text(text)
    return read_question(tmp_path / "trial.yaml", runs_dir="elsewhere")


def test_a_question_is_variants_of_one_config(tmp_path):
    question = read(tmp_path, GOOD)
    assert (question.name, question.question, question.baseline) == ("trial", "Does dropout help?", "half")
    assert question.seeds == (1, 2)
    none, half = question.variants.values()
    assert (none.dropout, half.dropout) == (0.0, 0.5)
    assert {(each.epochs, each.seed, each.model_name, each.runs_dir) for each in (none, half)} == {
        (3, 1, "unregistered", "elsewhere")
    }


def test_without_another_word_the_first_variant_is_the_baseline(tmp_path):
    assert read(tmp_path, GOOD.replace("baseline: half\n", "")).baseline == "none"


THREE = GOOD.replace("baseline", "  most: {dropout: 0.9}\n  all: {dropout: 0.99}\nbaseline")


def test_counted_seeds_are_drawn_by_the_name_more_of_them_for_the_baseline(tmp_path):
    question = read(tmp_path, THREE.replace("[1, 2]", "5"))
    drawn = drawn_seeds("trial", 9)  # the square root of three times as many
    assert (question.seeds, question.baseline_seeds) == (tuple(drawn[:5]), tuple(drawn))
    assert [config.seed for config in question.configs("half")] == drawn
    assert [config.seed for config in question.configs("none")] == drawn[:5]
    assert question.plan().looks == [5]


def test_listed_seeds_are_those_of_all_variants(tmp_path):
    question = read(tmp_path, THREE)
    assert (question.seeds, question.baseline_seeds) == ((1, 2), (1, 2))
    plan = question.plan()
    assert (plan.seeds, plan.baseline_seeds, plan.contrasts, plan.looks) == (("1", "2"), ("1", "2"), 3, [])


def test_the_seeds_go_round_the_splits(tmp_path):
    question = read(tmp_path, GOOD.replace("[1, 2]", "[7, 8, 9, 10]\nsplits: 3"))
    for variant in ("none", "half"):
        configs = question.configs(variant)
        assert [(config.seed, config.validation_seed) for config in configs] == [(7, 0), (8, 1), (9, 2), (10, 0)]
    assert question.plan().seeds == ("7", "8/1", "9/2", "10")


def test_a_file_names_what_decides_and_what_matters(tmp_path):
    question = read(tmp_path, GOOD + "metric: val_loss\nsmallest: 0.02\n")
    assert (question.metric, question.smallest) == ("val_loss", 0.02)
    question = read(tmp_path, GOOD)
    assert (question.metric, question.smallest, question.splits) == ("val_accuracy", None, 1)


CLAIMS = "claims: {half: {test_accuracy: 0.98, source: arXiv 1}, none: {source: a page, test_loss: 1}}\n"


def test_a_file_says_what_others_claim_of_its_variants(tmp_path):
    assert read(tmp_path, GOOD + CLAIMS).claims == (
        Claim("half", "test_accuracy", 0.98, "arXiv 1"),
        Claim("none", "test_loss", 1.0, "a page"),
    )
    assert read(tmp_path, GOOD).claims == ()


KEYS = " (keys: question, shared, variants, baseline, seeds, splits, metric, better, smallest, claims)"
HAVE = "the runs will have val_accuracy, val_loss"
OWN = "one of your own is a knob (shared: {metric: my_metrics:f1})"
KEPT = "what is compared are the values of the last epoch, not of the one that is kept; leave it out"
HOLD_OUT = "so it would be judged on the test set; hold images out for that (shared: {validation_size: 10000})"
SPLITS = "expected how many sets of held-out examples the seeds go round, from 1"
HELD_OUT = "expected one of the held-out examples, like val_accuracy or val_loss"
SMALLEST = "expected the smallest difference of interest, like 0.001 of an accuracy"
HERE = "does not belong here; "


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("dropout: 0.5", "dropuot: 0.5", "variant half: unknown knob 'dropuot'; did you mean 'dropout'?"),
        ("dropout: 0.5", "dropout: 1.5", "variant half: dropout 1.5 is out of range: at least 0, below 1"),
        ("dropout: 0.5", "dropout: 0", "variants none and half are the same: every knob has the same value"),
        ("dropout: 0.5", "seed: 3", f"variant half: seed {HERE}list seeds under `seeds`"),
        ("dropout: 0.5", "run_name: a", f"variant half: run_name {HERE}the experiment decides it"),
        ("dropout: 0.5", "verbose: 0", f"variant half: verbose {HERE}the experiment decides it"),
        ("dropout: 0.5", "runs_dir: a", f"variant half: runs_dir {HERE}the experiment decides it"),
        ("dropout: 0.5", "experiment_name: a", f"variant half: experiment_name {HERE}the experiment decides it"),
        ("epochs: 3", "seed: 3", f"shared: seed {HERE}list seeds under `seeds`"),
        ("epochs: 3", "num_nodes: 2", f"shared: num_nodes {HERE}an experiment's runs are trained on one machine each"),
        ("epochs: 3", "epoch: 3", "shared: unknown knob 'epoch'; did you mean 'epochs'?"),
        ("epochs: 3", "epochs: 0", "shared: epochs 0 is out of range: at least 1"),
        ("{dropout: 0.5}", "[1]", "variant half: [1] is not knobs like {dropout: 0.0}"),
        ("[1, 2]", "[]", "seeds []: expected how many, like 20, or a list like [1, 2, 3, 4, 5]"),
        ("[1, 2]", "0", "seeds 0: expected at least 1, at most 10,000"),
        ("[1, 2]", "true", "seeds 'true': expected how many, like 20, or a list like [1, 2, 3, 4, 5]"),
        ("seeds: [1, 2]", "", "seeds None: expected how many, like 20, or a list like [1, 2, 3, 4, 5]"),
        ("[1, 2]", "10001", "seeds 10001: expected at least 1, at most 10,000"),
        ("[1, 2]", "2\nsplits: 0", f"splits 0: {SPLITS}"),
        ("[1, 2]", "2\nsplits: many", f"splits 'many': {SPLITS}"),
        ("[1, 2]", "2\nmetric: test_accuracy", f"metric 'test_accuracy': {HELD_OUT}"),
        ("[1, 2]", "2\nmetric: 3", f"metric 3: {HELD_OUT}"),
        ("[1, 2]", "2\nmetric: val_acc", f"metric 'val_acc': {HAVE}; did you mean 'val_accuracy'?; {OWN}"),
        ("[1, 2]", "2\nmetric: val_macro_f1", f"metric 'val_macro_f1': {HAVE}; {OWN}"),
        ("[1, 2]", "2\nbetter: more", "better 'more': expected higher or lower"),
        ("half: {dropout: 0.5}", "'': {dropout: 0.5}", "variant : expected a name that is not blank"),
        ("dropout: 0.5", "keep_best: true", f"variant half: keep_best is on, and {KEPT}"),
        (
            "{dropout: 0.5}",
            "{dropout: 0.0, on_divergence: continue}",
            "variants none and half are the same: only on_divergence differs",
        ),
        ("[1, 2]", "2\nsmallest: 0", f"smallest 0: {SMALLEST}"),
        ("[1, 2]", "2\nsmallest: .inf", f"smallest .inf: {SMALLEST}"),
        ("[1, 2]", "2\nclaims: [half]", f"claims ['half']: expected variants, each with {A_CLAIM}"),
        ("[1, 2]", "2\nclaims: {hlaf: {test_loss: 1}}", "claims: unknown variant 'hlaf'; did you mean 'half'?"),
        ("[1, 2]", "2\nclaims: {half: 0.98}", f"claims: half: '0.98': expected {A_CLAIM}"),
        ("[1, 2]", "2\nclaims: {half: {test_loss: 1}}", f"claims: half: {{'test_loss': 1}}: expected {A_CLAIM}"),
        ("[1, 2]", "2\nclaims: {half: {source: a}}", f"claims: half: {{'source': 'a'}}: expected {A_CLAIM}"),
        (
            "[1, 2]",
            "2\nclaims: {half: {test_loss: a bit, source: a}}",
            f"claims: half: {{'test_loss': 'a bit', 'source': 'a'}}: expected {A_CLAIM}",
        ),
        (
            "[1, 2]",
            "2\nclaims: {half: {test_loss: 1, val_loss: 1, source: a}}",
            f"claims: half: {{'test_loss': 1, 'val_loss': 1, 'source': 'a'}}: expected {A_CLAIM}",
        ),
        ("[1, 2]", "2\nsmallest: a bit", f"smallest a bit: {SMALLEST}"),
        (
            "dropout: 0.5",
            "validation_seed: 3",
            f"variant half: validation_seed {HERE}say under `splits` how many there are",
        ),
        ("[1, 2]", "[2, 1, 2, 3, 1]", "seeds 1, 2 stand more than once; the same seed gives the same run"),
        ("[1, 2]", "[1, two]", "seeds [1, 'two']: expected whole numbers"),
        ("[1, 2]", "[1, -1]", "seeds: seed -1 is out of range: at least 0, at most 4294967295"),
        ("[1, 2]", "[-1]", "seeds: seed -1 is out of range: at least 0, at most 4294967295"),
        ("baseline: half", "baseline: hlaf", "baseline 'hlaf' is not among the variants: none, half"),
        ("baseline: half", "basline: half", f"unknown key 'basline'; did you mean 'baseline'?{KEYS}"),
        ("{dropout: 0.5}", "{validation_size: 0}", f"variant half: validation_size is 0, {HOLD_OUT}"),
        ("question: Does dropout help?", "question:", "question is missing: say in words what the experiment asks"),
        ("question: Does dropout help?", "question: ' '", "question is missing: say in words what the experiment asks"),
        (
            "{dataset: digits, epochs: 3, validation_size: 300}",
            "[epochs]",
            "shared is list, expected knobs like {epochs: 20, validation_size: 10000}",
        ),
        (
            "variants:\n  none: {dropout: 0.0}\n  half: {dropout: 0.5}",
            "variants: []",
            "variants []: expected a name with its knobs each, like `none: {dropout: 0.0}`",
        ),
        (
            "variants:\n  none: {dropout: 0.0}\n  half: {dropout: 0.5}",
            "variants: {}",
            "variants {}: expected a name with its knobs each, like `none: {dropout: 0.0}`",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line_with_what_is_meant(tmp_path, old, new, problem):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    problems = caught.value.problems
    if len(problems) > 1:  # what is shared is wrong in every variant
        assert problems[0] == f"in {tmp_path}/trial.yaml:"
        assert problems[1:].count(problem) == 1
    else:
        assert problems == [f"in {tmp_path}/trial.yaml: {problem}"]


def test_what_a_variant_sets_right_of_what_is_shared_is_no_mistake(tmp_path):
    text = GOOD.replace("epochs: 3,", "epochs: 3, optimizer: nesterov,").replace("dropout: 0.0", "momentum: 0.5")
    question = read(tmp_path, text.replace("dropout: 0.5", "momentum: 0.9"))
    assert [each.momentum for each in question.variants.values()] == [0.5, 0.9]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.problems[0].startswith(f"in {tmp_path}/trial.yaml: variant half: momentum ")


def test_beside_another_mistake_what_variants_set_right_is_none_either(tmp_path):
    text = GOOD.replace("epochs: 3,", "epochs: 3, optimizer: nesterov,").replace("dropout: 0.0", "momentum: 0.5")
    text = text.replace("dropout: 0.5", "momentum: 0.9, dropuot: 1")
    claims = "claims: {half: {test_loss: 1, source: a}}\n"  # a variant that is wrong is not unknown
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text.replace("baseline:", "basline:") + claims)
    assert caught.value.problems[1:] == [
        f"unknown key 'basline'; did you mean 'baseline'?{KEYS}",
        "variant half: unknown knob 'dropuot'; did you mean 'dropout'?",
    ]


def test_a_metric_of_ones_own_decides_if_all_runs_have_it_and_it_is_said_which_way(tmp_path):
    own = GOOD.replace("epochs: 3,", "epochs: 3, metric: 'macro_f1,my_metrics:ece',")
    assert read(tmp_path, own + "metric: val_macro_f1\n").metric == "val_macro_f1"
    question = read(tmp_path, own + "metric: val_ece\nbetter: lower\n")
    assert (question.metric, question.better) == ("val_ece", "lower")
    with pytest.raises(ConfigError, match=r"metric val_ece: is more of it better, or less. Say `better: higher` or"):
        read(tmp_path, own + "metric: val_ece\n")
    logged = GOOD.replace("epochs: 3,", "epochs: 3, callback: my_calls:Logs,")
    assert read(tmp_path, logged + "metric: val_whatever_loss\n").metric == "val_whatever_loss"


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace("0.5", "1.5").replace("0.0", "-1").replace("half\n", "hlaf\n"))
    assert caught.value.problems == [
        f"in {tmp_path}/trial.yaml:",
        "variant none: dropout -1.0 is out of range: at least 0, below 1",
        "variant half: dropout 1.5 is out of range: at least 0, below 1",
    ]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace("[1, 2]", "[]").replace("question:", "quest:").replace("epochs: 3", "epochs: 0"))
    assert caught.value.problems[1:] == [
        f"unknown key 'quest'; did you mean 'question'?{KEYS}",
        "question is missing: say in words what the experiment asks",
        "seeds []: expected how many, like 20, or a list like [1, 2, 3, 4, 5]",
        "shared: epochs 0 is out of range: at least 1",
    ]


def test_a_variant_that_repeats_an_earlier_one_is_told_beside_all_others(tmp_path):
    three = GOOD.replace("  half:", "  off: {dropout: 0}\n  whole: [x]\n  half:").replace(
        "dropout: 0.5", "dropout: 2, seed: 3"
    )
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, three)
    assert caught.value.problems[1:] == [
        "variants none and off are the same: every knob has the same value",
        "variant whole: ['x'] is not knobs like {dropout: 0.0}",
        "variant half: seed does not belong here; list seeds under `seeds`",
        "variant half: dropout 2.0 is out of range: at least 0, below 1",
    ]


def test_what_holds_everywhere_wins_over_the_file_and_a_variant_over_what_is_shared(tmp_path):
    text = GOOD.replace("epochs: 3", "epochs: 3, dropout: 0.1, data_dir: there, model_name: mine")
    (tmp_path / "trial.yaml").write_text(text.replace("dropout: 0.5", "epochs: 4"))
    question = read_question(str(tmp_path / "trial.yaml"), runs_dir="elsewhere", data_dir="here")
    none, half = question.variants.values()
    assert (none.epochs, none.dropout, half.epochs, half.dropout) == (3, 0.0, 4, 0.1)
    assert {(each.data_dir, each.runs_dir, each.model_name) for each in (none, half)} == {("here", "elsewhere", "mine")}
    assert question.text == (tmp_path / "trial.yaml").read_text()


def test_a_variant_without_knobs_is_what_is_shared(tmp_path):
    question = read(tmp_path, GOOD.replace(" {dropout: 0.5}", ""))
    assert question.variants["half"] == question.variants["none"].replace(dropout=0.2)


def test_names_that_are_numbers_and_words_over_several_lines_are_text(tmp_path):
    text = GOOD.replace("none:", "1:").replace("half: {", "2: {").replace("baseline: half", "baseline: 2")
    question = read(tmp_path, text.replace("Does dropout help?", ">\n  Does\n  dropout   help?"))
    assert (list(question.variants), question.baseline) == (["1", "2"], "2")
    assert question.question == "Does dropout help?"
    assert read(tmp_path, text.replace("[1, 2]", "1")).seeds == tuple(drawn_seeds("trial", 1))


def test_a_question_compares_runs_under_its_words_in_the_files_order(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(comparison, "compare", lambda runs, **how: asked.append((runs, how)) or "found")
    question = read(tmp_path, GOOD + "metric: val_loss\nsmallest: 0.02\n")
    assert question.compare(["a run"], objections={"half": "not now"}) == "found"
    words = {"title": "Does dropout help?", "baseline": "half", "order": ["none", "half"]}
    decided = {"metric": "val_loss", "smallest": 0.02, "plan": question.plan(), "objections": {"half": "not now"}}
    trainings = {label: training_of(config.as_dict()) for label, config in question.variants.items()}
    assert asked == [(["a run"], words | decided | {"trainings": trainings, "seen": Seen(), "higher_better": None})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", " has no variants; "),
        ("- 1", " has no variants; "),
        ("epochs: 3", " has no variants; "),
        ("question: {", " is not YAML (line 1: "),
    ],
)
def test_what_is_no_experiment_file_gets_an_example(tmp_path, text, words):
    with pytest.raises(ValueError, match="expected, for example:") as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"experiment file {tmp_path}/trial.yaml{words}")
    assert str(caught.value).endswith(EXAMPLE)


def test_the_example_is_one(tmp_path):
    lines = EXAMPLE.splitlines()[1:]
    question = read(tmp_path, "\n".join(line[4:] for line in lines))
    assert (len(question.variants), len(question.seeds)) == (2, 20)


def test_a_missing_file_names_those_that_are_there(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/width.yaml").write_text(GOOD)
    (tmp_path / "experiments/dropout.yaml").write_text(GOOD)
    missing = "experiment file experiments/widht.yaml cannot be read (No such file or directory)"
    with pytest.raises(ValueError, match="cannot be read") as caught:
        read_question("experiments/widht.yaml")
    assert str(caught.value) == f"{missing} (here are: experiments/dropout.yaml, experiments/width.yaml)"
    for file in ("dropout", "width"):
        (tmp_path / f"experiments/{file}.yaml").unlink()
    with pytest.raises(ValueError, match="cannot be read") as caught:
        read_question("experiments/widht.yaml")
    assert str(caught.value) == missing


@pytest.mark.parametrize("name", ["dropout", "optimizer", "batch_size", "width", "epochs", "seeds"])
def test_the_projects_own_questions_are_asked_with_at_least_five_seeds(name):
    question = read_question(ROOT / f"experiments/{name}.yaml")
    assert len(question.seeds) >= (12 if name == "seeds" else 5)
    assert all(config.validation_size == 10_000 for config in question.variants.values())
