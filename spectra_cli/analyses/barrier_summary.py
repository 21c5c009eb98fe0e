"""What a table of barriers says in a few lines, pair by pair, gathered while it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean
from typing import Any

from spectra_cli.analyses.visits import Row

NAMES = ("run_a", "checkpoint_a", "step_a", "run_b", "checkpoint_b", "step_b")
"""Columns that name a pair."""

OF_MATRIX = ("parameter", "rows", "cols", "score", "min_gap")


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric on one split along the line between two checkpoints; None is what is not known.

    Attributes:
        split: part of the data.
        metric: what is measured.
        at_a: its value at A.
        at_middle: at the alpha nearest to 1/2, the lesser one of two.
        at_b: at B.
        middle: that alpha; None where there is none between A and B.
        barrier: maximum of value - chord.
        barrier_midpoint: maximum of value - mean of the values at A and B.
    """

    split: str
    metric: str
    at_a: float | None
    at_middle: float | None
    at_b: float | None
    middle: float | None
    barrier: float | None
    barrier_midpoint: float | None

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "split": self.split,
            "metric": self.metric,
            "value_a": self.at_a,
            "value_middle": self.at_middle,
            "value_b": self.at_b,
            "alpha_middle": self.middle,
            "barrier": self.barrier,
            "barrier_midpoint": self.barrier_midpoint,
        }


@dataclass(frozen=True, slots=True)
class PairSummary:
    """What was found between two checkpoints.

    Attributes:
        names: the columns that name the pair.
        curves: by split and metric; none where the pair could not be used.
        agreement: rows of the matrices with an agreement score, the largest first.
        status: ``ok``, or why the pair could not be used.
    """

    names: Row
    curves: Sequence[Curve] = ()
    agreement: Sequence[Row] = ()
    status: str = "ok"

    @property
    def labels(self) -> tuple[str, str]:
        """A and B for people: a PATH for each."""
        names = self.names
        a, b = (_label(names[f"run_{side}"], names[f"checkpoint_{side}"], names[f"step_{side}"]) for side in "ab")
        return a, b

    @property
    def mean_agreement(self) -> float | None:
        """Mean of the scores over matrices; None where there is none."""
        return fmean(row["score"] for row in self.agreement) if self.agreement else None

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            **{name: self.names.get(name) for name in NAMES},
            "status": self.status,
            "curves": [curve.as_json() for curve in self.curves],
            "agreement": self.mean_agreement,
            "matrices": [{name: row[name] for name in OF_MATRIX} for row in self.agreement],
        }


@dataclass(slots=True)
class BarrierSummary:
    """What was done, for all pairs.

    Attributes:
        rows: how many there are.
        statuses: how many rows have each.
        pairs: in the order of the table.
    """

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    pairs: list[PairSummary] = field(default_factory=list)

    def add(self, rows: Sequence[Row], agreement: Iterable[Row] = ()) -> None:
        """Take in a pair.

        Args:
            rows: of the table, at least one.
            agreement: of the singular vectors of its ends.
        """
        self.rows += len(rows)
        self.statuses.update(row["status"] for row in rows)
        names = {name: rows[0].get(name) for name in NAMES}
        if rows[0].get("split") is None:
            self.pairs.append(PairSummary(names, status=rows[0]["status"]))
            return
        curves = [_curve(list(points)) for _, points in groupby(rows, key=lambda row: (row["split"], row["metric"]))]
        scored = [row for row in agreement if row.get("score") is not None]
        scored.sort(key=lambda row: (-row["rows"] * row["cols"], row["depth"]))
        self.pairs.append(PairSummary(names, curves, scored))

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "rows": self.rows,
            "statuses": dict(self.statuses),
            "pairs": [pair.as_json() for pair in self.pairs],
        }


def _curve(rows: Sequence[Row]) -> Curve:
    middle = rows[(len(rows) - 1) // 2] if len(rows) > 2 else {}
    return Curve(
        rows[0]["split"],
        rows[0]["metric"],
        rows[0].get("value"),
        middle.get("value"),
        rows[-1].get("value"),
        middle.get("alpha"),
        rows[0].get("barrier"),
        rows[0].get("barrier_midpoint"),
    )


def _label(run: str, checkpoint: str | None, step: int | None) -> str:
    """A PATH that leads to a checkpoint."""
    if step is not None:
        return f"{run}@{step}"
    if checkpoint is None or run.rpartition("/")[2] == checkpoint:
        return run
    return checkpoint if run == "." else f"{run}/{checkpoint}"
