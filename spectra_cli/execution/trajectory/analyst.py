"""Checkpoints analysed one at a time: each is opened once, and every matrix of it read and factorized once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spectra_cli.analyses import align, rank, sva
from spectra_cli.analyses.hashes import Hashes, combined
from spectra_cli.analyses.known import KnownFactors, KnownMatrices
from spectra_cli.analyses.lanes import flops_of
from spectra_cli.analyses.references import PREVIOUS, Reference, shares_steps
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Analysis, Row, visit
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.executors.device import work_place_of
from spectra_cli.execution.planning import messages
from spectra_cli.execution.planning.checkpointunits import identity_of
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.planning.workingdirectory import WorkingDirectory
from spectra_cli.execution.trajectory.facts import lacking_facts, transposed_facts
from spectra_cli.execution.trajectory.faults import Faults
from spectra_cli.execution.trajectory.keptreferences import KeptReferences
from spectra_cli.execution.trajectory.openedcheckpoints import OpenedCheckpoint, OpenedCheckpoints
from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, MatrixDone, Remark
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome
from spectra_cli.layers.connections import connections_among
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.storage.places import Place
from spectra_cli.tables.statuses import NOTHING_SELECTED, OF_REFERENCE

Making = rank.RankRows | align.AlignRows | sva.SvaRows


class NoConnectionsError(CheckpointError):
    """A checkpoint with matrices none of which feeds another."""

    status = "no_connections"


@dataclass(frozen=True)
class CheckpointWork:
    """The checkpoints of a plan, each a unit.

    Attributes:
        plan: the checkpoints to analyse, and the tables to make.
        sharing: how many workers share the memory of one machine or device.
        known: matrices that need not be factorized for the table ``rank`` alone, as their numbers are there.
        directory: that relative paths are relative to.
    """

    plan: Plan
    sharing: int = 1
    known: Sequence[KnownMatrices] = ()
    directory: WorkingDirectory = field(default_factory=WorkingDirectory)

    def worker(self, device: str, sink: EventSink) -> Analyst:
        """Get ready in this process; see :class:`spectra_cli.execution.work.units.Work`."""
        return Analyst(replace(self, plan=self.directory.plan(self.plan)), device, sink)

    def runs_read(self) -> Sequence[Run]:
        """Runs of the plan, and of its references."""
        return self.plan.runs_read


class _Any:
    """Matrices that somebody knows."""

    def __init__(self, known: Sequence[KnownMatrices]) -> None:
        self._known = known

    def __contains__(self, key: object) -> bool:
        return any(key in each for each in self._known)


class Analyst:
    """Makes the rows of checkpoints.

    Args:
        work: what is to be done.
        device: to work on.
        sink: told how the work goes on.

    Raises:
        SpectraError: if the device is not there.
    """

    def __init__(self, work: CheckpointWork, device: str, sink: EventSink) -> None:
        self._plan = plan = work.plan
        self._options = plan.options
        self._known = _Any(work.known) if plan.tables == ("rank",) else None
        self._sink = sink
        self._place = work_place_of(
            plan.options, device, sharing=work.sharing, keeps_vectors="sva" in plan.tables, knows_factors=True
        )
        self._factors = KnownFactors(self._place.known_bytes) if plan.pass_count > 1 else None
        self._units = [
            (run_index, checkpoint) for run_index, run in enumerate(plan.runs) for checkpoint in run.checkpoints
        ]
        self._references = KeptReferences(self._place.kept_bytes)
        self._contents: dict[Place, str | None] = {}
        self._remarks: list[Remark] = []
        self._checkpoints = OpenedCheckpoints(plan, self._place)

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        """Analyse the checkpoints of a chunk; a reference that is one of them and comes later is analysed first."""
        waiting = {self._units[assignment.index][1].path: assignment for assignment in chunk}
        references = [self._reference_of(assignment) for assignment in chunk]
        uses = Counter(reference.checkpoint.path for reference in references if reference is not None)
        for turn, (assignment, reference) in enumerate(zip(chunk, references, strict=True)):
            path = self._units[assignment.index][1].path
            wanted = None if reference is None else reference.checkpoint.path
            later = (self._units[each.index][1].path for each in chunk[turn + 1 :])
            following = next((each for each in later if each in waiting), None)
            self._checkpoints.following = following
            if assignment.content is not None and (same := self._verified(assignment)):
                waiting.pop(path, None)
                yield same
            elif reference is not None and wanted != path and wanted not in self._references:
                self._checkpoints.following = path
                if wanted in waiting:
                    yield self._attempt(waiting.pop(wanted), keep=True)
                else:
                    self._keep(reference)
                self._checkpoints.following = following if following != wanted else None
            if path in waiting:
                yield self._attempt(waiting.pop(path), keep=path in uses)
            if wanted is not None:
                uses[wanted] -= 1
                if not uses[wanted]:
                    self._references.rest(wanted)

    def close(self) -> None:
        """Let go of the vectors of references, and of what was opened ahead."""
        self._checkpoints.close()
        self._references.close()

    def _reference_of(self, assignment: Assignment) -> Reference | None:
        """What the checkpoint is compared with; None where it is not."""
        run_index, checkpoint = self._units[assignment.index]
        if "sva" not in assignment.tables or not self._plan.references:
            return None
        return self._plan.references[run_index].get(checkpoint.path)

    def _attempt(self, assignment: Assignment, *, keep: bool) -> Outcome:
        """Analyse one checkpoint; one that cannot be used is a row of every table."""
        run_index, checkpoint = self._units[assignment.index]
        run = self._plan.runs[run_index]
        outcome = Outcome(assignment.index)
        try:
            rows = self._analyse(run, checkpoint, assignment, outcome, keep=keep)
            outcome.content = self._content(checkpoint, self._reference_of(assignment))
        except CheckpointError as error:
            outcome.error = error.at(str(checkpoint.path))
            if keep:
                self._references.failed(checkpoint.path, error)
            rows = {table: [{"status": error.status}] for table in assignment.tables}
        self._sink.hear(CheckpointDone())
        identity = identity_of(run, checkpoint)
        outcome.tables = {table: [{**identity, **row} for row in of_table] for table, of_table in rows.items()}
        outcome.remarks, self._remarks = self._remarks, []
        return outcome

    def _keep(self, reference: Reference) -> None:
        """Keep the vectors of a checkpoint that is not itself to be analysed."""
        path = reference.checkpoint.path
        try:
            with self._checkpoints.opened(path) as opened:
                self._visit(path, opened, [sva.KeepVectors(self._references.new(path))])
        except CheckpointError as error:
            error.at(str(path))
            self._references.failed(path, error)
            self._remarks.append(Remark(f"the reference cannot be used: {error}", "once", str(path)))
        self._sink.hear(CheckpointDone())

    def _analyse(
        self, run: Run, checkpoint: Checkpoint, assignment: Assignment, outcome: Outcome, *, keep: bool
    ) -> Mapping[str, list[Row]]:
        """The rows of a checkpoint by table.

        Raises:
            CheckpointError: if it cannot be used.
        """
        tables, path = assignment.tables, checkpoint.path
        faults = Faults()
        with self._checkpoints.opened(path) as opened:
            inventory, specs = opened.inventory, opened.specs
            outcome.facts = self._facts(inventory, specs)
            if "align" in tables:
                remarks = [Remark(f"{run.root}: {remark}", "once") for remark in inventory.remarks]
                self._remark_on("align", remarks, outcome)
            keeping: list[Analysis] = [sva.KeepVectors(self._references.new(path))] if keep else []
            if not specs:
                return {table: [{"status": NOTHING_SELECTED}] for table in tables}
            making = self._making(assignment, inventory, specs)
            if making or keeping:
                faults = self._visit(path, opened, [*keeping, *making.values()])
        rows = {table: making[table].rows() if table in making else [] for table in tables}
        if "align" in tables and "align" not in making:
            error = _no_connections(inventory, specs)
            rows["align"] = [{"status": error.status}]
            self._remark_on("align", [Remark(str(error), "checkpoint")], outcome)
        if "sva" in tables and "sva" not in making:
            rows["sva"], said = self._without_reference(run, self._reference_of(assignment))
            self._remark_on("sva", [Remark(sentence, "once") for sentence in said], outcome)
        for table, sentence in messages.problems(rows, faults.first):
            self._remark_on(table, [Remark(sentence, "checkpoint")], outcome)
        if faults.of_budget and self._options.budget_bytes is not None:
            outcome.budget_bytes = self._place.budget_bytes
        return rows

    def _remark_on(self, table: str, remarks: Sequence[Remark], outcome: Outcome) -> None:
        """Tell what the rows of a table do not say, now and wherever they are kept."""
        self._remarks += remarks
        outcome.kept_remarks.setdefault(table, []).extend(remarks)

    def _facts(self, inventory: Inventory, specs: Mapping[int, MatrixSpec]) -> dict[str, Any]:
        """What the end of the work needs to know of a checkpoint and no row says."""
        facts = transposed_facts(inventory, self._options.transposed)
        return facts if specs else {**facts, **lacking_facts(inventory.matrices)}

    def _making(
        self, assignment: Assignment, inventory: Inventory, specs: Mapping[int, MatrixSpec]
    ) -> dict[str, Making]:
        """What makes the rows of each table."""
        making: dict[str, Making] = {}
        if "rank" in assignment.tables:
            making["rank"] = rank.RankRows(self._known)
        if "align" in assignment.tables:
            connections = connections_among(inventory.connections(), specs)
            if not connections and self._plan.tables == ("align",):
                raise _no_connections(inventory, specs)
            if connections:
                making["align"] = align.AlignRows(connections, specs, full=self._options.full)
        reference = self._reference_of(assignment)
        kept = self._references.get(reference.checkpoint.path) if reference else None
        if reference is not None and isinstance(kept, VectorStore):
            making["sva"] = sva.SvaRows(kept, reference.columns)
        return making

    def _without_reference(self, run: Run, reference: Reference | None) -> tuple[list[Row], list[str]]:
        """The rows of a checkpoint that there is nothing to compare with, and what is said of that."""
        if reference is not None:
            path = reference.checkpoint.path
            kept = self._references.get(path)
            said = f"nothing is compared with {path}, which cannot be used; choose another --reference."
            status = kept.status if isinstance(kept, CheckpointError) else "missing"
            return [{**reference.columns, "status": f"{OF_REFERENCE}{status}"}], [said]
        against = self._plan.against
        alone = self._options.reference == PREVIOUS if against is None else not shares_steps(run, against)
        return ([] if alone else [{"status": "missing"}]), []

    def _visit(self, path: Place, opened: OpenedCheckpoint, analyses: Sequence[Analysis]) -> Faults:
        """Show the matrices of a checkpoint to analyses, and note what it hashes to; returns what could not be used."""
        faults = Faults()
        specs = opened.specs
        self._sink.hear(CheckpointOpened(len(specs), sum(map(flops_of, specs.values()))))

        def on_matrix(spec: MatrixSpec) -> None:
            self._sink.hear(MatrixDone(flops_of(spec)))

        hashes = Hashes()
        self._checkpoints.expect_following()
        visit(
            opened.reader,
            specs,
            [*analyses, hashes],
            self._place,
            on_problem=faults.note,
            on_matrix=on_matrix,
            known=self._factors,
            on_room=self._checkpoints.on_room,
        )
        self._contents[path] = _content_of(hashes, opened.inventory)
        return faults

    def _content(self, checkpoint: Checkpoint, reference: Reference | None) -> str | None:
        """What was read to make the rows of a checkpoint, as a hash; None where it was not all read."""
        paths = [checkpoint.path] if reference is None else [checkpoint.path, reference.checkpoint.path]
        contents = [content for path in paths if (content := self._contents.get(path)) is not None]
        return combined(contents) if len(contents) == len(paths) else None

    def _verified(self, assignment: Assignment) -> Outcome | None:
        """The outcome where the weights still hash to what they did; None where they do not, or cannot be read."""
        _, checkpoint = self._units[assignment.index]
        reference = self._reference_of(assignment)
        try:
            self._hash(checkpoint.path, assignment)
            if reference is not None and reference.checkpoint.path not in self._contents:
                self._hash(reference.checkpoint.path, assignment)
        except CheckpointError:
            return None
        if self._content(checkpoint, reference) != assignment.content:
            return None
        self._sink.hear(CheckpointDone())
        return Outcome(assignment.index, content=assignment.content, same=True)

    def _hash(self, path: Place, assignment: Assignment) -> None:
        """Read what is read to make the rows of an assignment, and note what it hashes to.

        Raises:
            CheckpointError: if it cannot be read.
        """
        with self._checkpoints.opened(path) as opened:
            making: dict[str, Making] = {"rank": rank.RankRows()}
            if assignment.tables == ("align",):
                making = self._making(assignment, opened.inventory, opened.specs)
            hashes = Hashes(instead=list(making.values()))
            self._checkpoints.expect_following()
            visit(
                opened.reader,
                opened.specs,
                [hashes],
                self._place,
                on_problem=lambda *_: None,
                on_matrix=lambda _: None,
                on_room=self._checkpoints.on_room,
            )
        self._contents[path] = _content_of(hashes, opened.inventory)


def _content_of(hashes: Hashes, inventory: Inventory) -> str | None:
    """What a checkpoint's rows are made of, as a hash: its weights and its config.json, if that has been read."""
    if hashes.content is None or not inventory.config:
        return hashes.content
    return combined([hashes.content, json.dumps(inventory.config, sort_keys=True)])


def _no_connections(inventory: Inventory, specs: Mapping[int, MatrixSpec]) -> NoConnectionsError:
    if len(specs) < len(inventory.matrices):
        return NoConnectionsError(
            "no connection has both ends among the matrices selected",
            remedy="Select both matrices of a connection; `spectra inspect` lists all",
        )
    return NoConnectionsError("no matrix feeds another one", remedy="Describe the model with --architecture")
