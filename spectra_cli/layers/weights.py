"""Which of the tensors in a checkpoint are the model's weights: wrappers, averaged copies, optimizer state, ties."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spectra_cli.tensors import TensorInfo

STATE_DICT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "params",
    "weights",
    "state",
    "app",
    "generator",
)
"""Keys under which training scripts put the state dict, the likeliest first; dropped as a prefix of all names."""

TRANSPARENT = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Components that torch.compile, FSDP, activation checkpointing and Fabric insert anywhere in a name."""

OPTIMIZER_ROOT = re.compile(
    r"(optim(izers?)?|opt|optimi[sz]er_?\d+|.*optimizers?(_states?)?(_dict)?|optim_state(_dict)?|(lr_)?schedulers?"
    r"|(lr_)?scheduler_state(_dict)?|(grad_?)?scaler|loops|callbacks|rng.*|random.*_state|amp)",
    re.IGNORECASE,
)
OPTIMIZER_LEAVES = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta"}
)
AVERAGED_ROOT = re.compile(
    r"(.*_)?(ema|swa|averaged|shadow)(_.*)?|(ema|swa|averaged)[A-Z].*|shadow_params", re.IGNORECASE
)
BOOKKEEPING_LEAVES = frozenset({"num_batches_tracked", "n_averaged", "num_updates"})

OUTPUT_NAMES = (
    "lm_head.weight",
    "embed_out.weight",
    "output.weight",
    "decoder.weight",
    "cls.predictions.decoder.weight",
)
INPUT_EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
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

    Optimizer state is dropped; of several state dicts in one file the likeliest is kept; averaged copies (EMA, SWA) are
    dropped where there is something to average; prefixes shared by all that remains are stripped if they are wrappers
    (``module.``, ``_orig_mod.``, Lightning's ``model.``); of tied tensors the first counts.

    Args:
        tensors: what the checkpoint holds, in its order.
        config: the model's ``config.json``, for its ``tie_word_embeddings``.

    Returns:
        The weights in the order given, and everything else with the reason.
    """
    left_out: list[Skipped] = []
    kept = _without_optimizer(tensors.values(), left_out)
    kept = _one_state_dict(kept, left_out)
    names = {tensor.name: _without_transparent(tensor.name) for tensor in kept}
    names = _without_shared_wrappers(names)
    kept, names = _without_averages(kept, names, left_out)
    names = _without_shared_wrappers(names)
    weights = [Weight(names[tensor.name], tensor) for tensor in kept]
    return _without_ties(weights, config or {}, left_out), left_out


def _without_optimizer(tensors: Iterable[TensorInfo], left_out: list[Skipped]) -> list[TensorInfo]:
    everything = list(tensors)
    kept: list[TensorInfo] = []
    state: list[TensorInfo] = []
    for tensor in everything:
        components = tensor.name.split(".")
        in_optimizer = len(components) > 1 and OPTIMIZER_ROOT.fullmatch(components[0]) is not None
        (state if in_optimizer or components[-1] in OPTIMIZER_LEAVES else kept).append(tensor)
    if not kept:  # a model may be called `opt`: what is alone in its file is the model
        return everything
    left_out += [skipped(tensor, "optimizer_state", "optimizer or trainer state, not a weight") for tensor in state]
    return kept


def _one_state_dict(tensors: list[TensorInfo], left_out: list[Skipped]) -> list[TensorInfo]:
    """Where a file holds several dictionaries of tensors, keep the one that is called a state dict."""
    roots = {tensor.name: tensor.group.split(".")[0] for tensor in tensors}
    present = set(roots.values())
    chosen = next((key for key in STATE_DICT_KEYS if key in present), None)
    if chosen is None or len(present) < 2:
        return tensors
    for tensor in tensors:
        root = roots[tensor.name]
        if root == chosen:
            continue
        if AVERAGED_ROOT.fullmatch(root):
            left_out.append(_averaged(tensor))
        else:
            left_out.append(skipped(tensor, "other_state_dict", f"outside '{chosen}', which holds the model"))
    return [tensor for tensor in tensors if roots[tensor.name] == chosen]


def _averaged(tensor: TensorInfo) -> Skipped:
    return skipped(tensor, "averaged_copy", "an averaged copy (EMA or SWA) of weights that are there themselves")


def _without_transparent(name: str) -> str:
    return ".".join(component for component in name.split(".") if component not in TRANSPARENT)


def _without_shared_wrappers(names: dict[str, str]) -> dict[str, str]:
    """Strip the first component as long as it is a wrapper's and every name has it."""
    wrappers = {*STATE_DICT_KEYS, "ema", "ema_state_dict", "model_ema", "ema_model"}
    while names:
        roots = {name.split(".", 1)[0] for name in names.values()}
        if len(roots) != 1 or not roots <= wrappers or not all("." in name for name in names.values()):
            break
        names = {stored: name.split(".", 1)[1] for stored, name in names.items()}
    return names


def _without_averages(
    tensors: list[TensorInfo], names: dict[str, str], left_out: list[Skipped]
) -> tuple[list[TensorInfo], dict[str, str]]:
    averaged = {
        tensor.name
        for tensor in tensors
        if "." in names[tensor.name] and AVERAGED_ROOT.fullmatch(names[tensor.name].split(".", 1)[0])
    }
    rest = [tensor for tensor in tensors if tensor.name not in averaged]
    if not averaged or all(names[tensor.name].rsplit(".", 1)[-1] in BOOKKEEPING_LEAVES for tensor in rest):
        return tensors, names
    left_out += [_averaged(tensor) for tensor in tensors if tensor.name in averaged]
    return rest, {tensor.name: names[tensor.name] for tensor in rest}


def _without_ties(weights: list[Weight], config: Mapping[str, Any], left_out: list[Skipped]) -> list[Weight]:
    first: dict[str, Weight] = {}
    kept = []
    for weight in weights:
        storage = weight.tensor.storage
        if storage is not None and storage in first:
            left_out.append(skipped(weight.tensor, "tied", f"the same tensor as '{first[storage].parameter}'"))
            continue
        if storage is not None:
            first[storage] = weight
        kept.append(weight)
    if config.get("tie_word_embeddings") is True:
        kept = _without_tied_output(kept, left_out)
    return kept


def _without_tied_output(weights: list[Weight], left_out: list[Skipped]) -> list[Weight]:
    """Drop an output layer that was saved as a copy of the input embedding to which config.json ties it."""
    embedding = next((w for w in weights if w.parameter.endswith(INPUT_EMBEDDING_NAMES)), None)
    output = next((w for w in weights if w.parameter.endswith(OUTPUT_NAMES) and w is not embedding), None)
    if embedding is None or output is None or embedding.tensor.shape != output.tensor.shape:
        return weights
    left_out.append(
        skipped(output.tensor, "tied", f"a copy of '{embedding.parameter}': config.json says tie_word_embeddings")
    )
    return [weight for weight in weights if weight is not output]
