"""Where a training begins: its own initialization or a checkpoint of another run, with masks and noise on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spectra_cli.analyses.models import ModelMatrices
from spectra_cli.analyses.parametrized import parametrized_weights
from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.evaluation.modelloading import load_model, load_weights
from spectra_cli.execution.planning.options import Options
from spectra_cli.execution.planning.plan import only_run
from spectra_cli.execution.training.options import MaskChoice
from spectra_cli.execution.training.record import recorded_options
from spectra_cli.spectrum.prune import magnitude_masks, random_masks
from spectra_cli.storage.places import relative_name
from spectra_cli.tasks.base import Task
from spectra_cli.tasks.loading import StateMismatchError
from spectra_cli.tasks.names import same_task
from spectra_cli.tasks.runfile import DATA, NAME, RunRecord, check_own_storage, read_record
from spectra_cli.tasks.states import OptimizerState, StateFiles
from spectra_cli.tasks.training import Part, new_model


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint of another run.

    Attributes:
        run: that holds it.
        checkpoint: the one.
        step: of it.
    """

    run: Run
    checkpoint: Checkpoint
    step: int

    def named_from(self, directory: Path) -> str:
        """The run's path, relative to another run's directory; its URL if it is in remote storage."""
        return relative_name(self.run.root.resolve(), directory.resolve())


@dataclass(frozen=True, slots=True)
class Trunk:
    """The run that a branch goes on from, or that a mask's weights are rewound to."""

    origin: Origin
    record: RunRecord

    def optimizer_state(self) -> OptimizerState | None:
        """What its optimizer remembered there; None where it was not kept."""
        root = self.origin.run.root
        return StateFiles(root).load_optimizer(self.origin.step) if isinstance(root, Path) else None


def find_origin(given: str, flag: str, *, final: bool = False) -> Origin:
    """The checkpoint that ``RUN@STEP`` means.

    Args:
        given: as the user wrote it.
        flag: the option.
        final: whether a run without a step means its last checkpoint.

    Raises:
        UsageError: if no step is said and one must be.
        InputError: if there is no such checkpoint.
    """
    run = only_run(discover(given), given)
    if len(run.checkpoints) > 1 and not final:
        raise UsageError(
            f"{flag} {given} names a run of {len(run.checkpoints)} checkpoints",
            remedy=f"Name one of them, such as {given}@{run.checkpoints[-1].step}",
        )
    checkpoint = run.checkpoints[-1]
    if checkpoint.step is None:
        raise InputError("its step is not known", where=str(checkpoint.path), remedy="Name it step_N")
    return Origin(run, checkpoint, checkpoint.step)


def find_trunk(given: str, flag: str) -> Trunk:
    """The run and step that a training goes on from.

    Raises:
        InputError: if the run does not say what it was trained on.
        UsageError: as :func:`find_origin`.
    """
    origin = find_origin(given, flag)
    if not isinstance(origin.run.root, Path):  # its optimizer state is read where it is, and its files stay open
        raise InputError(
            "a run in remote storage cannot be trained on", where=given, remedy="Copy it to this machine first"
        )
    record = read_record(origin.run.root)
    if record is None:
        raise InputError(
            f"there is no {NAME} that says what the run was trained on",
            where=str(origin.run.root),
            remedy=f"Give {flag} a run that `spectra train` made",
        )
    return Trunk(origin, record)


def options_of_trunk(trunk: Trunk, task: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """The options of the trunk's task, which the command line may repeat but not contradict; data may lie elsewhere.

    Raises:
        UsageError: if another task or another value is asked for.
        InputError: if they name remote storage, and the command line does not.
    """
    record, where = trunk.record, str(trunk.origin.run.root)
    if not same_task(task, record.task):
        raise UsageError(
            f"it was trained on the task {record.task}, not {task}",
            where=where,
            remedy=f"Write spectra train {record.task}",
        )
    check_own_storage(record.options, settings, trunk.origin.run.root, str(trunk.origin.run.root / NAME))
    before = recorded_options(task, record.options)
    after = recorded_options(task, {**record.options, **settings})
    for name in settings:
        if name != DATA and before.get(name) != after.get(name):
            raise UsageError(
                f"it was trained with {name}={before.get(name)}, not {after.get(name)}",
                where=where,
                remedy=f"Leave --set {name} out",
            )
    return after


def load_origin(origin: Origin, task: Task, model: nn.Module) -> None:
    """Put the weights of a checkpoint into a model.

    Raises:
        CheckpointError: if it cannot be read, or does not fit.
    """
    try:
        load_weights(task, origin.run, origin.checkpoint, model)
    except StateMismatchError as error:  # the options are those of its run.json
        error.remedy = "Name a checkpoint of the same model; the task's code may have changed since it was trained"
        raise


def make_masks(
    choice: MaskChoice,
    origin: Origin,
    task: Task,
    model: nn.Module,
    output_layer: str | None,
    *,
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    """The masks that the weights of a checkpoint give, by name in the model's state dict, on the CPU.

    Args:
        choice: kind and fraction.
        origin: whose weights decide.
        task: the same for this checkpoint as for the model.
        model: to be masked.
        output_layer: glob of the parameters that are not masked.
        options: of the task, for errors.

    Raises:
        InputError: if there is nothing to mask, a weight is not finite, or the model computes weights from others.
        CheckpointError: if the checkpoint does not fit the task's model.
    """
    _check_own_weights(model, "--mask")
    try:
        loaded = load_model(task, origin.run, origin.checkpoint, Options(), output_layer, model=new_model(task, 0))
    except StateMismatchError as error:
        error.remedy = "Name a --mask-from that was trained on the same task with the same options"
        error.remedy += _told_options(read_record(origin.run.root), options)
        raise
    parameters = dict(model.named_parameters(remove_duplicate=False))
    state = loaded.state
    weights = {name: state[name] for name in loaded.matrices.maskable() if name in parameters}
    if not weights:
        raise InputError(
            "no weight is left to mask: the model has no linear or convolution weight besides its output layer",
            where=str(origin.checkpoint.path),
            remedy="Name another --output-layer",
        )
    try:
        masks = magnitude_masks(weights, choice.keep)
    except ValueError as error:
        raise InputError(str(error), where=str(origin.checkpoint.path), remedy="Name another --mask-from") from error
    return random_masks(masks, choice.seed) if choice.kind == "random" else masks


def _told_options(record: RunRecord | None, options: Mapping[str, Any]) -> str:
    """Which options of a run are not those of this training; nothing where that cannot be told."""
    of_run = record.options if record else {}
    told = [
        f"{name}={of_run[name]}, not {options[name]}"
        for name in options
        if name in of_run and of_run[name] != options[name]
    ]
    return f": its {NAME} says {'; '.join(told)}" if told else ""


def digest_of(masks: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values of masks."""
    digest = hashlib.sha256()
    for name, mask in sorted(masks.items()):
        digest.update(f"{name}{list(mask.shape)}".encode())
        digest.update(mask.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_own_weights(model: nn.Module, flag: str) -> None:
    """Check that the weights of a model are its parameters.

    Raises:
        InputError: naming one that it computes from other parameters, which would be changed in its place.
    """
    computed = [name for name in parametrized_weights(model) if not name.endswith("bias")]
    if computed:
        raise InputError(
            f"the model computes '{computed[0]}' from other parameters (as weight and spectral normalization do), and "
            f"{flag} changes parameters",
            remedy=f"Leave {flag} out, or train a model without it",
        )


def perturbed_parts(matrices: ModelMatrices, model: nn.Module) -> Sequence[Part]:
    """Every matrix among a model's parameters but the output layer.

    Raises:
        InputError: if there is none, or the model computes weights from others.
    """
    _check_own_weights(model, "--perturb")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    specs = matrices.prunable().values()
    parts = [(spec.tensor.name, spec.expert) for spec in specs if spec.tensor.name in parameters]
    if not parts:
        raise InputError("the model has no matrix but its output layer", remedy="Leave --perturb out")
    return parts
