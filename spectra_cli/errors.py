"""Errors a user can act on: what happened, where, and what to do."""

from __future__ import annotations

from typing import Any


class SpectraError(Exception):
    """What happened, where it happened and what to do about it.

    Args:
        what: one sentence, without the place and without a final full stop.
        where: the path, checkpoint or parameter concerned; may be added later with :meth:`at`.
        remedy: one sentence that starts with a verb.
    """

    exit_status = 1
    status = "error"

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__

    def at(self, where: str) -> SpectraError:
        """Name the place, unless a more precise one is known already; returns the error itself."""
        if self.where is None:
            self.where = where
        return self

    @property
    def message(self) -> str:
        """What happened and what to do about it, without the place."""
        asks = self.remedy is not None and self.remedy.endswith("?")
        remedy = f" {self.remedy.rstrip('.')}{'' if asks else '.'}" if self.remedy else ""
        return f"{self.what.rstrip('.')}.{remedy}"

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def _restored(kind: type[SpectraError], args: tuple[Any, ...]) -> SpectraError:
    """An error before its attributes are set, whatever the constructor of its class asks for."""
    return kind.__new__(kind, *args)


class UsageError(SpectraError):
    """The command line or the arguments of a library call contradict themselves."""

    exit_status = 2
    status = "usage"


class InputError(SpectraError):
    """A PATH does not exist or holds nothing that can be analysed."""

    status = "no_input"


class MissingExtraError(SpectraError):
    """An optional dependency is not installed."""

    status = "missing_extra"


class CheckpointError(SpectraError):
    """A checkpoint that cannot be used; ``status`` is what its row in a table says."""

    status = "unreadable"


class CorruptCheckpointError(CheckpointError):
    """The bytes contradict the format: truncated, overlapping, or lying about sizes."""

    status = "corrupt"


class IncompleteCheckpointError(CheckpointError):
    """A shard or a tensor that the checkpoint itself names is absent."""

    status = "incomplete"


class UnsupportedFormatError(CheckpointError):
    """A format that is recognised and not read; the remedy says how to convert it."""

    status = "unsupported_format"


class HostileCheckpointError(CheckpointError):
    """A file that asks for more than its bytes justify (memory bombs, paths that leave the directory)."""

    status = "refused"


class MemoryBudgetError(SpectraError):
    """The least memory that a matrix needs is more than the budget allows or the machine has.

    Attributes:
        of_budget: whether the budget forbids it, and not the machine, so that it is the same under the same budget.
    """

    status = "over_memory_budget"

    def __init__(
        self, what: str, *, of_budget: bool = False, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.of_budget = of_budget
