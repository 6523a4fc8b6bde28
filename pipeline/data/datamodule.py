"""The LightningDataModule: images as tensors, whole batches at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from pipeline.data import datasets
from pipeline.data.datasets import DataError, ImageData, Split
from pipeline.seeding import derive_seed

Batch = tuple[Tensor, Tensor]
EVALUATION_BATCH = 2_000


class ImageTensors(Dataset[Batch]):
    """Images and labels that lie in the device's memory; a batch is one indexing operation there, not B of them.

    Shapes: images (N, 784) uint8, labels (N,) int64. A batch is (B, 784) float32 in 0..1 and (B,) int64.
    """

    def __init__(self, split: Split, device: torch.device | str = "cpu") -> None:
        """Take the split's images as rows of 784 pixels to the device, once: 47 MB of MNIST."""
        images = np.ascontiguousarray(split.images).reshape(len(split.images), -1)
        self.images = torch.from_numpy(images.copy() if not images.flags.writeable else images).to(device)
        self.labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One image (784,) and its label ()."""
        return self.images[index].float().div_(255), self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        """The whole batch at once; DataLoader calls this instead of `__getitem__` where it exists."""
        rows = torch.tensor(indices).to(self.images.device, non_blocking=True)
        return self.images.index_select(0, rows).float().div_(255), self.labels.index_select(0, rows)


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
    """Every index once, over all ranks: evaluation counts no image twice, so some ranks may get one less."""

    def __init__(self, size: int, rank: int = 0, ranks: int = 1) -> None:
        super().__init__(range(size), num_replicas=ranks, rank=rank)  # type: ignore[arg-type]
        self.indices = range(rank, size, ranks)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        yield from self.indices


class MNISTDataModule(LightningDataModule):
    """MNIST and its four-file relatives, as in the Keras sample: pixels / 255, all training images, shuffled.

    With `validation_size` N, the same N training images for every seed are held out, and validation runs on them;
    with 0, validation runs on the test images, and nothing may be selected by it.
    """

    def __init__(
        self,
        dataset: str = "mnist",
        data_dir: str = "data",
        batch_size: int = 128,
        validation_size: int = 0,
        seed: int = 1,
        data_name: str = "",
    ) -> None:
        super().__init__()
        self.dataset, self.data_dir, self.data_name = dataset, data_dir, data_name
        self.batch_size, self.validation_size, self.seed = batch_size, validation_size, seed
        self.source: ImageData | None = None

    def prepare_data(self) -> None:
        """Download what is missing (on one process only, as Lightning promises)."""
        self._load()

    def setup(self, stage: str | None = None) -> None:
        """Read the files, split off the validation images, and take all to the trainer's device if there is one.

        Raises:
            DataError: if files are missing or damaged, or validation_size leaves nothing to train on.
        """
        source = self._load()
        size = len(source.train.labels)
        if self.validation_size >= size:
            raise DataError(
                f"validation_size {self.validation_size} is out of range: {source.name} has {size} training images"
            )
        held_out = np.random.RandomState(0).permutation(size)[: self.validation_size]
        kept = np.setdiff1d(np.arange(size), held_out) if self.validation_size else slice(None)
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        self.train_images = ImageTensors(_part(source.train, kept), device)
        self.test_images = ImageTensors(source.test, device)
        self.val_images = (
            ImageTensors(_part(source.train, np.sort(held_out)), device) if self.validation_size else self.test_images
        )

    def _load(self) -> ImageData:
        if self.source is None:
            self.source = datasets.load(self.dataset, self.data_dir, self.data_name)
        return self.source

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in an order that (seed, epoch) decides; the last may be smaller."""
        shuffle = EpochShuffle(len(self.train_images), self.seed, *self._rank_of())
        return _loader(self.train_images, self.batch_size, shuffle)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The held-out images, or the test images where none are held out, in file order."""
        return _loader(self.val_images, EVALUATION_BATCH, InOrder(len(self.val_images), *self._rank_of()))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images in file order."""
        return _loader(self.test_images, EVALUATION_BATCH, InOrder(len(self.test_images), *self._rank_of()))

    def _rank_of(self) -> tuple[int, int]:
        """This process' rank, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _part(split: Split, rows: np.ndarray | slice) -> Split:
    return Split(split.images[rows], split.labels[rows])


def _loader(images: ImageTensors, batch_size: int, sampler: Sampler[int]) -> DataLoader[Batch]:
    return DataLoader(images, batch_size=batch_size, sampler=sampler, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
