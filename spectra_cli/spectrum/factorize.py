"""Singular values and leading singular vectors, with a bound on their error, within a memory budget.

Three methods, from cheap to exact. Each yields a bound, and the next one is used where the bound is not good enough:

``gram_float32``
    float32 products over the long axis accumulated in float64, checked by random probes; eigenvalues in float64. Tried
    for values only, where the short side is at least :data:`FLOAT32_SHORT_SIDE`, the long one at least
    :data:`FLOAT32_ASPECT` times that and the weights are stored in at most 32 bits: elsewhere it is not the products
    that take the time.
``gram_float64``
    the same with float64 products. The bound is the worst case of rounding, not an estimate. Where it is too large for
    the vectors, those are refined (:mod:`spectra_cli.spectrum.refinement`).
``qr_float64``
    a QR factorization by slabs (TSQR: Demmel et al. 2012) and a float64 SVD of the triangular factor. Weights stored
    in float64 start here, as squaring them would lose what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.spectrum.bounds import effective_rank_error
from spectra_cli.spectrum.gram import each_product, full_float32
from spectra_cli.spectrum.matrix import Matrix, MatrixBatch
from spectra_cli.spectrum.memory import default_budget_bytes, holds_longest_slab, slab_length
from spectra_cli.spectrum.methods import METHODS, TOLERANCE, Outcome
from spectra_cli.spectrum.refinement import refine
from spectra_cli.spectrum.retry import with_less_memory
from spectra_cli.spectrum.statistics import rank_cutoff

Sides = Literal["both", "left", "right"]
"""Which singular vectors are asked for: of the rows (left), of the columns (right)."""

EFFECTIVE_RANK_TOLERANCE = 1e-4
"""Largest acceptable relative error of the effective rank."""

VECTOR_TOLERANCE = 1e-6
"""Largest acceptable eigenvalue error relative to the eigenvalue of a vector that is asked for."""

FLOAT32_ASPECT = 8
"""Least ratio of long to short side for float32 products: with fewer, eigenvalues take most of the time."""

FLOAT32_SHORT_SIDE = 256
"""Least short side for float32 products: with less, the probes cost what they save."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of one matrix and, if asked for, its leading singular vectors.

    Attributes:
        singular_values: (R,), float64, descending; empty unless `status` is ``ok``.
        error: bound on the absolute error of every singular value. With the method ``gram_float32`` it fails with a
            probability of at most 1e-6 (see :func:`spectra_cli.spectrum.gram.probed_gram`).
        method: a key of ``methods.METHODS``, or "" unless `status` is ``ok``.
        left: (rows, k) float64, u_1 ... u_k, or None if not asked for. On the device of the input, or on the CPU where
            that had no room. It may share memory with the vectors of other matrices of its batch.
        right: (cols, k) float64, v_1 ... v_k, or None. Signs are arbitrary, the same for u_i and v_i.
            Caveat: where s_i and s_{i+1} nearly coincide, compare subspaces, not vectors.
        status: ``ok``, ``not_finite`` (the matrix holds NaN or infinity), ``out_of_range`` (its norm is beyond the
            largest float64), ``no_convergence`` (LAPACK gave up) or ``empty`` (a side of length 0).
    """

    singular_values: NDArray[np.float64]
    error: float
    method: str
    left: Tensor | None = None
    right: Tensor | None = None
    status: str = "ok"


def factorize(
    matrices: Sequence[Matrix],
    *,
    vectors: int = 0,
    sides: Sides = "both",
    budget_bytes: int | None = None,
    method: str | None = None,
) -> list[Spectrum]:
    """Factorize matrices of one shape, dtype and device.

    On a CPU, what is found of a matrix is the same to the bit whatever else is in the batch, as long as slabs of all of
    them at once are no shorter than those of one (see :data:`spectra_cli.spectrum.memory.SLAB_BYTES`).

    Args:
        matrices: what to factorize; together they are worked on as one batch.
        vectors: number k of leading singular vectors to compute as well; at most R are returned.
        sides: which of them. Those of the shorter side come with the method, those of the longer one cost a product
            with the matrix; of a square one, the left.
        budget_bytes: working memory, beyond the matrices themselves; None for half of what is free.
        method: a key of ``methods.METHODS`` to use it whatever its bound is; None to follow the policy above.

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
        return _descend(batch, methods, _Wanted(min(vectors, batch.short_side), sides), budget)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How many vectors, and of which sides."""

    vectors: int
    sides: Sides

    def long(self, batch: MatrixBatch) -> bool:
        """Whether those of the long side are asked for."""
        return self.vectors > 0 and self.sides in {"both", "left" if batch.tall else "right"}

    def both(
        self, batch: MatrixBatch, short: Tensor | None, long: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Left and right vectors, None where not asked for."""
        left, right = (long, short) if batch.tall else (short, long)
        return (None if self.sides == "right" else left), (None if self.sides == "left" else right)


def _ladder(batch: MatrixBatch, vectors: int) -> tuple[str, ...]:
    if batch.dtype == torch.float64:
        return ("qr_float64",)
    if vectors or batch.short_side < FLOAT32_SHORT_SIDE or batch.long_side < FLOAT32_ASPECT * batch.short_side:
        return ("gram_float64", "qr_float64")
    return ("gram_float32", "gram_float64", "qr_float64")


def _descend(batch: MatrixBatch, methods: Sequence[str], wanted: _Wanted, budget_bytes: int) -> list[Spectrum]:
    """Give every matrix to each method in turn until one is good enough; the last is taken as it is."""
    vectors, long = wanted.vectors, wanted.long(batch)
    if len(batch) > 1 and not all(
        holds_longest_slab(batch, budget_bytes, vectors=vectors, method=name, long_vectors=long) for name in methods
    ):  # shorter ones would make the last bits of a matrix depend on how many others are in the batch
        return [spectrum for half in batch.split() for spectrum in _descend(half, methods, wanted, budget_bytes)]
    results: list[Spectrum | None] = [None] * len(batch)
    pending = list(range(len(batch)))
    for name in methods:
        last = name == methods[-1]

        def attempt(part: MatrixBatch, length: int, name: str = name, last: bool = last) -> list[Spectrum | None]:
            return _attempt(part, length, name, wanted, last)

        remaining = batch if len(pending) == len(batch) else batch.select(pending)
        length = slab_length(remaining, budget_bytes, vectors=vectors, method=name, long_vectors=long)
        for index, spectrum in zip(list(pending), with_less_memory(attempt, remaining, length), strict=True):
            if spectrum is not None:
                results[index] = spectrum
                pending.remove(index)
        if not pending:
            break
    return [spectrum or _unusable("out_of_range") for spectrum in results]


def _attempt(batch: MatrixBatch, length: int, name: str, wanted: _Wanted, last: bool) -> list[Spectrum | None]:
    """Apply one method; None stands for a matrix that the next one should take."""
    eps = torch.finfo(batch.dtype).eps
    if wanted.long(batch) and length >= batch.long_side:
        batch = batch.held()
    try:
        outcome = METHODS[name](batch, length, wanted.vectors, last)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # documented, and not listed in torch's __all__
        if len(batch) > 1:  # LAPACK did not converge on one of them at least
            return [result for half in batch.split() for result in _attempt(half, length, name, wanted, last)]
        return [_unusable("no_convergence") if last else None]
    accepted = outcome.tried if last else outcome.tried & _acceptable(batch, outcome, wanted.vectors, eps, length)
    short_vectors: Tensor | None = None
    if outcome.short_vectors is not None:
        short_vectors = outcome.short_vectors.narrow(2, 0, wanted.vectors).contiguous()
    long_vectors: dict[int, Tensor] = {}
    if short_vectors is not None and wanted.long(batch):
        long_vectors = _long_vectors(batch, outcome.values, short_vectors, accepted, length)
    largest_errors = outcome.errors.max(1).tolist()
    spectra: list[Spectrum | None] = []
    for index, good in enumerate(accepted.tolist()):
        if good:
            short = short_vectors[index] if short_vectors is not None else None
            left, right = wanted.both(batch, short, long_vectors.get(index))
            spectra.append(Spectrum(outcome.values[index], largest_errors[index], name, left, right))
        elif not outcome.tried[index] and not is_finite(batch.select([index])):
            spectra.append(_unusable("not_finite"))
        else:
            spectra.append(None)
    return spectra


def _acceptable(batch: MatrixBatch, outcome: Outcome, vectors: int, eps: float, length: int) -> NDArray[np.bool_]:
    """Whether values, effective rank, numerical rank and vectors are all within their tolerances, (batch,).

    Vectors that are not may be refined to that end, and with them the values, in `outcome`.
    """
    good = _acceptable_values(batch, outcome, eps)
    if not vectors:
        return good
    clear = outcome.square_errors <= VECTOR_TOLERANCE * outcome.values[:, vectors - 1] ** 2
    clear |= outcome.values[:, 0] == 0.0
    unclear = np.flatnonzero(outcome.tried & good & ~clear).tolist()
    if not unclear:
        return np.asarray(good & clear)
    for index in unclear:
        clear[index] = _refined(batch, outcome, index, vectors, length)
    return np.asarray(clear & _acceptable_values(batch, outcome, eps))


def _refined(batch: MatrixBatch, outcome: Outcome, index: int, vectors: int, length: int) -> bool:
    """Refine the vectors of one matrix in place, where that makes them good."""
    if outcome.short_vectors is None:
        return False
    values, errors, start = outcome.values[index], outcome.errors[index], outcome.short_vectors[index]
    error = float(outcome.square_errors[index])
    one = batch.select([index])
    refinement = refine(one, length, start, values=values, square_error=error, vectors=vectors)
    if refinement is None:
        return False
    moved = np.minimum(values, refinement.values[-1])  # still descending: the rest is not above what is refined
    moved[:vectors] = refinement.values
    errors += np.abs(moved - values)  # of the old values, plus how far they moved
    values[:] = moved
    start.narrow(1, 0, vectors).copy_(refinement.short_vectors)
    return True


def _acceptable_values(batch: MatrixBatch, outcome: Outcome, eps: float) -> NDArray[np.bool_]:
    values, errors = outcome.values, outcome.errors
    largest = values[:, 0]
    cutoffs = largest * rank_cutoff(batch.rows, batch.cols, eps)
    good = errors.max(1) <= TOLERANCE * largest
    good &= ~(np.abs(values - cutoffs[:, None]) <= errors).any(1)
    good &= effective_rank_error(np.where(largest[:, None] > 0.0, values, 1.0), errors) <= EFFECTIVE_RANK_TOLERANCE
    return np.asarray(good | (largest == 0.0))


def _unusable(status: str) -> Spectrum:
    return Spectrum(np.empty(0), 0.0, "", status=status)


def is_finite(batch: MatrixBatch, slab_elements: int = 1 << 22) -> bool:
    """Whether no weight of the batch is NaN or infinite."""
    length = max(1, slab_elements // (batch.short_side * len(batch)))
    return all(bool(slab.isfinite().all()) for (slab,) in batch.slabs(length, torch.float64))


def _long_vectors(
    batch: MatrixBatch, values: NDArray[np.float64], short: Tensor, accepted: NDArray[np.bool_], length: int
) -> dict[int, Tensor]:
    """Vectors of the long side by the index of their matrix: in one product, but for those that need a factorization.

    Where some s_i is next to zero, W v_i is noise; a QR factorization then completes the basis, as arbitrarily as
    LAPACK does.
    """
    leading = np.ascontiguousarray(values[:, : short.shape[2]])
    noisy = leading.min(1) <= np.maximum(VECTOR_TOLERANCE * leading[:, 0], np.finfo(np.float64).tiny)
    scaled = short / torch.from_numpy(np.where(noisy[:, None], 1.0, leading)).to(short.device).unsqueeze(1)
    vectors: dict[int, Tensor] = {}
    clear = np.flatnonzero(accepted & ~noisy).tolist()
    if len(clear) == len(batch):
        return dict(enumerate(long_side_products(batch, scaled, length).unbind()))
    for index in np.flatnonzero(accepted).tolist():
        products = long_side_products(batch.select([index]), scaled.narrow(0, index, 1), length).squeeze(0)
        vectors[index] = orthonormal(products) if noisy[index] else products
    return vectors


def long_side_products(batch: MatrixBatch, short: Tensor, length: int) -> Tensor:
    """W V (of wide matrices W^T V), slab by slab.

    Args:
        batch: of matrices.
        short: (batch, R, k) float64; vectors of the short side, each divided by its singular value to get those of the
            long side.
        length: positions of the long axis per step.

    Returns:
        (batch, L, k) float64.
    """
    if length >= batch.long_side:
        (slab,) = next(batch.slabs(length, torch.float64))
        return each_product(slab, short)
    products = short.new_empty(len(batch), batch.long_side, short.shape[2])
    start = 0
    for (slab,) in batch.slabs(length, torch.float64):
        for matrix, vectors, rows in zip(slab.unbind(), short.unbind(), products.unbind(), strict=True):
            torch.mm(matrix, vectors, out=rows.narrow(0, start, matrix.shape[0]))
        start += slab.shape[1]
    return products


def orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis (L, k) that begins as the columns do, in their directions."""
    basis: Tensor
    basis, triangle = torch.linalg.qr(columns)
    signs: Tensor = torch.where(triangle.diagonal() < 0.0, -1.0, 1.0)
    return basis.mul_(signs)
