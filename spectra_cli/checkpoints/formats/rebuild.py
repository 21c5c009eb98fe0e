"""The allow-list: what a pickle of tensors may build, as descriptions without data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spectra_cli.checkpoints.filespan import FileSpan, Span, StridedSpan, contiguous_strides
from spectra_cli.checkpoints.formats.inert import Rebuild
from spectra_cli.checkpoints.formats.limits import MOST_AXES
from spectra_cli.checkpoints.formats.placeholders import Global, Object, as_key
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError
from spectra_cli.storage.files import StoredFile
from spectra_cli.tensors import ITEMSIZE

LARGEST_SIZE = 1 << 48
MOST_ELEMENTS = 1 << 56  # torch counts bytes in 63 bits
LARGEST_OVERLAP_BYTES = 1 << 24
"""Logical size up to which a view may repeat elements (``expand`` before saving)."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes that tensors share.

    Attributes:
        key: the storage's name within the file.
        dtype: type of its elements, ``uint8`` for storages without one.
        numel: number of elements.
        start: first element, where this is a part of the stored one.
    """

    key: str
    dtype: str
    numel: int
    start: int = 0

    @property
    def end_bytes(self) -> int:
        """Bytes of the stored storage that this one needs."""
        return (self.start + self.numel) * ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A strided view into a storage; offset and strides count elements of the tensor's own dtype.

    `subclass` is the dotted name of the class that it was saved from, "" for torch's own.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    subclass: str = ""

    @property
    def first_byte(self) -> int:
        """First byte of the view within the stored storage."""
        return self.storage.start * ITEMSIZE[self.storage.dtype] + self.offset * ITEMSIZE[self.dtype]

    @property
    def identity(self) -> str:
        """Text that two names of the same elements share, whatever the order of axes: a transposed view is tied."""
        axes = sorted((axis for axis in zip(self.strides, self.shape, strict=True) if axis[1] != 1), reverse=True)
        walk = ",".join(f"{size}/{stride}" for stride, size in axes)
        return f"{self.storage.key}+{self.first_byte}:{walk}:{self.dtype}"

    @property
    def nbytes(self) -> int:
        """Size in bytes when read."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]

    def span(self, file: StoredFile, start: int, size_bytes: int) -> Span:
        """Locate the tensor, given that its stored storage takes `size_bytes` bytes from `start` of `file`.

        Raises:
            CorruptCheckpointError: if the view reaches beyond the storage.
            HostileCheckpointError: if it repeats elements until it is far larger than what is stored.
        """
        itemsize, numel = ITEMSIZE[self.dtype], math.prod(self.shape)
        if numel == 0:
            return FileSpan(file, start, self.shape, self.dtype)
        reach = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        available = min(size_bytes, self.storage.end_bytes) - self.first_byte
        if reach * itemsize > available:
            raise CorruptCheckpointError(
                f"a tensor of shape {list(self.shape)} claims {reach * itemsize} bytes of a storage that has "
                f"{max(available, 0)}",
                remedy="Save the checkpoint again",
            )
        if numel * itemsize > max(reach * itemsize, LARGEST_OVERLAP_BYTES):
            raise HostileCheckpointError(
                f"a tensor of shape {list(self.shape)} repeats {reach * itemsize} stored bytes until it has "
                f"{numel * itemsize}",
                remedy="Save it with .contiguous() if it is meant to be that large",
            )
        dense = contiguous_strides(self.shape)
        if all(size == 1 or stride == d for size, stride, d in zip(self.shape, self.strides, dense, strict=True)):
            return FileSpan(file, start + self.first_byte, self.shape, self.dtype)
        return StridedSpan(file, start + self.first_byte, self.shape, self.strides, self.dtype)


_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "UntypedStorage": "uint8",
    # Of quantized tensors, which are refused: their sizes say where the storages after them are in a legacy file.
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}


_PERSISTENT_ID = Global("pickle", "persistent id")


def storage_from_id(identity: Any) -> Any:
    """The :class:`Storage` that a persistent id of torch names, or an :class:`Object` around anything else."""
    match identity:
        case ("storage" | b"storage", Global(name=kind), key, _, numel, *view) if kind in _STORAGE_DTYPES:
            start = 0
            if view and isinstance(view[0], tuple) and len(view[0]) == 3:  # legacy: a part of the stored storage
                _, start, numel = view[0]
            key, (start, numel) = _text(key), sizes_of((start, numel))
            return Storage(key, _STORAGE_DTYPES[kind], numel, start)
        case ("module" | b"module", module, *_):  # legacy: a class with its source code
            return module
        case _:
            return Object(_PERSISTENT_ID, identity)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_tensor`` and ``_rebuild_tensor_v2``: (storage, offset, size, stride, …, metadata)."""
    storage, offset, shape, strides, *rest = arguments
    if not isinstance(storage, Storage) or (len(rest) > 2 and rest[2]):
        # Not in a storage of this file, or with lazy conjugation or negation: not the numbers that are stored.
        return Object(Global("torch._utils", "_rebuild_tensor_v2"), *arguments)
    return _stored(storage, offset, shape, strides, storage.dtype)


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> Any:
    """Tensors of dtypes younger than typed storages: (storage, offset, size, stride, grad, hooks, dtype, metadata)."""
    storage, offset, shape, strides, _, _, dtype, *rest = arguments
    name = dtype.name if isinstance(dtype, Global) and dtype.module == "torch" else ""
    if not isinstance(storage, Storage) or name not in ITEMSIZE or any(rest):
        return Object(Global("torch._utils", "_rebuild_tensor_v3"), *arguments)
    return _stored(storage, offset, shape, strides, name)


def _stored(storage: Storage, offset: Any, shape: Any, strides: Any, dtype: str) -> StoredTensor:
    (offset,), shape, strides = sizes_of((offset,)), shape_of(shape), sizes_of(strides)
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise CorruptCheckpointError("a tensor's shape and strides disagree", remedy="Save the checkpoint again")
    return StoredTensor(storage, offset, shape, strides, dtype)


def _first(arguments: tuple[Any, ...]) -> Any:
    """What a wrapper such as a parameter wraps."""
    return arguments[0]


def _rebuild_from_type(arguments: tuple[Any, ...]) -> Any:
    """``_rebuild_from_type_v2``: (function, class, its arguments, state)."""
    function, kind, inner, *_ = arguments
    rebuild = REBUILDERS.get(function.path) if isinstance(function, Global) else None
    tensor = rebuild(inner) if rebuild is not None and isinstance(inner, tuple) else None
    if not (isinstance(tensor, StoredTensor) and isinstance(kind, Global)):
        return Object(Global("torch._tensor", "_rebuild_from_type_v2"), *arguments)
    return tensor if kind.path in _PLAIN_TENSORS else replace(tensor, subclass=kind.path)


def _ordered_dict(arguments: tuple[Any, ...]) -> Any:
    """An empty dictionary, or one from the list of pairs that Python 2 wrote.

    The list is emptied: naming it a thousand times must not make a thousand copies.
    """
    if not arguments:
        return {}
    pairs = arguments[0]
    if not isinstance(pairs, list):
        return Object(Global("collections", "OrderedDict"), *arguments)
    entries = {as_key(key): value for key, value in pairs}
    pairs.clear()
    return entries


_PLAIN_TENSORS = frozenset(
    {"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
)

REBUILDERS: Mapping[str, Rebuild] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda arguments: arguments[0] if arguments else (),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda _: {},  # its items follow
    "builtins.dict": _ordered_dict,
    "builtins.set": lambda arguments: arguments[0] if arguments else [],
    "builtins.frozenset": lambda arguments: arguments[0] if arguments else [],
    "__builtin__.set": lambda arguments: arguments[0] if arguments else [],
}
"""What each allowed global builds. None of them calls, imports or copies what the stream supplies."""


def sizes_of(values: Any) -> tuple[int, ...]:
    """A shape, strides or offsets from a pickle.

    Raises:
        CorruptCheckpointError: unless they are few non-negative integers that a file can hold.
    """
    if not isinstance(values, tuple | list) or len(values) > MOST_AXES:
        raise CorruptCheckpointError("a tensor's shape is not a list of sizes", remedy="Save the checkpoint again")
    if not all(type(value) is int and 0 <= value < LARGEST_SIZE for value in values):
        raise CorruptCheckpointError("a tensor's shape has impossible sizes", remedy="Save the checkpoint again")
    return values if isinstance(values, tuple) else tuple(values)


def shape_of(values: Any) -> tuple[int, ...]:
    """A shape from a pickle.

    Raises:
        CorruptCheckpointError: as :func:`sizes_of`, and if no tensor has so many elements, even next to an empty axis.
    """
    shape = sizes_of(values)
    if math.prod(size for size in shape if size) >= MOST_ELEMENTS:
        raise CorruptCheckpointError("a tensor's shape has impossible sizes", remedy="Save the checkpoint again")
    return shape


def _text(key: Any) -> str:
    if isinstance(key, int) or (isinstance(key, str) and len(key) < 256):
        return str(key)
    raise CorruptCheckpointError("a storage's name is not text", remedy="Save the checkpoint again")
