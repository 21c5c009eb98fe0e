"""Tables behind paths: files and directories, each once; what is no table is named."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.errors import InputError
from spectra_cli.tables.finding import find_tables
from spectra_cli.tables.writer import TableWriter


def made(path: Path, table: str = "rank") -> Path:
    path.parent.mkdir(exist_ok=True)
    TableWriter(path, table).close()
    return path


def test_tables_of_directories_come_in_the_order_of_names_and_each_once(tmp_path: Path) -> None:
    made(tmp_path / "b.parquet")
    made(tmp_path / "a.parquet", "align")
    made(tmp_path / ".hidden.parquet")
    made(tmp_path / "below" / "c.parquet")
    (tmp_path / "notes.txt").write_text("x")
    found = find_tables([tmp_path / "b.parquet", tmp_path, tmp_path / "below" / ".." / "a.parquet"])
    assert [file.path.name for file in found.tables] == ["b.parquet", "a.parquet"]
    assert found.passed_over == ()


def test_a_foreign_file_in_a_directory_is_passed_over_and_named(tmp_path: Path) -> None:
    made(tmp_path / "rank.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    found = find_tables([tmp_path])
    assert [file.table for file in found.tables] == ["rank"]
    assert found.passed_over == ((tmp_path / "other.parquet", "this Parquet file is none that spectra wrote"),)


def test_a_foreign_file_that_is_named_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="none that spectra wrote"):
        find_tables([tmp_path / "other.parquet"])


def test_a_directory_without_a_table_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no table of spectra\. Give the directory of --out"):
        find_tables([tmp_path])
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match=r"holds no table of spectra \(x.parquet: this file is no Parquet table\)"):
        find_tables([tmp_path])


def test_directories_below_that_hold_tables_are_named(tmp_path: Path) -> None:
    for name in ("seed_1", "seed_0"):
        made(tmp_path / name / "metrics.parquet", "metrics")
    with pytest.raises(InputError, match="Give one below it that does: seed_0, seed_1"):
        find_tables([tmp_path])


@pytest.mark.parametrize("url", ["s3://bucket/tables", "hf://org/tables/rank.parquet", "memory://t"])
def test_a_url_is_named_as_it_was_given(url: str) -> None:
    """A path of it has one slash."""
    with pytest.raises(InputError, match=rf"^{re.escape(url)}: tables in remote storage are not read here.* Copy them"):
        find_tables([Path(url)])
