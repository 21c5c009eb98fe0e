"""Singular values and leading singular vectors, with a bound on their error, within a memory budget.

Three methods, from cheap to exact. Each yields a bound, and the next one is used where the bound is not good enough:

``gram_float32``
    float32 products over the long axis accumulated in float64, checked by random probes; eigenvalues in float64. Tried
    for values only, where the short side is at least :data:`FLOAT32_SHORT_SIDE`, the long one at least
    :data:`FLOAT32_ASPECT` times that and the weights are stored in at most 32 bits: elsewhere it is not the products
    that take the time.
``gram_float64``
    the same with float64 products. The bound is the worst case of rounding, not an estimate.
``qr_float64``
    a QR factorization by slabs (TSQR: Demmel et al. 2012) and a float64 SVD of the triangular factor. Weights stored
    in float64 start here, as squaring them would lose what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.spectrum.bounds import (
    UNIT_ROUNDOFF,
    effective_rank_error,
    eigenvalue_error,
    singular_value_errors,
    summation_error,
)
from spectra_cli.spectrum.gram import full_float32, gram, probed_gram, squared_frobenius
from spectra_cli.spectrum.matrix import Matrix, MatrixBatch
from spectra_cli.spectrum.memory import default_budget_bytes, slab_length
from spectra_cli.spectrum.retry import with_less_memory
from spectra_cli.spectrum.statistics import frobenius_norm

TOLERANCE = 1e-5
"""Largest acceptable error of a singular value, relative to s_1."""

EFFECTIVE_RANK_TOLERANCE = 1e-4
"""Largest acceptable relative error of the effective rank."""

VECTOR_TOLERANCE = 1e-6
"""Largest acceptable eigenvalue error relative to the eigenvalue of a vector that is asked for."""

FLOAT32_ASPECT = 8
FLOAT32_SHORT_SIDE = 256
METHODS = ("gram_float32", "gram_float64", "qr_float64")

Matrix64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of one matrix and, if asked for, its leading singular vectors.

    Attributes:
        singular_values: (R,), float64, descending; empty unless `status` is ``ok``.
        error: bound on the absolute error of every singular value. With the method ``gram_float32`` it fails with a
            probability of at most 1e-6 (see :func:`spectra_cli.spectrum.gram.probed_gram`).
        method: one of :data:`METHODS`, or "" unless `status` is ``ok``.
        left: (rows, k) float64, u_1 ... u_k, or None.
        right: (cols, k) float64, v_1 ... v_k, or None. Signs are arbitrary, the same for u_i and v_i.
            Caveat: where s_i and s_{i+1} nearly coincide, compare subspaces, not vectors.
        status: ``ok``, ``not_finite`` (the matrix holds NaN or infinity, or its norm is beyond the largest number of
            the method) or ``empty`` (a side of length 0).
    """

    singular_values: NDArray[np.float64]
    error: float
    method: str
    left: Tensor | None = None
    right: Tensor | None = None
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one method says of a batch, before it is accepted.

    Attributes:
        values: (batch, R) descending; rows of matrices that are not `tried` are zero.
        errors: (batch, R), bounds.
        square_errors: (batch,), bounds on the errors of squared values; 0 where values were not squared.
        short_vectors: (batch, R, k) vectors of the short side, or None.
        tried: (batch,), whether the method could be applied.
    """

    values: Matrix64
    errors: Matrix64
    square_errors: Matrix64
    short_vectors: Tensor | None
    tried: NDArray[np.bool_]


_Method = Callable[[MatrixBatch, int, int, bool], _Outcome]
"""Takes a batch, a slab length, a number of vectors and whether to go on with a matrix that will not be accepted."""


def factorize(
    matrices: Sequence[Matrix],
    *,
    vectors: int = 0,
    budget_bytes: int | None = None,
    method: str | None = None,
) -> list[Spectrum]:
    """Factorize matrices of one shape, dtype and device.

    Args:
        matrices: what to factorize; together they are worked on as one batch.
        vectors: number k of leading singular vectors to compute as well; at most R are returned.
        budget_bytes: working memory, beyond the matrices themselves; None for half of what is free.
        method: one of :data:`METHODS` to use it whatever its bound is; None to follow the policy above.

    Returns:
        One spectrum per matrix, in order.

    Raises:
        MemoryBudgetError: if not even the R x R side of one matrix fits the budget.
        ValueError: if the matrices differ in shape, dtype or device.
    """
    if not matrices:
        return []
    batch = MatrixBatch(matrices)
    if batch.short_side == 0:
        return [_unusable("empty")] * len(batch)
    with full_float32(), torch.no_grad():
        methods = (method,) if method else _ladder(batch, vectors)
        budget = default_budget_bytes() if budget_bytes is None else budget_bytes
        return _descend(batch, methods, min(vectors, batch.short_side), budget)


def _ladder(batch: MatrixBatch, vectors: int) -> tuple[str, ...]:
    if batch.dtype == torch.float64:
        return METHODS[2:]
    if vectors or batch.short_side < FLOAT32_SHORT_SIDE or batch.long_side < FLOAT32_ASPECT * batch.short_side:
        return METHODS[1:]
    return METHODS


def _descend(batch: MatrixBatch, methods: Sequence[str], vectors: int, budget_bytes: int) -> list[Spectrum]:
    """Give every matrix to each method in turn until one is good enough; the last is taken as it is."""
    results: list[Spectrum | None] = [None] * len(batch)
    pending = list(range(len(batch)))
    for name in methods:
        last = name == methods[-1]

        def attempt(part: MatrixBatch, length: int, name: str = name, last: bool = last) -> list[Spectrum | None]:
            return _attempt(part, length, name, vectors, last)

        remaining = batch if len(pending) == len(batch) else batch.select(pending)
        length = slab_length(remaining, budget_bytes, vectors=vectors, method=name)
        for index, spectrum in zip(list(pending), with_less_memory(attempt, remaining, length), strict=True):
            if spectrum is not None:
                results[index] = spectrum
                pending.remove(index)
        if not pending:
            break
    return [spectrum or _unusable("not_finite") for spectrum in results]


def _attempt(batch: MatrixBatch, length: int, name: str, vectors: int, last: bool) -> list[Spectrum | None]:
    """Apply one method; None stands for a matrix that the next one should take."""
    outcome = _METHODS[name](batch, length, vectors, last)
    accepted = outcome.tried if last else outcome.tried & _acceptable(batch, outcome, vectors)
    largest_errors = outcome.errors.max(1)
    spectra: list[Spectrum | None] = []
    for index, good in enumerate(accepted.tolist()):
        if good:
            left, right = _both_sides(batch, outcome, index, length)
            spectra.append(Spectrum(outcome.values[index], float(largest_errors[index]), name, left, right))
        elif not outcome.tried[index] and not is_finite(batch.select([index])):
            spectra.append(_unusable("not_finite"))
        else:
            spectra.append(None)
    return spectra


def _acceptable(batch: MatrixBatch, outcome: _Outcome, vectors: int) -> NDArray[np.bool_]:
    """Whether values, effective rank, numerical rank and vectors are all within their tolerances, (batch,)."""
    values, errors = outcome.values, outcome.errors
    largest = values[:, 0]
    cutoffs = largest * batch.long_side * torch.finfo(batch.dtype).eps
    good = errors.max(1) <= TOLERANCE * largest
    good &= ~(np.abs(values - cutoffs[:, None]) <= errors).any(1)
    good &= effective_rank_error(np.where(largest[:, None] > 0.0, values, 1.0), errors) <= EFFECTIVE_RANK_TOLERANCE
    if vectors:
        good &= outcome.square_errors <= VECTOR_TOLERANCE * values[:, vectors - 1] ** 2
    return np.asarray(good | (largest == 0.0))


def _unusable(status: str) -> Spectrum:
    return Spectrum(np.empty(0), 0.0, "", status=status)


def _gram_float32(batch: MatrixBatch, length: int, vectors: int, stubborn: bool) -> _Outcome:
    matrices, errors = probed_gram(batch, length)
    promising = errors.isfinite()
    if not stubborn:
        promising &= _may_pass(matrices, errors)
    return _from_gram(batch, matrices, errors.cpu().numpy(), promising.cpu().numpy(), vectors)


def _may_pass(matrices: Tensor, errors: Tensor) -> Tensor:
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


def _gram_float64(batch: MatrixBatch, length: int, vectors: int, _: bool) -> _Outcome:
    matrices = gram(batch, length)
    traces = squared_frobenius(matrices).cpu().numpy()
    return _from_gram(batch, matrices, summation_error(batch.long_side, length) * traces, np.isfinite(traces), vectors)


def _from_gram(
    batch: MatrixBatch, matrices: Tensor, bounds: Matrix64, usable: NDArray[np.bool_], vectors: int
) -> _Outcome:
    """Eigenvalues (and eigenvectors) of those Gram matrices that are usable; zeros stand in for the others."""
    if not usable.any():
        nothing = np.zeros((len(batch), batch.short_side))
        return _Outcome(nothing, nothing, nothing[:, 0], None, usable)
    if not usable.all():
        matrices = torch.where(torch.from_numpy(usable).to(matrices.device).view(-1, 1, 1), matrices, 0.0)
        bounds = np.where(usable, bounds, 0.0)
    squares, short_vectors = eigen(matrices, vectors)
    values = np.sqrt(np.maximum(squares.cpu().numpy()[:, ::-1], 0.0))
    square_errors = eigenvalue_error(bounds, values[:, 0] ** 2, batch.short_side)
    return _Outcome(values, singular_value_errors(values, square_errors), square_errors, short_vectors, usable)


def _qr_float64(batch: MatrixBatch, length: int, vectors: int, _: bool) -> _Outcome:
    values = np.zeros((len(batch), batch.short_side))
    tried = np.zeros(len(batch), dtype=np.bool_)
    sides: list[Tensor | None] = []
    for index in range(len(batch)):
        factor = triangular_factor(batch.select([index]), length)
        tried[index] = bool(factor.isfinite().all())
        singular_values, side = svd_of_factor(factor if tried[index] else torch.zeros_like(factor), vectors)
        values[index] = singular_values.cpu().numpy()
        sides.append(side)
    # Householder QR and the SVD are backward stable, with a constant far below R in practice (Higham, section 19.3)
    norms = np.array([frobenius_norm(spectrum) for spectrum in values])
    errors = 2 * batch.short_side * UNIT_ROUNDOFF * norms
    stacked = [side for side in sides if side is not None]
    return _Outcome(
        values,
        np.repeat(errors[:, None], batch.short_side, axis=1),
        np.zeros(len(batch)),
        torch.stack(stacked) if stacked else None,
        tried,
    )


_METHODS: dict[str, _Method] = {
    "gram_float32": _gram_float32,
    "gram_float64": _gram_float64,
    "qr_float64": _qr_float64,
}


def is_finite(batch: MatrixBatch, slab_elements: int = 1 << 22) -> bool:
    """Whether no weight of the batch is NaN or infinite."""
    length = max(1, slab_elements // (batch.short_side * len(batch)))
    return all(bool(slab.isfinite().all()) for (slab,) in batch.slabs(length, torch.float64))


def eigen(matrices: Tensor, vectors: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues and leading eigenvectors of symmetric matrices.

    Args:
        matrices: (batch, R, R) float64; lower triangles are read.
        vectors: how many eigenvectors; 0 for none.

    Returns:
        (batch, R) ascending, and (batch, R, vectors), those of the largest eigenvalue first, or None.
    """
    if not vectors:
        return torch.linalg.eigvalsh(matrices), None
    values, columns = torch.linalg.eigh(matrices)
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


def _both_sides(batch: MatrixBatch, outcome: _Outcome, index: int, length: int) -> tuple[Tensor | None, Tensor | None]:
    """Left and right vectors of one matrix from those of its short side."""
    if outcome.short_vectors is None:
        return None, None
    short = outcome.short_vectors[index]
    values = outcome.values[index]
    noisy = bool((values[: short.shape[1]] <= VECTOR_TOLERANCE * values[0]).any())
    long = long_side_vectors(batch.select([index]), short, length, orthonormalize=noisy)
    return (long, short) if batch.tall else (short, long)


def long_side_vectors(batch: MatrixBatch, short: Tensor, length: int, *, orthonormalize: bool) -> Tensor:
    """W V / s, slab by slab.

    Args:
        batch: one matrix.
        short: (R, k), vectors of the short side.
        length: positions of the long axis per step.
        orthonormalize: where some s_i is next to zero, W v_i is noise; a QR factorization then completes the basis, as
            arbitrarily as LAPACK does.

    Returns:
        (L, k) float64 with unit columns.
    """
    products = torch.cat([slab.squeeze(0) @ short for (slab,) in batch.slabs(length, torch.float64)])
    if orthonormalize:
        basis: Tensor
        basis, triangle = torch.linalg.qr(products)
        signs: Tensor = torch.where(triangle.diagonal() < 0.0, -1.0, 1.0)
        return basis.mul_(signs)
    return products.div_(torch.linalg.norm(products, dim=0))
