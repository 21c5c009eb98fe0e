"""A tensor as a 2-D matrix, output x input: which kind of layer it belongs to and how its axes are laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from spectra_cli.layers.weights import Skipped, Weight, skipped
from spectra_cli.tensors import TensorInfo

if TYPE_CHECKING:
    import torch

Kind = Literal["linear", "conv", "conv_transpose", "embedding", "recurrent", "attention", "other"]
Layout = Literal["stored", "transposed", "swapped", "expert"]

RECURRENT = re.compile(r"(.*\.)?(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?")
EMBEDDING = re.compile(
    r"(\w*_)?(emb(ed(s|dings?)?)?|embeddings?|embedder)(_\w+)?|wte|wpe|tok_embeddings|\w*pos_emb\w*", re.I
)
NOT_EMBEDDING = frozenset({"embed_out", "unembed", "unembedding", "patch_embed", "patch_embeddings", "patch_embedding"})
ATTENTION = re.compile(
    r"(\w*_)?(attn|attention|mha|multihead_attn)\d*|\w*attention|in_proj_weight|[qkvo]_proj|[qkvo]_proj_weight"
    r"|(w)?qkv(_proj)?|query_key_value|c_attn|w[qkvo]|to_[qkv]|to_out|query|key|value|SelfAttention|EncDecAttention",
    re.I,
)
TRANSPOSED_CONV = re.compile(
    r".*(tconv|conv_?t\d*(\d?d)?$|convt(rans)?|deconv|trans(posed?)?_?conv|conv_?trans(posed?)?|up_?conv|upconv|up\w*transpose).*",
    re.I,
)
EXPERTS = re.compile(r"experts?(_\w+)?", re.I)
TOKEN = re.compile(r".*(pos_?emb|position|token|latents?|query_embed).*", re.I)
MASK_LEAVES = frozenset({"bias", "masked_bias", "mask", "attn_mask", "causal_mask", "relative_position_index"})
CONV1D_MODULES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
"""Modules of GPT-2 that are (in, out) in Hugging Face's checkpoints and (out, in) in others, under the same names."""


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
            (in, out); ``swapped`` - stored as (in, out, kernel...); ``expert`` - one of a stack along axis 0.
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
    """

    spec: MatrixSpec
    read: Callable[[slice, slice], torch.Tensor]
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return (self.spec.rows, self.spec.cols)

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""
        import torch  # noqa: PLC0415 - headers are understood without torch

        dtype = getattr(torch, self.spec.tensor.dtype)
        assert isinstance(dtype, torch.dtype)  # noqa: S101 - names of dtypes are torch's
        return dtype

    def on(self, device: torch.device) -> LazyMatrix:
        """Return the same matrix with its blocks on another device."""
        return replace(self, device=device)

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        """Read a contiguous range of rows and columns of the matrix, (rows, cols)."""
        return self._stored_block(rows, cols).to(self.device)

    def _stored_block(self, rows: slice, cols: slice) -> torch.Tensor:
        spec = self.spec
        everything = slice(None)
        if spec.layout == "transposed":
            return self.read(cols, rows).T
        if spec.layout == "swapped":  # kernels are small: the whole tensor is read for any part of it
            stored = self.read(everything, everything).reshape(spec.tensor.shape)
            return stored.movedim(1, 0).reshape(spec.rows, spec.cols)[rows, cols]
        if spec.expert is not None:
            first, last, _ = rows.indices(spec.rows)
            one = slice(spec.expert, spec.expert + 1)
            flat = self.read(one, slice(first * spec.cols, last * spec.cols))
            return flat.reshape(last - first, spec.cols)[:, cols]
        block = self.read(rows, cols)
        return block.reshape(block.shape[0], -1)


def matrices_of(weights: Sequence[Weight], transposed: Sequence[str] = ()) -> tuple[list[MatrixSpec], list[Skipped]]:
    """Turn weights into matrices, and say which are none.

    Args:
        weights: of one model.
        transposed: globs of parameters that are transposed convolutions, or linear layers stored as (in, out),
            whatever their names say.

    Returns:
        Matrices in the order of the weights; tensors that are no matrices, with the reason.
    """
    shapes = {weight.parameter: weight.tensor.shape for weight in weights}
    conv1d = _stores_in_out(shapes)
    specs: list[MatrixSpec] = []
    others: list[Skipped] = []
    for weight in weights:
        why_not = _not_a_matrix(weight)
        if why_not is not None:
            others.append(why_not)
            continue
        specs += _specs(weight, shapes, conv1d, any(fnmatchcase(weight.parameter, glob) for glob in transposed))
    return specs, others


def _not_a_matrix(weight: Weight) -> Skipped | None:
    tensor = weight.tensor
    leaf = weight.parameter.rsplit(".", 1)[-1]
    if tensor.shape == () or (tensor.numel == 1 and len(tensor.shape) == 1):
        return skipped(tensor, "scalar", "a single number")
    if len(tensor.shape) == 1:
        return skipped(tensor, "vector", "a bias, a norm or another vector")
    if leaf in MASK_LEAVES:
        return skipped(tensor, "buffer", "a mask or an index, not a weight")
    if tensor.dtype == "bool" or tensor.dtype.startswith(("int", "uint")):
        return skipped(tensor, "integer_dtype", f"{tensor.dtype}: indices, counters or packed weights")
    if len(tensor.shape) > 2 and TOKEN.fullmatch(leaf) and max(tensor.shape) == tensor.numel:
        return skipped(tensor, "vector", "a single token")
    return None


def _specs(weight: Weight, shapes: Mapping[str, tuple[int, ...]], conv1d: bool, forced: bool) -> list[MatrixSpec]:
    tensor, shape, name = weight.tensor, weight.tensor.shape, weight.parameter
    components = name.split(".")
    bias = shapes.get(f"{name.removesuffix('weight')}bias") if name.endswith("weight") else None
    if len(shape) == 2:
        kind = _matrix_kind(name, components)
        reason = _why_transposed(components, shape, bias, conv1d=conv1d, forced=forced, kind=kind)
        rows, cols = (shape[1], shape[0]) if reason else shape
        return [MatrixSpec(name, kind, rows, cols, tensor, "transposed" if reason else "stored", None, reason)]
    if len(shape) == 3 and any(EXPERTS.fullmatch(component) for component in components):
        why = f"{shape[0]} experts stacked along the first axis"
        return [
            MatrixSpec(f"{name}[{expert}]", "linear", shape[1], shape[2], tensor, "expert", expert, why)
            for expert in range(shape[0])
        ]
    if shape[0] == 1 and len(shape) == 3 and TOKEN.fullmatch(components[-1]):
        return [MatrixSpec(f"{name}", "embedding", shape[1], shape[2], tensor, "expert", 0, "a leading axis of 1")]
    swapped = _why_swapped(name, shape, bias, forced)
    if swapped:
        rows, cols = shape[1], shape[0] * math.prod(shape[2:])
        return [MatrixSpec(name, "conv_transpose", rows, cols, tensor, "swapped", None, swapped)]
    conv = len(shape) <= 5 and components[-1].startswith(("weight", "original"))
    return [MatrixSpec(name, "conv" if conv else "other", shape[0], math.prod(shape[1:]), tensor)]


def _matrix_kind(name: str, components: Sequence[str]) -> Kind:
    if RECURRENT.fullmatch(name):
        return "recurrent"
    modules = components if components[-1] not in {"weight", "bias"} else components[:-1]
    if modules and modules[-1] not in NOT_EMBEDDING and EMBEDDING.fullmatch(modules[-1]):
        return "embedding"
    if any(ATTENTION.fullmatch(module) for module in modules):
        return "attention"
    return "linear"


def _stores_in_out(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a GPT-2 is Hugging Face's, by the fused projections: (d, 3 d) there and (3 d, d) elsewhere."""
    fused = [
        shape for name, shape in shapes.items() if name.endswith(("c_attn.weight", "c_fc.weight")) and len(shape) == 2
    ]
    return bool(fused) and all(shape[1] > shape[0] for shape in fused)


def _why_transposed(
    components: Sequence[str],
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
    *,
    conv1d: bool,
    forced: bool,
    kind: Kind,
) -> str:
    if forced:
        return "--transposed"
    if conv1d and len(components) > 1 and components[-2] in CONV1D_MODULES and components[-1] == "weight":
        return "GPT-2's Conv1D stores (in, out)"
    if kind not in {"recurrent", "embedding"} and bias == (shape[1],) and shape[0] != shape[1]:
        return "its bias has the length of the second axis"
    return ""


def _why_swapped(name: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, forced: bool) -> str:
    if forced:
        return "--transposed"
    matching = next((part for part in name.split(".") if TRANSPOSED_CONV.fullmatch(part)), None)
    if matching:
        return f"'{matching}' names a transposed convolution"
    if bias == (shape[1],) and shape[0] != shape[1]:
        return "its bias has the length of the second axis"
    return ""
