"""Means over a split are exact whatever its batches are; statistics of batch normalization are those of the split."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Metric
from spectra_cli.tasks.evaluation import (
    Value,
    device_of,
    evaluate,
    evaluating,
    has_batch_norm,
    reestimate_batch_norm,
)


class Rows:
    """Rows of numbers cut into batches; the metric is what a function makes of each."""

    splits = ("train", "val")

    def __init__(self, batches: Sequence[Tensor], metrics: Callable[[Tensor], Any] | None = None) -> None:
        self._batches = batches
        self._metrics = metrics
        self.modes: list[bool] = []

    def model(self) -> nn.Module:
        return nn.Identity()

    def batches(self, split: str) -> Iterator[Tensor]:  # noqa: ARG002 - both splits are the same
        yield from self._batches

    def metrics(self, model: nn.Module, batch: Tensor) -> Any:
        self.modes.append(model.training)
        assert not torch.is_grad_enabled()
        if self._metrics is not None:
            return self._metrics(model(batch))
        return {"loss": Metric(model(batch).double().sum(), len(batch))}


def cut(values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return list(torch.split(values, list(sizes)))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_a_mean_does_not_depend_on_the_batches(sizes: list[int], seed: int) -> None:
    """Also the last batch, which is smaller, counts by its examples; the sum of float64 totals is exact."""
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=sum(sizes)) * 10.0 ** (seed % 9))
    expected = math.fsum(values.tolist()) / len(values)
    one_each = evaluate(Rows(cut(values, [1] * len(values))), nn.Identity(), "val")["loss"]
    assert one_each == Value(expected, len(values))
    batched = evaluate(Rows(cut(values, sizes)), nn.Identity(), "val")["loss"]
    assert batched.value == pytest.approx(expected, rel=1e-14, abs=1e-14 * float(values.abs().sum()))
    assert batched.count == len(values)


def test_a_rate_divides_by_what_it_counts_and_not_by_examples() -> None:
    """Three errors in two words and one in eight characters are four in ten."""
    task = Rows([torch.tensor([3.0, 2.0]), torch.tensor([1.0, 8.0])], lambda row: {"cer": Metric(row[0], int(row[1]))})
    assert evaluate(task, nn.Identity(), "val")["cer"] == Value(0.4, 10)


def test_a_perplexity_is_the_exponential_of_the_mean_and_not_the_mean_of_exponentials() -> None:
    task = Rows(
        [torch.tensor([1.0, 2.0]), torch.tensor([6.0])],
        lambda row: {"perplexity": Metric(row.sum(), len(row), scale="exp"), "loss": Metric(row.sum(), len(row))},
    )
    found = evaluate(task, nn.Identity(), "val")
    assert found["perplexity"].value == pytest.approx(math.exp(3.0), rel=1e-15)
    assert found["loss"].value == 3.0


@pytest.mark.parametrize(
    ("totals", "scale", "value"),
    [
        ([1.0, math.nan], "mean", math.nan),
        ([1.0, math.inf], "mean", math.inf),
        ([math.inf, -math.inf], "mean", math.nan),
        ([1e308, 1e308], "mean", math.inf),
        ([2000.0, 1.0], "exp", math.inf),
        ([-math.inf, 0.0], "mean", -math.inf),
    ],
)
def test_what_is_not_finite_is_a_value_with_a_status(totals: list[float], scale: str, value: float) -> None:
    task = Rows([torch.tensor(total) for total in totals], lambda row: {"x": Metric(float(row.double()), 1, scale)})
    task = Rows(
        [torch.tensor([total], dtype=torch.float64) for total in totals], lambda row: {"x": Metric(row, 1, scale)}
    )
    found = evaluate(task, nn.Identity(), "val")["x"]
    assert found.status == "not_finite"
    assert found.value == value or (math.isnan(found.value) and math.isnan(value))


def test_a_mean_over_nothing_is_empty() -> None:
    found = evaluate(Rows([torch.ones(2)], lambda _: {"x": Metric(0.0, 0)}), nn.Identity(), "val")["x"]
    assert (found.status, found.count) == ("empty", 0)
    assert math.isnan(found.value)


def test_a_metric_that_only_some_batches_have_is_a_mean_over_those() -> None:
    task = Rows(
        [torch.tensor([2.0]), torch.tensor([4.0])],
        lambda row: {"all": Metric(row, 1)} | ({"large": Metric(row, 1)} if row > 3 else {}),
    )
    found = evaluate(task, nn.Identity(), "val")
    assert (found["all"], found["large"]) == (Value(3.0, 2), Value(4.0, 1))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (lambda _: {"loss": 3.0}, "metrics() gives 'loss' as float"),
        (lambda _: {"loss": torch.ones(1)}, "metrics() gives 'loss' as Tensor"),
        (lambda _: [1.0], "metrics() gives a list"),
        (lambda _: None, "metrics() gives a NoneType"),
        (lambda _: {3: Metric(1.0, 1)}, "metrics() gives a metric the name 3"),
        (lambda _: {"loss": Metric(torch.ones(2), 1)}, "a total or a count that is no number"),
        (lambda _: {"loss": Metric("3,5", 1)}, "a total or a count that is no number"),
        (lambda _: {"loss": Metric(1.0, None)}, "a total or a count that is no number"),
        (lambda _: {"loss": Metric(1.0, 0.5)}, "'loss' with a count of 0.5"),
        (lambda _: {"loss": Metric(1.0, -1)}, "'loss' with a count of -1"),
        (lambda _: {"loss": Metric(1.0, math.nan)}, "'loss' with a count of nan"),
        (lambda _: {"loss": Metric(1.0, math.inf)}, "'loss' with a count of inf"),
        (lambda _: {"loss": Metric(1.0, 1, scale="log")}, "'loss' the scale 'log'"),
    ],
)
def test_what_is_no_metric_is_an_error_that_names_it(metrics: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(Rows([torch.ones(2)], metrics), nn.Identity(), "val")
    assert said in str(caught.value)


def test_a_split_without_a_batch_is_an_error() -> None:
    with pytest.raises(InputError, match="the split 'val' has no batch"):
        evaluate(Rows([]), nn.Identity(), "val")
    with pytest.raises(InputError, match="the split 'train' has no batch"):
        reestimate_batch_norm(Rows([]), nn.BatchNorm1d(2))


def test_a_model_is_evaluated_in_evaluation_mode_and_every_module_gets_its_own_back() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model.train()
    model[2].eval()
    task = Rows([torch.ones(4, 3)])
    evaluate(task, model, "val")
    assert task.modes == [False]
    assert [module.training for module in model.modules()] == [True, True, True, False]
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, True, True, False]


class Drawn(Rows):
    """Batches and metrics that draw from torch's global generator."""

    def batches(self, split: str) -> Iterator[Tensor]:
        for batch in super().batches(split):
            yield batch + torch.randn(batch.shape)


def test_what_batches_and_metrics_draw_does_not_depend_on_what_was_drawn_before() -> None:
    task = Drawn([torch.ones(4, 3)], lambda row: {"x": Metric((row * torch.rand(row.shape)).sum(), len(row))})
    found, estimated = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before, layer = torch.get_rng_state(), nn.BatchNorm1d(3)
        found.append(evaluate(task, nn.Identity(), "val")["x"])
        reestimate_batch_norm(task, layer)
        assert layer.running_mean is not None
        estimated.append(layer.running_mean.tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert estimated[0] == estimated[1]
    assert found[0].value != 3.0
    assert min(abs(mean - 1.0) for mean in estimated[0]) > 0


def test_where_a_model_is_follows_from_its_parameters_or_buffers() -> None:
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")) == torch.device("meta")
    assert device_of(nn.Identity()) == torch.device("cpu")


# batch normalization


class Convolutional(nn.Module):
    """Two normalized convolutions with dropout, then a normalized linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Linear(64, 5), nn.BatchNorm1d(5))

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(images))
        return output


def convolutional(seed: int = 0) -> Convolutional:
    torch.manual_seed(seed)
    return Convolutional()


def images(count: int, sizes: Sequence[int]) -> list[Tensor]:
    return cut(torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)), sizes)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if "running" in name}


def test_reestimated_statistics_are_those_of_update_bn_with_an_uneven_last_batch() -> None:
    batches = images(11, [4, 4, 3])
    ours, theirs = convolutional(), convolutional()
    assert reestimate_batch_norm(Rows(batches), ours)
    update_bn(batches, theirs)
    for name, expected in statistics(theirs).items():
        torch.testing.assert_close(statistics(ours)[name], expected, rtol=1e-6, atol=1e-7)


def test_the_statistics_of_one_batch_are_its_mean_and_unbiased_variance() -> None:
    values = torch.randn(7, 3, dtype=torch.float64)
    layer = nn.BatchNorm1d(3, dtype=torch.float64)
    layer(values * 100)  # what stood there before does not matter
    reestimate_batch_norm(Rows([values]), layer)
    np.testing.assert_allclose(layer.running_mean, values.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, values.numpy().var(axis=0, ddof=1), rtol=1e-12)


def test_reestimation_starts_anew_and_leaves_settings_modes_and_weights() -> None:
    task, model = Rows(images(8, [5, 3])), convolutional()
    model.train()
    model.head.eval()
    model.body[1].momentum = 0.3
    weights = copy.deepcopy(dict(model.named_parameters()))
    modes = [module.training for module in model.modules()]
    reestimate_batch_norm(task, model)
    first = copy.deepcopy(statistics(model))
    reestimate_batch_norm(task, model)
    assert all(torch.equal(first[name], buffer) for name, buffer in statistics(model).items())
    assert [module.training for module in model.modules()] == modes
    assert (model.body[1].momentum, model.body[4].momentum) == (0.3, 0.1)
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_settings_are_given_back_where_the_data_raise() -> None:
    model = convolutional()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(Rows([torch.ones(2, 3, 4)]), model)
    assert [layer.momentum for layer in (model.body[1], model.head[1])] == [0.1, 0.1]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_other_layers_stay_in_evaluation_mode() -> None:
    """Dropout in training mode would change the statistics."""
    values = torch.randn(6, 3)
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    reestimate_batch_norm(Rows([values]), model)
    torch.testing.assert_close(model[1].running_mean, values.mean(dim=0))


def test_a_last_batch_of_one_example_is_passed_over_where_it_has_no_variance() -> None:
    """There torch raises; the convolutional layers, with many positions, take it into account."""
    batches = images(9, [4, 4, 1])
    model, without = convolutional(), convolutional()
    reestimate_batch_norm(Rows(batches), model)
    reestimate_batch_norm(Rows(batches[:2]), without)
    assert torch.equal(model.head[1].running_var, without.head[1].running_var)
    assert not torch.equal(model.body[1].running_var, without.body[1].running_var)
    assert all(bool(buffer.isfinite().all()) for buffer in statistics(model).values())
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        update_bn(batches, without)


def test_batches_of_one_example_only_are_an_error_that_says_so() -> None:
    with pytest.raises(InputError, match="batch normalization has one value per channel"):
        reestimate_batch_norm(Rows(images(3, [1, 1, 1])), convolutional())


@pytest.mark.parametrize("estimates", [False, True])
def test_a_layer_without_running_statistics_is_named_where_a_batch_of_one_comes(estimates: bool) -> None:
    """Both in a model that has no others, and where those of others are estimated."""
    first = nn.BatchNorm1d(3) if estimates else nn.Linear(3, 3)
    model = nn.Sequential(first, nn.ReLU(), nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)))
    task = Rows(cut(torch.randn(5, 3), [4, 1]))
    run = reestimate_batch_norm if estimates else partial(evaluate, split="val")
    with pytest.raises(InputError, match=r"layer '2\.0' \(BatchNorm1d\) cannot normalize a batch of one.*larger"):
        run(task, model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_layers_that_can_normalize_a_batch_of_one_do() -> None:
    """Those with running statistics, and those with many positions: nothing is refused that torch takes."""
    for layer in (nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False)):
        found = evaluate(Rows(images(1, [1])), layer, "val")["loss"]
        expected = layer.eval()(images(1, [1])[0]).double().sum().item()
        assert found.value == pytest.approx(expected, abs=1e-12)


def test_models_without_running_statistics_are_left_alone() -> None:
    task = Rows([torch.ones(3, 2)])
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2)):
        assert not has_batch_norm(model)
        assert not reestimate_batch_norm(task, model)
    assert has_batch_norm(convolutional())
    assert task.modes == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "gives nothing"),
        ({"loss": Metric(1.0, 10**30)}, "a count of 1e"),
        ({"loss": Metric(10**400, 1)}, "is no number"),
        ({"loss": Metric(1.0, 1, [])}, "the scale"),  # type: ignore[arg-type]  # as a user may
    ],
)
def test_metrics_that_are_none_or_beyond_a_table_are_told(metrics: dict[str, Metric], said: str) -> None:
    with pytest.raises(InputError, match=rf"metrics\(\) gives.*{said}|metrics\(\) {said}"):
        evaluate(Rows([torch.ones(2, 1)], lambda _: metrics), nn.Identity(), "train")
