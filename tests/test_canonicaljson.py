"""Equal values have equal canonical JSON, whatever the order of their keys, and others have another."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.canonicaljson import canonical_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text() | st.integers() | st.floats(allow_nan=False),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
)


def turned(value: Any) -> Any:
    """The same value, its dictionaries filled in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(each) for each in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_makes_no_difference(value: Any) -> None:
    text = canonical_json(value)
    assert text == canonical_json(turned(value))
    assert json.loads(text) == value


def test_the_order_of_a_list_does() -> None:
    assert canonical_json([1, 2]) != canonical_json([2, 1])


def test_what_json_does_not_have_is_its_text() -> None:
    assert canonical_json({"out": PurePosixPath("runs/a")}) == canonical_json({"out": "runs/a"})


def test_keys_that_have_no_order_are_an_error() -> None:
    with pytest.raises(TypeError):
        canonical_json({"a": 1, 2: 3})
