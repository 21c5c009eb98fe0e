"""Whether rows that were made of a unit serve the next time, as long as its files are what they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectra_cli.errors import MemoryBudgetError
from spectra_cli.execution.work.units import Outcome
from spectra_cli.tables.statuses import OF_REFERENCE

OVER_BUDGET = MemoryBudgetError.status

TRANSIENT = frozenset({"unreadable", "corrupt", "incomplete", OVER_BUDGET, "no_convergence", "nothing_selected"})
"""Statuses of rows that may come out better the next time, though no file has changed."""

BUDGET = "budget_bytes"
"""Fact about a unit of which something was left out for its worker's memory budget, which the user had set."""


def settled(outcome: Outcome, table: str) -> bool:
    """Whether the rows of a table that came of a unit would be the same another time.

    Where a memory budget that the user has set left something out, they are under the same budget: see
    :func:`under_budget`.
    """
    found = {str(row["status"]) for row in outcome.tables[table]}
    if outcome.budget_bytes is not None:
        found.discard(OVER_BUDGET)
    return outcome.error is None and not {status.removeprefix(OF_REFERENCE) for status in found} & TRANSIENT


def recorded_budget(outcome: Outcome) -> dict[str, Any]:
    """The fact that tells under which memory budget something was left out of a unit; none where nothing was."""
    return {} if outcome.budget_bytes is None else {BUDGET: outcome.budget_bytes}


def under_budget(budget_bytes: int | None, facts: Mapping[str, Any]) -> bool:
    """Whether rows would be left out under a memory budget as they were when those of a unit were made.

    Args:
        budget_bytes: of each worker; None if the user has not set one.
        facts: about the unit, from a file, so of any form.
    """
    return BUDGET not in facts or facts[BUDGET] == budget_bytes
