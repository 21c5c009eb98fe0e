"""A CSV file of pairs of PATHs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from spectra_cli.errors import InputError, UsageError
from spectra_cli.regularfile import open_regular

HEADER = ["a", "b"]
"""A first line that names the columns."""


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The pairs of PATHs in a CSV file of two columns.

    A header ``a,b`` may come first; blank lines and lines that begin with # are passed over.

    Raises:
        InputError: if the file cannot be read.
        UsageError: if it holds no pair, or a line has another number of columns.
    """
    pairs: list[tuple[str, str]] = []
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(_without_comments(file), skipinitialspace=True, strict=True)
            try:
                for cells in lines:
                    named = [cell.strip() for cell in cells]
                    if not any(named) or (not pairs and [name.lower() for name in named] == HEADER):
                        continue
                    pairs.append(_two(named, f"{path}, line {lines.line_num}"))
            except csv.Error as error:
                raise UsageError(
                    f"this is no line of CSV ({error})", where=f"{path}, line {lines.line_num}", remedy="Write A,B"
                ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), remedy="Mend --pairs") from error
    except UnicodeDecodeError as error:
        raise UsageError("this is no text in UTF-8", where=str(path), remedy="Give --pairs a CSV file") from error
    if not pairs:
        raise UsageError("there is no pair in it", where=str(path), remedy="Write two PATHs a line: runs/a,runs/b")
    return pairs


def _without_comments(lines: Iterable[str]) -> Iterator[str]:
    """Comments become blank lines, so that the others keep their numbers."""
    return ("\n" if line.lstrip().startswith("#") else line for line in lines)


def _two(cells: Sequence[str], where: str) -> tuple[str, str]:
    if len(cells) != 2:
        what = f"{len(cells)} column{'s' * (len(cells) != 1)}, not 2"
    elif not all(cells):
        what = "a PATH is missing"
    elif any("\0" in cell for cell in cells):
        what = "no PATH holds a null character"
    else:
        return cells[0], cells[1]
    raise UsageError(what, where=where, remedy='Write two PATHs: A,B; with quotes where one holds a comma: "a,1",b')
