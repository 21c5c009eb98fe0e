"""Tables are told by their metadata and checked before they are unpacked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.errors import InputError
from spectra_cli.tables import reader
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.schemas import TABLES, arrow_schema, optional_columns
from spectra_cli.tables.writer import TableWriter
from tests.tables.damage import number_a_text_that_there_is_not


def rank_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "run": f"run_{index % 3}",
            "checkpoint": f"step_{index}",
            "step": index,
            "parameter": "a.weight",
            "effective_rank": index / 7,
            "singular_values": [3.0, 2.0, 1.0][: index % 4],
            "status": "ok",
        }
        for index in range(count)
    ]


def written(path: Path, table: str = "rank", count: int = 5, **options: Any) -> Path:
    with TableWriter(path, table, **options) as writer:
        writer.write(rank_rows(count) if table == "rank" else [])
    return path


def rewritten(path: Path, change: Any) -> Path:
    """The file with its Arrow table changed."""
    pq.write_table(change(pq.read_table(path)), path)
    return path


@pytest.mark.parametrize("table", TABLES)
def test_every_table_that_is_written_is_recognised(table: str, tmp_path: Path) -> None:
    file = open_table(written(tmp_path / "t.parquet", table, 0, leave_out=optional_columns(table)))
    assert (file.table, file.rows) == (table, 0)
    assert file.read(list(file.columns)).num_rows == 0


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Values, nulls, lists and their order, through more than one row group and batch."""
    rows = rank_rows(5000)
    path = tmp_path / "rank.parquet"
    with TableWriter(
        path, "rank", tags={"seed": "3"}, metadata={"spectra.settings": json.dumps({"every": 2})}
    ) as writer:
        writer.write(rows[:2600])
        writer._flush()
        writer.write(rows[2600:])
    file = open_table(path)
    assert (file.rows, file.tags, file.settings) == (5000, ("seed",), {"every": 2})
    read = file.read(["step", "run", "singular_values", "gini", "seed", "no such column"])
    assert read.column_names == ["step", "run", "singular_values", "gini", "seed"]
    assert read["run"].to_pylist() == [row["run"] for row in rows]
    assert read["step"].to_pylist() == list(range(5000))
    assert read["singular_values"].to_pylist() == [row["singular_values"] for row in rows]
    assert set(read["gini"].to_pylist()) == {None}
    assert set(read["seed"].to_pylist()) == {"3"}
    assert sum(batch.num_rows for batch in file.batches(["step"])) == 5000
    assert max(batch.num_rows for batch in file.batches(["step"])) <= reader.BATCH_ROWS


def test_metadata_of_the_file_is_known_as_well_as_that_of_the_schema(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.parquet", "rank", metadata={"spectra.device": "cpu"}) as writer:
        writer.annotate({"spectra.output_layers": '{".": ["fc"]}'})
    metadata = open_table(tmp_path / "t.parquet").metadata
    assert (metadata["device"], metadata["output_layers"]) == ("cpu", '{".": ["fc"]}')


def test_settings_that_are_no_json_are_none(tmp_path: Path) -> None:
    for text in ("{", "[1]", "[" * 100_000, '{"a": ' * 900 + "1" + "}" * 900):
        assert open_table(written(tmp_path / "t.parquet", metadata={"spectra.settings": text})).settings == {}
    text = r'{"runs": {".": "\ud800x"}, "a": [1, null, {"b": 2.5}]}'
    settings = open_table(written(tmp_path / "t.parquet", metadata={"spectra.settings": text})).settings
    assert settings == {"runs": {".": r"\ud800x"}, "a": [1, None, {"b": 2.5}]}


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)


def _newer(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"spectra.schema": "rank/2"}), path)


def _unknown(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"spectra.schema": "forecast/1"}), path)


def _truncated(path: Path) -> None:
    content = written(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _without_a_column(path: Path) -> None:
    rewritten(written(path), lambda table: table.drop_columns(["status"]))


def _of_another_type(path: Path) -> None:
    as_text = pa.array([["a"]] * 5, pa.list_(pa.string()))
    place = arrow_schema("rank").names.index("singular_values")
    rewritten(written(path), lambda table: table.set_column(place, "singular_values", as_text))


def _numeric_tag(path: Path) -> None:
    rewritten(written(path), lambda table: table.append_column("seed", pa.array(range(5))))


def _without_a_column_that_others_may_lack(path: Path) -> None:
    rewritten(written(path, "prune_eval"), lambda table: table.drop_columns(["variant"]))


BAD = {
    "without a column that tables sva may lack": (
        _without_a_column_that_others_may_lack,
        "column 'variant' is missing",
    ),
    "text": (lambda path: path.write_text("run,step\n"), "no Parquet table.*spectra rank"),
    "empty file": (lambda path: path.write_bytes(b""), "no Parquet table"),
    "of another tool": (_foreign, "none that spectra wrote.*spectra rank, align"),
    "of a newer spectra": (_newer, "'rank' of version '2'.*Use the spectra that made it"),
    "of an unknown table": (_unknown, "'forecast'"),
    "truncated": (_truncated, "cut off: its end is missing.*Make the table again; with --fresh"),
    "without a column": (_without_a_column, "column 'status' is missing"),
    "with a column of another type": (_of_another_type, "'singular_values' is list.*not list<.*float>"),
    "with a tag that is no text": (_numeric_tag, "'seed' is int64, not string"),
    "a directory": (lambda path: path.mkdir(), "directory"),
    "a pipe": (os.mkfifo, "pipe"),
    "absent": (lambda path: path.unlink(missing_ok=True), "there is no such file"),
}


MAY_LACK = {("align", "alignment"), ("sva", "variant")}
"""Tables and the columns that come only with --full, and with prune-eval --sva-out."""


@pytest.mark.parametrize("table", TABLES)
def test_a_table_lacks_no_column_but_those_that_are_asked_for(table: str, tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", table, 0)
    whole, lacking = pq.read_table(path), set()
    for name in whole.column_names:
        pq.write_table(whole.drop_columns([name]), path)
        try:
            assert name not in open_table(path).columns
            lacking.add((table, name))
        except InputError as error:
            assert error.what == f"its column '{name}' is missing"  # noqa: PT017 - of each column, that or none
    assert lacking == {(each, name) for each, name in MAY_LACK if each == table}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_table_says_what_to_do(kind: str, tmp_path: Path) -> None:
    make, message = BAD[kind]
    path = tmp_path / "table.parquet"
    make(path)
    with pytest.raises(InputError, match=message) as raised:
        open_table(path)
    assert raised.value.where == str(path)
    assert raised.value.remedy


def test_a_file_that_claims_more_than_its_bytes_justify_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that repeats one value takes a few bytes for any number of rows; the bounds are lower here."""
    path = tmp_path / "rank.parquet"
    count = 3_000_000
    schema = arrow_schema("rank").with_metadata({"spectra.schema": "rank/1"})
    columns = [pa.array(np.zeros(count, np.int64)) if f.name == "step" else pa.nulls(count, f.type) for f in schema]
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")
    file = open_table(path)
    monkeypatch.setattr(reader, "ROWS_PER_BYTE", 64)
    assert next(file.batches(["step"])).num_rows == reader.BATCH_ROWS
    monkeypatch.setattr(reader, "ALWAYS_VALUES", 1 << 20)
    monkeypatch.setattr(reader, "VALUES_PER_BYTE", 8)
    with pytest.raises(InputError, match=r"3000000 values.*out of all proportion"):
        next(file.batches(["step"]))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"3000000 rows, which is out of all proportion"):
        next(file.batches(["run"]))


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_are_an_error_and_nothing_else(seed: int, tmp_path: Path) -> None:
    """Bytes flipped anywhere: the rows are read, all of them, or an InputError says where."""
    path = written(tmp_path / "rank.parquet", count=40)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(content), 3):
        content[place] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    places = [str(path)]
    try:
        file = open_table(path)
        assert file.read(["run", "step", "singular_values"]).num_rows == file.rows
    except InputError as error:
        places.append(str(error.where))
    assert set(places) == {str(path)}


def test_numbers_of_texts_that_there_are_not_are_damage(tmp_path: Path) -> None:
    """No row is shown with a text that nobody has written."""
    path = written(tmp_path / "rank.parquet", count=40)
    number_a_text_that_there_is_not(path, "run")
    with pytest.raises(InputError, match="cannot be read as a table") as caught:
        open_table(path).read(["run"])
    assert caught.value.where == str(path)


def test_no_flipped_bit_of_a_page_makes_other_numbers(tmp_path: Path) -> None:
    """Random numbers are stored as they are: only the checksum of their page tells that one has changed."""
    path = tmp_path / "rank.parquet"
    with TableWriter(path, "rank") as writer:
        writer.write([{"singular_values": np.random.default_rng(0).random(4000).astype(np.float32)}])
    group = pq.ParquetFile(path).metadata.row_group(0)
    names = [group.column(index).path_in_schema.split(".")[0] for index in range(group.num_columns)]
    chunk = group.column(names.index("singular_values"))
    content = path.read_bytes()
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    draw = np.random.default_rng(4)
    for offset in draw.integers(start + 200, start + chunk.total_compressed_size, 20):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read as a table"):
            open_table(path).read(["singular_values"])
