"""Charts of one matrix or connection: singular values and diagonals through training, or at one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spectra_cli.figures.page.document import Chart, Grid, Lines, Series
from spectra_cli.figures.report.grids import reference_note
from spectra_cli.figures.report.lists import Kept
from spectra_cli.figures.report.runrows import RunRows, four_digits
from spectra_cli.figures.rows.series import Floats


@dataclass(frozen=True)
class _Texts:
    key: str
    title: str
    symbol: str


TEXTS = {
    "rank": _Texts("singular_values", "Singular values", "s_i"),
    "sva": _Texts("agreement", "Agreement of singular vectors", "S_ii"),
    "align": _Texts("alignment", "Alignment of singular vectors", "A_ii"),
}
"""What the lists of a kind are called."""


def chart_of(kind: str, name: str, rows: RunRows, kept: Kept, places: Floats) -> Chart:
    """A chart of the lists of one matrix or connection.

    Singular values are lines through training, a diagonal is a heat map of index and step; of a single checkpoint
    either is one line against the index.

    Args:
        kind: a key of :data:`TEXTS`.
        name: of the matrix or connection.
        rows: of the kind and run.
        kept: of its lists.
        places: (columns,) of what is kept.
    """
    texts = TEXTS[kind]
    if len(places) == 1:
        return _against_index(texts, rows, kept, places[0])
    if kind == "rank":
        return _lines(texts, rows, kept, places)
    note = f" {reference_note(rows)}" if kind == "sva" else ""
    return _diagonal(texts, rows, kept, places, f"{_mean_in_words(rows, name)}{note}")


def _lines(texts: _Texts, rows: RunRows, kept: Kept, places: Floats) -> Lines:
    told = [f"the largest is {said}"] if (said := _ends(rows, kept.values[:, 0], places)) else []
    if kept.length > 1 and (said := _ends(rows, kept.values[:, -1], places)):
        told.append(f"the smallest {said}")
    return Lines(
        key=texts.key,
        title=texts.title,
        x_label=rows.label,
        y_label=texts.symbol,
        series=[
            Series(name=f"i = {index + 1}", x=places, y=kept.values[:, column])
            for column, index in enumerate(kept.indices)
        ],
        summary=f"{_of(kept)} singular values: {', '.join(told) or 'none is known'}.",
        x_scale="linear" if rows.clock == "checkpoint" else "step",
        y_scale="log",
        ordered=True,
    )


def _diagonal(texts: _Texts, rows: RunRows, kept: Kept, places: Floats, note: str) -> Grid:
    return Grid(
        key=texts.key,
        title=texts.title,
        value_label=texts.symbol,
        x=rows.axis(places),
        y_label="index i",
        names=[str(index + 1) for index in kept.indices],
        values=np.ascontiguousarray(kept.values.T),
        domain=(0.0, 1.0),
        summary=f"{texts.symbol} of {_of(kept)} pairs of singular vectors.{note}",
        ordered=True,
    )


def _against_index(texts: _Texts, rows: RunRows, kept: Kept, place: float) -> Lines:
    values = kept.values[0]
    known = values[np.isfinite(values)]
    ends = f"the first is {four_digits(known[0])}, the last {four_digits(known[-1])}" if len(known) else "none is known"
    return Lines(
        key=texts.key,
        title=texts.title,
        x_label="index i",
        y_label=texts.symbol,
        series=[Series(name=rows.at(place), x=kept.indices + 1, y=values)],
        summary=f"{texts.symbol} against i at {rows.at(place)}, {_of(kept)} of them: {ends}.",
        x_scale="linear",
        y_scale="log" if texts is TEXTS["rank"] else "linear",
    )


def _mean_in_words(rows: RunRows, name: str) -> str:
    said = rows.scores(name)
    return f" Mean over i <= 10: {said}." if said else ""


def _ends(rows: RunRows, values: Floats, places: Floats) -> str:
    """The first and the last of some numbers in words; empty if none is finite."""
    known = np.flatnonzero(np.isfinite(values))
    said = (
        [f"{four_digits(values[column])} at {rows.at(places[column])}" for column in known[[0, -1]]]
        if len(known)
        else []
    )
    return ", ".join(dict.fromkeys(said))


def _of(kept: Kept) -> str:
    """How many indices are drawn, and of how many."""
    return str(kept.length) if len(kept.indices) == kept.length else f"{len(kept.indices)} of {kept.length}"
