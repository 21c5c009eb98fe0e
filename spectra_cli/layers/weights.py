"""Which of the tensors in a checkpoint are the model's weights, and the names that the model's code gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectra_cli.layers.averages import averaged_copies
from spectra_cli.layers.configuration import sections
from spectra_cli.layers.containers import choose_state_dict, trainer_state
from spectra_cli.tensors import TensorInfo

TRANSPARENT = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", "_forward_module"}
    | {"base_layer"}
)
"""Components that torch.compile, FSDP, activation checkpointing, Fabric and PEFT insert anywhere in a name."""

WRAPPERS = frozenset({"module", "model", "state_dict", "model_state_dict", "ema_model", "model_ema"})
"""Components that DDP, Lightning and training scripts put before the names of all the model's tensors."""

OUTPUT_NAMES = ("lm_head.weight", "embed_out.weight", "output.weight", "decoder.weight")
INPUT_EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "shared.weight",
    "tokens_embed.weight",
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the model, under the name that the model itself gives it."""

    parameter: str
    tensor: TensorInfo


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tensor that is not analysed.

    Attributes:
        name: as stored.
        shape: as stored.
        dtype: as stored.
        status: one word for tables, such as ``optimizer_state`` or ``tied``.
        reason: for people.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    status: str
    reason: str


def skipped(tensor: TensorInfo, status: str, reason: str) -> Skipped:
    """Say why a tensor is not analysed."""
    return Skipped(tensor.name, tensor.shape, tensor.dtype, status, reason)


def model_weights(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any] | None = None
) -> tuple[list[Weight], list[Skipped]]:
    """Find the model's own tensors and the names that its code gives them.

    Optimizer and trainer state is dropped; of several state dicts in one file that hold the same, the likeliest is
    kept; averaged copies (EMA, SWA) are dropped where what they average is there; prefixes shared by all that remains
    are stripped if they are wrappers (``module.``, ``_orig_mod.``, Lightning's ``model.``); of tied tensors the first
    counts. In doubt a tensor is kept: a matrix too many is seen in the table, a matrix too few is not.

    Args:
        tensors: what the checkpoint holds, in its order.
        config: the model's ``config.json``, for its ``tie_word_embeddings``.

    Returns:
        The weights in the order given, under unique names, and everything else with the reason.
    """
    left_out: list[Skipped] = []
    everything = list(tensors.values())
    state = trainer_state(everything)
    left_out += [
        skipped(t, "optimizer_state", "optimizer or trainer state, not a weight") for t in _among(tensors, state)
    ]
    kept = [tensor for tensor in everything if tensor.name not in state]
    choice = choose_state_dict(kept)
    left_out += [
        _averaged(tensor)
        if choice.rejected[tensor.name] == "averaged"
        else skipped(tensor, "other_state_dict", choice.rejected[tensor.name])
        for tensor in _among(tensors, choice.rejected)
    ]
    kept = [tensor for tensor in kept if tensor.name not in choice.rejected]
    names = _without_wrappers(kept, {name: _without_transparent(short) for name, short in choice.names.items()})
    copies = averaged_copies({names[tensor.name]: tensor.shape for tensor in kept}, WRAPPERS)
    left_out += [_averaged(tensor) for tensor in kept if names[tensor.name] in copies]
    kept = [tensor for tensor in kept if names[tensor.name] not in copies]
    kept, tied = _without_ties(kept, names, config or {})
    names = _unique(_without_wrappers(kept, {tensor.name: names[tensor.name] for tensor in kept}))
    left_out += [skipped(tensor, "tied", reason.format(names[other])) for tensor, other, reason in tied]
    return [Weight(names[tensor.name], tensor) for tensor in kept], left_out


def _among(tensors: Mapping[str, TensorInfo], names: Mapping[str, str] | set[str]) -> list[TensorInfo]:
    return [tensor for tensor in tensors.values() if tensor.name in names]


def _averaged(tensor: TensorInfo) -> Skipped:
    return skipped(tensor, "averaged_copy", "an averaged copy (EMA or SWA) of weights that are there themselves")


def _without_transparent(name: str) -> str:
    kept = [component for component in name.split(".") if component not in TRANSPARENT]
    return ".".join(kept) or name


def _without_wrappers(tensors: Sequence[TensorInfo], names: Mapping[str, str]) -> dict[str, str]:
    """Strip the first component while it is a wrapper's and every name has it, counters such as n_averaged aside."""
    names = dict(names)
    telling = [tensor.name for tensor in tensors if tensor.numel > 1]
    while telling:
        roots = {names[stored].partition(".")[0] for stored in telling}
        root = roots.pop()
        prefix = f"{root}."
        if roots or root not in WRAPPERS or not all(names[stored].startswith(prefix) for stored in telling):
            break
        names = {stored: name.removeprefix(prefix) for stored, name in names.items()}
    return names


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Give the names as stored back to tensors that stripping has given the same name."""
    uses = Counter(names.values())
    unique = {stored: name if uses[name] == 1 else stored for stored, name in names.items()}
    return unique if len(set(unique.values())) == len(unique) else {stored: stored for stored in names}


Tie = tuple[TensorInfo, str, str]
"""A tensor that is dropped, the stored name of the one it repeats, and the reason with a place for a name."""


def _without_ties(
    tensors: Sequence[TensorInfo], names: Mapping[str, str], config: Mapping[str, Any]
) -> tuple[list[TensorInfo], list[Tie]]:
    first: dict[str, str] = {}
    kept: list[TensorInfo] = []
    ties: list[Tie] = []
    for tensor in tensors:
        storage = tensor.storage if tensor.numel else None
        if storage is not None and first.setdefault(storage, tensor.name) != tensor.name:
            ties.append((tensor, first[storage], "the same tensor as '{}'"))
        else:
            kept.append(tensor)
    if any(section.get("tie_word_embeddings") is True for section in sections(config)):
        embedding = next((tensor for tensor in kept if _is_called(names[tensor.name], INPUT_EMBEDDING_NAMES)), None)
        output = next((tensor for tensor in kept if _is_called(names[tensor.name], OUTPUT_NAMES)), None)
        if embedding is not None and output is not None and embedding.shape == output.shape:
            kept.remove(output)
            ties.append((output, embedding.name, "a copy of '{}': config.json says tie_word_embeddings"))
    return kept, ties


def _is_called(name: str, endings: Sequence[str]) -> bool:
    return f".{name}".endswith(tuple(f".{ending}" for ending in endings))
