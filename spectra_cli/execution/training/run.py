"""`spectra train`: a directory of checkpoints, with their metrics and all that it takes to go on after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from spectra_cli.analyses.models import matrices_of_model
from spectra_cli.errors import InputError
from spectra_cli.execution.evaluation.taskruns import model_seed
from spectra_cli.execution.training.origins import digest_of, load_origin, make_masks, perturbed_parts
from spectra_cli.execution.training.plan import TrainingPlan
from spectra_cli.execution.training.record import FIRST_BATCH, recipe_of
from spectra_cli.execution.training.saver import METRICS, Beginning, Row, Saver, TrainingListener, read_metrics
from spectra_cli.spectrum.gram import full_float32
from spectra_cli.tables.directories import make_directory
from spectra_cli.tasks.dataorder import first_batch_digest
from spectra_cli.tasks.loading import load_strictly
from spectra_cli.tasks.memory import is_out_of_memory
from spectra_cli.tasks.outputs import called_last
from spectra_cli.tasks.runfile import NAME
from spectra_cli.tasks.saving import save_state
from spectra_cli.tasks.states import OPTIMIZER, OptimizerState, StateFiles, restore_optimizer
from spectra_cli.tasks.training import Course, Perturbation, check_real, make_optimizer, new_model, train

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """A finished training.

    Attributes:
        rows: of its metrics.parquet.
        steps: whose weights are there, ascending.
        start: the step that this command began at; None if there was nothing left to do.
    """

    rows: Sequence[Row]
    steps: Sequence[int]
    start: int | None


def run_training(plan: TrainingPlan, listener: TrainingListener, command: Sequence[str]) -> TrainingResult:
    """Train, from the beginning or from the step that was saved last.

    Args:
        plan: what to do.
        listener: told how it goes on.
        command: the command line, for the metadata of the metrics.

    Raises:
        SpectraError: if it cannot be done; what was saved stays.
    """
    out = plan.options.out
    make_directory(out, parents=True)
    files = StateFiles(out, each_optimizer=plan.options.save_optimizer)
    with files.exclusively(), _threads(plan.threads), _told_errors():
        state = files.load_optimizer() if plan.existing else None
        rows = read_metrics(out / METRICS) if plan.existing else []
        if plan.existing and _is_finished(plan, files, state, rows):
            return TrainingResult(rows, files.steps(), None)
        for message in plan.remarks:
            listener.problem(message)
        files.clean()
        start = plan.first_step if state is None else state.step
        rows = [row for row in rows if state is not None and row["step"] <= start]
        if state is not None and not any(row["step"] == start for row in rows):
            listener.problem(f"{METRICS} lacks step {start}: it will hold the steps after it only.")
        _train(plan, listener, Saver(plan, listener, files, rows, command), state)
        return TrainingResult(rows, files.steps(), start)


def _train(plan: TrainingPlan, listener: TrainingListener, saver: Saver, state: OptimizerState | None) -> None:
    """Make the model, bring it to where the training begins, and train."""
    notice = getattr(plan.task, "notice", None)
    if notice:
        listener.notice(str(notice))
    trunk = plan.trunk
    seed = plan.seed if trunk is None else model_seed(trunk.record, trunk.origin.run.root)
    model = new_model(plan.task, seed)
    moments = state
    if state is not None:
        load_strictly(plan.task, model, [saver.files.load_weights(state.step)])
    elif trunk is not None:
        load_origin(trunk.origin, plan.task, model)
        moments = trunk.optimizer_state()
        if moments is None and _has_memory(plan):
            listener.problem(
                f"the optimizer's state at step {plan.first_step} of the trunk was not kept: its moments begin at "
                "zero. Train trunks with --save-optimizer to go on as they did."
            )
    first_batch = _first_batch(plan, listener)
    masks = _masks(plan, model)
    _write_record(plan, masks, first_batch)
    model.to(plan.device)
    optimizer = make_optimizer(plan.recipe, model)
    if moments is not None:
        restore_optimizer(optimizer, model, moments, where=str(saver.files.run))
    course = Course(
        plan.recipe,
        plan.task.training_count,
        plan.total_steps,
        plan.seed,
        frozenset(plan.saved),
        masks,
        _perturbation(plan, model),
    )
    start = plan.first_step if state is None else state.step
    listener.began(_beginning(plan, model, start, resumed=state is not None))
    with full_float32():
        train(plan.task, model, optimizer, course, saver, start=start, resumed=state is not None)


def _is_finished(plan: TrainingPlan, files: StateFiles, state: OptimizerState | None, rows: Sequence[Row]) -> bool:
    """Whether nothing is left to do.

    Raises:
        InputError: if there is something left, and nothing to go on from.
    """
    if state is not None:
        return state.step >= plan.total_steps
    steps = files.steps()
    if steps and steps[-1] == plan.total_steps and any(row["step"] == steps[-1] for row in rows):
        return True  # its owner has removed what is no longer needed
    if len(steps) > 1:
        raise InputError(
            f"it has weights up to step {steps[-1]} and no {OPTIMIZER}, without which it cannot go on",
            where=str(files.run),
            remedy="Restore the file, or train anew with another --out",
        )
    return False


def _masks(plan: TrainingPlan, model: nn.Module) -> Mapping[str, Tensor]:
    if plan.options.mask is None or plan.mask_origin is None:
        return {}
    return make_masks(
        plan.options.mask,
        plan.mask_origin,
        plan.task,
        model,
        plan.options.output_layer,
        options=plan.record.options,
    )


def _first_batch(plan: TrainingPlan, listener: TrainingListener) -> str | None:
    """The digest of the first training batch for run.json; None where it is not repeatable, or was not noted.

    Raises:
        InputError: if the run that goes on began with another.
    """
    if plan.existing is not None:
        before = plan.existing.training.get(FIRST_BATCH)
        if before is not None and before != first_batch_digest(plan.task, plan.recipe, plan.seed):
            raise InputError(
                "the first training batch is not the one that the run began with: the data or the task's code changed",
                where=str(plan.options.out),
                remedy="Restore them, or give another --out. If only torch or the machine is another one, and its last "
                f'bits differ, remove "{FIRST_BATCH}" from {NAME}',
            )
        return before
    digest = first_batch_digest(plan.task, plan.recipe, plan.seed)
    if digest != first_batch_digest(plan.task, plan.recipe, plan.seed):
        listener.problem(
            "training_batch gives another batch for the same indices and generator: no training of it can be repeated, "
            "or go on bit for bit."
        )
        return None
    if plan.trunk is not None:
        of_trunk = plan.trunk.record
        before = of_trunk.training.get(FIRST_BATCH)
        recipe = recipe_of(of_trunk, str(plan.trunk.origin.run.root / NAME)) or plan.recipe
        if before is not None and before != first_batch_digest(plan.task, recipe, of_trunk.seed or 0):
            listener.problem("the data or the task's code are not what the trunk began with: its first batch differs.")
    return digest


def _write_record(plan: TrainingPlan, masks: Mapping[str, Tensor], first_batch: str | None) -> None:
    """Write run.json and config.json.

    Raises:
        InputError: if the masks are not those that the run began with, or a file cannot be written.
    """
    out, training = plan.options.out, dict(plan.record.training)
    if first_batch is not None:
        training[FIRST_BATCH] = first_batch
    if masks:
        training["mask_digest"] = digest_of(masks)
        if plan.existing and plan.existing.training.get("mask_digest") != training["mask_digest"]:
            raise InputError(
                "the mask is not the one that the run began with: the weights that give it have changed",
                where=str(out),
                remedy="Restore the run that --mask-from names, or give another --out",
            )
    if plan.existing:  # what it began with stays, but for the length
        training["environment"] = plan.existing.training.get("environment")
    try:
        replace(plan.record, training=training).write(out)
        config = getattr(plan.task, "config", None)
        if config:
            text = json.dumps(dict(config), indent=2) + "\n"

            def write(path: Path) -> None:
                path.write_text(text)

            save_state(out / CONFIG, write)
    except OSError as error:
        raise InputError(f"{NAME} cannot be written: {error.strerror}", where=str(out)) from error


def _perturbation(plan: TrainingPlan, model: nn.Module) -> Perturbation | None:
    noise = plan.options.perturb
    if noise is None:
        return None
    config = getattr(plan.task, "config", None)
    matrices = matrices_of_model(
        model,
        config=config,
        output_layer=plan.options.output_layer,
        called_last=partial(called_last, plan.task, model),
    )
    parts = perturbed_parts(matrices, model)
    check_real(model.state_dict(), parts)
    return Perturbation(noise.eta, noise.step, parts)


def _beginning(plan: TrainingPlan, model: nn.Module, start: int, *, resumed: bool) -> Beginning:
    return Beginning(
        start,
        plan.total_steps,
        resumed,
        sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        sum(step > start or not resumed for step in plan.saved if step >= start),
        sum(
            tensor.numel() * tensor.element_size()
            for tensor in model.state_dict().values()
            if isinstance(tensor, Tensor)
        ),
    )


def _has_memory(plan: TrainingPlan) -> bool:
    """Whether the optimizer of the trunk remembered anything where the branch begins."""
    return plan.first_step > 0 and (plan.recipe.optimizer == "adamw" or plan.recipe.momentum != 0)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _told_errors() -> Iterator[None]:
    """Say what to do where memory runs out.

    Raises:
        InputError: in place of torch's errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            "memory ran out in training; what was saved stays",
            remedy="Give a smaller --batch-size, or a smaller model",
        ) from error
