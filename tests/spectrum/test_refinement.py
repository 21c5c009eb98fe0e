"""Vectors of values so small that squaring them costs digits: right, or left to a method without squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spectra_cli.spectrum import factorize as factorization
from spectra_cli.spectrum import subspaces
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import MatrixBatch, TensorMatrix
from spectra_cli.spectrum.refinement import OVERSAMPLING, VECTOR_ERROR, Refinement, refine

from .planted import lapack, planted

GiB = 1 << 30
ASKED = 30


def steep(count: int, last: float, rest: float) -> NDArray[np.float64]:
    """Values from 1 to `last` in even ratios, `ASKED` of them, and others from `rest` to half of it."""
    return np.append(np.logspace(0, np.log10(last), ASKED), np.linspace(rest, rest / 2, count - ASKED))


class Refinements:
    """What :func:`refine` said, call by call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.results: list[Refinement | None] = []
        monkeypatch.setattr(factorization, "refine", self._recorded)

    def _recorded(self, *args: object, **options: object) -> Refinement | None:
        self.results.append(refine(*args, **options))  # type: ignore[arg-type]
        return self.results[-1]


@pytest.fixture
def refinements(monkeypatch: pytest.MonkeyPatch) -> Refinements:
    return Refinements(monkeypatch)


def one(tensor: torch.Tensor, vectors: int = ASKED) -> Spectrum:
    return factorize([TensorMatrix(tensor)], vectors=vectors, budget_bytes=GiB)[0]


def from_gram(tensor: torch.Tensor, vectors: int) -> Refinement | None:
    """Refine the leading eigenvectors of the Gram matrix of a tall one, computed by NumPy."""
    eigenvalues, eigenvectors = np.linalg.eigh((tensor.T @ tensor).numpy())
    values = np.sqrt(np.maximum(eigenvalues[::-1], 0.0))
    start = torch.from_numpy(eigenvectors[:, ::-1][:, : vectors + OVERSAMPLING].copy())
    error = 1e-13 * float(values[0] ** 2)
    return refine(MatrixBatch([TensorMatrix(tensor)]), 100, start, values=values, square_error=error, vectors=vectors)


def numpy_svd(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """U and V of the weights as stored, by float64 LAPACK."""
    left, _, right = np.linalg.svd(tensor.double().numpy(), full_matrices=False)
    return torch.from_numpy(left), torch.from_numpy(right.T.copy())


def assert_right(tensor: torch.Tensor, spectrum: Spectrum, vectors: int = ASKED) -> None:
    """Vectors within 1e-5 of LAPACK's, sides paired, values within their bound and that within the tolerance."""
    expected = [side[:, :vectors] for side in numpy_svd(tensor)]
    assert spectrum.left is not None
    assert spectrum.right is not None
    found = [spectrum.left, spectrum.right]
    for side, true in zip(found, expected, strict=True):
        products = (side.T @ true).numpy()
        aligned = side * torch.from_numpy(np.sign(np.diagonal(products)))
        assert torch.linalg.vector_norm(aligned - true, dim=0).max() <= 1e-5
        np.testing.assert_allclose(subspaces.alignment_diagonal(side, true), 1.0, atol=2e-5)
        np.testing.assert_allclose((side.T @ side).numpy(), np.eye(vectors), atol=1e-6)
    np.testing.assert_allclose(subspaces.agreement_diagonal(*found, *expected), 1.0, atol=2e-5)
    core = (spectrum.left.T @ tensor.double() @ spectrum.right).numpy()
    np.testing.assert_allclose(np.diagonal(core), spectrum.singular_values[:vectors], atol=1e-9 * core[0, 0])
    assert_values(tensor, spectrum)


def assert_values(tensor: torch.Tensor, spectrum: Spectrum) -> None:
    true = lapack(tensor)
    assert np.abs(spectrum.singular_values - true).max() <= spectrum.error + 1e-14 * true[0]
    assert spectrum.error <= 1e-5 * true[0]
    assert (np.diff(spectrum.singular_values) <= 0).all()


@pytest.mark.parametrize("shape", [(200, 160), (160, 200), (180, 180), (9000, 160), (160, 9000)])
@pytest.mark.parametrize(("last", "rest"), [(1e-4, 5e-5), (1e-4, 9e-5), (4e-5, 3e-5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vectors_of_small_values_are_right_without_a_qr_factorization(
    shape: tuple[int, int], last: float, rest: float, dtype: torch.dtype, refinements: Refinements
) -> None:
    """Squares of 1e-9 s_1^2, which rounding could reach if it were at its worst."""
    scale = 2.0**9 if dtype == torch.float16 else 1.0  # away from its subnormal numbers
    tensor = torch.from_numpy(scale * planted(*shape, steep(160, last, rest))).to(dtype)
    spectrum = one(tensor)
    assert spectrum.method == "gram_float64"
    assert_right(tensor, spectrum)
    assert dtype == torch.float16 or [result is not None for result in refinements.results] == [True]


def test_a_tie_beyond_what_was_kept_is_left_to_a_qr_factorization() -> None:
    """Nothing then separates the vectors asked for from those not kept; the leading ones are right all the same."""
    values = np.logspace(0, -4, ASKED)
    values = np.append(values[:-3], np.full(160 - ASKED + 3, 1e-4) * np.linspace(1 + 1e-9, 1, 160 - ASKED + 3))
    tensor = torch.from_numpy(planted(300, 160, values))
    assert from_gram(tensor, ASKED) is None
    assert from_gram(tensor, ASKED - 4) is not None
    single = tensor.float()
    spectrum = one(single)
    assert spectrum.method == "qr_float64"
    assert_values(single, spectrum)
    leading = spectrum.right
    assert leading is not None
    for count in (1, ASKED - 3):
        kept, true = leading[:, :count], numpy_svd(single)[1][:, :count]
        torch.testing.assert_close(kept @ kept.T, true @ true.T, atol=1e-5, rtol=0)


def test_rank_deficiency_within_what_is_asked_for_is_left_to_a_qr_factorization() -> None:
    generator = np.random.default_rng(0)
    factors = generator.integers(-3, 4, (200, 7)), generator.integers(-3, 4, (7, 150))
    tensor = torch.from_numpy((factors[0] @ factors[1]).astype(np.float64))
    assert from_gram(tensor, 8) is None
    assert from_gram(tensor, 7) is not None
    single = tensor.float()
    spectrum = one(single)
    assert spectrum.method == "qr_float64"
    assert_values(single, spectrum)


def test_each_matrix_of_a_batch_is_refined_if_it_needs_it(refinements: Refinements) -> None:
    """Those that do not, and one of zeros, keep what they have."""
    steep_one = torch.from_numpy(planted(200, 160, steep(160, 1e-4, 5e-5), seed=1)).float()
    mild = torch.from_numpy(planted(200, 160, np.linspace(2, 1, 160), seed=2)).float()
    tensors = [mild, steep_one, torch.zeros(200, 160), steep_one.flip(0), mild.flip(1)]
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], vectors=ASKED, budget_bytes=GiB)
    assert [result is not None for result in refinements.results] == [True, True]
    for index in (0, 1, 3, 4):
        assert_right(tensors[index], spectra[index])
    assert not spectra[2].singular_values.any()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1000), st.floats(-8, 0), st.sampled_from([1e-2, 1e-3]), st.sampled_from([(90, 70), (70, 90)]))
def test_what_is_accepted_is_right_however_wrong_the_subspace_was(
    seed: int, log_angle: float, last: float, shape: tuple[int, int]
) -> None:
    """Bases turned at random by angles from 1e-8 to 1: refused, or within the error allowed. Each does happen."""
    k, p = 10, 20
    values = np.append(np.logspace(0, np.log10(last), k), last * np.linspace(0.8, 0.1, 60))
    tensor = torch.from_numpy(planted(*shape, values, seed))
    short_side = numpy_svd(tensor)[1 if shape[0] > shape[1] else 0]
    noise = torch.randn(70, p, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    start = torch.linalg.qr(short_side[:, :p] + 10**log_angle * noise / 70**0.5).Q
    batch = MatrixBatch([TensorMatrix(tensor)])
    result = refine(batch, 40, start, values=values, square_error=1e-14, vectors=k)
    if log_angle < -7:
        assert result is not None
    if log_angle > -2:
        assert result is None
    if result is not None:
        true = short_side[:, :k]
        aligned = result.short_vectors * (result.short_vectors * true).sum(0).sign()
        assert torch.linalg.vector_norm(aligned - true, dim=0).max() <= VECTOR_ERROR
        np.testing.assert_allclose(result.values, values[:k], atol=1e-12)


def test_gram_matrices_alone_do_not_keep_small_vectors() -> None:
    """Why any of this is needed: at 1e-7 s_1 the eigenvectors of a Gram matrix are noise."""
    tensor = torch.from_numpy(planted(200, 160, steep(160, 1e-8, 5e-9)))
    vectors = torch.linalg.eigh(tensor.T @ tensor).eigenvectors.flip(1)[:, :ASKED]
    products = (vectors * numpy_svd(tensor)[1][:, :ASKED]).sum(0).abs()
    assert products.min() < 0.99
