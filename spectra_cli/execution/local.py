"""The checkpoints of all runs one after the other, in this process; a bad one is a row and not the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spectra_cli.analyses import align, prune_eval, rank, sva
from spectra_cli.analyses.contents import inventory_of
from spectra_cli.analyses.references import PREVIOUS, Reference, shares_steps
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Analysis, Row, WorkPlace, visit
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, SpectraError
from spectra_cli.execution import messages
from spectra_cli.execution.device import resolve_device
from spectra_cli.execution.listener import Listener
from spectra_cli.execution.options import Options
from spectra_cli.execution.plan import Plan
from spectra_cli.execution.provenance import directories_of, provenance
from spectra_cli.execution.telling import Tally, Telling
from spectra_cli.layers.connections import connections_among
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import DEFAULT_SHARE, default_budget_bytes

NOTHING_SELECTED = "nothing_selected"
"""Status of a checkpoint that lacks the matrices asked for, which others have."""

HARMLESS = {
    "rank": rank.HARMLESS,
    "align": align.HARMLESS,
    "sva": sva.HARMLESS,
    "prune_eval": prune_eval.HARMLESS,
}

KEPT_SHARE = 0.25
"""Of the budget, for the vectors of reference checkpoints; what does not fit goes to a temporary file."""


class NoConnectionsError(CheckpointError):
    """A checkpoint with matrices none of which feeds another."""

    status = "no_connections"


@dataclass(frozen=True, slots=True)
class CheckpointRows:
    """The rows of one checkpoint, table by table."""

    run: Run
    checkpoint: Checkpoint
    tables: Mapping[str, list[Row]]

    @property
    def usable(self) -> bool:
        """Whether all that was asked for could be computed."""
        return all(row["status"] in HARMLESS[table] for table, rows in self.tables.items() for row in rows)


class Job:
    """Analyses on this machine: every checkpoint is opened once, every matrix read and factorized once.

    Args:
        plan: the checkpoints to analyse, and the tables to make.
        listener: told how the work goes on.

    Raises:
        SpectraError: if the device is not there.
    """

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self.tables = plan.tables
        self.place = place_of(plan.options, keeps_vectors="sva" in plan.tables)
        self._plan = plan
        self._options = plan.options
        self._listener = listener
        self._telling = Telling(plan, listener)
        self._remarked: set[str] = set()
        self._stores: dict[Path, VectorStore | CheckpointError] = {}
        self._tally = Tally(unmatched=list(plan.options.transposed))

    def metadata(self, command: Sequence[str]) -> dict[str, str]:
        """What the files record about their making, besides their schema."""
        settings = {**self._options.recorded(), "runs": directories_of(self._plan.runs)}
        return provenance(command, settings, self.place.device)

    def found(self) -> dict[str, Any]:
        """Nothing beside the rows."""
        return {}

    def results(self) -> Iterator[CheckpointRows]:
        """Analyse checkpoint after checkpoint, in the order of the plan.

        Raises:
            SpectraError: if not a single checkpoint could be used, or no parameter matches the selection.
        """
        self._telling.before()
        for place, run in enumerate(self._plan.runs):
            references = self._plan.references[place] if self._plan.references else {}
            yield from self._results_of(run, references)
            self._telling.after(run)
        self._telling.at_the_end(self._tally)

    def _results_of(self, run: Run, references: Mapping[Path, Reference]) -> Iterator[CheckpointRows]:
        """The checkpoints of a run in order; a reference that comes later among them is analysed before its turn."""
        uses = Counter(reference.checkpoint.path for reference in references.values())
        own = {checkpoint.path for checkpoint in run.checkpoints}
        held: dict[Path, CheckpointRows] = {}
        self._telling.unpaired(run, references)
        try:
            for checkpoint in run.checkpoints:
                reference = references.get(checkpoint.path)
                wanted = reference.checkpoint if reference else checkpoint
                if reference and wanted != checkpoint and wanted.path not in self._stores:
                    if wanted.path in own:
                        held[wanted.path] = self._attempt(run, wanted, references, keep=True)
                    else:
                        self._keep(reference)
                result = held.pop(checkpoint.path, None)
                yield result or self._attempt(run, checkpoint, references, keep=checkpoint.path in uses)
                if reference:
                    uses[wanted.path] -= 1
                    if not uses[wanted.path]:
                        self._forget(wanted.path)
        finally:
            for path in list(self._stores):
                self._forget(path)

    def _forget(self, path: Path) -> None:
        store = self._stores.pop(path, None)
        if isinstance(store, VectorStore):
            store.close()

    def _attempt(
        self, run: Run, checkpoint: Checkpoint, references: Mapping[Path, Reference], *, keep: bool
    ) -> CheckpointRows:
        """Analyse one checkpoint; one that cannot be used is a row of every table."""
        try:
            tables = self._analyse(run, checkpoint, references, keep=keep)
            self._tally.done += 1
        except CheckpointError as error:
            error.at(str(checkpoint.path))
            self._tally.first_error = self._tally.first_error or error
            if keep:
                self._forget(checkpoint.path)  # what was kept before it failed
                self._stores[checkpoint.path] = error
            if self._plan.checkpoint_count == 1:
                raise
            self._listener.problem(str(error))
            tables = {table: [{"status": error.status}] for table in self.tables}
        self._listener.checkpoint_done()
        identity = identity_of(run, checkpoint)
        named = {table: [{**identity, **row} for row in rows] for table, rows in tables.items()}
        return CheckpointRows(run, checkpoint, named)

    def _keep(self, reference: Reference) -> None:
        """Keep the vectors of a checkpoint that is not itself analysed."""
        path = reference.checkpoint.path
        store = self._store()
        try:
            with self._opened(reference.run, reference.checkpoint) as (reader, _, specs):
                self._visit(reader, specs, [sva.KeepVectors(store)], {})
            self._stores[path] = store
        except CheckpointError as error:
            store.close()
            error.at(str(path))
            self._tally.first_error = self._tally.first_error or error
            self._stores[path] = error
            self._listener.problem(f"the reference cannot be used: {error}")
        self._listener.checkpoint_done()

    def _store(self) -> VectorStore:
        return VectorStore(self.place.kept_bytes // 2)  # the next one is made before this one is let go

    @contextmanager
    def _opened(self, run: Run, checkpoint: Checkpoint) -> Iterator[tuple[Reader, Inventory, dict[int, MatrixSpec]]]:
        """An opened checkpoint, with what it holds and what of that is selected."""
        if checkpoint.path in self._plan.incomplete:
            raise self._plan.incomplete[checkpoint.path]
        with open_checkpoint(checkpoint.path) as reader:
            inventory = inventory_of(reader, run, checkpoint, self._options.transposed, self._options.structure)
            self._tally.seen = self._tally.seen or [spec.parameter for spec in inventory.matrices]
            self._tally.unmatched = [glob for glob in self._tally.unmatched if not inventory.selected([glob], ())]
            if "align" in self.tables and run.name not in self._remarked:
                self._remarked.add(run.name)
                for remark in inventory.remarks:
                    self._telling.once(f"{run.root}: {remark}", (run.name, remark))
            yield reader, inventory, inventory.selected(self._options.include, self._options.exclude)

    def _analyse(
        self, run: Run, checkpoint: Checkpoint, references: Mapping[Path, Reference], *, keep: bool
    ) -> dict[str, list[Row]]:
        first_errors: dict[str, SpectraError] = {}
        with self._opened(run, checkpoint) as (reader, inventory, specs):
            if not specs:
                self._tally.lacking.append(str(checkpoint.path))
                if keep:
                    self._stores[checkpoint.path] = self._store()  # what others have is missing here
                return {table: [{"status": NOTHING_SELECTED}] for table in self.tables}
            self._tally.matched += 1
            keeping: list[Analysis] = []
            if keep:
                store = self._stores[checkpoint.path] = self._store()
                keeping.append(sva.KeepVectors(store))
            making = self._making(references.get(checkpoint.path), inventory, specs)
            if making or keeping:
                self._visit(reader, specs, [*keeping, *making.values()], first_errors)
        rows = {table: making[table].rows() if table in making else [] for table in self.tables}
        if "align" in self.tables and "align" not in making:
            error = _no_connections(inventory, specs)
            rows["align"] = [{"status": error.status}]
            self._telling.of_checkpoint(run, checkpoint, str(error))
        if "sva" in self.tables and "sva" not in making:
            rows["sva"] = self._without_reference(run, references.get(checkpoint.path))
        for message in messages.problems(rows, first_errors):
            self._telling.of_checkpoint(run, checkpoint, message)
        return rows

    def _making(
        self,
        reference: Reference | None,
        inventory: Inventory,
        specs: Mapping[int, MatrixSpec],
    ) -> dict[str, rank.RankRows | align.AlignRows | sva.SvaRows]:
        """What makes the rows of each table."""
        making: dict[str, rank.RankRows | align.AlignRows | sva.SvaRows] = {}
        if "rank" in self.tables:
            making["rank"] = rank.RankRows()
        if "align" in self.tables:
            connections = connections_among(inventory.connections(), specs)
            if not connections and self.tables == ("align",):
                raise _no_connections(inventory, specs)
            if connections:
                making["align"] = align.AlignRows(connections, specs, full=self._options.full)
        kept = self._stores.get(reference.checkpoint.path) if reference else None
        if "sva" in self.tables and reference is not None and isinstance(kept, VectorStore):
            making["sva"] = sva.SvaRows(kept, reference.columns)
            self._tally.compared += 1
        return making

    def _without_reference(self, run: Run, reference: Reference | None) -> list[Row]:
        """The rows of a checkpoint that there is nothing to compare with."""
        if reference is not None:
            kept = self._stores.get(reference.checkpoint.path)
            self._telling.reference_failed(reference.checkpoint.path)
            status = kept.status if isinstance(kept, CheckpointError) else "missing"
            return [{**reference.columns, "status": f"{sva.OF_REFERENCE}{status}"}]
        against = self._plan.against
        alone = self._options.reference == PREVIOUS if against is None else not shares_steps(run, against)
        return [] if alone else [{"status": "missing"}]

    def _visit(
        self,
        reader: Reader,
        specs: Mapping[int, MatrixSpec],
        analyses: Sequence[Analysis],
        first_errors: dict[str, SpectraError],
    ) -> None:
        self._listener.checkpoint_opened(list(specs.values()))

        def on_problem(error: SpectraError, _parameter: str) -> None:
            first_errors.setdefault(error.status, error)

        visit(reader, specs, analyses, self.place, on_problem=on_problem, on_matrix=self._listener.matrix_done)


def place_of(options: Options, *, keeps_vectors: bool = False) -> WorkPlace:
    """Where the options have the work done.

    Raises:
        SpectraError: if the device is not there.
    """
    device = resolve_device(options.device)
    if options.budget_bytes is not None:
        budget_bytes = options.budget_bytes
    elif device.type == "cuda":
        budget_bytes = int(DEFAULT_SHARE * torch.cuda.mem_get_info(device)[0])
    else:
        budget_bytes = default_budget_bytes()
    return WorkPlace(device, budget_bytes, int(KEPT_SHARE * budget_bytes) if keeps_vectors else 0)


def identity_of(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    """The columns that name a checkpoint."""
    return {"run": run.name, "checkpoint": checkpoint.name, "step": checkpoint.step, "epoch": checkpoint.epoch}


def _no_connections(inventory: Inventory, specs: Mapping[int, MatrixSpec]) -> NoConnectionsError:
    if len(specs) < len(inventory.matrices):
        return NoConnectionsError(
            "no connection has both ends among the matrices selected",
            remedy="Select both matrices of a connection; `spectra inspect` lists all",
        )
    return NoConnectionsError("no matrix feeds another one", remedy="Describe the model with --architecture")
