"""What two versions are compared on: examples that neither was trained or selected on."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import AUTO, IN_MNISTS_FORMAT
from pipeline.data import datasets
from pipeline.data.dataset import Dataset, Split
from pipeline.registry.candidates import Entry
from pipeline.registry.tags import DATASET, DIGEST, HELD_OUT, SELECTED_BY, VALIDATION_SEED, data_knobs
from pipeline.registry.versions import Loaded, load

AT_ONCE = 1_568_000  # numbers, those of 2,000 images of MNIST
TEST = "test"


@dataclass(frozen=True)
class Deciding:
    """The examples that decide.

    Attributes:
        part: `held-out` or `test`.
        examples: themselves.
        images: the name under which looks at them are counted.
        reason: why the held-out ones do not decide, where some were held out or it is not known.
    """

    part: str
    examples: Split
    images: str
    reason: str = ""

    @property
    def words(self) -> str:
        """How many of which."""
        return f"{len(self.examples.labels):,} {self.part} examples"


def data_of(candidate: Entry, champion: Entry, data_dir: str) -> Dataset:
    """The data that both were made for, as they lie here: where the champion's run found them, if that is not said.

    Raises:
        ValueError: if the two were made for different data, or the data here is not theirs.
    """
    dataset = champion.tags.get(DATASET, "mnist")
    digests = {each.tags.get(DIGEST, "") for each in (candidate, champion)}
    source = _read(champion, data_dir)
    if candidate.tags.get(DATASET, dataset) != dataset or digests - {source.digest, ""}:
        raise ValueError(
            f"version {candidate.version} was made on {candidate.tags.get(DATASET)} "
            f"(digest {candidate.tags.get(DIGEST)}), version {champion.version} on {dataset} "
            f"({champion.tags.get(DIGEST)}), and {source.source} holds {source.digest}: they cannot be compared here"
        )
    return source


def _read(champion: Entry, data_dir: str) -> Dataset:
    knobs = data_knobs(champion.tags)
    dataset, recorded_dir = str(knobs.pop("dataset")), knobs.pop("data_dir", data_dir)
    known = dataset in (*IN_MNISTS_FORMAT, "digits")
    folder = recorded_dir if data_dir == AUTO and not known else data_dir
    return datasets.load(dataset, folder, knobs.pop("data_name", ""), **knobs)


def deciding(source: Dataset, candidate: Entry, champion: Entry) -> Deciding:
    """The examples that both runs held out and neither was selected on; else those to test with.

    Looks at held-out examples are counted together however many two runs have in common, as these are parts of one
    another; looks at test examples by what these are, whatever was trained on.
    """
    both, train, test = (champion, candidate), source.train, source.test
    sizes = [_held_out(each, len(train.labels)) for each in both]
    reasons = [_reason(each, size) for each, size in zip(both, sizes, strict=True)]
    rows = _held_out_by_both(both, sizes, len(train.labels))
    if not any(reasons) and 2 * len(rows) < len(test.labels):
        reasons.append(f"both held out only {len(rows):,}, less than half as many as there are to test with")
    if not any(reasons):
        return Deciding("held-out", Split(train.inputs[rows], train.labels[rows]), f"held-out.{source.digest}")
    digest = hashlib.sha256(np.ascontiguousarray(test.inputs).data)
    digest.update(np.ascontiguousarray(test.labels).data)
    told = "" if sizes == [0, 0] else "; ".join(dict.fromkeys(filter(None, reasons)))
    return Deciding(TEST, test, f"{TEST}.{digest.hexdigest()[:16]}", told)


def held_out_rows(size: int, count: int, seed: int = 0) -> NDArray[np.int64]:
    """The rows of the training examples that a run held out, by `validation_size` and `validation_seed`."""
    return np.sort(np.random.RandomState(seed).permutation(size)[:count])


def _held_out_by_both(both: Sequence[Entry], counts: Sequence[int | None], size: int) -> NDArray[np.int64]:
    seeds = [int(each.tags.get(VALIDATION_SEED, 0)) for each in both]
    one, other = (held_out_rows(size, count or 0, seed) for count, seed in zip(counts, seeds, strict=True))
    return np.intersect1d(one, other)


def _held_out(entry: Entry, size: int) -> int | None:
    """How many training examples the version's run held out; None: not known of which."""
    text = entry.tags.get(HELD_OUT, "")
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) and entry.tags.get(DIGEST) else size
    return number if number < size else None


def _reason(entry: Entry, size: int | None) -> str:
    """Why the version's held-out examples do not decide; nothing if they may."""
    if size is None:
        return f"version {entry.version} does not say which examples its run held out"
    if size == 0:
        return f"the run of version {entry.version} held none out"
    if by := entry.tags.get(SELECTED_BY):
        return f"version {entry.version} was selected on its held-out examples ({by})"
    return ""


def opened(name: str, entry: Entry) -> Loaded:
    """The version, tried once.

    Raises:
        NotServableError: if it does not open.
    """
    with tempfile.TemporaryDirectory(prefix="pipeline-model-") as folder:
        return load(entry.uri, name, entry.version, entry.run_id, Path(folder))


def predicted(model: Loaded, inputs: NDArray[Any]) -> NDArray[np.int64]:
    """The class that the model gives each example (N, ...), raw."""
    parts = np.array_split(inputs, max(1, inputs.size // AT_ONCE))
    return np.concatenate([model.predict(part.astype(np.float32)).argmax(axis=1) for part in parts])
