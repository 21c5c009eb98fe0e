"""What the page of `spectra report` shows, before it is HTML: charts, tables and sentences, and no path or format.

:func:`spectra_cli.figures.page.rendering.render` turns a :class:`Document` into a page. Every string may come from an
untrusted file: markup, control characters and absurd lengths are the page's business, and nothing needs to be escaped.
Numbers are shown with four significant digits, which are those of the number given, whatever a page keeps of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
"""An array of floating-point numbers of any width."""

KEY = re.compile(r"[a-z0-9_]+")
"""Pattern of the key of a chart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Axis:
    """The columns of a heat map.

    Attributes:
        label: what is along it, with its unit if it has one: ``step``, ``alpha``, ``checkpoint``.
        values: one per column, in the order in which they are shown; numbers are written as such (steps need no even
            spacing: columns are equally wide), and names where columns are categories.
    """

    label: str
    values: Sequence[float | str]

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.values if not isinstance(value, str)):
            raise ValueError(f"{self.label}: a column stands at no number")


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A heat map: one row per matrix, connection or index, one column per checkpoint.

    Attributes:
        key: tells it from other charts of the same list, of letters a-z, digits and underscores: ``effective_rank``.
        title: heading of the figure.
        value_label: what the colours mean, with its unit: ``effective rank / R``.
        x: the columns.
        y_label: what the rows are and in which order: ``matrix (depth downwards)``.
        names: the full name of each row, the top one first; the page shortens them to fit,
            and shows them whole on hover.
        values: (rows, columns), float; NaN where there is no value. What is outside of `domain` has the colour of its
            end.
        domain: the values at both ends of the colour scale.
        summary: the text alternative: one or two sentences that say what there is to see.
        notes: why a cell has no value, by (row, column); a cell without value and note is said to have no value.
        details: for each row the index of what it opens in :attr:`RunView.details`, or None; empty where none opens
            any.
        ordered: the rows are an index (1, 2, 3, ...) and not names: they are drawn thin and only some are labelled.
    """

    key: str
    title: str
    value_label: str
    x: Axis
    y_label: str
    names: Sequence[str]
    values: Floats
    domain: tuple[float, float]
    summary: str
    notes: Mapping[tuple[int, int], str] = field(default_factory=dict)
    details: Sequence[int | None] = ()
    ordered: bool = False

    def __post_init__(self) -> None:
        _check_key(self.key)
        shape = (len(self.names), len(self.x.values))
        if self.values.shape != shape:
            raise ValueError(f"{self.key}: values are {self.values.shape}, names and columns make {shape}")
        if self.details and len(self.details) != len(self.names):
            raise ValueError(f"{self.key}: {len(self.details)} details for {len(self.names)} rows")
        if not -math.inf < self.domain[0] < self.domain[1] < math.inf:
            raise ValueError(f"{self.key}: the domain {self.domain} is empty or has no end")


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One line of a chart.

    Attributes:
        name: what the legend calls it.
        x: (points,), ascending and finite.
        y: (points,); NaN is a gap, infinite values are gaps too and say so in the table of the chart.
        band: (points,), half the height of a band around y, in the unit of y, say one standard deviation; NaN: none.
    """

    name: str
    x: Floats | npt.NDArray[np.integer]
    y: Floats
    band: Floats | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 1 or self.x.shape != self.y.shape:
            raise ValueError(f"{self.name}: x is {self.x.shape}, y is {self.y.shape}")
        if not np.isfinite(self.x).all():
            raise ValueError(f"{self.name}: a point stands at no number")
        if self.band is not None and self.band.shape != self.y.shape:
            raise ValueError(f"{self.name}: the band is {self.band.shape}, y is {self.y.shape}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """A chart of lines.

    Attributes:
        key: tells it from other charts of the same list, of letters a-z, digits and underscores.
        title: heading of the figure.
        x_label: what x is, with its unit if it has one.
        y_label: the same of y.
        series: the lines; they need not have the same x.
        summary: the text alternative: one or two sentences that say what there is to see.
        x_scale: ``step`` where x counts steps or epochs (>= 0): the reader of the page chooses between linear and
            log(1 + step); ``linear`` for anything else.
        y_scale: how y is shown at first; a reader can change it. On a log scale, values <= 0 are gaps, and the page
            says so.
        ordered: the series are an index, as those of singular values are: they are coloured along a sequential scale,
            in order. False: they are categories, told apart by colour, dash and symbol.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    summary: str
    x_scale: Literal["step", "linear"] = "step"
    y_scale: Literal["linear", "log"] = "linear"
    ordered: bool = False

    def __post_init__(self) -> None:
        _check_key(self.key)


Chart = Grid | Lines
"""What can stand in a figure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detail:
    """What a row of a heat map opens: one matrix or one connection through training.

    Attributes:
        name: the full name.
        caption: one line on what it is: ``linear, 768 x 3072, depth 4``.
        charts: in the order in which they are shown; their rows open nothing.
        facts: (what, value) in words, shown as a list.
    """

    name: str
    caption: str
    charts: Sequence[Chart]
    facts: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        _check_keys(self.charts)


@dataclass(frozen=True, kw_only=True, eq=False)
class RunView:
    """All that is shown of one run.

    Attributes:
        name: of the run.
        grids: its heat maps; all that open details share :attr:`details`.
        lines: its curves: metrics, pruning.
        details: what rows open, built only when they are.
        opened: index of the detail that is open when the page is, None for none.
    """

    name: str
    grids: Sequence[Grid] = ()
    lines: Sequence[Lines] = ()
    details: Sequence[Detail] = ()
    opened: int | None = None

    def __post_init__(self) -> None:
        _check_keys([*self.grids, *self.lines])
        opened = {self.opened, *(index for grid in self.grids for index in grid.details)} - {None}
        if not opened <= set(range(len(self.details))):
            raise ValueError(f"{self.name}: a row opens a detail that there is not ({len(self.details)} details)")


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTable:
    """A table that is read as such, without JavaScript as well; a reader can sort it by any column.

    Attributes:
        heading: of its section.
        caption: one sentence on what its rows are.
        columns: their headings, with units.
        rows: one cell per column: text, a number (four significant digits are shown) or None for nothing. Whole
            numbers are shown whole, as are strings.
        numeric: for each column whether it holds numbers, which are aligned to the right.
        note: what the table leaves out: ``12 of 76 matrices are shown``.
        target_column: the column whose cells open a detail.
        targets: for each row (run, detail), both indices, of what the cell in `target_column` opens, or None.
    """

    heading: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    numeric: Sequence[bool]
    note: str = ""
    target_column: int | None = None
    targets: Sequence[tuple[int, int] | None] | None = None

    def __post_init__(self) -> None:
        widths = {len(self.numeric), *map(len, self.rows)}
        if widths != {len(self.columns)}:
            raise ValueError(f"{self.heading}: rows of {sorted(widths)} cells for {len(self.columns)} columns")
        if self.targets is not None and len(self.targets) != len(self.rows):
            raise ValueError(f"{self.heading}: {len(self.targets)} targets for {len(self.rows)} rows")


@dataclass(frozen=True, kw_only=True, eq=False)
class Document:
    """A page.

    Attributes:
        title: heading of the page and of the browser's window.
        lead: one sentence on what was analysed.
        runs: of which one is shown at a time.
        across: charts that are not of one run: barriers. Their rows open nothing.
        tables: what is read: most changed matrices, everything skipped and why, what was analysed, digests.
        limits: sentences on what was left out so that the page is small enough.
    """

    title: str
    lead: str
    runs: Sequence[RunView] = ()
    across: Sequence[Chart] = ()
    tables: Sequence[TextTable] = ()
    limits: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_keys(self.across)
        names = [run.name for run in self.runs]
        if len(set(names)) != len(names):
            raise ValueError("two runs have the same name")


def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        raise ValueError(f"a chart's key is of a-z, 0-9 and _, not {key!r}")


def _check_keys(charts: Sequence[Chart]) -> None:
    keys = [chart.key for chart in charts]
    if len(set(keys)) != len(keys):
        raise ValueError(f"two charts have the same key: {keys}")
