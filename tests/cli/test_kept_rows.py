"""Rows that are kept are those that were written, wherever they are taken from and however the command goes about it.

The oracle is a ``--fresh`` run somewhere else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import spectra_cli
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.incremental.ledger import Ledger
from spectra_cli.execution.incremental.writing import writing_of
from spectra_cli.execution.planning.options import ExecutionOptions
from spectra_cli.tables.entries import Entry, read_units, units_metadata
from spectra_cli.tables.kept import KeptTable
from tests.analyses.formulas import chain, save
from tests.cli.test_altered_rows import ALTERED, rewritten, with_cell
from tests.cli.test_incremental import metadata_of, with_metadata
from tests.cli.trajectories import SIZES, assert_same, counted, kept, read, rewrite, step, trajectory

Fixture = Callable[..., Any]
MATRICES = len(SIZES) - 1


def test_singular_values_that_were_edited_are_not_copied_where_a_checkpoint_has_changed(spectra: Fixture) -> None:
    """No checkpoint is new, so that all of the table is of checkpoints that are there."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    rewritten(Path("out"), with_cell("singular_values", MATRICES + 1, [1.0]))
    rewrite(run, 300, seed=9)
    done = spectra("rank", run, "--out", "out", "--json")
    assert (done.status, kept(done), done.err.count(ALTERED)) == (0, 2, 1)
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_singular_values_that_were_edited_do_not_come_into_a_frame() -> None:
    """Though the file need not be written."""
    run = trajectory()
    first = spectra_cli.rank(run, out="out")
    rewritten(Path("out"), with_cell("singular_values", MATRICES + 1, [1.0]))
    again = spectra_cli.rank(run, out="out")
    assert [values.tolist() for values in again["singular_values"]] == [
        values.tolist() for values in first["singular_values"]
    ]


def test_a_frame_has_its_tags_though_a_checkpoint_has_no_rows() -> None:
    """The first has none before it to be compared with; in the frame and in the file, as text."""
    found = spectra_cli.sva(trajectory(), reference="previous", tags={"seed": "1"}, out="out")
    assert found["step"].nunique() == 3
    assert set(found["seed"]) == {"1"}
    assert set(read(Path("out"))["seed"].to_pylist()) == {"1"}


def test_matrices_that_an_interrupted_run_has_finished_are_not_factorized_again(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a checkpoint that comes after them, and has the same."""
    run, put = trajectory(steps=(0, 100)), Ledger.put
    shutil.copy(step(run, 0), step(run, 200))
    finished = list[str]()

    def interrupted(self: Ledger, unit: Any, outcome: Any) -> bool:
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(unit.label)
        return put(self, unit, outcome)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", interrupted)
        assert spectra("rank", run, "--out", "out").status == 130
    with counted() as work:
        assert kept(spectra("rank", run, "--out", "out", "--json")) == 2
    assert (work.opened, work.factorized) == ([step(run, 200).name], 0)
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def with_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Put other facts about all checkpoints on record."""
    entries = read_units(metadata_of(path)[b"spectra.units"].decode())
    assert entries
    changed = {key: Entry(entry.fingerprint, entry.content, facts) for key, entry in entries.items()}
    with_metadata(path, units=units_metadata(changed))


@pytest.mark.parametrize("sums", [5, "abc", [], [MATRICES], {"a": 1, "b": 2, "c": 3}, [MATRICES, None, None]], ids=str)
def test_sums_of_another_form_are_no_sums(spectra: Fixture, sums: object) -> None:
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "out").status == 0
    with_facts(Path("out"), {"rows": sums})
    done = spectra("rank", run, "--out", "out", "--json")
    assert (done.status, kept(done), done.err.count(ALTERED)) == (0, 0, 1)
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_rows_that_were_taken_out_with_their_sums_come_again(spectra: Fixture) -> None:
    """A checkpoint without rows is only believed to have none where that is on record."""
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "out").status == 0
    with_facts(Path("out"), {})
    table = pq.read_table("out").filter([number != 100 for number in pq.read_table("out")["step"].to_pylist()])
    pq.write_table(table.replace_schema_metadata(metadata_of(Path("out"))), "out")
    assert spectra("rank", run, "--out", "out").status == 0
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_what_is_wrong_with_a_file_whose_name_is_no_text_is_told_again(spectra: Fixture) -> None:
    """As of any other: its rows are found by the name that the table has of it."""
    run, spoilt = trajectory(steps=(0,)), chain(SIZES, seed=2)
    spoilt["layers.1.weight"][0, 0] = torch.nan
    try:
        save(run / os.fsdecode(b"step_1_\xff.safetensors"), spoilt)
    except OSError:
        pytest.skip("the file system takes only text")
    first, again = (spectra("rank", run, "--out", "out", "--json") for _ in range(2))
    assert (first.status, again.status, kept(again)) == (3, 3, 2)
    told = [[line for line in done.err.splitlines() if line.startswith("Warning: ")] for done in (first, again)]
    assert len(told[0]) == 1
    assert told[0] == told[1]


def test_a_table_that_turns_out_to_be_damaged_when_its_rows_are_copied_says_what_to_do(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too late to make all of it anew; the table stays as it is, and what was finished is kept."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    before = Path("out").read_bytes()
    rewrite(run, 400, seed=7)

    def damaged(*_: object) -> None:
        raise InputError("the file is damaged", where="out", remedy="Make it anew")

    with monkeypatch.context() as patch:
        patch.setattr(KeptTable, "rows", damaged)
        done = spectra("rank", run, "--out", "out")
    assert done.status == 1
    assert "Move this file away, and run the same command again; what has been finished is kept" in done.err
    assert Path("out").read_bytes() == before
    Path("out").unlink()
    with counted() as work:
        assert spectra("rank", run, "--out", "out").status == 0
    assert step(run, 400).name not in work.opened
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_a_table_that_cannot_be_used_is_told_to_be_made_anew(spectra: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people would wonder why hours of work begin again."""
    run = trajectory(steps=(0, 100))
    assert spectra("rank", run, "--out", "out").status == 0

    def damaged(*_: object) -> KeptTable:
        raise InputError("a page of it is damaged", where="elsewhere", remedy="Read another")

    monkeypatch.setattr(KeptTable, "open", damaged)
    done = spectra("rank", run, "--out", "out", "--json")
    assert (done.status, kept(done)) == (0, 0)
    assert "out: all of it is made anew: what is there cannot be used (a page of it is damaged)." in done.err


def test_a_directory_that_is_not_there_is_told_of_the_table_that_was_asked_for(spectra: Fixture) -> None:
    """And not of the hidden file that is written first."""
    done = spectra("rank", trajectory(steps=(0,)), "--out", "absent/out.parquet")
    assert done.status == 1
    assert "absent/out.parquet: the table cannot be written: No such file or directory" in done.err
    assert "journal" not in done.err


def test_the_secrets_of_a_url_are_not_told_where_two_tables_would_go_to_it() -> None:
    url = "https://me:open@sesame.example/out.parquet?signature=abracadabra"
    with pytest.raises(UsageError, match="two tables would be written to") as raised:
        writing_of({"rank": None, "sva": url, "align": url}, {}, (), ExecutionOptions())
    assert "open" not in str(raised.value)
    assert "abracadabra" not in str(raised.value)
