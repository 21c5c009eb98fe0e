"""What is finished is never lost, and what is not whole is never believed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.errors import InputError
from spectra_cli.tables.journal import Entry, Journal, OtherWorkError, TableInUseError
from spectra_cli.tables.packing import UnusableRowsError, packed, unpacked
from spectra_cli.tables.rows import table_of
from spectra_cli.tables.schemas import TABLES, arrow_schema
from tests.tables.anyrows import exact, rank_rows, rank_table, rows_strategy

ROOT = Path(__file__).parents[2]
HEADER = {"match": {"settings": {"tolerance": 1e-5}}, "command": "spectra rank runs"}

Kept = dict[tuple[str | None, ...], tuple[Entry | None, dict[str, list[str]]]]


def opened(path: Path, **header: Any) -> Journal:
    return Journal.open(path, "rank", {**HEADER, **header})


def few(checkpoint: str, seed: int) -> pa.Table:
    """One row, of columns of every kind."""
    columns = ["run", "checkpoint", "depth", "gini", "singular_values", "status"]
    return rank_table(checkpoint, 1, seed).select(columns)


def put(journal: Journal, checkpoint: str, seed: int = 0) -> None:
    facts = {"seed": seed}
    journal.put((".", checkpoint), few(checkpoint, seed), fingerprint=f"of {checkpoint}", facts=facts)


def kept_in(journal: Journal) -> Kept:
    keys = journal.keys()
    return {key: (journal.entry(key), exact(journal.rows(key))) for key in keys}


def expected(checkpoint: str, seed: int = 0) -> Kept:
    entry = Entry(f"of {checkpoint}", None, {"seed": seed})
    return {(".", checkpoint): (entry, exact(few(checkpoint, seed)))}


def filled(path: Path, count: int) -> list[int]:
    """A journal of units 0, 1 ..., closed; the sizes of the file before and after each."""
    with opened(path) as journal:
        sizes = [path.stat().st_size]
        for number in range(count):
            put(journal, str(number))
            sizes.append(path.stat().st_size)
    return sizes


def first(count: int) -> Kept:
    return {key: value for number in range(count) for key, value in expected(str(number)).items()}


@given(data=st.data(), table=st.sampled_from(list(TABLES)))
@settings(max_examples=30)
def test_rows_come_back_to_the_bit(data: st.DataObject, table: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Null and NaN, empty lists and lists of lists, texts that are none; from the open journal and from a later one."""
    path = tmp_path_factory.mktemp("journal") / "j"
    schema = arrow_schema(table, ["tag"])
    units = {str(number): table_of(data.draw(rows_strategy(table, ("tag",))), schema) for number in range(2)}
    with Journal.open(path, table, HEADER) as journal:
        for name, rows in units.items():
            journal.put((name, None), rows, fingerprint=name)
            assert journal.rows((name, None)).equals(rows) or exact(journal.rows((name, None))) == exact(rows)
    with Journal.open(path, table, HEADER) as journal:
        assert journal.keys() == [(name, None) for name in units]
        for name, rows in units.items():
            assert journal.rows((name, None)).schema.equals(schema)
            assert exact(journal.rows((name, None))) == exact(rows)


def test_what_was_put_is_on_record_with_its_rows(tmp_path: Path) -> None:
    entry = Entry("f", "c", {"none": None, "list": [1, {"deep": [1.5]}]})
    with opened(tmp_path / "j") as journal:
        assert journal.found_header is None
        assert journal.entry((".", "a")) is None
        journal.put((".", "a"), rank_table("a"), fingerprint="f", content="c", facts=entry.facts)
        assert journal.entry((".", "a")) == entry
        with pytest.raises(KeyError):
            journal.rows((".", "b"))
    with opened(tmp_path / "j", command="another") as journal:
        assert journal.found_header is not None
        assert journal.found_header["match"] == HEADER["match"]
        assert journal.entry((".", "a")) == entry


def test_the_later_record_of_a_unit_replaces_the_former(tmp_path: Path) -> None:
    with opened(tmp_path / "j") as journal:
        for checkpoint, seed in [("a", 0), ("b", 0), ("a", 1)]:
            put(journal, checkpoint, seed)
        after = {**expected("a", 1), **expected("b")}
        assert kept_in(journal) == after
    with opened(tmp_path / "j") as journal:
        assert kept_in(journal) == after


def test_a_key_is_found_by_its_name_as_a_file_and_as_the_table_has_it(tmp_path: Path) -> None:
    with opened(tmp_path / "j") as journal:
        put(journal, os.fsdecode(b"step_\xff"))
        assert journal.keys() == [(".", r"step_\udcff")]
        assert journal.entry((".", r"step_\udcff")) == journal.entry((".", os.fsdecode(b"step_\xff"))) is not None


@pytest.mark.parametrize("change", [{"match": {"settings": {"tolerance": 1e-6}}}, {"match": None}])
def test_what_another_work_has_finished_is_not_lost(tmp_path: Path, change: dict[str, Any]) -> None:
    """A slip in a command line must not cost what an interrupted one has taken hours for."""
    filled(tmp_path / "j", 2)
    before = kept_before(tmp_path / "j")
    with pytest.raises(OtherWorkError) as caught, opened(tmp_path / "j", **change):
        pass
    assert caught.value.found_header["match"] == HEADER["match"]
    assert caught.value.finished == 2
    assert kept_before(tmp_path / "j") == before


@pytest.mark.parametrize("change", [{"match": {"settings": {"tolerance": 1e-6}}}, {"match": None}])
def test_another_work_that_has_finished_nothing_is_in_nobodys_way(tmp_path: Path, change: dict[str, Any]) -> None:
    """A journal without a record is left behind by a process that is killed."""
    journal = opened(tmp_path / "j")
    journal._let_go()
    with opened(tmp_path / "j", **change) as journal:
        put(journal, "a")
    with opened(tmp_path / "j", **change) as journal:
        assert kept_in(journal) == expected("a")


def kept_before(path: Path) -> dict[Any, Any]:
    with opened(path) as journal:
        return kept_in(journal)


def test_records_of_another_table_are_another_works(tmp_path: Path) -> None:
    filled(tmp_path / "j", 2)
    with pytest.raises(OtherWorkError):
        Journal.open(tmp_path / "j", "sva", HEADER)


def test_a_fresh_journal_begins_empty(tmp_path: Path) -> None:
    filled(tmp_path / "j", 2)
    with Journal.open(tmp_path / "j", "rank", HEADER, fresh=True) as journal:
        assert journal.keys() == []
    assert not (tmp_path / "j").exists()


def test_the_file_stays_while_it_holds_anything_and_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    opened(path).close()
    assert not path.exists()
    filled(path, 1)
    assert path.exists()
    journal = opened(path)
    journal.remove()
    journal.remove()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_of_a_journal_cut_anywhere_the_whole_records_are_left(tmp_path: Path) -> None:
    """Cut at every byte of the last two records; afterwards it can be written on as if there had been no more."""
    path = tmp_path / "j"
    sizes = filled(path, 4)
    content = path.read_bytes()
    for length in range(sizes[2], sizes[4]):
        path.write_bytes(content[:length])
        whole = 2 if length < sizes[3] else 3
        with opened(path) as journal:
            assert kept_in(journal) == first(whole)
            assert path.stat().st_size == sizes[whole]
    with opened(path) as journal:
        put(journal, "3")
    assert path.read_bytes()[sizes[0] :] == content[sizes[0] :]


def test_of_a_journal_cut_in_its_beginning_nothing_is_left_and_it_works(tmp_path: Path) -> None:
    path = tmp_path / "j"
    sizes = filled(path, 1)
    content = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 20, 4095, 4096, 4097, sizes[0] - 1]:
        path.write_bytes(content[:length])
        with opened(path) as journal:
            assert journal.keys() == []
            assert journal.found_header is None
            put(journal, "0")
        with opened(path) as journal:
            assert kept_in(journal) == first(1)


def test_no_flipped_bit_makes_wrong_rows(tmp_path: Path) -> None:
    """The record is as if it had not been written; all others are there."""
    path = tmp_path / "j"
    sizes = filled(path, 5)
    content = path.read_bytes()
    whole = first(5)
    draw = np.random.default_rng(6)
    for place in map(int, draw.integers(sizes[0], len(content), 600)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.integers(8)
        path.write_bytes(damaged)
        with opened(path) as journal:
            kept = kept_in(journal)
        (hit,) = [number for number in range(5) if sizes[number] <= place < sizes[number + 1]]
        assert kept == {key: value for key, value in whole.items() if key != (".", str(hit))}


def test_a_flipped_bit_in_the_beginning_costs_at_most_the_records(tmp_path: Path) -> None:
    path = tmp_path / "j"
    sizes = filled(path, 2)
    content = path.read_bytes()
    draw = np.random.default_rng(7)
    for place in [*range(8), *map(int, draw.integers(8, 4096, 20)), *range(4096, sizes[0])]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << draw.integers(8)
        path.write_bytes(damaged)
        if place < 8:
            with pytest.raises(InputError, match="none that spectra wrote"):
                opened(path)
            assert path.read_bytes() == damaged
            continue
        with opened(path) as journal:
            assert kept_in(journal) == (first(2) if place < 4096 else {})


def test_what_follows_a_damaged_stretch_is_found(tmp_path: Path) -> None:
    """A sector that is lost costs the records that it holds."""
    path = tmp_path / "j"
    sizes = filled(path, 6)
    content = bytearray(path.read_bytes())
    start = (sizes[1] + sizes[2]) // 2
    content[start : sizes[3] + 10] = bytes(sizes[3] + 10 - start)
    path.write_bytes(content)
    with opened(path) as journal:
        assert list(kept_in(journal)) == [(".", name) for name in "045"]
        put(journal, "6")
    with opened(path) as journal:
        assert kept_in(journal) == {key: value for key, value in first(7).items() if key[1] not in {"1", "2", "3"}}


@contextmanager
def room_for(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[None]:
    """A disk that is full after so many bytes; of the write that meets the end, a part is written."""
    real, left = os.pwrite, [count]

    def pwrite(handle: int, content: Any, offset: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(handle, bytes(content)[: left[0]], offset)
        left[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        yield


def test_a_disk_that_fills_up_at_any_byte_costs_nothing_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j"
    sizes = filled(tmp_path / "another", 4)
    filled(path, 3)
    with opened(path) as journal:
        for room in range(0, sizes[4] - sizes[3], 7):
            with room_for(monkeypatch, room), pytest.raises(InputError, match=r"No space left.*run the same command"):
                put(journal, "3")
            assert path.stat().st_size == sizes[3]
        assert kept_in(journal) == first(3)
        put(journal, "3")
        assert kept_in(journal) == first(4)
    with opened(path) as journal:
        assert kept_in(journal) == first(4)


def test_a_disk_that_is_full_from_the_beginning_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    for room in (0, 1, 9, 4095, 4096, 4100):
        with room_for(monkeypatch, room), pytest.raises(InputError, match="No space left"):
            opened(path)
        assert list(tmp_path.iterdir()) == []


def test_what_is_damaged_while_the_journal_is_open_is_not_believed(tmp_path: Path) -> None:
    """A flipped bit of compressed rows may well be rows, and others."""
    path = tmp_path / "j"
    sizes = filled(path, 2)
    content = path.read_bytes()
    body = range(sizes[1] - 200, sizes[1])
    with opened(path) as journal:
        for offset in body:
            damaged = bytearray(content)
            damaged[offset] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(InputError, match="what was kept is damaged"):
                journal.rows((".", "0"))
            assert exact(journal.rows((".", "1"))) == first(2)[".", "1"][1]


def test_what_could_not_be_read_again_is_not_put(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path, 1)
    with opened(path) as journal:
        with pytest.raises(ValueError, match="more than a frame holds"):
            journal.put((".", "1"), few("1", 0), fingerprint="", facts={"text": "x" * (1 << 20)})
        assert kept_in(journal) == first(1)
        put(journal, "1")
    with opened(path) as journal:
        assert kept_in(journal) == first(2)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Device and number of each file or directory that is put on the disk, with all that was written to it before."""
    told: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        told.append((status.st_dev, status.st_ino))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return told


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_a_journal_that_is_begun_is_found_after_a_power_failure(tmp_path: Path, synced: list[tuple[int, int]]) -> None:
    """The name of a file is on the disk when its directory is: the bytes of a file without a name are lost."""
    with opened(tmp_path / "j") as journal:
        assert synced.index(identity(tmp_path / "j")) < synced.index(identity(tmp_path))
        put(journal, "0")


def test_every_record_is_on_the_disk_when_it_is_put(tmp_path: Path, synced: list[tuple[int, int]]) -> None:
    with opened(tmp_path / "j") as journal:
        for name in "01":
            synced.clear()
            put(journal, name)
            assert synced == [identity(tmp_path / "j")]


def test_bytes_that_do_not_come_to_the_disk_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    sizes = filled(path, 1)
    with opened(path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
            with pytest.raises(InputError, match="Input/output error"):
                put(journal, "1")
        assert path.stat().st_size == sizes[1]
        assert journal.keys() == [(".", "0")]


def test_a_limit_of_the_system_on_files_is_a_full_disk(tmp_path: Path) -> None:
    """The real thing, without anything put in the place of the system's calls."""
    path = tmp_path / "j"
    sizes = filled(path, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[2] + 100, hard))
        try:
            with pytest.raises(InputError, match=r"File too large.*ulimit -f"):
                put(journal, "2")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.stat().st_size == sizes[2]
    with opened(path) as journal:
        assert kept_in(journal) == first(2)


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from spectra_cli.tables.journal import Journal
from tests.tables.anyrows import exact, rank_table
path, header, draw = Path(sys.argv[1]), {"match": 1, "command": "x"}, random.Random(8)
rows, before = {str(n): rank_table(str(n), 40) for n in range(400)}, 0
for turn in range(20):
    reading, tell = os.pipe()
    child = os.fork()
    if not child:
        with Journal.open(path, "rank", header) as journal:
            for n in range(before, before + 20):
                journal.put((".", str(n)), rows[str(n)], fingerprint=str(n))
                os.write(tell, b"%d\\n" % n)
            time.sleep(600)  # far ahead of a slow parent, which kills it in the end
    os.close(tell)
    with open(reading, "rb") as told:
        for _ in range(draw.randrange(1, 6)):
            safe = int(told.readline())
        time.sleep(draw.random() * 0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        safe = max([safe, *map(int, told.read().split())])
    with Journal.open(path, "rank", header) as journal:
        keys = journal.keys()
        assert keys == [(".", str(n)) for n in range(len(keys))], keys
        assert safe < len(keys) <= safe + 2, (safe, len(keys))
        for key in keys[before:]:
            assert exact(journal.rows(key)) == exact(rows[key[1]])
    before = len(keys)
print("turns", turn + 1, "kept", before)
"""


def test_a_killed_process_leaves_what_it_had_put_and_no_part_of_more(tmp_path: Path) -> None:
    """SIGKILL at any moment, twenty times: what was put is there, in order, and at most the one that was being put."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "j")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("turns 20 kept ")


HOLDING = """
import sys, time
from pathlib import Path
from spectra_cli.tables.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "rank", {"match": 1, "command": "spectra rank somewhere"})
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_table_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    command = [sys.executable, "-c", HOLDING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(TableInUseError) as caught:
            opened(path)
        told = str(caught.value)
        for part in (f"process {process.pid} on {os.uname().nodename} since 20", "spectra rank somewhere", "Wait"):
            assert part in told
        process.send_signal(signal.SIGKILL)
        process.wait()
    opened(path).close()


def test_a_journal_is_held_against_its_own_process_too(tmp_path: Path) -> None:
    with opened(tmp_path / "j") as journal:
        assert journal.locked
        with pytest.raises(TableInUseError, match=f"process {os.getpid()} on"):
            opened(tmp_path / "j")
        put(journal, "0")
        assert kept_in(journal) == first(1)


def holder_told(signature: bytes, checksum: int | None = None) -> bytes:
    """The beginning of a journal as a holder writes it, or as nobody does."""
    told = json.dumps({"pid": 1, "host": "h", "since": "2020", "command": "c"}).encode()
    return signature + struct.pack("<II", len(told), zlib.crc32(told) if checksum is None else checksum) + told


def test_the_format_of_these_tests_is_that_of_holders(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(holder_told(b"spectraj"))
    with (tmp_path / "j").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TableInUseError, match=r"process 1 on h since 2020 \(c\)"):
            opened(tmp_path / "j")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"spectraj",
        b"spectraj" + b"\xff" * 8 + b"{}" * 100,
        b"other",
        holder_told(b"otherone"),
        holder_told(b"spectraj", checksum=0),
    ],
)
def test_whoever_holds_it_without_saying_so_is_another_process(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "j").write_bytes(head)
    with (tmp_path / "j").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TableInUseError, match="being made by another process"):
            opened(tmp_path / "j")


def test_what_a_holder_says_of_itself_is_shown_as_text(tmp_path: Path) -> None:
    told = json.dumps({"pid": "\x1b[31m", "host": [[]], "since": None, "command": "x" * 3000}).encode()
    (tmp_path / "j").write_bytes(b"spectraj" + struct.pack("<II", len(told), zlib.crc32(told)) + told)
    with (tmp_path / "j").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TableInUseError) as caught:
            opened(tmp_path / "j")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_removed_while_it_is_being_locked_is_not_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two processes would each hold a file, and only one of them the one that the path leads to."""
    real, removed = fcntl.flock, []

    def flock(handle: int, operation: int) -> None:
        if len(removed) < 3:
            removed.append((tmp_path / "j").stat().st_ino)
            (tmp_path / "j").unlink()
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with opened(tmp_path / "j") as journal:
        assert len(removed) == 3
        put(journal, "0")
    with opened(tmp_path / "j") as journal:
        assert kept_in(journal) == first(1)


@pytest.mark.parametrize("way", ["another", "a link to it", "nothing"])
def test_what_has_come_into_the_place_of_a_journal_is_not_removed_with_it(tmp_path: Path, way: str) -> None:
    """Somebody may have moved it away, and another process have begun its own."""
    path, moved = tmp_path / "j", tmp_path / "moved"
    journal = opened(path)
    put(journal, "0")
    path.rename(moved)
    if way == "another":
        filled(path, 1)
    elif way == "a link to it":
        path.symlink_to(moved)
    before = sorted(tmp_path.iterdir())
    journal.remove()
    assert sorted(tmp_path.iterdir()) == before


def test_a_command_of_any_length_leaves_the_records_alone(tmp_path: Path) -> None:
    """Its holder is told in front of them, in a room that has an end; each character may take twelve bytes there."""
    for number in range(2):
        with opened(tmp_path / "j", command="\U0001f600" * 5000) as journal:
            assert kept_in(journal) == first(number)
            put(journal, str(number))


def test_a_file_system_without_locks_is_worked_on_and_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with opened(tmp_path / "j") as journal:
        assert not journal.locked
        put(journal, "0")
        assert kept_in(journal) == first(1)


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a pipe", "a directory", "a file"])
def test_what_stands_in_the_place_of_the_journal_is_neither_followed_nor_written_to(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "j", tmp_path / "target"
    filled(target, 1)
    before = target.read_bytes()
    make = {
        "a link": lambda: path.symlink_to(target),
        "a link to nothing": lambda: path.symlink_to(tmp_path / "new"),
        "a pipe": lambda: os.mkfifo(path),
        "a directory": path.mkdir,
        "a file": lambda: path.write_bytes(b"my notes"),
    }
    make[kind]()
    said = "this file is none" if kind == "a file" else kind.removesuffix(" to nothing")
    with pytest.raises(InputError, match=rf"j: {said}.* stands where what is finished is kept.*Move it away"):
        opened(path)
    assert target.read_bytes() == before
    assert not (tmp_path / "new").exists()
    assert kind != "a file" or path.read_bytes() == b"my notes"


def test_a_directory_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.*No such file or directory.*--out"):
        opened(tmp_path / "absent" / "j")


def frame(
    label: bytes, head: bytes, body: bytes, *, head_bytes: int | None = None, body_bytes: int | None = None
) -> bytes:
    """A frame as the format has it, whose lengths may lie."""
    lengths = (len(head) if head_bytes is None else head_bytes, len(body) if body_bytes is None else body_bytes)
    fields = struct.pack("<4sIIQI", label, lengths[0], zlib.crc32(head), lengths[1], zlib.crc32(body))
    return fields + struct.pack("<I", zlib.crc32(fields)) + head + body


def head_of(key: Any = (".", "x"), entry: Any = ("f", None, {})) -> bytes:
    return json.dumps({"key": key, "entry": entry}).encode()


DEEP = b'{"key":[".","x"],"entry":["f",null,{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"

HOSTILE = {
    "head longer than the file": frame(b"spRC", b"", b"", head_bytes=1 << 31),
    "body longer than the file": frame(b"spRC", head_of(), b"", body_bytes=1 << 62),
    "body somewhat longer than the file": frame(b"spRC", head_of(), b"", body_bytes=1 << 20),
    "lengths beyond 64 bits": frame(b"spRC", head_of(), b"", head_bytes=(1 << 32) - 1, body_bytes=(1 << 64) - 1),
    "head too long": frame(b"spRC", b" " * (1 << 20) + head_of(), b""),
    "deep head": frame(b"spRC", DEEP, b""),
    "facts somewhat too deep": frame(
        b"spRC", head_of(entry=["f", None, json.loads('{"a":' * 30 + "1" + "}" * 30)]), b""
    ),
    "head that is no object": frame(b"spRC", b"[1]", b""),
    "head that is no JSON": frame(b"spRC", b"\xff\xfe", b""),
    "key of numbers": frame(b"spRC", head_of(key=[1, 2]), b""),
    "entry too short": frame(b"spRC", head_of(entry=["f"]), b""),
    "entry of numbers": frame(b"spRC", head_of(entry=[1, 2, {}]), b""),
    "a second header": frame(b"spHD", b"{}", b""),
    "another label": frame(b"spXX", head_of(), b""),
    "beginnings of frames": b"spRC" * 50_000,
    "beginnings with lengths": frame(b"spRC", head_of(), b"")[:28] * 5000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_passed_over(tmp_path: Path, name: str) -> None:
    """It neither costs memory nor what stands around it, as far as that can still be told apart."""
    path = tmp_path / "j"
    sizes = filled(path, 2)
    content = path.read_bytes()
    path.write_bytes(content[: sizes[1]] + HOSTILE[name] + content[sizes[1] :])
    with opened(path) as journal:
        kept = kept_in(journal)
        assert kept == first(
            1 if name.startswith("beginnings") else 2
        )  # the last beginning takes a part of what follows
        put(journal, "2")
    with opened(path) as journal:
        assert kept_in(journal) == {**kept, **expected("2")}


def body_of(layout: Any, *buffers: bytes, size: int | None = None) -> bytes:
    """Packed rows as the format has them, whose layout may lie."""
    told = json.dumps(layout).encode()
    plain = b"".join(piece + bytes(-len(piece) % 64) for piece in (told, *buffers))
    return struct.pack("<QI", len(plain) if size is None else size, len(told)) + compressed(plain)


def compressed(plain: bytes) -> bytes:
    return bytes(pa.compress(plain, "zstd", asbytes=True))


def depth(*node: Any) -> dict[str, Any]:
    """The layout of one row with one column."""
    return {"rows": 1, "columns": {"depth": list(node)}}


def texts(offsets: tuple[int, int], text: bytes) -> bytes:
    return body_of({"rows": 1, "columns": {"run": [1, [None, 8, len(text)]]}}, struct.pack("<ii", *offsets), text)


NO_ROWS = {
    "nothing": b"",
    "few bytes": b"1234567",
    "a size beyond all": struct.pack("<QI", 1 << 63, 10) + b"x",
    "a layout beyond all": struct.pack("<QI", 1 << 20, (1 << 32) - 1) + compressed(bytes(1 << 20)),
    "a layout longer than any": body_of({**depth(1, [None, 4]), "more": "x" * (1 << 20)}, b"1234"),
    "no compressed bytes": struct.pack("<QI", 100, 10) + b"x",
    "less than it says": struct.pack("<QI", 1 << 20, 1 << 10) + compressed(b"{}"),
    "a bomb": struct.pack("<QI", 1 << 26, 10) + compressed(bytes(1 << 28)),
    "a deep layout": body_of(json.loads("[" * 900 + "]" * 900)),
    "no object": body_of([1]),
    "a layout without columns": body_of({"rows": 1}),
    "another type of columns": body_of({"rows": 1, "columns": [1, 2]}),
    "a node that is none": body_of(depth("x", [None, 4]), b"1234"),
    "too few buffers": body_of(depth(1, [4]), b"1234"),
    "no numbers": body_of(depth(1, [None, None])),
    "numbers that are too short": body_of(depth(1, [None, 3]), b"123"),
    "a buffer behind the end": body_of(depth(1, [None, 1 << 40]), b"1234"),
    "a negative size": body_of(depth(1, [None, -4]), b"1234"),
    "a negative length": body_of(depth(-1, [None, 4]), b"1234"),
    "a length beyond all": body_of(depth(1 << 62, [None, 4]), b"1234"),
    "true as a length of text": body_of(depth(True, [None, "4"]), b"1234"),
    "another number of rows": body_of({**depth(1, [None, 4]), "rows": 2}, b"1234"),
    "offsets behind the text": texts((0, 1000), b"abc"),
    "negative offsets": texts((-5, 1), b"abc"),
    "text that is none": texts((0, 3), b"\xff\xfe\xfd"),
    "a list without its numbers": body_of({"rows": 1, "columns": {"singular_values": [1, [None, 8]]}}, bytes(8)),
}


@pytest.mark.parametrize("name", NO_ROWS)
def test_rows_that_are_none_are_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    """The checksums of the record are right, as somebody has made it so."""
    path = tmp_path / "j"
    filled(path, 1)
    with path.open("ab") as file:
        file.write(frame(b"spRC", head_of(), NO_ROWS[name]))
    with opened(path) as journal:
        assert journal.keys() == [(".", "0"), (".", "x")]
        with pytest.raises(InputError, match=r"j: what was kept is damaged.*Remove this file"):
            journal.rows((".", "x"))
        assert exact(journal.rows((".", "0"))) == first(1)[".", "0"][1]


def test_the_format_of_these_tests_is_that_of_rows(tmp_path: Path) -> None:
    """Else what is refused above might be refused for another reason."""
    path = tmp_path / "j"
    filled(path, 1)
    with path.open("ab") as file:
        file.write(frame(b"spRC", head_of(), body_of(depth(1, [None, 4]), struct.pack("<i", 7))))
        file.write(frame(b"spRC", head_of(key=(".", "y")), texts((0, 3), b"abc")))
    with opened(path) as journal:
        assert journal.rows((".", "x")).to_pylist() == [{"depth": 7}]
        assert journal.rows((".", "y")).to_pylist() == [{"run": "abc"}]


@pytest.mark.parametrize("table", ["rank", "align"])
def test_no_changed_byte_of_packed_rows_does_worse_than_an_error(table: str) -> None:
    """Changes that the checksums of the record do not see: what comes back is a table that Arrow finds valid."""
    rows = [{"run": "a", "diagonal": [1.0], "alignment": [[1.0, 2.0], [3.0, 4.0]], "primary": True}, {}]
    rows += rank_rows("x", 2)
    schema = arrow_schema(table)
    content = bytes(packed(table_of(rows, schema), table))
    size, layout_size = struct.unpack_from("<QI", content)
    plain = pa.CompressedInputStream(pa.BufferReader(content[12:]), "zstd").read()
    assert len(plain) == size
    draw, refused = np.random.default_rng(9), 0
    for _ in range(500):
        changed = bytearray(plain)
        for place in draw.integers(len(changed), size=draw.integers(1, 4)):
            changed[place] = draw.choice([0, 1, 0x30, 0x39, 0x80, 0xFF, draw.integers(256)])
        body = struct.pack("<QI", len(changed), layout_size) + compressed(bytes(changed))
        try:
            unpacked(body, table).validate(full=True)
        except UnusableRowsError:
            refused += 1
    assert 50 < refused < 450


def test_rows_of_other_types_are_not_put(tmp_path: Path) -> None:
    with opened(tmp_path / "j") as journal, pytest.raises(ValueError, match="the column depth is int64, not int32"):
        journal.put((".", "a"), pa.table({"depth": [1]}), fingerprint="")


def test_a_piece_of_a_larger_table_is_put_as_such(tmp_path: Path) -> None:
    """And not with all that its buffers hold beside it."""
    whole = rank_table("a", 500)
    with opened(tmp_path / "j") as journal:
        journal.put((".", "a"), pa.concat_tables([whole.slice(100, 1), whole.slice(7, 2)]), fingerprint="")
        expected_rows = pa.concat_tables([rank_table("a", 101).slice(100), rank_table("a", 9).slice(7)])
        assert exact(journal.rows((".", "a"))) == exact(expected_rows)
    assert (tmp_path / "j").stat().st_size < 10_000


def test_known_matrices_are_those_of_all_records_also_of_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "j"
    rows = {name: rank_rows(name) for name in "abc"}
    schema = arrow_schema("rank")

    def known(journal: Journal) -> set[str]:
        each = [row for of_unit in rows.values() for row in of_unit]
        return {
            row["checkpoint"]
            for row in each
            if (row["digest"], row["kind"], row["rows"], row["cols"]) in journal.known_matrices()
        }

    with opened(path) as journal:
        journal.put((".", "a"), table_of(rows["a"], schema), fingerprint="")
        assert known(journal) == {"a"}
        journal.put((".", "b"), table_of(rows["b"], schema), fingerprint="")
        assert known(journal) == {"a", "b"}
    with opened(path) as journal:
        assert known(journal) == {"a", "b"}
        for row in rows["b"]:
            found = journal.matrix_row(row["digest"], row["kind"], row["rows"], row["cols"])
            assert found["gini"] == row["gini"]
            assert found["singular_values"].dtype == row["singular_values"].dtype
            assert (found["singular_values"] == row["singular_values"]).all()
        with pytest.raises(KeyError):
            journal.matrix_row(rows["c"][0]["digest"], "linear", 8, 4)


TIB = 1 << 40


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes are read of files, read by read."""
    counts: list[int] = []
    real = os.pread

    def pread(handle: int, count: int, offset: int) -> bytes:
        content = real(handle, count, offset)
        counts.append(len(content))
        return content

    monkeypatch.setattr(os, "pread", pread)
    return counts


def test_a_planted_file_of_any_size_costs_no_time(tmp_path: Path, read_bytes: list[int]) -> None:
    """A tebibyte of holes, with nothing in it, with a header that claims it all, and behind good records."""
    good = frame(b"spHD", json.dumps({**HEADER, "table": "rank/1"}).encode(), b"")
    lying = frame(b"spHD", b"{}", b"", body_bytes=TIB // 128)
    claims = frame(b"spRC", head_of(), b"", body_bytes=TIB // 128)
    for planted in (b"", lying, good + claims, good + b"spRC" * 10, good + claims + bytes(100) + claims):
        path = tmp_path / "j"
        path.write_bytes(b"spectraj".ljust(4096, b"\0") + planted)
        os.truncate(path, TIB)
        read_bytes.clear()
        with opened(path) as journal:
            assert journal.keys() == []
            assert path.stat().st_size < 1 << 20
        assert sum(read_bytes) < 1 << 28
        path.unlink(missing_ok=True)


def test_records_without_a_header_in_front_are_of_no_use(tmp_path: Path, read_bytes: list[int]) -> None:
    """A header further on is none, and neither is a record in its place."""
    path = tmp_path / "j"
    sizes = filled(path, 2)
    content = path.read_bytes()
    for changed in (content[:4096] + bytes(50) + content[4096:], content[:4096] + content[sizes[0] :]):
        path.write_bytes(changed)
        read_bytes.clear()
        with opened(path) as journal:
            assert (journal.keys(), journal.found_header) == ([], None)
        assert sum(read_bytes) < 10_000


def test_what_is_forgotten_is_neither_there_nor_known(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j", "rank", HEADER) as journal:
        for name in "ab":
            journal.put((".", name), rank_table(name, 1), fingerprint="f")
        journal.forget((".", "a"))
        journal.forget((".", "none"))
        assert journal.keys() == [(".", "b")]
        assert journal.entry((".", "a")) is None
        assert len(journal.known_matrices()) == 1
