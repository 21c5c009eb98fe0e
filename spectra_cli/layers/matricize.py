"""A tensor as a 2-D matrix, output x input: its place in the stored tensor, and blocks of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, cast

from spectra_cli.layers import kinds, orientation
from spectra_cli.layers.kinds import Kind, Shapes
from spectra_cli.layers.weights import Skipped, Weight, skipped
from spectra_cli.tensors import TensorInfo

if TYPE_CHECKING:
    import torch

Layout = Literal["stored", "transposed", "swapped", "expert", "expert_transposed"]

FORCED = "--transposed"
MOST_STACKED = 1 << 18
"""Matrices that stacks may hold in one checkpoint; the largest known models have some 70 thousand experts."""

STRIP_BYTES = 8 << 20
"""Bytes of an expert that are read at once where only some of its columns are asked for."""


@dataclass(frozen=True, slots=True)
class MatrixSpec:
    """A matrix, as part of a stored tensor.

    Attributes:
        parameter: its name in tables; ``name[e]`` for expert e of a stacked tensor.
        kind: of layer.
        rows: output side.
        cols: input side; for a convolution all kernel positions of all input channels.
        tensor: as stored.
        layout: ``stored`` - axis 0 is the rows, the others flattened are the columns; ``transposed`` - stored as
            (in, out); ``swapped`` - stored as (in, out, kernel...); ``expert`` - one of a stack along axis 0;
            ``expert_transposed`` - one of a stack (experts, in, out).
        expert: position in the stack, None without one.
        reason: why the layout is not ``stored``, or "".
    """

    parameter: str
    kind: Kind
    rows: int
    cols: int
    tensor: TensorInfo
    layout: Layout = "stored"
    expert: int | None = None
    reason: str = ""

    def described(self, depth: int) -> dict[str, str | int]:
        """What tables and listings say of the matrix before any number is computed."""
        return {
            "depth": depth,
            "parameter": self.parameter,
            "kind": self.kind,
            "rows": self.rows,
            "cols": self.cols,
            "dtype": self.tensor.dtype,
        }

    @property
    def nbytes(self) -> int:
        """Size in bytes in the stored dtype."""
        return self.tensor.nbytes // (self.tensor.shape[0] if self.expert is not None else 1)


@dataclass(frozen=True, slots=True)
class LazyMatrix:
    """A matrix read block by block. What the factorization asks of a matrix (see ``spectrum.matrix.Matrix``).

    Attributes:
        spec: which matrix.
        read: reads (rows, cols) of the stored tensor seen as (shape[0], rest), in the stored dtype, on the CPU.
        device: where blocks are put.
        pinned: whether `read` gives views of page-locked memory, which nobody writes to before the device has fetched
            all blocks: then they are only on their way to it, ahead of any work that is queued after them.
    """

    spec: MatrixSpec
    read: Callable[[slice, slice], torch.Tensor]
    device: torch.device
    pinned: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return (self.spec.rows, self.spec.cols)

    @property
    def dtype(self) -> torch.dtype:
        """Data type as stored."""
        import torch  # noqa: PLC0415 - headers are understood without torch

        return cast("torch.dtype", getattr(torch, self.spec.tensor.dtype))

    def on(self, device: torch.device) -> LazyMatrix:
        """Return the same matrix with its blocks on another device."""
        return replace(self, device=device)

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a contiguous range of rows and columns of the matrix, (rows, cols).

        Only the bytes of the block are read, except that parts of the rows of an expert come with the whole rows and
        parts of a kernel with the whole kernel.
        """
        (first_row, last_row), (first_col, last_col) = _bounds(rows, self.spec.rows), _bounds(cols, self.spec.cols)
        rows, cols = slice(first_row, last_row), slice(first_col, last_col)
        match self.spec.layout:
            case "stored":
                block = self.read(rows, cols).reshape(last_row - first_row, last_col - first_col)
            case "transposed":
                block = self.read(cols, rows).reshape(last_col - first_col, last_row - first_row).T
            case "swapped":
                block = self._swapped_block(rows, cols)
            case "expert":
                block = self._expert_block(rows, cols, self.spec.cols)
            case "expert_transposed":
                block = self._expert_block(cols, rows, self.spec.rows).T
        return block.to(self.device, non_blocking=self.pinned)

    def _swapped_block(self, rows: slice, cols: slice) -> torch.Tensor:
        kernel = math.prod(self.spec.tensor.shape[2:])
        if kernel == 0:
            return self.read(cols, rows).reshape(rows.stop - rows.start, 0)
        channels = slice(cols.start // kernel, -(-cols.stop // kernel))
        stored = self.read(channels, slice(rows.start * kernel, rows.stop * kernel))
        stored = stored.reshape(channels.stop - channels.start, rows.stop - rows.start, kernel)
        before = channels.start * kernel
        whole = stored.transpose(0, 1).reshape(rows.stop - rows.start, (channels.stop - channels.start) * kernel)
        return whole[:, cols.start - before : cols.stop - before]

    def _expert_block(self, rows: slice, cols: slice, width: int) -> torch.Tensor:
        """Read a block of one matrix of a stack whose rows are `width` long, as stored."""
        import torch  # noqa: PLC0415 - as above

        expert = self.spec.expert or 0
        one = slice(expert, expert + 1)
        count = rows.stop - rows.start
        row_bytes = max(width * self.spec.nbytes // max(self.spec.rows * self.spec.cols, 1), 1)
        step = max(count if cols == slice(0, width) else min(count, STRIP_BYTES // row_bytes), 1)
        strips = []
        for start in range(rows.start, max(rows.stop, rows.start + 1), step):
            stop = min(start + step, rows.stop)
            strip = self.read(one, slice(start * width, stop * width)).reshape(stop - start, width)[:, cols]
            strips.append(strip.clone() if count > step else strip)  # a view would keep the columns not asked for
        return strips[0] if len(strips) == 1 else torch.cat(strips)


def in_stored_layout(spec: MatrixSpec, matrix: torch.Tensor) -> torch.Tensor:
    """A matrix in the layout of the tensor that it comes from: what undoes taking the matrix out of it.

    Args:
        spec: which matrix.
        matrix: (rows, cols).

    Returns:
        Of the shape of the stored tensor; for one of a stack, of its shape without axis 0.
    """
    shape = spec.tensor.shape if spec.expert is None else spec.tensor.shape[1:]
    match spec.layout:
        case "stored" | "expert":
            return matrix.reshape(shape)
        case "transposed" | "expert_transposed":
            return matrix.T.reshape(shape)
        case "swapped":
            inputs, outputs, *kernel = shape
            return matrix.reshape(outputs, inputs, *kernel).transpose(0, 1)


def _bounds(part: slice, size: int) -> tuple[int, int]:
    start, stop, _ = part.indices(size)
    return start, max(start, stop)


def matrices_of(weights: Sequence[Weight], transposed: Sequence[str] = ()) -> tuple[list[MatrixSpec], list[Skipped]]:
    """Turn weights into matrices, and say which are none.

    Args:
        weights: of one model.
        transposed: globs of parameters that are transposed convolutions, or linear layers stored as (in, out),
            whatever their names say.

    Returns:
        Matrices in the order of the weights; tensors that are no matrices, with the reason.
    """
    shapes = {kinds.plain_name(weight.parameter): weight.tensor.shape for weight in weights}
    shapes |= {weight.parameter: weight.tensor.shape for weight in weights}
    scaled = _scales(weights)
    factors = frozenset(scaled.values())
    conv1d = orientation.stores_in_out(shapes)
    stacked = 0
    specs: list[MatrixSpec] = []
    others: list[Skipped] = []
    for weight in weights:
        why_not = _not_a_matrix(weight, shapes, scaled, factors)
        if why_not is None and kinds.is_stack(weight.parameter, weight.tensor.shape):
            stacked += weight.tensor.shape[0]
            if stacked > MOST_STACKED:
                stacked -= weight.tensor.shape[0]
                why_not = ("too_many_matrices", f"with it, stacks would hold more than {MOST_STACKED} matrices")
        if why_not is not None:
            others.append(skipped(weight.tensor, *why_not))
            continue
        names = {weight.parameter, weight.tensor.name}
        forced = any(fnmatchcase(name, glob) for glob in transposed for name in names)
        specs += _specs(weight, shapes, conv1d=conv1d, forced=forced)
    return specs, others


def declared(spec: MatrixSpec, kind: Kind | None, layout: str | None, family: str) -> MatrixSpec:
    """A matrix with what its family says of it, which counts for more than what names and shapes tell.

    Args:
        spec: as :func:`matrices_of` gives it.
        kind: of layer; None leaves it.
        layout: ``out,in`` or ``in,out``; None leaves it, as does ``--transposed``.
        family: for the reason.
    """
    spec = _declared(spec, kind, layout, family)
    if spec.kind == "conv" and spec.layout == "swapped":  # what is read as (in, out, kernel...) is one, by definition
        return replace(spec, kind="conv_transpose")
    return spec


def _declared(spec: MatrixSpec, kind: Kind | None, layout: str | None, family: str) -> MatrixSpec:
    shape = spec.tensor.shape
    if kind is not None and not (kind in {"conv", "conv_transpose"} and len(shape) < 3):  # that takes a kernel
        spec = replace(spec, kind=kind)
    tokens = spec.expert is not None and shape[0] == 1 and spec.kind == "embedding"
    if layout is None or spec.reason.endswith(FORCED) or tokens:
        return spec
    turned = layout == "in,out"
    wanted: Layout = (
        ("expert_transposed" if turned else "expert")
        if spec.expert is not None
        else ("swapped" if turned else "stored")
        if len(shape) > 2
        else ("transposed" if turned else "stored")
    )
    if wanted == spec.layout:
        return spec
    sizes = shape[1:] if spec.expert is not None else shape
    rows, cols = (sizes[1], sizes[0]) if turned else sizes[:2]
    reason = f"{family} stores {'(in, out)' if turned else '(out, in)'}"
    return replace(spec, layout=wanted, rows=rows, cols=cols * math.prod(sizes[2:]), reason=reason)


def _scales(weights: Sequence[Weight]) -> dict[str, str]:
    """Eight-bit floating-point weights that are factors of the real ones -> the other factor."""
    names = {weight.parameter for weight in weights}
    return {
        weight.parameter: scale
        for weight in weights
        if weight.tensor.dtype.startswith("float8")
        for scale in (f"{weight.parameter}_scale_inv", f"{weight.parameter}_scale")
        if scale in names
    }


def _not_a_matrix(
    weight: Weight, shapes: Shapes, scaled: dict[str, str], factors: Collection[str]
) -> tuple[str, str] | None:
    """Status and reason for a tensor that is no matrix of weights; `factors` are the values of `scaled`."""
    tensor, name = weight.tensor, weight.parameter
    leaf, shape = kinds.leaf_of(name), tensor.shape
    reason: tuple[str, str] | None = None
    if shape in {(), (1,)}:
        reason = ("scalar", "a single number")
    elif tensor.dtype == "bool" or tensor.dtype.startswith(("int", "uint")):
        reason = ("integer_dtype", f"{tensor.dtype}: indices, counters or packed weights")
    elif 0 in shape and kinds.is_stack(name, shape):
        reason = ("empty", "a stack of no matrices, or of empty ones")
    elif len(shape) == 1 and leaf.endswith("flat_param"):
        reason = ("flat_parameter", "many parameters flattened by FSDP; save a full or sharded state dict")
    elif len(shape) == 1:
        reason = ("vector", "a bias, a norm or another vector")
    elif leaf == "bias" and len(shape) == 4 and shape[:2] == (1, 1):
        reason = ("buffer", "a mask or an index, not a weight")
    elif kinds.BIAS.fullmatch(leaf):
        reason = ("bias", "a bias of several axes")
    elif leaf in kinds.BUFFERS or name in factors:
        reason = ("buffer", "a mask, an index or a scale, not a weight")
    elif name in scaled:
        reason = ("quantized", f"only with '{scaled[name]}' it makes the weight; save the checkpoint dequantized")
    elif kinds.bias_shape(name, shapes) == shape:
        reason = ("norm", "scales its input element by element, as its bias has the same shape")
    elif kinds.is_magnitude(name, shapes):
        reason = ("vector", "the lengths that weight normalization splits off")
    elif kinds.is_single_token(name, shape):
        reason = ("vector", "a single token or another vector")
    return reason


def _specs(weight: Weight, shapes: Shapes, *, conv1d: bool, forced: bool) -> list[MatrixSpec]:
    tensor, shape, name = weight.tensor, weight.tensor.shape, weight.parameter
    leaf = kinds.leaf_of(name)
    if len(shape) == 2:
        kind = kinds.matrix_kind(name, shapes)
        reason = FORCED if forced else orientation.why_transposed(name, shapes, kind, conv1d=conv1d)
        rows, cols = (shape[1], shape[0]) if reason else shape
        return [MatrixSpec(name, kind, rows, cols, tensor, "transposed" if reason else "stored", None, reason)]
    if kinds.is_stack(name, shape):
        what = "experts" if kinds.is_expert_stack(name, shape) else "heads"
        why = FORCED if forced else orientation.why_stack_transposed(name, shapes)
        return _stack(
            weight, "linear" if what == "experts" else "attention", f"{shape[0]} {what} along the first axis", why
        )
    if kinds.TOKEN.fullmatch(leaf) and (shape[0] == 1 or (len(shape) == 3 and shape[1] == 1)):
        return [_tokens(weight)]
    swapped = FORCED if forced else orientation.why_swapped(name, shapes)
    if swapped:
        rows, cols = shape[1], shape[0] * math.prod(shape[2:])
        return [MatrixSpec(name, "conv_transpose", rows, cols, tensor, "swapped", None, swapped)]
    conv = len(shape) <= 5 and leaf.startswith("weight")
    return [MatrixSpec(name, "conv" if conv else "other", shape[0], math.prod(shape[1:]), tensor)]


def _tokens(weight: Weight) -> MatrixSpec:
    """Learned positions or tokens: (1, n, d), (n, 1, d), (1, height, width, d), (1, d, height, width)."""
    tensor, shape = weight.tensor, weight.tensor.shape
    if shape[0] != 1:
        return MatrixSpec(weight.parameter, "embedding", shape[0], shape[2], tensor)
    at = 3 if len(shape) == 4 and shape[1] == shape[2] else 2
    rows, cols = math.prod(shape[1:at]), math.prod(shape[at:])
    return MatrixSpec(weight.parameter, "embedding", rows, cols, tensor, "expert", 0, "a leading axis of 1")


def _stack(weight: Weight, kind: Kind, stacked: str, why_transposed: str) -> list[MatrixSpec]:
    """A matrix for each place along the first axis."""
    count, rows, cols = weight.tensor.shape
    layout: Layout = "expert_transposed" if why_transposed else "expert"
    if why_transposed:
        rows, cols = cols, rows
    reason = f"{stacked}; {why_transposed}" if why_transposed else stacked
    return [
        MatrixSpec(f"{weight.parameter}[{place}]", kind, rows, cols, weight.tensor, layout, place, reason)
        for place in range(count)
    ]
