"""What is finished is kept, however the work ends: the next run of the command goes on from there.

The oracle is the table of an uninterrupted ``--fresh`` run; numbers are compared to the bit. Processes are killed at
moments that the work itself gives, so that a slow machine changes nothing.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow.parquet as pq
import pytest

from spectra_cli.cli.main import run as run_command
from spectra_cli.errors import InputError
from spectra_cli.execution.incremental.filling import Filling
from spectra_cli.execution.work.units import Outcome, Unit
from spectra_cli.tables.frames import frames_in
from spectra_cli.tables.lockedfile import HOLDER_BYTES
from tests.cli.trajectories import (
    TABLES,
    AtCheckpoint,
    Command,
    assert_same,
    copied,
    counted,
    kept,
    listed,
    outputs,
    read,
    start,
    step,
    trajectory,
    until,
)
from tests.execution.planted_work import alive

Fixture = Callable[..., Any]
ROOT = Path(__file__).parents[2]
FINAL_TABLES = sorted(f"{table}.parquet" for table in TABLES)
MANY = range(16)
KILLS = 10


def journal(table: Path) -> Path:
    """Where what is finished of a table is kept."""
    return table.parent / f".{table.name}.journal"


def finished(path: Path) -> int:
    """How many checkpoints the journal of a table holds."""
    try:
        with journal(path).open("rb") as file:
            labels = frozenset({b"spHD", b"spRC"})
            return sum(frame.label == b"spRC" for frame in frames_in(file.fileno(), HOLDER_BYTES, labels))
    except FileNotFoundError:
        return 0


def finished_of_all(out: str | Path) -> int:
    """How many checkpoints are finished in all tables of `analyze`."""
    return min(finished(path) for path in outputs("analyze", out).values())


def goes_on(spectra: Fixture, run: Path, out: str, oracle: str, least: int) -> None:
    """The next run keeps at least so many checkpoints, does the others, and cleans up."""
    with counted() as work:
        done = spectra("analyze", run, "--out", out, "--json")
    assert done.status == 0
    assert kept(done) >= least
    assert_same("analyze", out, oracle)
    assert listed(out) == FINAL_TABLES
    new = len(list(run.iterdir())) - kept(done)
    assert len(set(work.opened)) <= new + 1  # and the reference


# Killed


@contextmanager
def read_all_the_time(paths: list[Path], allowed: dict[str, list[Any]]) -> Iterator[None]:
    """Another process that reads the tables meanwhile finds the old one or the new one, whole."""
    ended, wrong = Event(), list[str]()

    def look() -> None:
        while not ended.is_set():
            for path in paths:
                if path.exists():
                    table = read(path)
                    if not any(table.equals(each) for each in allowed[path.stem]):
                        wrong.append(f"{path}: {len(table)} rows")
            time.sleep(0.02)

    reader = Thread(target=look)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
    assert wrong == []


def test_after_sigkill_at_any_moment_the_next_run_completes_the_tables(spectra: Fixture) -> None:
    """Ten moments from the first checkpoint to the tables' appearing, over tables of an earlier state of the run.

    All agreement is made anew, as the final checkpoint is another one; of the first half, rank and alignment are kept.
    """
    run = trajectory(steps=MANY)
    shutil.copytree(run, "later")
    for number in MANY[len(MANY) // 2 :]:
        step(run, number).unlink()
    assert spectra("analyze", run, "--out", "before").status == 0
    shutil.copytree("later", run, dirs_exist_ok=True)
    for path in Path("later").iterdir():  # as they were, where there were any
        shutil.copystat(path, run / path.name)
    assert spectra("analyze", run, "--out", "oracle", "--fresh").status == 0
    allowed = {table: [read(outputs("analyze", out)[table]) for out in ("before", "oracle")] for table in TABLES}
    paths = outputs("analyze", "out")

    rng, ends = random.Random(6), list[int]()  # noqa: S311 - moments, not secrets
    for moment in sorted(rng.randrange(len(MANY) + 1) for _ in range(KILLS)):
        copied("before", "out")
        with read_all_the_time(list(paths.values()), allowed):
            command = start("analyze", run, "--out", "out")
            until(lambda: finished(paths["sva"]) >= moment or command.process.exitcode is not None)  # noqa: B023 - at once
            time.sleep(0.02 * rng.random())
            command.send(signal.SIGKILL)
            ends.append(command.ended())
        goes_on(spectra, run, "out", "oracle", finished(paths["sva"]))
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in ends


def test_a_slip_in_the_next_command_does_not_cost_what_was_finished(spectra: Fixture) -> None:
    """Other settings are refused as long as an interrupted run waits to go on, unless it is to start over."""
    run = trajectory(steps=MANY)
    assert spectra("analyze", run, "--out", "oracle", "--fresh").status == 0
    assert start("analyze", run, "--out", "out", befalls=AtCheckpoint(4, "exit")).ended() == 7
    waiting = finished_of_all("out")
    assert waiting > 0
    slip = spectra("analyze", run, "--out", "out", "--exclude", "nothing*")
    assert slip.status == 1
    assert "--exclude was not given and is nothing*" in slip.err
    assert f"has finished {finished(outputs('analyze', 'out')['rank'])} checkpoint" in slip.err
    assert "--fresh" in slip.err
    assert finished_of_all("out") == waiting
    goes_on(spectra, run, "out", "oracle", waiting)

    assert start("analyze", run, "--out", "other", befalls=AtCheckpoint(4, "exit")).ended() == 7
    assert spectra("analyze", run, "--out", "other", "--exclude", "nothing*", "--fresh").status == 0
    assert_same("analyze", "other", "oracle")


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("what", "status"), [("exit", 7), ("segfault", -signal.SIGSEGV)])
def test_after_a_crash_of_the_interpreter_the_next_run_goes_on(
    spectra: Fixture, what: str, status: int, count: int
) -> None:
    """All that was finished before it is kept."""
    run = trajectory(steps=range(8))
    assert spectra("analyze", run, "--out", "oracle").status == 0
    assert start("analyze", run, "--out", "out", befalls=AtCheckpoint(count, what)).ended() == status
    assert finished_of_all("out") == count - 1
    goes_on(spectra, run, "out", "oracle", count - 1)


@pytest.mark.parametrize(
    ("sent", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        pytest.param(
            signal.SIGHUP,
            129,
            "terminated (the terminal is gone)",
            marks=pytest.mark.skipif(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="run by nohup"),
        ),
    ],
)
def test_a_signal_is_told_with_what_is_finished(spectra: Fixture, sent: int, status: int, word: str) -> None:
    """Ctrl-C, what SLURM sends at the end of the time, a lost terminal; only the journals stay beside the tables."""
    run = trajectory(steps=range(8))
    assert spectra("analyze", run, "--out", "oracle").status == 0
    command = start("analyze", run, "--out", "out", befalls=AtCheckpoint(4, "wait"))
    until(Path("waiting").exists)
    command.send(sent)
    assert command.ended() == status
    assert f"{word}: 3 of 8 checkpoints are finished and kept" in command.err
    assert "Run the same command again to go on from there." in command.err
    assert "Traceback" not in command.err
    assert listed("out") == sorted(journal(Path(name)).name for name in FINAL_TABLES)
    goes_on(spectra, run, "out", "oracle", 3)


def test_an_error_in_the_midst_of_the_work_says_what_is_finished(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that goes, a disk that is full: whoever reads it knows what the next run need not do."""
    run, put, met = trajectory(), Filling._put, 0

    def putting(filling: Filling, unit: Unit, outcome: Outcome) -> bool:
        nonlocal met
        met += 1
        if met == 4:
            raise InputError("planted", where="here", remedy="Run it again")
        return put(filling, unit, outcome)

    with monkeypatch.context() as patched:
        patched.setattr(Filling, "_put", putting)
        failed = spectra("rank", run, "--out", "out")
    assert failed.status == 1
    assert "Error: here: planted (3 of 4 checkpoints are finished and kept). Run it again." in failed.err
    assert kept(spectra("rank", run, "--out", "out", "--json")) == 3


def test_a_signal_before_anything_is_finished_leaves_nothing(spectra: Fixture) -> None:
    run = trajectory()
    command = start("rank", run, "--out", "out", befalls=AtCheckpoint(1, "wait"))
    until(Path("waiting").exists)
    command.send(signal.SIGTERM)
    assert command.ended() == 143
    assert "nothing new is finished" in command.err
    assert listed(".") == ["run", "waiting"]


def test_the_installed_command_does_so_too(tmp_path: Path) -> None:
    """Begun as people begin it, and killed by the signal that nothing can be done about."""
    run = trajectory(steps=range(40))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "spectra_cli", "analyze", str(run), "--out", "out"]
    with subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL) as process:
        until(lambda: finished_of_all("out") > 0 or process.poll() is not None)
        process.kill()
        assert process.wait() in {-signal.SIGKILL, 0}
    least = finished_of_all("out")
    assert run_command(["analyze", str(run), "--out", "oracle", "-q"]) == 0
    with counted() as work:
        assert run_command(["analyze", str(run), "--out", "out", "-q"]) == 0
    assert len(set(work.opened)) <= 40 - least + 1
    assert_same("analyze", "out", "oracle")
    assert listed("out") == FINAL_TABLES


def test_what_killed_processes_have_left_is_removed(spectra: Fixture) -> None:
    """Partial files of the table; not those of another, nor what only looks like one."""
    run = trajectory()
    foreign = {".other.parquet.abcdefgh.partial", ".rank.parquet.partial", "rank.parquet.abcdefgh.partial"}
    for name in {".rank.parquet.abcdefgh.partial", ".rank.parquet.0a1b2c3d.partial", *foreign}:
        Path(name).write_bytes(b"PAR1")
    Path("directory").mkdir()
    Path("directory").rename(".rank.parquet.aaaaaaaa.partial")
    assert spectra("rank", run).status == 0
    assert set(listed(".")) == {"run", "rank.parquet", ".rank.parquet.aaaaaaaa.partial", *foreign}


# A disk that is full


class FullDisk:
    """Counts what is written to a disk, and has one of these calls fail: for want of room, all that come after as well.

    Args:
        fails_at: number of the call that fails, from 1; None for none.
        once: whether there is room again after it.
    """

    def __init__(self, fails_at: int | None = None, *, once: bool = False) -> None:
        self.calls: list[str] = []
        self._fails_at = fails_at
        self._once = once

    def _called(self, what: str) -> None:
        self.calls.append(what)
        number = len(self.calls)
        if self._fails_at is not None and (number == self._fails_at or (number > self._fails_at and not self._once)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _failing(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._called(what)
            return function(*arguments, **named)

        return call

    def __enter__(self) -> FullDisk:
        disk = self

        class Writer(pq.ParquetWriter):  # type: ignore[misc]  # pyarrow publishes no types
            def __init__(self, *arguments: Any, **named: Any) -> None:
                self.is_open = False  # for __del__
                disk._called("open a table")
                super().__init__(*arguments, **named)

            def write_table(self, *arguments: Any, **named: Any) -> None:
                disk._called("write rows")
                super().write_table(*arguments, **named)

            def close(self) -> None:
                was_open = self.is_open
                super().close()
                if was_open:
                    disk._called("close a table")

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(pq, "ParquetWriter", Writer)
        self._patch.setattr(os, "pwrite", self._failing("pwrite", os.pwrite))
        self._patch.setattr(os, "fsync", self._failing("fsync", os.fsync))
        self._patch.setattr(tempfile, "mkstemp", self._failing("mkstemp", tempfile.mkstemp))
        self._patch.setattr(Path, "replace", self._failing("rename", Path.replace))
        self._patch.setattr(Path, "mkdir", self._failing("mkdir", Path.mkdir))
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@pytest.mark.parametrize(("command", "once"), [("analyze", False), ("rank", True)], ids=["full", "full for a moment"])
def test_a_full_disk_at_any_write_costs_nothing_but_a_clear_error(spectra: Fixture, command: str, once: bool) -> None:
    """Every write of a command fails in turn: the old tables stay, and the next run completes the new ones."""
    run = trajectory(steps=(0, 100))
    for directory in ("before", "oracle"):
        Path(directory).mkdir()
    out = "out" if command == "analyze" else "out/rank.parquet"
    assert spectra(command, run, "--out", out.replace("out", "before")).status == 0
    shutil.copy(step(run, 0), step(run, 200))
    oracle = out.replace("out", "oracle")
    assert spectra(command, run, "--out", oracle).status == 0
    tables = outputs(command, out)
    allowed = {
        table: [read(Path(directory, path.name)) for directory in ("before", "oracle")]
        for table, path in tables.items()
    }
    copied("before", "out")
    with FullDisk() as disk:
        assert spectra(command, run, "--out", out).status == 0
    assert len(disk.calls) > 12
    failed = 0
    for number in range(1, len(disk.calls) + 1):
        copied("before", "out")
        with FullDisk(number, once=once) as failing:
            done = spectra(command, run, "--out", out)
        call = failing.calls[number - 1]
        for table, path in tables.items():
            assert any(read(path).equals(each) for each in allowed[table])
        assert not [name for name in listed("out") if "partial" in name]
        if done.status == 0:
            assert call in {"fsync", "close a table"}  # of a directory; and of what is given up
        else:
            failed += 1
            assert done.status == 1
            assert "No space left on device" in done.err
            assert "Make room" in done.err
            assert "fault of spectra" not in done.err
            assert "Traceback" not in done.err
        assert spectra(command, run, "--out", out).status == 0
        assert_same(command, out, oracle)
        assert listed("out") == sorted(path.name for path in tables.values())
    assert failed > len(disk.calls) // 2


def test_a_disk_that_takes_so_many_bytes_and_no_more_is_told(spectra: Fixture) -> None:
    """The system itself refuses to let any file grow beyond a size, in the midst of a write: also in pyarrow's."""
    run = trajectory(steps=range(8))
    assert spectra("analyze", run, "--out", "oracle").status == 0
    largest = max(path.stat().st_size for path in outputs("analyze", "oracle").values())
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed = 0
    for size in range(0, 2 * largest, largest // 3):
        shutil.rmtree("out", ignore_errors=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        try:
            done = spectra("analyze", run, "--out", "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
        if done.status != 0:
            failed += 1
            assert done.status == 1
            assert "File too large" in done.err
            assert "ulimit -f" in done.err
            assert not [name for name in listed("out") if not name.endswith(".journal")]
        goes_on(spectra, run, "out", "oracle", finished_of_all("out"))
    assert failed > 2


# Two at once


def held(run: Path, out: str, *options: str) -> Command:
    """A process that is making tables and does not go on."""
    command = start("analyze", run, *options, "--out", out, befalls=AtCheckpoint(2, "wait"))
    until(Path("waiting").exists)
    return command


@pytest.mark.parametrize(
    "line", [["analyze", "--out", "out"], ["rank", "--out", "out/rank.parquet"], ["analyze", "--fresh", "--out", "out"]]
)
def test_the_second_process_says_who_holds_the_table(spectra: Fixture, line: list[str]) -> None:
    """And touches nothing; the lock goes with its holder, however that ends."""
    run = trajectory()
    command = held(run, "out")
    names = listed("out")
    second = spectra(line[0], run, *line[1:])
    assert second.status == 1
    assert f"process {command.process.pid} on {socket.gethostname()}" in second.err
    assert f"spectra analyze {run} --out out" in second.err
    assert "out/rank.parquet" in second.err
    assert listed("out") == names
    command.send(signal.SIGKILL)
    assert command.ended() == -signal.SIGKILL
    assert spectra("analyze", run, "--out", "out").status == 0
    assert spectra("analyze", run, "--out", "oracle").status == 0
    assert_same("analyze", "out", "oracle")


def test_the_holder_is_not_disturbed(spectra: Fixture) -> None:
    """By who is turned away; tables beside its own may be made meanwhile."""
    run = trajectory()
    command = held(run, "out")
    assert spectra("analyze", run, "--out", "out").status == 1
    assert spectra("rank", run, "--out", "out/mine.parquet").status == 0
    assert spectra("analyze", run, "--out", "oracle").status == 0
    Path("go").touch()
    assert command.ended() == 0
    Path("out/mine.parquet").unlink()
    assert_same("analyze", "out", "oracle")
    assert listed("out") == FINAL_TABLES


# Workers


def children(pid: int | None) -> list[int]:
    """Processes that another one has begun."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_and_those_that_have_begun_them_may_be_killed(spectra: Fixture) -> None:
    """A worker: the same tables. Their parent: no worker stays, and the next run goes on."""
    run = trajectory(steps=range(60))
    assert spectra("analyze", run, "--out", "oracle").status == 0
    first = held(run, "first", "--workers", "2")
    os.kill(children(first.process.pid)[0], signal.SIGKILL)
    Path("go").touch()
    assert first.ended() == 0
    assert_same("analyze", "first", "oracle")
    assert listed("first") == FINAL_TABLES
    for name in ("waiting", "go"):
        Path(name).unlink()
    second = held(run, "second", "--workers", "2")
    workers = children(second.process.pid)
    assert len(workers) == 2
    second.send(signal.SIGKILL)
    assert second.ended() == -signal.SIGKILL
    until(lambda: not any(alive(pid) for pid in workers))
    assert finished_of_all("second") == 1
    goes_on(spectra, run, "second", "oracle", 1)
