"""`spectra columns`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from spectra_cli.cli import options, output
from spectra_cli.errors import UsageError


def columns(
    table: Annotated[str | None, typer.Argument(help="A table; all if none is given.", show_default=False)] = None,
    as_json: options.Json = False,
) -> None:
    """List every column of the tables: type, unit and meaning.

    Example: spectra columns rank
    """
    from rich import box
    from rich.table import Table

    from spectra_cli.tables.schemas import TABLES

    if table is not None and table not in TABLES:
        raise UsageError(f"there is no table '{table}'", remedy=f"Tables: {', '.join(TABLES)}")
    chosen = {name: TABLES[name] for name in TABLES if table in {None, name}}
    if as_json:
        output.json_line({name: [asdict(column) for column in listed] for name, listed in chosen.items()})
        return
    console = output.stdout_console()
    for name, listed in chosen.items():
        shown = Table(title=f"{name} ({name}.parquet)", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("column", "type", "meaning"):
            shown.add_column(heading, overflow="fold", no_wrap=heading != "meaning")
        for column in listed:
            unit = f" [{column.unit}]" if column.unit else ""
            shown.add_row(*(output.plain(cell) for cell in (column.name, column.type, column.meaning + unit)))
        console.print(shown)
