"""The LightningDataModule: examples as tensors, whole batches at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils import data as torch_data
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from pipeline.data import datasets
from pipeline.data.dataset import DataError, Dataset, Split
from pipeline.data_spec import WHITE, DataSpec
from pipeline.seeding import derive_seed

Batch = tuple[Tensor, Tensor]
EVALUATION_BATCH, EVALUATION_NUMBERS = 2_000, 1_568_000  # examples at a time, and the numbers that they are


class ExampleTensors(torch_data.Dataset[Batch]):
    """Examples and labels that lie in the device's memory; a batch is one indexing operation there, not B of them.

    Shapes: images (N, channels, height, width) uint8, a table's rows (N, features) float32, scaled; labels (N,) int64.
    A batch is (B, ...) float32, of images in 0..1, and (B,) int64.
    """

    def __init__(self, split: Split, spec: DataSpec, device: torch.device | str = "cpu") -> None:
        """Take the split to the device, once: 47 MB of MNIST."""
        inputs = np.ascontiguousarray(split.inputs)
        tensor = torch.from_numpy(inputs if inputs.flags.writeable else inputs.copy())
        if spec.kind == "table":
            tensor = (tensor - torch.tensor(spec.mean)) / torch.tensor(spec.deviation)
        else:
            tensor = tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
        self.inputs = tensor.to(device)
        self.labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One example and its label ()."""
        return self._scaled(self.inputs[index]), self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """The whole batch at once; DataLoader calls this instead of `__getitem__` where it exists."""
        rows = torch.tensor(indices).to(self.inputs.device, non_blocking=True)
        return self._scaled(self.inputs.index_select(0, rows)), self.labels.index_select(0, rows)

    @staticmethod
    def _scaled(inputs: Tensor) -> Tensor:
        return inputs.float().div_(WHITE) if inputs.dtype == torch.uint8 else inputs


class EpochShuffle(DistributedSampler[int]):
    """A new order every epoch, decided by (seed, epoch) alone. Lightning calls `set_epoch`.

    A `DistributedSampler`, so that Lightning leaves it as it is: each of several ranks takes every other index, and all
    take as many, the first few twice where they do not divide (else a rank would wait for steps that never come).
    """

    def __init__(self, size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        super().__init__(range(size), num_replicas=ranks, rank=rank)  # type: ignore[arg-type]
        self.size, self.run_seed = size, seed

    def __iter__(self) -> Iterator[int]:
        """Yield the rank's indices of the epoch; the epoch is read when the first is asked for."""
        generator = torch.Generator().manual_seed(derive_seed(self.run_seed, "order", self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        order += order[: self.total_size - self.size]
        yield from order[self.rank : self.total_size : self.num_replicas]


class InOrder(DistributedSampler[int]):
    """Every index once, over all ranks: evaluation counts no example twice, so some ranks may get one less."""

    def __init__(self, size: int, rank: int = 0, ranks: int = 1) -> None:
        super().__init__(range(size), num_replicas=ranks, rank=rank)  # type: ignore[arg-type]
        self.indices = range(rank, size, ranks)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        yield from self.indices


class DataModule(LightningDataModule):
    """Any dataset, as the Keras sample has MNIST: all training examples, scaled and shuffled.

    With `validation_size` N, N training examples are held out, and validation runs on them: the same for every seed,
    others for another `validation_seed`. With 0, validation runs on the test examples, and nothing may be selected by
    it.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        data_dir: str = "data",
        batch_size: int = 128,
        validation_size: int = 0,
        seed: int = 1,
        data_name: str = "",
        knobs: Mapping[str, Any] | None = None,
        validation_seed: int = 0,
    ) -> None:
        super().__init__()
        self.dataset, self.data_dir, self.data_name, self.knobs = dataset, data_dir, data_name, knobs or {}
        self.batch_size, self.seed = batch_size, seed
        self.validation_size, self.validation_seed = validation_size, validation_seed
        self.source: Dataset | None = None

    def prepare_data(self) -> None:
        """Download what is missing (on one process only, as Lightning promises)."""
        self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read the files, split off the validation examples, and take all to the trainer's device if there is one.

        Raises:
            DataError: if files are missing or damaged, or validation_size leaves nothing to train on.
        """
        source = self._load()
        size = len(source.train.labels)
        if self.validation_size >= size:
            raise DataError(
                f"validation_size {self.validation_size} is out of range: {source.name} has {size} training examples"
            )
        held_out = np.random.RandomState(self.validation_seed).permutation(size)[: self.validation_size]
        kept = np.setdiff1d(np.arange(size), held_out) if self.validation_size else slice(None)
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        self.train_examples = ExampleTensors(_part(source.train, kept), source.spec, device)
        self.test_examples = ExampleTensors(source.test, source.spec, device)
        self.val_examples = (
            ExampleTensors(_part(source.train, np.sort(held_out)), source.spec, device)
            if self.validation_size
            else self.test_examples
        )

    def _load(self) -> Dataset:
        if self.source is None:
            self.source = datasets.load(self.dataset, self.data_dir, self.data_name, **self.knobs)
        return self.source

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in an order that (seed, epoch) decides; the last may be smaller."""
        shuffle = EpochShuffle(len(self.train_examples), self.seed, *self._rank_of())
        return _loader(self.train_examples, self.batch_size, shuffle)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out examples, or the test examples where none are held out, in file order."""
        return _in_order(self.val_examples, self._rank_of())

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test examples in file order."""
        return _in_order(self.test_examples, self._rank_of())

    def _rank_of(self) -> tuple[int, int]:
        """This process' rank, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _part(split: Split, rows: np.ndarray | slice) -> Split:
    return Split(split.inputs[rows], split.labels[rows])


def _in_order(examples: ExampleTensors, rank_of: tuple[int, int]) -> DataLoader[Batch]:
    at_once = max(1, min(EVALUATION_BATCH, EVALUATION_NUMBERS // examples.inputs[0].numel()))
    return _loader(examples, at_once, InOrder(len(examples), *rank_of))


def _loader(examples: ExampleTensors, batch_size: int, sampler: Sampler[int]) -> DataLoader[Batch]:
    # With each iterator it draws a seed that nobody uses: not from the global generator, where it would be missed.
    own = torch.Generator()
    return DataLoader(examples, batch_size=batch_size, sampler=sampler, collate_fn=_as_it_is, generator=own)


def _as_it_is(batch: Any) -> Any:
    return batch
