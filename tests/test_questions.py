import pytest

from pipeline.config import ConfigError
from pipeline.questions import read_question
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
        (3, 1, "", "elsewhere")
    }


def test_seeds_can_be_counted_and_the_first_variant_is_the_baseline(tmp_path):
    question = read(tmp_path, GOOD.replace("[1, 2]", "3").replace("baseline: half\n", ""))
    assert (question.seeds, question.baseline) == ((1, 2, 3), "none")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dropout: 0.5", "dropuot: 0.5", "variant half: unknown knob 'dropuot'; did you mean 'dropout'?"),
        ("dropout: 0.5", "dropout: 1.5", "variant half: dropout 1.5 is out of range: at least 0, below 1"),
        ("dropout: 0.5", "dropout: 0", "variants none and half are the same: every knob has the same value"),
        ("dropout: 0.5", "seed: 3", "variant half: seed does not belong here; list seeds under `seeds`"),
        ("{dropout: 0.5}", "[1]", "variant half: [1] is not knobs"),
        ("[1, 2]", "[]", "seeds []: expected a list like [1, 2, 3, 4, 5], or how many: 5"),
        ("seeds: [1, 2]", "", "seeds None: expected a list"),
        ("[1, 2]", "[1, 2, 1]", "seeds 1 stand more than once"),
        ("[1, 2]", "[1, two]", "expected whole numbers"),
        ("baseline: half", "baseline: hlaf", "baseline 'hlaf' is not among the variants: none, half"),
        ("baseline: half", "basline: half", "unknown key 'basline'; did you mean 'baseline'?"),
        ("validation_size: 300", "validation_size: 0", "validation_size is 0, so it would be judged on the test set"),
        ("epochs: 3", "epoch: 3", "shared: unknown knob 'epoch'; did you mean 'epochs'?"),
        ("question: Does dropout help?", "question:", "question is missing"),
    ],
)
def test_a_mistake_is_named_with_what_is_meant(tmp_path, old, new, words):
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert words in str(caught.value)
    assert "trial.yaml" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, GOOD.replace("0.5", "1.5").replace("0.0", "-1"))
    assert len([each for each in caught.value.problems if "out of range" in each]) == 2


@pytest.mark.parametrize("text", ["", "- 1", "question: {", "epochs: 3"])
def test_what_is_no_experiment_file_gets_an_example(tmp_path, text):
    with pytest.raises(ValueError, match="expected, for example:"):
        read(tmp_path, text)


def test_a_missing_file_names_those_that_are_there(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/width.yaml").write_text(GOOD)
    with pytest.raises(ValueError, match=r"cannot be read .* \(here are: experiments/width.yaml\)"):
        read_question("experiments/widht.yaml")


@pytest.mark.parametrize("name", ["dropout", "optimizer", "batch_size", "width", "epochs", "seeds"])
def test_the_projects_own_questions_are_asked_with_at_least_five_seeds(name):
    question = read_question(ROOT / f"experiments/{name}.yaml")
    assert len(question.seeds) >= (12 if name == "seeds" else 5)
    assert all(config.validation_size == 10_000 for config in question.variants.values())
