"""Reports what does not fit into memory as just that, whichever library runs out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from spectra_cli.errors import MemoryBudgetError

ALLOCATORS = ("DefaultCPUAllocator", "alloc_cpu", "Storage size calculation overflowed", "Trying to create tensor with")
"""What torch says in a RuntimeError when there is no memory on the CPU; on a GPU it raises OutOfMemoryError."""


@contextmanager
def model_fits(where: str) -> Iterator[None]:
    """A context in which a model is made.

    Args:
        where: the task, for errors.

    Raises:
        MemoryBudgetError: if memory cannot be had.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryBudgetError(
            "the model does not fit into memory", where=where, remedy="Lower the sizes of the task's model"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATORS)
