"""How much of a matrix is worked on at once. Arithmetic only: it can be asked before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from spectra_cli.errors import MemoryBudgetError

DEFAULT_SHARE = 0.5
"""Share of the memory that is available when the work begins."""

SLAB_BYTES = 16 << 20
"""A slab in float64: long enough for full speed, short enough to leave the memory to others."""

LONGEST_SLAB = 4096
"""Positions; the rounding error of a float32 sum grows with its length, and slabs are added in float64."""

SQUARES = {"gram_float32": 5, "gram_float64": 3, "qr_float64": 10}
"""R x R float64 arrays alive at once for singular values: sums, LAPACK's copies and workspace; for a QR factorization a
slab of 2 R positions, below the factor so far, and twice again in LAPACK."""

SQUARES_FOR_VECTORS = 4
"""R x R float64 arrays more for singular vectors."""

LEADING_VECTORS = 100
"""Vectors of each side that alignment and agreement look at; said here, where torch is not needed to know it."""

VECTOR_COPIES = 3
"""Copies of the long vectors of one matrix at a time: LAPACK orthonormalizes those of nearly vanishing values."""


class Shape(Protocol):
    """What the arithmetic needs to know of a batch of matrices."""

    @property
    def rows(self) -> int:
        """Rows of each matrix."""
        ...

    @property
    def cols(self) -> int:
        """Columns of each matrix."""
        ...

    @property
    def itemsize(self) -> int:
        """Bytes per weight as stored."""
        ...

    def __len__(self) -> int:
        """Number of matrices."""
        ...


def slab_length(batch: Shape, budget_bytes: int, *, vectors: int, method: str, long_vectors: bool = True) -> int:
    """Positions of the long axis to work on at once.

    As many as make a slab of :data:`SLAB_BYTES`, and less where the budget does not hold that beside the R x R side.

    Args:
        batch: what to work on.
        budget_bytes: working memory, beyond the matrices themselves.
        vectors: how many singular vectors are asked for.
        method: a key of ``methods.METHODS``.
        long_vectors: whether those of the long side are among them.

    Raises:
        MemoryBudgetError: if the budget does not hold the R x R side of one matrix and one row or column.
    """
    fixed = square_bytes(batch, vectors=vectors, method=method, long_vectors=long_vectors)
    affordable = (budget_bytes - fixed) // _position_bytes(batch)
    if affordable < 1 and len(batch) == 1:
        needed = readable_bytes(fixed + _position_bytes(batch))
        raise MemoryBudgetError(
            f"a {batch.rows} x {batch.cols} matrix needs {needed} of working memory; "
            f"{readable_bytes(budget_bytes)} are left for it",
            of_budget=True,
            remedy="Raise --memory-budget, or leave the matrix out with --exclude",
        )
    return max(1, min(_longest_slab(batch, method), affordable))


def holds_longest_slab(
    batch: Shape, budget_bytes: int, *, vectors: int, method: str, long_vectors: bool = True
) -> bool:
    """Whether a budget does not make slabs shorter; arguments as of :func:`slab_length`."""
    fixed = square_bytes(batch, vectors=vectors, method=method, long_vectors=long_vectors)
    return fixed + _longest_slab(batch, method) * _position_bytes(batch) <= budget_bytes


def _longest_slab(batch: Shape, method: str) -> int:
    """Positions per slab where the budget sets no limit."""
    short_side = min(batch.rows, batch.cols)
    length = min(LONGEST_SLAB, SLAB_BYTES // (8 * short_side * len(batch)))
    if method == "qr_float64":  # a slab shorter than R would be all overhead
        length = max(length, 2 * short_side)
    return max(1, min(length, max(batch.rows, batch.cols)))


def _position_bytes(batch: Shape) -> int:
    """Bytes of one position of the long axis: as stored, in float64 and in float32."""
    return len(batch) * min(batch.rows, batch.cols) * (8 + 4 + batch.itemsize)


def square_bytes(batch: Shape, *, vectors: int, method: str, long_vectors: bool = True) -> int:
    """Working memory that does not depend on the length of a slab: the R x R side, and the vectors themselves."""
    short_side, long_side = min(batch.rows, batch.cols), max(batch.rows, batch.cols)
    squares = SQUARES[method] + (SQUARES_FOR_VECTORS if vectors else 0)
    short = 2 * len(batch) * short_side  # as they are, and divided by the singular values
    long = (len(batch) + VECTOR_COPIES - 1) * long_side if long_vectors else 0
    return 8 * (len(batch) * squares * short_side**2 + vectors * (short + long))


RESIDENT_BYTES = 64 << 20
"""Matrices that are larger as stored are not held in memory but read slab by slab."""


def resident_bytes(budget_bytes: int) -> int:
    """Largest size, as stored, of a matrix that is held in memory while it is worked on."""
    return min(RESIDENT_BYTES, budget_bytes // 8)


def working_bytes(rows: int, cols: int, stored_bytes: int, *, vectors: int = 0) -> int:
    """Working memory for the singular values, and vectors of both sides, of one matrix where the budget sets no limit.

    The R x R side at its largest, slabs in float64 and float32 beside the stored ones, and this and the next matrix in
    memory if they are small.
    """
    side = min(rows, cols)
    squares = max(SQUARES.values()) + (SQUARES_FOR_VECTORS if vectors else 0)
    kept = min(vectors, side) * (2 * side + VECTOR_COPIES * max(rows, cols))
    return 8 * (squares * side**2 + kept) + 3 * SLAB_BYTES + 2 * min(stored_bytes, RESIDENT_BYTES)


def readable_bytes(count: int) -> str:
    """Bytes with a unit, rounded up to at most four digits."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= 10 * size:
            return f"{-(-count // size)} {unit}"
    return f"{count} bytes"


def default_budget_bytes() -> int:
    """Half of the memory that is free for this process now: the machine's, or its control group's if that is less."""
    free = [_free_on_machine(), _free_in_control_group()]
    known = [count for count in free if count is not None]
    return int(DEFAULT_SHARE * min(known)) if known else 1 << 30


def _free_on_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):
        return None


def _free_in_control_group() -> int | None:
    """What the limits of this process's control groups leave (version 2, as SLURM and containers set them)."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("0::/")[2].strip()
    except OSError:
        own = ""
    free = []
    for group in (root / own, *(root / own).parents):
        try:
            limit = (group / "memory.max").read_text(encoding="ascii").strip()
            if limit != "max":
                used = int((group / "memory.current").read_text(encoding="ascii"))
                statistics = (group / "memory.stat").read_text(encoding="ascii").split()
                cached = int(statistics[statistics.index("inactive_file") + 1])  # given back when it is needed
                free.append(max(0, int(limit) - used + cached))
        except (OSError, ValueError):
            continue  # not a group with a limit
    return min(free, default=None)
