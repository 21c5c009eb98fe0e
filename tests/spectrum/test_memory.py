"""Memory: stated before the work, kept to during it, and what happens when it runs out all the same."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spectra_cli.errors import MemoryBudgetError
from spectra_cli.spectrum import memory
from spectra_cli.spectrum.factorize import Sides, factorize
from spectra_cli.spectrum.matrix import MatrixBatch, TensorMatrix
from spectra_cli.spectrum.methods import METHODS
from spectra_cli.spectrum.retry import DeviceMemoryWarning, with_less_memory

from .planted import lapack


@dataclass(frozen=True)
class Watched:
    """A matrix that records the sizes of the blocks read, and runs out of memory above `largest` elements."""

    tensor: torch.Tensor
    sizes: list[int] = field(default_factory=list)
    largest: int | None = None
    where: str = "cpu"

    @property
    def shape(self) -> tuple[int, int]:
        return (self.tensor.shape[0], self.tensor.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        return torch.device(self.where)

    def block(self, rows: slice = slice(None), cols: slice = slice(None)) -> torch.Tensor:
        part = self.tensor[rows, cols]
        if self.largest is not None and part.numel() > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(part.numel())
        return part

    def on(self, device: torch.device) -> Watched:
        return replace(self, where=str(device), largest=None)


@pytest.mark.parametrize("shape", [(5000, 100), (100, 5000)])
@pytest.mark.parametrize("method", METHODS)
def test_no_block_is_larger_than_the_budget_allows(shape: tuple[int, int], method: str) -> None:
    budget = 1_000_000
    matrix = Watched(torch.randn(shape))
    spectrum = factorize([matrix], budget_bytes=budget, method=method)[0]
    assert max(matrix.sizes) * 8 <= budget
    assert sum(matrix.sizes) >= matrix.tensor.numel()
    true = lapack(matrix.tensor)
    np.testing.assert_allclose(spectrum.singular_values, true, atol=1e-5 * true[0])


def test_a_smaller_budget_takes_smaller_steps() -> None:
    batch = MatrixBatch([TensorMatrix(torch.empty(50_000, 100))])
    lengths = [
        memory.slab_length(batch, budget, vectors=0, method="gram_float64") for budget in (10**9, 10**6, 4 * 10**5)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] * 100 * 8 <= memory.SLAB_BYTES
    assert len(set(lengths)) == 3


def test_a_budget_below_the_square_side_says_what_is_needed() -> None:
    with pytest.raises(
        MemoryBudgetError, match=r"a 400 x 300 matrix needs \d+ KiB .* 1024 KiB are left for it.*--memory-budget"
    ):
        factorize([TensorMatrix(torch.randn(400, 300))], budget_bytes=1 << 20)


def test_slabs_are_halved_when_the_device_runs_out_of_memory() -> None:
    matrix = Watched(torch.randn(4000, 100), largest=20_000)
    spectrum = factorize([matrix], budget_bytes=1 << 30)[0]
    assert max(matrix.sizes) <= 20_000
    assert min(matrix.sizes) > 5_000  # halved until it fits and no further, but for the rest at the end
    true = lapack(matrix.tensor)
    np.testing.assert_allclose(spectrum.singular_values, true, atol=1e-5 * true[0])


def test_batches_are_split_and_then_the_cpu_is_used_with_a_warning() -> None:
    calls: list[tuple[int, int, str]] = []

    def attempt(batch: MatrixBatch, length: int) -> list[str]:
        calls.append((len(batch), length, batch.device.type))
        if batch.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [str(batch.device)] * len(batch)

    batch = MatrixBatch([Watched(torch.ones(64, 16), where="meta") for _ in range(2)])
    with pytest.warns(DeviceMemoryWarning, match="64 x 16 matrix does not fit the memory of meta"):
        assert with_less_memory(attempt, batch, 16) == ["cpu"] * 2
    one = [(1, length, "meta") for length in (16, 8, 4)]  # no shorter: the square side would stay what it is
    assert calls == [(2, 16, "meta"), *([*one, (1, memory.LONGEST_SLAB, "cpu")] * 2)]


def test_memory_that_runs_out_on_the_cpu_is_an_error_and_other_errors_are_not_swallowed() -> None:
    batch = MatrixBatch([TensorMatrix(torch.ones(4, 3))])

    def starved(batch: MatrixBatch, length: int) -> list[str]:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    def broken(batch: MatrixBatch, length: int) -> list[str]:
        raise RuntimeError("something else")

    with pytest.raises(MemoryBudgetError, match="memory ran out on a 4 x 3 matrix"):
        with_less_memory(starved, batch, 4)
    with pytest.raises(RuntimeError, match="something else"):
        with_less_memory(broken, batch, 4)


def test_the_default_budget_is_part_of_what_the_machine_has() -> None:
    assert 1 << 20 < memory.default_budget_bytes() < 1 << 45


def test_the_working_memory_stated_up_front_grows_with_the_square_side_only() -> None:
    assert memory.working_bytes(10**6, 64, 2**30) < memory.working_bytes(4096, 4096, 2**26)
    assert memory.working_bytes(10**7, 64, 2**34) == memory.working_bytes(10**8, 64, 2**40)


class Allocations(TorchDispatchMode):
    """Most bytes of tensors alive at once, of those made meanwhile. What LAPACK allocates of its own is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {x.untyped_storage()._cdata for x in args if isinstance(x, torch.Tensor)}
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else (results,):
            storage = result.untyped_storage() if isinstance(result, torch.Tensor) else None
            if storage is not None and storage._cdata not in inputs and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage._cdata)
        self.most = max(self.most, sum(self.sizes.values()))
        return results


@pytest.mark.parametrize("shape", [(20_000, 40), (40, 20_000), (300, 200), (64, 300)])
@pytest.mark.parametrize("sides", ["both", "left", "right"])
@pytest.mark.parametrize("spectrum", ["flat", "singular", "steep"])
def test_vectors_stay_within_what_was_stated_for_them(shape: tuple[int, int], sides: Sides, spectrum: str) -> None:
    """A batch of four, singular too: R x R sides, slabs and vectors of the sides asked for, and not of others."""
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    if spectrum == "singular":
        tensors = [tensor.select(1, 0).unsqueeze(1) * tensor.select(0, 0) for tensor in tensors]
    if spectrum == "steep":  # vectors are refined
        scales = torch.cat([torch.logspace(0, -4, 30), torch.full((min(shape) - 30,), 5e-5)])
        tensors = [tensor * (scales if shape[0] > shape[1] else scales.unsqueeze(1)) for tensor in tensors]
    budget = 1 << 30
    batch = MatrixBatch([TensorMatrix(tensor) for tensor in tensors])
    k, long = 30, sides in {"both", "left" if batch.tall else "right"}
    with Allocations() as allocations:
        spectra = factorize(batch.matrices, vectors=k, sides=sides, budget_bytes=budget)
    stated = 0
    for method in ("gram_float64", "qr_float64"):
        options: dict[str, Any] = {"vectors": k, "method": method, "long_vectors": long}
        slabs = memory.slab_length(batch, budget, **options) * 4 * batch.short_side * (8 + 4 + 4)
        stated = max(stated, memory.square_bytes(batch, **options) + slabs)
    assert {result.status for result in spectra} == {"ok"}
    if spectrum == "steep":
        assert "gram_float64" in {result.method for result in spectra}
    assert allocations.most <= stated
    vectors = 8 * k * 4 * (batch.long_side if long else batch.short_side)
    assert allocations.most >= vectors  # something was seen


def test_a_matrix_that_makes_one_slab_is_read_once_for_values_and_vectors() -> None:
    matrix = Watched(torch.randn(300, 40))
    factorize([matrix], vectors=10, budget_bytes=1 << 30)
    assert matrix.sizes == [12_000]


def test_the_vectors_of_the_side_not_asked_for_are_not_accounted_for_nor_computed() -> None:
    """A budget that does not hold the vectors of 200 000 rows holds those of the 10 columns."""
    budget = 2_000_000
    matrix = Watched(torch.randn(200_000, 10))
    spectrum = factorize([matrix], vectors=10, sides="right", budget_bytes=budget)[0]
    assert spectrum.right is not None
    assert sum(matrix.sizes) == 2_000_000  # read once: no second pass for the left ones
    with pytest.raises(MemoryBudgetError):
        factorize([matrix], vectors=10, sides="left", budget_bytes=budget)


def test_the_working_memory_stated_up_front_counts_vectors() -> None:
    assert memory.working_bytes(10**6, 64, 2**30, vectors=100) - memory.working_bytes(10**6, 64, 2**30) > 8 * 64 * 10**6


def test_a_batch_is_cut_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty matrices whose square sides together are ten times the budget."""
    needs: list[int] = []

    def recorded(batch: memory.Shape, budget_bytes: int, *, vectors: int, method: str, long_vectors: bool) -> int:
        needs.append(memory.square_bytes(batch, vectors=vectors, method=method, long_vectors=long_vectors))
        return memory.slab_length(batch, budget_bytes, vectors=vectors, method=method, long_vectors=long_vectors)

    monkeypatch.setattr("spectra_cli.spectrum.factorize.slab_length", recorded)
    tensors = [torch.randn(80, 60) for _ in range(50)]
    budget = 8 * 60**2 * 3 * 50 // 10
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], budget_bytes=budget)
    assert len(needs) > 10
    assert max(needs) <= budget
    for tensor, spectrum in zip(tensors, spectra, strict=True):
        true = lapack(tensor)
        np.testing.assert_allclose(spectrum.singular_values, true, atol=1e-5 * true[0])
