"""The same weights give the same table from every format; formats that are not read are refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Fixture = Callable[..., Any]
FIXTURES = Path(__file__).parents[2] / "fixtures"
FORMATS = FIXTURES / "formats"
EXPECTED = json.loads((FORMATS / "expected.json").read_text())
REAL_RUNS = sorted(metrics.parent for metrics in FIXTURES.rglob("metrics.csv"))
KINDS = {
    "embedding.weight": "embedding",
    "linear1.weight": "linear",
    "linear2.weight": "linear",
    "conv.weight": "conv",
}


@pytest.mark.parametrize("name", EXPECTED["checkpoints"])
def test_every_format_gives_the_same_answer(name: str, spectra: Fixture, table: Fixture) -> None:
    """The answer is float64 LAPACK's, from when the fixtures were made."""
    checkpoint = EXPECTED["checkpoints"][name]
    assert spectra("rank", FORMATS / checkpoint["path"], "--quiet").status == 0
    rows = {row["parameter"]: row for row in table()}
    answers = EXPECTED["singular_values"][checkpoint["dtype"]]
    assert set(rows) == set(answers) == set(KINDS)
    for parameter, answer in answers.items():
        row = rows[parameter]
        assert (row["status"], row["dtype"], row["kind"]) == ("ok", checkpoint["dtype"], KINDS[parameter])
        error = np.abs(np.subtract(row["singular_values"], answer)).max()
        assert error <= min(1e-5 * answer[0], row["singular_value_error"] + 1e-14 * answer[0])


def test_equal_weights_have_equal_digests_in_every_format(spectra: Fixture, table: Fixture) -> None:
    """The digest ties numbers to weights, not to a file."""
    digests: dict[str, set[tuple[str, str]]] = {}
    for name, checkpoint in EXPECTED["checkpoints"].items():
        assert spectra("rank", FORMATS / checkpoint["path"], "--quiet", "--out", f"{name}.parquet").status == 0
        found = {(row["parameter"], row["digest"]) for row in table(f"{name}.parquet")}
        assert digests.setdefault(checkpoint["dtype"], found) == found, name
    assert len(set().union(*digests.values())) == len(KINDS) * len(digests)


@pytest.mark.parametrize("name", [name for name, item in EXPECTED["checkpoints"].items() if item["dtype"] == "float32"])
def test_inspect_finds_the_matrices_that_rank_analyses(name: str, spectra: Fixture) -> None:
    path = EXPECTED["checkpoints"][name]["path"]
    outcome = spectra("inspect", FORMATS / path, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    (run,) = json.loads(outcome.out)["runs"]
    assert {matrix["parameter"]: matrix["kind"] for matrix in run["matrices"]} == KINDS
    assert len(run["checkpoints"]) == 1


@pytest.mark.parametrize("name", EXPECTED["refused"])
@pytest.mark.parametrize("command", ["rank", "inspect"])
def test_a_format_that_is_not_read_is_named_with_a_way_out(name: str, command: str, spectra: Fixture) -> None:
    """Said by the file's name or by its content; never with numbers from packed bytes."""
    outcome = spectra(command, FORMATS / EXPECTED["refused"][name])
    assert outcome.status == 1
    said = (outcome.out + outcome.err).lower()
    assert name in said.replace("-", "").replace(" ", "")
    assert not Path("rank.parquet").exists()


def test_all_formats_in_one_directory_are_runs_of_their_own(spectra: Fixture, table: Fixture) -> None:
    """What is refused is a row among them, and the exit status tells."""
    outcome = spectra("rank", FORMATS)
    assert outcome.status == 3
    rows = table()
    refused = {row["run"] for row in rows if row["status"] != "ok"}
    assert all(run.startswith("refused/") for run in refused)
    assert {row["status"] for row in rows if row["run"] in refused} == {"unsupported_format"}
    names = {path.name for path in FORMATS.iterdir() if path.is_dir()} - {"refused"}
    assert {row["run"] for row in rows} - refused == names
    assert outcome.widest <= 80


@pytest.mark.parametrize("run", REAL_RUNS, ids=lambda path: path.relative_to(FIXTURES).as_posix())
def test_a_real_run_is_read_whole_and_in_order(run: Path, spectra: Fixture, table: Fixture) -> None:
    assert spectra("rank", run).status == 0
    rows = table()
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["run"] for row in rows} == {"."}
    steps = list(dict.fromkeys(row["step"] for row in rows))
    assert steps == sorted(steps)
    assert len(steps) >= 5
    assert steps[0] == 0
