"""Parts of a matrix: its leading singular components and the rest, its largest entries, and as many at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from spectra_cli.spectrum.factorize import factorize
from spectra_cli.spectrum.gram import full_float32
from spectra_cli.spectrum.matrix import Matrix, part
from spectra_cli.spectrum.memory import LONGEST_SLAB, SLAB_BYTES

SLACK = 1e-9
"""Amount by which keep * R may exceed an integer through rounding: 0.55 * 20 is 11, not 12."""


@dataclass(frozen=True, slots=True)
class Split:
    """The leading components of a matrix and the rest, which sum to the matrix but for the rounding of its type.

    Attributes:
        top: (rows, cols) in the matrix's dtype, sum of s_i u_i v_i^T over i <= k; None unless `status` is ``ok``.
        bottom: (rows, cols) in the matrix's dtype, the same over i > k.
        status: ``ok``, or why there is no factorization (see :class:`spectra_cli.spectrum.factorize.Spectrum`).
    """

    top: Tensor | None
    bottom: Tensor | None
    status: str = "ok"


def kept_count(keep: float, total: int) -> int:
    """ceil(keep * total): how many of `total` components or entries the fraction `keep` is, at least 1 of 1 or more."""
    return min(total, max(min(total, 1), math.ceil(keep * total - SLACK)))


def split_spectrum(
    matrices: Sequence[Matrix], keep: float, *, budget_bytes: int | None = None, onto: torch.device | None = None
) -> list[Split]:
    """Split matrices of one shape into their first ceil(keep * R) singular components and the rest.

    Both halves come from one factorization and one projector onto the leading vectors of the shorter side: W V V^T of a
    tall matrix, U U^T W of a wide one, and W less that. The products are float64, in slabs; what is kept of them is as
    large as the matrix.

    Args:
        matrices: of one shape, dtype and device.
        keep: fraction of the R = min(rows, cols) components, in (0, 1].
        budget_bytes: working memory of the factorization; None for half of what is free.
        onto: where the halves are put; None for the device of the matrices.

    Returns:
        One split per matrix.
        Caveat: where s_k and s_{k+1} nearly coincide, which directions go to the top is arbitrary.

    Raises:
        MemoryBudgetError: if not even the R x R side of one matrix fits the budget.
        ValueError: if the matrices differ in shape, dtype or device, or `keep` is out of range.
    """
    check_fraction(keep)
    if not matrices:
        return []
    rows, cols = matrices[0].shape
    if min(rows, cols) == 0:
        return [Split(None, None, "empty")] * len(matrices)
    count, tall = kept_count(keep, min(rows, cols)), rows > cols
    spectra = factorize(matrices, vectors=count, sides="right" if tall else "left", budget_bytes=budget_bytes)
    splits = []
    with full_float32(), torch.no_grad():
        for matrix, spectrum in zip(matrices, spectra, strict=True):
            basis = spectrum.right if tall else spectrum.left
            if basis is None:
                splits.append(Split(None, None, spectrum.status))
            else:
                splits.append(Split(*projected(matrix, basis.to(matrix.device), onto or matrix.device)))
    return splits


def projected(matrix: Matrix, basis: Tensor, onto: torch.device) -> tuple[Tensor, Tensor]:
    """What of a matrix lies in a subspace of its shorter side, and the rest.

    Args:
        matrix: (rows, cols).
        basis: (R, k) float64, orthonormal columns, on the device of the matrix.
        onto: where the two parts are put.

    Returns:
        Two matrices (rows, cols) in the dtype of the matrix.
    """
    rows, cols = matrix.shape
    tall, side = rows > cols, min(rows, cols)
    top, bottom = (torch.empty(rows, cols, dtype=matrix.dtype, device=onto) for _ in range(2))
    length = max(1, min(LONGEST_SLAB, SLAB_BYTES // (8 * side)))
    for start in range(0, max(rows, cols), length):
        positions = slice(start, start + length)
        block = matrix.block(rows=positions) if tall else matrix.block(cols=positions)
        whole = block.to(torch.float64)
        inside = whole  # exactly, where the basis is of everything, and not but for the rounding of a projector
        if basis.shape[1] < side:
            inside = whole @ basis @ basis.mT if tall else basis @ (basis.mT @ whole)
        for target, values in ((top, inside), (bottom, whole - inside)):
            torch.ops.aten.copy_(part(target, 0 if tall else 1, positions), values)  # see matrix.SlabIterator
    return top, bottom


def check_fraction(keep: float) -> None:
    """Check that a fraction to keep is one.

    Raises:
        ValueError: if it is not in (0, 1].
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"keep is {keep}, not in (0, 1]")


def magnitude_masks(tensors: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Masks of the weights of largest magnitude: ceil(keep * N) of the N entries of all tensors together.

    Of equal magnitudes at the threshold, as quantized and sign-like weights have, the first are kept: in the order of
    the tensors, then row by row. Zeros are never kept, so fewer weights may be kept where most are zeros.

    Args:
        tensors: weights by name, of any shapes and float dtypes, on one device; finite.
        keep: fraction of all entries, in (0, 1].

    Returns:
        A bool tensor of the same shape and device for each.

    Raises:
        ValueError: if `keep` is out of range, or an entry is not finite.
    """
    check_fraction(keep)
    count = sum(tensor.numel() for tensor in tensors.values())
    if not count:
        return {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}
    wanted = kept_count(keep, count)
    threshold = _largest(list(tensors.values()), wanted)
    masks = {name: _magnitude(tensor, threshold) > threshold for name, tensor in tensors.items()}
    left = wanted - sum(int(mask.sum()) for mask in masks.values()) if threshold > 0 else 0
    for name, tensor in tensors.items():
        if not left:
            break
        places = (_magnitude(tensor, threshold) == threshold).flatten().nonzero()[:left, 0]
        equal = torch.zeros(tensor.numel(), dtype=torch.bool, device=tensor.device)
        equal[places] = True
        masks[name] |= equal.reshape(tensor.shape)
        left -= len(places)
    return masks


def _magnitude(tensor: Tensor, threshold: Tensor) -> Tensor:
    return tensor.detach().abs().to(threshold.dtype)


def _largest(tensors: Sequence[Tensor], place: int) -> Tensor:
    """The place-th largest magnitude among the entries of all tensors, a scalar on their device.

    Needs one number per entry, on a CPU, where torch's selection would need three.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    count = sum(tensor.numel() for tensor in tensors)
    together = torch.empty(count, dtype=dtype, device=tensors[0].device)
    start = 0
    for tensor in tensors:
        together[start : start + tensor.numel()].copy_(tensor.detach().flatten())
        start += tensor.numel()
    together.abs_()
    if not bool(together.isfinite().all()):
        raise ValueError("an entry is not finite")
    index = count - place
    if together.device.type != "cpu":
        return together.kthvalue(index + 1).values
    numbers = together.numpy()
    numbers.partition(index)
    return together[index].clone()


def random_masks(masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Masks that keep as many entries of every tensor as those given do, anywhere in it with equal probability.

    Args:
        masks: bool tensors by name.
        seed: of a generator on the CPU, so that the result does not depend on the device.
    """
    generator = torch.Generator()
    generator.manual_seed(seed)
    drawn = {}
    for name, mask in masks.items():
        chosen = torch.zeros(mask.numel(), dtype=torch.bool)
        chosen[torch.randperm(mask.numel(), generator=generator)[: int(mask.sum())]] = True
        drawn[name] = chosen.reshape(mask.shape).to(mask.device)
    return drawn
