"""What a row may say of itself: the statuses of every table, in one place.

A row with another status was not written by spectra, and is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

OF_REFERENCE = "reference_"
"""Prefix of a status that is the reference's."""

NOTHING_SELECTED = "nothing_selected"
"""Status of a checkpoint that lacks the matrices asked for, or of a variant that would prune nothing."""

WORKER_DIED = "worker_died"
"""Status of what has taken down the process that did it, every time."""

_FILES = frozenset({"unreadable", "corrupt", "incomplete", "unsupported_format", "refused"})
"""Statuses of a checkpoint whose files cannot be used."""

_MODEL = _FILES | {"architecture_mismatch"}
_CHECKPOINT = _MODEL | {"no_matrices", NOTHING_SELECTED, WORKER_DIED}
"""Statuses of a whole checkpoint."""

_FACTORS = frozenset(
    {"not_finite", "out_of_range", "empty", "complex_dtype", "no_convergence", "over_memory_budget", "all_zero"}
)
"""Statuses of a matrix."""

_CONNECTION = frozenset({"shape_mismatch", "no_head_count", "head_count_mismatch", "too_many_units"})

_COMMAND = frozenset({"usage", "no_input", "missing_extra", "over_memory_budget", "error"})
"""Statuses of a pair that cannot be looked at, where there are several; for an only pair, or a checkpoint, such an
error ends the command."""

_PAIR = (
    _MODEL
    | _COMMAND
    | {"shape_mismatch", "task_mismatch", "state_mismatch", "task_failed", NOTHING_SELECTED, WORKER_DIED}
)
"""Statuses of a whole pair."""

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
"""Statuses that rows may have, by table."""
