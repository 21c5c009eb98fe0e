"""Every statistic against its formula written out in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.spectrum import statistics

spectra = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40).map(lambda values: sorted(values, reverse=True))


def plain_entropy(values: list[float]) -> float:
    total = math.fsum(values)
    return -math.fsum(value / total * math.log(value / total) for value in values if value > 0)


@given(spectra)
def test_formulas(values: list[float]) -> None:
    count = len(values)
    summary = statistics.summarize(values, rows=count, cols=3 * count, eps=2.0**-23)
    entropy = plain_entropy(values)
    assert summary.spectral_norm == values[0]
    assert summary.frobenius_norm == pytest.approx(math.sqrt(math.fsum(v * v for v in values)), rel=1e-12)
    assert summary.nuclear_norm == pytest.approx(math.fsum(values), rel=1e-12)
    assert summary.entropy == pytest.approx(entropy, rel=1e-9, abs=1e-12)
    assert summary.entropy_normalized == pytest.approx(entropy / count, rel=1e-9, abs=1e-12)
    assert summary.effective_rank == pytest.approx(math.exp(entropy), rel=1e-9)
    assert summary.effective_rank_normalized == pytest.approx(math.exp(entropy) / count, rel=1e-9)
    assert summary.stable_rank == pytest.approx(math.fsum(v * v for v in values) / values[0] ** 2, rel=1e-12)
    assert summary.numerical_rank == sum(v > values[0] * 3 * count * 2.0**-23 for v in values)
    assert summary.condition_number == pytest.approx(values[0] / values[-1], rel=1e-12)


@given(spectra)
def test_rank_90_is_the_least_number_of_values_that_reach_nine_tenths(values: list[float]) -> None:
    k = statistics.rank_90(values)
    goal = 0.9 * math.fsum(values)
    assert math.fsum(values[:k]) >= goal * (1 - 1e-8)
    assert math.fsum(values[: k - 1]) < goal * (1 + 1e-8)


@given(spectra)
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(values: list[float]) -> None:
    count = len(values)
    differences = math.fsum(abs(a - b) for a in values for b in values)
    assert statistics.gini(values) == pytest.approx(differences / (2 * count * math.fsum(values)), rel=1e-9, abs=1e-12)


@given(spectra, st.floats(1e-250, 1e250))
def test_ratios_do_not_depend_on_scale(values: list[float], scale: float) -> None:
    """Extreme scales neither overflow nor vanish."""
    scaled = [value * scale for value in values]
    for ratio in (statistics.effective_rank, statistics.stable_rank, statistics.gini, statistics.rank_90):
        assert ratio(scaled) == pytest.approx(ratio(values), rel=1e-9, abs=1e-12)
    assert statistics.frobenius_norm(scaled) == pytest.approx(scale * statistics.frobenius_norm(values), rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_equal_values_have_full_rank_in_every_sense(count: int) -> None:
    summary = statistics.summarize(np.full(count, 0.3), rows=count, cols=count, eps=2.0**-52)
    assert summary.effective_rank == pytest.approx(count)
    assert summary.effective_rank_normalized == pytest.approx(1)
    assert summary.stable_rank == pytest.approx(count)
    assert summary.gini == pytest.approx(0, abs=1e-15)
    assert summary.condition_number == 1
    assert summary.numerical_rank == count
    assert summary.rank_90 == math.ceil(0.9 * count)


def test_a_single_value_has_rank_one_in_every_sense() -> None:
    summary = statistics.summarize([2.0, 0.0, 0.0, 0.0], rows=4, cols=9, eps=2.0**-23)
    assert (summary.entropy, summary.effective_rank, summary.stable_rank) == (0, 1, 1)
    assert (summary.rank_90, summary.numerical_rank) == (1, 1)
    assert summary.condition_number == math.inf
    assert summary.gini == pytest.approx(3 / 4)


def test_a_zero_matrix_has_norms_and_counts_and_nothing_else() -> None:
    summary = statistics.summarize([0.0, 0.0], rows=2, cols=2, eps=2.0**-23)
    assert (summary.spectral_norm, summary.frobenius_norm, summary.nuclear_norm) == (0, 0, 0)
    assert (summary.rank_90, summary.numerical_rank) == (0, 0)
    for ratio in (summary.entropy, summary.effective_rank, summary.stable_rank, summary.condition_number, summary.gini):
        assert math.isnan(ratio)
