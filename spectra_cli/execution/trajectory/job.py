"""The checkpoints of all runs, analysed wherever the work is done; a bad one becomes a row and does not end it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spectra_cli.analyses import align, rank, sva
from spectra_cli.analyses.known import KnownMatrices
from spectra_cli.analyses.references import FINAL, Reference, shares_steps
from spectra_cli.analyses.visits import Row
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.planning.checkpointunits import (
    CHECKPOINT_KEY,
    checkpoint_label,
    checkpoint_units,
    identity_of,
)
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.planning.provenance import directories_of, provenance
from spectra_cli.execution.planning.recordedsettings import architecture_setting, hashed
from spectra_cli.execution.trajectory.analyst import CheckpointWork
from spectra_cli.execution.trajectory.reporter import CheckpointReporter
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit
from spectra_cli.storage.places import Place
from spectra_cli.storage.secrets import recorded
from spectra_cli.tables.entries import Key

HARMLESS = {"rank": rank.HARMLESS, "align": align.HARMLESS, "sva": sva.HARMLESS}
"""Statuses that say all there is to say, by table."""

CHUNKS_PER_WORKER = 2
"""Chunks per worker that remaining work is cut into: the last are the smallest, as all wait for the last one."""

LARGEST_CHUNK = 8
"""A cluster keeps what a worker finishes when the chunk is finished."""


class TrajectoryJob:
    """Makes the tables ``rank``, ``align`` and ``sva`` of the checkpoints of a plan.

    Args:
        plan: the checkpoints to analyse, and the tables to make.
        listener: told what people should know.
        device: what the work is done on, as the files record it; its class is the part before ``:``.
    """

    def __init__(self, plan: Plan, listener: Listener, device: str) -> None:
        self.noun = "checkpoint"
        self.tables = plan.tables
        self.command = plan.tables[0] if len(plan.tables) == 1 else "analyze"
        self.key_columns: Mapping[str, Sequence[str]] = dict.fromkeys(plan.tables, CHECKPOINT_KEY)
        self.harmless: Mapping[str, Collection[str]] = HARMLESS
        self.reusable = "rank" if plan.tables == ("rank",) else None  # other tables need the vectors as well
        self._plan = plan
        self._device = device
        self._reporter = CheckpointReporter(plan, listener)
        self._checkpoints = [(run, checkpoint) for run in plan.runs for checkpoint in run.checkpoints]
        self.units: Sequence[Unit] = checkpoint_units(plan.runs)
        of_runs = plan.references or ({},) * len(plan.runs)
        self._references: list[Reference | None] = [
            references.get(checkpoint.path)
            for run, references in zip(plan.runs, of_runs, strict=True)
            for checkpoint in run.checkpoints
        ]

    def work(self, sharing: int, known: Sequence[KnownMatrices]) -> CheckpointWork:
        """The checkpoints of the plan, for workers."""
        return CheckpointWork(self._plan, sharing, known)

    def chunks(self, assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
        """One chunk for one worker. For several, some checkpoints in a row: one is read while another is worked on."""
        return chunked(assignments, workers)

    def passes(self, chunks: Sequence[Chunk], workers: int) -> int:
        """Checkpoints, and references that a worker analyses for the sake of others in its chunk."""
        apart = Counter[Place]()
        for chunk in chunks:
            compared = (self._references[each.index] for each in chunk if "sva" in each.tables)
            wanted = {reference.checkpoint.path for reference in compared if reference is not None}
            apart.update(wanted - {self._checkpoints[each.index][1].path for each in chunk})
        return sum(map(len, chunks)) + sum(min(count, workers) for count in apart.values())

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        """All tables, as they share factorizations; those of the agreement alone are made for nothing else."""
        return remade(self.tables, missing)

    def label(self, key: Key) -> str:
        """Run and checkpoint, as a path."""
        return checkpoint_label(key)

    def fingerprint(self, unit: Unit, table: str) -> str:
        """Fingerprint of the checkpoint's files and, if the table compares, of those of its reference."""
        run, checkpoint = self._checkpoints[unit.index]
        reference = self._references[unit.index] if table == "sva" else None
        try:
            states: list[Any] = [self.identity(unit, table), fingerprint_files(checkpoint.path, run.root)]
            if reference is not None:
                other = reference.checkpoint
                states += [dict(reference.columns), fingerprint_files(other.path, reference.run.root)]
            elif table == "sva" and self._plan.against is not None:
                states.append(shares_steps(run, self._plan.against))  # there is a row that says so, or none
        except CheckpointError:
            return ""
        return hashed(states)

    def identity(self, unit: Unit, table: str) -> Row:  # noqa: ARG002 - the same in all tables
        """The columns that name a checkpoint."""
        return identity_of(*self._checkpoints[unit.index])

    def budget_bytes(self, sharing: int) -> int | None:
        """The memory budget of each worker, if the user has set one."""
        return self._plan.options.worker_budget_bytes(sharing)

    def settings(self, table: str) -> Mapping[str, Any]:
        """The options that the rows of a table depend on."""
        options = self._plan.options
        chosen = {
            "--include": list(options.include),
            "--exclude": list(options.exclude),
            "--transposed": list(options.transposed),
            "--architecture": architecture_setting(options.structure.architecture),
            "the class of the device": self._device.partition(":")[0],
        }
        if table == "align":
            structure = options.structure
            chosen |= {"--heads": structure.heads, "--kv-heads": structure.kv_heads, "--full": options.full}
        if table == "sva":
            chosen |= {"--reference": options.reference or FINAL, "--against": recorded(options.against)}
        return chosen

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        settings = {**self._plan.options.recorded(), "runs": directories_of(self._plan.runs)}
        return provenance(command, settings, self._device)

    def begin(self) -> None:
        """Tell what is known before the work begins."""
        self._reporter.before()
        for run, references in zip(self._plan.runs, self._plan.references, strict=False):
            self._reporter.unpaired(run, references)

    def take(self, outcome: Outcome) -> None:
        """Take note of a checkpoint that has been analysed.

        Raises:
            CheckpointError: if it is the only one and could not be used.
        """
        run, checkpoint = self._checkpoints[outcome.index]
        self._reporter.outcome(run, checkpoint, outcome)
        self._count_compared(outcome.tables)

    def take_kept(
        self, unit: Unit, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any], remarks: Sequence[Remark]
    ) -> None:
        """Take note of a checkpoint whose rows are there already."""
        run, checkpoint = self._checkpoints[unit.index]
        for remark in remarks:
            self._reporter.remark(run, checkpoint, remark)
        if tables.get("sva"):
            self._count_compared(tables)
        else:  # all of its rows are good, if it has any
            self._reporter.tally.compared += self._references[unit.index] is not None
        self._reporter.kept(run, facts)

    def end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if nothing could be done.
        """
        self._reporter.at_the_end()

    def found(self) -> Mapping[str, Any]:
        """No facts beside the rows."""
        return {}

    def _count_compared(self, tables: Mapping[str, Sequence[Row]]) -> None:
        self._reporter.tally.compared += any(row.get("parameter") is not None for row in tables.get("sva", ()))


def remade(tables: tuple[str, ...], missing: Collection[str]) -> tuple[str, ...]:
    """The tables that are made of a checkpoint, or a pair, whose rows are not there in some of them.

    Agreement changes with the reference alone and is made by itself; what else is made together is made together again,
    as numbers may depend on it in their last digits.

    Args:
        tables: all that there are to be.
        missing: those whose rows are not there.
    """
    return ("sva",) if set(missing) == {"sva"} else tables


def chunked(assignments: Sequence[Assignment], workers: int) -> list[Chunk]:
    """Put assignments in a row together: all of them for one worker, for several fewer and fewer.

    That is guided self-scheduling (Polychronopoulos and Kuck, 1987), with an upper limit.
    """
    chunks, start = list[Chunk](), 0
    while start < len(assignments):
        left = len(assignments) - start
        size = left if workers == 1 else max(1, min(LARGEST_CHUNK, left // (workers * CHUNKS_PER_WORKER)))
        chunks.append(tuple(assignments[start : start + size]))
        start += size
    return chunks
