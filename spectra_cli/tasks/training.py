"""The training loop: everything random in it follows from the seed and the step, so that it can go on from any step.

- Initialization: torch's global generator, seeded by the seed.
- Order of the examples of an epoch: a permutation from ``place_generator(seed, 1, epoch)``; full batches are always in
  the order of their indices.
- What is random in a training batch: ``place_generator(seed, 2, step)``.
- What is random within the model, such as dropout: torch's global generator, seeded at every step from (seed, 3, step).
- A perturbation: ``place_generator(seed, 4, matrix)``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Recipe, Task, TrainableTask, moved, place_generator
from spectra_cli.tasks.dataorder import DataOrder
from spectra_cli.tasks.determinism import repeatable, seed_everything
from spectra_cli.tasks.evaluation import batches_of_one_told, device_of, reestimate_batch_norm
from spectra_cli.tasks.loading import check_initialized
from spectra_cli.tasks.losses import LossWatch
from spectra_cli.tasks.schedules import learning_rate

MEMBERS = ("recipe", "training_count", "training_batch", "loss")
"""What a task needs to be trained, besides the members of every task."""

TOLD_EVERY_S = 0.1
"""Least time between two reports of progress."""

OTHER_BATCHES = "Give another --batch-size: the last batch of an epoch is what is left over"

Part = tuple[str, int | None]
"""A matrix by the name of its tensor, and its place in the tensor where that is a stack of matrices."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Gaussian noise on matrices, once.

    Attributes:
        eta: Frobenius norm of the noise on each matrix, as a multiple of the matrix's own.
        step: before whose checkpoint and update it is added.
        matrices: that get noise.
    """

    eta: float
    step: int
    matrices: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Course:
    """What happens in a training.

    Attributes:
        recipe: optimizer, learning rates and batches.
        training_count: number of training examples.
        total_steps: the last step.
        seed: of the order of data and of all other randomness, 0 to 2**32 - 1.
        saved: steps to save, the first and the last among them.
        masks: weights that stay 0, by name in the state dict: where a mask is False. Bool, of the weight's shape.
        perturbation: noise at some step, if any.
    """

    recipe: Recipe
    training_count: int
    total_steps: int
    seed: int
    saved: Collection[int]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    perturbation: Perturbation | None = None


class Observer(Protocol):
    """Saves the states of a training and is told how it goes on."""

    def save(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Save the state after `step` updates."""

    def progress(self, step: int, loss: float) -> None:
        """`step` updates are made, the last one from this training loss."""


def trainable(task: Task, name: str) -> TrainableTask:
    """The task, if it can be trained.

    Raises:
        InputError: if it lacks a member, or one is of another type.
    """
    own: Any = task  # of which a type checker knows only what every task has
    lacking = [member for member in MEMBERS if not hasattr(own, member)]
    if lacking:
        raise InputError(
            f"cannot be trained: it has no {', '.join(lacking)}",
            where=f"task {name}",
            remedy="Give it recipe, training_count, training_batch(indices, generator) and loss(model, batch), as "
            "spectra_cli.tasks.base.TrainableTask has them",
        )
    recipe, count = own.recipe, own.training_count
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"its recipe is a {type(recipe).__name__}",
            where=f"task {name}",
            remedy="Make it a spectra_cli.tasks.base.Recipe",
        )
    if not isinstance(count, int) or count < 1:
        raise InputError(f"its training_count is {count!r}", where=f"task {name}", remedy="Give data to train on")
    return own  # type: ignore[no-any-return]  # its members have been checked


def new_model(task: Task, seed: int) -> nn.Module:
    """A model of the task, its random weights decided by the seed alone; torch's own generators are left as they were.

    Args:
        task: that makes the model.
        seed: of torch's global generator.

    Raises:
        InputError: if a module of it is not initialized.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = task.model()
    check_initialized(model)
    return model


def make_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The optimizer of a recipe for all parameters of a model that want gradients, in the model's order.

    Raises:
        InputError: if there is none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("the model has no parameter to train", remedy="Give a model whose parameters want gradients")
    fused = all(_can_be_fused(parameter) for parameter in parameters)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
        )
    return torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=fused
    )


def _can_be_fused(parameter: Tensor) -> bool:
    """Whether torch updates it in one pass: small models train a third faster."""
    return parameter.is_floating_point() and parameter.device.type in {"cpu", "cuda"}


def perturb(
    state: Mapping[str, Tensor], perturbation: Perturbation, seed: int, masks: Mapping[str, Tensor] | None = None
) -> None:
    """Add Gaussian noise of Frobenius norm eta * ||W||_F to every matrix W, in place.

    The noise is drawn and scaled in float64 on the CPU, so that it does not depend on the device.

    Args:
        state: weights by name; what is changed here changes in the model.
        perturbation: how much, and which matrices.
        seed: of the run.
        masks: by name, of the weights' shapes: outside of them there is no noise, and that within has the whole norm.

    Raises:
        InputError: if a matrix is complex.
    """
    check_real(state, perturbation.matrices)
    with torch.no_grad():
        for place, (name, index) in enumerate(perturbation.matrices):
            mask = (masks or {}).get(name)
            if index is None:
                weight = state[name]
            else:
                weight, mask = state[name][index], None if mask is None else mask[index]
            noise = torch.randn(weight.shape, generator=place_generator(seed, 4, place), dtype=torch.float64)
            if mask is not None:
                noise.masked_fill_(~mask.cpu(), 0.0)
            norm = torch.linalg.vector_norm(noise).item()
            if not norm:
                continue  # nothing is left of the matrix
            noise *= perturbation.eta * torch.linalg.vector_norm(weight.double()).item() / norm
            weight.copy_(weight.double() + noise.to(weight.device))


def check_real(state: Mapping[str, Tensor], matrices: Sequence[Part]) -> None:
    """Check that matrices can get noise.

    Raises:
        InputError: naming the first that is complex.
    """
    for name, _ in matrices:
        if state[name].is_complex():
            raise InputError(
                f"'{name}' is complex ({str(state[name].dtype).removeprefix('torch.')}), and noise is real",
                remedy="Leave --perturb out, or train a model with real matrices",
            )


def train(
    task: TrainableTask,
    model: nn.Module,
    optimizer: Optimizer,
    course: Course,
    observer: Observer,
    *,
    start: int = 0,
    resumed: bool = False,
) -> None:
    """Train a model from one step to the end of the course.

    Within it torch's algorithms are deterministic as far as they can be (what cannot says so in a warning), and its
    global generators are seeded; both are given back as they were.

    Args:
        task: whose training batches and loss.
        model: on any device; changed in place.
        optimizer: of its parameters, on whose settings the recipe has been spent but for the learning rate.
        course: what happens when.
        observer: saves the states.
        start: updates made before.
        resumed: whether the state is that which was saved at `start`, with masks and noise in it already.

    Raises:
        DivergedError: if the loss becomes infinite or NaN; what was saved stays.
    """
    if start > course.total_steps:
        return
    with repeatable(device_of(model)):
        _Loop(task, model, optimizer, course, observer).run(start, resumed=resumed)


class _Loop:
    """The state of one call of :func:`train`."""

    def __init__(
        self, task: TrainableTask, model: nn.Module, optimizer: Optimizer, course: Course, observer: Observer
    ) -> None:
        self._task, self._model, self._optimizer = task, model, optimizer
        self._course, self._observer = course, observer
        self._device = device_of(model)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._masks = _Masks(model, course.masks)
        self._order = DataOrder(course.recipe, course.training_count, course.seed)
        self._losses = LossWatch(self._device, course.recipe)

    def run(self, start: int, *, resumed: bool) -> None:
        course, saved = self._course, frozenset(self._course.saved)
        noisy_step = course.perturbation.step if course.perturbation else None
        self._model.train()
        if not resumed and course.masks:
            self._masks.apply()
            reestimate_batch_norm(self._task, self._model)
        told, done = time.monotonic(), start
        try:
            for step in range(start, course.total_steps + 1):
                if step > start or not resumed:
                    if step == noisy_step:
                        self._perturb()
                    if step in saved:
                        self._losses.check()
                        self._observer.save(step, self._model, self._optimizer)
                        self._losses.saved = step
                if step == course.total_steps:
                    break
                self._update(step)
                done = step + 1
                now = time.monotonic()
                if now - told >= TOLD_EVERY_S:
                    told = now
                    self._observer.progress(done, self._losses.latest)
        except KeyboardInterrupt:
            self._observer.progress(done, self._losses.latest)  # whoever tells of the interruption says this step
            raise

    def _update(self, step: int) -> None:
        """One step of the optimizer; nothing here waits for a GPU."""
        course, recipe, device = self._course, self._course.recipe, self._device
        rate = learning_rate(recipe, step, course.total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        indices = self._order.indices(step)
        batch = self._task.training_batch(indices, place_generator(course.seed, 2, step))
        seed_everything(place_generator(course.seed, 3, step).initial_seed(), device)
        with batches_of_one_told(self._model, OTHER_BATCHES) if len(indices) == 1 else nullcontext():
            loss = self._task.loss(self._model, moved(batch, device))
        self._losses.add(step, loss)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if recipe.clip_norm is not None:
            self._masks.apply_to_gradients()
            nn.utils.clip_grad_norm_(self._parameters, recipe.clip_norm)
        self._optimizer.step()
        if course.masks:
            self._masks.apply()

    def _perturb(self) -> None:
        """Noise, then the statistics of batch norm for what the weights are now, as in the papers' code."""
        assert self._course.perturbation is not None  # noqa: S101 - or this is not called
        perturb(self._model.state_dict(), self._course.perturbation, self._course.seed, self._course.masks)
        self._masks.apply()
        reestimate_batch_norm(self._task, self._model)


class _Masks:
    """Weights that stay 0."""

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._outside = [(parameters[name], ~mask.to(parameters[name].device)) for name, mask in masks.items()]

    def apply(self) -> None:
        """Make the weights outside the masks 0, whatever they are."""
        with torch.no_grad():
            for parameter, outside in self._outside:
                parameter.masked_fill_(outside, 0.0)

    def apply_to_gradients(self) -> None:
        """Make their gradients 0, which count in no norm then."""
        for parameter, outside in self._outside:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(outside, 0.0)
