"""`spectra_cli.align` against the formulas in float64 NumPy; what meets what is written out by hand for every model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

import spectra_cli
from spectra_cli.errors import CheckpointError, SpectraError, UsageError
from spectra_cli.spectrum import memory
from spectra_cli.tables.schemas import TABLES, arrow_schema
from tests.analyses.formulas import CLEAR, Array, Triplets, chain, products, save, save_run, separated, svd

pytestmark = pytest.mark.filterwarnings("ignore::spectra_cli.execution.work.listener.SkippedWorkWarning")

Key = tuple[str, str, str, str, int | None]
"""Connection, upstream, downstream, unit, index."""

WIDTH = 32
HEADS = 4
HEAD = WIDTH // HEADS
VOCABULARY = 50


@dataclass(frozen=True)
class Vectors:
    """Singular vectors that meet others, or some of their coordinates, and the matrix that they are of."""

    of: Triplets
    columns: Array


@dataclass(frozen=True)
class Meeting:
    """What a row is to hold."""

    upstream: Vectors
    downstream: Vectors
    primary: bool = True


@dataclass
class Model:
    """A checkpoint, its config.json, and every row that it is to give: a meeting, or a status."""

    weights: dict[str, Tensor]
    rows: dict[Key, Meeting | str]
    config: dict[str, Any]

    def write(self, directory: Path) -> Path:
        save(directory / "model.safetensors", self.weights)
        (directory / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        return directory


def left(matrix: Tensor, start: int = 0, stop: int | None = None) -> Vectors:
    triplets = svd(matrix)
    return Vectors(triplets, triplets.left[start:stop])


def right(matrix: Tensor) -> Vectors:
    triplets = svd(matrix)
    return Vectors(triplets, triplets.right)


def head_rows(matrix: Tensor, head: int) -> Tensor:
    return matrix[head * HEAD : (head + 1) * HEAD]


def gpt_neox(dtype: torch.dtype) -> Model:
    """Two blocks with parallel residual; the rows of the fused matrix are q, k and v of head 0, of head 1, ..."""
    weights = {
        "gpt_neox.embed_in.weight": separated(VOCABULARY, WIDTH, 1, dtype),
        "embed_out.weight": separated(VOCABULARY, WIDTH, 2, dtype),
    }
    for i in range(2):
        block = f"gpt_neox.layers.{i}"
        weights[f"{block}.attention.query_key_value.weight"] = separated(3 * WIDTH, WIDTH, 10 * i + 3, dtype)
        weights[f"{block}.attention.dense.weight"] = separated(WIDTH, WIDTH, 10 * i + 4, dtype)
        weights[f"{block}.mlp.dense_h_to_4h.weight"] = separated(2 * WIDTH, WIDTH, 10 * i + 5, dtype)
        weights[f"{block}.mlp.dense_4h_to_h.weight"] = separated(WIDTH, 2 * WIDTH, 10 * i + 6, dtype)
    rows: dict[Key, Meeting | str] = {}
    embed, unembed = "gpt_neox.embed_in.weight", "embed_out.weight"
    names = [
        [f"gpt_neox.layers.{i}.{name}.weight" for name in (
            "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"
        )]
        for i in range(2)
    ]  # fmt: skip
    for i, (qkv, dense, up, down) in enumerate(names):
        fused = weights[qkv].reshape(HEADS, 3, HEAD, WIDTH)
        for h in range(HEADS):
            query, key, value = fused[h]
            rows["query-key", qkv, qkv, "head", h] = Meeting(left(query), left(key))
            columns = weights[dense][:, h * HEAD : (h + 1) * HEAD]
            rows["value-output", qkv, dense, "head", h] = Meeting(left(value), right(columns))
        values = fused[:, 2].reshape(WIDTH, WIDTH)
        rows["value-output", qkv, dense, "whole", None] = Meeting(left(values), right(weights[dense]), primary=False)
        rows["up-down", up, down, "whole", None] = Meeting(left(weights[up]), right(weights[down]))
        for reader in (qkv, up):
            if i == 0:
                rows["embedding-input", embed, reader, "whole", None] = Meeting(
                    right(weights[embed]), right(weights[reader])
                )
            else:
                for giver in (names[0][1], names[0][3]):
                    rows["residual", giver, reader, "whole", None] = Meeting(
                        left(weights[giver]), right(weights[reader])
                    )
    for giver in (names[1][1], names[1][3]):
        rows["output", giver, unembed, "whole", None] = Meeting(left(weights[giver]), right(weights[unembed]))
    return Model(weights, rows, {"model_type": "gpt_neox", "num_attention_heads": HEADS})


def llama(dtype: torch.dtype) -> Model:
    """Two blocks; two key and value heads for four query heads; gate and up both feed down."""
    narrow, inner = WIDTH // 2, 48
    weights = {"model.embed_tokens.weight": separated(VOCABULARY, WIDTH, 1, dtype)}
    shapes = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (narrow, WIDTH),
        "self_attn.v_proj": (narrow, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (inner, WIDTH),
        "mlp.up_proj": (inner, WIDTH),
        "mlp.down_proj": (WIDTH, inner),
    }
    for i in range(2):
        for number, (name, shape) in enumerate(shapes.items()):
            weights[f"model.layers.{i}.{name}.weight"] = separated(*shape, 10 * i + number + 2, dtype)
    weights["lm_head.weight"] = separated(VOCABULARY, WIDTH, 30, dtype)
    rows: dict[Key, Meeting | str] = {}

    def whole(connection: str, giver: str, reader: str) -> None:
        gives = right(weights[giver]) if "embed" in giver else left(weights[giver])
        rows[connection, giver, reader, "whole", None] = Meeting(gives, right(weights[reader]))

    blocks = [[f"model.layers.{i}.{name}.weight" for name in shapes] for i in range(2)]
    for i, (query, key, value, output, gate, up, down) in enumerate(blocks):
        for h in range(HEADS):
            rows["query-key", query, key, "head", h] = Meeting(
                left(head_rows(weights[query], h)), left(head_rows(weights[key], h // 2))
            )
            rows["value-output", value, output, "head", h] = Meeting(
                left(head_rows(weights[value], h // 2)), right(weights[output][:, h * HEAD : (h + 1) * HEAD])
            )
        for reader in (gate, up):
            whole("output-up", output, reader)
            whole("up-down", reader, down)
        for reader in (query, key, value):
            if i == 0:
                whole("embedding-input", "model.embed_tokens.weight", reader)
            else:
                whole("residual", blocks[0][6], reader)
    whole("output", blocks[1][6], "lm_head.weight")
    config = {"model_type": "llama", "num_attention_heads": HEADS, "num_key_value_heads": 2}
    return Model(weights, rows, config)


def lstm(dtype: torch.dtype) -> Model:
    """Two layers of two directions: gates i, f, g, o of 12 units; what reads a layer has forward columns first."""
    hidden, inputs = 12, 9
    weights = {"embedding.weight": separated(VOCABULARY, inputs, 1, dtype)}
    for layer, width in ((0, inputs), (1, 2 * hidden)):
        for number, ending in enumerate(("", "_reverse")):
            seed = 10 * layer + 4 * number + 2
            weights[f"lstm.weight_ih_l{layer}{ending}"] = separated(4 * hidden, width, seed, dtype)
            weights[f"lstm.weight_hh_l{layer}{ending}"] = separated(4 * hidden, hidden, seed + 1, dtype)
    weights["classifier.weight"] = separated(10, 2 * hidden, 40, dtype)
    rows: dict[Key, Meeting | str] = {}

    def gates(connection: str, giver: str, reader: str, read: Tensor) -> None:
        for gate in range(4):
            gives = left(weights[giver], gate * hidden, (gate + 1) * hidden)
            rows[connection, giver, reader, "gate", gate] = Meeting(gives, right(read), primary=gate == 2)

    for number, ending in enumerate(("", "_reverse")):
        half = slice(number * hidden, (number + 1) * hidden)
        first, second = f"lstm.weight_ih_l0{ending}", f"lstm.weight_ih_l1{ending}"
        rows["embedding-input", "embedding.weight", first, "whole", None] = Meeting(
            right(weights["embedding.weight"]), right(weights[first])
        )
        for layer in range(2):
            giver, reader = f"lstm.weight_ih_l{layer}{ending}", f"lstm.weight_hh_l{layer}{ending}"
            gates("recurrent", giver, reader, weights[reader])
        for giver in (first, f"lstm.weight_hh_l0{ending}"):
            for reader in ("lstm.weight_ih_l1", "lstm.weight_ih_l1_reverse"):
                if reader == second:
                    gates("recurrent", giver, reader, weights[reader][:, half])
        for giver in (second, f"lstm.weight_hh_l1{ending}"):
            gates("output", giver, "classifier.weight", weights["classifier.weight"][:, half])
    return Model(weights, rows, {})


def cnn(dtype: torch.dtype) -> Model:
    """Names of no family: each feeds the next; a convolution is met at each position, (0, 0) first, rows first."""
    weights = {
        "conv1.weight": separated(8, 3 * 9, 1, dtype).reshape(8, 3, 3, 3),
        "conv2.weight": separated(12, 8 * 15, 2, dtype).reshape(12, 8, 3, 5),
        "conv3.weight": separated(12, 12 * 4, 3, dtype).reshape(12, 12, 2, 2),
        "fc1.weight": separated(20, 48, 4, dtype),
        "fc2.weight": separated(10, 20, 5, dtype),
    }
    rows: dict[Key, Meeting | str] = {}
    for giver, reader, kernel in (("conv1", "conv2", (3, 5)), ("conv2", "conv3", (2, 2))):
        channels = weights[f"{giver}.weight"].shape[0]
        full = svd(weights[f"{reader}.weight"])
        by_position = full.right.reshape(channels, math.prod(kernel), -1)
        for position in range(math.prod(kernel)):
            centre = (kernel[0] // 2) * kernel[1] + kernel[1] // 2
            here = Vectors(full, by_position[:, position])
            rows["sequential", f"{giver}.weight", f"{reader}.weight", "position", position] = Meeting(
                left(weights[f"{giver}.weight"]), here, primary=position == centre
            )
    rows["sequential", "conv3.weight", "fc1.weight", "whole", None] = "shape_mismatch"
    rows["sequential", "fc1.weight", "fc2.weight", "whole", None] = Meeting(
        left(weights["fc1.weight"]), right(weights["fc2.weight"])
    )
    return Model(weights, rows, {})


MODELS = {"gpt_neox": gpt_neox, "llama": llama, "lstm": lstm, "cnn": cnn}


def rows_by_key(frame: pd.DataFrame) -> dict[Key, dict[str, Any]]:
    """Rows of one checkpoint by what meets; each comes once."""
    found: dict[Key, dict[str, Any]] = {}
    for row in frame.to_dict("records"):
        index = None if pd.isna(row["unit_index"]) else int(row["unit_index"])
        key = (row["connection"], row["upstream"], row["downstream"], row["unit"], index)
        assert key not in found, key
        found[key] = {str(name): value for name, value in row.items()}
    return found


def assert_meets(row: Mapping[str, Any], meeting: Meeting) -> None:
    """Check a row against the formulas, every entry, the score and the gap."""
    block = products(meeting.upstream.columns, meeting.downstream.columns)
    diagonal = np.diag(block)
    spectra = (meeting.upstream.of, meeting.downstream.of)
    assert min(spectrum.gap for spectrum in spectra) > CLEAR, "the test itself claims too much"
    assert row["status"] == "ok"
    assert bool(row["primary"]) == meeting.primary
    assert row["diagonal"].shape == diagonal.shape
    np.testing.assert_allclose(row["diagonal"], diagonal, rtol=0, atol=1e-4)
    assert row["score"] == pytest.approx(diagonal[:10].mean(), abs=1e-4)
    assert row["min_gap"] == pytest.approx(min(spectrum.gap_of_ten for spectrum in spectra), rel=1e-4)
    if "alignment" in row:
        np.testing.assert_allclose(np.stack(row["alignment"]), block, rtol=0, atol=1e-4)


# Numbers


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_unit_is_what_the_formulas_give(tmp_path: Path, name: str, dtype: torch.dtype, full: bool) -> None:
    """And there is no row but those written out."""
    model = MODELS[name](dtype)
    frame = spectra_cli.align(model.write(tmp_path), full=full)
    found = rows_by_key(frame)
    assert set(found) == set(model.rows)
    for key, expected in model.rows.items():
        if isinstance(expected, str):
            assert found[key]["status"] == expected, key
            assert found[key]["diagonal"] is None
            assert pd.isna(found[key]["score"])
            assert pd.isna(found[key]["min_gap"])
        else:
            assert_meets(found[key], expected)


def test_planted_alignment_is_1_where_it_is_planted(tmp_path: Path) -> None:
    """Left vectors of the first layer are right vectors of the second, in order; signs may differ, pair by pair."""
    weights = chain([12, 16, 10, 9])
    shared = svd(weights["layers.1.weight"])
    signs = np.where(np.arange(10) % 3 == 0, -1.0, 1.0)
    reader = separated(9, 10, 7).double().numpy()
    triplets = svd(reader)
    planted = (triplets.left * triplets.values) @ (shared.left * signs)[:, :9].T
    weights["layers.2.weight"] = torch.from_numpy(planted).float()
    found = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    np.testing.assert_allclose(found["diagonal"][1], np.ones(9), atol=1e-4)
    assert found["score"][1] == pytest.approx(1.0, abs=1e-4)
    assert found["score"][0] < 0.9


def test_diagonals_end_at_100_and_gaps_at_10(tmp_path: Path) -> None:
    weights = chain([120, 130, 110])
    values = 0.97 ** np.arange(110.0)
    values[11] = values[10] * (1 - 1e-3)  # the gap of i = 11, which is none of the ten
    triplets = svd(weights["layers.1.weight"])
    weights["layers.1.weight"] = torch.from_numpy((triplets.left * values) @ triplets.right.T).float()
    weights["layers.0.weight"] = separated(130, 120, 5, ratio=0.96)
    frame = spectra_cli.align(save(tmp_path / "model.safetensors", weights), full=True)
    ((_, row),) = rows_by_key(frame).items()
    assert len(row["diagonal"]) == 100
    assert np.stack(row["alignment"]).shape == (100, 100)
    assert_meets(row, Meeting(left(weights["layers.0.weight"]), right(weights["layers.1.weight"])))
    assert row["min_gap"] == pytest.approx(0.03, rel=1e-3)


def test_of_gaussian_weights_every_entry_is_right_that_the_gaps_allow(tmp_path: Path) -> None:
    """Nothing is planted, so that some neighbours are close; no entry of theirs is claimed."""
    generator = torch.Generator().manual_seed(0)
    sizes = [60, 90, 70, 80, 40]
    weights = {
        f"layers.{i}.weight": torch.randn(rows, cols, generator=generator)
        for i, (cols, rows) in enumerate(pairwise(sizes))
    }
    frame = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    claimed = 0
    for index, row in enumerate(frame.to_dict("records")):
        giver, reader = (svd(weights[f"layers.{i}.weight"]) for i in (index, index + 1))
        assert row["min_gap"] == pytest.approx(min(giver.gap_of_ten, reader.gap_of_ten), rel=1e-3)
        if row["min_gap"] > CLEAR:
            expected = np.diag(products(giver.left, reader.right))[:10]
            np.testing.assert_allclose(row["diagonal"][:10], expected, rtol=0, atol=1e-4)
            claimed += 1
    assert claimed >= 3


@pytest.mark.parametrize("tie", [0, 4, 9])
def test_ties_among_the_scored_vectors_are_told(tmp_path: Path, tie: int) -> None:
    """On either side of a connection; one beyond the tenth is not (s_11 = s_12)."""
    weights = chain([16, 16, 16, 16])
    triplets = svd(weights["layers.1.weight"])
    values = triplets.values.copy()
    values[tie + 1] = values[tie]
    weights["layers.1.weight"] = torch.from_numpy((triplets.left * values) @ triplets.right.T)
    triplets = svd(weights["layers.2.weight"])
    values = triplets.values.copy()
    values[11] = values[10]
    weights["layers.2.weight"] = torch.from_numpy((triplets.left * values) @ triplets.right.T)
    weights = {name: tensor.double() for name, tensor in weights.items()}
    frame = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    assert frame["status"].tolist() == ["ok", "ok"]
    assert (frame["min_gap"] < 1e-12).all()
    del weights["layers.1.weight"]
    kept = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    assert kept["min_gap"].tolist() == pytest.approx([0.15], rel=1e-4)


# --full


def test_the_block_comes_when_it_is_asked_for_and_only_then(tmp_path: Path) -> None:
    """In the frame and in the file; its diagonal is the column `diagonal`, the rest is the same."""
    path = save(tmp_path / "model.safetensors", chain([12, 16, 10, 9]))
    plain = spectra_cli.align(path, out=tmp_path / "plain.parquet")
    full = spectra_cli.align(path, full=True, out=tmp_path / "full.parquet")
    assert list(full.columns) == [column.name for column in TABLES["align"]]
    assert list(plain.columns) == [name for name in full.columns if name != "alignment"]
    for name, left_out in (("plain", ["alignment"]), ("full", [])):
        assert pq.read_schema(tmp_path / f"{name}.parquet").equals(arrow_schema("align", leave_out=left_out))
    for (_, row), (_, expected) in zip(full.iterrows(), plain.iterrows(), strict=True):
        block = np.stack(row["alignment"])
        np.testing.assert_array_equal(np.diag(block), row["diagonal"])
        np.testing.assert_array_equal(row["diagonal"], expected["diagonal"])
        assert row["score"] == expected["score"]
    stored = pq.read_table(tmp_path / "full.parquet")["alignment"].to_pylist()
    np.testing.assert_array_equal(np.array(stored[0], np.float32), np.stack(full["alignment"][0]))
    assert np.stack(full["alignment"][0]).shape == (12, 10)


# Statuses


def statuses(frame: pd.DataFrame) -> dict[Key, str]:
    return {key: row["status"] for key, row in rows_by_key(frame).items()}


def test_one_nan_spoils_what_it_is_in_and_nothing_else(tmp_path: Path) -> None:
    """A key weight of head 2: the whole fused matrix, and query-key of that head; no value and no other head."""
    model = gpt_neox(torch.float32)
    sound = rows_by_key(spectra_cli.align(model.write(tmp_path)))
    qkv = "gpt_neox.layers.1.attention.query_key_value.weight"
    model.weights[qkv][(2 * 3 + 1) * HEAD + 5, 17] = math.nan
    found = rows_by_key(spectra_cli.align(model.write(tmp_path)))
    spoilt = {key for key, row in found.items() if row["status"] != "ok"}
    assert {found[key]["status"] for key in spoilt} == {"not_finite"}
    whole = {key for key in model.rows if key[0] == "residual" and key[2] == qkv}
    assert len(whole) == 2
    assert spoilt == whole | {("query-key", qkv, qkv, "head", 2)}
    for key in set(found) - spoilt:
        np.testing.assert_allclose(found[key]["diagonal"], sound[key]["diagonal"], rtol=0, atol=1e-6)
        assert found[key]["score"] == pytest.approx(sound[key]["score"], abs=1e-6)
    for key in spoilt:
        assert found[key]["diagonal"] is None


def test_a_nan_in_a_value_head_spoils_that_head_and_all_values(tmp_path: Path) -> None:
    model = llama(torch.float32)
    value, output = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "vo")
    model.weights[value][HEAD + 3, 4] = math.inf  # value head 1, which query heads 2 and 3 share
    found = statuses(spectra_cli.align(model.write(tmp_path)))
    spoilt = {key for key, status in found.items() if status == "not_finite"}
    assert spoilt == {
        ("embedding-input", "model.embed_tokens.weight", value, "whole", None),
        ("value-output", value, output, "head", 2),
        ("value-output", value, output, "head", 3),
    }


def test_all_zeros_align_with_nothing(tmp_path: Path) -> None:
    weights = chain([12, 16, 10, 9])
    weights["layers.2.weight"] = torch.zeros(9, 10)
    frame = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    assert frame["status"].tolist() == ["ok", "all_zero"]
    assert frame["score"].isna().tolist() == [False, True]


def test_what_cannot_be_factorized_gives_its_reason_to_its_connections(tmp_path: Path) -> None:
    weights = chain([12, 16, 10, 9, 8])
    weights["layers.1.weight"] = weights["layers.1.weight"].to(torch.complex64)
    weights["layers.3.weight"] = torch.zeros(0, 9)
    frame = spectra_cli.align(save(tmp_path / "model.safetensors", weights))
    assert frame["status"].tolist() == ["complex_dtype", "complex_dtype", "empty"]


def test_without_head_counts_whole_rows_stand_and_heads_mend_the_rest(tmp_path: Path) -> None:
    model = gpt_neox(torch.float32)
    known = spectra_cli.align(model.write(tmp_path))
    (tmp_path / "config.json").unlink()
    without = rows_by_key(spectra_cli.align(tmp_path))
    told = {key for key, row in without.items() if row["status"] == "no_head_count"}
    qkv, dense = (f"gpt_neox.layers.0.attention.{name}.weight" for name in ("query_key_value", "dense"))
    assert {key for key in told if key[1] == qkv} == {
        ("query-key", qkv, qkv, "head", None),
        ("value-output", qkv, dense, "head", None),
        ("value-output", qkv, dense, "whole", None),  # which rows are values depends on it too
    }
    rest = {key: meeting for key, meeting in model.rows.items() if key[0] not in {"query-key", "value-output"}}
    assert without.keys() - told == rest.keys()
    for key, meeting in rest.items():
        assert isinstance(meeting, Meeting)
        assert_meets(without[key], meeting)
    pd.testing.assert_frame_equal(spectra_cli.align(tmp_path, heads=HEADS), known)


def test_heads_given_come_before_those_of_the_configuration(tmp_path: Path) -> None:
    model = gpt_neox(torch.float32)
    known = spectra_cli.align(model.write(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 2}), encoding="utf-8")
    pd.testing.assert_frame_equal(spectra_cli.align(tmp_path, heads=HEADS), known)
    assert statuses(spectra_cli.align(tmp_path)).keys() != model.rows.keys()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"heads": 6, "kv_heads": 4}, "--heads 6 is no multiple of --kv-heads 4"),
        ({"heads": 0}, "--heads 0"),
        ({"kv_heads": -1}, "--kv-heads -1"),
    ],
    ids=str,
)
def test_heads_that_contradict_each_other_are_refused(tmp_path: Path, given: dict[str, int], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        spectra_cli.align(gpt_neox(torch.float32).write(tmp_path), **given)  # type: ignore[arg-type]


def test_heads_that_do_not_divide_the_matrices_are_a_mismatch(tmp_path: Path) -> None:
    found = statuses(spectra_cli.align(gpt_neox(torch.float32).write(tmp_path), heads=5))
    of_heads = {status for key, status in found.items() if key[0] in {"query-key", "value-output"}}
    assert of_heads == {"head_count_mismatch"}
    assert {status for key, status in found.items() if key[3] == "whole" and key[0] != "value-output"} == {"ok"}


# What there is to align


def test_a_checkpoint_with_one_matrix_has_nothing_to_align(tmp_path: Path) -> None:
    path = save(tmp_path / "one" / "model.safetensors", chain([8, 6]))
    with pytest.raises(SpectraError, match="no matrix feeds another one") as caught:
        spectra_cli.align(path)
    assert caught.value.status == "no_connections"
    assert caught.value.remedy


def test_in_a_run_it_is_a_row(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", {0: chain([8, 6]), 100: chain([8, 6, 5])})
    frame = spectra_cli.align(run)
    assert frame["status"].tolist() == ["no_connections", "ok"]
    assert frame["step"].tolist() == [0, 100]
    assert frame["connection"].isna().tolist() == [True, False]


def test_a_selection_without_both_ends_of_any_connection_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "model.safetensors", chain([12, 16, 10, 9]))
    with pytest.raises(SpectraError, match="both ends"):
        spectra_cli.align(path, include="layers.1.*")
    with pytest.raises(SpectraError, match="no matrix is left by --include absent"):
        spectra_cli.align(path, include="absent")
    kept = spectra_cli.align(path, exclude="layers.0.*")
    assert kept["upstream"].tolist() == ["layers.1.weight"]
    assert kept["depth"].tolist() == [1]


def test_sequential_can_be_asked_for(tmp_path: Path) -> None:
    """Instead of the family: every matrix to the next, in the order of the model."""
    model = lstm(torch.float32)
    frame = spectra_cli.align(model.write(tmp_path), architecture="sequential")
    assert set(frame["connection"]) == {"sequential"}
    assert frame["depth"].tolist() == list(range(len(model.weights) - 1))
    assert frame["upstream"][1:].tolist() == frame["downstream"][:-1].tolist()


# Order and determinism


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_in_the_order_of_the_model(tmp_path: Path, name: str) -> None:
    frame = spectra_cli.align(MODELS[name](torch.float32).write(tmp_path))
    ranks = spectra_cli.rank(tmp_path)
    depths = dict(zip(ranks["parameter"], ranks["depth"], strict=True))
    assert frame["depth"].tolist() == [depths[giver] for giver in frame["upstream"]]
    ends = list(zip(frame["depth"], (depths[reader] for reader in frame["downstream"]), strict=True))
    assert ends == sorted(ends)
    for _, units in frame.groupby(["connection", "upstream", "downstream", "unit"]):
        assert units["unit_index"].isna().all() or units["unit_index"].tolist() == list(range(len(units)))


@pytest.mark.parametrize("name", MODELS)
def test_order_in_the_file_and_the_budget_change_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle keeps its order, here another than the model's; with little memory matrices are read slab by slab."""
    model = MODELS[name](torch.float32)
    expected = spectra_cli.align(model.write(tmp_path / "plain"))
    with monkeypatch.context() as patch:
        patch.setattr(memory, "RESIDENT_BYTES", 16)
        frugal = spectra_cli.align(tmp_path / "plain", memory_budget=300_000)
    assert frugal["status"].tolist() == expected["status"].tolist()
    reordered = tmp_path / "reordered"
    reordered.mkdir()
    (reordered / "config.json").write_text(json.dumps(model.config), encoding="utf-8")
    shuffled = dict(sorted(model.weights.items(), key=lambda item: item[0][::-1])) if name != "cnn" else model.weights
    torch.save(shuffled, reordered / "pytorch_model.bin")
    other = rows_by_key(spectra_cli.align(reordered))
    for frame in (rows_by_key(frugal), other):
        for key, row in rows_by_key(expected).items():
            assert frame[key]["status"] == row["status"], key
            if row["status"] == "ok":
                np.testing.assert_allclose(frame[key]["diagonal"], row["diagonal"], rtol=0, atol=1e-6)
                assert frame[key]["score"] == pytest.approx(row["score"], abs=1e-6)
                assert frame[key]["min_gap"] == pytest.approx(row["min_gap"], rel=1e-6)


# A family that the user names


@pytest.mark.parametrize("analysis", [spectra_cli.rank, spectra_cli.align, spectra_cli.sva])
def test_a_family_that_does_not_fit_is_an_error_and_no_fall_back(analysis: Any, tmp_path: Path) -> None:
    """The error says which name matches nothing, and what there is."""
    (tmp_path / "my.toml").write_text(
        '[parameters.up]\nname = "blcks.{i}.up.weight"\nrequired = true\n'
        '[[connections]]\nname = "residual"\nfrom = "up"\nto = "up"\nnext = true\n'
    )
    weights = {f"blocks.{block}.up.weight": separated(8, 8, block) for block in range(2)}
    checkpoint = save(tmp_path / "model.safetensors", weights)
    with pytest.raises(CheckpointError) as caught:
        analysis(checkpoint, architecture=str(tmp_path / "my.toml"))
    assert caught.value.status == "architecture_mismatch"
    assert str(caught.value) == (
        f"{checkpoint}: my.toml does not fit: required 'blcks.{{i}}.up.weight' matches no weight; "
        "weights are blocks.0.up.weight. Mend the name, or leave --architecture out."
    )
