"""From an error in a Gram matrix to errors of singular values and of what is computed from them.

Plain NumPy in float64 on the host: these are decisions, a few numbers each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-53
"""Of float64."""


def summation_error(long_side: int, slab_length: int) -> float:
    """Worst relative error of a float64 sum of `long_side` exact products, by slabs and in any order within one.

    Higham, Accuracy and Stability of Numerical Algorithms, section 4.2: one unit roundoff per level of summation; the
    absolute error of every entry of W^T W is within it times that entry of |W|^T |W|, whose 2-norm is at most
    ||W||_F^2. Two more cover the rounding of float64 products.
    """
    slabs = math.ceil(long_side / slab_length)
    return (min(slab_length, long_side) + slabs + 2) * UNIT_ROUNDOFF


def eigenvalue_error(gram_error: float, largest_eigenvalue: float, short_side: int) -> float:
    """Bound on the error of every eigenvalue of a Gram matrix.

    Weyl's inequality for the error of the matrix, plus the backward error p(R) * eps * lambda_1 of LAPACK's symmetric
    eigensolver (LAPACK Users' Guide, section 4.7, where p(R) is "a modestly growing function"; here p(R) = R).
    """
    return gram_error + short_side * UNIT_ROUNDOFF * largest_eigenvalue


def singular_value_errors(singular_values: Vector, error: float) -> Vector:
    """Bounds on the errors of s_i = sqrt(lambda_i) where every lambda_i is within `error`.

    abs(s - s') = abs(s^2 - s'^2) / (s + s'), with the least s' that the error allows; and where it allows s' = 0, the
    farther of 0 and of the largest s'.
    """
    squares = singular_values**2
    least = np.sqrt(np.maximum(squares - error, 0.0))
    most = np.sqrt(squares + error)
    return np.maximum(singular_values - least, most - singular_values)


def effective_rank_error(singular_values: Vector, errors: Vector) -> float:
    """Bound, to first order, on the relative error of exp(entropy) where each singular value has its own error.

    With S = sum(s), p = s / S and H the entropy, dH/ds_i = -(ln p_i + H) / S. Where the error is not small against the
    value, concavity of -p ln p and its value 0 at 0 bound the change by that of the error itself.
    """
    total = float(singular_values.sum())
    if total <= 0.0:
        return 0.0
    shares = singular_values / total
    changes = errors / total
    positive = shares > 0.0
    logs = np.log(shares, where=positive, out=np.zeros_like(shares))
    entropy = -float((shares * logs).sum())
    resolved = shares > 2.0 * changes
    slopes = np.abs(logs + entropy) + changes / np.maximum(shares, np.finfo(float).tiny)
    small = np.log(np.maximum(changes, np.finfo(float).tiny))
    slopes = np.where(resolved, slopes, np.abs(small) + entropy)
    return float(np.expm1((changes * slopes).sum()))
