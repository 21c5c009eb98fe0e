"""The metrics of one model under one set of weights after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from spectra_cli.errors import InputError, MemoryBudgetError
from spectra_cli.spectrum.gram import full_float32
from spectra_cli.tasks.base import Task
from spectra_cli.tasks.evaluation import Value, device_of, evaluate, has_batch_norm, reestimate_batch_norm
from spectra_cli.tasks.memory import is_out_of_memory


class StateEvaluator:
    """Evaluates sets of weights, one after the other, with one model of a task.

    Every evaluation starts from the whole of a state dict, running statistics included, and from the same state of
    torch's random numbers, so that its values do not depend on what was evaluated before it. Float32 is never rounded
    to TF32.

    Args:
        task: whose data and metrics.
        model: of the task, on the device where it is to be evaluated; its weights are replaced.
        splits: to evaluate, of the task's.
        reestimates: whether the running statistics of batch normalization are estimated anew, on the training split,
            before every evaluation; if not, they stay as they stand in the state dict.
        name: of the task, for errors.
        on_pass: called after each pass over the batches of a split.

    Attributes:
        splits: to evaluate.
        passes: over the batches of a split that each set of weights takes.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        splits: Sequence[str],
        *,
        reestimates: bool = True,
        name: str = "",
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self._task, self._model, self.splits = task, model, tuple(splits)
        self._reestimates = reestimates and has_batch_norm(model)
        self._name = name
        self._on_pass = on_pass
        self.passes = len(self.splits) + self._reestimates

    def values(self, state: Iterable[tuple[str, Tensor]]) -> dict[str, dict[str, Value]]:
        """Put weights into the model and take its metrics.

        Args:
            state: every name of the model's state dict with a tensor of its shape, on any device, one by one, so that
                they need not all be in memory. What comes later replaces what came before, also under another name of a
                tied tensor.

        Returns:
            By split, then by metric.

        Raises:
            ValueError: if a name is missing.
            MemoryBudgetError: if the device has no room for a batch.
            SpectraError: if a split has no batch, or the task's code raises.
        """
        place(self._model, state)
        device = device_of(self._model)
        try:
            with full_float32():
                return self._evaluated()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryBudgetError(
                f"memory of {device} ran out on a batch",
                where=f"task {self._name}",
                remedy="Give smaller batches (--set eval_batch_size=N, where the task has it), or another --device",
            ) from error
        except InputError as error:
            error.at(f"task {self._name}")
            raise

    def _evaluated(self) -> dict[str, dict[str, Value]]:
        if self._reestimates:
            reestimate_batch_norm(self._task, self._model)
            self._on_pass()
        found = {}
        for split in self.splits:
            found[split] = evaluate(self._task, self._model, split)
            self._on_pass()
        return found


def place(model: nn.Module, state: Iterable[tuple[str, Tensor]]) -> None:
    """Copy a whole state dict into a model, cast to the model's types.

    Parameters and buffers are written one by one; what a module makes for its state dict, such as extra state, goes
    through the module's own loading at the end.

    Raises:
        ValueError: if a name is missing.
    """
    targets = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    own = {
        name: tensor.data_ptr()
        for name, tensor in chain(
            model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
        )
    }
    lacking, made = dict.fromkeys(targets), dict[str, Tensor]()
    with torch.no_grad():
        for name, tensor in state:
            target = targets[name]
            if name in own and target.data_ptr() == own[name]:
                target.copy_(tensor)
            else:
                made[name] = tensor
            lacking.pop(name, None)
    if made:
        model.load_state_dict(made, strict=False)
    if lacking:
        raise ValueError(f"no weights for {', '.join(lacking)}: those of another set would be taken")
