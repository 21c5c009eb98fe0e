"""Several groups of matrices at once, each with a share of the cores.

Eigenvalues of matrices of some hundred columns keep one core busy and a second one half, and two threads of a BLAS that
wait for one another stand still whenever the machine has something else to do. Independent matrices need not wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from spectra_cli.layers.matricize import MatrixSpec

MOST_LANES = 4
"""More would not help: reading and Python's own lock would set the pace."""

Item = TypeVar("Item")
Done = TypeVar("Done")


def flops_of(spec: MatrixSpec) -> float:
    """Floating-point operations of a Gram matrix and its eigenvalues, roughly, and some for every matrix."""
    short_side = min(spec.rows, spec.cols)
    return spec.rows * spec.cols * short_side + 4.0 * short_side**3 + 1e5


def available_cores() -> int:
    """Threads that torch will use, told without torch."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()


def usable_cores() -> int:
    """Cores of this machine that this process may use; a setting of the number of threads does not change them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lane_count(work: Sequence[float], cores: int, affordable: int) -> int:
    """How many groups to work on at once: no more than leave every lane its share of the work.

    Args:
        work: of each group.
        cores: of which each lane gets an equal number.
        affordable: how many lanes the memory allows.
    """
    balanced = int(sum(work) / max(work, default=1.0))
    return max(1, min(cores, MOST_LANES, balanced, affordable))


def heaviest_first(groups: Sequence[Item], work: Sequence[float], lanes: int) -> list[Item]:
    """An order that leaves no lane with a large group at the end: large ones first, the others as they come."""
    heavy = sum(work) / (4 * lanes)
    order = sorted(range(len(groups)), key=lambda place: -work[place] if work[place] >= heavy else 0.0)
    return [groups[place] for place in order]


def as_completed(items: Iterable[Item], work: Callable[[Item], Done], lanes: int) -> Iterator[Done]:
    """Do `work` on items in several threads; results come as they are done, and no more of them wait than lanes."""
    remaining = iter(items)
    with ThreadPoolExecutor(lanes, thread_name_prefix="spectra-lane") as pool:
        pending: set[Future[Done]] = set()
        try:
            while True:
                for item in remaining:
                    pending.add(pool.submit(work, item))
                    if len(pending) > lanes:
                        break
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                while done:
                    yield done.pop().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let every matrix product use this many threads."""
    import torch  # noqa: PLC0415 - the number of lanes is told without torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
