"""Where a run.json stands, which splits are evaluated, and how a checkpoint comes into a task's model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, CorruptCheckpointError, InputError, UsageError
from spectra_cli.execution.evaluation.modelloading import load_model
from spectra_cli.execution.evaluation.modelpool import ModelPool
from spectra_cli.execution.evaluation.taskruns import (
    ChosenTask,
    chosen_splits,
    named_task,
    record_of,
    task_of_run,
)
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import only_run
from spectra_cli.storage import listings
from spectra_cli.tasks.loading import StateMismatchError
from tests.analyses import tiny_tasks

TASK = f"{Path(tiny_tasks.__file__)}:mlp"
CPU = torch.device("cpu")


def record(directory: Path, **values: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"task": "modular-addition", **values}))


def weights(width: int = 7, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(tiny_tasks.mlp(width).model().state_dict())


def saved(path: Path, state: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)
    return path


def found(path: Path) -> tuple[Run, Checkpoint]:
    (run,) = discover(path)
    return run, run.checkpoints[-1]


def loaded(path: Path, **options: Any) -> Any:
    return load_model(tiny_tasks.mlp(), *found(path), Options(), **options)


# where it stands


def test_the_run_json_of_a_run_stands_beside_its_checkpoints(tmp_path: Path) -> None:
    saved(tmp_path / "run/step_1.safetensors", weights())
    record(tmp_path / "run", seed=1)
    for path in (tmp_path / "run", tmp_path / "run/step_1.safetensors"):
        said = record_of(*found(path))
        assert said is not None
        assert said.seed == 1


def test_the_nearest_run_json_counts(tmp_path: Path) -> None:
    """That of a checkpoint which is a directory, before that of the directory it lies in."""
    saved(tmp_path / "model/model.safetensors", weights())
    record(tmp_path, seed=1)
    said = record_of(*found(tmp_path / "model"))
    assert said is not None
    assert said.seed == 1
    record(tmp_path / "model", seed=2)
    said = record_of(*found(tmp_path / "model"))
    assert said is not None
    assert said.seed == 2
    record(tmp_path / "model", task="mytask.py:make")
    with pytest.raises(InputError, match=rf"{tmp_path}/model/run\.json: names the task"):
        task_of_run(*found(tmp_path / "model"), TaskOptions())


def test_the_options_of_a_run_hold_for_its_task_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run.json has the whole path of a file; people type a short one."""
    saved(tmp_path / "run/step_1.safetensors", weights())
    record(tmp_path / "run", task=TASK, options={"width": 9})
    monkeypatch.chdir(Path(tiny_tasks.__file__).parent)
    name = f"{Path(tiny_tasks.__file__).name}:mlp"
    assert task_of_run(*found(tmp_path / "run"), TaskOptions(name)).settings == {"width": 9}
    assert task_of_run(*found(tmp_path / "run"), TaskOptions(name, {"width": "5"})).settings == {"width": "5"}
    with pytest.raises(InputError, match="code is loaded") as caught:
        task_of_run(*found(tmp_path / "run"), TaskOptions())
    assert f"pass --task {TASK}." in str(caught.value)


def test_data_that_are_no_longer_there_are_told_with_the_option(tmp_path: Path) -> None:
    saved(tmp_path / "run/step_1.safetensors", weights())
    data = tmp_path / "digits.npz"
    data.write_bytes(b"")
    record(tmp_path / "run", task="image-classification", options={"data": str(data)})
    end = found(tmp_path / "run")
    assert task_of_run(*end, TaskOptions()).settings == {"data": str(data)}
    data.unlink()
    with pytest.raises(InputError, match=r"run\.json: says data=.*digits\.npz, which does not exist\. Pass --data"):
        task_of_run(*end, TaskOptions())
    assert task_of_run(*end, TaskOptions(settings={"data": "elsewhere"})).settings == {"data": "elsewhere"}


def test_there_may_be_no_run_json(tmp_path: Path) -> None:
    assert record_of(*found(saved(tmp_path / "step_1.safetensors", weights()))) is None


# splits and runs


def test_splits_come_in_the_order_of_the_task(tmp_path: Path) -> None:
    task = tiny_tasks.mlp()
    assert chosen_splits(task, ()) == ["train", "val"]
    assert chosen_splits(task, ["val"]) == ["val"]
    assert chosen_splits(task, ["val", "train", "val"]) == ["train", "val"]
    with pytest.raises(UsageError, match=r"--split test: the task has none\. Its splits are train, val"):
        chosen_splits(task, ["val", "test"])


def test_a_path_of_several_runs_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in "ab":
        saved(tmp_path / name / "step_1.safetensors", weights())
    with pytest.raises(InputError, match=r"holds 2 runs\. Name one of them: a, b"):
        only_run(discover(tmp_path), str(tmp_path))
    assert only_run(discover(tmp_path / "a"), "a").root == tmp_path / "a"


# into the model


def test_a_checkpoint_is_loaded_whatever_wraps_its_names(tmp_path: Path) -> None:
    state = weights(seed=3)
    for number, prefix in enumerate(("", "module.", "_orig_mod.", "model.module.")):
        path = saved(tmp_path / f"{number}.safetensors", {f"{prefix}{name}": value for name, value in state.items()})
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded(path).state.items())


def test_what_stands_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    state = weights(seed=3)
    path = tmp_path / "step_1.pt"
    optimizer = torch.optim.AdamW(tiny_tasks.mlp().model().parameters()).state_dict()
    torch.save({"model": state, "optimizer": optimizer, "step": 1}, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded(path).state.items())


def test_a_misfit_names_the_checkpoint_and_leaves_the_model(tmp_path: Path) -> None:
    model = tiny_tasks.mlp().model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = saved(tmp_path / "step_1.safetensors", weights(width=9))
    with pytest.raises(
        StateMismatchError, match=r"step_1\.safetensors: 'first\.bias' is 9 in the checkpoint and 7 in the task's model"
    ):
        loaded(path, model=model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "step_1.safetensors", weights())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorruptCheckpointError):
        loaded(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError):
        loaded(path)


class RandomFeatures(nn.Module):
    """A buffer that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(4, 3), persistent=False)
        self.output = nn.Linear(4, 2)


def test_what_is_random_in_a_model_and_in_no_checkpoint_is_the_same_every_time(tmp_path: Path) -> None:
    """And the caller's random numbers go on as if no model had been made."""
    task = tiny_tasks.Classification(RandomFeatures, tiny_tasks._vectors)
    path = saved(tmp_path / "step_1.safetensors", dict(RandomFeatures().state_dict()))
    models = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        models.append(load_model(task, *found(path), Options()).model)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(models[0].features, models[1].features)  # type: ignore[arg-type]  # it is a tensor


# the pool


def test_a_task_that_cannot_be_made_does_not_keep_others_from_work() -> None:
    good = ChosenTask(TASK, {}, True, "--task")
    bad = ChosenTask(TASK, {"wdth": 3}, True, "--task")
    pool = ModelPool(CPU)
    pool.expect([good, bad])
    assert pool.task(good).splits == ("train", "val")
    with pytest.raises(UsageError, match="no option 'wdth'"):
        pool.task(bad)


@pytest.mark.parametrize("record", [{"options": {"foo": 1}}, {"options": {"d_model": 10**9}}, {"task": "absent"}])
def test_what_is_wrong_in_a_run_json_is_the_files_fault_and_not_the_commands(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    run, checkpoint = _recorded(tmp_path, record)
    with pytest.raises(InputError, match=r"run\.json: .*(foo|d_model|absent)") as caught:
        task_of_run(run, checkpoint, TaskOptions()).make()
    assert caught.value.exit_status == 1


def test_what_is_wrong_with_a_given_option_is_the_commands_fault(tmp_path: Path) -> None:
    run, checkpoint = _recorded(tmp_path, {})
    with pytest.raises(UsageError, match="d_model is 0"):
        task_of_run(run, checkpoint, TaskOptions(settings={"d_model": "0"})).make()


FOREIGN = [
    "s3://evil/x",
    "https://evil/x?a=b",
    "memory://evil/../../x",
    "simplecache::s3://evil/x",
    "see s3://evil/x",
    ["a", {"b": "hf://evil/x"}],
    {"memory://evil": 1},
]


@pytest.fixture
def no_storage(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was connected to, which fails."""
    asked: list[str] = []

    def connect(url: str) -> None:
        asked.append(url)
        raise CheckpointError("no network", where=url)

    monkeypatch.setattr(listings, "connect", connect)
    return asked


@pytest.mark.parametrize("url", FOREIGN, ids=str)
@pytest.mark.parametrize(("task", "option"), [("hf-causal-lm", "config"), ("image-classification", "data")])
def test_a_run_json_causes_no_access_to_remote_storage(
    tmp_path: Path, no_storage: list[str], task: str, option: str, url: Any
) -> None:
    """Others may have written it. What the user says counts, also where it says the same."""
    run, checkpoint = _recorded(tmp_path, {"task": task, "options": {option: url}})
    for options in (TaskOptions(), TaskOptions(task), TaskOptions(settings={"other": "1"})):
        with pytest.raises(InputError, match=rf"run\.json: names remote storage .*pass --set '?{option}="):
            task_of_run(run, checkpoint, options)
    given = named_task(run, checkpoint, TaskOptions(settings={option: "s3://own/x"}))
    assert given.settings == {option: "s3://own/x"}
    assert no_storage == []


def test_what_the_user_names_is_asked_for(tmp_path: Path, no_storage: list[str]) -> None:
    run, checkpoint = _recorded(tmp_path, {"task": "hf-causal-lm", "options": {"config": "s3://evil/x"}})
    chosen = task_of_run(run, checkpoint, TaskOptions(settings={"config": "s3://own/x"}))
    with pytest.raises(CheckpointError, match="no network"):
        chosen.make()
    assert no_storage == ["s3://own/x"]


@pytest.mark.parametrize(
    ("url", "counts"),
    [
        ("memory://hub/run/config", True),
        ("memory://hub/run", True),
        ("memory://hub/running", False),
        ("memory://hub/run/../other", False),
        ("memory://hub/run/%2e%2E/other", False),
        ("memory://hub/run/..\\other", False),
        ("s3://hub/run/config", False),
        ("memory://hub/run/::s3://evil", False),
    ],
)
def test_of_a_remote_run_what_lies_below_it_counts(url: str, counts: bool) -> None:
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pipe_file("memory://hub/run/step_1.safetensors", safetensors_bytes({"w": torch.ones(2, 2)}))
    record = {"task": "hf-causal-lm", "options": {"config": url}}
    storage.pipe_file("memory://hub/run/run.json", json.dumps(record).encode())
    (run,) = discover("memory://hub/run")
    if counts:
        assert named_task(run, run.checkpoints[0], TaskOptions()).settings == {"config": url}
    else:
        with pytest.raises(InputError, match="names remote storage"):
            named_task(run, run.checkpoints[0], TaskOptions())
    storage.store.clear()


def test_files_of_this_machine_count_by_url_as_well(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    run, checkpoint = _recorded(tmp_path, {"task": "hf-causal-lm", "options": {"config": url}})
    assert named_task(run, checkpoint, TaskOptions()).settings == {"config": url}


def _recorded(directory: Path, record: dict[str, Any]) -> Any:
    """A run on modular addition, and its checkpoint."""
    save_file({"w": torch.ones(2, 2)}, directory / "model_1.safetensors")
    (directory / "run.json").write_text(json.dumps({"task": "modular-addition", **record}))
    return found(directory)
