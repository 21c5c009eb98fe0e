"""What a task is: a model, data in batches, and metrics whose means over a split are exact.

A task of your own is any object with the four members of :class:`Task`, made by a function that the command line
names::

    spectra prune-eval runs/a --task mytask.py:make --set width=64
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spectra_cli.errors import UsageError
from spectra_cli.tasks.options import shortened

MOST_STEPS = 10**12
"""Limit for a training; also for its epochs, and for examples per step."""

Batch = Any
"""What a task hands to its own metrics: a tensor, or tuples, lists and dictionaries of tensors and other values."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The part of one batch in a mean over a split: sums over all batches are divided only at the end.

    Attributes:
        total: what the batch adds to the sum, such as a loss summed over examples.
        count: what it adds to the number the sum is divided by: examples, tokens, characters of the reference.
        scale: ``mean`` for total / count; ``exp`` for exp(total / count), as a perplexity is of a mean loss.
    """

    total: float | Tensor
    count: int | Tensor
    scale: Literal["mean", "exp"] = "mean"


@runtime_checkable
class Task(Protocol):
    """A model, data and metrics.

    Attributes:
        splits: names of the parts of the data; the first is the one that the model is trained on.
    """

    splits: Sequence[str]

    def model(self) -> nn.Module:
        """A new model, its weights random from torch's global generator."""
        ...

    def batches(self, split: str) -> Iterable[Batch]:
        """The batches of a split: the same ones in the same order every time, on the CPU.

        What is random in an evaluation (the times and the noise of a diffusion model) is part of the batch, drawn from
        a generator that is seeded by the batch's place, so that any two models meet the same draw.
        """
        ...

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Metric]:
        """What one batch adds to every metric.

        Args:
            model: in evaluation mode; no gradients are recorded.
            batch: one of those that :meth:`batches` yields, on the model's device.
        """
        ...


@runtime_checkable
class TrainableTask(Task, Protocol):
    """A task that `spectra train` can train.

    Attributes:
        recipe: how it is trained unless the user says otherwise.
        training_count: number of training examples, N.
    """

    recipe: Recipe
    training_count: int

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The training examples of these indices, on the CPU.

        Args:
            indices: (batch,) int64 in [0, N).
            generator: on the CPU; for all that is random in the batch (noise, crops). It is seeded by the run's seed
                and the step, so that training resumed at any step draws what it would have drawn.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The scalar to minimize.

        Args:
            model: in training mode.
            batch: one that :meth:`training_batch` made, on the model's device.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a task is trained.

    Attributes:
        optimizer: AdamW (Loshchilov and Hutter 2019) or stochastic gradient descent.
        lr: peak learning rate.
        weight_decay: of all parameters.
        batch_size: examples per step; None for all of them (full batch).
        steps: length of training; None if `epochs` says it.
        epochs: length of training; None if `steps` says it.
        betas: of AdamW.
        momentum: of stochastic gradient descent.
        clip_norm: largest norm of the whole gradient; None for no limit.
        schedule: of the learning rate after the warm-up: ``constant``; ``cosine``, half a cosine from `lr` to
            `final_fraction` of it at the end; ``step``, times `gamma` at each of the `milestones`.
        warmup_steps: over which the learning rate grows linearly from 0 to `lr`.
        final_fraction: of `lr`, at the end of a cosine.
        milestones: fractions of the whole length, ascending.
        gamma: factor at each milestone.
    """

    optimizer: Literal["adamw", "sgd"]
    lr: float
    weight_decay: float = 0.0
    batch_size: int | None = None
    steps: int | None = None
    epochs: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.0
    clip_norm: float | None = None
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        """Check all values: a recipe may come from a run.json.

        Raises:
            UsageError: naming the first that cannot be trained with.
        """
        for name, choices in {"optimizer": ("adamw", "sgd"), "schedule": ("constant", "cosine", "step")}.items():
            if getattr(self, name) not in choices:
                raise _wrong(name, getattr(self, name), f"Take one of {', '.join(choices)}")
        for name in ("lr", "weight_decay", "momentum", "warmup_steps", "final_fraction", "gamma"):
            if not _is_number(getattr(self, name)):
                raise _wrong(name, getattr(self, name), "Give a number of 0 or more")
        for name in ("batch_size", "steps", "epochs", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not _is_count(value, 0 if name == "warmup_steps" else 1):
                raise _wrong(name, value, f"Give a whole number up to {MOST_STEPS}")
        if self.clip_norm is not None and not (_is_number(self.clip_norm) and self.clip_norm > 0):
            raise _wrong("clip_norm", self.clip_norm, "Give a number above 0, or none for no limit")
        betas, milestones = _numbers(self.betas), _numbers(self.milestones)
        if betas is None or len(betas) != 2 or max(betas) >= 1:
            raise _wrong("betas", self.betas, "Give two numbers of at least 0 and below 1")
        if milestones is None or max(milestones, default=0) > 1 or milestones != sorted(milestones):
            raise _wrong("milestones", self.milestones, "Give fractions of the length from 0 to 1, ascending")

    def steps_per_epoch(self, training_count: int) -> int:
        """Steps in which every training example is seen once; the last one may be of a smaller batch."""
        return 1 if self.batch_size is None else math.ceil(training_count / self.batch_size)

    def total_steps(self, training_count: int) -> int:
        """Length of the whole training in steps."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or 0) * self.steps_per_epoch(training_count)


def _wrong(name: str, value: object, remedy: str) -> UsageError:
    return UsageError(f"{name} is {shortened(value)}", where="recipe", remedy=remedy)


def _is_number(value: object) -> bool:
    """Whether it is finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value <= sys.float_info.max


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_STEPS


def _numbers(values: object) -> list[float] | None:
    """Numbers of a tuple or list; None if there is anything else in it."""
    if not isinstance(values, (tuple, list)) or not all(map(_is_number, values)):
        return None
    return list(values)


MakeTask = Callable[..., Task]
"""What an entry point of the group ``spectra.tasks`` is: options by keyword -> a task.

The options are the parameters of the callable, with their types and defaults: `--set width=64` becomes ``width=64``.
"""


def slices(count: int, batch_size: int) -> Iterator[Tensor]:
    """Indices 0 ... count - 1 in consecutive batches, (batch_size,) int64 each; the last one may be shorter."""
    for start in range(0, count, batch_size):
        yield torch.arange(start, min(start + batch_size, count))


def place_generator(*place: int) -> torch.Generator:
    """A generator on the CPU that is seeded by a place, such as (seed, epoch) or (split, batch): no two share a stream.

    Args:
        place: non-negative integers below 2**32.
    """
    seed = 0
    for part in place:  # the finalizer of SplitMix64 (Steele, Lea, Flood 2014) after every part
        seed = (seed + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        seed = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        seed = ((seed ^ (seed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        seed ^= seed >> 31
    generator = torch.Generator()
    generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    return generator


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch with all its tensors on a device; tuples, named tuples, lists and dictionaries stay what they are."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple):
        values = [moved(value, device) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else tuple(values)
    if isinstance(batch, list):
        return [moved(value, device) for value in batch]
    return batch
