"""Learning rates equal torch's own schedulers; the steps that are saved are those a user expects."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.tasks.base import Recipe
from spectra_cli.tasks.schedules import default_interval, depends_on_length, learning_rate, saved_steps

TOTAL = 40


def rates_of(recipe: Recipe, total: int = TOTAL) -> list[float]:
    return [learning_rate(recipe, step, total) for step in range(total)]


def torchs_rates(make_scheduler: object, lr: float, count: int) -> list[float]:
    """Learning rates of the updates that a scheduler of torch gives."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make_scheduler(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_a_constant_rate_is_constant() -> None:
    assert rates_of(Recipe("adamw", lr=0.3)) == [0.3] * TOTAL


def test_the_warm_up_grows_linearly_from_zero() -> None:
    recipe = Recipe("adamw", lr=0.5, warmup_steps=5)
    assert rates_of(recipe)[:7] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_a_cosine_is_torchs() -> None:
    recipe = Recipe("adamw", lr=0.3, schedule="cosine", final_fraction=0.1)
    schedulers = torch.optim.lr_scheduler
    expected = torchs_rates(lambda o: schedulers.CosineAnnealingLR(o, TOTAL, eta_min=0.03), 0.3, TOTAL)
    assert rates_of(recipe) == pytest.approx(expected, rel=1e-9)


def test_a_cosine_after_a_warm_up_covers_the_rest() -> None:
    recipe = Recipe("adamw", lr=0.3, schedule="cosine", warmup_steps=10)
    rates = rates_of(recipe, 50)
    assert rates[10] == pytest.approx(0.3)
    assert rates[30] == pytest.approx(0.15)  # half of the way
    assert rates[49] == pytest.approx(0.15 * (1 + math.cos(math.pi * 39 / 40)))
    assert learning_rate(recipe, 50, 50) == pytest.approx(0.0, abs=1e-12)


def test_steps_are_torchs_milestones() -> None:
    recipe = Recipe("sgd", lr=0.1, schedule="step", milestones=(0.25, 0.5), gamma=0.2)
    schedulers = torch.optim.lr_scheduler
    expected = torchs_rates(lambda o: schedulers.MultiStepLR(o, [10, 20], gamma=0.2), 0.1, TOTAL)
    assert rates_of(recipe) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("fraction", "total"), [(0.1, 30), (0.3, 10), (0.7, 1000), (1 / 3, 3)])
def test_a_milestone_is_met_at_its_step_despite_rounding(fraction: float, total: int) -> None:
    """0.1 * 30 is a little more than 3."""
    recipe = Recipe("sgd", lr=1.0, schedule="step", milestones=(fraction,), gamma=0.5)
    at = round(fraction * total)
    assert [learning_rate(recipe, step, total) for step in (at - 1, at)] == [1.0, 0.5]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_what_depends_on_the_length_says_so(schedule: str) -> None:
    recipe = Recipe("adamw", lr=0.3, schedule=schedule, milestones=(0.5,))  # type: ignore[arg-type]
    differs = any(learning_rate(recipe, step, 40) != learning_rate(recipe, step, 80) for step in range(40))
    assert depends_on_length(recipe) == differs


@given(st.integers(min_value=1, max_value=10**7))
def test_the_default_interval_is_the_least_round_number_of_a_twentieth(total: int) -> None:
    interval = default_interval(total)
    smaller = {"1": interval // 2, "2": interval // 2, "5": interval * 2 // 5}[str(interval)[0]]
    assert set(str(interval)[1:]) <= {"0"}
    assert interval * 20 >= total
    assert smaller * 20 < total


def test_the_first_and_the_last_step_and_five_of_the_first_epoch_are_saved() -> None:
    assert saved_steps(1000, 100) == (0, 20, 40, 50, 60, 80, 100, *range(150, 1001, 50))


def test_fewer_than_five_where_the_first_epoch_is_shorter() -> None:
    assert saved_steps(1000, 1, every=500) == (0, 1, 500, 1000)
    assert saved_steps(1000, 3, every=500) == (0, 1, 2, 3, 500, 1000)


def test_the_last_step_is_saved_whatever_the_interval() -> None:
    assert saved_steps(17, 1, every=5) == (0, 1, 5, 10, 15, 17)


def test_a_training_shorter_than_an_epoch_ends_where_it_ends() -> None:
    assert saved_steps(7, 10, every=100) == (0, 2, 4, 6, 7)


def test_log_spaced_steps_grow_by_a_constant_factor() -> None:
    assert saved_steps(1000, 100, log_spaced=4) == (0, 1, 10, 100, 1000)
    assert saved_steps(1, 1, log_spaced=4) == (0, 1)


def test_a_step_asked_for_is_saved() -> None:
    assert 137 in saved_steps(1000, 100, also=[137])


@given(
    st.integers(min_value=2, max_value=3000),
    st.integers(min_value=1, max_value=400),
    st.data(),
)
def test_the_steps_of_a_branch_are_those_of_its_trunk(total: int, epoch: int, data: st.DataObject) -> None:
    """So that the two can be compared step by step."""
    spacing = data.draw(st.sampled_from([{}, {"every": 7}, {"log_spaced": 9}]))
    first = data.draw(st.integers(min_value=1, max_value=total - 1))
    trunk, branch = saved_steps(total, epoch, **spacing), saved_steps(total, epoch, first=first, **spacing)
    assert branch == (first, *(step for step in trunk if step > first))
    assert (trunk[0], trunk[-1]) == (0, total)
