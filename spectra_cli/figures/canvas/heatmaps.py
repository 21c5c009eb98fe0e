"""Numbers as colours: heat maps with named or counted rows, and the scale of their colours."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from spectra_cli.figures.canvas.lettering import LETTER_IN, TITLE_SIZE, panel_in, plain_names
from spectra_cli.figures.canvas.steps import cell_edges, shown
from spectra_cli.figures.choice import StepScale
from spectra_cli.shortening import width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

COLOURS = "viridis"
"""Perceptually uniform: its luminance rises all the way, in print and for the colour-blind."""

LABEL_COLUMNS, CONNECTION_COLUMNS = 40, 72
"""Columns of names beside rows of a heat map: of matrices, and of connections, which have two."""

MOST_OF_PANEL = 0.65
"""Part of the width of a panel that names may take."""

SMALLEST_LABEL = 4.0
"""Font size below which names are left out rather than made smaller."""

BAR_SIZE = 8.0
"""Font size beside a colour scale, whose label must not be longer than a heat map of a few rows is high."""

MOST_VECTOR_CELLS = 4000
"""Cells of a heat map in SVG and PDF that are drawn one by one; more become a picture, which has no seams."""

MOST_TICKS = 13
"""Limit for an axis of indices."""


def heat_map(
    axis: Axes,
    x: npt.ArrayLike,
    values: npt.ArrayLike,
    scale: StepScale,
    *,
    domain: tuple[float, float] = (0.0, 1.0),
    labels: Sequence[str] | None = None,
) -> ScalarMappable:
    """Draw numbers as colours, the first row on top; cells without a number are hatched.

    Args:
        axis: to draw on; call :func:`step_axis` afterwards.
        x: (columns,), ascending; cells meet halfway between places in the coordinates of the scale.
        values: (rows, columns); nan where there is no number.
        scale: of the horizontal axis; on a log one, places of 0 or less are left out.
        domain: values at the ends of the colour scale.
        labels: names of the rows, from files, whole: they are shortened and made plain here. None numbers them from 1.

    Returns:
        What :func:`colour_bar` takes.
    """
    places, cells = np.asarray(x, float), np.asarray(values, float)
    kept = shown(places, scale)
    places, cells = places[kept], cells[:, kept]
    rows = len(cells)
    axis.patch.set(facecolor="0.93", hatch="////", edgecolor="0.7", linewidth=0.0)
    norm = Normalize(*domain)
    if not len(places) or not rows:
        return ScalarMappable(norm, mpl.colormaps[COLOURS])
    edges = cell_edges(places, scale)
    mesh = axis.pcolormesh(
        edges,
        np.arange(rows + 1) + 0.5,
        np.ma.masked_invalid(cells),
        norm=norm,
        cmap=mpl.colormaps[COLOURS],
        shading="flat",
        rasterized=cells.size > MOST_VECTOR_CELLS,
    )
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(rows + 0.5, 0.5)
    axis.grid(visible=False)
    if labels is None:
        axis.yaxis.set_major_locator(FixedLocator(index_ticks(rows)))
    else:
        _label_rows(axis, labels)
    return mesh


def index_ticks(count: int) -> list[int]:
    """1 and round numbers, none more than `count`."""
    sizes = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    step = next((size for size in sizes if size != 2 and count / size < MOST_TICKS), max(count, 1))
    return [1, *(number for number in range(step, count + 1, step) if number > 1)]


def _label_rows(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows, in letters as large as the height of a row allows; only every so many of too many rows."""
    room = int(MOST_OF_PANEL * _room_in(axis) / (LETTER_IN * TITLE_SIZE))
    row_points = panel_in(axis)[1] * 0.8 * 72 / len(labels)
    size = min(TITLE_SIZE, max(SMALLEST_LABEL, 0.75 * row_points))
    every = ceil(1.2 * size / row_points - 0.01)
    places = range(1, len(labels) + 1, every)
    names = plain_names(labels, min(room, _columns(labels)), most=max(room, LABEL_COLUMNS))
    axis.set_yticks(list(places), [names[place - 1] for place in places], fontsize=size)
    axis.tick_params(axis="y", length=2)


def _columns(labels: Sequence[str]) -> int:
    return CONNECTION_COLUMNS if any(": " in label for label in labels) else LABEL_COLUMNS


def _room_in(axis: Axes) -> float:
    """Width in inches that names and cells share: of the panel, or of the figure if the first panel names all."""
    figure = axis.get_figure(root=True)
    if figure is not None and len(axis.get_shared_y_axes().get_siblings(axis)) > 1:
        return float(figure.get_size_inches()[0])
    return panel_in(axis)[0]


def names_in(labels: Sequence[str]) -> float:
    """Width in inches of names beside the rows of a heat map, so that a figure can be made wide enough.

    Args:
        labels: as of :func:`heat_map`.
    """
    longest = max((width_of(name) for name in plain_names(labels, _columns(labels))), default=0)
    return longest * LETTER_IN * TITLE_SIZE


def colour_bar(figure: Figure, mappable: ScalarMappable, axes: Sequence[Axes], label: str) -> Colorbar:
    """Draw the colour scale that panels share, to the right of them.

    Args:
        figure: that holds the panels.
        mappable: from :func:`heat_map`.
        axes: the panels.
        label: what the colours mean, with its unit.
    """
    bar = figure.colorbar(mappable, ax=list(axes), fraction=0.05, pad=0.02, aspect=30)
    bar.set_label(label, fontsize=BAR_SIZE)
    bar.ax.tick_params(labelsize=BAR_SIZE)
    return bar
