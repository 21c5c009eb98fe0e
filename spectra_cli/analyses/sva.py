"""`spectra sva`: agreement of singular vectors with those of a reference checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spectra_cli.analyses.vectorstore import Leading, VectorStore, leading_of
from spectra_cli.analyses.visits import Analysis, Demand, Row, Visited
from spectra_cli.spectrum.subspaces import agreement_diagonal, min_gap, score
from spectra_cli.tables.statuses import OF_REFERENCE

HARMLESS = frozenset({"ok", "all_zero", "empty", f"{OF_REFERENCE}all_zero", f"{OF_REFERENCE}empty"})
"""Statuses of rows that say all there is to say; any other makes the exit status 3."""

BOTH_SIDES = Demand(whole=True, sides=frozenset({"left", "right"}))


class KeepVectors(Analysis):
    """Keeps the vectors of a reference checkpoint."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store

    def demand(self, depth: int) -> Demand:  # noqa: ARG002 - the same of every matrix
        """The vectors of every matrix."""
        return BOTH_SIDES

    def take(self, visited: Visited) -> None:
        """Keep the vectors."""
        self._store.put(visited.spec.parameter, leading_of(visited))


class SvaRows(Analysis):
    """Makes the rows of one checkpoint, without the columns that name it.

    Args:
        reference: the vectors to compare with.
        named: columns that name the reference.
    """

    def __init__(self, reference: VectorStore, named: Mapping[str, object]) -> None:
        self._reference = reference
        self._named = dict(named)
        self._met: set[str] = set()
        self._rows: dict[int, Row] = {}

    def demand(self, depth: int) -> Demand:  # noqa: ARG002 - the same of every matrix
        """The vectors of every matrix."""
        return BOTH_SIDES

    def take(self, visited: Visited) -> None:
        """Compare a matrix with that of the reference."""
        parameter = visited.spec.parameter
        self._met.add(parameter)
        columns = _compared(leading_of(visited), self._reference.get(parameter))
        self._rows[visited.depth] = {"depth": visited.depth, "parameter": parameter, **self._named, **columns}

    def rows(self) -> list[Row]:
        """One row per matrix, by depth; then those of the reference that the checkpoint has not."""
        lacking = [name for name in self._reference.parameters() if name not in self._met]
        absent = [{"parameter": name, **self._named, "status": "missing"} for name in lacking]
        return [self._rows[depth] for depth in sorted(self._rows)] + absent


def _compared(one: Leading, other: Leading | None) -> Row:
    if other is None:
        return {"status": "missing"}
    if one.shape != other.shape:
        return {"status": "shape_mismatch"}
    if one.status != "ok":
        return {"status": one.status}
    if other.status != "ok":
        return {"status": OF_REFERENCE + other.status}
    assert one.left is not None  # noqa: S101 - as the status is ok, also below
    assert one.right is not None  # noqa: S101
    assert other.left is not None  # noqa: S101
    assert other.right is not None  # noqa: S101
    diagonal = agreement_diagonal(one.left, one.right, other.left, other.right)
    return {
        "score": score(diagonal),
        "diagonal": diagonal.astype(np.float32),
        "min_gap": min_gap(one.values, other.values),
        "status": "ok",
    }
