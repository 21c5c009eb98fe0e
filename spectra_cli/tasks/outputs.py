"""Which weights give a model's output, told by running it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import torch
from torch import nn

from spectra_cli.tasks.base import Task, moved
from spectra_cli.tasks.determinism import seeded
from spectra_cli.tasks.evaluation import device_of, evaluating
from spectra_cli.tasks.loading import tie_identity


def called_last(task: Task, model: nn.Module, names: Collection[str]) -> list[str]:
    """Those of the named weights that the module called last in a batch of the task's first split has.

    The order in which modules are registered, which is that of a state dict, need not be the order of the computation;
    and an output layer that is tied to an embedding stands there under the name of the embedding. The model, its
    buffers and torch's global generators are left as they were.

    Args:
        task: whose batch and metrics.
        model: of the task, on any device, initialized.
        names: of parameters, one name for each tensor.

    Returns:
        Those of `names` that belong to the last module called of all that have any; a tensor with several names under
        the one in `names`. Empty if the batch fails (the evaluation itself will report that), or if all of `names`
        belong to one module.
    """
    wanted = {
        identity: name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name in names and (identity := tie_identity(parameter)) is not None
    }
    last: list[str] = []
    with contextlib.suppress(Exception), _told_of_calls(model, wanted, last), _as_before(model), torch.no_grad():
        batch = next(iter(task.batches(task.splits[0])))
        task.metrics(model, moved(batch, device_of(model)))
        return last if len(last) < len(wanted) else []
    return []


@contextlib.contextmanager
def _told_of_calls(model: nn.Module, wanted: dict[tuple[object, ...], str], last: list[str]) -> Iterator[None]:
    """Keep in `last` which of the weights wanted belong to the module that was called last."""
    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            given = [module.out_proj.weight] if isinstance(module, nn.MultiheadAttention) else []  # it is not called
            own = [tie_identity(parameter) for parameter in given or module.parameters(recurse=False)]
            names = [wanted[identity] for identity in own if identity in wanted]
            if names:

                def note(_module: nn.Module, _inputs: object, names: list[str] = names) -> None:
                    last[:] = names

                hooks.callback(module.register_forward_pre_hook(note).remove)
        yield


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, with random numbers of its own; mode, buffers and generators are given back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with seeded(0, device_of(model)), evaluating(model):
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
