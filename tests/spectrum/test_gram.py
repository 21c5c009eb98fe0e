"""Gram matrices, and what the probes say of their errors."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch

from spectra_cli.spectrum import gram as grams
from spectra_cli.spectrum.matrix import MatrixBatch, TensorMatrix
from spectra_cli.spectrum.methods import TOLERANCE

from .planted import lapack, planted


def batch_of(*tensors: torch.Tensor) -> MatrixBatch:
    return MatrixBatch([TensorMatrix(tensor) for tensor in tensors])


def exact_gram(tensor: torch.Tensor) -> torch.Tensor:
    double = tensor.double()
    return double.mT @ double if tensor.shape[0] >= tensor.shape[1] else double @ double.mT


@pytest.mark.parametrize("shape", [(300, 40), (40, 300), (700, 600), (600, 700), (1, 9), (9, 1), (5, 5)])
@pytest.mark.parametrize("slab", [1, 7, 64, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_slabs_of_any_length_sum_to_the_gram_matrix_of_the_long_axis(
    shape: tuple[int, int], slab: int, dtype: torch.dtype
) -> None:
    if slab == 1 and max(shape) > 400:
        pytest.skip("covered by longer slabs")
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(2)]
    result = grams.mirrored(grams.gram(batch_of(*tensors), slab))
    for index, tensor in enumerate(tensors):
        torch.testing.assert_close(result[index], exact_gram(tensor), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(("shape", "slab"), [((4000, 300), 512), ((300, 4000), 512), ((2000, 64), 2000)])
def test_the_probes_bound_the_error_of_a_float32_gram_matrix(shape: tuple[int, int], slab: int) -> None:
    """For errors of any shape, and never by more than the square root of R, which a flat error costs."""
    for seed in range(10):
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + (seed % 2)
        result, bound = grams.probed_gram(batch_of(tensor), slab)
        true = torch.linalg.matrix_norm(grams.mirrored(result)[0] - exact_gram(tensor), 2)
        assert true <= bound[0]
        assert bound[0] <= 3 * min(shape) ** 0.5 * true


def test_the_probes_see_an_error_of_rank_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hardest error to see: one direction among R, at random; planted in the products behind their back."""
    generator = np.random.default_rng(0)
    tensor = torch.randn(600, 256, generator=torch.Generator().manual_seed(0))
    multiply = grams.add_lower_products

    for _ in range(100):
        direction = torch.from_numpy(generator.standard_normal(256)).float()
        planted_error = torch.outer(direction, direction) / direction.norm() ** 2

        def wrong(total: torch.Tensor, slab: torch.Tensor, error: torch.Tensor = planted_error) -> None:
            multiply(total, slab)
            total += error

        monkeypatch.setattr(grams, "add_lower_products", wrong)
        result, bound = grams.probed_gram(batch_of(tensor), 600)
        true = torch.linalg.matrix_norm(grams.mirrored(result)[0] - exact_gram(tensor), 2)
        assert 0.9 < true <= bound[0] < 10 * true


def test_the_quantile_is_that_of_the_chi_squared_distribution() -> None:
    assert scipy.stats.chi2.cdf(grams.PROBE_QUANTILE, grams.PROBES) == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("scale", [1e30, 1e25])
def test_overflow_in_float32_is_an_infinite_bound(scale: float) -> None:
    tensor = torch.randn(4000, 300) * scale
    assert torch.isinf(grams.probed_gram(batch_of(tensor), 512)[1]).all()


def test_underflow_in_float32_shows_in_the_bound() -> None:
    tensor = torch.randn(4000, 300) * 1e-30
    _, bound = grams.probed_gram(batch_of(tensor), 512)
    assert bound[0] >= torch.linalg.matrix_norm(exact_gram(tensor), 2)


def test_a_float32_gram_matrix_alone_does_not_keep_the_promise() -> None:
    """Why the bound is needed: with a condition number of 1e4 the small values are off by more than the tolerance."""
    tensor = torch.from_numpy(planted(4000, 300, np.logspace(0, -4, 300))).float()
    single = tensor.mT @ tensor
    values = torch.linalg.eigvalsh(single.double()).flip(0).clamp(min=0).sqrt().numpy()
    true = lapack(tensor)
    assert np.abs(values - true).max() > TOLERANCE * true[0]


@pytest.mark.parametrize("api", ["legacy", "current"])
def test_the_callers_precision_is_set_aside_and_restored(api: str) -> None:
    """With either of torch's interfaces to it; in a process of its own, as they do not mix."""
    backend = "torch.backends.mkldnn.matmul.fp32_precision"
    if api == "current" and not hasattr(torch.backends.mkldnn.matmul, "fp32_precision"):
        pytest.skip("an older torch")
    read = {"legacy": "torch.get_float32_matmul_precision()", "current": backend}[api]
    write = {"legacy": "torch.set_float32_matmul_precision('medium')", "current": f"{backend} = 'bf16'"}[api]
    program = f"""
import torch
from spectra_cli.spectrum.gram import full_float32
{write}
before = {read}
with full_float32():
    x = torch.full((512, 512), 1 + 2.0**-20)
    product = x @ torch.eye(512)
    assert torch.equal(product, x), 'products are rounded'
assert {read} == before, {read}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=300)


CUDNN = "torch.backends.cudnn"
SET_BY_HOST = {
    "nothing": "",
    "the older interface": f"{CUDNN}.allow_tf32 = True",
    "the newer one": f"{CUDNN}.conv.fp32_precision = 'tf32'; {CUDNN}.rnn.fp32_precision = 'ieee'",
    "all backends": "torch.backends.fp32_precision = 'tf32'",
}


@pytest.mark.parametrize("way", SET_BY_HOST)
def test_convolutions_and_recurrent_layers_are_not_rounded_either(way: str) -> None:
    """Although torch lets cuDNN do so by itself; what the host program has set is back afterwards."""
    if not hasattr(torch.backends.cudnn.rnn, "fp32_precision"):
        pytest.skip("an older torch")
    program = f"""
import torch
from spectra_cli.spectrum.gram import full_float32
{SET_BY_HOST[way]}
layers = [{CUDNN}.conv, {CUDNN}.rnn, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn]
def read():
    return [layer.fp32_precision for layer in layers]
before = read()
with full_float32():
    assert read() == ['ieee'] * 4, read()
    with full_float32():
        assert read() == ['ieee'] * 4, read()
    assert read() == ['ieee'] * 4, read()
assert read() == before, (before, read())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=300)


def test_what_the_host_has_set_is_back_when_the_last_of_several_threads_is_through() -> None:
    """Whichever of them began first, and not before: with each restoring what it found, the settings would be mixed."""
    if not hasattr(torch.backends.mkldnn.matmul, "fp32_precision"):
        pytest.skip("an older torch")
    program = """
import sys, torch
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from spectra_cli.spectrum.gram import full_float32
matmul = torch.backends.mkldnn.matmul
matmul.fp32_precision = 'bf16'
first, second = ExitStack(), ExitStack()
first.enter_context(full_float32())
second.enter_context(full_float32())
first.close()
assert matmul.fp32_precision == 'ieee'
second.close()
assert matmul.fp32_precision == 'bf16'

sys.setswitchinterval(1e-6)
def enter_often(_):
    found = set()
    for _ in range(200):
        with full_float32():
            found.add(matmul.fp32_precision)
    return found
with ThreadPoolExecutor(4) as pool:
    assert set().union(*pool.map(enter_often, range(4))) == {'ieee'}
assert matmul.fp32_precision == 'bf16'
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=300)
