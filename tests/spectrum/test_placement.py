"""Everything stays on the device of its input. FakeTensorMode computes shapes and raises where devices meet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spectra_cli.spectrum import gram as grams
from spectra_cli.spectrum import methods, subspaces
from spectra_cli.spectrum.factorize import factorize, long_side_products, orthonormal
from spectra_cli.spectrum.matrix import MatrixBatch, SubMatrix, TensorMatrix
from spectra_cli.spectrum.refinement import ritz_triplets

SHAPES = [(3000, 300), (300, 3000), (600, 600), (40, 30)]


def fake_batch(shape: tuple[int, int], dtype: torch.dtype, count: int = 2) -> MatrixBatch:
    return MatrixBatch([TensorMatrix(torch.empty(shape, dtype=dtype, device="cuda")) for _ in range(count)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_step_stays_on_the_device(shape: tuple[int, int], dtype: torch.dtype) -> None:
    short = min(shape)
    with FakeTensorMode():
        batch = fake_batch(shape, dtype)
        exact = grams.gram(batch, 512)
        probed, bounds = grams.probed_gram(batch, 512)
        promising = methods.may_pass(probed, bounds)
        squares, vectors = methods.eigen(exact, 10)
        one = batch.select([0])
        factor = methods.triangular_factor(one, 2 * short)
        values, right = methods.svd_of_factor(factor, 10)
        assert vectors is not None
        assert right is not None
        long = orthonormal(long_side_products(one, vectors.narrow(0, 0, 1), 512).squeeze(0))
        refined = ritz_triplets(one, 512, vectors.select(0, 0), 7)
        results = (exact, probed, bounds, promising, squares, vectors, factor, values, right, long, *refined)
    assert {str(result.device) for result in results} == {"cuda:0"}
    assert exact.shape == probed.shape == (2, short, short)
    assert (squares.shape, vectors.shape, long.shape) == ((2, short), (2, short, 10), (max(shape), 10))
    assert tuple(result.shape for result in refined) == ((short, 7), (7,), (7,))
    assert (exact.dtype, vectors.dtype, long.dtype, refined[0].dtype) == (torch.float64,) * 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_parts_and_subspaces_stay_on_the_device(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Of a matrix held for several passes too, in one slab or in several."""
    with FakeTensorMode():
        whole = TensorMatrix(torch.empty(shape, dtype=dtype, device="cuda"))
        part = SubMatrix(whole, rows=((0, 5), (8, 20)), cols=((3, 24),))
        block = part.block(slice(2, 9), slice(1, 4))
        held = MatrixBatch([part, part]).held()
        squares, vectors = methods.eigen(grams.gram(held, 512), 10)
        assert vectors is not None
        long, in_steps = (long_side_products(held, vectors, length) for length in (512, 5))
        diagonal = subspaces.diagonal_products(long.select(0, 0), long.select(0, 1))
        block_of_a = subspaces.block_products(long.select(0, 0).float(), long.select(0, 1))
        results = (block, held.slab(0, 9), squares, vectors, long, in_steps, diagonal, block_of_a)
    assert {str(result.device) for result in results} == {"cuda:0"}
    assert (block.shape, block.dtype, long.shape, in_steps.shape) == ((7, 3), dtype, (2, 21, 10), (2, 21, 10))
    assert (diagonal.shape, block_of_a.shape, held.dtype) == ((10,), (10, 10), torch.float64)


@pytest.mark.parametrize("product", [subspaces.diagonal_products, subspaces.block_products])
def test_vectors_on_different_devices_are_not_multiplied(product: Callable[..., torch.Tensor]) -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        product(torch.empty(9, 3, device="cuda"), torch.empty(9, 3))


def test_the_check_can_fail() -> None:
    """Mixed devices do raise under FakeTensorMode: else the test above would say nothing."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.empty(3, 3, device="cuda") @ torch.empty(3, 3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("shape", [*SHAPES, (20000, 64), (1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_cuda_and_cpu_agree_within_their_bounds(shape: tuple[int, int], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    k = min(10, *shape)
    on_cpu, on_cuda = (
        factorize([TensorMatrix(tensor.to(device))], vectors=k, budget_bytes=1 << 30)[0] for device in ("cpu", "cuda")
    )
    difference = np.abs(on_cpu.singular_values - on_cuda.singular_values).max()
    assert difference <= on_cpu.error + on_cuda.error
    assert on_cuda.left is not None
    assert on_cuda.left.device.type == "cuda"
    assert on_cpu.left is not None
    diagonals = [subspaces.alignment_diagonal(side, side) for side in (on_cpu.left, on_cuda.left)]
    np.testing.assert_allclose(*diagonals, atol=1e-9)
