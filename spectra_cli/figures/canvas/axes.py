"""What figures are drawn with: panels, axes of steps, heat maps, lines coloured by index, curves told apart by shape.

Nothing here touches pyplot, a display or global state. Numbers come first, text from files goes through :func:`plain`.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from spectra_cli.errors import UsageError
from spectra_cli.figures.canvas.curvelines import curves
from spectra_cli.figures.canvas.heatmaps import colour_bar, heat_map, names_in
from spectra_cli.figures.canvas.indexlines import index_bar, index_lines
from spectra_cli.figures.canvas.lettering import (
    LETTER_IN,
    TITLE_SIZE,
    fitted_name,
    heading_columns,
    plain,
    title_columns,
)
from spectra_cli.figures.canvas.steps import step_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "LETTER_IN",
    "TITLE_SIZE",
    "colour_bar",
    "curves",
    "fitted_name",
    "heading_columns",
    "heat_map",
    "index_bar",
    "index_lines",
    "left_out",
    "names_in",
    "panels",
    "plain",
    "step_axis",
    "title",
]

MOST_PANELS = 150
"""Limit for one figure; more cannot be told apart, and take minutes."""

LARGEST_IN = 45.0
"""Width and height of a figure that panels are fitted into: an image in memory is 200 MB then."""

IN_A_ROW = 4
"""Panels in a row, unless there are so many that a figure would become a ribbon."""


def panels(
    count: int,
    *,
    width_in: float = 4.8,
    height_in: float = 3.6,
    columns: int | None = None,
    share_y: bool = True,
) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row.

    Args:
        count: of panels, from 1.
        width_in: of a panel, in inches; of more than a dozen panels each is smaller, down to half of it.
        height_in: of a panel, likewise.
        columns: panels in a row; None for about as many as rows.
        share_y: whether all have one vertical axis, labelled in the first column only.

    Raises:
        UsageError: if there would be more than :data:`MOST_PANELS`.
    """
    if count > MOST_PANELS:
        raise UsageError(
            f"{count} panels do not fit into one figure ({MOST_PANELS} do)",
            remedy="Choose with --run or --parameter, or average over the runs with --over run",
        )
    across = columns or (min(count, IN_A_ROW) if count <= 2 * IN_A_ROW else ceil(sqrt(count)))
    down = ceil(count / across)
    size = 1.0 if columns else max(0.5, min(1.0, IN_A_ROW / across))
    whole = (min(across * width_in * size, LARGEST_IN), min(down * height_in * size, LARGEST_IN))
    figure = Figure(figsize=whole, layout="constrained")
    grid = figure.subplots(down, across, sharey=share_y, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def title(axis: Axes, what: str, *names: object, parameter: str = "") -> None:
    """Set the title of a panel: what is shown, and below it names from files, each no wider than the panel.

    Args:
        axis: of the panel.
        what: our words; a line that is empty is left out.
        names: from files, such as that of a run; one line each.
        parameter: the name of a matrix or connection, shortened by its components; it stands before the others.
    """
    width = title_columns(axis)
    named = [plain(name, width) for name in (fitted_name(parameter, width), *names) if name not in {"", "."}]
    axis.set_title("\n".join(filter(None, [what, *named])), fontsize=TITLE_SIZE)


def left_out(count: int, what: str) -> tuple[str, ...]:
    """A notice on what a logarithmic axis cannot show, for :attr:`spectra_cli.figures.choice.Drawn.notices`.

    Args:
        count: of what was left out; for 0 there is no notice.
        what: one of them, such as ``step`` or ``value``.
    """
    if not count:
        return ()
    verb = "is" if count == 1 else "are"
    return (f"{count} {what}{'s' * (count != 1)} of 0 or less {verb} not on the logarithmic axis",)
