"""The model of a task with the weights of a checkpoint, and the matrices among them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spectra_cli.analyses.models import ModelMatrices, matrices_of_model, stored_states
from spectra_cli.analyses.parametrized import folded
from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.planning.options import Options
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
        content: hash of what the checkpoint holds of the model; "" unless it was asked for.
    """

    model: nn.Module
    matrices: ModelMatrices
    content: str = ""

    @property
    def state(self) -> dict[str, Tensor]:
        """Its weights and buffers, which share the model's memory."""
        return {name: value for name, value in self.model.state_dict().items() if isinstance(value, Tensor)}


class LoadedWeights(NamedTuple):
    """What was found beside the weights of a checkpoint.

    Attributes:
        config: the ``config.json`` beside it; empty without one.
        content: hash of what it holds of the model; "" unless it was asked for.
    """

    config: dict[str, Any]
    content: str = ""


def load_weights(
    task: Task,
    run: Run,
    checkpoint: Checkpoint,
    model: nn.Module,
    overruled: Sequence[str] = (),
    *,
    hashes: bool = False,
) -> LoadedWeights:
    """Load a checkpoint into a task's model, strictly.

    Args:
        task: whose model.
        run: of the checkpoint.
        checkpoint: to load.
        model: of the task, whose weights are replaced.
        overruled: what the run.json says and the command line overrules, for errors.
        hashes: whether to hash what is read.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the model (``state_mismatch``).
        SpectraError: if the task's code raises.
    """
    config = read_config(checkpoint.path, run.root)
    with open_checkpoint(checkpoint.path) as reader:
        states = stored_states(reader, config)
    content = content_of(states[0]) if hashes else ""
    try:
        load_strictly(task, model, states)
    except CheckpointError as error:
        if overruled and isinstance(error, StateMismatchError):
            error.remedy = f"Leave it to the {NAME}, which says {'; '.join(overruled)}"
        raise error.at(str(checkpoint.path)) from None
    return LoadedWeights(config, content)


def stored_content(run: Run, checkpoint: Checkpoint) -> str:
    """What the weights of a checkpoint hash to, without a model to load them into.

    Raises:
        CheckpointError: if it cannot be read.
    """
    with open_checkpoint(checkpoint.path) as reader:
        return content_of(stored_states(reader, read_config(checkpoint.path, run.root))[0])


def content_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of tensors on the CPU, the first 32 hexadecimal digits of it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode("utf-8", "backslashreplace"))
        flat: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()  # numpy types buffers late
        digest.update(memoryview(flat))
    return digest.hexdigest()[:32]


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
    hashes: bool = False,
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
        hashes: whether to hash what is read.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the model (``state_mismatch``).
        SpectraError: if the task's code raises.
    """
    model = new_model(task, 0) if model is None else model
    weights = load_weights(task, run, checkpoint, model, overruled, hashes=hashes)
    if folds:
        model = folded(model)
    matrices = matrices_of_model(
        model,
        config=weights.config,
        transposed=options.transposed,
        structure=options.structure,
        output_layer=output_layer,
        called_last=partial(called_last, task, model) if finds_output else None,
    )
    return LoadedModel(model, matrices, weights.content)
