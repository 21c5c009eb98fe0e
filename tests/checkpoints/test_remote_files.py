"""Remote files read by offset: every byte right, none fetched twice where that was announced."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFile
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from spectra_cli.checkpoints.aliases import _same_bytes
from spectra_cli.checkpoints.filespan import FileSpan, read_exactly
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import CheckpointError, CorruptCheckpointError
from spectra_cli.storage import remotefile
from spectra_cli.storage.files import LocalFile, open_file, read_up_to
from spectra_cli.storage.places import place_of
from spectra_cli.storage.ranges import Ranges
from spectra_cli.storage.remotefile import RemoteFile

CONTENT = bytes(torch.randint(256, (50_000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).tolist())


@pytest.fixture(autouse=True)
def fetched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sizes of what was read of the storage in memory, which holds one file."""
    sizes: list[int] = []
    original = MemoryFile.read

    def counting(self: MemoryFile, size: int = -1) -> bytes:
        content = original(self, size)
        sizes.append(len(content))
        return bytes(content)

    monkeypatch.setattr(MemoryFile, "read", counting, raising=False)
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pipe_file("memory://f", CONTENT)
    yield sizes
    storage.store.clear()


def opened(name: str = "f") -> RemoteFile:
    file = open_file(place_of(f"memory://{name}"))
    assert isinstance(file, RemoteFile)
    return file


def read(file: RemoteFile, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: file.read_at(offset, memoryview(buffer))])


RANGES = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)


@given(st.lists(RANGES, max_size=8), RANGES)
def test_ranges_are_sets_of_numbers(added: list[list[int]], asked: list[int]) -> None:
    ranges, numbers = Ranges(), set[int]()
    for start, stop in added:
        ranges.add(start, stop)
        numbers |= set(range(start, stop))
    wanted = set(range(*asked))
    gaps = ranges.missing(*asked)
    assert set().union(*(range(*gap) for gap in gaps)) == wanted - numbers
    assert all(start < stop for start, stop in gaps)
    assert ranges.cover(*asked) == (wanted <= numbers)
    assert ranges.total == len(numbers)


PARTS = st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 9_000))


@given(st.lists(st.tuples(st.booleans(), PARTS), max_size=12), st.sampled_from([1 << 30, 10_000, 0]))
def test_any_reads_give_the_bytes_of_the_file(actions: list[tuple[bool, tuple[int, int]]], kept_bytes: int) -> None:
    """In any order, kept or not, and whatever has to be dropped meanwhile."""
    with pytest.MonkeyPatch.context() as patch, opened() as file:
        patch.setattr(remotefile, "PART_BYTES", 1_000)
        patch.setattr(remotefile, "SMALL_PART_BYTES", 700)
        patch.setattr(remotefile, "HEAD_BYTES", 300)
        patch.setattr(remotefile, "KEPT_BYTES", kept_bytes)
        for keep, (offset, size) in actions:
            if keep:
                file.keep(offset, size)
            assert read(file, offset, size) == CONTENT[offset : offset + size]
            assert file.dispensable_bytes <= kept_bytes


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("kept", [False, True])
def test_a_short_answer_leaves_no_hole(monkeypatch: pytest.MonkeyPatch, part: int, kept: bool) -> None:
    """One of several parts that comes short, once, ends the read there: zeros would pass for weights."""
    monkeypatch.setattr(remotefile, "PART_BYTES", 1_000)
    monkeypatch.setattr(remotefile, "SMALL_PART_BYTES", 700)
    original, start = MemoryFile.read, 10_000
    shortened: list[int] = []

    def short(self: MemoryFile, size: int = -1) -> bytes:
        if self.tell() == start + part * 1_000 and not shortened:
            shortened.append(part)
            return bytes(original(self, size // 3))
        return bytes(original(self, size))

    with opened() as file:
        monkeypatch.setattr(MemoryFile, "read", short)
        if kept:
            file.keep(start, 4_500)
        buffer = bytearray(4_500)
        count = file.read_at(start, memoryview(buffer))
        assert shortened
        assert 0 < count <= len(buffer)
        assert buffer[:count] == CONTENT[start : start + count]
        read_exactly(file, start, memoryview(buffer))
        assert buffer == CONTENT[start : start + 4_500]


def test_file_objects_that_share_their_position_are_used_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a part is read from where another thread has put the position meanwhile."""
    monkeypatch.setattr(remotefile, "PART_BYTES", 1_000)
    monkeypatch.setattr(remotefile, "SMALL_PART_BYTES", 700)
    original, two_threads = MemoryFile.seek, Barrier(2)

    def waiting(self: MemoryFile, offset: int, whence: int = 0) -> int:
        position = original(self, offset, whence)
        with suppress(BrokenBarrierError):  # after the first that waits in vain, none does
            two_threads.wait(0.5)
        return position

    with opened() as file:
        monkeypatch.setattr(MemoryFile, "seek", waiting, raising=False)
        assert read(file, 10_000, 4_000) == CONTENT[10_000:14_000]


def test_what_is_kept_is_fetched_once(fetched: list[int]) -> None:
    with opened() as file:
        for start in (20_000, 10_000, 25_000):
            file.keep(start, 10_000)
        assert sum(fetched) == 25_000
        assert read(file, 10_000, 25_000) == CONTENT[10_000:35_000]
        assert sum(fetched) == 25_000
        file.keep_all()
        assert read(file, 0, len(CONTENT)) == CONTENT
        assert sum(fetched) == len(CONTENT)


def test_copies_of_all_files_together_stay_within_their_limit(
    fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That used longest ago goes first; a whole file that was asked for stays."""
    monkeypatch.setattr(remotefile, "KEPT_BYTES", 30_000)
    fsspec.filesystem("memory").pipe_file("memory://g", CONTENT)
    with opened() as first, opened("g") as second, opened() as whole:
        whole.keep_all()
        first.keep(0, 20_000)
        second.keep(0, 10_000)
        assert (first.dispensable_bytes, second.dispensable_bytes) == (20_000, 10_000)
        second.keep(10_000, 10_000)
        assert (first.dispensable_bytes, second.dispensable_bytes) == (0, 20_000)
        before = sum(fetched)
        assert read(whole, 0, len(CONTENT)) == CONTENT
        assert sum(fetched) == before


def test_a_file_that_more_is_kept_of_goes_after_those_unused_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotefile, "KEPT_BYTES", 30_000)
    for name in "gh":
        fsspec.filesystem("memory").pipe_file(f"memory://{name}", CONTENT)
    with opened() as first, opened("g") as second, opened("h") as third:
        first.keep(0, 10_000)
        second.keep(0, 10_000)
        first.keep(10_000, 5_000)
        third.keep(0, 10_000)
        assert [file.dispensable_bytes for file in (first, second, third)] == [15_000, 0, 10_000]


def test_a_block_of_columns_is_one_piece_of_the_file_and_not_a_row_each(fetched: list[int]) -> None:
    """And the blocks after it are cut from the same piece."""
    tensor = torch.arange(100.0 * 60).reshape(100, 60)
    fsspec.filesystem("memory").pipe_file("memory://m.safetensors", save({"w": tensor}))
    with open_checkpoint(place_of("memory://m.safetensors")) as reader:
        fetched.clear()
        for start in range(0, 60, 20):
            block = reader.read("w", slice(10, 90), slice(start, start + 20))
            assert torch.equal(block, tensor[10:90, start : start + 20])
    assert len(fetched) <= 5  # what is new at either end
    assert sum(fetched) <= tensor[10:90].nbytes


def test_the_beginning_of_a_file_is_fetched_once(fetched: list[int]) -> None:
    """A header of a few kilobytes takes one request, whatever small pieces it is read in."""
    with opened() as file:
        assert read_up_to(file, 512) == CONTENT[:512]
        assert read(file, 0, 8) == CONTENT[:8]
        assert read(file, 8, 3_000) == CONTENT[8:3_008]
        assert fetched == [remotefile.HEAD_BYTES]
        assert read(file, 3_000, 3_000) == CONTENT[3_000:6_000]
        assert sum(fetched) == 6_000


def test_without_room_for_copies_blocks_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that must be copied whole says what to do."""

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with opened() as file:
        file.keep(10_000, 10_000)
        assert read(file, 12_000, 1_000) == CONTENT[12_000:13_000]
        with pytest.raises(CheckpointError, match=r"memory://f: no temporary copy .*No space left.*Set TMPDIR"):
            file.keep_all()


def test_a_copy_has_no_name_and_ends_with_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = opened()
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    file.keep_all()
    assert not list(tmp_path.iterdir())
    file.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kept", [False, True])
def test_a_file_that_ends_early_is_corrupt(kept: bool) -> None:
    with opened() as file:
        fsspec.filesystem("memory").pipe_file("memory://f", CONTENT[:30_000])
        file._pool._idle[:] = [file._pool._open()]
        span = FileSpan(file, 10_000, (100, 100), "float32")
        with pytest.raises(CorruptCheckpointError, match=r"memory://f: the file ends at byte 30000"):
            span.read(slice(0, 99) if kept else slice(None))


@pytest.mark.parametrize(
    ("second", "expected"), [(CONTENT, True), (CONTENT[:-1] + b"!", False), (CONTENT[:100], False)]
)
def test_contents_are_compared_where_the_storage_tells_no_hash(tmp_path: Path, second: bytes, expected: bool) -> None:
    """Also with a file of this machine; the sizes are compared before."""
    (tmp_path / "g").write_bytes(second)
    same = _same_bytes(place_of("memory://f"), tmp_path / "g")
    assert same is expected or len(second) != len(CONTENT)


def test_a_local_file_has_nothing_to_bring(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    with LocalFile(tmp_path / "f") as file:
        file.keep_all()
        file.keep(0, 10)
        assert read_up_to(file, 10**6) == CONTENT
