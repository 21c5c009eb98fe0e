"""Arrays of images and labels in ``.npz`` files, named as in keras' ``mnist.npz`` or as in MedMNIST."""

from __future__ import annotations

import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spectra_cli.errors import InputError
from spectra_cli.regularfile import open_regular
from spectra_cli.tasks.data.parquet import out_of_memory

Pixels = NDArray[np.uint8]
"""(n, height, width), or (n, height, width, 3) in colour."""

Labels = NDArray[np.int64]

TRAINING = (("x_train", "y_train"), ("train_images", "train_labels"))
VALIDATION = (
    ("x_val", "y_val"),
    ("val_images", "val_labels"),
    ("x_test", "y_test"),
    ("test_images", "test_labels"),
)
UNDIVIDED = (("images", "labels"), ("x", "y"))
"""Names of the images and of their labels: of keras, of MedMNIST, and where nothing tells splits apart. Of several that
are there the first counts."""

COLOURS = 3

CHUNK = 2**18
"""Values that are converted at once."""

_RESTORE = "Restore the file"


def read_npz(path: Path, limit_bytes: int) -> dict[str, tuple[Pixels, Labels]]:
    """Images and labels by the name of the images: those for training, then those for validation if there are some.

    Images are uint8, or other whole numbers in 0..255, or floats in [0, 1] that are rounded to 255ths; of shape
    (n, height, width), (n, height, width, channels) or (n, channels, height, width) with 1 or 3 channels. Labels are
    whole numbers, (n,) or (n, 1).

    Everything that the headers say is checked before the first value is read; values are converted a chunk at a time.

    Args:
        path: of the file.
        limit_bytes: what its arrays may take, as they are stored, and once more as uint8 and int64.

    Raises:
        InputError: if it is damaged, holds pickles, has no such arrays, or they would take more than `limit_bytes`.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return _read(archive, limit_bytes)
    except InputError as error:
        raise error.at(str(path)) from None
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (
        *(OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error),
        *(NotImplementedError, RuntimeError),  # compressions that Python does not know; encrypted files
    ) as error:
        raise InputError(f"cannot be read as .npz ({error})", where=str(path), remedy=_RESTORE) from error


@dataclass(frozen=True, slots=True)
class _Array:
    """An array in an archive, by its header."""

    name: str
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def _read(archive: zipfile.ZipFile, limit_bytes: int) -> dict[str, tuple[Pixels, Labels]]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    names = _wanted(members)
    stored_bytes = sum(members[one].file_size for pair in names for one in pair)
    _check_size(stored_bytes, limit_bytes)
    pairs = []
    for images, labels in names:
        pair = _header(archive, images, members[images]), _header(archive, labels, members[labels])
        _check_pair(*pair)
        pairs.append(pair)
    _check_size(sum(images.count + 8 * labels.count for images, labels in pairs), limit_bytes)
    return {images.name: (_pixels(archive, images), _classes(archive, labels)) for images, labels in pairs}


def _check_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise InputError(
            f"its arrays would take {size_bytes / 2**30:.1f} GiB, which is out of all proportion to the file",
            remedy=_RESTORE,
        )


def _wanted(members: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names of images and labels: for training or undivided, then for validation."""
    training = next((pair for pair in (*TRAINING, *UNDIVIDED) if pair[0] in members), None)
    if training is None:
        raise InputError(
            f"has no images for training: its arrays are {', '.join(list(members)[:8])[:200] or 'none'}",
            remedy=f"Call them {' or '.join(pair[0] for pair in (*TRAINING, *UNDIVIDED))}",
        )
    validation = next((pair for pair in VALIDATION if pair[0] in members and training in TRAINING), None)
    pairs = [training] if validation is None else [training, validation]
    for images, labels in pairs:
        if labels not in members:
            raise InputError(f"has '{images}' without '{labels}'", remedy=f"Add '{labels}'")
    return pairs


def _header(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> _Array:
    """What numpy's format says of an array before its values.

    Raises:
        InputError: if it is no array, holds Python objects, or is not of the size that the archive tells of.
    """
    with archive.open(member) as file:
        try:
            shape, fortran_order, dtype = _parsed_header(file)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            if isinstance(error, RecursionError):
                raise InputError(f"'{name}' is no array", remedy=_RESTORE) from error
            raise
        except Exception as error:  # numpy hands the text to Python's parser, which raises what it likes
            raise InputError(f"'{name}' is no array", remedy=_RESTORE) from error
        begin = file.tell()
    if dtype.hasobject:
        raise InputError(
            f"'{name}' holds Python objects, which would have to be unpickled",
            remedy="Save the images as an array of numbers",
        )
    found = _Array(name, member, shape, fortran_order, dtype)
    if not all(0 <= size < 2**62 for size in shape) or found.count * dtype.itemsize != member.file_size - begin:
        raise InputError(f"'{name}' is not of the size that its header tells of", remedy=_RESTORE)
    return found


def _parsed_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        return read(file)


def _check_pair(images: _Array, labels: _Array) -> None:
    """Refuse by their headers what are no images with a label each."""
    stand_in = _channels_last(np.broadcast_to(np.uint8(0), images.shape))  # takes no memory
    if stand_in.ndim not in {3, 4} or 0 in stand_in.shape[1:] or stand_in.shape[3:] not in {(), (COLOURS,)}:
        raise InputError(
            f"'{images.name}' is of shape {images.shape}",
            remedy="Give (n, height, width) or (n, height, width, channels) with 1 or 3 channels",
        )
    if images.dtype.kind not in "fui":
        raise InputError(f"'{images.name}' holds {images.dtype}", remedy="Give uint8, or floats in [0, 1]")
    if len(labels.shape) not in {1, 2} or labels.shape[1:] not in {(), (1,)} or labels.dtype.kind not in "ui":
        raise InputError(
            f"'{labels.name}' holds {labels.dtype} of shape {labels.shape}",
            remedy="Give one whole number for each image",
        )
    if images.shape[0] != labels.shape[0]:
        raise InputError(
            f"'{images.name}' holds {images.shape[0]} images and '{labels.name}' {labels.shape[0]} labels",
            remedy="Give one for each",
        )


def _channels_last(array: Pixels) -> Pixels:
    """Channels at the end, and none where there is one only."""
    if array.ndim == 4 and array.shape[-1] not in {1, COLOURS} and array.shape[1] in {1, COLOURS}:
        array = np.moveaxis(array, 1, -1)
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _chunks(archive: zipfile.ZipFile, array: _Array) -> Iterator[tuple[slice, NDArray[Any]]]:
    """The values of an array in the order in which they are stored, and their places in it."""
    with archive.open(array.member) as file:
        _parsed_header(file)
        for start in range(0, array.count, CHUNK):
            count = min(CHUNK, array.count - start)
            content = file.read(count * array.dtype.itemsize)
            if len(content) < count * array.dtype.itemsize:
                raise EOFError(f"'{array.name}' is cut off")
            yield slice(start, start + count), np.frombuffer(content, array.dtype)
        file.read(1)  # at the end the checksum is compared


def _pixels(archive: zipfile.ZipFile, array: _Array) -> Pixels:
    """Values as uint8.

    Raises:
        InputError: if they are neither in 0..255 nor, as floats, in [0, 1].
    """
    floats = array.dtype.kind == "f"
    largest = 1 if floats else 255
    flat = np.empty(array.count, np.uint8)
    for place, values in _chunks(archive, array):
        if not (values.min() >= 0 and values.max() <= largest):  # NaN is neither
            raise InputError(
                f"'{array.name}' holds values outside 0..{largest}",
                remedy="Give uint8 in 0..255, or floats in [0, 1]",
            )
        flat[place] = np.rint(np.multiply(values, 255.0, dtype=np.float64)) if floats else values
    return _channels_last(flat.reshape(array.shape[::-1]).T if array.fortran_order else flat.reshape(array.shape))


def _classes(archive: zipfile.ZipFile, array: _Array) -> Labels:
    labels = np.empty(array.count, np.int64)
    for place, values in _chunks(archive, array):
        if int(values.max()) > np.iinfo(np.int64).max:
            raise InputError(f"'{array.name}' holds {values.max()}", remedy="Number classes from 0")
        labels[place] = values
    return labels
