"""Matrices with known singular values, and LAPACK in float64 as the oracle."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray


def planted(rows: int, cols: int, values: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """A float64 matrix with the given singular values and random orthonormal vectors."""
    generator = np.random.default_rng(seed)
    spectrum = np.asarray(values, dtype=np.float64)
    left, _ = np.linalg.qr(generator.standard_normal((rows, len(spectrum))))
    right, _ = np.linalg.qr(generator.standard_normal((cols, len(spectrum))))
    return np.asarray((left * spectrum) @ right.T)


def lapack(matrix: torch.Tensor) -> NDArray[np.float64]:
    """Singular values of the weights as stored, by float64 LAPACK (SciPy's, not torch's)."""
    return np.asarray(scipy.linalg.svdvals(matrix.to(torch.float64).numpy(), check_finite=False))


def exponential_entropy(values: NDArray[np.float64]) -> float:
    """exp(-sum p ln p), written out."""
    p = values[values > 0] / values.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
