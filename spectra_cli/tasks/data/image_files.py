"""Where images with labels are: a file of Parquet or ``.npz``, or a directory of shards.

Files are not trusted. Nothing in them is executed, pickles are refused, only PNG and JPEG are decoded, and
sizes are checked before memory is taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectra_cli.errors import InputError
from spectra_cli.tasks.data.encoded_images import read_parquet
from spectra_cli.tasks.data.image_arrays import read_npz

SHARD = re.compile(r"(train|validation|valid|val|test)(?:[-_.].*)?\.parquet")
PLACE = re.compile(r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.parquet")
VALIDATION = ("validation", "valid", "val", "test")
"""Names of splits for validation; the first that is there counts."""

ALWAYS_BYTES = 2**30
LARGEST_EXPANSION = 256
"""Images may take up 1 GiB, or this many times the size of their files. CIFAR-10 takes 1.3 times, MNIST 3 times."""


@dataclass(frozen=True, slots=True)
class FoundImages:
    """One split as it is stored.

    Attributes:
        name: of the split, in the words of the files.
        pixels: (n, height, width) or, in colour, (n, height, width, 3).
        labels: (n,) int64.
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_files(path: Path) -> tuple[FoundImages, FoundImages | None]:
    """Images for training, and those for validation if they are told apart.

    Args:
        path: a Parquet file, a directory of such files, or an ``.npz`` file.

    Raises:
        InputError: if there is nothing of the kind, or it cannot be used.
        MissingExtraError: if Pillow is needed and not installed.
    """
    if path.is_dir():
        shards = find_shards(path)
        validation = next((name for name in VALIDATION if name in shards), None)
        train = _from_parquet("train", shards["train"])
        return train, None if validation is None else _from_parquet(validation, shards[validation])
    magic = _first_bytes(path)
    if magic == b"PAR1":
        return _from_parquet("all", [path]), None
    if magic == b"PK\x03\x04":
        found = read_npz(path, _allowed_bytes([path]))
        train, *others = [FoundImages(name, pixels, labels) for name, (pixels, labels) in found.items()]
        return train, others[0] if others else None
    raise InputError(
        "this is neither Parquet nor .npz",
        where=str(path),
        remedy="Give a Parquet file with images and labels, a directory of them, or an .npz file of arrays",
    )


def find_shards(directory: Path) -> dict[str, list[Path]]:
    """Parquet files by the name of their split, in their order.

    They are looked for in the directory, in its folder ``data``, and in any other folder if one alone has some (the hub
    names it after the configuration: ``plain_text``, ``mnist``).

    Raises:
        InputError: if there is none for training, a shard is missing, or several folders have some.
    """
    for folder in (directory, directory / "data"):
        shards = _shards_in(folder)
        if "train" in shards:
            return shards
    others = {folder.name: _shards_in(folder) for folder in sorted(directory.iterdir()) if folder.is_dir()}
    others = {name: shards for name, shards in others.items() if "train" in shards}
    if len(others) > 1:
        raise InputError(
            f"several folders hold train-*.parquet: {', '.join(list(others)[:4])}",
            where=str(directory),
            remedy="Give one of them",
        )
    if not others:
        raise InputError(
            "no train-*.parquet is here, nor in a folder below",
            where=str(directory),
            remedy="Give the directory of a data set as the Hugging Face hub serves it, or one file",
        )
    return next(iter(others.values()))


def _shards_in(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = SHARD.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(match[1], []).append(path)
    for paths in found.values():
        _check_complete(paths)
    return found


def _check_complete(paths: Sequence[Path]) -> None:
    """Raise an error where shards say of how many they are, and some are missing."""
    places = [match for match in (PLACE.fullmatch(path.name) for path in paths) if match]
    for stem, count in {(match["stem"], int(match["count"])) for match in places}:
        there = {int(match["index"]) for match in places if (match["stem"], int(match["count"])) == (stem, count)}
        missing = next((index for index in range(count) if index not in there), None)
        if missing is not None:
            raise InputError(
                f"{stem}-{missing:05d}-of-{count:05d}.parquet is absent, the other shards are here",
                where=str(paths[0].parent),
                remedy="Restore the shard",
            )


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InputError("there is no such file or directory", where=str(path), remedy="Mend the path")
        with path.open("rb") as file:
            return file.read(4)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _from_parquet(name: str, paths: Sequence[Path]) -> FoundImages:
    return FoundImages(name, *read_parquet(paths, _allowed_bytes(paths)))


def _allowed_bytes(paths: Sequence[Path]) -> int:
    return max(ALWAYS_BYTES, LARGEST_EXPANSION * sum(path.stat().st_size for path in paths))
