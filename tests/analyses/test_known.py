"""What is known is not factorized again, and the rows are the same to the bit as if it had been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spectra_cli.analyses import visits
from spectra_cli.analyses.align import AlignRows
from spectra_cli.analyses.demands import Analysis, Demand, Row, Visited, WorkPlace
from spectra_cli.analyses.factors import Factors, compact
from spectra_cli.analyses.hashes import Hashes
from spectra_cli.analyses.known import ENTRY_BYTES, KnownFactors, MatrixKey, factors_key, key_of
from spectra_cli.analyses.lanes import blas_threads
from spectra_cli.analyses.loading import LoadedMatrix
from spectra_cli.analyses.rank import RankRows
from spectra_cli.analyses.sva import KeepVectors, SvaRows
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import visit
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.matricize import MatrixSpec, declared
from spectra_cli.layers.parts import Part
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import Matrix
from spectra_cli.tensors import TensorInfo

BUDGET_BYTES = 1 << 30
PLACE = WorkPlace(torch.device("cpu"), BUDGET_BYTES, known_bytes=BUDGET_BYTES // 8)


class Counted:
    """How many matrices and parts were factorized since it was last asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        self._lock = Lock()
        monkeypatch.setattr(visits, "factorize", self._factorize)

    def _factorize(self, matrices: Sequence[Matrix], **options: Any) -> list[Spectrum]:
        with self._lock:  # lanes
            self._count += len(matrices)
        return factorize(matrices, **options)

    def taken(self) -> int:
        """The number, which starts from 0 again."""
        count, self._count = self._count, 0
        return count


@pytest.fixture
def factorized(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def save(path: Path, weights: Mapping[str, Tensor]) -> Path:
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)
    return path


def shown(
    path: Path,
    analyses: Sequence[Analysis],
    *,
    known: KnownFactors | None = None,
    place: WorkPlace = PLACE,
    transposed: Sequence[str] = (),
) -> None:
    """Let analyses see every matrix of a checkpoint."""
    with open_checkpoint(path) as reader:
        specs = take_inventory(reader.tensors, ordered=reader.ordered, transposed=transposed).selected((), ())
        visit(reader, specs, analyses, place, on_problem=pytest.fail, on_matrix=lambda _: None, known=known)


def rank_rows(path: Path, **options: Any) -> list[Row]:
    ranks = RankRows(options.pop("known_rows", None))
    shown(path, [ranks], **options)
    return ranks.rows()


def all_rows(path: Path, store: VectorStore, **options: Any) -> dict[str, list[Row]]:
    """The rows of all three tables."""
    with open_checkpoint(path) as reader:
        inventory = take_inventory(reader.tensors, ordered=reader.ordered)
    making = {
        "rank": RankRows(),
        "align": AlignRows(inventory.connections(), inventory.selected((), ()), full=True),
        "sva": SvaRows(store, {}),
    }
    shown(path, list(making.values()), **options)
    return {table: made.rows() for table, made in making.items()}


def bits(value: Any) -> Any:
    """A value that is equal to another one only if every bit is."""
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    return value.hex() if isinstance(value, float) else value


def exactly(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{column: bits(value) for column, value in row.items()} for row in rows]


# Rows


def keys_in(rows: Sequence[Row]) -> set[MatrixKey]:
    return {(row["digest"], row["kind"], row["rows"], row["cols"]) for row in rows}


def test_known_matrices_are_marked_and_not_factorized(tmp_path: Path, factorized: Counted) -> None:
    weights = {f"layers.{place}.weight": normal(12, 8, seed=place) for place in range(4)}
    before = rank_rows(save(tmp_path / "a.safetensors", weights))
    assert factorized.taken() == 4
    weights["layers.2.weight"] = normal(12, 8, seed=9)
    path = save(tmp_path / "b.safetensors", weights)
    found = rank_rows(path, known_rows=keys_in(before))
    assert factorized.taken() == 1
    fresh = rank_rows(path)
    described = ("depth", "parameter", "kind", "rows", "cols", "dtype", "digest")
    for place in (0, 1, 3):
        assert found[place] == {**{name: fresh[place][name] for name in described}, "known": True, "status": "ok"}
    assert exactly(found[2:3]) == exactly(fresh[2:3])


def test_rows_from_a_table_and_new_ones_make_what_a_fresh_run_makes(tmp_path: Path) -> None:
    """To the bit, whatever of a batch is known; in one lane and in several, with several threads in each product."""
    weights = {f"layers.{place}.weight": normal(113, 400, seed=place) for place in range(6)}
    weights |= {f"layers.{place + 6}.weight": normal(60, 20, seed=place) for place in range(5)}
    path = save(tmp_path / "model.safetensors", weights)
    for threads in (1, 2):
        with blas_threads(threads):
            fresh = rank_rows(path)
            table = {_key(row): row for row in fresh}
            for some in ([0], [1, 2, 3, 4, 5], [7, 8], [2, 9], []):
                known = {_key(fresh[place]): fresh[place] for place in some}
                found = rank_rows(path, known_rows=known)
                assert [row.get("known", False) for row in found] == [place in some for place in range(11)]
                filled = [table[_key(row)] if "known" in row else row for row in found]
                assert exactly(filled) == exactly(fresh)


def _key(row: Row) -> MatrixKey:
    return (row["digest"], row["kind"], row["rows"], row["cols"])


def test_a_matrix_that_another_analysis_needs_is_factorized_all_the_same(tmp_path: Path, factorized: Counted) -> None:
    weights = {f"layers.{place}.weight": normal(9, 9, seed=place) for place in range(2)}
    path = save(tmp_path / "model.safetensors", weights)
    known = keys_in(rank_rows(path))
    factorized.taken()
    ranks, store = RankRows(known), VectorStore(1 << 20)
    shown(path, [ranks, KeepVectors(store)])
    assert factorized.taken() == 2
    assert all(row["known"] for row in ranks.rows())
    assert store.parameters() == list(weights)


def test_what_nobody_factorizes_is_read_and_hashed(tmp_path: Path, factorized: Counted) -> None:
    path = save(tmp_path / "model.safetensors", {"a.weight": normal(9, 5, seed=1), "b.weight": normal(4, 5, seed=2)})
    known = keys_in(rank_rows(path))
    hashes, again = Hashes(), Hashes()
    shown(path, [RankRows(), hashes])
    factorized.taken()
    shown(path, [RankRows(known), again])
    assert factorized.taken() == 0
    assert hashes.content == again.content


def test_what_a_checkpoint_hashes_to_is_its_parameters_and_their_bytes() -> None:
    """In whatever order its matrices are done; nothing where one of them could not be read."""

    def content(*digests: tuple[str, str | None]) -> str | None:
        hashes = Hashes()
        for name, digest in digests:
            spec = MatrixSpec(name, "linear", 4, 4, TensorInfo(name, (4, 4), "float32"))
            hashes.take(Visited(0, spec, digest, None, {}))
        return hashes.content

    one = content(("a", "1"), ("b", "2"))
    assert one is not None
    assert content(("b", "2"), ("a", "1")) == one
    assert one not in {content(("a", "2"), ("b", "1")), content(("a", "1"), ("c", "2")), content(("a", "1"))}
    assert content(("a", "1"), ("b", None)) is None


def test_lanes_and_threads_follow_from_all_matrices_whatever_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a single matrix that is not known would be worked on with more threads, and have other last bits."""
    counts: list[int] = []
    monkeypatch.setattr(visits, "blas_threads", lambda count: counts.append(count) or blas_threads(1))
    path = save(
        tmp_path / "model.safetensors", {f"l.{size}.weight": normal(size, 90, seed=size) for size in range(90, 99)}
    )
    with blas_threads(4):
        fresh = rank_rows(path)
        rank_rows(path, known_rows=keys_in(fresh))
        rank_rows(path, known_rows=keys_in(fresh[:-1]))
    assert len(counts) == 3
    assert len(set(counts)) == 1


@pytest.mark.parametrize("shape", [(7, 7, 3), (7, 7, 3, 3), (7, 5, 3), (7, 7), (7, 5)], ids=str)
@pytest.mark.parametrize("kind", ["conv", "conv_transpose", "linear", "other"])
def test_equal_keys_have_equal_singular_values(shape: tuple[int, ...], kind: Any) -> None:
    """Of one tensor in every layout that a family may declare; with a kernel and as many inputs as outputs too."""
    tensor = normal(*shape, seed=3, dtype=torch.float64)
    info = TensorInfo("a.weight", shape, "float64")
    plain = MatrixSpec("a.weight", kind, shape[0], int(np.prod(shape[1:])), info)
    values: dict[MatrixKey, np.ndarray] = {}
    for layout in ("out,in", "in,out"):
        spec = declared(plain, kind, layout, "toy")
        matrix = tensor.transpose(0, 1) if spec.layout in {"swapped", "transposed"} else tensor
        found = np.linalg.svd(matrix.reshape(spec.rows, spec.cols).numpy(), compute_uv=False)
        key = key_of(spec, "digest")
        if key is not None:
            np.testing.assert_allclose(values.setdefault(key, found), found, rtol=1e-12)
    assert values or kind != "conv"


def test_stored_convolutions_of_as_many_inputs_as_outputs_can_be_known() -> None:
    """They are most of a residual network."""
    info = TensorInfo("conv.weight", (8, 8, 3, 3), "float32")
    assert key_of(MatrixSpec("conv.weight", "conv", 8, 72, info), "d") == ("d", "conv", 8, 72)


# Factors


def freeze(directory: Path, frozen: Sequence[int], steps: int, layers: int = 4) -> list[Path]:
    """Checkpoints whose layers change from one to the next but for those that are frozen."""
    directory.mkdir(exist_ok=True)
    return [
        save(
            directory / f"step_{step}.safetensors",
            {
                f"layers.{layer}.weight": normal(14, 14, seed=layer if layer in frozen else 100 * (step + 1) + layer)
                for layer in range(layers)
            },
        )
        for step in range(steps)
    ]


def rows_along(paths: Sequence[Path], known: KnownFactors | None, place: WorkPlace = PLACE) -> list[Any]:
    """The rows of all tables of a trajectory, compared with its first checkpoint."""
    with VectorStore(1 << 20) as store:
        shown(paths[0], [KeepVectors(store)], place=place)
        return [
            {table: exactly(rows) for table, rows in all_rows(path, store, known=known, place=place).items()}
            for path in paths
        ]


def test_frozen_layers_are_factorized_once(tmp_path: Path, factorized: Counted) -> None:
    """5 checkpoints, 3 of 4 layers frozen: the first whole, of the others one layer each; the rows are the same."""
    paths = freeze(tmp_path, frozen=(0, 1, 3), steps=5)
    expected = rows_along(paths, None)
    assert factorized.taken() == 4 + 5 * 4
    assert rows_along(paths, KnownFactors(1 << 20)) == expected
    assert factorized.taken() == 4 + (4 + 4 * 1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_rows_do_not_depend_on_what_is_known(
    tmp_path: Path, threads: int, resident: bool, factorized: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of matrices of several shapes and dtypes, in lanes, with some that are not finite or zero."""
    from spectra_cli.spectrum import memory

    if not resident:
        monkeypatch.setattr(memory, "RESIDENT_BYTES", 100)
    shapes = [(30, 12), (12, 30), (30, 12), (40, 40), (40, 40), (5, 3)]
    paths = []
    for step in range(3):
        weights = {
            f"layers.{place}.weight": normal(*shape, seed=place * 50 + (step if place in {1, 4} else 0))
            for place, shape in enumerate(shapes)
        }
        weights["layers.5.weight"][0, 0] = torch.nan
        weights["layers.6.weight"] = torch.zeros(6, 5)
        weights["layers.7.weight"] = normal(8, 6, seed=step // 2).bfloat16()
        paths.append(save(tmp_path / f"step_{step}.safetensors", weights))
    with blas_threads(threads):
        expected = rows_along(paths, None)
        without = factorized.taken()
        assert rows_along(paths, KnownFactors(1 << 20)) == expected
    assert factorized.taken() < without


def test_copies_within_a_checkpoint_and_of_it_are_factorized_once(tmp_path: Path, factorized: Counted) -> None:
    weights = {f"layers.{place}.weight": normal(9, 6, seed=place // 2) for place in range(4)}
    weights |= {"head.weight": normal(20, 9, seed=5), "tail.weight": normal(20, 9, seed=5)}
    paths = [save(tmp_path / f"{name}.safetensors", weights) for name in ("last", "final")]
    expected = rows_along(paths, None)
    factorized.taken()
    assert rows_along(paths, KnownFactors(1 << 20)) == expected
    assert factorized.taken() == 6 + 3


def test_only_parts_that_are_missing_are_factorized(tmp_path: Path, factorized: Counted) -> None:
    """Heads of a fused matrix that is known to one analysis, and not to the next."""
    weights = {
        "gpt_neox.layers.0.attention.query_key_value.weight": normal(24, 8, seed=1),
        "gpt_neox.layers.0.attention.dense.weight": normal(8, 8, seed=2),
    }
    path = save(tmp_path / "model.safetensors", weights)

    class Heads(Analysis):
        """Asks for some rows of the first matrix, and for the matrix itself."""

        def __init__(self, *starts: int) -> None:
            self.starts = starts
            self.seen: dict[int, Visited] = {}

        def demand(self, depth: int) -> Demand:
            parts = {Part(depth, rows=((start, start + 4),)): frozenset({"left"}) for start in self.starts}
            return Demand(whole=True, parts=parts) if depth == 0 else Demand()  # type: ignore[arg-type]

        def take(self, visited: Visited) -> None:
            self.seen[visited.depth] = visited

    known = KnownFactors(1 << 20)
    shown(path, [Heads(0, 4)], known=known)
    assert factorized.taken() == 3
    again = Heads(0, 4, 8)
    shown(path, [again], known=known)
    assert factorized.taken() == 1
    assert len(again.seen[0].parts) == 3
    assert again.seen[0].whole is not None


def test_a_transpose_has_factors_of_its_own(tmp_path: Path, factorized: Counted) -> None:
    """Square, with the same bytes: left of the one is right of the other."""
    path = save(tmp_path / "a.safetensors", {"one.weight": normal(9, 9, seed=1), "two.weight": normal(9, 9, seed=1)})
    stores = [VectorStore(1 << 20) for _ in range(2)]
    for store, known in zip(stores, (None, KnownFactors(1 << 20)), strict=True):
        shown(path, [KeepVectors(store)], known=known, transposed=["one.weight"])
    for name in ("one.weight", "two.weight"):
        expected, found = (store.get(name) for store in stores)
        assert expected is not None
        assert found is not None
        assert torch.equal(found.left, expected.left)
    left = [stores[1].get(name).left for name in ("one.weight", "two.weight")]
    assert not torch.allclose(left[0].abs(), left[1].abs(), atol=1e-3)


@pytest.mark.parametrize("experts", [(), (2,)], ids=["matrix", "experts"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_transpose_that_is_known_has_the_numbers_of_a_fresh_run(
    tmp_path: Path, experts: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Square, with the same bytes: no table tells the two apart, so that all numbers are equal to the bit."""
    shape = (*experts, 40, 40)
    names = ("experts.up_proj", "other.experts.up_proj") if experts else ("one.weight", "two.weight")
    weights = {name: normal(*shape, seed=2, dtype=dtype) for name in names}
    path = save(tmp_path / "model.safetensors", weights)
    fresh = rank_rows(path, transposed=[names[0]])
    assert len({_key(row) for row in fresh}) == len(fresh) // 2
    numbers: dict[MatrixKey, Any] = {}
    for row in exactly(fresh):
        told = {name: value for name, value in row.items() if name not in {"depth", "parameter"}}
        assert numbers.setdefault(_key(row), told) == told
    stored_alone = rank_rows(save(tmp_path / "alone.safetensors", {names[1]: weights[names[1]]}))
    assert [row["singular_values"].tobytes() for row in stored_alone] == [
        row["singular_values"].tobytes() for row in fresh if row["parameter"].startswith(names[1])
    ]


def entry(size: int) -> Factors:
    return Factors("ok", Spectrum(np.zeros(size), 0.0, "gram_float64"))


def test_factors_are_let_go_when_their_matrix_has_changed_or_is_gone() -> None:
    known = KnownFactors(1 << 20)
    known.begin("terms")
    for name in "ab":
        known.put((name, (), ()), "tied", entry(5))
    known.put(("c", (), ()), "c0", entry(5))
    assert len(known) == 2
    known.begin("terms")
    assert known.get(("a", (), ()), "tied") is not None
    known.put(("b", (), ()), "b1", entry(5))
    assert len(known) == 3, "one of two owners has changed"
    known.put(("a", (), ()), "a1", entry(5))
    assert known.get(("d", (), ()), "tied") is None
    known.begin("terms")
    assert known.get(("c", (), ()), "c0") is None, "the checkpoint before had no such matrix"
    assert len(known) == 2
    known.begin("other terms")
    assert len(known) == 0


def test_nothing_that_was_found_under_other_terms_counts() -> None:
    """Not even for a matrix that the last checkpoint had: other lanes or threads make other last bits."""
    known, owner = KnownFactors(1 << 20), ("a", (), ())
    known.begin("two lanes")
    known.put(owner, "a", entry(5))
    known.begin("two lanes")
    assert known.get(owner, "a") is not None
    known.begin("one lane")
    assert known.get(owner, "a") is None
    known.put(owner, "a", entry(5))
    known.begin("one lane")
    assert known.get(owner, "a") is not None


def test_a_trajectory_whose_lanes_change_has_the_rows_of_each_checkpoint_by_itself(tmp_path: Path) -> None:
    """A layer is added: what is unchanged is worked on with more lanes, each with less memory and fewer threads."""
    few = {f"layers.{place}.weight": normal(90, 70, seed=place) for place in range(2)}
    many = few | {f"more.{place}.weight": normal(90 + place, 71, seed=place) for place in range(9)}
    paths = [save(tmp_path / f"{name}.safetensors", weights) for name, weights in (("few", few), ("many", many))]
    known = KnownFactors(1 << 20)
    with blas_threads(4):
        for path in (*paths, paths[0]):
            assert exactly(rank_rows(path, known=known)) == exactly(rank_rows(path))


def test_factors_are_told_apart_by_all_that_they_depend_on() -> None:
    """Bytes, layout, shape, part, sides, and how many were worked on at once."""

    def key(digest: str = "d", layout: Any = "stored", *, rows: int = 4, **others: Any) -> Any:
        info = TensorInfo("a.weight", (4, 4), "float32")
        spec = MatrixSpec(others.pop("parameter", "a.weight"), "linear", rows, 16 // rows, info, layout)
        part = others.pop("part", Part(0))
        loaded = LoadedMatrix(0, spec, None, digest)
        return factors_key(loaded, part, others.pop("sides", frozenset()), others.pop("together", 0))

    others = [
        key("e"),
        key(layout="transposed"),
        key(rows=2),
        key(part=Part(0, rows=((0, 2),))),
        key(part=Part(0, cols=((0, 2),))),
        key(sides=frozenset({"left"})),
        key(sides=frozenset({"left", "right"})),
        key(together=2),
        key(together=3),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert key(parameter="b.weight", part=Part(7)) == key()


def test_what_has_changed_makes_room_for_what_it_is_now() -> None:
    """The memory is full: the new factors of a matrix take the place of the old."""
    known, owner = KnownFactors(ENTRY_BYTES + 8 * 5), ("a", (), ())
    for step in range(3):
        known.begin("terms")
        known.put(owner, step, entry(5))
        assert known.get(owner, step) is not None


def test_no_more_is_kept_than_there_is_room_for() -> None:
    size = ENTRY_BYTES + 8 * 100
    known = KnownFactors(2 * size + 10)
    for round_ in range(3):
        known.begin("terms")
        for name in "abc":
            known.put((name, (), ()), f"{name}{round_}", entry(100))
        assert len(known) == 2
    known.clear()
    known.put(("a", (), ()), "a", entry(100))
    assert len(known) == 1


def test_a_full_memory_changes_no_row(tmp_path: Path, factorized: Counted) -> None:
    paths = freeze(tmp_path, frozen=(0, 1, 2, 3), steps=3)
    expected = rows_along(paths, None)
    factorized.taken()
    known = KnownFactors(2 * (ENTRY_BYTES + 8 * 14 + 2 * 4 * 14 * 14))
    assert rows_along(paths, known) == expected
    assert factorized.taken() == 4 + 4 + 2 + 2
    assert len(known) == 2


def test_the_share_for_known_factors_counts_whether_they_are_kept_or_not() -> None:
    """Working memory decides how matrices are cut, and that their last bits."""
    assert WorkPlace(torch.device("cpu"), 1 << 30, 1 << 20, 1 << 24).working_bytes == (
        WorkPlace(torch.device("cpu"), 1 << 30, 1 << 20).working_bytes - (1 << 24)
    )


def test_compact_vectors_stay_as_they_are() -> None:
    """So that what was kept and what was just found lead to the same numbers."""
    vectors = normal(9, 4, seed=1, dtype=torch.float64)
    once = compact(vectors.T)
    assert once is not None
    assert once.dtype == torch.float32
    assert once.is_contiguous()
    assert compact(once) is once
    assert compact(None) is None
