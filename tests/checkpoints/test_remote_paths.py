"""Paths in remote storage, held against pathlib's and the file system's own."""

from __future__ import annotations

import glob
import os
from pathlib import Path, PurePosixPath

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.fingerprints import FileState, _tell_unversioned, fingerprint_files
from spectra_cli.errors import InputError
from spectra_cli.storage import listings
from spectra_cli.storage.files import open_file, read_up_to
from spectra_cli.storage.listings import UNKNOWN_VERSION, Listings
from spectra_cli.storage.places import entries_of, matching, place_of, relative_name
from spectra_cli.storage.remote import RemotePath, remote_path

NAMES = st.text("ab.*@ ", min_size=1, max_size=4).filter(lambda name: set(name) != {"."})


pytestmark = pytest.mark.usefixtures("storage")


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


@pytest.mark.parametrize(
    ("url", "folded"),
    [
        ("s3://b/../../../x", "s3://b/x"),
        ("s3://b/runs/./a/..", "s3://b/runs"),
        ("s3://../x", "s3://x"),
        ("s3://b//a/..//../c", "s3://b/c"),
        ("s3://b/a?/../../c", "s3://b/c"),
        ("https://h/a/../b?next=../c", "https://h/b?next=../c"),
        ("memory:///a/../..", "memory:///a"),
        ("s3://b//a/", "s3://b//a"),
    ],
)
def test_dots_in_a_url_are_folded_within_the_bucket(url: str, folded: str) -> None:
    assert remote_path(url).url == folded
    place = place_of(url)
    assert isinstance(place, RemotePath)
    assert place.url == folded


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


@pytest.mark.parametrize("kinds", [("file", "directory"), ("directory", "file")])
def test_a_key_that_is_also_a_prefix_is_a_directory(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]
) -> None:
    """In whatever order a storage lists both: what lies below is not lost."""
    fill(storage, "r/step_1/model.pt")
    original = MemoryFileSystem.ls
    told = [{"name": "/r/step_1", "type": kind, "size": 0} for kind in kinds]

    def both(self: MemoryFileSystem, path: str, **options: object) -> object:
        return told if path == "memory://r" else original(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", both)
    root = remote_path("memory://r")
    assert [(entry.name, entry.is_dir()) for entry in entries_of(root)] == [("step_1", True)]
    assert (root / "step_1").is_dir()
    assert (root / "step_1" / "model.pt").is_file()


def test_where_a_listing_tells_no_size_the_file_is_asked_for_its_own(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would seem empty."""
    storage.pipe_file("memory://r/config.json", b"{...}")
    told = [{"name": "/r/config.json", "type": "file", "size": None}]
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_, **__: told)
    path = remote_path("memory://r") / "config.json"
    assert path.stat().st_size == 5
    with open_file(path) as file:
        assert read_up_to(file, 100) == b"{...}"


def test_small_files_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all together: beyond it they are read again, and one that exceeds it by itself is never held."""
    monkeypatch.setattr(listings, "REMEMBERED_BYTES", 100)
    known, asked = Listings("memory://r"), list[str]()

    def content(name: str, size: int) -> bytes:
        def read() -> bytes:
            asked.append(name)
            return name.encode() * size

        return known.content(name, read)

    for name, size in [("a", 50), ("b", 50), ("a", 50), ("b", 50), ("c", 1), ("c", 1), ("a", 50)]:
        assert content(name, size) == name.encode() * size
    assert asked == ["a", "b", "c", "a"]
    asked.clear()
    assert [len(content("large", 101)) for _ in range(2)] == [505, 505]
    assert asked == ["large", "large"]


def test_where_a_storage_tells_no_change_the_size_does_and_that_is_told_once(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `--watch` does not analyse every checkpoint again at every look."""
    storage.pipe_file("memory://r/step_1.pt", b"x")
    size = 1

    def info(_: object, path: str = "memory://r/step_1.pt", **__: object) -> dict[str, object]:
        if not path.endswith(".pt"):
            raise FileNotFoundError(path)
        return {"name": "/r/step_1.pt", "type": "file", "size": size}

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_, **__: [info(None)])
    _tell_unversioned.cache_clear()

    def looked() -> tuple[FileState, ...]:
        path = place_of("memory://r/step_1.pt")
        return fingerprint_files(path, path.parent)

    with pytest.warns(UserWarning, match=r"^memory://r tells neither versions nor times .* --verify") as told:
        first = looked()
    assert len(told) == 1
    assert first == looked() == (("memory://r/step_1.pt", 1, UNKNOWN_VERSION),)  # and no warning, which is an error
    size = 2
    assert looked() != first


def test_an_empty_directory_and_an_absent_one_are_told_apart(storage: MemoryFileSystem) -> None:
    storage.makedirs("/r/empty")
    with pytest.raises(InputError, match="the directory is empty"):
        discover("memory://r/empty")
    with pytest.raises(InputError, match="does not exist"):
        discover("memory://r/absent")
