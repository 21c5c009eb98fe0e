"""What a table of pruned weights says in a few lines: metrics of every variant, first, last and some between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectra_cli.analyses.pruning import VARIANTS
from spectra_cli.analyses.sva_summary import moment
from spectra_cli.analyses.visits import Row

LOSS = "loss"
"""The metric that is shown first."""

MOST_KEPT = 64
"""Checkpoints kept of a run, at even distances; when there are more, every other one is let go."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One checkpoint.

    Attributes:
        name: its step, else its epoch, else its name.
        checkpoint: its name.
        values: by split and metric, then by variant; None where there is no value.
    """

    name: str
    checkpoint: str
    values: Mapping[tuple[str, str], Mapping[str, float | None]]


@dataclass(slots=True)
class RunPruning:
    """One run; memory does not grow with its length.

    Attributes:
        checkpoints: how many there are, with those that could not be used.
        variants: those evaluated, with the fraction that each keeps.
        last: the last checkpoint that could be used.
    """

    checkpoints: int = 0
    variants: dict[str, float] = field(default_factory=dict)
    last: Moment | None = None
    _kept: list[Moment] = field(default_factory=list)
    _distance: int = 1
    _seen: int = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        values: dict[tuple[str, str], dict[str, float | None]] = {}
        row: Row = {}
        for row in rows:
            if row.get("variant") is not None:
                self.variants[row["variant"]] = row["keep"]
                if row["metric"] is not None:
                    values.setdefault((row["split"], row["metric"]), {})[row["variant"]] = row.get("value")
        if not values:
            return
        self.last = Moment(moment(row), row["checkpoint"], values)
        if self._seen % self._distance == 0:
            self._kept.append(self.last)
        self._seen += 1
        if len(self._kept) > MOST_KEPT:
            self._kept, self._distance = self._kept[::2], 2 * self._distance

    def shown(self, most: int) -> list[Moment]:
        """The first and the last checkpoint that could be used, and some between at even distances.

        Args:
            most: how many, at least 2.
        """
        if self.last is None:
            return []
        moments = self._kept if self._kept[-1] is self.last else [*self._kept, self.last]
        places = np.linspace(0, len(moments) - 1, min(most, len(moments))).round().astype(int)
        return [moments[place] for place in places.tolist()]

    def metrics(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Splits and metrics of the last checkpoint: the loss of every split, or its first metric; and the others.

        Of the others, all splits of one metric come before the next metric.
        """
        found = list(self.last.values) if self.last is not None else []
        leading = []
        for split in dict.fromkeys(split for split, _ in found):
            names = [metric for of, metric in found if of == split]
            leading.append((split, LOSS if LOSS in names else names[0]))
        places = {metric: place for place, metric in enumerate(dict.fromkeys(metric for _, metric in found))}
        others = [each for each in found if each not in leading]
        return leading, sorted(others, key=lambda each: places[each[1]])

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        ends = self.shown(2)
        return {
            "checkpoints": self.checkpoints,
            "first_checkpoint": ends[0].checkpoint if ends else "",
            "last_checkpoint": ends[-1].checkpoint if ends else "",
            "metrics": [
                {
                    "split": split,
                    "metric": metric,
                    "first": _by_variant(ends[0], split, metric),
                    "last": _by_variant(ends[-1], split, metric),
                }
                for each in self.metrics()
                for split, metric in each
            ],
        }


def _by_variant(at: Moment, split: str, metric: str) -> dict[str, float | None]:
    values = at.values.get((split, metric), {})
    return {variant: values[variant] for variant in VARIANTS if variant in values}


@dataclass(slots=True)
class RunPrunedAgreement:
    """Agreement of the pruned matrices of one run with the unpruned ones.

    Attributes:
        checkpoints: how many there are, with those that could not be used.
        last_checkpoint: name of the last with a score.
        scores: of it, mean over all matrices, by variant.
        matrices: of it, how many have a score, by variant.
    """

    checkpoints: int = 0
    last_checkpoint: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    matrices: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Iterable[Row]) -> None:
        """Take in the rows of the next checkpoint in order."""
        self.checkpoints += 1
        found: dict[str, list[float]] = {}
        for row in rows:
            if row.get("score") is not None:
                found.setdefault(row["variant"], []).append(row["score"])
                self.last_checkpoint = row["checkpoint"]
        if found:
            self.scores = {variant: float(np.mean(scores)) for variant, scores in found.items()}
            self.matrices = {variant: len(scores) for variant, scores in found.items()}

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return {
            "checkpoints": self.checkpoints,
            "last_checkpoint": self.last_checkpoint,
            "scores": self.scores,
            "matrices": self.matrices,
        }
