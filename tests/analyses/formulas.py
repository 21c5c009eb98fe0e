"""Alignment, agreement and their gaps in float64 NumPy, as the papers print them: the oracle of `align` and `sva`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

Array = NDArray[np.float64]

CLEAR = 1e-4
"""Relative gap between singular values from which on float64 tells their vectors apart, with all the digits we test."""


@dataclass(frozen=True)
class Triplets:
    """LAPACK's singular values and vectors of a matrix (rows, cols), vectors as columns."""

    values: Array
    left: Array
    right: Array

    @property
    def gap(self) -> float:
        """(s_i - s_{i+1}) / s_i, the least of all i, with s_{R+1} = 0."""
        return float(np.min((self.values - np.append(self.values[1:], 0.0)) / self.values))

    @property
    def gap_of_ten(self) -> float:
        """The same of i <= 10."""
        following = np.append(self.values[1:], 0.0)
        return float(np.min(((self.values - following) / self.values)[:10]))


def svd(matrix: Tensor | Array) -> Triplets:
    """The factorization of the weights as stored; a tensor with more axes is flattened to (shape[0], rest)."""
    array = matrix.to(torch.float64).numpy() if isinstance(matrix, Tensor) else matrix
    left, values, right = np.linalg.svd(array.reshape(array.shape[0], -1), full_matrices=False)
    return Triplets(values, left, right.T)


def products(first: Array, second: Array) -> Array:
    """A_jk = |<x_j, y_k>|, j and k <= 100 (Eq. 3)."""
    return np.asarray(np.abs(first.T @ second)[:100, :100])


def agreement(one: Triplets, other: Triplets) -> Array:
    """S_ii = |<u_i, u'_i>| |<v_i, v'_i>|, i <= 100 (Eq. 5)."""
    return np.diag(products(one.left, other.left)) * np.diag(products(one.right, other.right))


def separated(rows: int, cols: int, seed: int, dtype: torch.dtype = torch.float32, ratio: float = 0.85) -> Tensor:
    """A matrix with random vectors and singular values that fall by `ratio` each."""
    rng = np.random.default_rng(seed)
    count = min(rows, cols)
    left, right = (np.linalg.qr(rng.standard_normal((side, count)))[0] for side in (rows, cols))
    return torch.from_numpy((left * ratio ** np.arange(count)) @ right.T).to(dtype).contiguous()


def save(path: Path, weights: Mapping[str, Tensor]) -> Path:
    """Write a checkpoint with the safetensors library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


def save_run(directory: Path, checkpoints: Mapping[int, Mapping[str, Tensor]]) -> Path:
    """Write a run: ``step_N.safetensors`` for every step."""
    for step, weights in checkpoints.items():
        save(directory / f"step_{step}.safetensors", weights)
    return directory


def chain(sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Fully connected layers that feed one another, ``layers.0.weight`` and so on, with separated spectra."""
    return {
        f"layers.{index}.weight": separated(rows, cols, 100 * seed + index, dtype)
        for index, (cols, rows) in enumerate(pairwise(sizes))
    }
