"""Tasks and their models in a worker, each made once for many uses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from spectra_cli.errors import MemoryBudgetError, SpectraError
from spectra_cli.execution.evaluation.taskruns import ChosenTask
from spectra_cli.execution.work.events import Remark
from spectra_cli.tasks.base import Task
from spectra_cli.tasks.training import new_model

TURN = threading.RLock()
"""Lock held while task code runs: random numbers, standard output and the places of modules are the whole process's."""


class ModelPool:
    """Tasks and their models: each is made once for all uses that are in sight.

    After the last of these it is kept until another one is made or asked for, as more uses of it may come in sight. One
    model at a time is on the device; others that will be needed again wait on the CPU.

    Args:
        device: where models work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._left: Counter[str] = Counter()
        self._left_models: Counter[tuple[str, int]] = Counter()
        self._tasks: dict[str, Task] = {}
        self._errors: dict[str, SpectraError] = {}
        self._models: dict[tuple[str, int], nn.Module] = {}

    def expect(self, uses: Iterable[ChosenTask]) -> None:
        """Make the tasks of uses to come, all at once, as an error in the options should come before work.

        Args:
            uses: the task of each; those expected before are over.
        """
        uses = list(uses)
        if not uses:
            return
        self._left = Counter(chosen.key for chosen in uses)
        self._left_models = Counter(chosen.model_key for chosen in uses)
        self._forget()
        for chosen in uses:
            if chosen.key not in self._tasks and chosen.key not in self._errors:
                try:
                    self._tasks[chosen.key] = chosen.make()
                except SpectraError as error:
                    self._errors[chosen.key] = error

    def task(self, chosen: ChosenTask) -> Task:
        """The task itself, which is expected.

        Raises:
            SpectraError: if it cannot be made.
        """
        if chosen.key in self._errors:
            raise self._errors[chosen.key]
        return self._tasks[chosen.key]

    def model(self, chosen: ChosenTask) -> nn.Module:
        """Its model on the device, in evaluation mode; with the weights that it was left with, random ones at first.

        What is random in a model and in no checkpoint (buffers that are not saved) is what it was in training.

        Raises:
            MemoryBudgetError: if the device has no room for it.
            SpectraError: if the task's code raises.
        """
        self._forget()
        for key, other in self._models.items():
            if key != chosen.model_key:
                other.to("cpu")
        if chosen.model_key not in self._models:
            self._models[chosen.model_key] = new_model(self._tasks[chosen.key], chosen.seed)
        try:
            return self._models[chosen.model_key].to(self._device).eval()
        except torch.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"the model does not fit on {self._device}", where=f"task {chosen.name}", remedy="Give --device cpu"
            ) from error

    def used(self, chosen: ChosenTask) -> None:
        """Count a use."""
        self._left[chosen.key] -= 1
        self._left_models[chosen.model_key] -= 1

    def close(self) -> None:
        """Let go of everything."""
        self._left.clear()
        self._left_models.clear()
        self._forget()

    def _forget(self) -> None:
        """Let go of what no use is in sight of."""
        for model in [key for key in self._models if self._left_models[key] <= 0]:
            del self._models[model]
        for held in (self._tasks, self._errors):
            for task in [key for key in held if self._left[key] <= 0]:
                del held[task]


def notices_of(task: Task) -> list[Remark]:
    """What a task says of itself (its `notice`), such as where its data come from."""
    notice = getattr(task, "notice", None)
    return [Remark(notice, "notice")] if isinstance(notice, str) and notice else []
