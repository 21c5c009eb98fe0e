"""Leading vectors where the rounding of a Gram matrix is not small against their squared values.

Squaring loses the vectors of small values long before it loses the subspace that they span with some more. One
Rayleigh-Ritz step finds them in it again from products with the matrix itself; what those leave is then measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.spectrum.bounds import summation_error
from spectra_cli.spectrum.matrix import MatrixBatch

OVERSAMPLING = 28
"""Directions of the Gram matrix kept beyond those asked for: what they hold need not be told apart."""

CAPTURE = 1e-2
"""Largest acceptable sine of the angle between a vector asked for and the subspace where it is looked for."""

VECTOR_ERROR = 1e-5
"""Largest acceptable part of a refined vector that lies among the vectors which were not kept."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """Singular values and vectors of the short side, of one matrix.

    Attributes:
        values: (k,), descending.
        short_vectors: (R, k) float64.
    """

    values: NDArray[np.float64]
    short_vectors: Tensor


def refine(
    batch: MatrixBatch,
    length: int,
    start: Tensor,
    *,
    values: NDArray[np.float64],
    square_error: float,
    vectors: int,
) -> Refinement | None:
    """Find the leading vectors of one matrix in the span of those of its Gram matrix, and say whether they are good.

    Let G = W^T W, of which the Gram matrix is within E, V_p its p leading eigenvectors and mu its eigenvalues. Every
    v_i with i <= k lies in their span but for a sine of at most E / (mu_k - mu_{p+1} - E) (Davis and Kahan 1970;
    Parlett, The Symmetric Eigenvalue Problem, chapter 11). Where that is small, none is missed, and the Ritz values,
    those of the p x p factor of W V_p, are those of W to second order.

    How good a Ritz pair is can be measured. With u = W v / s and r = W^T u - s v, the unit vector x = (u, v) / sqrt(2)
    satisfies H x = s x + (0, r) / sqrt(2), where H = [0 W; W^T 0] has the eigenvalues +-s_j. In the basis of its
    eigenvectors e_j, <e_j, x> = <e_j, (0, r)> / (sqrt(2) (h_j - s)): what u and v have of vectors that belong to
    values of s_{p+1} and less is at most ||r|| / (s - s_{p+1}) together. What they have of other leading vectors j is
    <v_j, r> / (s_j - s): r is orthogonal to the span, and v_j nearly in it, so that this is of second order. Gaps
    among the values asked for matter as they do to LAPACK. Rounding adds (L + R) eps ||W||_F to r.

    Args:
        batch: of one matrix.
        length: positions of the long axis per step that the budget holds.
        start: (R, p), V_p.
        values: (R,) square roots of the eigenvalues, descending.
        square_error: E.
        vectors: k.

    Returns:
        The leading values and vectors, or None where they are not known to be good.
    """
    short_side, kept = batch.short_side, start.shape[1]
    rest = float(values[kept] ** 2) if kept < short_side else 0.0
    if not square_error <= CAPTURE * (values[vectors - 1] ** 2 - rest - square_error):
        return None
    short_vectors, ritz_values, residuals = ritz_triplets(batch, max(1, length // 4), start, vectors)
    ritz, residual_norms = ritz_values.cpu().numpy(), residuals.cpu().numpy()
    rounding = summation_error(batch.long_side + short_side) * math.sqrt(float((values**2).sum()))
    gaps = ritz - (math.sqrt(rest + square_error) if kept < short_side else 0.0)
    if not (residual_norms + rounding <= VECTOR_ERROR * gaps).all():
        return None
    return Refinement(ritz, short_vectors)


def ritz_triplets(batch: MatrixBatch, length: int, start: Tensor, vectors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Singular triplets of one matrix, by a Rayleigh-Ritz step.

    Args:
        batch: of one matrix.
        length: positions of the long axis per step.
        start: (R, p) float64, orthonormal.
        vectors: k <= p.

    Returns:
        (R, k) vectors v of the short side, (k,) values s, descending, and (k,) norms of W^T (W v / s) - s v.
    """
    factor: Tensor | None = None
    for (slab,) in batch.slabs(length, torch.float64):
        product = slab.squeeze(0) @ start
        factor = torch.linalg.qr(product if factor is None else torch.cat([factor, product]), mode="r").R
    assert factor is not None  # noqa: S101 - a batch has a long axis of at least one
    _, values, rotation = torch.linalg.svd(factor, full_matrices=False)
    values = values.narrow(0, 0, vectors)
    short_vectors = start @ rotation.narrow(0, 0, vectors).mT
    scaled = short_vectors / values
    returned = torch.zeros_like(short_vectors)
    for (slab,) in batch.slabs(length, torch.float64):
        matrix = slab.squeeze(0)
        returned.addmm_(matrix.mT, matrix @ scaled)
    return short_vectors, values, torch.linalg.vector_norm(returned - short_vectors * values, dim=0)
