"""`spectra columns`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_cli.cli import options, output
from spectra_cli.errors import UsageError

if TYPE_CHECKING:
    from spectra_cli.tables.columns import Column


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

    chosen = dict(TABLES) if table is None else {table: _columns_of(table)}
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


def _columns_of(table: str) -> tuple[Column, ...]:
    """The columns of one table.

    Raises:
        UsageError: if there is none of that name.
    """
    from spectra_cli.tables.schemas import TABLES

    if table not in TABLES:
        raise UsageError(f"there is no table '{table}'", remedy=f"Tables: {', '.join(TABLES)}")
    return TABLES[table]
