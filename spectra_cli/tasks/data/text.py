"""Text in the forms that people have it in, cut into a training and a validation split."""

from __future__ import annotations

import gzip
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spectra_cli.errors import InputError

EMBEDDED = "Alice's Adventures in Wonderland (Lewis Carroll, 1865)"
"""The text that ships with the package, in the public domain; ``alice.source.txt`` beside it states its source."""

COLUMN = "text"
"""Of a Parquet file, as the Hugging Face hub serves WikiText."""

MOST_BYTES = 4 * 2**30
"""Longest text that is read: all of it stays in memory."""

ROWS = 256
"""Rows of a Parquet file that are unpacked at once: a small file that claims much is refused before memory is full."""

SPLIT_OF = {"train": "train", "training": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val"}
"""What a file's name begins with (or goes on with after ``wiki.``) -> the split it is of."""

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
        InputError: if a path does not exist or holds no such text, or a shard is absent.
    """
    if data is None:
        return held_out([embedded_text()])
    path = Path(data)
    if not path.is_dir():
        return held_out(read_texts(path))
    texts = {
        split: [text for file in names for text in read_texts(file)] for split, names in _files_of_splits(path).items()
    }
    return texts if "val" in texts else held_out(texts["train"])


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
    _check_length(path.stat().st_size, path)
    content = path.read_bytes()
    try:
        return content.decode("utf-8").removeprefix("\ufeff")  # a byte order mark is no character of the text
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 text: byte 0x{content[error.start]:02x} at position {error.start}",
            where=str(path),
            remedy="Convert it, for example with iconv -f ISO-8859-1 -t UTF-8, or give a Parquet file",
        ) from error


def _parquet_rows(path: Path) -> Iterator[str]:
    try:
        with pq.ParquetFile(path) as file:
            _check_column(file.schema_arrow, path)
            unpacked = 0
            for batch in file.iter_batches(batch_size=ROWS, columns=[COLUMN]):
                unpacked += batch.nbytes
                _check_length(unpacked, path)
                for row in batch.column(0).to_pylist():
                    if row is not None:
                        yield row if row.endswith("\n") else row + "\n"
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
    kind = schema.field(COLUMN).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(
            f"its column '{COLUMN}' is of type {kind}, not string", where=str(path), remedy="Write the text as strings"
        )


def _check_length(count: int, path: Path) -> None:
    if count > MOST_BYTES:
        raise InputError(
            f"holds more than {MOST_BYTES} bytes of text, which stay in memory",
            where=str(path),
            remedy="Give a part of it",
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
