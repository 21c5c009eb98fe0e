"""The weights of a checkpoint go into a model, all of them or none."""

from __future__ import annotations

import difflib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spectra_cli.errors import CheckpointError, InputError
from spectra_cli.tasks.base import Task
from spectra_cli.tensors import by

SHOWN = 4
"""Names of each sort that an error lists."""


class StateMismatchError(CheckpointError):
    """A checkpoint whose names or shapes are not those of the task's model."""

    status = "state_mismatch"


def load_strictly(task: Task, model: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
    """Load weights, buffers and extra state into a model of the task, by its own hooks; tensors are cast to its types.

    Extra state of a module (``get_extra_state``) that is no tensor is in no file of tensors, and stays as it is. A task
    with a method ``adapt(state) -> state`` has the state dict renamed by it first. A name that the checkpoint lacks is
    no error where the model ties it to one that is there.

    Args:
        task: that the model is of.
        model: changed in place, only if everything fits.
        states: the same tensors under the names that they may go by, likeliest first; the one that fits best counts.

    Raises:
        StateMismatchError: if names are missing or unexpected, or shapes differ; lists them with the nearest matches.
        InputError: if a module of the model is not initialized.
    """
    check_initialized(model)
    adapt = getattr(task, "adapt", None)
    candidates = [dict(adapt(state)) if callable(adapt) else dict(state) for state in states]
    whole = model.state_dict()
    expected = {name: value for name, value in whole.items() if isinstance(value, Tensor)}
    tied = _tied(expected)
    state = min(candidates, key=lambda state: len(_missing(state, expected, tied)) + len(state.keys() - expected))
    missing = _missing(state, expected, tied)
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        raise StateMismatchError(_difference(missing, unexpected), remedy=_REMEDY)
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape and not is_extra_state(name):
            raise StateMismatchError(
                f"'{name}' is {by(tensor.shape)} in the checkpoint and {by(expected[name].shape)} in the task's model",
                remedy=_REMEDY,
            )
    _check_ties(state, tied)
    _load(model, state, getattr(whole, "_metadata", None))


def _load(model: nn.Module, state: Mapping[str, Tensor], metadata: Any) -> None:
    """Have a model load what has been found to fit.

    Raises:
        StateMismatchError: if its modules refuse it.
    """
    versioned: OrderedDict[str, Any] = OrderedDict(state)
    versioned._metadata = metadata  # type: ignore[attr-defined]  # else modules take the state for an old one
    try:
        model.load_state_dict(versioned, strict=False)  # what ties and extra state leave out is known
    except RuntimeError as error:
        raise StateMismatchError(str(error).partition("\n")[2].strip() or str(error), remedy=_REMEDY) from error


def is_extra_state(name: str) -> bool:
    """Whether a name in a state dict is that of what a module adds beside its parameters and buffers."""
    return name.rpartition(".")[2] == "_extra_state"


def check_initialized(model: nn.Module) -> None:
    """Check that all parameters and buffers of a model have shapes.

    Raises:
        InputError: naming the first module that waits for an input to tell.
    """
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(
                f"model() returns a model whose '{name}' is not initialized: a lazy module has its shape from an input",
                remedy="Return initialized modules: run a batch through the model in model()",
            )


_REMEDY = "Give the --task and the options (--set KEY=VALUE) that the model was trained with"


def tie_identity(tensor: Tensor) -> tuple[object, ...] | None:
    """Equal for tied tensors only: two names of one tensor, not a view of another's part; None of no memory."""
    if not tensor.numel() or tensor.device.type == "meta":
        return None
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape)


def _tied(expected: Mapping[str, Tensor]) -> dict[str, frozenset[str]]:
    """All names of the same memory, for every name."""
    groups: defaultdict[tuple[object, ...], set[str]] = defaultdict(set)
    for name, tensor in expected.items():
        if (identity := tie_identity(tensor)) is not None:
            groups[identity].add(name)
    return {name: frozenset(names) for names in groups.values() for name in names}


def _check_ties(state: Mapping[str, Tensor], tied: Mapping[str, frozenset[str]]) -> None:
    """Check that tensors which are one in the model are equal in the checkpoint: else the last one would win.

    Raises:
        StateMismatchError: if they are not.
    """
    for name, tensor in state.items():
        for other in sorted(tied.get(name, frozenset()) & state.keys()):
            if other > name and not torch.allclose(tensor, state[other], rtol=0.0, atol=0.0, equal_nan=True):
                raise StateMismatchError(
                    f"'{name}' and '{other}' differ in the checkpoint and are one tensor in the task's model",
                    remedy=_REMEDY,
                )


def _missing(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], tied: Mapping[str, frozenset[str]]
) -> list[str]:
    return [name for name in expected if name not in state and not (tied.get(name, frozenset()) & state.keys())]


def _difference(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    parts = []
    if missing:
        shown = []
        for name in missing[:SHOWN]:
            near = difflib.get_close_matches(name, unexpected, n=1)
            shown.append(f"{name} (nearest: {near[0]})" if near else name)
        parts.append(f"lacks {len(missing)} of the model's tensors: {_listed(shown, len(missing))}")
    if unexpected:
        parts.append(f"has {len(unexpected)} that the model has not: {_listed(unexpected[:SHOWN], len(unexpected))}")
    return f"the checkpoint {' and '.join(parts)}"


def _listed(names: Sequence[str], count: int) -> str:
    return ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "")
