"""Remarks on record beside kept rows, so that people are told again what the rows themselves do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from spectra_cli.execution.work.events import Remark, RemarkKind

REMARKS = "remarks"
"""Fact about a unit: kind and message of each of its remarks."""


def recorded_remarks(remarks: Sequence[Remark]) -> dict[str, Any]:
    """The fact that keeps remarks; none where there are none."""
    return {REMARKS: [[remark.kind, remark.message] for remark in remarks]} if remarks else {}


def remarks_in(facts: Mapping[str, Any]) -> list[Remark]:
    """The remarks among the facts about a unit.

    Args:
        facts: from a file, so of any form; what is no remark is left out.
    """
    found = facts.get(REMARKS)
    pairs = [each for each in found if isinstance(each, list) and len(each) == 2] if isinstance(found, list) else []
    kinds = get_args(RemarkKind)
    return [Remark(message, kind) for kind, message in pairs if kind in kinds and isinstance(message, str)]
