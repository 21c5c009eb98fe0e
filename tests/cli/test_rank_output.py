"""What `spectra rank` writes and prints: selection, runs, tags, JSON, and a summary for people."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from spectra_cli import __version__
from spectra_cli.tables.schemas import arrow_schema

Fixture = Callable[..., Any]
AWKWARD = [
    "[red]danger[/].weight",
    "[/].weight",
    "[bold.weight",
    "层.注意力.weight",
    "größe.weight",
    "v" * 200 + ".weight",
]


def steps(rows: list[dict[str, object]]) -> list[object]:
    return list(dict.fromkeys(row["step"] for row in rows))


# Selection


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 4, 8, 16, 32, 64]),
        (["--steps", "0,8,final"], [0, 8, 64]),
        (["--steps", "2:8"], [2, 4, 8]),
        (["--every", "3"], [0, 4, 32, 64]),
        (["--log-spaced", "4"], [0, 1, 8, 64]),
        (["--steps", ":16", "--every", "2"], [0, 2, 8, 16]),
    ],
)
def test_checkpoints_are_selected(
    options: list[str], expected: list[int], spectra: Fixture, make_run: Fixture, table: Fixture
) -> None:
    assert spectra("rank", make_run(steps=[0, 1, 2, 4, 8, 16, 32, 64]), *options).status == 0
    assert steps(table()) == expected


@pytest.mark.parametrize(("at", "expected"), [("100", [100]), ("first", [0]), ("final", [200])])
def test_a_step_is_picked_with_an_at(
    at: str, expected: list[int], spectra: Fixture, make_run: Fixture, table: Fixture
) -> None:
    assert spectra("rank", f"{make_run()}@{at}").status == 0
    assert steps(table()) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--include", "first.*"], {"first.weight"}),
        (["--exclude", "first.*"], {"second.weight"}),
        (["--include", "first.*", "--include", "second.*", "--exclude", "*nd*"], {"first.weight"}),
    ],
)
def test_matrices_are_selected_and_keep_their_depth(
    options: list[str], expected: set[str], spectra: Fixture, make_run: Fixture, table: Fixture
) -> None:
    """The place in the model does not depend on what else is analysed."""
    assert spectra("rank", make_run(), *options).status == 0
    depths = {row["parameter"]: row["depth"] for row in table()}
    assert depths.keys() == expected
    assert depths == {name: depth for name, depth in {"first.weight": 0, "second.weight": 1}.items() if name in depths}


# Runs


def test_runs_below_a_directory_are_told_apart(spectra: Fixture, make_run: Fixture, table: Fixture) -> None:
    make_run("runs/seed_2", seed=2)
    make_run("runs/seed_10", seed=10)
    outcome = spectra("rank", "runs")
    assert outcome.status == 0
    rows = table()
    assert list(dict.fromkeys(row["run"] for row in rows)) == ["seed_2", "seed_10"]
    assert len(rows) == 2 * 3 * 2
    assert "Effective rank in seed_2, step_0.pt to step_200.pt" in outcome.err


def test_the_order_of_paths_does_not_change_the_table(spectra: Fixture, make_run: Fixture, table: Fixture) -> None:
    make_run("a", seed=1)
    make_run("b", seed=2)
    for out, paths in {"ab.parquet": ["a", "b"], "ba.parquet": ["b", "a"], "again.parquet": ["a", "b"]}.items():
        assert spectra("rank", *paths, "--out", out).status == 0
    tables = [pq.read_table(name).replace_schema_metadata() for name in ("ab.parquet", "ba.parquet", "again.parquet")]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert {row["run"] for row in table("ab.parquet")} == {"a", "b"}


def test_two_runs_of_the_command_write_the_same_bytes_but_for_metadata(
    spectra: Fixture, make_run: Fixture, tmp_path: Path
) -> None:
    directory = make_run()
    contents = []
    for name in ("one.parquet", "two.parquet"):
        assert spectra("rank", directory, "--out", name).status == 0
        pq.write_table(pq.read_table(name).replace_schema_metadata(), f"plain_{name}")
        contents.append(Path(f"plain_{name}").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["with space", "größe-层", "[red]run", "[/]", "semi;colon & 'quotes'", "run@work"])
def test_any_name_of_a_directory_will_do(name: str, spectra: Fixture, make_run: Fixture, table: Fixture) -> None:
    make_run(f"runs/{name}")
    make_run("runs/other")
    outcome = spectra("rank", "runs")
    assert outcome.status == 0
    assert {row["run"] for row in table()} == {name, "other"}
    assert f"Effective rank in {name}, " in outcome.err
    assert spectra("rank", f"runs/{name}@final").status == 0
    assert steps(table()) == [200]


# The file


def test_the_file_has_the_schema_tags_and_metadata(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    arguments = ["rank", str(directory), "--tag", "optimizer=adamw", "--tag", "note=a=b", "--include", "*.weight"]
    assert spectra(*arguments, "--memory-budget", "1GiB", "--device", "cpu").status == 0
    read = pq.read_table("rank.parquet")
    assert read.schema.equals(arrow_schema("rank", {"optimizer": "", "note": ""}))
    assert set(read.column("optimizer").to_pylist()) == {"adamw"}
    assert set(read.column("note").to_pylist()) == {"a=b"}
    metadata = {key.decode(): value.decode() for key, value in read.schema.metadata.items()}
    assert metadata["spectra.version"] == __version__
    assert metadata["spectra.schema"] == "rank/1"
    assert metadata["spectra.device"] == "cpu"
    assert metadata["spectra.torch"] == torch.__version__
    assert metadata["spectra.command"].startswith("spectra ")
    settings = json.loads(metadata["spectra.settings"])
    assert settings["include"] == ["*.weight"]
    assert settings["budget_bytes"] == 2**30
    assert settings["tags"] == {"optimizer": "adamw", "note": "a=b"}


def test_an_older_table_is_replaced_only_by_a_whole_one(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    assert spectra("rank", directory).status == 0
    before = Path("rank.parquet").read_bytes()
    assert spectra("rank", directory, "--include", "nothing").status == 1
    assert Path("rank.parquet").read_bytes() == before
    assert spectra("rank", directory, "--include", "first.*").status == 0
    assert pq.read_metadata("rank.parquet").num_rows == 3


# Standard output


def test_json_is_one_document_and_all_there_is_on_stdout(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    (directory / "step_100.pt").write_bytes(b"")
    outcome = spectra("rank", directory, "--json")
    assert outcome.status == 3
    summary = json.loads(outcome.out)
    assert (summary["table"], summary["out"], summary["rows"]) == ("rank", "rank.parquet", 5)
    assert summary["statuses"] == {"ok": 4, "corrupt": 1}
    (problem,) = summary["problems"]
    assert "step_100.pt" in problem
    (listed,) = summary["runs"]
    assert (listed["run"], listed["checkpoints"]) == (".", 3)
    assert (listed["first_checkpoint"], listed["last_checkpoint"]) == ("step_0.pt", "step_200.pt")
    rows = pq.read_table("rank.parquet").to_pylist()
    for matrix in listed["matrices"]:
        ranks = [row["effective_rank"] for row in rows if row["parameter"] == matrix["parameter"]]
        assert (matrix["effective_rank_first"], matrix["effective_rank_last"]) == (ranks[0], ranks[-1])


def test_without_json_stdout_stays_empty(spectra: Fixture, make_run: Fixture) -> None:
    """So that `spectra rank ... | something` never mixes talk with data."""
    outcome = spectra("rank", make_run())
    assert outcome.out == ""
    assert outcome.err


# The summary


def effective_rank(matrix: torch.Tensor) -> float:
    s = torch.linalg.svdvals(matrix.double())
    p = s / s.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def test_the_summary_shows_first_last_and_change(spectra: Fixture, make_run: Fixture) -> None:
    """Most compressed first; the numbers are those of torch's SVD, rounded."""
    directory = make_run()
    outcome = spectra("rank", directory)
    ends = [torch.load(directory / f"step_{step}.pt", weights_only=True) for step in (0, 200)]
    shown = {}
    for line in outcome.err.splitlines():
        cells = line.split()
        if cells and cells[0].endswith(".weight"):
            shown[cells[0]] = cells[1:]
    expected = {}
    for name in ("first.weight", "second.weight"):
        first, last = (effective_rank(end[name]) for end in ends)
        side = min(ends[0][name].shape)
        change = f"{round(last / first - 1, 2) + 0.0:+.0%}".replace("+0%", "0%")
        expected[name] = [str(side), f"{first:.1f}", f"{last:.1f}", f"{last / side:.3f}", change]
    assert shown == expected
    shares = [float(cells[3]) for cells in shown.values()]
    assert shares == sorted(shares)
    assert "rank.parquet: 6 rows from 3 checkpoints in " in outcome.err


def test_first_and_last_are_checkpoints_that_could_be_used(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run(steps=[0, 1, 2, 3])
    for step in (0, 3):
        (directory / f"step_{step}.pt").write_bytes(b"")
    outcome = spectra("rank", directory)
    assert "Effective rank, step_1.pt to step_2.pt\n" in outcome.err
    (directory / "step_2.pt").write_bytes(b"")
    outcome = spectra("rank", directory)
    assert "Effective rank, step_1.pt\n" in outcome.err
    assert "change" not in outcome.err


def test_a_change_that_rounds_to_nothing_has_no_minus(spectra: Fixture) -> None:
    """A little up and a little down: the effective rank of a diagonal grows as its values come closer."""
    Path("run").mkdir()
    torch.save({"a.weight": torch.diag(torch.tensor([2.0, 1.0]))}, "run/step_0.pt")
    for least in (1.0001, 0.9999):
        torch.save({"a.weight": torch.diag(torch.tensor([2.0, least]))}, "run/step_1.pt")
        assert " 0%" in spectra("rank", "run").err


def test_many_matrices_are_shown_from_both_ends(spectra: Fixture) -> None:
    """Planted ranks: k of 12 for matrix k."""
    tensors = {}
    for count in range(1, 13):
        basis = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(count))).Q
        tensors[f"rank{count:02}.weight"] = basis[:, :count] @ basis[:, :count].T
    torch.save(tensors, "model.pt")
    outcome = spectra("rank", "model.pt")
    names = re.findall(r"^rank(\d\d)\.weight", outcome.err, re.MULTILINE)
    assert names == ["01", "02", "03", "10", "11", "12"]
    assert "... 6 between" in outcome.err


def test_many_runs_do_not_flood_the_terminal(spectra: Fixture, make_run: Fixture) -> None:
    for seed in range(7):
        make_run(f"runs/seed_{seed}", steps=[0], seed=seed)
    outcome = spectra("rank", "runs")
    assert outcome.err.count("Effective rank in ") == 4
    assert "... and 3 more runs" in outcome.err


@pytest.mark.parametrize("command", ["rank", "inspect"])
@pytest.mark.parametrize("directory", ["run", "r" * 120, "层" * 60, "[" * 90])
def test_all_that_is_printed_fits_80_columns(command: str, directory: str, spectra: Fixture) -> None:
    """Whatever the names are; and markup in them is text."""
    from rich.cells import cell_len

    run = Path("runs") / directory
    run.mkdir(parents=True)
    for step in (1, 2):
        generator = torch.Generator().manual_seed(step)
        torch.save(
            {name: torch.randn(4, 4, generator=generator) for name in AWKWARD},
            run / f"[bold]{'s' * 150}-层-step_{step}.pt",
        )
    outcome = spectra(command, "runs")
    assert outcome.status == 0
    printed = outcome.err + outcome.out
    assert max(map(cell_len, printed.splitlines())) <= 80
    for name in AWKWARD[:5]:
        assert name in printed
    assert "[bold]" in printed


def test_names_with_markup_and_unicode_are_stored_as_they_are(spectra: Fixture, table: Fixture) -> None:
    torch.save({name: torch.ones(3, 2) for name in AWKWARD}, "model.pt")
    assert spectra("rank", "model.pt").status == 0
    assert [row["parameter"] for row in table()] == AWKWARD


def test_messages_show_markup_as_text(spectra: Fixture, make_run: Fixture) -> None:
    assert "Error: [red]absent[/]: " in spectra("rank", "[red]absent[/]").err
    directory = make_run()
    (directory / "[red]x[bold]_step_300.pt").write_bytes(b"")
    assert f"Warning: {directory}/[red]x[bold]_step_300.pt: " in spectra("rank", directory).err


def test_what_would_steer_a_terminal_is_shown_as_an_escape(spectra: Fixture) -> None:
    """From names of directories and files, of parameters, and from config.json; and emoji codes stay what they are."""
    run = Path("runs") / ":fire: a\x1b]0;title\x07\x1b[2J"
    run.mkdir(parents=True)
    torch.save({"a:x:\x1b[31mred.weight": torch.randn(3, 3)}, run / "step_3\nError: forged.pt")
    (run / "config.json").write_text(json.dumps({"architectures": ["X\x1b[31m"]}), encoding="utf-8")
    for command in ("rank", "inspect"):
        outcome = spectra(command, "runs")
        printed = outcome.err + outcome.out
        assert outcome.status == 0
        assert "\x1b[31m" not in printed
        assert "\x1b]" not in printed
        assert not any(line.startswith("Error") for line in printed.splitlines())
        assert ":fire:" in printed


def test_a_checkpoint_without_a_step_is_no_first_or_last_beside_others_with_one(
    spectra: Fixture, make_run: Fixture
) -> None:
    directory = make_run(steps=[1, 2])
    torch.save({name: torch.eye(4) for name in ("first.weight", "second.weight")}, directory / "best.pt")
    outcome = spectra("rank", directory)
    assert "step_1.pt to step_2.pt" in outcome.err
    assert "best.pt" not in outcome.err.split("rank.parquet")[0]


def test_a_matrix_of_one_checkpoint_has_no_change(spectra: Fixture) -> None:
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.randn(4, 4, generator=generator)
    torch.save({"x.weight": everywhere, "gone.weight": everywhere * 2}, "step_1.pt")
    torch.save({"x.weight": everywhere, "new.weight": everywhere * 3}, "step_2.pt")
    lines = {line.split()[0]: line.split() for line in spectra("rank", ".").err.splitlines() if ".weight" in line}
    assert lines["x.weight"][-1] == "0%"
    assert lines["gone.weight"][-3:] == ["-", "-", "-"]
    assert lines["new.weight"][2] == "-"
    assert lines["new.weight"][-1] == "-"


def test_the_recorded_command_can_be_run_again(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    spectra("rank", directory, "--include", "first w*", "--include", "*", "--out", "a.parquet")
    command = pq.read_schema("a.parquet").metadata[b"spectra.command"].decode()
    assert shlex.split(command) == [
        *("spectra", "rank", str(directory), "--include", "first w*", "--include", "*", "--out", "a.parquet")
    ]


def test_help_loses_no_word_to_markup(spectra: Fixture) -> None:
    assert "type, unit and meaning" in " ".join(spectra("columns", "--help").out.split())
