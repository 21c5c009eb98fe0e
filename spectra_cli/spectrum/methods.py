"""The three methods that factorize a batch, each with a bound on the error of every singular value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.spectrum.bounds import backward_error, eigenvalue_error, singular_value_errors, summation_error
from spectra_cli.spectrum.gram import gram, probed_gram, squared_frobenius
from spectra_cli.spectrum.matrix import MatrixBatch
from spectra_cli.spectrum.refinement import OVERSAMPLING
from spectra_cli.spectrum.statistics import frobenius_norm

TOLERANCE = 1e-5
"""Largest acceptable error of a singular value, relative to s_1."""

Matrix64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one method says of a batch, before it is accepted.

    Attributes:
        values: (batch, R) descending; rows of matrices that are not `tried` are zero.
        errors: (batch, R), bounds.
        square_errors: (batch,), bounds on the errors of squared values; 0 where values were not squared.
        short_vectors: (batch, R, p) vectors of the short side, or None. Of a Gram matrix there are more than were asked
            for, as many as :mod:`spectra_cli.spectrum.refinement` needs.
        tried: (batch,), whether the method could be applied.
    """

    values: Matrix64
    errors: Matrix64
    square_errors: Matrix64
    short_vectors: Tensor | None
    tried: NDArray[np.bool_]


Method = Callable[[MatrixBatch, int, int, bool], Outcome]
"""Takes a batch, a slab length, a number of vectors and whether to go on with a matrix that will not be accepted."""


def _gram_float32(batch: MatrixBatch, length: int, vectors: int, stubborn: bool) -> Outcome:
    matrices, errors = probed_gram(batch, length)
    promising = errors.isfinite()
    if not stubborn:
        promising &= may_pass(matrices, errors)
    return _from_gram(batch, matrices, errors.cpu().numpy(), promising.cpu().numpy(), vectors)


def may_pass(matrices: Tensor, errors: Tensor) -> Tensor:
    """Whether the least eigenvalue is large enough for the tolerance, at the price of a Cholesky factorization.

    The error of s_R is about E / (2 s_R): within the tolerance only if lambda_R exceeds (E / (2 tolerance s_1))^2. The
    eigenvalues themselves cost ten times as much. The trace stands for s_1^2, which is not above it: what is rejected
    would not have been accepted.

    Args:
        matrices: (batch, R, R), lower triangles.
        errors: (batch,), bounds on their 2-norm errors.

    Returns:
        (batch,) bool.
    """
    least = errors**2 / (4 * TOLERANCE**2 * squared_frobenius(matrices))
    shifted = matrices.float()
    shifted.diagonal(dim1=1, dim2=2).sub_(least.float().unsqueeze(1))
    finite = shifted.diagonal(dim1=1, dim2=2).isfinite().all(1)
    shifted = torch.where(finite.view(-1, 1, 1), shifted, 0.0)
    definite: Tensor = torch.linalg.cholesky_ex(shifted).info == 0
    return definite & finite


def _gram_float64(batch: MatrixBatch, length: int, vectors: int, _: bool) -> Outcome:
    matrices = gram(batch, length)
    traces = squared_frobenius(matrices).cpu().numpy()
    return _from_gram(batch, matrices, summation_error(batch.long_side) * traces, np.isfinite(traces), vectors)


def _from_gram(
    batch: MatrixBatch, matrices: Tensor, bounds: Matrix64, usable: NDArray[np.bool_], vectors: int
) -> Outcome:
    """Eigenvalues (and eigenvectors) of those Gram matrices that are usable; zeros stand in for the others."""
    if not usable.any():
        nothing = np.zeros((len(batch), batch.short_side))
        return Outcome(nothing, nothing, nothing[:, 0], None, usable)
    if not usable.all():
        matrices = torch.where(torch.from_numpy(usable).to(matrices.device).view(-1, 1, 1), matrices, 0.0)
        bounds = np.where(usable, bounds, 0.0)
    squares, short_vectors = eigen(matrices, min(vectors + OVERSAMPLING, batch.short_side) if vectors else 0)
    values = np.sqrt(np.maximum(squares.cpu().numpy()[:, ::-1], 0.0))
    square_errors = eigenvalue_error(bounds, values[:, 0] ** 2, batch.short_side)
    return Outcome(values, singular_value_errors(values, square_errors), square_errors, short_vectors, usable)


def _qr_float64(batch: MatrixBatch, length: int, vectors: int, _: bool) -> Outcome:
    values = np.zeros((len(batch), batch.short_side))
    tried = np.zeros(len(batch), dtype=np.bool_)
    sides: list[Tensor | None] = []
    for index in range(len(batch)):
        factor = triangular_factor(batch.select([index]), length)
        tried[index] = bool(factor.isfinite().all())
        singular_values, side = svd_of_factor(factor if tried[index] else torch.zeros_like(factor), vectors)
        values[index] = singular_values.cpu().numpy()
        sides.append(side)
    norms = np.array([frobenius_norm(spectrum) for spectrum in values])
    errors = backward_error(batch.long_side, batch.short_side, norms)
    stacked = [side for side in sides if side is not None]
    return Outcome(
        values,
        np.repeat(errors[:, None], batch.short_side, axis=1),
        np.zeros(len(batch)),
        torch.stack(stacked) if stacked else None,
        tried,
    )


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "gram_float32": _gram_float32,
        "gram_float64": _gram_float64,
        "qr_float64": _qr_float64,
    }
)
"""All methods by name, from cheap to exact."""


def eigen(matrices: Tensor, vectors: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues and leading eigenvectors of symmetric matrices.

    Args:
        matrices: (batch, R, R) float64; lower triangles are read.
        vectors: how many eigenvectors; 0 for none.

    Returns:
        (batch, R) ascending, and (batch, R, vectors), those of the largest eigenvalue first, or None.
    """
    # The lower triangle as LAPACK, which goes by columns, sees it: an eighth faster than its own lower one.
    if not vectors:
        return torch.linalg.eigvalsh(matrices.mT, UPLO="U"), None
    values, columns = torch.linalg.eigh(matrices.mT, UPLO="U")
    return values, columns.narrow(2, columns.shape[2] - vectors, vectors).flip(2)


def triangular_factor(batch: MatrixBatch, length: int) -> Tensor:
    """The R factor of one tall matrix (of the transpose of a wide one), slab by slab.

    Returns:
        (at most length + R, R) float64 with the same singular values and right vectors. A matrix of a single slab is
        returned as it is: LAPACK's SVD reduces it itself.
    """
    factor: Tensor | None = None
    for (slab,) in batch.slabs(length, torch.float64):
        matrix = slab.squeeze(0)
        if length >= batch.long_side:
            return matrix
        stacked = matrix if factor is None else torch.cat([factor, matrix])
        factor = torch.linalg.qr(stacked, mode="r").R
    assert factor is not None  # noqa: S101 - a batch has a long axis of at least one
    return factor


def svd_of_factor(factor: Tensor, vectors: int) -> tuple[Tensor, Tensor | None]:
    """Singular values (R,) and leading right vectors (R, vectors) or None of a (n, R) matrix."""
    if not vectors:
        return torch.linalg.svdvals(factor), None
    _, values, rows = torch.linalg.svd(factor, full_matrices=False)
    return values, rows.narrow(0, 0, vectors).mT
