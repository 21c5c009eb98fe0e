"""The fixtures are what fixtures/README.md says; checked with torch, safetensors and NumPy, without spectra."""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = FIXTURES / "formats"
EXPECTED = json.loads((FORMATS / "expected.json").read_text())
WRAPPERS = ("state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.", "model.")


def metrics(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def load_torch(path: Path) -> Any:
    """torch.load with the classes that the fixtures are known to hold beside tensors."""
    allowed: list[Any] = [argparse.Namespace, (pathlib.PurePosixPath, "pathlib.PurePosixPath")]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, weights_only=True)


def load_index(path: Path) -> dict[str, torch.Tensor]:
    """Shards through the index beside them; the index must name what each shard holds, no more and no less."""
    weight_map = json.loads(path.read_text())["weight_map"]
    merged: dict[str, torch.Tensor] = {}
    for file in sorted(set(weight_map.values())):
        shard = load_file(path.parent / file) if file.endswith(".safetensors") else load_torch(path.parent / file)
        assert sorted(shard) == sorted(name for name, holder in weight_map.items() if holder == file)
        merged.update(shard)
    return merged


def load_distributed(path: Path, scratch: Path) -> Any:
    """What torch's own converter makes of a torch.distributed.checkpoint directory."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(path, scratch / "converted.pt")
    return load_torch(scratch / "converted.pt")


def flattened(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def clean_weights(loaded: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The model's tensors by the names the model gave them, whatever was put around."""
    inner = next((loaded[key] for key in WRAPPERS if key in loaded), loaded)
    tensors = dict(flattened(inner))
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load(name: str, scratch: Path) -> dict[str, torch.Tensor]:
    path = FORMATS / EXPECTED["checkpoints"][name]["path"]
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.is_file():
        return clean_weights(load_torch(path))
    if (path / ".metadata").exists():
        return clean_weights(load_distributed(path, scratch))
    [index] = path.glob("*.index.json")
    return load_index(index)


def test_all_fixtures_together_stay_under_ten_megabytes() -> None:
    files = [path for path in FIXTURES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 10e6


TRAINED = sorted(path.parent for path in FIXTURES.rglob("run.json"))
"""Runs of `spectra train`."""


@pytest.mark.parametrize("run", TRAINED, ids=lambda run: run.relative_to(FIXTURES).as_posix())
class TestTrained:
    def test_every_checkpoint_has_its_metrics(self, run: Path) -> None:
        steps = sorted(int(path.stem.removeprefix("step_")) for path in run.glob("step_*.safetensors"))
        table = pyarrow.parquet.read_table(run / "metrics.parquet").to_pydict()
        assert len(steps) >= 2
        assert sorted(set(table["step"])) == steps
        assert set(table["split"]) == {"train", "val"}

    def test_the_model_learnt(self, run: Path) -> None:
        table = pyarrow.parquet.read_table(run / "metrics.parquet").to_pylist()
        losses = [row["value"] for row in table if (row["split"], row["metric"]) == ("train", "loss")]
        assert losses[-1] < 0.6 * losses[0]


def test_the_papers_systems_are_all_trained() -> None:
    tasks = {json.loads((run / "run.json").read_text())["task"] for run in TRAINED}
    systems = {"modular-addition", "image-classification", "diffusion", "speech", "language-modeling"}
    assert tasks == systems


def test_no_fixture_tells_where_it_was_made() -> None:
    """Pickles and TorchScript archives like to carry absolute paths of the machine that wrote them."""
    home_or_root = re.compile(rb"(?<![\w.])/(?:home|root|tmp|usr|opt|Users|private)/")
    leaks = [path for path in FIXTURES.rglob("*") if path.is_file() and home_or_root.search(path.read_bytes())]
    assert leaks == []


@pytest.mark.parametrize("run", [FIXTURES / "cnn", FIXTURES / "lstm"], ids=lambda run: run.name)
class TestClassifiers:
    def test_at_least_five_checkpoints_lead_from_chance_to_nine_digits_in_ten(self, run: Path) -> None:
        rows = metrics(run)
        assert len(rows) >= 5
        assert rows[0]["val_accuracy"] < 0.2
        assert rows[-1]["val_accuracy"] > 0.9

    def test_run_takes_less_than_600_kb(self, run: Path) -> None:
        assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 600e3


def test_cnn_checkpoints_are_named_for_the_epoch_and_step_they_hold() -> None:
    paths = sorted((FIXTURES / "cnn").glob("epoch=*.ckpt"))
    held = [(c["epoch"], c["global_step"]) for c in map(load_torch, paths)]
    assert [path.name for path in paths] == [f"epoch={epoch}-step={step}.ckpt" for epoch, step in held]
    assert sorted(held) == [(row["epoch"], row["step"]) for row in metrics(FIXTURES / "cnn")]


def test_last_ckpt_is_a_copy_of_the_latest_cnn_checkpoint() -> None:
    latest = max(metrics(FIXTURES / "cnn"), key=lambda row: row["step"])
    name = f"epoch={latest['epoch']:.0f}-step={latest['step']:.0f}.ckpt"
    assert (FIXTURES / "cnn" / "last.ckpt").read_bytes() == (FIXTURES / "cnn" / name).read_bytes()


def test_lexical_order_of_lstm_checkpoints_is_not_the_order_of_their_steps() -> None:
    names = sorted(path.name for path in (FIXTURES / "lstm").glob("checkpoint-*"))
    steps = [int(name.removeprefix("checkpoint-")) for name in names]
    assert steps != sorted(steps)
    assert sorted(steps) == [row["step"] for row in metrics(FIXTURES / "lstm")]


def test_lstm_checkpoints_hold_one_model_each_and_files_that_are_no_model() -> None:
    beside = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json"}
    for folder in (FIXTURES / "lstm").glob("checkpoint-*"):
        assert {path.name for path in folder.iterdir()} == beside | {"pytorch_model.bin"}
        assert "lstm.weight_hh_l1_reverse" in load_torch(folder / "pytorch_model.bin")


class TestFormats:
    @pytest.mark.parametrize("name", [n for n, c in EXPECTED["checkpoints"].items() if c["dtype"] == "float32"])
    @pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")
    def test_every_format_holds_the_same_float32_weights(self, name: str, tmp_path: Path) -> None:
        reference = load_file(FORMATS / "safetensors" / "model.safetensors")
        weights = load(name, tmp_path)
        assert sorted(weights) == sorted(EXPECTED["names"])
        assert [n for n in weights if not torch.equal(weights[n], reference[n])] == []
        assert [n for n in weights if weights[n].dtype != reference[n].dtype] == []

    @pytest.mark.parametrize("name", [n for n, c in EXPECTED["checkpoints"].items() if c["path"].endswith(".pt")])
    def test_pickles_keep_the_order_of_the_model(self, name: str, tmp_path: Path) -> None:
        assert list(load(name, tmp_path)) == EXPECTED["names"]
        assert EXPECTED["names"] != sorted(EXPECTED["names"])

    @pytest.mark.parametrize("name", EXPECTED["checkpoints"])
    @pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")
    def test_expected_singular_values_are_those_of_the_stored_numbers(self, name: str, tmp_path: Path) -> None:
        """Against torch's LAPACK on the Gram side: sum of squares and largest value, besides the values themselves."""
        dtype = EXPECTED["checkpoints"][name]["dtype"]
        expected = EXPECTED["singular_values"][dtype]
        matrices = {n: t for n, t in load(name, tmp_path).items() if t.is_floating_point() and t.ndim > 1}
        assert sorted(expected) == sorted(matrices)
        for parameter, tensor in matrices.items():
            assert tensor.dtype == getattr(torch, dtype)
            actual = torch.linalg.svdvals(tensor.double().flatten(1))
            torch.testing.assert_close(torch.tensor(expected[parameter]).double(), actual, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("dtype", EXPECTED["singular_values"])
    def test_every_dtype_has_its_own_answer(self, dtype: str) -> None:
        others = [values for other, values in EXPECTED["singular_values"].items() if other != dtype]
        assert EXPECTED["singular_values"][dtype] not in others

    def test_ema_copy_differs_from_the_model_beside_it(self) -> None:
        loaded = load_torch(FORMATS / "torch_ema" / "model.pt")
        assert not torch.equal(loaded["ema"]["linear1.weight"], loaded["model"]["linear1.weight"])

    def test_views_are_stored_with_strides_and_offsets(self) -> None:
        views = load_torch(FORMATS / "torch_views" / "model.pt")
        assert not views["linear2.weight"].is_contiguous()
        assert views["conv.weight"].is_contiguous(memory_format=torch.channels_last)
        assert views["linear1.weight"].storage_offset() > 0
        assert (
            views["linear1.weight"].untyped_storage().data_ptr()
            == views["embedding.weight"].untyped_storage().data_ptr()
        )

    def test_distributed_checkpoint_cuts_matrices_along_rows_and_columns(self) -> None:
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        held = FileSystemReader(FORMATS / "distributed").read_metadata().state_dict_metadata
        chunks = {}
        for name in ("linear1", "linear2"):
            stored = held[f"model.{name}.weight"]
            assert isinstance(stored, TensorStorageMetadata)
            chunks[name] = [tuple(chunk.offsets) for chunk in stored.chunks]
        assert chunks == {"linear1": [(0, 0), (0, 4)], "linear2": [(0, 0), (4, 0)]}

    @pytest.mark.parametrize(
        ("name", "start"),
        [("gguf", b"GGUF"), ("hdf5", b"\x89HDF\r\n\x1a\n"), ("torchscript", b"PK\x03\x04")],
    )
    def test_refused_files_begin_with_the_signature_of_their_format(self, name: str, start: bytes) -> None:
        assert (FORMATS / EXPECTED["refused"][name]).read_bytes().startswith(start)

    def test_every_refused_format_is_there(self) -> None:
        assert [name for name, path in EXPECTED["refused"].items() if not (FORMATS / path).exists()] == []
