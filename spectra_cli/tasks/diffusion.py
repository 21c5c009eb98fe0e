"""`diffusion`: a UNet learns to tell the noise in an image (denoising diffusion, Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from spectra_cli.errors import InputError, UsageError
from spectra_cli.tasks.base import Metric, Recipe, place_generator
from spectra_cli.tasks.data.images import SPLITS, ImageData, read_images
from spectra_cli.tasks.memory import model_fits
from spectra_cli.tasks.models.unet import CHANNELS, UNet
from spectra_cli.tasks.options import COUNTS, WIDTHS, in_range, path_option, shortened

WHERE = "task diffusion"

LEAST_BETA = 1e-5
LARGEST_BETA = 0.5e-2
STEEPNESS = 6.0

TIMESTEPS = range(1, 10**6 + 1)
"""The variance that a step adds rises as a sigmoid from -6 to 6."""

SCHEDULE = frozenset({"betas", "alphas", "alphas_bar_sqrt", "one_minus_alphas_bar_sqrt"})
"""Names under which the papers' checkpoints hold the noise schedule."""


class DiffusionBatch(NamedTuple):
    """Images with noise.

    Attributes:
        noisy: (batch, channels, height, width) float32, what the model reads.
        times: (batch,) int64, from 0: how many steps of noise, less one, are in each.
        noise: as `noisy`, standard normal, what the model is to tell.
    """

    noisy: Tensor
    times: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Diffusion:
    """Image generation by a UNet and denoising diffusion (Yunis et al. 2024, after Ho et al. 2020).

    Images x are standardized per channel by the mean and the standard deviation of the training split. The model reads
    sqrt(a_t) x + sqrt(1 - a_t) e, with standard normal noise e and a time t drawn uniformly from 0 ... `timesteps` - 1,
    and tells e. There a_t is the product of 1 - b_s over s <= t, and b rises from 0.00001 to 0.005 as a sigmoid from -6
    to 6. After the papers' 1000 steps a_t is 0.08: some of the image is left.

    Metric over the images of a split: ``loss``, the mean over images of the squared error of the noise, which is itself
    a mean over an image's channels and pixels. Times and noise of an evaluation are drawn for each batch, on the CPU,
    and are the same for any model; another `eval_batch_size` or `eval_examples` makes other ones.

    Attributes:
        channels: of the four convolutions on the way down.
        embedding: width of the embedded time, even.
        timesteps: number of steps.
        data: local copy of images, see :func:`spectra_cli.tasks.data.images.read_images`; their labels are not used.
            None for 8 x 8 digits.
        image_channels: 1 for grey and 3 for coloured images; None for those of the data. Where it is given, a model can
            be made without data.
        eval_examples: metrics are over the first so many images of each split, in a fixed random order; None: all.
        eval_batch_size: largest number of images per batch of an evaluation. Batches are of nearly equal sizes.

    Raises:
        UsageError: if an option is out of its range.
    """

    channels: tuple[int, ...] = CHANNELS
    embedding: int = 512
    timesteps: int = 1000
    data: str | None = None
    image_channels: int | None = None
    eval_examples: int | None = None
    eval_batch_size: int = 500

    splits: ClassVar[tuple[str, ...]] = SPLITS
    recipe: ClassVar[Recipe] = Recipe("adamw", lr=3e-4, weight_decay=0.0, batch_size=128, epochs=100)

    def __post_init__(self) -> None:
        """Check the options."""
        if len(self.channels) != len(CHANNELS):
            raise UsageError(
                f"channels is {shortened(','.join(map(shortened, self.channels))) or 'empty'}",
                where=WHERE,
                remedy="Give those of four convolutions, such as 8,16,32,64",
            )
        in_range(
            WHERE,
            channels=(self.channels, WIDTHS),
            embedding=(self.embedding, WIDTHS),
            timesteps=(self.timesteps, TIMESTEPS),
            image_channels=(self.image_channels, WIDTHS),
            eval_examples=(self.eval_examples, COUNTS),
            eval_batch_size=(self.eval_batch_size, COUNTS),
        )
        if self.embedding % 2:
            raise UsageError(
                f"embedding is {self.embedding}", where=WHERE, remedy="Give an even number: sines, cosines"
            )

    @property
    def notice(self) -> str:
        """What a user should know before looking at numbers: what the images are."""
        given = "" if self.data is not None else "no --data was given; "
        return f"diffusion: {given}{self._images.origin}"

    @property
    def training_count(self) -> int:
        """Number of training images."""
        return len(self._images.train)

    @model_fits(WHERE)
    def model(self) -> UNet:
        """A new UNet; it takes noisy images and times to the noise."""
        return UNet(self.image_channels or self._images.shape[0], self.channels, self.embedding)

    def batches(self, split: str) -> Iterator[DiffusionBatch]:
        """Images of a split in a fixed random order, with times and noise that are drawn for each batch."""
        batches = self._images.evaluation_batches(split, self.eval_examples, self.eval_batch_size)
        for place, places in enumerate(batches):
            yield self._noised(split, places, place_generator(SPLITS.index(split), place))

    def metrics(self, model: nn.Module, batch: DiffusionBatch) -> dict[str, Metric]:
        """``loss``, the mean squared error of the noise."""
        errors = (model(batch.noisy, batch.times) - batch.noise).square().flatten(1).mean(dim=1)
        return {"loss": Metric(errors.cpu().double().sum(), len(errors))}  # not every device has float64

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> DiffusionBatch:
        """The training images of these indices, with times and noise from the generator."""
        return self._noised("train", indices, generator)

    def loss(self, model: nn.Module, batch: DiffusionBatch) -> Tensor:
        """Squared error of the noise, mean over images, channels and pixels."""
        return mse_loss(model(batch.noisy, batch.times), batch.noise)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict without the noise schedule that the papers' own checkpoints hold, and without their prefix."""
        weights = {name: tensor for name, tensor in state.items() if name not in SCHEDULE}
        wrapped = len(weights) < len(state) and all(name.startswith("model.") for name in weights)
        return {name.removeprefix("model.") if wrapped else name: tensor for name, tensor in weights.items()}

    @cached_property
    def _images(self) -> ImageData:
        images = read_images(None if self.data is None else path_option(self.data))
        if self.image_channels is not None and self.image_channels != images.shape[0]:
            raise InputError(
                f"the images have {images.shape[0]} channels, and image_channels is {self.image_channels}",
                where=self.data,
                remedy="Leave image_channels out",
            )
        return images

    @cached_property
    def _signal(self) -> Tensor:
        """a_t, (timesteps,) float64."""
        return (1 - betas(self.timesteps)).cumprod(dim=0)

    def _noised(self, split: str, places: Tensor, generator: torch.Generator) -> DiffusionBatch:
        images = self._images.standardized(split, places)
        times = torch.randint(self.timesteps, (len(images),), generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        signal = self._signal[times][:, None, None, None]
        return DiffusionBatch(signal.sqrt().float() * images + (1 - signal).sqrt().float() * noise, times, noise)


def betas(timesteps: int) -> Tensor:
    """The variance that each step adds, (timesteps,) float64: from 0.00001 to 0.005, a sigmoid from -6 to 6."""
    sigmoid = torch.linspace(-STEEPNESS, STEEPNESS, timesteps, dtype=torch.float64).sigmoid()
    return LEAST_BETA + (LARGEST_BETA - LEAST_BETA) * sigmoid
