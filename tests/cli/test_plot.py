"""`spectra plot`: which figures are drawn, where they go, and what is said of those that are not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from spectra_cli.cli.main import run
from spectra_cli.figures.plots.registry import FIGURES
from spectra_cli.tables.writer import TableWriter
from tests.cli.trajectories import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
GROKKING = ROOT / "fixtures" / "grokking"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank, align and sva of a few checkpoints of one run."""
    home = tmp_path_factory.mktemp("plot")
    assert run(["analyze", str(GROKKING / "seed_0"), "--steps", "0,500,5000", "--out", str(home / "t"), "-q"]) == 0
    return home / "t"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], arguments: Sequence[object], status: int = 0) -> str:
    assert run(["plot", *map(str, arguments)]) == status
    return capsys.readouterr().err


def test_every_figure_that_a_directory_offers_is_drawn(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, [tables, GROKKING / "seed_0" / "metrics.parquet"])
    names = {path.name for path in Path("figures").iterdir()}
    assert {f"{name}.png" for name in ("effective_rank", "alignment_score", "agreement_score")} <= names
    drawn = {name.split("-")[0].removesuffix(".png") for name in names}
    assert drawn == {
        *("singular_values", "effective_rank", "alignment_diagonal", "alignment_score"),
        *("agreement_diagonal", "agreement_score", "metrics", "grokking"),
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in Path("figures").iterdir())
    assert f"{len(names)} figures from 4 tables" in said
    for name in ("singular_values", "agreement_diagonal", "grokking"):
        assert re.search(rf"^figures/{name}.*the middle one of 6 matrices", said, re.MULTILINE)


def test_the_images_are_what_format_says(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rank = tables / "rank.parquet"
    printed(capsys, [rank, "--figure", "effective_rank", "--format", "svg", "--out", "a"])
    printed(capsys, [rank, "--figure", "effective_rank", "--format", "pdf", "--out", "a"])
    assert sorted(path.name for path in Path("a").iterdir()) == ["effective_rank.pdf", "effective_rank.svg"]
    assert "<svg" in Path("a/effective_rank.svg").read_text()
    assert Path("a/effective_rank.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_for_each_matrix_that_matches(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = ["--figure", "singular_values", "--parameter", "*linear?.weight", "--parameter", "decoder.weight"]
    printed(capsys, [tables, *choice, "-q"])
    assert len(list(Path("figures").iterdir())) == 3


def test_json_lists_the_figures(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plot", str(tables), "--figure", "agreement_score", "--json", "-q"]) == 0
    (figure,) = json.loads(capsys.readouterr().out)["figures"]
    assert figure["file"] == "figures/agreement_score.png"
    assert figure["figure"] == "agreement_score"


def written(path: str, rows: Sequence[dict[str, object]], table: str = "rank") -> str:
    with TableWriter(Path(path), table) as writer:
        writer.write(rows)
    return path


def test_an_empty_table_is_an_error_that_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, [written("empty.parquet", [])], status=1)
    assert "empty.parquet: the table has no rows. Make it again of a PATH that has checkpoints" in said
    assert not Path("figures").exists()


def test_an_empty_table_among_others_is_passed_over(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, [tables / "rank.parquet", written("empty.parquet", [], "align")], status=3)
    assert "Warning: empty.parquet: the table has no rows; passed over" in said
    assert Path("figures/effective_rank.png").exists()


def test_one_checkpoint_only_says_what_to_do(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rank", str(GROKKING / "seed_0"), "--steps", "500", "--out", "one.parquet", "-q"]) == 0
    said = printed(capsys, ["one.parquet"], status=1)
    assert "one checkpoint" in said
    assert "more checkpoints" in said


def test_a_glob_that_matches_nothing_is_told_with_what_there_is(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, [tables, "--parameter", "encodr*"], status=2)
    assert "--parameter encodr*" in said.replace("'", "")
    assert "encoder.weight" in said
    said = printed(capsys, [tables, "--connection", "no such"], status=2)
    assert "--connection no such" in said.replace("'", "")
    assert "up-down" in said


def test_a_figure_that_is_not_known_or_lacks_a_table(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean effective_rank?" in printed(capsys, [tables, "--figure", "effective-rank"], status=2)
    said = printed(capsys, [tables, "--figure", "grokking"], status=1)
    assert "Give the one of spectra train or spectra prune-eval as well" in said
    said = printed(capsys, [tables, "--x", "seed"], status=2)
    assert "no table of barrier is among these" in said


def test_without_matplotlib_the_extra_is_named(
    tables: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "spectra_cli.figures.plots.drawing.find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    assert "pip install 'spectra-weights[plot]'" in printed(capsys, [tables], status=1)


def test_neither_torch_nor_pyplot_is_loaded(tables: Path) -> None:
    """Figures come from tables: no second of importing torch, and no global state or display of pyplot."""
    code = (
        "import sys; from spectra_cli.cli.main import run; "
        f"assert run(['plot', {str(tables)!r}, '-q', '--out', 'figures']) == 0; "
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_notebook_gets_the_figures(tables: Path) -> None:
    import spectra_cli

    figures = spectra_cli.plot(tables, figure=["effective_rank", "agreement_score"], out="images")
    assert list(figures) == ["effective_rank", "agreement_score"]
    assert figures["effective_rank"].axes
    assert sorted(path.name for path in Path("images").iterdir()) == ["agreement_score.png", "effective_rank.png"]
    with pytest.warns(UserWarning, match="no rows; passed over"):
        spectra_cli.plot([tables / "rank.parquet", written("e.parquet", [])], figure="effective_rank")


def test_a_choice_of_one_matrix_needs_a_figure_of_one(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(capsys, [tables, "--figure", "effective_rank", "--parameter", "encoder*"], status=2)
    assert "--parameter encoder*: none of these figures is of one" in said
    assert "singular_values" in said


def test_directories_above_the_images_are_made_as_well(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, [tables, "--figure", "effective_rank", "--out", "a/b/c"])
    assert Path("a/b/c/effective_rank.png").exists()


def test_the_function_checks_what_the_command_line_checks(tables: Path) -> None:
    import spectra_cli
    from spectra_cli.errors import UsageError

    for wrong in ({"x_scale": "nope"}, {"over": "seed"}, {"y_scale": "symlog"}, {"image_format": "jpg"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            spectra_cli.plot(tables, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a DataFrame is no table in a file"):
        spectra_cli.plot(pd.DataFrame({"run": ["a"]}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_that_is_listed_can_be_drawn(name: str) -> None:
    kind = FIGURES[name]
    assert kind.name == name
    assert hasattr(importlib.import_module(f"spectra_cli.figures.plots.{kind.module}"), f"draw_{name}")


@pytest.mark.parametrize(
    ("configuration", "backend"),
    [
        (b"text.usetex: true\nlines.linewidth: 9\nsavefig.transparent: true\nfont.size: 30\n", None),
        (b"\xff\xfe nonsense", "nonsense"),
    ],
)
def test_a_configuration_of_matplotlib_has_no_say(
    configuration: bytes, backend: str | None, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are the same, text goes through no LaTeX, and what is damaged or unknown ends nothing."""
    rank = str(tables / "rank.parquet")
    assert run(["plot", rank, "--figure", "effective_rank", "-q", "--out", "plain"]) == 0
    Path("matplotlibrc").write_bytes(configuration)
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    if backend is not None:
        monkeypatch.setenv("MPLBACKEND", backend)
    code = (
        f"from spectra_cli.cli.main import run; assert run(['plot', {rank!r}, '--figure', 'effective_rank', '-q']) == 0"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert Path("figures/effective_rank.png").read_bytes() == Path("plain/effective_rank.png").read_bytes()


def test_only_older_images_are_replaced_and_links_are_not_followed(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("figures").mkdir()
    Path("thesis.txt").write_text("precious")
    Path("figures/effective_rank.png").symlink_to("../thesis.txt")
    arguments = [tables / "rank.parquet", "--figure", "effective_rank"]
    printed(capsys, arguments)
    printed(capsys, arguments)
    assert Path("thesis.txt").read_text() == "precious"
    assert Path("figures/effective_rank.png").read_bytes().startswith(b"\x89PNG")
    Path("figures/effective_rank.png").write_text("notes")
    said = printed(capsys, arguments, status=1)
    assert "figures/effective_rank.png: this file is no image; a figure does not replace it" in said
    assert Path("figures/effective_rank.png").read_text() == "notes"


WAITING = """
from pathlib import Path
from spectra_cli.figures.plots import drawing
from tests.cli.trajectories import until

draw_all = drawing.draw_all

def waiting_before(number):
    def drawn(*arguments):
        for count, each in enumerate(draw_all(*arguments)):
            if count == number:
                Path("waiting").touch()
                until(Path("go").exists)
            yield each
    return drawn

drawing.draw_all = waiting_before({number})
"""
"""What Python does first in a process that is to be interrupted when so many kinds of figures are saved."""


@pytest.mark.parametrize(
    ("sent", "ended"), [(signal.SIGINT, (130, "Error: interrupted")), (signal.SIGTERM, (143, "Error: terminated"))]
)
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "no figure was written."),
        (1, "1 figure is written to figures."),
        (2, "2 figures are written to figures."),
    ],
)
def test_a_signal_is_told_with_the_figures_that_are_there(
    number: int, said: str, sent: int, ended: tuple[int, str], tables: Path
) -> None:
    """Ctrl-C, and what SLURM sends at the end of the time."""
    (home := Path("site").absolute()).mkdir()
    (home / "sitecustomize.py").write_text(WAITING.format(number=number))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), str(ROOT)])}
    names = ["effective_rank", "alignment_score", "agreement_score"]
    line = [sys.executable, "-m", "spectra_cli", "plot", tables, *(f"--figure={name}" for name in names)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            until(lambda: Path("waiting").exists() or process.poll() is not None)
            process.send_signal(sent)
            _, told = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, told.splitlines()[-1]) == (ended[0], f"{ended[1]}: {said}")
    assert {path.name for path in Path("figures").glob("*")} == {f"{name}.png" for name in names[:number]}
