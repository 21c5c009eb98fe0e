"""Files made to harm: each is refused or read, quickly, in little memory, and nothing in it runs."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spectra_cli.checkpoints.formats.inert import load_inert
from spectra_cli.checkpoints.formats.placeholders import Global, Object
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import CorruptCheckpointError, HostileCheckpointError, SpectraError

LONGEST_S = 1.0


class Run:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


class Tensor:
    """Pickles as a tensor over storage "0", with any claim about its shape."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, key: str = "0") -> None:
        self.arguments = (Storage(key), offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[object, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Storage:
    def __init__(self, key: str, numel: int = 1 << 40) -> None:
        self.identity = ("storage", torch.FloatStorage, key, "cpu", numel)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.identity if isinstance(value, Storage) else None


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def archive(path: Path, value: object, storage: bytes = b"\0" * 64, compression: int = zipfile.ZIP_STORED) -> Path:
    """A torch archive of a pickled object, or of pickle opcodes, and one storage."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickled(value))
        file.writestr("archive/data/0", storage)
    return path


def read_everything(path: Path) -> None:
    with open_checkpoint(path) as reader:
        for name in reader.tensors:
            reader.read(name)


def outcome_of(action: Callable[[], object]) -> type[BaseException] | None:
    """The SpectraError that an action ends in, None if it succeeds; anything else escapes."""
    start = time.process_time()  # other work on the machine is not the subject
    error: SpectraError | None = None
    try:
        action()
    except SpectraError as caught:
        error = caught
    assert time.process_time() - start < LONGEST_S
    assert str(error).isprintable()
    return None if error is None else type(error)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["top", "nested", "key", "state"])
def test_a_command_in_a_pickle_is_not_run(tmp_path: Path, where: str, legacy: bool) -> None:
    """The sentinel file that torch.load(weights_only=False) would create does not appear."""
    sentinel = tmp_path / "executed"
    run = Run(f"touch {sentinel}")
    weights = {"w": torch.ones(2)}
    value = {
        "top": run,
        "nested": {"state_dict": weights, "hyper_parameters": argparse.Namespace(deep=[{"callback": run}])},
        "key": {"w": torch.ones(2), (run, 1): 3},
        "state": {**weights, "namespace": argparse.Namespace(run=run, w=torch.ones(1))},
    }[where]
    torch.save(value, tmp_path / "c.pt", _use_new_zipfile_serialization=not legacy)
    error = outcome_of(lambda: read_everything(tmp_path / "c.pt"))
    assert (error is None) == (where != "top")
    assert not sentinel.exists()
    torch.load(tmp_path / "c.pt", weights_only=False)
    assert sentinel.exists(), "the file is harmless, so the test shows nothing"


@pytest.mark.parametrize("protocol", range(6))
def test_the_interpreter_reads_what_pickle_writes(protocol: int) -> None:
    """Every protocol, plain values: the same as pickle.loads, with sets as lists."""
    shared = ["x"]
    value: dict[Any, Any] = {
        "a": [1, -1, 255, 65536, 2**40, -(2**70), 1.5, None, True, False, "é\n", b"\0\xff"],
        "b": (1, (2,), (), (3, 4, 5)),
        "c": shared,
        "d": shared,
        "long": tuple(range(300)),
        7: {},
        "neg": -(2**31),
        "empty": "",
    }
    if protocol < 3:
        del value["a"][-1]  # bytes are a call of codecs.encode there
    stream = pickle.dumps(value, protocol)
    found = load_inert(io.BufferedReader(io.BytesIO(stream)), {})
    assert found == pickle.loads(stream)
    assert found["c"] is found["d"]


def test_globals_become_names_and_calls_become_objects() -> None:
    stream = pickle.dumps([os.system, Run("true"), {1, 2}, argparse.Namespace(a=1)])
    function, call, numbers, namespace = load_inert(io.BytesIO(stream), {})
    assert function == Global(os.system.__module__, "system")
    assert isinstance(call, Object)
    assert (call.path, list(call.parts)) == (f"{os.system.__module__}.system", [("true",)])
    assert sorted(numbers) == [1, 2]
    assert (namespace.path, namespace.state) == ("argparse.Namespace", {"a": 1})


def doubled(levels: int, build: bytes) -> bytes:
    """A container of two references to a container of two references to …, in `levels` levels."""
    stream = b"\x80\x02" + build + b"q\x00"
    return stream + b"".join(
        b"(h" + bytes([i]) + b"h" + bytes([i]) + b"l" + b"q" + bytes([i + 1]) for i in range(levels)
    )


TENSOR = pickled(Tensor((2,), (1,)))[2:-1]

HOSTILE_PICKLES: dict[str, bytes] = {
    "memo index of 4 billion": b"\x80\x02]r\xff\xff\xff\xff.",
    "memo index in text": b"]p99999999999999999999999\n.",
    "text of 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"x.",
    "bytes of 1 TiB": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray of 1 TiB": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "out-of-band buffer": b"\x80\x05\x97\x98.",
    "integer of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "negative integer length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "frame of 2^63 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"N.",
    "a line without end": b"c" + b"x" * 1_000_000,
    "lists 50000 deep": b"]" * 50_000 + b"a" * 49_999 + b".",
    "tuples 50000 deep": b")" + b"\x85" * 50_000 + b".",
    "dictionaries 50000 deep": b"}" * 1 + b"K\x00}" * 50_000 + b"s" * 50_000 + b".",
    "tensors 50000 deep": TENSOR + b"\x85" * 50_000 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a list in itself with a tensor": b"]q\x00(h\x00" + TENSOR.replace(b"q\x00", b"") + b"e.",
    "billion laughs": doubled(200, b"]") + b".",
    "billion laughs around a tensor": doubled(200, TENSOR) + b".",
    "billion laughs as a key": b"\x80\x02}" + b")q\x00" + b"".join(
        b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) if i % 2 else b"2\x86q" + bytes([i + 1]) for i in range(200)
    ) + b"K\x01s.",
    "one tensor under a million names": b"]" + TENSOR + b"q\xf0" + b"(" + b"h\xf0" * 1_000_000 + b"l.",
    "marks without end": b"(" * 50_000 + b".",
    "nothing": b"",
    "stop alone": b".",
    "an empty stack": b"0.",
    "an unknown opcode": b"\x80\x02\xff.",
    "an extension code": b"\x80\x02\x82\x01)R.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"(cos\nsystem\nS'true'\no.",
    "a state of a global": b"cos\nsystem\n}b.",
    "arguments that are no tuple": b"ctorch._utils\n_rebuild_tensor_v2\nK\x01R.",
    "too few arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "a quoted nothing": b"S'\n.",
    "surrogates in a name": b"\x80\x04}\x8c\x03\xed\xa0\x80" + TENSOR + b"s.",
    "escape codes in a name": b"\x80\x04}\x8c\x04\x1b[2J" + TENSOR + b"s.",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_hostile_pickle_ends_in_a_spectra_error_or_is_read(tmp_path: Path, name: str) -> None:
    """Quickly, and with names that can be printed."""
    path = archive(tmp_path / "c.pt", HOSTILE_PICKLES[name])
    outcome_of(lambda: read_everything(path))
    try:
        with open_checkpoint(path) as reader:
            assert all(tensor.isprintable() for tensor in reader.tensors)
    except SpectraError:
        pass


def test_hostile_pickles_take_no_memory(tmp_path: Path) -> None:
    """All of them in one process that may have 1 GiB of address space in all, most of them a few MB."""
    paths = [archive(tmp_path / f"{index}.pt", stream) for index, stream in enumerate(HOSTILE_PICKLES.values())]
    huge = Tensor((1 << 20, 1 << 20), (0, 0))
    paths.append(archive(tmp_path / "stride.pt", {"w": huge}))
    paths.append(archive(tmp_path / "bomb.pt", b"\x80\x02" + b"N0" * 20_000_000 + b".", b"", zipfile.ZIP_DEFLATED))
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from pathlib import Path\n"
        "from spectra_cli.checkpoints.open import open_checkpoint\n"
        "from spectra_cli.errors import SpectraError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        open_checkpoint(Path(path)).close()\n"
        "    except SpectraError:\n"
        "        pass\n"
        "print('survived')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "survived", done.stderr[-500:]


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        (Tensor((1 << 20, 1 << 20), (0, 0)), HostileCheckpointError),  # 4 TiB from one number
        (Tensor((1 << 12, 1 << 12), (1, 0), 0), CorruptCheckpointError),  # reaches beyond
        (Tensor((8, 1 << 22), (1, 0)), HostileCheckpointError),  # 128 MiB from 32 bytes
        (Tensor((17,), (1,)), CorruptCheckpointError),
        (Tensor((16,), (1,), 1), CorruptCheckpointError),
        (Tensor((2,), (-1,)), CorruptCheckpointError),
        (Tensor((2, 2), (1,)), CorruptCheckpointError),
        (Tensor((1 << 62,), (1,)), CorruptCheckpointError),
        (Tensor((2,), (1,), 0, "absent"), CorruptCheckpointError),
        (Tensor((2,), (1,), 0, "../data.pkl"), CorruptCheckpointError),
        (Tensor((1,) * 65, (1,) * 65), CorruptCheckpointError),
        (Tensor((1 << 40, 0, 1 << 40), (0, 0, 0)), CorruptCheckpointError),  # empty, and yet too large for torch
        (Tensor((2,), (1,), 0, "\x1b[2J"), CorruptCheckpointError),
        (Tensor((16,), (1,)), None),
        (Tensor((3, 5), (0, 3)), None),
    ],
)
def test_a_tensor_that_claims_more_than_its_storage_is_refused_at_opening(
    tmp_path: Path, tensor: Tensor, error: type[SpectraError] | None
) -> None:
    """The storage has 16 numbers; memory for the tensor is never asked for."""
    path = archive(tmp_path / "c.pt", {"w": tensor})
    assert outcome_of(lambda: open_checkpoint(path).close()) is error


@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/0"])
def test_compressed_members_are_refused_before_they_are_unpacked(tmp_path: Path, member: str) -> None:
    """A zip bomb: 200 MB of zeros in 200 kB."""
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as file:
        members = {"archive/data.pkl": pickled({"w": Tensor((4,), (1,))}), "archive/data/0": b"\0" * 64}
        for name, data in members.items():
            if name == member:
                file.writestr(name, data + b"\0" * 200_000_000, zipfile.ZIP_DEFLATED)
            else:
                file.writestr(name, data)
    assert (tmp_path / "c.pt").stat().st_size < 1_000_000
    assert outcome_of(lambda: open_checkpoint(tmp_path / "c.pt")) is HostileCheckpointError


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_whose_directory_lies_are_refused(tmp_path: Path) -> None:
    """Two members of one name, members on the same bytes, an encrypted member, a directory that points elsewhere."""
    good = archive(tmp_path / "good.pt", {"w": Tensor((4,), (1,))}).read_bytes()
    with zipfile.ZipFile(tmp_path / "twice.pt", "w") as file:
        for data in (b"N.", pickled({"w": Tensor((4,), (1,))})):
            file.writestr("archive/data.pkl", data)
    assert outcome_of(lambda: open_checkpoint(tmp_path / "twice.pt")) is HostileCheckpointError

    directory = good.index(b"PK\x01\x02")
    second = good.index(b"PK\x01\x02", directory + 4)
    for change, error in {
        (second + 42, b"\0\0\0\0"): HostileCheckpointError,  # both members start at byte 0
        (directory + 8, b"\x01"): HostileCheckpointError,  # the flag of encryption
        (second + 42, b"\x10\0\0\0"): HostileCheckpointError,  # the second starts within the first
        (second + 20, b"\xff\xff\xff\x0f" * 2): CorruptCheckpointError,  # 256 MiB in a file of a few hundred bytes
    }.items():
        at, replacement = change
        damaged = good[:at] + bytes(replacement) + good[at + len(replacement) :]
        (tmp_path / "damaged.pt").write_bytes(damaged)
        assert outcome_of(lambda: open_checkpoint(tmp_path / "damaged.pt")) is error, at - directory


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "c.pt", {"w": Tensor((4,), (1,))}), "a") as file:
        file.writestr("archive/byteorder", b"big")
    with pytest.raises(SpectraError, match="big-endian"):
        open_checkpoint(tmp_path / "c.pt")


def checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "state_dict": OrderedDict({"a.weight": torch.randn(6, 5), "b": torch.randn(3, 4).t(), "n": torch.tensor(3)}),
        "hyper_parameters": argparse.Namespace(lr=0.1, sizes=[1, 2]),
        "epoch": 3,
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_an_error_wherever_it_is_cut(tmp_path: Path, legacy: bool) -> None:
    torch.save(checkpoint(), tmp_path / "good.pt", _use_new_zipfile_serialization=not legacy)
    good = (tmp_path / "good.pt").read_bytes()
    for length in range(0, len(good) - 1, max(1, len(good) // 150)):
        (tmp_path / "cut.pt").write_bytes(good[:length])
        assert outcome_of(lambda: read_everything(tmp_path / "cut.pt")) is not None, length


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_bytes_never_raise_anything_but_a_spectra_error(tmp_path: Path, legacy: bool) -> None:
    """Seeded mutations, half of them in the pickle, where every byte means something."""
    torch.save(checkpoint(), tmp_path / "good.pt", _use_new_zipfile_serialization=not legacy)
    good = (tmp_path / "good.pt").read_bytes()
    start = good.index(b"\x80\x02}")
    generator = random.Random(2)  # noqa: S311 - mutations, not secrets
    outcomes = []
    for turn in range(400):
        data = bytearray(good)
        first, last = (start, start + 600) if turn % 2 else (0, len(data))
        for _ in range(generator.choice((1, 2, 5))):
            data[generator.randrange(first, last)] = generator.randrange(256)
        (tmp_path / "damaged.pt").write_bytes(data)
        outcomes.append(outcome_of(lambda: read_everything(tmp_path / "damaged.pt")))
    assert 0 < outcomes.count(None) < len(outcomes)
