"""Which task a run has, what is made once, what is in memory at a time, and what a run.json may not do."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import spectra_cli
from spectra_cli.analyses import prune_eval
from spectra_cli.analyses.modelstates import StateEvaluator
from spectra_cli.analyses.pruning import Pruning
from spectra_cli.checkpoints.discovery import discover
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.options import Options, TaskOptions
from spectra_cli.execution.plan import make_plan
from spectra_cli.execution.prune_eval import PruneEvaluation
from spectra_cli.execution.taskruns import ChosenTask, ModelPool, task_of_run
from spectra_cli.tasks.evaluation import Value
from spectra_cli.tasks.modular_addition import ModularAddition
from tests.analyses import tiny_tasks

TINY = {"d_model": 4, "num_heads": 2, "mlp": 6}
FULL = ("full",)

TASK = """
from pathlib import Path
from tests.analyses import tiny_tasks

def note(what):
    with Path("log.txt").open("a") as file:
        print(what, file=file)

note("loaded")

class Own(tiny_tasks.Classification):
    def batches(self, split):
        note(f"read {split}")
        return super().batches(split)

def make(width: int = 7):
    note(f"made {width}")
    return Own(lambda: tiny_tasks.Network(width), tiny_tasks._vectors)
"""


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def addition_run(name: str, prime: int, steps: Iterable[int] = (0, 1), seed: int = 0) -> Path:
    """Random weights, with the run.json of a training."""
    directory = Path(name)
    directory.mkdir(parents=True)
    torch.manual_seed(seed)
    for step in steps:
        torch.save(ModularAddition(prime=prime, **TINY).model().state_dict(), directory / f"step_{step}.pt")  # type: ignore[arg-type]
    record(directory, "modular-addition", {"prime": prime, **TINY})
    return directory


def record(directory: Path, task: str, options: Mapping[str, Any] | None = None) -> None:
    (directory / "run.json").write_text(json.dumps({"task": task, "options": options or {}}))


def mlp_run(name: str, steps: Iterable[int] = (0,), width: int = 7) -> Path:
    directory = Path(name)
    directory.mkdir(parents=True)
    for step in steps:
        torch.save(tiny_tasks.mlp(width).model().state_dict(), directory / f"step_{step}.pt")
    return directory


def chosen(run: str | Path, **options: Any) -> ChosenTask:
    (found,) = discover(run)
    return task_of_run(found, found.checkpoints[0], TaskOptions(**options))


def log() -> list[str]:
    return Path("log.txt").read_text().splitlines()


# The task of a run


def test_a_run_json_says_all_there_is_to_say() -> None:
    frame = spectra_cli.prune_eval(addition_run("run", 5), variants=FULL)
    assert set(frame["status"]) == {"ok"}
    assert set(frame[frame["split"] == "train"]["count"]) == {7}  # 30 % of 25 pairs


def test_options_replace_single_ones_of_the_run_json() -> None:
    frame = spectra_cli.prune_eval(addition_run("run", 5), variants=FULL, settings={"data_fraction": "0.8"})
    assert set(frame[frame["split"] == "train"]["count"]) == {20}


def test_the_options_of_a_run_json_hold_for_its_task_by_whatever_way_it_is_named() -> None:
    run = addition_run("run", 5)
    assert chosen(run, task="modular-addition", settings={"mlp": "9"}).settings == {"prime": 5, **TINY, "mlp": "9"}
    assert chosen(run, task="speech").settings == {}


def test_the_run_json_of_a_single_file_stands_beside_it() -> None:
    run = addition_run("run", 5)
    assert set(spectra_cli.prune_eval(run / "step_1.pt", variants=FULL)["status"]) == {"ok"}


def test_runs_have_their_own_tasks() -> None:
    """In one call: each run has the rows that it has alone, whatever is beside it."""
    runs = [addition_run("runs/a", 5, seed=1), addition_run("runs/b", 7, seed=2), addition_run("runs/c", 5, seed=3)]
    together = spectra_cli.prune_eval("runs")
    assert together["run"].unique().tolist() == ["a", "b", "c"]
    for run in runs:
        alone = spectra_cli.prune_eval(run).drop(columns="run")
        own = together[together["run"] == run.name].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, alone, check_exact=True)


def test_without_a_run_json_a_task_must_be_named() -> None:
    with pytest.raises(UsageError, match=r"Pass --task with one of .*modular-addition"):
        spectra_cli.prune_eval(mlp_run("run"))


def test_a_broken_run_json_is_an_error_unless_the_task_is_named() -> None:
    run = addition_run("run", 5)
    (run / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json: this does not describe a run"):
        spectra_cli.prune_eval(run)
    frame = spectra_cli.prune_eval(run, task="modular-addition", settings={"prime": 5, **TINY}, variants=FULL)
    assert set(frame["status"]) == {"ok"}


def test_a_run_json_that_names_a_file_runs_no_code() -> None:
    run = mlp_run("run")
    Path("own.py").write_text(TASK)
    for name in ("own.py:make", str(Path("own.py").resolve())):
        record(run, name)
        with pytest.raises(InputError, match="code is loaded from a path only when the command line says so"):
            spectra_cli.prune_eval(run)
    assert not Path("log.txt").exists()


def test_the_same_file_on_the_command_line_takes_the_options_of_the_run_json() -> None:
    run = mlp_run("run", width=9)
    Path("own.py").write_text(TASK)
    record(run, "own.py:make", {"width": 9})
    frame = spectra_cli.prune_eval(run, task="own.py:make", variants=FULL)
    assert set(frame["status"]) == {"ok"}
    assert "made 9" in log()


def test_a_wrong_option_of_any_run_is_told_before_work() -> None:
    addition_run("runs/a", 5)
    bad = addition_run("runs/b", 5)
    record(bad, "modular-addition", {"prme": 5})
    with pytest.raises(UsageError, match=r"no option 'prme'. Did you mean prime"):
        spectra_cli.prune_eval("runs", variants=FULL)


def test_a_task_that_wants_the_directory_of_the_checkpoint_gets_it() -> None:
    """That with a config.json, else the run's."""
    for step in (1, 2):
        directory = Path(f"run/checkpoint-{step}")
        directory.mkdir(parents=True)
        torch.save(tiny_tasks.mlp().model().state_dict(), directory / "pytorch_model.bin")
        (directory / "config.json").write_text(json.dumps({"scale": step}))
    Path("own.py").write_text(
        "import json\nfrom pathlib import Path\nfrom spectra_cli.tasks.base import Metric\n"
        "from tests.analyses import tiny_tasks\n"
        "class Own(tiny_tasks.Classification):\n"
        "    def metrics(self, model, batch):\n        return {'scale': Metric(self.scale, 1)}\n"
        "def make(directory):\n"
        "    task = Own(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
        "    task.scale = json.loads((Path(directory) / 'config.json').read_text())['scale']\n"
        "    return task\n"
        "make.checkpoint_option = 'directory'\n"
    )
    frame = spectra_cli.prune_eval("run", task="own.py:make", variants=FULL, split="val")
    assert dict(zip(frame["step"], frame["value"], strict=True)) == {1: 1.0, 2: 2.0}


# What is made once


def test_a_task_is_loaded_and_made_once_for_all_runs() -> None:
    for name in ("runs/a", "runs/b"):
        mlp_run(name, steps=(0, 1, 2))
    Path("own.py").write_text(TASK)
    spectra_cli.prune_eval("runs", task="own.py:make", variants=FULL)
    assert [line for line in log() if not line.startswith("read")] == ["loaded", "made 7"]


def test_a_file_that_has_changed_is_loaded_again() -> None:
    mlp_run("run")
    Path("own.py").write_text(TASK)
    spectra_cli.prune_eval("run", task="own.py:make", variants=FULL)
    Path("own.py").write_text(TASK.replace("made {width}", "made anew"))
    spectra_cli.prune_eval("run", task="own.py:make", variants=FULL)
    assert [line for line in log() if not line.startswith("read")] == ["loaded", "made 7", "loaded", "made anew"]


def test_files_of_one_name_are_not_taken_for_one_another() -> None:
    mlp_run("run")
    for name, width in (("one", 7), ("two", 9)):
        Path(name).mkdir()
        Path(f"{name}/own.py").write_text(TASK.replace("= 7", f"= {width}"))
    spectra_cli.prune_eval("run", task="one/own.py:make", variants=FULL)
    with pytest.raises(Exception, match="9 x 6 in the task's model"):
        spectra_cli.prune_eval("run", task="two/own.py:make", variants=FULL)


class Counted:
    """A chosen task that counts how often it is made, and a model that knows where it has been."""

    splits = ("train",)

    def __init__(self) -> None:
        self.models = 0

    def model(self) -> nn.Module:
        self.models += 1
        return nn.Linear(2, 2)


class Choice:
    """Stands for a ChosenTask."""

    def __init__(self, key: str) -> None:
        self.key, self.task, self.made = key, Counted(), 0

    def make(self) -> Counted:
        self.made += 1
        return self.task


def test_a_pool_makes_each_task_and_model_once_and_lets_go_of_them() -> None:
    """In the order a b a: what is needed again is kept, what is not is not."""
    a, b = Choice("a"), Choice("b")
    pool = ModelPool([a, b, a], torch.device("cpu"))  # type: ignore[list-item]
    assert (a.made, b.made, a.task.models) == (1, 1, 0)
    models = []
    for choice in (a, b, a):
        assert pool.task(choice) is choice.task  # type: ignore[arg-type,comparison-overlap]
        models.append(weakref.ref(pool.model(choice)))  # type: ignore[arg-type]
        pool.used(choice)  # type: ignore[arg-type]
        gc.collect()
        if choice is b:
            assert models[1]() is None
            assert models[0]() is not None
    assert (a.task.models, b.task.models) == (1, 1)
    assert models[2]() is None


def test_one_model_at_a_time_is_on_the_device() -> None:
    """``meta`` stands for it."""
    a, b = Choice("a"), Choice("b")
    pool = ModelPool([a, b], torch.device("cpu"))  # type: ignore[list-item]
    moved: list[tuple[str, str]] = []

    class Watched(nn.Linear):
        name = ""

        def to(self, device: Any) -> Any:  # type: ignore[override]
            moved.append((self.name, str(device)))
            return self

    for choice in (a, b):
        watched = Watched(1, 1)
        watched.name = choice.key
        choice.task.model = lambda watched=watched: watched  # type: ignore[method-assign,misc]
        pool.model(choice)  # type: ignore[arg-type]
    pool._device = torch.device("meta")
    pool.model(a)  # type: ignore[arg-type]
    assert moved[-2:] == [("b", "cpu"), ("a", "meta")]


# What is in memory


def test_a_variant_is_let_go_of_before_the_next_one_is_evaluated_or_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the top and the bottom, which are made together."""
    mlp_run("run")
    seen: list[weakref.ref[Tensor]] = []
    alive: list[tuple[str, int]] = []
    evaluate, find = StateEvaluator.values, prune_eval.magnitude_masks

    def note(when: str) -> None:
        alive.append((when, sum(ref() is not None for ref in seen)))

    def evaluating(self: StateEvaluator, state: Iterable[tuple[str, Tensor]]) -> dict[str, dict[str, Value]]:
        note("evaluated")
        tensors = list(state)
        names = [name for name, _ in tensors]
        if names.count("first.weight") == 2:  # as it is, and as the variant has it
            seen.append(weakref.ref(tensors[-2][1]))
        return evaluate(self, iter(tensors))

    def finding(weights: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
        note("masked")
        return find(weights, keep)

    monkeypatch.setattr(StateEvaluator, "values", evaluating)
    monkeypatch.setattr(prune_eval, "magnitude_masks", finding)
    spectra_cli.prune_eval("run", task=f"{tiny_tasks.__file__}:mlp")
    assert len(seen) == 4
    assert alive == [(when, 0) for when in ("evaluated", "evaluated", "evaluated", "masked", "evaluated", "evaluated")]


def test_evaluations_are_counted_for_the_progress() -> None:
    """Also those of checkpoints that could not be used, so that the bar is full at the end."""
    run = mlp_run("run", steps=(0, 1, 2))
    (run / "step_1.pt").write_bytes(b"")
    told: list[tuple[str, float, float]] = []
    problems: list[str] = []

    class Listener:
        def progressed(self, what: str, done: float, total: float) -> None:
            told.append((what, done, total))

        def notice(self, message: str) -> None: ...

        def problem(self, message: str) -> None:
            problems.append(message)

    plan = make_plan([run], Options(), ("prune_eval",))
    pruning = Pruning(("full", "top"))
    task = TaskOptions(f"{tiny_tasks.__file__}:mlp")
    assert len(list(PruneEvaluation(plan, task, pruning, Listener()).results())) == 3
    assert {total for _, _, total in told} == {6}
    done = [round(done, 6) for _, done, _ in told]
    assert done == [0, 0.5, 1, 1, 1.5, 2, 4, 4.5, 5, 5, 5.5, 6]
    assert told[0][0] == "step_0.pt, full"
    assert told[-1][0] == "step_2.pt, top"
    assert len(problems) == 1
