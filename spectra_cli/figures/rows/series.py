"""Rows of tables as arrays to draw: all matrices against steps, one matrix through training, and means over runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from spectra_cli.errors import UsageError
from spectra_cli.figures.rows.gathered import POSITION

Floats = npt.NDArray[np.float64]

NAME = "name"
"""The column that tells rows of an :class:`Overview` apart: the parameter, or :func:`connection_names`."""


@dataclass(frozen=True)
class Overview:
    """One number of every matrix (or connection) of a run, against steps.

    Attributes:
        run: its name; of a mean over runs ``mean of N runs``.
        names: of the matrices, in the order of depth.
        x: (columns,), ascending.
        values: (names, columns); nan where there is none.
        statuses: why there is none, by (name, column).
    """

    run: str
    names: tuple[str, ...]
    x: Floats
    values: Floats
    statuses: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evolution:
    """Numbers in order, such as singular values, of one matrix (or connection) through training.

    Attributes:
        run: its name; of a mean over runs ``mean of N runs``.
        name: of the matrix.
        x: (columns,), ascending.
        values: (columns, k): the i-th singular value, or the i-th entry of a diagonal, in column i; nan where none is.
        deviation: (columns, k), one standard deviation over runs; None of a single run.
    """

    run: str
    name: str
    x: Floats
    values: Floats
    deviation: Floats | None = None


@dataclass(frozen=True)
class Curve:
    """One number against steps.

    Attributes:
        label: what the legend says.
        x: (points,), ascending.
        y: (points,); nan where there is none.
        deviation: (points,), one standard deviation over runs; None of a single run.
    """

    label: str
    x: Floats
    y: Floats
    deviation: Floats | None = None


def connection_names(frame: pd.DataFrame) -> pd.Series:
    """Names of the connections in rows of align: ``residual: upstream -> downstream``."""
    return frame.connection.astype(str) + ": " + frame.upstream.astype(str) + " -> " + frame.downstream.astype(str)


def overviews(frame: pd.DataFrame, value: str) -> list[Overview]:
    """One overview for each run.

    Args:
        frame: rows with ``run``, ``x``, ``name`` (null in rows that stand for a whole checkpoint), ``depth``,
            ``status`` and the value. Rows of one run, place and name (heads) are averaged over those that are ok.
        value: the column of the value.
    """
    return [_overview(str(run), rows, value) for run, rows in frame.groupby("run", sort=False)]


def _overview(run: str, rows: pd.DataFrame, value: str) -> Overview:
    x = np.unique(rows[POSITION].to_numpy(float))
    named = rows[rows[NAME].notna()]
    names = list(named.sort_values("depth", kind="stable")[NAME].drop_duplicates())
    place = {name: index for index, name in enumerate(names)}
    sums, counts = np.zeros((len(names), len(x))), np.zeros((len(names), len(x)))
    at = (named[NAME].map(place).to_numpy(int), np.searchsorted(x, named[POSITION].to_numpy(float)))
    numbers = named[value].to_numpy(float)
    known = np.isfinite(numbers)
    np.add.at(sums, (at[0][known], at[1][known]), numbers[known])
    np.add.at(counts, (at[0][known], at[1][known]), 1.0)
    values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return Overview(run, tuple(names), x, values, _statuses(rows, place, x, values))


def _statuses(rows: pd.DataFrame, place: Mapping[str, int], x: Floats, values: Floats) -> dict[tuple[int, int], str]:
    """Why cells are empty; what is said of a whole checkpoint holds for all of its matrices."""
    told: dict[tuple[int, int], str] = {}
    for name, position, status in rows.loc[rows.status != "ok", [NAME, POSITION, "status"]].itertuples(index=False):
        column = int(np.searchsorted(x, position))
        for row in range(len(place)) if pd.isna(name) else (place[name],):
            if np.isnan(values[row, column]):
                told[row, column] = str(status)
    return told


def evolutions(frame: pd.DataFrame, value: str) -> list[Evolution]:
    """One evolution for each run and name, in the order of the rows.

    Args:
        frame: rows with ``run``, ``x``, ``name`` and the list. Rows of one place (heads) are averaged.
        value: the column of lists; null lists leave gaps.
    """
    found = frame[frame[NAME].notna()].groupby(["run", NAME], sort=False)
    return [_evolution(str(run), str(name), rows, value) for (run, name), rows in found]


def _evolution(run: str, name: str, rows: pd.DataFrame, value: str) -> Evolution:
    x = np.unique(rows[POSITION].to_numpy(float))
    columns = np.searchsorted(x, rows[POSITION].to_numpy(float))
    lists = [np.atleast_1d(np.asarray([] if entry is None else entry, float)) for entry in rows[value]]
    width = max((len(entry) for entry in lists), default=0)
    sums, counts = np.zeros((len(x), width)), np.zeros((len(x), width))
    for column, entry in zip(columns, lists, strict=True):
        known = np.isfinite(entry)
        sums[column, : len(entry)][known] += entry[known]
        counts[column, : len(entry)] += known
    return Evolution(run, name, x, np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))


def curve(label: str, x: Iterable[float], y: Iterable[Any]) -> Curve:
    """A curve of points in any order; null becomes nan."""
    places, values = np.asarray(list(x), float), np.asarray([np.nan if v is None else v for v in y], float)
    order = np.argsort(places, kind="stable")
    return Curve(label, places[order], values[order])


def mean_overview(overviews: Sequence[Overview]) -> Overview:
    """The mean over runs, where all of them have a number.

    Raises:
        UsageError: if they have no step in common.
    """
    x = shared_places([each.x for each in overviews])
    names = list(dict.fromkeys(name for each in overviews for name in each.names))
    stacked = np.full((len(overviews), len(names), len(x)), np.nan)
    statuses: dict[tuple[int, int], str] = {}
    for layer, each in enumerate(overviews):
        rows = [names.index(name) for name in each.names]
        kept = np.searchsorted(each.x, x)
        stacked[np.ix_([layer], rows, range(len(x)))] = each.values[:, kept]
        columns = {int(column): place for place, column in enumerate(kept)}
        statuses |= {(rows[row], columns[col]): why for (row, col), why in each.statuses.items() if col in columns}
    return Overview(mean_of(len(overviews)), tuple(names), x, stacked.mean(axis=0), statuses)


def mean_evolution(evolutions: Sequence[Evolution]) -> Evolution:
    """The mean and standard deviation over runs of one matrix, where all of them have a number.

    Raises:
        UsageError: if they have no step in common.
    """
    x = shared_places([each.x for each in evolutions])
    width = min(each.values.shape[1] for each in evolutions)
    stacked = np.stack([each.values[np.searchsorted(each.x, x), :width] for each in evolutions])
    return Evolution(mean_of(len(evolutions)), evolutions[0].name, x, stacked.mean(axis=0), deviation(stacked))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean and standard deviation over runs, where all of them have a number.

    Raises:
        UsageError: if they have no step in common.
    """
    x = shared_places([each.x for each in curves])
    stacked = np.stack([each.y[np.searchsorted(each.x, x)] for each in curves])
    return Curve(curves[0].label, x, stacked.mean(axis=0), deviation(stacked))


def deviation(stacked: Floats) -> Floats | None:
    """Standard deviation over the first axis, of a sample (n - 1 in the denominator); None of a single one."""
    return stacked.std(axis=0, ddof=1) if len(stacked) > 1 else None


def mean_of(runs: int) -> str:
    """What a mean over runs is called."""
    return f"mean of {runs} run{'s' * (runs != 1)}"


def shared_places(places: Sequence[Floats]) -> Floats:
    """Places that all runs have.

    Raises:
        UsageError: if there is none.
    """
    shared = places[0]
    for each in places[1:]:
        shared = np.intersect1d(shared, each)
    if not len(shared):
        raise UsageError("--over run: the runs have no step in common", remedy="Leave --over out, or choose with --run")
    return shared


def matching(names: Iterable[str], globs: Sequence[str]) -> list[str]:
    """The names that are, or match, one of the globs; a connection also by its kind or either of its ends."""
    return [
        name
        for name in names
        if any(each == glob or fnmatchcase(each, glob) for glob in globs for each in _aliases(name))
    ]


def _aliases(name: str) -> tuple[str, ...]:
    kind, colon, ends = name.partition(": ")
    return (name, kind, ends, *ends.split(" -> ")) if colon else (name,)


def middle(names: Sequence[str]) -> str:
    """The middle one of the names in the order of depth; of an even number the earlier of the two."""
    return names[(len(names) - 1) // 2]
