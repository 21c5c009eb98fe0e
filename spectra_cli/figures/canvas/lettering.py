"""Text from files made safe and short enough to stand in a figure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from matplotlib.font_manager import FontProperties, findfont, get_font

from spectra_cli.shortening import fitted_names, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE_SIZE = 9.0
"""Font size of titles, and the largest of names beside rows."""

LETTER_IN = 0.6 / 72
"""Width of a letter in inches, by point of font size; somewhat more than DejaVu Sans takes on average."""

LONGEST = 100
"""Columns of a line, unless a caller asks for another length."""

LONGEST_NAME = 160
"""Characters of the name of a matrix that shortening looks at."""

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are escaped: control, format (bidi), surrogates, private, unassigned, separators of lines."""

ARROW = " -> "
"""Stands between the ends of a connection."""


def plain(text: object, width: int = LONGEST) -> str:
    r"""Text from a file, made safe for any label, title or legend of matplotlib.

    Control, bidi and other invisible characters, and those that the font cannot show, become escapes (``\u202e``); a
    dollar sign is escaped so that it never starts mathematics: leave ``parse_math`` on, and do not escape twice.

    Args:
        text: any, of any length.
        width: columns that it may take; the middle of longer text becomes an ellipsis.
    """
    whole = str(text)
    if len(whole) > 4 * width:  # so that the work is bounded; more than can be shown is left on either side
        whole = f"{whole[: 2 * width]}…{whole[-2 * width :]}"
    glyphs = _glyphs()
    visible = "".join(letter if _shown(letter, glyphs) else _escaped(letter) for letter in whole)
    return shortened(visible, width).replace("$", r"\$")


def plain_names(names: Sequence[str], width: int, most: int = LONGEST) -> list[str]:
    """Names of matrices or connections, shortened alike so that they stay apart, as :func:`plain` text.

    Args:
        names: of parameters, or of connections: ``kind: upstream -> downstream``.
        width: columns that each may take; more where names would become alike.
        most: columns that they may take even then.
    """
    return list(_plain_names(tuple(names), width, most))


@lru_cache(maxsize=32)  # the same names stand in all panels, and are measured before
def _plain_names(names: tuple[str, ...], width: int, most: int) -> tuple[str, ...]:
    short = _fitted(names, width)
    while len(set(short)) < len(set(names)) and width < most:
        width += 8
        short = _fitted(names, width)
    if len(set(short)) < len(set(names)):  # a number tells apart what no width does
        uses = Counter(short)
        short = [f"{name} ({number})" if uses[name] > 1 else name for number, name in enumerate(short, 1)]
    return tuple(plain(name, width + len(" (9999)")) for name in short)


def fitted_name(name: str, width: int) -> str:
    """The name of a matrix or connection, shortened by its components; not yet :func:`plain`."""
    return _fitted([name], width)[0] if len(name) > width else name


def _bounded(name: str) -> str:
    """A name, without its middle if it is absurdly long: the work of shortening grows with the square of its parts."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _fitted(names: Sequence[str], width: int) -> list[str]:
    parts = [name.partition(": ") for name in names]
    if not all(colon and ARROW in ends for _, colon, ends in parts):
        return fitted_names([_bounded(name) for name in names], width)
    kinds = [kind for kind, _, _ in parts]
    room = (width - max(map(len, kinds)) - len(": ") - len(ARROW)) // 2
    ups = fitted_names([_bounded(ends.partition(ARROW)[0]) for _, _, ends in parts], room)
    downs = fitted_names([_bounded(ends.partition(ARROW)[2]) for _, _, ends in parts], room)
    return [f"{kind}: {up} → {down}" for kind, up, down in zip(kinds, ups, downs, strict=True)]


@cache
def _glyphs() -> frozenset[int]:
    """What the font of labels can show."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _shown(letter: str, glyphs: frozenset[int]) -> bool:
    return unicodedata.category(letter) not in UNSEEN and ord(letter) in glyphs


def _escaped(letter: str) -> str:
    return repr(letter)[1:-1] if letter.isascii() else letter.encode("ascii", "backslashreplace").decode()


def title_columns(axis: Axes) -> int:
    """Columns of text that fit above a panel."""
    return max(16, int(panel_in(axis)[0] * 0.8 / (LETTER_IN * TITLE_SIZE)))


def heading_columns(figure: Figure) -> int:
    """Columns of text that fit above all panels."""
    return max(16, int(figure.get_size_inches()[0] * 0.95 / (LETTER_IN * TITLE_SIZE)))


def panel_in(axis: Axes) -> tuple[float, float]:
    """Width and height of the cell of a panel, in inches, before any layout."""
    place, figure = axis.get_subplotspec(), axis.get_figure(root=True)
    width, height = figure.get_size_inches() if figure is not None else (6.0, 4.0)
    grid = place.get_gridspec() if place is not None else None
    return (
        (float(width / grid.ncols), float(height / grid.nrows)) if grid is not None else (float(width), float(height))
    )
