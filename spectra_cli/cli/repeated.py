"""What repeats from block to block in one pattern: ``layers.{i=0..31}.q_proj -> layers.{i}.k_proj``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

NUMBER = re.compile(r"(?<![^.\[])[0-9]{1,9}(?![^.\]])")
"""A component that is a number, or one in brackets; digits in a word (``w1``, ``layer2``) tell matrices apart."""

LETTERS = "ijklmnopqrstuvwxyz"


def skeleton_of(name: str) -> str:
    """A name with ``#`` in place of the numbers of blocks and experts."""
    return NUMBER.sub("#", name)


def patterns_of(pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """What several pairs of names have in common, where both names of each pair have the same skeletons.

    Args:
        pairs: at least one.

    Returns:
        The names with a letter for each number that varies, its values where the letter first stands. A number that is
        that of another letter in every pair, or off by the same in every pair, is written as that: ``{i}``, ``{i+1}``.
    """
    variables: dict[str, tuple[int, ...]] = {}
    return _pattern([pair[0] for pair in pairs], variables), _pattern([pair[1] for pair in pairs], variables)


def _pattern(names: Sequence[str], variables: dict[str, tuple[int, ...]]) -> str:
    written = [_written(values, variables) for values in zip(*(NUMBER.findall(name) for name in names), strict=True)]
    pieces = NUMBER.split(names[0])
    return "".join(piece + number for piece, number in zip(pieces, [*written, ""], strict=True))


def _written(texts: Sequence[str], variables: dict[str, tuple[int, ...]]) -> str:
    """A number that has these values, one for each pair."""
    if len(set(texts)) == 1:
        return texts[0]
    values = tuple(map(int, texts))
    for letter, others in variables.items():
        offsets = {value - other for value, other in zip(values, others, strict=True)}
        if len(offsets) == 1:
            offset = offsets.pop()
            return f"{{{letter}{offset:+d}}}" if offset else f"{{{letter}}}"
    letter = LETTERS[len(variables)] if len(variables) < len(LETTERS) else f"n{len(variables)}"
    variables[letter] = values
    return f"{{{letter}={_values(values)}}}"


def _values(values: Iterable[int]) -> str:
    """``0..31``, ``0,2..30`` or ``0,1,5..30``: all that lie between where the distances are equal."""
    known = sorted(set(values))
    distances = {later - earlier for earlier, later in pairwise(known)}
    if distances <= {1}:
        return f"{known[0]}..{known[-1]}"
    if len(known) <= 3:
        return ",".join(map(str, known))
    shown = known[:2] if len(distances) == 1 else known[:3]
    return f"{','.join(map(str, shown))}..{known[-1]}"
