"""What a table of alignments says in a few lines: every kind of connection at the first and the last checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from spectra_cli.analyses.visits import Row

Pair = tuple[str, str, str]
"""Connection, upstream, downstream."""


class ConnectionScore(NamedTuple):
    """One kind of connection in a run.

    Attributes:
        connection: its name.
        pairs: of matrices.
        first: mean score over pairs in the first checkpoint, None if nothing could be computed.
        last: the same in the last one.
        chance: mean score of random vectors in the place of these.
    """

    connection: str
    pairs: int
    first: float | None
    last: float | None
    chance: float | None


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
        chances: by connection, what the scores of the last one's primary units are worth nothing at.
        pairs: all that were met, also where nothing could be computed.
    """

    first_checkpoint: str = ""
    last_checkpoint: str = ""
    checkpoints: int = 0
    timed: bool = False
    first: dict[Pair, float] = field(default_factory=dict)
    last: dict[Pair, float] = field(default_factory=dict)
    chances: dict[str, list[float]] = field(default_factory=dict)
    pairs: dict[Pair, None] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        scores: dict[Pair, list[float]] = defaultdict(list)
        chances: dict[str, list[float]] = defaultdict(list)
        checkpoint = ""
        for row in rows:
            timed = row.get("step") is not None or row.get("epoch") is not None
            self.timed = self.timed or timed
            if not row.get("primary") or timed != self.timed:
                continue
            pair = (row["connection"], row["upstream"], row["downstream"])
            self.pairs[pair] = None
            if row.get("score") is not None:
                scores[pair].append(row["score"])
                chances[pair[0]].append(row["chance"])
                checkpoint = row["checkpoint"]
        if scores:
            self.last = {pair: fmean(of_units) for pair, of_units in scores.items()}
            self.chances = dict(chances)
            self.last_checkpoint = checkpoint
            self.first = self.first or self.last
            self.first_checkpoint = self.first_checkpoint or checkpoint

    def by_connection(self) -> list[ConnectionScore]:
        """Every kind of connection, in the order of the model."""
        found = []
        for connection in dict.fromkeys(pair[0] for pair in self.pairs):
            of_kind = [pair for pair in self.pairs if pair[0] == connection]
            first, last = (_mean(scores, of_kind) for scores in (self.first, self.last))
            chances = self.chances.get(connection)
            found.append(ConnectionScore(connection, len(of_kind), first, last, fmean(chances) if chances else None))
        return found

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "checkpoints": self.checkpoints,
            "first_checkpoint": self.first_checkpoint,
            "last_checkpoint": self.last_checkpoint,
            "connections": [
                {
                    "connection": kind.connection,
                    "pairs": kind.pairs,
                    "score_first": kind.first,
                    "score_last": kind.last,
                    "chance": kind.chance,
                }
                for kind in self.by_connection()
            ],
        }


def _mean(scores: Mapping[Pair, float], pairs: Iterable[Pair]) -> float | None:
    known = [scores[pair] for pair in pairs if pair in scores]
    return fmean(known) if known else None
