"""Several tables in one pass: what is read and factorized how often, what stays in memory, and what training shows."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import spectra_cli
from spectra_cli.analyses import align as align_rows
from spectra_cli.analyses import vectorstore, visits
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError
from spectra_cli.execution.trajectory import analyst, keptreferences, openedcheckpoints
from spectra_cli.spectrum import memory
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import Matrix
from tests.analyses.formulas import CLEAR, agreement, chain, products, save, save_run, separated, svd

pytestmark = pytest.mark.filterwarnings("ignore::spectra_cli.execution.work.listener.SkippedWorkWarning")

FIXTURES = Path(__file__).parents[2] / "fixtures"
TABLES = ("rank", "align", "sva")
KEYS = {
    "rank": ["run", "checkpoint", "step", "epoch", "depth", "parameter", "kind", "rows", "cols", "dtype", "digest"],
    "align": ["run", "checkpoint", "step", "epoch", "depth", "connection", "upstream", "downstream", "unit",
              "unit_index", "primary"],
    "sva": ["run", "checkpoint", "step", "epoch", "depth", "parameter", "reference_run", "reference_checkpoint",
            "reference_step"],
}  # fmt: skip
NORMS = ("spectral_norm", "frobenius_norm", "nuclear_norm")
STATISTICS = ("entropy", "entropy_normalized", "effective_rank", "effective_rank_normalized", "stable_rank", "gini")


def assert_same_directions(found: pd.DataFrame, expected: pd.DataFrame, table: str) -> None:
    """Rows of `align` or `sva`: equal names and statuses, numbers to 1e-6."""
    assert list(found.columns) == list(expected.columns)
    exact = [*KEYS[table], "status"]
    pd.testing.assert_frame_equal(found[exact], expected[exact])
    for column in ("score", "min_gap"):
        np.testing.assert_allclose(found[column], expected[column], rtol=0, atol=1e-6, equal_nan=True)
    for ours, theirs in zip(found["diagonal"], expected["diagonal"], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def assert_same_ranks(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Rows of `rank`: values within the bounds that both state, counts and names equal."""
    assert list(found.columns) == list(expected.columns)
    exact = [*KEYS["rank"], "rank_90", "numerical_rank", "status"]
    pd.testing.assert_frame_equal(found[exact], expected[exact])
    for (_, ours), (_, theirs) in zip(found.iterrows(), expected.iterrows(), strict=True):
        if ours["status"] == "ok":
            allowed = ours["singular_value_error"] + theirs["singular_value_error"]
            assert np.abs(ours["singular_values"].astype(float) - theirs["singular_values"]).max() <= allowed
    for column in NORMS + STATISTICS:
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-5, equal_nan=True)


# One pass is three


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("grokking/seed_0", {"every": 3}),
        ("cnn", {"full": True}),
        ("lstm", {"reference": "previous", "memory_budget": 400_000}),
    ],
    ids=["grokking", "cnn", "lstm"],
)
def test_analyze_is_rank_align_and_sva(fixture: str, options: dict[str, Any]) -> None:
    own = {"align": {"full"}, "sva": {"reference"}, "rank": set()}
    together = spectra_cli.analyze(FIXTURES / fixture, **options)
    assert together._fields == TABLES
    alone = {}
    for table in TABLES:
        shared = {key: value for key, value in options.items() if key in own[table] | {"every", "memory_budget"}}
        alone[table] = getattr(spectra_cli, table)(FIXTURES / fixture, **shared)
    assert_same_ranks(together.rank, alone["rank"])
    for table in ("align", "sva"):
        assert_same_directions(getattr(together, table), alone[table], table)
    if "full" in options:
        for ours, theirs in zip(together.align["alignment"], alone["align"]["alignment"], strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(np.stack(ours), np.stack(theirs), rtol=0, atol=1e-6)


def test_a_small_budget_gives_the_same_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices are then read slab by slab, batches are small, and the vectors of the reference go to a file."""
    run = FIXTURES / "grokking" / "seed_5"
    expected = spectra_cli.analyze(run, steps="1000,final")
    spilt: list[IO[bytes]] = []
    original = tempfile.TemporaryFile

    def temporary(**options: Any) -> IO[bytes]:
        spilt.append(original(**options))
        return spilt[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    monkeypatch.setattr(memory, "RESIDENT_BYTES", 1000)
    frugal = spectra_cli.analyze(run, steps="1000,final", memory_budget=800_000)
    assert len(spilt) == 1
    assert_same_ranks(frugal.rank, expected.rank)
    for table in ("align", "sva"):
        assert_same_directions(getattr(frugal, table), getattr(expected, table), table)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads that torch may use, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_number_of_threads_changes_nothing(tmp_path: Path, threads: Callable[[int], None]) -> None:
    """Neither statuses, nor the order of rows, nor numbers: matrices may be done in any order."""
    weights = {
        step: chain([40, 60, 30, 60, 50, 40, 60], seed=step) | {"head.weight": separated(90, 60, step)}
        for step in range(3)
    }
    weights[1]["layers.2.weight"][0, 0] = torch.nan
    weights[2]["layers.4.weight"][0, 0] = torch.inf
    run = save_run(tmp_path / "run", weights)
    threads(1)
    expected = spectra_cli.analyze(run, reference="previous")
    assert expected.rank["status"].tolist().count("not_finite") == 2
    for count in (2, 3):
        threads(count)
        found = spectra_cli.analyze(run, reference="previous")
        assert_same_ranks(found.rank, expected.rank)
        for table in ("align", "sva"):
            assert_same_directions(getattr(found, table), getattr(expected, table), table)
        assert torch.get_num_threads() == count


# Each matrix once


class Counting:
    """A reader that counts how often each tensor of each checkpoint is read."""

    def __init__(self, reader: Reader, path: Path, counts: Counter[tuple[str, str]]) -> None:
        self._reader = reader
        self._path = path
        self._counts = counts

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._reader, attribute)

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        self._counts[self._path.name, name] += 1
        return self._reader.read(name, rows, cols)


class Work:
    """What was done: openings and reads by checkpoint, and how many matrices and parts were factorized."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: Counter[str] = Counter()
        self.read: Counter[tuple[str, str]] = Counter()
        self.factorized = 0
        self._lock = Lock()
        monkeypatch.setattr(openedcheckpoints, "open_checkpoint", self._open)
        monkeypatch.setattr(visits, "factorize", self._factorize)

    def _open(self, path: Path) -> AbstractContextManager[Any]:
        self.opened[path.name] += 1
        return Counting(open_checkpoint(path), path, self.read)

    def _factorize(self, matrices: Sequence[Matrix], **options: Any) -> list[Spectrum]:
        with self._lock:  # several threads may work
            self.factorized += len(matrices)
        return factorize(matrices, **options)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def trajectory(directory: Path, steps: int, sizes: Sequence[int] = (12, 16, 10, 14)) -> Path:
    return save_run(directory, {step: chain(sizes, seed=step) for step in range(steps)})


@pytest.mark.parametrize("reference", ["final", "first", "previous", "2"])
def test_each_matrix_is_read_and_factorized_once(tmp_path: Path, work: Work, reference: str) -> None:
    """That of the reference too, although others need it before its turn."""
    run = trajectory(tmp_path / "run", 5)
    spectra_cli.analyze(run, reference=reference)
    names = [f"step_{step}.safetensors" for step in range(5)]
    assert work.opened == dict.fromkeys(names, 1)
    assert work.read == {(name, f"layers.{layer}.weight"): 1 for name in names for layer in range(3)}
    assert work.factorized == 15


def test_a_reference_that_is_not_selected_is_read_once_besides(tmp_path: Path, work: Work) -> None:
    run = trajectory(tmp_path / "run", 5)
    spectra_cli.analyze(run, steps="1,2")
    assert work.opened == {f"step_{step}.safetensors": 1 for step in (1, 2, 4)}
    assert set(work.read.values()) == {1}
    assert work.factorized == 9


@pytest.mark.parametrize(("common", "references"), [(4, 4), (0, 1)], ids=["by step", "last with last"])
def test_checkpoints_of_another_run_are_read_once(tmp_path: Path, work: Work, common: int, references: int) -> None:
    run = trajectory(tmp_path / "run", 4)
    other = tmp_path / "other"
    save_run(other, {step if common else step + 10: chain([12, 16, 10, 14], seed=step + 20) for step in range(6)})
    spectra_cli.analyze(run, against=other)
    assert sum(work.opened.values()) == 4 + references
    assert sum(work.read.values()) == work.factorized == 3 * (4 + references)


def test_parts_are_cut_from_what_was_read_and_factorized_once(tmp_path: Path, work: Work) -> None:
    """A key head serves two query heads, a value head and its matrix several readers."""
    shapes = {"q_proj": (16, 16), "k_proj": (8, 16), "v_proj": (8, 16), "o_proj": (16, 16)}
    weights = {f"model.layers.0.self_attn.{name}.weight": separated(*shape, 1) for name, shape in shapes.items()}
    weights |= {f"model.layers.0.mlp.{name}_proj.weight": separated(20, 16, 2) for name in ("gate", "up")}
    weights["model.layers.0.mlp.down_proj.weight"] = separated(16, 20, 3)
    path = save(tmp_path / "model" / "model.safetensors", weights)
    (path.parent / "config.json").write_text('{"num_attention_heads": 4, "num_key_value_heads": 2}', encoding="utf-8")
    tables = spectra_cli.analyze(path.parent)
    assert (tables.align["unit"] == "head").sum() == 8
    assert dict(work.read) == {("model", name): 1 for name in weights}
    heads = 4 + 2 + 2 + 4  # query rows, key rows, value rows, output columns
    assert work.factorized == len(weights) + heads


def test_a_reference_of_which_a_matrix_cannot_be_read_spoils_that_matrix_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every checkpoint that is compared with it; its other tables have rows for the rest."""

    class Failing(Counting):
        def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
            if (self._path.name, name) == ("step_2.safetensors", "layers.1.weight"):
                raise CheckpointError("reading failed at byte 7")
            return super().read(name, rows, cols)

    monkeypatch.setattr(
        openedcheckpoints, "open_checkpoint", lambda path: Failing(open_checkpoint(path), path, Counter())
    )
    found = spectra_cli.analyze(trajectory(tmp_path / "run", 3))
    assert found.sva["status"].tolist() == ["ok", "reference_unreadable", "ok"] * 2 + ["ok", "unreadable", "ok"]
    assert found.rank["status"].tolist() == ["ok"] * 6 + ["ok", "unreadable", "ok"]
    assert found.align["status"].tolist() == ["ok"] * 4 + ["unreadable"] * 2


# Memory


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many stores of vectors were open each time that one was made."""
    alive: set[int] = set()
    counts: list[int] = []

    class Counted(VectorStore):
        def __init__(self, memory_bytes: int) -> None:
            super().__init__(memory_bytes)
            alive.add(id(self))
            counts.append(len(alive))

        def close(self) -> None:
            super().close()
            alive.discard(id(self))

    monkeypatch.setattr(keptreferences, "VectorStore", Counted)
    return counts


def most_alive(kept: Callable[..., Tensor | None], monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """How many kept sets of vectors were alive each time that one more was kept; none that is compared only."""
    alive: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
    counts: list[int] = []

    def compact(vectors: Tensor | None) -> Tensor | None:
        found = kept(vectors)
        if found is not None:
            alive[id(found)] = found  # what is compact already is returned as it is
            counts.append(sum(1 for _ in alive))
        return found

    monkeypatch.setattr(module, "compact", compact)
    return counts


@pytest.mark.parametrize(("reference", "most"), [("final", 1), ("first", 1), ("3", 1), ("previous", 2)])
def test_stores_do_not_grow_with_the_trajectory(tmp_path: Path, stores: list[int], reference: str, most: int) -> None:
    for steps in (4, 9):
        stores.clear()
        spectra_cli.sva(trajectory(tmp_path / f"{steps}", steps), reference=reference)
        assert max(stores) == most
        assert len(stores) == (steps - 1 if reference == "previous" else 1)


def test_stores_of_another_run_are_let_go_step_by_step(tmp_path: Path, stores: list[int]) -> None:
    for name in ("one", "other"):
        trajectory(tmp_path / name, 6)
    spectra_cli.sva(tmp_path / "one", against=tmp_path / "other")
    assert (max(stores), len(stores)) == (1, 6)


def test_stores_of_one_run_are_let_go_before_the_next(tmp_path: Path, stores: list[int]) -> None:
    for name in "abc":
        trajectory(tmp_path / "runs" / name, 3)
    spectra_cli.analyze(tmp_path / "runs")
    assert stores == [1, 1, 1]


def test_stores_are_closed_when_a_caller_stops_early(tmp_path: Path, stores: list[int]) -> None:
    """Or an error ends the work: the temporary files go with them."""
    from spectra_cli.execution.executors.inprocess import InProcess
    from spectra_cli.execution.planning.options import Options
    from spectra_cli.execution.planning.plan import make_plan
    from spectra_cli.execution.work.listener import Silent
    from spectra_cli.execution.work.units import Assignment

    work = analyst.CheckpointWork(make_plan([trajectory(tmp_path / "run", 3)], Options(), TABLES))
    for _ in range(2):
        outcomes = InProcess("cpu").outcomes(work, [tuple(Assignment(place, TABLES) for place in range(3))], Silent())
        next(outcomes)
        outcomes.close()
    assert stores == [1, 1]


@pytest.mark.parametrize(("reference", "most"), [("final", 1), ("previous", 2)])
def test_vectors_do_not_grow_with_the_trajectory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, most: int
) -> None:
    """At most those of the references, of the last checkpoint, and of the matrices of one shape that are compared."""
    counts = most_alive(vectorstore.compact, monkeypatch, vectorstore)
    peaks = []
    for steps in (3, 10):
        counts.clear()
        spectra_cli.sva(trajectory(tmp_path / f"{steps}", steps), reference=reference)
        gc.collect()
        peaks.append(max(counts))
    layers, sides = 3, 2
    assert peaks[0] == peaks[1] <= (most + 1) * layers * sides + 2 * sides


def test_vectors_along_a_chain_are_let_go_after_their_last_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    """Left of one layer, both of the next: the depth of the model does not matter, where one is done after another."""
    threads(1)
    counts = most_alive(vectorstore.compact, monkeypatch, align_rows)
    path = save(tmp_path / "model.safetensors", chain(list(range(8, 40))))
    frame = spectra_cli.align(path)
    assert set(frame["status"]) == {"ok"}
    assert len(counts) == 2 * len(frame)
    assert max(counts) <= 4


# What training shows


@dataclass(frozen=True)
class Trained:
    """A run that groks: its directory, its tables and its validation accuracy by step."""

    run: Path
    tables: Any
    accuracy: Any


@pytest.fixture(scope="module", params=["seed_0", "seed_5"])
def grokking(request: pytest.FixtureRequest) -> Trained:
    run = FIXTURES / "grokking" / request.param
    metrics = pd.read_parquet(run / "metrics.parquet").query("split == 'val' and metric == 'error'")
    return Trained(run, spectra_cli.analyze(run), 1.0 - metrics.set_index("step")["value"])


def test_effective_rank_falls_as_validation_accuracy_rises(grokking: Trained) -> None:
    """Of every matrix: by the order of the checkpoints, and from the first to the last by more than a quarter."""
    assert grokking.accuracy.iloc[0] < 0.05
    assert grokking.accuracy.iloc[-1] > 0.99
    by_matrix = list(grokking.tables.rank.groupby("parameter"))
    assert len(by_matrix) == 6
    for name, rows in by_matrix:
        ranks = rows.set_index("step")["effective_rank"].rank()
        correlation = ranks.corr(grokking.accuracy.rank())  # Spearman's
        assert correlation < -0.8, name
        assert rows["effective_rank"].iloc[-1] < 0.75 * rows["effective_rank"].iloc[0], name


def test_agreement_with_the_final_checkpoint_settles_first_in_the_top_vectors(grokking: Trained) -> None:
    """The mean S_ii of i = 1 reaches 0.9 no later than that of 2-10, and that no later than that of 11-48."""
    earlier = 0
    for name, rows in grokking.tables.sva.groupby("parameter"):
        diagonals = np.stack(rows["diagonal"].tolist())
        assert diagonals.shape[1] == 48
        bands = [diagonals[:, start:stop].mean(1) for start, stop in ((0, 1), (1, 10), (10, 48))]
        reached = [int(rows["step"].iloc[np.argmax(band >= 0.9)]) for band in bands]
        assert reached == sorted(reached), name
        assert bands[0][-2] > bands[1][-2] > bands[2][-2], name  # one checkpoint before the end
        earlier += reached[0] < reached[2]
    assert earlier >= 3


def test_the_tables_of_a_trained_model_are_the_formulas(grokking: Trained) -> None:
    """Of its MLP, at every checkpoint: the ten entries that the score is made of."""
    up, down = (f"transformer_encoder.layers.0.linear{number}.weight" for number in (1, 2))
    final = svd(load_file(grokking.run / f"step_{grokking.accuracy.index[-1]}.safetensors")[up])
    align, sva = grokking.tables.align, grokking.tables.sva
    align, sva = (
        rows.set_index("step") for rows in (align[align["connection"] == "up-down"], sva[sva["parameter"] == up])
    )
    for step in grokking.accuracy.index:
        weights = load_file(grokking.run / f"step_{step}.safetensors")
        one, other = svd(weights[up]), svd(weights[down])
        aligned, agreed = np.diag(products(one.left, other.right)), agreement(one, final)
        for row, partner, expected in ((align.loc[step], other, aligned), (sva.loc[step], final, agreed)):
            gap = min(one.gap_of_ten, partner.gap_of_ten)
            assert gap > CLEAR
            assert row["min_gap"] == pytest.approx(gap, rel=1e-4)
            np.testing.assert_allclose(row["diagonal"][:10], expected[:10], rtol=0, atol=1e-4)
            assert row["score"] == pytest.approx(expected[:10].mean(), abs=1e-4)
