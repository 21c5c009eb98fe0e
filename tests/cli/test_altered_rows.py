"""Rows that somebody has changed are made anew, and what a stranger wrote does not steer a terminal.

The oracle is a ``--fresh`` run somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.execution.incremental.integrity import ROWS, altered_units
from spectra_cli.tables.entries import Entry, read_units, units_metadata
from spectra_cli.tables.journal import Journal
from spectra_cli.tables.rowsums import row_sums
from spectra_cli.tables.schemas import arrow_schema
from tests.cli.trajectories import assert_same, counted, kept, outputs, trajectory
from tests.tables.anyrows import rank_table

Fixture = Callable[..., Any]
ALTERED = "not as spectra wrote them"
ESCAPES = "\x1b]0;owned\x07\x1b[2J[red]"


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table], *, lie: bool = False) -> None:
    """Change the rows of a table and keep its metadata, or put the sums of the changed rows into them."""
    metadata = {k: v for k, v in pq.read_metadata(path).metadata.items() if k != b"ARROW:schema"}
    table = change(pq.read_table(path))
    if lie:
        entries = read_units(metadata[b"spectra.units"].decode())
        for key, entry in entries.items():
            rows = table.filter(pa.array([name == key[1] for name in table["checkpoint"].to_pylist()]))
            told = {**entry.facts, ROWS: row_sums(rows.combine_chunks())}
            entries[key] = Entry(entry.fingerprint, entry.content, told)
        metadata[b"spectra.units"] = units_metadata(entries).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def with_cell(name: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        cells = table[name].to_pylist()
        cells[row] = value
        at, field = table.column_names.index(name), table.schema.field(name)
        return table.set_column(at, field, pa.array(cells, field.type))

    return change


@pytest.mark.parametrize("line", [["rank"], ["analyze"], ["sva"]])
def test_a_number_that_was_edited_is_made_anew_with_its_checkpoint(spectra: Fixture, line: list[str]) -> None:
    run = trajectory()
    assert spectra(*line, run, "--out", "out").status == 0
    assert spectra(*line, run, "--out", "fresh").status == 0
    name, column = ("rank", "stable_rank") if line != ["sva"] else ("sva", "score")
    rewritten(outputs(line[0], "out")[name], with_cell(column, 4, 0.125))
    done = spectra(*line, run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 3)
    assert done.err.count(ALTERED) == 1
    assert_same(line[0], "out", "fresh")
    again = spectra(*line, run, "--out", "out", "--json")
    assert (kept(again), ALTERED in again.err) == (4, False)


def test_singular_values_that_were_edited_are_not_copied(spectra: Fixture) -> None:
    """Nor taken for those of the same matrix elsewhere: no summary looks at them, but another table would hold them."""
    run = trajectory(steps=(0, 100))
    other = trajectory("other", steps=(0, 100))
    assert spectra("rank", run, "--out", "out").status == 0
    rewritten(Path("out"), with_cell("singular_values", 4, [1.0]))
    done = spectra("rank", run, other, "--out", "out", "--json")
    assert (done.status, done.err.count(ALTERED)) == (0, 0)  # of another work nothing is kept by unit
    assert spectra("rank", run, other, "--out", "fresh", "--fresh").status == 0
    assert_same("rank", "out", "fresh")
    rewritten(Path("out"), with_cell("singular_values", 4, [1.0]))
    trajectory(steps=(200,))
    done = spectra("rank", run, other, "--out", "out", "--json")
    assert (done.status, done.err.count(ALTERED), kept(done)) == (0, 1, 3)
    assert spectra("rank", run, other, "--out", "fresh", "--fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_a_run_that_changes_nothing_reads_no_singular_values(spectra: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor any checkpoint; rows that are not copied are looked at as far as they are told of."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    read: set[str] = set()
    real = pq.ParquetFile.read_row_group

    def read_row_group(self: pq.ParquetFile, group: int, columns: list[str], **options: Any) -> pa.Table:
        read.update(columns)
        return real(self, group, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    with counted() as work:
        assert kept(spectra("rank", run, "--out", "out", "--json")) == 4
    assert not work.opened
    assert "gini" in read
    assert "singular_values" not in read


@pytest.mark.parametrize("status", [ESCAPES, None, "", "ok ", "x" * 5000])
@pytest.mark.parametrize("line", ["rank", "align", "sva"])
def test_a_status_that_is_none_is_made_anew(spectra: Fixture, line: str, status: str | None) -> None:
    """Also where its checksums are right, as a stranger can make them; nothing of it is printed."""
    run = trajectory(steps=(0, 100))
    assert spectra(line, run, "--out", "out").status == 0
    assert spectra(line, run, "--out", "fresh").status == 0
    rewritten(Path("out"), with_cell("status", 1, status), lie=True)
    done = spectra(line, run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 1)
    assert ALTERED in done.err
    assert "\x1b" not in done.err
    assert max(map(len, done.err.splitlines())) < 300
    assert_same(line, "out", "fresh")


def test_whatever_is_a_status_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    from spectra_cli.cli import output, summaries

    summaries.print_closing(output.stderr_console(), "out", {ESCAPES: 2, "y" * 500: 1, "ok": 3}, "from here")
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "\\x1b]0;owned" in said
    assert "y" * 50 not in said


def test_problems_say_that_there_is_no_status() -> None:
    from spectra_cli.execution.planning.messages import problems

    ((_, told),) = problems({"rank": [{"status": None, "parameter": "a.weight"}]}, {})
    assert "do not say" in told


def test_a_lying_table_is_told_of_once(spectra: Fixture) -> None:
    run = trajectory()
    assert spectra("analyze", run, "--out", "out").status == 0
    for path in outputs("analyze", "out").values():
        rewritten(path, lambda table: table.set_column(2, "step", pa.array([7] * len(table))))
    done = spectra("analyze", run, "--out", "out", "--json")
    told = [line for line in done.err.splitlines() if ALTERED in line]
    assert (len(told), len(set(told))) == (3, 3)
    assert all("4 checkpoints are made anew" in line for line in told)
    assert kept(done) == 0


def test_what_a_journal_says_against_its_own_sums_is_doubtful(tmp_path: Path) -> None:
    """Rows of another number, of a status that is none, without sums, or that are none at all."""
    schema = arrow_schema("rank")
    rows = {name: rank_table(name, 3) for name in ("good", "sums", "none")}
    rows |= {"status": rank_table("status", 3, status=ESCAPES), "columns": rank_table("columns", 3).drop(["gini"])}
    facts: dict[str, Any] = {name: {ROWS: row_sums(each)} for name, each in rows.items()}
    facts |= {"sums": facts["good"], "none": {}}
    with Journal.open(tmp_path / "j", "rank", {}) as journal:
        for name, each in rows.items():
            journal.put((".", name), each, fingerprint="f", facts=facts[name])
        assert {key[1] for key in altered_units(journal, "rank", schema)} == rows.keys() - {"good"}


def test_verify_finds_singular_values_that_were_edited_in_a_table_of_which_nothing_else_is_new(
    spectra: Fixture,
) -> None:
    """They are not looked at otherwise, as all of the table would have to be read for it."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    assert spectra("rank", run, "--out", "fresh").status == 0
    rewritten(Path("out"), with_cell("singular_values", 4, [1.0]))
    trusting = spectra("rank", run, "--out", "out", "--json")
    assert (kept(trusting), ALTERED in trusting.err) == (4, False)
    done = spectra("rank", run, "--out", "out", "--verify", "--json")
    assert (done.status, kept(done), done.err.count(ALTERED)) == (0, 3, 1)
    assert_same("rank", "out", "fresh")
