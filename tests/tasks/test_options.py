"""Options of a task: text and JSON become what the parameters of its callable say, or an error names the option."""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.tasks.options import (
    annotations_of,
    bound_options,
    in_range,
    is_declared_path,
    option_parameters,
    path_option,
)
from spectra_cli.tasks.registry import find_task, make_task


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


def make(  # noqa: PLR0917 - one parameter for each type
    count: int = 1,
    rate: float = 0.5,
    on: bool = False,
    name: str = "x",
    perhaps: int | None = None,
    text: str | None = None,
    place: Path | None = None,
    kind: Literal["a", "b"] = "a",
    size: Literal[1, 2] = 1,
    widths: tuple[int, ...] = (8,),
    pair: tuple[int, float] = (1, 0.5),
    names: list[str] | None = None,
    channels: Sequence[int] = (),
    color: Color = Color.RED,
    path: Path = Path(),
    either: int | str = 0,
    old: Optional[float] = None,  # noqa: UP045 - as older code has it
    noted: Annotated[int, "of layers"] = 0,
    free: Any = None,
    untyped=3,
    untold=None,
) -> None: ...


def bound(**settings: Any) -> dict[str, Any]:
    return bound_options(make, settings, "task x")


TEXT = [
    ("count", "12", 12),
    ("count", "-3", -3),
    ("rate", "1e-3", 0.001),
    ("rate", "2", 2.0),
    ("on", "true", True),
    ("on", "Yes", True),
    ("on", "0", False),
    ("on", "off", False),
    ("name", "none", "none"),
    ("name", "12", "12"),
    ("perhaps", "4", 4),
    ("perhaps", "none", None),
    ("text", "None", None),
    ("text", "a=b", "a=b"),
    ("place", "none", None),
    ("place", "data/x", Path("data/x")),
    ("kind", "b", "b"),
    ("size", "2", 2),
    ("widths", "8,16,32", (8, 16, 32)),
    ("widths", "(8, 16)", (8, 16)),
    ("widths", "8", (8,)),
    ("widths", "", ()),
    ("pair", "3, 0.25", (3, 0.25)),
    ("names", "a, b", ["a", "b"]),
    ("channels", "1,2,3", (1, 2, 3)),
    ("color", "blue", Color.BLUE),
    ("path", "x/y", Path("x/y")),
    ("either", "7", 7),
    ("either", "seven", "seven"),
    ("old", "0.5", 0.5),
    ("noted", "6", 6),
    ("free", "7", "7"),
    ("untyped", "7", 7),
    ("untold", "7", "7"),
]


@pytest.mark.parametrize(("option", "text", "value"), TEXT)
def test_text_becomes_what_the_parameter_says(option: str, text: str, value: object) -> None:
    (found,) = bound(**{option: text}).values()
    assert found == value
    assert type(found) is type(value)


JSON = [
    ("count", 3, 3),
    ("count", 3.0, 3),
    ("rate", 3, 3.0),
    ("on", True, True),
    ("perhaps", None, None),
    ("text", "x", "x"),
    ("place", "x", Path("x")),
    ("widths", [8, 16], (8, 16)),
    ("pair", [1, 2], (1, 2.0)),
    ("channels", [1, 2], (1, 2)),
    ("names", None, None),
    ("size", 2, 2),
    ("free", {"a": [1]}, {"a": [1]}),
]


@pytest.mark.parametrize(("option", "value", "expected"), JSON)
def test_values_of_a_run_json_become_what_the_parameter_says(option: str, value: object, expected: object) -> None:
    (found,) = bound(**{option: json.loads(json.dumps(value))}).values()
    assert found == expected
    assert type(found) is type(expected)


WRONG = [
    ("count", "1.5", "'1.5' is not a whole number"),
    ("count", "many", "'many' is not a whole number"),
    ("count", "", "'' is not a whole number"),
    ("count", 1.5, "'1.5' is not a whole number"),
    ("count", float("inf"), "'inf' is not a whole number"),
    ("count", float("nan"), "'nan' is not a whole number"),
    ("count", True, "True is no number"),
    ("count", None, "None is no number"),
    ("count", [1], r"\[1\] is no number"),
    ("count", "9" * 5000, "is not a whole number"),
    ("rate", "fast", "'fast' is not a number"),
    ("rate", 10**400, "is not a number"),
    ("on", "perhaps", "'perhaps' is neither true nor false"),
    ("name", 3, "3 is no text"),
    ("perhaps", "x", "'x' is not a whole number"),
    ("kind", "c", "'c' is none of a, b"),
    ("widths", "8,x", "'x' is not a whole number"),
    ("widths", 8, "'8' is no list such as 8,16,32"),
    ("pair", "1", "'1' has 1 items, not 2"),
    ("color", "green", "'green' is not a valid Color"),
    ("path", 3, "option path"),
]


@pytest.mark.parametrize(("option", "value", "why"), WRONG)
def test_what_is_no_value_is_told_with_the_name_of_the_option(option: str, value: object, why: str) -> None:
    with pytest.raises(UsageError, match=rf"^task x: option {option}: .*") as caught:
        bound(**{option: value})
    assert caught.match(why)


def test_the_nearest_options_are_named() -> None:
    with pytest.raises(UsageError, match=r"task x: no option 'width'\. Did you mean widths"):
        bound(width="3")
    with pytest.raises(UsageError, match="It takes channels, color, count"):
        bound(zzz="3")
    with pytest.raises(UsageError, match="It takes no options"):
        bound_options(lambda: None, {"a": "1"}, "task x")


def test_what_is_not_given_is_left_to_the_default() -> None:
    assert bound() == {}


def test_an_option_without_a_default_must_be_given() -> None:
    def needs(first: int, second: str, third: int = 0) -> None: ...

    assert bound_options(needs, {"first": "1", "second": "b"}, "task x") == {"first": 1, "second": "b"}
    with pytest.raises(UsageError, match=r"task x: needs the options first, second\. Give --set first=VALUE\."):
        bound_options(needs, {"third": "1"}, "task x")


def test_classes_dataclasses_and_partials_have_options_too() -> None:
    class Plain:
        def __init__(self, *, width: int = 1) -> None: ...

    @dataclass(frozen=True)
    class Data:
        width: int = 1

    class Called:
        def __call__(self, width: int = 1) -> None: ...

    for callable_ in (Plain, Data, functools.partial(Plain, width=3), Called()):
        assert bound_options(callable_, {"width": "5"}, "task x") == {"width": 5}
    assert bound_options(object, {}, "task x") == {}


def test_a_callable_that_takes_anything_gets_what_it_does_not_name_as_it_is() -> None:
    def takes(width: int = 1, **rest: object) -> None: ...

    assert bound_options(takes, {"width": "2", "other": "3"}, "task x") == {"width": 2, "other": "3"}


def test_annotations_that_only_a_type_checker_understands_leave_the_defaults() -> None:
    def typed(width: Unknown = 3, name: Unknown = "x") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert bound_options(typed, {"width": "5", "name": "y"}, "task x") == {"width": 5, "name": "y"}


def test_parameters_that_cannot_be_named_are_no_options() -> None:
    def mixed(first: int = 0, /, second: int = 0, *rest: int, third: int = 0) -> None: ...

    assert list(option_parameters(mixed)) == ["second", "third"]


@given(st.integers() | st.floats(allow_nan=False) | st.booleans())
def test_numbers_survive_the_way_through_text(value: float) -> None:
    """What Python prints of a number is that number again."""
    option = {bool: "on", int: "count", float: "rate"}[type(value)]
    if abs(value) < 10**4000:
        assert bound(**{option: str(value)}) == {option: value}


EXTREME = (-1, 0, 10**9, 10**13, 10**30, 1e308, float("nan"), [10**9] * 4, [1, 10**6, 10**6], [-1] * 3, [], "x" * 200)


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group="spectra.tasks")))
def test_extreme_options_of_our_tasks_are_usage_errors_and_take_no_memory(name: str) -> None:
    """Every option of every task, with what a stranger's run.json may hold: sizes are limited before they are used."""
    make_own, _ = find_task(name, files_allowed=False)
    types, needed = annotations_of(make_own), {"config": "absent"} if "config" in option_parameters(make_own) else {}
    for option, value in itertools.product(option_parameters(make_own), EXTREME):
        said: SpectraError | None = None
        try:
            make_task(name, {**needed, option: value}, files_allowed=False)
        except SpectraError as error:
            said = error
        assert said is None or isinstance(said, UsageError)
        assert len(str(said)) < 2000
        if isinstance(value, int) and value >= 10**13 and "int" in str(types[option]):
            assert said is not None, f"{option}={value}"


def test_numbers_are_in_their_ranges() -> None:
    in_range("task x", a=(1, range(1, 3)), b=(None, range(1, 3)), c=((1, 2), range(1, 3)))
    for value in (0, 3, 10**5000, (1, 3)):
        with pytest.raises(UsageError, match=r"^task x: a is .*\. Give a whole number from 1 to 2\.$"):
            in_range("task x", a=(value, range(1, 3)))


@given(st.text() | st.none() | st.integers() | st.floats() | st.lists(st.integers() | st.text()) | st.booleans())
def test_any_value_fits_the_type_of_an_option_or_is_a_usage_error(value: object) -> None:
    """Whatever stands in a run.json, the conversion raises no other exception."""
    for option in option_parameters(make):
        with contextlib.suppress(UsageError):
            bound(**{option: value})


def test_a_path_has_a_home_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert path_option("~/data") == Path("/nowhere/data")
    assert path_option("data") == Path("data")
    with pytest.raises(InputError, match="~nosuchuser/x: there is no such user"):
        path_option("~nosuchuser/x")


def test_a_type_says_what_is_a_path_and_what_is_one_of_its_choices_and_else_leaves_it_open() -> None:
    declared = {option: is_declared_path(make, option, "red") for option in [*option_parameters(make), "absent"]}
    assert {option for option, told in declared.items() if told} == {"place", "path"}
    assert [option for option, told in declared.items() if told is False] == ["color"]
    assert [is_declared_path(make, "kind", value) for value in ("a", "b", "c")] == [False, False, None]
    assert [is_declared_path(make, "size", value) for value in ("1", "3")] == [False, None]
    assert is_declared_path(type("Odd", (), {"__signature__": "none"}), "kind", "a") is None
