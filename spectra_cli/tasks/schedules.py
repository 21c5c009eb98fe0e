"""What a recipe and the length of a training decide of every step: its learning rate, and whether it is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable

from spectra_cli.tasks.base import Recipe

IN_FIRST_EPOCH = 5
"""Steps of the first epoch that are saved: the papers' own choice, as spectra move most there."""

INTERVALS = 20
"""Checkpoints that the default interval makes, at most."""


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """Learning rate of the update that leads from `step` to `step` + 1.

    Through the warm-up it is lr * step / warmup_steps, so that the very first update has none. After it:

    - ``constant``: lr.
    - ``cosine``: lr * (f + (1 - f) (1 + cos(pi t)) / 2), with f the final fraction and t the share that is over of the
      steps after the warm-up (Loshchilov and Hutter 2017, Eq. 5, without restarts).
    - ``step``: lr * gamma^k, with k the number of milestones at or before step / total_steps.

    Args:
        recipe: how the task is trained.
        step: updates made before this one.
        total_steps: length of the whole training.
    """
    if step < recipe.warmup_steps:
        return recipe.lr * step / recipe.warmup_steps
    if recipe.schedule == "cosine":
        share = (step - recipe.warmup_steps) / max(total_steps - recipe.warmup_steps, 1)
        falling = (1.0 + math.cos(math.pi * min(share, 1.0))) / 2.0
        return recipe.lr * (recipe.final_fraction + (1.0 - recipe.final_fraction) * falling)
    if recipe.schedule == "step":
        passed = sum(step / total_steps >= milestone for milestone in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    return recipe.lr


def depends_on_length(recipe: Recipe) -> bool:
    """Whether another length would give other learning rates, so that a training cannot simply go on."""
    return recipe.schedule != "constant"


def saved_steps(
    total_steps: int,
    steps_per_epoch: int,
    *,
    first: int = 0,
    every: int | None = None,
    log_spaced: int | None = None,
    also: Iterable[int] = (),
) -> tuple[int, ...]:
    """The steps whose weights are saved, ascending.

    Always the first and the last one. Between them five evenly spaced through the first epoch, as far as it has that
    many, and every multiple of an interval; or else some that are evenly spaced in log(step). None of these depends on
    where the training begins, so that a run and its branches have their steps in common.

    Args:
        total_steps: the last step.
        steps_per_epoch: in which every training example is seen once.
        first: where the training begins: 0, or the step of a branch.
        every: the interval in steps; None for :func:`default_interval`.
        log_spaced: number of steps from 1 to the last; replaces the first epoch's and the interval's.
        also: steps that are saved whatever the spacing.
    """
    if log_spaced is not None:
        most = max(log_spaced - 1, 1)
        steps = {round(math.exp(math.log(total_steps) * part / most)) for part in range(log_spaced)}
    else:
        steps = {
            (2 * part * steps_per_epoch + IN_FIRST_EPOCH) // (2 * IN_FIRST_EPOCH)  # rounded
            for part in range(1, IN_FIRST_EPOCH + 1)
        }
        steps |= set(range(0, total_steps, every or default_interval(total_steps)))
    steps |= {first, total_steps, *also}
    return tuple(sorted(step for step in steps if first <= step <= total_steps))


def default_interval(total_steps: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that is a twentieth of the length or more."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if INTERVALS * digit * power >= total_steps:
                return digit * power
        power *= 10
