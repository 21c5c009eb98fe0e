"""Lines coloured by their index, from the first singular value to the last: thousands of them are one collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from spectra_cli.figures.canvas.heatmaps import COLOURS, colour_bar, index_ticks
from spectra_cli.figures.canvas.steps import shown
from spectra_cli.figures.choice import StepScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

Floats = npt.NDArray[np.float64]

LIGHTEST = 0.88
"""Part of the colour map that is dark enough on white."""

MANY_LINES = 100
"""Number of lines above which they are thin."""

MOST_VECTOR_POINTS = 200_000
"""Points of lines in SVG and PDF; more become a picture, which opens at once."""


def index_map() -> Colormap:
    """Colours of an index from dark (the first) to the lightest that is legible on white."""
    return ListedColormap(mpl.colormaps[COLOURS](np.linspace(0.0, LIGHTEST, 256)), name="index")


def index_lines(  # noqa: PLR0917 - x, values and scales stand in the order of all functions that draw
    axis: Axes,
    x: npt.ArrayLike,
    values: npt.ArrayLike,
    deviation: npt.ArrayLike | None,
    scale: StepScale,
    y_scale: Literal["linear", "log"],
    *,
    bar: bool = True,
    most: int | None = None,
) -> int:
    """Draw a line for each column of numbers, coloured by its place from 1.

    The lines are one :class:`matplotlib.collections.LineCollection`, ``axis.collections[-1]``, so that thousands are
    fast; its paths have (n, 2) vertices, in order, with nan where a line is broken.

    Args:
        axis: to draw on; call :func:`step_axis` afterwards.
        x: (n,), ascending.
        values: (n, k), nan for gaps.
        deviation: (n, k), half the height of a band around each line, or None.
        scale: of the horizontal axis; on a log one, places of 0 or less are left out.
        y_scale: of the vertical axis; on a log one, values of 0 or less are gaps.
        bar: whether to draw the colour scale beside the axis.
        most: the last place of the colour scale, where panels share one; k if None.

    Returns:
        How many values are gaps because a logarithmic vertical axis cannot show them.
    """
    places, lines = np.asarray(x, float), np.array(values, float)
    spread = None if deviation is None else np.asarray(deviation, float)
    kept = shown(places, scale)
    places, lines, spread = places[kept], lines[kept], spread if spread is None else spread[kept]
    lines[~np.isfinite(lines)] = np.nan
    hidden = (lines <= 0) & (y_scale == "log")
    lines[hidden] = np.nan
    count = lines.shape[1]
    axis.set_yscale(y_scale)
    norm, colours = Normalize(1, max(most or count, 2)), index_map()
    order = np.arange(1, count + 1)
    heavy = lines.size > MOST_VECTOR_POINTS
    if spread is not None:
        bands = [(i, band) for i in order for band in _bands(places, lines[:, i - 1], spread[:, i - 1], y_scale)]
        axis.add_collection(
            PolyCollection(
                [band for _, band in bands],
                array=np.array([i for i, _ in bands]),
                norm=norm,
                cmap=colours,
                alpha=0.2,
                linewidths=0,
                rasterized=heavy,
            )
        )
    _single_points(axis, places, lines, norm, colours)
    drawn = LineCollection(
        [np.column_stack([places, lines[:, i]]) for i in range(count)],
        array=order,
        norm=norm,
        cmap=colours,
        linewidths=0.5 if count > MANY_LINES else 1.0,
        rasterized=heavy,
    )
    axis.add_collection(drawn)
    axis.autoscale_view()
    figure = axis.get_figure(root=True)
    if bar and figure is not None:
        index_bar(figure, [axis])
    return int(hidden.sum())


def index_bar(figure: Figure, axes: Sequence[Axes]) -> Colorbar:
    """Draw the colour scale of panels with lines of an index: the first on top, as singular values are.

    Args:
        figure: that holds the panels.
        axes: the panels, whose lines were drawn by :func:`index_lines` with one colour scale.
    """
    drawn = axes[0].collections[-1]
    last = int(np.max(np.asarray(drawn.norm.vmax)))
    bar = colour_bar(figure, drawn, axes, "index i")
    bar.ax.yaxis.set_major_locator(FixedLocator(index_ticks(last)))
    bar.ax.invert_yaxis()
    return bar


def _bands(x: Floats, middle: Floats, half: Floats, y_scale: Literal["linear", "log"]) -> list[Floats]:
    """Outlines of a band around a line, (points, 2) each, broken where the line is; on a log axis they stay above 0."""
    known = np.flatnonzero(np.isfinite(middle) & np.isfinite(half))
    outlines = []
    for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        low, high = middle[part] - half[part], middle[part] + half[part]
        if y_scale == "log":
            low = np.maximum(low, middle[part] / 10)
        if len(part) > 1:  # of a single place a band has no width
            outlines.append(np.concatenate([np.column_stack([x[part], high]), np.column_stack([x[part], low])[::-1]]))
    return outlines


def _single_points(axis: Axes, x: Floats, lines: Floats, norm: Normalize, colours: Colormap) -> None:
    """Dots for numbers between two gaps, of which a line shows nothing."""
    padded = np.isfinite(np.pad(lines, ((1, 1), (0, 0)), constant_values=np.nan))
    rows, columns = np.nonzero(padded[1:-1] & ~padded[:-2] & ~padded[2:])
    if len(rows):
        axis.scatter(x[rows], lines[rows, columns], s=6, c=columns + 1, norm=norm, cmap=colours, linewidths=0)
