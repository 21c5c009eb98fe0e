"""The model of a task with the weights of a checkpoint, and the matrices among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from spectra_cli.analyses.models import ModelMatrices, matrices_of_model, stored_states
from spectra_cli.analyses.parametrized import folded
from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.options import Options
from spectra_cli.tasks.base import Task
from spectra_cli.tasks.loading import StateMismatchError, load_strictly
from spectra_cli.tasks.outputs import called_last
from spectra_cli.tasks.runfile import NAME
from spectra_cli.tasks.training import new_model


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A task's model with the weights of a checkpoint.

    Attributes:
        model: where it was, the CPU if it is new; a copy of it where weights that it computed have been folded.
        matrices: among its weights.
    """

    model: nn.Module
    matrices: ModelMatrices

    @property
    def state(self) -> dict[str, Tensor]:
        """Its weights and buffers, which share the model's memory."""
        return {name: value for name, value in self.model.state_dict().items() if isinstance(value, Tensor)}


def load_weights(
    task: Task, run: Run, checkpoint: Checkpoint, model: nn.Module, overruled: Sequence[str] = ()
) -> dict[str, Any]:
    """Load a checkpoint into a task's model, strictly.

    Args:
        task: whose model.
        run: of the checkpoint.
        checkpoint: to load.
        model: of the task, whose weights are replaced.
        overruled: what the run.json says and the command line overrules, for errors.

    Returns:
        The ``config.json`` beside the checkpoint; empty without one.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the model (``state_mismatch``).
        SpectraError: if the task's code raises.
    """
    config = read_config(checkpoint.path, run.root)
    with open_checkpoint(checkpoint.path) as reader:
        states = stored_states(reader, config)
    try:
        load_strictly(task, model, states)
    except CheckpointError as error:
        if overruled and isinstance(error, StateMismatchError):
            error.remedy = f"Leave it to the {NAME}, which says {'; '.join(overruled)}"
        raise error.at(str(checkpoint.path)) from None
    return config


def load_model(
    task: Task,
    run: Run,
    checkpoint: Checkpoint,
    options: Options,
    output_layer: str | None = None,
    *,
    model: nn.Module | None = None,
    overruled: Sequence[str] = (),
    folds: bool = False,
    finds_output: bool = True,
) -> LoadedModel:
    """Load a checkpoint into a task's model, strictly, and find the matrices among its parameters.

    Args:
        task: whose model.
        run: of the checkpoint.
        checkpoint: to load.
        options: what the user says of the model.
        output_layer: glob of the output layer's parameters; None to tell it from the model.
        model: of the task, whose weights are replaced; None for a new one.
        overruled: what the run.json says and the command line overrules, for errors.
        folds: whether weights that the model computes from other parameters are to be parameters themselves.
        finds_output: whether a batch may be run to tell the output layer; if not, it may be another one.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the model (``state_mismatch``).
        SpectraError: if the task's code raises.
    """
    model = new_model(task, 0) if model is None else model
    config = load_weights(task, run, checkpoint, model, overruled)
    if folds:
        model = folded(model)
    matrices = matrices_of_model(
        model,
        config=config,
        transposed=options.transposed,
        structure=options.structure,
        output_layer=output_layer,
        called_last=partial(called_last, task, model) if finds_output else None,
    )
    return LoadedModel(model, matrices)
