"""The weights of a model in memory, seen as a checkpoint is: named tensors, and the matrices among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from spectra_cli.analyses.groups import groups_of_equal_shape
from spectra_cli.analyses.visits import OnProblem, WorkPlace
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import MemoryBudgetError, UsageError
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec, in_stored_layout
from spectra_cli.layers.weights import model_weights
from spectra_cli.spectrum.prune import Split, split_spectrum
from spectra_cli.tasks.loading import tie_identity
from spectra_cli.tensors import ITEMSIZE, TensorInfo

State = dict[str, Tensor]
"""Weights and buffers of a model by the names that the model gives them."""

CalledLast = Callable[[Collection[str]], Collection[str]]
"""Picks, from names of parameters, those of the module that the model calls last; none where that cannot be told."""

MASKED_KINDS = frozenset({"linear", "conv", "conv_transpose", "attention", "recurrent"})
"""Kinds of matrices that masks cut: linear maps and convolutions, not the vectors of tokens and positions."""


class StateReader:
    """A state dict in memory as a :class:`spectra_cli.checkpoints.reader.Reader`.

    Args:
        state: by name, in the model's order; what is no tensor in it (extra state of modules) is passed over.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        self.format = "memory"
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(name, tuple(tensor.shape), dtype, storage=_storage(tensor))
            for name, tensor in state.items()
            if isinstance(tensor, Tensor) and (dtype := str(tensor.dtype).removeprefix("torch.")) in ITEMSIZE
        }
        self.ordered = True
        self.metadata: Mapping[str, Any] = {}
        self.notes: Sequence[str] = ()

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        """A block of a tensor seen as (shape[0], rest), as the protocol has it."""
        tensor: Tensor = self._state[name].detach()
        if rows != slice(None):  # a scalar has none
            tensor = tensor[rows]
        if cols != slice(None):
            tensor = tensor.reshape(tensor.shape[0], -1)[:, cols]
        return tensor.to("cpu", copy=True)

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def _storage(tensor: Tensor) -> str | None:
    """Name of a tensor's bytes, as a reader has it: equal for tied tensors only."""
    identity = tie_identity(tensor)
    return None if identity is None else ":".join(map(str, identity))


def stored_states(reader: Reader, config: Mapping[str, Any] | None = None) -> list[State]:
    """All tensors of a checkpoint that belong to the model, on the CPU, under the names that they may go by.

    Args:
        reader: the opened checkpoint.
        config: the model's ``config.json``.

    Returns:
        The same tensors without wrapper prefixes first, and under the names as stored where those differ.

    Raises:
        CheckpointError: if a tensor cannot be read.
    """
    weights, left_out = model_weights(reader.tensors, config)
    names = {weight.tensor.name: weight.parameter for weight in weights}
    prefixes = {stored.removesuffix(name) for stored, name in names.items() if stored.endswith(name)}
    if len(prefixes) == 1:  # tied tensors count once as matrices; a model wants each under its name
        (prefix,) = prefixes
        names |= {skipped.name: skipped.name.removeprefix(prefix) for skipped in left_out if skipped.status == "tied"}
    tensors = {stored: reader.read(stored) for stored in reader.tensors if stored in names}
    states = [{names[stored]: tensor for stored, tensor in tensors.items()}]
    if any(stored != name for stored, name in names.items()):
        states.append(tensors)
    return states


@dataclass(frozen=True, slots=True)
class ModelMatrices:
    """The matrices among the weights of a model, and what pruning leaves alone.

    Attributes:
        inventory: of the model's state dict; ``spec.tensor.name`` is a key of it.
        output: depths of the output layers, which no variant changes.
        embeddings: names of weights that modules of the model look vectors up in.
    """

    inventory: Inventory
    output: frozenset[int]
    embeddings: frozenset[str]

    @property
    def output_names(self) -> list[str]:
        """Parameters of the output layers."""
        return [self.inventory.matrices[depth].parameter for depth in sorted(self.output)]

    def prunable(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[int, MatrixSpec]:
        """All matrices but those of the output layer, by depth; of them, those selected."""
        selected = self.inventory.selected(include, exclude)
        return {depth: spec for depth, spec in selected.items() if depth not in self.output and spec.rows and spec.cols}

    def maskable(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
        """Keys of the state dict that masks cut: the prunable weights of linear maps and convolutions."""
        return list(
            dict.fromkeys(
                spec.tensor.name
                for spec in self.prunable(include, exclude).values()
                if spec.kind in MASKED_KINDS and spec.tensor.name not in self.embeddings
            )
        )


def matrices_of_model(
    model: nn.Module,
    *,
    config: Mapping[str, Any] | None = None,
    transposed: Sequence[str] = (),
    structure: StructureOptions | None = None,
    output_layer: str | None = None,
    called_last: CalledLast | None = None,
) -> ModelMatrices:
    """Find the matrices among a model's parameters; transposed convolutions and embeddings are told by its modules.

    Buffers are none: they are not trained.

    Args:
        model: any module; its weights may be on any device, also ``meta``.
        config: the model's ``config.json``, if there is one.
        transposed: globs of parameters stored as (in, out, ...).
        structure: what the user says of the model's structure.
        output_layer: glob of the output layer's parameters; None for those that an ``output`` connection of the model's
            family leads to, else those called last, else the last matrix.
        called_last: runs the model where no family tells its output layer; None if it cannot be run.

    Raises:
        UsageError: if no matrix matches `output_layer`.
    """
    modules = dict(model.named_modules())
    swapped = [f"{name}.weight" for name, module in modules.items() if isinstance(module, _TRANSPOSED)]
    looked_up = [f"{name}.weight" for name, module in modules.items() if isinstance(module, _LOOKED_UP)]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    tensors = StateReader({name: value for name, value in model.state_dict().items() if name in parameters}).tensors
    inventory = take_inventory(
        tensors,
        ordered=True,
        config=config,
        transposed=[*transposed, *swapped],
        structure=structure,
    )
    if output_layer is None:
        output = inventory.output_layers(lambda: _output_names(tensors, inventory, called_last))
    else:
        output = frozenset(
            depth
            for depth, spec in enumerate(inventory.matrices)
            if output_layer == spec.parameter or fnmatchcase(spec.parameter, output_layer)
        )
        if not output:
            names = ", ".join(spec.parameter for spec in inventory.matrices[-3:])
            raise UsageError(f"--output-layer {output_layer} matches no matrix", remedy=f"The last ones are {names}")
    return ModelMatrices(inventory, output, frozenset(looked_up))


def _output_names(
    tensors: Mapping[str, TensorInfo], inventory: Inventory, called_last: CalledLast | None
) -> Collection[str]:
    """Names of the matrices called last, else of the last of all, a tied one under the name that counts."""
    names = list(dict.fromkeys(spec.tensor.name for spec in inventory.matrices))
    if called_last is not None and (found := called_last(names)):
        return found
    matrices = {tensors[name].storage or name: name for name in names}
    keys = (tensors[name].storage or name for name in reversed(list(tensors)))
    return [next((matrices[key] for key in keys if key in matrices), "")]


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LOOKED_UP = (nn.Embedding, nn.EmbeddingBag)


def matrix_in(state: Mapping[str, Tensor], spec: MatrixSpec, device: torch.device | None = None) -> LazyMatrix:
    """A matrix of a state dict, of which blocks are read.

    Args:
        state: weights by name.
        spec: which matrix.
        device: where blocks arrive; None for that of the tensor.
    """
    tensor = state[spec.tensor.name].detach()

    def read(rows: slice, cols: slice) -> Tensor:
        part = tensor[rows]
        return part if cols == slice(None) else part.reshape(part.shape[0], -1)[:, cols]

    return LazyMatrix(spec, read, tensor.device if device is None else device)


def put_matrix(state: Mapping[str, Tensor], spec: MatrixSpec, matrix: Tensor) -> None:
    """Write a matrix (rows, cols) back into its tensor of a state dict, cast to the tensor's type."""
    tensor = state[spec.tensor.name]
    with torch.no_grad():
        (tensor if spec.expert is None else tensor[spec.expert]).copy_(in_stored_layout(spec, matrix))


def split_each(
    state: Mapping[str, Tensor],
    specs: Mapping[int, MatrixSpec],
    keep: float,
    place: WorkPlace,
    *,
    on_problem: OnProblem,
) -> Iterator[tuple[int, Split]]:
    """Split matrices of a state dict into top and bottom parts; those of one shape together.

    Args:
        state: weights by name.
        specs: matrices by depth; none with a side of length 0.
        keep: fraction of the singular components that go to the top.
        place: device and memory of the factorizations.
        on_problem: told of a matrix for which the memory does not suffice.

    Returns:
        The depth of every matrix with its parts, on the device of the state, in no order.
    """
    real = {depth: spec for depth, spec in specs.items() if spec.tensor.is_floating}
    for depth in specs.keys() - real.keys():
        yield depth, Split(None, None, "complex_dtype")
    for group in groups_of_equal_shape(real, lambda _: None, place.device, place.budget_bytes):
        yield from _split_group(state, group, keep, place, on_problem)


def _split_group(
    state: Mapping[str, Tensor],
    group: Sequence[tuple[int, MatrixSpec]],
    keep: float,
    place: WorkPlace,
    on_problem: OnProblem,
) -> Iterator[tuple[int, Split]]:
    matrices = [matrix_in(state, spec, place.device) for _, spec in group]
    onto = state[group[0][1].tensor.name].device
    try:
        splits = split_spectrum(matrices, keep, budget_bytes=place.working_bytes, onto=onto)
    except MemoryBudgetError as error:
        if len(group) > 1:  # of one shape, but what is free may change
            for one in group:
                yield from _split_group(state, [one], keep, place, on_problem)
            return
        on_problem(error, group[0][1].parameter)
        splits = [Split(None, None, error.status)]
    for (depth, _), split in zip(group, splits, strict=True):
        yield depth, split


def copied(state: Mapping[str, Any], device: torch.device | None = None) -> State:
    """A state dict with memory of its own; tied tensors stay tied.

    Args:
        state: tensors by name; what is no tensor in it is left out.
        device: of the copies; None for those of the tensors.
    """
    copies: dict[str | None, Tensor] = {}
    result = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            continue
        key = _storage(tensor)
        if key is None or key not in copies:
            copies[key] = tensor.detach().to(device or tensor.device, copy=True)
        result[name] = copies[key]
    return result
