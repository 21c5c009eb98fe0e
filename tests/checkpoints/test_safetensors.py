"""The safetensors reader, against the safetensors library."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from spectra_cli.checkpoints.formats.safetensors import DTYPES, open_safetensors
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import CheckpointError, CorruptCheckpointError
from spectra_cli.storage.files import LocalFile
from spectra_cli.tensors import ITEMSIZE


def every_dtype() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, (3, 5)).to(getattr(torch, name))
        for name in sorted(set(DTYPES.values()))
        if hasattr(torch, name) and name not in {"float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"}
    }
    return tensors | {"conv": torch.randn(4, 3, 2, 2), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_every_tensor_equals_what_the_library_loads(tmp_path: Path) -> None:
    """Names, shapes, dtypes and bits of every dtype that the library writes."""
    save_file(every_dtype(), tmp_path / "model.safetensors")
    expected = load_file(tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path / "model.safetensors") as reader:
        assert reader.format == "safetensors"
        assert reader.ordered is False
        assert set(reader.tensors) == set(expected)
        for name, tensor in expected.items():
            found = reader.read(name)
            info = reader.tensors[name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert (getattr(torch, info.dtype), info.shape) == (tensor.dtype, tuple(tensor.shape))
            assert found.reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()
        assert torch.equal(reader.read("conv", slice(1, 3), slice(2, 9)), expected["conv"].reshape(4, 12)[1:3, 2:9])


def test_the_dtype_table_gives_torchs_sizes() -> None:
    """A wrong entry would read a neighbour's bytes."""
    for name in DTYPES.values():
        assert name in ITEMSIZE
        if hasattr(torch, name):
            assert torch.empty((), dtype=getattr(torch, name)).element_size() == ITEMSIZE[name]


def test_stated_counters_are_read_and_other_metadata_is_not(tmp_path: Path) -> None:
    metadata = {"format": "pt", "step": "1200", "epoch": "7", "note": "x"}
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata=metadata)
    save_file({"w": torch.ones(2)}, tmp_path / "b.safetensors", metadata={"step": "twelve", "epoch": "-1"})
    with open_checkpoint(tmp_path / "a.safetensors") as reader:
        assert reader.metadata == {"step": 1200, "epoch": 7}
    with open_checkpoint(tmp_path / "b.safetensors") as reader:
        assert reader.metadata == {}


def test_an_element_type_without_numbers_is_noted_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f4.safetensors",
        {"q": entry("F4", [16], [0, 8]), "w": entry("F32", [2], [8, 16])},
        struct.pack("<8x2f", 1.0, 2.0),
    )
    with open_checkpoint(path) as reader:
        assert list(reader.tensors) == ["w"]
        assert reader.read("w").tolist() == [1.0, 2.0]
        assert "'q'" in reader.notes[0]
        assert "F4" in reader.notes[0]


def test_control_characters_and_lone_surrogates_in_names_are_escaped(tmp_path: Path) -> None:
    """Every name can be printed and written as UTF-8, and still leads to its tensor."""
    names = ["\x1b[2J", "\ud800", "é"]
    header = {name: entry(offsets=[8 * i, 8 * i + 8]) for i, name in enumerate(names)}
    with open_checkpoint(write(tmp_path / "a", header, struct.pack("<6f", 0, 0, 1, 1, 2, 2))) as reader:
        assert [reader.read(name)[0].item() for name in ("\\x1b[2J", "\\ud800", "é")] == [0, 1, 2]


@pytest.mark.parametrize(
    "header",
    [
        b"{", b"[]", b"[" * 100_000, b'{"a": 1}', b"\xff{}", b'{"w":{}}',
        {"w": entry(offsets=[0, 4])},  # fewer bytes than the shape needs
        {"w": entry(offsets=[8, 16])},  # a hole
        {"w": entry(), "v": entry()},  # an overlap
        {"w": entry(shape=[-2])}, {"w": entry(shape=[True, 2])}, {"w": entry(shape="2")}, {"w": entry(shape=[1 << 70])},
        {"w": entry(shape=[1 << 40, 1 << 40])}, {"w": entry(offsets=[8, 0])}, {"w": entry(offsets=[0])},
        {"w": entry(offsets=[0, 1 << 60], shape=[1 << 58])}, {"w": entry(dtype=3)}, {},
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    ],
    ids=lambda header: str(header)[:40],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_corrupt(tmp_path: Path, header: object) -> None:
    """Eight bytes of data follow each header; none of the headers accounts for exactly them."""
    path = write(tmp_path / "bad.safetensors", header, b"\0" * 8)
    with LocalFile(path) as file, pytest.raises(CorruptCheckpointError):
        open_safetensors(file)


def test_what_the_library_rejects_is_rejected_here_too(tmp_path: Path) -> None:
    """Seeded mutations: never anything but a SpectraError, and never more lenient than the reference."""
    save_file({"a.weight": torch.randn(3, 4), "b": torch.arange(5)}, tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    path = tmp_path / "mutated.safetensors"
    generator = random.Random(0)  # noqa: S311 - mutations, not secrets
    rejected = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(generator.choice((1, 1, 2, 8))):
            data[generator.randrange(min(len(data), 190))] = generator.randrange(256)
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                file.keys()
            valid = True
        except safetensors.SafetensorError as error:
            valid = "unknown variant" in str(error)  # an element type of the future is noted, not refused
        try:
            with open_checkpoint(path) as reader:
                for name in reader.tensors:
                    reader.read(name)
            assert valid, bytes(data)
        except CheckpointError:
            rejected += 1
    assert 100 < rejected < 400
