"""What config.json says of a model, or of the part of one that a family is, nested configurations included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TEXT = ("text_config", "llm_config", "language_config", "decoder")
"""Keys under which configurations of several towers keep that of the language model."""

SEEING = re.compile(r"vis(ion|ual)|image|(^|_)vit(_|$)", re.IGNORECASE)
HEARING = re.compile(r"audio|speech|acoustic", re.IGNORECASE)


def sections(config: Mapping[str, Any], prefix: str = "", *, reads_tokens: bool = True) -> list[Mapping[str, Any]]:
    """The configurations that may speak of a part of a model, by preference.

    The top level comes first, then what is nested. Beside a language model, the top level says nothing of a tower that
    sees or hears: its keys are those of the language model.

    Args:
        config: the model's ``config.json``.
        prefix: what the names of the part have in front.
        reads_tokens: whether its input is an embedding of tokens, not of patches.
    """
    modules = prefix.split(".")
    if any(map(HEARING.search, modules)):
        names: tuple[str, ...] = ("audio_config",)
    elif not reads_tokens or any(map(SEEING.search, modules)):
        names = ("vision_config", "encoder")
    else:
        names = ("encoder",) if "encoder" in modules else TEXT
    nested = [config[name] for name in names if isinstance(config.get(name), Mapping)]
    other = names[0] in {"audio_config", "vision_config"} and any(
        isinstance(config.get(name), Mapping) for name in TEXT
    )
    return nested if other else [config, *nested]


def model_types(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Values of ``model_type``, that of the whole first, then those of its language models."""
    return tuple(str(section["model_type"]) for section in sections(config) if section.get("model_type") is not None)
