"""`spectra_cli.rank` returns what the command writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import spectra_cli
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.notebook.frames import Common, Shared
from spectra_cli.execution.work.listener import SkippedWorkWarning
from tests.analyses import tiny_tasks

Fixture = Callable[..., Any]


def assert_same(frame: pd.DataFrame, path: str) -> None:
    nullable = {"int64": "Int64", "int32": "Int32"}
    expected = pq.read_table(path).to_pandas(integer_object_nulls=True)
    assert list(frame.columns) == list(expected.columns)
    assert len(frame) == len(expected)
    for name in frame.columns:
        stored = str(pq.read_schema(path).field(name).type)
        assert str(frame[name].dtype) == nullable.get(stored, str(frame[name].dtype))
        for ours, theirs in zip(frame[name], expected[name], strict=True):
            if name == "singular_values" and theirs is not None:
                assert ours.tolist() == theirs.tolist()
            else:
                assert (pd.isna(ours) and pd.isna(theirs)) or ours == theirs, name


def test_the_frame_is_the_table(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    assert spectra("rank", directory, "--tag", "seed=1").status == 0
    assert_same(spectra_cli.rank(directory, tags={"seed": "1"}), "rank.parquet")


def test_options_mean_what_they_mean_on_the_command_line(spectra: Fixture, make_run: Fixture) -> None:
    paths = [make_run("a"), make_run("b", seed=1)]
    options = ["--steps", "0,final", "--include", "first.*", "--memory-budget", "1GiB", "--device", "cpu"]
    assert spectra("rank", *paths, *options).status == 0
    frame = spectra_cli.rank(paths, steps="0,final", include="first.*", memory_budget="1GiB", device="cpu")
    assert len(frame) == 4
    assert_same(frame, "rank.parquet")


def test_out_writes_the_same_table(make_run: Fixture) -> None:
    frame = spectra_cli.rank(str(make_run()), out="notebook.parquet", tags={"seed": "1"})
    assert_same(frame, "notebook.parquet")
    assert pq.read_schema("notebook.parquet").metadata[b"spectra.schema"] == b"rank/1"


def test_what_is_skipped_is_a_row_and_a_warning(spectra: Fixture, make_run: Fixture) -> None:
    directory = make_run()
    (directory / "step_100.pt").write_bytes(b"")
    assert spectra("rank", directory).status == 3
    with pytest.warns(SkippedWorkWarning, match="step_100.pt: the file is empty"):
        frame = spectra_cli.rank(directory)
    assert_same(frame, "rank.parquet")
    assert frame["rows"].isna().sum() == 1
    assert frame["rows"].dtype == pd.Int64Dtype()


def test_errors_are_raised(make_run: Fixture, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        spectra_cli.rank(tmp_path / "absent")
    directory = make_run()
    for budget in ("lots", 0, -1):
        with pytest.raises(UsageError, match=f"--memory-budget {budget} is not a size"):
            spectra_cli.rank(directory, memory_budget=budget)
    with pytest.raises(UsageError, match="--pairs and the PATH a exclude each other"):
        spectra_cli.barrier("a", pairs=[("a", "b")])
    with pytest.raises(UsageError, match="two PATHs are needed"):
        spectra_cli.barrier("a")
    for out in (None, "table.parquet"):
        with pytest.raises(UsageError, match="gini"):
            spectra_cli.rank(directory, tags={"gini": "1"}, out=out)
    assert not (tmp_path / "table.parquet").exists()


def test_a_frame_of_one_checkpoint_has_the_steps_of_its_name(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.eye(3)}, tmp_path / "epoch=3-step=400.ckpt")
    frame = spectra_cli.rank(tmp_path / "epoch=3-step=400.ckpt")
    assert (frame["step"].tolist(), frame["epoch"].tolist()) == ([400], [3])
    assert frame["effective_rank"].tolist() == pytest.approx([3.0])


def test_the_package_offers_what_it_says_and_nothing_else() -> None:
    assert set(dir(spectra_cli)) == set(spectra_cli.__all__)
    assert all(hasattr(spectra_cli, name) for name in spectra_cli.__all__)
    with pytest.raises(AttributeError, match="module 'spectra_cli' has no attribute 'ranks'"):
        _ = spectra_cli.ranks


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("rank", "step", "rank() has no argument 'step'. Did you mean steps?"),
        ("rank", "heads", "rank() has no argument 'heads'"),
        ("align", "head", "align() has no argument 'head'. Did you mean heads?"),
        ("sva", "full", "sva() has no argument 'full'"),
        ("analyze", "referense", "analyze() has no argument 'referense'. Did you mean reference?"),
        ("prune_eval", "step", "prune_eval() has no argument 'step'. Did you mean steps?"),
        ("prune_eval", "keeps", "prune_eval() has no argument 'keeps'. Did you mean keep?"),
        ("barrier", "steps", "barrier() has no argument 'steps'"),
        ("barrier", "alpha", "barrier() has no argument 'alpha'. Did you mean alphas?"),
    ],
)
def test_an_argument_that_is_none_is_told_by_the_name_of_the_function(name: str, argument: str, said: str) -> None:
    """Also one that another of the functions has, which would otherwise be taken without effect."""
    with pytest.raises(TypeError) as caught:
        getattr(spectra_cli, name)("runs/a", **{argument: 3})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("function", ["rank", "align", "sva", "analyze", "prune_eval", "barrier"])
def test_a_docstring_lists_all_shared_keywords_or_none(function: str) -> None:
    """A reader takes a list for all that there is."""
    doc = getattr(spectra_cli, function).__doc__
    (described,) = re.findall(r"\*\*(?:shared|common): (.*?)\n\n", doc, re.DOTALL)
    named = set(re.findall(r"\w+", described.replace("`", "")))
    keywords = Shared.__annotations__.keys() if function != "barrier" else Common.__annotations__.keys()
    assert named & keywords in (set(), set(keywords))


@pytest.fixture
def ends(tmp_path: Path) -> tuple[str, str]:
    """Two checkpoints of a small model."""
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        torch.save(tiny_tasks.mlp().model().state_dict(), tmp_path / f"{name}.pt")
    (tmp_path / "link").symlink_to(tmp_path)
    return "a.pt", "b.pt"


@pytest.mark.parametrize(
    "other",
    [
        lambda _: "same.parquet",
        lambda _: "./nowhere/../same.parquet",
        lambda here: here / "same.parquet",
        lambda here: here / "link" / "same.parquet",
        lambda here: f"file://{here}/same.parquet",
    ],
    ids=["same", "dots", "absolute", "link", "url"],
)
def test_two_tables_do_not_go_to_one_file(
    ends: tuple[str, str], other: Callable[[Path], str | Path], spectra: Fixture, tmp_path: Path
) -> None:
    """However the file is spelled; the message does not speak of another process."""
    task = f"{tiny_tasks.__file__}:mlp"
    out = other(tmp_path)
    calls: list[Callable[[], object]] = [
        lambda: spectra_cli.barrier(*ends, task=task, out="same.parquet", sva_out=out),
        lambda: spectra_cli.barrier(*ends, task=task, spectra_out=out, sva_out="same.parquet"),
        lambda: spectra_cli.prune_eval(ends[0], task=task, out=out, sva_out="same.parquet"),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=r"two tables would be written to .*same\.parquet"):
            call()
    for line in (["barrier", *ends], ["prune-eval", ends[0]]):
        done = spectra(*line, "--task", task, "--out", "same.parquet", "--sva-out", out)
        assert done.status == 2
        assert f"two tables would be written to {out}. " in done.err
    assert not Path("same.parquet").exists()


def test_two_tables_do_not_go_to_one_object(ends: tuple[str, str]) -> None:
    """Of which the storage need not be asked."""
    task, url = f"{tiny_tasks.__file__}:mlp", "memory://bucket/same.parquet"
    with pytest.raises(UsageError, match=r"two tables would be written to memory://bucket/x/\.\./same\.parquet"):
        spectra_cli.barrier(*ends, task=task, out=url, sva_out="memory://bucket/x/../same.parquet")


def test_tables_that_are_kept_in_memory_only_need_no_files(ends: tuple[str, str]) -> None:
    assert len(spectra_cli.analyze(ends[0])) == 3
