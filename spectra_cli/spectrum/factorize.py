"""Singular values and leading singular vectors, with a bound on their error, within a memory budget.

Three methods, from cheap to exact. Each yields a bound, and the next one is used where the bound is not good enough:

``gram_float32``
    float32 products over the long axis accumulated in float64, checked by random probes; eigenvalues in float64. Tried
    for values only, where the long side is at least :data:`FLOAT32_ASPECT` times the short one and the weights are
    stored in at most 32 bits: elsewhere the products are not what takes the time.
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

TOLERANCE = 1e-5
"""Largest acceptable error of a singular value, relative to s_1."""

EFFECTIVE_RANK_TOLERANCE = 1e-4
"""Largest acceptable relative error of the effective rank."""

VECTOR_TOLERANCE = 1e-6
"""Largest acceptable eigenvalue error relative to the eigenvalue of a vector that is asked for."""

FLOAT32_ASPECT = 8
METHODS = ("gram_float32", "gram_float64", "qr_float64")


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
        status: ``ok``, ``not_finite`` (the matrix holds NaN or infinity) or ``empty`` (a side of length 0).
    """

    singular_values: NDArray[np.float64]
    error: float
    method: str
    left: Tensor | None = None
    right: Tensor | None = None
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What one method says of one matrix, before it is accepted."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    square_error: float
    short_vectors: Tensor | None
    status: str = "ok"


_Method = Callable[[MatrixBatch, int, int], list[_Candidate | None]]


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
    if vectors or batch.long_side < FLOAT32_ASPECT * batch.short_side:
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

        remaining = batch.select(pending)
        length = slab_length(remaining, budget_bytes, vectors=vectors, method=name)
        for index, spectrum in zip(list(pending), with_less_memory(attempt, remaining, length), strict=True):
            if spectrum is not None:
                results[index] = spectrum
                pending.remove(index)
        if not pending:
            break
    return [spectrum for spectrum in results if spectrum is not None]


def _attempt(batch: MatrixBatch, length: int, name: str, vectors: int, last: bool) -> list[Spectrum | None]:
    """Apply one method; None stands for a matrix that the next one should take."""
    candidates = _METHODS[name](batch, length, vectors)
    spectra: list[Spectrum | None] = []
    for index, candidate in enumerate(candidates):
        if candidate is None:
            spectra.append(None)
        elif candidate.status != "ok":
            spectra.append(_unusable(candidate.status))
        elif last or _acceptable(batch, candidate, vectors):
            left, right = _both_sides(batch.select([index]), candidate, length)
            error = float(candidate.errors.max(initial=0.0))
            spectra.append(Spectrum(candidate.values, error, name, left, right))
        else:
            spectra.append(None)
    return spectra


def _acceptable(batch: MatrixBatch, candidate: _Candidate, vectors: int) -> bool:
    """Whether values, effective rank, numerical rank and vectors are all within their tolerances."""
    values, errors = candidate.values, candidate.errors
    largest = float(values[0])
    cutoff = largest * batch.long_side * torch.finfo(batch.dtype).eps
    return (
        bool(
            errors.max() <= TOLERANCE * largest
            and not (np.abs(values - cutoff) <= errors).any()
            and effective_rank_error(values, errors) <= EFFECTIVE_RANK_TOLERANCE
            and (vectors == 0 or candidate.square_error <= VECTOR_TOLERANCE * float(values[vectors - 1]) ** 2)
        )
        or largest == 0.0
    )


def _unusable(status: str) -> Spectrum:
    return Spectrum(np.empty(0), 0.0, "", status=status)


def _gram_float32(batch: MatrixBatch, length: int, vectors: int) -> list[_Candidate | None]:
    matrices, errors = probed_gram(batch, length)
    bounds = errors.cpu().numpy()
    promising = np.isfinite(bounds)
    if promising.any():
        promising &= _may_pass(matrices, errors).cpu().numpy()
    return _candidates(batch, matrices, bounds, promising, vectors)


def _may_pass(matrices: Tensor, errors: Tensor) -> Tensor:
    """Whether the least eigenvalue is large enough for the tolerance, at the price of a Cholesky factorization.

    The error of s_R is about E / (2 s_R): within the tolerance only if lambda_R exceeds (E / (2 tolerance s_1))^2. The
    eigenvalues themselves cost ten times as much. s_1^2 is taken as the largest of the row sums' bound from below, the
    diagonal, which can only err towards trying.

    Args:
        matrices: (batch, R, R), lower triangles.
        errors: (batch,), bounds on their 2-norm errors.

    Returns:
        (batch,) bool.
    """
    top = squared_frobenius(matrices)  # not below s_1^2: a rejection is certain
    least = errors**2 / (4 * TOLERANCE**2 * top)
    shifted = matrices.float()
    shifted.diagonal(dim1=1, dim2=2).sub_(least.float()[:, None])
    finite = shifted.diagonal(dim1=1, dim2=2).isfinite().all(1)
    shifted = torch.where(finite[:, None, None], shifted, 0.0)
    definite: Tensor = torch.linalg.cholesky_ex(shifted).info == 0
    return definite & finite


def _gram_float64(batch: MatrixBatch, length: int, vectors: int) -> list[_Candidate | None]:
    matrices = gram(batch, length)
    traces = squared_frobenius(matrices).cpu().numpy()
    bounds = summation_error(batch.long_side, length) * traces
    return _candidates(batch, matrices, bounds, np.isfinite(traces), vectors)


def _candidates(
    batch: MatrixBatch, matrices: Tensor, bounds: NDArray[np.float64], usable: NDArray[np.bool_], vectors: int
) -> list[_Candidate | None]:
    """Eigenvalues (and eigenvectors) of those Gram matrices that are usable."""
    chosen = np.flatnonzero(usable).tolist()
    results: list[_Candidate | None] = [None] * len(batch)
    for index in np.flatnonzero(~usable).tolist():
        if not is_finite(batch.select([index])):
            results[index] = _Candidate(np.empty(0), np.empty(0), 0.0, None, "not_finite")
    if not chosen:
        return results
    squares, short_vectors = eigen_descending(matrices if len(chosen) == len(batch) else matrices[chosen], vectors)
    values = squares.sqrt().cpu().numpy()
    for position, index in enumerate(chosen):
        error = eigenvalue_error(float(bounds[index]), float(values[position, 0]) ** 2, batch.short_side)
        side = None if short_vectors is None else short_vectors[position]
        results[index] = _Candidate(values[position], singular_value_errors(values[position], error), error, side)
    return results


def _qr_float64(batch: MatrixBatch, length: int, vectors: int) -> list[_Candidate | None]:
    results: list[_Candidate | None] = []
    for index in range(len(batch)):
        factor = triangular_factor(batch.select([index]), length)
        if not bool(factor.isfinite().all()):
            results.append(_Candidate(np.empty(0), np.empty(0), 0.0, None, "not_finite"))
            continue
        singular_values, side = svd_of_factor(factor, vectors)
        values = singular_values.cpu().numpy()
        # Householder QR and the SVD are backward stable, with a constant far below R in practice (Higham, section 19.3)
        error = 2 * batch.short_side * UNIT_ROUNDOFF * float(np.linalg.norm(values))
        results.append(_Candidate(values, np.full_like(values, error), 0.0, side))
    return results


_METHODS: dict[str, _Method] = {
    "gram_float32": _gram_float32,
    "gram_float64": _gram_float64,
    "qr_float64": _qr_float64,
}


def is_finite(batch: MatrixBatch, slab_elements: int = 1 << 22) -> bool:
    """Whether no weight of the batch is NaN or infinite."""
    length = max(1, slab_elements // (batch.short_side * len(batch)))
    return all(bool(slab.isfinite().all()) for (slab,) in batch.slabs(length, torch.float64))


def eigen_descending(matrices: Tensor, vectors: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues, not below 0, and leading eigenvectors of symmetric matrices.

    Args:
        matrices: (batch, R, R) float64; lower triangles are read.
        vectors: how many eigenvectors; 0 for none.

    Returns:
        (batch, R) descending, and (batch, R, vectors) or None.
    """
    if not vectors:
        return torch.linalg.eigvalsh(matrices).flip(1).clamp_(min=0.0), None
    values, columns = torch.linalg.eigh(matrices)
    return values.flip(1).clamp_(min=0.0), columns[:, :, -vectors:].flip(2)


def triangular_factor(batch: MatrixBatch, length: int) -> Tensor:
    """The R factor of one tall matrix (of the transpose of a wide one), slab by slab.

    Returns:
        (at most length + R, R) float64 with the same singular values and right vectors. A matrix of a single slab is
        returned as it is: LAPACK's SVD reduces it itself.
    """
    factor: Tensor | None = None
    for (slab,) in batch.slabs(length, torch.float64):
        matrix = slab[0]
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
    return values, rows[:vectors].mT


def _both_sides(batch: MatrixBatch, candidate: _Candidate, length: int) -> tuple[Tensor | None, Tensor | None]:
    """Left and right vectors of one matrix from those of its short side."""
    if candidate.short_vectors is None:
        return None, None
    short = candidate.short_vectors
    relative = candidate.values[: short.shape[1]] / max(float(candidate.values[0]), np.finfo(float).tiny)
    long = long_side_vectors(batch, short, length, orthonormalize=bool((relative < VECTOR_TOLERANCE).any()))
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
    products = torch.cat([slab[0] @ short for (slab,) in batch.slabs(length, torch.float64)])
    if orthonormalize:
        basis: Tensor
        basis, triangle = torch.linalg.qr(products)
        signs: Tensor = torch.where(triangle.diagonal() < 0.0, -1.0, 1.0)
        return basis.mul_(signs)
    return products.div_(torch.linalg.norm(products, dim=0))
