"""A corpus of malformed checkpoints: seeded mutations of good ones, for every reader that spectra has.

Mutations are functions of a checkpoint's files and of a seeded generator, so that a case is made again from its name.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save

from spectra_cli.checkpoints import formats
from spectra_cli.checkpoints.formats.stored import StoredTensors
from tests.checkpoints.malformed_archives import ARCHIVE_EDITS, on_pickle
from tests.checkpoints.malformed_bytes import BYTE_EDITS, Files, Mutation, on_one_file
from tests.checkpoints.malformed_directories import (
    DIRECTORY_MUTATIONS,
    DISTRIBUTED_MUTATIONS,
    in_one_item,
    on_metadata,
)
from tests.checkpoints.malformed_headers import HEADER_EDITS, INDEX_MUTATIONS
from tests.checkpoints.malformed_pickles import PICKLE_EDITS, edited, pickles_in

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
LEGACY_PICKLES = 5
"""Magic number, protocol, system, the object, and the keys of its storages."""


@dataclass(frozen=True)
class Good:
    """A checkpoint that reads: its files, and the one to open, "" for the directory."""

    name: str
    files: Files
    target: str = ""


@dataclass(frozen=True)
class Case:
    """A malformed checkpoint, and how it came to be."""

    reader: str
    mutation: str
    number: int
    good: str
    files: Files
    target: str

    @property
    def name(self) -> str:
        """What makes it again, with the seed of the corpus."""
        return f"{self.reader} / {self.mutation} / {self.number} ({self.good})"


def readers() -> dict[str, Callable[..., StoredTensors]]:
    """Every function of the product that makes a reader of files, by name: ``open_…`` of a module of formats."""
    found = {}
    for module in pkgutil.iter_modules(formats.__path__, f"{formats.__name__}."):
        for name, value in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            returns = inspect.get_annotations(value).get("return")
            if name.startswith("open_") and value.__module__ == module.name and returns == StoredTensors.__name__:
                found[name] = value
    return found


def _fixture(name: str, without: str = "\0") -> Good:
    directory = FORMATS / name
    files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if not path.name.endswith(without)}
    return Good(name, files, next(iter(files)) if len(files) == 1 else "")


def _own_safetensors() -> Good:
    """Two tensors beside what Hugging Face keeps, so that the files around a model are mutated too."""
    tensors = {"model.embed_tokens.weight": torch.arange(24.0).reshape(6, 4), "lm_head.weight": torch.ones(6, 4)}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_attention_heads": 2, "hidden_size": 4}
    state = {"global_step": 40, "epoch": 1.0}
    return Good(
        "with config",
        {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": save(tensors, {"step": "40", "epoch": "1"}),
            "trainer_state.json": json.dumps(state).encode(),
        },
    )


def _own_torch(*, legacy: bool) -> Good:
    """Views of one storage, a scalar, an empty tensor and nested dictionaries, and counters."""
    torch.manual_seed(0)
    weight = torch.randn(6, 5)
    model = {
        "a.weight": weight,
        "a.tied": weight.t(),
        "b": weight[1:3, ::2],
        "n": torch.tensor(3),
        "e": torch.empty(0, 4),
    }
    stream = io.BytesIO()
    torch.save({"model": model, "step": 40, "epoch": 1}, stream, _use_new_zipfile_serialization=not legacy)
    return Good("views", {"step_40.pt": stream.getvalue()}, "step_40.pt")


@cache
def good_checkpoints() -> Mapping[str, tuple[Good, ...]]:
    """What is mutated, by the reader that reads it."""
    archives = ("torch_zip", "torch_views", "torch_nested", "lightning", "float16", "torch_compiled")
    return {
        "open_safetensors": (
            *(_fixture(name, without=".pt") for name in ("safetensors", "bfloat16", "float8_e5m2")),
            _own_safetensors(),
        ),
        "open_archive": (*(_fixture(name, without=".safetensors") for name in archives), _own_torch(legacy=False)),
        "open_legacy": (_fixture("torch_legacy"), _own_torch(legacy=True)),
        "open_index": (_fixture("safetensors_sharded"), _fixture("torch_sharded")),
        "open_shards": tuple(_fixture(f"{kind}_sharded", without=".json") for kind in ("safetensors", "torch")),
        "open_distributed": (_fixture("distributed"), _fixture("distributed_single")),
    }


def _in_stream(edit: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """An edit of one pickle of a legacy file, mostly of the object."""

    def apply(data: bytes, dice: Random) -> bytes:
        pickles, storages = pickles_in(data, LEGACY_PICKLES)
        at = dice.choice((3, 3, 3, *range(LEGACY_PICKLES)))
        pickles[at] = edit(pickles[at], dice)
        return b"".join(pickles) + storages

    return apply


@cache
def mutations() -> Mapping[str, Mapping[str, Mutation]]:
    """How checkpoints are mutated, by reader and by name."""
    anywhere = {name: on_one_file(edit) for name, edit in BYTE_EDITS.items()}
    pickles = {name: edited(edit) for name, edit in PICKLE_EDITS.items()}
    headers = {name: on_one_file(edit, ".safetensors") for name, edit in HEADER_EDITS.items()}
    archives = {name: on_one_file(edit) for name, edit in ARCHIVE_EDITS.items()}
    in_items = {f"item {name}": in_one_item(edit) for name, edit in pickles.items()}
    in_metadata = {name: on_metadata(edit) for name, edit in pickles.items()}
    return {
        "open_safetensors": anywhere | headers,
        "open_archive": anywhere | archives | {name: on_one_file(on_pickle(edit)) for name, edit in pickles.items()},
        "open_legacy": anywhere | {name: on_one_file(_in_stream(edit)) for name, edit in pickles.items()},
        "open_index": anywhere | DIRECTORY_MUTATIONS | INDEX_MUTATIONS,
        "open_shards": anywhere | DIRECTORY_MUTATIONS,
        "open_distributed": anywhere | DIRECTORY_MUTATIONS | DISTRIBUTED_MUTATIONS | in_metadata | in_items,
    }


def corpus(count: int, seed: int) -> Iterator[Case]:
    """`count` cases of every mutation of every reader."""
    for reader, ways in mutations().items():
        for mutation in ways:
            yield from cases(reader, mutation, count, seed)


def cases(reader: str, mutation: str, count: int, seed: int) -> Iterator[Case]:
    """The first cases of one mutation; a case does not depend on how many are asked for."""
    for number in range(count):
        dice = Random(f"{seed}/{reader}/{mutation}/{number}")  # noqa: S311 - mutations, not secrets
        good = dice.choice(good_checkpoints()[reader])
        files = mutations()[reader][mutation](good.files, dice)
        yield Case(reader, mutation, number, good.name, files, good.target)


def write(case: Case | Good, directory: Path) -> Path:
    """Write the files of a checkpoint and return the path to open."""
    directory.mkdir(parents=True)
    for name, data in case.files.items():
        (directory / name).write_bytes(data)
    return directory / case.target
