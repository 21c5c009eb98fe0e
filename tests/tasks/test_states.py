"""States on disk are complete or not there, come back bit for bit, and are what other tools can read."""

from __future__ import annotations

import errno
import io
import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import InputError
from spectra_cli.tasks.states import OPTIMIZER, OptimizerState, StateFiles, read_optimizer, restore_optimizer, storable
from spectra_cli.tasks.training import make_optimizer
from tests.tasks.tiny_training import ADAMW, RECIPES, SGD, TinyTask


def stepped(kind: str = "adamw", steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and an optimizer that remembers something."""
    task = TinyTask(RECIPES[kind])
    model = task.model()
    optimizer = make_optimizer(task.recipe, model)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model, (task.points["train"], task.classes["train"])).backward()
        optimizer.step()
    return model, optimizer


def save_state(files: StateFiles, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    files.save_weights(step, model)
    files.save_optimizer(step, model, optimizer)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model, _ = stepped()
    files = StateFiles(tmp_path)
    files.save_weights(40, model)
    loaded = files.load_weights(40)
    expected = model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert loaded["1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_an_optimizer_remembers_comes_back(kind: str, tmp_path: Path) -> None:
    model, optimizer = stepped(kind)
    files = StateFiles(tmp_path)
    save_state(files, 3, model, optimizer)
    other, fresh = stepped(kind, steps=0)
    state = files.load_optimizer()
    assert state is not None
    assert state.step == 3
    restore_optimizer(fresh, other, state, "here")
    for one, two in zip(optimizer.state_dict()["state"].items(), fresh.state_dict()["state"].items(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_settings_of_an_optimizer_are_those_of_the_recipe_not_of_the_file(tmp_path: Path) -> None:
    """A branch may have another weight decay than its trunk."""
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    save_state(files, 3, model, optimizer)
    other = torch.optim.AdamW(model.parameters(), weight_decay=0.7)
    state = files.load_optimizer()
    assert state is not None
    restore_optimizer(other, model, state, "here")
    assert other.param_groups[0]["weight_decay"] == 0.7
    assert len(other.state) == len(optimizer.state) > 0


def test_discovery_finds_the_steps_and_passes_all_else_over(tmp_path: Path) -> None:
    model, optimizer = stepped()
    files = StateFiles(tmp_path, each_optimizer=True)
    for step in (0, 5, 10):
        files.save_weights(step, model)
        files.save_optimizer(step, model, optimizer)
    (run,) = discover(tmp_path)
    assert [checkpoint.step for checkpoint in run.checkpoints] == [0, 5, 10] == files.steps()
    reasons = {item.name: item.reason for item in run.passed_over}
    expected = ["optimizer.pt", "optimizer_step_0.pt", "optimizer_step_5.pt", "optimizer_step_10.pt"]
    assert sorted(reasons) == sorted(expected)
    assert set(reasons.values()) == {"optimizer state"}
    assert not any(item.notable for item in run.passed_over)


def test_the_optimizers_state_of_a_step_is_found_where_it_was_kept(tmp_path: Path) -> None:
    model, optimizer = stepped()
    every, last = StateFiles(tmp_path / "every", each_optimizer=True), StateFiles(tmp_path / "last")
    for files in (every, last):
        files.run.mkdir()
        for step in (0, 5):
            save_state(files, step, model, optimizer)
    steps = [getattr(files.load_optimizer(step), "step", None) for files in (every, last) for step in (0, 5, None)]
    assert steps == [0, 5, 5, None, 5, 5]


def test_without_second_names_for_files_the_state_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    model, optimizer = stepped()
    files = StateFiles(tmp_path, each_optimizer=True)
    save_state(files, 5, model, optimizer)
    assert names_in(tmp_path) == ["optimizer.pt", "optimizer_step_5.pt", "step_5.safetensors"]
    assert getattr(files.load_optimizer(), "step", None) == 5


class Tied(nn.Module):
    """An output layer that is the embedding, and two views of one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.output = nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight
        both = torch.randn(4, 6)
        self.register_buffer("left", both[:, :3])
        self.register_buffer("right", both[:, 3:])
        self.register_buffer("turned", torch.randn(3, 5).mT)
        self.register_buffer("hidden", torch.zeros(2), persistent=False)


def test_tied_weights_are_saved_once_and_views_on_their_own(tmp_path: Path) -> None:
    model = Tied()
    files = StateFiles(tmp_path)
    files.save_weights(0, model)
    stored = load_file(files.weights_path(0))
    assert sorted(stored) == ["embedding.weight", "left", "right", "turned"]
    with open_checkpoint(files.weights_path(0)) as reader:
        for name, tensor in stored.items():
            assert torch.equal(tensor, model.state_dict()[name])
            assert torch.equal(reader.read(name), tensor)


def test_tensors_that_overlap_are_each_stored_whole() -> None:
    memory = torch.arange(6.0)
    found = storable({"all": memory, "part": memory[:4], "same": memory})
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "all": [0, 1, 2, 3, 4, 5],
        "part": [0, 1, 2, 3],
    }
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 2


def test_a_state_that_is_no_tensor_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"'extra', a dict"):
        storable({"weight": torch.ones(2), "extra": {}})


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    model, _ = stepped()
    files = StateFiles(tmp_path)
    for step in (1, 2):
        files.save_weights(step, model)
    assert files.weights_path(1).read_bytes() == files.weights_path(2).read_bytes()


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    files.save_weights(1, model)
    files.save_optimizer(1, model, optimizer)
    assert len({stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names_in(tmp_path)}) == 1


def test_a_full_disk_leaves_what_was_there_and_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    files.save_weights(1, model)
    files.save_optimizer(1, model, optimizer)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[index]
    for save in (lambda: files.save_weights(1, model), lambda: files.save_optimizer(2, model, optimizer)):
        with pytest.raises(InputError, match=r"No space left.*same command again"):
            save()
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


class Interrupting:
    """A disk that is full, or a user who loses patience, in the middle of a file."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def write_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = torch.save

        def save(value: object, file: io.BufferedWriter) -> None:
            written = [0]

            def write(part: bytes) -> int:
                written[0] += 1
                if written[0] == 4:
                    raise self.error
                return len(part)

            stream = io.BytesIO()
            stream.write = write  # type: ignore[method-assign,assignment]
            real(value, stream)

        monkeypatch.setattr(torch, "save", save)


def test_what_happens_in_the_middle_of_an_archive_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch hides it behind 'unexpected pos 64 vs 0'."""
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    with monkeypatch.context() as patched:
        Interrupting(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))).write_to(patched)
        with pytest.raises(InputError, match="No space left"):
            files.save_optimizer(2, model, optimizer)
    with monkeypatch.context() as patched:
        Interrupting(KeyboardInterrupt()).write_to(patched)
        with pytest.raises(KeyboardInterrupt):
            files.save_optimizer(2, model, optimizer)
    assert names_in(tmp_path) == []


def test_half_written_files_are_removed_and_those_of_others_are_not(tmp_path: Path) -> None:
    ours = [".step_12.safetensors.partial", ".optimizer.pt.x_y12abc.partial", ".optimizer_step_3.pt.partial"]
    ours += [".step_7.safetensors.k3j2h1g0.partial", ".metrics.parquet.abc123.partial", ".run.json.partial"]
    ours += [".config.json.partial", ".tmp1wKrnB"]
    theirs = [".rank.parquet.abc.partial", "step_12.safetensors", ".step_x.safetensors.partial", "notes.partial"]
    for name in [*ours, *theirs]:
        (tmp_path / name).write_bytes(b"")
    StateFiles(tmp_path).clean()
    assert names_in(tmp_path) == sorted(theirs)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch broken-into",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"step": 1, "parameters": [], "state": Evil(), "stateless": []}, protocol=2),
        b"",
        b"no archive",
        pickle.dumps([1, 2], protocol=2),
    ],
    ids=["hostile", "empty", "text", "list"],
)
def test_what_is_no_state_of_an_optimizer_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / OPTIMIZER
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"optimizer.pt: this is not the state of an optimizer"):
        read_optimizer(path)
    assert names_in(tmp_path) == [OPTIMIZER]


SOUND = {"step": 1, "parameters": ["a", "b"], "state": {}, "stateless": ["a", "b"]}


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"step": 1},
        {**SOUND, "more": 1},
        *({**SOUND, "step": step} for step in ("1", True, -1, 1.0, 10**30, 10**5000)),
        *({**SOUND, "parameters": names} for names in (3, [1, 2], ["a", "a"])),
        *({**SOUND, "stateless": names} for names in (3, "ab", [None])),
        *({**SOUND, "state": state} for state in ([], {0: 5}, {"0": {}}, {True: {}})),
    ],
)
def test_entries_of_other_types_are_refused(value: object, tmp_path: Path) -> None:
    torch.save(SOUND, tmp_path / OPTIMIZER)
    assert read_optimizer(tmp_path / OPTIMIZER).stateless == ("a", "b")
    torch.save(value, tmp_path / OPTIMIZER)
    with pytest.raises(InputError, match="not the state of an optimizer"):
        read_optimizer(tmp_path / OPTIMIZER)


def test_an_error_does_not_pass_on_advice_to_trust_the_file(tmp_path: Path) -> None:
    """PyTorch recommends to switch the protection off."""
    torch.save({**SOUND, "state": Evil()}, tmp_path / OPTIMIZER)
    with pytest.raises(InputError, match="holds what no optimizer keeps") as caught:
        read_optimizer(tmp_path / OPTIMIZER)
    assert "weights_only" not in str(caught.value)


def test_a_pipe_is_no_state_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OPTIMIZER)
    with pytest.raises(InputError, match="this is a pipe"):
        StateFiles(tmp_path).load_optimizer()


def test_a_state_of_a_step_without_weights_is_refused(tmp_path: Path) -> None:
    """A training of 20 steps would count as finished if the file said a million."""
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    files.save_weights(20, model)
    files.save_optimizer(10**6, model, optimizer)
    with pytest.raises(InputError, match=r"optimizer.pt: .* at step 1000000, of which there are no weights"):
        files.load_optimizer()


Memory = dict[int, dict[str, object]]


def changed(kind: str, change: Callable[[Memory], object]) -> tuple[OptimizerState, nn.Module, torch.optim.Optimizer]:
    """A state in which something was changed, and what it is to be restored into."""
    model, optimizer = stepped(kind)
    state: Memory = {place: dict(values) for place, values in optimizer.state_dict()["state"].items()}
    change(state)
    names = tuple(name for name, _ in model.named_parameters())
    other, fresh = stepped(kind, steps=0)
    return OptimizerState(3, names, state, ()), other, fresh


def all_moments(value: Callable[[Tensor], object]) -> Callable[[Memory], object]:
    def change(state: Memory) -> None:
        for values in state.values():
            for key, tensor in values.items():
                if key != "step":
                    assert isinstance(tensor, Tensor)
                    values[key] = value(tensor)

    return change


@pytest.mark.parametrize(
    "change",
    [
        all_moments(lambda _: torch.tensor(0.0)),
        all_moments(lambda tensor: tensor.double()),
        all_moments(lambda tensor: tensor.to_sparse()),
        all_moments(lambda tensor: tensor.to("meta")),
        all_moments(lambda tensor: torch.zeros(1, *tensor.shape)),
        all_moments(lambda _: "moment"),
        lambda state: state[0].update(more=torch.zeros(())),
        lambda state: state[0].popitem(),
        lambda state: state[0].clear(),
        lambda state: state.popitem(),
        lambda state: state.clear(),
        lambda state: state.update({99: state[0]}),
        lambda state: state.update({-1: state[0]}),
    ],
)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_memory_that_is_not_what_the_optimizer_keeps_is_refused(
    kind: str, change: Callable[[Memory], object]
) -> None:
    """Fused updates would read and write beyond it; without it, the training would go on as another one."""
    saved, model, optimizer = changed(kind, change)
    with pytest.raises(InputError, match="here: this is the state of an optimizer"):
        restore_optimizer(optimizer, model, saved, "here")
    assert not optimizer.state


@pytest.mark.parametrize("step", [torch.zeros(1), torch.tensor(-1.0), torch.tensor(float("nan")), torch.tensor(3), 3])
def test_a_count_of_updates_is_one(step: object) -> None:
    saved, model, optimizer = changed("adamw", lambda state: state[0].update(step=step))
    with pytest.raises(InputError, match="of other shapes or types"):
        restore_optimizer(optimizer, model, saved, "here")


def test_a_memory_is_copied_into_memory_like_the_parameters() -> None:
    """However it is laid out: a single number that claims to be all of them, or another order of dimensions."""
    spread = all_moments(lambda tensor: torch.full((1,) * tensor.ndim, 0.25).expand(tensor.shape))
    saved, model, optimizer = changed("adamw", spread)
    restore_optimizer(optimizer, model, saved, "here")
    for parameter, values in optimizer.state.items():
        for moment in (values["exp_avg"], values["exp_avg_sq"]):
            assert moment.untyped_storage().nbytes() == moment.numel() * moment.element_size()
            assert bool((moment == 0.25).all())
            assert moment.stride() == parameter.stride()

    turned = nn.Linear(3, 5, bias=False)
    turned.weight = nn.Parameter(torch.randn(3, 5).mT)
    moments: dict[str, object] = {"step": torch.tensor(1.0), "exp_avg": torch.arange(15.0).reshape(5, 3)}
    moments["exp_avg_sq"] = moments["exp_avg"]
    optimizer = make_optimizer(ADAMW, turned)
    restore_optimizer(optimizer, turned, OptimizerState(1, ("weight",), {0: moments}, ()), "here")
    kept = optimizer.state[turned.weight]
    assert kept["exp_avg"].stride() == turned.weight.stride() == (1, 5)
    assert kept["exp_avg"].tolist() == torch.arange(15.0).reshape(5, 3).tolist()
    assert kept["exp_avg"].data_ptr() != kept["exp_avg_sq"].data_ptr()


class HalfUsed(nn.Module):
    """Has a layer that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)


def test_parameters_that_no_gradient_reached_have_no_memory_and_that_is_known(tmp_path: Path) -> None:
    model = HalfUsed()
    optimizer = make_optimizer(ADAMW, model)
    model.used(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    files = StateFiles(tmp_path)
    save_state(files, 1, model, optimizer)
    state = files.load_optimizer()
    assert state is not None
    assert state.stateless == ("unused.weight", "unused.bias")
    other = HalfUsed()
    fresh = make_optimizer(ADAMW, other)
    restore_optimizer(fresh, other, state, "here")
    assert len(fresh.state) == 2


def test_a_truncated_state_is_refused(tmp_path: Path) -> None:
    model, optimizer = stepped()
    StateFiles(tmp_path).save_optimizer(1, model, optimizer)
    path = tmp_path / OPTIMIZER
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match="not the state of an optimizer"):
        read_optimizer(path)


def test_the_memory_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = stepped()
    files = StateFiles(tmp_path)
    save_state(files, 1, model, optimizer)
    state = files.load_optimizer()
    assert state is not None
    for other in (TinyTask(ADAMW, width=9).model(), nn.Sequential(nn.Linear(2, 2))):
        with pytest.raises(InputError, match="another model"):
            restore_optimizer(make_optimizer(ADAMW, other), other, state, "here")
    with pytest.raises(InputError, match="of another kind"):
        restore_optimizer(make_optimizer(SGD, model), model, state, "here")


def test_damaged_weights_are_told_with_their_path(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    with pytest.raises(InputError, match=r"step_4.safetensors: the weights cannot be read"):
        files.load_weights(4)
    files.weights_path(4).write_bytes(b"\x01" * 40)
    with pytest.raises(InputError, match=r"step_4.safetensors: the weights cannot be read"):
        files.load_weights(4)


def test_two_trainings_cannot_have_one_directory(tmp_path: Path) -> None:
    one, other = StateFiles(tmp_path), StateFiles(tmp_path)
    with one.exclusively(), pytest.raises(InputError, match="another process"), other.exclusively():
        pass
    with StateFiles(tmp_path).exclusively():
        assert names_in(tmp_path) == []


def test_parameters_that_want_no_gradient_keep_their_place(tmp_path: Path) -> None:
    model, _ = stepped()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    optimizer = make_optimizer(ADAMW, model)
    output: Tensor = model(torch.ones(4, 6)).sum()
    output.backward()
    optimizer.step()
    files = StateFiles(tmp_path)
    save_state(files, 1, model, optimizer)
    state = files.load_optimizer()
    assert state is not None
    assert "0.weight" not in state.parameters
    restore_optimizer(make_optimizer(ADAMW, model), model, state, "here")
