"""How much of the tables a page holds: what is thinned out, in which order, until the page is small enough.

A page of spectra stays below 5 MB: 1.2 MB are the chart library and the page's own script, the numbers get
:data:`BUDGET_BYTES`, and what is left is for tables of text, which are bounded in rows. Heat maps come first: they
keep every step as long as all of them together stay below :data:`MAPS_BYTES`. What opens from them shares the rest;
there go, one after the other and each no further than it must and may, the number of singular values drawn, that of
the entries of diagonals, the steps, and last the number of matrices and connections that open anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BUDGET_BYTES = 3_200_000
"""Limit for the JSON that holds the numbers."""

MAPS_BYTES = 1_500_000
"""The part of it that heat maps may take."""

CURVES_BYTES = 300_000
"""The part of it that curves of one run, and those between runs, may take each."""

VALUE_BYTES = 4
"""Size of a number: 24 bits in base64."""

PLACE_BYTES = 8
"""Size of a step, or of the position of a cell that has no value."""

DETAIL_BYTES = 2000
"""Size of titles, facts and sentences of one matrix."""

NAMED_TIMES = 3
"""How often a matrix or connection is named in what it opens."""

SERIES_BYTES = 60
"""Size of a line, besides its values."""

MOST_RUNS = 24
"""Runs that are shown."""

MOST_ROWS = 600
"""Rows of a heat map."""

MOST_INDICES, FEWER_INDICES, LEAST_INDICES = 24, 16, 8
"""Singular values, or entries of a diagonal, that a matrix shows through training: some of the former are given up
before any of the latter, down to the second number, then down to the third."""

MOST_INDICES_AT_ONCE = 200
"""The same where there is one checkpoint only."""

LEAST_STEPS = 24
"""Steps that are kept before matrices lose what they open."""

MOST_POINTS = 1000
"""Limit for one curve."""


def points_of(lines: int) -> int:
    """Points that each of some lines may have, so that all of them together stay below :data:`CURVES_BYTES`."""
    return max(2, min(MOST_POINTS, CURVES_BYTES // (max(lines, 1) * (VALUE_BYTES + PLACE_BYTES))))


def spread(count: int, most: int) -> Ints:
    """Positions, at most `most` of `count`, evenly spaced, the first and the last among them.

    Checkpoints are spaced as somebody wanted them, often by powers: evenly spaced positions keep that.
    """
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.linspace(0, count - 1, max(most, 2))).astype(np.int64))


def log_spread(count: int, most: int) -> Ints:
    """Positions, at most `most` of `count`, the first, the last and logarithmically spaced ones between.

    Small indices are dense: as many points are taken from a geometric sequence as give no more than `most` different
    whole numbers.
    """
    if count <= most:
        return np.arange(count)
    points = most = max(most, 2)
    found = _geometric(count, points)
    while len(found) < most:
        points += 1
        more = _geometric(count, points)
        if len(more) > most:
            break
        found = more
    return found - 1


def _geometric(count: int, points: int) -> Ints:
    return np.unique(np.round(np.geomspace(1, count, points)).astype(np.int64))


@dataclass(frozen=True)
class MapPolicy:
    """Bounds of heat maps.

    Attributes:
        rows: of each.
        steps: columns of each.
    """

    rows: int
    steps: int


@dataclass(frozen=True)
class MapSize:
    """What a heat map would take.

    Attributes:
        rows: matrices or connections.
        steps: columns.
        name_bytes: of all names.
        empty_share: the fraction of cells that have no value and say why.
    """

    rows: int
    steps: int
    name_bytes: int = 0
    empty_share: float = 0.0


def map_bytes(sizes: Sequence[MapSize], policy: MapPolicy) -> float:
    """An estimate of the JSON of heat maps under a policy."""
    total = 0.0
    for size in sizes:
        rows, steps = min(size.rows, policy.rows), min(size.steps, policy.steps)
        total += rows * steps * (VALUE_BYTES + PLACE_BYTES * size.empty_share) + steps * PLACE_BYTES
        total += size.name_bytes * rows / max(size.rows, 1)
    return total


def map_policy(sizes: Sequence[MapSize]) -> MapPolicy:
    """The largest bounds under which heat maps take no more than :data:`MAPS_BYTES`.

    Steps go first, down to :data:`LEAST_STEPS`, then rows, then the other steps.
    """
    most = MapPolicy(MOST_ROWS, max((size.steps for size in sizes), default=1))
    for field, least in (("steps", LEAST_STEPS), ("rows", 50), ("steps", 2), ("rows", 2)):
        policy = most

        def fits(count: int, field: str = field, policy: MapPolicy = policy) -> bool:
            return map_bytes(sizes, replace(policy, **{field: count})) <= MAPS_BYTES

        count = largest(fits, min(least, getattr(most, field)), getattr(most, field))
        most = replace(most, **{field: count})
        if fits(count):
            break
    return most


@dataclass(frozen=True)
class DetailPolicy:
    """Bounds of what rows of heat maps open.

    Attributes:
        singular_values: drawn of each matrix.
        diagonal: entries drawn of each diagonal.
        steps: of each chart.
        per_run: matrices, and connections, of each run that open anything: the most changed ones.
    """

    singular_values: int
    diagonal: int
    steps: int
    per_run: int


@dataclass(frozen=True)
class DetailSize:
    """What a matrix or a connection would show.

    Attributes:
        place: in the order of its run: 0 for the matrix, or connection, that changed most.
        name_bytes: of its name, which stands in several places.
        singular_values: that there are, 0 if none are known.
        singular_steps: at which they are known.
        diagonal: entries of its diagonal, 0 if it has none.
        diagonal_steps: at which it is known.
    """

    place: int
    name_bytes: int = 0
    singular_values: int = 0
    singular_steps: int = 0
    diagonal: int = 0
    diagonal_steps: int = 0


def detail_bytes(sizes: Sequence[DetailSize], policy: DetailPolicy) -> float:
    """An estimate of the JSON of details under a policy."""
    if not sizes:
        return 0.0
    place, name_bytes, values, value_steps, entries, entry_steps = np.array([astuple(size) for size in sizes], float).T
    lines = np.minimum(values, np.where(value_steps == 1, 1, policy.singular_values))
    cells = _drawn(values, value_steps, policy.singular_values, policy.steps)
    cells += _drawn(entries, entry_steps, policy.diagonal, policy.steps)
    each = cells * VALUE_BYTES + lines * SERIES_BYTES + NAMED_TIMES * name_bytes + DETAIL_BYTES
    return float(each[place < policy.per_run].sum())


def _drawn(indices: Floats, steps: Floats, most: int, most_steps: int) -> Floats:
    """Numbers in a chart of each matrix; of a single checkpoint it has more indices."""
    at_once = np.minimum(indices, MOST_INDICES_AT_ONCE)
    return np.where(steps == 1, at_once, np.minimum(indices, most) * np.minimum(steps, most_steps))


def detail_policy(sizes: Sequence[DetailSize], budget_bytes: float) -> DetailPolicy:
    """The largest bounds under which details take no more than a budget; see the module for the order.

    Args:
        sizes: of all matrices and connections of all runs.
        budget_bytes: for them.
    """
    steps = max((max(size.singular_steps, size.diagonal_steps) for size in sizes), default=1)
    policy = DetailPolicy(MOST_INDICES, MOST_INDICES, steps, max((size.place for size in sizes), default=0) + 1)
    order = [(field, count) for count in (FEWER_INDICES, LEAST_INDICES) for field in ("singular_values", "diagonal")]
    for field, lowest in (*order, ("steps", min(LEAST_STEPS, steps)), ("per_run", 1)):

        def fits(count: int, field: str = field, policy: DetailPolicy = policy) -> bool:
            return detail_bytes(sizes, replace(policy, **{field: count})) <= budget_bytes

        count = largest(fits, lowest, getattr(policy, field))
        policy = replace(policy, **{field: count})
        if fits(count):
            break
    return policy


def largest(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest whole number that fits, of which smaller ones fit too; the least if none does."""
    if fits(most):
        return most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least
