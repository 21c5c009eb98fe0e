"""States of a training on disk: weights of the steps that are saved, and what it takes to go on from them.

A file appears under its name only when it is complete. The optimizer's state comes last of what is saved at a step:
once it is there the step is done, and until then a training that was killed goes on from the step before.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import stat
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

OPTIMIZER = "optimizer.pt"
"""State of the optimizer at the step that was saved last."""

_WEIGHTS = re.compile(r"step_([0-9]{1,18})\.safetensors")
_PARTIAL = re.compile(
    r"\.((step_[0-9]+\.safetensors|optimizer(_step_[0-9]+)?\.pt|metrics\.parquet\..+|(run|config)\.json)\.partial"
    r"|tmp[0-9A-Za-z]{6})"  # what safetensors itself writes first
)


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """What an optimizer remembers beyond its settings, such as moments.

    Attributes:
        step: of the training.
        parameters: names of the model's parameters in the optimizer's order.
        state: by place in `parameters`, as ``Optimizer.state_dict()["state"]`` has it.
    """

    step: int
    parameters: tuple[str, ...]
    state: Mapping[int, Mapping[str, Any]]


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
        """Where the weights of a step are."""
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
        _replace(self.weights_path(step), lambda partial: save_file(tensors, partial, metadata={"format": "pt"}))

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
        content = {"step": step, "parameters": names, "state": optimizer.state_dict()["state"]}

        def save(partial: Path) -> None:
            with partial.open("wb") as file:
                torch.save(content, file)

        if not self._each_optimizer:
            _replace(self.run / OPTIMIZER, save)
            return
        kept = self._optimizer_path(step)
        _replace(kept, save)
        _replace(self.run / OPTIMIZER, lambda partial: _link(kept, partial, save))

    def load_optimizer(self, step: int | None = None) -> OptimizerState | None:
        """The state of the optimizer at a step, on the CPU; None where it was not kept.

        Args:
            step: of the training; None for the step that was saved last.

        Raises:
            InputError: if there is a file and it is no such state.
        """
        kept = None if step is None else self._optimizer_path(step)
        path = kept if kept is not None and kept.exists() else self.run / OPTIMIZER
        if not path.exists():
            return None
        state = read_optimizer(path)
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
        content = torch.load(path, map_location="cpu", weights_only=True)
        step, parameters, state = content["step"], content["parameters"], content["state"]
        if not (isinstance(step, int) and isinstance(parameters, list) and isinstance(state, dict)):
            raise TypeError("its entries are of other types")  # noqa: TRY301 - told as all that is wrong with the file
        return OptimizerState(step, tuple(parameters), state)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"this is not the state of an optimizer that `spectra train` saved ({first})",
            where=str(path),
            remedy="Restore the file, or train anew with another --out",
        ) from error


def restore_optimizer(optimizer: Optimizer, model: nn.Module, saved: OptimizerState, where: str) -> None:
    """Give an optimizer the memory of another one of its kind; its settings stay.

    Raises:
        InputError: if the two are for different parameters.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fits = tuple(parameters) == saved.parameters and all(
        isinstance(place, int) and 0 <= place < len(parameters) for place in saved.state
    )
    if fits:
        shapes = [parameter.shape for parameter in parameters.values()]
        fits = all(
            value.ndim == 0 or value.shape == shapes[place]
            for place, values in saved.state.items()
            for value in values.values()
            if isinstance(value, Tensor)
        )
    if not fits:
        raise InputError(
            "this is the state of an optimizer of another model", where=where, remedy="Restore the file of this run"
        )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": saved.state})


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written beside its place, and put it there when its bytes are on the disk.

    Raises:
        InputError: if that cannot be done.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(b"")
        mode = stat.S_IMODE(partial.stat().st_mode)
        partial.unlink()
        write(partial)
        partial.chmod(mode)  # that of any new file; safetensors makes private ones
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        told = _told(error, path)
        if told is error:
            raise
        raise told from error


def _told(error: BaseException, path: Path) -> BaseException:
    """What to raise for a failure to save; torch hides what happened behind an error of its own archive."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    for cause in causes:
        if not isinstance(cause, Exception):
            return cause  # Ctrl-C
    if not isinstance(error, (OSError, SafetensorError, RuntimeError)):
        return error
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return InputError(
        f"the state cannot be saved: {[*reasons, str(error).partition(chr(10))[0]][0]}",
        where=str(path),
        remedy="Make room, and run the same command again: it goes on from the step saved before",
    )


def _link(target: Path, name: Path, write: Callable[[Path], None]) -> None:
    """A second name for a file; a second file where the file system has no such names."""
    try:
        os.link(target, name)
    except OSError:
        write(name)
