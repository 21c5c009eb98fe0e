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
        self._missing_bytes: list[int | None] = []

    def note(self, error: SpectraError, _parameter: str) -> None:
        """Take note of an error of a matrix."""
        self.first.setdefault(error.status, error)
        if isinstance(error, MemoryBudgetError):
            self._missing_bytes.append(error.missing_bytes)

    def enough_bytes(self, budget_bytes: int) -> int | None:
        """A smaller memory budget than this would leave out the same matrices.

        Args:
            budget_bytes: for which they were left out. What is left for a matrix grows by no more than the budget does.

        Returns:
            None where no matrix was left out for its budget, or memory ran out by itself.
        """
        known = [missing for missing in self._missing_bytes if missing is not None]
        return budget_bytes + min(known) if known and len(known) == len(self._missing_bytes) else None
