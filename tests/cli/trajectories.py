"""Small trajectories of checkpoints, what is made of them, what work was done for it, and commands to be killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.execution.work.units import Outcome, Unit
from tests.analyses.formulas import chain, save, save_run

SIZES = (10, 9, 8, 7)
"""Of three layers that feed one another."""

PATIENCE_S = 120.0
"""How long a slow machine may take for something that takes a moment."""

TABLES = ("rank", "align", "sva")


# Checkpoints


def trajectory(name: str | Path = "run", steps: Sequence[int] = (0, 100, 200, 300)) -> Path:
    """A run of small checkpoints, all with weights of their own."""
    return save_run(Path(name), {step: chain(SIZES, seed=step + 1) for step in steps})


def step(run: Path, number: int) -> Path:
    """The checkpoint of a step."""
    return run / f"step_{number}.safetensors"


def rewrite(run: Path, number: int, seed: int) -> Path:
    """Other weights in a checkpoint, in as many bytes; its time is another one for certain."""
    path = step(run, number)
    before = path.stat().st_mtime_ns if path.exists() else 0
    save(path, chain(SIZES, seed=seed))
    os.utime(path, ns=(before + 10**9, max(path.stat().st_mtime_ns, before + 10**9)))
    return path


def rewrite_unnoticed(run: Path, number: int, seed: int) -> None:
    """Other weights in a checkpoint of the same size and time."""
    path = step(run, number)
    before = path.stat()
    save(path, chain(SIZES, seed=seed))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# Tables


def outputs(command: str, out: str | Path) -> dict[str, Path]:
    """The tables that a command writes under ``--out``."""
    return {table: Path(out) / f"{table}.parquet" for table in TABLES} if command == "analyze" else {command: Path(out)}


def read(path: Path) -> pa.Table:
    """A table without what its file says of its making."""
    with path.open("rb") as file:  # pyarrow opens a path twice, and another file may have taken its place
        return pq.read_table(file).replace_schema_metadata()


def assert_same(command: str, out: str | Path, oracle: str | Path) -> None:
    """The tables of two runs of a command are equal row for row, numbers to the bit."""
    for table, path in outputs(command, out).items():
        ours, theirs = read(path), read(outputs(command, oracle)[table])
        assert ours.schema.equals(theirs.schema)
        assert ours.equals(theirs), f"{table}: {len(ours)} rows, not the {len(theirs)} of a fresh run"


def states(command: str, out: str | Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every table."""
    return {table: (path.read_bytes(), path.stat().st_mtime_ns) for table, path in outputs(command, out).items()}


def kept(done: Any) -> int:
    """How many checkpoints a command has kept, as its ``--json`` says."""
    return int(json.loads(done.out)["kept"])


def listed(directory: str | Path) -> list[str]:
    """Names in a directory, hidden ones too."""
    return sorted(path.name for path in Path(directory).iterdir())


# Work that is done


@dataclass
class Work:
    """What has been done in this process.

    Attributes:
        opened: checkpoints, by name.
        factorized: how many matrices.
    """

    opened: list[str] = field(default_factory=list)
    factorized: int = 0

    def forget(self) -> None:
        """Count anew."""
        self.opened.clear()
        self.factorized = 0


@contextmanager
def counted() -> Iterator[Work]:
    """Count checkpoints that are opened and matrices that are factorized, for as long as the context lasts."""
    from spectra_cli.analyses import visits
    from spectra_cli.execution.trajectory import openedcheckpoints

    work, open_one, factorize = Work(), openedcheckpoints.open_checkpoint, visits.factorize

    def opening(path: Path, *arguments: Any, **named: Any) -> Any:
        work.opened.append(path.name)
        return open_one(path, *arguments, **named)

    def factorizing(matrices: Sequence[Any], *arguments: Any, **named: Any) -> Any:
        work.factorized += len(matrices)
        return factorize(matrices, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openedcheckpoints, "open_checkpoint", opening)
        patch.setattr(visits, "factorize", factorizing)
        yield work


# Commands in processes of their own


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that will come; its value when it has."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)
    return value


@dataclass(frozen=True)
class AtCheckpoint:
    """What comes over a process when it is about to keep the rows of its ``count``-th checkpoint, from 1.

    Attributes:
        count: of the checkpoint.
        what: ``exit`` and ``segfault`` end the process; ``wait`` until there is a file ``go`` in its directory.
    """

    count: int
    what: str

    def befall(self) -> None:
        """Have it come over this process."""
        import resource

        from spectra_cli.execution.incremental.filling import Filling

        put, met = Filling._put, 0

        def putting(filling: Filling, unit: Unit, outcome: Outcome) -> bool:
            nonlocal met
            met += 1
            if met == self.count:
                match self.what:
                    case "exit":
                        os._exit(7)
                    case "segfault":
                        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                        os.kill(os.getpid(), signal.SIGSEGV)
                    case "wait":
                        Path("waiting").touch()
                        until(Path("go").exists)
            return put(filling, unit, outcome)

        Filling._put = putting  # type: ignore[method-assign]


@dataclass(frozen=True)
class Command:
    """A command line in a process of its own.

    Attributes:
        process: of it.
        said: file with what it prints for people.
        printed: file with its standard output.
    """

    process: ForkServerProcess
    said: Path
    printed: Path

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def ended(self) -> int:
        """Wait for its end; its exit status, or a signal's number with a minus."""
        self.process.join(PATIENCE_S)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode

    @property
    def err(self) -> str:
        """What it has printed for people so far."""
        return self.said.read_text(encoding="utf-8") if self.said.exists() else ""


def start(*arguments: str | Path, befalls: AtCheckpoint | None = None) -> Command:
    """Begin a command in this directory: the ``spectra`` that is installed, but for the time to import it.

    The process is forked from one that has imported everything and done nothing.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.cli.preloaded"])
    here = Path.cwd()
    said, printed = (here.parent / f"{here.name}.{name}" for name in ("err", "out"))
    line = [str(argument) for argument in arguments]
    process = context.Process(target=_command, args=(line, str(here), str(said), str(printed), befalls), daemon=True)
    process.start()
    return Command(process, said, printed)


def _command(line: Sequence[str], directory: str, said: str, printed: str, befalls: AtCheckpoint | None) -> None:
    from spectra_cli.cli.main import main

    os.chdir(directory)
    for path, stream in ((printed, sys.stdout), (said, sys.stderr)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, stream.fileno())
        os.close(handle)
    sys.argv = ["spectra", *line]
    if befalls is not None:
        befalls.befall()
    main()


def copied(directory: str | Path, to: str | Path) -> Path:
    """A copy of a directory of tables."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(directory, to)
    return Path(to)
