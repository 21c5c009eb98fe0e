"""The bounds hold for every perturbation that they allow."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectra_cli.spectrum import bounds

values = arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 10)).map(lambda v: np.sort(v)[::-1])
signs = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(values, st.floats(0, 5), signs)
def test_no_allowed_square_is_farther_than_the_bound(
    s: np.ndarray, error: float, generator: np.random.Generator
) -> None:
    errors = bounds.singular_value_errors(s[None], np.array([error]))[0]
    for _ in range(20):
        true_squares = np.maximum(s**2 + error * generator.uniform(-1, 1, len(s)), 0)
        assert (np.abs(np.sqrt(true_squares) - s) <= errors * (1 + 1e-9) + 1e-12).all()


def test_the_bound_is_tight_where_values_are_large_and_a_square_root_where_they_vanish() -> None:
    errors = bounds.singular_value_errors(np.array([[1.0, 0.0]]), np.array([1e-10]))[0]
    np.testing.assert_allclose(errors, [0.5e-10, 1e-5], rtol=1e-4)


@given(
    arrays(np.float64, st.integers(2, 30), elements=st.floats(1e-9, 1)).map(lambda v: np.sort(v)[::-1]),
    st.floats(1e-12, 1e-5),
    signs,
)
def test_effective_rank_stays_within_its_bound(s: np.ndarray, size: float, generator: np.random.Generator) -> None:
    """Also where values are smaller than their errors; second-order terms are within a per mille of the bound."""
    errors = size * s[0] * generator.uniform(0, 1, len(s))
    bound = bounds.effective_rank_error(s[None], errors[None])[0]

    def effective_rank(v: np.ndarray) -> float:
        p = v[v > 0] / v.sum()
        return float(np.exp(-(p * np.log(p)).sum()))

    for direction in (*generator.uniform(-1, 1, (20, len(s))), np.ones(len(s)), -np.ones(len(s))):
        moved = np.maximum(s + errors * direction, 0)
        assert abs(effective_rank(moved) / effective_rank(s) - 1) <= bound * 1.001 + 1e-12


@pytest.mark.parametrize(("long_side", "slab"), [(10, 100), (5000, 128), (4096, 4096)])
def test_summation_error_covers_sums_in_any_order(long_side: int, slab: int) -> None:
    """Against exact sums of hard cases: all terms equal and not representable."""
    term = float(np.float32(0.1)) ** 2
    exact = Fraction(term) * long_side
    total = 0.0
    for start in range(0, long_side, slab):
        inner = 0.0
        for _ in range(start, min(start + slab, long_side)):
            inner += term
        total += inner
    assert abs(Fraction(total) - exact) <= Fraction(bounds.summation_error(long_side)) * exact
    assert bounds.summation_error(long_side) < 1e-11
