"""Pairs of PATHs: two as they are given, or those of a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.planning.options import PathLike
from spectra_cli.regularfile import open_regular

HEADER = ["a", "b"]
"""Beginning of a first line that names the columns."""


PLAIN = 'Write two PATHs: A,B; with quotes where one holds a comma: "a,1",b'


class GivenPairs(NamedTuple):
    """Pairs, and what a file says of each.

    Attributes:
        pairs: PATHs of A and of B.
        tags: for each pair, what further columns say of it, by their names; empty where there are none.
    """

    pairs: list[tuple[str, str]]
    tags: list[dict[str, str]]


def given_pairs(
    a: PathLike | None, b: PathLike | None, pairs: PathLike | Sequence[tuple[PathLike, PathLike]] | None
) -> GivenPairs:
    """The pairs that a caller names.

    Args:
        a: PATH of one end of the only pair.
        b: PATH of the other.
        pairs: instead of the two, as many as there may be, or a file for :func:`read_pairs`.

    Raises:
        InputError: if the file cannot be read.
        UsageError: if there are no two ends, or any beside other pairs; or as :func:`read_pairs`.
    """
    ends = [os.fspath(path) for path in (a, b) if path is not None]
    if pairs is not None and ends:
        raise UsageError(f"--pairs and the PATH {ends[0]} exclude each other", remedy="Give two PATHs, or --pairs FILE")
    if pairs is None and len(ends) != 2:
        raise UsageError("two PATHs are needed, A and B, or else --pairs FILE", remedy="Give runs/a runs/b")
    if isinstance(pairs, (str, os.PathLike)):
        return read_pairs(Path(pairs))
    named = [(ends[0], ends[1])] if pairs is None else [(os.fspath(one), os.fspath(other)) for one, other in pairs]
    return GivenPairs(named, [])


def read_pairs(path: Path) -> GivenPairs:
    """The pairs of PATHs in a CSV file of two columns, and what further ones say of each.

    A header ``a,b`` may come first; it must where there are more columns, whose names follow: ``a,b,split_step``. Blank
    lines and lines that begin with # are passed over.

    Raises:
        InputError: if the file cannot be read.
        UsageError: if it holds no pair, a line has another number of columns, or two have one name.
    """
    found = GivenPairs([], [])
    further: list[str] = []
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(_without_comments(file), skipinitialspace=True, strict=True)
            try:
                for cells in lines:
                    named = [cell.strip() for cell in cells]
                    if not any(named):
                        continue
                    where = f"{path}, line {lines.line_num}"
                    if not found.pairs and [name.lower() for name in named[: len(HEADER)]] == HEADER:
                        further = _names(named[len(HEADER) :], where)
                        continue
                    found.pairs.append(_two(named, len(HEADER) + len(further), where))
                    found.tags.append(dict(zip(further, named[len(HEADER) :], strict=True)))
            except csv.Error as error:
                raise UsageError(
                    f"this is no line of CSV ({error})", where=f"{path}, line {lines.line_num}", remedy="Write A,B"
                ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), remedy="Mend --pairs") from error
    except UnicodeDecodeError as error:
        raise UsageError("this is no text in UTF-8", where=str(path), remedy="Give --pairs a CSV file") from error
    if not found.pairs:
        raise UsageError("there is no pair in it", where=str(path), remedy="Write two PATHs a line: runs/a,runs/b")
    return found


def _without_comments(lines: Iterable[str]) -> Iterator[str]:
    """Comments become blank lines, so that the others keep their numbers."""
    return ("\n" if line.lstrip().startswith("#") else line for line in lines)


def _names(cells: Sequence[str], where: str) -> list[str]:
    """The names of further columns."""
    if not all(cells) or len({*cells, *HEADER}) < len(cells) + len(HEADER):
        raise UsageError("a column has no name, or that of another", where=where, remedy="Write a,b,split_step")
    return list(cells)


def _two(cells: Sequence[str], width: int, where: str) -> tuple[str, str]:
    if len(cells) != width:
        what = f"{len(cells)} column{'s' * (len(cells) != 1)}, not {width}"
    elif not all(cells[:2]):
        what = "a PATH is missing"
    elif any("\0" in cell for cell in cells[:2]):
        what = "no PATH holds a null character"
    else:
        return cells[0], cells[1]
    raise UsageError(
        what, where=where, remedy=PLAIN if width == len(HEADER) else "Write as many as the first line names"
    )
