"""`spectra tasks`: what can be set, as the code has it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from spectra_cli.cli.main import run
from spectra_cli.tasks.registry import find_task, task_names


@pytest.mark.parametrize("name", task_names())
def test_every_option_of_every_task_has_a_meaning_and_its_default(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tasks", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[name]
    parameters = inspect.signature(find_task(name, files_allowed=False)[0]).parameters
    assert [option["name"] for option in told["options"]] == list(parameters)
    for option in told["options"]:
        default = parameters[option["name"]].default
        assert len(option["meaning"]) > 5, option["name"]
        assert "`" not in option["meaning"], option["name"]
        assert (option["default"] is None) == (default is inspect.Parameter.empty)
        if isinstance(default, int | str) and not isinstance(default, bool):
            assert option["default"] == str(default)
    assert told["summary"].endswith(".")
    assert told["recipe"]["lr"] > 0


def test_the_list_names_all_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tasks"]) == 0
    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in task_names())


def test_a_task_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options with and without defaults; what is no trainable task has no recipe."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def make(depth: int, widths: tuple[int, ...] = (8, 4), loud: bool = False):\n"
        '    """Mine.\n\n    Args:\n        depth: of it.\n    """\n'
    )
    assert run(["tasks", "mine.py", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["mine.py"]
    assert told["recipe"] is None
    assert [list(option.values()) for option in told["options"]] == [
        ["depth", "int", None, "of it."],
        ["widths", "list of int", "8,4", ""],
        ["loud", "true or false", "false", ""],
    ]
    assert run(["tasks", "mine.py"]) == 0
    assert "(needed)" in capsys.readouterr().out


def test_a_misspelt_task_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tasks", "difusion"]) == 2
    assert "diffusion" in capsys.readouterr().err


def test_code_of_ones_own_that_raises_is_not_a_fault_of_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The options are told; defaults of any kind are shown."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def make(sizes: dict = {}, shown: bool = True):\n    raise ValueError('boom')\n")
    assert run(["tasks", "mine.py", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["mine.py"]
    assert [option["default"] for option in told["options"]] == ["{}", "true"]
    assert told["recipe"] is None


def test_a_broken_plug_in_hides_no_other_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = task_names()
    monkeypatch.setattr("spectra_cli.tasks.registry.task_names", lambda: ["nosuchtask", *names])
    assert run(["tasks"]) == 0
    printed = capsys.readouterr()
    assert all(f" {name} " in printed.out for name in names)
    assert "nosuchtask" in printed.err
