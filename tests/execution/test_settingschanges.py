"""What is said of settings that have changed since a table was made: each change, once, and none that there is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from spectra_cli.execution.incremental.settingschanges import SHOWN_ENTRIES, SHOWN_GONE, SHOWN_VALUE, changes_told

NOW: dict[str, Any] = {"command": "rank", "schema": "rank/2", "columns": ["run", "gini"], "settings": {"--keep": 0.5}}


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (0.3, 0.5, "--keep was 0.3 and is 0.5"),
        (0, 1, "--keep was 0 and is 1"),
        (None, "a", "--keep was not given and is a"),
        ([], ["a", "b"], "--keep was not given and is a, b"),
        ("", "a", "--keep was not given and is a"),
        (False, True, "--keep was not given and is given"),
        (True, False, "--keep was given and is not given"),
    ],
)
def test_a_value_is_told_as_people_give_it(before: object, now: object, said: str) -> None:
    """A number that is zero was given."""
    assert changes_told(NOW | {"settings": {"--keep": before}}, NOW | {"settings": {"--keep": now}}) == said


def test_a_setting_of_which_nothing_is_on_record_is_told_so() -> None:
    """Also where what is on record is of another form."""
    for settings in ({}, None, "--keep", [["--keep"]]):
        assert changes_told(NOW | {"settings": settings}, NOW) == "it does not say what --keep was"


def test_a_setting_that_there_is_not_any_more_is_told_and_not_all_of_a_thousand() -> None:
    assert changes_told(NOW | {"settings": {"--keep": 0.5, "--old": 3}}, NOW) == "--old was 3 and is no more"
    many = {"--keep": 0.5, **{f"--old{number}": number for number in range(1000)}}
    assert changes_told(NOW | {"settings": many}, NOW).count(" and is no more") == SHOWN_GONE


def test_a_long_value_is_cut_and_a_short_one_is_not() -> None:
    for length, shown in ((SHOWN_VALUE, "x" * SHOWN_VALUE), (SHOWN_VALUE + 1, "x" * (SHOWN_VALUE - 3) + "...")):
        told = changes_told(NOW | {"settings": {"--keep": "x" * length}}, NOW)
        assert told == f"--keep was {shown} and is 0.5"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"command": "align"}, "spectra rank did not make it"),
        ({"schema": "rank/1"}, "its columns have changed their meaning since"),
        ({"schema": "rank/1", "columns": ["run"]}, "its columns have changed their meaning since"),
        ({"columns": ["run"]}, "it has other columns"),
        ({"columns": ["run"], "command": 7}, "spectra rank did not make it and it has other columns"),
    ],
)
def test_what_else_has_changed_is_told(change: Mapping[str, Any], said: str) -> None:
    """Columns of another version of the schema are no news."""
    assert changes_told(NOW | change, NOW).replace(",", "") == said


def test_there_is_always_something_to_say() -> None:
    assert changes_told(NOW, NOW) == "it was made otherwise"


FILES = {f"{name}.py": name for name in "abc"}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (FILES | {"b.py": "x"}, "the code has changed: b.py"),
        (FILES | {"d.py": "x", "e.py": "x"}, "the code has new: d.py, e.py"),
        ({"a.py": "a"}, "the code lacks now: b.py, c.py"),
        ({"a.py": "x", "b.py": "b", "d.py": "x"}, "the code has changed: a.py; has new: d.py; lacks now: c.py"),
        (None, "the code was a.py, b.py, c.py and is not given"),
        ({}, "the code was a.py, b.py, c.py and is not given"),
    ],
)
def test_a_setting_with_entries_is_told_by_those_that_differ(now: object, said: str) -> None:
    assert changes_told(NOW | {"settings": {"the code": FILES}}, NOW | {"settings": {"the code": now}}) == said


def test_not_all_of_a_thousand_entries_are_told() -> None:
    many = {f"{number}.py" + "x" * 1000: "x" for number in range(1000)}
    told = changes_told(NOW | {"settings": {"the code": {"a.py": "a"}}}, NOW | {"settings": {"the code": many}})
    assert told.count(".py") == SHOWN_ENTRIES + 1
    assert f" and {1000 - SHOWN_ENTRIES} more; lacks now: a.py" in told
    assert len(told) < (SHOWN_ENTRIES + 1) * (SHOWN_VALUE + 20)
