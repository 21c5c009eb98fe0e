"""Barriers of tiny models against a plain loop; which pairs can be used, and what becomes of those that cannot."""

from __future__ import annotations

import gc
import json
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import spectra_cli
from spectra_cli.errors import InputError, SpectraError, UsageError
from spectra_cli.execution.evaluation import modelpool
from spectra_cli.execution.evaluation.barrier import BarrierJob, agreement_of
from spectra_cli.execution.evaluation.pairfile import read_pairs
from spectra_cli.execution.evaluation.pairs import BarrierPlan, make_barrier_plan
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.work.listener import SkippedWorkWarning
from spectra_cli.tasks.base import Metric
from spectra_cli.tasks.guarded import TaskError
from tests.analyses import tiny_tasks
from tests.execution.jobs_done import Heard, all_done

FILE = Path(tiny_tasks.__file__)
MLP = f"{FILE}:mlp"
ALPHAS = 5


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def random_state(make: Callable[[], tiny_tasks.Classification], seed: int) -> dict[str, Tensor]:
    """Weights, and running statistics as some training has left them."""
    torch.manual_seed(seed)
    state = dict(make().model().state_dict())
    for name, tensor in state.items():
        if "running" in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif not tensor.is_floating_point():
            tensor.fill_(seed)
    return state


def saved(name: str, state: Mapping[str, Tensor]) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.clone() for key, tensor in state.items()}, path)
    return path


def ends(make: Callable[[], tiny_tasks.Classification]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two states, saved as ``a.safetensors`` and ``b.safetensors``."""
    states = random_state(make, 1), random_state(make, 2)
    for name, state in zip("ab", states, strict=True):
        saved(f"{name}.safetensors", state)
    return states


def barrier(a: str = "a.safetensors", b: str = "b.safetensors", **options: Any) -> pd.DataFrame:
    return spectra_cli.barrier(a, b, **{"task": MLP, "alphas": ALPHAS, **options})


def plain_loop(
    task: tiny_tasks.Classification,
    model: nn.Module,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    alphas: Sequence[float],
    *,
    batch_norm: str,
) -> dict[tuple[str, str], list[float]]:
    """Metrics over the whole of each split, without batches; interpolation in NumPy, statistics by update_bn."""
    found: dict[tuple[str, str], list[float]] = {}
    for alpha in alphas:
        state = {
            name: torch.from_numpy((1 - alpha) * tensor.double().numpy() + alpha * b[name].double().numpy())
            if tensor.is_floating_point()
            else tensor
            for name, tensor in a.items()
        }
        model.load_state_dict({name: tensor.to(a[name].dtype) for name, tensor in state.items()})
        if batch_norm == "reestimate":
            update_bn([inputs for inputs, _ in task.batches("train")], model)
        model.eval()
        for split in task.splits:
            inputs, labels = task.data[split]
            with torch.no_grad():
                logits = model(inputs).double().numpy()
            logs = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels.numpy()]
            found.setdefault((split, "loss"), []).append(float(logs.mean()))
            found.setdefault((split, "error"), []).append(float((logits.argmax(axis=1) != labels.numpy()).mean()))
    return found


# exactness


@pytest.mark.parametrize("make", [tiny_tasks.mlp, tiny_tasks.cnn, tiny_tasks.recurrent, tiny_tasks.double])
@pytest.mark.parametrize("batch_norm", ["reestimate", "stored"])
def test_every_number_is_that_of_a_plain_loop(make: Callable[[], tiny_tasks.Classification], batch_norm: str) -> None:
    """Batches of 8, 8 and 6 for training, 8 and 5 for validation."""
    a, b = ends(make)
    frame = barrier(task=f"{FILE}:{make.__name__}", batch_norm=batch_norm)
    task, alphas = make(), np.linspace(0, 1, ALPHAS)
    expected = plain_loop(task, task.model(), a, b, alphas.tolist(), batch_norm=batch_norm)
    assert list(frame.groupby(["split", "metric"], sort=False).groups) == list(expected)
    for (split, metric), group in frame.groupby(["split", "metric"]):
        values = np.array(expected[split, metric])
        np.testing.assert_allclose(group["alpha"], alphas, atol=1e-15)
        np.testing.assert_allclose(group["value"], values, rtol=1e-6)
        chord = (1 - alphas) * values[0] + alphas * values[-1]
        np.testing.assert_allclose(group["chord"], chord, rtol=1e-6)
        np.testing.assert_allclose(group["excess"], values - chord, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(group["barrier"], max(0.0, (values - chord).max()), rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(group["barrier_interior"], (values - chord)[1:-1].max(), rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(
            group["barrier_midpoint"], values.max() - (values[0] + values[-1]) / 2, rtol=1e-6, atol=2e-6
        )
        assert set(group["count"]) == {tiny_tasks.COUNTS[str(split)]}
        assert set(group["status"]) == {"ok"}


def test_the_policy_of_batch_normalization_makes_a_difference_that_the_test_above_can_see() -> None:
    ends(tiny_tasks.cnn)
    task = f"{FILE}:cnn"
    reestimated, stored = (barrier(task=task, batch_norm=policy) for policy in ("reestimate", "stored"))
    assert (np.abs(reestimated["value"] - stored["value"]) > 1e-3 * stored["value"]).any()


def test_a_checkpoint_has_no_barrier_with_itself() -> None:
    """Exactly none: every point between is the checkpoint, and its statistics are estimated from the same start."""
    ends(tiny_tasks.cnn)
    for policy in ("reestimate", "stored"):
        frame = barrier("a.safetensors", "a.safetensors", task=f"{FILE}:cnn", batch_norm=policy)
        for column in ("excess", "barrier", "barrier_interior", "barrier_midpoint"):
            assert frame[column].eq(0.0).all(), column
        assert frame.groupby(["split", "metric"])["value"].nunique().eq(1).all()


@pytest.mark.parametrize("policy", ["reestimate", "stored"])
def test_from_b_to_a_are_the_same_numbers_in_reverse(policy: str) -> None:
    ends(tiny_tasks.cnn)
    options = {"task": f"{FILE}:cnn", "batch_norm": policy}
    there, back = barrier(**options), barrier("b.safetensors", "a.safetensors", **options)
    reverse = back.assign(alpha=1 - back["alpha"]).sort_values(["split", "metric", "alpha"])
    there = there.sort_values(["split", "metric", "alpha"])
    np.testing.assert_allclose(there["alpha"], reverse["alpha"], atol=1e-15)
    for column in ("value", "chord", "excess", "barrier", "barrier_interior", "barrier_midpoint"):
        assert there[column].tolist() == reverse[column].tolist(), column


def test_the_ends_are_the_plain_evaluation_of_the_checkpoints() -> None:
    """As prune-eval has it for the full model."""
    ends(tiny_tasks.cnn)
    frame = barrier(task=f"{FILE}:cnn", alphas=2)
    for alpha, path in ((0.0, "a.safetensors"), (1.0, "b.safetensors")):
        full = spectra_cli.prune_eval(path, task=f"{FILE}:cnn", variants=["full"])
        assert frame.loc[frame["alpha"] == alpha, "value"].tolist() == full["value"].tolist()
    assert frame["barrier_interior"].isna().all()
    assert frame["barrier"].eq(0.0).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("make", [tiny_tasks.mlp, tiny_tasks.cnn, tiny_tasks.recurrent])
def test_a_gpu_finds_the_same_line(make: Callable[[], tiny_tasks.Classification]) -> None:
    """In full float32: TF32 would be off by 1e-3. A checkpoint has no barrier with itself there either."""
    ends(make)
    cpu, gpu = (barrier(task=f"{FILE}:{make.__name__}", device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu["value"], cpu["value"], rtol=2e-6)
    itself = barrier(b="a.safetensors", task=f"{FILE}:{make.__name__}", device="cuda")
    assert itself["barrier"].eq(0.0).all()


class Quadratic:
    """Loss (w - 1)^T H (w - 1) / 2 with a known Hessian: between w and w' it lies above no chord."""

    splits = ("train",)
    hessian = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    notice = "Nothing but a parabola."

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def model(self) -> nn.Module:
        return nn.Linear(3, 1, bias=False, dtype=torch.float64)

    def batches(self, split: str) -> Iterator[int]:  # noqa: ARG002 - there is one split
        yield from (1, 2)

    def metrics(self, model: nn.Module, batch: int) -> dict[str, Metric]:
        away = model.weight[0] - 1.0  # type: ignore[index]  # a tensor
        loss = self.sign * away @ self.hessian @ away / 2  # type: ignore[operator]  # as above
        return {
            "loss": Metric(loss * batch, batch),
            "perplexity": Metric(loss * batch, batch, scale="exp"),
        }


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_quadratic_loss_has_the_barrier_of_its_formula(sign: float) -> None:
    """Excess = -sign alpha (1 - alpha) d^T H d / 2 with d the difference of the ends."""
    a, b = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0, 4.0]], dtype=torch.float64)
    saved("a.safetensors", {"weight": a})
    saved("b.safetensors", {"weight": b})
    frame = barrier(task=f"{__file__}:Quadratic", settings={"sign": sign}, alphas=11)
    curvature = float((b - a)[0] @ Quadratic.hessian @ (b - a)[0])
    loss = frame[frame["metric"] == "loss"]
    expected = -sign * loss["alpha"] * (1 - loss["alpha"]) * curvature / 2
    np.testing.assert_allclose(loss["excess"], expected, atol=1e-12)
    np.testing.assert_allclose(loss["barrier"], 0.0 if sign > 0 else curvature / 8, atol=1e-12)
    np.testing.assert_allclose(loss["barrier_interior"], expected[1:-1].max(), atol=1e-12)
    perplexity = frame[frame["metric"] == "perplexity"].reset_index()
    np.testing.assert_allclose(perplexity["value"], np.exp(loss["value"]), rtol=1e-14)
    chord = (1 - perplexity["alpha"]) * perplexity["value"].iloc[0] + perplexity["alpha"] * perplexity["value"].iloc[-1]
    np.testing.assert_allclose(perplexity["chord"], chord, rtol=1e-12)


class Counting(nn.Module):
    """A weight, and a count of steps that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("scale", torch.tensor(1.0))


class Counts(Quadratic):
    def model(self) -> nn.Module:
        return Counting()

    def metrics(self, model: nn.Module, batch: int) -> dict[str, Metric]:  # noqa: ARG002 - the same for all
        parts = model.weight.sum() + 100 * model.steps + 10 * model.scale  # type: ignore[operator,union-attr]  # tensors
        return {"loss": Metric(parts, 1)}


def test_floating_buffers_are_interpolated_and_integers_are_those_of_a() -> None:
    for name, number in (("a", 3), ("b", 7)):
        state = {
            "weight": torch.full((1, 1), float(number)),
            "steps": torch.tensor(number),
            "scale": torch.tensor(number / 2),
        }
        saved(f"{name}.safetensors", state)
    frame = barrier(task=f"{__file__}:Counts", alphas=3)
    assert frame["value"].tolist() == [3 + 300 + 15, 5 + 300 + 25, 7 + 300 + 35]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_checkpoints_of_half_precision_are_interpolated_in_the_type_of_the_model(dtype: torch.dtype) -> None:
    """Points between them are those between the same numbers in float32, not rounded to the type of the file."""
    for name, state in zip("ab", ends(tiny_tasks.mlp), strict=True):
        rounded = {key: tensor.to(dtype) for key, tensor in state.items()}
        saved(f"half/{name}.safetensors", rounded)
        saved(f"full/{name}.safetensors", {key: tensor.float() for key, tensor in rounded.items()})
    half, full = (barrier(f"{name}/a.safetensors", f"{name}/b.safetensors") for name in ("half", "full"))
    assert half["value"].tolist() == full["value"].tolist()
    mixed = barrier("half/a.safetensors", "full/b.safetensors")
    assert mixed["value"].tolist() == full["value"].tolist()


def test_tied_weights_stay_tied() -> None:
    a, b = ends(tiny_tasks.tied)
    frame = barrier(task=f"{FILE}:tied", alphas=3)
    task = tiny_tasks.tied()
    expected = plain_loop(task, task.model(), a, b, [0.0, 0.5, 1.0], batch_norm="stored")
    np.testing.assert_allclose(frame.loc[frame["metric"] == "loss", "value"][:3], expected["train", "loss"], rtol=1e-6)


class NotFinite(Quadratic):
    """A loss that overflows in the middle and is fine at the ends."""

    def metrics(self, model: nn.Module, batch: int) -> dict[str, Metric]:  # noqa: ARG002 - the same for all
        inside = bool(model.weight[0, 0].abs() < 0.6)  # type: ignore[index]  # a tensor
        return {"loss": Metric(math.nan if inside else 1.0, 1), "fine": Metric(1.0, 1)}


def test_a_value_that_is_not_finite_is_a_row_and_a_warning_and_leaves_the_barrier_unknown() -> None:
    for name, sign in (("a", 1.0), ("b", -1.0)):
        saved(f"{name}.safetensors", {"weight": torch.full((1, 3), sign, dtype=torch.float64)})
    with pytest.warns(SkippedWorkWarning, match=r"3 of 10 values not_finite \(train loss at alpha 0\.25, ") as caught:
        frame = barrier(task=f"{__file__}:NotFinite")
    assert len(caught) == 1
    loss, fine = (frame[frame["metric"] == metric] for metric in ("loss", "fine"))
    assert loss["status"].tolist() == ["ok", "not_finite", "not_finite", "not_finite", "ok"]
    assert loss["value"].isna().tolist() == [False, True, True, True, False]
    assert loss[["barrier", "barrier_interior", "barrier_midpoint"]].isna().all(axis=None)
    assert fine["barrier"].eq(0.0).all()


def test_checkpoints_that_hold_nan_give_rows_and_no_error() -> None:
    _, b = ends(tiny_tasks.mlp)
    b["first.weight"] = torch.full_like(b["first.weight"], torch.nan)
    saved("b.safetensors", b)
    with pytest.warns(SkippedWorkWarning, match="not_finite"):
        frame = barrier()
    loss = frame[(frame["metric"] == "loss") & (frame["split"] == "val")]
    assert loss["status"].tolist() == ["end_not_ok", *["not_finite"] * 4]


# what is recorded


def test_rows_name_both_checkpoints() -> None:
    for run, steps in (("runs/a", (1, 5)), ("runs/b", (5, 12))):
        for step in steps:
            saved(f"{run}/step_{step}.safetensors", random_state(tiny_tasks.mlp, step))
    names = ["run_a", "checkpoint_a", "step_a", "run_b", "checkpoint_b", "step_b"]
    final = ["runs/a", "step_5.safetensors", 5, "runs/b", "step_12.safetensors", 12]
    for a in ("runs/a", "runs/a/", "runs/a@final", "runs/a@5", "runs/a/step_5.safetensors", "./runs/a"):
        frame = barrier(a, "runs/b", alphas=2, split="val")
        assert frame[names].drop_duplicates().to_numpy().tolist() == [final]
    frame = barrier("runs/a@1", "runs/a@5", alphas=2)
    assert frame[["run_a", "step_a", "run_b", "step_b"]].drop_duplicates().to_numpy().tolist() == [
        ["runs/a", 1, "runs/a", 5]
    ]


def test_files_record_the_task_and_the_policy() -> None:
    ends(tiny_tasks.mlp)
    tables = {"barrier": "barrier.parquet", "barrier_spectra": "spectra.parquet", "sva": "sva.parquet"}
    outs = dict(zip(("out", "spectra_out", "sva_out"), tables.values(), strict=True))
    barrier(settings={"width": 7}, alphas=3, tags={"seed": "1"}, **outs)
    for table, name in tables.items():
        metadata = pq.read_schema(name).metadata
        assert metadata[b"spectra.schema"] == f"{table}/1".encode()
        recorded = json.loads(metadata[b"spectra.settings"])
        assert recorded["tasks"] == [{"task": MLP, "options": {"width": 7}}]
        assert (recorded["batch_norm"], recorded["alphas"]) == ("reestimate", 3)
        assert recorded["pairs"] == [["a.safetensors", "b.safetensors"]]
        assert metadata[b"spectra.command"] == b"spectra_cli.barrier a.safetensors b.safetensors"
        assert metadata[b"spectra.device"]
        assert set(pq.read_table(name)["seed"].to_pylist()) == {"1"}


def test_spectra_along_the_line_are_those_of_the_weights_there() -> None:
    a, b = ends(tiny_tasks.cnn)
    barrier(task=f"{FILE}:cnn", alphas=3, spectra_out="spectra.parquet", exclude="output.*")
    rows = pq.read_table("spectra.parquet").to_pylist()
    assert [(row["alpha"], row["parameter"]) for row in rows] == [
        (alpha, name) for alpha in (0.0, 0.5, 1.0) for name in ("conv.weight", "grow.weight")
    ]
    for row in rows:
        alpha, name = row["alpha"], row["parameter"]
        tensor = (1 - alpha) * a[name].double() + alpha * b[name].double()
        matrix = (tensor.transpose(0, 1) if name == "grow.weight" else tensor).flatten(1).numpy()
        values = np.linalg.svd(matrix, compute_uv=False)
        shares = values / values.sum()
        assert row["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
        np.testing.assert_allclose(row["singular_values"], values, atol=1e-5 * values[0])


# pairs


def test_many_pairs_are_what_each_is_alone_in_any_order() -> None:
    for seed in range(3):
        saved(f"{seed}.safetensors", random_state(tiny_tasks.cnn, seed))
    pairs = [("0.safetensors", "1.safetensors"), ("1.safetensors", "2.safetensors"), ("0.safetensors", "0.safetensors")]
    options: dict[str, Any] = {"task": f"{FILE}:cnn", "alphas": 3}
    together = spectra_cli.barrier(pairs=pairs, **options)
    alone = pd.concat([spectra_cli.barrier(*pair, **options) for pair in pairs], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone)
    names = ["checkpoint_a", "checkpoint_b", "split", "metric", "alpha"]
    reverse = spectra_cli.barrier(pairs=pairs[::-1], **options)
    pd.testing.assert_frame_equal(
        together.sort_values(names, ignore_index=True), reverse.sort_values(names, ignore_index=True)
    )


LOGGED = """
from pathlib import Path
from tests.analyses import tiny_tasks

class Logged(tiny_tasks.Classification):
    def model(self):
        Path("log.txt").open("a").write("model ")
        return super().model()

def make():
    Path("log.txt").open("a").write("task ")
    return Logged(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_task_and_its_model_are_made_once_for_all_pairs() -> None:
    for seed in range(3):
        saved(f"{seed}.safetensors", random_state(tiny_tasks.mlp, seed))
    Path("task.py").write_text(LOGGED)
    pairs = [(f"{a}.safetensors", f"{b}.safetensors") for a in range(3) for b in range(3)]
    spectra_cli.barrier(pairs=pairs, task="task.py:make", alphas=2)
    assert Path("log.txt").read_text() == "task model "


def test_a_pair_that_cannot_be_used_is_a_row_and_a_warning_and_the_rest_goes_on() -> None:
    ends(tiny_tasks.mlp)
    saved("wide.safetensors", random_state(lambda: tiny_tasks.mlp(9), 1))
    Path("broken.safetensors").write_bytes(b"none")
    for name in ("x", "y"):
        saved(f"several/{name}/step_1.safetensors", random_state(tiny_tasks.mlp, 1))
    pairs = [
        ("a.safetensors", "absent"),
        ("a.safetensors", "wide.safetensors"),
        ("a.safetensors", "b.safetensors"),
        ("broken.safetensors", "b.safetensors"),
        ("several", "b.safetensors"),
        ("wide.safetensors", "wide.safetensors"),
        ("a.safetensors@x", "b.safetensors"),
    ]
    with pytest.warns(SkippedWorkWarning) as caught:
        frame = spectra_cli.barrier(pairs=pairs, task=MLP, alphas=2, spectra_out="spectra.parquet")
    assert frame["status"].tolist() == [
        "no_input",
        "shape_mismatch",
        *["ok"] * 8,
        "corrupt",
        "no_input",
        "state_mismatch",
        "usage",
    ]
    failed = frame[frame["status"] != "ok"]
    assert failed[["value", "barrier", "alpha", "count"]].isna().all(axis=None)
    assert failed["run_b"].tolist() == ["absent", ".", ".", ".", ".", "."]
    assert failed["checkpoint_b"].isna().tolist() == [True, *[False] * 5]
    assert len(caught) == 6
    spectra = pq.read_table("spectra.parquet")["status"].to_pylist()
    assert [status for status in spectra if status != "ok"] == failed["status"].tolist()


def test_what_keeps_many_pairs_from_use_is_told_once_and_counted() -> None:
    ends(tiny_tasks.mlp)
    pairs = [("a.safetensors", "absent")] * 3 + [("a.safetensors", "b.safetensors")]
    with pytest.warns(SkippedWorkWarning) as caught:
        spectra_cli.barrier(pairs=pairs, task=MLP, alphas=2)
    first, again = (str(warning.message) for warning in caught)
    assert first.startswith("absent: does not exist")
    assert again == f"the same in 2 more of the pairs: {first}"


def test_pairs_none_of_which_can_be_used_are_an_error() -> None:
    ends(tiny_tasks.mlp)
    with pytest.warns(SkippedWorkWarning), pytest.raises(InputError, match="none of the 2 pairs could be used"):
        spectra_cli.barrier(pairs=[("a.safetensors", "absent"), ("a.safetensors", "nothing")], task=MLP)
    pairs = [("a.safetensors", "b.safetensors"), ("b.safetensors", "a.safetensors")]
    with pytest.raises(UsageError, match="--split test"):
        spectra_cli.barrier(pairs=pairs, task=MLP, split="test")
    with pytest.raises(UsageError, match="no option 'wdth'"):
        spectra_cli.barrier(pairs=pairs, task=MLP, settings={"wdth": 3})


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("x,y\n", [("x", "y")]),
        ("a,b\nx,y\n", [("x", "y")]),
        (" A , B \r\n x , y \r\n", [("x", "y")]),
        ("# seeds\n\nx,y\n  # more\nz,w", [("x", "y"), ("z", "w")]),
        ('"x,1","y ""2"""\n', [("x,1", 'y "2"')]),
        ('"#x",y\n', [("#x", "y")]),
        ("\ufeffa,b\nx,y\n", [("x", "y")]),
        ("x,y\na,b\n", [("x", "y"), ("a", "b")]),
        ("größe/ä@first,層\n", [("größe/ä@first", "層")]),
        (" , \nx, y\n", [("x", "y")]),
    ],
)
def test_files_of_pairs(content: str, pairs: list[tuple[str, str]]) -> None:
    Path("pairs.csv").write_text(content, encoding="utf-8", newline="")
    assert read_pairs(Path("pairs.csv")) == (pairs, [{}] * len(pairs))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "pairs.csv: there is no pair in it"),
        (b"a,b\n", "pairs.csv: there is no pair in it"),
        (b"# nothing\n\n", "pairs.csv: there is no pair in it"),
        (b"# one\nx,y\nz\n", "pairs.csv, line 3: 1 column, not 2"),
        (b"x,y,z\n", "pairs.csv, line 1: 3 columns, not 2"),
        (b"x,y\n\n# two\nz,\n", "pairs.csv, line 4: a PATH is missing"),
        (b'x,"y\n', "pairs.csv, line 1: this is no line of CSV"),
        (b'x,"y"z\n', "pairs.csv, line 1: this is no line of CSV"),
        (b"\xff\xfe\x00", "pairs.csv: this is no text in UTF-8"),
        (b"x,y\nz\x00,w\n", "pairs.csv, line 2"),
        (b"a,b,step\nx,y\n", "pairs.csv, line 2: 2 columns, not 3. Write as many as the first line names"),
        (b"a,b,step\nx,,1\n", "pairs.csv, line 2: a PATH is missing"),
        (b"a,b,\nx,y,1\n", "pairs.csv, line 1: a column has no name, or that of another"),
        (b"a,b,step,step\nx,y,1,2\n", "pairs.csv, line 1: a column has no name, or that of another"),
        (b"a,b,A,a\nx,y,1,2\n", "pairs.csv, line 1: a column has no name, or that of another"),
    ],
)
def test_files_that_hold_no_pairs_are_told_with_the_line(content: bytes, said: str) -> None:
    Path("pairs.csv").write_bytes(content)
    with pytest.raises(SpectraError) as caught:
        make_barrier_plan(read_pairs(Path("pairs.csv")).pairs, Options(), TaskOptions(), 3)
    assert said in str(caught.value)


def test_further_columns_of_a_file_of_pairs_become_columns_of_every_table() -> None:
    """Also of the rows of a pair that cannot be used, and beside a tag of all pairs."""
    ends(tiny_tasks.mlp)
    a, b = "a.safetensors", "b.safetensors"
    Path("pairs.csv").write_text(f"a,b,split_step,note\n{a},{b},0,early\n{b},{a},129,\n{a},nowhere,7,x\n")
    with pytest.warns(UserWarning, match="nowhere"):
        frame = spectra_cli.barrier(
            pairs="pairs.csv", task=MLP, alphas=2, sva_out="sva.parquet", out="barrier.parquet", tags={"seed": "3"}
        )
    for table in (frame, pd.read_parquet("barrier.parquet"), pd.read_parquet("sva.parquet")):
        found = table[["split_step", "note", "seed"]].drop_duplicates().to_numpy().tolist()
        assert found == [["0", "early", "3"], ["129", "", "3"], ["7", "x", "3"]]
    assert frame[frame.split_step == "7"]["status"].tolist() == ["no_input"]
    with pytest.raises(UsageError, match=r"--tag note: --pairs has a column of that name"):
        spectra_cli.barrier(pairs="pairs.csv", task=MLP, tags={"note": "3"})
    Path("pairs.csv").write_text(f"a,b,alpha\n{a},{b},0\n")
    with pytest.raises(UsageError, match="alpha: the table has a column of that name"):
        spectra_cli.barrier(pairs="pairs.csv", task=MLP, out="other.parquet")


def test_a_file_of_pairs_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match=r"pairs\.csv: cannot be read: No such file"):
        spectra_cli.barrier(pairs="pairs.csv", task=MLP)


def test_pairs_are_read_from_a_file_and_nothing_else_is_waited_for() -> None:
    os.mkfifo("pipe")
    for path, reason in (("pipe", "this is a pipe"), (".", "or a directory"), ("nul\0", "no path is like this")):
        with pytest.raises(InputError, match=f"cannot be read: .*{reason}"):
            read_pairs(Path(path))


def test_two_paths_or_pairs_and_not_both() -> None:
    for arguments in ({}, {"a": "x"}, {"a": "x", "b": "y", "pairs": [("x", "y")]}, {"pairs": []}):
        with pytest.raises(UsageError):
            spectra_cli.barrier(**arguments)


@pytest.mark.parametrize("alphas", [1, 0, -3])
def test_fewer_than_two_points_are_no_line(alphas: int) -> None:
    with pytest.raises(UsageError, match=f"--alphas {alphas}"):
        barrier(alphas=alphas)


# the same model, the same task


def shape_error(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str:
    saved("a.safetensors", a)
    saved("b.safetensors", b)
    with pytest.raises(SpectraError) as caught:
        barrier(task="absent.py:never_loaded")
    assert caught.value.status == "shape_mismatch"
    return str(caught.value)


def test_the_first_difference_is_named_from_headers_before_a_task_is_made() -> None:
    a = {"fc1.weight": torch.ones(64, 10), "fc2.weight": torch.ones(3, 64), "scale": torch.ones(())}
    assert "'fc1.weight' is 64 x 10 in A and 32 x 10 in B" in shape_error(
        a, {**a, "fc1.weight": torch.ones(32, 10), "fc2.weight": torch.ones(3, 32)}
    )
    assert "'scale' is a scalar in A and 1 in B" in shape_error(a, {**a, "scale": torch.ones(1)})
    assert "B has no 'fc2.weight'" in shape_error(a, {name: a[name] for name in ("fc1.weight", "scale")})
    said = shape_error(a, {**a, "fc3.weight": torch.ones(2, 3)})
    assert "A has no 'fc3.weight'" in said
    assert "Give two checkpoints of one architecture" in said


def test_what_wraps_the_names_and_how_ties_are_stored_are_no_difference() -> None:
    """A is a wrapped PyTorch file, in which tied tensors are one; B a safetensors file with a copy, then without."""
    a, b = random_state(tiny_tasks.tied, 1), random_state(tiny_tasks.tied, 2)
    torch.save({f"module.{name}": tensor for name, tensor in a.items()}, "a.pt")
    saved("both.safetensors", b)
    saved("one.safetensors", {name: tensor for name, tensor in b.items() if name != "second.weight"})
    task = f"{FILE}:tied"
    saved("plain.safetensors", a)
    expected = barrier("plain.safetensors", "both.safetensors", task=task)["value"].tolist()
    for path in ("both.safetensors", "one.safetensors"):
        assert barrier("a.pt", path, task=task)["value"].tolist() == expected
        assert (
            barrier(path, "a.pt", task=task)["value"].tolist()
            == barrier("both.safetensors", "a.pt", task=task)["value"].tolist()
        )


def run_of(name: str, prime: int = 5, task: str = "modular-addition", seed: int = 0, **options: object) -> str:
    from spectra_cli.tasks.modular_addition import ModularAddition

    sizes = {"prime": prime, "d_model": 4, "num_heads": 2, "mlp": 6}
    torch.manual_seed(seed)
    model = ModularAddition(prime=prime, d_model=4, num_heads=2, mlp=6).model()
    saved(f"{name}/step_1.safetensors", model.state_dict())
    Path(name, "run.json").write_text(json.dumps({"task": task, "options": {**sizes, **options}, "seed": seed}))
    return name


def test_two_runs_that_know_their_task_need_nothing_more() -> None:
    frame = spectra_cli.barrier(run_of("a", seed=1), run_of("b", seed=2), alphas=3)
    assert frame["status"].eq("ok").all()
    assert frame["metric"].unique().tolist() == ["loss", "error"]
    assert set(frame["split"]) == {"train", "val"}


def test_different_tasks_are_told_by_name_unless_the_user_says_which() -> None:
    run_of("a")
    run_of("b", task="image-classification")
    with pytest.raises(InputError, match=r"A was trained on modular-addition, B on image-classification\. Name one"):
        spectra_cli.barrier("a", "b")
    frame = spectra_cli.barrier("a", "a/step_1.safetensors", alphas=2)
    assert frame["status"].eq("ok").all()


def test_options_that_differ_are_told_unless_the_user_says_which() -> None:
    """The default of an option and the same value said aloud do not differ."""
    run_of("a")
    run_of("b", data_fraction=0.5)
    with pytest.raises(InputError) as caught:
        spectra_cli.barrier("a", "b")
    said = str(caught.value)
    assert said.startswith("a and b: the option data_fraction of modular-addition is None for A and 0.5 for B")
    assert "--set data_fraction=VALUE" in said
    assert caught.value.status == "task_mismatch"
    assert spectra_cli.barrier("a", "b", settings={"data_fraction": "0.5"}, alphas=2)["status"].eq("ok").all()
    run_of("c", setting="grokking", data_seed=0)
    assert spectra_cli.barrier("a", "c", alphas=2)["status"].eq("ok").all()


def test_a_run_json_that_names_a_file_is_refused() -> None:
    ends(tiny_tasks.mlp)
    Path("run.json").write_text(json.dumps({"task": MLP}))
    with pytest.raises(InputError, match=r"run\.json: names the task .* a file"):
        spectra_cli.barrier("a.safetensors", "b.safetensors")
    assert barrier(alphas=2)["status"].eq("ok").all()


def test_models_are_let_go_of_after_the_last_pair_that_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a pair could not be used: the model of the first task is gone when that of the second is made."""
    made: list[weakref.ref[nn.Module]] = []
    alive: list[int] = []

    def new_model(task: Any, seed: int) -> nn.Module:
        gc.collect()
        alive.append(sum(model() is not None for model in made))
        model = make(task, seed)
        made.append(weakref.ref(model))
        return model

    make = modelpool.new_model
    monkeypatch.setattr(modelpool, "new_model", new_model)
    ends = [run_of(f"{prime}/{seed}", prime, seed=seed) for prime in (5, 7) for seed in (1, 2)]
    Path("7/2/step_1.safetensors").write_bytes(Path("7/2/step_1.safetensors").read_bytes()[:-4])
    plan = make_barrier_plan([(ends[0], ends[1]), (ends[2], ends[3]), (ends[2], ends[2])], Options(), TaskOptions(), 2)
    heard = Heard()
    all_done(BarrierJob(plan, heard, "cpu"), heard)
    assert alive == [0, 0]
    gc.collect()
    assert [model() for model in made] == [None, None]


def test_without_a_run_json_a_task_must_be_named() -> None:
    ends(tiny_tasks.mlp)
    with pytest.raises(UsageError, match=r"there is no run\.json .* Pass --task"):
        spectra_cli.barrier("a.safetensors", "b.safetensors")


def test_the_code_of_a_task_that_raises_is_told_by_its_own_line() -> None:
    ends(tiny_tasks.mlp)
    Path("task.py").write_text(
        "from tests.analyses import tiny_tasks\n"
        "class Bad(tiny_tasks.Classification):\n"
        "    def metrics(self, model, batch):\n"
        "        return batch.undefined\n"
        "def make():\n"
        "    return Bad(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
    )
    with pytest.raises(TaskError, match=r"task\.py, line 4, in metrics: return batch\.undefined: AttributeError"):
        barrier(task="task.py:make")


@pytest.mark.parametrize("policy", ["recompute", "", "Stored"])
def test_a_policy_that_does_not_exist_is_told(policy: str) -> None:
    with pytest.raises(UsageError, match="--batch-norm"):
        barrier(batch_norm=policy)


# how it goes on


def plan_of(*pairs: tuple[str, str], task: str, **settings: Any) -> BarrierPlan:
    return make_barrier_plan(pairs, Options(), TaskOptions(task, settings), 3)


def test_progress_grows_to_the_end_over_all_pairs_and_passes() -> None:
    ends(tiny_tasks.cnn)
    heard = Heard()
    pairs = [("a.safetensors", "b.safetensors"), ("absent", "b.safetensors"), ("b.safetensors", "a.safetensors")]
    all_done(BarrierJob(plan_of(*pairs, task=f"{FILE}:cnn"), heard, "cpu"), heard)
    done = [part for _, part in heard.progress]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, pytest.approx(3.0))
    assert heard.progress[1] == ("pair 1/3, alpha 1/3", pytest.approx(1 / 9)), "statistics, and two splits"
    assert heard.progress[-1][0] == "pair 3/3, alpha 3/3"


def test_what_a_task_says_of_itself_is_told_once() -> None:
    for name in "ab":
        saved(f"{name}.safetensors", {"weight": torch.ones(1, 3, dtype=torch.float64)})
    heard = Heard()
    pair = ("a.safetensors", "b.safetensors")
    all_done(BarrierJob(plan_of(pair, pair, task=f"{__file__}:Quadratic"), heard, "cpu"), heard)
    assert (heard.notices, heard.problems) == (["Nothing but a parabola."], [])


def test_agreement_is_asked_for_and_scored_for_every_matrix() -> None:
    ends(tiny_tasks.mlp)
    plan = plan_of(("a.safetensors", "a.safetensors"), task=MLP)
    (without,) = all_done(BarrierJob(plan, Heard(), "cpu"), Heard())
    (scored,) = all_done(BarrierJob(plan, Heard(), "cpu", agreement=True), Heard())
    assert agreement_of(without.facts) == []
    found = agreement_of(json.loads(json.dumps(scored.facts)))
    assert [(row["depth"], row["parameter"], row["rows"], row["cols"]) for row in found] == [
        (0, "first.weight", 7, 6),
        (1, "second.weight", 9, 7),
        (2, "output.weight", 5, 9),
    ]
    assert [row["score"] for row in found] == pytest.approx([1.0] * 3, abs=1e-5)


@pytest.mark.parametrize(
    "found",
    [
        None,
        3,
        "x",
        {},
        [None],
        [[]],
        [[0, "w", 2, 3, "high", 0.1]],
        [[0, "w", 2, None, 0.5, 0.1]],
        [[0, "w", 2, 3, 0.5]],
    ],
)
def test_agreement_on_record_in_a_file_that_is_none_is_left_out(found: object) -> None:
    assert agreement_of({"agreement": found}) == []


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been() -> None:
    ends(tiny_tasks.cnn)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    barrier(task=f"{FILE}:cnn", alphas=2)
    assert torch.equal(torch.get_rng_state(), before)
