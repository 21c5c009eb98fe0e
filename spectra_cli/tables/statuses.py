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

_CHECKPOINT = frozenset(
    {
        "unreadable",
        "corrupt",
        "incomplete",
        "unsupported_format",
        "refused",
        "no_matrices",
        "architecture_mismatch",
        NOTHING_SELECTED,
        "no_connections",
    }
)
"""Of a whole checkpoint."""

_WORK = frozenset({"error", "usage", "no_input", "missing_extra", "over_memory_budget", "worker_died"})
"""Of what could not be done at all."""

_TASK = frozenset({"task_failed", "state_mismatch", "diverged"})
"""Of a task, and of weights that are not those of its model."""

_MATRIX = frozenset(
    {"not_finite", "out_of_range", "empty", "complex_dtype", "no_convergence", "over_memory_budget", "all_zero"}
)
_CONNECTION = frozenset({"shape_mismatch", "no_head_count", "head_count_mismatch", "too_many_units"})
_PAIR = _TASK | {"task_mismatch", "shape_mismatch"}

_ANY = frozenset({"ok"}) | _CHECKPOINT | _WORK
_MATRICES = _ANY | _MATRIX
_AGREEMENT = _MATRICES | _PAIR | {"missing"}

STATUSES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "rank": _MATRICES,
        "align": _MATRICES | _CONNECTION,
        "sva": _AGREEMENT | {OF_REFERENCE + status for status in _AGREEMENT},
        "prune_eval": _MATRICES | _TASK,
        "barrier": _ANY | _PAIR | {"not_finite", "empty", "end_not_ok"},
        "barrier_spectra": _MATRICES | _PAIR,
        "metrics": frozenset({"ok", "not_finite", "empty"}),
    }
)
"""By table."""
