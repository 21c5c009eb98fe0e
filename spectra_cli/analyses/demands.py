"""The interface of analyses: they say what they need of a matrix, and are then shown it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Protocol

import torch

from spectra_cli.analyses.factors import Factors
from spectra_cli.analyses.loading import LoadedMatrix
from spectra_cli.errors import SpectraError
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import Part, Side
from spectra_cli.spectrum.memory import resident_bytes

Row = dict[str, Any]
OnProblem = Callable[[SpectraError, str], None]
"""Called with an error and the parameter concerned."""


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """Where matrices are factorized and how much memory that may take.

    Attributes:
        device: where the work is done.
        budget_bytes: for everything.
        kept_bytes: of it, for the vectors of reference checkpoints.
        known_bytes: of it, for factors that the next checkpoint may need again. It counts whether they are kept or not,
            as the memory that is left decides how matrices are cut, and that their last bits.
    """

    device: torch.device
    budget_bytes: int
    kept_bytes: int = 0
    known_bytes: int = 0

    @property
    def working_bytes(self) -> int:
        """What is left of the budget beside kept vectors, known factors and this and the next matrix in memory."""
        return self.budget_bytes - self.kept_bytes - self.known_bytes - 2 * resident_bytes(self.budget_bytes)

    def share(self, lanes: int) -> WorkPlace:
        """The same place for one of several lanes."""
        return WorkPlace(self.device, self.budget_bytes // lanes, self.kept_bytes // lanes, self.known_bytes // lanes)


@dataclass(frozen=True, slots=True)
class Demand:
    """What an analysis needs of one matrix.

    Attributes:
        whole: whether the matrix itself is to be factorized.
        sides: whose leading singular vectors are needed of the whole matrix.
        parts: what else is to be factorized, and the sides needed of each.
    """

    whole: bool = False
    sides: frozenset[Side] = frozenset()
    parts: Mapping[Part, frozenset[Side]] = field(default_factory=dict)

    def __or__(self, other: Demand) -> Demand:
        parts = dict(self.parts)
        for part, sides in other.parts.items():
            parts[part] = parts.get(part, frozenset()) | sides
        return Demand(self.whole or other.whole, self.sides | other.sides, parts)


@dataclass(frozen=True, slots=True)
class Visited:
    """A matrix, and what was asked about it.

    Attributes:
        depth: place in the model.
        spec: which matrix.
        digest: of its bytes; None where they could not be read.
        whole: None unless asked for, and needed by one of the analyses at least.
        parts: those asked for, and needed.
    """

    depth: int
    spec: MatrixSpec
    digest: str | None
    whole: Factors | None
    parts: Mapping[Part, Factors]


class Analysis(Protocol):
    """Makes rows of what it is shown, matrix by matrix, in any order."""

    def demand(self, depth: int) -> Demand:
        """What it needs of a matrix."""
        ...

    def settles(self, depth: int, spec: MatrixSpec, digest: str) -> bool:  # noqa: ARG002 - for those that do
        """Whether it needs no factors of a matrix after all, now that its bytes are known; by default it does.

        Asked from several threads: it looks something up, and changes nothing. A matrix that is settled is shown to
        :meth:`take` like any other, with the factors that others asked for.
        """
        return False

    def take(self, visited: Visited) -> None:
        """Take in a matrix."""
        ...


class Asked:
    """What some analyses ask of each matrix.

    Args:
        analyses: each is asked once.
        depths: of the matrices.
    """

    def __init__(self, analyses: Sequence[Analysis], depths: Iterable[int]) -> None:
        self._own = {depth: [(analysis, analysis.demand(depth)) for analysis in analyses] for depth in depths}
        self._all = {depth: united(demand for _, demand in own) for depth, own in self._own.items()}

    def of(self, depth: int) -> Demand:
        """What all of them ask."""
        return self._all[depth]

    def needed(self, loaded: LoadedMatrix) -> Demand:
        """What those ask that still need factors, now that the matrix is read."""
        if loaded.digest is None:
            return self._all[loaded.depth]
        depth, spec, digest = loaded.depth, loaded.spec, loaded.digest
        return united(demand for one, demand in self._own[depth] if not one.settles(depth, spec, digest))


def united(demands: Iterable[Demand]) -> Demand:
    """All that several demands ask of one matrix."""
    return reduce(or_, demands, Demand())
