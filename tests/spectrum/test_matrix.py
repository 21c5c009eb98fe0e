"""A part of a matrix is what NumPy's indexing says it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.spectrum.factorize import factorize
from spectra_cli.spectrum.matrix import Ranges, SubMatrix, TensorMatrix

from .planted import lapack
from .test_memory import Watched

SIZE = (13, 17)


def ranges(size: int) -> st.SearchStrategy[Ranges]:
    """Ascending disjoint ranges, adjacent ones too; also none."""
    ends = st.lists(st.integers(0, size), min_size=2, max_size=8, unique=True).map(sorted)
    apart = ends.map(lambda e: tuple(zip(e[::2], e[1::2], strict=False)))
    adjacent = ends.map(lambda e: tuple(pairwise(e)))
    return st.one_of(st.just(()), apart, adjacent)


def chosen(parts: Ranges, size: int) -> list[int]:
    return [position for start, stop in parts or ((0, size),) for position in range(start, stop)]


slices = st.builds(slice, st.none() | st.integers(-20, 20), st.none() | st.integers(-20, 20))


@given(ranges(SIZE[0]), ranges(SIZE[1]), slices, slices)
def test_blocks_of_a_part_equal_numpy_indexing(rows: Ranges, cols: Ranges, some_rows: slice, some_cols: slice) -> None:
    whole = torch.arange(SIZE[0] * SIZE[1], dtype=torch.float64).reshape(SIZE)
    part = SubMatrix(TensorMatrix(whole), rows, cols)
    expected = whole.numpy()[np.ix_(chosen(rows, SIZE[0]), chosen(cols, SIZE[1]))]
    assert part.shape == expected.shape
    np.testing.assert_array_equal(part.block().numpy(), expected)
    np.testing.assert_array_equal(part.block(some_rows, some_cols).numpy(), expected[some_rows, some_cols])


@given(ranges(SIZE[0]), ranges(SIZE[1]), slices, slices)
def test_no_more_is_read_than_the_block_holds(rows: Ranges, cols: Ranges, some_rows: slice, some_cols: slice) -> None:
    whole = Watched(torch.ones(SIZE))
    block = SubMatrix(whole, rows, cols).block(some_rows, some_cols)
    assert sum(whole.sizes) == block.numel()


def test_one_range_is_a_view_and_adjacent_ranges_are_one() -> None:
    whole = torch.ones(SIZE)
    part = SubMatrix(TensorMatrix(whole), rows=((2, 5), (5, 9)), cols=((0, 4),))
    assert part.block().untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
    assert part.shape == (7, 4)


def test_a_part_of_a_part() -> None:
    whole = torch.randn(SIZE)
    outer = SubMatrix(TensorMatrix(whole), rows=((1, 4), (6, 12)))
    inner = SubMatrix(outer, rows=((2, 5),), cols=((3, 4), (9, 17)))
    rows = chosen(((1, 4), (6, 12)), 13)[2:5]
    np.testing.assert_array_equal(inner.block().numpy(), whole.numpy()[np.ix_(rows, [3, *range(9, 17)])])


@pytest.mark.parametrize(
    "wrong", [((0, 14),), ((-1, 3),), ((3, 3),), ((5, 3),), ((0, 4), (3, 6)), ((6, 9), (0, 3)), ((13, 14),)]
)
@pytest.mark.parametrize("axis", ["rows", "cols"])
def test_ranges_that_are_none_are_refused_with_their_axis(wrong: Ranges, axis: str) -> None:
    with pytest.raises(ValueError, match=f"{axis} .* within 13"):
        SubMatrix(TensorMatrix(torch.ones(13, 13)), **{axis: wrong})


def test_a_part_moves_with_the_whole() -> None:
    part = SubMatrix(Watched(torch.ones(SIZE)), rows=((1, 3), (5, 6)))
    moved = part.on(torch.device("meta"))
    assert (moved.device.type, moved.shape, moved.rows) == ("meta", part.shape, part.rows)
    assert part.device.type == "cpu"


@settings(deadline=None, max_examples=30)
@given(ranges(40), ranges(30), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.integers(0, 99))
def test_a_part_is_factorized_as_its_copy_would_be(rows: Ranges, cols: Ranges, dtype: torch.dtype, seed: int) -> None:
    whole = torch.randn(40, 30, generator=torch.Generator().manual_seed(seed)).to(dtype)
    indices = (chosen(rows, 40), chosen(cols, 30))
    copy = whole[indices[0]][:, indices[1]]
    spectrum = factorize([SubMatrix(TensorMatrix(whole), rows, cols)], vectors=100, budget_bytes=1 << 30)[0]
    true = lapack(copy)
    np.testing.assert_allclose(spectrum.singular_values, true, atol=1e-5 * true[0])
    assert spectrum.left is not None
    assert spectrum.right is not None
    rebuilt = (spectrum.left * torch.from_numpy(spectrum.singular_values)) @ spectrum.right.mT
    torch.testing.assert_close(rebuilt, copy.double(), atol=1e-5 * true[0], rtol=0)


def test_interleaved_heads_of_a_fused_weight_are_a_batch() -> None:
    """Three heads of two rows for each of q, k and v, stored head by head."""
    whole = torch.randn(18, 10)
    heads = [SubMatrix(TensorMatrix(whole), rows=((6 * head, 6 * head + 2),)) for head in range(3)]
    query = SubMatrix(TensorMatrix(whole), rows=tuple((6 * head, 6 * head + 2) for head in range(3)))
    for head, spectrum in enumerate(factorize(heads, budget_bytes=1 << 30)):
        np.testing.assert_allclose(spectrum.singular_values, lapack(whole[6 * head : 6 * head + 2]), rtol=1e-6)
    stacked = torch.cat([whole[0:2], whole[6:8], whole[12:14]])
    np.testing.assert_allclose(factorize([query], budget_bytes=1 << 30)[0].singular_values, lapack(stacked), rtol=1e-6)
