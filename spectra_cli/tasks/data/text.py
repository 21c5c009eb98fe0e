"""Text in the forms that people have it in, cut into a training and a validation split."""

from __future__ import annotations

import gzip
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.errors import InputError
from spectra_cli.regularfile import open_regular
from spectra_cli.tasks.data.parquet import column_batches, out_of_memory, value_type, values

EMBEDDED = "Alice's Adventures in Wonderland (Lewis Carroll, 1865)"
"""The text that ships with the package, in the public domain; ``alice.source.txt`` beside it states its source."""

COLUMN = "text"
"""Column of a Parquet file, as the Hugging Face hub serves WikiText."""

MOST_BYTES = 4 * 2**30
"""Longest text that is read: all of it stays in memory."""

ALWAYS_BYTES = 2**28
LARGEST_EXPANSION = 256
"""The rows of a Parquet file may take 256 MiB, or this many times its size. WikiText takes 2 times."""

SPLIT_OF = {"train": "train", "training": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val"}
"""Beginning of a file's name (or of what follows ``wiki.`` in it) -> the split it is of."""

_NAME = re.compile(rf"(?:wiki\.)?({'|'.join(SPLIT_OF)})(?:[-_.].*)?\.(?:txt|parquet|tokens|raw)")
_SHARD = re.compile(r"-(\d{1,6})-of-(\d{1,6})")


def read_splits(data: str | Path | None) -> dict[str, list[str]]:
    """The texts of both splits.

    Args:
        data: None for the embedded text. A file that :func:`read_texts` reads: its last tenth is for validation. Or a
            directory with one file per split, named as ``train.txt``, ``validation.txt`` and ``wiki.train.tokens`` are,
            or with shards named as ``train-00000-of-00002.parquet`` is. Without one for validation, the last tenth of
            the training text is; one named ``test`` is left alone.

    Returns:
        ``train`` and ``val``: texts that follow one another, without anything to be put between them.

    Raises:
        InputError: if a path does not exist or holds no such text or none at all, or a shard is absent.
    """
    if data is None:
        return held_out([embedded_text()])
    path = Path(data)
    if not path.is_dir():
        return held_out(_some([path], path))
    texts = {split: _some(names, path) for split, names in _files_of_splits(path).items()}
    return texts if "val" in texts else held_out(texts["train"])


def _some(paths: Sequence[Path], place: Path) -> list[str]:
    """The texts of the files of one split.

    Raises:
        InputError: if all of them are empty.
    """
    texts = [text for path in paths for text in read_texts(path)]
    if not any(texts):
        raise InputError(
            "holds no text",
            where=str(paths[0] if len(paths) == 1 else place),
            remedy="Give a file with some" + ("" if len(paths) == 1 else f": {paths[0].name} and the others are empty"),
        )
    return texts


def read_texts(path: Path) -> list[str]:
    """The texts of one file, in order.

    Args:
        path: plain text in UTF-8, which is one text; or Parquet with a column ``text``, of which every row is one. A
            row is a line or a document: it gets a line end where it has none, so that it does not run into the next.
            Rows that are null are left out.

    Raises:
        InputError: if there is no such file, it is too long, or it is neither of the two.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), remedy="Mend the path of --data")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    return list(_parquet_rows(path)) if is_parquet or path.suffix == ".parquet" else [_plain_text(path)]


def held_out(texts: Sequence[str]) -> dict[str, list[str]]:
    """Texts cut in two: the last tenth of all characters (rounded down) for validation."""
    length = sum(map(len, texts))
    left = length - length // 10  # characters that are still for training
    train, val = [], []
    for text in texts:
        train.append(text[:left])
        val.append(text[left:])
        left -= len(train[-1])
    return {"train": [text for text in train if text], "val": [text for text in val if text]}


def embedded_text() -> str:
    """The text of :data:`EMBEDDED`, 148,426 characters of ASCII with lines that end in LF."""
    packed = files("spectra_cli.tasks.data").joinpath("alice.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("ascii")


def letters_digits_and_space(text: str) -> str:
    """Lower case, and nothing but letters, digits and white space (of any script): what the papers leave of a text."""
    return re.sub(r"[^\w\s]|_", "", text.lower())


def _plain_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            _check_length(os.fstat(file.fileno()).st_size, path)
            content = file.read(MOST_BYTES + 1)
        _check_length(len(content), path)
        return content.decode("utf-8").removeprefix("\ufeff")  # a byte order mark is no character of the text
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text: byte 0x{content[error.start]:02x} at position {error.start}",
            where=str(path),
            remedy="Convert it, for example with iconv -f ISO-8859-1 -t UTF-8, or give a Parquet file",
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), remedy="Mend --data") from error
    except MemoryError as error:
        raise out_of_memory(path) from error


def _parquet_rows(path: Path) -> Iterator[str]:
    try:
        _check_column(pq.read_schema(path), path)
        limit_bytes = max(ALWAYS_BYTES, LARGEST_EXPANSION * path.stat().st_size)
        unpacked = 0
        for batch in column_batches(path, COLUMN, COLUMN, (), limit_bytes):
            for row in values(batch.column(0)):
                if row is None:
                    continue
                unpacked += len(row)
                _check_length(unpacked, path, limit_bytes)
                yield row if row.endswith("\n") else row + "\n"
    except InputError as error:
        raise error.at(str(path)) from None
    except MemoryError as error:  # Arrow's own is one, and an ArrowException as well
        raise out_of_memory(path) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"is not a sound Parquet file: {reason}", where=str(path), remedy="Download or write it again"
        ) from error


def _check_column(schema: pa.Schema, path: Path) -> None:
    if COLUMN not in schema.names:
        raise InputError(
            f"has no column '{COLUMN}'; its columns are {', '.join(schema.names[:8])}",
            where=str(path),
            remedy=f"Rename the column of the text to '{COLUMN}'",
        )
    if schema.names.count(COLUMN) > 1:
        raise InputError(
            f"has {schema.names.count(COLUMN)} columns '{COLUMN}'", where=str(path), remedy="Leave one of them"
        )
    kind = value_type(schema.field(COLUMN).type)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(
            f"its column '{COLUMN}' is of type {kind}, not string", where=str(path), remedy="Write the text as strings"
        )


def _check_length(count: int, path: Path, limit_bytes: int | None = None) -> None:
    """Refuse what is too long in any case, or for the size of its file."""
    if count > MOST_BYTES:
        raise InputError(
            f"holds more than {MOST_BYTES} bytes of text, which stay in memory",
            where=str(path),
            remedy="Give a part of it",
        )
    if limit_bytes is not None and count > limit_bytes:
        raise InputError(
            f"holds more than {limit_bytes} bytes of text, which is out of all proportion to its size",
            where=str(path),
            remedy="Write the text to a plain file if it is really so long",
        )


def _files_of_splits(directory: Path) -> dict[str, list[Path]]:
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(directory.iterdir()):
        named = _NAME.fullmatch(path.name)
        if named and path.is_file():
            found[SPLIT_OF[named[1]]].append(path)
    if "train" not in found:
        names = ", ".join(path.name for path in sorted(directory.iterdir())[:6]) or "nothing"
        raise InputError(
            f"holds no text for training; it holds {names}",
            where=str(directory),
            remedy="Name the files train.txt and validation.txt or train-*.parquet and validation-*.parquet, "
            "or give one file",
        )
    for split, paths in found.items():
        _check_shards(split, paths, directory)
    return dict(found)


def _check_shards(split: str, paths: Sequence[Path], directory: Path) -> None:
    """Refuse several files that are not one set of shards, and sets that lack one."""
    shards = [_SHARD.search(path.name) for path in paths]
    numbers = [int(shard[1]) for shard in shards if shard]
    counts = {int(shard[2]) for shard in shards if shard}
    if len(paths) > 1 and (len(numbers) < len(paths) or len(counts) > 1 or len(set(numbers)) < len(paths)):
        names = ", ".join(path.name for path in paths[:4])
        raise InputError(
            f"holds more than one text for {split}: {names}", where=str(directory), remedy="Leave one, or give one file"
        )
    absent = sorted(set(range(max(counts, default=0))) - set(numbers))[:4] if numbers else []
    if absent:
        raise InputError(
            f"lacks shard {', '.join(map(str, absent))} of {max(counts)} of the text for {split}",
            where=str(directory),
            remedy="Restore it, or give one file",
        )
