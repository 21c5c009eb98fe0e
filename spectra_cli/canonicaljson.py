"""JSON by which values are compared and hashed: equal values have equal text, whatever the order of their keys."""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """A value as JSON whose keys are in order; what JSON does not have, such as a path, is its text.

    Args:
        value: of dictionaries whose keys are all text or all numbers, lists, text, numbers, and what has a text of its
            own that is the same in every process.

    Raises:
        TypeError: if the keys of a dictionary cannot be put in order, or are none that JSON has.
        ValueError: if a value holds itself.
    """
    return json.dumps(value, sort_keys=True, default=str)
