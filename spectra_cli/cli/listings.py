"""Tables of `spectra inspect`: one look for all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spectra_cli.cli import output
from spectra_cli.shortening import width_of

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_NAMES = 3

GAP = 2
"""Columns between two columns of a table, and in all beside the first and the last one."""

NARROWEST_REASON = 24


def plain_table(title: str) -> Table:
    """An empty table; its title may hold markup."""
    from rich import box
    from rich.table import Table

    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def grouped(title: str, items: Iterable[tuple[str, str]], width: int, heading: str = "why") -> Table:
    """One line per reason, with how many there are and the first names.

    Args:
        title: what they are, without their number.
        items: (reason, name).
        width: of the console; reasons leave room for a name.
        heading: of the reasons.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for reason, name in items:
        names[reason].append(name)
    longest = max(width_of(name) + len(", ") for group in names.values() for name in group[:SHOWN_NAMES])
    reason_width = max(NARROWEST_REASON, width - longest - len("count") - 3 * GAP)
    table = plain_table(f"{title}: {sum(map(len, names.values()))}")
    table.add_column(heading, overflow="fold", max_width=reason_width)
    table.add_column("count", justify="right")
    table.add_column("which", overflow="fold")
    for reason, group in names.items():
        more = ", ..." if len(group) > SHOWN_NAMES else ""
        table.add_row(output.plain(reason), str(len(group)), output.plain(", ".join(group[:SHOWN_NAMES])) + more)
    return table
