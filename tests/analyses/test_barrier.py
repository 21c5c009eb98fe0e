"""Points between two states, and what the curve of a metric over them says, against the formulas in plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from spectra_cli.analyses import barrier
from spectra_cli.analyses.barrier import END_NOT_OK, MatricesAlong, between, curve_rows, grid, state_between
from spectra_cli.analyses.barrier_summary import BarrierSummary
from spectra_cli.analyses.models import matrices_of_model
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Row, WorkPlace
from spectra_cli.tasks.evaluation import Value

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
HERE = WorkPlace(torch.device("cpu"), 1 << 28, 1 << 26)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def random(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def peculiar(dtype: torch.dtype) -> Tensor:
    """Zeros of both signs, the extremes of the type, and what is no number."""
    info = torch.finfo(dtype)
    return torch.tensor([0.0, -0.0, info.max, info.min, info.tiny, math.inf, -math.inf, math.nan], dtype=dtype)


# the line


@given(st.integers(2, 300))
def test_the_grid_is_even_has_both_ends_and_is_the_same_from_the_other_side(count: int) -> None:
    points = grid(count)
    np.testing.assert_allclose([alpha for _, alpha in points], np.linspace(0, 1, count), rtol=0, atol=1e-15)
    assert points[0] == (1.0, 0.0)
    assert points[-1] == (0.0, 1.0)
    assert [(b, a) for a, b in reversed(points)] == points


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_are_the_ends_bit_for_bit(dtype: torch.dtype) -> None:
    a, b = peculiar(dtype), peculiar(dtype).flip(0)
    assert bits(between(a, b, (1.0, 0.0))) == bits(a)
    assert bits(between(a, b, (0.0, 1.0))) == bits(b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", grid(11))
def test_between_equal_tensors_lies_nothing_else(dtype: torch.dtype, weights: tuple[float, float]) -> None:
    finite = peculiar(dtype)[:-1]
    tensor = torch.cat([finite, random(1, 200, dtype=dtype)])
    assert bits(between(tensor, tensor.clone(), weights)) == bits(tensor)


@pytest.mark.parametrize("weights", grid(7)[1:-1])
def test_points_between_are_those_of_numpy_rounded_once(weights: tuple[float, float]) -> None:
    """NumPy rounds float64 to float32 and float16 correctly in one step, which torch does not do for float16."""
    for dtype, single in ((torch.float64, np.float64), (torch.float32, np.float32), (torch.float16, np.float16)):
        a, b = random(2, 50_000, dtype=dtype), random(3, 50_000, dtype=dtype)
        wide = [tensor.numpy().astype(np.float64) for tensor in (a, b)]
        expected = (weights[0] * wide[0] + weights[1] * wide[1]).astype(single)
        np.testing.assert_array_equal(between(a, b, weights).numpy(), expected)


def test_float16_and_bfloat16_are_rounded_once_where_torch_rounds_twice() -> None:
    """A little above the middle of two numbers rounds up; by way of float32 it would come to lie in the middle."""
    for dtype, digits in ((torch.float16, 11), (torch.bfloat16, 8)):
        step = 2.0 ** (1 - digits)
        for above, expected in ((2.0**-40, 1 + step), (-(2.0**-40), 1.0), (0.0, 1.0)):
            value = torch.tensor([1 + step / 2 + above, -(1 + step / 2 + above)], dtype=torch.float64)
            assert barrier._rounded(value, dtype).tolist() == [expected, -expected]
    twice = torch.tensor(1 + 2.0**-11 + 2.0**-40, dtype=torch.float64).to(torch.float16)
    assert float(twice) == 1.0, "torch rounds once now: _rounded may go"


@given(st.lists(st.floats(width=64, allow_nan=True), min_size=1, max_size=20))
def test_rounding_to_float16_is_that_of_numpy_for_every_number(values: list[float]) -> None:
    with np.errstate(over="ignore"):
        expected = np.array(values).astype(np.float16)
    found = barrier._rounded(torch.tensor(values, dtype=torch.float64), torch.float16).numpy()
    np.testing.assert_array_equal(found, expected)


def test_infinities_meet_as_numbers_do() -> None:
    a, b = torch.tensor([math.inf, math.inf, 1.0]), torch.tensor([math.inf, -math.inf, math.nan])
    assert [float(value) for value in between(a, b, (0.5, 0.5))[:1]] == [math.inf]
    assert between(a, b, (0.5, 0.5))[1:].isnan().all()


def test_integers_and_truth_values_are_those_of_a() -> None:
    for a, b in ((torch.tensor([1, 5]), torch.tensor([9, 9])), (torch.tensor([True]), torch.tensor([False]))):
        for weights in grid(3):
            assert torch.equal(between(a, b, weights), a)


def test_complex_numbers_are_interpolated() -> None:
    a, b = torch.tensor([1 + 2j]), torch.tensor([3 - 2j])
    assert between(a, b, (0.5, 0.5)).tolist() == [2 + 0j]
    assert between(a, b, (0.5, 0.5)).dtype == torch.complex64


def test_slabs_and_strides_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random(4, 7, 5, 3), random(5, 7, 5, 3)
    whole = between(a, b, (0.3, 0.7))
    monkeypatch.setattr(barrier, "SLAB", 4)
    assert torch.equal(between(a, b, (0.3, 0.7)), whole)
    other = between(a.transpose(0, 2), b.transpose(0, 2).contiguous(), (0.3, 0.7))
    assert torch.equal(other, whole.transpose(0, 2))
    for shape in ((), (0,), (2, 0)):
        assert between(torch.zeros(shape), torch.ones(shape), (0.5, 0.5)).shape == shape


def test_a_state_is_interpolated_tensor_by_tensor_and_neither_end_changes() -> None:
    a = {"weight": random(1, 3, 2), "count": torch.tensor(3), "mean": random(2, 3, dtype=torch.float64)}
    b = {"mean": random(3, 3, dtype=torch.float64), "weight": random(4, 3, 2), "count": torch.tensor(8)}
    before = {name: tensor.clone() for name, tensor in (*a.items(), *((f"b.{n}", t) for n, t in b.items()))}
    found = dict(state_between(a, b, (0.25, 0.75)))
    assert list(found) == ["weight", "count", "mean"]
    np.testing.assert_allclose(found["weight"], 0.25 * a["weight"].numpy() + 0.75 * b["weight"].numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], 0.25 * a["mean"].numpy() + 0.75 * b["mean"].numpy(), rtol=1e-15)
    assert int(found["count"]) == 3
    after = {**a, **{f"b.{name}": tensor for name, tensor in b.items()}}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


# the curve


def rows_of(values: Sequence[float], count: int = 10) -> list[Row]:
    return curve_rows([{"val": {"loss": Value(value, count)}} for value in values])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=15))
def test_a_curve_is_measured_from_its_chord(values: list[float]) -> None:
    rows, alphas = rows_of(values), np.linspace(0, 1, len(values))
    chord = (1 - alphas) * values[0] + alphas * values[-1]
    excess = np.array(values) - chord
    np.testing.assert_allclose([row["alpha"] for row in rows], alphas, atol=1e-15)
    assert [row["value"] for row in rows] == values
    np.testing.assert_allclose([row["chord"] for row in rows], chord, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose([row["excess"] for row in rows], excess, rtol=1e-12, atol=1e-9)
    for row in rows:
        np.testing.assert_allclose(row["barrier"], max(0.0, excess.max()), rtol=1e-9, atol=1e-8)
        middle = max(values) - (values[0] + values[-1]) / 2
        np.testing.assert_allclose(row["barrier_midpoint"], middle, rtol=1e-12, atol=1e-9)
        if len(values) > 2:
            np.testing.assert_allclose(row["barrier_interior"], excess[1:-1].max(), rtol=1e-12, atol=1e-9)
        else:
            assert row["barrier_interior"] is None
        assert (row["status"], row["count"]) == ("ok", 10)
        assert row["barrier"] >= 0.0
    assert rows[0]["excess"] == rows[-1]["excess"] == 0.0


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(2, 20))
def test_a_flat_curve_has_no_barrier_at_all(value: float, count: int) -> None:
    """Exactly: the chord of two equal values is that value at every alpha."""
    for row in rows_of([value] * count):
        assert row["barrier"] == row["barrier_midpoint"] == row["excess"] == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=15))
def test_from_b_to_a_it_is_the_same_curve_in_reverse(values: list[float]) -> None:
    """Exactly, all columns."""
    there, back = rows_of(values), rows_of(values[::-1])
    for row, other in zip(there, reversed(back), strict=True):
        assert {**row, "alpha": None} == {**other, "alpha": None}


def test_a_curve_below_its_chord_has_barrier_zero_and_a_negative_interior() -> None:
    (row, *_) = rows_of([4.0, 1.0, 2.0])
    assert (row["barrier"], row["barrier_interior"], row["barrier_midpoint"]) == (0.0, -2.0, 1.0)


def test_a_value_in_the_middle_that_is_not_finite_leaves_the_barrier_unknown() -> None:
    rows = rows_of([1.0, math.nan, 3.0])
    assert [row["status"] for row in rows] == ["ok", "not_finite", "ok"]
    assert [row.get("value") for row in rows] == [1.0, None, 3.0]
    assert [row.get("chord") for row in rows] == [1.0, None, 3.0]
    assert [row.get("excess") for row in rows] == [0.0, None, 0.0]
    for column in ("barrier", "barrier_interior", "barrier_midpoint"):
        assert [row.get(column) for row in rows] == [None] * 3


@pytest.mark.parametrize("end", [0, -1])
@pytest.mark.parametrize(("bad", "status"), [(math.inf, "not_finite"), (math.nan, "not_finite")])
def test_without_a_value_at_an_end_there_is_no_chord(end: int, bad: float, status: str) -> None:
    values = [1.0, 2.0, 3.0]
    values[end] = bad
    rows = rows_of(values)
    expected = [END_NOT_OK] * 3
    expected[end] = status
    assert [row["status"] for row in rows] == expected
    assert [row.get("value") for row in rows] == [None if value is bad else value for value in values]
    assert all(row.get(name) is None for row in rows for name in ("chord", "excess", "barrier", "barrier_midpoint"))


def test_a_mean_over_nothing_is_empty_everywhere() -> None:
    assert [row["status"] for row in rows_of([math.nan] * 3, count=0)] == ["empty"] * 3


def test_rows_are_ordered_by_split_and_metric_as_the_task_gives_them() -> None:
    values = {"loss": Value(1.0, 1), "error": Value(0.5, 1)}
    points = [{"train": values, "val": {**values, "late": Value(3.0, 2)}}, {"train": values, "val": values}]
    rows = curve_rows(points)
    assert [(row["split"], row["metric"], row["alpha"]) for row in rows] == [
        (split, metric, alpha)
        for split, metric in (
            ("train", "loss"),
            ("train", "error"),
            ("val", "loss"),
            ("val", "error"),
            ("val", "late"),
        )
        for alpha in (0.0, 1.0)
    ]
    assert [row["status"] for row in rows if row["metric"] == "late"] == [END_NOT_OK, "empty"]


# matrices along the line


def test_spectra_are_those_of_the_weights_at_every_point_and_agreement_that_of_the_ends() -> None:
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Conv2d(3, 4, 2))
    a = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    b = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    specs = matrices_of_model(model).inventory.selected((), ())
    with VectorStore(1 << 20) as store:
        along = MatricesAlong(specs, HERE, spectra=True)
        along.compare_with(store)
        for weights in grid(3):
            model.load_state_dict(dict(state_between(a, b, weights)))
            along.look(model, weights[1])
    assert [(row["alpha"], row["parameter"]) for row in along.rows] == [
        (alpha, name) for alpha in (0.0, 0.5, 1.0) for name in ("0.weight", "1.weight")
    ]
    for row in along.rows:
        name, alpha = row["parameter"], row["alpha"]
        matrix = ((1 - alpha) * a[name].double() + alpha * b[name].double()).flatten(1).numpy()
        expected = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(row["singular_values"], expected, atol=1e-5 * expected[0])
    for row in along.agreement:
        first, second = (np.linalg.svd(state[row["parameter"]].double().flatten(1).numpy()) for state in (a, b))
        scores = [abs(first[0][:, i] @ second[0][:, i]) * abs(first[2][i] @ second[2][i]) for i in range(len(first[1]))]
        assert row["score"] == pytest.approx(np.mean(scores), abs=1e-5)
        assert (row["rows"], row["cols"]) == {"0.weight": (5, 6), "1.weight": (4, 12)}[row["parameter"]]


def test_matrices_that_nobody_asks_for_are_not_factorized(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 3)
    specs = matrices_of_model(model).inventory.selected((), ())
    monkeypatch.setattr(barrier, "visit", lambda *_, **__: pytest.fail("a matrix was looked at"))
    MatricesAlong(specs, HERE, spectra=False).look(model, 0.0)
    with VectorStore(1) as store:
        along = MatricesAlong(specs, HERE, spectra=False)
        along.compare_with(store)
        along.look(model, 0.5)
        MatricesAlong({}, HERE, spectra=True).look(model, 0.5)
    assert (along.rows, along.agreement) == ([], [])


# the summary


def pair_rows(values: Sequence[float], **names: object) -> list[Row]:
    identity = {"run_a": "runs/a", "checkpoint_a": "step_1.pt", "step_a": 1, "run_b": "runs/b", **names}
    return [{**identity, **row} for row in rows_of(values)]


def test_the_summary_has_the_ends_the_middle_and_the_largest_matrices_first() -> None:
    summary = BarrierSummary()
    agreement = [
        {"depth": 0, "parameter": "small", "rows": 2, "cols": 2, "score": 0.5, "min_gap": 0.1, "status": "ok"},
        {"depth": 1, "parameter": "zero", "rows": 9, "cols": 9, "status": "all_zero"},
        {"depth": 2, "parameter": "large", "rows": 3, "cols": 2, "score": 0.25, "min_gap": 0.1, "status": "ok"},
    ]
    summary.add(pair_rows([1.0, 2.0, 5.0, 3.0], checkpoint_b="final.pt"), agreement)
    (pair,) = summary.pairs
    (curve,) = pair.curves
    assert (curve.at_a, curve.at_middle, curve.at_b, curve.middle) == (1.0, 2.0, 3.0, 1 / 3)
    assert curve.barrier == pytest.approx(5.0 - 7 / 3)
    assert curve.barrier_midpoint == 3.0
    assert [row["parameter"] for row in pair.agreement] == ["large", "small"]
    assert pair.mean_agreement == pytest.approx(0.375)
    assert pair.labels == ("runs/a@1", "runs/b/final.pt")
    assert (summary.rows, dict(summary.statuses)) == (4, {"ok": 4})


@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({"run_b": "runs/b", "checkpoint_b": "step_7.pt", "step_b": 7}, "runs/b@7"),
        ({"run_b": ".", "checkpoint_b": "model.pt", "step_b": None}, "model.pt"),
        ({"run_b": "models/gpt2", "checkpoint_b": "gpt2", "step_b": None}, "models/gpt2"),
        ({"run_b": "absent", "checkpoint_b": None, "step_b": None}, "absent"),
    ],
)
def test_a_pair_is_named_by_paths_that_lead_to_it(names: dict[str, object], label: str) -> None:
    summary = BarrierSummary()
    summary.add(pair_rows([1.0, 2.0], **names))
    assert summary.pairs[0].labels[1] == label


def test_a_pair_that_could_not_be_used_is_a_pair_without_curves() -> None:
    summary = BarrierSummary()
    summary.add([{"run_a": "x", "run_b": "y", "status": "no_input"}])
    assert summary.pairs[0].labels == ("x", "y")
    assert summary.as_json()["pairs"][0] == {
        "run_a": "x",
        "checkpoint_a": None,
        "step_a": None,
        "run_b": "y",
        "checkpoint_b": None,
        "step_b": None,
        "status": "no_input",
        "curves": [],
        "agreement": None,
        "matrices": [],
    }
