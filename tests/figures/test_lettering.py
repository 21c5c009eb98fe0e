"""Text from files stands in figures as text: visible, bounded, never mathematics, and names stay apart."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from spectra_cli.figures.canvas.lettering import fitted_name, heading_columns, plain, plain_names, title_columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers.0.weight", "layers.0.weight"),
        ("_leading %s {x}", "_leading %s {x}"),
        ("$x^2$", r"\$x^2\$"),
        ("a\\b", "a\\b"),
        ("two\nlines\t", r"two\nlines\t"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\ud800", r"\ud800"),
        ("\x00", r"\x00"),
        ("größer → λ", "größer → λ"),
        ("名", r"\u540d"),
        (None, "None"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_becomes_an_escape(text: object, expected: str) -> None:
    r"""Control characters, changes of direction, what the font lacks; a dollar sign is escaped for matplotlib."""
    assert plain(text) == expected


def test_long_text_keeps_both_ends() -> None:
    assert plain("a" * 5000 + "b" * 5000, 21) == "a" * 10 + "…" + "b" * 10
    assert plain("x" * 100) == "x" * 100
    assert len(plain("x" * 101)) == 100


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.integers(3, 60))
def test_any_text_can_be_drawn_and_is_never_mathematics(text: str, width: int) -> None:
    """Without a warning that a glyph is missing, in one line, and as many letters as it has columns at most."""
    shown = plain(text, width)
    assert len(shown.replace("\\$", "$")) <= width
    assert not set(shown) & set("\n\r\x0b\x0c\x1c\x85\u2028\u2029\u202e")
    figure = Figure(figsize=(1, 1))
    drawn = figure.text(0, 0, shown)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    assert drawn._preprocess_math(shown)[1] is False


PARTS = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
NEOX = [f"gpt_neox.layers.{layer}.{part}.weight" for layer in range(32) for part in PARTS]


def test_names_of_matrices_keep_their_layers_and_last_components() -> None:
    short = plain_names(NEOX, 36)
    assert len(set(short)) == len(NEOX)
    assert short[40] == "g.l.10.attention.query_key_value"
    assert max(map(len, short)) <= 36


def test_names_of_connections_are_shortened_on_either_side() -> None:
    names = [f"residual: {up} -> {down}" for up, down in pairwise(NEOX)]
    short = plain_names(names, 72)
    assert len(set(short)) == len(names)
    assert short[0] == "residual: g.l.0.a.query_key_value → g.l.0.a.dense"
    assert max(map(len, short)) <= 72


def test_names_get_more_room_before_they_become_alike() -> None:
    names = ["x" * 30 + letter + "y" * 30 for letter in "ab"]
    assert len(set(plain_names(names, 16))) == 2
    numbered = plain_names(names, 16, most=24)
    assert [name[-4:] for name in numbered] == [" (1)", " (2)"]
    assert all(len(name) <= 24 + len(" (1)") for name in numbered)


def test_absurd_names_take_no_time() -> None:
    """Thousands of components: the work would grow with their square."""
    name = "h." * 50_000 + "weight"
    assert len(plain_names([name, f"{name}2", f"residual: {name} -> {name}"], 40)[0]) <= 40
    assert len(fitted_name(f"residual: {name} -> {name}", 60)) <= 60


def test_a_single_name_is_shortened_only_if_it_must_be() -> None:
    assert fitted_name("model.layers.0.q_proj.weight", 40) == "model.layers.0.q_proj.weight"
    assert fitted_name("model.layers.0.q_proj.weight", 20) == "m.layers.0.q_proj"
    assert fitted_name("r: model.a.weight -> model.b.weight", 24) == "r: model.a → model.b"


@pytest.mark.parametrize("columns", [1, 4])
def test_letters_of_a_title_fit_above_a_panel(columns: int) -> None:
    """As many as are said to fit, of the average width of names."""
    figure = Figure(figsize=(12, 3))
    axis = figure.subplots(1, columns, squeeze=False)[0, 0]
    for room, width in ((title_columns(axis), 12 / columns), (heading_columns(figure), 12)):
        text = figure.text(0, 0, ("layers.10.query_key_value." * 20)[:room], fontsize=9)
        assert text.get_window_extent().width / figure.dpi <= width
