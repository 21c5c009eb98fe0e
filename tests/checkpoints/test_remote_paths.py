"""Paths in remote storage, held against pathlib's and the file system's own."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.errors import CheckpointError, InputError
from spectra_cli.execution.taskruns import ChosenTask
from spectra_cli.storage.copies import local_directory
from spectra_cli.storage.places import entries_of, matching, place_of, relative_name
from spectra_cli.storage.remote import RemotePath, remote_path
from spectra_cli.tasks.hf_causal_lm import HuggingFaceCausalLM

NAMES = st.text("ab.*@ ", min_size=1, max_size=4).filter(lambda name: set(name) != {"."})


@pytest.fixture(autouse=True)
def storage() -> Iterator[MemoryFileSystem]:
    """The storage of fsspec in memory, empty."""
    filesystem = MemoryFileSystem()
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


def fill(storage: MemoryFileSystem, *names: str) -> None:
    for name in names:
        storage.pipe_file(f"memory://{name}", b"x")


# Without any storage


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, max_size=3))
def test_parts_are_those_of_pathlib(outer: list[str], inner: list[str]) -> None:
    """Below the bucket a URL behaves as a path behind the scheme."""
    root, own = remote_path("s3://" + "/".join(outer)), PurePosixPath("/", *outer)
    path, expected = root / "/".join(inner), own / "/".join(inner)
    assert str(path) == f"s3:/{expected}"
    assert path.name == expected.name
    assert path.suffix == expected.suffix
    assert path.parts == ("s3://", *expected.parts[1:])
    assert path.relative_to(root) == expected.relative_to(own)
    assert (root / path.relative_to(root)) == path
    assert str(path.parent) == f"s3:/{expected.parent}"


@pytest.mark.parametrize(
    ("start", "step", "end"),
    [
        ("s3://b/runs/a", "../b", "s3://b/runs/b"),
        ("s3://b/runs", "../../../x", "s3://b/x"),
        ("s3://b", "./a//b/", "s3://b/a/b"),
        ("s3://b/", "", "s3://b"),
        ("memory://", "a", "memory://a"),
        ("s3://b/a", "s3://c/d", "s3://b/a/s3:/c/d"),
    ],
)
def test_no_step_leads_out_of_the_bucket(start: str, step: str, end: str) -> None:
    assert str(remote_path(start) / step) == end


def test_what_lies_elsewhere_is_named_by_its_url() -> None:
    one, other = remote_path("s3://b/runs/a"), remote_path("s3://b/runs/ab")
    assert not other.is_relative_to(one)
    assert relative_name(other, one) == "s3://b/runs/ab"
    assert relative_name(one / "x", one) == "x"
    assert relative_name(one, Path("runs")) == "s3://b/runs/a"
    with pytest.raises(ValueError, match="not below"):
        other.relative_to(one)


def test_equal_urls_are_equal_paths_and_sort_as_text() -> None:
    one, same, other = map(remote_path, ("s3://b/x", "s3://b/x/", "s3://b/a"))
    assert one == same
    assert len({one, same, other}) == 2
    assert sorted([one, other]) == [other, one]


@pytest.mark.parametrize("text", ["runs/a", "C:\\runs", "s3:/b", "://x", "~/runs", "a@b://c"])
def test_what_is_no_url_is_a_path(text: str) -> None:
    assert place_of(text) == Path(text)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert place_of(f"file://{tmp_path}/with%20space") == tmp_path / "with space"
    assert isinstance(place_of("memory://a"), RemotePath)


# In a storage

TREE = (
    "r/a/step_1.pt",
    "r/a/step_10.pt",
    "r/a/.hidden.pt",
    "r/b/c/step_1.pt",
    "r/b/x.txt",
    "r/.d/step_1.pt",
    "r/[1]/s.pt",
)


@pytest.mark.parametrize(
    "pattern",
    ["r/*", "r/*/*", "r/a/step_?.pt", "r/*/step_[0-9].pt", "r/**", "r/**/*.pt", "**/step_1.pt", "r/*/c/step_1.pt",
     "r/.*/*.pt", "r/a/*/x", "r/a/step_1.pt/*", "no*/x", "r/[[]1]/*", "r/*/**"],
)  # fmt: skip
def test_patterns_match_what_they_match_on_disk(storage: MemoryFileSystem, tmp_path: Path, pattern: str) -> None:
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    fill(storage, *(f"t/{name}" for name in TREE))
    found = {
        str(match).removeprefix("memory://t/").rstrip("/") for match in matching(place_of(f"memory://t/{pattern}"))
    }
    expected = {os.path.relpath(match, tmp_path) for match in glob.glob(f"{tmp_path}/{pattern}", recursive=True)}
    assert found == expected


def test_a_path_with_the_letters_of_a_pattern_is_taken_as_written(storage: MemoryFileSystem) -> None:
    fill(storage, "r/[1]/step_1.pt", "r/1/step_2.pt")
    (run,) = discover("memory://r/[1]", peek=lambda _: {})
    assert [checkpoint.name for checkpoint in run.checkpoints] == ["step_1.pt"]


def test_a_listing_is_asked_for_once_and_anew_for_the_next_path(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run grows: what an earlier command saw does not hide a new checkpoint."""
    listed: list[str] = []
    original = MemoryFileSystem.ls

    def counting(self: MemoryFileSystem, path: str, **options: object) -> object:
        listed.append(path)
        return original(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", counting)
    fill(storage, "r/step_1.pt", "r/step_2.pt")
    for expected in ([1, 2], [1, 2, 3]):
        listed.clear()
        (run,) = discover("memory://r", peek=lambda _: {})
        assert [checkpoint.step for checkpoint in run.checkpoints] == expected
        assert [each.path.is_file() for each in run.checkpoints] == [True] * len(expected)
        assert listed == ["memory://r"]
        fill(storage, "r/step_3.pt")


def test_a_storage_that_lists_what_lies_elsewhere_is_not_followed(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(storage, "r/step_1.pt")
    names = ["/r/step_1.pt", "/r/../x/step_2.pt", "/other/step_3.pt", "/r/", "/r/..", "step_4.pt", "/r/sub/step_5.pt"]
    told = [{"name": name, "type": "file", "size": 1} for name in names]
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_, **__: told)
    assert [entry.path for entry in entries_of(remote_path("memory://r"))] == ["memory://r/step_1.pt"]


def test_errors_of_a_library_become_those_of_a_checkpoint(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line that a terminal can show, whatever the library says."""

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no route\nto host\x1b[31m " + "x" * 10_000)

    fill(storage, "r/step_1.pt")
    monkeypatch.setattr(MemoryFileSystem, "ls", failing)
    with pytest.raises(CheckpointError, match=r"^memory://r: the storage cannot be read: no route to host\?") as caught:
        discover("memory://r")
    assert len(str(caught.value)) < 500


def test_a_storage_that_tells_no_change_gives_no_fingerprint(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(storage, "r/step_1.pt")
    path = place_of("memory://r/step_1.pt")
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_: {"name": "/r/step_1.pt", "type": "file", "size": 1})
    with pytest.raises(CheckpointError, match="neither a version nor a time"):
        fingerprint_files(path, path.parent)


def test_an_empty_directory_and_an_absent_one_are_told_apart(storage: MemoryFileSystem) -> None:
    storage.makedirs("/r/empty")
    with pytest.raises(InputError, match="the directory is empty"):
        discover("memory://r/empty")
    with pytest.raises(InputError, match="does not exist"):
        discover("memory://r/absent")


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
    assert copy.parts[-3:] == ("memory", "hub", "step_1")  # as messages of the library name it
    assert local_directory(directory, (".json",)) == copy
    assert local_directory(copy, (".json",)) is copy


def test_a_task_that_takes_a_directory_is_given_a_copy_of_its_files(storage: MemoryFileSystem) -> None:
    """What it is called, as tables record it, stays the URL."""
    storage.pipe_file("memory://hub/step_2/config.json", b'{"model_type": "gpt2", "n_layer": 3}')
    url = "memory://hub/step_2"
    chosen = ChosenTask("hf-causal-lm", {"config": url}, files_allowed=False, source="run.json")
    task = chosen.make()
    assert isinstance(task, HuggingFaceCausalLM)
    assert task.config["n_layer"] == 3
    assert chosen.settings == {"config": url}
