"""Bounds the errors that an error in a Gram matrix causes in singular values and what is computed from them.

Plain NumPy in float64 on the host: these are decisions, a few numbers each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

SLOPE_CEILING = 43.0
"""Bound of -ln p + 1 for shares p down to 1e-18; changes of smaller ones amount to nothing."""

SMALLEST = 2.0**-1074
"""Rounding of a float64 next to zero."""

UNIT_ROUNDOFF = 2.0**-53
"""Unit roundoff of float64."""


def summation_error(long_side: int) -> float:
    """Worst relative error of a float64 sum of `long_side` products of float32 numbers, in any order.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: the absolute error of every entry of W^T W is
    within this times that entry of |W|^T |W|, whose 2-norm is at most ||W||_F^2. The products themselves are exact.
    """
    return (long_side + 2) * UNIT_ROUNDOFF


def eigenvalue_error(gram_error: Vector, largest_eigenvalue: Vector, short_side: int) -> Vector:
    """Bounds on the error of every eigenvalue of Gram matrices.

    Weyl's inequality for the error of the matrix, plus the backward error p(R) * eps * lambda_1 of LAPACK's symmetric
    eigensolver (LAPACK Users' Guide, section 4.7, where p(R) is "a modestly growing function"; here p(R) = R).

    Args:
        gram_error: (batch,), bounds on the 2-norm errors of the matrices.
        largest_eigenvalue: (batch,).
        short_side: R.

    Returns:
        (batch,).
    """
    return gram_error + short_side * UNIT_ROUNDOFF * largest_eigenvalue


def backward_error(long_side: int, short_side: int, frobenius_norm: Vector) -> Vector:
    """Bounds on the errors of singular values from a QR factorization by slabs and an SVD of the factor.

    Householder transformations are backward stable (Higham, section 19.3): the error is a modest multiple of the unit
    roundoff times the norm. The multiple grows with the number of roundings in a column, and is taken as L + 8 R; in
    practice errors are far below that for matrices that are not constant.

    Args:
        long_side: L.
        short_side: R.
        frobenius_norm: (batch,).

    Returns:
        (batch,).
    """
    multiple = (long_side + 8 * short_side) * UNIT_ROUNDOFF
    rounding_next_to_zero = long_side * short_side * SMALLEST
    return np.where(frobenius_norm > 0.0, multiple * frobenius_norm + rounding_next_to_zero, 0.0)


def singular_value_errors(singular_values: Vector, error: Vector) -> Vector:
    """Bounds on the errors of s_i = sqrt(lambda_i) where every lambda_i is within `error`.

    abs(s - s') = abs(s^2 - s'^2) / (s + s'), with the least s' that the error allows; and where it allows s' = 0, the
    farther of 0 and of the largest s'.

    Args:
        singular_values: (batch, R).
        error: (batch,), of the squares.

    Returns:
        (batch, R).
    """
    squares = singular_values**2
    least = np.sqrt(np.maximum(squares - error[:, None], 0.0))
    most = np.sqrt(squares + error[:, None])
    return np.asarray(np.maximum(singular_values - least, most - singular_values))


def effective_rank_error(singular_values: Vector, errors: Vector) -> Vector:
    """Bounds, to first order, on the relative errors of exp(entropy) where each singular value has its own error.

    With S = sum(s), p = s / S and H the entropy, dH/ds_i = -(ln p_i + H) / S. Where an error c is not small against p,
    the integral of -ln p over any interval of length c is at most that from 0 to c, which is c (1 - ln c).

    Args:
        singular_values: (batch, R), of matrices that are not zero.
        errors: (batch, R).

    Returns:
        (batch,).
    """
    tiny = np.finfo(np.float64).tiny
    totals = singular_values.sum(1, keepdims=True)
    changes = errors / totals
    count = singular_values.shape[1]
    ceiling = count * (changes.max(1) * (SLOPE_CEILING + math.log(count)) + 1e-15)
    if (ceiling < 1e-6).all():  # far below any tolerance: the sum over all values need not be told apart
        return np.asarray(ceiling)
    shares = singular_values / totals
    logs = np.log(np.maximum(shares, tiny))
    entropies = -(shares * logs).sum(1, keepdims=True)
    near = np.abs(logs + entropies) + changes / np.maximum(shares, tiny)
    far = np.abs(np.log(np.maximum(changes, tiny))) + 1.0 + entropies
    slopes = np.where(shares > 2.0 * changes, near, far)
    return np.asarray(np.expm1((changes * slopes).sum(1)))
