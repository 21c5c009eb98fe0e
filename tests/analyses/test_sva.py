"""`spectra_cli.sva` against the formulas in float64 NumPy: identity, signs, transposition, references, statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import spectra_cli
from spectra_cli.errors import IncompleteCheckpointError, InputError, UsageError
from spectra_cli.execution.work.listener import SkippedWorkWarning
from spectra_cli.spectrum import memory
from tests.analyses.formulas import CLEAR, agreement, chain, save, save_run, separated, svd

pytestmark = pytest.mark.filterwarnings("ignore::spectra_cli.execution.work.listener.SkippedWorkWarning")

FIXTURES = Path(__file__).parents[2] / "fixtures"
Weights = dict[str, Tensor]

SHAPES: Mapping[str, tuple[int, ...]] = {
    "token_embedding.weight": (60, 12),
    "conv.weight": (10, 6, 3, 3),
    "layers.0.weight": (24, 12),
    "layers.1.weight": (12, 24),
    "layers.2.weight": (12, 12),
    "layers.3.weight": (1, 12),
}
STEPS = (0, 100, 200, 300)


def moved(step: int, dtype: torch.dtype = torch.float32) -> Weights:
    """Weights on their way from some matrices to others, with separated spectra all along."""
    weights = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        rows, cols = shape[0], math.prod(shape[1:])
        start, end = (separated(rows, cols, seed, torch.float64, ratio=0.7) for seed in (number, number + 50))
        share = step / 400
        weights[name] = ((1 - share) * start + share * end).reshape(shape).to(dtype)
    return weights


def moving(directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    return save_run(directory, {step: moved(step, dtype) for step in STEPS})


def assert_agrees(row: Mapping[str, Any], one: Tensor, other: Tensor) -> None:
    """Check a row against the formulas, every entry, the score and the gap."""
    first, second = svd(one), svd(other)
    assert min(first.gap, second.gap) > CLEAR, "the test itself claims too much"
    expected = agreement(first, second)
    assert row["status"] == "ok"
    assert row["diagonal"].shape == expected.shape
    np.testing.assert_allclose(row["diagonal"], expected, rtol=0, atol=1e-4)
    assert row["score"] == pytest.approx(expected[:10].mean(), abs=1e-4)
    assert row["min_gap"] == pytest.approx(min(first.gap_of_ten, second.gap_of_ten), rel=1e-4)


def assert_compared(frame: pd.DataFrame, pairs: Mapping[int, int], dtype: torch.dtype = torch.float32) -> None:
    """Check all rows: step -> step of its reference, both of :func:`moved`."""
    assert frame["step"].tolist() == [step for step in pairs for _ in SHAPES]
    assert frame["parameter"].tolist() == list(spectra_order()) * len(pairs)
    for row in frame.to_dict("records"):
        reference = pairs[row["step"]]
        assert row["reference_step"] == reference
        name = row["parameter"]
        assert_agrees({str(key): cell for key, cell in row.items()}, moved(row["step"], dtype)[name],
                      moved(reference, dtype)[name])  # fmt: skip


def spectra_order() -> tuple[str, ...]:
    """The matrices in the order of the model."""
    return tuple(SHAPES)


# Numbers


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_entry_is_what_the_formulas_give(tmp_path: Path, dtype: torch.dtype) -> None:
    frame = spectra_cli.sva(moving(tmp_path / "run", dtype))
    assert_compared(frame, dict.fromkeys(STEPS, 300), dtype)
    assert set(frame["reference_checkpoint"]) == {"step_300.safetensors"}
    assert set(frame["reference_run"]) == {"."}


def test_a_checkpoint_agrees_with_itself(tmp_path: Path) -> None:
    """In every entry, as the final checkpoint of its run, against itself, and as a run of one."""
    run = moving(tmp_path / "run")
    frames = [spectra_cli.sva(run), spectra_cli.sva(run, against=run), spectra_cli.sva(f"{run}@300")]
    frames += [spectra_cli.sva(run / "step_300.safetensors"), spectra_cli.sva(run, reference="first")]
    same = [frame[frame["step"] == frame["reference_step"]] for frame in frames]
    assert [len(rows) for rows in same] == [6, 24, 6, 6, 6]
    for rows in same:
        for diagonal, score in zip(rows["diagonal"], rows["score"], strict=True):
            np.testing.assert_allclose(diagonal, 1.0, rtol=0, atol=1e-6)
            assert score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("fixture", ["grokking/seed_5", "cnn", "lstm"])
def test_real_checkpoints_agree_with_themselves(fixture: str) -> None:
    """Trained weights have no ties as planted ones may."""
    frame = spectra_cli.sva(FIXTURES / fixture, steps="final")
    assert set(frame["status"]) == {"ok"}
    np.testing.assert_allclose(np.concatenate(frame["diagonal"].tolist()), 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 12), (30, 12), (12, 30)], ids=str)
def test_signs_do_not_matter_and_order_does(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The same vectors, their signs flipped one by one: 1 where the place is the same, 0 where it is another."""
    one = svd(separated(*shape, seed=3).double())
    rng = np.random.default_rng(0)
    left_signs, right_signs = rng.choice([-1.0, 1.0], (2, 12))
    order = np.array([1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 11, 10])
    other = (one.left[:, order] * left_signs * 0.8 ** np.arange(12)) @ (one.right[:, order] * right_signs).T
    run = save_run(
        tmp_path / "run",
        {
            0: {"layer.weight": torch.from_numpy((one.left * one.values) @ one.right.T)},
            1: {"layer.weight": torch.from_numpy(np.ascontiguousarray(other))},
        },
    )
    frame = spectra_cli.sva(run, reference="first")
    np.testing.assert_allclose(frame["diagonal"][1], order == np.arange(12), rtol=0, atol=1e-6)
    assert frame["score"][1] == pytest.approx(0.6, abs=1e-6)


@pytest.mark.parametrize("shape", [(12, 12), (30, 12), (12, 30)], ids=str)
def test_transposition_exchanges_left_and_right(tmp_path: Path, shape: tuple[int, int]) -> None:
    """And the product stays; also where one side has turned and the other has not."""
    one, other = separated(*shape, seed=1), separated(*shape, seed=2)
    turned = svd(one)
    rotation = np.linalg.qr(np.eye(shape[0]) + 0.3 * np.random.default_rng(0).standard_normal((shape[0],) * 2))[0]
    half = torch.from_numpy((rotation @ turned.left * turned.values) @ turned.right.T).float()
    found = {}
    for name in ("plain", "transposed"):
        run = save_run(
            tmp_path / name,
            {
                step: {"layer.weight": matrix.T if name == "transposed" else matrix}
                for step, matrix in enumerate((other, half, one))
            },
        )
        found[name] = spectra_cli.sva(run)
    for plain, transposed in zip(found["plain"]["diagonal"], found["transposed"]["diagonal"], strict=True):
        np.testing.assert_allclose(transposed, plain, rtol=0, atol=1e-6)
    half_turned = np.abs(np.sum(turned.left * (rotation @ turned.left), axis=0))
    np.testing.assert_allclose(found["plain"]["diagonal"][1], half_turned, rtol=0, atol=1e-4)
    assert half_turned.min() < 0.99


def test_diagonals_end_at_100(tmp_path: Path) -> None:
    weights = [{"layer.weight": separated(130, 140, seed, ratio=0.97)} for seed in (0, 1)]
    weights[1]["layer.weight"] = 0.5 * (weights[0]["layer.weight"] + weights[1]["layer.weight"])
    frame = spectra_cli.sva(save_run(tmp_path / "run", dict(enumerate(weights))))
    assert [len(diagonal) for diagonal in frame["diagonal"]] == [100, 100]
    first, second = (svd(of["layer.weight"]) for of in weights)
    gaps = [(triplets.values[:-1] - triplets.values[1:]) / triplets.values[:-1] for triplets in (first, second)]
    clear = np.minimum(*gaps)[:100] > CLEAR
    clear[1:] &= clear[:-1]
    assert clear.sum() > 90
    expected = agreement(first, second)
    np.testing.assert_allclose(frame["diagonal"][0][clear], expected[clear], rtol=0, atol=1e-4)


def test_ties_are_told(tmp_path: Path) -> None:
    """Of either checkpoint: of tied values any vectors will do, and no agreement says anything."""
    plain, tied = separated(20, 12, 0).double(), svd(separated(20, 12, 1).double())
    values = tied.values.copy()
    values[5] = values[4]
    other = torch.from_numpy((tied.left * values) @ tied.right.T)
    frame = spectra_cli.sva(save_run(tmp_path / "run", {0: {"a.weight": plain}, 1: {"a.weight": other}}))
    assert frame["status"].tolist() == ["ok", "ok"]
    assert (frame["min_gap"] < 1e-12).all()
    alone = spectra_cli.sva(tmp_path / "run" / "step_0.safetensors")
    assert alone["min_gap"][0] == pytest.approx(0.15, rel=1e-4)


# References within a run


@pytest.mark.parametrize(
    ("reference", "pairs"),
    [
        (None, {0: 300, 100: 300, 200: 300, 300: 300}),
        ("final", {0: 300, 100: 300, 200: 300, 300: 300}),
        ("first", {0: 0, 100: 0, 200: 0, 300: 0}),
        ("previous", {100: 0, 200: 100, 300: 200}),
        ("200", {0: 200, 100: 200, 200: 200, 300: 200}),
        (100, {0: 100, 100: 100, 200: 100, 300: 100}),
    ],
    ids=str,
)
def test_each_reference_is_compared_with(tmp_path: Path, reference: str | int | None, pairs: dict[int, int]) -> None:
    assert_compared(spectra_cli.sva(moving(tmp_path / "run"), reference=reference), pairs)


@pytest.mark.parametrize(
    ("path", "steps", "reference", "pairs"),
    [
        ("run@100", None, "final", {100: 300}),
        ("run@100", None, "first", {100: 0}),
        ("run@0", None, "200", {0: 200}),
        ("run", "100,200", "final", {100: 300, 200: 300}),
        ("run", "100,200", "0", {100: 0, 200: 0}),
        ("run", "first,final", "previous", {300: 0}),
    ],
)
def test_a_reference_need_not_be_selected(
    tmp_path: Path, path: str, steps: str | None, reference: str, pairs: dict[int, int]
) -> None:
    """`final` and `first` are those of the whole run; `previous` is the one before among those selected."""
    moving(tmp_path / "run")
    assert_compared(spectra_cli.sva(f"{tmp_path}/{path}", steps=steps, reference=reference), pairs)


def test_what_means_no_checkpoint_is_refused(tmp_path: Path) -> None:
    run = moving(tmp_path / "run")
    with pytest.raises(UsageError, match="--reference last is no checkpoint"):
        spectra_cli.sva(run, reference="last")
    with pytest.raises(InputError, match=r"no run has that step.*200"):
        spectra_cli.sva(run, reference=250)
    with pytest.raises(InputError, match="only one checkpoint"):
        spectra_cli.sva(f"{run}@200", reference="previous")


def test_a_run_without_the_step_is_rows_without_numbers(tmp_path: Path) -> None:
    moving(tmp_path / "runs" / "a")
    save_run(tmp_path / "runs" / "b", {0: moved(0), 500: moved(300)})
    frame = spectra_cli.sva(tmp_path / "runs", reference="500")
    assert frame.groupby("run")["status"].unique().map(list).to_dict() == {"a": ["missing"], "b": ["ok"]}
    assert frame[frame["run"] == "a"]["step"].tolist() == [0, 100, 200, 300]


# References in another run


def test_another_run_is_compared_step_by_step(tmp_path: Path) -> None:
    """The steps that both have; the others are rows without numbers."""
    save_run(tmp_path / "one", {0: moved(0), 100: moved(100), 250: moved(250)})
    save_run(tmp_path / "other", {100: moved(200), 0: moved(300), 300: moved(300)})
    frame = spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    assert frame["step"].tolist() == [0] * 6 + [100] * 6 + [250]
    assert frame["status"].tolist() == ["ok"] * 12 + ["missing"]
    for row in frame[:12].to_dict("records"):
        partner = {0: 300, 100: 200}[row["step"]]
        name = row["parameter"]
        assert row["reference_step"] == row["step"]
        assert row["reference_checkpoint"] == f"step_{row['step']}.safetensors"
        assert row["reference_run"] == (tmp_path / "other").as_posix()
        assert_agrees({str(key): cell for key, cell in row.items()}, moved(row["step"])[name], moved(partner)[name])


def test_without_a_common_step_the_last_are_compared(tmp_path: Path) -> None:
    save_run(tmp_path / "one", {0: moved(0), 100: moved(100)})
    save_run(tmp_path / "other", {50: moved(200), 150: moved(300)})
    frame = spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    assert frame["step"].tolist() == [100] * 6
    assert frame["reference_step"].tolist() == [150] * 6
    for row in frame.to_dict("records"):
        name = row["parameter"]
        assert_agrees({str(key): cell for key, cell in row.items()}, moved(100)[name], moved(300)[name])


def test_epochs_are_no_steps(tmp_path: Path) -> None:
    """Step 2 of one run and epoch 2 of another are not the same moment."""
    save_run(tmp_path / "one", {1: moved(0), 2: moved(100)})
    for epoch in (2, 3):
        save(tmp_path / "other" / f"epoch_{epoch}.safetensors", moved(100 * epoch))
    frame = spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    assert frame["step"].tolist() == [2] * 6
    assert set(frame["reference_checkpoint"]) == {"epoch_3.safetensors"}


def test_runs_of_another_depth_are_compared_where_they_agree(tmp_path: Path) -> None:
    """What only one of the two has is `missing`, whichever it is."""
    save_run(tmp_path / "one", {7: chain([8, 6, 6, 5], seed=1)})
    save_run(tmp_path / "other", {7: {"layers.0.weight": separated(6, 8, 5), "head.weight": separated(5, 6, 6)}})
    frame = spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    found = dict(zip(frame["parameter"], frame["status"], strict=True))
    assert found == {
        "layers.0.weight": "ok",
        "layers.1.weight": "missing",
        "layers.2.weight": "missing",
        "head.weight": "missing",
    }
    assert frame["depth"].isna().tolist() == [False, False, False, True]
    assert frame["reference_step"].tolist() == [7] * 4


def test_runs_of_other_widths_do_not_meet(tmp_path: Path) -> None:
    """Not even where one side has the same length, or the two are exchanged."""
    save_run(tmp_path / "one", {7: chain([8, 6, 9, 5])})
    other = chain([8, 6, 10, 5])
    other["layers.0.weight"] = separated(8, 6, 3)
    save_run(tmp_path / "other", {7: other})
    frame = spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    assert frame["status"].tolist() == ["shape_mismatch"] * 3
    assert frame["score"].isna().all()


def test_against_takes_one_run_and_no_reference(tmp_path: Path) -> None:
    for name in "ab":
        moving(tmp_path / "runs" / name)
    with pytest.raises(UsageError, match=r"holds 2 runs. Name one of them: .*a, .*b"):
        spectra_cli.sva(tmp_path / "runs" / "a", against=tmp_path / "runs")
    with pytest.raises(UsageError, match="--reference final and --against exclude each other"):
        spectra_cli.sva(tmp_path / "runs" / "a", against=tmp_path / "runs" / "b", reference="final")
    with pytest.raises(InputError, match="absent"):
        spectra_cli.sva(tmp_path / "runs" / "a", against=tmp_path / "absent")


# Statuses


def test_a_matrix_that_either_checkpoint_spoils_has_its_status(tmp_path: Path) -> None:
    first, last = chain([8, 7, 6, 5], seed=1), chain([8, 7, 6, 5], seed=2)
    first["layers.0.weight"][2, 3] = math.nan
    last["layers.1.weight"][0, 0] = -math.inf
    last["layers.2.weight"] = torch.zeros(5, 6)
    frame = spectra_cli.sva(save_run(tmp_path / "run", {0: first, 1: last}))
    assert frame["status"].tolist() == [
        "not_finite",
        "reference_not_finite",
        "reference_all_zero",
        "ok",
        "not_finite",
        "all_zero",
    ]
    assert frame["diagonal"].isna().tolist() == [status != "ok" for status in frame["status"]]


def test_matrices_without_numbers_say_why(tmp_path: Path) -> None:
    weights = {"a.weight": torch.zeros(0, 4), "b.weight": torch.eye(3, dtype=torch.complex64)}
    frame = spectra_cli.sva(save_run(tmp_path / "run", {0: weights}))
    assert dict(zip(frame["parameter"], frame["status"], strict=True)) == {
        "a.weight": "empty",
        "b.weight": "complex_dtype",
    }


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_a_reference_that_cannot_be_read_gives_its_status_to_all(tmp_path: Path) -> None:
    """If another run can be compared; else there is nothing to show."""
    moving(tmp_path / "runs" / "a")
    damaged(moving(tmp_path / "runs" / "b") / "step_300.safetensors")
    frame = spectra_cli.sva(tmp_path / "runs")
    bad = frame[frame["run"] == "b"]
    assert bad["status"].tolist() == ["reference_corrupt"] * 3 + ["corrupt"]
    assert bad["reference_checkpoint"].tolist()[:3] == ["step_300.safetensors"] * 3
    assert set(frame[frame["run"] == "a"]["status"]) == {"ok"}
    with pytest.raises(InputError, match="nothing to compare with"):
        spectra_cli.sva(tmp_path / "runs" / "b")
    with pytest.raises(InputError, match="nothing to compare with"):
        spectra_cli.sva(f"{tmp_path}/runs/b@0")


def test_a_previous_checkpoint_that_cannot_be_read_spoils_the_next_only(tmp_path: Path) -> None:
    run = moving(tmp_path / "run")
    damaged(run / "step_100.safetensors")
    frame = spectra_cli.sva(run, reference="previous")
    assert frame["step"].tolist() == [100, 200] + [300] * 6
    assert frame["status"].tolist() == ["corrupt", "reference_corrupt"] + ["ok"] * 6


def test_a_reference_without_the_matrices_selected_is_told_once(tmp_path: Path) -> None:
    """Every matrix is `missing` there, and the reference itself has none of the selection."""
    run = save_run(tmp_path / "run", {step: chain([8, 7, 6], seed=step) for step in (0, 1, 2)})
    save(run / "step_3.safetensors", {"other.weight": separated(5, 4, 1)})
    with pytest.warns(SkippedWorkWarning) as told:
        frame = spectra_cli.sva(run, include="layers.*")
    assert frame["status"].tolist() == ["missing"] * 6 + ["nothing_selected"]
    lacking = [str(warning.message) for warning in told if "no matrix is left" in str(warning.message)]
    assert len(lacking) == 1
    assert lacking[0].count("step_3.safetensors") == 1


def sharded(directory: Path, weights: Weights) -> Path:
    """A checkpoint of two files and their index, as transformers writes them."""
    import json

    directory.mkdir(parents=True)
    names = sorted(weights)
    files = {
        name: f"model-0000{1 + (place >= len(names) // 2)}-of-00002.safetensors" for place, name in enumerate(names)
    }
    for file in sorted(set(files.values())):
        save(directory / file, {name: weights[name] for name in names if files[name] == file})
    index = {"metadata": {}, "weight_map": files}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def test_an_incomplete_reference_stops_before_any_work_or_is_gone_without(tmp_path: Path) -> None:
    """Also where it is not itself selected."""
    for step in STEPS:
        sharded(tmp_path / "run" / f"checkpoint-{step}", moved(step))
    assert_compared(spectra_cli.sva(tmp_path / "run"), dict.fromkeys(STEPS, 300))
    (tmp_path / "run" / "checkpoint-300" / "model-00002-of-00002.safetensors").unlink()
    for path in (f"{tmp_path}/run", f"{tmp_path}/run@0"):
        with pytest.raises(IncompleteCheckpointError, match=r"model-00002-of-00002\.safetensors"):
            spectra_cli.sva(path)
    assert_compared(spectra_cli.sva(tmp_path / "run", steps=":200", reference="first"), dict.fromkeys(STEPS[:3], 0))
    with pytest.raises(InputError, match="nothing to compare with"):
        spectra_cli.sva(f"{tmp_path}/run@0", skip_incomplete=True)
    frame = spectra_cli.analyze(tmp_path / "run", skip_incomplete=True).sva
    assert frame["status"].tolist() == ["reference_incomplete"] * 3 + ["incomplete"]


# What must not matter


def test_order_in_the_file_and_the_budget_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory matrices are read slab by slab, and the vectors of the reference wait in a file."""
    expected = spectra_cli.sva(moving(tmp_path / "run"))
    for step in STEPS:
        (tmp_path / "reversed").mkdir(exist_ok=True)
        torch.save(dict(reversed(moved(step).items())), tmp_path / "reversed" / f"step_{step}.pt")
    reordered = spectra_cli.sva(tmp_path / "reversed")
    monkeypatch.setattr(memory, "RESIDENT_BYTES", 16)
    frugal = spectra_cli.sva(tmp_path / "run", memory_budget=60_000)
    key = ["step", "parameter"]
    for other in (reordered, frugal):
        pd.testing.assert_frame_equal(
            other.sort_values(key, ignore_index=True)[[*key, "reference_step", "score", "min_gap", "status"]],
            expected.sort_values(key, ignore_index=True)[[*key, "reference_step", "score", "min_gap", "status"]],
            rtol=0,
            atol=1e-6,
        )
        for ours, theirs in zip(other.sort_values(key)["diagonal"], expected.sort_values(key)["diagonal"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
