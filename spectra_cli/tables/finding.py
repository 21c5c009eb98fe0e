"""Tables behind paths: files, and directories whose Parquet files are looked through."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectra_cli.errors import InputError, SpectraError
from spectra_cli.tables.reader import TableFile, open_table

SUFFIX = ".parquet"

URL = re.compile(r"(\w{2,}):/+")
"""The beginning of a URL, as a path has it: with one slash."""


@dataclass(frozen=True)
class FoundTables:
    """What is behind paths.

    Attributes:
        tables: each once, in the order of the paths, those of a directory in the order of names.
        passed_over: Parquet files in directories that are no tables of spectra: the path, and why.
    """

    tables: tuple[TableFile, ...]
    passed_over: tuple[tuple[Path, str], ...]


def find_tables(paths: Sequence[Path]) -> FoundTables:
    """Find tables.

    Args:
        paths: of tables, and of directories: the Parquet files in them, not in those below.

    Raises:
        InputError: if a path is a URL, or a file that is no table of spectra, a directory holds none, or there is none
            at all.
    """
    tables: dict[Path, TableFile] = {}
    passed_over: dict[Path, str] = {}
    for path in paths:
        if url := URL.match(str(path)):
            raise InputError(
                "tables in remote storage are not read here",
                where=str(path).replace(url[0], f"{url[1]}://", 1),
                remedy="Copy them to this machine first",
            )
        if not path.is_dir():
            tables.setdefault(path.resolve(), open_table(path))
            continue
        found = False
        for file in _parquet_in(path):
            try:
                tables.setdefault(file.resolve(), open_table(file))
                found = True
            except SpectraError as error:
                passed_over[file] = error.what
        if not found:
            raise _nothing_in(path, passed_over)
    return FoundTables(tuple(tables.values()), tuple(passed_over.items()))


def _parquet_in(directory: Path) -> list[Path]:
    try:
        return sorted(file for file in directory.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(directory), remedy="Mend the path") from error


def _below(directory: Path) -> str:
    """The first directories in one that hold Parquet files."""
    found = sorted(file.parent.name for file in directory.glob(f"*/*{SUFFIX}"))
    names = list(dict.fromkeys(found))
    return f"one below it that does: {', '.join(names[:3])}{', ...' * (len(names) > 3)}" if names else ""


def _nothing_in(directory: Path, passed_over: dict[Path, str]) -> InputError:
    inside = {path: reason for path, reason in passed_over.items() if path.parent == directory}
    what = "; ".join(f"{path.name}: {reason}" for path, reason in list(inside.items())[:3])
    return InputError(
        f"holds no table of spectra{f' ({what})' if what else ''}",
        where=str(directory),
        remedy=f"Give {_below(directory) or 'the directory of --out of spectra analyze, or tables that spectra wrote'}",
    )
