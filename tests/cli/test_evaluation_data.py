"""What of its data an evaluation depends on: what the task reads, and nothing that the evaluation itself makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.analyses import tiny_tasks

Fixture = Callable[..., Any]

CODE = """
from pathlib import Path
from typing import Literal
from tests.analyses import tiny_tasks

class Noted(tiny_tasks.Classification):
    def metrics(self, model, batch):
        with Path("../log.txt").open("a") as file:
            file.write("e")
        return super().metrics(model, batch)

def make(data: str = "", model: Literal["run", "own.py"] = "run", text: str = "", place: Path | None = None):
    return Noted(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)
"""

PRUNE = ("prune-eval", "run", "--task", "own.py:make", "--split", "val", "--variants", "full")
PAIRS = ("barrier", "run@0", "run@10", "--task", "own.py:make", "--split", "val", "--alphas", "3")


def save(step: int) -> None:
    torch.manual_seed(step)
    torch.save(tiny_tasks.mlp().model().state_dict(), f"run/step_{step}.pt")


@pytest.fixture(autouse=True)
def _surroundings(_plain_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with data, a run, and the code of a task that notes its evaluations outside."""
    Path("here").mkdir()
    monkeypatch.chdir("here")
    Path("run").mkdir()
    for step in (0, 10):
        save(step)
    Path("own.py").write_text(CODE)
    Path("numbers.txt").write_text("1")


def evaluations() -> int:
    """Batches that have been evaluated since this was asked before."""
    log = Path("../log.txt")
    text = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return len(text)


def evaluates(spectra: Fixture, *line: str) -> bool:
    """Whether a command evaluates anything."""
    evaluations()
    assert spectra(*line).status == 0
    return evaluations() > 0


@pytest.mark.parametrize("command", [PRUNE, PAIRS], ids=["prune-eval", "barrier"])
def test_data_that_hold_the_run_and_the_table_are_unchanged_by_the_evaluation(
    command: tuple[str, ...], spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor by what Python makes of its code, and what is hidden; what else there is counts at any depth."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    line = (*command, "--data", ".", "--sva-out", "agreement.table")
    assert [evaluates(spectra, *line) for _ in range(3)] == [True, False, False]
    Path(".cache").mkdir()
    Path(".cache/index").write_text("1")
    Path("run/trainer.log").write_text("1")
    assert not evaluates(spectra, *line)
    assert Path("__pycache__").is_dir()
    deep = Path("more/deep/numbers.txt")
    deep.parent.mkdir(parents=True)
    deep.write_text("1")
    assert evaluates(spectra, *line)
    assert not evaluates(spectra, *line)
    for changed in (deep, Path("numbers.txt")):
        changed.write_text("22")
        assert evaluates(spectra, *line)


def test_only_a_new_checkpoint_is_evaluated_on_data_around_the_run(spectra: Fixture) -> None:
    line = (*PRUNE, "--data", ".")
    spectra(*line)
    save(20)
    assert "from 3 checkpoints (2 kept)" in spectra(*line).err


def test_commands_that_write_beside_the_data_do_not_undo_each_others_work(spectra: Fixture) -> None:
    """Tables of spectra are no data, whichever command wrote them; other Parquet files are."""
    Path("tables").mkdir()
    lines = [(*PRUNE, "--data", "."), (*PAIRS, "--data", ".", "--out", "tables/b.parquet")]
    assert [evaluates(spectra, *line) for line in lines * 2] == [True, True, False, False]
    Path("tables/data.parquet").write_bytes(b"PAR1 and no more")
    assert [evaluates(spectra, *line) for line in lines * 2] == [True, True, False, False]


def test_data_in_the_directory_of_the_run_count_and_its_checkpoints_do_not(spectra: Fixture) -> None:
    Path("run/labels.txt").write_text("1")
    line = (*PRUNE, "--data", "run")
    spectra(*line)
    save(20)
    assert "from 3 checkpoints (2 kept)" in spectra(*line).err
    Path("run/labels.txt").write_text("22")
    assert evaluates(spectra, *line)


def test_a_choice_that_is_the_name_of_a_directory_by_chance_is_no_path(spectra: Fixture) -> None:
    """A run is easily called after its model; the same of a file."""
    for chosen in ("run", "own.py"):
        line = (*PRUNE, "--set", f"model={chosen}")
        evaluates(spectra, *line)
        Path("run/notes.txt").write_text(chosen)
        assert not evaluates(spectra, *line)
    os.utime("own.py", ns=(0, 0))
    assert not evaluates(spectra, *line)


@pytest.mark.parametrize("option", ["place=sub", "text=sub", "text=sub/in.txt", "text=one.txt", "place=sub/in.txt"])
def test_what_an_option_names_is_looked_at(option: str, spectra: Fixture) -> None:
    """Whether its type says that it is a path or not: old numbers are worse than needless work."""
    Path("sub").mkdir()
    files = [Path("sub/in.txt"), Path("one.txt")]
    for file in files:
        file.write_text("1")
    line = (*PRUNE, "--set", option)
    assert [evaluates(spectra, *line) for _ in range(2)] == [True, False]
    files["one" in option].write_text("22")
    assert evaluates(spectra, *line)
    files["one" not in option].write_text("22")
    assert not evaluates(spectra, *line)


def test_each_item_of_a_list_is_looked_at(spectra: Fixture) -> None:
    for name in ("one.txt", "words"):
        Path(name).write_text("1")
    line = (*PRUNE, "--set", "text=one.txt, words,neither")
    assert [evaluates(spectra, *line) for _ in range(2)] == [True, False]
    for name in ("one.txt", "words"):
        Path(name).write_text("22")
        assert [evaluates(spectra, *line) for _ in range(2)] == [True, False]
