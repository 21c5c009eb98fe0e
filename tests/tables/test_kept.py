"""The rows of an older table are found by unit, and are what they were to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spectra_cli.tables.writer as writer_module
from spectra_cli.errors import InputError
from spectra_cli.tables.entries import Entry, units_metadata
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.localtable import LocalTable
from spectra_cli.tables.matrices import NUMBERS, MatrixIndex
from spectra_cli.tables.rows import table_of
from spectra_cli.tables.rowsums import sums_of
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tables.writer import TableWriter
from tests.tables.anyrows import digest_of, exact, rank_rows, rank_table
from tests.tables.damage import number_a_text_that_there_is_not

KEY_COLUMNS = ("run", "checkpoint")


def written(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    with TableWriter(path, "rank", **options) as writer:
        writer.write(rows)
    return path


def opened(path: Path) -> KeptTable:
    return KeptTable.open(path, "rank", KEY_COLUMNS)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of a few rows."""
    monkeypatch.setattr(writer_module, "ROW_GROUP_VALUES", 600)


@given(keys=st.lists(st.tuples(st.sampled_from(["a", "b", None, ""]), st.sampled_from(["1", "2", None])), max_size=12))
@settings(max_examples=40)
def test_a_unit_is_its_rows_if_they_stand_in_one_piece(
    keys: list[tuple[str | None, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a walk through the rows one by one; null is a value of its own."""
    path = tmp_path_factory.mktemp("kept") / "rank.parquet"
    written(path, [{"run": run, "checkpoint": name, "depth": place} for place, (run, name) in enumerate(keys)])
    places = {key: [place for place, each in enumerate(keys) if each == key] for key in keys}
    whole = {key: each for key, each in places.items() if each[-1] - each[0] + 1 == len(each)}
    with opened(path) as kept:
        assert kept.keys_in_order == list(whole)
        for key, each in whole.items():
            assert kept.rows(key)["depth"].to_pylist() == each
        for key in places.keys() - whole.keys():
            assert key not in kept.keys
            with pytest.raises(KeyError):
                kept.rows(key)


@pytest.mark.usefixtures("small_groups")
def test_rows_are_what_was_written_in_any_order_and_through_row_groups(tmp_path: Path) -> None:
    units = {(".", str(number)): rank_rows(str(number), 1 + number % 5, gini=[None, float("nan"), 0.5][number % 3])
             for number in range(30)}  # fmt: skip
    path = written(tmp_path / "rank.parquet", [row for rows in units.values() for row in rows], tags={"seed": "1"})
    assert pq.ParquetFile(path).num_row_groups > 5
    order = list(units)
    order.sort(key=digest_of)
    schema = arrow_schema("rank", ["seed"])
    with opened(path) as kept:
        assert kept.keys_in_order == list(units)
        for key in order:
            rows = kept.rows(key)
            assert rows.schema.equals(schema)
            assert exact(rows) == exact(table_of(units[key], schema, {"seed": "1"}))
        some = kept.rows(order[0], columns=("status", "checkpoint", "no such column"))
        assert some.column_names == ["checkpoint", "status"]


@pytest.mark.usefixtures("small_groups")
def test_going_through_in_order_unpacks_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "rank.parquet", [row for number in range(30) for row in rank_rows(str(number))])
    unpacked: list[int] = []
    real = KeptTable._group

    def group(self: KeptTable, number: int, columns: Any) -> pa.Table:
        unpacked.append(number)
        return real(self, number, columns)

    monkeypatch.setattr(KeptTable, "_group", group)
    with opened(path) as kept:
        unpacked.clear()
        for key in kept.keys_in_order:
            kept.rows(key)
    assert unpacked == list(range(pq.ParquetFile(path).num_row_groups))


def test_what_is_on_record_about_units_is_known_but_of_scattered_ones(tmp_path: Path) -> None:
    entries = {(".", name): Entry(f"of {name}", None, {"n": [name]}) for name in ("a", "b", "c", "none")}
    rows = [{"run": ".", "checkpoint": name} for name in "abcb"]
    with TableWriter(tmp_path / "t.parquet", "rank", metadata={"spectra.match": json.dumps({"x": [1]})}) as writer:
        writer.write(rows)
        writer.annotate({"spectra.units": units_metadata(entries), "spectra.settings": json.dumps({"every": 2})})
    with opened(tmp_path / "t.parquet") as kept:
        assert kept.entries == {key: entry for key, entry in entries.items() if key[1] != "b"}
        assert kept.entry((".", "a")) == entries[".", "a"]
        assert kept.entry((".", "b")) is None
        assert (kept.match, kept.settings) == ({"x": [1]}, {"every": 2})
        assert kept.metadata["settings"] == '{"every": 2}'


@pytest.mark.parametrize("match", [None, "", "[1]", "nonsense", "[" * 100_000])
def test_a_match_that_is_none_is_none(tmp_path: Path, match: str | None) -> None:
    path = written(tmp_path / "t.parquet", [], metadata={} if match is None else {"spectra.match": match})
    with opened(path) as kept:
        assert kept.match is None
        assert (kept.keys_in_order, dict(kept.entries), len(kept.known_matrices())) == ([], {}, 0)
        assert kept.keys_where_not("status", "ok") == set()


def test_a_table_stays_what_it_was_while_another_takes_its_place(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", rank_rows("a"))
    with opened(path) as kept:
        written(path, rank_rows("b"))
        assert exact(kept.rows((".", "a"))) == exact(rank_table("a"))


def test_a_location_is_as_good_as_a_path(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", rank_rows("a"))
    with KeptTable.open(LocalTable(path), "rank", KEY_COLUMNS) as kept:
        assert kept.keys_in_order == [(".", "a")]


@pytest.mark.usefixtures("small_groups")
def test_units_with_another_value_are_found(tmp_path: Path) -> None:
    statuses = {"a": ["ok", "ok"], "b": ["ok", "empty"], "c": ["ok"], "d": [None, "ok"], "e": ["ok"] * 9 + ["x"]}
    rows = [{"run": ".", "checkpoint": name, "status": each} for name, of_unit in statuses.items() for each in of_unit]
    with opened(written(tmp_path / "t.parquet", rows)) as kept:
        assert kept.keys_where_not("status", "ok") == {(".", name) for name in "bde"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "there is no such file"),
        (lambda path: path.write_bytes(b"my notes"), "no Parquet table"),
        (lambda path: TableWriter(path, "metrics").close(), "is a table metrics, not rank"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "none that spectra wrote"),
    ],
)
def test_what_is_no_table_of_this_name_is_an_input_error(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=said):
        opened(tmp_path / "t.parquet")


def test_a_file_damaged_anywhere_reads_or_is_an_input_error(tmp_path: Path) -> None:
    """Seeded flips of bytes behind the beginning: no other exception, whatever is asked of the table."""
    path = written(tmp_path / "t.parquet", [row for number in range(10) for row in rank_rows(str(number))])
    content = path.read_bytes()
    draw, refused = np.random.default_rng(3), 0
    for _ in range(150):
        damaged = bytearray(content)
        for place in draw.integers(4, len(content), 3):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            with opened(path) as kept:
                for key in kept.keys_in_order:
                    kept.rows(key)
                assert len(kept.known_matrices()) <= 30
                assert kept.keys_where_not("status", "ok") is not None
        except InputError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("column", ["checkpoint", "parameter", "status"])
def test_numbers_of_texts_that_there_are_not_are_damage(tmp_path: Path, column: str) -> None:
    """No unit is given a name, and no row a text, that nobody has written."""
    path = tmp_path / "t.parquet"
    written(path, [row for name in ("a", "b", "c", "b") for row in rank_rows(name)])
    number_a_text_that_there_is_not(path, column)

    def asked() -> None:
        with opened(path) as kept:
            if column == "status":
                kept.keys_where_not("status", "ok")
            for key in kept.keys_in_order:
                kept.rows(key)

    with pytest.raises(InputError, match="cannot be read as a table") as caught:
        asked()
    assert caught.value.where == str(path)


def test_a_file_that_claims_more_than_its_bytes_justify_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectra_cli.tables.reader.ALWAYS_ROWS", 10)
    monkeypatch.setattr("spectra_cli.tables.reader.ROWS_PER_BYTE", 0)
    path = written(tmp_path / "t.parquet", [{"run": "."}] * 100)
    with pytest.raises(InputError, match="out of all proportion"):
        opened(path)


@pytest.mark.usefixtures("small_groups")
def test_known_matrices_are_those_with_numbers(tmp_path: Path) -> None:
    """And their numbers are those that were written, to the bit."""
    rows = [row for number in range(20) for row in rank_rows(str(number))]
    rows[4]["status"], rows[5]["digest"], rows[6]["digest"], rows[7]["rows"] = "not_finite", None, "0" * 63 + "G", None
    rows[8]["status"], rows[9]["kind"], rows[10]["status"] = "all_zero", None, None
    rows[11] |= {"gini": None, "singular_values": None, "rank_90": 2**60 + 1}
    path = written(tmp_path / "t.parquet", rows)
    with opened(path) as kept:
        known = kept.known_matrices()
        for place, row in enumerate(rows):
            matrix = (row["digest"], row["kind"], row["rows"], row["cols"])
            assert (matrix in known) == (place not in {4, 5, 6, 7, 8, 10})
            assert (row["digest"], "embedding", row["rows"], row["cols"]) not in known
            assert (row["digest"], row["kind"], row["rows"], 99) not in known
            if matrix not in known:
                with pytest.raises(KeyError):
                    kept.matrix_row(*matrix)
                continue
            found = kept.matrix_row(*matrix)
            assert tuple(found) == NUMBERS
            values, expected = found.pop("singular_values"), row["singular_values"]
            assert {name: value for name, value in found.items() if value is not None} == {
                name: row[name] for name in NUMBERS if row.get(name) is not None and name != "singular_values"
            }
            assert (values is None) == (expected is None)
            assert expected is None or (values.dtype == np.float32 and values.tobytes() == expected.tobytes())
        assert "nonsense" not in known
        assert ("nonsense", "linear", 8, 4) not in known
        assert ("é" * 64, "linear", 8, 4) not in known


def test_a_table_without_digests_knows_no_matrices(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "t.parquet", "metrics") as writer:
        writer.write([{"split": "val", "metric": "loss"}])
    with KeptTable.open(tmp_path / "t.parquet", "metrics", ("split",)) as kept:
        assert len(kept.known_matrices()) == 0


@given(
    parts=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["linear", "conv", None]), st.integers(1, 3))), max_size=9
    )
)
def test_known_matrices_are_a_dictionary_in_less_memory(parts: list[list[tuple[int, str | None, int]]]) -> None:
    """Added part by part, in any mixture of the same and of others; what is found stands where such a row stands."""
    known = MatrixIndex()
    places: dict[tuple[str, str | None, int, int], set[tuple[int, int]]] = {}
    for number, part in enumerate(parts):
        matrices = [(digest_of(which), kind, rows, 7) for which, kind, rows in part]
        table = table_of(
            [{"digest": digest, "kind": kind, "rows": rows, "cols": cols, "status": "ok"}
             for digest, kind, rows, cols in matrices],
            arrow_schema("rank"),
        )  # fmt: skip
        known.add(number, table)
        for row, matrix in enumerate(matrices):
            places.setdefault(matrix, set()).add((number, row))
    assert len(known) == sum(map(len, parts))
    for which in range(11):
        for kind in ("linear", "conv", None, "attention"):
            for rows in range(5):
                matrix = (digest_of(which), kind, rows, 7)
                assert (matrix in known) == (matrix in places)
                assert matrix not in places or known.where(*matrix) in places[matrix]


def test_digests_that_begin_alike_are_told_apart() -> None:
    """Eight bytes are what the order goes by, and sixteen what is compared."""
    digests = ["ab" * 8 + f"{number:02x}" * 24 for number in range(50)]
    rows = [{"digest": digest, "kind": "linear", "rows": 1, "cols": 1, "status": "ok"} for digest in digests]
    known = MatrixIndex()
    known.add(3, table_of(rows, arrow_schema("rank")))
    assert [known.where(digest, "linear", 1, 1) for digest in digests] == [(3, place) for place in range(50)]
    assert ("ab" * 8 + "ff" * 24, "linear", 1, 1) not in known


def test_a_hundred_thousand_matrices_take_some_megabytes() -> None:
    count = 100_000
    draws = np.random.default_rng(0).bytes(32 * count).hex()
    digests = [draws[64 * place : 64 * place + 64] for place in range(count)]
    columns = {"digest": digests, "kind": ["linear"] * count, "rows": [1] * count, "cols": [1] * count}
    known = MatrixIndex()
    for start in range(0, count, 10_000):
        known.add(start, pa.table({**columns, "status": ["ok"] * count}).slice(start, 10_000))
    assert sum(block.nbytes for block in known._blocks) < 50 * count
    assert len(known._blocks) < 6
    assert known.where(digests[70_123], "linear", 1, 1) == (70_000, 123)


@pytest.mark.usefixtures("small_groups")
def test_units_are_altered_where_a_cell_is(tmp_path: Path) -> None:
    """Through row groups, of which small ones hold parts of units."""
    names = [field.name for field in arrow_schema("rank")]
    counts = {(".", str(number)): 1 + 7 * number % 17 for number in range(12)}
    rows = {key: rank_rows(key[1], count) for key, count in counts.items()}
    sums = {key: sums_of(table_of(each, arrow_schema("rank")), [(0, len(each))])[0] for key, each in rows.items()}
    path = tmp_path / "t.parquet"
    with opened(written(path, [row for each in rows.values() for row in each], tags={"seed": "1"})) as kept:
        assert pq.ParquetFile(path).num_row_groups > 5
        assert kept.altered(names, sums) == set()
    for key in (".", "5"), (".", "0"), (".", "11"):
        rows[key][-1]["gini"] += 1e-12
    with opened(written(path, [row for each in rows.values() for row in each])) as kept:
        assert kept.altered(names, sums) == {(".", "5"), (".", "0"), (".", "11")}
        some = {key: sums[key] for key in ((".", "3"), (".", "5"))}
        assert kept.altered(names, some) == {(".", "5")}


@pytest.mark.usefixtures("small_groups")
def test_matrices_of_units_that_are_not_believed_are_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet", [row for name in "abcd" for row in rank_rows(name, 5)])
    with opened(path) as kept:
        kept.only_use({(".", "b"), (".", "d"), (".", "none")})
        known = {
            name
            for name in "abcd"
            for row in rank_rows(name, 5)
            if (row["digest"], row["kind"], row["rows"], row["cols"]) in kept.known_matrices()
        }
        assert (known, len(kept.known_matrices())) == ({"b", "d"}, 10)
