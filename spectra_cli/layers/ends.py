"""What meets in a connection: ends, which are singular vectors of matrices or parts, and the units they form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import Part, Side, centre_of, kernel_of, positions_of

UnitName = Literal["whole", "head", "gate", "position"]

SHAPE_MISMATCH = "shape_mismatch"
NO_HEAD_COUNT = "no_head_count"
HEAD_COUNT_MISMATCH = "head_count_mismatch"
TOO_MANY_UNITS = "too_many_units"

MOST_UNITS = 4096
"""Limit for one connection: heads or kernel positions, each of which takes a row, and each head a factorization."""


@dataclass(frozen=True, slots=True)
class End:
    """One side of a connection: singular vectors, or some of their coordinates.

    Attributes:
        part: what is factorized.
        side: which of its singular vectors.
        window: coordinates of them that meet the other end, (start, stop, step) as of a slice; None for all. A vector
            that is cut is not normalized again.
    """

    part: Part
    side: Side
    window: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a connection that gives one row.

    Attributes:
        unit: what the parts are.
        index: which one; None for the whole and where the unit cannot be told.
        primary: whether the papers' figures show it.
        upstream: None unless `status` is ``ok``.
        downstream: None unless `status` is ``ok``.
        status: ``ok``, ``shape_mismatch``, ``no_head_count``, ``head_count_mismatch`` or ``too_many_units``.
    """

    unit: UnitName
    index: int | None
    primary: bool
    upstream: End | None = None
    downstream: End | None = None
    status: str = "ok"


@dataclass(frozen=True, slots=True)
class Connection:
    """A pair of matrices, of which one gives what the other reads.

    Attributes:
        name: as in the column `connection`.
        upstream: index of the matrix that gives.
        downstream: index of the matrix that reads; for query-key that of the keys.
        units: at least one.
    """

    name: str
    upstream: int
    downstream: int
    units: tuple[Unit, ...]


def given_by(specs: Sequence[MatrixSpec], index: int) -> End:
    """What a matrix gives: its left singular vectors, the right ones of an embedding."""
    return End(Part(index), "right" if specs[index].kind == "embedding" else "left")


def read_by(index: int) -> End:
    """What a matrix reads: its right singular vectors."""
    return End(Part(index), "right")


def length_of(end: End, specs: Sequence[MatrixSpec]) -> int:
    """Coordinates of the vectors of an end."""
    if end.window is not None:
        return len(range(*end.window))
    spec = specs[end.part.depth]
    ranges, whole = (end.part.rows, spec.rows) if end.side == "left" else (end.part.cols, spec.cols)
    return sum(stop - start for start, stop in ranges) if ranges else whole


def meet(gives: End, reads: End, specs: Sequence[MatrixSpec]) -> Iterator[Unit]:
    """The units of two ends: the whole, or every kernel position of a convolution that reads."""
    spec, length = specs[reads.part.depth], length_of(reads, specs)
    kernel, count = kernel_of(spec), positions_of(spec)
    if not kernel or reads.part.cols:
        fits = length_of(gives, specs) == length
        yield Unit("whole", None, True, gives, reads) if fits else mismatch()
        return
    if count == 0 or length_of(gives, specs) * count != length:
        yield mismatch()
        return
    if count > MOST_UNITS:
        yield Unit("whole", None, True, status=TOO_MANY_UNITS)
        return
    for position in range(count):
        window = (position, length, count)
        yield Unit("position", position, position == centre_of(kernel), gives, replace(reads, window=window))


def mismatch() -> Unit:
    """The one unit of ends that do not meet."""
    return Unit("whole", None, True, status=SHAPE_MISMATCH)
