"""The numbers and names of a page, as its script reads them: one JSON document that no HTML parser can misread."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spectra_cli.figures.page.document import Chart, Detail, Document, Floats, Grid, Lines, RunView, Series
from spectra_cli.figures.page.numbers import numbers
from spectra_cli.shortening import fitted_names, shortened, width_of

NAME_WIDTH = 300
"""Columns after which a name loses its middle, however wide the page: some files hold names of megabytes."""

TEXT_WIDTH = 2000
"""Columns after which a sentence loses its middle."""

LABEL_WIDTHS = {"wide": (30, 50), "narrow": (17, 22)}
"""Columns of a heat map's row labels with room and without: those of matrices, and those of connections."""

CONNECTION = re.compile(r"(?:(.*?): )?(.+?) -> (.+)")
"""The name of a connection: ``query-key: upstream -> downstream``; the kind may be missing."""

AFTER_KIND, ARROW, ELLIPSIS = ": ", "→", "…"
"""Parts of labels; the last as :func:`spectra_cli.shortening.shortened` puts it into a middle."""


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


def row_labels(names: Sequence[str], width: int, width_of_connections: int) -> list[str]:
    """Short labels of rows, all shortened alike, and different where that can be had.

    Names of parameters lose components as those in a terminal do. Where that is not enough, what stands before the
    number of a layer goes, as it is the same of most. Connections keep their kind, and of their ends as much as fits:
    components, the numbers of their layers (``query-key 0``, ``residual 0→1``), or nothing; only where rows can be told
    apart in no such way, the kind goes.

    Args:
        names: of parameters, or of connections: ``kind: upstream -> downstream``.
        width: columns of a label.
        width_of_connections: the same where names are those of connections.
    """
    matches = [CONNECTION.fullmatch(name) for name in names]
    connections = [(match[1] or "", match[2], match[3]) for match in matches if match]
    if not names or len(connections) < len(names):
        numbered = [_from_number_on(name) for name in names]
        return max((fitted_names(variant, width) for variant in (names, numbered)), key=_legibility)
    numbered_ends = [(kind, _from_number_on(up), _from_number_on(down)) for kind, up, down in connections]
    variants = [_with_ends(connections, width_of_connections), _with_ends(numbered_ends, width_of_connections)]
    if all(kind for kind, _, _ in connections):
        variants.append([_with_layers(*each, width_of_connections) for each in connections])
    fitting = [labels for labels in variants if max(map(width_of, labels)) <= width_of_connections]
    bare = _with_ends([("", *ends) for _, *ends in numbered_ends], width_of_connections)
    best = max(fitting, key=_legibility, default=bare)
    return bare if len(set(bare)) > len(set(best)) else best


def _from_number_on(name: str) -> str:
    """The name without components before the first that has a digit: ``gpt_neox.layers.0.mlp`` becomes ``0.mlp``."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if any(map(str.isdigit, part))), 0)
    return ".".join(parts[first:])


def _with_ends(connections: Sequence[Sequence[str]], width: int) -> list[str]:
    """``kind: up→down``; all of one kind are shortened alike."""
    labels = [""] * len(connections)
    for kind in dict.fromkeys(kind for kind, _, _ in connections):
        rows = [row for row, connection in enumerate(connections) if connection[0] == kind]
        before = f"{shortened(kind, width // 2)}{AFTER_KIND}" if kind else ""
        room = (width - width_of(before) - len(ARROW)) // 2
        ends = iter(fitted_names([end for row in rows for end in connections[row][1:]], room))
        for row in rows:
            labels[row] = f"{before}{next(ends)}{ARROW}{next(ends)}"
    return labels


def _with_layers(kind: str, upstream: str, downstream: str, width: int) -> str:
    """``kind 0``, or ``kind 0→1`` where both ends have numbers and these differ."""
    layers = (".".join(part for part in end.split(".") if part.isdigit()) for end in (upstream, downstream))
    return shortened(f"{kind} {ARROW.join(dict.fromkeys(filter(None, layers)))}".rstrip(), width)


def _legibility(labels: Sequence[str]) -> tuple[int, int]:
    """How many labels are different, and then how few cuts they have."""
    return len(set(labels)), -sum(label.count(ELLIPSIS) for label in labels)


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
            labels = {} if ordered else {size: row_labels(shown, *widths) for size, widths in LABEL_WIDTHS.items()}
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
        "values": numbers(grid.values),
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
        "y": numbers(series.y),
        "band": None if series.band is None or not _any_value(series.band) else numbers(series.band),
    }


def _any_value(values: Floats) -> bool:
    return bool(np.isfinite(values).any())
