"""What is amiss with rows that are kept is told as if they were made now, whatever else is made beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.analyses.formulas import chain, save, save_run
from tests.cli.test_incremental import problems
from tests.cli.trajectories import SIZES, assert_same, counted, kept, step, trajectory

Fixture = Callable[..., Any]


def with_faults(run: Path) -> None:
    """A matrix that is not finite in one checkpoint, in another one that feeds nothing."""
    weights = load_file(step(run, 100))
    weights["layers.1.weight"] = torch.full_like(weights["layers.1.weight"], torch.nan)
    save(step(run, 100), weights)
    save(step(run, 200), {"alone": torch.eye(4)})


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["--reference", "first"], ["--reference", "previous"]),
        (["--reference", "final"], ["--reference", "first"]),
        (["--reference", "first"], ["--reference", "first"]),
    ],
    ids=["previous", "first", "same"],
)
def test_what_is_told_is_what_a_fresh_run_tells(spectra: Fixture, before: list[str], now: list[str]) -> None:
    """Another reference makes the rows of `sva` alone anew; those of `rank` and `align` have their faults still."""
    run = trajectory()
    with_faults(run)
    assert spectra("analyze", run, *before, "--out", "out").status == 3
    done = spectra("analyze", run, *now, "--out", "out", "--json")
    fresh = spectra("analyze", run, *now, "--out", "fresh", "--json")
    assert (done.status, fresh.status) == (3, 3)
    assert_same("analyze", "out", "fresh")
    assert set(problems(fresh)) <= set(problems(done))
    assert any("not_finite" in message for message in problems(done))
    assert not any("the same in" in message for message in problems(done)), "of one checkpoint each"


def test_a_new_final_checkpoint_hides_nothing(spectra: Fixture) -> None:
    """It is the reference of all, so that all rows of `sva` are made anew."""
    run = trajectory()
    with_faults(run)
    spectra("analyze", run, "--out", "out")
    save(step(run, 400), chain(SIZES, seed=9))
    done = spectra("analyze", run, "--out", "out", "--json")
    fresh = spectra("analyze", run, "--out", "fresh", "--json")
    assert set(problems(fresh)) <= set(problems(done))


# The memory budget


@pytest.fixture
def large() -> Path:
    """Three checkpoints of a small matrix and one that takes some megabytes."""
    return save_run(
        Path("large"),
        {number: {"small.weight": torch.eye(8), "large.weight": torch.eye(500) * (number + 1)} for number in range(3)},
    )


def statuses(path: str) -> Mapping[str, set[str]]:
    import pyarrow.parquet as pq

    found: dict[str, set[str]] = {}
    for row in pq.read_table(path, columns=["parameter", "status"]).to_pylist():
        found.setdefault(row["parameter"], set()).add(row["status"])
    return found


@pytest.mark.parametrize("command", ["rank", "analyze"])
def test_what_the_budget_leaves_out_is_tried_again_under_another_one(
    spectra: Fixture, large: Path, command: str
) -> None:
    """Under the same one nothing is read again: a matrix too large may be in every checkpoint."""
    reference = [] if command == "rank" else ["--reference", "first"]
    line = [command, large, *reference]
    rank = "out" if command == "rank" else "out/rank.parquet"
    done = spectra(*line, "--memory-budget", "1MB", "--out", "out", "--json")
    assert (done.status, kept(done)) == (3, 0)
    assert statuses(rank) == {"small.weight": {"ok"}, "large.weight": {"over_memory_budget"}}
    with counted() as work:
        again = spectra(*line, "--memory-budget", "1MB", "--out", "out", "--json")
    assert (again.status, kept(again), work.opened) == (3, 3, [])
    assert sorted(problems(again)) == sorted(problems(done))
    for budget in ("900kB", "1001kB"):
        assert kept(spectra(*line, "--memory-budget", budget, "--out", "out", "--json")) == 0
    more = spectra(*line, "--memory-budget", "500MB", "--out", "out", "--json")
    assert (more.status, kept(more)) == (0, 0)
    assert spectra(*line, "--memory-budget", "500MB", "--out", "fresh").status == 0
    assert_same(command, "out", "fresh")
    assert json.loads(spectra(*line, "--memory-budget", "1MB", "--out", "out", "--json").out)["kept"] == 3
