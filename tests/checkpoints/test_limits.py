"""No format takes more time or memory than the file justifies, and no limit is met by a model."""

from __future__ import annotations

import ast
import io
import itertools
import json
import os
import re
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spectra_cli import checkpoints
from spectra_cli.checkpoints.formats import limits
from spectra_cli.checkpoints.formats.chunked import Chunk, check_cover
from spectra_cli.checkpoints.formats.dcp import MOST_METADATA_OPCODES
from spectra_cli.checkpoints.formats.inert import load_inert
from spectra_cli.checkpoints.formats.limits import LARGEST_JSON_BYTES, LONGEST_NAME
from spectra_cli.checkpoints.formats.rebuild import StoredTensor
from spectra_cli.checkpoints.formats.stored import open_binary
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import (
    CheckpointError,
    CorruptCheckpointError,
    HostileCheckpointError,
    IncompleteCheckpointError,
    SpectraError,
    UnsupportedFormatError,
)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Every test ends within seconds of processor time; before the limits they took minutes or did not end."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 5


def raw_safetensors(path: Path, entries: dict[str, object], data_bytes: int = 0) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data_bytes))
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", ".metadata", "model.pt"])
@pytest.mark.parametrize("special", ["pipe", "device"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused_without_waiting(
    tmp_path: Path, name: str, special: str
) -> None:
    """In a directory and by its own path; a writer never comes, and /dev/zero never ends."""
    path = tmp_path / name
    os.mkfifo(path) if special == "pipe" else path.symlink_to("/dev/zero")
    for target in (path, tmp_path):
        with pytest.raises(SpectraError):
            open_checkpoint(target)
    with pytest.raises(CheckpointError, match="pipe"):
        open_binary(path)


@pytest.mark.parametrize("opcode", [b"\x97", b"}", b"]", b"\x82\x01", b"N0"])
def test_a_pickle_of_millions_of_instructions_is_refused(opcode: bytes) -> None:
    """16 MB of instructions of a byte or two, most of which make an object."""
    with pytest.raises(HostileCheckpointError, match="instructions"):
        load_inert(io.BytesIO(b"\x80\x02" + opcode * ((16 << 20) // len(opcode))), {})


@pytest.mark.parametrize("instruction", [b"cab\ncd\n", b"X\2\0\0\0ab", b"C\2ab", b"\x8a\x03abc", b"I77\n", b"Vab\n"])
def test_a_metadata_of_a_million_texts_is_refused(instruction: bytes) -> None:
    """Of a few bytes each, which took 1.6 GB and 20 s: a ``.metadata`` may have more instructions than others."""
    stream = b"\x80\x02" + instruction * ((1 << 20) + 1)
    with pytest.raises(HostileCheckpointError, match="texts"):
        load_inert(io.BytesIO(stream), {}, most_opcodes=MOST_METADATA_OPCODES)


def test_a_zip_directory_of_too_many_members_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """Whatever number the end record states."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 300_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 7, 7, len(entry) * count, 4, 0)
    (tmp_path / "c.pt").write_bytes(b"PK\x03\x04" + entry * count + end)
    with pytest.raises(HostileCheckpointError, match="members"):
        open_checkpoint(tmp_path / "c.pt")


def named_safetensors(path: Path, name: str) -> None:
    save_file({name: torch.ones(2)}, path)


def named_pickle(path: Path, name: str) -> None:
    torch.save({name: torch.ones(2)}, path)


@pytest.mark.parametrize("write", [named_safetensors, named_pickle])
def test_a_name_longer_than_any_is_refused_and_quoted_in_part(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    write(tmp_path / "good", "n" * LONGEST_NAME)
    open_checkpoint(tmp_path / "good").close()
    write(tmp_path / "bad", "n" * (LONGEST_NAME + 1))
    with pytest.raises(HostileCheckpointError, match="name") as caught:
        open_checkpoint(tmp_path / "bad")
    assert len(caught.value.what) < 250


def test_more_tensors_or_axes_than_any_model_has_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    many = raw_safetensors(tmp_path / "many", {str(index): empty for index in range((1 << 18) + 1)})
    with pytest.raises(HostileCheckpointError, match="tensors"):
        open_checkpoint(many)
    deep = raw_safetensors(tmp_path / "deep", {"w": {**empty, "shape": [1] * 65}})
    with pytest.raises(CorruptCheckpointError, match="axes"):
        open_checkpoint(deep)


def test_a_large_safetensors_header_is_refused_in_words(tmp_path: Path) -> None:
    path = raw_safetensors(tmp_path / "c", {"__metadata__": {"x": "y" * LARGEST_JSON_BYTES}})
    with pytest.raises(HostileCheckpointError, match="header takes 32 MiB"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_json_of_millions_of_lists_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    text = b'{"a": [' + b"[]," * 3_000_000 + b"[]]}"
    prefix = struct.pack("<Q", len(text)) if name == "model.safetensors" else b""
    (tmp_path / name).write_bytes(prefix + text)
    with pytest.raises(HostileCheckpointError, match="values"):
        open_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_json_of_millions_of_names_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    """A name takes 300 bytes of memory while it is decoded: these took 850 MB."""
    text = b"{" + b",".join(b'"%x":1' % number for number in range(3_000_000)) + b"}"
    prefix = struct.pack("<Q", len(text)) if name == "model.safetensors" else b""
    (tmp_path / name).write_bytes(prefix + text)
    with pytest.raises(HostileCheckpointError, match="names"):
        open_checkpoint(tmp_path / name)


class Holder:
    """Pickles as an object that holds something."""

    def __init__(self, held: object) -> None:
        self.held = held


def test_a_tensor_inside_too_many_objects_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No object is read, and yet counting what is in millions of them took longer than a hang may."""
    weight = torch.ones(1)
    torch.save({"w": weight, "objects": [Holder(weight) for _ in range(100)]}, tmp_path / "c.pt")
    with open_checkpoint(tmp_path / "c.pt") as reader:
        assert list(reader.tensors) == ["w"]
    monkeypatch.setattr(limits, "MOST_TENSORS", 100)
    with pytest.raises(HostileCheckpointError, match="tensors"):
        open_checkpoint(tmp_path / "c.pt")


def test_a_tensor_under_many_names_is_located_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in proportion to the names alone: a name takes two bytes of a file, a tensor a hundred."""
    weight, located = torch.ones(2, 3), []
    torch.save([weight] * 1000, tmp_path / "c.pt")
    span = StoredTensor.span
    monkeypatch.setattr(StoredTensor, "span", lambda *arguments: located.append(1) or span(*arguments))
    with open_checkpoint(tmp_path / "c.pt") as reader:
        assert len(reader.tensors) == 1000
        assert len({info.storage for info in reader.tensors.values()}) == 1
        assert torch.equal(reader.read("999"), weight)
    assert located == [1]


def test_every_error_about_a_checkpoint_says_what_to_do() -> None:
    """Wherever one is raised under `checkpoints`, in words of its own or with those of what it reports."""
    for module in sorted(Path(checkpoints.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"\w*(Checkpoint|Input|Format)Error", ast.unparse(node.func)
            ):
                assert "remedy" in {keyword.arg for keyword in node.keywords}, f"{module.name}:{node.lineno}"


def test_an_index_that_names_a_tensor_twice_is_corrupt(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}'
    )
    with pytest.raises(CorruptCheckpointError, match="index"):
        open_checkpoint(tmp_path / "model.safetensors.index.json")


def test_views_that_together_repeat_a_small_storage_a_thousand_times_are_refused(tmp_path: Path) -> None:
    """Each of 16 MB over 16 KB, none alone too large; a few hundred real views of one storage are none of that."""
    small = torch.zeros(4095 + 1000)
    torch.save({f"w{i}": small[i:].as_strided((2048, 2048), (1, 1)) for i in range(1000)}, tmp_path / "bad")
    with pytest.raises(HostileCheckpointError, match="repeat"):
        open_checkpoint(tmp_path / "bad")
    flat = torch.zeros(1 << 20)
    torch.save({"flat": flat, **{f"w{i}": flat[i * 4096 :][:4096].view(64, 64) for i in range(256)}}, tmp_path / "good")
    with open_checkpoint(tmp_path / "good") as reader:
        assert len(reader.tensors) == 257


def chunk(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> Chunk:
    return Chunk(offsets, sizes, lambda: pytest.fail("nothing is read"))


def test_a_grid_of_thousands_of_chunks_is_checked_in_no_time() -> None:
    """4 to the 7th cells, whole and with one cell absent, twice there, or moved."""
    cells = [chunk(offsets, (2,) * 7) for offsets in itertools.product(range(0, 8, 2), repeat=7)]
    shape = (8,) * 7
    check_cover(shape, cells)
    with pytest.raises(SpectraError):
        check_cover(shape, cells[1:])
    with pytest.raises(SpectraError):
        check_cover(shape, [*cells[1:], cells[-1]])
    with pytest.raises(SpectraError):
        check_cover(shape, [chunk((1,) * 7, (2,) * 7), *cells[1:]])


def test_few_chunks_that_are_no_grid_are_still_compared() -> None:
    """A pinwheel covers; with a gap or an overlap it does not."""
    wheel = [chunk((0, 0), (1, 2)), chunk((0, 2), (2, 1)), chunk((2, 1), (1, 2)), chunk((1, 0), (2, 1))]
    middle = chunk((1, 1), (1, 1))
    check_cover((3, 3), [*wheel, middle])
    with pytest.raises(IncompleteCheckpointError):
        check_cover((3, 3), wheel)
    with pytest.raises(CorruptCheckpointError):
        check_cover((3, 3), [*wheel, chunk((1, 1), (1, 2))])


class Sub(torch.Tensor):
    """A tensor class of the user's."""


def test_a_tensor_subclass_is_read_with_a_note_and_an_array_is_noted(tmp_path: Path) -> None:
    """Nothing that may be a weight is passed over in silence."""
    plain, own = torch.randn(4, 4), torch.randn(6, 6)
    torch.save({"a": plain, "b": np.ones((4, 4)), "c": own.as_subclass(Sub), "d": np.arange(3)}, tmp_path / "c.pt")
    with open_checkpoint(tmp_path / "c.pt") as reader:
        assert list(reader.tensors) == ["a", "c"]
        assert torch.equal(reader.read("c"), own)
        array, subclass = sorted(reader.notes)
    assert "'b' is a NumPy array" in array
    assert "'c'" in subclass
    assert "Sub" in subclass


def test_a_listed_tensor_of_an_element_type_that_is_not_read_is_held(tmp_path: Path) -> None:
    """F4, of two elements a byte: noted, and the checkpoint is complete."""
    entries = {
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "packed": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]},
    }
    raw_safetensors(tmp_path / "x.safetensors", entries, 10)
    index = {"weight_map": {"w": "x.safetensors", "packed": "x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with open_checkpoint(tmp_path / "model.safetensors.index.json") as reader:
        assert list(reader.tensors) == ["w"]
        assert "'packed' has element type F4" in reader.notes[0]


PACKED_NAMES = ("W_q", "qweight", "qzeros", "weight_packed", "SCB", "weight.SCB", "weight_scale_inv", "weight_format",
                "down_proj_blocks", "down_proj_scales", "blocks.absmax")  # fmt: skip


def test_floating_point_parameters_of_any_name_are_read(tmp_path: Path) -> None:
    """A plain model may have a parameter called as packed formats call theirs."""
    save_file({"a.weight": torch.ones(2, 2)} | {f"a.{name}": torch.ones(2, 2) for name in PACKED_NAMES}, tmp_path / "c")
    with open_checkpoint(tmp_path / "c") as reader:
        assert len(reader.tensors) == 1 + len(PACKED_NAMES)


def test_hqq_is_told_by_its_integers(tmp_path: Path) -> None:
    save_file({"a.W_q": torch.ones(2, 2, dtype=torch.uint8)}, tmp_path / "c")
    with pytest.raises(UnsupportedFormatError, match="HQQ"):
        open_checkpoint(tmp_path / "c")


def test_an_archive_of_many_small_tensors_is_read(tmp_path: Path) -> None:
    """Ten thousand tensors are far from every limit."""
    torch.save({f"layers.{index}.weight": torch.zeros(1) for index in range(10_000)}, tmp_path / "c.pt")
    assert zipfile.ZipFile(tmp_path / "c.pt").testzip() is None
    with open_checkpoint(tmp_path / "c.pt") as reader:
        assert len(reader.tensors) == 10_000
