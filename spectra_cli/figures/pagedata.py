"""The numbers and names of a page, as its script reads them: one JSON document that no HTML parser can misread."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spectra_cli.figures.document import Chart, Detail, Document, Floats, Grid, Lines, RunView, Series
from spectra_cli.shortening import fitted_names, shortened

NAME_WIDTH = 300
"""Columns after which a name loses its middle, however wide the page: some files hold names of megabytes."""

TEXT_WIDTH = 2000
"""The same of a sentence."""

LABEL_WIDTHS = {"wide": 30, "narrow": 17}
"""Columns of a heat map's row labels on a large and on a small screen."""

BETWEEN_ENDS = " -> "
"""In the names of connections, between two parameters, which are shortened each."""

CELL_BYTES = 3
"""A float32 without the lowest byte of its fraction: 16 significant bits, and four characters of base64 to a value."""


def readable(text: str, width: int = TEXT_WIDTH) -> str:
    r"""Text as it can be shown anywhere: what has no shape of its own is escaped, what is too long loses its middle.

    Direction overrides, line breaks and other control characters become ``\u202e``, ``\n`` and the like, so that a
    name cannot rearrange what stands beside it.

    Args:
        text: any text, lone surrogates included.
        width: columns it may take.
    """
    head = text if len(text) <= 2 * width else f"{text[:width]}{text[-width:]}"
    shown = "".join(c if c.isprintable() else c.encode("unicode-escape").decode("ascii") for c in head)
    return shortened(shown, width)


def packed(values: npt.ArrayLike) -> str:
    """Base64 of the upper three bytes of each value as a little-endian float32, rounded.

    Args:
        values: any shape, flattened row by row. The relative error is at most 2^-16; what is beyond 3.4e38 is infinite.
    """
    with np.errstate(over="ignore"):
        single = np.asarray(values, dtype=np.float64).ravel().astype("<f4")
    single[np.isnan(single)] = np.nan  # one NaN only, and not one that rounds to infinity
    words = single.view("<u4")
    rounded = np.where(np.isfinite(single), words + np.uint32(0x80), words).astype("<u4")
    upper = rounded.view(np.uint8).reshape(-1, 4)[:, 4 - CELL_BYTES :]
    return base64.b64encode(upper.tobytes()).decode("ascii")


def row_labels(names: Sequence[str], width: int) -> list[str]:
    """Names in `width` columns: those of parameters lose components, in connections both ends do, in a third more."""
    pieces = [name.split(BETWEEN_ENDS) for name in names]
    if not any(len(ends) == 2 for ends in pieces):
        return fitted_names(names, width)
    arrow = "→"
    room = (width * 4 // 3 - len(arrow)) // 2
    fitted = iter(fitted_names([end for ends in pieces for end in ends], room))
    return [arrow.join(next(fitted) for _ in ends) for ends in pieces]


def embedded(document: Document) -> str:
    """The document's charts as JSON in which ``<``, ``>`` and ``&`` are escaped, to stand in a ``script`` element.

    Axes and lists of names that several charts share stand in it once.
    """
    pools = _Pools()
    runs = [_run(run, pools) for run in document.runs]
    across = [_chart(chart, pools) for chart in document.across]
    data = {"axes": pools.axes, "names": pools.names, "runs": runs, "across": across}
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pools:
    """What charts refer to by its position."""

    def __init__(self) -> None:
        self.axes: list[list[float | str]] = []
        self.names: list[dict[str, list[str]]] = []
        self._axes: dict[tuple[float | str, ...], int] = {}
        self._names: dict[tuple[tuple[str, ...], bool], int] = {}

    def axis(self, values: Sequence[float | str] | npt.NDArray[Any]) -> int:
        shown = tuple(readable(v, NAME_WIDTH) if isinstance(v, str) else _number(v) for v in values)
        if shown not in self._axes:
            self._axes[shown] = len(self.axes)
            self.axes.append(list(shown))
        return self._axes[shown]

    def name_list(self, names: Sequence[str], *, ordered: bool) -> int:
        shown = tuple(readable(name, NAME_WIDTH) for name in names)
        if (shown, ordered) not in self._names:
            labels = {} if ordered else {size: row_labels(shown, width) for size, width in LABEL_WIDTHS.items()}
            self._names[shown, ordered] = len(self.names)
            self.names.append({"full": list(shown), **labels})
        return self._names[shown, ordered]


def _number(value: Any) -> float | int:
    """A Python number, whole where it is."""
    number = float(value)
    return int(number) if number.is_integer() else number


def _run(run: RunView, pools: _Pools) -> dict[str, Any]:
    return {
        "name": readable(run.name, NAME_WIDTH),
        "grids": [_grid(grid, pools) for grid in run.grids],
        "lines": [_lines(lines, pools) for lines in run.lines],
        "details": [_detail(detail, pools) for detail in run.details],
        "opened": run.opened,
    }


def _detail(detail: Detail, pools: _Pools) -> dict[str, Any]:
    return {
        "name": readable(detail.name, NAME_WIDTH),
        "caption": readable(detail.caption),
        "charts": [_chart(chart, pools) for chart in detail.charts],
        "facts": [[readable(what), readable(value)] for what, value in detail.facts],
    }


def _chart(chart: Chart, pools: _Pools) -> dict[str, Any]:
    return _grid(chart, pools) if isinstance(chart, Grid) else _lines(chart, pools)


def _grid(grid: Grid, pools: _Pools) -> dict[str, Any]:
    return {
        "type": "grid",
        "key": grid.key,
        "title": readable(grid.title),
        "summary": readable(grid.summary),
        "valueLabel": readable(grid.value_label),
        "xLabel": readable(grid.x.label),
        "x": pools.axis(grid.x.values),
        "yLabel": readable(grid.y_label),
        "names": pools.name_list(grid.names, ordered=grid.ordered),
        "ordered": grid.ordered,
        "domain": [float(end) for end in grid.domain],
        "values": packed(grid.values),
        "notes": _notes(grid.notes, len(grid.x.values)),
        "details": list(grid.details),
    }


def _notes(notes: Mapping[tuple[int, int], str], columns: int) -> list[list[Any]]:
    """(note, flat positions of its cells), in the order in which notes first come by row and column."""
    cells: dict[str, list[int]] = {}
    for (row, column), note in sorted(notes.items()):
        cells.setdefault(readable(note, NAME_WIDTH), []).append(int(row) * columns + int(column))
    return [[note, positions] for note, positions in cells.items()]


def _lines(lines: Lines, pools: _Pools) -> dict[str, Any]:
    return {
        "type": "lines",
        "key": lines.key,
        "title": readable(lines.title),
        "summary": readable(lines.summary),
        "xLabel": readable(lines.x_label),
        "yLabel": readable(lines.y_label),
        "xScale": lines.x_scale,
        "yScale": lines.y_scale,
        "ordered": lines.ordered,
        "series": [_series(series, pools) for series in lines.series],
    }


def _series(series: Series, pools: _Pools) -> dict[str, Any]:
    return {
        "name": readable(series.name, NAME_WIDTH),
        "x": pools.axis(series.x),
        "y": packed(series.y),
        "band": None if series.band is None or not _any_value(series.band) else packed(series.band),
    }


def _any_value(values: Floats) -> bool:
    return bool(np.isfinite(values).any())
