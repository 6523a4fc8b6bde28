"""A run goes on with the data that it began with, or says so: told by the digest of all images and labels."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.recording import record as recording
from pipeline.recording import reproduction
from pipeline.tracking import recovery
from pipeline.tracking.folders import data_digest
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from tests.small_data import digits_of
from tests.tracking.idle_uploader import IdleUploader


def some_data(seed=0, name="mine"):
    random = np.random.RandomState(seed)
    images, labels = random.randint(0, 256, (3, 28, 28)).astype(np.uint8), np.array([1, 2, 3], np.uint8)
    return digits_of((images, labels), (images[:2], labels[:2]), name, "/data")


def module_of(source):
    return SimpleNamespace(source=source)


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """That of a run that began on `some_data()`."""
    monkeypatch.setattr("pipeline.tracking.run.Run.provenance", lambda record: None)
    journal = Journal(RunFolder(tmp_path / "runs/run"))
    recording.start(RunConfig(), Run(journal, IdleUploader()), module_of(some_data()), {})
    yield journal
    journal.close()


def changed(source, part, name):
    """The data with the last value of one array changed by one."""
    arrays = {"train": [source.train.inputs.copy(), source.train.labels.copy()]}
    arrays["test"] = [source.test.inputs.copy(), source.test.labels.copy()]
    arrays[part][["inputs", "labels"].index(name)].flat[-1] ^= 1
    return digits_of(*map(tuple, arrays.values()), source.name, source.source)


def test_the_digest_that_a_run_began_on_is_recorded(journal):
    assert data_digest(journal.folder.events()) == some_data().digest


def test_a_run_goes_on_with_the_same_data_wherever_they_lie_now(journal):
    source = some_data()
    elsewhere = some_data().named(source.name, "/elsewhere")
    recording.resume(RunConfig(), Run(journal, IdleUploader()), module_of(elsewhere))
    assert journal.folder.events()[-2]["kind"] == "resume"


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", ["inputs", "labels"])
def test_a_run_does_not_go_on_with_one_value_changed_and_records_nothing_of_the_attempt(journal, part, name):
    other, before = changed(some_data(), part, name), journal.folder.events()
    with pytest.raises(ValueError, match="began on data") as caught:
        recording.resume(RunConfig(), Run(journal, IdleUploader()), module_of(other))
    assert str(caught.value) == (f"run run began on data with digest {some_data().digest}, here lies {other.digest}")
    assert journal.folder.events() == before


def test_a_run_that_had_not_looked_at_its_data_goes_on_with_any(tmp_path):
    journal = Journal(RunFolder(tmp_path / "run"))
    journal.append("start", run_key="run", params=RunConfig().as_dict(), tags={}, parent="")
    recovery.check_same_data(journal.folder, "any")
    journal.close()


def test_a_reproduction_on_other_data_names_both_digests_as_a_difference(journal):
    source, other = some_data(), changed(some_data(), "test", "labels")
    assert reproduction._differences(journal.folder, source) == []
    assert reproduction._differences(journal.folder, other) == [f"data digest was {source.digest}, now {other.digest}"]
