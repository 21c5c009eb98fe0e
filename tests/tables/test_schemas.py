"""One schema per table is what files have, what `spectra columns` lists and what the README prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from spectra_cli.cli.main import run
from spectra_cli.errors import UsageError
from spectra_cli.tables.schemas import SCHEMA_VERSION, TABLES, arrow_schema, markdown_reference

README = Path(__file__).parents[2] / "README.md"

TEXT, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
SMALL, FLAG, NUMBERS = pa.int32(), pa.bool_(), pa.list_(pa.float32())

PER_CHECKPOINT = {"run": TEXT, "checkpoint": TEXT, "step": WHOLE, "epoch": WHOLE}

PER_PAIR = {
    **{"run_a": TEXT, "checkpoint_a": TEXT, "step_a": WHOLE},
    **{"run_b": TEXT, "checkpoint_b": TEXT, "step_b": WHOLE},
}

PER_MATRIX = {
    "depth": SMALL,
    **{"parameter": TEXT, "kind": TEXT, "rows": WHOLE, "cols": WHOLE, "dtype": TEXT},
    **{"spectral_norm": NUMBER, "frobenius_norm": NUMBER, "nuclear_norm": NUMBER},
    **{"entropy": NUMBER, "entropy_normalized": NUMBER},
    **{"effective_rank": NUMBER, "effective_rank_normalized": NUMBER, "stable_rank": NUMBER},
    **{"rank_90": WHOLE, "numerical_rank": WHOLE, "condition_number": NUMBER, "gini": NUMBER},
    **{"singular_values": NUMBERS, "singular_value_error": NUMBER},
    **{"method": TEXT, "digest": TEXT},
}

MEASURED = {"split": TEXT, "metric": TEXT, "value": NUMBER, "count": WHOLE, "status": TEXT}

CONTRACT = {
    "rank": {**PER_CHECKPOINT, **PER_MATRIX, "status": TEXT},
    "align": {
        **PER_CHECKPOINT,
        **{"depth": SMALL, "connection": TEXT, "upstream": TEXT, "downstream": TEXT},
        **{"unit": TEXT, "unit_index": SMALL, "primary": FLAG},
        **{"score": NUMBER, "diagonal": NUMBERS, "min_gap": NUMBER, "chance": NUMBER, "status": TEXT},
        "alignment": pa.list_(NUMBERS),
    },
    "sva": {
        **PER_CHECKPOINT,
        **{"depth": SMALL, "parameter": TEXT},
        **{"reference_run": TEXT, "reference_checkpoint": TEXT, "reference_step": WHOLE},
        **{"score": NUMBER, "diagonal": NUMBERS, "min_gap": NUMBER, "status": TEXT},
        "variant": TEXT,
    },
    "prune_eval": {**PER_CHECKPOINT, "variant": TEXT, "keep": NUMBER, "seed": WHOLE, **MEASURED},
    "barrier": {
        **PER_PAIR,
        **{"split": TEXT, "metric": TEXT, "alpha": NUMBER, "value": NUMBER, "chord": NUMBER, "excess": NUMBER},
        **{"barrier": NUMBER, "barrier_interior": NUMBER, "barrier_midpoint": NUMBER},
        **{"count": WHOLE, "status": TEXT},
    },
    "barrier_spectra": {**PER_PAIR, "alpha": NUMBER, **PER_MATRIX, "status": TEXT},
    "metrics": {"step": WHOLE, "epoch": NUMBER, **MEASURED},
}
"""The public contract: names, order and types that users' code relies on. Any value may be null.

What is changed here, but for new columns, is another version of the tables.
"""


def test_the_contract_is_of_this_version() -> None:
    assert SCHEMA_VERSION == "1"
    assert list(CONTRACT) == list(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_the_columns_are_the_contract(table: str) -> None:
    expected = [pa.field(name, type_of_column) for name, type_of_column in CONTRACT[table].items()]
    assert list(arrow_schema(table)) == expected


@pytest.mark.parametrize("table", TABLES)
def test_only_what_is_asked_for_can_be_left_out(table: str) -> None:
    """A name counts in those tables alone: `variant` of prune_eval always comes."""
    asked_for = {"align": ["alignment"], "sva": ["variant"]}.get(table, [])
    left = [name for name in CONTRACT[table] if name not in asked_for]
    assert arrow_schema(table, leave_out=[*CONTRACT[table], "alignment", "variant"]).names == left


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
    assert all(set(column) == {"name", "type", "unit", "meaning", "optional"} for column in listed[table])


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
