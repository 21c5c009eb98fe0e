"""`--scheduler`: a real Dask scheduler and worker processes on loopback make the tables of a local run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spectra_cli.execution.incremental.filling import Filling
from tests.analyses import tiny_tasks
from tests.cli.trajectories import assert_same, read, trajectory
from tests.execution.cluster import Cluster

Fixture = Callable[..., Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of one thread each."""
    with Cluster.of_two(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.mark.parametrize("line", [["rank"], ["analyze"], ["sva", "--reference", "previous"]], ids=lambda line: line[0])
def test_a_cluster_makes_the_rows_of_a_local_run_in_its_order(
    spectra: Fixture, cluster: Cluster, line: list[str]
) -> None:
    """Paths are relative to the directory of the command, which is not that of the workers."""
    run = trajectory(steps=range(0, 1200, 100))
    assert spectra(*line, run, "--out", "local").status == 0
    assert spectra(*line, run, "--out", "cluster", "--scheduler", cluster.address).status == 0
    assert_same(line[0], "cluster", "local")


def test_a_cluster_evaluates_models(spectra: Fixture, cluster: Cluster) -> None:
    Path("run").mkdir()
    for step in range(4):
        torch.manual_seed(step)
        torch.save(tiny_tasks.mlp().model().state_dict(), Path("run", f"step_{step}.pt"))
    Path("own.py").write_text("from tests.analyses.tiny_tasks import mlp\n")
    line = ["prune-eval", "run", "--task", "own.py:mlp", "--variants", "full,top"]
    for out, options in (("local", []), ("cluster", ["--scheduler", cluster.address])):
        assert spectra(*line, *options, "--out", f"{out}.parquet").status == 0
    assert read(Path("cluster.parquet")).equals(read(Path("local.parquet")))


def test_a_worker_that_is_killed_in_the_middle_costs_no_row(
    spectra: Fixture, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trajectory(steps=range(0, 6000, 100))
    assert spectra("analyze", run, "--out", "local").status == 0
    put, count = Filling._put, 0

    def putting(filling: Filling, *arguments: Any) -> bool:
        nonlocal count
        count += 1
        if count == 20:
            os.kill(cluster.pids[0], signal.SIGKILL)
        return put(filling, *arguments)

    monkeypatch.setattr(Filling, "_put", putting)
    with cluster.replacing():
        done = spectra("analyze", run, "--out", "cluster", "--scheduler", cluster.address)
    assert (done.status, count) == (0, 60)
    assert_same("analyze", "cluster", "local")
