"""Turns text into tokens: UTF-8 bytes, or the tokens of a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from spectra_cli.errors import InputError, MissingExtraError

TEXTS = 1000
CHARACTERS = 2**22
"""Texts, and characters, that are handed to a tokenizer at once."""

PIECE = 2**20
"""Characters after which a text is cut at the next end of a line: a tokenizer takes many times the memory of a text."""

IDS = 2**31
"""Tokens are numbered below."""

LONGEST_REASON = 200


class Tokenizer(Protocol):
    """What makes tokens of text.

    Attributes:
        vocabulary: number of tokens; each is in [0, vocabulary).
    """

    vocabulary: int

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """The tokens of all texts, one after the other: (count,), uint8 or int32."""
        ...


class ByteTokenizer:
    """The bytes of UTF-8: no text is unknown to it, and a loss in nats per byte compares between tokenizers."""

    vocabulary = 256

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """The bytes of all texts: (count,) uint8."""
        content = bytearray().join(text.encode("utf-8") for text in texts)
        return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


class FileTokenizer:
    """The tokenizer of a ``tokenizer.json``, as Hugging Face's fast tokenizers are stored.

    Nothing is added to the tokens of the text (no beginning or end of it), cut off or padded, whatever the file says.

    Args:
        path: of the file, or of the directory that it is in.

    Raises:
        InputError: if there is no such file, or it is no tokenizer.
        MissingExtraError: if the package ``tokenizers`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / "tokenizer.json" if path.is_dir() else path
        self._tokenizer = _loaded(self._path)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Added tokens may stand beyond a gap: the ids decide, not their number.
        self.vocabulary = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if self.vocabulary == 0:
            raise InputError("has no tokens", where=str(path), remedy="Train the tokenizer, or take another")
        if self.vocabulary > IDS:
            raise InputError(
                f"numbers a token {self.vocabulary - 1}", where=str(path), remedy="Restore the file, or take another"
            )

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """The tokens of all texts: (count,) int32. A token that spans two texts is never made.

        Raises:
            InputError: if the tokenizer fails.
        """
        parts = [np.empty(0, dtype=np.int32)]
        for some in portions(texts):
            with blamed_for_tokens(self._path):
                encoded = self._tokenizer.encode_batch_fast(some, add_special_tokens=False)
                parts += [np.asarray(one.ids, dtype=np.int32) for one in encoded]
        return torch.from_numpy(np.concatenate(parts))


def portions(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts as they are handed to a tokenizer: not too many at once, and long ones cut where a line ends."""
    portion: list[str] = []
    for text in texts:
        for piece in _pieces(text):
            portion.append(piece)
            if len(portion) == TEXTS or sum(map(len, portion)) >= CHARACTERS:
                yield portion
                portion = []
    if portion:
        yield portion


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        end = text.find("\n", start + PIECE - 1) + 1
        if end == 0:
            break
        yield text[start:end]
        start = end
    if start < len(text) or not text:
        yield text[start:]


@contextmanager
def blamed_for_tokens(path: Path) -> Iterator[None]:
    """A context in which a tokenizer's errors blame its file: also a panic of Rust, which is no Exception.

    Raises:
        InputError: for whatever happens, but for an interruption or too little memory.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(
            f"fails to make tokens of the text: {_first_line(error)}", where=str(path), remedy="Take another tokenizer"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:LONGEST_REASON]


def open_tokenizer(name: str) -> Tokenizer:
    """A tokenizer by name.

    Args:
        name: ``bytes``; or the path of a ``tokenizer.json`` or of the directory that it is in.

    Raises:
        InputError: if there is no such file, or it is no tokenizer.
        MissingExtraError: if the package ``tokenizers`` is needed and not installed.
    """
    return ByteTokenizer() if name == "bytes" else FileTokenizer(Path(name))


def _loaded(path: Path) -> Any:  # a tokenizers.Tokenizer: the package is optional
    if not path.is_file():
        raise InputError(
            "there is no such file",
            where=str(path),
            remedy="Give a tokenizer.json (save_pretrained() of a fast tokenizer writes it), or tokenizer=bytes",
        )
    try:
        import tokenizers  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError(
            f"to read the tokenizer {path} takes the package tokenizers", remedy="pip install 'spectra-weights[hf]'"
        ) from error
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # nothing more precise, and panics of Rust
        raise InputError(
            f"is no tokenizer: {_first_line(error)}", where=str(path), remedy="Give a tokenizer.json"
        ) from error
