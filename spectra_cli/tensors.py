"""What is known of a tensor before its bytes are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

ITEMSIZE: Mapping[str, int] = MappingProxyType(
    {
        "float64": 8,
        "float32": 4,
        "float16": 2,
        "bfloat16": 2,
        "float8_e4m3fn": 1,
        "float8_e4m3fnuz": 1,
        "float8_e5m2": 1,
        "float8_e5m2fnuz": 1,
        "float8_e8m0fnu": 1,
        "complex128": 16,
        "complex64": 8,
        "complex32": 4,
        "int64": 8,
        "int32": 4,
        "int16": 2,
        "int8": 1,
        "uint64": 8,
        "uint32": 4,
        "uint16": 2,
        "uint8": 1,
        "bool": 1,
    }
)
"""Bytes per element of every dtype a checkpoint may hold, by torch's name of it."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A named tensor as the header of a checkpoint describes it.

    Attributes:
        name: dotted path of the tensor, unique within the checkpoint.
        shape: sizes, outermost first.
        dtype: torch's name of the stored type, a key of :data:`ITEMSIZE`.
        group: dotted path of the nested dictionary that held the tensor ("" for the top level).
        storage: identity of the bytes; two tensors with the same one are tied. None where the format cannot tell.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str = ""
    storage: str | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes when stored densely."""
        return self.numel * ITEMSIZE[self.dtype]

    @property
    def is_floating(self) -> bool:
        """Whether the elements are real floating-point numbers."""
        return self.dtype.startswith(("float", "bfloat"))


def by(shape: Iterable[int]) -> str:
    """A shape in words: ``64 x 10``, and ``a scalar`` without any axis."""
    return " x ".join(map(str, shape)) or "a scalar"
