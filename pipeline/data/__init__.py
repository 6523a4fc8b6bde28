"""Data sets by name, read and checked; the LightningDataModule. `Dataset` is what a data set of your own gives."""

from pipeline.data.dataset import DataError, Dataset
from pipeline.data_spec import DataSpec

__all__ = ["DataError", "DataSpec", "Dataset"]
