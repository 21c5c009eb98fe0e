"""Alignment and agreement against the formulas in float64 NumPy, on matrices whose vectors are well defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spectra_cli.spectrum import subspaces
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import TensorMatrix

from .planted import planted

GiB = 1 << 30
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def separated(rows: int, cols: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Relative gaps of about 6 % among the first hundred values, whatever the dtype rounds."""
    values = 3.0 * 0.94 ** np.arange(min(rows, cols))
    return torch.from_numpy(planted(rows, cols, values, seed)).to(dtype)


def spectrum_of(tensor: torch.Tensor) -> Spectrum:
    return factorize([TensorMatrix(tensor)], vectors=subspaces.MOST, budget_bytes=GiB)[0]


def vectors_of(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    spectrum = spectrum_of(tensor)
    assert spectrum.left is not None
    assert spectrum.right is not None
    return spectrum.left, spectrum.right


def numpy_svd(tensor: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """U and V of the weights as stored, by float64 LAPACK."""
    left, _, right = np.linalg.svd(tensor.double().numpy(), full_matrices=False)
    return left, right.T


SHAPES = [
    ((60, 50), (40, 60)),  # tall into wide
    ((60, 200), (300, 60)),  # wide into tall
    ((150, 120), (130, 150)),  # more than a hundred vectors
    ((70, 7), (90, 70)),  # fewer than ten
    ((70, 1), (1, 70)),  # one
    ((1, 5), (3, 1)),  # where the matrices meet is a single number
]


@pytest.mark.parametrize(("up", "down"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_alignment_is_equation_3_in_numpy(up: tuple[int, int], down: tuple[int, int], dtype: torch.dtype) -> None:
    upstream, downstream = separated(*up, 1, dtype), separated(*down, 2, dtype)
    u, v = vectors_of(upstream)[0], vectors_of(downstream)[1]
    expected = np.abs(numpy_svd(upstream)[0].T @ numpy_svd(downstream)[1])[:100, :100]
    block = subspaces.alignment_block(u, v)
    diagonal = subspaces.alignment_diagonal(u, v)
    assert (block.dtype, diagonal.dtype) == (np.float32, np.float64)
    assert block.shape == expected.shape
    np.testing.assert_allclose(block, expected, atol=1e-6)
    np.testing.assert_allclose(diagonal, np.diagonal(expected), atol=1e-6)
    assert subspaces.score(diagonal) == pytest.approx(np.diagonal(expected)[:10].mean(), abs=1e-6)


@pytest.mark.parametrize("shape", [(60, 50), (50, 60), (150, 130), (80, 7), (9, 1), (1, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_agreement_is_equation_5_in_numpy(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Of a matrix and the same one disturbed, so that entries lie all over [0, 1]."""
    first = separated(*shape, 3, dtype)
    second = (first.double() + 0.02 * separated(*shape, 4, torch.float64)).to(dtype)
    (u, v), (u_reference, v_reference) = numpy_svd(first), numpy_svd(second)
    expected = np.diagonal(np.abs(u.T @ u_reference) * np.abs(v.T @ v_reference))[:100]
    diagonal = subspaces.agreement_diagonal(*vectors_of(first), *vectors_of(second))
    np.testing.assert_allclose(diagonal, expected, atol=1e-6)
    assert subspaces.score(diagonal) == pytest.approx(expected[:10].mean(), abs=1e-6)


@pytest.mark.parametrize("shape", [(50, 60), (9000, 12)])
def test_a_matrix_agrees_with_itself_in_every_entry(shape: tuple[int, int]) -> None:
    """Also where vectors are longer than what is multiplied at once; and never above 1."""
    left, right = vectors_of(separated(*shape, 5))
    diagonal = subspaces.agreement_diagonal(left, right, left, right)
    np.testing.assert_allclose(diagonal, 1.0, atol=1e-9)
    np.testing.assert_allclose(subspaces.alignment_block(left, left), np.eye(left.shape[1]), atol=1e-9)
    assert diagonal.max() <= 1.0
    assert subspaces.alignment_block(left * 1.001, left).max() <= 1.0


def test_planted_alignment_is_found_on_its_entries_only() -> None:
    """W_down reads along what W_up writes, in the order of the values: A is the identity."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 12)))[0]
    other = np.linalg.qr(np.random.default_rng(1).standard_normal((30, 12)))[0]
    values = np.linspace(2, 1, 12)
    upstream = torch.from_numpy((basis * values) @ other.T).float()
    downstream = torch.from_numpy((other * values) @ basis.T).float()
    u, v = vectors_of(upstream)[0].narrow(1, 0, 12), vectors_of(downstream)[1].narrow(1, 0, 12)
    np.testing.assert_allclose(subspaces.alignment_block(u, v), np.eye(12), atol=1e-5)
    shuffled = torch.from_numpy((other * values) @ np.roll(basis, 1, axis=1).T).float()
    v = vectors_of(shuffled)[1].narrow(1, 0, 12)
    np.testing.assert_allclose(subspaces.alignment_diagonal(u, v), 0.0, atol=1e-5)


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=8, max_size=8), st.integers(0, 2**32 - 1))
def test_signs_of_vectors_do_not_matter(signs: list[float], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u, v, x, y = (torch.linalg.qr(torch.randn(20, 8, generator=generator)).Q for _ in range(4))
    turned = u * torch.tensor(signs)
    np.testing.assert_array_equal(subspaces.alignment_block(turned, v), subspaces.alignment_block(u, v))
    np.testing.assert_array_equal(
        subspaces.agreement_diagonal(turned, v, x, y), subspaces.agreement_diagonal(u, v, x, y)
    )


def test_transposition_exchanges_left_and_right_and_leaves_agreement() -> None:
    first, second = separated(50, 30, 6), separated(50, 30, 7)
    straight = subspaces.agreement_diagonal(*vectors_of(first), *vectors_of(second))
    turned = subspaces.agreement_diagonal(*vectors_of(first.T), *vectors_of(second.T))
    np.testing.assert_allclose(turned, straight, atol=1e-9)
    left, right = vectors_of(first)
    other_left, other_right = vectors_of(second)
    np.testing.assert_array_equal(
        subspaces.agreement_diagonal(right, left, other_right, other_left),
        subspaces.agreement_diagonal(left, right, other_left, other_right),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_products_are_accumulated_in_float64_whatever_the_dtype(dtype: torch.dtype) -> None:
    """20 000 products of numbers that float16 holds: in that dtype itself the sum would be infinite or coarse."""
    generator = torch.Generator().manual_seed(0)
    u, v = ((torch.randn(20_000, 3, generator=generator) / 200).to(dtype) for _ in range(2))
    expected = np.abs(u.double().numpy().T @ v.double().numpy())
    np.testing.assert_allclose(subspaces.alignment_diagonal(u, v), np.diagonal(expected), rtol=1e-12)
    np.testing.assert_allclose(subspaces.alignment_block(u, v), expected, rtol=1e-6)


def test_vectors_of_different_lengths_are_refused() -> None:
    u, v = torch.ones(4, 2), torch.ones(5, 2)
    for refused in (subspaces.alignment_diagonal, subspaces.alignment_block):
        with pytest.raises(ValueError, match="different lengths do not meet: 4 and 5"):
            refused(u, v)
    with pytest.raises(ValueError, match="5 and 4"):
        subspaces.agreement_diagonal(u, v, u, u)


@given(st.lists(st.floats(0, 1), max_size=30))
def test_score_is_the_mean_of_at_most_ten(entries: list[float]) -> None:
    first = entries[:10]
    expected = math.fsum(first) / len(first) if first else math.nan
    assert subspaces.score(entries) == pytest.approx(expected, nan_ok=True)


spectra = st.lists(st.floats(0, 1e6), min_size=1, max_size=20).map(lambda values: sorted(values, reverse=True))


@given(st.lists(spectra, min_size=1, max_size=3))
def test_min_gap_is_its_formula_over_all_spectra(several: list[list[float]]) -> None:
    gaps = [
        (above - below) / above if above > 0 else 0.0
        for values in several
        for above, below in list(zip(values, [*values[1:], 0.0], strict=True))[:10]
    ]
    assert subspaces.min_gap(*several) == pytest.approx(min(gaps), abs=0)
    assert 0.0 <= subspaces.min_gap(*several) <= 1.0
    assert subspaces.min_gap(*[values[:11] for values in several]) == subspaces.min_gap(*several)


def test_min_gap_of_few_of_none_and_beyond_the_tenth() -> None:
    assert subspaces.min_gap([2.0]) == 1.0
    assert subspaces.min_gap([1.0, 0.0]) == 0.0
    assert math.isnan(subspaces.min_gap())
    assert math.isnan(subspaces.min_gap([]))
    assert subspaces.min_gap([], [4.0, 3.0]) == 0.25
    steep = 0.5 ** np.arange(12)
    assert subspaces.min_gap(np.append(steep, steep[-1])) == 0.5  # a tie of the 12th and 13th
    steep[10] = steep[9]
    assert subspaces.min_gap(steep) == 0.0  # of the 10th and 11th


@pytest.mark.parametrize("distance", [0.0, 1e-7])
def test_min_gap_tells_where_agreement_is_not_to_be_relied_on(distance: float) -> None:
    """Two values that float32 cannot tell apart: the rounding of the weights alone turns their vectors."""
    values = np.array([3.0, 2.0, 2.0 * (1 - distance), 1.0])
    exact = planted(40, 30, values, seed=8)
    stored = torch.from_numpy(exact).float()
    moved = torch.from_numpy(exact + 1e-6 * np.random.default_rng(9).standard_normal(exact.shape)).float()
    first, second = spectrum_of(stored), spectrum_of(moved)
    diagonal = subspaces.agreement_diagonal(*vectors_of(stored), *vectors_of(moved))
    assert subspaces.min_gap(first.singular_values[:4], second.singular_values[:4]) < 1e-5
    np.testing.assert_allclose(diagonal[[0, 3]], 1.0, atol=1e-6)
    assert diagonal[1] < 1 - 1e-4  # where the gap is wide, the same disturbance changes nothing
    left, other = (vectors_of(tensor)[0].narrow(1, 1, 2).numpy() for tensor in (stored, moved))
    np.testing.assert_allclose(left @ left.T, other @ other.T, atol=1e-5)  # the subspace stands
