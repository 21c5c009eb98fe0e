"""On a CPU, what is found of a matrix does not depend on what it is worked on with, to the bit."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from spectra_cli.analyses.groups import batch_size
from spectra_cli.analyses.lanes import blas_threads
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import STACKED_WEIGHTS, TensorMatrix

SHAPES = [(17, 33), (64, 48), (113, 400), (5000, 20), (20, 5000), (130, 130)]
WORK = [
    *product((torch.float32, torch.bfloat16), ((0, "both"), (20, "both"))),
    (torch.float32, (20, "left")),
    (torch.float32, (20, "right")),
    (torch.float64, (20, "both")),
]


def batch_of(
    shape: tuple[int, int], dtype: torch.dtype, budget_bytes: int, *, transposed: bool = False
) -> list[TensorMatrix]:
    """As many as are worked on together, maybe stored as transposes; one of them has a vanishing singular value."""
    generator = torch.Generator().manual_seed(1)
    count = min(5, batch_size(shape, torch.device("cpu"), budget_bytes))
    matrices = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]
    if count > 2:
        matrices[1][:, -1] = matrices[1][:, 0]
    if transposed:
        matrices = [matrix.mT.contiguous().mT for matrix in matrices]
    return [TensorMatrix(matrix) for matrix in matrices]


def bits_of(spectrum: Spectrum) -> tuple[Any, ...]:
    sides = (None if side is None else side.numpy().tobytes() for side in (spectrum.left, spectrum.right))
    return (spectrum.singular_values.tobytes(), spectrum.error, spectrum.method, spectrum.status, *sides)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("budget_bytes", [1 << 30, 5 << 19], ids=["ample", "small"])
@pytest.mark.parametrize("transposed", [False, True], ids=["stored", "transposed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_matrix_has_the_same_factors_alone_and_in_a_batch(
    shape: tuple[int, int], budget_bytes: int, threads: int, *, transposed: bool
) -> None:
    """Also where the budget does not hold the whole batch, or slabs of it."""
    for dtype, (vectors, sides) in WORK:
        matrices = batch_of(shape, dtype, 1 << 30, transposed=transposed)
        options: dict[str, Any] = {"vectors": vectors, "sides": sides, "budget_bytes": budget_bytes}
        with blas_threads(threads):
            together = [bits_of(spectrum) for spectrum in factorize(matrices, **options)]
            for some in ([0], [1], list(range(1, len(matrices)))):
                chosen = [place for place in some if place < len(matrices)]
                alone = factorize([matrices[place] for place in chosen], **options)
                assert [bits_of(spectrum) for spectrum in alone] == [together[place] for place in chosen]


@pytest.mark.parametrize("aspect", [1, 2, 16, 1 << 20])
def test_no_matrix_is_in_a_batch_that_is_not_laid_out_as_in_one(aspect: int) -> None:
    short = max(1, int((STACKED_WEIGHTS / aspect) ** 0.5))
    assert batch_size((short * aspect + 1, short + 1), torch.device("cpu"), 1 << 40) == 1


def test_the_check_can_fail() -> None:
    """Another number of vectors, for one, may lead to other bits: factors are compared, not names."""
    matrices = batch_of((40, 30), torch.float32, 1 << 30)
    one, other = (factorize(matrices[:1], vectors=count, budget_bytes=1 << 30)[0] for count in (0, 5))
    assert bits_of(one) != bits_of(other)
    np.testing.assert_allclose(one.singular_values, other.singular_values, rtol=1e-9)
