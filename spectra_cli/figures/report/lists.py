"""Singular values and diagonals read through, of which a few entries at a few steps are kept, and never all at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from spectra_cli.figures.report.budget import Ints, log_spread
from spectra_cli.figures.rows.gathered import Gathered, batches_of
from spectra_cli.figures.rows.series import Floats, connection_names

LISTS = {"rank": "singular_values", "align": "diagonal", "sva": "diagonal"}
"""The column of lists of a kind."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """Which lists of a run are wanted, and where.

    Attributes:
        names: of matrices or connections.
        places: (columns,), ascending.
        clock: what places are, as :meth:`Gathered.evolving` says it.
        checkpoints: places by the checkpoint's name; used where the clock is ``checkpoint``.
        most: entries that are kept of a list.
    """

    names: Collection[str]
    places: Floats
    clock: str
    checkpoints: Mapping[str, float]
    most: int


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of the lists of one matrix or connection.

    Attributes:
        length: entries of the whole list, as long as the first one that is not empty.
        indices: (k,), from 0, those that are kept.
        values: (columns, k), a mean where several rows share a place (heads); nan where there is none.
    """

    length: int
    indices: Ints
    values: Floats


def read_lists(gathered: Gathered, kind: str, wanted: Mapping[str, Wanted]) -> dict[tuple[str, str], Kept]:
    """Read the lists of a kind, some thousand rows at a time.

    Args:
        gathered: the tables.
        kind: a key of :data:`LISTS`.
        wanted: by run.

    Returns:
        By run and name; a name whose lists are all empty is absent.

    Raises:
        InputError: if a file is damaged.
    """
    sums = _Sums(wanted)
    left_out = gathered.superseded(kind)
    keys = ("connection", "upstream", "downstream", "primary") if kind == "align" else ("parameter",)
    columns = ["run", "checkpoint", "step", "epoch", *keys, LISTS[kind]]
    for file, batch in batches_of(gathered.of_kind(kind), columns):
        scalars = pd.DataFrame({name: _values(batch, name) for name in columns[:-1]})
        if kind == "align":
            scalars = scalars.assign(parameter=connection_names(scalars).where(scalars.primary.isin([True]), None))
        scalars["run"] = scalars.run.map(gathered.names_in(file))
        if left_out:
            pairs = zip(scalars.run, scalars.checkpoint, strict=True)
            scalars.loc[[pair in left_out for pair in pairs], "parameter"] = None
        sums.add(scalars, batch.column(len(columns) - 1))
    return sums.kept()


def _values(batch: pa.RecordBatch, name: str) -> pd.Series:
    column = batch.column(name)
    return pd.Series((column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column).to_pandas())


class _Sums:
    """Sums and counts of entries, of each name and place a row; rows of all runs stand below each other."""

    def __init__(self, wanted: Mapping[str, Wanted]) -> None:
        self._wanted = wanted
        self._targets = {(run, name): None for run, each in wanted.items() for name in each.names}
        self._numbers = {key: number for number, key in enumerate(self._targets)}
        columns = [len(wanted[run].places) for run, _ in self._numbers]
        self._starts = np.concatenate([[0], np.cumsum(columns)]).astype(np.int64)
        self._most = np.array([wanted[run].most for run, _ in self._numbers], np.int64)
        width = int(self._most.max(initial=0))
        self._indices = np.full((len(columns), width), -1, np.int64)
        self._lengths = np.zeros(len(columns), np.int64)
        self._sums = np.zeros((int(self._starts[-1]), width))
        self._counts = np.zeros((int(self._starts[-1]), width), np.int32)

    def add(self, scalars: pd.DataFrame, lists: pa.ListArray) -> None:
        """Add the rows of a batch."""
        targets, slots = self._slots(scalars)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
        rows = np.flatnonzero((slots >= 0) & (lengths > 0))
        if not len(rows):
            return
        self._choose_indices(targets[rows], lengths[rows])
        indices = self._indices[targets[rows]]
        there = (indices >= 0) & (indices < lengths[rows, None])
        at = np.where(there, starts[rows, None] + indices, 0)
        entries = lists.values.to_numpy(zero_copy_only=False)[at].astype(float)
        there &= np.isfinite(entries)
        np.add.at(self._sums, slots[rows], np.where(there, entries, 0.0))
        np.add.at(self._counts, slots[rows], there)

    def _slots(self, scalars: pd.DataFrame) -> tuple[Ints, Ints]:
        """Number of the name of each row, and the row of sums for it; -1 where it is not wanted."""
        pairs = zip(scalars.run, scalars.parameter, strict=True)
        targets = np.array([self._numbers.get(pair, -1) for pair in pairs], np.int64)
        slots = np.full(len(targets), -1, np.int64)
        for run in scalars.run[targets >= 0].unique():
            wanted = self._wanted[run]
            rows = np.flatnonzero((scalars.run == run).to_numpy() & (targets >= 0))
            some = scalars.iloc[rows]
            clock = some.checkpoint.map(wanted.checkpoints) if wanted.clock == "checkpoint" else some[wanted.clock]
            x = clock.to_numpy(float)
            columns = np.searchsorted(wanted.places, x).clip(max=max(len(wanted.places) - 1, 0))
            same = wanted.places[columns] == x
            slots[rows[same]] = self._starts[targets[rows[same]]] + columns[same]
        return targets, slots

    def _choose_indices(self, targets: Ints, lengths: Ints) -> None:
        """Choose which entries of a list are kept when the first one comes."""
        for target, first in zip(*np.unique(targets, return_index=True), strict=True):
            if not self._lengths[target]:
                length = int(lengths[first])
                chosen = log_spread(length, int(self._most[target]))
                self._lengths[target] = length
                self._indices[target, : len(chosen)] = chosen

    def kept(self) -> dict[tuple[str, str], Kept]:
        """What has been gathered."""
        means = np.full_like(self._sums, np.nan)
        np.divide(self._sums, self._counts, out=means, where=self._counts > 0)
        found = {}
        for key, number in self._numbers.items():
            if self._lengths[number]:
                indices = self._indices[number][self._indices[number] >= 0]
                values = means[self._starts[number] : self._starts[number + 1], : len(indices)]
                found[key] = Kept(int(self._lengths[number]), indices, values)
        return found
