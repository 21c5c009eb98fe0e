"""What could not be computed of the matrices of one checkpoint, and why."""

from __future__ import annotations

from spectra_cli.errors import MemoryBudgetError, SpectraError


class Faults:
    """Errors of matrices as they come up.

    Attributes:
        first: the first error of each status.
    """

    def __init__(self) -> None:
        self.first: dict[str, SpectraError] = {}
        self._of_budget: list[bool] = []

    def note(self, error: SpectraError, _parameter: str) -> None:
        """Take note of an error of a matrix."""
        self.first.setdefault(error.status, error)
        if isinstance(error, MemoryBudgetError):
            self._of_budget.append(error.of_budget)

    @property
    def of_budget(self) -> bool:
        """Whether the memory budget forbade something; False also where memory ran out by itself."""
        return bool(self._of_budget) and all(self._of_budget)
