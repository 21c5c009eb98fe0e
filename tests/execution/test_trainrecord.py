"""A run.json that is damaged is told by its name, and never trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.errors import InputError
from spectra_cli.execution.training.record import existing_record, recipe_of
from spectra_cli.tasks.runfile import RunRecord


@pytest.mark.parametrize(
    "damage",
    [{"recipe": [1]}, {"recipe": None}, {"save": 5}, {"total_steps": -5}, {"total_steps": True}, {"total_steps": "9"}],
)
def test_a_damaged_record_in_the_directory_of_a_run_is_told(tmp_path: Path, damage: dict[str, Any]) -> None:
    training = {"total_steps": 9, "recipe": {"optimizer": "sgd"}, "save": {}, **damage}
    (tmp_path / "run.json").write_text(json.dumps({"task": "x", "training": training}))
    with pytest.raises(InputError, match=r"run\.json: .*(recipe|save|not written by)"):
        existing_record(tmp_path)


def test_a_record_of_a_run_that_saved_nothing_is_none(tmp_path: Path) -> None:
    training = {"total_steps": 9, "recipe": {"optimizer": "sgd"}, "save": {}}
    (tmp_path / "run.json").write_text(json.dumps({"task": "x", "training": training}))
    assert existing_record(tmp_path) is None


@pytest.mark.parametrize(
    "wrong", [{"lr": -1}, {"lr": "x"}, {"optimizer": "rmsprop"}, {"betas": [2, 3]}, {"batch_size": 0}, {"foo": 1}]
)
def test_a_recipe_of_a_trunk_that_is_none_is_the_files_fault(wrong: dict[str, Any]) -> None:
    record = RunRecord("x", training={"recipe": {"optimizer": "sgd", "lr": 0.1, **wrong}})
    with pytest.raises(InputError, match=r"^run\.json: its recipe: ") as caught:
        recipe_of(record, "run.json")
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 10**30])
def test_a_seed_of_a_trunk_that_is_none_is_the_files_fault(seed: int) -> None:
    with pytest.raises(InputError, match=r"^run\.json: its seed is"):
        recipe_of(RunRecord("x", seed=seed, training={"recipe": {"optimizer": "sgd", "lr": 0.1}}), "run.json")
