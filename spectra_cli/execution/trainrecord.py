"""What `spectra train` writes into run.json, and whether a command goes on with the run that is there."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.trainoptions import TrainOptions
from spectra_cli.tasks.base import Recipe
from spectra_cli.tasks.options import bound_options, option_parameters
from spectra_cli.tasks.registry import find_task, is_file_task
from spectra_cli.tasks.runfile import NAME, RunRecord, read_record
from spectra_cli.tasks.schedules import depends_on_length
from spectra_cli.tasks.states import StateFiles

DATA = "data"
"""The option of a task that is a path: what --data sets."""

LENGTH = frozenset({"recipe.steps", "recipe.epochs", "total_steps"})
"""Settings that may grow where the learning rate does not depend on the length."""

INFORMATION = frozenset({"environment", "mask_digest"})
"""What is noted of a training and compared elsewhere, or not at all."""


def recorded_options(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task as they stand in run.json: those given, and the defaults of an installed task.

    A task from a file may change with its file: of it only what was given is noted. A path to data becomes absolute.

    Args:
        task: its name, or ``file.py:callable``.
        settings: as text, or as a run.json has them.

    Raises:
        UsageError: if there is no such task or no such option.
    """
    options = {name: value for name, value in settings.items() if name != DATA}
    if not is_file_task(task):
        make, _ = find_task(task, files_allowed=False, source="TASK")
        defaults = {name: parameter.default for name, parameter in option_parameters(make).items()}
        bound = bound_options(make, settings, where=f"task {task}")
        given = {name: _as_json(value) for name, value in bound.items() if _is_json(_as_json(value))}
        kept = {
            name: _as_json(value)
            for name, value in defaults.items()
            if value is not None and value is not inspect.Parameter.empty and _is_json(_as_json(value))
        }
        options = {**kept, **given}
    data = settings.get(DATA)
    if isinstance(data, str):
        options[DATA] = os.path.abspath(data) if os.path.exists(data) else data
    return options


def _as_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, int, float, bool))


def chosen_recipe(recipe: Recipe, options: TrainOptions) -> Recipe:
    """A recipe with what the command line says otherwise."""
    changes: dict[str, Any] = {
        name: value for name in ("lr", "weight_decay", "batch_size") if (value := getattr(options, name)) is not None
    }
    if options.steps is not None or options.epochs is not None:
        changes |= {"steps": options.steps, "epochs": options.epochs}
    return replace(recipe, **changes)


def recipe_of(record: RunRecord, where: str) -> Recipe | None:
    """The recipe that a run was trained with; None where its run.json says none.

    Raises:
        UsageError: if it is no recipe.
    """
    values = record.training.get("recipe")
    if values is None:
        return None
    if not isinstance(values, dict):
        raise InputError("its recipe is no JSON object", where=where, remedy="Restore the file")
    return Recipe(**bound_options(Recipe, values, where=f"the recipe in {where}"))


def existing_record(out: Path) -> RunRecord | None:
    """The record of the run that a directory holds; None where nothing has been saved.

    Raises:
        InputError: if the directory holds something else.
    """
    record = read_record(out)
    if record is None:
        try:
            found = sorted(name for name in os.listdir(out) if not name.startswith("."))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"this is no directory that can be used: {error.strerror}", where=str(out), remedy="Give another --out"
            ) from error
        if not found:
            return None
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise InputError(
            f"the directory holds {listed} and no {NAME}: it is no run of `spectra train`",
            where=str(out),
            remedy="Give --out a new directory",
        )
    if not isinstance(record.training.get("total_steps"), int):
        raise InputError(
            "this was not written by `spectra train`", where=str(out / NAME), remedy="Give --out a new directory"
        )
    return record if StateFiles(out).steps() else None  # it stopped before anything was saved


def check_same(old: RunRecord, new: RunRecord, recipe: Recipe, out: Path) -> None:
    """Check that a command asks for the training that a directory holds, or for more of it.

    Raises:
        UsageError: naming the first setting that differs.
    """
    before, after = _settings(old), _settings(new)
    for name in {**after, **before}:
        if name not in LENGTH and before.get(name) != after.get(name):
            raise UsageError(
                f"{_called(name)} was {_shown(before.get(name))}, and is now {_shown(after.get(name))}",
                where=str(out),
                remedy="Give the settings that the run began with, which stand in its run.json, or another --out",
            )
    length, wanted = old.training["total_steps"], new.training["total_steps"]
    if wanted < length:
        raise UsageError(
            f"the run is {length} steps long, and now {wanted} are asked for",
            where=str(out),
            remedy="Give another --out",
        )
    if wanted > length and depends_on_length(recipe):
        raise UsageError(
            f"the run is {length} steps long, and now {wanted} are asked for: its learning rate follows a "
            f"{recipe.schedule} schedule, which another length changes from the first step on",
            where=str(out),
            remedy="Give another --out",
        )


def _settings(record: RunRecord) -> dict[str, Any]:
    """All that decides the trajectory, flat, in the order in which a user thinks of it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(record)))  # as it reads from a file
    training = values.pop("training")
    flat: dict[str, Any] = {"task": values.pop("task")}
    flat |= {f"option {name}": value for name, value in values.pop("options").items()}
    flat |= values
    for name, value in training.items():
        if name in INFORMATION:
            continue
        if name in {"recipe", "save"}:
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    return flat


def _called(name: str) -> str:
    """The name of a setting as a user knows it."""
    if name.startswith("option "):
        return name
    named = {"save.every": "--save-every", "save.log_spaced": "--log-saves", "trunk": "the trunk"}
    return named.get(name, name.removeprefix("recipe.").replace("_", " ").replace(".", " "))


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value).strip('"')
