"""How fast spectra cuts every spectrum of a checkpoint in two, as a ratio to full SVDs in the same process.

Run by hand, on an otherwise idle machine: python -m tests.benchmarks.prune
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectra_cli.spectrum.matrix import TensorMatrix
from spectra_cli.spectrum.prune import split_spectrum

from .rank import BUDGET_BYTES, compare
from .synthetic import state_dict

KEEP = 0.5


def truncated(weight: Tensor, *, top: bool) -> Tensor:
    """One half, by a float32 SVD of its own and two products, as a loop over two prunes does it."""
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    count = round(KEEP * len(values))
    part = slice(None, count) if top else slice(count, None)
    return (left[:, part] * values[part]) @ right[part]


def main() -> None:
    """Print the ratio for all matrices but the output layer."""
    tensors = list(state_dict().values())[:-1]
    matrices = [TensorMatrix(tensor) for tensor in tensors]
    theirs, mine, ratio = compare(
        lambda: [truncated(tensor, top=top) for tensor in tensors for top in (True, False)],
        lambda: [split_spectrum([matrix], KEEP, budget_bytes=BUDGET_BYTES) for matrix in matrices],
        2,
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"both halves of 17 matrices: two SVDs each {theirs:.2f} s, spectra {mine:.2f} s, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
