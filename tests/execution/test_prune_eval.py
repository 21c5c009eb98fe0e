"""Which task a run has, what is made once, what is in memory at a time, and what a run.json may not do."""

from __future__ import annotations

import gc
import json
import warnings
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
from spectra_cli.execution.evaluation.modelpool import ModelPool
from spectra_cli.execution.evaluation.prune_eval import PruneEvalJob
from spectra_cli.execution.evaluation.taskruns import ChosenTask, task_of_run
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import make_plan
from spectra_cli.execution.work.listener import SkippedWorkWarning
from spectra_cli.tasks.evaluation import Value
from spectra_cli.tasks.modular_addition import ModularAddition
from spectra_cli.tasks.registry import make_task
from spectra_cli.tasks.training import new_model
from tests.analyses import tiny_tasks
from tests.execution.jobs_done import Heard, all_done

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


@pytest.mark.parametrize("written", ["./own.py:make", "own.py", "sub/../own.py:make", "absolute"])
def test_the_options_hold_however_the_path_of_the_file_is_written(written: str) -> None:
    run = mlp_run("run", width=9)
    Path("own.py").write_text(TASK)
    Path("sub").mkdir()
    record(run, "own.py:make", {"width": 9})
    task = str(Path("own.py").resolve()) if written == "absolute" else written
    assert (chosen(run, task=task).settings, chosen(run, task=task).remark) == ({"width": 9}, "")


def test_options_of_a_run_json_that_another_task_does_not_get_are_told_once() -> None:
    run = mlp_run("run", steps=(0, 1))
    Path("own.py").write_text(TASK)
    record(run, "modular-addition", {"prime": 5})
    with pytest.warns(SkippedWorkWarning, match=r"on modular-addition: its options \(prime=5\) are not used") as told:
        spectra_cli.prune_eval(run, task="own.py:make", variants=FULL)
    assert len(told) == 1
    record(run, "modular-addition")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectra_cli.prune_eval(run, task="own.py:make", variants=FULL)


def test_a_wrong_option_of_any_run_is_told_before_work() -> None:
    addition_run("runs/a", 5)
    bad = addition_run("runs/b", 5)
    record(bad, "modular-addition", {"prme": 5})
    with pytest.raises(InputError, match=r"run.json: .*no option 'prme'. Did you mean prime"):
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
        self.seed, self.model_key = 0, (key, 0)

    def make(self) -> Counted:
        self.made += 1
        return self.task


def test_a_pool_makes_each_task_and_model_once_and_lets_go_of_them() -> None:
    """In the order a b a: what is needed again is kept, what is not is gone when another model is asked for."""
    a, b = Choice("a"), Choice("b")
    pool = ModelPool(torch.device("cpu"))
    pool.expect([a, b, a])  # type: ignore[list-item]
    assert (a.made, b.made, a.task.models) == (1, 1, 0)
    models = []
    for choice in (a, b, a):
        assert pool.task(choice) is choice.task  # type: ignore[arg-type,comparison-overlap]
        models.append(weakref.ref(pool.model(choice)))  # type: ignore[arg-type]
        pool.used(choice)  # type: ignore[arg-type]
        gc.collect()
        if choice is b:
            assert models[0]() is not None
    assert (a.task.models, b.task.models) == (1, 1)
    assert models[1]() is None
    pool.close()
    gc.collect()
    assert models[2]() is None


def test_a_pool_keeps_what_was_last_used_until_something_else_is_expected() -> None:
    """As a worker that gets one checkpoint after the other does not know what comes next."""
    a, b = Choice("a"), Choice("b")
    pool = ModelPool(torch.device("cpu"))
    for expected in ([a], [], [a], [b], [a]):
        pool.expect(expected)  # type: ignore[arg-type]
        for choice in expected:
            model = weakref.ref(pool.model(choice))  # type: ignore[arg-type]
            pool.used(choice)  # type: ignore[arg-type]
        gc.collect()
        assert model() is not None
    assert (a.made, b.made) == (2, 1)
    assert (a.task.models, b.task.models) == (2, 1)
    pool.expect([b])  # type: ignore[list-item]
    gc.collect()
    assert model() is None


def test_one_model_at_a_time_is_on_the_device() -> None:
    """``meta`` stands for it."""
    a, b = Choice("a"), Choice("b")
    pool = ModelPool(torch.device("cpu"))
    pool.expect([a, b])  # type: ignore[list-item]
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
    heard = Heard()
    task = TaskOptions(f"{tiny_tasks.__file__}:mlp")
    job = PruneEvalJob(make_plan([run], Options(), ("prune_eval",)), task, Pruning(("full", "top")), heard, "cpu")
    assert len(all_done(job, heard)) == 3
    done = [round(done, 6) for _, done in heard.progress]
    assert done == [0, 0.25, 0.5, 0.5, 0.75, 1, 1, 2, 2, 2.25, 2.5, 2.5, 2.75, 3, 3]
    assert heard.progress[0][0] == "step_0.pt, full"
    assert heard.progress[-1][0] == "step_2.pt, top"
    assert len(heard.problems) == 1


# Models as users write them

ODD = """
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from tests.analyses import tiny_tasks

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.a, self.b = nn.Linear(7, 5), nn.Linear(6, 7), nn.Linear(7, 7)

    def forward(self, x):
        return self.head(self.b(self.a(x)))

class Scaled(nn.Linear):
    scale = 1.0

    def forward(self, x):
        return self.scale * super().forward(x)

    def get_extra_state(self):
        return torch.tensor(self.scale)

    def set_extra_state(self, state):
        self.scale = float(state)

class Described(nn.Linear):
    def get_extra_state(self):
        return {"since": 3}

    def set_extra_state(self, state): ...

class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("features", torch.randn(6, 7), persistent=False)
        self.output = nn.Linear(7, 5)

    def forward(self, x):
        return self.output(x @ self.features)

MODELS = {
    "head_first": HeadFirst,
    "scaled": lambda: nn.Sequential(Scaled(6, 7), nn.Linear(7, 5)),
    "described": lambda: nn.Sequential(Described(6, 7), nn.Linear(7, 5)),
    "features": Features,
    "spectral": lambda: nn.Sequential(spectral_norm(nn.Linear(6, 7)), nn.Linear(7, 5)),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(7), nn.Linear(7, 5)),
}

def make(model: str):
    return tiny_tasks.Classification(MODELS[model], tiny_tasks._vectors)
"""


def odd(name: str, seed: int = 3) -> tuple[Any, nn.Module]:
    """The task and a model of it, as they come from the file."""
    Path("odd.py").write_text(ODD)
    task = make_task("odd.py:make", {"model": name}, files_allowed=True)
    torch.manual_seed(seed)
    return task, task.model()


def evaluated(model: nn.Module, name: str, **options: Any) -> pd.DataFrame:
    """What prune_eval says of the model's state dict."""
    Path("run").mkdir()
    torch.save({key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}, "run/step_1.pt")
    return spectra_cli.prune_eval("run", task="odd.py:make", settings={"model": name}, split="train", **options)


@torch.no_grad()
def loss_of(task: Any, model: nn.Module) -> float:
    parts = [task.metrics(model.eval(), batch)["loss"] for batch in task.batches("train")]
    return float(sum(part.total for part in parts) / sum(part.count for part in parts))


def value(frame: pd.DataFrame, variant: str) -> float:
    return float(frame.query("variant == @variant and metric == 'loss'")["value"].item())


def test_the_output_layer_is_that_which_is_called_last() -> None:
    task, model = odd("head_first")
    frame = evaluated(model, "head_first", variants=("bottom",), keep=1.0)
    with torch.no_grad():
        for name in ("a.weight", "b.weight"):
            model.get_parameter(name).zero_()
        assert value(frame, "bottom") == pytest.approx(loss_of(task, model), rel=1e-6)


def test_extra_state_of_modules_counts() -> None:
    task, model = odd("scaled")
    model[0].scale = 4.0  # type: ignore[index,union-attr]  # a Sequential
    expected = loss_of(task, model)
    frame = evaluated(model, "scaled", variants=("full", "top"), keep=1.0)
    assert value(frame, "full") == pytest.approx(expected, rel=1e-9)
    assert value(frame, "top") == pytest.approx(expected, rel=1e-9)


def test_extra_state_that_no_checkpoint_holds_is_that_of_a_new_model() -> None:
    task, model = odd("described")
    assert value(evaluated(model, "described", variants=FULL), "full") == pytest.approx(loss_of(task, model), rel=1e-9)


def test_of_a_weight_that_is_computed_the_effective_one_is_pruned() -> None:
    task, model = odd("spectral")
    effective = model.eval()[0].weight.detach().clone()  # type: ignore[index,union-attr]  # a Sequential
    frame = evaluated(model, "spectral", variants=("full", "bottom"), keep=0.5)
    assert value(frame, "full") == pytest.approx(loss_of(task, model), rel=1e-6)
    left, values, right = torch.linalg.svd(effective.double(), full_matrices=False)
    plain = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 5))
    with torch.no_grad():
        plain[0].weight.copy_((left[:, 3:] * values[3:]) @ right[3:])
        plain[0].bias.copy_(model.get_parameter("0.bias"))
        plain[1].load_state_dict(model[1].state_dict())  # type: ignore[index,union-attr]  # as above
    assert value(frame, "bottom") == pytest.approx(loss_of(task, plain), rel=1e-5)


def test_a_lazy_model_is_an_input_error() -> None:
    odd("lazy")
    with pytest.raises(InputError, match=r"'0\.weight' is not initialized"):
        evaluated(nn.Linear(2, 2), "lazy")


@pytest.mark.parametrize("trunk", [False, True])
def test_what_no_checkpoint_holds_is_made_with_the_seed_of_the_run(trunk: bool) -> None:
    """Of a branch with that of its trunk."""
    task, _ = odd("features")
    model = new_model(task, 8)
    Path("run").mkdir()
    torch.save(model.state_dict(), "run/step_1.pt")
    said: dict[str, Any] = {"task": "odd.py:make", "options": {"model": "features"}, "seed": 8}
    if trunk:
        Path("first").mkdir()
        Path("first/run.json").write_text(json.dumps(said))
        said |= {"seed": 5, "trunk": "../first", "split_step": 1}
    Path("run/run.json").write_text(json.dumps(said))
    frame = spectra_cli.prune_eval("run", task="odd.py:make", variants=FULL, split="train")
    assert value(frame, "full") == pytest.approx(loss_of(task, model), rel=1e-9)


def test_runs_of_other_seeds_have_other_models_of_one_task() -> None:
    """And a trunk that is not there, or is its own, leaves the seed of the run."""
    task, _ = odd("features")
    expected = {}
    for name, seed, trunk in (("a", 1, None), ("b", 2, "../gone"), ("c", 3, "../c")):
        model = new_model(task, seed)
        Path("runs", name).mkdir(parents=True)
        torch.save(model.state_dict(), f"runs/{name}/step_1.pt")
        said = {"task": "odd.py:make", "options": {"model": "features"}, "seed": seed, "trunk": trunk}
        Path("runs", name, "run.json").write_text(json.dumps(said))
        expected[name] = loss_of(task, model)
    frame = spectra_cli.prune_eval("runs", task="odd.py:make", variants=FULL, split="train").query("metric == 'loss'")
    assert dict(zip(frame["run"], frame["value"], strict=True)) == pytest.approx(expected, rel=1e-9)
    assert len(set(expected.values())) == 3
