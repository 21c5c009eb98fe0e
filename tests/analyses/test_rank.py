"""Rows of `spectra rank` against float64 LAPACK and the formulas of the papers, written out here in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from spectra_cli.analyses import loading
from spectra_cli.analyses.rank import RankRows
from spectra_cli.analyses.visits import Row, WorkPlace, visit
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError, SpectraError
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.spectrum import memory

FLOAT_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
BUDGET_BYTES = 1 << 30
NUMBERS = (
    "spectral_norm",
    "frobenius_norm",
    "nuclear_norm",
    "entropy",
    "entropy_normalized",
    "effective_rank",
    "effective_rank_normalized",
    "stable_rank",
    "rank_90",
    "numerical_rank",
    "condition_number",
    "gini",
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_spectrum(rows: int, cols: int, values: Sequence[float], seed: int = 0) -> Tensor:
    """(rows, cols) float64 with the given singular values, in random directions."""
    count = len(values)
    left = torch.linalg.qr(normal(rows, count, seed=seed, dtype=torch.float64)).Q
    right = torch.linalg.qr(normal(cols, count, seed=seed + 1, dtype=torch.float64)).Q
    scaled = left * torch.tensor(values, dtype=torch.float64)
    matrix: Tensor = scaled @ right.T
    return matrix


def save(directory: Path, tensors: Mapping[str, Tensor]) -> Path:
    path = directory / "model.pt"
    torch.save(dict(tensors), path)
    return path


class Problems(list[tuple[str, str]]):
    """(status, parameter) of everything that could not be used."""

    def __call__(self, error: SpectraError, parameter: str) -> None:
        self.append((error.status, parameter))


def rows_of(
    path: Path,
    *,
    budget_bytes: int = BUDGET_BYTES,
    problems: Problems | None = None,
    transposed: Sequence[str] = (),
    wrap: Callable[[Reader], Reader] = lambda reader: reader,
) -> dict[str, Row]:
    """Rows by parameter."""
    with open_checkpoint(path) as reader:
        specs = take_inventory(reader.tensors, ordered=reader.ordered, transposed=transposed).selected((), ())
        place = WorkPlace(torch.device("cpu"), budget_bytes)
        ranks = RankRows()
        told = Problems() if problems is None else problems
        visit(wrap(reader), specs, [ranks], place, on_problem=told, on_matrix=lambda _: None)
        rows = ranks.rows()
    assert [row["depth"] for row in rows] == list(range(len(rows)))
    return {row["parameter"]: row for row in rows}


def lapack(matrix: Tensor) -> NDArray[np.float64]:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


def expected_numbers(s: NDArray[np.float64], rows: int, cols: int, eps: float) -> dict[str, float]:
    """DESIGN's table of definitions, formula by formula."""
    p = s / s.sum()
    entropy = -sum(share * math.log(share) for share in p if share > 0)
    count = len(s)
    pairwise = np.abs(s[:, None] - s[None, :]).sum()
    return {
        "spectral_norm": s[0],
        "frobenius_norm": math.sqrt(sum(s**2)),
        "nuclear_norm": sum(s),
        "entropy": entropy,
        "entropy_normalized": entropy / count,
        "effective_rank": math.exp(entropy),
        "effective_rank_normalized": math.exp(entropy) / count,
        "stable_rank": sum(s**2) / s[0] ** 2,
        "rank_90": next(k for k in range(1, count + 1) if s[:k].sum() >= 0.9 * s.sum()),
        "numerical_rank": int(sum(s > s[0] * max(rows, cols) * eps)),
        "condition_number": s[0] / s[-1],
        "gini": pairwise / (2 * count * s.sum()),  # mean absolute difference over twice the mean
    }


def assert_row_is_right(row: Row, matrix: Tensor) -> None:
    """Check every number of a row against the matrix (rows, cols), in the stored dtype."""
    exact = lapack(matrix)
    found = np.asarray(row["singular_values"])
    assert row["status"] == "ok"
    assert (row["rows"], row["cols"]) == tuple(matrix.shape)
    assert row["dtype"] == str(matrix.dtype).removeprefix("torch.")
    assert found.dtype == np.float32
    assert found.shape == exact.shape
    assert (np.diff(found) <= 0).all()
    oracle_error = 1e-14 * exact[0]
    largest_error = np.abs(found.astype(np.float64) - exact).max()
    assert largest_error <= row["singular_value_error"] + oracle_error
    assert largest_error <= 1e-5 * exact[0]
    rows, cols = matrix.shape
    expected = expected_numbers(exact, rows, cols, torch.finfo(matrix.dtype).eps)
    for name in NUMBERS:
        relative = row["singular_value_error"] / exact[-1] if name == "condition_number" else 1e-4
        assert row[name] == pytest.approx(expected[name], rel=max(relative, 1e-4), abs=1e-9), name


# Numbers


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(24, 24), (96, 10), (10, 96), (600, 20)], ids=str)
def test_every_dtype_and_shape_gives_what_lapack_gives(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    matrix = normal(*shape, dtype=dtype)
    rows = rows_of(save(tmp_path, {"layer.weight": matrix}))
    assert_row_is_right(rows["layer.weight"], matrix)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_changes_norms_and_nothing_else(tmp_path: Path, scale: float) -> None:
    matrix = normal(40, 12)
    rows = rows_of(save(tmp_path, {"plain.weight": matrix, "scaled.weight": matrix * scale}))
    assert_row_is_right(rows["scaled.weight"], matrix * scale)
    for name in set(NUMBERS) - {"spectral_norm", "frobenius_norm", "nuclear_norm"}:
        assert rows["scaled.weight"][name] == pytest.approx(rows["plain.weight"][name], rel=1e-5), name


def test_a_planted_spectrum_is_found(tmp_path: Path) -> None:
    """Known in closed form: four equal values and no other."""
    matrix = with_spectrum(30, 50, [2.0] * 4)
    row = rows_of(save(tmp_path, {"layer.weight": matrix}))["layer.weight"]
    assert row["effective_rank"] == pytest.approx(4.0, rel=1e-9)
    assert row["stable_rank"] == pytest.approx(4.0, rel=1e-9)
    assert (row["rank_90"], row["numerical_rank"]) == (4, 4)
    assert row["nuclear_norm"] == pytest.approx(8.0, rel=1e-9)
    assert row["gini"] == pytest.approx(26 / 30, rel=1e-9)
    np.testing.assert_allclose(row["singular_values"], [2.0] * 4 + [0.0] * 26, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (1, 3000), (3000, 1)], ids=str)
def test_a_single_row_or_column_has_its_length_as_only_value(tmp_path: Path, shape: tuple[int, int]) -> None:
    matrix = normal(*shape)
    row = rows_of(save(tmp_path, {"layer.weight": matrix}))["layer.weight"]
    assert row["singular_values"] == pytest.approx([float(matrix.double().norm())], rel=1e-6)
    assert (row["effective_rank"], row["entropy"], row["gini"]) == (1.0, 0.0, 0.0)
    assert (row["stable_rank"], row["condition_number"], row["rank_90"]) == (1.0, 1.0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ratio", [1e-2, 1e-5, 1e-8])
def test_the_bound_holds_where_small_values_are_hard(tmp_path: Path, dtype: torch.dtype, ratio: float) -> None:
    """Squaring the matrix loses what is small against s_1: the bound must say so, rounding to float32 included."""
    matrix = with_spectrum(400, 24, np.geomspace(1.0, ratio, 24).tolist()).to(dtype)
    row = rows_of(save(tmp_path, {"layer.weight": matrix}))["layer.weight"]
    error = np.abs(np.asarray(row["singular_values"], dtype=np.float64) - lapack(matrix)).max()
    assert 0.0 < error <= row["singular_value_error"] <= 1e-5


def test_the_bound_covers_the_rounding_of_the_table_itself(tmp_path: Path) -> None:
    """It holds float32: of a value that float64 holds and float32 does not, the difference is an error too."""
    matrix = torch.diag(torch.tensor([1.0 + 2.0**-40, 0.5], dtype=torch.float64))
    row = rows_of(save(tmp_path, {"layer.weight": matrix}))["layer.weight"]
    assert [float(value) for value in row["singular_values"]] == [1.0, 0.5]
    assert 2.0**-40 <= row["singular_value_error"] <= 2.0**-39


# From parameters to matrices


def test_each_kind_of_layer_is_the_matrix_of_its_linear_map(tmp_path: Path) -> None:
    """Output x input: as is, flattened, with axes swapped, transposed, or one of a stack."""
    tensors = {
        "linear.weight": normal(7, 5, seed=1),
        "conv1d.weight": normal(6, 4, 3, seed=2),
        "conv2d.weight": normal(6, 4, 3, 3, seed=3),
        "conv3d.weight": normal(6, 2, 3, 2, 2, seed=4),
        "deconv.weight": normal(4, 6, 3, 3, seed=5),
        "decoder.last.weight": normal(5, 3, 2, 2, seed=6),
        "mlp.experts.up_proj": normal(3, 8, 5, seed=7),
        "rnn.weight_hh_l0": normal(16, 4, seed=8),
        "tok.embedding.weight": normal(11, 4, seed=9),
    }
    rows = rows_of(save(tmp_path, tensors), transposed=["decoder.last.*"])
    swapped = {name: tensors[name].transpose(0, 1).flatten(1) for name in ("deconv.weight", "decoder.last.weight")}
    experts = {f"mlp.experts.up_proj[{e}]": tensors["mlp.experts.up_proj"][e] for e in range(3)}
    plain = {name: t.flatten(1) for name, t in tensors.items() if name not in {*swapped, "mlp.experts.up_proj"}}
    matrices = plain | swapped | experts
    assert set(rows) == set(matrices)
    for name, matrix in matrices.items():
        assert_row_is_right(rows[name], matrix)
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds["conv2d.weight"] == "conv"
    assert kinds["deconv.weight"] == kinds["decoder.last.weight"] == "conv_transpose"
    assert (kinds["rnn.weight_hh_l0"], kinds["tok.embedding.weight"]) == ("recurrent", "embedding")


def test_gpt2_stores_its_layers_the_other_way_round(tmp_path: Path) -> None:
    """Hugging Face's Conv1D keeps (in, out); rows are outputs all the same, also of the square projection."""
    tensors = {
        "h.0.attn.c_attn.weight": normal(6, 18, seed=1),
        "h.0.attn.c_attn.bias": normal(18, seed=2),
        "h.0.attn.c_proj.weight": normal(6, 6, seed=3),
        "h.0.mlp.c_fc.weight": normal(6, 24, seed=4),
    }
    rows = rows_of(save(tmp_path, tensors))
    assert set(rows) == {name for name in tensors if name.endswith("weight")}
    for name, row in rows.items():
        assert_row_is_right(row, tensors[name].T)


def test_many_matrices_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    """They are factorized as one batch; each must get its own numbers."""
    tensors = {f"layers.{index}.weight": normal(20, 12, seed=index) * (index + 1) for index in range(9)}
    rows = rows_of(save(tmp_path, tensors))
    for name, tensor in tensors.items():
        assert_row_is_right(rows[name], tensor)


# What has no numbers


def test_a_matrix_that_is_not_finite_says_so_and_harms_no_other(tmp_path: Path) -> None:
    """Also not those of its shape, which are worked on together with it."""
    good = {f"layers.{index}.weight": normal(20, 12, seed=index) for index in range(4)}
    alone = rows_of(save(tmp_path, good))
    nan, inf = normal(20, 12, seed=8), normal(300, 12, seed=9)
    nan[3, 4], inf[7, 1] = math.nan, -math.inf
    rows = rows_of(save(tmp_path, {"nan.weight": nan, **good, "inf.weight": inf}))
    for name in ("nan.weight", "inf.weight"):
        assert rows[name]["status"] == "not_finite"
        assert not set(NUMBERS) & rows[name].keys()
        assert "singular_values" not in rows[name]
        assert rows[name]["digest"]
    for name, matrix in good.items():
        assert_row_is_right(rows[name], matrix)
        assert rows[name]["digest"] == alone[name]["digest"]


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
def test_all_zeros_have_norms_of_zero_and_no_effective_rank(tmp_path: Path, dtype: torch.dtype) -> None:
    row = rows_of(save(tmp_path, {"layer.weight": torch.zeros(6, 4).to(dtype)}))["layer.weight"]
    assert row["status"] == "all_zero"
    assert [float(value) for value in row["singular_values"]] == [0.0] * 4
    assert row["spectral_norm"] == row["frobenius_norm"] == row["nuclear_norm"] == row["singular_value_error"] == 0.0
    assert (row["rank_90"], row["numerical_rank"]) == (0, 0)
    for name in ("entropy", "effective_rank", "effective_rank_normalized", "stable_rank", "condition_number", "gini"):
        assert row[name] is None, name


def test_empty_and_complex_matrices_are_rows_without_numbers(tmp_path: Path) -> None:
    tensors = {
        "rows.weight": torch.zeros(0, 5),
        "cols.weight": torch.zeros(5, 0),
        "complex.weight": torch.randn(4, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)),
        "good.weight": normal(4, 3),
    }
    rows = rows_of(save(tmp_path, tensors))
    statuses = {name: row["status"] for name, row in rows.items()}
    assert statuses == {
        "rows.weight": "empty",
        "cols.weight": "empty",
        "complex.weight": "complex_dtype",
        "good.weight": "ok",
    }
    assert (rows["rows.weight"]["rows"], rows["rows.weight"]["cols"]) == (0, 5)
    assert (rows["cols.weight"]["rows"], rows["cols.weight"]["cols"]) == (5, 0)


def test_a_matrix_beyond_the_memory_budget_is_a_row_and_a_problem(tmp_path: Path) -> None:
    tensors = {"large.weight": normal(200, 200), "small.weight": normal(6, 4), "wide.weight": normal(200, 200, seed=1)}
    problems = Problems()
    rows = rows_of(save(tmp_path, tensors), budget_bytes=200_000, problems=problems)
    assert {name: row["status"] for name, row in rows.items()} == {
        "large.weight": "over_memory_budget",
        "small.weight": "ok",
        "wide.weight": "over_memory_budget",
    }
    assert sorted(problems) == [("over_memory_budget", "large.weight"), ("over_memory_budget", "wide.weight")]
    assert_row_is_right(rows["small.weight"], tensors["small.weight"])


class Failing:
    """A reader whose reads of one tensor fail, as on a disk that goes bad, after so many that succeed."""

    def __init__(self, reader: Reader, name: str, good_reads: int = 0) -> None:
        self._reader = reader
        self._name = name
        self._good_reads = good_reads

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._reader, attribute)

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        if name == self._name:
            self._good_reads -= 1
            if self._good_reads < 0:
                raise CheckpointError("reading failed at byte 7")
        return self._reader.read(name, rows, cols)


@pytest.mark.parametrize("bad", ["a.weight", "b.weight", "c.weight", "d.weight"])
@pytest.mark.parametrize(
    ("resident_bytes", "good_reads"),
    [(64 << 20, 0), (16, 0), (16, 1)],
    ids=["resident", "streamed, in its digest", "streamed, in its batch"],
)
def test_what_cannot_be_read_is_a_row_and_the_rest_goes_on(
    tmp_path: Path, bad: str, resident_bytes: int, good_reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever reading fails: one group ahead in a thread of its own, or amid the work on matrices of one shape."""
    monkeypatch.setattr(memory, "RESIDENT_BYTES", resident_bytes)
    tensors = {"a.weight": normal(5, 4), "b.weight": normal(6, 4), "c.weight": normal(6, 4), "d.weight": normal(7, 4)}
    problems = Problems()

    def wrap(reader: Reader) -> Reader:
        return Failing(reader, bad, good_reads)

    rows = rows_of(save(tmp_path, tensors), problems=problems, wrap=wrap)
    assert {name for name, row in rows.items() if row["status"] != "ok"} == {bad}
    assert rows[bad]["status"] == "unreadable"
    assert problems == [("unreadable", bad)]
    for name in tensors.keys() - {bad}:
        assert_row_is_right(rows[name], tensors[name])


def test_a_fault_of_ours_in_the_reading_thread_is_not_swallowed(tmp_path: Path) -> None:
    class Faulty(Failing):
        def read(self, *_: object) -> Tensor:
            raise ZeroDivisionError

    def wrap(reader: Reader) -> Reader:
        return Faulty(reader, "")

    path = save(tmp_path, {"a.weight": normal(5, 4), "b.weight": normal(6, 4)})
    with pytest.raises(ZeroDivisionError):
        rows_of(path, wrap=wrap)


# Streaming


LAYOUTS = {
    "linear.weight": normal(90, 7, seed=1),
    "wide.weight": normal(7, 90, seed=2),
    "h.0.attn.c_attn.weight": normal(8, 24, seed=3),
    "deconv.weight": normal(4, 6, 3, 3, seed=4),
    "conv.weight": normal(6, 4, 3, 3, seed=5),
    "mlp.experts.up_proj": normal(3, 40, 5, seed=6),
    "half.weight": normal(64, 16, seed=7, dtype=torch.bfloat16),
}


class Counting(Failing):
    """A reader that remembers how many elements each read gave."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader, "")
        self.elements: dict[str, list[int]] = {}

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        block = super().read(name, rows, cols)
        self.elements.setdefault(name, []).append(block.numel())
        return block


def test_streaming_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix too large to be held is read slab by slab, to the same row in every bit, digest included."""
    path = save(tmp_path, LAYOUTS)
    resident = rows_of(path)
    monkeypatch.setattr(memory, "RESIDENT_BYTES", 16)
    monkeypatch.setattr(loading, "HASH_BYTES", 100)
    readers: list[Counting] = []

    def wrap(reader: Reader) -> Reader:
        readers.append(Counting(reader))
        return readers[0]

    streamed = rows_of(path, wrap=wrap)
    assert resident.keys() == streamed.keys()
    for name, row in resident.items():
        assert row.keys() == streamed[name].keys()
        for column, value in row.items():
            np.testing.assert_array_equal(np.asarray(streamed[name][column]), np.asarray(value), err_msg=column)
    (reader,) = readers
    for name, tensor in LAYOUTS.items():
        assert len(reader.elements[name]) > 3, name
        assert min(reader.elements[name]) < tensor.numel(), name


# Digests


def digest_by_hand(tensor: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes, as the column's description says."""
    import hashlib

    header = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode()
    return hashlib.sha256(header + tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def test_a_digest_can_be_reproduced_by_hand(tmp_path: Path) -> None:
    rows = rows_of(save(tmp_path, LAYOUTS))
    for name, tensor in LAYOUTS.items():
        if "experts" not in name:
            assert rows[name]["digest"] == digest_by_hand(tensor), name
    for expert, stored in enumerate(LAYOUTS["mlp.experts.up_proj"]):
        assert rows[f"mlp.experts.up_proj[{expert}]"]["digest"] == digest_by_hand(stored)


def test_a_digest_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    weight = normal(9, 6)
    tensors = {"layer.weight": weight}
    strided = {"layer.weight": weight.T.contiguous().T}  # the same numbers, column by column
    torch.save(tensors, tmp_path / "zip.pt")
    torch.save(tensors, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": strided, "epoch": 3}, tmp_path / "strided.pt")
    save_file(tensors, tmp_path / "model.safetensors")
    digests = {path.name: rows_of(path)["layer.weight"]["digest"] for path in tmp_path.iterdir()}
    assert digests == dict.fromkeys(digests, digest_by_hand(weight))
    assert len(digests) == 4


def test_one_bit_changes_the_digest(tmp_path: Path) -> None:
    weight = normal(9, 6)
    original = rows_of(save(tmp_path, {"layer.weight": weight}))["layer.weight"]["digest"]
    seen = {original}
    for position in (0, 53):
        for bit in (0, 31):
            flipped = weight.clone()
            flipped.view(torch.int32).view(-1)[position] ^= -(2**31) if bit == 31 else 1
            seen.add(rows_of(save(tmp_path, {"layer.weight": flipped}))["layer.weight"]["digest"])
    assert len(seen) == 5


def test_equal_bytes_of_another_shape_or_dtype_have_another_digest(tmp_path: Path) -> None:
    weight = torch.ones(4, 4, dtype=torch.float16)
    others = {
        "a.weight": weight,
        "b.weight": weight.reshape(2, 8).clone(),
        "c.weight": weight.view(torch.bfloat16).clone(),
    }
    rows = rows_of(save(tmp_path, others))
    assert len({row["digest"] for row in rows.values()}) == 3


# Determinism


def test_the_same_checkpoint_gives_the_same_bits_twice(tmp_path: Path) -> None:
    path = save(tmp_path, {**LAYOUTS, "tall.weight": normal(2000, 30, seed=9)})
    first, second = rows_of(path), rows_of(path)
    for name, row in first.items():
        for column, value in row.items():
            np.testing.assert_array_equal(np.asarray(second[name][column]), np.asarray(value), err_msg=column)


def test_rows_do_not_depend_on_the_order_of_the_checkpoint(tmp_path: Path) -> None:
    """Matrices of one shape share a batch, so that a neighbour might change the last bit of a sum."""
    tensors = {f"layers.{index}.weight": normal(24, 16, seed=index) for index in range(6)}
    together = rows_of(save(tmp_path, tensors))
    reordered = rows_of(save(tmp_path, dict(reversed(tensors.items()))))
    for name, row in reordered.items():
        np.testing.assert_array_equal(row["singular_values"], together[name]["singular_values"])
        assert [row[number] for number in NUMBERS] == [together[name][number] for number in NUMBERS]


@pytest.mark.parametrize("scale", [1e40, 1e-60])
def test_values_beyond_float32_leave_their_column_null_and_the_statistics_stand(tmp_path: Path, scale: float) -> None:
    weights = normal(6, 4).double()
    rows = rows_of(save(tmp_path, {"layer.weight": weights * scale, "plain.weight": weights}))
    row, plain = rows["layer.weight"], rows["plain.weight"]
    assert (row["status"], row.get("singular_values")) == ("out_of_range", None)
    assert row["spectral_norm"] == pytest.approx(plain["spectral_norm"] * scale, rel=1e-12)
    assert row["effective_rank"] == pytest.approx(plain["effective_rank"], rel=1e-12)


def test_two_groups_are_in_memory_at_a_time() -> None:
    """The one that is worked on and the one that is read ahead."""
    alive: set[int] = set()
    made = [Event() for _ in range(6)]
    most = 0

    class Group:
        def __init__(self, number: int) -> None:
            nonlocal most
            self.number = number
            alive.add(number)
            most = max(most, len(alive))
            made[number].set()

        def __del__(self) -> None:
            alive.discard(self.number)

    numbers = []
    for group in loading.ahead(range(6), Group):
        numbers.append(group.number)
        assert made[min(group.number + 1, 5)].wait(120), "the next is not read meanwhile"
        del group
    assert numbers == list(range(6))
    assert most == 2
    assert list(loading.ahead([], Group)) == []
