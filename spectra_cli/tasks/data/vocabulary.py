"""The tokenizer of a Hugging Face checkpoint directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectra_cli.errors import InputError
from spectra_cli.tasks.data.tokens import FileTokenizer, Tokenizer, blamed_for_tokens, portions
from spectra_cli.tasks.models.hugging_face import blamed, offline_and_quiet, transformers_module

OLDER_FILES = (
    "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model",
    "vocab.model", "tekken.json", "*.tiktoken",
)  # fmt: skip
"""Files where tokenizers without a ``tokenizer.json`` have their vocabulary."""


class VocabularyTokenizer:
    """A tokenizer that transformers has read.

    Args:
        tokenizer: a ``PreTrainedTokenizerBase``.
        directory: of its files.
    """

    def __init__(self, tokenizer: Any, directory: Path) -> None:
        self._tokenizer, self._directory = tokenizer, directory
        self.vocabulary = max(tokenizer.get_vocab().values(), default=-1) + 1

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """The tokens of all texts: (count,) int32. A token that spans two texts is never made.

        Raises:
            InputError: if the tokenizer fails.
        """
        parts = [torch.empty(0, dtype=torch.int32)]
        for some in portions(texts):
            with blamed_for_tokens(self._directory):
                encoded = self._tokenizer(some, add_special_tokens=False, verbose=False)
                parts += [torch.tensor(ids, dtype=torch.int32) for ids in encoded["input_ids"]]
        return torch.cat(parts)


def open_vocabulary(directory: Path) -> Tokenizer:
    """The tokenizer of a checkpoint directory: of its ``tokenizer.json``, or of the older files where there is none.

    Nothing is added to the tokens of a text. A ``tokenizer.json`` is all that its tokenizer is; for the older files,
    transformers chooses the class, never one of the directory's own.

    Raises:
        InputError: if there is no tokenizer, or it cannot be read.
        MissingExtraError: if tokenizers or transformers is not installed.
    """
    if (directory / "tokenizer.json").is_file():
        return FileTokenizer(directory)
    if not any(file.is_file() for pattern in OLDER_FILES for file in directory.glob(pattern)):
        raise InputError(  # transformers would make a tokenizer without any tokens
            "holds no tokenizer",
            where=str(directory),
            remedy="Copy tokenizer.json into it, as AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it",
        )
    for file in directory.iterdir():  # transformers reads several of them
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise InputError("is a pipe or a device", where=str(file), remedy="Remove it from the checkpoint")
    transformers = transformers_module()
    with offline_and_quiet(), blamed(directory):
        return VocabularyTokenizer(
            transformers.AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True),
            directory,
        )
