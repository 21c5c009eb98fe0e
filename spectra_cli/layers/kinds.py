"""What a parameter is, by its name and its neighbours: kind of layer, learned tokens, biases, buffers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

Kind = Literal["linear", "conv", "conv_transpose", "embedding", "recurrent", "attention", "other"]
Shapes = Mapping[str, tuple[int, ...]]

RECURRENT = re.compile(r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?(_raw|_orig)?")
WORD = re.compile(r"\w+")
EMBEDDING_WORDS = ("emb", "embed", "embeds", "embedder", "embedding", "embeddings")
"""Ends of a word (what underscores separate) that name an embedding."""

EMBEDDING_ENDS = ("bias_table", "positions", "token", "tokens")
EMBEDDING_PARTS = (
    "pos_emb",
    "posemb",
    "pos_enc",
    "posenc",
    "position_emb",
    "position_enc",
    "positional_emb",
    "positional_enc",
)
EMBEDDING_NAMES = frozenset(
    {"wte", "wpe", "shared", "w_e", "w_pos", "relative_attention_bias", "pe", "rel_pos_h", "rel_pos_w"}
    | {"latent", "latents"}
)
OUTPUTS = ("out", "outs", "output", "outputs")
LAYER_WORDS = frozenset({"linear", "fc", "mlp", "dense", "norm", "layers"})
"""Words after the first that name another layer, whatever it is a part of: ``time_embed_mlp``."""

ATTENTION = re.compile(
    r"(\w*_)?(attn|attention|mha|multihead_attn)\d*|\w*attention|in_proj_weight|[qkvo]_proj(_weight)?|kv_proj"
    r"|w?qkv(_proj)?|query_key_value|c_attn|q_attn|w[qkv]|W_[QKVO]|to_(q|k|v|kv|qkv|out)|query|key|value",
    re.IGNORECASE,
)
BIAS = re.compile(r"(\w+_)?bias(es)?|bias_[a-z]{1,2}|b_(Q|K|V|O|E|U|in|out|gate|enc|dec)")
BUFFERS = frozenset(
    {"mask", "attn_mask", "causal_mask", "weight_mask", "relative_position_index", "relative_coords_table"}
    | {"embed_avg", "ema_w", "_ema_w", "cos_cached", "sin_cached"}
)
TOKEN = re.compile(r".*(pos_?emb|pos_?enc|position|token|latents?|query_embed).*|pe", re.IGNORECASE)
WEIGHT = re.compile(r"weight(_v|_orig|_bar|_raw)?|kernel")
PARAMETRIZED = re.compile(r"(.*\.)?parametrizations\.(\w+)\.original(\d*)")
HEADS = re.compile(r"W_[QKVO]")


@lru_cache(maxsize=1 << 14)
def plain_name(parameter: str) -> str:
    """The name without what ``torch.nn.utils.parametrize`` inserts: ``parametrizations.weight.original`` is weight."""
    matched = PARAMETRIZED.fullmatch(parameter)
    return f"{matched[1] or ''}{matched[2]}" if matched else parameter


def leaf_of(parameter: str) -> str:
    """Last component of a name."""
    return plain_name(parameter).rpartition(".")[2]


def bias_shape(parameter: str, shapes: Shapes) -> tuple[int, ...] | None:
    """Shape of the bias that belongs to a weight; None without one."""
    prefix, dot, leaf = plain_name(parameter).rpartition(".")
    if WEIGHT.fullmatch(leaf):
        bias = "bias"
    elif leaf.startswith("W_"):
        bias = f"b_{leaf[2:]}"
    elif leaf.endswith("_weight"):
        bias = f"{leaf.removesuffix('_weight')}_bias"
    else:
        bias = f"{leaf}_bias"
    return shapes.get(f"{prefix}{dot}{bias}")


def is_magnitude(parameter: str, shapes: Shapes) -> bool:
    """Whether this is the vector of lengths that weight normalization splits off: (out, 1, ...)."""
    shape = shapes[parameter]
    if parameter.endswith(".original0"):
        other = shapes.get(f"{parameter[:-1]}1")
    elif parameter.endswith("weight_g"):
        other = shapes.get(f"{parameter[:-1]}v")
    else:
        return False
    return other is not None and len(other) == len(shape) and max(shape, default=0) == _numel(shape)


def is_single_token(parameter: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of several axes is one vector: a class token (1, 1, d), a layer scale (d, 1, 1).

    The weight of a layer is a matrix even so.
    """
    if WEIGHT.fullmatch(leaf_of(parameter)) or is_stack(parameter, shape) or max(shape) != _numel(shape):
        return False
    return len(shape) > 2 or bool(TOKEN.fullmatch(leaf_of(parameter)))


def _numel(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def is_expert_stack(parameter: str, shape: tuple[int, ...]) -> bool:
    """Whether axis 0 counts experts: (experts, out, in), not the convolution of one expert in a list of modules."""
    components = parameter.split(".")
    if len(shape) != 3 or any("conv" in component.lower() for component in components):
        return False
    below = next((components[at + 1 :] for at, part in enumerate(components) if _is_experts(part)), None)
    return below is not None and not any(part.isdigit() for part in below)


def _is_experts(component: str) -> bool:
    words = component.lower().split("_")
    return words == ["expert"] or "experts" in words or words[-1] == "moe"


def is_head_stack(parameter: str, shape: tuple[int, ...]) -> bool:
    """Whether axis 0 counts attention heads, as in TransformerLens: (heads, in, out)."""
    return len(shape) == 3 and HEADS.fullmatch(leaf_of(parameter)) is not None


def is_stack(parameter: str, shape: tuple[int, ...]) -> bool:
    """Whether every place along axis 0 is a matrix of its own."""
    return is_expert_stack(parameter, shape) or is_head_stack(parameter, shape)


def matrix_kind(parameter: str, shapes: Shapes) -> Kind:
    """Kind of layer of a two-dimensional parameter."""
    components = plain_name(parameter).split(".")
    if RECURRENT.fullmatch(components[-1]):
        return "recurrent"
    modules = components[:-1] if WEIGHT.fullmatch(components[-1]) and len(components) > 1 else components
    named = next((module for module in reversed(modules) if not module.isdigit()), "")
    if bias_shape(parameter, shapes) != shapes[parameter][:1] and (
        _is_embedding(named, numbered=named != modules[-1]) or _is_encoder_of_tokens(parameter, shapes)
    ):
        return "embedding"
    return "attention" if any(map(_is_attention, modules)) else "linear"


def _is_encoder_of_tokens(parameter: str, shapes: Shapes) -> bool:
    """Whether an ``encoder`` is the embedding of a language model: its ``decoder`` has a row per token as well."""
    before, encoder, _ = parameter.rpartition("encoder.weight")
    tokens, width = shapes[parameter]
    return bool(encoder) and tokens > width and shapes.get(f"{before}decoder.weight", ())[:1] == (tokens,)


@lru_cache(maxsize=4096)
def _is_embedding(module: str, *, numbered: bool) -> bool:
    if numbered and module.endswith("_layers"):  # Transformer-XL's emb_layers are a list of embeddings
        module = module.removesuffix("_layers")
    name = module.lower()
    words = name.split("_")
    if not WORD.fullmatch(name) or _is_no_embedding(name, words):
        return False
    return (
        name in EMBEDDING_NAMES
        or name.endswith(EMBEDDING_ENDS)
        or any(word.endswith(EMBEDDING_WORDS) for word in words)
        or any(part in name for part in EMBEDDING_PARTS)
    )


def _is_no_embedding(name: str, words: list[str]) -> bool:
    """Whether a name that may contain the word is that of an unembedding, or of a layer beside an embedding."""
    return (
        name.startswith(("unemb", "un_emb", "deemb", "de_emb", "patch_emb"))
        or any(f"{output}emb" in name or f"{output}_emb" in name for output in OUTPUTS)
        or (words[-1] in OUTPUTS and "emb" in name)
        or any(word in LAYER_WORDS or word.startswith(("conv", "hidden")) for word in words[1:])
        or "proj" in name.partition("_")[2]
    )


@lru_cache(maxsize=4096)
def _is_attention(module: str) -> bool:
    return ATTENTION.fullmatch(module) is not None
