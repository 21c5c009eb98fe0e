"""The command as a process of its own: entry point, signals, pipes, encodings, and the examples in its help."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import typer.main

from spectra_cli import __version__
from spectra_cli.cli.main import app
from spectra_cli.tasks.modular_addition import ModularAddition
from spectra_cli.tasks.runfile import RunRecord
from tests.cli.trajectories import PATIENCE_S, until

Fixture = Callable[..., Any]
ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group, as Typer builds it
SPECTRA = [sys.executable, "-m", "spectra_cli"]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def spectra(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SPECTRA, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(**variables),
        check=False,
    )


def make_addition_run(directory: Path) -> None:
    """A run as `spectra train` leaves it, which knows its task; its weights are random."""
    options = {"prime": 5, "d_model": 4, "num_heads": 2, "mlp": 6}
    task = ModularAddition(**options)  # type: ignore[arg-type]
    directory.mkdir(parents=True)
    for step in (0, 100):
        torch.save(task.model().state_dict(), directory / f"step_{step}.pt")
    (directory / "config.json").write_text(json.dumps(task.config))
    RunRecord("modular-addition", options).write(directory)


def test_the_module_runs_and_says_its_version() -> None:
    done = spectra("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"spectra {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["rank", "run"], 0), (["columns", "absent"], 2), (["rank", "partly"], 3)],
)
def test_exit_statuses_reach_the_shell(arguments: list[str], status: int, make_run: Fixture) -> None:
    make_run("run")
    (make_run("partly") / "step_0.pt").write_bytes(b"")
    done = spectra(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr


def test_a_traceback_only_for_those_who_ask() -> None:
    assert "Traceback" not in spectra("rank", "absent").stderr
    assert "Traceback" in spectra("rank", "absent", SPECTRA_DEBUG="1").stderr


def test_the_metadata_holds_the_command_line(make_run: Fixture) -> None:
    make_run("run")
    assert spectra("rank", "run", "--every", "2").returncode == 0
    assert pq.read_schema("rank.parquet").metadata[b"spectra.command"] == b"spectra rank run --every 2"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_every_command_runs(name: str) -> None:
    """A newcomer pastes it, with runs of their own in ``runs/a`` and ``runs/b``, and tables of one in ``tables``."""
    for run in ("runs/a", "runs/b"):
        make_addition_run(Path(run))
    if name in {"plot", "report"}:
        assert spectra("analyze", "runs/a", "--out", "tables", "--quiet").returncode == 0
    (example,) = [line.strip() for line in (COMMANDS[name].help or "").splitlines() if "Example: " in line]
    done = spectra(*shlex.split(example.removeprefix("Example: "))[1:])
    assert (done.returncode, "Error" in done.stderr) == (0, False)


WAITING = "from tests.cli.trajectories import AtCheckpoint; AtCheckpoint(1, 'wait').befall()"
"""What Python does first in a process that is to be interrupted."""


@pytest.mark.parametrize(
    ("sent", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
)
def test_a_signal_is_told_and_leaves_nothing_behind(
    sent: signal.Signals, status: int, word: str, tmp_path: Path, make_run: Fixture
) -> None:
    """Ctrl-C, and what SLURM sends at the end of the time: here when the first rows are about to be kept."""
    (here := tmp_path / "here").mkdir()
    make_run("here/run")
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with subprocess.Popen(
        ["env", "--default-signal=HUP", *SPECTRA, "rank", "run"],  # whoever runs the tests may ignore it
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONPATH=path),
        cwd=here,
    ) as process:
        try:
            until(lambda: (here / "waiting").exists() or process.poll() is not None)
            assert len(list(here.iterdir())) > 2, "nothing is beside the table: the test says nothing"
            process.send_signal(sent)
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == status
    assert word in said
    assert "Traceback" not in said
    assert sorted(path.name for path in here.iterdir()) == ["run", "waiting"]


def test_a_lost_terminal_does_not_end_what_was_begun_with_nohup(tmp_path: Path, make_run: Fixture) -> None:
    (here := tmp_path / "here").mkdir()
    make_run("here/run")
    (tmp_path / "sitecustomize.py").write_text(WAITING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ignoring = ["bash", "-c", "trap '' HUP; exec \"$@\"", "-", *SPECTRA, "rank", "run"]
    with subprocess.Popen(
        ignoring, stderr=subprocess.PIPE, text=True, env=environment(PYTHONPATH=path), cwd=here
    ) as it:
        try:
            until(lambda: (here / "waiting").exists() or it.poll() is not None)
            it.send_signal(signal.SIGHUP)
            (here / "go").touch()
            _, said = it.communicate(timeout=PATIENCE_S)
        finally:
            it.kill()
    assert (it.returncode, "terminated" in said) == (0, False)
    assert (here / "rank.parquet").exists()


def test_a_reader_that_closes_the_pipe_is_no_fault(make_run: Fixture) -> None:
    """As `head` does; the listing is longer than a pipe holds."""
    weights = {f"layers.{index}.weight": torch.ones(1, 2) for index in range(2000)}
    torch.save(weights, "model.pt")
    with subprocess.Popen(
        [*SPECTRA, "inspect", "model.pt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert said == ""
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["rank", "inspect"])
def test_names_of_any_alphabet_survive_a_terminal_of_ascii(command: str) -> None:
    torch.save({"层.weight": torch.eye(3), "größe.weight": torch.ones(3, 3)}, "model.pt")
    done = spectra(command, "model.pt", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert r"\u5c42.weight" in done.stdout + done.stderr


def test_a_file_name_that_is_no_text_is_analysed(table: Fixture) -> None:
    """File names are bytes on Linux; a table holds text."""
    name = os.fsdecode(b"step_1_\xff.pt")
    Path("run").mkdir()
    try:
        torch.save({"a.weight": torch.eye(3)}, (buffer := Path("run/step_2.pt")))
        buffer.with_name(name).write_bytes(buffer.read_bytes())
    except OSError:
        pytest.skip("the file system takes only text")
    for command in ("rank", "inspect"):
        done = spectra(command, "run", "--json")
        assert (done.returncode, "Error" in done.stderr) == (0, False)
    assert table()[0]["checkpoint"] == r"step_1_\udcff.pt"
