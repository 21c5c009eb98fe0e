"""What `spectra train` writes into run.json, and whether a command goes on with the run that is there."""

from __future__ import annotations

import inspect
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.training.options import LARGEST_SEED, TrainOptions
from spectra_cli.tasks.base import Recipe
from spectra_cli.tasks.names import same_task
from spectra_cli.tasks.options import bound_options, option_parameters, shortened
from spectra_cli.tasks.registry import checkpoint_option, find_task
from spectra_cli.tasks.runfile import DATA, NAME, RunRecord, read_record
from spectra_cli.tasks.schedules import depends_on_length
from spectra_cli.tasks.states import StateFiles

LENGTH = frozenset({"recipe.steps", "recipe.epochs", "total_steps"})
"""Settings that may grow where the learning rate does not depend on the length."""

FIRST_BATCH = "first_batch"
"""The digest of the first training batch, by which changed data or code are noticed."""

INFORMATION = frozenset({"environment", "mask_digest", FIRST_BATCH})
"""What is noted of a training and compared elsewhere, or not at all."""


def recorded_options(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task as they stand in run.json: those given and the defaults, of the types that the task takes.

    A path to data becomes absolute. What JSON cannot hold is noted as it was given, and not at all if it was not.

    Args:
        task: its name, or ``file.py:callable`` as the command line has it: the file's code is run.
        settings: as text, or as a run.json has them.

    Raises:
        UsageError: if there is no such task or no such option.
        TaskError: if a file raises when it is loaded.
    """
    make, _ = find_task(task, files_allowed=True, source="TASK")
    defaults = {name: parameter.default for name, parameter in option_parameters(make).items()}
    bound = bound_options(make, settings, where=f"task {task}")
    kept = {
        name: _as_json(value)
        for name, value in defaults.items()
        if value is not None and value is not inspect.Parameter.empty and _is_json(_as_json(value))
    }
    parsed = {name: _as_json(value) for name, value in bound.items()}
    options = {**kept, **{name: value if _is_json(value) else settings[name] for name, value in parsed.items()}}
    for name in (DATA, checkpoint_option(make)):  # paths, so that the run can be used from anywhere
        path = settings.get(name) if name else None
        if name and isinstance(path, str):
            options[name] = os.path.abspath(path) if os.path.exists(path) else path
    return options


def _as_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_as_json(item) for item in value] if isinstance(value, (tuple, list)) else value


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
        InputError: if it is no recipe, or the run's seed is none.
    """
    if record.seed is not None and not 0 <= record.seed <= LARGEST_SEED:
        raise InputError(
            f"its seed is {shortened(record.seed)}", where=where, remedy=f"Restore it: 0 to {LARGEST_SEED}"
        )
    values = record.training.get("recipe")
    if values is None:
        return None
    if not isinstance(values, dict):
        raise InputError("its recipe is no JSON object", where=where, remedy="Restore the file")
    try:
        return Recipe(**bound_options(Recipe, values, where="recipe"))
    except UsageError as error:  # of the file's, not of the command line
        raise InputError(f"its recipe: {error.what}", where=where, remedy="Restore the file") from error


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
    _check_written_by_train(record, str(out / NAME))
    return record if StateFiles(out).steps() else None  # it stopped before anything was saved


def _check_written_by_train(record: RunRecord, where: str) -> None:
    """Check that a record has what `spectra train` writes and compares.

    Raises:
        InputError: if it has not.
    """
    length = record.training.get("total_steps")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise InputError("this was not written by `spectra train`", where=where, remedy="Give --out a new directory")
    for name in ("recipe", "save"):
        if not isinstance(record.training.get(name, {}), dict):
            raise InputError(
                f"its {name} is no JSON object", where=where, remedy="Restore the file, or give --out a new directory"
            )


def check_same(old: RunRecord, new: RunRecord, recipe: Recipe, options: TrainOptions) -> None:
    """Check that a command asks for the training that a directory holds, or for more of it.

    Raises:
        UsageError: naming all settings that differ.
    """
    before, after = _settings(old), _settings(new)
    if same_task(new.task, old.task):
        before["task"] = after["task"]
    masked = bool(new.training.get("mask"))
    changes = [
        f"{_called(name, masked=masked)} was {_shown(before.get(name))}, and is now {_shown(after.get(name))}"
        for name in _differing(before, after, options)
    ]
    differences = list(changes)
    remedy = "Give the settings that the run began with, which stand in its run.json, or another --out"
    length, wanted = old.training["total_steps"], new.training["total_steps"]
    if changes and options.steps is None and options.epochs is None:
        pass  # another length comes of the other settings
    elif wanted < length:
        differences.append(f"the run is {length} steps long, and now {wanted} are asked for")
        remedy = remedy if changes else "Give another --out"
    elif wanted > length and depends_on_length(recipe):
        differences.append(
            f"the run is {length} steps long, and now {wanted} are asked for: its learning rate follows a "
            f"{recipe.schedule} schedule, which another length changes from the first step on"
        )
        if not changes:
            command = ["spectra", "train", options.task, "--branch-from", f"{options.out}@final"]
            command += ["--steps", str(wanted), "--out", "NEW"]
            remedy = f"Give another --out; to go on from the end of this run: {shlex.join(command)}"
    if differences:
        raise UsageError("; ".join(differences), where=str(options.out), remedy=remedy)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], options: TrainOptions) -> list[str]:
    """Names of the settings that differ, without those that the user did not give and that follow from others."""
    names = [name for name in {**after, **before} if name not in LENGTH and before.get(name) != after.get(name)]
    if "task" in names:
        names = [name for name in names if not name.startswith("option ")]
    elif not any(name.startswith("option ") for name in names):
        return names
    given = {f"recipe.{name}" for name in ("lr", "weight_decay", "batch_size") if getattr(options, name) is not None}
    return [name for name in names if name in given or not name.startswith(("recipe.", "training_count"))]


def _settings(record: RunRecord) -> dict[str, Any]:
    """All that decides the trajectory, flat, in the order in which a user thinks of it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(record)))  # as it reads from a file
    training = values.pop("training")
    flat: dict[str, Any] = {"task": values.pop("task")}
    flat |= {f"option {name}": value for name, value in values.pop("options").items()}
    flat["seed"] = values["seed"]
    flat["begins from"] = None if values["trunk"] is None else f"{values['trunk']}@{values['split_step']}"
    for name, value in training.items():
        if name in INFORMATION:
            continue
        if name in {"recipe", "save"}:
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
            if name == "save":
                flat["save.optimizer"] = "given" if value.get("optimizer") else None
        elif name == "perturb" and isinstance(value, dict):
            flat[name] = f"{value.get('eta')}@{value.get('step')}"
        elif name == "mask" and isinstance(value, dict):
            flat[name] = f"{value.get('kind')}:{value.get('keep')}"
            flat["mask.from"] = f"{value.get('run')}@{value.get('step')}"
            flat["mask.seed"] = value.get("seed")
        else:
            flat[name] = value
    return flat


def _called(name: str, *, masked: bool) -> str:
    """The name of a setting as a user types it, where there is an option for it.

    Args:
        name: a key of :func:`_settings`.
        masked: whether the training has a mask, with which another option says where it begins.
    """
    if name.startswith("option "):
        option = name.removeprefix("option ")
        return f"--{DATA}" if option == DATA else f"--set {option}"
    if name == "begins from":
        return "--rewind" if masked else "--branch-from"
    return _FLAGS.get(name, name.replace(".", " ").replace("_", " "))


_FLAGS = {
    "task": "TASK",
    "seed": "--seed",
    "recipe.lr": "--lr",
    "recipe.weight_decay": "--weight-decay",
    "recipe.batch_size": "--batch-size",
    "save.every": "--save-every",
    "save.log_spaced": "--log-saves",
    "save.optimizer": "--save-optimizer",
    "perturb": "--perturb",
    "mask": "--mask",
    "mask.from": "--mask-from",
    "mask.seed": "--mask-seed",
    "output_layer": "--output-layer",
    "training_count": "the number of training examples",
}


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value).strip('"')
