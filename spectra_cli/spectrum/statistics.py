"""What is derived from the singular values of a matrix. Every formula of DESIGN's table stands here, once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RANK_SHARE = 0.9
SHARE_SLACK = 1e-9
"""Relative slack of :func:`rank_90`, so that ten equal values give nine whatever the rounding of their sum."""


def _descending(singular_values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(singular_values, dtype=np.float64)


def shares(singular_values: ArrayLike) -> NDArray[np.float64]:
    """p_i = s_i / sum(s), (R,); NaN where all are zero."""
    values = _descending(singular_values)
    scale = float(values.max(initial=0.0))
    if scale == 0.0:
        return np.full_like(values, np.nan)
    scaled = values / scale  # so that a sum neither overflows nor vanishes
    return np.asarray(scaled / scaled.sum())


def entropy(singular_values: ArrayLike) -> float:
    """-sum p_i ln p_i in nats, with 0 ln 0 = 0 (EffRank of Yunis et al. 2024, Eq. 1 as printed); NaN if all are 0."""
    p = shares(singular_values)
    if np.isnan(p).any():
        return math.nan
    p = p[p > 0.0]
    return max(0.0, -float((p * np.log(p)).sum()))


def entropy_normalized(singular_values: ArrayLike) -> float:
    """Entropy / R (NormEffRank of Yunis et al. 2024, Eq. 2 as printed)."""
    return entropy(singular_values) / len(_descending(singular_values))


def effective_rank(singular_values: ArrayLike) -> float:
    """exp(entropy), in [1, R] (Roy and Vetterli 2007, "The effective rank")."""
    return math.exp(entropy(singular_values))


def effective_rank_normalized(singular_values: ArrayLike) -> float:
    """Effective rank / R, in (0, 1]: the colour scale of the papers' figures."""
    return effective_rank(singular_values) / len(_descending(singular_values))


def spectral_norm(singular_values: ArrayLike) -> float:
    """s_1."""
    return float(_descending(singular_values)[0])


def frobenius_norm(singular_values: ArrayLike) -> float:
    """sqrt(sum s_i^2), without overflow or underflow."""
    values = _descending(singular_values)
    scale = float(values.max(initial=0.0))
    return scale * float(np.linalg.norm(values / scale)) if scale > 0.0 else 0.0


def nuclear_norm(singular_values: ArrayLike) -> float:
    """Sum of the s_i."""
    with np.errstate(over="ignore"):
        return float(_descending(singular_values).sum())


def stable_rank(singular_values: ArrayLike) -> float:
    """Sum of s_i^2 / s_1^2, in [1, R]; NaN if all are 0."""
    values = _descending(singular_values)
    largest = float(values[0])
    return float(((values / largest) ** 2).sum()) if largest > 0.0 else math.nan


def rank_90(singular_values: ArrayLike) -> int:
    """Least k with s_1 + ... + s_k >= 0.9 sum(s); 0 if all are 0."""
    sums = np.cumsum(shares(singular_values))
    if np.isnan(sums[-1]):
        return 0
    return int(np.searchsorted(sums, RANK_SHARE * sums[-1] * (1.0 - SHARE_SLACK))) + 1


def numerical_rank(singular_values: ArrayLike, rows: int, cols: int, eps: float) -> int:
    """Number of s_i > s_1 * max(rows, cols) * eps, as LAPACK users count (eps: spacing at 1 of the stored dtype).

    Caveat: with a coarse dtype and a long side, max(rows, cols) * eps reaches 1 and the count is 0: every value could
    be the rounding of the weights. bfloat16 does so from 128 rows or columns on.
    """
    values = _descending(singular_values)
    return int((values > values[0] * rank_cutoff(rows, cols, eps)).sum())


def rank_cutoff(rows: int, cols: int, eps: float) -> float:
    """Least share of s_1 that counts as a singular value other than 0: max(rows, cols) * eps."""
    return max(rows, cols) * eps


def condition_number(singular_values: ArrayLike) -> float:
    """s_1 / s_R; infinite if s_R = 0, NaN if all are 0."""
    values = _descending(singular_values)
    if values[0] == 0.0:
        return math.nan
    return float(values[0] / values[-1]) if values[-1] > 0.0 else math.inf


def gini(singular_values: ArrayLike) -> float:
    """Gini index of the s_i: 0 if all are equal, (R - 1) / R if one is not zero; NaN if all are 0.

    sum_i (2 i - R - 1) s_(i) / (R sum s) over ascending s_(i) (Hurley and Rickard 2009, "Comparing measures of
    sparsity").
    """
    p = shares(singular_values)
    count = len(p)
    ranks = np.arange(count, 0, -1)  # descending order: the largest has rank R
    return max(0.0, float(((2 * ranks - count - 1) * p).sum()) / count) if not np.isnan(p).any() else math.nan


@dataclass(frozen=True, slots=True)
class SpectrumStatistics:
    """Every statistic of one spectrum, by the name of its column."""

    spectral_norm: float
    frobenius_norm: float
    nuclear_norm: float
    entropy: float
    entropy_normalized: float
    effective_rank: float
    effective_rank_normalized: float
    stable_rank: float
    rank_90: int
    numerical_rank: int
    condition_number: float
    gini: float


def summarize(singular_values: ArrayLike, rows: int, cols: int, eps: float) -> SpectrumStatistics:
    """Compute every statistic.

    Args:
        singular_values: (R,), descending, R = min(rows, cols) >= 1.
        rows: of the matrix.
        cols: of the matrix.
        eps: spacing at 1 of the dtype in which the matrix is stored.
    """
    values = _descending(singular_values)
    return SpectrumStatistics(
        spectral_norm=spectral_norm(values),
        frobenius_norm=frobenius_norm(values),
        nuclear_norm=nuclear_norm(values),
        entropy=entropy(values),
        entropy_normalized=entropy_normalized(values),
        effective_rank=effective_rank(values),
        effective_rank_normalized=effective_rank_normalized(values),
        stable_rank=stable_rank(values),
        rank_90=rank_90(values),
        numerical_rank=numerical_rank(values, rows, cols, eps),
        condition_number=condition_number(values),
        gini=gini(values),
    )
