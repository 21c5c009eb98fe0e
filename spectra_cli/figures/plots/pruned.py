"""Figures of what pruning leaves of singular vectors: the pruned matrix compared with the whole one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.canvas.heatmaps import index_ticks
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw
from spectra_cli.figures.plots.evolving import select
from spectra_cli.figures.plots.metrics import bounded, file_name, heading
from spectra_cli.figures.plots.overview import (
    NO_ROWS,
    OTHER_RUNS,
    RUN_COLUMNS,
    draw_map,
    empty_cells,
    map_panels,
    not_averaged,
    with_two_checkpoints,
)
from spectra_cli.figures.rows.acrossruns import cut_short, names_in_all, runs_without
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.kinds import PRUNED
from spectra_cli.figures.rows.metriccurves import LOOK_AT_STATUS, VARIANTS, mean_or_nothing
from spectra_cli.figures.rows.series import NAME, Curve, Floats, Overview, evolutions, mean_of, mean_overview, overviews
from spectra_cli.shortening import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIAGONAL_LABEL = "agreement S_ii"

PANEL_IN = 2.8
"""Width of a panel, of which several variants stand in a row."""

NAME_COLUMNS = 120
"""Limit for a name in :attr:`Drawn.about`."""

ByVariant = Mapping[str, Overview]
"""Scores of one run, of each of its variants."""


def draw_pruned_agreement(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """Agreement scores of what each variant leaves with the whole matrices: a row of panels for each run.

    All panels have the same rows; those of matrices that a variant does not prune are empty.

    Raises:
        NothingToDraw: if no run has two checkpoints, or no row has a score.
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    frame, clock = gathered.evolving(PRUNED, ["parameter", "depth", "score", "status", "variant"])
    frame[NAME] = frame.parameter
    variants = _variants(frame)
    by_run: dict[str, dict[str, Overview]] = {}
    for variant in variants:
        for each in overviews(frame[(frame.variant == variant) | frame.variant.isna()], "score"):
            by_run.setdefault(each.run, {})[variant] = each
    if not frame.empty and not frame.score.notna().any():
        raise NothingToDraw("no row has a score", remedy=LOOK_AT_STATUS)
    places = {run: np.unique(np.concatenate([each.x for each in found.values()])) for run, found in by_run.items()}
    kept, lacking = with_two_checkpoints(list(by_run), [list(x) for x in places.values()], clock)
    used = {run: by_run[run] for run, keeps in zip(by_run, kept, strict=True) if keeps}
    names = list(frame[frame.parameter.notna()].sort_values("depth", kind="stable").parameter.drop_duplicates())
    rows = [_row(run, found, variants, places[run], names) for run, found in used.items()]
    notices = [*lacking, *_unpruned(rows, variants)]
    if choice.over:
        rows = [[mean_overview([row[column] for row in rows]) for column in range(len(variants))]]
        notices += not_averaged([places[run] for run in used], rows[0][0].x, clock)
    figure, more = _maps(rows, variants, clock, choice)
    about = f"agreement of pruned with whole matrices: {', '.join(variants)}"
    return [Drawn("pruned_agreement", figure, about, (*notices, *more))]


def _maps(
    rows: Sequence[Sequence[Overview]], variants: Sequence[str], clock: str, choice: Choice
) -> tuple[Figure, tuple[str, ...]]:
    """Heat maps, a column for each variant, and notices."""
    names = rows[0][0].names
    count, columns = len(rows) * len(variants), len(variants)
    figure, grid = map_panels(count, names, len(names), columns=columns, width_in=PANEL_IN)
    unseen = 0
    notices: list[str] = []
    for place, axis in enumerate(grid):
        variant, shown = variants[place % columns], rows[place // columns][place % columns]
        colours, hidden = draw_map(axis, shown, clock, choice.x_scale, axes.plain(variant, RUN_COLUMNS))
        unseen = max(unseen, hidden)
        notices += [f"{variant}: {notice}" for notice in empty_cells(shown)]
    axes.colour_bar(figure, colours, grid, "agreement score")
    heading(figure, "agreement of pruned with whole matrices")
    return figure, (*notices, *axes.left_out(unseen, clock))


def _row(run: str, found: ByVariant, variants: Sequence[str], x: Floats, names: Sequence[str]) -> list[Overview]:
    """An overview for each variant, with the same rows and columns; nan where it has none."""
    return [_widened(found.get(variant, Overview(run, (), x, np.empty((0, len(x))))), x, names) for variant in variants]


def _widened(found: Overview, x: Floats, names: Sequence[str]) -> Overview:
    rows = np.array([names.index(name) for name in found.names], int)
    columns = np.searchsorted(x, found.x)
    values = np.full((len(names), len(x)), np.nan)
    values[np.ix_(rows, columns)] = found.values
    statuses = {(int(rows[row]), int(columns[column])): why for (row, column), why in found.statuses.items()}
    return Overview(found.run, tuple(names), x, values, statuses)


def _unpruned(rows: Sequence[Sequence[Overview]], variants: Sequence[str]) -> list[str]:
    """Notices on rows of panels that stay empty, as a variant has no row of these matrices."""
    notices = []
    for column, variant in enumerate(variants):
        names = rows[0][column].names
        known = {row for each in rows for row, _ in each[column].statuses}
        known |= {int(row) for each in rows for row in np.flatnonzero(np.isfinite(each[column].values).any(axis=1))}
        if len(known) < len(names):
            notices.append(f"{variant}: there are no rows of {len(names) - len(known)} of {len(names)} matrices")
    return notices


def draw_pruned_diagonal(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """S_ii of one matrix at the last checkpoint, what each variant leaves against the whole; a panel for each run.

    Raises:
        NothingToDraw: if no matrix has vectors.
        UsageError: if none matches.
    """
    frame, clock = gathered.evolving(PRUNED, ["parameter", "depth", "status", "variant"])
    if frame.empty:
        raise NothingToDraw(NO_ROWS, remedy=OTHER_RUNS)
    frame[NAME] = frame.parameter
    ok = frame[(frame.status == "ok") & frame.parameter.notna()].sort_values("depth", kind="stable")
    selected = select(list(ok.parameter.drop_duplicates()), choice.parameter, "matrix", names_in_all(ok))
    rows, _ = gathered.evolving(PRUNED, ["parameter", "diagonal", "variant"], {"parameter": selected.names})
    rows = rows[rows.diagonal.notna() & rows.variant.notna()]
    of_names = dict(iter(rows.groupby("parameter", sort=False)))
    drawn = []
    for name in (name for name in selected.names if name in of_names):
        each = _diagonal(of_names[name], name, clock, choice, f" ({selected.how})" if selected.how else "")
        lacking = runs_without(name, set(of_names[name].run), frame)
        drawn.append(replace(each, notices=(*lacking, *each.notices)))
    if not drawn:
        raise NothingToDraw("no matrix has vectors", remedy=LOOK_AT_STATUS)
    return bounded(drawn, selected.total, "matrices")


def _diagonal(rows: pd.DataFrame, name: str, clock: str, choice: Choice, how: str) -> Drawn:
    """The figure of one matrix."""
    last = rows[rows[POSITION] == rows.groupby("run")[POSITION].transform("max")]
    panels = {str(run): _curves(of_run, _variants(last)) for run, of_run in last.groupby("run", sort=False)}
    above = {str(run): f"{clock} {place:.15g}" for run, place in last.groupby("run")[POSITION].max().items()}
    left: list[str] = []
    if choice.over:
        left += _cut_short(list(panels.values()))
        of_all = [mean_or_nothing(curves) for curves in zip(*panels.values(), strict=True)]
        band = ", band: 1 standard deviation" if len(panels) > 1 else ""
        mean = f"{mean_of(len(panels))}{band}"
        panels, above = {mean: of_all}, {mean: f"last {clock} of each"}
    figure, grid = axes.panels(len(panels))
    for axis, (run, curves) in zip(grid, panels.items(), strict=True):
        axes.curves(axis, curves, "linear", "linear", legend=axis is grid[0])
        axis.set_xlabel("index i")
        axis.set_xticks(index_ticks(max(len(curve.x) for curve in curves)))
        axis.set_ylim(-0.03, 1.03)
        axes.title(axis, above[run], run)
        place = axis.get_subplotspec()
        if place is None or place.is_first_col():
            axis.set_ylabel(DIAGONAL_LABEL)
    heading(figure, "pruned against whole", axes.fitted_name(name, axes.heading_columns(figure)))
    left += [f"{curve.label} is left out, as not all runs have it" for curve in curves if not len(curve.x)]
    about = f"agreement of pruned with whole singular vectors at the end: {shortened(name, NAME_COLUMNS)}{how}"
    return Drawn(file_name("pruned_diagonal", name), figure, about, tuple(left if choice.over else ()))


def _cut_short(panels: Sequence[Sequence[Curve]]) -> list[str]:
    """Notices on entries that the means over runs leave out, by variant."""
    told = []
    for curves in zip(*panels, strict=True):
        lengths = [len(curve.x) for curve in curves]
        if all(lengths):
            told += [f"{curves[0].label}: {each}" for each in cut_short(lengths, "entries of a diagonal")]
    return told


def _variants(frame: pd.DataFrame) -> list[str]:
    """Variants that there are, in the order of a legend."""
    found = set(frame.variant.dropna().astype(str))
    return [name for name in VARIANTS if name in found] + sorted(found.difference(VARIANTS))


def _curves(rows: pd.DataFrame, variants: Sequence[str]) -> list[Curve]:
    """S_ii against i from 1, a curve for each variant; empty where there is none, so that all panels look alike."""
    curves = []
    for variant in variants:
        found = evolutions(rows[rows.variant == variant].assign(name=variant), "diagonal")
        values = found[0].values[-1] if found else np.empty(0)
        curves.append(Curve(variant, np.arange(1.0, len(values) + 1), values))
    return curves
