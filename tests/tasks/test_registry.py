"""From a name to a task: installed ones, files, what is refused, and whose fault is told where a task's code raises."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.tasks import registry
from spectra_cli.tasks.base import Metric, Task, TrainableTask
from spectra_cli.tasks.guarded import GuardedTask, TaskError
from spectra_cli.tasks.names import is_file_task, same_task, settled_name
from spectra_cli.tasks.registry import checked_task, checkpoint_option, find_task, make_task, task_names

TASK = """
import torch
from torch import nn
from spectra_cli.tasks.base import Metric

class Tiny:
    splits = ("train", "val")
    def __init__(self, width):
        self.width = width
    def model(self):
        return nn.Linear(self.width, 2)
    def batches(self, split):
        yield torch.ones(3, self.width)
    def metrics(self, model, batch):
        return {"loss": Metric(model(batch).sum(), len(batch))}

def make(width: int = 4):
    return Tiny(width)
"""


@pytest.fixture(autouse=True)
def _path_and_modules_are_given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(directory: Path, source: str = TASK, name: str = "mytask.py") -> Path:
    path = directory / name
    path.write_text(source)
    return path


def from_file(path: Path, function: str = "make", **settings: object) -> Task:
    return make_task(f"{path}:{function}", settings, files_allowed=True)


# installed tasks


def installed(directory: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, lines: str) -> None:
    """A distribution as pip leaves it."""
    info = directory / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spectra.tasks]\n{lines}\n")
    monkeypatch.syspath_prepend(str(directory))


def test_the_entry_points_of_other_distributions_are_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, name="others_task.py")
    installed(tmp_path, monkeypatch, "others-tasks", "other = others_task:make")
    assert "other" in task_names()
    task = make_task("other", {"width": "7"}, files_allowed=False)
    assert task.model().weight.shape == (2, 7)


@pytest.mark.parametrize("distribution", ["aaa-others", "zzz-others"])
def test_no_other_distribution_replaces_a_task_of_ours(
    distribution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, name="others_task.py")
    installed(tmp_path, monkeypatch, distribution, "modular-addition = others_task:make")
    make, file = find_task("modular-addition", files_allowed=False)
    assert (make.__module__, file) == ("spectra_cli.tasks.modular_addition", None)


def test_every_task_that_is_declared_is_found() -> None:
    """Those of pyproject.toml, each of which can be made or lacks an extra only."""
    declared = {entry.name for entry in entry_points(group="spectra.tasks")}
    assert {"modular-addition", "image-classification", "diffusion", "speech", "language-modeling"} <= declared
    assert declared <= set(task_names())
    for name in declared:
        assert callable(find_task(name, files_allowed=False)[0])


def test_an_entry_point_that_leads_nowhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "number = 3\n", name="others_task.py")
    installed(
        tmp_path, monkeypatch, "others-tasks", "a = absent_module:make\nb = others_task:absent\nc = others_task:number"
    )
    with pytest.raises(TaskError, match="task a: ModuleNotFoundError: No module named 'absent_module'"):
        find_task("a", files_allowed=False)
    with pytest.raises(TaskError, match=r"task b: .*AttributeError"):
        find_task("b", files_allowed=False)
    with pytest.raises(InputError, match="task c: its entry point others_task:number is no callable"):
        find_task("c", files_allowed=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("modular-additon", "there is no task 'modular-additon'. Did you mean modular-addition"),
        ("zzz", "Installed tasks: diffusion, "),
        ("", "there is no task ''"),
    ],
)
def test_a_task_that_does_not_exist_is_told_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_task(name, {}, files_allowed=True)
    assert said in str(caught.value)
    assert "path/to/file.py:make" in str(caught.value)


# files


@pytest.mark.parametrize(
    ("name", "is_file"),
    [
        ("mytask.py:make", True),
        ("mytask.py", True),
        ("dir/mytask.py:make", True),
        ("dir/mytask", True),
        ("modular-addition", False),
        ("a:b", False),
        ("py", False),
    ],
)
def test_what_names_a_file(name: str, is_file: bool) -> None:
    assert is_file_task(name) == is_file


def test_a_file_makes_a_task_with_its_options(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert from_file(path, width="7").model().weight.shape == (2, 7)
    assert make_task(str(path), {}, files_allowed=True).model().weight.shape == (2, 4), "make is the default"
    assert isinstance(from_file(path), Task)
    assert not isinstance(from_file(path), TrainableTask)
    with pytest.raises(UsageError, match="no option 'wdth'"):
        from_file(path, wdth="7")


def test_a_file_may_import_its_neighbours_and_define_dataclasses(tmp_path: Path) -> None:
    written(tmp_path, TASK, name="the_neighbour.py")
    source = """
from __future__ import annotations
from dataclasses import dataclass
from the_neighbour import Tiny

@dataclass
class Task:
    width: int = 3
    splits = ("train",)
    def __post_init__(self):
        tiny = Tiny(self.width)
        self.model, self.batches, self.metrics = tiny.model, tiny.batches, tiny.metrics
"""
    assert from_file(written(tmp_path, source), "Task", width="5").model().weight.shape == (2, 5)


def test_the_code_of_a_file_runs_once_and_again_only_when_it_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path, TASK + "\nwith open(__file__ + '.log', 'a') as log:\n    log.write('x')\n")
    for _ in range(3):
        from_file(path)
    assert (tmp_path / "mytask.py.log").read_text() == "x"
    written(tmp_path, TASK.replace("width: int = 4", "width: int = 11"))
    assert from_file(path).model().weight.shape == (2, 11)


def test_a_module_that_a_file_imports_is_run_anew_when_it_has_changed(tmp_path: Path) -> None:
    """Also one that another imports, in a package: a notebook is one process, in which all of them may change."""
    inner, other = tmp_path / "parts" / "inner.py", tmp_path / "other.py"
    inner.parent.mkdir()
    (inner.parent / "__init__.py").write_text("from parts.inner import WIDTH\n")
    inner.write_text("WIDTH = 3\n")
    other.write_text("MORE = 10\n")
    task = TASK.replace("width: int = 4", "width: int = parts.WIDTH + other.MORE")
    path = written(tmp_path, f"import other, parts\n{task}")
    widths = [from_file(path).model().weight.shape[1]]
    for module, text in ((inner, "WIDTH = 22\n"), (other, "MORE = 300\n"), (inner, "WIDTH = 1  # again\n")):
        module.write_text(text)
        widths.append(from_file(path).model().weight.shape[1])
    assert widths == [13, 32, 322, 301]


def test_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name, width in (("a", 5), ("b", 6)):
        (tmp_path / name).mkdir()
        written(tmp_path / name, TASK.replace("width: int = 4", f"width: int = {width}"))
    tasks = [from_file(tmp_path / name / "mytask.py") for name in "ab"]
    assert [task.model().weight.shape[1] for task in tasks] == [5, 6]


def test_a_file_named_by_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    """What a run.json says must not run code from a path."""
    path = written(tmp_path, "open(__file__ + '.ran', 'w')\n")
    for name in (f"{path}:make", str(path), f"{tmp_path}/mytask"):
        with pytest.raises(InputError, match=r"run\.json: names the task .* a file: code is loaded") as caught:
            make_task(name, {}, files_allowed=False, source="run.json")
        assert f"pass --task {name}" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.py:make", "--task absent.py:make: there is no such file"),
        ("absent/task", "--task absent/task:make: there is no such file"),
        ("mytask.py:mkae", "it has no callable 'mkae'. Give mytask.py:NAME, where NAME is one of make, Tiny."),
        ("mytask.py:torch", "it has no callable 'torch'. Give mytask.py:NAME, where NAME is one of Tiny, make."),
        ("many.py", "--task many.py:make: it has no callable 'make'. Give many.py:NAME, where NAME is one of t0, t1, "),
        ("many.py:absent", "t2, t3, t4, t5, t6, t7 and 2 more."),
        ("empty.py:make", "it has no callable 'make'. Define a function that returns the task"),
        ("./notes.txt:make", "this is no Python file"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_usage_error(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    written(tmp_path, "", "empty.py")
    written(tmp_path, "", "notes.txt")
    written(tmp_path, "".join(f"class t{number}: ...\n" for number in range(10)), "many.py")
    with pytest.raises(UsageError) as caught:
        make_task(name, {}, files_allowed=True)
    assert said in str(caught.value)


def test_a_task_that_is_an_argument_is_not_called_an_option(tmp_path: Path) -> None:
    """`spectra train FILE` has no --task."""
    for name in (f"{tmp_path}/absent.py:make", f"{written(tmp_path)}:absent"):
        with pytest.raises(UsageError) as caught:
            find_task(name, files_allowed=True, source="TASK")
        assert str(caught.value).startswith(f"TASK {name}: ")
        assert "--task" not in str(caught.value)


def test_the_name_of_a_file_holds_in_every_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(written(tmp_path / "here").parent)
    whole = f"{Path.cwd()}/mytask.py:make"
    for name in ("mytask.py", "mytask.py:make", "../here/mytask.py", whole):
        assert settled_name(name) == whole
        assert same_task(name, whole)
    assert settled_name("modular-addition") == "modular-addition"
    assert same_task("modular-addition", "modular-addition")
    assert not same_task("mytask.py:Tiny", whole)
    assert not same_task("modular-addition", whole)


def test_a_file_that_has_moved_is_still_the_task(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (written(tmp_path / name) for name in ("old", "new"))
    assert not same_task(f"{new}:make", f"{old}:make")  # two files of one name
    old.unlink()
    assert same_task(f"{new}:make", f"{old}:make")
    assert not same_task(f"{new}:Tiny", f"{old}:make")


# whose fault


RAISES = {
    "when it is loaded": ("1 / 0\n", "line 1, in <module>: 1 / 0: ZeroDivisionError: division by zero"),
    "when it is called": (
        "def make():\n    return undefined\n",
        "line 2, in make: return undefined: NameError: name 'undefined' is not defined",
    ),
    "by syntax": ("def make(:\n", "line 1: def make(:: SyntaxError: invalid syntax"),
    "without words": ("def make():\n    raise KeyError\n", "line 2, in make: raise KeyError: KeyError"),
    "with a note": (
        "error = ValueError('why')\nerror.add_note('more')\nraise error\n",
        "line 3, in <module>: raise error: ValueError: why",
    ),
    "to end the program": ("import sys\nsys.exit(0)\n", "line 2, in <module>: sys.exit(0): SystemExit: 0"),
    "deep in a library": (
        "import json\ndef make():\n    return json.loads('{')\n",
        "line 3, in make: return json.loads('{'): JSONDecodeError: Expecting property name",
    ),
    "in its splits": (
        "class make:\n model = batches = metrics = 0\n @property\n def splits(self):\n  raise OSError('x')\n",
        "line 5, in splits: raise OSError('x'): OSError: x",
    ),
}


@pytest.mark.parametrize("when", RAISES)
def test_a_file_that_raises_is_told_by_its_own_line(when: str, tmp_path: Path) -> None:
    source, said = RAISES[when]
    path = written(tmp_path, source)
    with pytest.raises(TaskError) as caught:
        from_file(path)
    message = str(caught.value)
    assert message.startswith(f"task {path}:make: {path}, {said}")
    assert message.endswith("SPECTRA_DEBUG=1 shows the whole traceback.")
    assert caught.value.exit_status == 1
    assert caught.value.__cause__ is not None, "the traceback for those who ask"


def test_a_file_that_failed_is_run_anew_when_it_is_mended(tmp_path: Path) -> None:
    path, before = written(tmp_path, "1 / 0\n"), set(sys.modules)
    with pytest.raises(TaskError):
        from_file(path)
    assert not [name for name in set(sys.modules) - before if name.startswith("spectra_task")]
    written(tmp_path)
    from_file(path)


def test_spectras_own_errors_pass_through_a_task(tmp_path: Path) -> None:
    source = (
        "from spectra_cli.errors import InputError\ndef make():\n    raise InputError('no data', remedy='Get it')\n"
    )
    with pytest.raises(InputError, match=r"^no data\. Get it\.$"):
        from_file(written(tmp_path, source))


def test_members_that_raise_are_told_by_the_line_of_the_file(tmp_path: Path) -> None:
    source = """
class Bad:
    splits = ("train",)
    recipe = "whatever"
    def model(self):
        return 1 / 0
    def batches(self, split):
        yield 1
        raise RuntimeError("no more")
    def metrics(self, model, batch):
        return {}[batch]
    def adapt(self, state):
        return state["absent"]
    def loss(self, model, batch):
        raise ValueError("nan")
    @property
    def notice(self):
        raise OSError("no such file")
make = Bad
"""
    task = from_file(written(tmp_path, source))
    with pytest.raises(TaskError, match="line 6, in model: return 1 / 0: ZeroDivisionError"):
        task.model()
    batches = iter(task.batches("train"))
    assert next(batches) == 1
    with pytest.raises(TaskError, match=r"line 9, in batches: .*RuntimeError: no more"):
        next(batches)
    with pytest.raises(TaskError, match=r"line 11, in metrics: .*KeyError: 1"):
        task.metrics(nn.Linear(1, 1), 1)
    with pytest.raises(TaskError, match=r"line 13, in adapt: .*KeyError: 'absent'"):
        task.adapt({})  # type: ignore[attr-defined]  # only some tasks have it
    with pytest.raises(TaskError, match=r"line 15, in loss: .*ValueError: nan"):
        task.loss(nn.Linear(1, 1), 1)  # type: ignore[attr-defined]  # as above
    with pytest.raises(TaskError, match=r"line 18, in notice: .*OSError: no such file"):
        getattr(task, "notice", None)
    assert task.recipe == "whatever"  # type: ignore[attr-defined]  # as above
    with pytest.raises(AttributeError):
        _ = task.training_count  # type: ignore[attr-defined]  # as above


def test_the_batches_of_a_task_are_the_same_every_time_through_the_guard(tmp_path: Path) -> None:
    task = from_file(written(tmp_path))
    first, second = (list(task.batches("val")) for _ in range(2))
    assert [torch.equal(one, other) for one, other in zip(first, second, strict=True)] == [True]


def test_a_guarded_task_can_be_copied(tmp_path: Path) -> None:
    task = from_file(written(tmp_path))
    assert copy.copy(task).splits == ("train", "val")


class Complete:
    splits: object = ("train",)

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def batches(self, split: str) -> list[object]:  # noqa: ARG002 - as the interface has it
        return []

    def metrics(self, model: nn.Module, batch: object) -> dict[str, Metric]:  # noqa: ARG002 - as above
        return {}


@pytest.mark.parametrize("splits", ["train", (), [], None, 3, (1, 2), ("train", "train"), iter(["train"])])
def test_splits_that_are_no_names_are_refused(splits: object) -> None:
    task = Complete()
    task.splits = splits
    with pytest.raises(InputError, match="task x: its splits are"):
        checked_task(task, "x")


@pytest.mark.parametrize("task", [None, 3, "task", object(), nn.Linear(1, 1)])
def test_what_is_no_task_is_refused(task: object) -> None:
    with pytest.raises(InputError, match=f"task x: makes a {type(task).__name__} without .*batches, metrics"):
        checked_task(task, "x")


def test_a_model_that_is_none_is_refused() -> None:
    class NoModel(Complete):
        def model(self) -> nn.Module:
            return 3  # type: ignore[return-value]  # as a user may

    with pytest.raises(InputError, match="task x: model\\(\\) gives a int"):
        GuardedTask(checked_task(NoModel(), "x"), "x", None).model()


def test_the_option_for_the_directory_of_a_checkpoint_is_one_of_the_tasks() -> None:
    def make(checkpoint: str = "") -> None: ...

    assert checkpoint_option(make) is None  # type: ignore[arg-type]  # it makes nothing
    make.checkpoint_option = "checkpoint"  # type: ignore[attr-defined]  # as the interface has it
    assert checkpoint_option(make) == "checkpoint"  # type: ignore[arg-type]  # as above
    make.checkpoint_option = "absent"  # type: ignore[attr-defined]  # as above
    assert checkpoint_option(make) is None  # type: ignore[arg-type]  # as above


def test_errors_of_the_registry_are_errors_for_users() -> None:
    assert issubclass(TaskError, SpectraError)
    assert (TaskError.status, registry.GROUP) == ("task_failed", "spectra.tasks")
