"""Arrays of images and labels in ``.npz`` files, named as in keras' ``mnist.npz`` or as in MedMNIST."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectra_cli.errors import InputError

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

_RESTORE = "Restore the file"


def read_npz(path: Path, limit_bytes: int) -> dict[str, tuple[Pixels, Labels]]:
    """Images and labels by the name of the images: those for training, then those for validation if there are some.

    Images are uint8, or other whole numbers in 0..255, or floats in [0, 1] that are rounded to 255ths; of shape
    (n, height, width), (n, height, width, channels) or (n, channels, height, width) with 1 or 3 channels. Labels are
    whole numbers, (n,) or (n, 1).

    Args:
        path: of the file.
        limit_bytes: what its arrays may take.

    Raises:
        InputError: if it is damaged, holds pickles, has no such arrays, or they would take more than `limit_bytes`.
    """
    try:
        return _read(path, limit_bytes)
    except InputError as error:
        raise error.at(str(path)) from None
    except (
        *(OSError, EOFError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error),
        *(NotImplementedError, RuntimeError),  # compressions that Python does not know; encrypted files
    ) as error:
        raise InputError(f"cannot be read as .npz ({error})", where=str(path), remedy=_RESTORE) from error


def _read(path: Path, limit_bytes: int) -> dict[str, tuple[Pixels, Labels]]:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    names = [*_wanted(sizes)]
    size_bytes = sum(sizes[one] for pair in names for one in pair)
    if size_bytes > limit_bytes:
        raise InputError(
            f"its arrays would take {size_bytes / 2**30:.1f} GiB, which is out of all proportion to the file",
            remedy=_RESTORE,
        )
    with np.load(path, allow_pickle=False) as arrays:
        return {images: _labelled(arrays, images, labels) for images, labels in names}


def _wanted(sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Names of images and labels: for training or undivided, then for validation."""
    training = next((pair for pair in (*TRAINING, *UNDIVIDED) if pair[0] in sizes), None)
    if training is None:
        raise InputError(
            f"has no images for training: its arrays are {', '.join(list(sizes)[:8]) or 'none'}",
            remedy=f"Call them {' or '.join(pair[0] for pair in (*TRAINING, *UNDIVIDED))}",
        )
    validation = next((pair for pair in VALIDATION if pair[0] in sizes and training in TRAINING), None)
    pairs = [training] if validation is None else [training, validation]
    for images, labels in pairs:
        if labels not in sizes:
            raise InputError(f"has '{images}' without '{labels}'", remedy=f"Add '{labels}'")
    return pairs


def _labelled(arrays: Mapping[str, object], images: str, labels: str) -> tuple[Pixels, Labels]:
    found = []
    for name in (images, labels):
        array = arrays[name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"'{name}' is no array", remedy=_RESTORE)
        found.append(array)
    pixels, classes = _pixels(found[0], images), _classes(found[1], labels)
    if len(pixels) != len(classes):
        raise InputError(
            f"'{images}' holds {len(pixels)} images and '{labels}' {len(classes)} labels", remedy="Give one for each"
        )
    return pixels, classes


def _pixels(array: NDArray[np.generic], name: str) -> Pixels:
    if array.ndim == 4 and array.shape[-1] not in {1, COLOURS} and array.shape[1] in {1, COLOURS}:
        array = np.moveaxis(array, 1, -1)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in {3, 4} or 0 in array.shape[1:] or (array.ndim == 4 and array.shape[-1] != COLOURS):
        raise InputError(
            f"'{name}' is of shape {array.shape}",
            remedy="Give (n, height, width) or (n, height, width, channels) with 1 or 3 channels",
        )
    return _bytes(array, name)


def _bytes(array: NDArray[np.generic], name: str) -> Pixels:
    """Values as uint8.

    Raises:
        InputError: if they are neither in 0..255 nor, as floats, in [0, 1].
    """
    floats = array.dtype.kind == "f"
    if not floats and array.dtype.kind not in "ui":
        raise InputError(f"'{name}' holds {array.dtype}", remedy="Give uint8, or floats in [0, 1]")
    largest = 1 if floats else 255
    if array.size and not (array.min() >= 0 and array.max() <= largest):  # NaN is neither
        raise InputError(
            f"'{name}' holds values outside 0..{largest}",
            remedy="Give uint8 in 0..255, or floats in [0, 1]",
        )
    return np.rint(np.multiply(array, 255.0, dtype=np.float64)).astype(np.uint8) if floats else array.astype(np.uint8)


def _classes(array: NDArray[np.generic], name: str) -> Labels:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise InputError(
            f"'{name}' holds {array.dtype} of shape {array.shape}", remedy="Give one whole number for each image"
        )
    if len(array) and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"'{name}' holds {array.max()}", remedy="Number classes from 0")
    return array.astype(np.int64)
