"""What rows of heat maps open: one matrix, or one connection, through training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from spectra_cli.figures.page.document import Chart, Detail
from spectra_cli.figures.report.budget import MOST_INDICES_AT_ONCE, DetailPolicy, DetailSize, spread
from spectra_cli.figures.report.charts import chart_of
from spectra_cli.figures.report.facts import FactsOf, about_connection, about_matrix
from spectra_cli.figures.report.grids import name_bytes
from spectra_cli.figures.report.lists import Wanted, read_lists
from spectra_cli.figures.report.runrows import RunRows
from spectra_cli.figures.rows.gathered import Gathered

MOST_DIAGONAL = 100
"""Entries of a diagonal in a table."""

UNKNOWN_LENGTH = 1 << 20
"""Stands for the number of singular values of a matrix whose shape a table does not tell."""


@dataclass(frozen=True, eq=False)
class Opened:
    """The matrices and connections of a run that may open something.

    Attributes:
        run: its name.
        rank: rows of that kind, None if there are none.
        align: likewise.
        sva: likewise.
        matrices: names in the order of depth.
        connections: likewise.
        changed: names of both, those that changed most first.
    """

    run: str
    rank: RunRows | None
    align: RunRows | None
    sva: RunRows | None
    matrices: Sequence[str]
    connections: Sequence[str]

    @property
    def changed(self) -> tuple[Sequence[str], Sequence[str]]:
        """Matrices by the change of effective rank (or else agreement), and connections by that of their score."""
        of_matrices = self.rank if self.rank is not None else self.sva
        return _first(of_matrices, self.matrices), _first(self.align, self.connections)

    def rows(self, kind: str) -> RunRows | None:
        """Rows of a kind that has lists."""
        return {"rank": self.rank, "align": self.align, "sva": self.sva}[kind]

    def names(self, kind: str) -> Sequence[str]:
        """Names of the matrices or connections that the rows of a kind with lists are about."""
        return self.connections if kind == "align" else self.matrices

    def narrowed(self, most: int) -> Opened:
        """The same with the most changed matrices and connections only."""
        matrices, connections = (set(names[:most]) for names in self.changed)
        return Opened(
            self.run,
            self.rank,
            self.align,
            self.sva,
            [name for name in self.matrices if name in matrices],
            [name for name in self.connections if name in connections],
        )

    def sizes(self) -> list[DetailSize]:
        """Sizes of the details, one for each, if they were shown whole."""
        matrices, connections = self.changed
        found = [self._size(place, name) for place, name in enumerate(matrices)]
        steps = len(self.align.places) if self.align is not None else 0
        return found + [
            DetailSize(place, name_bytes(name), 0, 0, MOST_DIAGONAL, steps) for place, name in enumerate(connections)
        ]

    def _size(self, place: int, name: str) -> DetailSize:
        values = _length(self.rank, name) if self.rank is not None else 0
        entries = min(values or MOST_DIAGONAL, MOST_DIAGONAL) if self.sva is not None else 0
        steps = [0 if rows is None else len(rows.places) for rows in (self.rank, self.sva)]
        return DetailSize(place, name_bytes(name), values, steps[0], entries, steps[1])


def _first(rows: RunRows | None, names: Sequence[str]) -> Sequence[str]:
    """Some names in the order of change; those that are not among the rows come last."""
    if rows is None:
        return names
    wanted = set(names)
    ordered = [name for name in rows.changed if name in wanted]
    found = set(ordered)
    return ordered + [name for name in names if name not in found]


def _length(rows: RunRows, name: str) -> int:
    record = rows.first_records.get(name) or rows.any_records.get(name)
    if record is None:
        return 0
    least = min(record["rows"], record["cols"])
    return int(least) if np.isfinite(least) and least >= 0 else UNKNOWN_LENGTH


def details_of(
    gathered: Gathered, opened: Sequence[Opened], policy: DetailPolicy
) -> tuple[list[list[Detail]], list[str]]:
    """The details of each run, its matrices and then its connections; and what was thinned out of their lists.

    Args:
        gathered: the tables.
        opened: by run, already narrowed to what the policy allows.
        policy: bounds.

    Raises:
        InputError: if a file is damaged.
    """
    charts: dict[tuple[str, str], dict[str, list[Chart]]] = {}
    thinned: dict[str, set[tuple[int, int]]] = {"singular values": set(), "entries of a diagonal": set()}
    for kind, most in (("rank", policy.singular_values), ("sva", policy.diagonal), ("align", policy.diagonal)):
        owners = {each.run: (each, rows) for each in opened if (rows := each.rows(kind)) is not None}
        wanted = {run: _wanted(rows, each.names(kind), most, policy) for run, (each, rows) in owners.items()}
        for (run, name), kept in read_lists(gathered, kind, wanted).items():
            drawn = chart_of(kind, name, owners[run][1], kept, wanted[run].places)
            of = "connection" if kind == "align" else "matrix"
            charts.setdefault((run, name), {}).setdefault(of, []).append(drawn)
            if len(kept.indices) < kept.length:
                what = "singular values" if kind == "rank" else "entries of a diagonal"
                thinned[what].add((len(kept.indices), kept.length))
    return [list(_details(each, charts)) for each in opened], list(_limits(thinned))


def _limits(thinned: Mapping[str, Set[tuple[int, int]]]) -> Iterator[str]:
    for what, counts in thinned.items():
        if counts:
            drawn, length = max(kept for kept, _ in counts), max(length for _, length in counts)
            of = f"{'up to ' * (len(counts) > 1)}{length}"
            yield (
                f"{drawn} of {of} {what} are drawn in each detail: the first, the last, and logarithmically spaced "
                "ones between."
            )


def _details(each: Opened, charts: Mapping[tuple[str, str], Mapping[str, Sequence[Chart]]]) -> Iterator[Detail]:
    rank, sva, align = (FactsOf(rows) if rows is not None else None for rows in (each.rank, each.sva, each.align))
    for name in each.matrices:
        caption, facts = about_matrix(name, rank, sva)
        yield Detail(name=name, caption=caption, charts=charts.get((each.run, name), {}).get("matrix", ()), facts=facts)
    if align is None:
        return
    for name in each.connections:
        caption, facts = about_connection(name, align)
        own = charts.get((each.run, name), {}).get("connection", ())
        yield Detail(name=name, caption=caption, charts=own, facts=facts)


def _wanted(rows: RunRows, names: Sequence[str], most: int, policy: DetailPolicy) -> Wanted:
    places = rows.places[spread(len(rows.places), policy.steps)]
    by_name = (
        {checkpoint: place for place, checkpoint in rows.checkpoints.items()} if rows.clock == "checkpoint" else {}
    )
    return Wanted(names, places, rows.clock, by_name, MOST_INDICES_AT_ONCE if len(rows.places) == 1 else most)
