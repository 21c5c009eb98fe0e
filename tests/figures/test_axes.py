"""What is drawn can be read back from the figure: cells, lines, bands, colours, legends and where they stand."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_rgb

from spectra_cli.errors import UsageError
from spectra_cli.figures.canvas import axes
from spectra_cli.figures.canvas.heatmaps import COLOURS, index_ticks
from spectra_cli.figures.canvas.indexlines import index_map
from spectra_cli.figures.rows.series import Curve

NAN = float("nan")
Array = np.ndarray[Any, Any]


def luminance(colours: Any) -> Array:
    """Relative luminance of sRGB colours (WCAG 2.2): what is left of them in greyscale."""
    rgb = np.asarray(colours, float)[..., :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])


def contrast_with_white(colours: Any) -> Array:
    return np.asarray(1.05 / (luminance(colours) + 0.05))


def curve(label: str, *y: float, x: Any = None, deviation: Any = None) -> Curve:
    places = np.arange(len(y), dtype=float) if x is None else np.asarray(x, float)
    return Curve(label, places, np.asarray(y, float), None if deviation is None else np.asarray(deviation, float))


def lines_of(axis: Any) -> LineCollection:
    (found,) = [each for each in axis.collections if isinstance(each, LineCollection)]
    return found


# Colours


@pytest.mark.parametrize("colours", [mpl.colormaps[COLOURS], index_map()])
def test_colour_maps_are_told_apart_in_greyscale(colours: Any) -> None:
    """Luminance rises all the way, by steps that a printer shows."""
    found = luminance(colours(np.linspace(0, 1, 64)))
    assert (np.diff(found) > 0).all()
    assert found[-1] - found[0] > 0.4


def test_lines_of_every_index_are_seen_on_white() -> None:
    """Contrast as of WCAG 2.2 for a large object would be 3; thin lightest lines have half of that at least."""
    assert contrast_with_white(index_map()(np.linspace(0, 1, 64))).min() > 1.5


def test_curves_are_told_apart_without_colour() -> None:
    """No two of the first 20 share dash and marker, and neighbours share neither."""
    _, (axis,) = axes.panels(1)
    axes.curves(axis, [curve(f"c{number}", 0.0, float(number)) for number in range(20)], "linear", "linear")
    looks = [(str(line._unscaled_dash_pattern), line.get_marker()) for line in axis.lines]
    assert len(set(looks)) == 20
    assert all(one[0] != two[0] and one[1] != two[1] for one, two in pairwise(looks))


def test_colours_of_curves_are_those_of_okabe_and_ito() -> None:
    """But for the yellow, which nobody sees on white; each has contrast enough."""
    published = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}
    _, (axis,) = axes.panels(1)
    axes.curves(axis, [curve(str(number), 0.0) for number in range(7)], "linear", "linear")
    found = {str(line.get_color()) for line in axis.lines}
    assert found == published
    assert min(contrast_with_white(to_rgb(colour)) for colour in found) > 2


# Panels and titles


@pytest.mark.parametrize(
    ("count", "grid"), [(1, (1, 1)), (3, (1, 3)), (4, (1, 4)), (5, (2, 4)), (8, (2, 4)), (9, (3, 3))]
)
def test_panels_stand_row_by_row_in_about_a_square(count: int, grid: tuple[int, int]) -> None:
    figure, found = axes.panels(count)
    assert len(found) == len(figure.axes) == count
    spec = found[0].get_subplotspec().get_gridspec()
    assert (spec.nrows, spec.ncols) == grid
    assert max(figure.get_size_inches()) <= 45


def test_a_figure_has_a_largest_size() -> None:
    """An image of 150 runs of a large model would take gigabytes."""
    figure, _ = axes.panels(14, columns=2, height_in=41.0)
    assert figure.get_size_inches().tolist() == [9.6, 45.0]


def test_more_panels_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(UsageError, match=r"151 panels do not fit into one figure \(150 do.*--over run"):
        axes.panels(151)


def test_panels_in_one_row_share_their_vertical_axis_if_asked() -> None:
    _, (left, right) = axes.panels(2)
    left.set_ylim(0, 7)
    assert right.get_ylim() == (0, 7)
    _, (left, right) = axes.panels(2, share_y=False)
    left.set_ylim(0, 7)
    assert right.get_ylim() != (0, 7)


@pytest.mark.parametrize(
    ("what", "names", "parameter", "expected"),
    [
        ("loss", (), "", "loss"),
        ("loss", ("run_a",), "", "loss\nrun_a"),
        ("", ("run_a",), "", "run_a"),
        ("loss", (".",), "", "loss"),
        ("", (".",), "", ""),
        ("A_ii", ("run",), "residual: a -> b", "A_ii\nresidual: a -> b\nrun"),
        ("x", ("two\nlines $",), "", "x\ntwo\\nlines \\$"),
    ],
)
def test_titles_have_a_line_for_each_name(what: str, names: Any, parameter: str, expected: str) -> None:
    _, (axis,) = axes.panels(1)
    axes.title(axis, what, *names, parameter=parameter)
    assert axis.get_title() == expected


# Heat maps


def test_cells_without_numbers_are_hatched() -> None:
    """Neither the colour of 0 nor that of any other number."""
    figure, (axis,) = axes.panels(1)
    mesh = axes.heat_map(axis, [0, 1], [[NAN, 0.5], [float("inf"), 0.0]], "linear")
    axes.colour_bar(figure, mesh, [axis], "what")
    assert np.ma.getmaskarray(mesh.get_array()).tolist() == [[True, False], [True, False]]
    assert axis.patch.get_hatch()
    figure.draw_without_rendering()
    faces = mesh.get_facecolors()
    assert faces[0, 3] == 0
    assert faces[3].tolist() == list(mpl.colormaps["viridis"](0.0))


@pytest.mark.parametrize(("x", "values"), [([0.0, -1.0], [[0.5, 0.5]]), ([1.0], np.empty((0, 1)))])
def test_a_heat_map_of_nothing_still_has_its_colour_scale(x: Any, values: Any) -> None:
    figure, (axis,) = axes.panels(1)
    bar = axes.colour_bar(figure, axes.heat_map(axis, x, values, "log", labels=["a"][: len(values)]), [axis], "score")
    assert axes.step_axis(axis, x, "step", "log") == sum(value <= 0 for value in x)
    figure.draw_without_rendering()
    assert bar.ax.get_ylim() == (0.0, 1.0)
    assert len(axis.collections) == 0


@pytest.mark.parametrize("rows", [1, 12, 48, 100, 768, 4096])
def test_rows_without_names_are_numbered_from_1(rows: int) -> None:
    figure, (axis,) = axes.panels(1)
    axes.heat_map(axis, [0, 1], np.zeros((rows, 2)), "linear")
    figure.draw_without_rendering()
    ticks = [int(tick) for tick in axis.get_yticks()]
    assert ticks[0] == 1
    assert max(ticks) <= rows
    assert len(ticks) <= 13
    assert rows == 1 or len(ticks) >= 5
    boxes = [text.get_window_extent() for text in axis.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


def test_index_ticks_are_round() -> None:
    assert index_ticks(48) == [1, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert index_ticks(12) == list(range(1, 13))
    assert index_ticks(1) == [1]
    assert index_ticks(0) in ([], [1])


@pytest.mark.parametrize("rows", [3, 40, 300])
def test_names_beside_rows_never_overlap(rows: int) -> None:
    """In a panel of one height letters become smaller, and of too many rows only some are named."""
    figure, (axis,) = axes.panels(1)
    axes.heat_map(axis, [0, 1], np.zeros((rows, 2)), "linear", labels=[f"layers.{row}.weight" for row in range(rows)])
    figure.draw_without_rendering()
    texts = axis.get_yticklabels()
    boxes = [text.get_window_extent() for text in texts]
    assert all(upper.y0 >= lower.y1 - 0.5 for upper, lower in pairwise(boxes))
    assert texts[0].get_text() == "layers.0.weight"
    assert texts[1].get_text() == f"layers.{int(axis.get_yticks()[1]) - 1}.weight"
    assert (len(texts) == rows) == (rows < 100)


def test_names_leave_room_for_the_cells() -> None:
    """Though they would have to be long to stay apart."""
    figure, (axis,) = axes.panels(1)
    names = [f"residual: {'a' * 40}.{side}.{'b' * 40} -> {'c' * 60}" for side in ("x", "y")]
    axes.heat_map(axis, [0, 1], np.zeros((2, 2)), "linear", labels=names)
    figure.draw_without_rendering()
    assert axis.get_position().width * figure.get_figwidth() > 0.25 * figure.get_figwidth()
    assert min(text.get_window_extent().x0 for text in axis.get_yticklabels()) >= 0


def test_the_width_of_names_is_not_less_than_what_they_take() -> None:
    names = ["gpt_neox.layers.10.attention.query_key_value.weight", "embed_out.weight"]
    figure, (axis,) = axes.panels(1, width_in=8.0)
    axes.heat_map(axis, [0, 1], np.zeros((2, 2)), "linear", labels=names)
    figure.draw_without_rendering()
    drawn_in = max(text.get_window_extent().width for text in axis.get_yticklabels()) / figure.dpi
    assert drawn_in <= axes.names_in(names) <= 1.5 * drawn_in


# Lines of an index


def test_lines_are_coloured_by_index_with_the_first_on_top_of_the_scale() -> None:
    _, (axis,) = axes.panels(1)
    hidden = axes.index_lines(axis, [0, 5], [[3.0, 2.0, 1.0], [4.0, 2.0, 0.5]], None, "linear", "linear")
    drawn = lines_of(axis)
    assert [path.vertices.tolist() for path in drawn.get_paths()] == [
        [[0, 3], [5, 4]],
        [[0, 2], [5, 2]],
        [[0, 1], [5, 0.5]],
    ]
    assert (drawn.get_array().tolist(), drawn.get_clim(), hidden) == ([1, 2, 3], (1, 3), 0)
    bar = axis.figure.axes[1]
    assert bar.get_ylim() == (3, 1)
    assert bar.get_yticks().tolist() == [1, 2, 3]
    low, high = axis.get_ylim()
    assert low <= 0.5
    assert high >= 4


def test_a_broken_line_is_broken_and_what_stands_alone_is_a_dot() -> None:
    _, (axis,) = axes.panels(1)
    values = [[1.0], [NAN], [2.0], [NAN], [3.0], [4.0]]
    axes.index_lines(axis, range(6), values, None, "linear", "linear", bar=False)
    (path,) = lines_of(axis).get_paths()
    np.testing.assert_array_equal(path.vertices[:, 1], [1, NAN, 2, NAN, 3, 4])
    (dots,) = [each for each in axis.collections if isinstance(each, PathCollection)]
    assert dots.get_offsets().tolist() == [[0, 1], [2, 2]]


def test_what_a_logarithmic_axis_cannot_show_is_a_gap_and_counted() -> None:
    _, (axis,) = axes.panels(1)
    values = [[5.0, -1.0], [float("inf"), 0.0], [4.0, 0.1]]
    assert axes.index_lines(axis, [0, 1, 2], values, None, "log", "log", bar=False) == 1
    first, second = (path.vertices for path in lines_of(axis).get_paths())
    np.testing.assert_array_equal(first, [[1, NAN], [2, 4]])
    np.testing.assert_array_equal(second, [[1, NAN], [2, 0.1]])


def test_bands_reach_one_deviation_and_break_with_their_lines() -> None:
    _, (axis,) = axes.panels(1)
    values = np.array([[1.0], [2.0], [NAN], [3.0], [4.0]])
    axes.index_lines(axis, range(5), values, np.full((5, 1), 0.25), "linear", "linear", bar=False)
    (bands,) = [each for each in axis.collections if isinstance(each, PolyCollection)]
    ends = [
        {x: (min(ys), max(ys)) for x in set(path.vertices[:, 0]) for ys in [path.vertices[path.vertices[:, 0] == x, 1]]}
        for path in bands.get_paths()
    ]
    assert ends == [{0.0: (0.75, 1.25), 1.0: (1.75, 2.25)}, {3.0: (2.75, 3.25), 4.0: (3.75, 4.25)}]


def test_bands_on_a_logarithmic_axis_stay_above_0() -> None:
    _, (axis,) = axes.panels(1)
    axes.index_lines(axis, [1, 2], [[1.0], [1.0]], [[2.0], [0.5]], "linear", "log", bar=False)
    (bands,) = [each for each in axis.collections if isinstance(each, PolyCollection)]
    (path,) = bands.get_paths()
    assert (path.vertices[:, 1] > 0).all()
    assert path.vertices[:, 1].max() == 3.0


def test_panels_may_share_one_scale_of_indices() -> None:
    _, grid = axes.panels(2)
    for axis, count in zip(grid, (2, 5), strict=True):
        axes.index_lines(axis, [0, 1], np.ones((2, count)), None, "linear", "linear", bar=False, most=5)
    assert [lines_of(axis).get_clim() for axis in grid] == [(1, 5), (1, 5)]
    colours = [lines_of(axis).to_rgba(np.array([2])).tolist() for axis in grid]
    assert colours[0] == colours[1]


# Curves


def test_curves_are_drawn_at_their_points_with_gaps() -> None:
    _, (axis,) = axes.panels(1)
    hidden = axes.curves(axis, [curve("a", 1.0, NAN, 0.0, x=[0, 1, 2]), curve("b", 2.0)], "linear", "log")
    assert hidden == 1
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1.0, NAN, NAN])
    assert axis.lines[1].get_xdata().tolist() == [0.0]


def test_long_curves_have_some_markers_and_points_that_stand_alone_always() -> None:
    y = np.ones(400)
    y[[100, 102]] = NAN
    _, (axis,) = axes.panels(1)
    axes.curves(axis, [curve("a", *y)], "linear", "linear")
    marked = list(axis.lines[0].get_markevery())
    assert 101 in marked
    assert 20 <= len(marked) <= 40


def test_bands_of_curves_reach_one_deviation() -> None:
    _, (axis,) = axes.panels(1)
    axes.curves(axis, [curve("a", 1.0, 2.0, deviation=[0.5, 0.25])], "linear", "linear")
    points = np.concatenate([path.vertices for path in axis.collections[0].get_paths()])
    assert (points[points[:, 0] == 0, 1].min(), points[points[:, 0] == 0, 1].max()) == (0.5, 1.5)
    assert (points[points[:, 0] == 1, 1].min(), points[points[:, 0] == 1, 1].max()) == (1.75, 2.25)


@pytest.mark.parametrize(
    ("y", "corner"),
    [
        ([0, 0, 0], "upper right"),
        ([0, 0, 1], "upper left"),
        ([1, 1, 0.9, 0.9, 0], "lower left"),
    ],
)
def test_a_legend_hides_no_data(y: list[float], corner: str) -> None:
    """Neither a point nor a piece of line between two is behind it."""
    figure, (axis,) = axes.panels(1)
    axes.curves(axis, [curve("a", *y), curve("b", *y)], "linear", "linear")
    axis.set_ylim(-0.05, 1.05)
    figure.draw_without_rendering()
    box = axis.get_legend().get_window_extent()
    points = axis.transData.transform(
        np.column_stack([np.linspace(0, len(y) - 1, 500), np.interp(np.linspace(0, len(y) - 1, 500), range(len(y)), y)])
    )
    assert not any(box.contains(*point) for point in points)


def test_a_legend_that_finds_no_corner_stands_beside_the_panel() -> None:
    figure, (axis,) = axes.panels(1)
    axes.curves(axis, [curve("a", 0, 1, 0, 1, 0, 1), curve("b", 1, 0, 1, 0, 1, 0)], "linear", "linear")
    figure.draw_without_rendering()
    assert axis.get_legend().get_window_extent().x0 >= axis.get_window_extent().x1


def test_legends_name_all_curves_whatever_they_are_called() -> None:
    """A leading underscore means to matplotlib that there is to be no entry; a dollar sign begins mathematics."""
    figure, (axis,) = axes.panels(1)
    labels = ["_hidden", "$x$", "a%s", "two\nlines", "\u202eabc", "x" * 5000]
    axes.curves(axis, [curve(label, 0.0) for label in labels], "linear", "linear")
    figure.draw_without_rendering()
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts[:5] == ["_hidden", r"\$x\$", "a%s", r"two\nlines", r"\u202eabc"]
    assert len(texts[5]) <= 32


# Notices


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ()),
        (1, ("1 step of 0 or less is not on the logarithmic axis",)),
        (2, ("2 steps of 0 or less are not on the logarithmic axis",)),
    ],
)
def test_what_is_left_out_is_told(count: int, expected: tuple[str, ...]) -> None:
    assert axes.left_out(count, "step") == expected


def test_nothing_touches_the_state_of_pyplot() -> None:
    """No figure of ours is registered anywhere, and no display is asked for."""
    import subprocess
    import sys

    code = "import sys, spectra_cli.figures.canvas.axes as a; a.panels(2); print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_all_names_are_there() -> None:
    assert all(hasattr(axes, name) for name in axes.__all__)
    assert not any(one == two for one, two in combinations(axes.__all__, 2))


def test_bands_of_curves_that_reach_0_go_down_to_the_end_of_a_logarithmic_axis() -> None:
    """And not to the least of the means, which would be a deviation that nothing has."""
    figure, (axis,) = axes.panels(1)
    x, y, half = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1e-2, 1e-4]), np.array([0.1, 1.0, 1e-5])
    axes.curves(axis, [Curve("loss", x, y, half)], "linear", "log")
    figure.draw_without_rendering()
    (band,) = [each for each in axis.collections if isinstance(each, PolyCollection)]
    corners = band.get_paths()[0].vertices
    lows = [corners[np.isclose(corners[:, 0], place), 1].min() for place in x]
    np.testing.assert_allclose(lows, [0.9, axis.get_ylim()[0], 9e-5])
    assert axis.get_ylim()[1] >= 1.1
