"""A table lives in a file or in remote storage, and is written, read and kept alike in both."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from spectra_cli.errors import InputError, MissingExtraError, UsageError
from spectra_cli.tables.journal import Journal
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.locations import location_of
from spectra_cli.tables.remotetable import RemoteTable
from spectra_cli.tables.replaceable import check_replaceable
from spectra_cli.tables.writer import TableWriter
from tests.tables.anyrows import exact, rank_rows, rank_table

URL = "memory://bucket/rank.parquet"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty storage in memory; temporary files and the cache have a directory of their own."""
    for name in ("temporary", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    assert list((tmp_path / "temporary").iterdir()) == []
    filesystem.store.clear()


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("out", ["a/rank.parquet", "file:///a/rank.parquet", Path("a/rank.parquet"), "s3:/a.parquet"])
def test_what_is_no_url_is_a_file(out: str | Path) -> None:
    assert isinstance(location_of(out), LocalTable)


@pytest.mark.parametrize("out", [URL, "s3://bucket/rank.parquet", "gs://b/c/d", "hf://datasets/me/mine/rank.parquet"])
def test_a_url_is_an_object_that_is_named_as_given(out: str) -> None:
    place = location_of(out)
    assert isinstance(place, RemoteTable)
    assert str(place) == out


@pytest.mark.parametrize("out", [Path("model.safetensors"), "runs/model.PT", "s3://bucket/rank.csv"])
def test_a_name_that_promises_another_format_is_refused(out: str | Path) -> None:
    with pytest.raises(UsageError, match=r"--out .*the table is a Parquet file"):
        location_of(out)


def test_the_journal_of_a_file_is_hidden_beside_what_its_name_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "real" / "rank.parquet")
    path = location_of(tmp_path / "link.parquet").journal_path
    assert path == tmp_path.resolve() / "real" / ".rank.parquet.journal"
    assert location_of(tmp_path / "real" / "rank.parquet").journal_path == path


def test_long_names_have_journals_of_their_own(tmp_path: Path) -> None:
    """However long a name may be, the file is made, and is that of no other name that begins alike."""
    names = [f"{'ä' * 110}{end}.parquet" for end in "ab"]
    paths = {location_of(tmp_path / name).journal_path for name in names}
    assert len(paths) == 2
    for path in paths:
        Journal.open(path, "rank", {}).close()
    with TableWriter(tmp_path / names[0], "rank"):
        pass
    assert left_in(tmp_path) == [names[0]]


def test_a_file_is_read_where_it_is(tmp_path: Path) -> None:
    place = location_of(tmp_path / "t.parquet")
    assert not place.exists()
    with place.read_local() as path:
        assert path is None
    with TableWriter(tmp_path / "t.parquet", "rank"):
        pass
    assert place.exists()
    with place.read_local() as path:
        assert path == tmp_path / "t.parquet"


def test_leftovers_are_the_partial_files_of_the_table_and_nothing_else(tmp_path: Path) -> None:
    others = [
        "t.parquet",
        ".t.parquet.journal",
        ".t.parquet.partial",
        ".t.parquet.abc.partial",
        ".t.parquet.abcdefgh.partial.txt",
        ".x.t.parquet.abcdefgh.partial",
        ".other.parquet.abcdefgh.partial",
        ".txparquet.abcdefgh.partial",
    ]
    for name in [*others, ".t.parquet.abcdefgh.partial", ".t.parquet.ab_d3f9h.partial"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".t.parquet.aaaaaaaa.partial").symlink_to(tmp_path / "t.parquet")
    (tmp_path / ".t.parquet.bbbbbbbb.partial").mkdir()
    location_of(tmp_path / "t.parquet").remove_leftovers()
    assert left_in(tmp_path) == sorted([*others, ".t.parquet.aaaaaaaa.partial", ".t.parquet.bbbbbbbb.partial"])
    location_of(tmp_path / "absent" / "t.parquet").remove_leftovers()


def test_a_partial_file_of_a_writer_that_was_killed_is_a_leftover(tmp_path: Path) -> None:
    place = location_of(tmp_path / "t.parquet")
    TableWriter(place, "rank")
    assert len(left_in(tmp_path)) == 1
    place.remove_leftovers()
    assert left_in(tmp_path) == []


def test_a_table_in_remote_storage_appears_when_it_is_published(storage: Any) -> None:
    with TableWriter(location_of(URL), "rank") as writer:
        writer.write(rank_rows("a"))
        writer.finish()
        assert not storage.exists(URL)
    with storage.open(URL) as file:
        assert exact(pq.read_table(file)) == exact(rank_table("a"))


def test_an_older_table_in_remote_storage_is_kept_and_replaced(storage: Any) -> None:
    place = location_of(URL)
    with TableWriter(place, "rank") as writer:
        writer.write(rank_rows("a"))
    with KeptTable.open(place, "rank", ("run", "checkpoint")) as kept, TableWriter(place, "rank") as writer:
        writer.write_table(kept.rows((".", "a")))
        writer.write(rank_rows("b"))
    with KeptTable.open(location_of(URL), "rank", ("run", "checkpoint")) as kept:
        assert kept.keys_in_order == [(".", "a"), (".", "b")]
        assert exact(kept.rows((".", "a"))) == exact(rank_table("a"))


def test_a_failure_leaves_the_older_object(storage: Any) -> None:
    with TableWriter(location_of(URL), "rank"):
        pass
    before = storage.cat_file(URL)

    def fail() -> None:
        with TableWriter(location_of(URL), "rank") as writer:
            writer.write(rank_rows("a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert storage.cat_file(URL) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"my notes", "no Parquet table"), (b"PAR1...", "cut off")],
)
def test_no_other_object_is_replaced_but_with_fresh(storage: Any, content: bytes, said: str) -> None:
    storage.pipe_file(URL, content)
    with pytest.raises(InputError, match=rf"^{URL}: .*{said}"):
        TableWriter(location_of(URL), "rank")
    assert storage.cat_file(URL) == content
    check_replaceable(location_of(URL), "rank", fresh=True)


def test_a_directory_in_remote_storage_is_not_replaced(storage: Any) -> None:
    storage.pipe_file(f"{URL}/inside", b"x")
    with pytest.raises(InputError, match="this is a directory"):
        TableWriter(location_of(URL), "rank", fresh=True)


def test_the_journal_of_a_url_is_in_the_cache_under_a_name_of_its_own(storage: Any, tmp_path: Path) -> None:
    paths = {location_of(url).journal_path for url in (URL, URL, "memory://other/rank.parquet")}
    assert {path.parent for path in paths} == {tmp_path / "cache" / "spectra" / "journals"}
    assert {path.name[64:] for path in paths} == {"-rank.parquet.journal"}
    assert len(paths) == 2
    assert next(iter(paths)).parent.stat().st_mode & 0o077 == 0  # names of objects are nobody else's business


def test_without_a_configured_cache_it_is_that_of_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for configured in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", configured)
        assert location_of(URL).journal_path.parent == tmp_path / ".cache" / "spectra" / "journals"


def test_a_cache_that_cannot_be_made_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be made.*Set XDG_CACHE_HOME"):
        _ = location_of(URL).journal_path


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("Access Denied"), "cannot be written: the storage denies access: Access Denied.*permissions"),
        (
            FileNotFoundError("The specified bucket does not exist"),
            "there is no such bucket or directory.*Check the",
        ),
        (RuntimeError("Unable to locate credentials"), "cannot be written: .*no credentials.*Check the credentials"),
        (TimeoutError("timed out"), "the table cannot be written: timed out"),
    ],
)
def test_what_a_storage_says_against_an_upload_is_an_input_error(
    storage: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(storage), "put_file", refuse)
    with pytest.raises(InputError, match=rf"(?s)^{URL}: .*{said}"), TableWriter(location_of(URL), "rank"):
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("connection lost"), "connection lost"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError("reset by peer"), "reset by peer"),
        (PermissionError("expired token"), "the storage denies access: expired token"),
        (RuntimeError(f"lost\n{URL}?sig=s3cret again"), f"lost {URL}?sig=... again"),
    ],
)
def test_a_storage_lost_while_a_table_is_looked_at_is_an_input_error(
    storage: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """Not said to be damage, whichever read fails, whether in Python or beneath pyarrow; the object stays."""
    with TableWriter(location_of(URL), "rank") as writer:
        writer.write(rank_rows("a"))
    before = storage.cat_file(URL)
    original, done, failing = MemoryFile.read, list[int](), set[int]()

    def reading(self: MemoryFile, size: int = -1) -> bytes:
        done.append(size)
        if len(done) in failing:
            raise error
        return bytes(original(self, size))

    monkeypatch.setattr(MemoryFile, "read", reading, raising=False)
    check_replaceable(location_of(URL), "rank")
    reads = len(done)
    assert reads > 1
    for each in range(1, reads + 1):
        done.clear()
        failing = {each}
        with pytest.raises(InputError) as caught:
            check_replaceable(location_of(URL), "rank")
        assert str(caught.value) == f"{URL}: cannot be read: {said}."
    assert storage.cat_file(URL) == before


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"spectra-weights\[remote\]"):
        TableWriter(location_of(URL), "rank")


def test_without_any_home_the_journal_of_a_remote_table_asks_for_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(InputError, match=r"rank\.parquet: .*no home directory\. Set XDG_CACHE_HOME"):
        _ = location_of(URL).journal_path
