"""What a file is said to be, be it looked at to read it or to replace it: a table, damaged, cut off, or foreign."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.errors import InputError
from spectra_cli.tables.finding import find_tables
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.recognition import recognise
from spectra_cli.tables.replaceable import check_replaceable
from spectra_cli.tables.writer import TableWriter
from tests.tables.anyrows import rank_rows


def whole_table() -> bytes:
    return of_metadata({"spectra.schema": "rank/1"})


def of_metadata(metadata: dict[str, str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), file)
    return file.getvalue()


def with_footer_of(length: int) -> bytes:
    """A whole file but for the length of its footer."""
    return whole_table()[:-8] + length.to_bytes(4, "little") + b"PAR1"


def test_of_a_table_the_footer_tells_name_version_schema_rows_and_all_metadata(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.parquet", "rank", metadata={"spectra.device": "cpu"}) as writer:
        writer.write(rank_rows("a", 3))
        writer.annotate({"spectra.units": "later"})
    with (tmp_path / "t.parquet").open("rb") as file:
        file.seek(11)  # wherever it stands
        found = recognise(file)
        assert not file.closed
    assert (found.table, found.version, found.rows) == ("rank", "1", 3)
    assert found.schema.equals(pq.read_schema(tmp_path / "t.parquet"))
    assert found.metadata[b"spectra.device"] == b"cpu"
    assert found.metadata[b"spectra.units"] == b"later"


CUT_OFF = r"this Parquet file is cut off: its end is missing"
DAMAGED = r"this Parquet file is damaged, its footer cannot be read: \S"
FOREIGN = r"this Parquet file is none that spectra wrote"
NO_PARQUET = r"this file is no Parquet table"

CONTENTS = {
    "half": (whole_table()[: len(whole_table()) // 2], CUT_OFF),
    "without its last byte": (whole_table()[:-1], CUT_OFF),
    "zeros at its end": (whole_table()[:-8] + bytes(8), CUT_OFF),
    "nothing but the magic": (b"PAR1", CUT_OFF),
    "too short for a footer": (b"PAR1...", CUT_OFF),
    "both magics and nothing between": (b"PAR1PAR1", DAMAGED),
    "a footer longer than the file": (with_footer_of(1 << 30), DAMAGED),
    "a footer of no bytes": (with_footer_of(0), DAMAGED),
    "of another tool": (of_metadata({}), FOREIGN),
    "of another tool, cut off": (of_metadata({})[:-1], CUT_OFF),
    "without a version": (of_metadata({"spectra.schema": "rank"}), FOREIGN),
    "text": (b"my notes", NO_PARQUET),
    "text that ends as Parquet does": (b"my notes PAR1", NO_PARQUET),
    "three bytes of the magic": (b"PAR", NO_PARQUET),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_table_is_called_the_same_whether_it_is_read_or_replaced(kind: str, tmp_path: Path) -> None:
    """With the file and a remedy; it is left as it is."""
    content, said = CONTENTS[kind]
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as read:
        open_table(path)
    with pytest.raises(InputError, match=rf"{said}.*; a table rank does not replace it") as replaced:
        check_replaceable(LocalTable(path), "rank", remedy="--fresh to start over")
    with pytest.raises(InputError, match=said):
        find_tables([tmp_path])
    assert read.value.where == replaced.value.where == str(path)
    assert replaced.value.remedy == "Give --out another name, or --fresh to start over"
    assert ("Make the table again; with --fresh" in str(read.value)) == (said in {CUT_OFF, DAMAGED})
    check_replaceable(LocalTable(path), "rank", fresh=True)
    assert path.read_bytes() == content


def test_a_table_cut_anywhere_is_said_to_be_cut_off(tmp_path: Path) -> None:
    """At every byte behind the magic; an empty file is one that nothing is lost with."""
    path = tmp_path / "t.parquet"
    content = whole_table()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        if length == 0:
            check_replaceable(LocalTable(path), "rank")
            continue
        with pytest.raises(InputError, match=CUT_OFF if length >= 4 else NO_PARQUET):
            check_replaceable(LocalTable(path), "rank")
    path.write_bytes(content)
    check_replaceable(LocalTable(path), "rank")


def test_the_name_of_a_table_that_is_not_known_is_shown_as_text(tmp_path: Path) -> None:
    """It comes from a file: neither its length nor what a terminal would take for a command gets through."""
    path = tmp_path / "t.parquet"
    path.write_bytes(of_metadata({"spectra.schema": f"\x1b[31m{'x' * 1000}/1"}))
    with pytest.raises(InputError, match="this file is a table") as caught:
        check_replaceable(LocalTable(path), "rank")
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 200


class _Failing(io.BytesIO):
    """A file on a disk that fails, from a certain read on."""

    def __init__(self, content: bytes, good_reads: int) -> None:
        super().__init__(content)
        self.left = good_reads

    def read(self, *count: Any) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(*count)


class _OnAFailingDisk(LocalTable):
    def __init__(self, path: Path, good_reads: int) -> None:
        super().__init__(path)
        self.file = _Failing(whole_table(), good_reads)

    def open(self) -> _Failing:
        return self.file


@pytest.mark.parametrize("good_reads", range(4))
def test_a_disk_that_fails_is_no_damage_of_the_file(good_reads: int, tmp_path: Path) -> None:
    """Whichever read it is: nobody is told to start over because of it."""
    location = _OnAFailingDisk(tmp_path / "t.parquet", good_reads)
    with pytest.raises(InputError, match=r"t\.parquet: cannot be read: Input/output error\.$"):
        check_replaceable(location, "rank", remedy="--fresh to start over")
    assert location.file.closed
