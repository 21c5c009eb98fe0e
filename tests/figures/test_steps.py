"""Axes of steps: cells between uneven places, ticks that are whole numbers, scales with step 0."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from spectra_cli.figures.canvas.steps import WholeNumbers, cell_edges, shown, step_axis, threshold

NAN = float("nan")


def symlog(x: float, linear: float) -> float:
    """Place of x on an axis that is linear up to `linear`: a decade is as wide as the linear part times 1 - 1/10."""
    stretch = 1 / (1 - 1 / 10)
    return x * stretch if abs(x) <= linear else np.sign(x) * linear * (stretch + np.log10(abs(x) / linear))


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([0, 10, 40], [-5, 5, 25, 55]),
        ([3, 4], [2.5, 3.5, 4.5]),
        ([7], [6.5, 7.5]),
    ],
)
def test_linear_edges_are_halfway(x: list[float], expected: list[float]) -> None:
    assert cell_edges(np.array(x, float), "linear").tolist() == expected


def test_logarithmic_edges_are_geometric_means() -> None:
    x = [1.0, 100.0, 1000.0]
    expected = [1 / 10, 10, 10**2.5, 1000 * 10**0.5]
    np.testing.assert_allclose(cell_edges(np.array(x), "log"), expected)
    np.testing.assert_allclose(cell_edges(np.array([10.0]), "log"), [10**0.5, 10**1.5])


@pytest.mark.parametrize("x", [[0, 1, 2, 4, 1000], [0, 50, 60], [-5, 0, 5, 50], [2, 3]])
def test_symlog_edges_are_halfway_on_the_axis(x: list[float]) -> None:
    """Oracle: the formula of the scale, linear up to the smallest positive place."""
    linear = min(value for value in x if value > 0)
    edges = [symlog(edge, linear) for edge in cell_edges(np.array(x, float), "symlog")]
    places = [symlog(value, linear) for value in x]
    np.testing.assert_allclose(edges[1:-1], [(low + high) / 2 for low, high in pairwise(places)])
    np.testing.assert_allclose(edges[0], places[0] - (places[1] - places[0]) / 2)
    np.testing.assert_allclose(edges[-1], places[-1] + (places[-1] - places[-2]) / 2)


def test_what_a_scale_can_show() -> None:
    x = np.array([-1.0, 0.0, 2.0, NAN])
    assert shown(x, "linear").tolist() == [True, True, True, False]
    assert shown(x, "symlog").tolist() == [True, True, True, False]
    assert shown(x, "log").tolist() == [False, False, True, False]
    assert threshold(x[:3]) == 2.0
    assert threshold(np.array([-1.0, 0.0])) == 1.0


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([0, 5000, 10000], ["0", "5000", "10000"]),
        ([0, 50_000, 100_000, 150_000], ["0", "50k", "100k", "150k"]),
        ([1, 10, 1000, 100_000], ["1", "10", "1k", "100k"]),
        ([0, 500_000, 1_000_000, 1_500_000], ["0", "500k", "1M", "1.5M"]),
        ([2e9], ["2G"]),
        ([-200_000, 0], ["-200k", "0"]),
        ([0.5, 1.0], ["0.5", "1"]),
        ([], []),
    ],
)
def test_ticks_are_read_at_a_glance(ticks: list[float], expected: list[str]) -> None:
    assert WholeNumbers().format_ticks(ticks) == expected


def drawn(x: list[float], scale: Any, label: str = "step", width: float = 4.8) -> tuple[Any, int]:
    figure = Figure(figsize=(width, 3), layout="constrained")
    axis = figure.subplots()
    kept = [value for value in x if value > 0 or scale != "log"]
    axis.plot(kept, [0.5] * len(kept))
    hidden = step_axis(axis, x, label, scale)
    figure.draw_without_rendering()
    return axis, hidden


def visible_ticks(axis: Any) -> list[Any]:
    low, high = axis.get_xlim()
    return [text for text in axis.get_xticklabels() if text.get_text() and low <= text.get_position()[0] <= high]


LONG = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 143_000, 1000)]


@pytest.mark.parametrize("scale", ["linear", "log", "symlog"])
@pytest.mark.parametrize(
    ("x", "width"),
    [
        ([0, 1], 2.4),
        ([0, 500, 5000], 2.4),
        (LONG, 2.4),
        (LONG, 4.8),
        ([100, 200], 2.4),
        ([0, 3, 2_000_000], 2.4),
        ([1_000_000, 1_000_001], 4.8),
    ],
)
def test_ticks_are_two_or_more_whole_numbers_that_do_not_touch(x: list[float], width: float, scale: Any) -> None:
    axis, hidden = drawn(x, scale, width=width)
    ticks = visible_ticks(axis)
    assert len(ticks) >= (1 if scale == "log" and len([value for value in x if value > 0]) == 1 else 2)
    assert all(float(tick.get_position()[0]).is_integer() for tick in ticks)
    boxes = [tick.get_window_extent() for tick in ticks]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert len({tick.get_text() for tick in ticks}) == len(ticks)
    assert hidden == (scale == "log" and 0 in x)
    assert axis.get_xscale() == scale


def test_a_symlog_axis_names_0_and_goes_on_in_powers_of_ten() -> None:
    axis, hidden = drawn(LONG, "symlog")
    assert [text.get_text() for text in visible_ticks(axis)] == ["0", "1", "10", "100", "1k", "10k", "100k"]
    assert hidden == 0


def test_a_symlog_axis_goes_both_ways() -> None:
    axis, _ = drawn([-100, -1, 0, 1, 100], "symlog")
    found = [tick.get_position()[0] for tick in visible_ticks(axis)]
    assert found == [-value for value in reversed(found)]
    assert 0 in found


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("step", "step (optimizer steps)"),
        ("epoch", "epoch (passes over the training data)"),
        ("checkpoint", "checkpoint (its place in the run)"),
        ("$wd$", r"\$wd\$"),
    ],
)
def test_an_axis_says_its_unit(label: str, expected: str) -> None:
    assert drawn([0, 1], "linear", label)[0].get_xlabel() == expected


def test_fractions_of_an_epoch_have_ticks_between() -> None:
    axis, _ = drawn([0.0, 0.5, 1.0], "linear", "epoch")
    assert any(not float(tick.get_position()[0]).is_integer() for tick in visible_ticks(axis))


def test_an_axis_with_nothing_to_show_is_drawn() -> None:
    """All steps are 0 on a logarithmic axis: said by the number of what is hidden."""
    axis, hidden = drawn([0], "log")
    assert hidden == 1
    assert axis.get_xlabel()
