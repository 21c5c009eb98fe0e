"""Which rows without numbers are kept at the next run, and which are made again though no file has changed."""
# ruff: noqa: ARG002 - a planted job does the same whatever it is told

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.analyses.visits import Row
from spectra_cli.errors import SpectraError
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.executors.placement import Placement
from spectra_cli.execution.incremental.filling import Filling
from spectra_cli.execution.incremental.writing import Filled, Writing
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome, Unit
from spectra_cli.tables.entries import Key
from spectra_cli.tables.statuses import OF_REFERENCE, STATUSES
from tests.execution.jobs_done import Heard

AGAIN: Mapping[str, str] = {
    "unreadable": "the storage may answer the next time",
    "corrupt": "so may storage that gave other bytes than it holds",
    "incomplete": "a shard may have come that nobody knew the name of",
    "over_memory_budget": "the budget is no setting that rows depend on, and the machine may have more to give",
    "no_convergence": "another number of threads may get there",
    "nothing_selected": "it is a fault of the command line, which is told whole again",
}
"""Statuses whose rows may come out better the next time, and why; no others do while no file changes."""

CHECKPOINT, PAIR = ("run", "checkpoint"), ("run_a", "checkpoint_a", "run_b", "checkpoint_b")
KEYS = {"rank": CHECKPOINT, "align": CHECKPOINT, "sva": CHECKPOINT, "prune_eval": CHECKPOINT, "barrier": PAIR}
"""Of tables that are made unit by unit."""


class PlantedError(SpectraError):
    """What a unit fails by."""


@dataclass(frozen=True)
class PlantedJob:
    """Units of two rows each, of files that never change: the first is good, the second says what it is told to say.

    Attributes:
        table: to make.
        statuses: of the second row of each unit.
        fails: whether no unit can be used.
    """

    table: str
    statuses: Sequence[str]
    fails: bool = False
    noun = "checkpoint"
    reusable = None

    @property
    def command(self) -> str:
        return self.table

    @property
    def tables(self) -> tuple[str, ...]:
        return (self.table,)

    @property
    def key_columns(self) -> Mapping[str, Sequence[str]]:
        return KEYS

    @property
    def harmless(self) -> Mapping[str, frozenset[str]]:
        return dict.fromkeys(KEYS, frozenset({"ok"}))

    @property
    def units(self) -> list[Unit]:
        rest = ["x"] * (len(KEYS[self.table]) - 1)
        return [Unit(index, (status, *rest), "run", status) for index, status in enumerate(self.statuses)]

    def identity(self, unit: Unit, table: str) -> Row:
        return dict(zip(KEYS[table], unit.key, strict=True))

    def fingerprint(self, unit: Unit, table: str) -> str:
        return f"{unit.key} as ever"

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        return [tuple(assignments)] if assignments else []

    def work(self, sharing: int, known: Sequence[Any]) -> PlantedJob:
        return self

    def worker(self, device: str, sink: EventSink) -> PlantedJob:
        return self

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        for assignment in chunk:
            unit, status = self.units[assignment.index], self.statuses[assignment.index]
            rows = [{**self.identity(unit, self.table), "status": said} for said in ("ok", status)]
            error = PlantedError(f"it is {status}") if self.fails else None
            yield Outcome(assignment.index, {self.table: rows}, content="0" * 32, error=error)

    def passes(self, chunks: Sequence[Chunk], workers: int) -> int:
        return sum(map(len, chunks))

    def budget_bytes(self, sharing: int) -> int | None:
        return None

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        return self.tables

    def label(self, key: Key) -> str:
        return str(key)

    def settings(self, table: str) -> Mapping[str, Any]:
        return {}

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        return {"spectra.command": " ".join(command), "spectra.settings": "{}"}

    def runs_read(self) -> Sequence[Any]:
        return ()

    def found(self) -> Mapping[str, Any]:
        return {}

    def begin(self) -> None: ...
    def take(self, outcome: Outcome) -> None: ...
    def take_kept(
        self, unit: Unit, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any], remarks: Sequence[Remark]
    ) -> None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Noting(InProcess):
    """Remembers which units it was given."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.given: list[int] = []

    def outcomes(self, work: Any, chunks: Sequence[Chunk], sink: EventSink) -> Any:
        self.given += [assignment.index for chunk in chunks for assignment in chunk]
        return super().outcomes(work, chunks, sink)


def filled(job: PlantedJob, out: Path) -> tuple[set[str], Filled, list[tuple[Any, ...]]]:
    """Make the table: statuses of the units that were done for it, what came of it, and key and status of all rows."""
    noting, rows = Noting(), []

    def take(unit: Unit, tables: Mapping[str, Sequence[Row]], _facts: Mapping[str, Any]) -> None:
        rows.extend((unit.key, row["status"]) for row in tables[job.table])

    filling = Filling(job, Writing({job.table: str(out)}), Placement(noting, 1, 1, "cpu"), Heard(), command=["planted"])
    filling.fill(take)
    return {job.statuses[index] for index in noting.given}, filling.filled, rows


@pytest.mark.parametrize("table", KEYS)
def test_only_rows_that_may_come_out_better_are_made_again(table: str, tmp_path: Path) -> None:
    """One bad row among good ones will do; of a reference as of the checkpoint; again and again, as it stays bad."""
    job = PlantedJob(table, sorted(STATUSES[table]))
    expected = {status for status in job.statuses if status.removeprefix(OF_REFERENCE) in AGAIN}
    assert expected
    done, found, rows = filled(job, tmp_path / "table")
    assert done == set(job.statuses)
    assert (found.kept, found.to_repeat) == (0, len(expected)), "an interrupted work tells no more of them as kept"
    for _ in range(2):
        done, found, again = filled(job, tmp_path / "table")
        assert done == expected
        assert found.to_repeat == len(expected)
        assert found.kept == len(job.statuses) - len(expected)
        assert again == rows


def test_what_may_come_out_better_is_known_to_be_a_status() -> None:
    assert set(AGAIN) <= set().union(*(STATUSES[table] for table in KEYS))


@pytest.mark.parametrize("table", KEYS)
def test_a_unit_that_could_not_be_used_is_looked_at_again(table: str, tmp_path: Path) -> None:
    """Whatever its rows say."""
    job = PlantedJob(table, sorted(STATUSES[table]), fails=True)
    for _ in range(2):
        done, found, _ = filled(job, tmp_path / "table")
        assert done == set(job.statuses)
        assert (found.kept, found.to_repeat) == (0, len(job.statuses))
