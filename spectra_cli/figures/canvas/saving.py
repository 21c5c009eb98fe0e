"""Figures as image files: the same figure gives the same bytes, and a file appears when it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from spectra_cli.atomicfile import replace_file
from spectra_cli.errors import InputError
from spectra_cli.figures.canvas.style import own_style
from spectra_cli.figures.choice import Drawn
from spectra_cli.regularfile import open_regular

ImageFormat = Literal["png", "svg", "pdf"]

DOTS_PER_INCH = 150

WITHOUT_DATE: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def save(drawn: Drawn, directory: Path, image_format: ImageFormat) -> Path:
    """Save a figure under its name.

    Args:
        drawn: the figure.
        directory: which exists; an older image of the same name, or a link, is replaced.
        image_format: of the file, and its suffix.

    Returns:
        The path of the image.

    Raises:
        InputError: if something else than an image has that name, or the image cannot be written.
    """
    path = directory / f"{drawn.name}.{image_format}"
    _check_replaceable(path)

    def write(partial: Path) -> None:
        # Ids in an SVG would be random; text of a PDF is to be searched, and of a kind that journals take.
        with own_style(svg_hashsalt="spectra", pdf_fonttype=42):
            drawn.figure.savefig(
                partial, format=image_format, dpi=DOTS_PER_INCH, metadata=WITHOUT_DATE.get(image_format, {})
            )

    try:
        replace_file(path, write)
    except OSError as error:
        raise InputError(
            f"the image cannot be written: {error.strerror}",
            where=str(path),
            remedy="Give --out a directory that may be written to",
        ) from error
    return path


IMAGES = (b"\x89PNG", b"<?xml", b"<svg", b"%PDF")
"""What images of these formats begin with."""


def _check_replaceable(path: Path) -> None:
    """Check that what has the name of an image is an older image, or a link, which is replaced and not followed.

    Raises:
        InputError: if it is not.
    """
    if path.is_symlink():
        return
    try:
        with open_regular(path) as file:
            head = file.read(8)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"the image cannot be written: {error.strerror}", where=str(path), remedy="Give --out another directory"
        ) from error
    if head and not head.startswith(IMAGES):
        raise InputError(
            "this file is no image; a figure does not replace it",
            where=str(path),
            remedy="Give --out another directory, or move the file away",
        )
