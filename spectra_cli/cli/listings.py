"""Tables of `spectra inspect`: one look for all of them, and names made to fit."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from spectra_cli.cli import output

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_NAMES = 3

WITHOUT_PREFIX = 2
"""Level of shortening from which on names are shown without the prefix that is told elsewhere."""

GAP = 2
"""Columns between two columns of a table, and in all beside the first and the last one."""

NARROWEST_REASON, NARROWEST_NAME = 24, 8

DOT = re.compile(r"(?<!\.)\.(?!\.)")
"""Between components; not one of those in ``{i=0..31}``."""


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
    longest = max(output.width_of(name) + len(", ") for group in names.values() for name in group[:SHOWN_NAMES])
    reason_width = max(NARROWEST_REASON, width - longest - len("count") - 3 * GAP)
    table = plain_table(f"{title}: {sum(map(len, names.values()))}")
    table.add_column(heading, overflow="fold", max_width=reason_width)
    table.add_column("count", justify="right")
    table.add_column("which", overflow="fold")
    for reason, group in names.items():
        more = ", ..." if len(group) > SHOWN_NAMES else ""
        table.add_row(output.plain(reason), str(len(group)), output.plain(", ".join(group[:SHOWN_NAMES])) + more)
    return table


def fitted_names(names: Sequence[str], width: int, prefix: str = "", least: int = 0) -> list[str]:
    """Names of parameters in at most `width` columns, all shortened alike and no more than they must be.

    First ``weight`` at the end goes, then the prefix, then the components in front become their first letters, from the
    left, but for numbers: ``model.layers.31.self_attn.q_proj.weight`` becomes ``l.31.s.q_proj``. What is too long even
    so loses its middle.

    Args:
        names: of parameters.
        width: in columns; a name gets no less than a few.
        prefix: that they may be shown without.
        least: level of shortening to begin with, as of :func:`without_words`.
    """
    width = max(width, NARROWEST_NAME)
    level = max(least, level_needed(names, width, prefix))
    return [_fitted(name, level, width, prefix) for name in names]


def level_needed(names: Iterable[str], width: int, prefix: str = "") -> int:
    """The least level of shortening at which all names fit, but for those that fit at none."""
    needed = 0
    for name in set(names):
        fitting = (level for level in _levels(name) if output.width_of(without_words(name, level, prefix)) <= width)
        needed = max(needed, next(fitting, 0))
    return needed


def without_words(name: str, level: int, prefix: str = "") -> str:
    """A name without ``weight`` from level 1 on; from level 2 on without the prefix, with ``level - 2`` initials."""
    if level == 0:
        return name
    name = name.removesuffix(".weight").removesuffix("_weight")
    if level < WITHOUT_PREFIX:
        return name
    *before, last = DOT.split(name.removeprefix(prefix))
    initials = [part if any(map(str.isdigit, part)) or "{" in part else part[:1] for part in before]
    return ".".join([*initials[: level - WITHOUT_PREFIX], *before[level - WITHOUT_PREFIX :], last])


def _levels(name: str) -> range:
    return range(3 + len(DOT.findall(name)))


def _fitted(name: str, level: int, width: int, prefix: str) -> str:
    short = without_words(name, level, prefix)
    if output.width_of(short) > width:
        short = without_words(name, _levels(name)[-1], prefix)
    return output.shortened(short, width)
