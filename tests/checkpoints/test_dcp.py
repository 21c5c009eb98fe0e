"""torch.distributed checkpoints, written by torch itself with tensors in several chunks."""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType

from spectra_cli.checkpoints.formats import dcp as dcp_format
from spectra_cli.checkpoints.open import check_complete, open_checkpoint
from spectra_cli.errors import (
    CheckpointError,
    CorruptCheckpointError,
    HostileCheckpointError,
    IncompleteCheckpointError,
    SpectraError,
    UnsupportedFormatError,
)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process writes all ranks' chunks


class Sharding(DefaultSavePlanner):
    """Saves every tensor in blocks of at most `most` along each axis, as ranks of a mesh would."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        items = []
        for item in plan.items:
            if item.tensor_data is None:
                items.append(item)
                continue
            size = item.tensor_data.size
            starts = [range(0, extent, self.most) for extent in size]
            for offsets in itertools.product(*starts):
                sizes = [min(self.most, extent - offset) for offset, extent in zip(offsets, size, strict=True)]
                chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
                data = TensorWriteData(chunk, item.tensor_data.properties, size)
                items.append(WriteItem(MetadataIndex(item.index.fqn, offsets), WriteItemType.SHARD, tensor_data=data))
        self.plan = SavePlan(items, planner_data=plan.planner_data)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Any:
        whole = super().resolve_data(write_item)
        if write_item.tensor_data is None:
            return whole
        chunk = write_item.tensor_data.chunk
        place = zip(chunk.offsets, chunk.sizes, strict=True)
        return whole[tuple(slice(offset, offset + size) for offset, size in place)].clone()

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self.state_dict[index.fqn]


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "matrix": torch.randn(7, 5),
        "conv": torch.randn(5, 4, 3, 2),
        "bias": torch.randn(9),
        "half": torch.randn(4, 6).to(torch.bfloat16),
        "scalar": torch.tensor(2.5),
    }


def save(directory: Path, most: int = 3, **extra: object) -> Path:
    dcp.save({"model": weights(), **extra}, checkpoint_id=directory, planner=Sharding(most), no_dist=True)
    return directory


def edit_metadata(directory: Path, edit: Callable[[Any], None]) -> None:
    """Change the metadata that torch wrote and write it back."""
    path = directory / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    edit(metadata)
    path.write_bytes(pickle.dumps(metadata))


@pytest.mark.parametrize("most", [2, 3, 100])
def test_tensors_are_assembled_from_their_chunks(tmp_path: Path, most: int) -> None:
    """Whole tensors and every block of rows and columns, for chunks that cut every axis."""
    with open_checkpoint(save(tmp_path / "ck", most)) as reader:
        assert reader.format == "torch.distributed"
        assert list(reader.tensors) == [f"model.{name}" for name in weights()]
        for name, expected in weights().items():
            info = reader.tensors[f"model.{name}"]
            assert (info.shape, info.group) == (tuple(expected.shape), "model")
            assert info.dtype == str(expected.dtype).removeprefix("torch.")
            assert torch.equal(reader.read(f"model.{name}"), expected)
            if expected.ndim < 2:
                continue
            matrix = expected.reshape(expected.shape[0], -1)
            ends = range(0, matrix.shape[1] + 1, 3)
            for rows, cols in itertools.product([(0, 1), (1, 4), (2, 5)], itertools.combinations(ends, 2)):
                block = reader.read(f"model.{name}", slice(*rows), slice(*cols))
                part = matrix[slice(*rows), slice(*cols)]
                assert torch.equal(block.reshape(part.shape), part), (name, rows, cols)


def test_step_and_epoch_come_from_saved_integers(tmp_path: Path) -> None:
    with open_checkpoint(save(tmp_path / "ck", epoch=3, global_step=1200, note="x", other=[1, 2])) as reader:
        assert reader.metadata == {"epoch": 3, "step": 1200}


def test_only_objects_called_like_counters_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand names may point at one object."""
    opened = []
    load = dcp_format.load_archive
    monkeypatch.setattr(dcp_format, "load_archive", lambda archive: opened.append(archive) or load(archive))
    objects = {f"note{index}": index for index in range(20)}
    open_checkpoint(save(tmp_path / "ck", epoch=3, step=5, **objects)).close()
    assert len(opened) == 2


def test_the_group_is_the_dictionary_around_lists(tmp_path: Path) -> None:
    dcp.save({"a.b": {"c": [torch.ones(2)], "d": torch.ones(2)}}, checkpoint_id=tmp_path / "ck", no_dist=True)
    with open_checkpoint(tmp_path / "ck") as reader:
        assert {name: info.group for name, info in reader.tensors.items()} == {"a.b.c.0": "a.b", "a.b.d": "a.b"}


def test_only_the_chunks_that_a_block_touches_are_read(tmp_path: Path) -> None:
    """With every other chunk destroyed, the first rows still read, and the others say where they are broken."""
    directory = save(tmp_path / "ck", most=4)
    metadata = pickle.loads((directory / ".metadata").read_bytes())
    place = next(
        info for index, info in metadata.storage_data.items()
        if index.fqn == "model.matrix" and tuple(index.offset) == (4, 0)
    )  # fmt: skip
    data = directory / place.relative_path
    content = bytearray(data.read_bytes())
    content[place.offset : place.offset + place.length] = b"\xff" * place.length
    data.write_bytes(content)
    with open_checkpoint(directory) as reader:
        assert torch.equal(reader.read("model.matrix", slice(0, 4)), weights()["matrix"][:4])
        with pytest.raises(CorruptCheckpointError, match=r"model\.matrix"):
            reader.read("model.matrix")


def remove_chunk(metadata: Any) -> None:
    metadata.state_dict_metadata["model.matrix"].chunks.pop()


def shift_chunk(metadata: Any) -> None:
    described = metadata.state_dict_metadata["model.matrix"]
    described.chunks[-1] = ChunkStorageMetadata(torch.Size([0, 1]), torch.Size([3, 3]))
    index = MetadataIndex("model.matrix", torch.Size([0, 1]))
    metadata.storage_data[index] = next(iter(metadata.storage_data.values()))


def outgrow(metadata: Any) -> None:
    metadata.state_dict_metadata["model.matrix"].size = torch.Size([2, 2])


def forget_place(metadata: Any) -> None:
    metadata.storage_data = {k: v for k, v in metadata.storage_data.items() if k.fqn != "model.matrix"}


def each_place(**changes: object) -> Callable[[Any], None]:
    def edit(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            for name, value in changes.items():
                setattr(info, name, value)

    return edit


def laughs() -> tuple[object, ...]:
    """2^60 empty tuples in 60 of two references each; hashing, comparing or printing it would not end."""
    value: tuple[object, ...] = ()
    for _ in range(60):
        value = (value, value)
    return value


def name_by_laughs(metadata: Any) -> None:
    for index in metadata.storage_data:
        object.__setattr__(index, "fqn", laughs())


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (name_by_laughs, CorruptCheckpointError),
        (each_place(transform_descriptors=[laughs()]), UnsupportedFormatError),
        (each_place(relative_path=laughs()), CorruptCheckpointError),
        (each_place(offset=laughs()), CorruptCheckpointError),
        (lambda metadata: setattr(metadata, "planner_data", {"model.matrix": laughs()}), None),
        (remove_chunk, IncompleteCheckpointError),
        (forget_place, IncompleteCheckpointError),
        (shift_chunk, CorruptCheckpointError),
        (outgrow, CorruptCheckpointError),
        (each_place(relative_path="absent.distcp"), IncompleteCheckpointError),
        (each_place(relative_path="../ck/__0_0.distcp"), HostileCheckpointError),
        (each_place(relative_path="/etc/hostname"), HostileCheckpointError),
        (each_place(relative_path=5), CorruptCheckpointError),
        (each_place(length=1 << 40), CorruptCheckpointError),
        (each_place(offset=-1), CorruptCheckpointError),
        (each_place(transform_descriptors=["zstd"]), UnsupportedFormatError),
        (lambda metadata: metadata.state_dict_metadata.clear(), CheckpointError),
        (lambda metadata: setattr(metadata, "state_dict_metadata", [1]), CorruptCheckpointError),
    ],
)
def test_metadata_that_contradicts_the_files_is_refused(
    tmp_path: Path, edit: Callable[[Any], None], error: type[CheckpointError] | None
) -> None:
    """When the checkpoint is opened, before any tensor is read."""
    directory = save(tmp_path / "ck")
    edit_metadata(directory, edit)
    with nullcontext() if error is None else pytest.raises(error):
        open_checkpoint(directory).close()


def test_a_missing_file_is_found_without_opening_any(tmp_path: Path) -> None:
    directory = save(tmp_path / "ck")
    check_complete(directory)
    (directory / "__0_0.distcp").unlink()
    with pytest.raises(IncompleteCheckpointError, match=r"__0_0\.distcp"):
        check_complete(directory)


def test_a_replica_of_a_chunk_counts_once(tmp_path: Path) -> None:
    directory = save(tmp_path / "ck")
    edit_metadata(directory, lambda m: m.state_dict_metadata["model.matrix"].chunks.extend(
        m.state_dict_metadata["model.matrix"].chunks[:1]))  # fmt: skip
    with open_checkpoint(directory) as reader:
        assert torch.equal(reader.read("model.matrix"), weights()["matrix"])


def test_older_metadata_with_the_dtype_as_an_attribute_is_read(tmp_path: Path) -> None:
    """Before torch 2.0 the properties were pickled as attributes, and nothing noted the nesting."""

    def age(metadata: Any) -> None:
        metadata.planner_data = None
        for described in metadata.state_dict_metadata.values():
            described.properties.__class__ = OldProperties

    directory = save(tmp_path / "ck")
    edit_metadata(directory, age)
    with open_checkpoint(directory) as reader:
        assert reader.tensors["model.half"].dtype == "bfloat16"
        assert torch.equal(reader.read("model.conv"), weights()["conv"])


class OldProperties(TensorProperties):
    """Pickled by its attributes."""

    def __getstate__(self) -> dict[str, object]:
        return {"dtype": self.dtype, "requires_grad": self.requires_grad}


def test_damaged_bytes_never_raise_anything_but_a_spectra_error(tmp_path: Path) -> None:
    """Seeded mutations of the metadata and of the data file."""
    directory = save(tmp_path / "ck", epoch=3)
    good = {name: (directory / name).read_bytes() for name in (".metadata", "__0_0.distcp")}
    generator = random.Random(1)  # noqa: S311 - mutations, not secrets
    refused = 0
    for turn in range(200):
        name = (".metadata", "__0_0.distcp")[turn % 2]
        data = bytearray(good[name])
        for _ in range(generator.choice((1, 2, 30))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        (directory / name).write_bytes(data)
        try:
            with open_checkpoint(directory) as reader:
                for tensor in reader.tensors:
                    reader.read(tensor)
        except SpectraError:
            refused += 1
        (directory / name).write_bytes(good[name])
    assert refused > 60
