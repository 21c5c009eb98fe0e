"""Tables of the fixtures, made once for all tests of figures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectra_cli.cli.main import run

FIXTURES = Path(__file__).parents[2] / "fixtures"


def _made(*arguments: str) -> None:
    status = run([*arguments, "--quiet"])
    assert status == 0


@pytest.fixture(scope="session")
def fixture_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of real tables.

    ``grok/`` has rank, align, sva and prune_eval of two runs (seed_0, seed_5) and pruned.parquet (--sva-out);
    ``metrics/seed_0`` and ``metrics/seed_5`` are links to the runs. ``early.parquet`` and ``late.parquet`` are barriers
    with a tag split_step (0 and 129); ``ends_early.parquet`` and ``ends_late.parquet`` the agreement of their ends.
    """
    home = tmp_path_factory.mktemp("tables")
    grok = str(home / "grok")
    runs = str(FIXTURES / "grokking")
    _made("analyze", runs, "--out", grok)
    pruned = f"{grok}/pruned.parquet"
    _made("prune-eval", runs, "--steps", "0,500,2500,5000", "--out", f"{grok}/prune_eval.parquet", "--sva-out", pruned)
    for name, step in (("early", 0), ("late", 129)):
        ends = [str(FIXTURES / "branches" / f"{name}_{number}") for number in (1, 2)]
        outs = ["--out", str(home / f"{name}.parquet"), "--sva-out", str(home / f"ends_{name}.parquet")]
        _made("barrier", *ends, "--alphas", "5", *outs, "--tag", f"split_step={step}")
    (home / "metrics").mkdir()
    for run_name in ("seed_0", "seed_5"):
        os.symlink(FIXTURES / "grokking" / run_name, home / "metrics" / run_name)
    return home
