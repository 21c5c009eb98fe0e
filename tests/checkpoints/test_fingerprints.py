"""Which files a checkpoint depends on, and how a change of one shows."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import CheckpointError, IncompleteCheckpointError

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
CHECKPOINTS = sorted(path for path in FORMATS.glob("*/") if path.name != "refused")
_opened: list[set[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened and isinstance(arguments[0], str | os.PathLike):
        _opened[-1].add(os.path.abspath(os.fspath(arguments[0])))


sys.addaudithook(_note)


@contextmanager
def opened_below(directory: Path) -> Iterator[set[str]]:
    """The files below a directory that the interpreter opens meanwhile, by its own account."""
    _opened.append(set())
    found: set[str] = set()
    try:
        yield found
    finally:
        inside = f"{directory}{os.sep}"
        found |= {name for name in _opened.pop() if name.startswith(inside) and os.path.isfile(name)}


def read_all(path: Path, run_root: Path) -> None:
    read_config(path, run_root)
    with open_checkpoint(path) as reader:
        for name in reader.tensors:
            reader.read(name)


def save(path: Path, scale: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.full((4, 4), scale)}, path)
    return path


def files(path: Path, run_root: Path) -> list[str]:
    return [name for name, _, _ in fingerprint_files(path, run_root)]


@pytest.mark.parametrize("fixture", CHECKPOINTS, ids=lambda path: path.name)
def test_the_files_are_those_that_reading_opens(tmp_path: Path, fixture: Path) -> None:
    """As the interpreter's audit events tell: a directory, and every file in it that opens by itself."""
    root = tmp_path / "run"
    shutil.copytree(fixture, root / "step_1")
    (root / "config.json").write_text('{"model_type": "gpt2"}')
    read = 0
    for path in [root / "step_1", *(root / "step_1").iterdir()]:
        with opened_below(root) as opened:
            try:
                read_all(path, root)
            except CheckpointError:
                continue  # a README, or one that needs its directory
        assert files(path, root) == sorted(opened)
        read += 1
    assert read


def test_sizes_and_times_are_those_of_the_system(tmp_path: Path) -> None:
    path = save(tmp_path / "step_1.safetensors")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert fingerprint_files(path, tmp_path) == ((str(path), path.stat().st_size, 1_234_567_890_123_456_789),)


def test_a_path_relative_to_the_working_directory_gives_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "step_1.safetensors")
    monkeypatch.chdir(tmp_path)
    assert fingerprint_files(Path(path.name), Path()) == fingerprint_files(path, tmp_path)


def _rewrite_shard(directory: Path) -> None:
    save(directory / "model-00002-of-00002.safetensors", scale=2.0)


def _touch_index(directory: Path) -> None:
    os.utime(directory / "model.safetensors.index.json", ns=(0, 0))


def _add_config(directory: Path) -> None:
    (directory / "config.json").write_text("{}")


def _change_config_of_run(directory: Path) -> None:
    (directory.parent / "config.json").write_text('{"num_attention_heads": 4}')


@pytest.mark.parametrize("change", [_rewrite_shard, _touch_index, _add_config, _change_config_of_run])
def test_a_change_of_any_file_shows(tmp_path: Path, change: Callable[[Path], None]) -> None:
    directory = tmp_path / "step_1"
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        os.utime(save(directory / name), ns=(0, 0))
    index = {"weight_map": {"weight": names[0], "other": names[1]}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    before = fingerprint_files(directory, tmp_path)
    assert fingerprint_files(directory, tmp_path) == before
    change(directory)
    assert fingerprint_files(directory, tmp_path) != before


def test_a_config_that_is_none_is_passed_over_and_counts(tmp_path: Path) -> None:
    """The run's is taken as long as the checkpoint's own is broken: both decide."""
    path = save(tmp_path / "step_1" / "model.safetensors")
    for directory, text in ((path.parent, "no JSON"), (tmp_path, '{"model_type": "gpt2"}')):
        (directory / "config.json").write_text(text)
    assert files(path.parent, tmp_path) == sorted(
        map(str, [tmp_path / "config.json", path.parent / "config.json", path])
    )
    (path.parent / "config.json").write_text("{}")
    assert files(path.parent, tmp_path) == sorted(map(str, [path.parent / "config.json", path]))


def test_what_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    directory = tmp_path / "step_1"
    save(directory / "model-00001-of-00002.safetensors")
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(IncompleteCheckpointError, match="model-00002"):
        fingerprint_files(directory, tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        fingerprint_files(tmp_path / "step_2.pt", tmp_path)
    (tmp_path / "step_3").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        fingerprint_files(tmp_path / "step_3", tmp_path)


def test_a_configuration_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not as if there were none: heads are counted by it."""
    path = save(tmp_path / "step_1.safetensors")
    (tmp_path / "config.json").write_text("{}")
    original = os.open

    def denied(file: Any, *arguments: Any, **options: Any) -> int:
        if os.fspath(file).endswith("config.json"):
            raise PermissionError(13, "Permission denied", os.fspath(file))
        return original(file, *arguments, **options)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(CheckpointError, match=r"config\.json: it cannot be read: Permission denied"):
        read_config(path, tmp_path)
