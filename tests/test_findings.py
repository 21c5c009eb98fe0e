"""What the papers found, on the fixtures: the same systems at a hundredth of the size.

"Approaching Deep Learning through the Spectral Dynamics of Weights" (Yunis et al. 2024) and its companions. Where a
number says "far", it is one that these runs reach with room to spare; fixtures/README.md has the numbers themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import spectra_cli
from spectra_cli.cli.main import run as spectra

FIXTURES = Path(__file__).parents[1] / "fixtures"
SYSTEMS = {
    "modular-addition": "grokking/seed_0",
    "convolutions": "branches/trunk",
    "perceptron": "labels/true",
    "diffusion": "diffusion",
    "speech": "speech",
    "language-modeling": "language",
}


def metric(run: Path, split: str, name: str) -> Any:
    """A metric by step, as `spectra train` noted it."""
    table = pd.read_parquet(run / "metrics.parquet")
    return table[(table["split"] == split) & (table["metric"] == name)].set_index("step")["value"]


def mean_rank(run: Path) -> Any:
    """Mean normalized effective rank of all matrices, by step."""
    return spectra_cli.rank(run).groupby("step")["effective_rank_normalized"].mean()


@pytest.mark.parametrize("seed", ["seed_0", "seed_5"])
def test_grokking_comes_with_a_fall_of_the_effective_rank(seed: str) -> None:
    """With weight decay 1: by a quarter from the first checkpoint that has memorized to the first that generalizes."""
    run = FIXTURES / "grokking" / seed
    train, val, rank = metric(run, "train", "error"), metric(run, "val", "error"), mean_rank(run)
    memorized, generalized = train.index[train < 0.01][0], val.index[val == 0.0][0]
    assert val[memorized] > 0.4
    assert generalized >= 5 * memorized
    assert rank[generalized] < 0.75 * rank[memorized]
    assert rank.iloc[-1] < 0.5 * rank[memorized]  # and it goes on falling


def test_without_weight_decay_the_same_training_does_not_generalize() -> None:
    """Same initialization, data and number of steps; the effective rank stays high."""
    decayed, run = FIXTURES / "grokking" / "seed_0", FIXTURES / "grokking_without_decay" / "seed_0"
    steps = metric(run, "val", "error").index[-1]
    assert steps == metric(decayed, "val", "error").index[-1]
    assert metric(run, "train", "error")[steps] < 0.05
    assert metric(run, "val", "error")[steps] > 0.5
    assert metric(decayed, "val", "error")[steps] == 0.0
    assert mean_rank(run)[steps] > 2 * mean_rank(decayed)[steps]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_top_half_of_the_spectrum_carries_the_function(system: str, tmp_path: Path) -> None:
    """Leaving out the bottom half hurts less than two fifths of what leaving out the top half does, on both splits.

    And a mask of the largest entries keeps the top singular vectors better than a random one of the same sparsity.
    """
    out = tmp_path / "sva.parquet"
    table = spectra_cli.prune_eval(FIXTURES / SYSTEMS[system], steps="final", sva_out=out)
    assert set(table["status"]) == {"ok"}
    losses = table[table["metric"] == "loss"].set_index(["split", "variant"])["value"].unstack()
    assert set(losses.index) == {"train", "val"}
    assert (losses["top"] - losses["full"] < 0.4 * (losses["bottom"] - losses["full"])).all()
    agreement = pd.read_parquet(out).groupby("variant")["score"].mean()
    assert agreement["magnitude"] > 2 * agreement["random"]


def test_branches_that_split_late_are_connected_and_those_that_split_early_are_not() -> None:
    """A tenth of the barrier, and higher agreement of the top singular vectors."""
    branches = FIXTURES / "branches"
    barriers, agreements = {}, {}
    for when in ("early", "late"):
        one, other = (branches / f"{when}_{seed}" for seed in (1, 2))
        table = spectra_cli.barrier(one, other)
        barriers[when] = table[table["metric"] == "loss"].groupby("split")["barrier"].first()
        agreements[when] = spectra_cli.sva(one, steps="final", against=other)["score"].mean()
    assert (barriers["early"] > 0.005).all()
    assert (barriers["late"] <= 0.1 * barriers["early"]).all()
    assert agreements["late"] > 1.5 * agreements["early"]


def test_random_labels_take_a_higher_effective_rank_in_the_middle_layers() -> None:
    rank = {
        labels: spectra_cli.rank(FIXTURES / "labels" / labels, steps="final").set_index("parameter")["effective_rank"]
        for labels in ("true", "random")
    }
    for layer in ("layers.1.weight", "layers.2.weight"):
        assert rank["random"][layer] > rank["true"][layer] + 1.0


def test_more_weight_decay_gives_a_lower_effective_rank(tmp_path: Path) -> None:
    """Of the mean over all matrices of a perceptron, trained here for some seconds."""
    ranks = []
    for decay in ("0", "0.003", "0.01", "0.03"):
        run = tmp_path / decay
        task = ["image-classification", "--set", "model=mlp", "--set", "width=32"]
        course = ["--lr", "0.05", "--epochs", "60", "--save-every", "660", "--weight-decay", decay]
        assert spectra(["train", *task, *course, "--out", str(run), "--quiet"]) == 0
        ranks.append(mean_rank(run).iloc[-1])
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-1] < 0.6 * ranks[0]
