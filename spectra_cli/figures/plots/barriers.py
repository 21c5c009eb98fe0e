"""Figures of pairs of checkpoints: metrics on the line between them, barriers of many, agreement of their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, ValueScale, with_notices
from spectra_cli.figures.plots.metrics import MOST_FIGURES, bounded, file_name, heading, metric_label
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.metriccurves import LOOK_AT_STATUS, gap_notices, value_scale
from spectra_cli.figures.rows.pairs import (
    LABEL,
    PAIR,
    STEP_LABELS,
    failures,
    paired,
    placed,
    remedy_for_tag,
    tags_of,
    too_many,
)
from spectra_cli.figures.rows.series import Curve, Floats, curve, deviation
from spectra_cli.shortening import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_METRICS = 12
"""Panels of one figure."""

MOST_SPLITS = 12
"""Curves of one panel."""

CHORD = (0, (2, 2))
"""Dashes of the straight line between the ends."""


LARGEST = 1e300
"""What an axis can show: matplotlib cannot make ticks up to the largest of all numbers."""


def _drawable(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows with gaps for numbers that no axis can show, and a notice on them."""
    vast = frame[columns].astype(float).abs() > LARGEST
    count = int(vast.to_numpy().sum())
    said = [f"values beyond {LARGEST:g} are not drawn ({count})"] if count else []
    return frame.assign(**{name: frame[name].mask(vast[name]) for name in columns}), said


def draw_barrier_line(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """A figure for each pair: metrics on the line between A and B, with the chord and the barrier.

    The vertical axis is linear unless the user says otherwise, as a barrier is a difference.

    Raises:
        NothingToDraw: if no pair has a value.
    """
    columns = ["split", "metric", "alpha", "value", "chord", "excess", "barrier", "status"]
    frame, vast = _drawable(paired(gathered, "barrier", columns), columns[3:7])
    failed = [*failures(frame[frame.metric.isna()]), *vast]
    known = frame[frame.metric.notna()]
    groups = [rows for _, rows in known.groupby(PAIR, sort=False) if np.isfinite(rows.value.astype(float)).any()]
    if not groups:
        raise NothingToDraw("no pair has a value", remedy=LOOK_AT_STATUS)
    drawn = [_line_figure(rows, choice) for rows in groups[:MOST_FIGURES]]
    return with_notices(bounded(drawn, len(groups), "pairs"), failed)


def _line_figure(rows: pd.DataFrame, choice: Choice) -> Drawn:
    label = str(rows[LABEL].iloc[0])
    metrics = list(dict.fromkeys(rows.metric.astype(str)))
    figure, grid = axes.panels(min(len(metrics), MOST_METRICS), share_y=False)
    hidden = 0
    for axis, metric in zip(grid, metrics, strict=False):
        hidden += _draw_line(axis, rows[rows.metric == metric], choice.y_scale)
        axes.title(axis, axes.plain(metric, 40))
        axis.set_xlabel("alpha (0: A, 1: B)")
        axis.set_ylabel(metric_label(metric))
    heading(figure, f"A to B: {label}", "dotted: chord, straight between the ends; vertical: barrier")
    notices = [
        *too_many(len(metrics), MOST_METRICS, "metrics"),
        *too_many(rows.split.nunique(), MOST_SPLITS, "splits"),
        *gap_notices(rows.assign(run=rows[LABEL]), "values"),
        *axes.left_out(hidden, "value"),
    ]
    about = f"metrics on the line from {label.replace(' to ', ' (A) to ')} (B)"
    return Drawn(file_name("barrier_line", label), figure, about, tuple(notices))


def _draw_line(axis: Axes, rows: pd.DataFrame, chosen: ValueScale) -> int:
    """Draw one metric of a pair: on the axis are first the curves, then their chords, then lines at the barriers."""
    splits = [part for _, part in rows.groupby(rows.split.astype(str), sort=False)][:MOST_SPLITS]
    scale = _linear_unless_chosen(rows.value, chosen)
    drawn = [curve(_with_barrier(part), part.alpha, part.value) for part in splits]
    axis.margins(x=0.02)
    if scale == "linear":
        _leave_room(axis, rows[["value", "chord"]].to_numpy(float), len(splits))
    hidden = axes.curves(axis, drawn, "linear", scale)
    colours = [line.get_color() for line in axis.lines]
    for part, colour in zip(splits, colours, strict=True):
        chord = curve("", part.alpha, part.chord.where((part.chord > 0) | (scale == "linear")))
        axis.plot(chord.x, chord.y, color=colour, linestyle=CHORD, linewidth=0.9, zorder=1.5)
    for part, colour in zip(splits, colours, strict=True):
        excess = part.excess.to_numpy(float)
        if np.isfinite(excess).any() and np.nanmax(excess) > 0:
            place = int(np.nanargmax(excess))
            at, low, high = (float(part[name].iloc[place]) for name in ("alpha", "chord", "value"))
            low = low if low > 0 or scale == "linear" else high
            axis.plot([at, at], [low, high], color=colour, linestyle="-", linewidth=0.9, marker="_", zorder=1.5)
    return hidden


def _with_barrier(rows: pd.DataFrame) -> str:
    """A split with its barrier, for the legend."""
    known = rows.barrier[np.isfinite(rows.barrier.astype(float))]
    return f"{shortened(str(rows.split.iloc[0]), 16)}: barrier {f'{known.iloc[0]:.3g}' if len(known) else 'unknown'}"


def _leave_room(axis: Axes, values: Floats, entries: int) -> None:
    """Make the vertical axis longer at its top, for a legend: curves between two ends often fill all four corners."""
    known = values[np.isfinite(values)]
    if len(known):
        low, high = float(known.min()), float(known.max())
        height = (high - low) or abs(high) or 1.0
        axis.set_ylim(low - 0.05 * height, high + (0.1 + 0.1 * min(entries, 5)) * height)


def draw_barrier_against(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """One figure: barriers of pairs against a tag, with a panel for each metric and a curve for each split.

    Pairs with the same place are averaged, with error bars of one standard deviation, and shown as points as well.

    Raises:
        NothingToDraw: if no tag is chosen, there are no barriers, or all are at one place.
        UsageError: if the tag that is chosen is in no table, or is no number.
    """
    if choice.x is None:
        raise NothingToDraw("barriers are drawn against a tag", remedy=remedy_for_tag(tags_of(gathered)))
    frame, notices = placed(gathered, "barrier", ["split", "metric", "barrier", "status"], choice.x)
    frame, vast = _drawable(frame, ["barrier"])
    failed = [*failures(frame[frame.metric.isna()]), *vast]
    single = _one_of_each(frame[frame.metric.notna()])
    if not np.isfinite(single.barrier.astype(float)).any():
        raise NothingToDraw("no pair has a barrier", remedy=LOOK_AT_STATUS)
    _check_places(single[POSITION], choice.x)
    metrics = list(dict.fromkeys(single.metric.astype(str)))
    figure, grid = axes.panels(min(len(metrics), MOST_METRICS), share_y=False)
    unseen, hidden = 0, 0
    for axis, metric in zip(grid, metrics, strict=False):
        hidden += _draw_against(axis, single[single.metric == metric], choice)
        unseen = axes.step_axis(axis, single[POSITION], STEP_LABELS.get(choice.x, choice.x), choice.x_scale)
        axes.title(axis, axes.plain(metric, 40))
        axis.set_ylabel(f"barrier of {metric_label(metric)}")
    pairs, places = single[PAIR].nunique(), single[POSITION].nunique()
    mean = ["mean of pairs at one place; error bars: 1 standard deviation"] if pairs > places else []
    heading(figure, f"barrier against {choice.x}, {pairs} pairs", *mean)
    notices = [
        *notices,
        *failed,
        *gap_notices(single.assign(run=single[LABEL], value=single.barrier), "barriers"),
        *too_many(len(metrics), MOST_METRICS, "metrics"),
        *too_many(single.split.nunique(), MOST_SPLITS, "splits"),
        *axes.left_out(unseen, "place"),
        *axes.left_out(hidden, "value"),
    ]
    about = f"barriers of {pairs} pairs against {choice.x}"
    return [Drawn(file_name("barrier_against", choice.x), figure, about, tuple(notices))]


def _one_of_each(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each pair, split and metric, whose rows have one barrier; its status is one not ok if any."""
    keys = [PAIR, "split", "metric"]
    bad = frame[frame.status != "ok"].drop_duplicates(keys).set_index(keys).status
    single = frame.sort_values("barrier", kind="stable").drop_duplicates(keys).sort_index()
    told = [bad.get(key, "ok") for key in single[keys].itertuples(index=False, name=None)]
    return single.assign(status=told, barrier=single.barrier.where(np.isfinite(single.barrier.astype(float))))


def _draw_against(axis: Axes, rows: pd.DataFrame, choice: Choice) -> int:
    """Draw one metric: the means, and where several pairs are at a place, error bars and each of the pairs.

    Error bars and no band, which would show nothing at a place whose neighbours have one pair only.
    """
    splits = [part for _, part in rows.groupby(rows.split.astype(str), sort=False)][:MOST_SPLITS]
    scale = _linear_unless_chosen(rows.barrier, choice.y_scale)
    drawn = [_mean_by_place(str(part.split.iloc[0]), part) for part in splits]
    hidden = axes.curves(axis, [replace(line, deviation=None) for line in drawn], choice.x_scale, scale)
    colours = [line.get_color() for line in axis.lines]
    for part, line, colour in zip(splits, drawn, colours, strict=True):
        if line.deviation is not None:
            barred = np.isfinite(line.y) & np.isfinite(line.deviation) & ((line.x > 0) | (choice.x_scale != "log"))
            bars, half = (line.x[barred], line.y[barred]), line.deviation[barred]
            axis.errorbar(*bars, yerr=half, fmt="none", ecolor=colour, elinewidth=0.9, capsize=3)
            shown = part[(part[POSITION] > 0) | (choice.x_scale != "log")]
            axis.scatter(shown[POSITION], shown.barrier.astype(float), s=9, color=colour, alpha=0.5, linewidths=0)
    return hidden


def _mean_by_place(label: str, rows: pd.DataFrame) -> Curve:
    """The mean over pairs at each place, where all of them have a number; no deviation if there is one pair at each."""
    found = rows.groupby(POSITION)
    values = [part.barrier.to_numpy(float) for _, part in found]
    means = np.array([each.mean() for each in values])
    spreads = [deviation(each) for each in values]
    several = any(each is not None for each in spreads)
    spread = np.array([np.nan if each is None else each for each in spreads], float) if several else None
    return Curve(label, np.unique(rows[POSITION].to_numpy(float)), means, spread)


def _check_places(x: pd.Series, tag: str) -> None:
    """Check that pairs are at more than one place.

    Raises:
        NothingToDraw: if they are not.
    """
    if x.nunique() < 2:
        raise NothingToDraw(
            f"all pairs have {tag} {x.iloc[0]:.6g}", remedy="Give tables of several, each made with its --tag"
        )


def _linear_unless_chosen(values: pd.Series, chosen: ValueScale) -> Literal["linear", "log"]:
    return value_scale("barrier", values.to_numpy(float), "linear" if chosen == "auto" else chosen)
