"""A checkpoint that changes, breaks or lacks its model is a row, and never the end of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

Fixture = Callable[..., Any]
WEIGHTS = {"first.weight": torch.ones(3, 2)}


def statuses(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["checkpoint"]: row["status"] for row in rows}


def make_directories(root: Path, *steps: int) -> Path:
    for step in steps:
        directory = root / f"step_{step}"
        directory.mkdir(parents=True)
        save_file(WEIGHTS, directory / "weights.safetensors")
    return root


@pytest.mark.parametrize("command", ["rank", "inspect"])
def test_a_file_deleted_after_it_was_found_is_a_row(
    command: str, spectra: Fixture, make_run: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectra_cli.execution.planning import plan

    discover_all = plan.discover_all
    directory = make_run()

    def and_delete(*arguments: Any) -> Any:
        runs = discover_all(*arguments)
        (directory / "step_100.pt").unlink()
        return runs

    monkeypatch.setattr(plan, "discover_all", and_delete)
    outcome = spectra(command, directory, "--json")
    assert outcome.status == 3
    assert "there is no such file" in outcome.err + outcome.out


@pytest.mark.parametrize("stray", ["tmp_model.pt", "other.pt", ".hidden.pt", "weights.safetensors.tmp"])
def test_what_discovery_passes_over_does_not_hinder_opening(
    stray: str, spectra: Fixture, tmp_path: Path, table: Fixture
) -> None:
    """A second model file that is half-written, hidden or a dead link."""
    run = make_directories(tmp_path / "run", 1, 2)
    if stray == "other.pt":
        (run / "step_2" / stray).symlink_to("absent.pt")
    else:
        torch.save(WEIGHTS, run / "step_2" / stray)
    assert spectra("rank", run).status == 0
    assert statuses(table()) == {"step_1": "ok", "step_2": "ok"}


@pytest.mark.parametrize("index", [True, False])
def test_a_pipe_in_place_of_a_shard_is_a_row(index: bool, spectra: Fixture, tmp_path: Path, table: Fixture) -> None:
    run = make_directories(tmp_path / "run", 1)
    broken = run / "step_2"
    broken.mkdir()
    names = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    save_file(WEIGHTS, broken / names[0])
    os.mkfifo(broken / names[1])
    if index:
        weight_map = {"first.weight": names[0], "second.weight": names[1]}
        (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    outcome = spectra("rank", run)
    assert outcome.status == 3
    assert statuses(table()) == {"step_1": "ok", "step_2": "incomplete" if index else "unreadable"}
    assert names[1] in outcome.err


def test_a_directory_that_may_be_listed_and_not_entered_is_a_row_for_each_file(
    spectra: Fixture, make_run: Fixture, table: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("runs/a", steps=[0])
    locked = make_run("runs/b", steps=[0, 100])
    stat = os.stat

    def guarded(path: Any, **options: Any) -> os.stat_result:  # a superuser could enter it whatever its mode
        if isinstance(path, (str, Path)) and locked in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", guarded)
    outcome = spectra("rank", tmp_path / "runs")
    assert outcome.status == 3
    assert [(row["run"], row["status"]) for row in table() if row["status"] != "ok"] == [("b", "unreadable")] * 2
    assert "Permission denied" in outcome.err


@pytest.mark.parametrize("command", ["rank", "inspect"])
def test_a_directory_without_its_model_is_an_incomplete_row_and_no_stop(
    command: str, spectra: Fixture, tmp_path: Path, table: Fixture
) -> None:
    """Only the absence of what an index names stops `rank` before it starts."""
    run = make_directories(tmp_path / "run", 1, 2)
    (run / "step_3").mkdir()
    torch.save({}, run / "step_3" / "optimizer.pt")
    outcome = spectra(command, run, "--json")
    assert outcome.status == 3
    if command == "rank":
        assert statuses(table()) == {"step_1": "ok", "step_2": "ok", "step_3": "incomplete"}
    else:
        (found,) = json.loads(outcome.out)["runs"]
        assert statuses(found["checkpoints"]) == {"step_1": "ok", "step_2": "ok", "step_3": "incomplete"}


def test_what_looks_like_a_checkpoint_and_is_passed_over_is_one_line(
    spectra: Fixture, make_run: Fixture, tmp_path: Path
) -> None:
    directory = make_run()
    for step in range(300, 800, 100):
        (directory / f"step_{step}.pt.tmp").touch()
    (directory / "notes.txt").touch()
    outcome = spectra("rank", directory, "--quiet")
    assert outcome.status == 0
    (line,) = outcome.err.splitlines()
    assert line.startswith("Warning: passed over 5 entries that look like a checkpoint: ")
    assert "step_300.pt.tmp" in line
    assert "and 2 more" in line
    assert "notes.txt" not in line


@pytest.mark.parametrize("step", ["9" * 400, "9" * 400 + "k"])
def test_a_step_beyond_all_numbers_is_2(step: str, spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    assert spectra("rank", directory, "--steps", step).status == 2
    assert spectra("rank", f"{directory}@{step}").status == 2
