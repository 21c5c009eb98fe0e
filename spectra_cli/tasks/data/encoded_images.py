"""Parquet files with a PNG or JPEG and a label in every row, as the Hugging Face hub serves CIFAR-10 and MNIST."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.tasks.data.parquet import column_batches, out_of_memory, value_type, values

Pixels = NDArray[np.uint8]
"""(n, height, width), or (n, height, width, 3) in colour."""

Labels = NDArray[np.int64]

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label")
"""CIFAR-100 has ``fine_label`` of 100 classes beside ``coarse_label`` of 20."""

FORMATS = ("PNG", "JPEG")
"""Formats to decode: the hub has PNG for these data sets. No other decoder of Pillow gets untrusted bytes."""

LONGEST_REASON = 200

GREY = frozenset({"1", "L", "LA"})
COLOURED = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Modes of Pillow with at most 8 bits per channel. Transparency is dropped."""


def read_parquet(paths: Sequence[Path], limit_bytes: int) -> tuple[Pixels, Labels]:
    """The images and labels of some shards.

    Args:
        paths: in the order of their rows.
        limit_bytes: what the decoded images may take.

    Raises:
        InputError: if a file is no such Parquet file, an image is damaged or of another size than the first one, a
            label is missing, or the images would take more than `limit_bytes`.
        MissingExtraError: if Pillow is not installed.
    """
    rows = 0
    for path in paths:
        with _blaming(path):
            rows += pq.read_metadata(path).num_rows
    stack = ImageStack(rows, limit_bytes)
    labels = [np.empty(0, np.int64)]
    for path in paths:
        with _blaming(path):
            labels += _rows(path, stack, limit_bytes)
    return stack.pixels(), np.concatenate(labels)


class ImageStack:
    """Images of one size, decoded one after the other into one array.

    Args:
        count: how many there will be.
        limit_bytes: what they may take.
    """

    def __init__(self, count: int, limit_bytes: int) -> None:
        self._count, self._limit_bytes = count, limit_bytes // max(1, count)
        self._filled = 0
        self._pixels: Pixels | None = None

    def add(self, content: bytes) -> None:
        """Decode one more image.

        Raises:
            InputError: if it is damaged, or of another size than the first one.
        """
        if self._filled == self._count:
            raise InputError(f"has more than the {self._count} rows that it tells of", remedy=_RESTORE)
        try:
            pixels = decoded(content, None if self._pixels is None else self._pixels.shape[1:3], self._limit_bytes)
        except InputError as error:
            error.what = f"image {self._filled}: {error.what}"
            raise
        if self._pixels is None:
            self._pixels = np.empty((self._count, *pixels.shape), np.uint8)
        elif pixels.ndim > self._pixels.ndim - 1:  # the first one in colour
            grey, self._pixels = self._pixels, np.empty((self._count, *pixels.shape), np.uint8)
            self._pixels[: self._filled] = grey[: self._filled, ..., None]
        self._pixels[self._filled] = pixels if pixels.ndim == self._pixels.ndim - 1 else pixels[..., None]
        self._filled += 1

    def pixels(self) -> Pixels:
        """All images; (0, 1, 1) if there was none.

        Raises:
            InputError: if there were fewer than said.
        """
        if self._filled != self._count:
            raise InputError(f"has {self._filled} of {self._count} rows", remedy=_RESTORE)
        return np.empty((0, 1, 1), np.uint8) if self._pixels is None else self._pixels


def decoded(content: bytes, size: tuple[int, ...] | None, limit_bytes: int) -> Pixels:
    """The pixels of a PNG or JPEG.

    Args:
        content: its bytes.
        size: height and width that it must have; None for any.
        limit_bytes: what it may take.

    Returns:
        (height, width), or (height, width, 3) in colour.

    Raises:
        InputError: if it is neither, is damaged, has more than 8 bits per channel or another size.
        MissingExtraError: if Pillow is not installed.
    """
    pillow = _pillow()
    damages = (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
        OverflowError,
        struct.error,
        zlib.error,
    )
    bombs = (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    try:
        with pillow.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if size is not None and (height, width) != tuple(size):
                raise InputError(
                    f"is of {height} x {width} pixels, the first one of {size[0]} x {size[1]}",
                    remedy="Bring all images to one size (height x width)",
                )
            if image.mode not in GREY | COLOURED:
                raise InputError(f"has pixels of mode {image.mode}", remedy="Convert it to 8 bits per channel")
            channels = 1 if image.mode in GREY else 3
            if height * width * channels > limit_bytes:
                raise InputError(
                    f"is of {height} x {width} pixels, which is out of all proportion to the files",
                    remedy="Scale the images down, or restore the files",
                )
            return np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (*damages, *bombs) as error:
        unknown = isinstance(error, pillow.UnidentifiedImageError)  # whose text is an address in memory
        reason = "its beginning is of neither" if unknown else str(error)[:LONGEST_REASON]
        raise InputError(f"cannot be decoded as PNG or JPEG ({reason})", remedy=_RESTORE) from error


_RESTORE = "Restore the file"


def _pillow() -> Any:
    try:
        import PIL.Image  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Parquet files of images need Pillow", remedy="pip install 'spectra-weights[images]'"
        ) from error
    return PIL.Image


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Name the file in errors, and see to it that a warning of a decompression bomb is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Pillow: transparency that is dropped with the palette
            warnings.filterwarnings("error", message=".*decompression bomb", category=RuntimeWarning)
            yield
    except InputError as error:
        raise error.at(str(path)) from None
    except MemoryError as error:  # Arrow's own is one, and an ArrowException as well
        raise out_of_memory(path) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"cannot be read as Parquet ({reason})", where=str(path), remedy=_RESTORE) from error


def _rows(path: Path, stack: ImageStack, limit_bytes: int) -> Iterator[Labels]:
    """Decode the images of a Parquet file into the stack; yields their labels."""
    schema = pq.read_schema(path)
    image_column = _column(schema, IMAGE_COLUMNS, "images")
    label_column = _column(schema, LABEL_COLUMNS, "labels")
    in_struct = _is_struct_of_bytes(schema.field(image_column))
    kind = schema.field(label_column).type
    if not pa.types.is_integer(kind):
        raise InputError(f"its column '{label_column}' holds {kind}", remedy="Give whole numbers from 0")
    leaf = f"{image_column}.bytes" if in_struct else image_column
    for batch in column_batches(path, image_column, leaf, [label_column], limit_bytes):
        images, labels = batch.column(image_column), batch.column(label_column)
        for content in values(images.field("bytes") if in_struct else images):
            if content is None:
                raise InputError(
                    f"has a row without the bytes of an image in '{image_column}'",
                    remedy="Store the images in the file: paths are not followed",
                )
            stack.add(content)
        if labels.null_count:
            raise InputError(f"has a row without a value in '{label_column}'", remedy="Leave out what has no label")
        yield labels.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _column(schema: Any, names: Sequence[str], what: str) -> str:
    found = next((name for name in names if schema.names.count(name) == 1), None)
    if found is None:
        raise InputError(
            f"has no column of {what}: its columns are {', '.join(schema.names[:8]) or 'none'}",
            remedy=f"Call it {' or '.join(names)}",
        )
    return found


def _is_struct_of_bytes(field: Any) -> bool:
    """Whether the images are within structs, as opposed to plain bytes.

    Raises:
        InputError: if they are neither.
    """
    in_struct = bool(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    kind = value_type(field.type.field("bytes").type if in_struct else field.type)
    if not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind):
        raise InputError(
            f"its column '{field.name}' holds {field.type}", remedy="Give struct<bytes: binary, path: string> or binary"
        )
    return in_struct
