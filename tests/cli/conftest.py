"""A command line in process, in an empty working directory, and small runs to give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from spectra_cli.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def widest(self) -> int:
        """Columns of the longest line for people that is not a message (which a terminal wraps itself)."""
        lines = [line for line in self.err.splitlines() if not line.startswith(("Warning: ", "Error: "))]
        return max(map(len, lines), default=0)


@pytest.fixture(autouse=True)
def _plain_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and none of the variables that change what is printed."""
    for name in ("COLUMNS", "LINES", "SPECTRA_DEBUG", "FORCE_COLOR", "NO_COLOR", "TERM", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def spectra(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run one command line: ``spectra("rank", path)``."""

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


def tiny_weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "first.weight": torch.randn(6, 4, generator=generator),
        "second.weight": torch.randn(5, 6, generator=generator),
        "second.bias": torch.randn(5, generator=generator),
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run of small checkpoints: ``make_run("runs/a", steps=[0, 100])``."""

    def make(name: str = "run", steps: Sequence[int] = (0, 100, 200), seed: int = 0) -> Path:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        for step in steps:
            torch.save(tiny_weights(1000 * seed + step), directory / f"step_{step}.pt")
        return directory

    return make


@pytest.fixture
def table() -> Callable[..., list[dict[str, object]]]:
    """Rows of a table that a command wrote."""

    def read(path: str | Path = "rank.parquet") -> list[dict[str, object]]:
        rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
        return rows

    return read
