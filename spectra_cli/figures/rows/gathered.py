"""Tables of one or several files, brought together: rows of one kind, with runs that have one name everywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from spectra_cli.errors import UsageError
from spectra_cli.figures.rows import prunedruns
from spectra_cli.figures.rows.kinds import OF_PAIRS, has_runs, kind_of
from spectra_cli.figures.rows.runnames import labels_of, labels_of_metrics, runs_in
from spectra_cli.figures.rows.sharedplaces import superseded, told_of
from spectra_cli.tables.reader import TableFile

SHOWN_NAMES, MOST_TOLD = 3, 8
"""Checkpoints that a notice names, and runs that have one each."""

CLOCK_LABELS = {
    "step": "step (optimizer steps)",
    "epoch": "epoch (passes over the training data)",
    "checkpoint": "checkpoint (its place in the run)",
}
"""Labels of axes, by what :meth:`Gathered.evolving` says that places are."""

POSITION = "x"
"""The column of places on the horizontal axis that :meth:`Gathered.frame` adds."""


class Gathered:
    """Rows of tables from several files.

    A run is named as in its table. Where that would give two runs one name (each was analysed by itself, as ``.``),
    the directory of its table, or else the table's own name, comes in front. Tables of prune-eval that evaluate other
    variants of one run stand together as that run.

    Args:
        files: tables, of any kinds.
        runs: globs of runs to keep; all if there is none.

    Raises:
        UsageError: if no run matches.
    """

    def __init__(self, files: Sequence[TableFile], runs: Collection[str] = ()) -> None:
        self.files = tuple(files)
        self._kinds = [kind_of(file) for file in self.files]
        found = {file: runs_in(file) for file in self.files if has_runs(kind_of(file))}
        self._labels, self._repeated = labels_of(found)
        self._superseded: dict[str, dict[tuple[str, float], list[str]]] = {}
        known = [label for labels in self._labels.values() for label in labels.values()]
        of_metrics, self.remarks = labels_of_metrics([file for file in self.files if file.table == "metrics"], known)
        """Assumptions that were made, each a sentence without a full stop."""
        self._labels |= of_metrics
        everything = dict.fromkeys(label for labels in self._labels.values() for label in labels.values())
        self.runs = tuple(label for label in everything if not runs or any(fnmatchcase(label, glob) for glob in runs))
        """Names of the runs, in the order of the tables; of pairs none."""
        if runs and not self.runs:
            raise UsageError(
                f"no run matches --run {' '.join(runs)}",
                remedy=f"There are {', '.join(list(everything)[:8])}{', ...' * (len(everything) > 8)}",
            )

    def __contains__(self, kind: object) -> bool:
        return kind in self._kinds

    def of_kind(self, kind: str) -> tuple[TableFile, ...]:
        """The tables that hold rows of a kind."""
        return tuple(file for file, known in zip(self.files, self._kinds, strict=True) if known == kind)

    def names_in(self, file: TableFile) -> Mapping[str, str]:
        """What the runs of a file are called in :attr:`runs`, by their names there; of pairs nothing."""
        return self._labels.get(file, {})

    def frame(
        self, kind: str, columns: Sequence[str], where: Mapping[str, Collection[str]] | None = None
    ) -> pd.DataFrame:
        """Some columns of all rows of a kind, in the order of the tables.

        Args:
            kind: a key of :data:`KINDS`.
            columns: to read. Those that a file lacks are null; ``run`` comes with them where the kind has runs.
            where: values that a text column must have for a row to be taken; lists of other rows are never unpacked.

        Returns:
            Text as plain strings, lists as arrays, other columns as pandas has them with nan for null. ``run`` holds
            the names of :attr:`runs`. The index counts rows.

        Raises:
            InputError: if a file is damaged.
        """
        named = [*columns, "run"] if has_runs(kind) and "run" not in columns else list(columns)
        repeated = self._repeated and kind == "prune_eval"
        read = list(dict.fromkeys([*named, *prunedruns.KEYS])) if repeated else named
        parts = [self._frame_of(file, read, where or {}) for file in self.of_kind(kind)]
        frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=named)
        if repeated:
            frame = prunedruns.without_repeats(frame)[named]
        return (
            frame[frame.run.isin(self.runs)].reset_index(drop=True)
            if "run" in frame and self._has_labels(kind)
            else frame
        )

    def evolving(
        self, kind: str, columns: Sequence[str], where: Mapping[str, Collection[str]] | None = None
    ) -> tuple[pd.DataFrame, str]:
        """Rows of a kind with their places in training.

        Args:
            kind: one whose rows belong to a checkpoint, or ``metrics``.
            columns: as of :meth:`frame`.
            where: as of :meth:`frame`.

        Returns:
            The rows with a column ``x``, and what it is: ``step`` if any step is known, then rows without one are left
            out; else ``epoch`` likewise; else ``checkpoint``, its place in its run from 0. Of several checkpoints of a
            run at one place there is one, see :meth:`superseded`.
        """
        keys = ["step", "epoch", *(() if kind == "metrics" else ("checkpoint",))]
        frame = self.frame(kind, [*keys, *(name for name in columns if name not in keys)], where)
        for clock in ("step", "epoch"):
            known = frame[clock].notna()
            if known.any():
                left_out = self.superseded(kind)
                if left_out:
                    pairs = zip(frame.run, frame.checkpoint, strict=True)
                    known &= np.fromiter((pair not in left_out for pair in pairs), bool, len(frame))
                return frame[known].assign(**{POSITION: frame[clock][known].astype(float)}), clock
        checkpoints = frame.checkpoint.astype(str) if "checkpoint" in frame else pd.Series(0, index=frame.index)
        places = checkpoints.groupby(frame.run.astype(str), sort=False).transform(lambda names: pd.factorize(names)[0])
        return frame.assign(**{POSITION: places.astype(float)}), "checkpoint"

    def unplaced(self, kind: str) -> tuple[str, ...]:
        """Notices on checkpoints that :meth:`evolving` leaves out, as they have no step while others have.

        Args:
            kind: as of :meth:`evolving`.
        """
        if kind in OF_PAIRS:
            return ()
        keys = ["step", "epoch", *(() if kind == "metrics" else ("checkpoint",))]
        frame = self.frame(kind, keys)
        clock = next((name for name in ("step", "epoch") if frame[name].notna().any()), None)
        if clock is None or frame[clock].notna().all():
            return ()
        named = frame.checkpoint if "checkpoint" in frame else frame.epoch
        told = []
        for run, places in frame[frame[clock].isna()].assign(named=named.astype(str)).groupby("run", sort=False):
            names = list(dict.fromkeys(places.named))
            which = f"{', '.join(names[:SHOWN_NAMES])}{', ...' * (len(names) > SHOWN_NAMES)}"
            what = "checkpoint has" if len(names) == 1 else "checkpoints have"
            told.append(f"{run}: {len(names)} {what} no {clock}, left out ({which})")
        more = len(told) - MOST_TOLD
        return (*told[:MOST_TOLD], *([f"the same in {more} more runs"] if more > 0 else []))

    def superseded(self, kind: str) -> frozenset[tuple[str, str]]:
        """Checkpoints that :meth:`evolving` leaves out for a later one of the run at the same place.

        Args:
            kind: as of :meth:`evolving`.

        Returns:
            Run and name of each.
        """
        places = self._shared_places(kind)
        return frozenset((run, name) for (run, _), names in places.items() for name in names[:-1])

    def at_one_place(self, kind: str) -> tuple[str, ...]:
        """Notices on places at which a run has several checkpoints, and on the one that is drawn.

        Args:
            kind: as of :meth:`evolving`.
        """
        places = self._shared_places(kind)
        return told_of(places, self._clock_of(kind), MOST_TOLD) if places else ()

    def _clock_of(self, kind: str) -> str:
        frame = self.frame(kind, ["step", "epoch"])
        return next((clock for clock in ("step", "epoch") if frame[clock].notna().any()), "checkpoint")

    def _shared_places(self, kind: str) -> dict[tuple[str, float], list[str]]:
        if not has_runs(kind):
            return {}
        if kind not in self._superseded:
            clock = self._clock_of(kind)
            frame = self.frame(kind, ["checkpoint", "status", *([clock] if clock != "checkpoint" else [])])
            self._superseded[kind] = superseded(frame, clock) if clock != "checkpoint" else {}
        return self._superseded[kind]

    def _has_labels(self, kind: str) -> bool:
        return has_runs(kind) or kind == "metrics"

    def _frame_of(self, file: TableFile, columns: Sequence[str], where: Mapping[str, Collection[str]]) -> pd.DataFrame:
        wanted = list(dict.fromkeys([*columns, *where]))
        parts = [part for part in map(_narrowed(where), file.batches(wanted)) if part.num_rows]
        table = pa.Table.from_batches(parts) if parts else file.empty(wanted)
        frame = cast(pd.DataFrame, _plain(table).to_pandas())
        for name in wanted:
            if name not in frame:
                frame[name] = np.nan if name != "run" else None
        labels = self._labels.get(file)
        if labels is not None:
            frame["run"] = labels["."] if file.table == "metrics" else frame.run.map(lambda run: labels.get(run, run))
        return frame[list(dict.fromkeys([*columns, *(["run"] if labels is not None else [])]))]


def _narrowed(where: Mapping[str, Collection[str]]):  # type: ignore[no-untyped-def]  # pyarrow publishes no types
    """A function that keeps the rows of a batch whose columns have one of the values."""

    def narrow(batch: pa.RecordBatch) -> pa.RecordBatch:
        for name, values in where.items():
            column = batch.column(name)
            texts = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
            batch = batch.filter(pc.is_in(texts, value_set=pa.array(list(values), pa.string())))
        return batch

    return narrow


def _plain(table: pa.Table) -> pa.Table:
    """Text of dictionaries as text, so that rows of several files can stand together."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def batches_of(files: Sequence[TableFile], columns: Sequence[str]) -> Iterator[tuple[TableFile, pa.RecordBatch]]:
    """The rows of several tables, some thousand at a time."""
    for file in files:
        for batch in file.batches(columns):
            yield file, batch
