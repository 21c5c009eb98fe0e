"""Gram matrices accumulated in slabs, and how far a float32 one is from the truth."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from spectra_cli.spectrum.bounds import summation_error
from spectra_cli.spectrum.matrix import MatrixBatch

TRIANGLE_BLOCK = 192
"""Columns per block of the lower triangle."""

BATCHED_SIDE = 256
"""Largest short side of which a whole batch is one product, on a GPU both triangles and all."""

SMALL_BLOCK = 64
"""Columns per block of the lower triangle of those: at 256 columns, two thirds of the time of both triangles."""

PROBES = 16
"""Random vectors per matrix against which a float32 Gram matrix is checked."""

PROBE_QUANTILE = 1.4506
"""The 1e-6 quantile of the chi-squared distribution with :data:`PROBES` degrees of freedom."""

PROBE_SEED = 20240821


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute with float32 numbers in float32: no TF32 and no bfloat16 passes, whatever the host program has set.

    In matrix products, convolutions and recurrent layers; torch's own setting lets cuDNN use TF32 in the latter two.
    These are settings of the process: of the threads in here, the first makes them, and the last to leave gives back
    what the host program has set.
    """
    _FULL_FLOAT32.enter()
    try:
        yield
    finally:
        _FULL_FLOAT32.leave()


class _SharedSetting:
    """Settings of the process, kept as long as anyone needs them."""

    def __init__(self, setting: Callable[[], AbstractContextManager[None]]) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._inside = 0
        self._made = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._made.enter_context(self._setting())
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._made.close()


@contextmanager
def _full_float32() -> Iterator[None]:
    with _full_float32_products(), _full_float32_cudnn():
        yield


_FULL_FLOAT32 = _SharedSetting(_full_float32)


@contextmanager
def _full_float32_products() -> Iterator[None]:
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    backends += [torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn]  # type: ignore[attr-defined]  # since 2.9
    with _ieee(backends):
        yield


@contextmanager
def _full_float32_cudnn() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:  # the host program has used the interface of torch 2.9, which forbids this older one
        allowed = None
    operations = [cudnn.rnn, cudnn.conv] if hasattr(cudnn.rnn, "fp32_precision") else []
    with _ieee(operations):
        if allowed is None:
            yield
            return
        cudnn.allow_tf32 = False  # as well: else the code of a task that asks for it, cudnn.flags(), would fail
        try:
            with _ieee(operations):  # again, where the program has set a precision of all backends
                yield
        finally:
            cudnn.allow_tf32 = allowed


@contextmanager
def _ieee(backends: Sequence[Any]) -> Iterator[None]:
    set_by_host = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, set_by_host, strict=True):
            backend.fp32_precision = precision


def gram(batch: MatrixBatch, slab_length: int) -> Tensor:
    """Gram matrices over the long axis, multiplied and accumulated in float64.

    Args:
        batch: matrices of one shape.
        slab_length: positions of the long axis per step.

    Returns:
        (batch, R, R), float64; only the lower triangles are meant to be read.
    """
    slabs = batch.slabs(slab_length, torch.float64)
    if slab_length >= batch.long_side and batch.short_side <= BATCHED_SIDE:
        (slab,) = next(slabs)
        return lower_products(slab)  # nothing to accumulate: for many small matrices, a tenth of the time
    total = torch.zeros(len(batch), batch.short_side, batch.short_side, dtype=torch.float64, device=batch.device)
    for (slab,) in slabs:
        add_lower_products(total, slab)
    return total


def probed_gram(batch: MatrixBatch, slab_length: int) -> tuple[Tensor, Tensor]:
    """Gram matrices multiplied in float32 and accumulated in float64, with a probabilistic bound on their error.

    The bound. Let E be the difference between the result and W^T W, X an R x k matrix of independent standard normal
    numbers and v the unit vector with |E v| = ||E||_2. Then ||E X||_2 >= |v^T E X| = ||E||_2 |v^T X|, and |v^T X|^2 is
    chi-squared with k degrees of freedom, so that ||E||_2 <= ||E X||_2 / sqrt(q) fails with a probability of at most
    P(chi2_k < q) = 1e-6. E X costs 2 k float64 products per weight, from the slab that is at hand anyway.

    Args:
        batch: matrices of one shape.
        slab_length: positions of the long axis per step; shorter slabs make a smaller error.

    Returns:
        (batch, R, R) float64, lower triangles; and (batch,) float64, the bounds on ||E||_2, infinite where float32
        overflowed.
    """
    short_side = batch.short_side
    probes = gaussian_probes(short_side, batch.device)
    total = torch.zeros(len(batch), short_side, short_side, dtype=torch.float64, device=batch.device)
    partial = torch.zeros(len(batch), short_side, short_side, dtype=torch.float32, device=batch.device)
    products = torch.zeros(len(batch), short_side, PROBES, dtype=torch.float64, device=batch.device)
    for single, double in batch.slabs(slab_length, torch.float32, torch.float64):
        add_lower_products(partial.zero_(), single)
        total += partial
        products += double.mT @ (double @ probes)
    residual = mirrored(total) @ probes - products
    finite = residual.isfinite().all(2).all(1)
    residual = torch.where(finite.view(-1, 1, 1), residual, 0.0)
    observed = torch.linalg.eigvalsh(residual.mT @ residual).amax(1).clamp(min=0.0).sqrt()
    roundings = summation_error(batch.long_side) + summation_error(2 * short_side)  # of the products, and with probes
    rounding = roundings * squared_frobenius(total) * torch.linalg.norm(probes)
    bound = (observed + rounding) / math.sqrt(PROBE_QUANTILE)
    return total, torch.where(finite, bound, math.inf)


def squared_frobenius(gram_matrices: Tensor) -> Tensor:
    """Squared Frobenius norms of the matrices behind (batch, R, R) Gram matrices: their traces, (batch,)."""
    return gram_matrices.diagonal(dim1=1, dim2=2).sum(1)


def mirrored(lower: Tensor) -> Tensor:
    """Symmetric matrices (batch, R, R) from their lower triangles."""
    return lower.tril() + lower.tril(-1).mT


def add_lower_products(total: Tensor, slab: Tensor) -> None:
    """Add slab^T slab to the lower triangles of `total`, in place.

    Args:
        total: (batch, R, R).
        slab: (batch, length, R), of the same dtype.
    """
    if slab.shape[2] <= BATCHED_SIDE and len(slab) > 1 and slab.device.type != "cpu":  # there, see each_product()
        total.baddbmm_(slab.mT, slab)
        return
    for sums, matrix in zip(total.unbind(), slab.unbind(), strict=True):  # larger ones gain nothing from batching
        for part, left, right in _lower_blocks(sums, matrix, TRIANGLE_BLOCK):
            part.addmm_(left, right)


def lower_products(slab: Tensor) -> Tensor:
    """slab^T slab of small matrices; only the lower triangles are meant to be read.

    On a CPU one after the other; see :func:`each_product`.

    Args:
        slab: (batch, length, R).

    Returns:
        (batch, R, R).
    """
    if slab.device.type != "cpu":
        return slab.mT @ slab
    side = slab.shape[2]
    products = slab.new_zeros(len(slab), side, side)
    for product, matrix in zip(products.unbind(), slab.unbind(), strict=True):
        for part, left, right in _lower_blocks(product, matrix, SMALL_BLOCK):
            torch.mm(left, right, out=part)
    return products


def _lower_blocks(target: Tensor, matrix: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The lower triangle of `target` (R, R) in parts of `width` rows, each with two factors.

    Their product is that part of matrix^T matrix, where the matrix is (length, R).
    """
    side = matrix.shape[1]
    for start in range(0, side, width):
        stop = min(start + width, side)
        part = target.narrow(0, start, stop - start).narrow(1, 0, stop)
        yield part, matrix.narrow(1, start, stop - start).T, matrix.narrow(1, 0, stop)


def each_product(left: Tensor, right: Tensor) -> Tensor:
    """Products of matrices (batch, a, b) with others (batch, b, c).

    On a CPU one after the other, which takes no longer: several threads share the sum of a single product, and not
    those of a batch, so that its last bits would depend on what else is in the batch.

    Returns:
        (batch, a, c).
    """
    if left.device.type != "cpu":
        return left @ right
    products = left.new_empty(len(left), left.shape[1], right.shape[2])
    for one, other, product in zip(left.unbind(), right.unbind(), products.unbind(), strict=True):
        torch.mm(one, other, out=product)
    return products


def gaussian_probes(short_side: int, device: torch.device) -> Tensor:
    """The same standard normal (R, k) float64 matrix on every device and in every run."""
    generator = torch.Generator().manual_seed(PROBE_SEED)
    return torch.randn(short_side, PROBES, dtype=torch.float64, generator=generator, device="cpu").to(device)
