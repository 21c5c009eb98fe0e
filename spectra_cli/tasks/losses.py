"""Watches over the training loss: what is infinite or NaN once stays so."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectra_cli.errors import SpectraError
from spectra_cli.tasks.base import Recipe

UNCHECKED = 64
"""Losses that may wait on a GPU until they are looked at: asking for one makes the whole queue of work wait."""


class DivergedError(SpectraError):
    """The loss became infinite or NaN."""

    status = "diverged"


class LossWatch:
    """Sees the loss of every step: at once on a CPU, a few dozen steps late on a GPU, and before anything is saved.

    Args:
        device: where the losses are.
        recipe: what an error suggests to change.

    Attributes:
        latest: the last loss that has been looked at.
        saved: the last step that was saved, for errors; whoever saves sets it.
    """

    def __init__(self, device: torch.device, recipe: Recipe) -> None:
        self._patience = 1 if device.type == "cpu" else UNCHECKED
        self._recipe = recipe
        self._waiting: list[tuple[int, Tensor]] = []
        self.latest = math.nan
        self.saved: int | None = None

    def add(self, step: int, loss: Tensor) -> None:
        """Take the loss of the update after `step` updates.

        Raises:
            DivergedError: if it, or one that has waited, is not finite.
        """
        if self._patience == 1:
            self.latest = loss.item()
            if not math.isfinite(self.latest):
                raise self._diverged(step, self.latest)
            return
        self._waiting.append((step, loss.detach()))
        if len(self._waiting) >= self._patience:
            self.check()

    def check(self) -> None:
        """Look at all losses that wait.

        Raises:
            DivergedError: naming the first that is not finite.
        """
        if not self._waiting:
            return
        values = torch.stack([loss for _, loss in self._waiting]).tolist()
        for (step, _), value in zip(self._waiting, values, strict=True):
            if not math.isfinite(value):
                raise self._diverged(step, value)
        self.latest = values[-1]
        self._waiting.clear()

    def _diverged(self, step: int, value: float) -> DivergedError:
        rate, clip = self._recipe.lr, self._recipe.clip_norm
        remedy = f"Try a smaller --lr than {rate:g}"
        if clip is None:
            remedy += ", or a recipe that clips gradients"
        kept = "" if self.saved is None else f"; what was saved until step {self.saved} stays"
        return DivergedError(f"the training loss is {value} at step {step}{kept}", remedy=remedy)
