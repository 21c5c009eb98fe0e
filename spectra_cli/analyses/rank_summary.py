"""What a table of ranks says in a few lines: the most and least compressed matrices, and how they changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from spectra_cli.analyses.visits import Row


@dataclass(frozen=True, slots=True)
class Change:
    """One matrix at the first and at the last checkpoint of a run that has it.

    Attributes:
        parameter: its name.
        rows: output side.
        cols: input side.
        first_in: name of the first checkpoint where its effective rank is defined.
        first: effective rank there.
        last_in: name of the last such checkpoint.
        last: effective rank there.
        share: the last, divided by R: 1 for a matrix that is not compressed at all.
    """

    parameter: str
    rows: int
    cols: int
    first_in: str
    first: float
    last_in: str
    last: float
    share: float


@dataclass(slots=True)
class RunRanks:
    """First and last effective ranks of one run; memory does not grow with its length.

    Attributes:
        first_checkpoint: name of the first with an effective rank; "" if there is none.
        last_checkpoint: name of the last with one.
        checkpoints: how many there are, with those that could not be used.
        timed: whether one of them has a step or an epoch; those that have none are then no first or last.
        changes: by parameter.
    """

    first_checkpoint: str = ""
    last_checkpoint: str = ""
    checkpoints: int = 0
    timed: bool = False
    changes: dict[str, Change] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        for row in rows:
            if row.get("effective_rank") is None or self._past_the_steps(row):
                continue
            checkpoint, rank = row["checkpoint"], row["effective_rank"]
            self.first_checkpoint = self.first_checkpoint or checkpoint
            self.last_checkpoint = checkpoint
            name = row["parameter"]
            before = self.changes.get(name)
            if before and (before.rows, before.cols) != (row["rows"], row["cols"]):
                before = None  # another matrix under the same name
            first_in, first = (before.first_in, before.first) if before else (checkpoint, rank)
            share = row["effective_rank_normalized"]
            self.changes[name] = Change(name, row["rows"], row["cols"], first_in, first, checkpoint, rank, share)

    def _past_the_steps(self, row: Row) -> bool:
        """Whether a checkpoint has no place in time, such as best.pt, behind others that have one."""
        timed = row.get("step") is not None or row.get("epoch") is not None
        self.timed = self.timed or timed
        return self.timed and not timed

    def by_compression(self) -> list[Change]:
        """Most compressed at the last checkpoint first; matrices of rank one at most say nothing and are left out."""
        telling = [change for change in self.changes.values() if min(change.rows, change.cols) > 1]
        return sorted(telling, key=lambda change: (change.share, change.parameter))

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "checkpoints": self.checkpoints,
            "first_checkpoint": self.first_checkpoint,
            "last_checkpoint": self.last_checkpoint,
            "matrices": [
                {
                    "parameter": change.parameter,
                    "first_checkpoint": change.first_in,
                    "effective_rank_first": change.first,
                    "last_checkpoint": change.last_in,
                    "effective_rank_last": change.last,
                    "effective_rank_normalized_last": change.share,
                }
                for change in self.changes.values()
            ],
        }
