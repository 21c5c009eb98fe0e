"""`--workers`: what is told where some of them have nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.cli.trajectories import assert_same, trajectory

Fixture = Callable[..., Any]


def test_more_workers_than_checkpoints_are_told_in_a_line_and_make_the_same_rows(spectra: Fixture) -> None:
    """With the threads that each of them would have; not where a re-run has less to do than there are workers."""
    run = trajectory(steps=(0,))
    done = spectra("rank", run, "--workers", "2", "--out", "out")
    told = [line for line in done.err.splitlines() if "--workers" in line]
    assert len(told) == 1
    assert told[0].startswith("--workers 2: there is 1 checkpoint, and no more workers are begun")
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")
    assert spectra("rank", run, "--workers", "2", "--out", "out", "--quiet").err == ""
    trajectory(steps=(0, 100))
    assert "--workers" not in spectra("rank", run, "--workers", "2", "--out", "out").err
