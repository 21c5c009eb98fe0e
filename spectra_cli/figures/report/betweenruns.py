"""What is between two runs: barriers, spectra on the line between two checkpoints, agreement of the two ends."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spectra_cli.figures.page.document import Axis, Chart, Grid, Lines, TextTable
from spectra_cli.figures.report.budget import points_of, spread
from spectra_cli.figures.report.curves import lines_of
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.kinds import ENDS
from spectra_cli.figures.rows.pairs import LABEL, PAIR, paired
from spectra_cli.figures.rows.series import NAME, curve, overviews

BARRIERS = ("barrier", "barrier_interior", "barrier_midpoint")

MOST_METRICS = 8
"""Metrics and splits with charts."""

MOST_PAIRS = 60
"""Columns of the heat map of agreement, and rows of each metric in the table of barriers."""

MOST_GRIDS = 6
"""Pairs of which the spectra on the line are shown."""

MOST_MATRICES = 400
"""Rows of a heat map."""

MOST_CELLS = 20_000
"""Limit for a heat map of spectra on the line."""


def across(gathered: Gathered) -> tuple[list[Chart], list[TextTable], list[str]]:
    """Charts and tables of all pairs, and what was left out.

    Raises:
        InputError: if a file is damaged.
    """
    charts: list[Chart] = []
    tables: list[TextTable] = []
    limits: list[str] = []
    if "barrier" in gathered:
        rows = paired(gathered, "barrier", ["split", "metric", "alpha", "value", "excess", *BARRIERS])
        lines, left_out = _barrier_lines(rows[rows.metric.notna()])
        charts += lines
        table = barrier_table(rows[rows.metric.notna()])
        tables += [table] if table.rows else []
        limits += left_out
    for kind, make in ((ENDS, _ends), ("barrier_spectra", _spectra)):
        if kind in gathered:
            value = "score" if kind == ENDS else "effective_rank_normalized"
            extra = [] if kind == ENDS else ["alpha"]
            rows = paired(gathered, kind, ["parameter", "depth", "status", value, *extra])
            grids, left_out = make(rows)
            charts += grids
            limits += left_out
    return charts, tables, limits


def _barrier_lines(rows: pd.DataFrame) -> tuple[list[Lines], list[str]]:
    """Charts of the excess over the straight line between the ends, and of the value itself, by metric and split."""
    rows = rows[np.isfinite(rows.alpha.to_numpy(float))]
    groups = list(rows.groupby(["metric", "split"], sort=False, dropna=False))
    limits = [f"{MOST_METRICS} of {len(groups)} metrics and splits of barriers are drawn."] * (
        len(groups) > MOST_METRICS
    )
    most = points_of(2 * len(rows[["metric", "split", PAIR]].drop_duplicates()))
    charts = []
    for number, ((metric, split), own) in enumerate(groups[:MOST_METRICS]):
        for column, title, label in (
            ("excess", f"Barrier: {metric} above the straight line between its ends, {split}", f"excess {metric}"),
            ("value", f"Between two checkpoints: {metric}, {split}", str(metric)),
        ):
            chart, left_out = lines_of(
                [curve(_label(part), part.alpha, part[column]) for _, part in own.groupby(PAIR, sort=False)],
                key=f"{column}_{number}",
                title=title,
                labels=("alpha (0: first, 1: second checkpoint)", label),
                x_scale="linear",
                most=most,
                place="alpha {}",
                peaks=True,
            )
            charts.append(chart)
            limits += left_out
    return charts, list(dict.fromkeys(limits))


def barrier_table(rows: pd.DataFrame) -> TextTable:
    """Barriers of all pairs, by metric and split.

    Args:
        rows: of ``barrier``, with their ``pair`` and its ``label``.
    """
    single = rows.drop_duplicates([PAIR, "metric", "split"])
    shown = single.groupby(["metric", "split"], sort=False, dropna=False).head(MOST_PAIRS)
    return TextTable(
        heading="Barriers",
        caption="The largest excess of a metric over the straight line between its values at two checkpoints: over all "
        "alpha, over 0 < alpha < 1 only, and against the mean of both ends.",
        columns=("pair", "split", "metric", "barrier", "interior barrier", "midpoint barrier"),
        rows=[
            (_text(row.label), _text(row.split), _text(row.metric), *(_number(getattr(row, name)) for name in BARRIERS))
            for row in shown.itertuples()
        ],
        numeric=(False, False, False, True, True, True),
        note=f"{len(shown)} of {len(single)} barriers are shown." if len(shown) < len(single) else "",
    )


def _ends(rows: pd.DataFrame) -> tuple[list[Grid], list[str]]:
    pairs = list(dict.fromkeys(rows[PAIR]))
    shown = pairs[:MOST_PAIRS]
    limits = [f"{len(shown)} of {len(pairs)} pairs have a column of agreement."] if len(shown) < len(pairs) else []
    rows = rows[rows[PAIR].isin(shown)]
    places = {pair: place for place, pair in enumerate(shown)}
    drawn = _grid(
        rows.assign(**{POSITION: rows[PAIR].map(places).astype(float)}),
        ("ends", "Agreement of singular vectors between both checkpoints", "agreement score", "score"),
        Axis(label="pair", values=list(rows.drop_duplicates(PAIR)[LABEL])),
    )
    return drawn[0], limits + drawn[1]


def _spectra(rows: pd.DataFrame) -> tuple[list[Grid], list[str]]:
    rows = rows[np.isfinite(rows.alpha.to_numpy(float))]
    pairs = list(dict.fromkeys(rows[PAIR]))
    limits = [f"The spectra between {MOST_GRIDS} of {len(pairs)} pairs are shown."] * (len(pairs) > MOST_GRIDS)
    grids = []
    for number, pair in enumerate(pairs[:MOST_GRIDS]):
        own = rows[rows[PAIR] == pair]
        label = _label(own)
        places = np.unique(own.alpha)
        most = max(2, MOST_CELLS // max(min(own.parameter.nunique(), MOST_MATRICES), 1))
        if len(places) > most:
            limits.append(f"{most} of {len(places)} alpha have a column in the spectra between {label}.")
            places = places[spread(len(places), most)]
            own = own[own.alpha.isin(places)]
        title = f"Effective rank between {label}"
        drawn = _grid(
            own.assign(**{POSITION: own.alpha}),
            (f"spectra_{number}", title, "effective rank / R", "effective_rank_normalized"),
            Axis(label="alpha", values=[float(alpha) for alpha in places]),
        )
        grids += drawn[0]
        limits += drawn[1]
    return grids, limits


def _grid(rows: pd.DataFrame, texts: tuple[str, str, str, str], axis: Axis) -> tuple[list[Grid], list[str]]:
    """A heat map of all matrices, none if there is no matrix."""
    key, title, label, value = texts
    rows = rows.rename(columns={"parameter": NAME})
    names = list(rows[rows[NAME].notna()].sort_values("depth", kind="stable")[NAME].drop_duplicates())
    if not names:
        return [], []
    if len(names) > MOST_MATRICES:
        rows = rows[rows[NAME].isna() | rows[NAME].isin(names[:MOST_MATRICES])]
    overview = overviews(rows.assign(run=""), value)[0]
    known = overview.values[np.isfinite(overview.values)]
    mean = (
        f"mean {known.mean():.2f}, from {known.min():.2f} to {known.max():.2f}" if len(known) else "there is no value"
    )
    limits = [f"{MOST_MATRICES} of {len(names)} matrices are shown of '{title}'."] * (len(names) > MOST_MATRICES)
    grid = Grid(
        key=key,
        title=title,
        value_label=label,
        x=axis,
        y_label="matrix (depth downwards)",
        names=overview.names,
        values=overview.values,
        domain=(0.0, 1.0),
        summary=f"{title}, of {len(overview.names)} matrices: {mean}.",
        notes=overview.statuses,
    )
    return [grid], limits


def _label(rows: pd.DataFrame) -> str:
    return str(rows[LABEL].iloc[0])


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
