"""Figures of metrics against steps: of training and validation, and of the full model beside its pruned variants."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.overview import not_averaged
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.metriccurves import (
    LOOK_AT_STATUS,
    MOST_CURVES,
    Panel,
    check_places,
    gap_notices,
    in_order_of_variants,
    split_panels,
    value_scale,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_LABELS: Mapping[str, str] = {
    "error": "error (fraction)",
    "cer": "character error rate",
    "wer": "word error rate",
}
"""Labels of axes, by metric. A loss stands under its own name, for its unit is the task's."""

MOST_FIGURES = 20
"""Limit for one kind; a broken table may have any number of metrics."""

MOST_RUNS_DOWN = 4
"""Runs below one another before another column begins, where a run has several panels in a row."""


@dataclass(frozen=True)
class Setting:
    """What all panels of a figure share.

    Attributes:
        clock: what x is: ``step``, ``epoch`` or ``checkpoint``.
        choice: of the user.
        legend: heading of the legend; may be empty.
    """

    clock: str
    choice: Choice
    legend: str = ""


def metric_label(metric: str) -> str:
    """What an axis of a metric says."""
    return METRIC_LABELS.get(metric) or axes.plain(metric, 40)


def draw_metrics(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """A figure for each metric of training, with a curve for each split and a panel for each run.

    Raises:
        NothingToDraw: if there are no values, or those of one step only.
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    frame, clock = gathered.evolving("metrics", ["split", "metric", "value", "status"])
    rows = frame.assign(curve=frame.split.astype(str), part="", replicate=0.0)
    return _figures("metrics", rows, Setting(clock, choice))


def draw_pruning(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """A figure for each metric, with a curve for each variant and fraction kept, and a panel for each split and run.

    Random masks are averaged over their seeds, with a band of one standard deviation.

    Raises:
        NothingToDraw: if there are no values, or those of one step only.
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    columns = ["variant", "keep", "seed", "split", "metric", "value", "status"]
    frame, clock = gathered.evolving("prune_eval", columns)
    rows = in_order_of_variants(frame)
    rows = rows.assign(part=rows.split.astype(str), replicate=rows.seed.fillna(-1.0))
    return _figures("pruning", rows, Setting(clock, choice, "fraction kept"))


def draw_panels(grid: Sequence[Axes], panels: Sequence[Panel], metric: str, setting: Setting) -> list[str]:
    """Draw each panel on an axis, with one legend, in the last of the first row.

    Args:
        grid: the axes, row by row.
        panels: as many.
        metric: of all curves.
        setting: of the figure.

    Returns:
        Notices on what the axes cannot show.
    """
    choice, clock = setting.choice, setting.clock
    drawn = [curve for panel in panels for curve in panel.curves]
    scale = value_scale(metric, np.concatenate([curve.y for curve in drawn]), choice.y_scale)
    corner = min(len(grid), _columns(grid[0])) - 1
    hidden, unseen = 0, 0
    for place, (axis, panel) in enumerate(zip(grid, panels, strict=True)):
        hidden += axes.curves(axis, panel.curves, choice.x_scale, scale, legend=place == corner)
        x = np.concatenate([curve.x for curve in panel.curves])
        unseen = max(unseen, axes.step_axis(axis, x, clock, choice.x_scale))
        run = f"{panel.run}, band: 1 standard deviation" if choice.over else panel.run
        axes.title(axis, f"{axes.plain(panel.part, 24)} {axes.plain(metric, 40)}".strip(), run)
        if place % _columns(axis) == 0:
            axis.set_ylabel(metric_label(metric))
    head_legend(grid[corner], setting.legend)
    return [*axes.left_out(unseen, clock), *axes.left_out(hidden, "value")]


def head_legend(axis: Axes, heading: str) -> None:
    """Put a heading above the entries of a legend, if there is one."""
    legend = axis.get_legend()
    if legend is not None and heading:
        legend.set_title(heading)
        legend.get_title().set_fontsize(legend.get_texts()[0].get_fontsize())


def heading(figure: Figure, *lines: str) -> None:
    """Set the title of a whole figure, each line no wider than it is; the lines are made plain here."""
    size = 9.0
    width = int(figure.get_size_inches()[0] / (axes.LETTER_IN * size))
    figure.suptitle("\n".join(axes.plain(line, width) for line in lines), fontsize=size)


def _figures(kind: str, rows: pd.DataFrame, setting: Setting) -> list[Drawn]:
    """A figure for each metric.

    Args:
        kind: of figure.
        rows: as of :func:`split_panels`, with ``metric`` (null in rows of a whole checkpoint) and ``status``.
        setting: of the figures.
    """
    check_places(rows[POSITION].to_numpy(float), setting.clock)
    known = np.isfinite(rows.value.astype(float))
    metrics = [str(metric) for metric in rows[known & rows.metric.notna()].sort_index().metric.drop_duplicates()]
    if not metrics:
        raise NothingToDraw("no row has a value", remedy=LOOK_AT_STATUS)
    drawn = [_figure(kind, metric, rows, setting) for metric in metrics[:MOST_FIGURES]]
    return bounded(drawn, len(metrics), "metrics")


def _figure(kind: str, metric: str, rows: pd.DataFrame, setting: Setting) -> Drawn:
    failed = rows[rows.metric.isna()]
    of_metric = rows[rows.metric == metric]
    panels = split_panels(of_metric, failed, setting.choice.over)
    parts = len({panel.part for panel in panels})
    figure, grid = axes.panels(len(panels), **_layout(len(panels) // parts, parts))
    notices = [*gap_notices(of_metric, f"values of {metric}"), *gap_notices(failed, "checkpoints")]
    notices += _not_averaged(of_metric, panels, setting.clock) if setting.choice.over else []
    labels = of_metric.curve.nunique()
    if labels > MOST_CURVES:
        notices.append(f"only the first {MOST_CURVES} of {labels} curves are drawn")
    notices += draw_panels(grid, panels, metric, setting)
    runs = list(dict.fromkeys(panel.run for panel in panels))
    of_runs = f": {', '.join(runs[:4])}{', ...' * (len(runs) > 4)}" if runs != ["."] else ""
    about = f"{metric} against {setting.clock}{of_runs}"
    return Drawn(file_name(kind, metric), figure, about, tuple(notices))


def _layout(runs: int, parts: int) -> dict[str, Any]:
    """How panels are arranged: of several to a run, those of a run stand in one row."""
    if parts == 1:
        return {}
    columns = parts * ceil(runs / MOST_RUNS_DOWN)
    size = min(1.0, 4 / columns)
    return {"columns": columns, "width_in": 4.8 * size, "height_in": 3.6 * size}


def _columns(axis: Axes) -> int:
    """How many panels stand in a row of the figure."""
    place = axis.get_subplotspec()
    return 1 if place is None else int(place.get_gridspec().ncols)


def _not_averaged(rows: pd.DataFrame, panels: Sequence[Panel], clock: str) -> list[str]:
    """Which places and curves the mean over runs leaves out, as not all runs have them."""
    curves = [curve for panel in panels for curve in panel.curves]
    places = np.unique(np.concatenate([curve.x for curve in curves]))
    lacking = dict.fromkeys(curve.label for curve in curves if not len(curve.x))
    notices = not_averaged([np.unique(rows[POSITION].to_numpy(float))], places, clock)
    return [*notices, *(f"{label} is left out, as not all runs have it" for label in lacking)]


def file_name(kind: str, *parts: str) -> str:
    """A name of a file, without a suffix, that any file system takes.

    Args:
        kind: of figure.
        parts: from files; what is no letter, digit, dot, dash, at or underscore becomes an underscore, and a long one
            loses its middle.
    """
    safe = (re.sub(r"[^A-Za-z0-9.@_-]+", "_", part[:1000]) for part in parts)
    return "-".join([kind, *(each if len(each) <= 60 else f"{each[:28]}...{each[-29:]}" for each in safe)])


def bounded(drawn: Sequence[Drawn], count: int, what: str) -> list[Drawn]:
    """Figures with names that differ even on file systems that fold case; the last one says if there would be more.

    Args:
        drawn: the figures.
        count: how many there would be.
        what: they are one each of.
    """
    used: dict[str, int] = {}
    named = []
    for each in drawn:
        used[each.name.lower()] = number = used.get(each.name.lower(), 0) + 1
        named.append(each if number == 1 else replace(each, name=f"{each.name}-{number}"))
    if count > len(named):
        more = f"only the first {len(named)} of {count} {what} are drawn"
        named[-1] = replace(named[-1], notices=(*named[-1].notices, more))
    return named
