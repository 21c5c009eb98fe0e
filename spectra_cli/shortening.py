"""Names of parameters, and other text, made to fit a width that is given in columns of a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

WITHOUT_PREFIX = 2
"""Level of shortening from which on names are shown without the prefix that is told elsewhere."""

NARROWEST_NAME = 8

MOST_COMPONENTS = 32
"""Limit for components that become letters one by one: a name with more is no parameter's, and work is bounded."""

DOT = re.compile(r"(?<!\.)\.(?!\.)")
"""Separates components; those in ``{i=0..31}`` do not."""


def width_of(text: str) -> int:
    """Columns that the text takes on a terminal: two for each Chinese character, for example."""
    from rich.cells import cell_len  # noqa: PLC0415 - importing names only must stay cheap

    return cell_len(text)


def shortened(text: str, width: int) -> str:
    """The text, with an ellipsis in its middle where it takes more than `width` columns."""
    from rich.cells import set_cell_size  # noqa: PLC0415 - as above

    if width_of(text) <= width:
        return text
    left = (width - 1) // 2
    end = set_cell_size(text[::-1], width - 1 - left)[::-1]
    return f"{set_cell_size(text, left)}…{end}"


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
        fitting = (level for level in _levels(name) if width_of(without_words(name, level, prefix)) <= width)
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
    return range(3 + min(len(DOT.findall(name)), MOST_COMPONENTS))


def _fitted(name: str, level: int, width: int, prefix: str) -> str:
    short = without_words(name, level, prefix)
    if width_of(short) > width:
        short = without_words(name, _levels(name)[-1], prefix)
    return shortened(short, width)


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
