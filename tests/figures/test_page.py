"""What the page is as a file: it holds all numbers, loads nothing, and takes no name for markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Context, Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from spectra_cli.figures.page import rendering as page
from spectra_cli.figures.page.data import LABEL_WIDTHS, readable, row_labels
from spectra_cli.figures.page.document import Axis, Detail, Document, Grid, Lines, RunView, Series, TextTable
from spectra_cli.figures.page.file import HEAD_BYTES
from spectra_cli.figures.page.numbers import numbers, packed
from spectra_cli.figures.page.text import significant
from tests.figures.documents import HOSTILE, small, transformer_names

ASSETS = Path(page.__file__).parent / "assets"
ECHARTS_SHA256 = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
"""Of dist/echarts.min.js in the npm package echarts 6.1.0."""

REFERENCES = {
    "src",
    "srcset",
    "href",
    "action",
    "formaction",
    "data",
    "poster",
    "background",
    "ping",
    "cite",
    "manifest",
}
"""Attributes by which a page may load something."""


class Parsed(HTMLParser):
    """Elements, their attributes, the text of scripts, and the text that is shown."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.comments: list[str] = []
        self._within = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - as HTMLParser has it
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def data(self) -> Any:
        """What the page's script reads."""
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def source() -> str:
    return page.render(small())


@pytest.fixture(scope="module")
def parsed(source: str) -> Parsed:
    return Parsed(source)


def unpacked(text: str) -> list[float]:
    """Decoded by hand: three bytes are the upper ones of a little-endian float32."""
    stream = base64.b64decode(text, validate=True)
    assert len(stream) % 3 == 0
    return [struct.unpack("<f", b"\0" + stream[i : i + 3])[0] for i in range(0, len(stream), 3)]


def policy(parsed: Parsed) -> dict[str, list[str]]:
    """Directives of the page's Content-Security-Policy."""
    metas = [attrs for tag, attrs in parsed.elements if tag == "meta"]
    (content,) = [str(attrs["content"]) for attrs in metas if attrs.get("http-equiv") == "Content-Security-Policy"]
    return {words[0]: words[1:] for words in (part.split() for part in content.split(";"))}


# Numbers.


def shown(value: float) -> str:
    """What the page's script makes of a number: as it is told in numbers.js, whose rounding JavaScript defines."""
    if value == int(value) and abs(value) <= 65536:
        return str(int(value))
    return four_digits(Context(prec=4, rounding=ROUND_HALF_UP).create_decimal(Decimal(value)))


def four_digits(number: Decimal) -> str:
    """The digits of a number that has four, and their power of ten."""
    return f"{number:.3e}"


def to_be_shown(value: float) -> str:
    """Python's own four significant digits; whole numbers whole where 16 bits hold them."""
    if value == int(value) and abs(value) <= 65536:
        return str(int(value))
    return four_digits(Decimal(f"{value:.3e}"))


def normalised(text: str) -> str:
    """Whole numbers of four digits and less are the same written in both ways."""
    return f"{Decimal(text):.3e}"


ORDINARY = st.floats(min_value=2.0**-126, max_value=3.39e38)


@given(st.lists(st.one_of(ORDINARY, ORDINARY.map(lambda value: -value), st.floats(1000, 70_000), st.just(0.0))))
def test_a_number_is_shown_with_the_digits_that_it_was_given_with(values: list[float]) -> None:
    assert [normalised(shown(value)) for value in unpacked(packed(values))] == [
        normalised(to_be_shown(value)) for value in values
    ]


def test_numbers_near_the_middle_of_two_are_shown_as_python_rounds_them() -> None:
    """Where the nearest number of 16 bits would be written with other digits, and where both round ties otherwise."""
    generator = np.random.default_rng(5)
    halves = (generator.integers(1000, 10_000, 3000) + 0.5) * 10.0 ** generator.integers(-40, 34, 3000)
    ties = [1.0625, 1.1875, 1000.5, 1001.5, 2048.5, 0.03125 * 33, 10_005.0, 65_535.9, 65_536.4, 65_537.0]
    values = [*halves, *np.nextafter(halves, 0), *np.nextafter(halves, np.inf), *ties, *(-tie for tie in ties)]
    values += [*generator.uniform(9000, 70_000, 3000), 9.99949999e-3, 9.9995e-3, 0.000999999999]
    got = unpacked(packed(values))
    assert [v for v, g in zip(values, got, strict=True) if normalised(shown(g)) != normalised(to_be_shown(v))] == []
    assert any(normalised(shown(nearest(value))) != normalised(to_be_shown(value)) for value in values)


def nearest(value: float) -> float:
    """The nearest number of 16 significant bits."""
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(fraction, 16)), exponent - 16)


@given(st.lists(ORDINARY))
def test_a_packed_number_keeps_fifteen_bits(values: list[float]) -> None:
    """So that lines are as smooth as the numbers; some from 10,000 to 65,536 have four decimal digits instead."""
    for before, after in zip(values, unpacked(packed(values)), strict=True):
        assert after == pytest.approx(before, rel=2.0**-15 if not 1e4 <= before <= 65_537 else 5e-4)


def test_what_is_no_number_is_kept_as_such() -> None:
    got = unpacked(packed([math.nan, math.inf, -math.inf, 0.0, -0.0]))
    assert math.isnan(got[0])
    assert got[1:] == [math.inf, -math.inf, 0.0, 0.0]


@given(st.integers(-65536, 65536))
def test_counts_are_packed_exactly(count: int) -> None:
    assert unpacked(packed([count])) == [count]


@pytest.mark.parametrize("extreme", [1e300, -1e300, 1e-50, 3.4028234e38, 5e-39, 5e-324, 1.7976931348623157e308])
def test_numbers_that_a_float32_has_not_are_listed_as_they_are(extreme: float) -> None:
    listed = numbers([extreme, 0.123456, math.nan, math.inf, -math.inf, 12_345, 12_345.6, 0.0])
    assert listed == [pytest.approx(extreme, rel=5e-4), 0.1235, None, "Infinity", "-Infinity", 12_345, 12_350, 0]
    assert json.loads(json.dumps(listed, allow_nan=False)) == listed
    assert isinstance(numbers([0.123456, math.nan, math.inf, 3e38, 1.2e-38]), str)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_numbers_in_tables_have_four_significant_digits(value: float) -> None:
    written = significant(value)
    if value == int(value) and abs(value) < 1e15:
        assert written == str(int(value))
    else:
        assert float(written) == float(f"{value:.4g}")
        digits = written.lstrip("-").partition("e")[0]
        assert digits == digits.rstrip("0") or "." not in digits


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.5, "0.5"),
        (0.00012346, "0.0001235"),
        (0.0000999, "9.99e-5"),
        (1234.56, "1235"),
        (65536.0, "65536"),
        (99999.5, "100000"),
        (9.9996, "10"),
        (1.5e17, "1.5e17"),
        (math.nan, "\N{EN DASH}"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_in_tables_are_written_plainly(value: float, written: str) -> None:
    assert significant(value) == written


def test_the_page_holds_every_number_of_the_document(parsed: Parsed) -> None:
    document, data = small(), parsed.data
    for run, shown in zip(document.runs, data["runs"], strict=True):
        pairs = [*zip(run.grids, shown["grids"], strict=True), *zip(run.lines, shown["lines"], strict=True)]
        for detail, shown_detail in zip(run.details, shown["details"], strict=True):
            pairs += zip(detail.charts, shown_detail["charts"], strict=True)
        for chart, shown_chart in pairs:
            assert_same_numbers(chart, shown_chart, data)


def assert_same_numbers(chart: Grid | Lines, shown: dict[str, Any], data: dict[str, Any]) -> None:
    if isinstance(chart, Grid):
        assert unpacked(shown["values"]) == pytest.approx(chart.values.ravel().tolist(), rel=2.0**-15, nan_ok=True)
        assert data["axes"][shown["x"]] == list(chart.x.values)
        assert data["names"][shown["names"]]["full"] == [readable(name) for name in chart.names]
        notes = {cell: note for note, cells in shown["notes"] for cell in cells}
        assert notes == {row * len(chart.x.values) + column: note for (row, column), note in chart.notes.items()}
        return
    for series, shown_series in zip(chart.series, shown["series"], strict=True):
        assert data["axes"][shown_series["x"]] == series.x.tolist()
        assert unpacked(shown_series["y"]) == pytest.approx(series.y.tolist(), rel=2.0**-15, nan_ok=True)
        if series.band is not None:
            assert unpacked(shown_series["band"]) == pytest.approx(series.band.tolist(), rel=2.0**-15)


def test_what_charts_share_is_in_the_page_once(parsed: Parsed) -> None:
    axes, names = parsed.data["axes"], parsed.data["names"]
    assert len({json.dumps(axis) for axis in axes}) == len(axes) < 5  # of dozens of charts
    assert len(names) == 3  # matrices, connections, and indices of singular vectors


# Strangers' names.


def test_names_are_text_and_nothing_else(parsed: Parsed) -> None:
    tags = [tag for tag, _ in parsed.elements]
    assert "img" not in tags
    assert tags.count("script") == 4
    assert not parsed.comments
    handlers = [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    assert handlers == []
    assert HOSTILE[0] in parsed.texts
    assert [option for option in parsed.texts if option == readable(HOSTILE[4])]


def test_no_name_makes_an_element_or_an_attribute(parsed: Parsed) -> None:
    """The page of hostile names has the structure of that of harmless ones."""
    harmless = Parsed(page.render(small(("first", "second", "third", "fourth", "fifth", "sixth"))))
    structures = [[(tag, *attrs) for tag, attrs in each.elements] for each in (parsed, harmless)]
    assert structures[0] == structures[1]


@pytest.mark.parametrize("title", ["\udcff seeds", "$policy ${script} $$", "\\1 \\g<0> {title} %s"])
def test_any_title_is_shown_as_it_is(title: str) -> None:
    """Lone surrogates as in file names that are no UTF-8, and what templates replace."""
    source = page.render(Document(title=title, lead=title, limits=[title]))
    assert source.encode()
    assert Parsed(source).texts.count(readable(title)) == 4  # in the head, heading, lead and list


def test_a_page_says_what_made_it_before_anything_that_a_stranger_wrote() -> None:
    source = page.render(Document(title="x" * 500_000, lead="y" * 500_000))
    assert 0 < source.index(page.GENERATOR) < HEAD_BYTES
    tags = [tag for tag, _ in Parsed(source).elements]
    assert tags[:5] == ["html", "head", "meta", "meta", "meta"]
    policy_at = source.index("Content-Security-Policy")
    assert all(policy_at < source.index(f"<{tag}") for tag in ("style", "link", "script", "title"))


def test_data_can_end_no_script_element(source: str) -> None:
    start = source.index('id="data">') + len('id="data">')
    data = source[start : source.index("</script>", start)]
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["runs"][0]["details"][0]["name"] == HOSTILE[0]


def test_what_steers_a_line_of_text_is_escaped(source: str) -> None:
    for steering in ("\u202e", "\u2069", "\u2028", "\x00"):
        assert steering not in source
    assert "left\\u202egnp.exe\\u2069\\nright\\u2028\\x00\\ud800" in source
    source.encode()  # no lone surrogate


@given(st.text(), st.integers(8, 40))
def test_readable_text_is_printable_and_fits(text: str, width: int) -> None:
    shown = readable(text, width)
    assert shown.isprintable()
    assert cell_len(shown) <= width
    assert shown.encode().decode() == shown


def test_names_of_megabytes_are_cut() -> None:
    assert len(readable("x" * 5_000_000)) == 2000
    shown = readable("start" + "y" * 5_000_000 + "end", 40)
    assert (len(shown), shown[:5], shown[-3:]) == (40, "start", "end")


@pytest.mark.parametrize("widths", LABEL_WIDTHS.values())
def test_labels_of_rows_fit_and_tell_rows_apart(widths: tuple[int, int]) -> None:
    """Those of a whole transformer, with room and without."""
    names = transformer_names()
    labels = row_labels(names, *widths)
    assert max(map(cell_len, labels)) <= widths[0]
    assert len(set(labels)) == len(names)
    connections = [f"up-down: {a} -> {b}" for a, b in pairwise(names)]
    labels = row_labels(connections, *widths)
    assert max(map(cell_len, labels)) <= widths[1]
    assert len(set(labels)) == len(connections)


KINDS = ("query-key", "value-output", "output-up", "up-down", "residual")


@pytest.mark.parametrize("widths", LABEL_WIDTHS.values())
def test_labels_of_connections_say_their_kind(widths: tuple[int, int]) -> None:
    """Whole, with room and without, in a transformer whose names are long."""
    block = "transformer_encoder.layers"
    parts = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    names = ["embedding-input: encoder.weight -> transformer_encoder.layers.0.self_attn.in_proj_weight"]
    for layer in range(3):
        ends = [f"{block}.{layer}.{part}" for part in (parts[0], *parts)]
        ends.append(f"{block}.{layer + 1}.{parts[0]}")
        names += [f"{kind}: {a} -> {b}" for kind, (a, b) in zip(KINDS, pairwise(ends), strict=True)]
    names.append(f"output: {block}.2.linear2.weight -> decoder.weight")
    labels = row_labels(names, *widths)
    assert len(set(labels)) == len(names)
    for name, label in zip(names, labels, strict=True):
        assert re.match(rf"{name.partition(':')[0]}\b", label)
    assert not any("…" in label for label in labels)


def test_labels_keep_what_fits_and_drop_first_what_all_have() -> None:
    assert row_labels(["encoder.weight", "decoder.weight"], 30, 50) == ["encoder.weight", "decoder.weight"]
    names = [f"a_long_name.layers.{layer}.self_attn.out_proj.weight" for layer in (0, 10)]
    assert row_labels(names, 20, 30) == ["a.l.0.s.out_proj", "a.l.10.s.out_proj"]
    assert row_labels(names, 13, 20) == ["0.s.out_proj", "10.s.out_proj"]
    connection = f"output: {names[0]} -> {names[1]}"
    assert row_labels([connection], 20, 50) == ["output: a.l.0.s.out_proj→a.l.10.s.out_proj"]
    assert row_labels([connection], 20, 36) == ["output: 0.s.out_proj→10.s.out_proj"]
    assert row_labels([connection], 20, 26) == ["output 0→10"]
    assert row_labels([f"output: {names[0]} -> decoder.weight"], 13, 18) == ["output 0"]


def test_labels_give_up_the_kind_only_where_rows_would_be_alike() -> None:
    halves = [f"recurrent: lstm.weight_ih_l{i} -> lstm.weight_hh_l{i}" for i in (0, 1)]
    assert row_labels(halves, 17, 26) == ["weight_ih_l0→weight_hh_l0", "weight_ih_l1→weight_hh_l1"]


# A page that loads nothing.


def test_only_the_scripts_of_the_page_may_run(parsed: Parsed) -> None:
    directives = policy(parsed)
    executed = [
        text for text, attrs in zip(parsed.scripts, of_tag(parsed, "script"), strict=True) if not attrs.get("type")
    ]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in executed]
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == [f"'sha256-{value}'" for value in hashes]
    assert directives["img-src"] == ["data:"]
    assert set(directives) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


def test_nothing_in_the_page_points_elsewhere(parsed: Parsed) -> None:
    pointing = [value for _, attrs in parsed.elements for name, value in attrs.items() if name in REFERENCES]
    assert pointing
    assert [value for value in pointing if value is None or not value.startswith(("#", "data:,"))] == []
    style = (ASSETS / "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_colours_need_no_new_browser_and_are_the_same_for_both_ways_to_the_dark() -> None:
    """Browsers that lack a function of CSS drop the whole declaration, and with it the colour."""
    style = re.sub(r"/\*.*?\*/", "", (ASSETS / "page.css").read_text())
    assert re.findall(r"light-dark|color-mix|oklch|oklab|lab\(", style) == []
    roots = [
        dict(re.findall(r"(--[a-z]+): ([^;]+);", body)) for body in re.findall(r":root[^{]*\{(.*?)\}", style, re.S)
    ]
    light, system_dark, chosen_dark = roots
    colours = {name for name, value in light.items() if value.startswith("#")}
    assert system_dark == chosen_dark
    assert set(system_dark) == colours
    assert set(re.findall(r"var\((--[a-z]+)\)", style)) <= set(light)


def of_tag(parsed: Parsed, tag: str) -> list[dict[str, str | None]]:
    return [attrs for name, attrs in parsed.elements if name == tag]


def test_links_of_the_contents_and_labels_lead_somewhere(parsed: Parsed) -> None:
    ids = [str(attrs["id"]) for _, attrs in parsed.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    named = ("href", "aria-labelledby", "aria-describedby")
    targets = {str(attrs[name]).removeprefix("#") for _, attrs in parsed.elements for name in named if name in attrs}
    assert targets - {"data:,"} <= set(ids)


def test_the_same_document_gives_the_same_page(source: str) -> None:
    assert page.render(small()) == source


def test_another_process_makes_the_same_page(source: str) -> None:
    """Whatever the order of its sets and the encoding of its surroundings."""
    program = (
        "import hashlib; from tests.figures.documents import small; "
        "from spectra_cli.figures.page.rendering import render; "
        "print(hashlib.sha256(render(small()).encode()).hexdigest())"
    )
    surroundings = {**os.environ, "PYTHONHASHSEED": "12345", "LC_ALL": "C", "PYTHONUTF8": "0"}
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=root, env=surroundings, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == hashlib.sha256(source.encode()).hexdigest()


def test_the_order_in_which_notes_are_found_changes_nothing() -> None:
    run = small().runs[0]
    backwards = replace(run.grids[0], notes=dict(reversed(run.grids[0].notes.items())))
    documents = [Document(title="t", lead="l", runs=[replace(run, grids=[g])]) for g in (run.grids[0], backwards)]
    assert page.render(documents[0]) == page.render(documents[1])


def test_the_chart_library_is_the_published_one_with_its_licence(source: str) -> None:
    library = (ASSETS / page.ECHARTS).read_bytes()
    assert hashlib.sha256(library).hexdigest() == ECHARTS_SHA256
    assert library.decode() in source
    for name, said in (("LICENSE", "Apache License"), ("NOTICE", "Apache ECharts"), ("licenses/LICENSE-d3", "Bostock")):
        assert said in (ASSETS / "echarts" / name).read_text()


def test_the_wheel_has_all_assets() -> None:
    """The build takes every file of the package that git does not ignore."""
    files = [str(path) for path in ASSETS.rglob("*") if path.is_file()]
    assert {Path(name).name for name in files} >= {*page.SCRIPTS, "page.html", "page.css", "echarts.min.js", "NOTICE"}
    ignored = subprocess.run(["git", "check-ignore", *files], check=False, cwd=ASSETS, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip(f"not a git checkout: {ignored.stderr.strip()}")
    assert ignored.stdout == ""


# Without JavaScript.


def test_tables_and_summaries_read_without_javascript(parsed: Parsed) -> None:
    text = "".join(parsed.texts)
    assert "Charts need JavaScript" in text
    for said in ("The barrier is 1, at alpha 0.5.", "6 of 76 matrices are shown.", "700.1", "not_finite", "-0.695"):
        assert said in text
    values = [float(str(attrs["data-value"])) for attrs in of_tag(parsed, "td") if "data-value" in attrs]
    assert 700.123456 in values  # by which rows are sorted: all digits


def test_headings_go_down_one_level_at_a_time(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.elements if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(below - above for above, below in pairwise(levels)) == 1


def test_a_page_may_be_empty_or_lack_any_part() -> None:
    assert "Nothing" in page.render(Document(title="Nothing", lead="There is nothing."))
    empty = TextTable(heading="None", caption="No rows.", columns=["a"], rows=[], numeric=[False])
    only_barriers = replace(small(), runs=(), tables=[empty], limits=())
    parsed = Parsed(page.render(only_barriers))
    assert parsed.data["runs"] == []
    assert "There are none." in parsed.texts
    headings = [str(attrs["href"]) for attrs in of_tag(parsed, "a")]
    assert headings == ["#main", "#across", "#table-0"]


# The contract with who makes documents.


def a_grid(**other: Any) -> Grid:
    axis = Axis(label="step", values=[1, 2])
    made: dict[str, Any] = {"key": "k", "title": "", "value_label": "", "x": axis, "y_label": "", "names": ["a"]}
    return Grid(**{**made, "values": np.zeros((1, 2)), "domain": (0.0, 1.0), "summary": "", **other})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: a_grid(values=np.zeros((2, 1))),
        lambda: a_grid(details=[0, 1]),
        lambda: a_grid(domain=(1.0, 1.0)),
        lambda: a_grid(domain=(0.0, math.inf)),
        lambda: a_grid(x=Axis(label="step", values=[1, math.nan])),
        lambda: Series(name="s", x=np.array([0.0, math.nan]), y=np.zeros(2)),
        lambda: a_grid(key='"><script>'),
        lambda: Series(name="s", x=np.arange(2), y=np.zeros(3)),
        lambda: Series(name="s", x=np.arange(2), y=np.zeros(2), band=np.zeros(1)),
        lambda: RunView(name="r", grids=[a_grid(details=[0])]),
        lambda: RunView(name="r", opened=0),
        lambda: RunView(name="r", grids=[a_grid(), a_grid()]),
        lambda: Detail(name="d", caption="", charts=[a_grid(), a_grid()]),
        lambda: Document(title="", lead="", runs=[RunView(name="r"), RunView(name="r")]),
        lambda: TextTable(heading="h", caption="", columns=["a"], rows=[["x", 1.0]], numeric=[False]),
        lambda: TextTable(heading="h", caption="", columns=["a"], rows=[["x"]], numeric=[False], targets=[]),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(wrong: Any) -> None:
    assert a_grid()
    with pytest.raises(ValueError, match=r".+"):
        wrong()


def test_a_page_carries_the_licences_of_what_it_copies() -> None:
    licences = page.render(small()).partition('id="licences">')[2].partition("</script>")[0]
    for name in ("LICENSE", "NOTICE", "licenses/LICENSE-d3"):
        assert (ASSETS / "echarts" / name).read_text() in licences
