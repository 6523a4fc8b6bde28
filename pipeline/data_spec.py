"""What one example of a dataset is and what it may be called: told once, with the data, and carried by the model."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

METADATA = "data_spec"  # the key under which an exported network carries it
WHITE = 255.0  # of a pixel's byte


@dataclass(frozen=True)
class DataSpec:
    """One example of a dataset, and its classes.

    Attributes:
        kind: what people see in it.
        shape: as a network takes one example: (channels, height, width) of an image, (features,) of a table's row.
        classes: their names; a network gives a logit for each, in this order.
        features: the names of a table's columns.
        mean, deviation: of each feature in the training part; a network takes (value - mean) / deviation. Of an image
            empty: a network takes pixels / 255.
        drawing: how a drawing becomes such an image; `mnist`: as MNIST's authors did it; empty: drawings do not.
    """

    kind: Literal["image", "table"]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    drawing: str = ""

    @property
    def sent_shape(self) -> tuple[int, ...]:
        """One example as files, arrays and requests have it: (height, width), (height, width, 3) or (features,)."""
        if self.kind == "table":
            return self.shape
        channels, height, width = self.shape
        return (height, width) if channels == 1 else (height, width, channels)

    @property
    def size(self) -> int:
        """How many numbers an example is."""
        return math.prod(self.shape)

    def in_words(self) -> str:
        """`28x28 grey images -> probabilities of 10 classes`."""
        classes = f"probabilities of {len(self.classes)} classes"
        if self.kind == "table":
            return f"rows of {self.size} numbers -> {classes}"
        channels, height, width = self.shape
        return f"{height}x{width} {'grey' if channels == 1 else 'colour'} images -> {classes}"

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DataSpec":
        """The spec that `as_json` wrote."""
        fields: Any = json.loads(text)
        return cls(**{name: tuple(each) if isinstance(each, list) else each for name, each in fields.items()})  # type: ignore[arg-type]

    @classmethod
    def of_network(cls, metadata: Mapping[str, Any]) -> "DataSpec":
        """The spec that an exported network carries; those of before it carried one are of MNIST's shape."""
        return cls.from_json(metadata[METADATA]) if METADATA in metadata else MNIST


MNIST = DataSpec("image", (1, 28, 28), tuple("0123456789"), drawing="mnist")
