"""The papers' panel of four: error, singular values, effective rank and alignment against the same steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, with_notices
from spectra_cli.figures.plots.evolving import select
from spectra_cli.figures.plots.metrics import MOST_FIGURES, bounded, file_name, heading, metric_label
from spectra_cli.figures.plots.overview import empty_cells, name_rows, not_averaged, primary_connections
from spectra_cli.figures.rows.acrossruns import cut_short, names_in_all, runs_without
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.metriccurves import (
    LOOK_AT_STATUS,
    Panel,
    check_places,
    gap_notices,
    mean_or_nothing,
    split_panels,
    value_scale,
)
from spectra_cli.figures.rows.series import (
    NAME,
    Evolution,
    Floats,
    Overview,
    evolutions,
    mean_evolution,
    mean_of,
    mean_overview,
    overviews,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VALUE = "effective_rank_normalized"

PREFERRED = ("error", "cer", "wer", "loss")
"""Which metric is drawn: the first of these that there is, else the first of the table."""

GIVE_METRICS = (
    "Give the metrics.parquet of the run as well (spectra train writes it), or the table of spectra prune-eval"
)


@dataclass(frozen=True)
class Four:
    """What the panels of a figure show, of one run or of the mean over runs.

    Attributes:
        error: curves of the metric.
        spectrum: singular values of one matrix.
        ranks: effective rank / R of all matrices.
        alignments: scores of all connections.
    """

    error: Panel
    spectrum: Evolution
    ranks: Overview
    alignments: Overview


def draw_grokking(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """A figure for each run and matrix: error, singular values of the matrix, effective rank and alignment.

    Raises:
        NothingToDraw: if there are no metrics, or no run has all that is drawn.
        UsageError: if a glob matches no matrix, or a mean over runs is wanted of runs with no step in common.
    """
    ranks, clock = gathered.evolving("rank", ["parameter", "depth", "rows", "cols", VALUE, "status"])
    check_places(ranks[POSITION].to_numpy(float), clock)
    ranks[NAME] = ranks.parameter
    metric, errors = _errors(gathered, clock)
    by_run = _common_runs(
        {each.run: each for each in overviews(ranks, VALUE)},
        {each.run: each for each in _alignments(gathered, clock)},
        {each.run: each for each in split_panels(errors, errors.iloc[:0], None)},
    )
    ok = _with_spectra(ranks)
    of_all = names_in_all(ok[ok.run.isin(list(by_run))], ranks)
    selected = select(list(ok[NAME].drop_duplicates()), choice.parameter, "matrix", of_all)
    spectra = _spectra(gathered, selected.names, clock)
    notices = gap_notices(errors, f"values of {metric}")
    notices += _lacking(spectra, selected.names, ranks[ranks.run.isin(list(by_run))])
    fours = [
        Four(error, spectra[run, name], rank, alignment)
        for run, (rank, alignment, error) in by_run.items()
        for name in selected.names
        if (run, name) in spectra
    ]
    if choice.over and fours:
        places = [four.ranks.x for four in fours]
        notices += _cut_short(fours)
        by_name = {name: [four for four in fours if four.spectrum.name == name] for name in selected.names}
        fours = [_mean(group) for group in by_name.values() if group]
        notices += not_averaged(places, fours[0].ranks.x, clock)
    if not fours:
        raise NothingToDraw("the matrix has no singular values", remedy=LOOK_AT_STATUS)
    drawn = [_figure(four, metric, clock, choice) for four in fours[:MOST_FIGURES]]
    if selected.how:
        drawn = [replace(each, about=f"{each.about} (the matrix is {selected.how})") for each in drawn]
    lacking = [run for run in dict.fromkeys(ranks.run) if run not in by_run]
    notices += [f"{run} has not all that is drawn, and is left out" for run in lacking[:MOST_TOLD]]
    return with_notices(bounded(drawn, len(fours), "runs and matrices"), notices)


MOST_TOLD = 8
"""Runs that are told one by one."""


def _errors(gathered: Gathered, clock: str) -> tuple[str, pd.DataFrame]:
    """The metric that is drawn, and its rows of the full model as :func:`split_panels` takes them.

    Rows are those of training where a run has them, else of the evaluation of whole checkpoints.

    Raises:
        NothingToDraw: if there are none, or they have other places than the checkpoints.
    """
    columns = ["split", "metric", "value", "status"]
    parts: list[pd.DataFrame] = []
    for kind, where in (("metrics", None), ("prune_eval", {"variant": ["full"]})):
        if kind in gathered:
            rows, of_rows = gathered.evolving(kind, columns, where)
            if of_rows != clock and clock == "epoch":  # metrics have both
                rows = rows.assign(**{POSITION: rows.epoch.astype(float)})
            elif of_rows != clock:
                continue
            known = {run for part in parts for run in part.run}
            parts.append(rows[~rows.run.isin(known) & rows.metric.notna() & rows[POSITION].notna()])
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "run"])
    if not np.isfinite(found.value.astype(float)).any():
        raise NothingToDraw(f"there is no error, or other metric, by {clock}", remedy=GIVE_METRICS)
    metrics = list(dict.fromkeys(found.metric[np.isfinite(found.value.astype(float))].astype(str)))
    metric = next((name for name in PREFERRED if name in metrics), metrics[0])
    rows = found[found.metric == metric]
    return metric, rows.assign(curve=rows.split.astype(str), part="", replicate=0.0)


def _alignments(gathered: Gathered, clock: str) -> list[Overview]:
    """Alignment scores of all connections, by run; of the rows that the papers use.

    Raises:
        NothingToDraw: if they have other places than the matrices.
    """
    rows, of_rows = primary_connections(gathered, ["depth", "score", "status"])
    if of_rows != clock:
        raise NothingToDraw(f"effective ranks are by {clock}, alignments by {of_rows}", remedy="Make both again")
    return overviews(rows, "score")


def _common_runs(
    ranks: Mapping[str, Overview], alignments: Mapping[str, Overview], errors: Mapping[str, Panel]
) -> dict[str, tuple[Overview, Overview, Panel]]:
    """Panels of the runs that have all of them.

    Raises:
        NothingToDraw: if none has.
    """
    runs = [run for run in ranks if run in alignments and run in errors]
    if not runs:
        raise NothingToDraw("no run has metrics, effective ranks and alignments", remedy=GIVE_METRICS)
    return {run: (ranks[run], alignments[run], errors[run]) for run in runs}


def _with_spectra(ranks: pd.DataFrame) -> pd.DataFrame:
    """Rows of matrices with several singular values in the order of depth: those of which one is the middle one."""
    ok = ranks[(ranks.status == "ok") & (ranks[["rows", "cols"]].min(axis=1) > 1) & ranks[NAME].notna()]
    return ok.sort_values("depth", kind="stable")


def _lacking(spectra: Mapping[tuple[str, str], Evolution], names: Sequence[str], ranks: pd.DataFrame) -> list[str]:
    """Notices on runs that have all but the singular values of a matrix."""
    told = [each for name in names for each in runs_without(name, [run for run, of in spectra if of == name], ranks)]
    return [*told[:MOST_TOLD], *([f"{len(told) - MOST_TOLD} more such runs"] if len(told) > MOST_TOLD else [])]


def _cut_short(fours: Sequence[Four]) -> list[str]:
    """Notices on singular values that the means over runs leave out."""
    lengths: dict[str, list[int]] = {}
    for four in fours:
        lengths.setdefault(four.spectrum.name, []).append(four.spectrum.values.shape[1])
    return list(dict.fromkeys(told for each in lengths.values() for told in cut_short(each, "singular values")))


def _spectra(gathered: Gathered, names: Sequence[str], clock: str) -> dict[tuple[str, str], Evolution]:
    """Singular values of some matrices by run and name."""
    rows, of_rows = gathered.evolving("rank", ["parameter", "singular_values"], {"parameter": names})
    rows[NAME] = rows.parameter
    found = evolutions(rows, "singular_values") if of_rows == clock else []
    return {(each.run, each.name): each for each in found if each.values.size}


def _mean(fours: Sequence[Four]) -> Four:
    """The mean over runs."""
    columns = list(zip(*(four.error.curves for four in fours), strict=True))
    error = Panel(mean_of(len(fours)), "", tuple(mean_or_nothing(curves) for curves in columns))
    return Four(
        error,
        mean_evolution([four.spectrum for four in fours]),
        mean_overview([four.ranks for four in fours]),
        mean_overview([four.alignments for four in fours]),
    )


def _figure(four: Four, metric: str, clock: str, choice: Choice) -> Drawn:
    """Curves to the left, heat maps to the right, so that the names of matrices take room of one column only."""
    figure, (error, ranks, spectrum, alignments) = axes.panels(4, columns=2, width_in=6.6, share_y=False)
    notices = [*_draw_error(error, four.error, metric, choice), *_draw_spectrum(spectrum, four.spectrum, choice)]
    maps = ((ranks, four.ranks, "effective rank / R"), (alignments, four.alignments, "alignment score"))
    for axis, shown, name in maps:
        colours = axes.heat_map(axis, shown.x, shown.values, choice.x_scale, labels=shown.names)
        axes.colour_bar(figure, colours, [axis], name)
        axes.title(axis, name)
        name_rows(axis, shown.names)
        notices += [f"{name}: {notice}" for notice in empty_cells(shown)]
    drawn = [*(curve.x for curve in four.error.curves), four.spectrum.x, four.ranks.x, four.alignments.x]
    x = np.unique(np.concatenate(drawn))
    unseen = max(axes.step_axis(axis, x, clock, choice.x_scale) for axis in (error, ranks, spectrum, alignments))
    if choice.x_scale != "log" or (x > 0).any():
        _share_x((error, spectrum), (ranks, alignments), x[(x > 0) | (choice.x_scale != "log")])
    run, matrix = four.ranks.run, four.spectrum.name
    of_run = [] if run == "." else [run]
    heading(figure, f"{run}, bands: 1 standard deviation" if choice.over else "".join(of_run))
    about = "; ".join([f"{metric}, singular values of {matrix}, effective rank, alignment", *of_run])
    notices += axes.left_out(unseen, clock)
    return Drawn(file_name("grokking", *of_run, matrix), figure, about, tuple(notices))


def _draw_error(axis: Axes, panel: Panel, metric: str, choice: Choice) -> tuple[str, ...]:
    scale = value_scale(metric, np.concatenate([curve.y for curve in panel.curves]), choice.y_scale)
    hidden = axes.curves(axis, panel.curves, choice.x_scale, scale)
    axes.title(axis, axes.plain(metric, 40))
    axis.set_ylabel(metric_label(metric))
    return axes.left_out(hidden, "value")


def _draw_spectrum(axis: Axes, spectrum: Evolution, choice: Choice) -> tuple[str, ...]:
    scale = value_scale("singular value", spectrum.values, choice.y_scale)
    hidden = axes.index_lines(axis, spectrum.x, spectrum.values, spectrum.deviation, choice.x_scale, scale)
    axes.title(axis, "singular values", spectrum.name)
    axis.set_ylabel("singular value (weight)")
    return axes.left_out(hidden, "singular value")


def _share_x(curves: Sequence[Axes], maps: Sequence[Axes], x: Floats) -> None:
    """Give all panels the same limits, but for the margins that curves need and cells would show as empty."""
    edges = [edge for axis in maps if axis.collections for edge in axis.get_xlim()]
    low, high = min([*edges, *x]), max([*edges, *x])
    for axis in maps:
        axis.set_xlim(low, high)
    for axis in curves:
        own = axis.get_xlim() if axis.dataLim.width > 0 else (low, high)
        axis.set_xlim(min(low, own[0]), max(high, own[1]))
