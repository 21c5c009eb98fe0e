"""`spectra_cli.prune_eval` against a plain loop: NumPy's float64 SVD, a sorted list, torch's forward pass."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

import spectra_cli
from spectra_cli.errors import CheckpointError, InputError, UsageError
from spectra_cli.execution.work.listener import SkippedWorkWarning
from tests.analyses import tiny_tasks
from tests.analyses.formulas import agreement, save, svd
from tests.analyses.tiny_tasks import Classification

TASKS = Path(tiny_tasks.__file__)
VARIANTS = ("full", "top", "bottom", "magnitude", "random")

State = dict[str, Tensor]

MATRICES: Mapping[str, Mapping[str, str]] = {
    "mlp": {"first.weight": "linear", "second.weight": "linear"},
    "double": {"first.weight": "linear", "second.weight": "linear"},
    "cnn": {"conv.weight": "linear", "grow.weight": "transposed"},
    "recurrent": {
        "tokens.weight": "embedding",
        "lstm.weight_ih_l0": "linear",
        "lstm.weight_hh_l0": "linear",
    },
    "tied": {"enter.weight": "linear", "first.weight": "linear"},
}
"""What is pruned of every model, in its order, and how its tensors are matrices."""


def task_of(name: str) -> Classification:
    made = getattr(tiny_tasks, name)()
    assert isinstance(made, Classification)
    return made


def checkpoint_of(name: str, path: Path, seed: int = 0) -> State:
    """Random weights, large enough for all variants to differ, and running statistics unlike those of the data."""
    torch.manual_seed(seed)
    state: State = task_of(name).model().state_dict()
    for key, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(tensor * 3 + 0.1 * torch.rand(tensor.shape))
        if "running" in key:
            tensor.add_(torch.rand(tensor.shape))
    torch.save(state, path)
    return state


def named(name: str) -> str:
    return f"{TASKS}:{name}"


# The oracle


def half(tensor: Tensor, layout: str, keep: float, *, bottom: bool) -> Tensor:
    """The leading singular components of a tensor's matrix, or the others."""
    array = tensor.double().numpy()
    stored = array.swapaxes(0, 1) if layout == "transposed" else array
    matrix = stored.reshape(stored.shape[0], -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    count = math.ceil(round(keep * len(values), 9)) or 1
    top = (left[:, :count] * values[:count]) @ right[:count]
    part = (matrix - top if bottom else top).reshape(stored.shape)
    return torch.from_numpy((part.swapaxes(0, 1) if layout == "transposed" else part).copy()).to(tensor.dtype)


def masks(state: State, matrices: Mapping[str, str], keep: float) -> dict[str, Tensor]:
    """Where the largest magnitudes of all weights together are, from a sorted list."""
    names = [name for name, layout in matrices.items() if layout != "embedding"]
    every = sorted((abs(x) for name in names for x in state[name].flatten().tolist()), reverse=True)
    threshold = every[math.ceil(round(keep * len(every), 9)) - 1]
    return {name: state[name].abs().double() >= threshold for name in names}


def shuffled(chosen: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """As many entries of each tensor: the first of a random order of all, one order after the other."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, mask in chosen.items():
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[torch.randperm(mask.numel(), generator=generator)[: int(mask.sum())]] = True
        result[name] = flat.reshape(mask.shape)
    return result


class Kept(NamedTuple):
    """What the variants keep."""

    keep: float = 0.5
    mask_keep: float = 0.05
    seed: int = 0


def variant_of(state: State, matrices: Mapping[str, str], variant: str, kept: Kept) -> State:
    changed = dict(state)
    if variant in {"top", "bottom"}:
        for name, layout in matrices.items():
            changed[name] = half(state[name], layout, kept.keep, bottom=variant == "bottom")
    if variant in {"magnitude", "random"}:
        chosen = masks(state, matrices, kept.mask_keep)
        for name, mask in (shuffled(chosen, kept.seed) if variant == "random" else chosen).items():
            changed[name] = state[name] * mask
    return changed


def evaluated(task: Classification, state: State, *, reestimate: bool = True) -> dict[tuple[str, str], float]:
    """Metrics by split and name: all examples at once, each mean taken over them."""
    model = task.model()
    if isinstance(model, tiny_tasks.Tied):
        state = {**state, "second.weight": state["first.weight"]}
    model.load_state_dict(state)
    if reestimate:
        update_bn((inputs for inputs, _ in task.batches("train")), model)
    model.eval()
    found = {}
    for split, (inputs, labels) in task.data.items():
        with torch.no_grad():
            logits = model(inputs).double()
        found[split, "loss"] = float(cross_entropy(logits, labels))
        found[split, "error"] = float((logits.argmax(1) != labels).double().mean())
    return found


def assert_rows(
    frame: pd.DataFrame,
    name: str,
    state: State,
    kept: Kept = Kept(),  # noqa: B008 - a tuple
    *,
    matrices: Mapping[str, str] | None = None,
    reestimate: bool = True,
) -> None:
    """Check every row of one checkpoint, and that there are no others."""
    pruned = MATRICES[name] if matrices is None else matrices
    rows = iter(frame.to_dict("records"))
    for variant in VARIANTS:
        changed = variant_of(state, pruned, variant, kept)
        keep = {"full": 1.0, "top": kept.keep, "bottom": kept.keep}.get(variant, kept.mask_keep)
        for (split, metric), expected in evaluated(task_of(name), changed, reestimate=reestimate).items():
            row = next(rows)
            assert (row["variant"], row["split"], row["metric"], row["status"]) == (variant, split, metric, "ok")
            assert row["value"] == pytest.approx(expected, rel=1e-6), (variant, split, metric)
            assert (row["count"], row["keep"]) == (tiny_tasks.COUNTS[split], keep)
            assert row["seed"] == kept.seed if variant == "random" else pd.isna(row["seed"])
    assert not list(rows)


# Numbers


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("keep", [0.3, 0.55, 1.0, 1e-6])
def test_every_value_is_that_of_a_plain_loop(name: str, keep: float, tmp_path: Path) -> None:
    state = checkpoint_of(name, tmp_path / "step_3.pt")
    frame = spectra_cli.prune_eval(tmp_path, task=named(name), keep=keep, mask_keep=0.3, mask_seed=5)
    assert_rows(frame, name, state, Kept(keep, 0.3, 5))
    assert set(frame["step"]) == {3}
    assert set(frame["checkpoint"]) == {"step_3.pt"}


def test_the_defaults_are_half_of_the_components_and_a_twentieth_of_the_entries(tmp_path: Path) -> None:
    state = checkpoint_of("cnn", tmp_path / "model.pt")
    assert_rows(spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn")), "cnn", state)


def test_variants_really_differ(tmp_path: Path) -> None:
    """Or else the tests above would say little."""
    checkpoint_of("cnn", tmp_path / "model.pt")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"))
    losses = frame[(frame["split"] == "val") & (frame["metric"] == "loss")]["value"]
    assert len(set(losses.round(3))) == 5


def test_the_top_of_everything_is_the_full_model_to_the_last_bit(tmp_path: Path) -> None:
    checkpoint_of("cnn", tmp_path / "model.pt")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"), keep=1.0, variants=("full", "top"))
    full, top = (frame[frame["variant"] == variant]["value"].tolist() for variant in ("full", "top"))
    assert full == top


def test_statistics_as_stored_are_used_if_that_is_asked_for(tmp_path: Path) -> None:
    """They are not those of the training split, by far."""
    state = checkpoint_of("cnn", tmp_path / "model.pt")
    stored = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"), batch_norm="stored")
    assert_rows(stored, "cnn", state, reestimate=False)
    anew = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"))
    assert abs(stored["value"][0] - anew["value"][0]) > 0.01


@pytest.mark.parametrize("order", [("random", "bottom", "full", "magnitude", "top"), ("magnitude", "top")])
def test_the_order_of_variants_does_not_matter(order: tuple[str, ...], tmp_path: Path) -> None:
    """Neither for the values nor for the order of the rows."""
    checkpoint_of("cnn", tmp_path / "model.pt")
    whole = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"))
    some = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("cnn"), variants=order)
    expected = whole[whole["variant"].isin(order)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, expected, check_exact=True)


def test_globs_restrict_what_is_pruned(tmp_path: Path) -> None:
    """Also what the threshold of the masks is taken over."""
    state = checkpoint_of("mlp", tmp_path / "model.pt")
    matrices = {"second.weight": "linear"}
    for globs in ({"include": "second*"}, {"exclude": ("first*",)}):
        frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), mask_keep=0.3, **globs)
        assert_rows(frame, "mlp", state, Kept(mask_keep=0.3), matrices=matrices)


def test_the_output_layer_is_pruned_if_it_is_said_to_be_another(tmp_path: Path) -> None:
    state = checkpoint_of("mlp", tmp_path / "model.pt")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), output_layer="first*", mask_keep=0.3)
    matrices = {"second.weight": "linear", "output.weight": "linear"}
    assert_rows(frame, "mlp", state, Kept(mask_keep=0.3), matrices=matrices)


def test_other_seeds_give_other_masks_and_the_same_seed_the_same(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    one, again, other = (
        spectra_cli.prune_eval(
            tmp_path / "model.pt", task=named("mlp"), mask_keep=0.3, mask_seed=seed, variants=("random",)
        )
        for seed in (1, 1, 2)
    )
    assert one["value"].tolist() == again["value"].tolist()
    assert one["value"].tolist() != other["value"].tolist()
    assert other["seed"].tolist() == [2] * 4


def test_weights_as_stored_in_bfloat16_are_evaluated_in_the_type_of_the_model(tmp_path: Path) -> None:
    state = checkpoint_of("mlp", tmp_path / "model.pt")
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    torch.save(rounded, tmp_path / "model.pt")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"))
    assert_rows(frame, "mlp", {name: tensor.float() for name, tensor in rounded.items()})


def test_one_split_and_options_of_the_task(tmp_path: Path) -> None:
    """``width`` as text is what ``--set width=9`` gives."""
    torch.save(tiny_tasks.mlp(9).model().state_dict(), tmp_path / "model.pt")
    for width in (9, "9"):
        frame = spectra_cli.prune_eval(
            tmp_path / "model.pt", task=named("mlp"), settings={"width": width}, split="val", variants=("full",)
        )
        assert set(frame["split"]) == {"val"}
        assert len(frame) == 2


def test_a_metric_that_draws_numbers_meets_the_same_ones_whatever_came_before(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    task = tmp_path / "task.py"
    task.write_text(
        "import torch\nfrom tests.analyses import tiny_tasks\n"
        "class Noisy(tiny_tasks.Classification):\n"
        "    def model(self):\n        return tiny_tasks.Network(7)\n"
        "    def metrics(self, model, batch):\n"
        "        return super().metrics(model, (batch[0] + torch.randn(batch[0].shape), batch[1]))\n"
        "def make():\n    return Noisy(None, tiny_tasks._vectors)\n"
    )
    frames = [
        spectra_cli.prune_eval(tmp_path / "model.pt", task=f"{task}:make", variants=variants)
        for variants in (("full", "top"), ("top",))
    ]
    top = frames[0][frames[0]["variant"] == "top"]["value"].tolist()
    assert top == frames[1]["value"].tolist()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MATRICES)
def test_a_gpu_gives_the_same_values_without_tf32(name: str, tmp_path: Path) -> None:
    """Whose rounding of 1e-3 would show."""
    checkpoint_of(name, tmp_path / "model.pt")
    on_cpu, on_gpu = (
        spectra_cli.prune_eval(tmp_path / "model.pt", task=named(name), device=device) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_gpu["value"], on_cpu["value"], rtol=1e-5)


# Agreement of what is left with what was there


def agreements(tmp_path: Path, name: str, **options: Any) -> list[dict[str, Any]]:
    out = tmp_path / "sva.parquet"
    spectra_cli.prune_eval(tmp_path / "step_3.pt", task=named(name), sva_out=out, **options)
    rows: list[dict[str, Any]] = pq.read_table(out).to_pylist()
    return rows


def flattened(tensor: Tensor, layout: str) -> Tensor:
    stored = tensor.transpose(0, 1) if layout == "transposed" else tensor
    return stored.reshape(stored.shape[0], -1)


@pytest.mark.parametrize("name", ["mlp", "cnn", "recurrent"])
def test_agreement_is_that_of_the_formula(name: str, tmp_path: Path) -> None:
    """For every variant but full, and every matrix that it prunes."""
    state = checkpoint_of(name, tmp_path / "step_3.pt")
    rows = iter(agreements(tmp_path, name, keep=0.5, mask_keep=0.4))
    for variant in VARIANTS[1:]:
        changed = variant_of(state, MATRICES[name], variant, Kept(0.5, 0.4))
        for parameter, layout in MATRICES[name].items():
            if layout == "embedding" and variant in {"magnitude", "random"}:
                continue
            row = next(rows)
            assert (row["variant"], row["parameter"], row["status"]) == (variant, parameter, "ok")
            assert (row["checkpoint"], row["reference_checkpoint"]) == ("step_3.pt", "step_3.pt")
            assert (row["run"], row["reference_run"], row["reference_step"]) == (".", ".", 3)
            pruned, whole = (svd(flattened(weights[parameter], layout)) for weights in (changed, state))
            sure = int((pruned.values > 1e-5 * pruned.values[0]).sum())  # of others the vectors are arbitrary
            expected = agreement(pruned, whole)[:sure]
            np.testing.assert_allclose(row["diagonal"][:sure], expected, rtol=0, atol=1e-3)
            if variant == "top":
                np.testing.assert_allclose(row["diagonal"][:sure], 1.0, rtol=0, atol=1e-3)
    assert not list(rows)


def test_agreement_is_restricted_as_pruning_is(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "step_3.pt")
    rows = agreements(tmp_path, "mlp", include="second*", variants=("full", "top", "random"), mask_keep=0.4)
    assert [(row["variant"], row["parameter"], row["depth"]) for row in rows] == [
        ("top", "second.weight", 1),
        ("random", "second.weight", 1),
    ]


# What cannot be used


def test_a_matrix_that_is_not_finite_leaves_the_full_model(tmp_path: Path) -> None:
    """Here in a layer that the model does not use, so that its metrics are finite."""
    torch.manual_seed(0)
    state = tiny_tasks.spare().model().state_dict()
    state["spare.weight"][1, 2] = math.nan
    torch.save(state, tmp_path / "step_3.pt")
    out = tmp_path / "sva.parquet"
    with pytest.warns(SkippedWorkWarning, match=r"1 of 3 matrices not_finite \(spare.weight\): .* top, bottom, mag"):
        frame = spectra_cli.prune_eval(tmp_path / "step_3.pt", task=named("spare"), sva_out=out)
    full, others = frame[frame["variant"] == "full"], frame[frame["variant"] != "full"]
    assert set(full["status"]) == {"ok"}
    assert full["value"][0] == pytest.approx(evaluated(task_of("spare"), state)["train", "loss"], rel=1e-6)
    assert set(others["status"]) == {"not_finite"}
    assert others["value"].isna().all()
    assert others["count"].isna().all()
    expected = [(split, metric) for split in ("train", "val") for metric in ("loss", "error")]
    assert list(zip(others["split"], others["metric"], strict=True)) == expected * 4
    rows = pq.read_table(out).to_pylist()
    assert [(row["variant"], row["parameter"], row["status"]) for row in rows] == [
        (variant, "spare.weight", "not_finite") for variant in VARIANTS[1:]
    ]


def test_without_another_variant_the_metrics_that_are_missing_have_no_name(tmp_path: Path) -> None:
    state = tiny_tasks.spare().model().state_dict()
    state["spare.weight"][1, 2] = math.inf
    torch.save(state, tmp_path / "model.pt")
    with pytest.warns(SkippedWorkWarning, match="not_finite"):
        frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("spare"), variants=("top",))
    assert frame[["variant", "split", "status"]].to_numpy().tolist() == [
        ["top", "train", "not_finite"],
        ["top", "val", "not_finite"],
    ]
    assert frame["metric"].isna().all()


def test_leaving_the_matrix_out_mends_it(tmp_path: Path) -> None:
    state = tiny_tasks.spare().model().state_dict()
    state["spare.weight"][1, 2] = math.nan
    torch.save(state, tmp_path / "model.pt")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("spare"), exclude="spare*")
    assert set(frame["status"]) == {"ok"}


def test_masks_of_nothing_but_embeddings_prune_nothing(tmp_path: Path) -> None:
    checkpoint_of("recurrent", tmp_path / "model.pt")
    with pytest.warns(
        SkippedWorkWarning, match="not evaluated: magnitude, random, as no linear or convolution weight is left"
    ):
        frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("recurrent"), include="tokens*")
    statuses = dict(zip(frame["variant"], frame["status"], strict=True))
    assert statuses == {"full": "ok", "top": "ok", "bottom": "ok", "magnitude": "nothing_selected"} | {
        "random": "nothing_selected"
    }


def write_task(path: Path, metrics: str) -> str:
    """A task in a file whose metrics are the lines given, of `loss` and a count `n`."""
    lines = "\n".join(f"        {line}" for line in metrics.splitlines())
    path.write_text(
        "import math\nfrom spectra_cli.tasks.base import Metric\nfrom tests.analyses import tiny_tasks\n"
        "class Own(tiny_tasks.Classification):\n"
        "    def metrics(self, model, batch):\n"
        "        found = super().metrics(model, batch)\n"
        f"{lines}\n"
        "def make():\n    return Own(lambda: tiny_tasks.Network(7), tiny_tasks._vectors)\n"
    )
    return f"{path}:make"


def test_a_metric_that_is_not_finite_is_a_row_and_a_warning(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    task = write_task(
        tmp_path / "own.py",
        "found['odd'] = Metric(math.nan if len(batch[1]) == 5 else 1.0, len(batch[1]))\n"  # the last of 13 by 8
        "found['huge'] = Metric(1e9 * len(batch[1]), len(batch[1]), 'exp')\n"
        "found['none'] = Metric(0.0, 0)\nreturn found",
    )
    with pytest.warns(SkippedWorkWarning) as warned:
        frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=task, variants=("full",))
    rows = {(row["split"], row["metric"]): row for row in frame.to_dict("records")}
    assert rows["val", "odd"]["status"] == "not_finite"
    assert pd.isna(rows["val", "odd"]["value"])
    assert rows["val", "odd"]["count"] == 13
    assert (rows["train", "odd"]["status"], rows["train", "odd"]["value"]) == ("ok", pytest.approx(3 / 22))
    assert rows["val", "huge"]["status"] == "not_finite"
    assert (rows["val", "none"]["status"], rows["val", "none"]["count"]) == ("empty", 0)
    assert rows["val", "loss"]["status"] == "ok"
    said = [str(warning.message) for warning in warned]
    assert len(said) == 2
    assert "3 of 10 values not_finite (train huge of full, val odd of full, val huge of full): the metrics" in said[0]
    assert "2 of 10 values empty (train none of full, val none of full): " in said[1]


def test_one_checkpoint_that_does_not_fit_is_a_row(tmp_path: Path) -> None:
    state = checkpoint_of("mlp", tmp_path / "step_1.pt")
    renamed = {name.replace("second", "secnd"): tensor for name, tensor in state.items()}
    save(tmp_path / "step_2.safetensors", renamed)
    (tmp_path / "step_3.pt").write_bytes(b"")
    with pytest.warns(SkippedWorkWarning) as warned:
        frame = spectra_cli.prune_eval(tmp_path, task=named("mlp"), variants=("full", "top"))
    by_step = dict(iter(frame.groupby("step")))
    assert len(by_step[1]) == 8
    for step, status in ((2, "state_mismatch"), (3, "corrupt")):
        assert by_step[step]["status"].tolist() == [status]
        assert by_step[step].drop(columns=["run", "checkpoint", "step", "status"]).isna().all(axis=None)
    (message,) = (str(warning.message) for warning in warned if "step_2" in str(warning.message))
    assert "lacks 2 of the model's tensors: second.weight (nearest: secnd.weight)" in message
    assert "has 2 that the model has not: secnd.bias, secnd.weight" in message


def test_shapes_of_another_model_are_named(tmp_path: Path) -> None:
    torch.save(tiny_tasks.mlp(9).model().state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"'first.weight' is 9 x 6 in the checkpoint and 7 x 6 in the task's"):
        spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"))


def test_if_none_fits_it_is_an_error(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path / f"step_{step}.safetensors", {"a.weight": torch.ones(3, 2) * step})
    with pytest.warns(SkippedWorkWarning), pytest.raises(InputError, match="none of the 2 checkpoints"):
        spectra_cli.prune_eval(tmp_path, task=named("mlp"))


def test_an_architecture_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="gpt_neox does not fit"):
        spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), architecture="gpt_neox")


def test_a_model_of_one_layer_has_nothing_to_prune(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = tmp_path / "own.py"
    task.write_text(
        "from tests.analyses import tiny_tasks\n"
        "def make():\n"
        "    return tiny_tasks.Classification(lambda: tiny_tasks.nn.Linear(6, 5), tiny_tasks._vectors)\n"
    )
    torch.save(torch.nn.Linear(6, 5).state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"no matrix but that of the output layer, weight, .* --variants full"):
        spectra_cli.prune_eval(tmp_path / "model.pt", task=f"{task}:make")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=f"{task}:make", variants="full")
    assert set(frame["status"]) == {"ok"}


def test_globs_that_leave_nothing_are_an_error_that_names_what_there_is(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"--include output\*\. Choose among first\.weight, second\.weight"):
        spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), include="output*")
    frame = spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), include="output*", variants=("full",))
    assert set(frame["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": 0.0}, "--keep 0"),
        ({"keep": 1.5}, "--keep 1.5"),
        ({"mask_keep": -1.0}, "--mask-keep -1"),
        ({"mask_keep": math.nan}, "--mask-keep nan"),
        ({"mask_seed": -1}, "--mask-seed -1"),
        ({"mask_seed": 2**63}, "--mask-seed 9223372036854775808"),
        ({"variants": ("ful",)}, "no 'ful'. Give full"),
        ({"variants": ()}, "--variants names none"),
        ({"batch_norm": "anew"}, "--batch-norm anew"),
        ({"split": "test"}, "--split test: .* train, val"),
        ({"settings": {"widht": 3}}, "no option 'widht'. Did you mean width"),
        ({"settings": {"width": "wide"}}, "option width: 'wide' is not a whole number"),
    ],
)
def test_an_argument_that_means_nothing_is_an_error(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    with pytest.raises(UsageError, match=said):
        spectra_cli.prune_eval(tmp_path / "model.pt", task=named("mlp"), **options)


# The record


def test_the_file_records_how_it_was_made(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "model.pt")
    out = tmp_path / "prune_eval.parquet"
    spectra_cli.prune_eval(
        tmp_path / "model.pt",
        task=named("mlp"),
        settings={"width": "7"},
        keep=0.3,
        mask_seed=4,
        out=out,
        tags={"a": "b"},
    )
    metadata = {key.decode(): value.decode() for key, value in pq.read_metadata(out).metadata.items()}
    settings = json.loads(metadata["spectra.settings"])
    expected = {"keep": 0.3, "mask_keep": 0.05, "mask_seed": 4, "batch_norm": "reestimate", "task": named("mlp")}
    assert {key: settings[key] for key in expected} == expected
    assert settings["tasks"] == {".": {"task": named("mlp"), "options": {"width": "7"}}}
    assert settings["variants"] == list(VARIANTS)
    assert json.loads(metadata["spectra.output_layers"]) == {".": ["output.weight"]}
    assert metadata["spectra.schema"] == "prune_eval/1"
    assert (metadata["spectra.device"], metadata["spectra.torch"]) == ("cpu", torch.__version__)
    assert set(pq.read_table(out).column("a").to_pylist()) == {"b"}


def test_the_frame_is_the_table(tmp_path: Path) -> None:
    checkpoint_of("mlp", tmp_path / "step_3.pt")
    out = tmp_path / "table.parquet"
    frame = spectra_cli.prune_eval(tmp_path / "step_3.pt", task=named("mlp"), out=out)
    stored = pq.read_table(out).to_pylist()
    for row, expected in zip(frame.to_dict("records"), stored, strict=True):
        assert {key: None if pd.isna(value) else value for key, value in row.items()} == expected
