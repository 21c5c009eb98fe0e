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

ENOUGH = "enough_bytes"
"""Fact about a unit: a smaller memory budget of its worker would leave out what it has left out."""


def settled(outcome: Outcome, table: str) -> bool:
    """Whether the rows of a table that came of a unit would be the same another time.

    Where the memory budget left something out, they would be under the same budget: see :func:`may_hold_more`.
    """
    found = {str(row["status"]) for row in outcome.tables[table]}
    if outcome.enough_bytes is not None:
        found.discard(OVER_BUDGET)
    return outcome.error is None and not {status.removeprefix(OF_REFERENCE) for status in found} & TRANSIENT


def recorded_budget(outcome: Outcome) -> dict[str, Any]:
    """The fact that tells which memory budget may be enough for what was left out; none where nothing was."""
    return {} if outcome.enough_bytes is None else {ENOUGH: outcome.enough_bytes}


def may_hold_more(budget_bytes: int | None, facts: Mapping[str, Any]) -> bool:
    """Whether a memory budget may hold what was left out when the rows of a unit were made.

    Args:
        budget_bytes: of each worker; None if it is not known.
        facts: about the unit, from a file, so of any form.
    """
    enough = facts.get(ENOUGH)
    if enough is None:
        return False
    return not isinstance(enough, int) or budget_bytes is None or budget_bytes >= enough
