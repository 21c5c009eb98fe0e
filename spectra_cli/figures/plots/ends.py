"""Agreement of the two ends of pairs of checkpoints, against a tag or pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, with_notices
from spectra_cli.figures.plots.evolving import select
from spectra_cli.figures.plots.metrics import MOST_FIGURES, bounded, file_name, heading
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.kinds import ENDS
from spectra_cli.figures.rows.metriccurves import LOOK_AT_STATUS, gap_notices
from spectra_cli.figures.rows.pairs import LABEL, PAIR, STEP_LABELS, failures, paired, placed, too_many
from spectra_cli.figures.rows.series import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 200
"""Pairs of one heat map."""


def draw_ends_agreement(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """Agreement of the ends of pairs: scores of all matrices, and S_ii of one, against a tag or pair by pair.

    Raises:
        NothingToDraw: if no pair has a score, or the tables lack the tag that others have.
        UsageError: if a glob matches no matrix, or the tag that is chosen is in no table or is no number.
    """
    columns = ["depth", "parameter", "score", "diagonal", "status"]
    notices: list[str] = []
    if choice.x is None:
        frame = paired(gathered, ENDS, columns)
        frame[POSITION] = frame[PAIR] + 1.0
    else:
        frame, notices = placed(gathered, ENDS, columns, choice.x)
    notices += failures(frame[frame.parameter.isna()])
    known = frame[frame.parameter.notna()]
    known = known.assign(score=known.score.where(np.isfinite(known.score.astype(float))))
    if not known.score.notna().any():
        raise NothingToDraw("no pair has a score", remedy=LOOK_AT_STATUS)
    notices += gap_notices(known.assign(run=known[LABEL], value=known.score), "scores")
    names = list(known.sort_values("depth", kind="stable").parameter.drop_duplicates())
    selected = select(names, choice.parameter, "matrix")
    drawn = [_ends_figure(known, names, name, choice) for name in selected.names[:MOST_FIGURES]]
    if selected.how:
        drawn = [replace(each, about=f"{each.about} ({selected.how})") for each in drawn]
    return with_notices(bounded(drawn, selected.total, "matrices"), notices)


def _ends_figure(rows: pd.DataFrame, names: Sequence[str], name: str, choice: Choice) -> Drawn:
    """Two heat maps whose columns are evenly wide, as places of tags are often 0, 1, 2, 4, ..."""
    x = np.unique(rows[POSITION].to_numpy(float))[:MOST_COLUMNS]
    if choice.x is None:
        labels, what = rows.drop_duplicates(POSITION)[LABEL].astype(str).tolist()[: len(x)], "pair (A to B)"
    else:
        labels, what = [f"{place:.6g}" for place in x], axes.plain(STEP_LABELS.get(choice.x, choice.x))
    figure, (left, right) = axes.panels(2, share_y=False, height_in=5.2 if _rotation(labels) > 45 else 3.6)
    columns = np.arange(1.0, len(x) + 1)
    colours = axes.heat_map(left, columns, _scores(rows, names, x), "linear", labels=names)
    axes.heat_map(right, columns, _diagonals(rows[rows.parameter == name], x), "linear")
    axes.title(left, "agreement score of A and B")
    axes.title(right, "S_ii of A and B", name)
    left.set_ylabel("matrix (depth downwards)")
    right.set_ylabel("index i")
    axes.colour_bar(figure, colours, [left, right], "agreement")
    for axis in (left, right):
        _label_columns(axis, labels)
        axis.set_xlabel(what)
    pairs, against = rows[PAIR].nunique(), f"against {choice.x}" if choice.x else "pair by pair"
    mean = ", mean of pairs at one place" if pairs > rows[POSITION].nunique() else ""
    heading(figure, f"agreement of the ends of {pairs} pairs {against}{mean}")
    about = f"agreement of the ends of {pairs} pairs {against}; S_ii of {name}"
    notices = too_many(rows[POSITION].nunique(), MOST_COLUMNS, "columns")
    return Drawn(file_name("ends_agreement", name), figure, about, tuple(notices))


def _scores(rows: pd.DataFrame, names: Sequence[str], x: Floats) -> Floats:
    """(names, columns), the mean over pairs where all of them have a score."""
    means = rows.groupby(["parameter", POSITION]).score.agg(lambda scores: scores.astype(float).mean(skipna=False))
    return means.unstack().reindex(index=list(names), columns=x).to_numpy(float)


def _diagonals(rows: pd.DataFrame, x: Floats) -> Floats:
    """(entries, columns), the mean over pairs where all of them have a number."""
    lists = {place: [_entries(each) for each in part.diagonal] for place, part in rows.groupby(POSITION)}
    width = max((len(each) for group in lists.values() for each in group), default=0)
    values = np.full((width, len(x)), np.nan)
    for column, place in enumerate(x):
        padded = [np.pad(each, (0, width - len(each)), constant_values=np.nan) for each in lists.get(place, [])]
        if padded:
            values[:, column] = np.mean(padded, axis=0)
    return values


def _entries(diagonal: Any) -> Floats:
    """A list of a table, of floats; none where it is null."""
    return np.asarray(diagonal if isinstance(diagonal, np.ndarray) else [], np.float64)


def _label_columns(axis: Axes, labels: Sequence[str]) -> None:
    """Name the columns of a heat map, or every so many of them."""
    names, rotation = _names_below(labels), _rotation(labels)
    axis.set_xticks(range(1, len(labels) + 1, _every(labels)), names)
    if rotation:
        axis.tick_params(axis="x", labelrotation=rotation, labelsize=7)
        for text in axis.get_xticklabels():
            text.set_horizontalalignment("center" if rotation > 45 else "right")


def _names_below(labels: Sequence[str]) -> list[str]:
    return [axes.plain(label, LABEL_WIDTH) for label in labels[:: _every(labels)]]


def _every(labels: Sequence[str]) -> int:
    return -(-len(labels) // MOST_LABELS)


def _rotation(labels: Sequence[str]) -> float:
    """How far names are turned: not at all if they are short, aslant if they are few, else upright."""
    names = _names_below(labels)
    if sum(map(len, names)) <= LEVEL_LETTERS:
        return 0.0
    return 30.0 if len(names) <= MOST_ASLANT else 90.0


LABEL_WIDTH = 36
"""Columns of a name below a heat map."""

MOST_ASLANT = 6
"""Number of long names up to which they stand aslant; more stand upright."""

LEVEL_LETTERS = 30
"""Letters, in all names below a heat map, up to which they stand side by side."""

MOST_LABELS = 24
"""Names below a heat map."""
