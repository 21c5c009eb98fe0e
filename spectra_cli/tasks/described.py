"""What a task says of itself: its options, with the types, defaults and meanings that its own code gives them."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from spectra_cli.errors import SpectraError
from spectra_cli.tasks.base import MakeTask, Recipe
from spectra_cli.tasks.guarded import blamed
from spectra_cli.tasks.options import annotations_of, bound_options, option_parameters
from spectra_cli.tasks.registry import find_task

SECTION = re.compile(r"^(Args|Attributes):$\n((?:^(?: .*)?$\n?)*)", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): (.*(?:\n     +\S.*)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class OptionDescription:
    """One option of a task.

    Attributes:
        name: as in ``--set NAME=VALUE``.
        type: what a value may be, in words such as ``int or none`` or ``vgg16, mlp``.
        default: as text; None where a value must be given.
        meaning: from the docstring; "" where it says nothing.
    """

    name: str
    type: str
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """A task and its options.

    Attributes:
        name: of the task.
        summary: first line of its docstring.
        options: in the order in which its code has them.
        recipe: how it is trained by default, without what says nothing; None where it cannot be told or trained.
    """

    name: str
    summary: str
    options: tuple[OptionDescription, ...]
    recipe: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """JSON form, for programs."""
        return asdict(self)


def describe_task(name: str) -> TaskDescription:
    """Describe a task.

    Args:
        name: of an installed task, or ``path/to/file.py:callable``, whose code is then run.

    Raises:
        SpectraError: as :func:`spectra_cli.tasks.registry.find_task`.
    """
    make, file = find_task(name, files_allowed=True, source="TASK")
    text = inspect.getdoc(make) or ""
    meanings = {
        option: _plain(meaning) for _, entries in SECTION.findall(text) for option, meaning in ENTRY.findall(entries)
    }
    hints = annotations_of(make)
    described = tuple(
        OptionDescription(
            option, _type_in_words(hints.get(option, type(p.default))), _default(p), meanings.get(option, "")
        )
        for option, p in option_parameters(make).items()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    )
    return TaskDescription(name, _plain(text.partition("\n")[0]), described, _recipe(name, make, file))


def _plain(meaning: str) -> str:
    """Text of a docstring in one line, without marks and references of its markup."""
    without_references = re.sub(r",? ?see\s+:\w+:`[^`]*`", "", " ".join(meaning.split()))
    return re.sub(r"``?([^`]*)``?", r"\1", without_references)


def _default(parameter: inspect.Parameter) -> str | None:
    if parameter.default is inspect.Parameter.empty:
        return None
    if isinstance(parameter.default, (tuple, list)):
        return ",".join(map(str, parameter.default))
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)


def _type_in_words(annotation: Any) -> str:  # noqa: PLR0911 - one line per type
    """A type as people write it: ``int or none``, ``list of int``, the choices of a literal."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return "none"
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_type_in_words(one) for one in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(member.value) for member in annotation)
    if origin is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if origin in {tuple, list}:
        inner = get_args(annotation)
        if Ellipsis in inner or origin is list:
            return f"list of {_type_in_words(inner[0])}"
        return f"{len(inner)} of {_type_in_words(inner[0])}"
    words = {str: "text", bool: "true or false", int: "int", float: "number"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _recipe(name: str, make: MakeTask, file: Path | None) -> dict[str, Any] | None:
    recipe = getattr(make, "recipe", None)
    if not isinstance(recipe, Recipe):
        try:
            with blamed(name, file):
                recipe = getattr(make(**bound_options(make, {}, "task")), "recipe", None)
        except SpectraError:  # it needs options that only the user knows, or its own code raises
            return None
    if not isinstance(recipe, Recipe):
        return None
    unused = {"sgd": {"betas"}, "adamw": {"momentum"}}[recipe.optimizer]
    unused |= {"constant": {"final_fraction", "milestones", "gamma"}, "cosine": {"milestones", "gamma"}}.get(
        recipe.schedule, {"final_fraction"}
    )
    values = {key: value for key, value in asdict(recipe).items() if value is not None and key not in unused}
    return values | ({} if recipe.batch_size else {"batch_size": "all"})
