"""What names say: which files can hold a model, which never do, and which belong together as one checkpoint."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODEL_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".th", ".pyth", ".pickle", ".pkl")
"""Suffixes under which models are saved, the preferred one first; what a file holds is decided by its content."""

FOREIGN_SUFFIXES = (".gguf", ".ggml", ".h5", ".hdf5", ".keras", ".onnx", ".msgpack", ".npz", ".pt2", ".tflite", ".ot")
"""Suffixes of models in formats that are recognised and refused."""

INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json", ".pt.index.json", ".pth.index.json")
"""Ends of the names of shard indices, the preferred one first."""

SHARD_NAME = re.compile(
    r"(?P<stem>.+?)[-_.](?P<index>\d{3,6})-of-(?P<count>\d{3,6})(?P<suffix>\.(?:safetensors|bin|pt|pth|ckpt))"
)
"""Full match of a shard's name, such as ``model-00001-of-00002.safetensors``."""

CANONICAL_NAMES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "consolidated.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "pytorch_model_fsdp.bin",
    "consolidated.pth",
)
"""Names under which a library saves the one model of a directory, the preferred one first."""

DCP_METADATA = ".metadata"
"""The file that makes a directory a torch.distributed checkpoint, together with at least one of the next."""

DCP_SUFFIX = ".distcp"
"""End of the names of the files with the tensors of a torch.distributed checkpoint."""

STEP_NUMBER = re.compile(r"\d+")
_PRECISION = re.compile(r"(?i)(?<![a-z])(bf|fp|f|int)\d{1,2}(?!\d)")  # of a variant: model.fp16.safetensors

# Repeated groups are possessive (`*+`): a name made to be hard to match costs no more time than any other.
_NOT_MODELS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"(.*zero_pp_rank_\d+_mp_rank_\d+_|.*_)?optim_states\.(pt|pth)", "optimizer state (DeepSpeed)"),
        (
            r"(.*[-_.])?optim(izer)?s?([-_.]?(states?|\d++))*+\.(pt|pth|bin|ckpt|pkl|tar|safetensors)",
            "optimizer state",
        ),
        (r"(.*[-_.])?optimizer[-_.].*\.(pt|pth|bin|ckpt|pkl|tar|safetensors)", "optimizer state"),
        (r"optim(izer)?([-_]?\d+)?", "optimizer state"),  # directories that accelerate writes beside the model's
        (r"(lr[-_]?)?sched(uler)?s?([-_.]?\d+)?([-_.]state)?\.(pt|pth|bin|pkl)", "learning-rate schedule"),
        (r"(rng|random)[-_]?states?([-_.]?\d++)*+\.(pt|pth|bin|pkl)", "random-number state"),
        (r"(grad[-_]?)?scaler([-_.]?\d+)?\.(pt|pth|bin|pkl)", "gradient scaler"),
        (r"training[-_]args\.(bin|pt|json)", "training arguments"),
        (r"(trainer|training|train)[-_]state\.(json|pt|pth|bin|pkl)", "trainer state"),
        (r"(dl_state_dict|sampler|(data)?loader([-_.]state)?)([-_.]?\d++)*+\.(pt|pth|bin|pkl)", "data loader state"),
        (r"custom_checkpoint_\d+\.pkl", "custom state (accelerate)"),
        (
            r"((train|val|valid|test)[-_])?(data|dataset|inputs?|targets?|labels?|batch(es)?)\.(pt|pth|bin|pkl)",
            "data",
        ),
        (r"(metrics|logs?|history|loss(es)?|results)\.(pt|pth|bin|pkl|tar)", "training log"),
        (r"(hparams|hyper[-_]?parameters|config|args)\.(pt|pth|bin|pkl)", "configuration"),
        (r"(tokenizer|vocab|spiece|sentencepiece).*\.(pt|pth|bin|pkl|model|tar)", "tokenizer"),
        (r"(.*[-_.])?events\.out\.tfevents.*", "TensorBoard log"),
    )
)


def not_a_model(name: str) -> str | None:
    """Say why a file of this name is never a model, whatever its suffix.

    Args:
        name: file name without directories.

    Returns:
        A few words for people, such as ``optimizer state``, or None where the name does not rule a model out.
    """
    for pattern, reason in _NOT_MODELS:
        if pattern.fullmatch(name):
            return reason
    return None


def may_be_model(name: str) -> bool:
    """Whether a file of this name may hold a model in a format that spectra reads."""
    return name.lower().endswith(MODEL_SUFFIXES) and not name.startswith(".") and not_a_model(name) is None


@dataclass(frozen=True, slots=True)
class Layout:
    """How the files of one directory make up one checkpoint.

    Attributes:
        kind: ``distributed`` for a torch.distributed checkpoint, ``deepspeed`` for DeepSpeed's ranks, ``megatron`` for
            Megatron's, ``index`` for shards with an index, ``shards`` for shards known by their names alone, ``file``
            for a single file.
        files: names of the files to open: the index, every shard that is present, or the one file; for ``megatron``
            the directories of the ranks.
        passed_over: other files that may hold a model and are not part of this one.
    """

    kind: Literal["distributed", "deepspeed", "megatron", "index", "shards", "file"]
    files: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def directory_layout(names: Collection[str], directories: Collection[str] = ()) -> Layout | None:
    """Tell how the entries of a directory make up one checkpoint.

    Safetensors are preferred where a directory holds the same model in two formats. Files that are known not to be
    models never count.

    Args:
        names: names of the files directly inside the directory.
        directories: names of its subdirectories; they count only where they are Megatron's ranks.

    Returns:
        None where the files are no checkpoint, or more than one.
    """
    if DCP_METADATA in names and any(name.endswith(DCP_SUFFIX) for name in names):
        return Layout("distributed", (DCP_METADATA,))
    if ranks := tuple(sorted(name for name in names if _DEEPSPEED.fullmatch(name))):
        return Layout("deepspeed", ranks)
    if ranks := tuple(sorted(name for name in directories if _MEGATRON.fullmatch(name))):
        return Layout("megatron", ranks)
    models = sorted(name for name in names if may_be_model(name))
    for suffix in INDEX_SUFFIXES:
        if indices := sorted((name for name in names if name.endswith(suffix)), key=lambda name: (len(name), name)):
            return Layout("index", (indices[0],), tuple(indices[1:]))
    shards = shard_sets(models)
    single = [name for name in models if not SHARD_NAME.fullmatch(name)]
    safetensors_shards = {stem: files for stem, files in shards.items() if stem[1] == ".safetensors"}
    if len(shards) == 1 or len(safetensors_shards) == 1:
        files = next(iter((safetensors_shards or shards).values()))
        return Layout("shards", files, tuple(name for name in models if name not in files))
    return None if shards else _single_file(single)


def format_rank(name: str) -> tuple[float, int]:
    """Sort key of names of one model in several formats, the one to read first."""
    suffix = next((rank for rank, suffix in enumerate(MODEL_SUFFIXES) if name.lower().endswith(suffix)), math.inf)
    return suffix, CANONICAL_NAMES.index(name) if name in CANONICAL_NAMES else 0


def shard_sets(names: Iterable[str]) -> dict[tuple[str, str, int], tuple[str, ...]]:
    """Group shards that belong together, in shard order, by (stem, suffix, number of shards)."""
    sets: defaultdict[tuple[str, str, int], list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        if match := SHARD_NAME.fullmatch(name):
            sets[match["stem"], match["suffix"], int(match["count"])].append((int(match["index"]), name))
    return {key: tuple(name for _, name in sorted(members)) for key, members in sets.items()}


_MEGATRON = re.compile(r"mp_rank_\d+(_\d+)*")
_DEEPSPEED = re.compile(
    r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_(optim|model)_states\.pt|mp_rank_\d+_model_states\.pt"
)


def _has_step(name: str) -> bool:
    return STEP_NUMBER.search(_PRECISION.sub("", name)) is not None


def _single_file(models: list[str]) -> Layout | None:
    """Choose the one model among unsharded files: a canonical name, one stem in two formats, or the only file."""
    for name in CANONICAL_NAMES:
        others = tuple(other for other in models if other != name)
        if name in models and not any(_has_step(Path(other).stem) for other in others):
            return Layout("file", (name,), others)
    if len({Path(name).stem for name in models}) == 1:
        chosen = min(models, key=format_rank)
        return Layout("file", (chosen,), tuple(name for name in models if name != chosen))
    return None
