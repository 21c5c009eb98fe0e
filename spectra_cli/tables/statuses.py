"""What a row may say of itself: the statuses of every table, in one place.

A row that says anything else was made by nobody who is known, and is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

OF_REFERENCE = "reference_"
"""Begins a status that is the reference's."""

NOTHING_SELECTED = "nothing_selected"
"""Of a checkpoint that lacks the matrices asked for, or of a variant that would prune nothing."""

WORKER_DIED = "worker_died"
"""Of what has taken down the process that did it, every time."""

_FILES = frozenset({"unreadable", "corrupt", "incomplete", "unsupported_format", "refused"})
"""Of a checkpoint whose files cannot be used."""

_MODEL = _FILES | {"architecture_mismatch"}
_CHECKPOINT = _MODEL | {"no_matrices", NOTHING_SELECTED, WORKER_DIED}
"""Of a whole checkpoint."""

_FACTORS = frozenset(
    {"not_finite", "out_of_range", "empty", "complex_dtype", "no_convergence", "over_memory_budget", "all_zero"}
)
"""Of a matrix."""

_CONNECTION = frozenset({"shape_mismatch", "no_head_count", "head_count_mismatch", "too_many_units"})

_COMMAND = frozenset({"usage", "no_input", "missing_extra", "over_memory_budget", "error"})
"""Of one pair among several that cannot be looked at; of the only one, or of a checkpoint, such an error ends the
command."""

_PAIR = (
    _MODEL
    | _COMMAND
    | {"shape_mismatch", "task_mismatch", "state_mismatch", "task_failed", NOTHING_SELECTED, WORKER_DIED}
)
"""Of a whole pair."""

_REFERENCE = {OF_REFERENCE + status for status in _FACTORS | _MODEL | {"no_matrices"}}

STATUSES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "rank": _CHECKPOINT | _FACTORS | {"ok"},
        "align": _CHECKPOINT | _FACTORS | _CONNECTION | {"ok", "no_connections"},
        "sva": _CHECKPOINT | _FACTORS | _REFERENCE | _PAIR | {"ok", "missing"},
        "prune_eval": _CHECKPOINT | (_FACTORS - {"all_zero"}) | {"ok", "state_mismatch"},
        "barrier": _PAIR | {"ok", "not_finite", "empty", "end_not_ok"},
        "barrier_spectra": _PAIR | _FACTORS | {"ok", "no_matrices"},
        "metrics": frozenset({"ok", "not_finite", "empty"}),
    }
)
"""By table."""
