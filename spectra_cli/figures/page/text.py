"""The part of a page that reads without its script: headings, summaries and tables, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from spectra_cli.figures.page.data import NAME_WIDTH, TEXT_WIDTH, readable
from spectra_cli.figures.page.document import Chart, Document, TextTable

NOTHING = "\N{EN DASH}"
"""What stands in a table where there is nothing to tell."""

FIRST_WRITTEN_OUT, FIRST_NOT_WRITTEN_OUT = -4, 7
"""Powers of ten between which numbers are written without an exponent."""


@dataclass(frozen=True)
class Section:
    """A part of the page that its list of contents names.

    Attributes:
        anchor: its id.
        heading: as HTML.
        body: as HTML.
    """

    anchor: str
    heading: str
    body: str


def html(text: str, width: int = TEXT_WIDTH) -> str:
    """Text that any parser of HTML shows as it is, in content and in quoted attributes."""
    return escape(readable(text, width))


def significant(value: float) -> str:
    """A number as the page writes it: whole numbers whole, others with four significant digits, no zeros at the end.

    Powers of ten are written out from 1e-4 to 1e6; the page's script follows the same rule.
    """
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    fraction, _, power = f"{value:.3e}".partition("e")
    exponent = int(power)
    if FIRST_WRITTEN_OUT <= exponent < FIRST_NOT_WRITTEN_OUT:
        decimals = max(0, 3 - exponent)
        written = f"{float(f'{fraction}e{power}'):.{decimals}f}"
        return written.rstrip("0").rstrip(".") if decimals else written
    return f"{fraction.rstrip('0').rstrip('.')}e{exponent}"


def sections(document: Document) -> Iterator[Section]:
    """All that follows the title, in order."""
    if any(run.grids for run in document.runs):
        yield Section("maps", "Heat maps", _of_runs(document, [run.grids for run in document.runs], "maps"))
    if any(run.lines for run in document.runs):
        yield Section("curves", "Curves", _of_runs(document, [run.lines for run in document.runs], "curves"))
    if document.across:
        figures = "".join(_figure(chart, f"across-{chart.key}", "data-across", level=3) for chart in document.across)
        yield Section("across", "Between runs", f'<div class="curves">{figures}</div>')
    for index, table in enumerate(document.tables):
        yield Section(f"table-{index}", html(table.heading), _table(table, f"table-{index}"))
    if document.limits:
        items = "".join(f"<li>{html(limit)}</li>" for limit in document.limits)
        yield Section("limits", "What is not here", f"<ul>{items}</ul>")


def run_choices(document: Document) -> str:
    """The options of the run selector."""
    return "".join(
        f'<option value="{index}">{html(run.name, NAME_WIDTH)}</option>' for index, run in enumerate(document.runs)
    )


def _of_runs(document: Document, charts: Sequence[Sequence[Chart]], layout: str) -> str:
    """The charts of every run; the script shows one run at a time."""
    parts = []
    for index, (run, own) in enumerate(zip(document.runs, charts, strict=True)):
        figures = "".join(_figure(chart, f"run-{index}-{chart.key}", f'data-run="{index}"', level=4) for chart in own)
        none = "" if own else '<p class="note">This run has none.</p>'
        heading = f'<h3 class="run-name">Run <bdi>{html(run.name, NAME_WIDTH)}</bdi></h3>'
        parts.append(f'<div class="run" data-run="{index}">{heading}{none}<div class="{layout}">{figures}</div></div>')
    return "\n".join(parts)


def _figure(chart: Chart, anchor: str, place: str, *, level: int) -> str:
    return (
        f'<figure class="chart" {place} data-key="{chart.key}" aria-labelledby="{anchor}-title">'
        f'<figcaption><h{level} id="{anchor}-title">{html(chart.title)}</h{level}>'
        f'<p class="summary" id="{anchor}-summary">{html(chart.summary)}</p></figcaption></figure>\n'
    )


def _table(table: TextTable, anchor: str) -> str:
    numeric = ["number" if is_number else "text" for is_number in table.numeric]
    heads = "".join(
        f'<th scope="col" class="{kind}">{html(name)}</th>' for kind, name in zip(numeric, table.columns, strict=True)
    )
    targets = table.targets or [None] * len(table.rows)
    rows = "".join(
        _row(row, numeric, table.target_column, target) for row, target in zip(table.rows, targets, strict=True)
    )
    note = f'<p class="note">{html(table.note)}</p>' if table.note else ""
    shown = (
        f'<div class="scroll" role="group" tabindex="0" aria-labelledby="{anchor}-heading">'
        f'<table class="sortable" aria-labelledby="{anchor}-caption">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    none = '<p class="note">There are none.</p>'
    # Not a caption element: that would be as wide as the table, and leave a small screen with it.
    return f'<p class="summary" id="{anchor}-caption">{html(table.caption)}</p>{shown if table.rows else none}{note}'


def _row(
    row: Sequence[str | float | None], numeric: Sequence[str], target_column: int | None, target: tuple[int, int] | None
) -> str:
    opens = "" if target is None else f' data-target="{target[0]} {target[1]}" data-column="{target_column}"'
    cells = "".join(_cell(value, kind) for value, kind in zip(row, numeric, strict=True))
    return f"<tr{opens}>{cells}</tr>\n"


def _cell(value: str | float | None, kind: str) -> str:
    """A cell; numbers keep the value by which they are sorted."""
    if isinstance(value, str):
        return f'<td class="{kind}">{html(value)}</td>'
    if value is None or math.isnan(value):
        return f'<td class="{kind} nothing">{NOTHING}</td>'
    return f'<td class="{kind}" data-value="{float(value)!r}">{significant(float(value))}</td>'
