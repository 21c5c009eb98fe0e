"""What torch.save writes, in both of its formats, read without torch.load and compared with it."""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import CheckpointError, UnsupportedFormatError

FORMATS = {"zip": True, "legacy": False}


@pytest.fixture(params=FORMATS)
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Saves an object in one of torch's two formats and opens it."""

    def saved(value: object, **options: Any) -> Any:
        path = tmp_path / "checkpoint"  # the content decides, not a suffix
        torch.save(value, path, _use_new_zipfile_serialization=FORMATS[request.param], **options)
        return open_checkpoint(path)

    return saved


class Custom:
    """A class of the user's that cannot be imported where the file is analysed."""

    def __init__(self, value: object) -> None:
        self.value = value


def views() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(40, 30)
    return {
        "plain": base.clone(),
        "transposed": base.t(),
        "sliced": base[3:20, 5:9],
        "rows": base[7:9],
        "channels_last": torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last),
        "permuted": torch.randn(3, 4, 5).permute(2, 0, 1),
        "expanded": torch.randn(1, 6).expand(5, 6),
        "every_other": torch.randn(8, 20)[:, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": nn.Parameter(torch.randn(3, 3)),
        "vector": torch.randn(7),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_view_equals_the_tensor_that_was_saved(save: Any, protocol: int) -> None:
    """Transposed, sliced, channels-last and expanded views: whole and in blocks, with every pickle protocol."""
    with save(views(), pickle_protocol=protocol) as reader:
        assert list(reader.tensors) == list(views())
        for name, expected in views().items():
            assert torch.equal(reader.read(name), expected.detach()), name
            assert reader.tensors[name].shape == tuple(expected.shape)
            if expected.ndim >= 2 and expected.numel():
                matrix = expected.detach().reshape(expected.shape[0], -1)
                assert torch.equal(reader.read(name, slice(1, 3)), expected[1:3].detach()), name
                assert torch.equal(reader.read(name, slice(1, 3), slice(1, 3)), matrix[1:3, 1:3]), name


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128", "int64",
     "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"],
)  # fmt: skip
def test_every_dtype_keeps_its_bits(save: Any, dtype: str) -> None:
    expected = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    with save({"w": expected}) as reader:
        found = reader.read("w")
        assert reader.tensors["w"].dtype == dtype
        assert found.dtype == expected.dtype
        assert found.reshape(-1).view(torch.uint8).tolist() == expected.reshape(-1).view(torch.uint8).tolist()


def test_names_and_groups_follow_nested_containers(save: Any) -> None:
    """A list is part of the name and not of the group; the group is the dictionary around."""
    one, two = torch.ones(2), torch.zeros(2)
    nested = {"model": OrderedDict({"a.weight": one}), "optimizer": {"state": defaultdict(dict, {0: {"exp_avg": two}})},
              "layers": [one, {"inner": (two,)}], "bare": two}  # fmt: skip
    with save(nested) as reader:
        assert {name: info.group for name, info in reader.tensors.items()} == {
            "model.a.weight": "model",
            "optimizer.state.0.exp_avg": "optimizer.state.0",
            "layers.0": "",
            "layers.1.inner.0": "layers.1",
            "bare": "",
        }
        assert torch.equal(reader.read("layers.1.inner.0"), two)


def test_tied_tensors_share_their_storage_and_others_do_not(save: Any) -> None:
    """The same elements are tied in whatever order of axes; other elements, and other matrices of them, are not."""
    weight, other = torch.randn(4, 6), torch.randn(8, 4)
    tied = {"a": weight, "b": weight, "transposed": weight.t(), "convolution": weight[:, :, None, None]}
    apart = {"upper": other[:4], "lower": other[4:], "wider": weight.view(2, 12), "flat": weight.view(-1)}
    with save(tied | apart) as reader:
        storage = {name: info.storage for name, info in reader.tensors.items()}
    assert len({storage[name] for name in tied}) == 1
    assert len(set(storage.values())) == 1 + len(apart)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"global_step": 7, "step": 8, "epoch": 2}, {"step": 7, "epoch": 2}),
        ({"iteration": 9}, {"step": 9}),
        ({"epoch": True, "step": "3", "iter": -1, "num_steps": 1.5}, {}),
    ],
)
def test_step_and_epoch_come_from_integers_at_the_top_level(
    save: Any, stated: dict[str, object], expected: dict[str, int]
) -> None:
    with save({"w": torch.ones(1), "inner": {"step": 99}, **stated}) as reader:
        assert reader.metadata == expected


def test_a_lightning_checkpoint_with_arbitrary_objects_is_read(save: Any) -> None:
    """Hyper-parameters of any class stay closed and do not disturb; nothing of theirs is remarked upon."""
    checkpoint = {
        "state_dict": OrderedDict({"model.w": torch.ones(2, 2)}),
        "hyper_parameters": argparse.Namespace(path=pathlib.PurePosixPath("x"), rate=1e-3, custom=Custom([1, {2}])),
        "callbacks": {"ModelCheckpoint": {"best": Custom(np.float64(1.5)), "scores": {1, 2}, "array": np.arange(3)}},
        "lr_schedulers": [Custom(None)],
        "epoch": 3,
    }
    with save(checkpoint) as reader:
        assert list(reader.tensors) == ["state_dict.model.w"]
        assert list(reader.notes) == []
        assert reader.metadata == {"epoch": 3}


def test_a_tensor_inside_a_pickled_object_is_said_to_be_there(save: Any) -> None:
    with save({"w": torch.ones(2), "ema": {"deep": Custom([torch.zeros(3), torch.zeros(3)])}}) as reader:
        assert list(reader.tensors) == ["w"]
        (note,) = reader.notes
    assert "'ema.deep'" in note
    assert "Custom" in note
    assert "2 tensors" in note


def test_a_pickled_module_alone_is_refused_with_its_class_and_a_remedy(save: Any) -> None:
    with pytest.raises(CheckpointError, match="Linear") as caught:
        save(nn.Linear(2, 2))
    assert "state_dict" in str(caught.value)


def test_without_any_tensor_the_error_says_so(save: Any) -> None:
    with pytest.raises(CheckpointError, match="no tensors"):
        save({"epoch": 3})


def test_a_bare_tensor_has_a_name(save: Any) -> None:
    with save(torch.eye(2)) as reader:
        assert torch.equal(reader.read("tensor"), torch.eye(2))


def test_two_ways_to_one_dotted_name_are_told_apart(save: Any) -> None:
    with save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}) as reader:
        assert reader.read("a.b").item() == 1.0
        assert reader.read("a.b~2").item() == 0.0
        assert "a.b~2" in reader.notes[0]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, and still found in files
def test_sparse_tensors_are_noted_and_quantized_ones_refused(save: Any) -> None:
    with save({"w": torch.ones(1), "s": torch.eye(3).to_sparse()}) as reader:
        assert list(reader.tensors) == ["w"]
        assert "'s' is a sparse tensor" in reader.notes[0]
    fewer_bits = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    with pytest.raises(UnsupportedFormatError, match="'q' is a quantized tensor"):
        save({"w": torch.ones(1), "q": fewer_bits})


def test_an_unknown_tensor_is_a_checkpoint_error(save: Any) -> None:
    with save({"w": torch.ones(1)}) as reader, pytest.raises(CheckpointError, match="'v'"):
        reader.read("v")


def test_a_state_dict_of_2000_tensors_opens_well_under_half_a_second(save: Any, tmp_path: Path) -> None:
    """Typically 0.08 s of the processor; the best of three, as other work on the machine is not the subject."""
    save({f"layers.{index}.weight": torch.zeros(2, 2) for index in range(2000)}).close()
    elapsed_s = []
    for _ in range(3):
        start = time.process_time()
        with open_checkpoint(tmp_path / "checkpoint") as reader:
            elapsed_s.append(time.process_time() - start)
        assert len(reader.tensors) == 2000
    assert min(elapsed_s) < 0.5


def test_opening_a_checkpoint_imports_neither_torch_nor_anything_that_it_names(tmp_path: Path) -> None:
    """Headers alone are read: a fresh interpreter stays without torch."""
    torch.save({"w": torch.ones(2), "h": argparse.Namespace(a=pathlib.PurePosixPath("x"))}, tmp_path / "c.pt")
    program = (
        "import sys; from pathlib import Path; from spectra_cli.checkpoints.open import open_checkpoint\n"
        f"open_checkpoint(Path({str(tmp_path / 'c.pt')!r})).close()\n"
        "print('torch' in sys.modules, 'argparse' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
