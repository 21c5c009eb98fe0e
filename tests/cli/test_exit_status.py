"""Exit status and message: 0 done, 1 input or environment, 2 usage, 3 done but not all could be used."""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from spectra_cli.cli.main import run

Fixture = Callable[..., Any]
TABLE = Path("rank.parquet")


def one_paragraph(text: str, kind: str = "Error") -> str:
    """The message, required to be a single line that a terminal wraps, with a stop at its end."""
    (line,) = text.splitlines()
    assert line.startswith(f"{kind}: ")
    assert line.endswith(".")
    assert "Traceback" not in line
    return line


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("These are not the weights you are looking for.\n")


def corrupt_header(path: Path) -> None:
    """A safetensors file whose header is no JSON."""
    path.write_bytes((64).to_bytes(8, "little") + b"{" * 64 + b"\0" * 64)


def lying_header(path: Path) -> None:
    """A safetensors file whose header promises more than there is."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)


def zip_without_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0, 2.0]}))


def no_tensors(path: Path) -> None:
    torch.save({"epoch": 3, "note": "no weights"}, path)


def no_matrices(path: Path) -> None:
    torch.save({"norm.weight": torch.ones(4), "norm.bias": torch.ones(4)}, path)


BREAKAGES = [
    truncated,
    emptied,
    text,
    corrupt_header,
    lying_header,
    zip_without_pickle,
    plain_pickle,
    no_tensors,
    no_matrices,
]


# 0


def test_a_good_run_is_0_and_quiet_prints_nothing(spectra: Fixture, make_run: Fixture, table: Fixture) -> None:
    outcome = spectra("rank", make_run(), "--quiet")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert len(table()) == 6


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["rank", "--help"], ["columns"]])
def test_asking_for_help_is_0_and_goes_to_stdout(arguments: list[str], spectra: Fixture) -> None:
    outcome = spectra(*arguments)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out


def test_matrices_that_are_empty_or_zero_are_no_fault(spectra: Fixture, tmp_path: Path) -> None:
    torch.save({"empty.weight": torch.zeros(0, 4), "zero.weight": torch.zeros(3, 4)}, tmp_path / "model.pt")
    assert spectra("rank", "model.pt").status == 0


def test_a_wrong_suffix_does_not_matter(spectra: Fixture, make_run: Fixture, table: Fixture) -> None:
    """What a file is follows from its bytes: here a PyTorch archive that is called safetensors, and the reverse."""
    pytorch = make_run(steps=[0]) / "step_0.pt"
    weights = torch.load(pytorch, weights_only=True)
    pytorch.rename("model.safetensors")
    save_file(weights, "model.pt")
    for name in ("model.safetensors", "model.pt"):
        assert spectra("rank", name, "--out", f"{name}.parquet").status == 0
    digests = [[row["digest"] for row in table(f"{name}.parquet")] for name in ("model.safetensors", "model.pt")]
    assert sorted(digests[0]) == sorted(digests[1])


# 1


def test_a_path_that_is_not_there_is_1(spectra: Fixture) -> None:
    outcome = spectra("rank", "absent")
    assert outcome.status == 1
    assert one_paragraph(outcome.err).startswith("Error: absent: does not exist")
    assert not TABLE.exists()


def test_a_directory_without_checkpoints_is_1(spectra: Fixture, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.csv").write_text("step,loss\n")
    outcome = spectra("rank", "logs")
    assert outcome.status == 1
    assert "metrics.csv" in one_paragraph(outcome.err)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_that_cannot_be_used_is_1(
    breakage: Callable[[Path], None], suffix: str, spectra: Fixture, make_run: Fixture
) -> None:
    path = (make_run(steps=[0]) / "step_0.pt").rename(f"model{suffix}")
    breakage(path)
    outcome = spectra("rank", path)
    assert outcome.status == 1
    assert one_paragraph(outcome.err).startswith(f"Error: {path}: ")
    assert not TABLE.exists()


def test_nothing_left_to_analyse_is_1_and_names_what_there_is(spectra: Fixture, make_run: Fixture) -> None:
    outcome = spectra("rank", make_run(), "--include", "decoder.*")
    assert outcome.status == 1
    message = one_paragraph(outcome.err)
    assert "--include decoder.*" in message
    assert "first.weight, second.weight" in message
    assert not TABLE.exists()


def test_a_device_that_is_not_there_is_1(spectra: Fixture, make_run: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = spectra("rank", make_run(), "--device", "cuda")
    assert outcome.status == 1
    assert "--device cpu" in one_paragraph(outcome.err)


def test_a_table_that_cannot_be_written_is_1(spectra: Fixture, make_run: Fixture) -> None:
    outcome = spectra("rank", make_run(), "--out", "absent/rank.parquet")
    assert outcome.status == 1
    assert one_paragraph(outcome.err).startswith("Error: absent/rank.parquet: ")


def test_if_no_checkpoint_can_be_used_it_is_1_and_each_is_named(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    for path in directory.iterdir():
        truncated(path)
    outcome = spectra("rank", directory)
    assert outcome.status == 1
    first, others, error = outcome.err.splitlines()
    assert one_paragraph(first, "Warning").split(": ")[1] == str(directory / "step_0.pt")
    named = f"{directory}: the same of 2 more checkpoints, step_100.pt, step_200.pt: "
    assert one_paragraph(others, "Warning").removeprefix("Warning: ").startswith(named)
    assert "none of the 3 checkpoints" in one_paragraph(error)
    assert not TABLE.exists()


def make_sharded_run(directory: Path) -> Path:
    """Two sharded checkpoints, of which the second lacks a shard."""
    for step in (1, 2):
        checkpoint = directory / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        shards = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
        for index, (name, file) in enumerate(shards.items()):
            save_file({name: torch.full((3, 4), step + index).float()}, checkpoint / file)
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (directory / "checkpoint-2" / "model-00002-of-00002.safetensors").unlink()
    return directory


def test_an_absent_shard_is_1_before_any_work(
    spectra: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it is in the last checkpoint: nobody wants to learn of it after an hour."""
    from spectra_cli.execution.trajectory import openedcheckpoints

    def never(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(openedcheckpoints, "open_checkpoint", never)
    outcome = spectra("rank", make_sharded_run(tmp_path / "run"))
    assert outcome.status == 1
    message = one_paragraph(outcome.err)
    assert "checkpoint-2" in message
    assert "model-00002-of-00002.safetensors" in message
    assert message.count("--skip-incomplete") == 1
    assert not TABLE.exists()


def test_an_incomplete_checkpoint_by_itself_cannot_be_skipped(spectra: Fixture, tmp_path: Path) -> None:
    """Nothing would be left, so the message does not offer it."""
    outcome = spectra("rank", make_sharded_run(tmp_path / "run") / "checkpoint-2")
    assert outcome.status == 1
    assert "--skip-incomplete" not in one_paragraph(outcome.err)


# 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tag", "novalue"], "--tag novalue"),
        (["--tag", "=value"], "--tag =value"),
        (["--tag", "a=1", "--tag", "a=2"], "--tag a"),
        (["--tag", "gini=1"], "--tag gini"),
        (["--memory-budget", "lots"], "--memory-budget lots"),
        (["--memory-budget", "0"], "--memory-budget 0"),
        (["--memory-budget", "12"], "--memory-budget 12 has no unit and would be bytes. Write 12GB."),
        (["--memory-budget", "-1GB"], "--memory-budget -1GB"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "cuda:x"], "--device cuda:x"),
        (["--every", "0"], "--every 0"),
        (["--log-spaced", "1"], "--log-spaced 1"),
        (["--steps", "soon"], "--steps soon"),
        (["--steps", "9:1"], "--steps 9:1"),
        (["--workers", "0"], "--workers 0"),
        (["--scheduler", ""], "--scheduler ''"),
        (["--scheduler", "foo://x"], "--scheduler 'foo://x'"),
    ],
)
def test_an_option_that_means_nothing_is_2_and_is_repeated(
    arguments: list[str], named: str, spectra: Fixture, make_run: Fixture
) -> None:
    outcome = spectra("rank", make_run(), *arguments)
    assert outcome.status == 2
    assert named in one_paragraph(outcome.err)
    assert not TABLE.exists()


@pytest.mark.parametrize(
    "arguments", [["rank"], ["rank", "run", "--colour"], ["ranks", "run"], ["rank", "run", "--every", "two"]]
)
def test_a_command_line_that_does_not_parse_is_2(arguments: list[str], spectra: Fixture) -> None:
    outcome = spectra(*arguments)
    assert outcome.status == 2
    assert "Usage: spectra" in outcome.err


def test_an_unknown_table_is_2(spectra: Fixture) -> None:
    outcome = spectra("columns", "ranks")
    assert outcome.status == 2
    assert "rank" in one_paragraph(outcome.err)


def test_a_step_that_is_not_one_is_2_and_one_that_is_absent_is_1(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    assert spectra("rank", f"{directory}@soon").status == 2
    outcome = spectra("rank", f"{directory}@150")
    assert outcome.status == 1
    assert "0, 100, 200" in one_paragraph(outcome.err)


# 3


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda function: function.__name__)
def test_one_bad_checkpoint_is_a_row_and_loses_none_of_the_others(
    breakage: Callable[[Path], None], spectra: Fixture, make_run: Fixture, table: Fixture
) -> None:
    directory = make_run()
    assert spectra("rank", directory, "--out", "before.parquet").status == 0
    breakage(directory / "step_100.pt")
    outcome = spectra("rank", directory)
    assert outcome.status == 3
    message = one_paragraph(outcome.err.splitlines()[0], "Warning")
    assert message.startswith(f"Warning: {directory / 'step_100.pt'}: ")
    rows = table()
    (bad,) = [row for row in rows if row["status"] != "ok"]
    assert (bad["run"], bad["checkpoint"], bad["step"]) == (".", "step_100.pt", 100)
    assert bad["status"] in {"corrupt", "unreadable", "unsupported_format", "no_matrices"}
    assert all(bad[name] is None for name in ("parameter", "gini", "singular_values", "digest"))
    expected = [row for row in table("before.parquet") if row["step"] != 100]
    assert [row for row in rows if row is not bad] == expected
    assert "1 of 5 rows not ok" in outcome.err


def test_quiet_still_says_what_was_skipped(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    truncated(directory / "step_0.pt")
    outcome = spectra("rank", directory, "--quiet")
    assert (outcome.status, outcome.out) == (3, "")
    assert "step_0.pt" in one_paragraph(outcome.err, "Warning")


def test_an_incomplete_checkpoint_can_be_skipped(spectra: Fixture, tmp_path: Path, table: Fixture) -> None:
    outcome = spectra("rank", make_sharded_run(tmp_path / "run"), "--skip-incomplete")
    assert outcome.status == 3
    assert [(row["checkpoint"], row["status"]) for row in table()] == [
        ("checkpoint-1", "ok"),
        ("checkpoint-1", "ok"),
        ("checkpoint-2", "incomplete"),
    ]
    assert "--skip-incomplete" not in outcome.err


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (torch.full((6, 4), math.nan), "not_finite"),
        (torch.full((6, 4), -math.inf), "not_finite"),
        (torch.ones(6, 4, dtype=torch.complex64), "complex_dtype"),
    ],
    ids=["nan", "inf", "complex"],
)
def test_a_matrix_that_cannot_be_used_is_a_row_and_is_named(
    bad: torch.Tensor, status: str, spectra: Fixture, table: Fixture
) -> None:
    torch.save({"bad.weight": bad, "good.weight": torch.ones(6, 4)}, "model.pt")
    outcome = spectra("rank", "model.pt", "--quiet")
    assert outcome.status == 3
    message = one_paragraph(outcome.err, "Warning")
    assert message.startswith(f"Warning: model.pt: 1 of 2 matrices {status} (bad.weight): ")
    assert [(row["parameter"], row["status"]) for row in table()] == [("bad.weight", status), ("good.weight", "ok")]


def test_matrices_beyond_the_budget_are_one_message(spectra: Fixture, table: Fixture) -> None:
    """Not one for each of a hundred layers."""
    tensors = {f"layers.{index}.weight": torch.ones(150, 150) for index in range(9)}
    torch.save({**tensors, "small.weight": torch.ones(3, 2)}, "model.pt")
    outcome = spectra("rank", "model.pt", "--memory-budget", "100kB", "--quiet")
    assert outcome.status == 3
    message = one_paragraph(outcome.err, "Warning")
    assert "9 of 10 matrices over_memory_budget (layers.0.weight, " in message
    assert "and 3 more" in message
    assert "--memory-budget" in message
    assert [row["status"] for row in table()].count("ok") == 1


# Hostile files


class Trap:
    """Unpickled by pickle, this makes a directory."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self._target,))


def test_the_trap_works(tmp_path: Path) -> None:
    """Or else the tests below could not fail."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("command", ["rank", "inspect"])
def test_a_hostile_pickle_is_not_executed_and_harms_no_other(
    command: str, spectra: Fixture, make_run: Fixture, tmp_path: Path
) -> None:
    """In place of the state dict, of a weight, and as a plain pickle."""
    sprung = tmp_path / "sprung"
    directory = make_run()
    torch.save(Trap(sprung), directory / "step_300.pt")
    torch.save({"first.weight": Trap(sprung)}, directory / "step_400.pt")
    torch.save(Trap(sprung), directory / "step_500.pt", _use_new_zipfile_serialization=False)
    (directory / "step_600.pt").write_bytes(pickle.dumps(Trap(sprung)))
    outcome = spectra(command, directory)
    assert outcome.status == 3
    assert not sprung.exists()
    lines = [*outcome.err.splitlines(), *outcome.out.splitlines()]
    warnings = [line for line in lines if line.startswith(f"Warning: {directory}")]
    assert all(any(f"step_{step}.pt" in line for line in warnings) for step in (300, 400, 500, 600))


def test_a_hostile_pickle_beside_good_weights_is_left_alone(
    spectra: Fixture, make_run: Fixture, table: Fixture, tmp_path: Path
) -> None:
    """Arbitrary objects among the hyper-parameters are common: the weights are read all the same."""
    weights = torch.load(make_run(steps=[0]) / "step_0.pt", weights_only=True)
    hyper_parameters = {"nested": [{"deeper": Trap(tmp_path / "sprung")}]}
    torch.save({"state_dict": weights, "hyper_parameters": hyper_parameters}, "model.ckpt")
    assert spectra("rank", "model.ckpt").status == 0
    assert not (tmp_path / "sprung").exists()
    assert [row["parameter"] for row in table()] == ["first.weight", "second.weight"]


# Faults


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (RuntimeError("sums do not add up"), "RuntimeError: sums do not add up. This is a fault of spectra"),
        (MemoryError(), "--memory-budget"),
        (OSError(28, "No space left on device", "rank.parquet"), "rank.parquet: No space left on device."),
    ],
)
def test_an_unforeseen_exception_is_1_and_a_paragraph(
    fault: Exception, said: str, spectra: Fixture, make_run: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectra_cli.execution.trajectory import analyst

    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(analyst, "visit", fail)
    outcome = spectra("rank", make_run())
    assert outcome.status == 1
    assert said in one_paragraph(outcome.err)
    assert [path.name for path in Path.cwd().iterdir()] == ["run"]


def test_a_command_that_writes_nothing_before_its_end_says_that_it_was_interrupted(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more, as nobody has said how far it was."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spectra_cli.tables.finding.find_tables", interrupt)
    outcome = spectra("report", ".")
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "Error: interrupted.\n")


def test_a_traceback_is_shown_to_those_who_ask(
    make_run: Fixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SPECTRA_DEBUG=1, before the message, and the exit status stays what it is."""
    arguments = ["rank", str(make_run()), "--tag", "novalue"]
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("SPECTRA_DEBUG", "1")
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)")
    assert said.rstrip().splitlines()[-1].startswith("Error: --tag novalue")
    monkeypatch.setenv("SPECTRA_DEBUG", "0")
    assert run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_checkpoint_that_lacks_what_is_asked_for_is_a_row(spectra: Fixture, table: Fixture) -> None:
    torch.save({"x.weight": torch.eye(3), "head.weight": torch.eye(2)}, "step_1.pt")
    torch.save({"x.weight": torch.eye(3)}, "step_2.pt")
    outcome = spectra("rank", ".", "--include", "head*")
    assert outcome.status == 3
    assert re.search(r"no matrix is left by --include and --exclude in \S*step_2\.pt\.", outcome.err)
    assert [(row["checkpoint"], row["status"]) for row in table()] == [
        ("step_1.pt", "ok"),
        ("step_2.pt", "nothing_selected"),
    ]


def test_a_matter_of_many_checkpoints_is_told_once_and_counted(spectra: Fixture) -> None:
    for step in range(5):
        torch.save({"x.weight": torch.full((3, 3), float("nan")), "y.weight": torch.eye(3)}, f"step_{step}.pt")
    outcome = spectra("rank", ".", "--quiet")
    assert outcome.status == 3
    assert outcome.err.count("Warning: ") == 2
    assert "the same in 4 more of its checkpoints: 1 of 2 matrices not_finite: they hold NaN" in outcome.err


def test_a_transposed_glob_that_matches_nothing_is_named(spectra: Fixture, make_run: Fixture) -> None:
    outcome = spectra("rank", make_run(), "--transposed", "absent*", "--transposed", "first*")
    assert "--transposed absent* matches no parameter" in outcome.err
    assert "first*" not in outcome.err
