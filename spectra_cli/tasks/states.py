"""States of a training on disk: weights of the steps that are saved, and what it takes to go on from them.

A file appears under its name only when it is complete. The optimizer's state comes last of what is saved at a step:
once it is there the step is done, and until then a training that was killed goes on from the step before.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from spectra_cli.errors import InputError
from spectra_cli.regularfile import open_regular
from spectra_cli.tasks.saving import save_state

OPTIMIZER = "optimizer.pt"
"""State of the optimizer at the step that was saved last."""

_WEIGHTS = re.compile(r"step_([0-9]{1,18})\.safetensors")
_PARTIAL = re.compile(
    r"\.((step_[0-9]+\.safetensors|optimizer(_step_[0-9]+)?\.pt|metrics\.parquet|(run|config)\.json)(\.[^.]+)?\.partial"
    r"|tmp[0-9A-Za-z]{6})"  # what safetensors itself writes first
)


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What an optimizer remembers beyond its settings, such as moments.

    Attributes:
        step: of the training.
        parameters: names of the model's parameters in the optimizer's order.
        state: by place in `parameters`, as ``Optimizer.state_dict()["state"]`` has it.
        stateless: parameters without any: those that no gradient has reached, or all where nothing is kept.
    """

    step: int
    parameters: tuple[str, ...]
    state: Mapping[int, Mapping[str, Any]]
    stateless: tuple[str, ...]


class StateFiles:
    """The states of one run.

    Args:
        run: its directory, which is there.
        each_optimizer: whether the optimizer's state is kept of every saved step, not of the last one only.
    """

    def __init__(self, run: Path, *, each_optimizer: bool = False) -> None:
        self.run = run
        self._each_optimizer = each_optimizer

    def weights_path(self, step: int) -> Path:
        """File of the weights of a step."""
        return self.run / f"step_{step}.safetensors"

    def steps(self) -> list[int]:
        """Steps whose weights are there, ascending."""
        matches = (_WEIGHTS.fullmatch(name) for name in os.listdir(self.run))
        return sorted(int(match[1]) for match in matches if match)

    def clean(self) -> None:
        """Remove what a training that was killed left half-written."""
        for name in os.listdir(self.run):
            if _PARTIAL.fullmatch(name):
                (self.run / name).unlink(missing_ok=True)

    def save_weights(self, step: int, model: nn.Module) -> None:
        """Save weights and persistent buffers of a model; a tensor that goes by several names once, under the first.

        Raises:
            InputError: if the file cannot be written, or the state dict holds what is no tensor.
        """
        tensors = storable(model.state_dict())
        # One entry of metadata only: of several, the order in the file would be arbitrary.
        save_state(self.weights_path(step), lambda partial: save_file(tensors, partial, metadata={"format": "pt"}))

    def load_weights(self, step: int) -> dict[str, Tensor]:
        """Weights and buffers of a step, on the CPU.

        Raises:
            InputError: if they are not there or cannot be read.
        """
        path = self.weights_path(step)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the weights cannot be read ({error})", where=str(path), remedy="Restore the file, or train anew"
            ) from error

    def save_optimizer(self, step: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Save the state of an optimizer: the step is done.

        Raises:
            InputError: if the file cannot be written.
        """
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        state = optimizer.state_dict()["state"]
        stateless = [name for place, name in enumerate(names) if not state.get(place)]
        content = {"step": step, "parameters": names, "state": state, "stateless": stateless}

        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                torch.save(content, file)

        if not self._each_optimizer:
            save_state(self.run / OPTIMIZER, save)
            return
        kept = self._optimizer_path(step)
        save_state(kept, save)
        save_state(self.run / OPTIMIZER, lambda partial: _link(kept, partial, save))

    def load_optimizer(self, step: int | None = None) -> OptimizerState | None:
        """The state of the optimizer at a step, on the CPU; None where it was not kept.

        Args:
            step: of the training; None for the step that was saved last.

        Raises:
            InputError: if there is a file and it is no such state, or the one saved last is of a step without weights.
        """
        kept = None if step is None else self._optimizer_path(step)
        path = kept if kept is not None and kept.exists() else self.run / OPTIMIZER
        if not path.exists():
            return None
        state = read_optimizer(path)
        if step is None and not self.weights_path(state.step).exists():
            raise InputError(
                f"this is the state of an optimizer at step {state.step}, of which there are no weights",
                where=str(path),
                remedy=f"Restore {self.weights_path(state.step).name} or the file, or train anew with another --out",
            )
        return state if step is None or state.step == step else None

    def _optimizer_path(self, step: int) -> Path:
        return self.run / f"optimizer_step_{step}.pt"

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other trainings out of the directory; where the file system cannot, nothing is promised.

        Raises:
            InputError: if another process trains in it.
        """
        try:
            import fcntl  # noqa: PLC0415 - not on every system
        except ImportError:
            yield
            return
        handle = os.open(self.run, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    "another process is training in this directory",
                    where=str(self.run),
                    remedy="Wait for it, or give another --out",
                ) from error
            except OSError:
                pass  # some network file systems have no locks
            yield
        finally:
            os.close(handle)


def storable(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict as a file may hold them: on the CPU, contiguous, each with memory of its own.

    Raises:
        InputError: if a value is no tensor.
    """
    seen: set[tuple[Any, ...]] = set()
    owners: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"the model's state dict holds '{name}', a {type(value).__name__}, which no checkpoint can hold",
                remedy="Keep it in a buffer, or out of the state dict",
            )
        tensor = value.detach()
        identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in seen:
            continue  # tied
        seen.add(identity)
        tensor = tensor.cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in owners:
            tensor = tensor.clone()  # another view of the same memory
        owners.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors


def read_optimizer(path: Path) -> OptimizerState:
    """The state of an optimizer that :meth:`StateFiles.save_optimizer` wrote; nothing in the file is executed.

    Raises:
        InputError: if it is none.
    """
    try:
        with open_regular(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _no_state(path, error.strerror or "it cannot be read") from error
    except MemoryError as error:
        raise _no_state(path, "it does not fit into memory") from error
    except Exception as error:  # torch's archives and its unpickler raise whatever the damage leads to
        raise _no_state(path, "it is damaged, or holds what no optimizer keeps") from error
    if not isinstance(content, dict) or content.keys() != {"step", "parameters", "state", "stateless"}:
        raise _no_state(path, "it has other entries")
    step, parameters, state, stateless = (content[key] for key in ("step", "parameters", "state", "stateless"))
    if type(step) is not int or not 0 <= step < 10**18:
        raise _no_state(path, "its step is none")
    if not (_are_names(parameters) and _are_names(stateless)):
        raise _no_state(path, "its entries are of other types")
    if not isinstance(state, dict) or not all(
        type(place) is int and isinstance(values, dict) for place, values in state.items()
    ):
        raise _no_state(path, "its entries are of other types")
    return OptimizerState(step, tuple(parameters), state, tuple(stateless))


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(type(name) is str for name in value) and len(set(value)) == len(value)


def _no_state(path: Path, reason: str) -> InputError:
    return InputError(
        f"this is not the state of an optimizer that `spectra train` saved ({reason})",
        where=str(path),
        remedy="Restore the file, or train anew with another --out",
    )


def restore_optimizer(optimizer: Optimizer, model: nn.Module, saved: OptimizerState, where: str) -> None:
    """Give an optimizer the memory of another one of its kind; its settings stay.

    What is given is a copy, in memory like that of the parameters: torch's fused updates go through the memory of all
    of them side by side and check nothing.

    Raises:
        InputError: if the two are for different parameters, or what is kept of one is not what this optimizer keeps.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if tuple(parameters) != saved.parameters:
        raise _of_another(where, "of another model")
    remembered = {name: saved.state[place] for place, name in enumerate(parameters) if saved.state.get(place)}
    expected = [name for name in parameters if name not in saved.stateless]
    if list(remembered) != expected or not set(range(len(parameters))) >= saved.state.keys():
        raise _of_another(where, "that lacks some of the parameters, or has others")
    kept = _kept_by(optimizer) if remembered else {}
    state = {}
    for place, (name, parameter) in enumerate(parameters.items()):
        if name not in remembered:
            continue
        values = remembered[name]
        if values.keys() != kept.keys():
            raise _of_another(where, f"of another kind: what it keeps of '{name}' is not what this one does")
        if not all(_is_like(values[key], parameter if shaped else None) for key, shaped in kept.items()):
            raise _of_another(where, f"of another model: what it keeps of '{name}' is of other shapes or types")
        state[place] = {key: _copied(values[key], parameter if shaped else None) for key, shaped in kept.items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _kept_by(optimizer: Optimizer) -> dict[str, bool]:
    """What an optimizer keeps of a parameter after an update, and whether it has the parameter's shape (or is 0-d).

    It is asked of another optimizer with the same settings, after an update of one weight.
    """
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    probe = type(optimizer)([parameter], lr=0.0)  # type: ignore[call-arg]  # every optimizer of a recipe has a rate
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    probe.param_groups[0].update({**settings, "fused": False})
    probe.step()
    return {key: value.ndim > 0 for key, value in probe.state[parameter].items()}


def _is_like(value: object, parameter: Tensor | None) -> bool:
    """Whether a value fits in beside a parameter; without one, whether it is a count of updates."""
    if type(value) is not Tensor or value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
        return False
    if parameter is None:
        return value.ndim == 0 and value.dtype == torch.float32 and 0 <= value.item() < 2**63
    return value.shape == parameter.shape and value.dtype == parameter.dtype


def _copied(value: Tensor, parameter: Tensor | None) -> Tensor:
    """A copy in memory of its own, in the parameter's order of dimensions."""
    if parameter is None:
        return value.clone()
    return torch.empty_like(parameter, device="cpu", requires_grad=False).copy_(value.detach())


def _of_another(where: str, what: str) -> InputError:
    return InputError(f"this is the state of an optimizer {what}", where=where, remedy="Restore the file of this run")


def _link(target: Path, name: Path, write: Callable[[Path], None]) -> None:
    """A second name for a file; a second file where the file system has no such names."""
    try:
        os.link(target, name)
    except OSError:
        write(name)
