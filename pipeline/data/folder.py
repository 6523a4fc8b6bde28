"""."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.data.dataset import Dataset


def folder(
    data_dir: Path,
    image_size: Annotated[
        int, Field(ge=0, le=8192, description="side to which images are resized; 0: as they are")
    ] = 0,
    test_share: Annotated[
        float, Field(gt=0, lt=1, description="share held out to test with, where there is no folder test")
    ] = 0.2,
    split_seed: Annotated[int, Field(ge=0, description="decides which those are, the same for every run")] = 0,
) -> Dataset:
    raise NotImplementedError
