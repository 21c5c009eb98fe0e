"""Transcripts: LibriSpeech's characters as classes of a recognizer, and how far a hypothesis is from a reference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

ALPHABET = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Characters of a transcript; a character's class is its place here plus one."""

BLANK = 0
"""Class of CTC's blank."""

CLASSES = 1 + len(ALPHABET)
"""29: blank, space, apostrophe, A to Z."""

_CLASS_OF = {character: place for place, character in enumerate(ALPHABET, start=1)}
_CHARACTERS = frozenset(ALPHABET)


def normalized_transcript(text: str) -> str:
    """The text in capitals, words separated by one space, typographic apostrophes as ``'``."""
    return " ".join(text.upper().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def foreign_characters(text: str) -> str:
    """Characters of a normalized transcript that are not in the alphabet, each once, in order."""
    return "".join(sorted(set(text) - _CHARACTERS))


def encoded(text: str) -> Tensor:
    """Classes of the characters, (len(text),) int64; KeyError for a character outside the alphabet."""
    return torch.tensor([_CLASS_OF[character] for character in text], dtype=torch.int64)


def decoded(classes: Sequence[int]) -> str:
    """The characters of classes other than the blank."""
    return "".join(ALPHABET[place - 1] for place in classes)


def collapsed(path: Sequence[int]) -> str:
    """What a CTC path says: repeated classes merged, then blanks removed (Graves et al. 2006, section 3.1)."""
    changes = [*path[:1], *(after for before, after in pairwise(path) if after != before)]
    return decoded([place for place in changes if place != BLANK])


def least_frames(text: str) -> int:
    """Frames of the shortest CTC path that says a text: one per character, and a blank between equal neighbours."""
    return len(text) + sum(before == after for before, after in pairwise(text))


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Least number of insertions, deletions and substitutions from one sequence to the other (Levenshtein 1966).

    Args:
        hypothesis: characters, or words.
        reference: likewise.
    """
    numbers = {item: number for number, item in enumerate(sorted({*hypothesis, *reference}))}
    columns = np.array([numbers[item] for item in reference], dtype=np.int64)
    places = np.arange(len(columns) + 1)
    row = places.copy()
    for item in hypothesis:
        above = np.append(row[0] + 1, np.minimum(row[1:] + 1, row[:-1] + (columns != numbers[item])))
        # A run of k insertions costs k: the least of above[j - k] + k, in one pass over above[j] - j.
        row = np.minimum.accumulate(above - places) + places
    return int(row[-1])
