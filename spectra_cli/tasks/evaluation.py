"""Metrics of a model over a split, and the statistics of its batch normalization."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Metric, Task, moved
from spectra_cli.tasks.determinism import seeded

SEED = 0
"""Seed of torch's global generators, for batches and metrics that draw numbers without a generator of their own."""

MOST_COUNTED = 2**62
"""Examples, tokens or characters of a batch; tables hold whole numbers of 64 bits."""

LARGER_BATCHES = "Give larger batches (--set eval_batch_size=N, where the task has it)"


@dataclass(frozen=True, slots=True)
class Value:
    """A metric over a split.

    Attributes:
        value: the mean (or its exponential); NaN where there was nothing to take a mean over.
        count: number of examples, tokens or characters that the mean is over.
    """

    value: float
    count: int

    @property
    def status(self) -> str:
        """``ok``, ``not_finite``, or ``empty`` where the count is 0."""
        if self.count == 0:
            return "empty"
        return "ok" if math.isfinite(self.value) else "not_finite"


def evaluate(task: Task, model: nn.Module, split: str) -> dict[str, Value]:
    """The metrics of a model over all batches of a split, exact whatever the sizes of the batches.

    torch's global generators are seeded for it, so that the values do not depend on what was drawn before, and given
    back as they were.

    Args:
        task: whose batches and metrics.
        model: on any device; its mode (training or evaluation) is given back as it was.
        split: one of the task's.

    Raises:
        InputError: if the split has no batch, what metrics() gives are no metrics, or batch normalization without
            running statistics meets a batch of one.
    """
    totals: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    scales: dict[str, str] = {}
    device = device_of(model)
    empty = True
    with evaluating(model), torch.no_grad(), seeded(SEED, device), batches_of_one_told(model, LARGER_BATCHES):
        for batch in task.batches(split):
            empty = False
            for name, total, count, scale in _parts(task.metrics(model, moved(batch, device))):
                totals[name].append(total)
                counts[name] += count
                scales[name] = scale
    if empty:
        raise _no_batch(split)
    if not totals:
        raise InputError("metrics() gives nothing", remedy="Return a dictionary of spectra_cli.tasks.base.Metric")
    return {name: Value(_mean(totals[name], counts[name], scales[name]), counts[name]) for name in totals}


def _no_batch(split: str) -> InputError:
    return InputError(f"the split '{split}' has no batch", remedy="Give data that have examples of it")


def _parts(metrics: object) -> Iterator[tuple[str, float, int, str]]:
    """Name, total, count and scale of every metric of a batch.

    Raises:
        InputError: if what a task gives is not what :meth:`Task.metrics` promises.
    """
    if not isinstance(metrics, Mapping):
        raise InputError(
            f"metrics() gives a {type(metrics).__name__}", remedy="Return a dictionary of spectra_cli.tasks.base.Metric"
        )
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise InputError(f"metrics() gives a metric the name {name!r}", remedy="Name it by a string")
        if not isinstance(metric, Metric):
            raise InputError(
                f"metrics() gives '{name}' as {type(metric).__name__}",
                remedy="Wrap it as spectra_cli.tasks.base.Metric(total, count)",
            )
        try:
            total, exact = float(metric.total), float(metric.count)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # RuntimeError: a tensor of several
            raise InputError(
                f"metrics() gives '{name}' with a total or a count that is no number: {error}",
                remedy="Give the sum over the batch",
            ) from error
        if not 0 <= exact < MOST_COUNTED or not exact.is_integer():
            raise InputError(
                f"metrics() gives '{name}' with a count of {exact:g}", remedy="Count examples, tokens or characters"
            )
        if not isinstance(metric.scale, str) or metric.scale not in {"mean", "exp"}:
            raise InputError(f"metrics() gives '{name}' the scale '{metric.scale}'", remedy="Give mean or exp")
        yield name, total, int(exact), metric.scale


def _mean(totals: list[float], count: int, scale: str) -> float:
    if count == 0:
        return math.nan
    try:
        mean = math.fsum(totals) / count
        return math.exp(mean) if scale == "exp" else mean
    except (OverflowError, ValueError):  # infinities of both signs, or an exponential beyond float64
        total = sum(totals)
        return total if math.isnan(total) else math.inf


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch normalization with running statistics."""
    return bool(_layers_with_statistics(model))


def _layers_with_statistics(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def reestimate_batch_norm(task: Task, model: nn.Module) -> bool:
    """Replace the running statistics of batch normalization by those of the training split.

    Every statistic becomes the mean over batches of the batch's own mean and (unbiased) variance, as
    ``torch.optim.swa_utils.update_bn`` has it: what the papers do after every change of weights. All other layers, such
    as dropout, stay in evaluation mode. A batch that gives a layer one value per channel, as a last batch of one
    example may, has no variance: there the layer normalizes by what it has estimated so far, and learns nothing.
    torch's global generators are seeded for it as in :func:`evaluate`.

    Args:
        task: whose first split is the training split.
        model: changed in place.

    Returns:
        Whether there was any batch normalization with running statistics.

    Raises:
        InputError: if there is no batch, none with more than one value per channel, or a batch of one for a layer
            without running statistics.
    """
    layers = _layers_with_statistics(model)
    if not layers:
        return False
    split, device, empty = task.splits[0], device_of(model), True
    momenta = [layer.momentum for layer in layers]
    single: set[_BatchNorm] = set()

    def pass_over(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        several = _values_per_channel(inputs) > 1
        layer.train(several)
        if not several and isinstance(layer, _BatchNorm):
            single.add(layer)

    hooks = [layer.register_forward_pre_hook(pass_over) for layer in layers]
    told = batches_of_one_told(model, LARGER_BATCHES)
    with evaluating(model), torch.no_grad(), seeded(SEED, device), told:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative average
        try:
            for batch in task.batches(split):
                empty = False
                task.metrics(model, moved(batch, device))
        finally:
            for layer, momentum, hook in zip(layers, momenta, hooks, strict=True):
                layer.momentum = momentum
                hook.remove()
    if empty:
        raise _no_batch(split)
    if any(not layer.num_batches_tracked for layer in single):
        raise InputError(
            f"in all batches of '{split}' batch normalization has one value per channel, which has no variance",
            remedy="Give larger batches, or keep the statistics of the checkpoint",
        )
    return True


@contextmanager
def batches_of_one_told(model: nn.Module, remedy: str) -> Iterator[None]:
    """Say which layer it is that cannot normalize a batch by its own statistics.

    Args:
        model: whose layers of batch normalization are watched within.
        remedy: of the error.

    Raises:
        InputError: where a layer gets one value per channel, which has no variance; before torch raises.
    """

    def look(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        estimated = isinstance(layer, _BatchNorm) and (layer.running_mean is not None or layer.running_var is not None)
        if (layer.training or not estimated) and _values_per_channel(inputs) == 1:
            raise InputError(
                f"layer '{name}' ({type(layer).__name__}) cannot normalize a batch of one: a single value per channel "
                "has no variance",
                remedy=remedy,
            )

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    hooks = [layer.register_forward_pre_hook(partial(look, name)) for name, layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _values_per_channel(inputs: tuple[Any, ...]) -> float:
    """Values per channel in the input of batch normalization; infinite for input it refuses, which torch will tell."""
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].ndim < 2 or not inputs[0].shape[1]:
        return math.inf
    return inputs[0].numel() / inputs[0].shape[1]


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU for a model without any."""
    tensors: Iterator[Tensor] = iter([*model.parameters(), *model.buffers()][:1])
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
