"""What is sent to those who evaluate: it is found wherever they are, and what is on record is read with care."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spectra_cli.analyses.pruning import Pruning
from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.runs import Checkpoint
from spectra_cli.execution.evaluation.barrier import BarrierJob
from spectra_cli.execution.evaluation.modelloading import content_of, stored_content
from spectra_cli.execution.evaluation.pairs import make_barrier_plan
from spectra_cli.execution.evaluation.prune_eval import PruneEvalJob
from spectra_cli.execution.evaluation.shares import Shares
from spectra_cli.execution.evaluation.taskruns import ChosenTask
from spectra_cli.execution.evaluation.taskstate import TaskStates, chunks_by_task, task_settings
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import make_plan
from spectra_cli.execution.planning.workingdirectory import WorkingDirectory
from spectra_cli.execution.trajectory.facts import texts
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.units import Assignment, Outcome
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.storage.places import place_of
from tests.analyses import tiny_tasks
from tests.execution.jobs_done import Heard

CODE = """
from pathlib import Path
from tests.analyses import tiny_tasks

def make(data: str):
    assert Path(data).read_text() == "numbers"
    return tiny_tasks.mlp()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of whoever asks, with a run, a task and its data."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    monkeypatch.chdir(home)
    for step in (1, 2):
        torch.manual_seed(step)
        torch.save(tiny_tasks.mlp().model().state_dict(), f"run/step_{step}.pt")
    Path("own.py").write_text(CODE)
    Path("data.txt").write_text("numbers")
    return home


def prune_job() -> PruneEvalJob:
    plan = make_plan(["run"], Options(), ("prune_eval", "sva"))
    return PruneEvalJob(
        plan, TaskOptions("own.py:make", {"data": "data.txt"}), Pruning(("full", "top")), Heard(), "cpu"
    )


def barrier_job() -> BarrierJob:
    plan = make_barrier_plan([("run@1", "run@2")], Options(), TaskOptions("own.py", {"data": "data.txt"}), 3)
    return BarrierJob(plan, Heard(), "cpu", tables=("barrier", "sva"), agreement=True)


def outcomes_of(work: Any, job: TableJob) -> list[Outcome]:
    worker = work.worker("cpu", Heard())
    found = list(worker.outcomes(tuple(Assignment(unit.index, job.tables) for unit in job.units)))
    worker.close()
    return found


# where they are


@pytest.mark.parametrize("make", [prune_job, barrier_job])
def test_a_worker_in_another_directory_finds_what_was_named_in_this_one(
    make: Callable[[], TableJob], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints, the code of the task, and its data."""
    job = make()
    work = job.work(1, ())
    expected = outcomes_of(work, job)
    sent = pickle.dumps(work)
    monkeypatch.chdir(tmp_path)
    found = outcomes_of(pickle.loads(sent), job)
    assert [outcome.error for outcome in found] == [None] * len(job.units)
    for one, other in zip(found, expected, strict=True):
        assert (one.content, one.facts) == (other.content, other.facts)
        values = [[row.get("value") for row in outcome.tables[job.tables[0]]] for outcome in (one, other)]
        assert values[0] == values[1]


def test_urls_and_whole_paths_stay_as_they_are(home: Path) -> None:
    elsewhere = WorkingDirectory("/there")
    whole = str(home / "own.py:make")
    for task, settings in ((whole, {"data": "s3://bucket/data"}), ("speech", {"data": "none"}), (None, {"width": 3})):
        assert elsewhere.task(TaskOptions(task, settings)) == TaskOptions(task, settings)
    assert elsewhere.task(TaskOptions("own.py:make")).task == "/there/own.py:make"
    options = Options(structure=StructureOptions("mine.toml"))
    plan = make_plan(["run"], Options(), ("rank",))
    moved = elsewhere.plan(replace(plan, options=options))
    assert moved.options.structure.architecture == "/there/mine.toml"
    paths = [str(checkpoint.path) for checkpoint in moved.runs[0].checkpoints]
    assert paths == ["/there/run/step_1.pt", "/there/run/step_2.pt"]
    remote = place_of("s3://bucket/run/step_1.pt")
    run = plan.runs[0]
    far = replace(plan, runs=(replace(run, checkpoints=(Checkpoint(remote, "step_1.pt"),), trajectory=()),))
    assert elsewhere.plan(far).runs[0].checkpoints[0].path == remote


def test_relative_paths_stay_where_they_hold(home: Path) -> None:
    """Messages name what the user named, unless the work is done in another directory."""
    here, plan = WorkingDirectory(), make_plan(["run"], Options(), ("rank",))
    plan = replace(plan, options=Options(structure=StructureOptions("mine.toml")))
    assert here.plan(plan) == plan
    assert here.task(TaskOptions("own.py:make", {"data": "run"})) == TaskOptions("own.py:make", {"data": "run"})


def test_references_are_found_with_the_checkpoints_that_are_compared_with_them(home: Path) -> None:
    elsewhere = WorkingDirectory("/there")
    moved = elsewhere.plan(make_plan(["run"], Options(reference="first"), ("sva",)))
    for checkpoint in moved.runs[0].checkpoints:
        reference = moved.references[0][checkpoint.path]
        assert str(reference.checkpoint.path) == "/there/run/step_1.pt"
        assert str(reference.run.root) == "/there/run"


# what the rows were made of


def test_the_content_of_a_checkpoint_is_that_of_its_weights(home: Path) -> None:
    """Whatever file they are in and whatever wraps their names; one bit, name, shape or type makes another."""
    (run,) = discover("run")
    state = torch.load("run/step_1.pt")
    content = stored_content(run, run.checkpoints[0])
    assert content == content_of(state) == content_of(dict(reversed(state.items())))
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, "wrapped.pt")
    (wrapped,) = discover("wrapped.pt")
    assert stored_content(wrapped, wrapped.checkpoints[0]) == content
    bias = state["output.bias"]
    flipped = (bias.view(torch.int32) ^ torch.tensor([1, 0, 0, 0, 0], dtype=torch.int32)).view(torch.float32)
    others = [
        {**state, "output.bias": flipped},
        {**state, "output.bias": bias.reshape(5, 1)},
        {**state, "output.bias": bias.view(torch.int32)},
        {("x" if name == "output.bias" else name): tensor for name, tensor in state.items()},
        {name: tensor for name, tensor in state.items() if name != "output.bias"},
    ]
    assert len({content, *map(content_of, others)}) == 1 + len(others)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64])
def test_weights_of_every_type_have_a_content(dtype: torch.dtype) -> None:
    scalar, transposed = torch.ones(()).to(dtype), torch.ones(2, 3).to(dtype).T
    assert content_of({"a": scalar, "b": transposed}) == content_of({"a": scalar.clone(), "b": transposed.contiguous()})
    assert content_of({"a": torch.ones(0).to(dtype)}) != content_of({})


# what they depend on


def test_an_unchanged_task_has_the_same_state_and_a_changed_one_another(home: Path) -> None:
    (run,) = discover("run")
    checkpoint = run.checkpoints[0]

    def state(**settings: Any) -> str:
        return str(TaskStates().of(ChosenTask("own.py:make", settings, True, "--task"), run, checkpoint))

    before = state(data="data.txt")
    assert state(data="data.txt") == before
    assert state(data="absent") != before
    assert state(data="absent") == state(data="absent")
    Path("data.txt").write_text("more numbers")
    assert state(data="data.txt") != before
    alone = state()
    Path("run/tokenizer.json").write_text("{}")
    assert state() != alone
    alone = state()
    Path("run/notes.txt").write_text("{}")
    assert state() == alone


def test_settings_of_a_model_leave_out_what_only_an_evaluation_depends_on(home: Path) -> None:
    options = TaskOptions("own.py:make", {"data": "data.txt", "width": 7}, ("val",), "stored")
    evaluated, model = (task_settings(options, evaluates=each) for each in (True, False))
    assert evaluated.keys() - model.keys() == {"--data", "--split", "--batch-norm"}
    assert evaluated["--set"] == model["--set"] == ["width=7"]


def test_checkpoints_of_one_task_come_in_a_row() -> None:
    tasks = [ChosenTask(name, {}, True, "--task") for name in "abab"]
    chosen = {**dict(enumerate(tasks)), 4: None, 5: tasks[0]}
    assignments = [Assignment(place, ("prune_eval",)) for place in range(6)]
    chunks = chunks_by_task(assignments, 2, chosen.__getitem__)
    assert [[each.index for each in chunk] for chunk in chunks] == [[0], [2], [5], [1], [3], [4]]
    assert chunks_by_task(assignments, 1, chosen.__getitem__) == [tuple(assignments)]
    assert chunks_by_task([], 1, chosen.__getitem__) == []


@pytest.mark.parametrize("found", [None, 3, "x", {"x": 1}, [3, None, ["x"]]])
def test_facts_of_another_form_are_left_out(found: object) -> None:
    assert texts({"problems": found}, "problems") == []
    assert texts({"problems": ["x", 3, "y"]}, "problems") == ["x", "y"]


def test_shares_are_1_together_whatever_is_done() -> None:
    for parts in ([], [0.5], [0.5, 0.25, 0.25], [0.3] * 5):
        heard = Heard()
        shares = Shares("unit", heard)
        for part in parts:
            shares.begin("part")
            shares.done(part)
        shares.end()
        assert heard.progress[-1] == ("unit, part" if parts else "unit", pytest.approx(1.0))
