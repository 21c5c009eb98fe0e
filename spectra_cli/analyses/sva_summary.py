"""What a table of agreements says in a few lines: since when the vectors of every matrix are those of the reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectra_cli.analyses.visits import Row

SETTLED = 0.9
"""Agreement from which on vectors count as those of the reference."""

BANDS = ((1, 1), (2, 10), (11, 100))
"""First and last index of the vectors that are taken together."""


@dataclass(slots=True)
class Settling:
    """One matrix through the checkpoints of a run.

    Attributes:
        parameter: its name.
        first: agreement score in the first checkpoint.
        last: in the last one.
        since: for each band, the checkpoint since which the mean of S_ii has not been below :data:`SETTLED`; None if
            it is at the end, "" if the matrix has no such vectors.
    """

    parameter: str
    first: float
    last: float
    since: list[str | None]


@dataclass(slots=True)
class RunAgreement:
    """Agreement in one run; memory does not grow with its length.

    A checkpoint that is its own reference says nothing and is left out.

    Attributes:
        first_checkpoint: name of the first with a score; "" if there is none.
        last_checkpoint: name of the last with one.
        reference: name of the reference of the last one.
        reference_run: the run it belongs to.
        references: names of references, of two at most.
        checkpoints: how many there are, with those that could not be used.
        matrices: by parameter.
    """

    first_checkpoint: str = ""
    last_checkpoint: str = ""
    reference: str = ""
    reference_run: str = ""
    references: set[str] = field(default_factory=set)
    checkpoints: int = 0
    matrices: dict[str, Settling] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        for row in rows:
            named = (row.get("reference_run"), row.get("reference_checkpoint"))
            if row.get("score") is None or named == (row["run"], row["checkpoint"]):
                continue
            self.first_checkpoint = self.first_checkpoint or row["checkpoint"]
            self.last_checkpoint = row["checkpoint"]
            self.reference_run, self.reference = row["reference_run"], row["reference_checkpoint"]
            if len(self.references) < 2:
                self.references.add(self.reference)
            name = row["parameter"]
            known = self.matrices.setdefault(name, Settling(name, row["score"], row["score"], [None] * len(BANDS)))
            known.last = row["score"]
            for band, (start, stop) in enumerate(BANDS):
                entries = row["diagonal"][start - 1 : stop]
                if len(entries) == 0:
                    known.since[band] = ""
                elif np.mean(entries, dtype=np.float64) < SETTLED:
                    known.since[band] = None
                elif not known.since[band]:
                    known.since[band] = moment(row)

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "checkpoints": self.checkpoints,
            "first_checkpoint": self.first_checkpoint,
            "last_checkpoint": self.last_checkpoint,
            "reference_checkpoint": self.reference if len(self.references) == 1 else None,
            "matrices": [
                {
                    "parameter": matrix.parameter,
                    "score_first": matrix.first,
                    "score_last": matrix.last,
                    "settled_since": {
                        f"{start}-{stop}": since or None
                        for (start, stop), since in zip(BANDS, matrix.since, strict=True)
                    },
                }
                for matrix in self.matrices.values()
            ],
        }


def moment(row: Row) -> str:
    """The step of a row, else its epoch, else the name of its checkpoint."""
    return str(next((row[key] for key in ("step", "epoch") if row.get(key) is not None), row["checkpoint"]))
