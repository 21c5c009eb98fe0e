"""A small task with everything that makes training hard to repeat: dropout, batch norm, noise, an uneven last batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.tasks.base import Metric, Recipe, slices

TRAINING_COUNT = 23
BATCH_SIZE = 5
STEPS_PER_EPOCH = 5  # the last batch holds 3 examples

ADAMW = Recipe(
    "adamw",
    lr=0.02,
    weight_decay=0.1,
    batch_size=BATCH_SIZE,
    steps=24,
    betas=(0.9, 0.95),
    clip_norm=0.5,
    schedule="cosine",
    warmup_steps=4,
    final_fraction=0.1,
)
SGD = Recipe("sgd", lr=0.05, weight_decay=1e-3, batch_size=BATCH_SIZE, epochs=5, momentum=0.9)
RECIPES = {"adamw": ADAMW, "sgd": SGD}


class TinyTask:
    """Random points in three classes."""

    splits = ("train", "val")
    training_count = TRAINING_COUNT
    config = {"model_type": "tiny"}  # noqa: RUF012 - as a user would write it

    def __init__(self, recipe: Recipe, width: int = 8) -> None:
        self.recipe = recipe
        self.width = width
        generator = torch.Generator().manual_seed(17)
        self.points = {split: torch.randn(TRAINING_COUNT, 6, generator=generator) for split in self.splits}
        self.classes = {split: torch.randint(3, (TRAINING_COUNT,), generator=generator) for split in self.splits}

    def model(self) -> nn.Module:
        width = self.width
        return nn.Sequential(
            nn.Linear(6, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 3),
        )

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in slices(TRAINING_COUNT, 7):
            yield self.points[split][indices], self.classes[split][indices]

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Metric]:
        points, classes = batch
        logits = model(points)
        return {
            "loss": Metric(cross_entropy(logits.double(), classes, reduction="sum"), len(classes)),
            "error": Metric((logits.argmax(1) != classes).sum(), len(classes)),
        }

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn(len(indices), 6, generator=generator)
        return self.points["train"][indices] + noise, self.classes["train"][indices]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        points, classes = batch
        return cross_entropy(model(points), classes)


class NotFinite(TinyTask):
    """A metric that is NaN, and a training loss that becomes NaN after a while."""

    def __init__(self, recipe: Recipe, after: int) -> None:
        super().__init__(recipe)
        self.after = after
        self.asked = 0

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Metric]:
        return {**super().metrics(model, batch), "broken": Metric(math.nan, 1)}

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.asked += 1
        return super().loss(model, batch) * (math.nan if self.asked > self.after else 1.0)


def make(optimizer: Literal["adamw", "sgd"] = "sgd", width: int = 8) -> TinyTask:
    """Named on command lines as ``tiny_training.py:make``."""
    return TinyTask(RECIPES[optimizer], width)


def make_not_finite(after: int = 8) -> NotFinite:
    """Its loss is NaN in the update after so many."""
    return NotFinite(SGD, after)


class OnlyEvaluated:
    """A task that cannot be trained."""

    splits = ("val",)

    def __init__(self) -> None:
        tiny = TinyTask(SGD)
        self.model, self.batches, self.metrics = tiny.model, tiny.batches, tiny.metrics
