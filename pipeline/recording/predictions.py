"""The predictions of a finished run: with these and its journal, every table and picture of it can be made again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data_spec import DataSpec

FILE = "predictions.npz"  # below the run's artifacts


@dataclass(frozen=True)
class Predictions:
    """What a network gave for N test examples, in file order.

    Attributes:
        spec: of the data.
        labels: (N,), the true class of each.
        probabilities: (N, classes) float32, as a client of the served model gets them.
    """

    spec: DataSpec
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,), the most probable class of each."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    def save(self, path: Path) -> None:
        """Write `labels`, `probabilities`, `classes` (their names) and `spec` (JSON) as a NumPy archive."""
        labels = self.labels.astype(np.min_scalar_type(max(1, len(self.spec.classes) - 1)))
        np.savez_compressed(
            path,
            labels=labels,
            probabilities=self.probabilities,
            classes=np.array(self.spec.classes),
            spec=np.array(self.spec.as_json()),
        )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as parts:
                spec = DataSpec.from_json(str(parts["spec"]))
                return cls(spec, parts["labels"].astype(np.int64), parts["probabilities"])
        except FileNotFoundError:
            raise ValueError(f"{path.name} is not there") from None
        except Exception as error:  # whatever a damaged archive makes zipfile, NumPy or json raise
            raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from None
