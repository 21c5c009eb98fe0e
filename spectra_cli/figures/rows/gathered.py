"""Tables of one or several files, brought together: rows of one kind, with runs that have one name everywhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from spectra_cli.errors import UsageError
from spectra_cli.figures.rows import prunedruns
from spectra_cli.figures.rows.sharedplaces import superseded, told_of
from spectra_cli.tables.reader import TableFile

PRUNED, ENDS = "sva_pruned", "sva_ends"
"""Kinds of `sva` tables by the command that made them: prune-eval --sva-out, and barrier --sva-out."""

KINDS = {
    "rank": "spectra rank",
    "align": "spectra align",
    "sva": "spectra sva",
    "prune_eval": "spectra prune-eval",
    PRUNED: "spectra prune-eval --sva-out",
    "barrier": "spectra barrier",
    ENDS: "spectra barrier --sva-out",
    "barrier_spectra": "spectra barrier --spectra-out",
    "metrics": "spectra train",
}
"""What rows may be, and the command that makes them."""

OF_PAIRS = frozenset({"barrier", ENDS, "barrier_spectra"})
"""Kinds whose rows belong to two runs."""

SHOWN_NAMES, MOST_TOLD = 3, 8
"""Checkpoints that a notice names, and runs that have one each."""

CLOCK_LABELS = {
    "step": "step (optimizer steps)",
    "epoch": "epoch (passes over the training data)",
    "checkpoint": "checkpoint (its place in the run)",
}
"""Of axes, by what :meth:`Gathered.evolving` says that places are."""

POSITION = "x"
"""The column of places on the horizontal axis that :meth:`Gathered.frame` adds."""


def kind_of(file: TableFile) -> str:
    """Kind of the rows of a table: its name, but for the two other uses of the table sva."""
    if file.table != "sva":
        return file.table
    if "variant" in file.columns:
        return PRUNED
    return ENDS if "alphas" in file.settings else "sva"


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
        found = {file: _runs_in(file) for file in self.files if _has_runs(kind_of(file))}
        self._labels, self._repeated = _labels(found)
        self._superseded: dict[str, dict[tuple[str, float], list[str]]] = {}
        known = [label for labels in self._labels.values() for label in labels.values()]
        of_metrics, self.remarks = _labels_of_metrics([file for file in self.files if file.table == "metrics"], known)
        """What was taken for granted, each a sentence without a full stop."""
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
        named = [*columns, "run"] if _has_runs(kind) and "run" not in columns else list(columns)
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
        if not _has_runs(kind):
            return {}
        if kind not in self._superseded:
            clock = self._clock_of(kind)
            frame = self.frame(kind, ["checkpoint", "status", *([clock] if clock != "checkpoint" else [])])
            self._superseded[kind] = superseded(frame, clock) if clock != "checkpoint" else {}
        return self._superseded[kind]

    def _has_labels(self, kind: str) -> bool:
        return _has_runs(kind) or kind == "metrics"

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


def _has_runs(kind: str) -> bool:
    return kind not in OF_PAIRS and kind != "metrics"


def _narrowed(where: Mapping[str, Collection[str]]):  # type: ignore[no-untyped-def]  # pyarrow publishes no types
    """What keeps of a batch the rows whose columns have one of the values."""

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


def _runs_in(file: TableFile) -> list[str]:
    """Names of the runs in a table, in its order."""
    found: dict[str, None] = {}
    for batch in file.batches(["run"]):
        found |= dict.fromkeys(name for name in batch.column(0).unique().to_pylist() if name is not None)
    return list(found)


def _labels(found: Mapping[TableFile, Sequence[str]]) -> tuple[dict[TableFile, dict[str, str]], bool]:
    """By table, what its runs are to be called; and whether several tables of one kind have a run in common."""
    recorded = {file: {run: _known_as(file, run) for run in runs} for file, runs in found.items()}
    uses: dict[tuple[str, str], list[tuple[TableFile, str]]] = {}
    for file, labels in recorded.items():
        for run, label in labels.items():
            uses.setdefault((kind_of(file), label), []).append((file, run))
    twice = {key: own for key, own in uses.items() if len(own) > 1}
    if all(kind == "prune_eval" and prunedruns.of_one_run(own) for (kind, _), own in twice.items()):
        return recorded, bool(twice)
    of_files = fronts(list(found))
    apart = {
        file: {run: of_files[file] if run == "." else f"{of_files[file]}/{run}" for run in runs}
        for file, runs in found.items()
    }
    return apart, False


def _known_as(file: TableFile, run: str) -> str:
    """What a run is called: the name of its directory where PATH itself was the run, if that is on record."""
    if run != ".":
        return run
    names = file.settings.get("runs")
    name = names.get(run) if isinstance(names, dict) else None
    return name if isinstance(name, str) and name else run


def fronts(files: Sequence[TableFile]) -> dict[TableFile, str]:
    """A name for each file that tells it from others of its kind: its directory, its own name, or both."""
    directories = {file: _tail(file.path.parent, [each.path.parent for each in files]) for file in files}
    both = {file: f"{directory}/{file.path.stem}" for file, directory in directories.items()}
    for named in (directories, {file: file.path.stem for file in files}, both):
        if len({(kind_of(file), front) for file, front in named.items()}) == len(files):
            return named
    return {file: f"{front} ({number})" for number, (file, front) in enumerate(both.items(), 1)}


def _tail(path: Path, others: Sequence[Path]) -> str:
    """The last components of a path, as many as tell it from the others."""
    whole = {other.resolve() for other in others}
    parts = path.resolve().parts
    for length in range(1, len(parts)):
        tail = parts[-length:]
        if sum(other.parts[-length:] == tail for other in whole) <= 1:
            return "/".join(tail)
    return os.fspath(path)


def _labels_of_metrics(
    files: Sequence[TableFile], known: Sequence[str]
) -> tuple[dict[TableFile, dict[str, str]], tuple[str, ...]]:
    """What the runs are called whose directories these metrics stand in, and remarks on what was taken for granted.

    That is the name of a run in other tables whose last components are those of the directory, or the only one there.
    """
    labels = {}
    remarks = []
    known = list(dict.fromkeys(known))
    parents = {file: file.path.resolve().parent for file in files}
    for file, parent in parents.items():
        same = [label for label in known if label != "." and _ends_with(parent, PurePath(label))]
        if len(same) == 1:
            labels[file] = same[0]
        elif len(known) == 1 and len(files) == 1:
            labels[file] = known[0]
            if known[0] != ".":
                remarks.append(f"the metrics in {parent.name} are taken for those of the run {known[0]}, the only one")
        else:
            labels[file] = _tail(parent, list(parents.values()))
    uses = Counter(labels.values())
    tails = {file: _tail(parent, list(parents.values())) for file, parent in parents.items()}
    return {file: {".": label if uses[label] == 1 else tails[file]} for file, label in labels.items()}, tuple(remarks)


def _ends_with(path: Path, end: PurePath) -> bool:
    return path.parts[-len(end.parts) :] == end.parts


def batches_of(files: Sequence[TableFile], columns: Sequence[str]) -> Iterator[tuple[TableFile, pa.RecordBatch]]:
    """The rows of several tables, some thousand at a time."""
    for file in files:
        for batch in file.batches(columns):
            yield file, batch
