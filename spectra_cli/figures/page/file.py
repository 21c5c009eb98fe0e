"""The file of a page: it appears when it is complete, and replaces nothing but an older page."""

from __future__ import annotations

from pathlib import Path

from spectra_cli.atomicfile import replace_file
from spectra_cli.errors import InputError, UsageError
from spectra_cli.figures.page.rendering import GENERATOR
from spectra_cli.regularfile import open_regular

SUFFIXES = frozenset({".html", ".htm", ".xhtml"})

HEAD_BYTES = 4096
"""Length of the beginning of a page that says what made it."""


def check_page_path(path: Path) -> None:
    """Check that a page may be written there, before the work is done.

    Raises:
        UsageError: if the name is not that of a page.
        InputError: if something else than an older page stands there, or there is no such directory.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path.name}: the report is a page", remedy="Give --out a name in .html")
    if not path.resolve().parent.is_dir():
        raise InputError(
            "there is no such directory", where=str(path.parent), remedy="Give --out a file in a directory that exists"
        )
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from error
    if head and GENERATOR.encode() not in head:
        raise InputError(
            "this file is no report of spectra; a report does not replace it",
            where=str(path),
            remedy="Give --out another name, or move the file away",
        )


def write_page(page: str, path: Path) -> None:
    """Write a page.

    Args:
        page: HTML.
        path: of the file; a link to an older page stays a link.

    Raises:
        UsageError: as :func:`check_page_path`.
        InputError: likewise, or if it cannot be written.
    """
    check_page_path(path)
    try:
        replace_file(path.resolve(), lambda partial: _write(partial, page))
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(path: Path, page: str) -> None:
    path.write_bytes(page.encode())


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"the report cannot be written: {error.strerror}",
        where=str(path),
        remedy="Give --out a file in a directory that exists and may be written to",
    )
