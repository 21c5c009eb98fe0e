"""Images with labels: a local copy in a form that people have, or the small digits that ship with the package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import place_generator
from spectra_cli.tasks.data.image_files import FoundImages, read_files
from spectra_cli.tensors import by

SPLITS = ("train", "val")

MOST_CLASSES = 100_000
"""Larger labels are taken for damage: a model has one output per class. ImageNet-21k has 21,841 classes."""

DIGITS = "digits.npz"
DIGITS_TRAIN = 1347
"""Three quarters of the 1797 digits."""

DIGITS_LARGEST = 16
"""Value of a block of 4 x 4 pixels that are all black."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """The images of one split.

    Attributes:
        images: (n, channels, height, width) uint8.
        labels: (n,) int64, from 0.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """Images for training and for validation, of one shape.

    Attributes:
        train: what a model is trained on.
        val: what it is not trained on.
        origin: what they are and how they were split: a clause for people.

    Raises:
        InputError: if a split is empty, its labels are no classes, or the two are of different shapes.
    """

    train: LabelledImages
    val: LabelledImages
    origin: str

    def __post_init__(self) -> None:
        """Check that the splits fit together."""
        for name in SPLITS:
            split = self.split(name)
            if len(split) == 0:
                raise InputError(
                    f"there is no image in the split '{name}'", remedy="Give data with some in both splits"
                )
            least, largest = int(split.labels.min()), int(split.labels.max())
            if least < 0 or largest >= MOST_CLASSES:
                raise InputError(
                    f"the split '{name}' has the label {least if least < 0 else largest}",
                    remedy=f"Number classes from 0 to at most {MOST_CLASSES - 1}, and leave out what has no label",
                )
        if self.train.images.shape[1:] != self.val.images.shape[1:]:
            shapes = " and ".join(by(self.split(name).images.shape[1:]) for name in SPLITS)
            raise InputError(
                f"the images for training and validation are of different shapes: {shapes}",
                remedy="Bring all images to one size (channels x height x width)",
            )

    def split(self, name: str) -> LabelledImages:
        """The images of the split ``train`` or ``val``."""
        return self.train if name == "train" else self.val

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """One more than the largest label of both splits."""
        return 1 + max(int(self.split(name).labels.max()) for name in SPLITS)

    def standardized(self, split: str, places: Tensor) -> Tensor:
        """Images with mean 0 and variance 1 per channel over the training split; those of `val` by the same numbers.

        Args:
            split: ``train`` or ``val``.
            places: (batch,) int64, of the images in the split.

        Returns:
            (batch, channels, height, width) float32.
        """
        mean, deviation = self.statistics
        images = self.split(split).images[places].to(torch.float32)
        return (images - mean[:, None, None]) / deviation[:, None, None]

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training split, (channels,) float32 each, of values 0..255.

        Exact but for the last rounding: they come from the counts of the 256 values. The deviation of a channel that
        is the same everywhere counts as 1.
        """
        channels = self.train.images.shape[1]
        counts = torch.stack(
            [torch.bincount(self.train.images[:, c].flatten(), minlength=256) for c in range(channels)]
        )
        values = torch.arange(256, dtype=torch.float64)
        fractions = counts / counts.sum(dim=1, keepdim=True, dtype=torch.float64)
        mean = fractions @ values
        variance = (fractions * (values - mean[:, None]).square()).sum(dim=1)
        deviation = torch.where(variance > 0, variance.sqrt(), 1.0)
        return mean.to(torch.float32), deviation.to(torch.float32)

    def evaluation_batches(self, split: str, examples: int | None, batch_size: int) -> Sequence[Tensor]:
        """Places of the images that metrics are over: the first so many of a fixed random order, in batches.

        The batches are of nearly equal sizes, since the statistics of batch norm are re-estimated as means over them,
        and since a single image has none.

        Args:
            split: ``train`` or ``val``.
            examples: how many; None for all.
            batch_size: of the largest batch.

        Returns:
            (batch,) int64 each.
        """
        order = torch.randperm(len(self.split(split)), generator=place_generator(SPLITS.index(split)))[:examples]
        return order.tensor_split(math.ceil(len(order) / batch_size))


def read_images(path: Path | None) -> ImageData:
    """Images and labels from a local copy, or the embedded digits.

    - Parquet as the Hugging Face hub serves CIFAR-10, CIFAR-100 and MNIST: a file, or a directory with shards
      ``train-*.parquet`` and ``test-*.parquet`` (or ``validation-*.parquet``, which then are preferred).
    - ``.npz`` arrays named as in keras' ``mnist.npz`` or as in MedMNIST.
    - None: 1797 handwritten digits, 8 x 8 (Alpaydin and Kaynak 1998).

    Where there is one split only, a tenth of it, drawn with seed 0, is for validation; `origin` says so. Where grey and
    coloured images meet, the grey ones get three equal channels.

    Args:
        path: file or directory; None for the digits.

    Raises:
        InputError: if the path does not exist, or holds something else, too much, or too little.
        MissingExtraError: if Pillow is needed to decode images and is not installed.
    """
    if path is None:
        return embedded_digits()
    try:
        named_train, named_val = read_files(path)
        train = _tensors(named_train)
        if named_val is None:
            train, val = _tenth_held_out(train)
            count = len(train) + len(val)
            how = f"which have one split only: {len(val)} of the {count} images, drawn at random, are for validation"
        else:
            val = _tensors(named_val)
            how = f"trained on '{named_train.name}' and validated on '{named_val.name}'"
        return ImageData(*_in_one_mode(train, val), f"the images of {path}, {how}")
    except InputError as error:
        raise error.at(str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def embedded_digits() -> ImageData:
    """The 1797 digits that ship with the package, 1347 of them for training.

    Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), CC BY 4.0; `digits.source.txt` says more. The
    counts 0..16 of black pixels are scaled to 0..255.
    """
    with files(__package__).joinpath(DIGITS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        counts, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    images = (counts.double() * 255 / DIGITS_LARGEST).round().to(torch.uint8).unsqueeze(1)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, val = order[:DIGITS_TRAIN], order[DIGITS_TRAIN:]
    return ImageData(
        LabelledImages(images[train], labels[train]),
        LabelledImages(images[val], labels[val]),
        "1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998)",
    )


def _tensors(found: FoundImages) -> LabelledImages:
    pixels = torch.from_numpy(found.pixels)
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return LabelledImages(images, torch.from_numpy(found.labels))


def _tenth_held_out(given: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Nine tenths and one tenth of the images, at least one, in an order of seed 0."""
    if len(given) < 2:
        raise InputError(
            f"there {'is one image' if len(given) else 'is no image'}, which cannot be split",
            remedy="Give at least two: a tenth is for validation",
        )
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(0))
    cut = len(given) - max(1, len(given) // 10)
    train, val = order[:cut], order[cut:]
    return (
        LabelledImages(given.images[train], given.labels[train]),
        LabelledImages(given.images[val], given.labels[val]),
    )


def _in_one_mode(train: LabelledImages, val: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Both splits, in colour if one of them is."""
    channels = max(train.images.shape[1], val.images.shape[1])
    one, other = (
        LabelledImages(split.images.expand(-1, channels, -1, -1), split.labels) if split.images.shape[1] == 1 else split
        for split in (train, val)
    )
    return one, other
