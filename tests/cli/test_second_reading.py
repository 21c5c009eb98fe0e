"""What users tripped over: files replaced by tables, natural arguments, whose fault a row is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import spectra_cli
from spectra_cli.analyses.align_summary import RunAlignment
from spectra_cli.cli.main import run
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.work.listener import SkippedWorkWarning
from spectra_cli.spectrum.subspaces import chance

STEPS = (0, 10, 20)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """Three checkpoints of two layers."""
    directory = tmp_path / "mlp"
    directory.mkdir()
    for step in STEPS:
        generator = torch.Generator().manual_seed(step)
        weights = {f"layers.{layer}.weight": torch.randn(20, 20, generator=generator) for layer in range(2)}
        save_file(weights, directory / f"step_{step}.safetensors")
    return directory


def spoil(checkpoint: Path) -> None:
    """Make one weight of the first layer NaN."""
    weights = {name: torch.randn(20, 20) for name in ("layers.0.weight", "layers.1.weight")}
    weights["layers.0.weight"][0, 0] = torch.nan
    save_file(weights, checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "my.toml", "notes.md", "plot.py"])
def test_a_table_gets_no_name_of_another_kind_of_file(mlp: Path, tmp_path: Path, name: str) -> None:
    assert run(["sva", str(mlp), "--quiet", "--out", str(tmp_path / name)]) == 2
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("command", ["rank", "align", "sva", "analyze"])
def test_a_file_that_is_no_table_is_not_replaced(mlp: Path, tmp_path: Path, command: str) -> None:
    """Only an older table, or an empty file, gives way."""
    out = tmp_path / "tables"
    out.mkdir()
    table = out / ("rank.parquet" if command == "analyze" else "mine.parquet")
    argument = out if command == "analyze" else table
    table.write_bytes(b"mine")
    assert run([command, str(mlp), "--quiet", "--out", str(argument)]) == 1
    assert table.read_bytes() == b"mine"
    for older in (b"", None):
        if older is not None:
            table.write_bytes(older)
        assert run([command, str(mlp), "--quiet", "--out", str(argument)]) == 0
        assert table.read_bytes().startswith(b"PAR1")


@pytest.mark.parametrize(("steps", "expected"), [(10, {10}), ([0, 20], {0, 20}), (["first", 10], {0, 10})])
def test_steps_are_numbers_or_texts_or_several_of_these(mlp: Path, steps: object, expected: set[int]) -> None:
    assert set(spectra_cli.rank(mlp, steps=steps).step) == expected  # type: ignore[arg-type]


def test_a_file_of_a_family_may_be_a_path(mlp: Path, tmp_path: Path) -> None:
    family = tmp_path / "my.toml"
    family.write_text(
        '[parameters.layer]\nname = "layers.{i}.weight"\nrequired = true\n'
        '[[connections]]\nname = "residual"\nfrom = "layer"\nto = "layer"\nnext = true\n'
    )
    assert set(spectra_cli.align(mlp, architecture=family).connection) == {"residual"}


def test_a_warning_points_at_the_program_that_called(mlp: Path) -> None:
    spoil(mlp / "step_10.safetensors")
    with pytest.warns(SkippedWorkWarning) as warned:
        spectra_cli.sva(mlp)
    assert {Path(warning.filename).name for warning in warned} == {Path(__file__).name}


def test_what_is_wrong_with_the_reference_is_not_said_of_others(mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(mlp / "step_20.safetensors")
    with pytest.warns(SkippedWorkWarning):
        table = spectra_cli.sva(mlp)
    first = table[table.parameter == "layers.0.weight"].set_index("step").status
    assert first.to_dict() == {0: "reference_not_finite", 10: "reference_not_finite", 20: "not_finite"}
    assert set(table[table.parameter == "layers.1.weight"].status) == {"ok"}
    assert run(["sva", str(mlp), "--out", str(mlp.parent / "sva.parquet")]) == 3
    assert "in the reference, they hold NaN" in " ".join(capsys.readouterr().err.split())


def test_an_unreadable_reference_is_named_once(mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commonest fault of a live run: its last file is half written."""
    final = mlp / "step_20.safetensors"
    final.write_bytes(final.read_bytes()[:100])
    assert run(["analyze", str(mlp), "--out", str(mlp.parent / "tables")]) == 3
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("choose another --reference") == 1


def test_a_run_against_itself_is_remarked_on(mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sva", str(mlp), "--against", str(mlp), "--out", str(mlp.parent / "sva.parquet")]) == 0
    assert "compared with itself" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("length", [1, 2, 7, 64, 1000])
def test_chance_is_what_random_vectors_give(length: int) -> None:
    """Against the mean over ten thousand pairs or more, whose standard error is below a hundredth of it."""
    vectors = (
        np.random.default_rng(length).standard_normal((2, 100_000, length)).astype(np.float32)[:, : 10**8 // length]
    )
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    assert chance(length) == pytest.approx(np.abs((vectors[0] * vectors[1]).sum(1)).mean(), rel=0.03)


def test_the_score_of_random_weights_is_near_its_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {f"layers.{layer}.weight": torch.randn(64, 64, generator=generator) for layer in range(30)}
    save_file(weights, tmp_path / "model.safetensors")
    out = tmp_path / "align.parquet"
    assert run(["align", str(tmp_path / "model.safetensors"), "--json", "--quiet", "--out", str(out)]) == 0
    (kind,) = json.loads(capsys.readouterr().out)["runs"][0]["connections"]
    assert kind["chance"] == pytest.approx(0.0999, abs=1e-3)
    assert kind["score_last"] == pytest.approx(kind["chance"], abs=0.02)


def test_connections_without_a_score_are_listed_all_the_same() -> None:
    summary = RunAlignment()
    common = {"step": 0, "checkpoint": "a", "upstream": "x", "downstream": "y", "primary": True}
    summary.add(
        [
            {**common, "connection": "query-key", "status": "no_head_count"},
            {**common, "connection": "residual", "score": 0.5, "chance": 0.1, "status": "ok"},
        ]
    )
    assert [(kind.connection, kind.last) for kind in summary.by_connection()] == [
        ("query-key", None),
        ("residual", 0.5),
    ]


def test_errors_of_arguments_are_those_of_spectra(mlp: Path) -> None:
    with pytest.raises(UsageError):
        spectra_cli.align(mlp, steps="x")
    with pytest.raises(UsageError):
        spectra_cli.align(mlp, heads=0)
    with pytest.raises(InputError):
        spectra_cli.sva(mlp, reference=5)
