"""."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data.dataset import Dataset


def table(
    data_dir: Path,
    target: Annotated[str, Field(min_length=1, description="the column to predict")],
    test_share: Annotated[float, Field(gt=0, lt=1, description="share of the rows held out to test with")] = 0.2,
    split_seed: Annotated[int, Field(ge=0, description="decides which those are, the same for every run")] = 0,
) -> Dataset:
    raise NotImplementedError
