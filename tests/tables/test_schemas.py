"""One schema per table is what files have, what `spectra columns` lists and what the README prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from spectra_cli.cli.main import run
from spectra_cli.errors import UsageError
from spectra_cli.tables.schemas import TABLES, arrow_schema, markdown_reference

README = Path(__file__).parents[2] / "README.md"

FIRST_COLUMNS = [("run", pa.string()), ("checkpoint", pa.string()), ("step", pa.int64()), ("epoch", pa.int64())]

RANK_COLUMNS = [
    *FIRST_COLUMNS,
    ("depth", pa.int32()),
    *((name, pa.string()) for name in ("parameter", "kind")),
    *((name, pa.int64()) for name in ("rows", "cols")),
    ("dtype", pa.string()),
    *((f"{name}_norm", pa.float64()) for name in ("spectral", "frobenius", "nuclear")),
    *((name, pa.float64()) for name in ("entropy", "entropy_normalized")),
    *((name, pa.float64()) for name in ("effective_rank", "effective_rank_normalized", "stable_rank")),
    *((name, pa.int64()) for name in ("rank_90", "numerical_rank")),
    *((name, pa.float64()) for name in ("condition_number", "gini")),
    ("singular_values", pa.list_(pa.float32())),
    ("singular_value_error", pa.float64()),
    *((name, pa.string()) for name in ("method", "digest", "status")),
]
"""The public contract: names, order and types that users' code relies on."""


def test_the_columns_of_rank_are_the_contract() -> None:
    assert [(field.name, field.type) for field in arrow_schema("rank")] == RANK_COLUMNS


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_named_once_and_explained(table: str) -> None:
    names = [column.name for column in TABLES[table]]
    assert len(set(names)) == len(names)
    for column in TABLES[table]:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
        assert column.meaning
        assert not column.meaning.endswith(".")


@pytest.mark.parametrize("table", TABLES)
def test_numbers_with_a_dimension_have_a_unit(table: str) -> None:
    for column in TABLES[table]:
        dimension = column.name.endswith(("_norm", "entropy", "_values", "_error")) or column.name in {"step", "epoch"}
        assert bool(column.unit) or not dimension, column.name
        assert not (column.unit and column.type == "string"), column.name


def test_tags_are_text_columns_at_the_end() -> None:
    schema = arrow_schema("rank", {"seed": "1", "optimizer": "adamw"})
    assert schema.names == [*arrow_schema("rank").names, "seed", "optimizer"]
    assert schema.types[-2:] == [pa.string(), pa.string()]


def test_a_tag_with_the_name_of_a_column_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="gini"):
        arrow_schema("rank", {"seed": "1", "gini": "2"})


@pytest.mark.parametrize("table", TABLES)
def test_columns_as_json_lists_the_schema(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["columns", table, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [column["name"] for column in listed[table]] == arrow_schema(table).names
    assert all(set(column) == {"name", "type", "unit", "meaning"} for column in listed[table])


@pytest.mark.parametrize("table", TABLES)
def test_columns_prints_every_column_with_all_of_its_meaning(
    table: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["columns"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    words = printed.split()
    for column in TABLES[table]:
        assert column.name in words
        assert set(column.meaning.split()) <= set(words)
        assert column.unit in " ".join(words)


def test_the_markdown_reference_has_a_row_for_every_column_and_no_stray_bars() -> None:
    heading, rule, *rows = markdown_reference("rank").splitlines()
    assert heading == "| column | type | unit | meaning |"
    assert rule == "|---|---|---|---|"
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert [row[0].strip(" `") for row in cells] == arrow_schema("rank").names
    assert {len(row) for row in cells} == {4}


@pytest.mark.parametrize("table", TABLES)
def test_the_readme_prints_the_schema(table: str) -> None:
    """To update it, replace what is between the markers with the output of ``markdown_reference``."""
    section = re.search(
        rf"<!-- columns:{table} -->\n(.*?)<!-- /columns -->", README.read_text(encoding="utf-8"), re.DOTALL
    )
    assert section is not None, f"README.md has no section between <!-- columns:{table} --> and <!-- /columns -->"
    assert section[1].strip() == markdown_reference(table).strip()
