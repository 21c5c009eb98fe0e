"""What a table of alignments says in a few lines: every kind of connection at the first and the last checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from spectra_cli.analyses.visits import Row

Pair = tuple[str, str, str]
"""Connection, upstream, downstream."""


@dataclass(slots=True)
class RunAlignment:
    """First and last alignment scores of one run; memory does not grow with its length.

    Attributes:
        first_checkpoint: name of the first with a score; "" if there is none.
        last_checkpoint: name of the last with one.
        checkpoints: how many there are, with those that could not be used.
        timed: whether one of them has a step or an epoch; those that have none are then no first or last.
        first: scores of pairs in the first checkpoint, the mean of their primary units.
        last: the same of the last one.
    """

    first_checkpoint: str = ""
    last_checkpoint: str = ""
    checkpoints: int = 0
    timed: bool = False
    first: dict[Pair, float] = field(default_factory=dict)
    last: dict[Pair, float] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        scores: dict[Pair, list[float]] = defaultdict(list)
        checkpoint = ""
        for row in rows:
            timed = row.get("step") is not None or row.get("epoch") is not None
            self.timed = self.timed or timed
            if row.get("primary") and row.get("score") is not None and timed == self.timed:
                scores[row["connection"], row["upstream"], row["downstream"]].append(row["score"])
                checkpoint = row["checkpoint"]
        if scores:
            self.last = {pair: fmean(of_units) for pair, of_units in scores.items()}
            self.last_checkpoint = checkpoint
            self.first = self.first or self.last
            self.first_checkpoint = self.first_checkpoint or checkpoint

    def by_connection(self) -> list[tuple[str, int, float | None, float]]:
        """Connection, number of pairs, mean score in the first and in the last checkpoint; in the model's order."""
        found = []
        for connection in dict.fromkeys(pair[0] for pair in self.last):
            before = [score for pair, score in self.first.items() if pair[0] == connection]
            after = [score for pair, score in self.last.items() if pair[0] == connection]
            found.append((connection, len(after), fmean(before) if before else None, fmean(after)))
        return found

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "checkpoints": self.checkpoints,
            "first_checkpoint": self.first_checkpoint,
            "last_checkpoint": self.last_checkpoint,
            "connections": [
                {"connection": connection, "pairs": pairs, "score_first": first, "score_last": last}
                for connection, pairs, first, last in self.by_connection()
            ],
        }
