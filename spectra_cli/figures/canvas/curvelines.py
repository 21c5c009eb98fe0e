"""Curves of categories: told apart by colour, dash and marker, with a legend that hides no data."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.lines import Line2D

from spectra_cli.figures.canvas.lettering import LETTER_IN, panel_in, plain
from spectra_cli.figures.canvas.steps import shown
from spectra_cli.figures.choice import StepScale
from spectra_cli.figures.rows.series import Curve, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


OKABE_ITO = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")
"""Colours told apart by the colour-blind (Okabe and Ito 2008), without the yellow that is too light on white."""

DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2, 2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

MOST_MARKED = 30
"""Points of a curve that each get a marker; of longer curves some do."""

LEGEND_SIZE = 7.5
"""Font size."""

CORNERS = {"upper right": (1, 1), "upper left": (0, 1), "lower right": (1, 0), "lower left": (0, 0)}
"""Places of a legend within a panel, in fractions of it."""


def curves(
    axis: Axes,
    curves: Sequence[Curve],
    scale: StepScale,
    y_scale: Literal["linear", "log"],
    *,
    legend: bool = True,
) -> int:
    """Draw curves that colour, dash and marker tell apart, with bands of their deviation.

    Args:
        axis: to draw on; call :func:`step_axis` afterwards where x is steps, before that `scale` must be its scale.
        curves: their labels are made plain here.
        scale: of the horizontal axis; on a log one, places of 0 or less are left out.
        y_scale: of the vertical axis; on a log one, values of 0 or less are gaps.
        legend: whether to draw one: in a corner that is free of data, else to the right of the panel.

    Returns:
        How many values are gaps because a logarithmic vertical axis cannot show them.
    """
    if scale == "log":
        axis.set_xscale("log")
    axis.set_yscale(y_scale)
    looks = zip(cycle(OKABE_ITO), cycle(DASHES), cycle(MARKERS), strict=False)
    hidden_values = 0
    handles = []
    bands: list[Band] = []
    for curve, (colour, dash, marker) in zip(curves, islice(looks, len(curves)), strict=True):
        kept = shown(curve.x, scale)
        x, y = curve.x[kept], np.where(np.isfinite(curve.y[kept]), curve.y[kept], np.nan)
        hidden = (y <= 0) & (y_scale == "log")
        hidden_values += int(hidden.sum())
        y[hidden] = np.nan
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "marker": marker, "markevery": _marked(y)}
        handles += axis.plot(x, y, linewidth=1.4, markersize=3.5, **style)
        if curve.deviation is not None:
            bands.append((x, y, curve.deviation[kept], colour))
    _draw_bands(axis, bands, y_scale)
    if legend and handles:
        _legend(axis, handles, [curve.label for curve in curves])
    return hidden_values


Band = tuple[Floats, Floats, Floats, str]
"""x, mean and deviation, (n,) each, and a colour."""


def _draw_bands(axis: Axes, bands: Sequence[Band], y_scale: Literal["linear", "log"]) -> None:
    """Draw bands of one deviation to either side; on a log axis one that reaches 0 goes down to the end of the axis."""
    bottom = -np.inf
    if y_scale == "log" and bands:
        axis.autoscale_view()
        bottom, top = axis.get_ylim()
        tops = [float(np.nanmax(y + half)) for _, y, half, _ in bands if np.isfinite(y + half).any()]
        axis.set_ylim(bottom, max([top, *tops]))
    for x, y, half, colour in bands:
        low = np.maximum(y - half, bottom)
        axis.fill_between(x, low, y + half, color=colour, alpha=0.2, linewidth=0)


def _legend(axis: Axes, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    """A legend in a corner without data, or else to the right of the panel."""
    names = [plain(label, 32) for label in labels]
    panel_width, panel_height = panel_in(axis)
    width = (max(map(len, names)) * LEGEND_SIZE * LETTER_IN + 0.6) / (panel_width * 0.8)
    height = (len(names) * LEGEND_SIZE * 1.5 / 72 + 0.15) / (panel_height * 0.75)
    corner = _free_corner(axis, handles, width, height)
    place = {"loc": corner} if corner else {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    drawn = axis.legend(
        handles, [str(number) for number in range(len(names))], fontsize=LEGEND_SIZE, handlelength=3.2, **place
    )
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set_text(name)  # not given as a label: matplotlib leaves out labels that begin with an underscore


def _free_corner(axis: Axes, handles: Sequence[Line2D], width: float, height: float) -> str | None:
    """A corner of which no curve enters a box of this size (in fractions of the panel)."""
    if width > 0.6 or height > 0.6:
        return None
    axis.autoscale_view()
    to_panel = axis.transData + axis.transAxes.inverted()
    points = np.concatenate([_dense(to_panel.transform(line.get_xydata())) for line in handles])
    points = points[np.isfinite(points).all(axis=1)]
    for name, corner in CORNERS.items():
        inside = np.abs(points - corner) <= (width + 0.03, height + 0.03)
        if not inside.all(axis=1).any():
            return name
    return None


def _marked(y: Floats) -> list[int]:
    """Which points get a marker: every so many, and those between two gaps, of which a line shows nothing."""
    known = np.isfinite(np.pad(y, 1, constant_values=np.nan))
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    every = max(1, ceil(len(y) / MOST_MARKED))
    return sorted({*range(0, len(y), every), *map(int, alone)})


def _dense(points: Floats) -> Floats:
    """The points and some between them."""
    if len(points) < 2:
        return points
    between = [points[:-1] + (points[1:] - points[:-1]) * part for part in np.linspace(0, 1, 8, endpoint=False)]
    return np.concatenate([*between, points[-1:]])
