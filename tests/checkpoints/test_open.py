"""From a path to a checkpoint: directories, shards, and formats that are refused in words."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectra_cli.checkpoints.open import check_complete, open_checkpoint
from spectra_cli.errors import (
    CheckpointError,
    CorruptCheckpointError,
    HostileCheckpointError,
    IncompleteCheckpointError,
    SpectraError,
    UnsupportedFormatError,
)

NAMES = ("c.weight", "a.weight", "b.weight")
SHARD_FORMATS = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}


def tensor(name: str) -> torch.Tensor:
    return torch.full((2, 3), float(ord(name[0])))


def save(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def sharded(directory: Path, form: str, index: bool = True) -> Path:
    """Three tensors in two shards; the index is sorted by name, as transformers writes it."""
    stem, suffix = SHARD_FORMATS[form]
    files = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    save({name: tensor(name) for name in NAMES[:1]}, directory / files[0])
    save({name: tensor(name) for name in NAMES[1:]}, directory / files[1])
    if index:
        weight_map = {name: files[0] if name == NAMES[0] else files[1] for name in sorted(NAMES)}
        write_index(directory, form, weight_map)
    return directory


def write_index(directory: Path, form: str, weight_map: object) -> Path:
    stem, suffix = SHARD_FORMATS[form]
    path = directory / f"{stem}.{suffix}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize("form", SHARD_FORMATS)
@pytest.mark.parametrize("index", [True, False])
def test_shards_read_as_one_checkpoint(tmp_path: Path, form: str, index: bool) -> None:
    """With an index and by their names alone; pickled shards keep the order of the model."""
    directory = sharded(tmp_path / "model", form, index)
    check_complete(directory)
    with open_checkpoint(directory) as reader:
        assert set(reader.tensors) == set(NAMES)
        assert reader.ordered is (form == "bin")
        if reader.ordered:
            assert tuple(reader.tensors) == NAMES
        for name in NAMES:
            assert torch.equal(reader.read(name), tensor(name))


def test_an_index_may_be_named_itself_and_a_shard_says_that_it_is_one(tmp_path: Path) -> None:
    directory = sharded(tmp_path, "safetensors")
    with open_checkpoint(directory / "model.safetensors.index.json") as reader:
        assert len(reader.tensors) == 3
    with open_checkpoint(directory / "model-00002-of-00002.safetensors") as reader:
        assert len(reader.tensors) == 2
        assert "one shard" in reader.notes[0]


@pytest.mark.parametrize("form", SHARD_FORMATS)
def test_equal_storages_of_different_shards_are_not_tied(tmp_path: Path, form: str) -> None:
    with open_checkpoint(sharded(tmp_path, form)) as reader:
        storages = [info.storage for info in reader.tensors.values() if info.storage is not None]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize("form", SHARD_FORMATS)
@pytest.mark.parametrize("index", [True, False])
def test_an_absent_shard_is_found_before_any_work(tmp_path: Path, form: str, index: bool) -> None:
    directory = sharded(tmp_path, form, index)
    next(directory.glob("*-00002-of-*")).unlink()
    for action in (check_complete, open_checkpoint):
        with pytest.raises(IncompleteCheckpointError, match="2"):
            action(directory)


def test_a_tensor_that_no_shard_holds_is_found_when_the_checkpoint_is_opened(tmp_path: Path) -> None:
    directory = sharded(tmp_path, "safetensors")
    write_index(directory, "safetensors", {"ghost": "model-00001-of-00002.safetensors"})
    with pytest.raises(IncompleteCheckpointError, match=r"'ghost' is listed in model\.safetensors\.index"):
        open_checkpoint(directory)


def test_a_tensor_that_the_index_does_not_list_is_left_out_and_noted(tmp_path: Path) -> None:
    directory = sharded(tmp_path, "bin")
    write_index(directory, "bin", {"a.weight": "pytorch_model-00002-of-00002.bin"})
    with open_checkpoint(directory) as reader:
        assert list(reader.tensors) == ["a.weight"]
        assert any("1 tensors" in note for note in reader.notes)


@pytest.mark.parametrize(
    "file", ["/etc/hostname", "../outside.safetensors", "sub/../../outside.safetensors", "C:\\x", "..\\x", "", "a\0b"]
)
def test_an_index_that_leaves_its_directory_is_refused(tmp_path: Path, file: str) -> None:
    """Even where the file is there and is a checkpoint."""
    save({"w": torch.ones(1)}, tmp_path / "outside.safetensors")
    (tmp_path / "model" / "sub").mkdir(parents=True)
    write_index(tmp_path / "model", "safetensors", {"w": file})
    for action in (check_complete, open_checkpoint):
        with pytest.raises(HostileCheckpointError):
            action(tmp_path / "model")


def test_shards_that_are_links_are_followed(tmp_path: Path) -> None:
    """The cache of huggingface_hub is made of links out of the directory."""
    blobs = sharded(tmp_path / "blobs", "safetensors")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    with open_checkpoint(snapshot) as reader:
        assert len(reader.tensors) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}',
                                     b"\xff\xfe", b"[" * 50_000])  # fmt: skip
def test_an_index_that_is_none_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    for action in (check_complete, open_checkpoint):
        with pytest.raises(CorruptCheckpointError):
            action(tmp_path)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    """Each format under the other's suffix, and without one."""
    save_file({"w": torch.ones(2)}, tmp_path / "a.bin")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "c", _use_new_zipfile_serialization=False)
    for name, form in {"a.bin": "safetensors", "b.safetensors": "pytorch", "c": "pytorch-legacy"}.items():
        with open_checkpoint(tmp_path / name) as reader:
            assert reader.format == form
            assert reader.read("w").tolist() == [1.0, 1.0]


def test_safetensors_are_preferred_and_the_other_file_is_noted(tmp_path: Path) -> None:
    save({"w": torch.ones(1)}, tmp_path / "model.safetensors")
    save({"w": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path) as reader:
        assert reader.read("w").item() == 1.0
        assert any("pytorch_model.bin" in note for note in reader.notes)


def test_files_that_are_no_models_do_not_count(tmp_path: Path) -> None:
    """A Hugging Face Trainer checkpoint, and one of torch with its optimizer beside it."""
    others = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt", "training_args.bin",
              "optimizer.bin", "random_states_0.pkl", "trainer_state.json", "config.json")  # fmt: skip
    for name in others:
        (tmp_path / name).write_bytes(b"not to be opened")
    with pytest.raises(IncompleteCheckpointError, match="no checkpoint"):
        open_checkpoint(tmp_path)
    save({"w": torch.ones(1)}, tmp_path / "weights.pt")
    with open_checkpoint(tmp_path) as reader:
        assert list(reader.tensors) == ["w"]


def test_several_models_in_a_directory_are_a_run_and_no_checkpoint(tmp_path: Path) -> None:
    for step in (1, 2):
        save({"w": torch.ones(1)}, tmp_path / f"step_{step}.pt")
    with pytest.raises(CheckpointError, match=r"step_1\.pt, step_2\.pt"):
        open_checkpoint(tmp_path)


def test_one_rank_of_megatron_is_read_and_several_are_refused(tmp_path: Path) -> None:
    save({"model": {"w": torch.ones(1)}, "iteration": 500}, tmp_path / "iter_0000500/mp_rank_00/model_optim_rng.pt")
    with open_checkpoint(tmp_path / "iter_0000500") as reader:
        assert reader.metadata == {"step": 500}
    save({"model": {"w": torch.ones(1)}}, tmp_path / "iter_0000500/mp_rank_01/model_optim_rng.pt")
    with pytest.raises(UnsupportedFormatError, match="Megatron"):
        open_checkpoint(tmp_path / "iter_0000500")


def test_one_rank_of_deepspeed_without_zero_is_read(tmp_path: Path) -> None:
    save({"module": {"w": torch.ones(1)}}, tmp_path / "mp_rank_00_model_states.pt")
    with open_checkpoint(tmp_path) as reader:
        assert list(reader.tensors) == ["module.w"]


class Program(torch.nn.Module):
    """The least that TorchScript compiles."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(Program()), path)


def tar(*members: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for member in members:
                archive.addfile(tarfile.TarInfo(member), io.BytesIO())

    return write


def zipped(*members: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, b"x")

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def packed(*names: str) -> Callable[[Path], None]:
    return lambda path: save_file({name: torch.zeros(2, dtype=torch.uint8) for name in names}, path)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "TorchScript": (torchscript, "state_dict"),
    "GGUF": (content(b"GGUF" + struct.pack("<I", 3) + bytes(64)), "from_pretrained"),
    "HDF5": (content(b"\x89HDF\r\n\x1a\n" + bytes(64)), "safetensors"),
    "ONNX": (content(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(64)), "exported"),
    "NumPy array": (content(b"\x93NUMPY\x01\x00" + bytes(64)), "safetensors"),
    "NumPy archive": (zipped("a.npy", "b.npy"), "safetensors"),
    "Keras": (zipped("config.json", "model.weights.h5"), "safetensors"),
    "exported PyTorch program": (zipped("m/archive_format", "m/models/model.json"), "state_dict"),
    "without a checkpoint's data.pkl": (zipped("a.txt"), "Unpack"),
    "msgpack": (content(b"\x81\xa6params\x81\xa1a\x01" + bytes(64)), "from_flax"),
    "TensorFlow": (content(bytes(64) + struct.pack("<Q", 0xDB4775248B80FB57)), "torch.save"),
    "gzip": (content(b"\x1f\x8b\x08" + bytes(64)), "gunzip"),
    "Git LFS": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"),
    "JSON": (content(b'{"a": 1}'), "beside"),
    "tar file of torch": (tar("sys_info", "pickle", "storages"), "torch.load"),
    "tar archive": (tar("model.pt"), "Unpack"),
    "plain pickle": (content(pickle.dumps({"w": [1.0]})), "torch.save"),
    "GPTQ": (packed("layer.qweight", "layer.qzeros", "layer.scales"), "dequantize"),
    "bitsandbytes 4-bit": (packed("layer.weight", "layer.weight.absmax"), "dequantize"),
    "bitsandbytes 8-bit": (packed("layer.weight", "layer.SCB"), "dequantize"),
    "MXFP4": (packed("experts.down_proj_blocks", "experts.down_proj_scales"), "dequantize"),
    "float8": (packed("layer.weight", "layer.weight_scale_inv"), "dequantize"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # deprecated, and still found in files
@pytest.mark.parametrize("name", REFUSED)
def test_a_recognised_format_is_refused_by_name_with_a_way_out(tmp_path: Path, name: str) -> None:
    """Under a suffix that says nothing."""
    write, remedy = REFUSED[name]
    write(tmp_path / "model.bin")
    with pytest.raises(UnsupportedFormatError) as caught:
        open_checkpoint(tmp_path / "model.bin")
    assert name in caught.value.what
    assert remedy in caught.value.remedy
    assert str(tmp_path / "model.bin") in str(caught.value)


def test_scales_and_blocks_of_other_kinds_are_not_mistaken_for_packed_weights(tmp_path: Path) -> None:
    save_file({"norm.scales": torch.ones(2), "up_blocks": torch.ones(2), "logit_scale": torch.ones(1)}, tmp_path / "a")
    with open_checkpoint(tmp_path / "a") as reader:
        assert len(reader.tensors) == 3


def test_deepspeed_partitions_are_refused_with_the_script_that_merges_them(tmp_path: Path) -> None:
    for name in ("zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"):
        (tmp_path / name).write_bytes(b"not to be opened")
    with pytest.raises(UnsupportedFormatError, match=r"ZeRO.*zero_to_fp32"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.gguf", "tf_model.h5"])
def test_a_directory_of_a_foreign_format_is_refused_in_its_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"GGUF" if name.endswith("gguf") else b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UnsupportedFormatError):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("data", "word"),
    [(b"", "empty"), (b"<!DOCTYPE html><html>", "web page"), (b"\x00" * 600, "no checkpoint"), (b"x", "no checkpoint"),
     (b"PK\x03\x04" + bytes(30), "zip archive")],
)  # fmt: skip
def test_a_file_that_is_no_checkpoint_is_corrupt(tmp_path: Path, data: bytes, word: str) -> None:
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(CorruptCheckpointError, match=word):
        open_checkpoint(tmp_path / "model.pt")


def test_what_is_not_there_or_no_regular_file_is_an_input_error(tmp_path: Path) -> None:
    """A pipe would wait for a writer forever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path / "pipe", tmp_path / "absent" / "model.pt", Path(os.devnull)):
        for action in (check_complete, open_checkpoint):
            with pytest.raises(CheckpointError):
                action(path)


def test_random_bytes_never_raise_anything_but_a_spectra_error(tmp_path: Path) -> None:
    """After every magic number that decides on a reader or on words, and with none."""
    generator = np.random.default_rng(0)
    legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    heads = (b"", b"PK\x03\x04", legacy, b"\x10\0\0\0\0\0\0\0{", b"\x80\x04", b"\x08\x07", b"\x81\xa0")
    for turn in range(200):
        data = heads[turn % len(heads)] + generator.bytes(int(generator.integers(0, 600)))
        (tmp_path / "noise").write_bytes(data)
        with pytest.raises(SpectraError):
            open_checkpoint(tmp_path / "noise")


def test_a_closed_reader_holds_no_file_and_a_failed_one_neither(tmp_path: Path) -> None:
    """File descriptors are counted by the system."""
    directory = sharded(tmp_path / "good", "safetensors")
    bad = sharded(tmp_path / "bad", "safetensors")
    write_index(bad, "safetensors", {"ghost": "model-00001-of-00002.safetensors"})
    packed("layer.qweight")(tmp_path / "packed")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    open_checkpoint(directory).close()
    for path in (bad, tmp_path / "packed"):
        with pytest.raises(CheckpointError):
            open_checkpoint(path)
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before
