"""The page in a real Chromium: what hover, click and keys do, what is seen, and that nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from selenium import webdriver
from selenium.webdriver import Keys
from selenium.webdriver.support.select import Select

from spectra_cli.figures.page.data import readable
from spectra_cli.figures.page.document import Axis, Document, Grid, Lines, RunView, Series, TextTable
from spectra_cli.figures.page.rendering import render
from spectra_cli.figures.report.composing import make_document
from tests.figures.chromium import Opened, chromium
from tests.figures.documents import HOSTILE, STEPS, run_view, small, transformer_names
from tests.figures.planted import gathered

SMALL = small()
FIRST_MAP = SMALL.runs[0].grids[0]
NAMES = [readable(name) for name in HOSTILE]
OPEN_AT_FIRST = 3
"""The row whose detail is open when the page of :data:`SMALL` is."""

MARKED = ".plot:focus-visible"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    folder.joinpath("small.html").write_text(render(SMALL), encoding="utf-8")
    return folder


@pytest.fixture
def still(browser: webdriver.Chrome, pages: Path) -> Iterator[Opened]:
    """The same page for tests that open no other detail: it is not opened again where the last test did neither."""
    path = pages / "small.html"
    opened = Opened(browser, path, load=browser.current_url != f"{path.as_uri()}#still", kept=True)
    browser.execute_script("location.hash = 'still'")
    with quiet(opened):
        yield opened


@pytest.fixture
def page(browser: webdriver.Chrome, pages: Path) -> Iterator[Opened]:
    """The page of :data:`SMALL`, freshly opened; after the test, nothing was fetched and the console is empty."""
    with quiet(Opened(browser, pages / "small.html")) as opened:
        yield opened


class quiet:  # noqa: N801 - reads as what it is: with quiet(page)
    """Checks that a page fetched nothing but itself and wrote nothing to the console."""

    def __init__(self, page: Opened) -> None:
        self.page = page

    def __enter__(self) -> Opened:
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        fetched = self.page.js("performance.getEntriesByType('resource').map((entry) => entry.name)")
        requests, console = self.page.requests(), self.page.console()
        self.page.leave()
        if kind is None:
            assert fetched == []
            assert [url for url in requests if url != self.page.url and not url.startswith("data:")] == []
            assert console == []


def open_page(browser: webdriver.Chrome, path: Path, document: Document) -> quiet:
    path.write_text(render(document), encoding="utf-8")
    return quiet(Opened(browser, path))


def said(value: float) -> str:
    """Four significant digits, as Python writes those of the number given."""
    return f"{value:.4g}"


def cell(row: int, column: int) -> str:
    """What is said of a cell of the first heat map."""
    value = float(FIRST_MAP.values[row, column])
    if not math.isnan(value):
        return said(value)
    return f"no value ({FIRST_MAP.notes[row, column]})" if (row, column) in FIRST_MAP.notes else "no value"


def single(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=float)


# Nothing is fetched.


def test_what_is_fetched_would_be_noticed(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The instruments of this module see a request and a complaint where there is one."""
    path = tmp_path / "fetching.html"
    path.write_text("<!doctype html><img src='http://example.invalid/a.png'>", encoding="utf-8")
    opened = Opened(browser, path)
    assert "http://example.invalid/a.png" in opened.requests()
    assert len(opened.console()) == 1


def test_a_page_is_all_there_is(page: Opened) -> None:
    """Every chart of both runs is drawn, with no request and no word in the console."""
    for run, view in enumerate(SMALL.runs):
        Select(page.one("#choose-run")).select_by_index(run)
        for chart in (*view.grids, *view.lines):
            page.chart(chart.key, run=run)
    for chart in SMALL.across:
        page.chart(chart.key)
    assert len(page.requests()) <= 2


# Hover.


def test_hover_says_name_step_and_value(still: Opened) -> None:
    """Of every cell of a heat map, or why it has none."""
    figure = still.chart("effective_rank", run=0)
    for row, column in np.ndindex(FIRST_MAP.values.shape):
        if column in {0, 4, 9} or np.isnan(FIRST_MAP.values[row, column]):
            still.point_at(figure, (column, row))
            assert still.visible_text(".tip") == f"{NAMES[row]}\nstep {FIRST_MAP.x.values[column]}: {cell(row, column)}"


def test_the_colour_of_a_cell_is_its_value_in_viridis(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """As matplotlib has that scale; beyond its ends it stays as it is, and no value is a pattern that it has not."""
    values = np.array([[*np.linspace(-0.2, 1.2, 29), math.nan]])
    texts = {"title": "G", "value_label": "v", "y_label": "matrix", "summary": "One row."}
    x = Axis(label="step", values=list(range(30)))
    grid = Grid(key="g", names=["w"], x=x, values=values, domain=(0.0, 1.0), **texts)
    document = Document(title="T", lead="L", runs=[RunView(name="r", grids=[grid])])
    viridis = colormaps["viridis"]
    with open_page(browser, tmp_path / "colours.html", document) as page:
        figure = page.chart("g", run=0)
        for column, value in enumerate(values[0, :-1]):
            np.testing.assert_allclose(page.colour(figure, (column, 0)), single(viridis(value)[:3]) * 255, atol=3)
        distances = single(viridis(np.linspace(0, 1, 256)))[:, :3] * 255 - page.colour(figure, (29, 0))
        assert np.abs(distances).sum(axis=1).min() > 20


def test_hover_over_lines_says_every_value_there(still: Opened) -> None:
    loss = next(lines for lines in SMALL.runs[0].lines if lines.key == "loss")
    figure = still.chart("loss", run=0)
    at = 7  # of ten steps
    still.point_at(figure, still.drawn(figure, "chart.getOption().series[0].data[given[0]].value", at))
    text = still.visible_text(".line-tip")
    assert text.startswith(f"step {loss.series[0].x[at]}")
    for series in loss.series:
        spread = "" if series.band is None else f" ± {said(series.band[at])}"
        assert f"{series.name}\n{said(series.y[at])}{spread}" in text


# A row opens its detail.


def check_detail(page: Opened, row: int) -> None:
    """The panel shows this row of the first run: its name, its facts and the numbers of its charts."""
    detail = SMALL.runs[0].details[row]
    panel = page.one(".run[data-run='0'] .detail")
    assert page.texts("h4", panel) == [readable(detail.name)]
    assert page.texts(".caption", panel)[0] == detail.caption
    assert page.texts("dt, dd", panel) == [text for fact in detail.facts for text in fact]
    spectra, agreement = detail.charts
    assert isinstance(spectra, Lines)
    assert isinstance(agreement, Grid)
    heads, *rows = page.table(page.one("[data-key='singular_values']", panel))
    assert heads == ["step", *(series.name for series in spectra.series)]
    expected = np.stack([series.y for series in spectra.series], axis=1)
    np.testing.assert_allclose([[float(text) for text in cells[1:]] for cells in rows], expected, rtol=6e-4)
    assert [int(cells[0]) for cells in rows] == spectra.series[0].x.tolist()
    heads, *rows = page.table(page.one("[data-key='agreement']", panel))
    np.testing.assert_allclose(single([cells[1:] for cells in rows]), agreement.values, rtol=6e-4, atol=1e-30)


def test_a_click_on_a_cell_opens_its_row(page: Opened) -> None:
    for row in (0, 5):
        page.point_at(page.chart("effective_rank", run=0), (2, row))
        page.click()
        check_detail(page, row)
        assert page.focus.text == NAMES[row]


def test_a_row_that_opens_nothing_leaves_the_detail_as_it_is(still: Opened) -> None:
    still.point_at(still.chart("alignment", run=0), (2, 0))
    still.click()
    check_detail(still, OPEN_AT_FIRST)


def test_the_first_detail_is_open_from_the_start_without_taking_the_focus(page: Opened) -> None:
    check_detail(page, OPEN_AT_FIRST)
    assert page.focus.tag_name == "body"


def test_a_cell_of_a_table_opens_the_matrix_that_it_names(page: Opened) -> None:
    """In the run that it is of, which is shown for that."""
    page.all("button.opens")[2].send_keys(Keys.ENTER)
    assert page.one("#choose-run").get_attribute("value") == "1"
    assert page.texts(".run[data-run='1'] .detail h4") == [NAMES[2]]
    page.press(Keys.ESCAPE)
    assert page.focus.text == NAMES[2]
    assert page.focus.get_attribute("class") == "opens"


def test_close_closes(page: Opened) -> None:
    page.one(".detail .close").click()
    assert not page.one(".detail").is_displayed()
    assert not [mark for mark in page.all(".row-mark") if mark.is_displayed()]


# The keyboard alone.


def tab_to(page: Opened, selector: str) -> None:
    for _ in range(60):
        page.press(Keys.TAB)
        if page.js("document.activeElement.matches(arguments[0])", selector):
            return
    pytest.fail(f"no {selector} is reached by Tab")


def test_the_whole_way_by_keyboard(page: Opened) -> None:
    """From the top of the page to a cell, to its row's detail, back, and on to the next heat map in one step."""
    tab_to(page, MARKED)
    steps = FIRST_MAP.x.values
    assert page.one("#spoken").text.startswith(f"{NAMES[OPEN_AT_FIRST]}, step {steps[-1]}: ")
    page.press(Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_LEFT)
    row, column = OPEN_AT_FIRST - 2, len(steps) - 2
    expected = f"step {steps[column]}: {said(FIRST_MAP.values[row, column])}"
    assert page.one("#spoken").text == f"{NAMES[row]}, {expected}"
    assert page.visible_text(".tip") == f"{NAMES[row]}\n{expected}"
    assert [mark.is_displayed() for mark in page.all(".cell-mark")].count(True) == 1
    page.press(Keys.ENTER)
    check_detail(page, row)
    assert page.focus.text == NAMES[row]
    assert "Escape" in page.one("#spoken").text
    page.press(Keys.ESCAPE)
    assert page.js("document.activeElement.matches(arguments[0])", MARKED)
    assert page.one("#spoken").text == f"{NAMES[row]}, {expected}"
    page.press(Keys.ESCAPE)
    assert not page.one(".detail").is_displayed()
    assert page.js("document.activeElement.matches(arguments[0])", MARKED)


def test_keys_move_the_cursor_and_stop_at_the_edges(page: Opened) -> None:
    plot = page.one(".plot", page.chart("effective_rank", run=0))
    start, last_row, last = OPEN_AT_FIRST, 5, 9
    for keys, row, column in [
        ([Keys.HOME], start, 0),
        ([Keys.ARROW_LEFT], start, 0),
        ([Keys.ARROW_RIGHT], start, 1),
        ([Keys.END], start, last),
        ([Keys.ARROW_RIGHT], start, last),
        ([Keys.CONTROL, Keys.HOME], 0, 0),
        ([Keys.ARROW_UP], 0, 0),
        ([Keys.PAGE_DOWN], last_row, 0),
        ([Keys.ARROW_DOWN], last_row, 0),
        ([Keys.PAGE_UP], 0, 0),
        ([Keys.CONTROL, Keys.END], last_row, last),
    ]:
        plot.send_keys(keys)
        assert page.one("#spoken").text == f"{NAMES[row]}, step {FIRST_MAP.x.values[column]}: {cell(row, column)}"


def test_the_cursor_of_the_keyboard_stays_when_the_chart_is_drawn_anew_and_while_the_pointer_rests(
    page: Opened,
) -> None:
    """A pointer that lies on a heat map gets in nobody's way until it is moved."""
    figure = page.chart("effective_rank", run=0)
    page.point_at(figure, (5, 0))
    under_the_pointer = page.visible_text(".tip")
    page.js("arguments[0].focus()", page.one(".plot", figure))
    page.press(Keys.ARROW_LEFT)
    walked = page.visible_text(".tip")
    assert walked.startswith(NAMES[OPEN_AT_FIRST])
    page.emulate(dark=True)
    page.point_at(figure, (5, 0))
    assert page.visible_text(".tip") == walked
    assert [mark.is_displayed() for mark in page.all(".cell-mark")].count(True) == 1
    page.point_at(figure, (6, 0))
    assert page.visible_text(".tip") != walked
    page.point_at(figure, (5, 0))
    assert page.visible_text(".tip") == under_the_pointer


def test_the_skip_link_is_first_and_is_seen_when_reached(page: Opened) -> None:
    page.press(Keys.TAB)
    assert page.focus.text == "Skip to the charts"
    assert page.focus.rect["x"] >= 0
    page.press(Keys.ENTER)
    assert page.focus.tag_name == "main"


def test_every_heat_map_is_one_tab_stop_with_a_name(still: Opened) -> None:
    plots = still.all(".run[data-run='0'] .maps > figure .plot")
    assert len(plots) == len(SMALL.runs[0].grids)
    for plot, chart in zip(plots, SMALL.runs[0].grids, strict=True):
        assert plot.get_attribute("tabindex") == "0"
        assert chart.title in plot.accessible_name
        assert still.all("[tabindex], button, a, input", plot) == []


# What a reader chooses.


def test_another_run_shows_its_own_charts(still: Opened) -> None:
    """And the detail of the same matrix, which was open before."""
    Select(still.one("#choose-run")).select_by_visible_text(NAMES[4])
    assert [part.is_displayed() for part in still.all("#maps .run")] == [False, True]
    assert [part.is_displayed() for part in still.all("#curves .run")] == [False, True]
    still.point_at(still.chart("effective_rank", run=1), (4, 1))
    value = SMALL.runs[1].grids[0].values[1, 4]
    assert said(value) != said(FIRST_MAP.values[1, 4])
    assert still.visible_text(".tip").endswith(f": {said(value)}")
    assert still.texts(".run[data-run='1'] .detail h4") == [NAMES[OPEN_AT_FIRST]]


def places(page: Opened, key: str, axis: int) -> np.ndarray:
    """Where the points of the first line are along an axis, from 0 at the first to 1 at the last, by their pixels."""
    figure = page.chart(key, run=0)
    expression = (
        "chart.getOption().series[0].data.map(({value}) => chart.convertToPixel({seriesIndex: 0}, value)[given[0]])"
    )
    pixels = single(page.drawn(figure, expression, axis))
    return (pixels - pixels[0]) / (pixels[-1] - pixels[0])


def test_steps_are_laid_out_as_chosen(still: Opened) -> None:
    x = SMALL.runs[0].lines[0].series[0].x
    for scale, place in (("log(1 + step)", np.log1p), ("linear", np.asarray)):
        Select(still.one("#choose-steps")).select_by_visible_text(scale)
        for key in ("loss", "error"):
            np.testing.assert_allclose(places(still, key, 0), place(x) / place(x[-1]), atol=1e-6)


def test_an_axis_that_is_no_step_stays_linear(still: Opened) -> None:
    Select(still.one("#choose-steps")).select_by_visible_text("log(1 + step)")
    figure = still.chart("barrier")
    values = still.drawn(figure, "chart.getOption().series[0].data.map(({value}) => value[0])")
    np.testing.assert_allclose(values, np.linspace(0, 1, 11))


def test_values_are_laid_out_as_chosen(still: Opened) -> None:
    values = SMALL.runs[0].lines[0].series[0].y
    for place in (np.asarray, np.log):
        y = place(values)
        np.testing.assert_allclose(places(still, "loss", 1), (y - y[0]) / (y[-1] - y[0]), atol=1e-3)
        still.one(".log input", still.chart("loss", run=0)).click()


def test_values_without_a_place_on_a_log_scale_are_gaps_and_said_to_be(still: Opened) -> None:
    error = next(lines for lines in SMALL.runs[0].lines if lines.key == "error")
    zeros = sum(int((series.y <= 0).sum()) for series in error.series)
    assert zeros > 0
    figure = still.chart("error", run=0)
    assert not still.one(".note", figure).is_displayed()
    still.one(".log input", figure).click()
    assert still.one(".note", figure).text.startswith(f"{zeros} value")
    drawn = still.drawn(figure, "chart.getOption().series[0].data.map(({value}) => Number.isFinite(value[1]))")
    assert drawn == (error.series[0].y > 0).tolist()


def written(label: str) -> float:
    """The number that the label of a tick stands for."""
    unit = {"k": 1e3, "M": 1e6}.get(label[-1], 1)
    return float(label.rstrip("kM")) * unit


def test_ticks_stand_where_their_labels_say(still: Opened) -> None:
    """The labels are read, and the library is asked where it put them."""
    read = "(({axisLabel: {customValues, formatter}}) => customValues.map((at) => [formatter(at), at]))"
    for scale in ("linear", "log(1 + step)"):
        Select(still.one("#choose-steps")).select_by_visible_text(scale)
        figure = still.chart("loss", run=0)
        for axis in ("x", "y"):
            labels, at = zip(*still.drawn(figure, f"{read}(chart.getOption().{axis}Axis[0])"), strict=True)
            numbers = single([written(label) for label in labels])
            assert len(set(labels)) == len(labels) >= 3
            stepped = axis == "x" and scale != "linear"
            np.testing.assert_allclose(at, np.log10(1 + numbers) if stepped else numbers, atol=1e-9)


def test_a_line_can_be_left_out(still: Opened) -> None:
    figure = still.chart("loss", run=0)
    entry = still.all(".legend button", figure)[1]
    entry.send_keys(Keys.ENTER)
    entry = still.all(".legend button", figure)[1]
    assert entry.get_attribute("aria-pressed") == "false"
    lines = still.drawn(figure, "chart.getOption().series.filter(({type}) => type === 'line').length")
    assert lines == len(SMALL.runs[0].lines[0].series) - 1
    assert still.js("document.activeElement === arguments[0]", entry)


# Light, dark and paper.

PAINTED_TEXT = """(() => {
  const seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.matches("script, noscript")) continue;
    let ground = element;
    while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const paper = getComputedStyle(ground ?? document.body).backgroundColor;
    seen.push([node.textContent.trim().slice(0, 40), getComputedStyle(element).color, paper]);
  }
  return seen;
})()"""

PAINTED_BY_THE_LIBRARY = """[...document.querySelectorAll(".canvas")].flatMap((canvas) => {
  const option = canvas.checkVisibility() && echarts.getInstanceByDom(canvas)?.getOption();
  if (!option) return [];
  const ground = getComputedStyle(document.body).backgroundColor;
  return [...option.xAxis, ...option.yAxis].flatMap(({axisLabel, nameTextStyle, name}) => [
    [`label of ${name}`, axisLabel.color, ground], [`name ${name}`, nameTextStyle?.color ?? axisLabel.color, ground],
  ]);
})"""


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it, of ``rgb(r, g, b)``."""
    shares = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """The ratio that WCAG 2.2 asks to be 4.5 at least for text."""
    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read_in_light_and_in_dark(still: Opened, dark: bool) -> None:
    still.emulate(dark=dark)
    figure = still.chart("effective_rank", run=0)
    still.chart("loss", run=0)
    still.table(still.one("figure[data-key='loss']"))
    still.point_at(figure := still.chart("effective_rank", run=0), (2, 2))
    assert figure.is_displayed()
    texts = [*still.js(PAINTED_TEXT), *still.js(PAINTED_BY_THE_LIBRARY)]
    assert len(texts) > 100
    assert [(text, contrast(ink, paper)) for text, ink, paper in texts if contrast(ink, paper) < 4.5] == []
    assert (luminance(still.js("getComputedStyle(document.body).backgroundColor")) < 0.1) == dark


def test_a_page_follows_the_system_until_told_otherwise(still: Opened) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "chart.getOption().xAxis[0].axisLabel.color"
    figure = still.chart("effective_rank", run=0)
    light, light_label = still.js(ground), still.drawn(figure, label)
    still.emulate(dark=True)
    dark, dark_label = still.js(ground), still.drawn(figure, label)
    assert (light != dark, light_label != dark_label) == (True, True)
    choice = Select(still.one("#choose-theme"))
    choice.select_by_visible_text("light")
    assert (still.js(ground), still.drawn(figure, label)) == (light, light_label)
    still.emulate(dark=False)
    choice.select_by_visible_text("dark")
    assert (still.js(ground), still.drawn(figure, label)) == (dark, dark_label)
    choice.select_by_visible_text("as the system")
    assert (still.js(ground), still.drawn(figure, label)) == (light, light_label)


@pytest.mark.parametrize("dark", [False, True])
def test_lines_of_categories_stand_out_from_the_paper(still: Opened, dark: bool) -> None:
    """3 : 1 at least, as WCAG 2.2 asks of what is no text; and no two have the same colour and dash."""
    still.emulate(dark=dark)
    figure = still.chart("loss", run=0)
    ground = still.js("getComputedStyle(document.body).backgroundColor")
    lines = "chart.getOption().series.filter((it) => it.type === 'line').map((it) => it.lineStyle)"
    styles = still.drawn(figure, lines)
    for style in styles:
        red, green, blue = (int(style["color"][i : i + 2], 16) for i in (1, 3, 5))
        assert contrast(f"rgb({red}, {green}, {blue})", ground) >= 3
    assert len({(style["color"], str(style["type"])) for style in styles}) == len(SMALL.runs[0].lines[0].series)


def test_on_paper_every_chart_is_drawn_on_white(still: Opened) -> None:
    still.js("window.dispatchEvent(new Event('beforeprint'))")
    still.emulate(dark=True, medium="print")
    shown = "[...document.querySelectorAll('.canvas')].filter((it) => it.checkVisibility())"
    assert still.js(f"{shown}.filter((it) => it.querySelector('canvas') === null)") == []
    assert still.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not still.one(".controls").is_displayed()


# Small screens.


def test_a_page_fits_a_narrow_screen(still: Opened) -> None:
    """At 400 pixels nothing reaches beyond the window, with a detail, a tooltip and a table open."""
    still.emulate(width=400)
    assert still.one(".detail").is_displayed()
    figure = still.chart("effective_rank", run=0)
    still.table(figure)
    still.point_at(figure, (9, 5))
    tip = next(each for each in still.all(".tip") if each.is_displayed()).rect
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 400
    assert still.js("document.documentElement.scrollWidth") <= 400
    wide = "[...document.querySelectorAll('figure, .plot, .canvas, .scroll, select, h1, p')]"
    beyond = ".filter((each) => each.getBoundingClientRect().right > 400.5).map((each) => each.outerHTML.slice(0, 80))"
    assert still.js(wide + beyond) == []


# Those who listen.


def test_all_parts_have_names_of_their_own(still: Opened) -> None:
    """Landmarks, groups and headings of columns, with a detail and the data of two charts of one title open."""
    panel = still.one(".run[data-run='0'] .detail")
    still.table(still.chart("agreement", run=0))
    still.table(still.one("[data-key='agreement']", panel))
    parts = [each for each in still.all("section, nav, .scroll, .controls") if each.is_displayed()]
    told = [(each.aria_role, each.accessible_name) for each in parts]
    assert {role for role, _ in told} == {"region", "navigation", "group"}
    names = [name for _, name in told if name]
    groups_named_after_their_section = len(SMALL.tables)
    assert len(names) == len(told)
    assert len({(role, name) for role, name in told}) == len(told)
    assert len(set(names)) == len(told) - groups_named_after_their_section
    assert [text for text in still.texts("th") if not text.strip()] == []
    inside = "it.closest('header, main, footer, nav, section, .skip, [aria-live], script') === null"
    outside = f"[...document.body.children].filter((it) => {inside}).map((it) => it.outerHTML.slice(0, 80))"
    assert still.js(outside) == []


# Tables.


def test_the_data_of_a_heat_map_can_be_read_as_a_table(still: Opened) -> None:
    heads, *rows = still.table(still.chart("effective_rank", run=0))
    assert heads[1:] == [str(step) for step in FIRST_MAP.x.values]
    assert [cells[0] for cells in rows] == NAMES
    for row, cells in enumerate(rows):
        expected = [cell(row, column) for column in range(len(FIRST_MAP.x.values))]
        dash = "–"  # noqa: RUF001 - it stands for nothing
        told = {"no value": dash, "no value (not_finite)": "not_finite"}
        assert cells[1:] == [told.get(each, each) for each in expected]


def test_numbers_are_shown_as_python_writes_them_whatever_their_size(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """With four significant digits of the number given; and none but 0 and less is missing on a log scale."""
    generator = np.random.default_rng(3)
    extreme = [1e300, 1e-50, 3.4028234e38, 1.0, -2.5, math.nan, math.inf]
    ordinary = [
        *10.0 ** generator.uniform(-7, 9, 1500),
        *generator.uniform(9000, 70_000, 300),
        1.0625,
        1000.5,
        65_535.9,
    ]
    charts = [
        Lines(key=key, title=key, x_label="step", y_label="y", y_scale="log", summary="S.", series=[line])
        for key, values in (("ordinary", ordinary), ("extreme", extreme))
        for line in [Series(name="s", x=np.arange(len(values)), y=np.array(values))]
    ]
    document = Document(title="T", lead="L", runs=[RunView(name="r", lines=charts)])
    with open_page(browser, tmp_path / "sizes.html", document) as page:
        heads, *rows = page.table(page.chart("ordinary", run=0))
        assert [float(number) for _, number in rows] == [float(f"{value:.3e}") for value in ordinary]
        figure = page.chart("extreme", run=0)
        heads, *rows = page.table(figure)
        assert heads == ["step", "s"]
        nothing = "–"  # noqa: RUF001 - it stands for nothing
        assert [number for _, number in rows] == ["1e300", "1e-50", "3.403e38", "1", "-2.5", nothing, "inf"]
        drawn = "chart.getOption().series[0].data.map(({value}) => value[1])"
        places = page.drawn(figure, drawn)
        np.testing.assert_allclose(places[:4], np.log10(extreme[:4]), atol=1e-3)
        assert places[4:] == [None] * 3
        assert page.one(".note", figure).text.startswith("1 value of 0 or less")
        page.one(".log input", figure).click()
        assert page.drawn(figure, drawn)[:5] == [1e300, 1e-50, 3.403e38, 1, -2.5]


def test_a_table_is_sorted_by_its_headings(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Numbers by value, text as people sort it, nothing last either way; the heading says which way."""
    rows = [["layers.10.w", 3.0], ["layers.2.w", None], ["layers.1.w", math.inf], ["layers.9.w", -20.5], ["a", 100.0]]
    table = TextTable(heading="H", caption="C", columns=["matrix", "change"], numeric=[False, True], rows=rows)
    with open_page(browser, tmp_path / "sorted.html", Document(title="T", lead="L", tables=[table])) as page:
        heading, by_number = page.all("th button")

        def shown() -> tuple[list[str], list[str | None]]:
            return page.texts("td:first-child"), [each.get_attribute("aria-sort") for each in page.all("th")]

        by_number.send_keys(Keys.ENTER)
        falling = ["layers.1.w", "a", "layers.10.w", "layers.9.w"]
        assert shown() == ([*falling, "layers.2.w"], [None, "descending"])
        by_number.send_keys(Keys.ENTER)
        assert shown() == ([*falling[::-1], "layers.2.w"], [None, "ascending"])
        heading.click()
        natural = ["a", "layers.1.w", "layers.2.w", "layers.9.w", "layers.10.w"]
        assert shown() == (natural, ["ascending", None])
        heading.click()
        assert shown() == (natural[::-1], ["descending", None])


# Many rows, no script.


def test_a_heat_map_of_many_rows_scrolls_within_itself(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """And hover and keys name the row that is there."""
    values = (np.arange(600).reshape(300, 2) % 97) / 97
    grid = Grid(
        key="many",
        title="Many",
        value_label="share",
        x=Axis(label="step", values=[0, 1]),
        y_label="matrix",
        names=[f"w{i}" for i in range(300)],
        values=values,
        domain=(0.0, 1.0),
        summary="300 rows.",
    )
    document = Document(title="T", lead="L", runs=[RunView(name="r", grids=[grid])])
    with open_page(browser, tmp_path / "many.html", document) as page:
        figure = page.chart("many", run=0)
        plot = page.one(".plot", figure)
        assert plot.rect["height"] < 1200
        page.js("arguments[0].scrollTo(0, arguments[0].scrollHeight)", plot)
        last = page.drawn(figure, "chart.getOption().yAxis[0].data.length") - 1
        page.wait("arguments[0].scrollTop > 0", plot)
        page.wait(
            "echarts.getInstanceByDom(arguments[0].querySelector('.canvas')).getOption().yAxis[0].data[0] > 0", plot
        )
        page.point_at(figure, (1, last))
        assert page.visible_text(".tip") == f"w299\nstep 1: {said(values[299, 1])}"
        plot.send_keys(Keys.CONTROL, Keys.HOME, Keys.NULL, *[Keys.ARROW_DOWN] * 3)
        assert page.one("#spoken").text == f"w3, step 0: {said(values[3, 0])}"
        assert page.visible_text(".tip").startswith("w3\n")


def test_summaries_and_tables_read_without_the_script(page: Opened) -> None:
    page.emulate(script=False)
    page.reload()
    text = page.one("body").text
    page.emulate()
    for run in SMALL.runs:
        for chart in (*run.grids, *run.lines):
            assert chart.title in text
            assert chart.summary in text
    for table in SMALL.tables:
        assert table.caption in text
    assert "Charts need JavaScript" in text
    assert "Run" in text
    page.reload()


# Layout and speed.


def test_a_detail_is_beside_the_heat_maps_or_below_the_one_that_opened_it(page: Opened) -> None:
    page.emulate(width=1600)
    figure = page.chart("agreement", run=0)
    page.point_at(figure, (2, 4))
    page.click()
    assert page.focus.text == NAMES[4]
    beside = page.one(".detail").rect
    assert beside["x"] >= figure.rect["x"] + figure.rect["width"]
    assert beside["x"] + beside["width"] <= 1600
    page.emulate(width=400)
    assert page.one(".detail").rect["y"] >= figure.rect["y"] + figure.rect["height"]
    assert page.js("document.querySelector('.detail').previousElementSibling.dataset.key") == "agreement"


def test_tab_reaches_all_that_can_be_used_and_leaves_it_again(page: Opened) -> None:
    """In the order of the page; charts that are drawn on the way have their own buttons."""
    reached: list[str] = []
    while len(reached) < 200:
        page.press(Keys.TAB)
        if page.focus.tag_name == "body":
            break
        reached.append(page.focus.id)
    kinds = "a, button, select, input, summary, [tabindex='0']"
    usable = page.js(f"[...document.querySelectorAll({kinds!r})].filter((each) => each.checkVisibility())")
    assert reached == [each.id for each in usable]


def test_a_run_of_one_checkpoint_has_a_place_for_its_point(browser: webdriver.Chrome, tmp_path: Path) -> None:
    point = Series(name="p", x=np.array([5]), y=np.array([2.0]))
    lines = Lines(key="one", title="One", x_label="step", y_label="y", summary="One point.", series=[point])
    document = Document(title="T", lead="L", runs=[RunView(name="r", lines=[lines])])
    with open_page(browser, tmp_path / "one.html", document) as page:
        figure = page.chart("one", run=0)
        (axis,) = page.drawn(figure, "chart.getOption().xAxis")
        assert (axis["min"], axis["max"], axis["axisLabel"]["customValues"]) == (4.5, 5.5, [5])
        page.point_at(figure, (5, 2))
        assert page.visible_text(".line-tip") == "step 5\np\n2"


def test_only_what_is_looked_at_is_built(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Of 28 matrices, a few charts; and moving from cell to cell draws none anew."""
    document = Document(title="T", lead="L", runs=[run_view("r", STEPS[:30], transformer_names(4), 0)])
    with open_page(browser, tmp_path / "large.html", document) as page:
        page.wait("document.querySelector('.detail canvas') !== null")
        assert page.js("document.querySelectorAll('.detail').length") == 1
        assert page.js("document.querySelectorAll('.canvas:has(canvas)').length") < page.js(
            "document.querySelectorAll('.canvas').length"
        )
        figure = page.chart("effective_rank", run=0)
        page.js("arguments[0].querySelector('.plot').focus()", figure)
        drawings = "(window.drawings = 0, chart.on('rendered', () => { window.drawings += 1; }), null)"
        page.drawn(figure, drawings)
        page.press(Keys.ENTER)
        page.press(Keys.ESCAPE)
        page.wait("document.activeElement.className === 'plot'")
        before = page.js("window.drawings")
        page.press(*[Keys.ARROW_DOWN] * 30)
        last = document.runs[0].grids[0]
        assert page.one("#spoken").text.startswith(f"{last.names[-1]}, step {last.x.values[-1]}: ")
        assert page.js("window.drawings") == before


# Names are text.


def test_names_are_text_everywhere(page: Opened) -> None:
    """Nothing that a name says is executed or becomes an element, wherever names are shown."""
    elements = "['script', 'img', 'iframe'].map((tag) => document.getElementsByTagName(tag).length)"
    before = page.js(elements)
    assert before == [4, 0, 0]
    assert page.texts("#choose-run option") == [NAMES[0], NAMES[4]]
    figure = page.chart("effective_rank", run=0)
    labels = page.drawn(figure, "(({data, axisLabel}) => data.map(axisLabel.formatter))(chart.getOption().yAxis[0])")
    assert labels[2] == "$x$"
    for row, name in enumerate(NAMES):
        page.point_at(page.chart("effective_rank", run=0), (1, row))
        assert page.texts(".run[data-run='0'] .tip .name")[0] == name
        page.click()
        assert page.texts(".run[data-run='0'] .detail h4") == [name]
    named = page.chart("named")
    assert page.texts("h3, .summary, .axis-label", named) == [NAMES[1], NAMES[4], NAMES[3]]
    assert page.texts(".legend button", named) == NAMES
    assert page.one(".canvas", named).accessible_name == f"{NAMES[1]}. {NAMES[4]}"
    page.point_at(named, page.drawn(named, "chart.getOption().series[0].data[2].value"))
    assert page.texts(".line-tip .name") == NAMES
    assert page.texts(".line-tip .where") == [f"{NAMES[2]} 2"]
    assert page.table(named)[0] == [NAMES[2], *NAMES]
    assert page.js(elements) == before
    assert page.browser.title == f"Spectra of {NAMES[0]}"


# A report of real tables.


def test_the_report_of_the_fixtures(browser: webdriver.Chrome, tmp_path: Path, fixture_tables: Path) -> None:
    """Hover and click show the numbers that pandas reads from the tables."""
    paths = [*fixture_tables.glob("grok/*.parquet"), *fixture_tables.glob("metrics/*/metrics.parquet")]
    document = make_document(gathered(*sorted(paths)), title="Grokking")
    rank = pd.read_parquet(fixture_tables / "grok" / "rank.parquet").query("run == 'seed_0' and status == 'ok'")
    parameter = "transformer_encoder.layers.0.linear2.weight"
    with open_page(browser, tmp_path / "report.html", document) as page:
        figure = page.chart("effective_rank", run=0)
        heads, *rows = page.table(figure)
        names = [cells[0] for cells in rows]
        found = pd.DataFrame([cells[1:] for cells in rows], index=names, columns=[int(step) for step in heads[1:]])
        expected = rank.pivot(index="parameter", columns="step", values="effective_rank_normalized")
        pd.testing.assert_frame_equal(
            found.astype(float), expected.loc[names], check_names=False, rtol=6e-4, check_column_type=False
        )
        column = found.columns.get_loc(2500)
        page.point_at(page.chart("effective_rank", run=0), (column, names.index(parameter)))
        value = expected.loc[parameter, 2500]
        assert page.visible_text(".tip") == f"{parameter}\nstep 2500: {said(value)}"
        page.click()
        panel = page.one(".run[data-run='0'] .detail")
        assert page.texts("h4", panel) == [parameter]
        spectra = next(figure for figure in page.all("figure", panel) if "singular" in figure.text.lower())
        heads, *rows = page.table(spectra)
        own = rank.query("parameter == @parameter").set_index("step").sort_index()
        assert [int(cells[0]) for cells in rows] == own.index.tolist()
        first = [float(cells[1]) for cells in rows]
        np.testing.assert_allclose(first, [values[0] for values in own.singular_values], rtol=6e-4)
        for run, view in enumerate(document.runs):
            Select(page.one("#choose-run")).select_by_index(run)
            for chart in (*view.grids, *view.lines):
                page.chart(chart.key, run=run)
