"""`spectra report`: one page from all tables in a directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.cli.main import run
from spectra_cli.figures.page.file import write_page
from spectra_cli.tables.writer import TableWriter

GROKKING = Path(__file__).parents[2] / "fixtures" / "grokking"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank, align and sva of a few checkpoints of one run."""
    home = tmp_path_factory.mktemp("report")
    assert run(["analyze", str(GROKKING / "seed_0"), "--steps", "0,500,5000", "--out", str(home / "t"), "-q"]) == 0
    return home / "t"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_page_of_a_directory(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tables), str(GROKKING / "seed_0" / "metrics.parquet")]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "seed_0" in page
    assert "transformer_encoder.layers.0.linear2.weight" in page
    assert "report.html: 4 tables, 1 run, " in capsys.readouterr().err


def test_the_same_tables_give_the_same_page(tables: Path) -> None:
    assert run(["report", str(tables), "--out", "a.html", "-q"]) == 0
    assert run(["report", str(tables), "--out", "b.html", "-q"]) == 0
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_json_and_the_title(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tables), "--title", "Ours & <theirs>", "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == Path("report.html").stat().st_size
    assert said["runs"] == ["seed_0"]
    assert "<title>Ours &amp; &lt;theirs&gt;</title>" in Path("report.html").read_text()


def test_what_is_no_table_is_named_and_passed_over(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mixed").mkdir()
    for path in tables.iterdir():
        os.symlink(path, Path("mixed", path.name))
    pq.write_table(pa.table({"a": [1]}), "mixed/theirs.parquet")
    assert run(["report", "mixed"]) == 0
    assert "theirs.parquet: this Parquet file is none that spectra wrote; passed over" in capsys.readouterr().err
    assert "theirs.parquet" in Path("report.html").read_text()


def test_checkpoints_without_a_step_are_named_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mixed").mkdir()
    with TableWriter(Path("mixed/rank.parquet"), "rank") as writer:
        writer.write({"run": "a", "checkpoint": f"c{step}", "step": step, "status": "ok"} for step in (1, 2, None))
    assert run(["report", "mixed"]) == 0
    assert "Warning: a: 1 checkpoint has no step, left out (cNone)" in capsys.readouterr().err


def test_empty_tables_only_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    TableWriter(Path("empty/rank.parquet"), "rank").close()
    assert run(["report", "empty"]) == 1
    assert "no table has a row. Make tables with spectra analyze RUN --out DIR" in capsys.readouterr().err
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("out", "said", "status"),
    [
        ("report.parquet", "Give --out a name in .html", 2),
        ("nowhere/report.html", "there is no such directory", 1),
        ("mine.html", "this file is no report of spectra", 1),
        ("pipe.html", "this is a pipe", 1),
    ],
)
def test_out_is_a_new_page_or_an_older_one(
    out: str, said: str, status: int, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.html").write_text("<!doctype html><title>precious</title>")
    os.mkfifo("pipe.html")
    assert run(["report", str(tables), "--out", out]) == status
    assert said in capsys.readouterr().err
    assert Path("mine.html").read_text() == "<!doctype html><title>precious</title>"


def test_an_older_page_is_replaced_and_a_link_to_one_stays_a_link(tables: Path) -> None:
    assert run(["report", str(tables), "--out", "a.html", "-q", "--title", "old"]) == 0
    os.symlink("a.html", "link.html")
    assert run(["report", str(tables), "--out", "link.html", "-q", "--title", "new"]) == 0
    assert Path("link.html").is_symlink()
    assert "<title>new</title>" in Path("a.html").read_text()


def test_a_page_that_cannot_be_written_leaves_the_older_one(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["report", str(tables), "--out", "a.html", "-q"]) == 0
    before = Path("a.html").read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_page("\ud800", Path("a.html"))
    assert Path("a.html").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["a.html"]


def test_neither_torch_nor_matplotlib_is_loaded(tables: Path) -> None:
    code = (
        f"import sys; from spectra_cli.cli.main import run; assert run(['report', {str(tables)!r}, '-q']) == 0; "
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_notebook_makes_a_page(tables: Path) -> None:
    import spectra_cli

    assert spectra_cli.report(tables, out="page.html", title="From a notebook") == Path("page.html")
    assert "From a notebook" in Path("page.html").read_text()
