"""Which part of config.json speaks of which part of a model."""

from __future__ import annotations

from typing import Any

import pytest

from spectra_cli.layers.configuration import TEXT, model_types
from spectra_cli.layers.fitting import FittedFamily
from spectra_cli.layers.inventory import Inventory

from .planted import inventory_of, random_weights

Shape = tuple[int, ...]
WIDTH, INNER, TOKENS = 24, 28, 40


def decoder(prefix: str = "") -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{prefix}embed_tokens.weight": (TOKENS, WIDTH)}
    shapes |= {f"{prefix}layers.0.self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkvo"}
    shapes |= {f"{prefix}layers.0.mlp.{one}_proj.weight": (INNER, WIDTH) for one in ("gate", "up")}
    return shapes | {f"{prefix}layers.0.mlp.down_proj.weight": (WIDTH, INNER)}


def vision(prefix: str = "visual.") -> dict[str, Shape]:
    """Under timm's names."""
    return {
        f"{prefix}patch_embed.proj.weight": (WIDTH, 3, 4, 4),
        f"{prefix}blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH),
        f"{prefix}blocks.0.attn.proj.weight": (WIDTH, WIDTH),
        f"{prefix}blocks.0.mlp.fc1.weight": (INNER, WIDTH),
        f"{prefix}blocks.0.mlp.fc2.weight": (WIDTH, INNER),
    }


def images(prefix: str) -> dict[str, Shape]:
    """Under the names of the transformers library."""
    layer = f"{prefix}encoder.layer.0"
    shapes: dict[str, Shape] = {f"{prefix}embeddings.patch_embeddings.projection.weight": (WIDTH, 3, 4, 4)}
    shapes |= {f"{layer}.attention.attention.{one}.weight": (WIDTH, WIDTH) for one in ("query", "key", "value")}
    return shapes | {f"{layer}.attention.output.dense.weight": (WIDTH, WIDTH)}


def family(inventory: Inventory, name: str) -> FittedFamily:
    return next(one for one in inventory.families if one.fit.architecture.family == name)


def heads(inventory: Inventory, name: str) -> tuple[int, int] | None:
    found = family(inventory, name).heads
    return (found.query, found.key_value) if found else None


@pytest.mark.parametrize("section", TEXT)
def test_heads_ties_and_settings_may_stand_in_the_configuration_of_the_language_model(section: str) -> None:
    said = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}
    inventory = inventory_of(
        random_weights(decoder()), {"model_type": "some", section: {**said, "use_parallel_residual": True}}
    )
    assert heads(inventory, "llama") == (4, 4)
    assert family(inventory, "llama").tied
    assert "output-up" not in {found.name for found in inventory.connections()}


def test_the_top_level_comes_first() -> None:
    nested = {"num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True}
    config = {"num_attention_heads": 4, "tie_word_embeddings": False, "text_config": nested}
    inventory = inventory_of(random_weights(decoder()), config)
    assert heads(inventory, "llama") == (4, 4)  # the other is about another model
    assert not family(inventory, "llama").tied


@pytest.mark.parametrize("nested", [None, 4, "text", [4], True])
def test_what_is_no_configuration_tells_nothing(nested: Any) -> None:
    inventory = inventory_of(random_weights(decoder()), dict.fromkeys(TEXT, nested))
    assert heads(inventory, "llama") is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_attention_heads": 4}, None),
        ({"num_attention_heads": 4, "vision_config": {"num_heads": 2}}, (2, 2)),
        ({"num_attention_heads": 4, "vision_config": {"num_attention_heads": 3}}, (3, 3)),
        ({"text_config": {"num_attention_heads": 4}}, None),
        ({"llm_config": {"num_heads": 4}}, None),
        ({"model_args": {"num_heads": 6}}, (6, 6)),
    ],
)
def test_a_vision_tower_has_no_heads_of_the_language_model(
    config: dict[str, Any], expected: tuple[int, int] | None
) -> None:
    inventory = inventory_of(random_weights(vision() | decoder("model.")), config)
    assert heads(inventory, "vit_timm") == expected


@pytest.mark.parametrize("prefix", ["vision_tower.", "model.vision_model.", "encoder."])
def test_neither_has_one_under_the_names_of_the_library(prefix: str) -> None:
    """Whatever its prefix; at the top level stands what is said of the language model."""
    weights = random_weights(images(prefix) | decoder("language_model."))
    config: dict[str, Any] = {"text_config": {"num_attention_heads": 4}, "num_attention_heads": 6}
    inventory = inventory_of(weights, config)
    assert heads(inventory, "llama") == (6, 6)
    inventory = inventory_of(weights, {"text_config": {"num_attention_heads": 4}})
    assert (heads(inventory, "vit"), heads(inventory, "llama")) == (None, (4, 4))
    inventory = inventory_of(weights, {"num_attention_heads": 6} if prefix == "encoder." else {})
    assert heads(inventory, "vit") == ((6, 6) if prefix == "encoder." else None)


def test_a_vision_encoder_and_a_decoder_have_each_their_own_heads() -> None:
    weights = random_weights(images("encoder.") | decoder("decoder.model."))
    inventory = inventory_of(weights, {"encoder": {"num_attention_heads": 3}, "decoder": {"num_attention_heads": 2}})
    assert (heads(inventory, "vit"), heads(inventory, "llama")) == ((3, 3), (2, 2))


def test_an_encoder_of_text_has_no_heads_of_the_decoder() -> None:
    weights = random_weights(decoder("encoder.") | decoder("decoder."))
    inventory = inventory_of(weights, {"encoder": {"num_attention_heads": 3}, "decoder": {"num_attention_heads": 2}})
    assert [(one.fit.prefix, one.heads.query if one.heads else None) for one in inventory.families] == [
        ("encoder.", 3),
        ("decoder.", 2),
    ]


def test_model_types_are_those_of_the_whole_and_of_its_language_models() -> None:
    config = {"model_type": "whole", "text_config": {"model_type": "text"}, "vision_config": {"model_type": "vision"}}
    assert model_types(config) == ("whole", "text")
    assert model_types({}) == ()
