"""A run on disk: killed anywhere it goes on bit for bit; branches, noise, masks, and what is refused."""

from __future__ import annotations

import errno
import inspect
import io
import json
import math
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.analyses.modelstates import StateEvaluator
from spectra_cli.checkpoints.discovery import discover
from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.execution.training.options import MaskChoice, Noise, TrainOptions
from spectra_cli.execution.training.plan import plan_training
from spectra_cli.execution.training.record import recorded_options
from spectra_cli.execution.training.run import TrainingResult, run_training
from spectra_cli.execution.training.saver import Beginning, Saver
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tables.writer import TableWriter
from spectra_cli.tasks.base import Metric, Recipe
from spectra_cli.tasks.losses import DivergedError
from spectra_cli.tasks.options import option_parameters
from spectra_cli.tasks.registry import find_task, make_task, task_names
from spectra_cli.tasks.runfile import read_record
from spectra_cli.tasks.states import StateFiles, read_optimizer
from spectra_cli.tasks.training import _Loop, make_optimizer, new_model
from tests.tasks import tiny_training
from tests.tasks.tiny_training import SGD, TinyTask

TINY = f"{tiny_training.__file__}:make"
NOT_FINITE = f"{tiny_training.__file__}:make_not_finite"
ROOT = Path(__file__).parents[2]


@dataclass
class Listener:
    """Remembers what it is told."""

    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    beginnings: list[Beginning] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)

    def notice(self, message: str) -> None:
        self.notices.append(message)

    def began(self, beginning: Beginning) -> None:
        self.beginnings.append(beginning)

    def progress(self, step: int, loss: float) -> None: ...

    def saved(self, step: int) -> None:
        self.saves.append(step)

    def problem(self, message: str) -> None:
        self.problems.append(message)


def options(out: Path, kind: str = "sgd", **values: Any) -> TrainOptions:
    return TrainOptions(**{"task": TINY, "out": out, "settings": {"optimizer": kind}, "save_every": 5, **values})


def train(chosen: TrainOptions, listener: Listener | None = None) -> TrainingResult:
    return run_training(plan_training(chosen), listener or Listener(), ["spectra", "train"])


def weights(run: Path) -> dict[int, dict[str, Tensor]]:
    return {step: load_file(StateFiles(run).weights_path(step)) for step in StateFiles(run).steps()}


def contents(run: Path) -> dict[str, Any]:
    """All that a training leaves behind, but for the bytes of archives."""
    found: dict[str, Any] = {}
    for path in run.iterdir():
        if path.suffix == ".parquet":
            found[path.name] = pq.read_table(path).to_pylist()
        elif path.suffix == ".pt":
            state = read_optimizer(path)
            found[path.name] = (state.step, state.parameters, _plain(state.state))
        else:
            found[path.name] = path.read_bytes()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, Tensor) else value


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Killed(BaseException):
    """Nothing catches it, and what comes after does not happen."""


def kill_at(monkeypatch: pytest.MonkeyPatch, point: str, count: int) -> None:
    """Have the process end at the count-th time that something is about to happen, or just has."""
    left = [count]
    where: dict[str, tuple[Any, str]] = {
        "update": (_Loop, "_update"),
        "weights": (StateFiles, "save_weights"),
        "optimizer": (StateFiles, "save_optimizer"),
    }
    owner, name = where[point.removeprefix("after ")]
    real: Callable[..., None] = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and not point.startswith("after"):
            raise Killed
        real(*arguments, **named)
        if left[0] == 0:
            raise Killed

    monkeypatch.setattr(owner, name, dying)


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A killed process loses nothing that it has written; only a machine without power would."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs, by optimizer; their optimizers' states are kept."""
    runs = {kind: tmp_path_factory.mktemp("whole") / kind for kind in ("sgd", "adamw")}
    for kind, run in runs.items():
        train(options(run, kind, save_optimizer=True))
    return runs


POINTS = [("update", 1), ("update", 7), ("after update", 18), ("weights", 2), ("after weights", 4), ("optimizer", 1)]
POINTS += [("optimizer", 5), ("after optimizer", 5)]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("point", POINTS, ids=[f"{point} {count}" for point, count in POINTS])
def test_a_run_that_was_killed_goes_on_bit_for_bit(
    kind: str, point: tuple[str, int], whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        kill_at(patched, *point)
        with pytest.raises(Killed):
            train(options(run, kind, save_optimizer=True))
    for name in (".step_3.safetensors.partial", ".optimizer.pt.partial", ".metrics.parquet.xyz.partial"):
        (run / name).write_bytes(b"half")
    train(options(run, kind, save_optimizer=True))
    assert contents(run) == contents(whole[kind])


def test_a_run_that_is_killed_again_and_again_gets_there(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws, run, kills = random.Random(4), tmp_path / "run", 0  # noqa: S311 - moments, not secrets
    for _ in range(12):
        with monkeypatch.context() as patched:
            kill_at(patched, draws.choice(["update", "after weights", "optimizer"]), draws.randint(2, 6))
            try:
                train(options(run, "adamw", save_optimizer=True))
                break
            except Killed:
                kills += 1
    train(options(run, "adamw", save_optimizer=True))
    assert kills >= 3
    assert contents(run) == contents(whole["adamw"])


SIGKILLED = """
import math, os, random, signal, sys, time
from pathlib import Path
import pandas, torch
from spectra_cli.cli.trainshow import TrainingProgress
from spectra_cli.execution.training.options import TrainOptions
from spectra_cli.execution.training.plan import plan_training
from spectra_cli.execution.training.run import run_training

class Waiting(TrainingProgress):
    # does not get much further than where it is to be killed, however slow the other process is
    def saved(self, step):
        while saved(kind) >= last and os.getppid() == parent:
            time.sleep(1)
        super().saved(step)

def train():
    os.fsync = lambda _: None
    settings = {"optimizer": kind}
    plan = plan_training(TrainOptions(sys.argv[1], Path(kind), settings, steps=200, save_every=5, save_optimizer=True))
    run_training(plan, Waiting(plan.total_steps, quiet=True), ["spectra", "train"])

def runs(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

def saved(kind):
    return len(list(Path(kind).glob("step_*")))

torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # imports a thousand modules, once for all children
draws, kills, parent = random.Random(0), 0, os.getpid()
for kind in ("sgd", "adamw"):
    for attempt in range(5):
        wanted = saved(kind) + draws.randint(2, 9)
        last = wanted + 6 if attempt < 4 else math.inf
        child = os.fork()
        if child == 0:
            train()
            os._exit(0)
        while attempt < 4 and saved(kind) < wanted and runs(child):
            time.sleep(0.001)
        if attempt < 4 and runs(child):
            time.sleep(draws.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs fork and waitid")
def test_a_process_that_gets_sigkill_at_random_moments_gets_there(tmp_path: Path) -> None:
    """One process imports torch and forks the trainings, each of which is killed where it happens to be."""
    done = subprocess.run(
        [sys.executable, "-c", SIGKILLED, TINY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 8
    for kind in ("sgd", "adamw"):
        train(options(tmp_path / "whole" / kind, kind, steps=200, save_optimizer=True))
        found, expected = contents(tmp_path / kind), contents(tmp_path / "whole" / kind)
        assert len(expected) == 94
        assert found.keys() == expected.keys()
        assert found == expected


def test_discovery_finds_exactly_the_steps(whole: dict[str, Path]) -> None:
    (run,) = discover(whole["sgd"])
    assert [checkpoint.step for checkpoint in run.checkpoints] == [0, 1, 2, 3, 4, 5, 10, 15, 20, 25]
    assert not any(passed.notable for passed in run.passed_over)


def test_the_record_says_how_it_was_trained(whole: dict[str, Path]) -> None:
    record = read_record(whole["adamw"])
    assert record is not None
    assert (record.task, record.options, record.seed) == (TINY, {"optimizer": "adamw", "width": 8}, 0)
    assert (record.trunk, record.split_step) == (None, None)
    assert record.training["recipe"]["schedule"] == "cosine"
    assert (record.training["total_steps"], record.training["training_count"]) == (24, 23)
    assert json.loads((whole["adamw"] / "config.json").read_text()) == {"model_type": "tiny"}


def test_the_metrics_are_those_of_a_plain_loop(whole: dict[str, Path]) -> None:
    table = pq.read_table(whole["sgd"] / "metrics.parquet")
    assert table.schema.equals(arrow_schema("metrics"))
    assert table.schema.metadata[b"spectra.schema"].startswith(b"metrics/")
    rows = table.to_pylist()
    task = TinyTask(SGD)
    model = task.model().eval()
    for step, state in weights(whole["sgd"]).items():
        model.load_state_dict(state)
        found = {(row["split"], row["metric"]): row for row in rows if row["step"] == step}
        assert len(found) == 4
        for split in task.splits:
            logits = model(task.points[split]).double()
            loss = cross_entropy(logits, task.classes[split]).item()
            wrong = (logits.argmax(1) != task.classes[split]).double().mean().item()
            assert found[split, "loss"]["value"] == pytest.approx(loss, rel=1e-6)
            assert found[split, "error"]["value"] == pytest.approx(wrong, rel=1e-12)
        assert {(row["count"], row["status"], row["epoch"]) for row in found.values()} == {(23, "ok", step / 5)}
    assert len(rows) == 4 * len(weights(whole["sgd"]))


def test_only_the_last_state_of_the_optimizer_is_kept_unless_asked(whole: dict[str, Path], tmp_path: Path) -> None:
    train(options(tmp_path / "run"))
    steps = StateFiles(whole["sgd"]).steps()
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pt")) == ["optimizer.pt"]
    kept = {path.name for path in whole["sgd"].glob("*.pt")}
    assert kept == {"optimizer.pt", *(f"optimizer_step_{step}.pt" for step in steps)}


def defaults_of(name: str) -> dict[str, Any]:
    make, _ = find_task(name, files_allowed=False)
    return {key: parameter.default for key, parameter in option_parameters(make).items()}


WITHOUT_REQUIRED = [name for name in task_names() if inspect.Parameter.empty not in defaults_of(name).values()]


@pytest.mark.parametrize("name", WITHOUT_REQUIRED)
def test_recorded_options_make_the_same_task_again(name: str) -> None:
    """Defaults are noted too, so that a later version with other defaults still finds the task of the run."""
    recorded = recorded_options(name, {})
    stored = json.loads(json.dumps(recorded))
    assert recorded_options(name, stored) == recorded
    make_task(name, stored, files_allowed=False)
    assert recorded.keys() == {key for key, value in defaults_of(name).items() if value is not None}


def test_what_is_given_replaces_the_default_and_a_path_to_data_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.npz").write_bytes(b"")
    recorded = recorded_options("image-classification", {"data": "digits.npz", "channels": "4,8", "model": "lenet"})
    assert recorded["data"] == str(tmp_path / "digits.npz")
    assert (recorded["channels"], recorded["model"], recorded["random_labels"]) == ([4, 8], "lenet", False)
    assert recorded_options("image-classification", {"data": "absent"})["data"] == "absent"


def test_a_task_from_a_file_is_recorded_like_an_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults are noted and values have their types; the file is found from any directory."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "tiny.py").write_text(
        "from tests.tasks.tiny_training import SGD, TinyTask\n"
        "def make(width: int = 8, noise: float = 0.5, sizes: tuple[int, ...] = (1, 2), opaque=object(), **rest):\n"
        "    return TinyTask(SGD, width)\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    chosen = options(tmp_path / "run", task="tiny.py", settings={"noise": "2.0", "other": "x"}, steps=5)
    train(chosen)
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record.task == f"{(tmp_path / 'here').resolve()}/tiny.py:make"
    assert record.options == {"width": 8, "noise": 2.0, "sizes": [1, 2], "other": "x"}
    monkeypatch.chdir(tmp_path / "there")
    again = replace(chosen, task="../here/tiny.py:make")
    assert train(again).start is None
    assert train(replace(again, steps=7)).start == 5
    train(options(tmp_path / "branch", task="../here/tiny.py", settings={}, branch_from=f"{tmp_path / 'run'}@5"))
    branch = read_record(tmp_path / "branch")
    assert branch is not None
    assert (branch.task, branch.options) == (record.task, record.options)


# A run that is there


def test_a_finished_run_is_left_as_it_is(whole: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole["sgd"].iterdir()}
    result = train(options(whole["sgd"], save_optimizer=True))
    assert result.start is None
    assert result.steps == StateFiles(whole["sgd"]).steps()
    assert len(result.rows) == 4 * len(result.steps)
    assert {path: path.stat().st_mtime_ns for path in whole["sgd"].iterdir()} == before


def test_the_optimizers_states_are_kept_on_where_the_run_began_so(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--save-optimizer changes nothing about the training, so that nobody need repeat it."""
    with monkeypatch.context() as patched:
        kill_at(patched, "update", 12)
        with pytest.raises(Killed):
            train(options(tmp_path / "run", save_optimizer=True))
    train(options(tmp_path / "run"))
    assert contents(tmp_path / "run").keys() == contents(whole["sgd"]).keys()
    assert (tmp_path / "run" / "run.json").read_bytes() == (whole["sgd"] / "run.json").read_bytes()
    train(options(tmp_path / "without", steps=4))
    with pytest.raises(UsageError, match=r"--save-optimizer was not given, and is now given\."):
        train(options(tmp_path / "without", steps=4, save_optimizer=True))


def test_a_finished_run_whose_optimizer_state_was_removed_is_finished(tmp_path: Path) -> None:
    chosen = options(tmp_path / "run")
    train(chosen)
    (tmp_path / "run" / "optimizer.pt").unlink()
    assert train(chosen).start is None


def test_an_unfinished_run_without_its_optimizer_state_cannot_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(tmp_path / "run")
    with monkeypatch.context() as patched:
        kill_at(patched, "update", 9)
        with pytest.raises(Killed):
            train(chosen)
    (tmp_path / "run" / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"weights up to step 5 and no optimizer.pt"):
        train(chosen)


DIFFERENT: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, r"sgd: --seed was 0, and is now 1\. "),
    ({"lr": 0.5}, r"sgd: --lr was 0\.05, and is now 0\.5\. "),
    ({"lr": 0.1, "seed": 2}, r"sgd: --seed was 0, and is now 2; --lr was 0\.05, and is now 0\.1\. "),
    ({"weight_decay": 0.0}, r"sgd: --weight-decay was 0\.001, and is now 0\.0\. "),
    ({"batch_size": 23}, r"sgd: --batch-size was 5, and is now 23\. "),
    ({"settings": {"width": "9"}, "lr": 0.1}, r"sgd: --set width was 8, and is now 9; --lr was 0\.05, .* 0\.1\. "),
    ({"settings": {"optimizer": "adamw"}}, r"sgd: --set optimizer was sgd, and is now adamw\. "),
    ({"save_every": 3}, r"sgd: --save-every was 5, and is now 3\. "),
    ({"perturb": Noise(0.1, 3)}, r"sgd: --perturb was not given, and is now 0\.1@3\. "),
    ({"epochs": 4}, r"sgd: the run is 25 steps long, and now 20 are asked for\. "),
    (
        {"epochs": 4, "seed": 1},
        r"sgd: --seed was 0, and is now 1; the run is 25 steps long, and now 20 are asked for\. ",
    ),
    ({"task": NOT_FINITE, "settings": {}}, r"sgd: TASK was [^;]*:make, and is now [^;]*:make_not_finite\. "),
]


@pytest.mark.parametrize(("change", "message"), DIFFERENT, ids=[str(list(change)) for change, _ in DIFFERENT])
def test_another_training_in_the_same_directory_is_refused_by_what_differs(
    change: dict[str, Any], message: str, whole: dict[str, Path]
) -> None:
    before = contents(whole["sgd"])
    with pytest.raises(UsageError, match=rf"(?s){message}.*another --out"):
        train(options(whole["sgd"], **{"save_optimizer": True, **change}))
    assert contents(whole["sgd"]) == before


def test_a_longer_training_goes_on_where_the_rate_is_constant(tmp_path: Path) -> None:
    for out, lengths in (("one", [40]), ("two", [15, 40]), ("cut", [15])):
        for steps in lengths:
            train(options(tmp_path / out, steps=steps))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert StateFiles(tmp_path / "cut").steps() == [0, 1, 2, 3, 4, 5, 10, 15]


def test_a_longer_training_is_refused_where_the_rate_depends_on_the_length(whole: dict[str, Path]) -> None:
    chosen = options(whole["adamw"], "adamw", save_optimizer=True, steps=48)
    with pytest.raises(UsageError, match=r"adamw: the run is 24 steps long, and now 48 .*cosine") as caught:
        train(chosen)
    assert f"spectra train {TINY} --branch-from {whole['adamw']}@final --steps 48 --out NEW" in str(caught.value)


def test_a_directory_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds thesis.tex and no run.json"):
        train(options(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_json_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"task": "modular-addition"}')
    with pytest.raises(InputError, match="not written by `spectra train`"):
        train(options(tmp_path))


def test_a_training_that_stopped_before_anything_was_saved_may_begin_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_at(patched, "weights", 1)
        with pytest.raises(Killed):
            train(options(tmp_path / "run"))
    assert train(options(tmp_path / "run", seed=3)).start == 0


def test_an_empty_directory_and_one_that_is_not_there_are_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in ("empty", "new/of/several"):
        assert train(options(tmp_path / out, steps=2)).steps == [0, 1, 2]


def test_a_file_in_the_place_of_the_directory_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        train(options(tmp_path / "file"))


def test_the_number_of_threads_is_that_which_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = _Loop._update

    def looking(self: Any, step: int) -> None:
        seen.append(torch.get_num_threads())
        real(self, step)

    monkeypatch.setattr(_Loop, "_update", looking)
    train(options(tmp_path / "run", steps=2, threads=2))
    train(options(tmp_path / "run", steps=4))
    assert seen == [2, 2, 2, 2]


def test_another_environment_is_told(tmp_path: Path) -> None:
    train(options(tmp_path / "run", steps=2))
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace(torch.__version__, "2.6.0"))
    listener = Listener()
    train(options(tmp_path / "run", steps=4), listener)
    (problem,) = listener.problems
    assert f"began with torch 2.6.0, now {torch.__version__}" in problem


# Branches


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [0, 10])
def test_a_branch_with_its_trunks_seed_repeats_the_trunk(
    kind: str, step: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    listener = Listener()
    train(options(tmp_path / "b", kind, branch_from=f"{whole[kind]}@{step}", save_optimizer=True), listener)
    trunk, branch = weights(whole[kind]), weights(tmp_path / "b")
    assert list(branch) == [at for at in trunk if at >= step]
    assert all(equal(branch[at], trunk[at]) for at in branch)
    assert ["the seed is the trunk's" in problem for problem in listener.problems] == [True]


def test_a_branch_with_another_seed_meets_other_data(whole: dict[str, Path], tmp_path: Path) -> None:
    listener, out = Listener(), tmp_path / "deep" / "b"
    train(options(out, "adamw", branch_from=f"{whole['adamw']}@10", seed=1), listener)
    trunk, branch = weights(whole["adamw"]), weights(out)
    assert equal(trunk[10], branch[10])
    assert not equal(trunk[15], branch[15])
    assert listener.problems == []
    record = read_record(out)
    assert record is not None
    assert (record.seed, record.split_step) == (1, 10)
    assert record.trunk is not None
    assert (out / record.trunk).resolve() == whole["adamw"].resolve()
    assert record.options == {"optimizer": "adamw", "width": 8}
    assert record.training["recipe"]["schedule"] == "cosine"
    assert record.training["total_steps"] == 24


def test_a_branch_is_resumed_like_any_run(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"branch_from": f"{whole['sgd']}@10", "seed": 1, "save_optimizer": True}
    train(options(tmp_path / "one", **chosen))
    with monkeypatch.context() as patched:
        kill_at(patched, "update", 6)
        with pytest.raises(Killed):
            train(options(tmp_path / "two", **chosen))
    train(options(tmp_path / "two", **chosen))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two


def test_moments_that_were_not_kept_are_told(whole: dict[str, Path], tmp_path: Path) -> None:
    train(options(tmp_path / "trunk"))
    for step, told in ((10, True), (25, False), (0, False)):
        listener = Listener()
        chosen = options(tmp_path / f"b{step}", branch_from=f"{tmp_path / 'trunk'}@{step}", seed=1, epochs=6)
        train(chosen, listener)
        assert any("--save-optimizer" in problem for problem in listener.problems) == told


def test_a_branch_may_have_another_rate_and_length(whole: dict[str, Path], tmp_path: Path) -> None:
    train(options(tmp_path / "b", branch_from=f"{whole['sgd']}@10", lr=0.001, steps=12))
    record = read_record(tmp_path / "b")
    assert record is not None
    assert (record.training["recipe"]["lr"], record.training["recipe"]["momentum"]) == (0.001, 0.9)
    assert max(weights(tmp_path / "b")) == 12


def test_the_task_of_a_branch_is_its_trunks(whole: dict[str, Path], tmp_path: Path) -> None:
    trunk = f"{whole['sgd']}@10"
    with pytest.raises(UsageError, match=r"was trained on the task .*:make, not"):
        train(options(tmp_path / "b", task=NOT_FINITE, settings={}, branch_from=trunk))
    with pytest.raises(UsageError, match="was trained with optimizer=sgd, not adamw"):
        train(options(tmp_path / "b", "adamw", branch_from=trunk))
    train(options(tmp_path / "b", settings={}, branch_from=trunk, seed=1))
    record = read_record(tmp_path / "b")
    assert record is not None
    assert record.options == {"optimizer": "sgd", "width": 8}


@pytest.mark.parametrize(
    ("step", "message"),
    [("", "names a run of 10 checkpoints"), ("@7", "no checkpoint has step 7"), ("@25", "begins at step 25")],
)
def test_where_a_branch_begins_must_be_a_step_with_something_after_it(
    step: str, message: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(SpectraError, match=message):
        train(options(tmp_path / "b", branch_from=f"{whole['sgd']}{step}"))
    assert not (tmp_path / "b").exists()


def test_a_trunk_without_a_record_is_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(whole["sgd"], tmp_path / "trunk")
    (tmp_path / "trunk" / "run.json").unlink()
    with pytest.raises(InputError, match=r"no run\.json"):
        train(options(tmp_path / "b", branch_from=f"{tmp_path / 'trunk'}@10"))


def test_full_batches_have_no_other_order(tmp_path: Path) -> None:
    listener = Listener()
    train(options(tmp_path / "a", "adamw", steps=4))
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    record["training"]["recipe"]["batch_size"] = None
    (tmp_path / "a" / "run.json").write_text(json.dumps(record))
    train(options(tmp_path / "b", "adamw", branch_from=f"{tmp_path / 'a'}@0", seed=1), listener)
    assert any("--perturb" in problem for problem in listener.problems)


# Noise


def test_noise_comes_before_the_checkpoint_of_its_step(whole: dict[str, Path], tmp_path: Path) -> None:
    train(options(tmp_path / "b", branch_from=f"{whole['sgd']}@10", perturb=Noise(0.5, 10)))
    before, after = weights(whole["sgd"])[10], weights(tmp_path / "b")[10]
    for name in ("0.weight", "4.weight"):
        change = (after[name].double() - before[name].double()).norm().item()
        assert change == pytest.approx(0.5 * before[name].double().norm().item(), rel=1e-6)
    for name in ("6.weight", "6.bias", "0.bias", "1.weight"):
        assert torch.equal(before[name], after[name])


def test_noise_is_added_once_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"perturb": Noise(0.5, 7), "save_optimizer": True}
    train(options(tmp_path / "one", **chosen))
    assert 7 in StateFiles(tmp_path / "one").steps()
    for place, (point, count) in enumerate([("after optimizer", 7), ("update", 8), ("optimizer", 7)]):
        with monkeypatch.context() as patched:
            kill_at(patched, point, count)
            with pytest.raises(Killed):
                train(options(tmp_path / str(place), **chosen))
        train(options(tmp_path / str(place), **chosen))
        assert contents(tmp_path / str(place)) == contents(tmp_path / "one")


def test_noise_outside_of_the_training_is_a_usage_error(whole: dict[str, Path], tmp_path: Path) -> None:
    for step in (9, 26):
        with pytest.raises(UsageError, match="goes from step 10 to 25"):
            train(options(tmp_path / "b", branch_from=f"{whole['sgd']}@10", perturb=Noise(0.5, step)))


def test_noise_on_a_complex_matrix_is_refused_before_anything_is_saved(tmp_path: Path) -> None:
    class Waves(TinyTask):
        def model(self) -> nn.Module:
            first = nn.Linear(6, 8, dtype=torch.complex64)
            return nn.Sequential(Complex(), first, Modulus(), nn.Linear(8, 3))

    plan = plan_training(options(tmp_path / "run", perturb=Noise(0.1, 3)))
    with pytest.raises(InputError, match=r"'1\.weight' is complex"):
        run_training(replace(plan, task=Waves(SGD)), Listener(), ["spectra"])
    assert StateFiles(tmp_path / "run").steps() == []
    plan = replace(plan, options=replace(plan.options, perturb=None))
    assert run_training(replace(plan, task=Waves(SGD)), Listener(), ["spectra"]).start == 0


class Complex(nn.Module):
    """Real numbers as complex ones."""

    def forward(self, values: Tensor) -> Tensor:
        return values.to(torch.complex64)


class Modulus(nn.Module):
    """Absolute values of complex numbers."""

    def forward(self, values: Tensor) -> Tensor:
        return values.abs()


def test_the_output_layer_can_be_named(whole: dict[str, Path], tmp_path: Path) -> None:
    chosen = {"branch_from": f"{whole['sgd']}@10", "perturb": Noise(0.5, 10), "output_layer": "4.*"}
    train(options(tmp_path / "b", **chosen))
    before, after = weights(whole["sgd"])[10], weights(tmp_path / "b")[10]
    same = [name for name in ("0.weight", "4.weight", "6.weight") if torch.equal(before[name], after[name])]
    assert same == ["4.weight"]


# Masks


def kept_by(run: Path, keep: float) -> dict[str, Tensor]:
    """Where the largest weights of two layers are at the end of a run, by sorting all."""
    last = weights(run)[max(weights(run))]
    layers = {name: last[name].abs() for name in ("0.weight", "4.weight")}
    together = torch.cat([layer.flatten() for layer in layers.values()]).sort(descending=True).values
    return {name: layer >= together[math.ceil(keep * len(together)) - 1] for name, layer in layers.items()}


def test_a_magnitude_mask_keeps_the_largest_weights_of_all_layers(whole: dict[str, Path], tmp_path: Path) -> None:
    mask = MaskChoice("magnitude", 0.25, f"{whole['sgd']}@final")
    train(options(tmp_path / "t", mask=mask))
    kept = kept_by(whole["sgd"], 0.25)
    assert sum(int(layer.sum()) for layer in kept.values()) == 28  # of 48 + 64
    initial = weights(whole["sgd"])[0]
    states = weights(tmp_path / "t")
    assert list(states) == list(weights(whole["sgd"]))
    for step, state in states.items():
        for name, layer in kept.items():
            assert torch.count_nonzero(state[name][~layer]) == 0
            assert torch.equal(state[name][layer], initial[name][layer]) == (step == 0)
        assert torch.count_nonzero(state["6.weight"]) == state["6.weight"].numel()


def test_a_random_mask_keeps_as_many_of_every_layer(whole: dict[str, Path], tmp_path: Path) -> None:
    kept = {name: int(layer.sum()) for name, layer in kept_by(whole["sgd"], 0.25).items()}
    found = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        train(options(out, steps=3, mask=MaskChoice("random", 0.25, str(whole["sgd"]), seed)))
        state = weights(out)[3]
        assert {name: int(torch.count_nonzero(state[name])) for name in kept} == kept
        found.append(state["4.weight"] != 0)
    assert not torch.equal(*found)


def test_a_mask_can_be_put_on_weights_of_an_earlier_step(whole: dict[str, Path], tmp_path: Path) -> None:
    mask, rewind = MaskChoice("magnitude", 0.25, f"{whole['adamw']}@final"), f"{whole['adamw']}@4"
    train(options(tmp_path / "t", "adamw", mask=mask, rewind=rewind))
    kept, states = kept_by(whole["adamw"], 0.25), weights(tmp_path / "t")
    assert min(states) == 4
    for name, layer in kept.items():
        assert torch.equal(states[4][name], weights(whole["adamw"])[4][name] * layer)
        assert all(torch.count_nonzero(state[name][~layer]) == 0 for state in states.values())
    record = read_record(tmp_path / "t")
    assert record is not None
    assert record.split_step == 4
    assert record.training["mask"]["step"] == 24


def test_a_masked_run_is_resumed_and_its_mask_must_be_the_same(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(whole["sgd"], source)
    chosen = {"mask": MaskChoice("magnitude", 0.25, str(source)), "save_optimizer": True}
    train(options(tmp_path / "one", **chosen))
    for out in ("two", "three"):
        with monkeypatch.context() as patched:
            kill_at(patched, "update", 9)
            with pytest.raises(Killed):
                train(options(tmp_path / out, **chosen))
    train(options(tmp_path / "two", **chosen))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    shutil.copyfile(source / "step_0.safetensors", source / "step_25.safetensors")
    with pytest.raises(InputError, match="mask is not the one"):
        train(options(tmp_path / "three", **chosen))


def test_a_mask_of_another_model_is_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    chosen = options(tmp_path / "t", settings={"width": "9"}, mask=MaskChoice("magnitude", 0.5, str(whole["sgd"])))
    with pytest.raises(SpectraError, match=r"step_25.safetensors: '0.bias' is 8 in the checkpoint and 9") as caught:
        train(chosen)
    assert "Name a --mask-from that was trained" in str(caught.value)
    assert "its run.json says width=8, not 9." in str(caught.value)
    assert "--task" not in str(caught.value)  # of which `spectra train` has none


def test_a_branch_of_a_masked_run_is_told_that_it_has_no_mask(whole: dict[str, Path], tmp_path: Path) -> None:
    train(options(tmp_path / "t", steps=4, mask=MaskChoice("magnitude", 0.5, str(whole["sgd"]))))
    listener = Listener()
    train(options(tmp_path / "b", branch_from=f"{tmp_path / 't'}@2", seed=1), listener)
    assert any("the branch has none" in problem for problem in listener.problems)


# Models as users write them

ODD = """
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from tests.tasks import tiny_training

class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (1 + 0.1 * self.calls)

    def get_extra_state(self):
        return torch.tensor(self.calls)

    def set_extra_state(self, state):
        self.calls = int(state)

class Described(nn.Linear):
    def get_extra_state(self):
        return {"since": 3}

    def set_extra_state(self, state): ...

class Features(nn.Linear):
    def __init__(self):
        super().__init__(6, 3)
        self.register_buffer("features", torch.randn(6, 6), persistent=False)

    def forward(self, x):
        return super().forward(x @ self.features)

class HeadFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.a, self.b = nn.Linear(8, 3), nn.Linear(6, 8), nn.Linear(8, 8)
        self.register_buffer("table", torch.randn(8, 8))

    def forward(self, x):
        return self.head(self.b(self.a(x)))

MODELS = {
    "counting": lambda: nn.Sequential(Counting(6, 8), nn.Linear(8, 3)),
    "described": lambda: nn.Sequential(Described(6, 8), nn.Linear(8, 3)),
    "features": Features,
    "head_first": HeadFirst,
    "normed": lambda: nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3)),
}

class Odd(tiny_training.TinyTask):
    def model(self):
        return MODELS[self.kind]()

def make(model: str):
    task = Odd(tiny_training.SGD)
    task.kind = model
    return task
"""


def odd(tmp_path: Path, out: str, model: str, **values: Any) -> TrainOptions:
    path = tmp_path / "odd.py"
    if not path.exists():
        path.write_text(ODD)
    return TrainOptions(task=f"{path}:make", out=tmp_path / out, settings={"model": model}, save_every=5, **values)


def test_extra_state_of_modules_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(odd(tmp_path, "whole", "counting"))
    with monkeypatch.context() as patched:
        kill_at(patched, "update", 13)
        with pytest.raises(Killed):
            train(odd(tmp_path, "killed", "counting"))
    train(odd(tmp_path, "killed", "counting"))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert int(load_file(tmp_path / "whole/step_25.safetensors")["0._extra_state"]) == 25


def test_extra_state_that_no_checkpoint_can_hold_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'0\._extra_state', a dict, which no checkpoint can hold"):
        train(odd(tmp_path, "run", "described"))


def test_a_lazy_model_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'0\.weight' is not initialized"):
        train(odd(tmp_path, "run", "lazy"))


@pytest.mark.parametrize(
    "values", [{"mask": MaskChoice("magnitude", 0.5, "base")}, {"perturb": Noise(0.1, 0)}], ids=["mask", "perturb"]
)
def test_weights_that_the_model_computes_are_neither_masked_nor_perturbed(
    values: dict[str, Any], tmp_path: Path
) -> None:
    train(odd(tmp_path, "base", "normed", steps=1))
    if "mask" in values:
        values = {"mask": replace(values["mask"], source=str(tmp_path / "base"))}
    with pytest.raises(
        InputError, match=rf"the model computes '0\.weight' from other parameters.*--{next(iter(values))}"
    ):
        train(odd(tmp_path, "run", "normed", **values))


def test_a_mask_and_noise_spare_the_layer_that_is_called_last_and_buffers(tmp_path: Path) -> None:
    train(odd(tmp_path, "base", "head_first", steps=1))
    base = load_file(tmp_path / "base/step_1.safetensors")
    train(odd(tmp_path, "masked", "head_first", steps=1, mask=MaskChoice("magnitude", 0.25, str(tmp_path / "base"))))
    masked = load_file(tmp_path / "masked/step_1.safetensors")
    assert {name for name in base if masked[name].eq(0).any()} == {"a.weight", "b.weight"}
    assert sum(int(masked[name].ne(0).sum()) for name in ("a.weight", "b.weight")) == (6 * 8 + 8 * 8) // 4
    train(odd(tmp_path, "noisy", "head_first", steps=1, perturb=Noise(0.1, 1)))
    noisy = load_file(tmp_path / "noisy/step_1.safetensors")
    assert {name for name in base if not torch.equal(noisy[name], base[name])} == {"a.weight", "b.weight"}


def test_a_branch_has_the_model_of_its_trunk(tmp_path: Path) -> None:
    """With what is random in it and in no checkpoint: where they part, both have the same metrics."""
    train(odd(tmp_path, "trunk", "features", steps=4, seed=1))
    train(odd(tmp_path, "branch", "features", steps=8, seed=2, branch_from=f"{tmp_path / 'trunk'}@4"))
    train(odd(tmp_path, "second", "features", steps=9, seed=3, branch_from=f"{tmp_path / 'branch'}@8"))
    rows = {
        name: pq.read_table(tmp_path / name / "metrics.parquet").to_pylist() for name in ("trunk", "branch", "second")
    }

    def at(name: str, step: int) -> list[float]:
        return [row["value"] for row in rows[name] if row["step"] == step]

    assert at("trunk", 4)
    assert at("branch", 4) == at("trunk", 4)
    assert at("second", 8) == at("branch", 8)


# Numbers that are not finite, and what tasks may bring


def test_a_loss_that_is_nan_leaves_what_was_saved_and_a_metric_that_is_nan_is_a_row(tmp_path: Path) -> None:
    chosen = TrainOptions(NOT_FINITE, tmp_path / "run", save_every=5)
    listener = Listener()
    with pytest.raises(DivergedError, match="nan at step 8"):
        train(chosen, listener)
    assert StateFiles(tmp_path / "run").steps() == [0, 1, 2, 3, 4, 5]
    rows = pq.read_table(tmp_path / "run" / "metrics.parquet").to_pylist()
    broken = [row for row in rows if row["metric"] == "broken"]
    assert len(broken) == 12
    assert {(row["value"], row["count"], row["status"]) for row in broken} == {(None, 4, "not_finite")}
    assert listener.problems == [f"step 0: {split} broken is nan (not_finite)." for split in ("train", "val")]


def test_a_notice_is_passed_on_and_what_begins_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_training(options(tmp_path / "run", steps=4))
    task = TinyTask(replace(SGD, epochs=None, steps=4))
    task.notice = "The data are random."  # type: ignore[attr-defined]  # an optional member
    listener = Listener()
    run_training(replace(plan, task=task), listener, ["spectra"])
    assert listener.notices == ["The data are random."]
    count = 6 * 8 + 8 + 2 * 8 + 8 * 8 + 8 + 8 * 3 + 3
    bytes_each = 4 * (count + 2 * 8) + 8  # the running statistics, and the number of batches
    assert listener.beginnings == [Beginning(0, 4, False, count, 5, bytes_each)]
    assert listener.saves == [0, 1, 2, 3, 4]


def test_a_last_batch_of_one_example_is_told_where_batch_norm_cannot_use_it(tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match=r"layer '1' .* cannot normalize a batch of one.*--batch-size"):
        train(options(tmp_path / "run", batch_size=22))
    assert StateFiles(tmp_path / "run").steps()


def test_metrics_that_draw_numbers_are_those_that_the_weights_have_alone(tmp_path: Path) -> None:
    """`spectra prune-eval` takes them of a checkpoint by itself, after other draws."""

    class Drawing(TinyTask):
        def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Metric]:
            points, classes = batch
            return super().metrics(model, (points + torch.randn(points.shape), classes))

    task = Drawing(SGD)
    run_training(replace(plan_training(options(tmp_path / "run")), task=task), Listener(), ["spectra"])
    rows = pq.read_table(tmp_path / "run" / "metrics.parquet").to_pylist()
    evaluator = StateEvaluator(task, task.model(), task.splits, reestimates=False)
    for step in (25, 3):
        found = evaluator.values(weights(tmp_path / "run")[step].items())
        expected = {split: {} for split in task.splits}
        for row in rows:
            if row["step"] == step:
                expected[row["split"]][row["metric"]] = row["value"]
        assert {split: {name: value.value for name, value in of.items()} for split, of in found.items()} == expected


def test_a_directory_for_which_a_full_disk_has_no_room_is_told_with_the_way_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    plan = plan_training(options(tmp_path / "runs" / "a"))
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(InputError, match=r"runs/a: the directory cannot be made: .*Make room, and run the same"):
        run_training(plan, Listener(), ["spectra", "train"])


def test_metrics_that_a_full_disk_does_not_take_are_told_with_their_path_and_the_run_goes_on(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    chosen = options(tmp_path / "run", save_optimizer=True)
    with monkeypatch.context() as patched:
        real = TableWriter.write

        def on_a_full_disk(writer: TableWriter, rows: list[dict[str, Any]]) -> None:
            if len(rows) > 12:
                resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
            real(writer, rows)

        patched.setattr(TableWriter, "write", on_a_full_disk)
        try:
            with pytest.raises(InputError, match=r"run/metrics\.parquet: the table cannot be written: .*ulimit -f"):
                train(chosen)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert StateFiles(tmp_path / "run").load_optimizer().step == 2  # type: ignore[union-attr]  # it is there
    train(chosen)
    assert contents(tmp_path / "run") == contents(whole["sgd"])


# Data that change


class OtherPoints(TinyTask):
    """The same task on other data."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.points = {split: points + 1e-6 for split, points in self.points.items()}


def test_a_run_does_not_go_on_with_other_data(whole: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(options(run, steps=10))
    before = contents(run)
    longer = plan_training(options(run, steps=12))
    with pytest.raises(InputError, match=r"run: the first training batch is not the one .*another --out"):
        run_training(replace(longer, task=OtherPoints(SGD)), Listener(), ["spectra"])
    assert contents(run) == before
    path = run / "run.json"
    record = json.loads(path.read_text())
    assert len(record["training"].pop("first_batch")) == 64
    path.write_text(json.dumps(record))  # as an earlier version wrote it
    longer = plan_training(options(run, steps=12))
    assert run_training(replace(longer, task=OtherPoints(SGD)), Listener(), ["spectra"]).start == 10
    assert "first_batch" not in json.loads(path.read_text())["training"]


@pytest.mark.parametrize("change", [{}, {"seed": 1}, {"batch_size": 7}], ids=str)
def test_a_branch_on_other_data_than_its_trunks_is_told(
    change: dict[str, int], whole: dict[str, Path], tmp_path: Path
) -> None:
    for task, told in ((TinyTask(SGD), False), (OtherPoints(SGD), True)):
        listener = Listener()
        plan = plan_training(options(tmp_path / str(told), branch_from=f"{whole['sgd']}@10", steps=11, **change))
        run_training(replace(plan, task=task), listener, ["spectra"])
        assert any("not what the trunk began with" in problem for problem in listener.problems) == told


def test_batches_that_cannot_be_drawn_again_are_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    class Arbitrary(TinyTask):
        def training_batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            points, classes = super().training_batch(indices, generator)
            self.points["train"] += 1e-3
            return points, classes

    told = []
    for steps in (2, 4):
        listener = Listener()
        plan = plan_training(options(tmp_path / "run", steps=steps))
        run_training(replace(plan, task=Arbitrary(SGD)), listener, ["spectra"])
        told.append(any("another batch for the same indices" in problem for problem in listener.problems))
    assert told == [True, False]
    assert StateFiles(tmp_path / "run").steps() == [0, 1, 2, 3, 4]


def _with_another_bit(table: bytes) -> bytes:
    """One bit of the last page of the first column is another."""
    chunk = pq.ParquetFile(io.BytesIO(table)).metadata.row_group(0).column(0)
    last = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1
    return table[:last] + bytes([table[last] ^ 1]) + table[last + 1 :]


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (lambda _: b"PAR1 but no table", "metrics.parquet: this Parquet file is cut off"),
        (_with_another_bit, "metrics.parquet: cannot be read as a table"),
        (None, "lacks step"),
    ],
    ids=["cut off", "one bit of a page", "gone"],
)
def test_metrics_that_are_damaged_or_gone(
    damaged: Callable[[bytes], bytes] | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, path = options(tmp_path / "run"), tmp_path / "run" / "metrics.parquet"
    with monkeypatch.context() as patched:
        kill_at(patched, "update", 9)
        with pytest.raises(Killed):
            train(chosen)
    listener = Listener()
    if damaged is None:
        path.unlink()
        train(chosen, listener)
        assert min(row["step"] for row in pq.read_table(path).to_pylist()) == 10
        assert any(message in problem for problem in listener.problems)
        return
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(InputError, match=rf"{message}.* Move the file away; later steps are added\."):
        train(chosen)


def test_the_metrics_record_their_making_as_other_tables_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name of the GPU, which decides the last bits."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Accelerator {device.index}")
    run = tmp_path / "run"
    run.mkdir()
    plan = replace(plan_training(options(run)), device=torch.device("cuda:1"))
    model = new_model(plan.task, plan.seed)
    url = "s3://user:secret@host/data"
    saver = Saver(plan, Listener(), StateFiles(run), [], ["spectra", "train", url])
    saver.save(0, model, make_optimizer(plan.recipe, model))
    file = open_table(run / "metrics.parquet")
    assert file.metadata["device"] == "cuda:1 (Accelerator 1)"
    assert file.metadata["command"] == shlex.join(["spectra", "train", "s3://***@host/data"])
    assert file.settings == json.loads(json.dumps(asdict(plan.record)))
    assert file.metadata.keys() == {"schema", "version", "command", "settings", "device", "torch"}


def test_another_table_in_the_place_of_the_metrics_is_told_and_left(tmp_path: Path) -> None:
    """A table that someone wrote there would be taken for metrics without any of their columns."""
    chosen, path = options(tmp_path / "run", steps=4), tmp_path / "run" / "metrics.parquet"
    train(chosen)
    path.unlink()
    with TableWriter(path, "prune_eval"):
        pass
    before = path.read_bytes()
    for steps in (4, 6):
        with pytest.raises(InputError, match=r"metrics\.parquet: this is a table of prune_eval, not the metrics of"):
            train(replace(chosen, steps=steps))
    assert path.read_bytes() == before
    pq.write_table(pa.table({"step": [1, 2]}), path)
    with pytest.raises(InputError, match="this Parquet file is none that spectra wrote"):
        train(chosen)
    path.unlink()
    with TableWriter(path, "metrics", tags={"seed": "1"}):
        pass
    with pytest.raises(InputError, match="its column 'seed' is none of the metrics"):
        train(chosen)
    path.unlink()
    assert train(chosen).start is None
