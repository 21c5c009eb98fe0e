"""`spectra align`: alignment of singular vectors along the connections of a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectra_cli.analyses.factors import Factors, compact
from spectra_cli.analyses.vectorstore import KEPT_VALUES
from spectra_cli.analyses.visits import Analysis, Demand, Row, Visited
from spectra_cli.layers.ends import SHAPE_MISMATCH, Connection, End, Unit
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import Part, Side
from spectra_cli.spectrum.subspaces import alignment_block, alignment_diagonal, chance, min_gap, score

HARMLESS = frozenset({"ok", "all_zero", "empty", SHAPE_MISMATCH})
"""Statuses of rows that say all there is to say: that dimensions do not meet is a property of the model."""


class AlignRows(Analysis):
    """Makes the rows of one checkpoint, without the columns that name it.

    Vectors are kept from the first matrix of a connection to the last, and then let go.

    Args:
        connections: between matrices that are visited.
        specs: the matrices by depth.
        full: whether rows hold the leading block of A.
    """

    def __init__(self, connections: Sequence[Connection], specs: Mapping[int, MatrixSpec], *, full: bool) -> None:
        self._connections = connections
        self._specs = specs
        self._full = full
        self._rows: dict[int, list[Row]] = {}
        self._factors: dict[Part, tuple[str, NDArray[np.float64]]] = {}
        self._vectors: dict[tuple[Part, Side], Tensor] = {}
        self._parts: list[set[Part]] = [
            {end.part for unit in connection.units for end in (unit.upstream, unit.downstream) if end is not None}
            for connection in connections
        ]
        self._awaited = [len(parts) for parts in self._parts]
        self._users = Counter(part for parts in self._parts for part in parts)
        self._of_part: dict[Part, list[int]] = defaultdict(list)
        for number, parts in enumerate(self._parts):
            for part in parts:
                self._of_part[part].append(number)
            if not parts:
                self._finish(number)
        self._demands = _demands(connections)

    def demand(self, depth: int) -> Demand:
        """The sides and parts that its connections meet."""
        return self._demands.get(depth, Demand())

    def take(self, visited: Visited) -> None:
        """Keep what connections wait for, and make the rows of those that wait no longer."""
        demand = self.demand(visited.depth)
        if demand.whole and visited.whole is not None:
            self._keep(Part(visited.depth), visited.whole, demand.sides)
        for part, sides in demand.parts.items():
            self._keep(part, visited.parts[part], sides)

    def rows(self) -> list[Row]:
        """Rows by connection, then by unit."""
        return [row for number in range(len(self._connections)) for row in self._rows[number]]

    def _keep(self, part: Part, factors: Factors, sides: frozenset[Side]) -> None:
        spectrum = factors.spectrum
        values = np.empty(0) if spectrum is None else spectrum.singular_values[:KEPT_VALUES].copy()
        self._factors[part] = (factors.status, values)
        for side in sides:
            vectors = None if spectrum is None else compact(spectrum.left if side == "left" else spectrum.right)
            if vectors is not None:
                self._vectors[part, side] = vectors
        for number in self._of_part[part]:
            self._awaited[number] -= 1
            if self._awaited[number] == 0:
                self._finish(number)

    def _finish(self, number: int) -> None:
        connection = self._connections[number]
        named: Row = {
            "depth": connection.upstream,
            "connection": connection.name,
            "upstream": self._specs[connection.upstream].parameter,
            "downstream": self._specs[connection.downstream].parameter,
        }
        self._rows[number] = [{**named, **self._row(unit)} for unit in connection.units]
        for part in self._parts[number]:
            self._users[part] -= 1
            if self._users[part] == 0:
                self._vectors.pop((part, "left"), None)
                self._vectors.pop((part, "right"), None)

    def _row(self, unit: Unit) -> Row:
        row: Row = {"unit": unit.unit, "unit_index": unit.index, "primary": unit.primary}
        if unit.upstream is None or unit.downstream is None:
            return {**row, "status": unit.status}
        known = [self._factors[end.part] for end in (unit.upstream, unit.downstream)]
        failed = next((status for status, _ in known if status != "ok"), None)
        if failed is not None:
            return {**row, "status": failed}
        ends = (unit.upstream, unit.downstream)
        upstream, downstream = (self._coordinates(end) for end in ends)
        diagonal = alignment_diagonal(upstream, downstream)
        row |= {
            "score": score(diagonal),
            "diagonal": diagonal.astype(np.float32),
            "min_gap": min_gap(*(values for _, values in known)),
            "status": "ok",
            "chance": chance(max(len(self._vectors[end.part, end.side]) for end in ends)),
        }
        if self._full:
            row["alignment"] = alignment_block(upstream, downstream).tolist()
        return row

    def _coordinates(self, end: End) -> Tensor:
        vectors = self._vectors[end.part, end.side]
        return vectors if end.window is None else vectors[slice(*end.window)]


def _demands(connections: Sequence[Connection]) -> dict[int, Demand]:
    sides: dict[Part, set[Side]] = defaultdict(set)
    for connection in connections:
        for unit in connection.units:
            for end in (unit.upstream, unit.downstream):
                if end is not None:
                    sides[end.part].add(end.side)
    demands: dict[int, Demand] = defaultdict(Demand)
    for part, needed in sides.items():
        own = Demand(True, frozenset(needed)) if part.is_whole else Demand(parts={part: frozenset(needed)})
        demands[part.depth] |= own
    return dict(demands)
