"""How singular vectors of two matrices meet: alignment and agreement, each formula once.

Equations are those of Yunis et al. 2024, "Approaching Deep Learning through the Spectral Dynamics of Weights". Vectors
come as columns, in descending order of their singular values; their signs do not matter.

Caveat: where s_i and s_{i+1} nearly coincide, u_i and v_i are any vectors of the subspace that the two span, and an
entry that involves them says nothing of its own. :func:`min_gap` tells.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spectra_cli.spectrum.memory import LEADING_VECTORS

MOST = LEADING_VECTORS
"""Vectors whose entries are kept: i <= 100."""

SCORED = 10
"""Vectors that a score is the mean over: i <= 10."""

STEP = 4096
"""Positions of a vector that are multiplied at once: the products then need no memory of the vectors' own size."""


def alignment_diagonal(upstream: Tensor, downstream: Tensor) -> NDArray[np.float64]:
    """A_ii = abs(<u_i, v_i>), u of the upstream matrix and v of the downstream one (Eq. 3).

    Args:
        upstream: (n, k1), singular vectors in the space where the two matrices meet; any float dtype and device.
        downstream: (n, k2), on the same device.

    Returns:
        (min(100, k1, k2),), in [0, 1]. Caveat: not to be relied on where :func:`min_gap` is nearly 0.

    Raises:
        ValueError: if the vectors are of different lengths.
    """
    return _host(diagonal_products(upstream, downstream))


def alignment_block(upstream: Tensor, downstream: Tensor) -> NDArray[np.float32]:
    """A_jk = abs(<u_j, v_k>), u of the upstream matrix and v of the downstream one (Eq. 3).

    Args:
        upstream: (n, k1), singular vectors in the space where the two matrices meet; any float dtype and device.
        downstream: (n, k2), on the same device.

    Returns:
        (min(100, k1), min(100, k2)), in [0, 1]; row j of the upstream vectors, column k of the downstream ones. Where
        values are tied, the sum of squares over the tied rows or columns is what the matrices determine.

    Raises:
        ValueError: if the vectors are of different lengths.
    """
    return _host(block_products(upstream, downstream)).astype(np.float32)


def agreement_diagonal(
    left: Tensor, right: Tensor, reference_left: Tensor, reference_right: Tensor
) -> NDArray[np.float64]:
    """S_ii = abs(<u_i, u'_i>) abs(<v_i, v'_i>) of one parameter in two checkpoints (Eq. 5).

    Args:
        left: (rows, k), u_1 ... u_k; any float dtype and device.
        right: (cols, k), v_1 ... v_k.
        reference_left: (rows, k'), u'_1 ... u'_k', on the same device.
        reference_right: (cols, k'), v'_1 ... v'_k'.

    Returns:
        (min(100, k, k'),), in [0, 1]. Caveat: not to be relied on where :func:`min_gap` is nearly 0, not even for a
        matrix and itself.

    Raises:
        ValueError: if the matrices are of different shapes.
    """
    of_left, of_right = alignment_diagonal(left, reference_left), alignment_diagonal(right, reference_right)
    count = min(len(of_left), len(of_right))
    return np.asarray(of_left[:count] * of_right[:count])


def chance(length: int) -> float:
    """Mean of abs(<x, y>) for independent random unit vectors: what alignment is worth nothing at.

    gamma(n/2) / (sqrt(pi) gamma((n+1)/2)), about sqrt(2 / (pi n)): the mean of the absolute value of a coordinate of a
    point that is uniform on the unit sphere (Muirhead, Aspects of Multivariate Statistical Theory, section 1.5).

    Args:
        length: n, the number of coordinates.
    """
    return math.exp(math.lgamma(length / 2) - math.lgamma((length + 1) / 2)) / math.sqrt(math.pi)


def score(diagonal: ArrayLike) -> float:
    """Mean of the first ten entries of A_ii (Eq. 4) or of S_ii, of all where there are fewer; NaN where there is none.

    Caveat: a near tie among the first eleven singular values spoils up to two of the ten; see :func:`min_gap`.
    """
    entries = np.asarray(diagonal, dtype=np.float64)[:SCORED]
    return float(entries.mean()) if len(entries) else math.nan


def min_gap(*singular_values: ArrayLike) -> float:
    """Least relative gap (s_i - s_{i+1}) / s_i over i <= 10 and over all spectra given, with s_{R+1} = 0.

    An error of size e in a matrix, such as the rounding of its weights as stored, turns the vector i by about
    e / (s_i - s_{i+1}) (Wedin 1972): with a gap that is not large against e / s_i, compare subspaces, not vectors.

    Args:
        singular_values: descending; all, or at least the first 11 where there are as many (what is absent counts as 0).

    Returns:
        In [0, 1]; 0 where some s_i with i <= 10 is 0, as its vector is arbitrary; NaN without any value.
    """
    gaps: list[float] = []
    for values in singular_values:
        leading = np.asarray(values, dtype=np.float64)[: SCORED + 1]
        above, below = leading[:SCORED], np.append(leading, 0.0)[1 : SCORED + 1]
        gaps += np.divide(above - below, above, out=np.zeros_like(above), where=above > 0.0).tolist()
    return min(gaps, default=math.nan)


def diagonal_products(first: Tensor, second: Tensor) -> Tensor:
    """Magnitudes abs(<x_i, y_i>) of the leading columns, (min(100, k1, k2),) float64, on their device.

    Raises:
        ValueError: if the columns are of different lengths.
    """
    length = _common_length(first, second)
    count = min(MOST, first.shape[1], second.shape[1])
    first, second = first.narrow(1, 0, count), second.narrow(1, 0, count)
    total = torch.zeros(count, dtype=torch.float64, device=first.device)
    for start in range(0, length, STEP):
        step = min(STEP, length - start)
        x, y = (vectors.narrow(0, start, step).to(torch.float64) for vectors in (first, second))
        total += torch.linalg.vecdot(x, y, dim=0)
    return total.abs().clamp(max=1.0)  # rounding may carry it beyond


def block_products(first: Tensor, second: Tensor) -> Tensor:
    """Magnitudes abs(<x_j, y_k>) of the leading columns, (min(100, k1), min(100, k2)) float64, on their device.

    Raises:
        ValueError: if the columns are of different lengths.
    """
    length = _common_length(first, second)
    first, second = (vectors.narrow(1, 0, min(MOST, vectors.shape[1])) for vectors in (first, second))
    total = torch.zeros(first.shape[1], second.shape[1], dtype=torch.float64, device=first.device)
    for start in range(0, length, STEP):
        step = min(STEP, length - start)
        x, y = (vectors.narrow(0, start, step).to(torch.float64) for vectors in (first, second))
        total.addmm_(x.mT, y)
    return total.abs().clamp(max=1.0)


def _common_length(first: Tensor, second: Tensor) -> int:
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"vectors of different lengths do not meet: {first.shape[0]} and {second.shape[0]}")
    return first.shape[0]


def _host(products: Tensor) -> NDArray[np.float64]:
    return np.asarray(products.cpu().numpy())
