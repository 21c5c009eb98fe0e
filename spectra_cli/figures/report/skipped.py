"""Rows of all tables that have no number, and why, by their status."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from spectra_cli.figures.page.document import TextTable
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.kinds import ENDS, OF_PAIRS, kind_of
from spectra_cli.tables.reader import TableFile
from spectra_cli.tables.schemas import TABLES

MOST_REASONS = 100
"""Rows of the table."""

MOST_NAMES = 3
"""Limit for the names that are told for one reason."""

MOST_KEPT = 10_000
"""Different names that are counted."""

NAMED_BY: Mapping[str, tuple[str, ...]] = {
    "rank": ("parameter",),
    "sva": ("variant", "parameter"),
    "align": ("upstream", "downstream"),
    "prune_eval": ("variant", "split", "metric"),
    "metrics": ("split", "metric"),
    "barrier": ("split", "metric"),
    "barrier_spectra": ("parameter",),
}
"""Columns that say what a row of a table is of."""

NO_STEP = "no step"
MEANINGS = {
    NO_STEP: "no step or epoch is known of these rows, while there is one of others: they are in no figure",
    "no run": "these rows name no run: they are in no figure",
    "no rows": "the table is empty",
}
"""Reasons that are no status, but the report's own."""

OF_REFERENCE = "reference_"


@dataclass(eq=False)
class _Reason:
    rows: int = 0
    names: dict[str, None] = field(default_factory=dict)
    checkpoints: dict[str, None] = field(default_factory=dict)

    def add(self, name: str, checkpoint: str) -> None:
        self.rows += 1
        for known, text in ((self.names, name), (self.checkpoints, checkpoint)):
            if text and len(known) < MOST_KEPT:
                known.setdefault(text)


def skipped_table(gathered: Gathered) -> TextTable:
    """What has no number, and what has no place in figures, by table, run and status.

    Args:
        gathered: the tables.

    Raises:
        InputError: if a file is damaged.
    """
    kinds = dict.fromkeys(kind_of(file) for file in gathered.files)
    clocks = {kind: gathered.evolving(kind, [])[1] for kind in kinds if kind not in OF_PAIRS}
    rows: list[Sequence[str | float | None]] = []
    for file in gathered.files:
        reasons: dict[tuple[str, str], _Reason] = defaultdict(_Reason)
        for status, run, name, checkpoint in _told(gathered, file, clocks.get(kind_of(file), "")):
            reasons[status, run].add(name, checkpoint)
        if not file.rows:
            reasons["no rows", ""] = _Reason()
        for (status, run), reason in reasons.items():
            meaning = MEANINGS.get(status) or meaning_of(status, file.table)
            which = [_some(reason.names), _some(reason.checkpoints)]
            rows.append([status, meaning, file.path.name, run, float(reason.rows), *which])
    return TextTable(
        heading="Skipped",
        caption="Everything that has no number, and why.",
        columns=("status", "meaning", "table", "run", "rows", "which", "checkpoints"),
        rows=rows[:MOST_REASONS],
        numeric=(False, False, False, False, True, False, False),
        note=f"{MOST_REASONS} of {len(rows)} reasons are shown." if len(rows) > MOST_REASONS else "",
    )


def _told(gathered: Gathered, file: TableFile, clock: str) -> Iterator[tuple[str, str, str, str]]:
    """Status, run, name and checkpoint of the rows that have no number or no place."""
    kind, names = kind_of(file), NAMED_BY[file.table]
    pair = kind in OF_PAIRS
    runs = () if kind == "metrics" else _runs_of(kind)
    where = {"metrics": "step", ENDS: "checkpoint"}.get(kind, "checkpoint_a" if pair else "checkpoint")
    labels = {} if pair else gathered.names_in(file)
    clocked = clock if clock in {"step", "epoch"} else ""
    columns = dict.fromkeys(["status", *names, *runs, where, *([clocked] if clocked else [])])
    for batch in file.batches(list(columns)):
        for row in _unusual(batch, clocked, runs).to_pylist():
            status = row["status"] if row["status"] is not None else "no status"
            if pair:
                run = " \N{EN DASH} ".join(str(row[column]) for column in runs)
            else:
                raw = "." if kind == "metrics" else row["run"]
                run = labels.get(raw, "") if raw is not None else ""
            if run and not pair and run not in gathered.runs:
                continue
            if status == "ok":
                status = NO_STEP if run else "no run"
            place = row[where]
            checkpoint = f"step {place}" if kind == "metrics" and place is not None else place or ""
            yield status, run, " ".join(str(row[name]) for name in names if row.get(name) is not None), checkpoint


def _runs_of(kind: str) -> tuple[str, ...]:
    return {ENDS: ("reference_run", "run")}.get(kind, ("run_a", "run_b") if kind in OF_PAIRS else ("run",))


def _unusual(batch: pa.RecordBatch, clock: str, runs: Sequence[str]) -> pa.RecordBatch:
    """Rows whose status is not ok, or that name no run or no place."""
    status = batch.column("status")
    texts = status.cast(pa.string()) if pa.types.is_dictionary(status.type) else status
    unusual = pc.fill_null(pc.not_equal(texts, "ok"), fill_value=True)
    for column in (*([clock] if clock else []), *(runs if runs == ("run",) else ())):
        unusual = pc.or_(unusual, batch.column(column).is_null())
    return batch.filter(unusual)


def meaning_of(status: str, table: str) -> str | None:
    """What a status means, in the words of the column's description; None where it has none to add.

    Args:
        status: in a row.
        table: a key of :data:`spectra_cli.tables.schemas.TABLES`.
    """
    (text,) = [column.meaning for column in TABLES[table] if column.name == "status"]
    found = re.search(rf"\b{re.escape(status)} \(([^()]*)\)", text)
    if found:
        return found[1]
    if status.startswith(OF_REFERENCE):
        own = status.removeprefix(OF_REFERENCE)
        meaning = meaning_of(own, table)
        return f"{own} of the checkpoint that this one is compared with{f': {meaning}' if meaning else ''}"
    return None


def _some(names: Mapping[str, None]) -> str | None:
    """The first names, and how many there are."""
    shown = ", ".join(list(names)[:MOST_NAMES])
    more = f", ... ({len(names)}{'+' * (len(names) >= MOST_KEPT)})" if len(names) > MOST_NAMES else ""
    return f"{shown}{more}" or None
