"""Options of a task: the parameters of the callable that makes it, read from KEY=VALUE or from a run.json."""

from __future__ import annotations

import difflib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from spectra_cli.errors import InputError, UsageError

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})

COUNTS = range(1, 2**31)
"""Numbers of examples, in a batch or in all."""

WIDTHS = range(1, 2**17 + 1)
"""Widths of layers, in units or channels: far beyond any that was ever trained, and no more than a machine survives."""

LAYERS = range(1, 4096 + 1)
"""Numbers of layers in a model, one above the other."""

CONTEXTS = range(1, 2**24 + 1)
"""Tokens of a window."""

CLASSES = range(1, 2**24 + 1)
"""Numbers of classes that a model tells apart."""

SEEDS = range(2**32)


def bound_options(make: Callable[..., Any], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The arguments for a callable: every setting as its parameter's annotation or default says.

    Args:
        make: the callable; its parameters are the options.
        settings: text from a command line, or values from JSON, by name.
        where: the task, for errors.

    Raises:
        UsageError: if there is no such option, a value is not of its type, or an option without a default is missing.
    """
    parameters = option_parameters(make)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [name for name, parameter in parameters.items() if parameter.kind not in _VARIADIC]
    hints = annotations_of(make)
    bound: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            if not takes_any:
                raise UsageError(f"no option '{name}'", where=where, remedy=_nearest(name, known))
            bound[name] = value
            continue
        try:
            bound[name] = _converted(value, _type_of(parameters[name], hints))
        except (ValueError, TypeError) as error:  # TypeError: of the user's own type, such as an Enum
            raise UsageError(f"option {name}: {error}", where=where, remedy="Mend the value") from error
    lacking = [name for name in known if name not in bound and parameters[name].default is inspect.Parameter.empty]
    if lacking:
        raise UsageError(
            f"needs the option{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
            where=where,
            remedy=f"Give --set {lacking[0]}=VALUE",
        )
    return bound


def in_range(where: str, **options: tuple[int | Sequence[int] | None, range]) -> None:
    """Check whole numbers among the options of a task, before anything of their size is made.

    A run.json is not trusted: one number in it should not take all memory.

    Args:
        where: the task, for errors.
        options: value and allowed range by name. All items of a sequence are checked; None is an option not given.

    Raises:
        UsageError: naming the first option that is out of its range.
    """
    for name, (value, allowed) in options.items():
        numbers = value if isinstance(value, Sequence) else (value,)
        for number in numbers:
            # by its ends: a range looks through all its items for what is no int
            if number is not None and not allowed.start <= number < allowed.stop:
                raise UsageError(
                    f"{name} is {shortened(','.join(map(shortened, numbers)))}",
                    where=where,
                    remedy=f"Give a whole number from {allowed.start} to {allowed.stop - 1}",
                )


def shortened(value: object, most: int = 80) -> str:
    """A value for people, shortened in the middle if it is long."""
    try:
        text = str(value)
    except ValueError:  # whole numbers of thousands of digits, which Python does not write
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[:most]}..."


def path_option(text: str) -> Path:
    """A path as people write it, with ``~`` for a home directory.

    Raises:
        InputError: if there is no home directory of that user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError("there is no such user", where=text, remedy="Write the path out") from error


def option_parameters(make: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a callable that can be given by keyword, by name."""
    parameters = inspect.signature(make).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}
    }


_VARIADIC = frozenset({inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL})


def annotations_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Types of a callable's parameters, as far as they can be told without its own imports."""
    function = make.__init__ if inspect.isclass(make) else make
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker understands
        return {}


def is_declared_path(make: Callable[..., Any], name: str, value: str) -> bool | None:
    """Whether an option's value is a path by the option's type.

    Args:
        make: the callable that makes the task.
        name: of the option; it need not have one of that name.
        value: as a user gives it, or of JSON.

    Returns:
        Whether a path is declared; False as well where the value is one of the choices of a literal or an enumeration.
        None where the type leaves it open, such as that of text.
    """
    try:
        parameter = option_parameters(make).get(name)
    except (TypeError, ValueError):  # a callable without a signature
        return None
    if parameter is None:
        return None
    members = list(_members(_type_of(parameter, annotations_of(make))))
    choices = {choice for one in members if get_origin(one) is Literal for choice in get_args(one)}
    classes = [one for one in ((get_origin(one) or one) for one in members) if isinstance(one, type)]
    choices |= {member.value for one in classes if issubclass(one, Enum) for member in one}
    if value in set(map(str, choices)):
        return False
    return True if any(issubclass(one, os.PathLike) for one in classes) else None


def _members(wanted: Any) -> Iterator[Any]:
    """A type that is no union, or the members of one."""
    if get_origin(wanted) in {Union, types.UnionType}:
        for member in get_args(wanted):
            yield from _members(member)
    else:
        yield wanted


def _type_of(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    if parameter.name in hints:
        return hints[parameter.name]
    default = parameter.default
    return str if default is inspect.Parameter.empty or default is None else type(default)


def _nearest(name: str, known: Sequence[str]) -> str:
    if not known:
        return "It takes no options"
    near = difflib.get_close_matches(name, known, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"It takes {', '.join(sorted(known))}"


def _converted(value: Any, wanted: Any) -> Any:  # noqa: PLR0911 - one line per type
    """A value of the type wanted.

    Raises:
        ValueError: if it is none.
    """
    origin = get_origin(wanted)
    if origin in {Union, types.UnionType}:
        return _first_that_fits(value, get_args(wanted))
    if origin is Literal:
        for choice in get_args(wanted):
            if value == choice or (isinstance(value, str) and value == str(choice)):
                return choice
        raise ValueError(f"'{value}' is none of {', '.join(map(str, get_args(wanted)))}")
    if wanted is type(None):
        if value is None or (isinstance(value, str) and value.lower() in {"none", "null"}):
            return None
        raise ValueError(f"'{value}' is not none")
    if origin in _SEQUENCES or wanted in _SEQUENCES:
        return _sequence(value, wanted, _SEQUENCES[origin or wanted])
    if wanted is bool:
        return _truth(value)
    if wanted in {int, float}:
        return _number(value, wanted)
    if wanted is str:
        if isinstance(value, str):
            return value
        raise ValueError(f"{value} is no text")
    if value is None or isinstance(wanted, types.GenericAlias) or not callable(wanted) or wanted is Any:
        return value
    return wanted(value)  # pathlib.Path, an Enum


_SEQUENCES: Mapping[Any, type[Any]] = {tuple: tuple, list: list, Sequence: tuple, Iterable: tuple}


def _first_that_fits(value: Any, choices: tuple[Any, ...]) -> Any:
    reasons = []
    # None first, as a path may be called none as well; text last, as it fits everything
    for choice in sorted(choices, key=lambda choice: (choice is str) - (choice is type(None))):
        try:
            return _converted(value, choice)
        except (ValueError, TypeError) as error:
            if choice is not type(None):
                reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def _sequence(value: Any, wanted: Any, origin: type[Any]) -> Any:
    items = [item for item in value.strip("()[] ").split(",") if item.strip()] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)):
        raise ValueError(f"'{value}' is no list such as 8,16,32")  # noqa: TRY004 - all that is wrong with a value
    inner = get_args(wanted)
    if not inner:
        return origin(items)
    if get_origin(wanted) is tuple and inner[-1] is not Ellipsis:
        if len(items) != len(inner):
            raise ValueError(f"'{value}' has {len(items)} items, not {len(inner)}")
        return tuple(_converted(_bare(item), one) for item, one in zip(items, inner, strict=True))
    return origin(_converted(_bare(item), inner[0]) for item in items)


def _bare(item: Any) -> Any:
    return item.strip() if isinstance(item, str) else item


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError(f"'{value}' is neither true nor false")


def _number(value: Any, wanted: type[int] | type[float]) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value} is no number")  # noqa: TRY004 - as above
    try:
        return wanted(value) if isinstance(value, str) else _exact(value, wanted)
    except (ValueError, OverflowError):
        kind = "a whole number" if wanted is int else "a number"
        raise ValueError(f"'{value}' is not {kind}") from None


def _exact(value: float, wanted: type[int] | type[float]) -> int | float:
    if wanted is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    return wanted(value)
