"""Small remote files that are copied for libraries which read files of this machine alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from spectra_cli.execution.evaluation.taskruns import ChosenTask
from spectra_cli.storage import copies
from spectra_cli.storage.copies import is_plain_name, local_directory
from spectra_cli.storage.files import LocalFile
from spectra_cli.storage.listings import RemoteEntry
from spectra_cli.storage.remote import RemotePath, remote_path
from spectra_cli.tasks.hf_causal_lm import HuggingFaceCausalLM


def test_small_files_are_copied_for_libraries_that_need_them_here(storage: MemoryFileSystem) -> None:
    """Those asked for, once; a directory of this machine is itself."""
    for name in ("config.json", "tokenizer.json", "model.safetensors", "sub/config.json"):
        storage.pipe_file(f"memory://hub/step_1/{name}", name.encode())
    directory = remote_path("memory://hub/step_1")
    copy = local_directory(directory, (".json",))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        "config.json": b"config.json",
        "tokenizer.json": b"tokenizer.json",
    }
    assert local_directory(directory, (".json",)) == copy
    assert local_directory(copy, (".json",)) is copy


def test_a_large_file_is_not_copied(storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name ends in; one of exactly the limit is."""
    monkeypatch.setattr(copies, "LARGEST_COPY_BYTES", 20)
    for name, size in (("tokenizer.json", 20), ("trace.json", 21)):
        storage.pipe_file(f"memory://hub/step_5/{name}", b"x" * size)
    copy = local_directory(remote_path("memory://hub/step_5"), (".json",))
    assert {path.name: path.stat().st_size for path in copy.iterdir()} == {"tokenizer.json": 20}


@pytest.mark.parametrize(
    "url", ["memory://hub/../../../step_3", "memory://../../hub/step_3", "memory://hub/..\\x/step_3"]
)
def test_nothing_of_a_url_stands_in_the_path_of_a_copy(
    storage: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Whatever parts it has, and whether they are folded or not: nothing but a new directory is written to."""
    private = tmp_path / "tmp" / "private"
    private.mkdir(parents=True)
    monkeypatch.setattr(copies, "_temporary", lambda: str(private))
    for path in (remote_path(url), RemotePath(url, remote_path(url).listings)):
        monkeypatch.setattr(copies, "entries_of", lambda _: [RemoteEntry("memory://hub/step_3/a.json", False, 1)])
        monkeypatch.setattr(copies, "open_file", lambda _: LocalFile(Path(__file__)))
        copies._copied.cache_clear()
        copy = local_directory(path, (".json",))
        assert copy.parent == private
        assert [path.name for path in copy.iterdir()] == ["a.json"]
        assert "hub" not in str(copy.relative_to(tmp_path))
    assert {path.parent.parent for path in tmp_path.rglob("*.json")} == {private}


@dataclass
class Named:
    """An entry by any name, as only a broken or hostile storage lists it."""

    name: str

    def is_file(self) -> bool:
        return True

    def stat(self) -> os.stat_result:
        return os.stat(__file__)


ODD = ["../x.json", "/x.json", "a/x.json", "..\\x.json", "a\0.json", "x" * 255 + ".json", "\udfff\ud800.json"]


def test_only_files_with_plain_names_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_temporary", lambda: str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(copies, "entries_of", lambda _: [Named(name) for name in [*ODD, "good.json", "..json"]])
    monkeypatch.setattr(copies, "open_file", lambda _: LocalFile(Path(__file__)))
    copy = local_directory(remote_path("memory://odd"), (".json",))
    assert {path.name for path in copy.iterdir()} == {"good.json", "..json"}
    assert len(list(tmp_path.rglob("*.json"))) == 2
    assert not any(map(is_plain_name, ["", ".", "..", *ODD]))


def test_a_copy_goes_through_no_link_and_over_no_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"own")
    (tmp_path / "link.json").symlink_to(target)
    for name in ("link.json", "target"):
        with pytest.raises(OSError, match=r"exists|Invalid"):
            copies._write_new(tmp_path, name, b"theirs")
    with pytest.raises(OSError, match="Invalid"):
        copies._write_new(tmp_path, "../beside", b"theirs")
    assert target.read_bytes() == b"own"
    assert not (tmp_path.parent / "beside").exists()


def test_a_task_that_takes_a_directory_is_given_a_copy_of_its_files(storage: MemoryFileSystem) -> None:
    """What it is called, as tables record it, stays the URL."""
    storage.pipe_file("memory://hub/step_2/config.json", b'{"model_type": "gpt2", "n_layer": 3}')
    url = "memory://hub/step_2"
    chosen = ChosenTask("hf-causal-lm", {"config": url}, files_allowed=False, source="run.json")
    task = chosen.make()
    assert isinstance(task, HuggingFaceCausalLM)
    assert task.config["n_layer"] == 3
    assert chosen.settings == {"config": url}
