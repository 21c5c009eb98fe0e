"""What is told in words of one matrix or connection: its shape, its numbers at both ends, what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from spectra_cli.figures.report.runrows import RunRows, four_digits
from spectra_cli.figures.rows.gathered import POSITION
from spectra_cli.figures.rows.series import NAME

Facts = list[tuple[str, str]]

ENDS = {
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "numerical_rank": "numerical rank",
    "spectral_norm": "spectral norm",
    "condition_number": "condition number",
}
"""Columns of rank that are told of the first and the last checkpoint."""


class FactsOf:
    """Facts of the matrices or connections of a run, of one kind of rows; what needs all rows is gathered once.

    Args:
        rows: of the run.
    """

    def __init__(self, rows: RunRows) -> None:
        self.rows = rows
        frame = rows.frame[rows.frame[NAME].notna()]
        named = frame.groupby(NAME, sort=False)
        self._counts = named.size().to_dict()
        self._gaps = named.min_gap.min().to_dict() if "min_gap" in frame else {}
        self._errors = named.singular_value_error.max().to_dict() if "singular_value_error" in frame else {}
        self._methods = _different(frame, "method") if "method" in frame else {}
        self._units = frame.groupby([NAME, POSITION], sort=False).size().groupby(level=0).max().to_dict()
        failed = frame[frame.status != "ok"].fillna({"status": "no status"})
        sizes = failed.groupby([NAME, "status"], sort=False).size()
        self._failures: dict[str, list[tuple[str, int]]] = {}
        for name, status, count in sizes.reset_index(name="count").itertuples(index=False):
            self._failures.setdefault(name, []).append((status, count))

    def of_values(self, name: str) -> Facts:
        """Facts of a matrix in rows of rank."""
        rows = self.rows
        facts, digests = [], []
        if name in rows.first_records:
            first, last = rows.first_records[name], rows.last_records[name]
            facts = [(words, _from_to(rows, first, last, column)) for column, words in ENDS.items()]
            ends = (first, last) if first[POSITION] != last[POSITION] else (first,)
            digests = [(f"digest at {rows.at(one[POSITION])}", _text(one["digest"])) for one in ends]
        error = self._errors.get(name, np.nan)
        facts += [
            ("error of any singular value", f"at most {error:.1e}" if np.isfinite(error) else ""),
            ("method", ", ".join(self._methods.get(name, ()))),
            ("stored as", _text(rows.any_records[name]["dtype"])),
            *digests,
        ]
        return [(what, value) for what, value in facts if value] + self._of_failures(name)

    def of_scores(self, name: str, what: str) -> Facts:
        """Facts of a matrix or connection in rows with a score, which is called `what`."""
        facts = []
        if said := self.rows.scores(name):
            facts.append((f"{what} score", said))
        gap = self._gaps.get(name, np.nan)
        if np.isfinite(gap):
            facts.append((f"least min_gap ({what})", f"{gap:.2g}; near 0, single vectors are arbitrary"))
        return facts + self._of_failures(name)

    def units(self, name: str) -> int:
        """How many rows, such as heads, share a place."""
        return self._units.get(name, 1)

    def _of_failures(self, name: str) -> Facts:
        """Statuses of rows without numbers, and how many there are of each."""
        rows = self._counts[name]
        return [("no value", f"{count} of {rows} rows: {status}") for status, count in self._failures.get(name, ())]


def about_matrix(name: str, rank: FactsOf | None, sva: FactsOf | None) -> tuple[str, Facts]:
    """A caption and the facts of a matrix.

    Args:
        name: of the matrix.
        rank: of rows of that kind, if its run has any.
        sva: likewise.
    """
    words, facts = [], []
    if rank is not None and name in rank.rows.any_records:
        record = rank.rows.first_records.get(name) or rank.rows.any_records[name]
        depth = f"depth {int(record['depth'])}" if _known(record["depth"]) else ""
        words = [_text(record["kind"]), _shape(record), depth]
        facts = rank.of_values(name)
    if sva is not None and name in sva.rows.any_records:
        facts += sva.of_scores(name, "agreement")
    return ", ".join(filter(None, words)) or "matrix", facts


def about_connection(name: str, align: FactsOf) -> tuple[str, Facts]:
    """A caption and the facts of a connection.

    Args:
        name: of the connection.
        align: of rows of that kind.
    """
    record = align.rows.any_records[name]
    units = align.units(name)
    mean = f", mean of {units} {_text(record['unit'])}s" if units > 1 else ""
    ends = [(side, _text(record[side])) for side in ("upstream", "downstream")]
    return f"{_text(record['connection'])}{mean}", ends + align.of_scores(name, "alignment")


def _different(frame: pd.DataFrame, column: str) -> dict[str, list[str]]:
    """Different texts of a column by name, sorted."""
    found: dict[str, list[str]] = {}
    pairs = frame[[NAME, column]].dropna().drop_duplicates().sort_values(column, kind="stable")
    for name, text in zip(pairs[NAME], pairs[column], strict=True):
        found.setdefault(str(name), []).append(str(text))
    return found


def _from_to(rows: RunRows, first: Mapping[str, Any], last: Mapping[str, Any], column: str) -> str:
    said = [f"{four_digits(one[column])} at {rows.at(one[POSITION])}" for one in (first, last) if _known(one[column])]
    return ", ".join(dict.fromkeys(said))


def _shape(record: Mapping[str, Any]) -> str:
    sides = (record["rows"], record["cols"])
    return " x ".join(str(int(side)) for side in sides) if all(map(_known, sides)) else ""


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str) else ""


def _known(value: Any) -> bool:
    return value is not None and not pd.isna(value)
