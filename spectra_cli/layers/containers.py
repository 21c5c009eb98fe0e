"""What training scripts save in one file: the state dict of the model among optimizers, trainers and second copies."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from spectra_cli.layers.averages import is_averaged
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
)
"""Keys under which training scripts put the state dict, the likeliest first; dropped as a prefix of all names."""

CONTAINER_KEYS = frozenset({*STATE_DICT_KEYS, "checkpoint", "ckpt", "train_state", "ema", "ema_state_dict"})

OPTIMIZER = re.compile(r"(.*_)?optim(i[sz]ers?)?(_?\d+|_.*)?|opt(_.*)?", re.IGNORECASE)
TRAINER = re.compile(
    r"(.*_)?(optim|optimi[sz]ers?)(_?\d+|_states?|_dict|_state_dict)?|opt(_state(_dict)?)?|(lr_?)?schedulers?(_states?)?(_dict)?"
    r"|(grad_?|loss_?)?scaler(_state)?(_dict)?|loops|callbacks|rng.*|.*rng_states?|random.*_states?|amp",
    re.IGNORECASE,
)
AMBIGUOUS = frozenset({"opt", "amp", "scaler", "scheduler", "optim"})
"""Keys of trainer state that are names of models and of modules as well."""

OPTIMIZER_LEAVES = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "exp_avg_sq_row",
        "exp_avg_sq_col",
        "max_exp_avg_sq",
        "exp_inf",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
    }
)
STATE_OF_PARAMETER = re.compile(r"(.*\.)?state\.\d+")
"""Path of the dictionary that torch's optimizers keep for parameter number n."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The state dict that stands for the model.

    Attributes:
        names: stored name of every tensor kept -> name within its state dict.
        rejected: stored name of every other tensor -> reason, ``averaged`` for copies that their key calls so.
    """

    names: Mapping[str, str]
    rejected: Mapping[str, str] = field(default_factory=dict)


def trainer_state(tensors: Sequence[TensorInfo]) -> set[str]:
    """Names of the tensors that belong to optimizers, schedulers, random generators and the like.

    Where the format keeps dictionaries, the key of one is enough, unless nothing else in the file could be the model
    or a model could be called the same. Of a flat name more is asked (``optimizer.state...``, ``...exp_avg``): a module
    may have any name.
    """
    certain = {tensor.name for tensor in tensors if _is_optimizer_state(tensor)}
    by_key: defaultdict[str, list[TensorInfo]] = defaultdict(list)
    rest: list[TensorInfo] = []
    for tensor in tensors:
        if tensor.name in certain:
            continue
        key = next((part for part in tensor.group.split(".") if part not in CONTAINER_KEYS), "")
        if _is_trainer_key(key):
            by_key[key].append(tensor)
        else:
            rest.append(tensor)
    others_hold_model = any(map(_is_matrix, rest))
    for key, members in by_key.items():
        model_like = any(_is_matrix(tensor) and tensor.name.endswith("weight") for tensor in members)
        if not any(map(_is_matrix, members)) or (others_hold_model and not (key in AMBIGUOUS and model_like)):
            certain |= {tensor.name for tensor in members}
    return certain


def _is_matrix(tensor: TensorInfo) -> bool:
    return len(tensor.shape) > 1 and tensor.is_floating


@lru_cache(maxsize=4096)
def _is_trainer_key(key: str) -> bool:
    return TRAINER.fullmatch(key) is not None


@lru_cache(maxsize=4096)
def _is_optimizer(component: str) -> bool:
    return OPTIMIZER.fullmatch(component) is not None


def _is_optimizer_state(tensor: TensorInfo) -> bool:
    components = tensor.name.split(".")
    if components[-1] in OPTIMIZER_LEAVES or STATE_OF_PARAMETER.fullmatch(tensor.group):
        return True
    return any(
        _is_optimizer(component) and not {"state", "param_groups"}.isdisjoint(components[place + 1 : place + 4])
        for place, component in enumerate(components[:-2])
    )


def choose_state_dict(tensors: Sequence[TensorInfo]) -> Choice:
    """Tell the model's state dict from copies of it and from data, where a file holds several dictionaries of tensors.

    A dictionary beside the chosen one is kept as well if it looks like the state dict of another module (a
    discriminator, a head): its names keep their key.
    """
    paths = {tensor.name: tensor.group.split(".") if tensor.group else [] for tensor in tensors}
    telling = [paths[tensor.name] for tensor in tensors if tensor.numel > 1] or [[]]  # not counters beside the model
    depth = 0
    while all(path[depth : depth + 1] == telling[0][depth : depth + 1] for path in telling):
        if len(telling[0]) == depth or telling[0][depth] not in CONTAINER_KEYS:
            break
        depth += 1
    shared = telling[0][:depth]
    dictionaries: defaultdict[str, list[TensorInfo]] = defaultdict(list)
    inner: dict[str, str] = {}
    for tensor in tensors:
        path = paths[tensor.name]
        within = path[:depth] == shared
        dictionaries[path[depth] if within and len(path) > depth else ""].append(tensor)
        inner[tensor.name] = _after(tensor.name, depth) if within else tensor.name
    chosen = next((key for key in STATE_DICT_KEYS if any(map(_is_matrix, dictionaries.get(key, ())))), None)
    if chosen is None:
        return Choice(inner)
    names = {tensor.name: _after(tensor.name, depth + 1) for tensor in dictionaries[chosen]}
    shapes = {names[tensor.name]: tensor.shape for tensor in dictionaries[chosen]}
    rejected: dict[str, str] = {}
    for key, members in dictionaries.items():
        if key == chosen:
            continue
        reason = _why_rejected(key, members, depth, shapes, chosen)
        if reason:
            rejected |= dict.fromkeys((tensor.name for tensor in members), reason)
        else:
            names |= {tensor.name: inner[tensor.name] for tensor in members}
    return Choice(names, rejected)


def _after(name: str, count: int) -> str:
    return ".".join(name.split(".")[count:])


def _why_rejected(
    key: str, members: Sequence[TensorInfo], depth: int, shapes: Mapping[str, tuple[int, ...]], chosen: str
) -> str | None:
    """Why a dictionary beside the chosen one is not analysed; `shapes` is what the chosen one holds."""
    if is_averaged(key):
        return "averaged"
    outside = f"outside '{chosen}', which holds the model"
    matrices = [tensor for tensor in members if _is_matrix(tensor)]
    if key == "" or not any(tensor.name.rpartition(".")[2].startswith("weight") for tensor in matrices):
        return outside
    if _same(((_after(tensor.name, depth + 1), tensor.shape) for tensor in matrices), shapes):
        return f"a second copy of what '{chosen}' holds"
    return None


def _same(members: Iterable[tuple[str, tuple[int, ...]]], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    stripped = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    return all(stripped.get(name.removeprefix("module.")) == shape for name, shape in members)
