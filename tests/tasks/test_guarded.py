"""A task of the user's: its mistakes are told as its own, with its line, and it leaves no trace elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spectra_cli.errors import InputError
from spectra_cli.tasks.guarded import GuardedTask, TaskError, blamed
from spectra_cli.tasks.registry import make_task


class Mistaken:
    """A task with one member replaced."""

    splits = ("train",)

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def batches(self, split: str) -> Any:
        yield split

    def metrics(self, model: nn.Module, batch: object) -> Any:
        return {str(model): batch}


def guarded(**members: Any) -> Any:
    task = Mistaken()
    for name, value in members.items():
        setattr(task, name, value)
    return GuardedTask(task, "x", None)


LOSSES: list[tuple[Any, str]] = [
    (0.5, "a float"),
    (None, "a NoneType"),
    (torch.ones(3, requires_grad=True), r"a Parameter|a Tensor of shape \(3,\)"),
    (torch.tensor(1), "a Tensor of shape"),
    (torch.tensor(1.0), "without gradient"),
]


@pytest.mark.parametrize(("given", "said"), LOSSES)
def test_what_cannot_be_minimized_is_told(given: object, said: str) -> None:
    with pytest.raises(InputError, match=f"task x: loss.. gives .*({said})"):
        guarded(loss=lambda *_: given).loss(None, None)


def test_a_loss_with_a_gradient_passes_and_without_recording_needs_none() -> None:
    value = torch.ones((), requires_grad=True)
    assert guarded(loss=lambda *_: value).loss(None, None) is value
    with torch.no_grad():
        guarded(loss=lambda *_: torch.tensor(1.0)).loss(None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config", 5),
        ("config", {"a": torch.ones(1)}),
        ("config", {"a": float("nan")}),
        ("notice", 5),
        ("training_count", True),
    ],
)
def test_members_of_the_wrong_kind_are_told(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"task x: .*{name}"):
        getattr(guarded(**{name: value}), name)


@pytest.mark.parametrize("given", [None, {1: torch.ones(1)}, {"a": 1}])
def test_a_state_that_is_none_is_told(given: object) -> None:
    with pytest.raises(InputError, match=r"task x: adapt\(\) gives"):
        guarded(adapt=lambda _: given).adapt({})


def test_batches_that_are_none_are_told_by_name() -> None:
    with pytest.raises(InputError, match=r"task x: batches\(\) gives a NoneType"):
        list(guarded(batches=lambda _: None).batches("train"))


def test_a_model_without_memory_is_told() -> None:
    with pytest.raises(InputError, match="device meta"):
        guarded(model=lambda: nn.Linear(1, 1, device="meta")).model()


@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, BaseException, StopIteration])
def test_no_exception_of_a_task_ends_more_than_the_task(kind: type[BaseException]) -> None:
    with pytest.raises(TaskError, match=kind.__name__), blamed("x", None):
        raise kind


def test_an_interruption_is_the_users() -> None:
    with pytest.raises(KeyboardInterrupt), blamed("x", None):
        raise KeyboardInterrupt


def test_an_exception_whose_words_raise_is_told_by_its_type() -> None:
    class Silent(Exception):  # noqa: N818 - as a user may name it
        def __str__(self) -> str:
            raise ValueError

    with pytest.raises(TaskError, match=r"Silent: \(its __str__ raises ValueError\)"), blamed("x", None):
        raise Silent


def test_what_a_task_prints_is_not_among_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    with blamed("x", None):
        print("loading")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "loading\n")


FILE = """
from torch import nn
from the_net import WIDTH

class Task:
    splits = ("train",)
    def model(self):
        import the_late_net
        return nn.Linear(WIDTH, the_late_net.WIDTH)
    def batches(self, split):
        yield next(iter(()))
    def metrics(self, model, batch):
        return {}

make = Task
"""


def written(directory: Path, width: int) -> str:
    directory.mkdir()
    (directory / "task.py").write_text(FILE)
    (directory / "the_net.py").write_text(f"WIDTH = {width}\n")
    (directory / "the_late_net.py").write_text(f"WIDTH = {width + 1}\n")
    return f"{directory / 'task.py'}:make"


def test_files_have_their_own_neighbours_and_leave_none_behind(tmp_path: Path) -> None:
    """Also those that they import late, in any order."""
    path, modules = list(sys.path), set(sys.modules)
    one, other = (
        make_task(written(tmp_path / name, width), {}, files_allowed=True) for name, width in (("a", 3), ("b", 5))
    )
    shapes = [tuple(task.model().weight.shape) for task in (other, one, other)]
    assert shapes == [(6, 5), (4, 3), (6, 5)]
    assert sys.path == path
    assert not {"the_net", "the_late_net"} & (set(sys.modules) - modules)


def test_the_line_of_a_generator_that_lets_the_end_of_another_out_is_told(tmp_path: Path) -> None:
    task = make_task(written(tmp_path / "a", 3), {}, files_allowed=True)
    with pytest.raises(TaskError, match=r"task\.py, line 11, in batches: yield next\(iter\(\(\)\)\)"):
        list(task.batches("train"))
