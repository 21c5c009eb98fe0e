"""`image-classification`: VGG-16, a perceptron, LeNet or ResNet-20 on small images, with true or random labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from spectra_cli.errors import InputError, UsageError
from spectra_cli.tasks.base import Metric, Recipe, place_generator
from spectra_cli.tasks.data.images import SPLITS, ImageData, read_images
from spectra_cli.tasks.memory import model_fits
from spectra_cli.tasks.models.convolutional import LENET, POOLING, VGG, VGG16, LeNet, ResNet, scaled_vgg16
from spectra_cli.tasks.models.perceptron import MLP
from spectra_cli.tasks.options import CLASSES, COUNTS, LAYERS, WIDTHS, in_range, path_option, shortened
from spectra_cli.tensors import by

Batch = tuple[Tensor, Tensor]
"""Images, (batch, channels, height, width) float32, standardized; and labels, (batch,) int64."""

WHERE = "task image-classification"

_STEPS = Recipe(
    "sgd",
    lr=0.1,
    weight_decay=1e-4,
    batch_size=128,
    epochs=164,
    momentum=0.9,
    schedule="step",
    milestones=(82 / 164, 123 / 164, 160 / 164),
    gamma=0.1,
)
RECIPES = {
    "vgg16": _STEPS,
    "resnet20": _STEPS,
    # Without batch norm a tenth of the rate; there is no run of it in the papers.
    "lenet": replace(_STEPS, lr=0.01),
    # Of the papers' sweep over rates 0.1 to 0.0001, that of their figures on memorization.
    "mlp": Recipe("sgd", lr=0.001, batch_size=128, epochs=300, momentum=0.9),
}

SIZES = {"vgg16": ("width", "channels"), "mlp": ("width", "depth"), "lenet": ("width",), "resnet20": ("width", "depth")}
"""Which options of size each model has."""

MOST_CONVOLUTIONS = 1024
"""Limit for convolutions and poolings of a VGG."""

MOST_VALUES = 2**26
"""Limit for an image: one of 4000 x 4000 pixels and three channels has 48 million."""

RANDOM_LABELS = 0x1ABE1
"""Seed of random labels."""


class ImageClassification:
    """Image classification by VGG-16, a perceptron, LeNet or ResNet-20, with true or random labels (Yunis et al. 2024).

    Models, at the papers' sizes unless options say otherwise, each for any size of images:

    - ``vgg16``: VGG-16 with batch norm; batches of 128, learning rate 0.1, divided by ten after epochs 82, 123 and 160
      of 164, weight decay 0.0001. Images of 8 x 8 pixels are pooled three times instead of five.
    - ``resnet20``: 20 layers, convolutions as shortcuts; the same recipe. The papers' code has it, without a run.
    - ``mlp``: four linear layers of width 256; batches of 128, learning rate 0.001, 300 epochs, no weight decay.
    - ``lenet``: LeNet-5; as ``vgg16`` with learning rate 0.01. The papers' code has it, without a run.

    Images are standardized per channel by the mean and the standard deviation of the training split. Metrics over the
    images of a split: ``loss``, cross-entropy in nats; ``error``, the fraction whose class is told wrongly.

    Args:
        model: the network.
        data: local copy of images, see :func:`spectra_cli.tasks.data.images.read_images`; None for 8 x 8 digits.
        random_labels: give every training image a label that is drawn uniformly from all classes (Zhang et al. 2017),
            always the same whatever the seed of a run. Labels for validation stay true. The papers' code permutes the
            labels of both splits instead.
        augment: train on images that are flipped left to right at random, and shifted by up to an eighth of their sides
            with zeros coming in (He et al. 2016, section 4.2: four of 32 pixels), each image on its own. Digits should
            not be flipped.
        width: of the perceptron's hidden layers; or channels of the first convolution, all others in proportion. None
            for 64 of ``vgg16``, 16 of ``resnet20``, 256 of ``mlp`` and 6 of ``lenet``.
        depth: linear layers of ``mlp``, None for 4; or layers of ``resnet20``, 6n + 2, None for 20.
        channels: of the convolutions of ``vgg16`` in their order, 0 for a pooling; None for those of VGG-16.
        num_classes: outputs of the network; None for one more than the largest label.
        image_shape: channels, height and width; None for those of the data. Where `num_classes` is given as well, a
            model can be made without data.
        eval_examples: metrics are over the first so many images of each split, in a fixed random order; None: all.
        eval_batch_size: largest number of images per batch of an evaluation. Batches are of nearly equal sizes.

    Raises:
        UsageError: if an option is out of its range, or has no meaning for the model.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS

    def __init__(
        self,
        *,
        model: Literal["vgg16", "mlp", "lenet", "resnet20"] = "vgg16",
        data: str | None = None,
        random_labels: bool = False,
        augment: bool = False,
        width: int | None = None,
        depth: int | None = None,
        channels: tuple[int, ...] | None = None,
        num_classes: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        eval_examples: int | None = None,
        eval_batch_size: int = 500,
    ) -> None:
        if model not in RECIPES:
            raise UsageError(f"there is no model '{model}'", where=WHERE, remedy=f"Take one of {', '.join(RECIPES)}")
        for name, value in {"width": width, "depth": depth, "channels": channels}.items():
            if value is not None and name not in SIZES[model]:
                raise UsageError(f"{name} says nothing of {model}", where=WHERE, remedy=f"Leave {name} out")
        in_range(
            WHERE,
            width=(width, WIDTHS),
            depth=(depth, LAYERS),
            channels=(channels, range(WIDTHS.stop)),  # 0 is a pooling
            num_classes=(num_classes, CLASSES),
            image_shape=(image_shape, WIDTHS),
            eval_examples=(eval_examples, COUNTS),
            eval_batch_size=(eval_batch_size, COUNTS),
        )
        if channels is not None and len(channels) > MOST_CONVOLUTIONS:
            raise UsageError(
                f"channels has {len(channels)} numbers", where=WHERE, remedy=f"Give at most {MOST_CONVOLUTIONS}"
            )
        if image_shape is not None and math.prod(image_shape) > MOST_VALUES:
            raise UsageError(
                f"image_shape is {by(image_shape)} (channels x height x width)",
                where=WHERE,
                remedy=f"Give images of at most {MOST_VALUES} values",
            )
        self._network = network_of(model, width, depth, channels)
        self._path, self._random_labels, self._augment = data, random_labels, augment
        self._image_shape, self._num_classes = image_shape, num_classes
        self._eval_examples, self._eval_batch_size = eval_examples, eval_batch_size
        self.recipe = RECIPES[model]

    @property
    def notice(self) -> str:
        """What a user should know before looking at numbers: what the images are."""
        given = "" if self._path is not None else "no --data was given; "
        return f"image-classification: {given}{self._data.origin}"

    @property
    def training_count(self) -> int:
        """Number of training images."""
        return len(self._data.train)

    @model_fits(WHERE)
    def model(self) -> nn.Module:
        """A new network; it takes images (batch, channels, height, width) to logits (batch, classes)."""
        return self._network(self._image_shape or self._data.shape, self._num_classes or self._data.num_classes)

    def batches(self, split: str) -> Iterator[Batch]:
        """Images and labels of a split, in a fixed random order."""
        for places in self._data.evaluation_batches(split, self._eval_examples, self._eval_batch_size):
            yield self._data.standardized(split, places), self._labels[split][places]

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Metric]:
        """``loss`` and ``error``. Where a logit is not a number, the class counts as told wrongly."""
        images, labels = batch
        logits, labels = model(images).cpu().double(), labels.cpu()  # not every device has float64
        wrong = (logits.argmax(dim=1) != labels) | logits.isnan().any(dim=1)
        return {
            "loss": Metric(cross_entropy(logits, labels, reduction="sum"), len(labels)),
            "error": Metric(wrong.sum(), len(labels)),
        }

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The training images of these indices and their labels."""
        images = self._data.standardized("train", indices)
        return flipped_and_shifted(images, generator) if self._augment else images, self._labels["train"][indices]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats.

        Raises:
            UsageError: if there is one image only, and batch norm finds no variance in it.
        """
        images, labels = batch
        try:
            logits = model(images)
        except ValueError as error:
            if len(images) > 1:
                raise
            raise UsageError(
                "a training batch is of one image, which batch norm cannot normalize",
                where=WHERE,
                remedy="Give a --batch-size that does not leave one image over",
            ) from error
        return cross_entropy(logits, labels)

    @cached_property
    def _data(self) -> ImageData:
        data = read_images(None if self._path is None else path_option(self._path))
        if self._image_shape is not None and self._image_shape != data.shape:
            raise InputError(
                f"the images are of {by(data.shape)} (channels x height x width), and image_shape is "
                f"{by(self._image_shape)}",
                where=self._path,
                remedy="Leave image_shape out",
            )
        if self._num_classes is not None and self._num_classes < data.num_classes:
            raise InputError(
                f"there is an image of class {data.num_classes - 1}, and num_classes is {self._num_classes}",
                where=self._path,
                remedy=f"Leave num_classes out, or give {data.num_classes} or more",
            )
        return data

    @cached_property
    def _labels(self) -> dict[str, Tensor]:
        labels = {split: self._data.split(split).labels for split in SPLITS}
        if self._random_labels:
            classes = self._num_classes or self._data.num_classes
            generator = place_generator(RANDOM_LABELS)
            labels["train"] = torch.randint(classes, (len(labels["train"]),), generator=generator)
        return labels


def flipped_and_shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images flipped left to right with probability 1/2, and shifted by whole pixels, each on its own.

    Shifts are uniform, up to an eighth of the side and at least up to one pixel; zeros come in (He et al. 2016).

    Args:
        images: (batch, channels, height, width), on the CPU.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    flipped = torch.rand(count, generator=generator) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    most_down, most_right = max(1, height // 8), max(1, width // 8)
    down = torch.randint(2 * most_down + 1, (count, 1), generator=generator) + torch.arange(height)
    right = torch.randint(2 * most_right + 1, (count, 1), generator=generator) + torch.arange(width)
    padded = pad(images, (most_right, most_right, most_down, most_down)).permute(0, 2, 3, 1)
    shifted = padded[torch.arange(count)[:, None, None], down[:, :, None], right[:, None, :]]
    return shifted.permute(0, 3, 1, 2).contiguous()


Shape = tuple[int, int, int]
"""Channels, height, width."""

Network = Callable[[Shape, int], nn.Module]
"""Shape of the images, number of classes -> a new network."""


def network_of(model: str, width: int | None, depth: int | None, channels: tuple[int, ...] | None) -> Network:
    """A function that makes a model of these sizes, which mean what :class:`ImageClassification` says.

    Raises:
        UsageError: if there is no network of these sizes.
    """
    if model == "mlp":
        return lambda shape, classes: MLP(math.prod(shape), width or 256, depth or 4, classes)
    if model == "lenet":
        return lambda shape, classes: LeNet(shape[0], width or LENET[0], classes)
    if model == "resnet20":
        blocks, left = divmod((depth or 20) - 2, 6)
        if left or blocks < 1:
            raise UsageError(f"depth is {depth}", where=WHERE, remedy="Give 6n + 2, such as 8, 14 or 20")
        return lambda shape, classes: ResNet(shape[0], width or 16, blocks, classes)
    plan = scaled_vgg16(width or VGG16[0]) if channels is None else channels
    if channels is not None and width is not None:
        raise UsageError("both width and channels are given", where=WHERE, remedy="Give one of them")
    if min(plan, default=0) < 0 or not any(plan):
        raise UsageError(
            f"channels is {shortened(','.join(map(str, plan))) or 'empty'}",
            where=WHERE,
            remedy=f"Give numbers of channels, and {POOLING} for a pooling, such as 8,{POOLING},16",
        )
    return lambda shape, classes: VGG(shape[0], plan, classes)
