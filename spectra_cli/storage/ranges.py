"""Ranges of numbers that are there, and what lacks between them."""

from __future__ import annotations


class Ranges:
    """Disjoint half-open ranges of a line, joined where they touch."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    @property
    def total(self) -> int:
        """How many numbers are there."""
        return sum(stop - start for start, stop in self._ranges)

    def cover(self, start: int, stop: int) -> bool:
        """Whether all of a range is there."""
        return not self.missing(start, stop)

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of a range is not there, in its order."""
        gaps: list[tuple[int, int]] = []
        for first, last in self._ranges:
            if last <= start:
                continue
            if first >= stop:
                break
            if start < first:
                gaps.append((start, first))
            start = max(start, last)
        if start < stop:
            gaps.append((start, stop))
        return gaps

    def add(self, start: int, stop: int) -> None:
        """Note that a range is there."""
        if start >= stop:
            return
        apart = [each for each in self._ranges if each[1] < start or each[0] > stop]
        touching = [each for each in self._ranges if each not in apart]
        joined = (min([start, *(a for a, _ in touching)]), max([stop, *(b for _, b in touching)]))
        self._ranges = sorted([*apart, joined])
