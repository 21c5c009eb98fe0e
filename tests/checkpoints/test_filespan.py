"""Blocks of tensors read from a file, against torch's own indexing."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.checkpoints.filespan import FileSpan, StridedSpan, contiguous_strides
from spectra_cli.errors import CorruptCheckpointError, UnsupportedFormatError
from spectra_cli.storage.files import LocalFile
from spectra_cli.tensors import ITEMSIZE

HEAD_BYTES = 13


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A file of 5000 float32 numbers after a few bytes of something else."""
    values = torch.arange(5000, dtype=torch.float32)
    path = tmp_path_factory.mktemp("span") / "numbers"
    path.write_bytes(b"x" * HEAD_BYTES + values.numpy().tobytes())
    return path, values


def slices(size: int) -> st.SearchStrategy[slice]:
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda ends: slice(*sorted(ends)))


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides and first element of a view into the 5000 numbers."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(shape))))
        dense = contiguous_strides([shape[axis] for axis in order])
        strides = tuple(dense[order.index(axis)] for axis in range(len(shape)))
    else:
        strides = tuple(draw(st.integers(0, 90)) for _ in shape)
    return shape, strides, draw(st.integers(0, 200))


@settings(max_examples=150, deadline=None)
@given(view=views(), data=st.data())
def test_any_block_of_any_view_equals_torchs_as_strided(
    numbers: tuple[Path, torch.Tensor], view: tuple[tuple[int, ...], tuple[int, ...], int], data: st.DataObject
) -> None:
    """Transposed, sliced, expanded and overlapping views: every block is what torch's strided view shows."""
    path, values = numbers
    shape, strides, start = view
    expected = values.as_strided(shape, strides, start)
    width = math.prod(shape[1:])
    rows, cols = data.draw(slices(shape[0])), data.draw(slices(width))
    with LocalFile(path) as file:
        span = StridedSpan(file, HEAD_BYTES + 4 * start, shape, strides, "float32")
        assert torch.equal(span.read(), expected)
        assert torch.equal(span.read(rows), expected[rows])
        block = span.read(rows, cols)
        matrix = expected.reshape(shape[0], width)[rows, cols]
        assert torch.equal(block.reshape(matrix.shape), matrix)
        if cols != slice(0, width):
            assert block.shape == matrix.shape


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.integers(0, 6), max_size=4), data=st.data())
def test_any_block_of_a_dense_tensor_equals_torchs_indexing(
    numbers: tuple[Path, torch.Tensor], shape: list[int], data: st.DataObject
) -> None:
    path, values = numbers
    expected = values[: math.prod(shape)].reshape(shape)
    height, width = shape[0] if shape else 1, math.prod(shape[1:])
    rows, cols = data.draw(slices(height)), data.draw(slices(width))
    if not shape:
        rows = cols = slice(None)  # a scalar has no parts
    with LocalFile(path) as file:
        span = FileSpan(file, HEAD_BYTES, tuple(shape), "float32")
        assert torch.equal(span.read(), expected)
        matrix = expected.reshape(height, width)[rows, cols]
        assert torch.equal(span.read(rows, cols).reshape(matrix.shape), matrix)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # torch's word on complex32
@pytest.mark.parametrize("dtype", sorted(ITEMSIZE))
def test_every_dtype_keeps_its_bits(tmp_path: Path, dtype: str) -> None:
    """Dense and transposed, the bytes of each element come back as they are stored."""
    if not hasattr(torch, dtype):
        pytest.skip(f"this torch has no {dtype}")
    itemsize = ITEMSIZE[dtype]
    stored = bytes(range(6 * itemsize)) if dtype != "bool" else b"\0\1\1\0\1\0"
    (tmp_path / "bits").write_bytes(stored)
    with LocalFile(tmp_path / "bits") as file:
        dense = FileSpan(file, 0, (2, 3), dtype).read()
        transposed = StridedSpan(file, 0, (3, 2), (1, 3), dtype).read()
    assert dense.element_size() == itemsize
    assert dense.reshape(-1).view(torch.uint8).numpy().tobytes() == stored
    assert transposed.t().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == stored


def test_a_file_cut_short_is_corrupt_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\0" * 30)
    with LocalFile(tmp_path / "short") as file:
        for span in (FileSpan(file, 0, (4, 4), "float32"), StridedSpan(file, 0, (4, 4), (1, 4), "float32")):
            with pytest.raises(CorruptCheckpointError, match="byte 30"):
                span.read()


def test_a_dtype_that_torch_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"\0" * 8)
    monkeypatch.delattr(torch, "float8_e5m2")
    with LocalFile(tmp_path / "file") as file, pytest.raises(UnsupportedFormatError, match="float8_e5m2"):
        FileSpan(file, 0, (2,), "float8_e5m2").read()


def test_a_step_in_a_range_is_a_programming_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\0" * 64)
    with LocalFile(tmp_path / "file") as file, pytest.raises(ValueError, match="contiguous"):
        FileSpan(file, 0, (4, 4), "float32").read(slice(0, 4, 2))


def test_gaps_between_the_elements_of_a_view_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few columns of a wide matrix: exactly their bytes are asked of the system, not the matrix."""
    height, width = 64, 100_000  # 25.6 MB, of which 64 kB are asked for
    with (tmp_path / "wide").open("wb") as file:
        file.truncate(4 * height * width)
    asked: list[int] = []
    original = os.preadv

    def counting(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        asked.extend(map(len, buffers))
        return original(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counting)
    with LocalFile(tmp_path / "wide") as file:
        StridedSpan(file, 0, (height, 256), (width, 1), "float32").read()
    assert sum(asked) == 4 * height * 256
