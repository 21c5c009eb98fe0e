"""`spectra report`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from spectra_cli.cli import options, output
from spectra_cli.shortening import counted


def report(
    tables: options.Tables,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page to write.", rich_help_panel=options.RESULT)
    ] = Path("report.html"),
    title: Annotated[
        str | None,
        typer.Option(help="Heading of the page. Default: names of the runs.", show_default=False),
    ] = None,
    run: options.RunGlobs = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make one self-contained page from all tables in a directory, to look through in a browser and to send around.

    Example: spectra report tables --out report.html
    """
    started = time.monotonic()
    from spectra_cli.figures.page.file import check_page_path, write_page
    from spectra_cli.figures.page.rendering import render
    from spectra_cli.figures.report.composing import make_document
    from spectra_cli.figures.rows.gathered import Gathered
    from spectra_cli.figures.rows.kinds import KINDS
    from spectra_cli.tables.finding import find_tables

    check_page_path(out)
    found = find_tables(tables)
    problems = [f"{path}: {reason}; passed over" for path, reason in found.passed_over]
    gathered = Gathered(found.tables, run or ())
    empty = [file for file in found.tables if not file.rows]
    problems += [f"{file.path}: the table has no rows; passed over" for file in empty]
    problems += [*gathered.remarks, *dict.fromkeys(notice for kind in KINDS for notice in gathered.unplaced(kind))]
    for problem in problems:
        output.warn(problem)
    passed_over = [(path.name, reason) for path, reason in found.passed_over]
    page = render(make_document(gathered, title=title or "", passed_over=passed_over))
    write_page(page, out)
    size = len(page.encode())
    if as_json:
        names = [str(file.path) for file in found.tables]
        output.json_line({"out": str(out), "bytes": size, "tables": names, "runs": gathered.runs, "problems": problems})
    if not quiet:
        what = f"{counted(len(found.tables), 'table')}, {counted(len(gathered.runs), 'run')}, {size / 1e6:.1f} MB"
        line = f"{output.plain(str(out))}: {what} in {time.monotonic() - started:.1f} s"
        output.stderr_console().print(line, soft_wrap=True)
    if empty:
        raise typer.Exit(3)
