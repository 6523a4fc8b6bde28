"""Promotion: the verdict is SciPy's on the same table, the aliases move together, and the digits decide for real."""

import threading

import mlflow
import numpy as np
import pytest
from scipy import stats

from pipeline import cli, promotion, registry, training
from pipeline.config import RunConfig
from pipeline.connection import connect
from pipeline.export import export_onnx
from pipeline.promotion import judge


def predictions(both, only_champion, only_candidate, neither):
    """Labels 0, and predictions of two models that are right (0) or wrong (1) so often."""
    champion = np.repeat([0, 0, 1, 1], [both, only_champion, only_candidate, neither])
    candidate = np.repeat([0, 1, 0, 1], [both, only_champion, only_candidate, neither])
    return np.zeros(len(champion), int), champion, candidate


@pytest.mark.parametrize(("b", "c"), [(10, 2), (3, 9), (0, 5), (7, 7), (0, 0), (40, 20)])
def test_the_test_is_scipys_exact_binomial_on_the_disagreements(b, c):
    verdict = judge(*predictions(100, b, c, 5))
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert verdict.p == pytest.approx(expected, rel=1e-12)
    assert (verdict.champion, verdict.candidate) == (100 + b, 100 + c)


@pytest.mark.parametrize(
    ("b", "c", "promotes", "words"),
    [
        (10, 30, True, "promote"),
        (7, 7, True, "promote"),
        (8, 7, False, "refuse: less accurate than the champion"),
        (30, 10, False, "refuse: shown to be worse (p = 0.0022)"),
    ],
)
def test_only_what_is_as_accurate_and_not_shown_to_be_worse_is_promoted(b, c, promotes, words):
    verdict = judge(*predictions(100, b, c, 5))
    assert verdict.promotes is promotes
    assert verdict.words.startswith(words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with three digits networks: version 1 good, 2 worse, 3 better."""
    folder = tmp_path_factory.mktemp("promotion")
    before = mlflow.get_tracking_uri()
    client = connect(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("digits", artifact_location=str(folder / "artifacts"))
    np.save(folder / "example.npy", np.zeros((2, 28, 28), np.uint8))
    for epochs in (3, 1, 8):
        result = training.fit(RunConfig(dataset="digits", hidden_units=32, epochs=epochs, accelerator="cpu"))
        export_onnx(result.classifier.network, folder / "network.onnx")
        run_id = client.create_run(experiment).info.run_id
        model_id = registry.log_model(client, run_id, folder / "network.onnx", folder / "example.npy")
        tags = {"dataset": "digits", "data_digest": result.data.source.digest}
        registry.register(client, "digits-mlp", run_id, model_id, tags)
    mlflow.set_tracking_uri(before)
    return folder


@pytest.fixture
def client(trained):
    """A client of the store, where version 1 is champion."""
    before = mlflow.get_tracking_uri()
    client = connect(f"sqlite:///{trained}/mlflow.db")
    client.set_registered_model_alias("digits-mlp", "champion", "1")
    if "previous" in aliases(client):
        client.delete_registered_model_alias("digits-mlp", "previous")
    yield client
    mlflow.set_tracking_uri(before)


def aliases(client):
    return {name: str(version) for name, version in client.get_registered_model("digits-mlp").aliases.items()}


@pytest.fixture
def promote(client, capsys):
    """`python -m pipeline promote` in this process: (exit code, output, error output)."""

    def run(*arguments):
        code = cli.main(["promote", *arguments, "--model", "digits-mlp"])
        return code, *capsys.readouterr()

    return run


def test_a_worse_version_is_refused_and_the_verdict_is_kept_with_it(promote, client):
    code, out, err = promote("2")
    assert code == 1
    assert "refuse: shown to be worse (p = " in err
    assert "exact McNemar test on " in out
    assert aliases(client) == {"champion": "1"}
    tags = client.get_model_version("digits-mlp", "2").tags
    assert tags["promotion.verdict"].startswith("refuse: shown to be worse")
    assert tags["promotion.against"] == "version 1"


def test_a_better_version_becomes_champion_and_is_rolled_back(promote, client):
    code, out, _ = promote()
    assert code == 0
    assert "version 3 is champion now, version 1 previous" in out
    assert aliases(client) == {"champion": "3", "previous": "1"}
    assert promote("3") == (0, "digits-mlp version 3 is the champion already: nothing to do\n", "")
    assert promote("--rollback")[0] == 0
    assert aliases(client) == {"champion": "1", "previous": "3"}
    assert "in favour of version 1" in client.get_model_version("digits-mlp", "3").tags["promotion.rolled_back"]


def test_a_dry_run_changes_nothing(promote, client):
    code, out, _ = promote("3", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "dry run: nothing was changed")
    assert aliases(client) == {"champion": "1"}


def test_force_promotes_all_the_same_and_its_reason_is_recorded(promote, client):
    assert promote("2", "--force", "the old one cannot be explained")[0] == 0
    assert aliases(client) == {"champion": "2", "previous": "1"}
    assert client.get_model_version("digits-mlp", "2").tags["promotion.forced"] == "the old one cannot be explained"


def test_a_run_stands_for_its_version(promote, client):
    run_id = client.get_model_version("digits-mlp", "3").run_id
    assert "version 3, candidate" in promote(run_id, "--dry-run")[1]


def test_models_of_other_data_are_not_compared(promote, client):
    digest = client.get_model_version("digits-mlp", "2").tags["data_digest"]
    client.set_model_version_tag("digits-mlp", "2", "data_digest", "other")
    try:
        code, _, err = promote("2")
    finally:
        client.set_model_version_tag("digits-mlp", "2", "data_digest", digest)
    assert code == 2
    assert "they cannot be compared here" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["9"], "model digits-mlp has no version 9 (versions: 1, 2, 3)"),
        (["nobody"], "no run 'nobody' in runs"),
        (["--rollback"], "has no alias 'previous'"),
        (["--rollback", "2"], "--rollback goes alone"),
        (["2", "--force", " "], "--force needs a reason"),
        (["--dryrun"], "unknown flag '--dryrun'; did you mean 'dry_run'?"),
    ],
)
def test_a_mistake_is_one_clear_line(promote, client, arguments, words):
    code, out, err = promote(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert aliases(client) == {"champion": "1"}


def test_two_at_once_leave_one_champion_and_the_one_before(client):
    versions = ("2", "3")

    def forced(version):
        promotion.promote(version, "digits-mlp", "runs", "data", dry_run=False, force="a test")

    threads = [threading.Thread(target=forced, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = aliases(client)
    assert {found["champion"], found["previous"]} == {"2", "3"}


def test_the_first_version_of_a_model_without_champion_becomes_it(promote, client):
    client.delete_registered_model_alias("digits-mlp", "champion")
    assert promote("2") == (0, "digits-mlp has no champion; version 2 becomes it\n", "")
    assert aliases(client) == {"champion": "2"}
