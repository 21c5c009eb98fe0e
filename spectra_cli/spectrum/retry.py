"""What happens when memory runs out all the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from spectra_cli.errors import MemoryBudgetError
from spectra_cli.spectrum.matrix import MatrixBatch
from spectra_cli.spectrum.memory import LONGEST_SLAB

Result = TypeVar("Result")


OUT_OF_MEMORY = ("can't allocate memory", "ALLOC_FAILED")
"""What torch's CPU allocator and the CUDA libraries say, in errors without a class of their own."""


class DeviceMemoryWarning(UserWarning):
    """A device ran out of memory and the work went on elsewhere."""


def with_less_memory(
    attempt: Callable[[MatrixBatch, int], list[Result]], batch: MatrixBatch, length: int
) -> list[Result]:
    """Run `attempt`; where memory runs out, with half the batch, then with shorter slabs, then on the CPU.

    Args:
        attempt: takes a batch and a slab length, returns a result per matrix.
        batch: what to work on.
        length: slab length to begin with. It is halved as long as a slab is not small against the R x R side, which
            shorter slabs do not make smaller.

    Raises:
        MemoryBudgetError: if memory runs out on the CPU as well.
    """
    try:
        return attempt(batch, length)
    except torch.OutOfMemoryError:
        pass  # outside the handler the failed attempt's tensors are free
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
    if batch.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(batch) > 1:
        return [result for half in batch.split() for result in with_less_memory(attempt, half, length)]
    if length > max(1, batch.short_side // 4):
        return with_less_memory(attempt, batch, length // 2)
    if batch.device.type != "cpu":
        warnings.warn(
            f"a {batch.rows} x {batch.cols} matrix does not fit the memory of {batch.device}: factorized on the CPU",
            DeviceMemoryWarning,
            stacklevel=2,
        )
        return with_less_memory(attempt, batch.on(torch.device("cpu")), LONGEST_SLAB)
    raise MemoryBudgetError(
        f"memory ran out on a {batch.rows} x {batch.cols} matrix", remedy="Leave it out with --exclude"
    )
