"""Images appear when they are complete, and are the same whenever they are made of the same tables."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from spectra_cli.errors import InputError
from spectra_cli.figures.canvas.saving import ImageFormat, save
from spectra_cli.figures.choice import Choice, Drawn
from spectra_cli.figures.plots.evolving import draw_singular_values
from spectra_cli.figures.plots.overview import draw_alignment_score
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from tests.figures.planted import align_row, rank_row, write

FORMATS: tuple[ImageFormat, ...] = ("png", "svg", "pdf")
STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}

DRAW_AND_SAVE = """
from pathlib import Path
from tests.figures.test_saving import draw_and_save
import sys
draw_and_save(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def draw_and_save(tables: Path, out: Path) -> None:
    """Lines with bands, and a heat map, in all formats."""
    gathered = Gathered([open_table(path) for path in sorted(tables.iterdir())])
    for draw in (draw_singular_values, draw_alignment_score):
        for drawn in draw(gathered, Choice(over="run")):
            for image_format in FORMATS:
                save(drawn, out, image_format)


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def small(name: str = "small") -> Drawn:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return Drawn(name, figure, "")


def test_the_same_tables_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """In all formats, whatever the seed of hashes is: lines, bands, hatching, heat maps and text."""
    tables = tmp_path / "tables"
    rank = [
        rank_row(step, "w", run=run, singular_values=[3.0 + step, 1.0]) for run in ("a", "b") for step in (0, 10, 20)
    ]
    align = [align_row(step, "u", "v", score, run=run) for run in "ab" for step, score in ((0, 0.5), (10, None))]
    write(tables / "rank.parquet", "rank", rank)
    write(tables / "align.parquet", "align", align)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    draw_and_save(tables, here)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", DRAW_AND_SAVE, str(tables), str(there)], check=True, env=environment)
    assert len(digests(here)) == 6
    assert digests(here) == digests(there)


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_has_the_name_of_the_figure_and_is_the_same_again(tmp_path: Path, image_format: Any) -> None:
    """An older one is replaced, and a link is, not what it leads to; nothing else is left there."""
    (tmp_path / "elsewhere").write_bytes(b"old")
    (tmp_path / f"small.{image_format}").symlink_to(tmp_path / "elsewhere")
    path = save(small(), tmp_path, image_format)
    assert path == tmp_path / f"small.{image_format}"
    assert (tmp_path / "elsewhere").read_bytes() == b"old"
    assert not path.is_symlink()
    first = path.read_bytes()
    assert first.startswith(STARTS[image_format])
    save(small(), tmp_path, image_format)
    assert path.read_bytes() == first
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", f"small.{image_format}"]


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_image_says_nothing_of_the_time(tmp_path: Path, image_format: Any) -> None:
    written = save(small(), tmp_path, image_format).read_bytes()
    assert b"dc:date" not in written
    assert b"CreationDate" not in written
    assert b"tIME" not in written


def test_svg_and_pdf_hold_text_that_is_found(tmp_path: Path) -> None:
    """Fonts of a PDF are TrueType, as journals ask."""
    assert b"/Subtype /Type3" not in save(small(), tmp_path, "pdf").read_bytes()


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(28, "No space left on device"), InputError), (ValueError("x"), ValueError)]
)
def test_what_fails_leaves_the_older_image_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    (tmp_path / "small.png").write_bytes(b"\x89PNG old")

    def half(self: Figure, target: Any, **_: object) -> None:
        Path(target).write_bytes(b"\x89PNG half")
        raise error

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(raised) as caught:
        save(small(), tmp_path, "png")
    assert (tmp_path / "small.png").read_bytes() == b"\x89PNG old"
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]
    if raised is InputError:
        assert "small.png" in str(caught.value)
        assert "No space left on device. Give --out" in str(caught.value)


def test_a_file_that_is_no_image_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_text("notes")
    with pytest.raises(InputError, match=r"small\.png: this file is no image; a figure does not replace it"):
        save(small(), tmp_path, "png")
    assert (tmp_path / "small.png").read_text() == "notes"


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "small.png"
    if kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(InputError, match=r"small\.png: the image cannot be written: .*directory.*Give --out"):
        save(small(), tmp_path, "png")
    assert path.is_dir() if kind == "directory" else path.is_fifo()


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file"):
        save(small(), tmp_path / "gone", "png")


def test_a_configuration_of_the_user_changes_nothing(tmp_path: Path) -> None:
    """Such as one that would have LaTeX typeset text from strangers' files."""
    import matplotlib as mpl

    first = save(small(), tmp_path, "svg").read_bytes()
    with mpl.rc_context({"text.usetex": True, "savefig.bbox": "tight", "svg.fonttype": "none", "font.size": 30}):
        assert save(small_drawn_before(), tmp_path, "svg").read_bytes() == first
        assert mpl.rcParams["text.usetex"]


def small_drawn_before() -> Drawn:
    """A figure that is drawn in the style of all figures."""
    from spectra_cli.figures.canvas.style import own_style

    with own_style():
        return small()
