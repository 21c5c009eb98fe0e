"""The curves of a report: metrics of training, and of pruned models, against steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from spectra_cli.figures.page.document import Lines, Series
from spectra_cli.figures.report.budget import points_of, spread
from spectra_cli.figures.report.runrows import four_digits, whole
from spectra_cli.figures.rows.gathered import CLOCK_LABELS, POSITION, Gathered
from spectra_cli.figures.rows.metriccurves import in_order_of_variants, split_panels, value_scale
from spectra_cli.figures.rows.series import Curve

MOST_METRICS = 12
"""Limit for metrics with charts, of training and of pruned models each."""

MOST_LINES = 16
"""Limit for one chart: more cannot be told apart."""

MOST_TOLD = 5
"""Lines of which a summary tells the ends."""

Charts = dict[str, list[Lines]]
"""Charts by run."""


def metric_curves(gathered: Gathered) -> tuple[Charts, list[str]]:
    """Charts by run, one for each metric of training with a line for each split; and what was left out.

    Raises:
        InputError: if a file is damaged.
    """
    if "metrics" not in gathered:
        return {}, []
    frame, clock = gathered.evolving("metrics", ["split", "metric", "value"])
    return _by_run(frame.assign(curve=frame.split.astype(str), part="", replicate=0.0), clock, "metric")


def pruning_curves(gathered: Gathered) -> tuple[Charts, list[str]]:
    """Charts by run, one for each metric and split with a line for each variant; and what was left out.

    Random masks are averaged over their seeds, with a band of one standard deviation.

    Raises:
        InputError: if a file is damaged.
    """
    if "prune_eval" not in gathered:
        return {}, []
    frame, clock = gathered.evolving("prune_eval", ["split", "metric", "value", "variant", "keep", "seed"])
    rows = in_order_of_variants(frame)
    return _by_run(rows.assign(part=rows.split.astype(str), replicate=rows.seed.fillna(-1.0)), clock, "pruning")


def _by_run(frame: pd.DataFrame, clock: str, kind: str) -> tuple[Charts, list[str]]:
    """Charts of each run, of every metric and part one.

    Args:
        frame: as of :func:`split_panels`, with ``metric``, which is null in rows of a whole checkpoint.
        clock: what ``x`` is.
        kind: ``metric`` or ``pruning``: first word of the keys of charts.
    """
    frame = frame[np.isfinite(frame[POSITION].to_numpy(float))]
    named, failed = frame[frame.metric.notna()], frame[frame.metric.isna()]
    metrics = list(named.sort_index().metric.drop_duplicates())
    most = points_of(len(named[["run", "metric", "part", "curve"]].drop_duplicates()))
    what = "pruned models" if kind == "pruning" else "training"
    limits = [f"{MOST_METRICS} of {len(metrics)} metrics of {what} are drawn."] if len(metrics) > MOST_METRICS else []
    charts: Charts = {}
    for metric in metrics[:MOST_METRICS]:
        for panel in split_panels(named[named.metric == metric], failed, None):
            own = charts.setdefault(panel.run, [])
            chart, left_out = lines_of(
                panel.curves,
                key=f"{kind}_{len(own)}",
                title=f"Pruned models: {metric}, {panel.part}" if kind == "pruning" else f"Training: {metric}",
                labels=(CLOCK_LABELS[clock], str(metric)),
                x_scale="linear" if clock == "checkpoint" else "step",
                most=most,
                place=f"{clock} {{}}",
            )
            if any(np.isfinite(series.y).any() for series in chart.series):
                own.append(chart)
                limits += left_out
    return {run: own for run, own in charts.items() if own}, list(dict.fromkeys(limits))


def lines_of(
    curves: Sequence[Curve],
    *,
    key: str,
    title: str,
    labels: tuple[str, str],
    x_scale: Literal["step", "linear"],
    most: int,
    place: str = "{}",
    peaks: bool = False,
) -> tuple[Lines, list[str]]:
    """A chart with a line for each curve that has points; and what was left out.

    Args:
        curves: in the order of a legend.
        key: of the chart.
        title: of the chart.
        labels: of x and y; the latter is the metric.
        x_scale: of the chart.
        most: points of a line; more are thinned evenly.
        place: what the summary calls a place, with ``{}`` for its number.
        peaks: whether the summary tells the largest value of each line, instead of the first and the last; of a line
            that lacks some it is unknown.
    """
    drawn = [curve for curve in curves if len(curve.x)]
    series = [_thinned(curve, most) for curve in drawn[:MOST_LINES]]
    told = [f"{each.label}: {said}" for each in drawn[:MOST_TOLD] if (said := _said(each, place, peaks=peaks))]
    more = [f"and {len(drawn) - MOST_TOLD} more lines"] if len(drawn) > MOST_TOLD else []
    values = np.concatenate([np.empty(0), *(each.y for each in series)])
    chart = Lines(
        key=key,
        title=title,
        x_label=labels[0],
        y_label=labels[1],
        series=series,
        summary=f"{'; '.join([*told, *more]) or 'There is no value'}.",
        x_scale=x_scale,
        y_scale=value_scale(labels[1], values, "auto"),
    )
    limits = [f"{MOST_LINES} of {len(drawn)} lines of '{title}' are drawn."] if len(drawn) > MOST_LINES else []
    points = max((len(curve.x) for curve in drawn), default=0)
    if points > most:
        limits.append(f"Curves have {most} of up to {points} points, evenly spaced: peaks between them are not seen.")
    return chart, limits


def _thinned(curve: Curve, most: int) -> Series:
    kept = spread(len(curve.x), most)
    band = None if curve.deviation is None else curve.deviation[kept]
    return Series(name=curve.label, x=curve.x[kept], y=curve.y[kept], band=band)


def _said(curve: Curve, place: str, *, peaks: bool) -> str:
    """The first and the last value of a line in words, or the largest if all are known; empty if there is none."""
    known = np.flatnonzero(np.isfinite(curve.y))
    if not len(known):
        return ""
    if peaks and len(known) < len(curve.y):
        return f"unknown ({len(curve.y) - len(known)} of {len(curve.y)} values missing)"
    chosen = [known[np.argmax(curve.y[known])]] if peaks else known[[0, -1]]
    said = [f"{four_digits(float(curve.y[at]))} at {place.format(whole(float(curve.x[at])))}" for at in chosen]
    return f"{'at most ' * peaks}{', '.join(dict.fromkeys(said))}"
