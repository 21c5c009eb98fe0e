"""Causal language models of Hugging Face transformers from a checkpoint directory: never its code, never the network.

A directory is untrusted data. Only classes of transformers itself are made from its ``config.json``; nothing in it
is imported or unpickled, and what it lacks is not fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectra_cli.errors import InputError, MissingExtraError, SpectraError
from spectra_cli.regularfile import open_regular
from spectra_cli.tasks.memory import is_out_of_memory, model_fits
from spectra_cli.tasks.options import shortened

CONFIG = "config.json"
MOST_CONFIG_BYTES = 8 * 2**20
MOST_LAYERS = 4096
MOST_EXPERTS = 4096
"""A config that claims more would be built for hours."""

MOST_NUMBERS = 2**36
"""Weights and buffers of a model: more than 256 GB in float32."""

LIMITS = ("max_position_embeddings", "max_seq_len", "max_sequence_length", "seq_length")
"""Keys under which configurations say how many tokens their model sees."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "n_shared_experts", "moe_num_experts")
"""Keys under which configurations say how many modules their model has."""

STALE_BUFFERS: Mapping[str, int] = {"bias": 4, "masked_bias": 0, "inv_freq": 1}
"""Last parts of the names of attention masks and rotary frequencies that old releases of transformers stored as buffers
(``h.0.attn.bias``, ``attention.masked_bias``, ``rotary_emb.inv_freq``), and their number of dimensions: a true bias has
another."""


_RESTORE = "Restore the config.json of the checkpoint"


def read_config(directory: Path) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint that transformers can make without code of the checkpoint's own.

    Raises:
        InputError: if there is none, it is not JSON, it needs remote code or a newer transformers, or its weights are
            quantized.
        MissingExtraError: if transformers is not installed.
    """
    path = directory / CONFIG
    try:
        with open_regular(path) as file:
            content = file.read(MOST_CONFIG_BYTES + 1)
        if len(content) > MOST_CONFIG_BYTES:
            raise InputError(
                f"is larger than {MOST_CONFIG_BYTES} bytes: no configuration", where=str(path), remedy=_RESTORE
            )
        values = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not JSON ({error})"
        raise InputError(
            f"cannot be read: {reason}",
            where=str(path),
            remedy="Give --set config= the directory of a Hugging Face checkpoint: with config.json and tokenizer",
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise InputError("names no model_type", where=str(path), remedy=_RESTORE)
    _check_known(values, path)
    if values.get("quantization_config") is not None:
        raise InputError(
            "its weights are quantized", where=str(path), remedy="Give a checkpoint of the unquantized weights"
        )
    return values


def causal_lm(directory: Path) -> nn.Module:
    """A causal language model with random weights in float32, as the ``config.json`` of a directory describes it.

    Attention is computed by plain matrix products ("eager"): the other kernels sum in an order of their own, and some
    of their gradients differ from one time to the next.

    Raises:
        InputError: as :func:`read_config`, or if transformers makes no causal language model of the configuration.
    """
    skeleton(directory)
    with model_fits(str(directory / CONFIG)):
        return _made(directory)


def _made(directory: Path) -> nn.Module:
    """The model on torch's default device."""
    read_config(directory)
    transformers = transformers_module()
    with offline_and_quiet(), blamed(directory / CONFIG):
        config = transformers.AutoConfig.from_pretrained(str(directory), trust_remote_code=False, local_files_only=True)
        text = config.get_text_config()
        for most, names in ((MOST_LAYERS, LAYERS), (MOST_EXPERTS, EXPERTS)):
            for name in names:
                count = getattr(text, name, None)
                if count is not None and (not isinstance(count, int) or not 0 <= count <= most):
                    raise ValueError(f"{name} is {shortened(count)}")
        config.use_cache = False  # keys and values of earlier tokens are only for generating text
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(
            config, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
        )
    return model


def skeleton(directory: Path) -> nn.Module:
    """The same model without memory for its weights.

    Raises:
        InputError: as :func:`causal_lm`; also if it is larger than any model that can be worked on.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = _made(directory)
    numbers = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if numbers > MOST_NUMBERS:
        raise InputError(
            f"describes a model of {numbers:.3g} numbers, and the most is {MOST_NUMBERS:.3g}",
            where=str(directory / CONFIG),
            remedy=_RESTORE,
        )
    return model


def longest_context(model: nn.Module) -> int | None:
    """Tokens that a model sees at most, by its configuration; None where that says nothing."""
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]  # a PreTrainedModel
    found = (getattr(config, name, None) for name in LIMITS)
    return next((limit for limit in found if isinstance(limit, int) and limit > 0), None)


def vocabulary_size(model: nn.Module) -> int:
    """Number of tokens that a model has an embedding of."""
    return int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]  # a PreTrainedModel


def adapted(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict under the names that a model has in this release of transformers.

    Checkpoints of a base model lack the prefix of it (the hub's ``gpt2`` has no ``transformer.``), old ones hold
    buffers that are computed today, and transformers itself renames and merges some weights as it loads them (experts;
    ``embed_out`` of GPT-NeoX). What is neither needed nor known to be stale stays, and so does every wrong shape: the
    one who loads the result is to say so. Weights that are absent stay absent.

    Args:
        state: names and tensors of a checkpoint.
        model: of :func:`causal_lm` or :func:`skeleton`.
    """
    needed = model.state_dict().keys()
    kept = {name: tensor for name, tensor in state.items() if name in needed or not _is_stale(name, tensor)}
    renamed = _with_prefix(kept, model)
    if renamed.keys() <= needed and not _absent(renamed, model):
        return renamed
    converted = _converted(kept, model)
    return max(renamed, converted, key=lambda found: len(found.keys() & needed) - len(found.keys() - needed))


def _with_prefix(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The names of a base model with its prefix, but for what transformers passes over in old checkpoints."""
    needed = model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    passed_over = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        known = next((known for known in (name, prefix + name) if known in needed), None)
        if known is not None or not any(pattern.search(name) for pattern in passed_over):
            found[known or name] = tensor
    return found


def _is_stale(name: str, tensor: Tensor) -> bool:
    *modules, last = name.split(".")
    place = modules[-1] if modules else ""
    return STALE_BUFFERS.get(last) == tensor.dim() and ("attn" in place or "attention" in place or "rotary" in place)


def _absent(state: Mapping[str, Tensor], model: nn.Module) -> set[str]:
    """Weights of a model that a state dict neither has nor ties to one that it has."""
    names: dict[int, set[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), set()).add(name)
    return {name for tied in names.values() if not tied & state.keys() for name in tied}


def _converted(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict as transformers converts it where it loads one; nothing where it cannot."""
    with offline_and_quiet(), torch.random.fork_rng(devices=[]):  # what is absent would be drawn at random
        try:
            loaded, report = type(model).from_pretrained(  # type: ignore[attr-defined]  # a PreTrainedModel
                None,
                config=model.config,
                state_dict=dict(state),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                local_files_only=True,
            )
        except Exception:  # noqa: BLE001 - untrusted tensors: the names stay as they are, and the loader lists them
            return {}
    lacking = set(report["missing_keys"])
    found = {name: tensor for name, tensor in loaded.state_dict().items() if name not in lacking}
    for name, stored_shape, _ in report["mismatched_keys"]:
        found[name] = torch.empty(stored_shape, device="meta")
    found |= {name: state[name] for name in report["unexpected_keys"] if name in state}
    return found


def _check_known(values: Mapping[str, Any], path: Path) -> None:
    """Refuse a model that transformers does not know by itself."""
    transformers = transformers_module()
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list):
        raise InputError("its architectures are no list", where=str(path), remedy=_RESTORE)
    own = [name for name in architectures if not hasattr(transformers, str(name))]
    known = values["model_type"] in transformers.CONFIG_MAPPING
    if values.get("auto_map") and (own or not known):
        raise InputError(
            f"describes a model by code of its own (auto_map, {values['model_type']}), which is never run",
            where=str(path),
            remedy="Convert the checkpoint to an architecture that transformers has itself",
        )
    if not known:
        raise InputError(
            f"describes a model of type '{values['model_type']}', unknown to transformers {transformers.__version__}",
            where=str(path),
            remedy="Install the release of transformers that the checkpoint was written with, or a later one",
        )


def transformers_module() -> Any:
    """The module ``transformers``; MissingExtraError if it is not installed."""
    try:
        import transformers  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            "models of Hugging Face need transformers", remedy="pip install 'spectra-weights[hf]'"
        ) from error
    return transformers


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """A context in which errors of transformers blame an untrusted file."""
    try:
        yield
    except SpectraError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"transformers cannot use it: {lines[0]}", where=str(path), remedy="Mend it, or restore the checkpoint"
        ) from error


@contextmanager
def offline_and_quiet() -> Iterator[None]:
    """Nothing is fetched from the hub, and transformers neither logs advice nor shows progress of its own."""
    from huggingface_hub import constants  # noqa: PLC0415 - comes with transformers

    logging = transformers_module().utils.logging
    offline, verbosity, progress = constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
