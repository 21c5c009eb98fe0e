"""Decoders of the transformers library, tiny: each is taken for its family, and no matrix is left without a role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tensors import TensorInfo

from .decoders import (
    DENSE,
    HEAD,
    KEY_HEADS,
    WIDTH,
    Block,
    expected_connections,
    gpt2_block,
    llama_block,
    moe_block,
    neox_block,
    opt_block,
    phi3_block,
    units_of,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SIZES = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 4}
GROUPED = SIZES | {"intermediate_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@dataclass(frozen=True)
class Model:
    """A model of the library.

    Attributes:
        family: that it belongs to.
        prefix: of its base model's names.
        stack: what precedes the number of a block, below the prefix.
        block: names in a block, from what they start with.
        inputs: the embedding and what follows it, below the prefix.
        options: of its configuration.
        outputs: what follows the last block, below the prefix, before the output layer.
        grouped: whether query heads share a value head, so that the two matrices only meet head by head.
        interleaved: whether values stand apart in a fused matrix, so that they are not known without head counts.
    """

    family: str
    prefix: str
    stack: str
    block: Callable[[str], Block]
    inputs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    grouped: bool = False
    interleaved: bool = False
    parallel: bool = False
    tied: bool = False

    def expected(self, prefix: str, output: str, *, known_heads: bool = True) -> dict[tuple[str, str, str], str]:
        """Its connections where its base model's names have a prefix."""
        whole = "" if self.grouped else "1 whole"
        if not known_heads and (self.interleaved or self.grouped):
            whole = "1 whole no_head_count"
        return expected_connections(
            tuple(f"{prefix}{name}" for name in self.inputs),
            [self.block(f"{prefix}{self.stack}.{number}") for number in (0, 1)],
            (*(f"{prefix}{name}" for name in self.outputs), *([output] if output else [])),
            heads=4 if known_heads else None,
            whole=whole,
            parallel=self.parallel,
        )


def llama(**options: Any) -> Model:
    return Model(
        "llama",
        "model.",
        "layers",
        llama_block,
        ("embed_tokens.weight",),
        {**GROUPED, **options},
        grouped=options.get("num_key_value_heads") != 4,
        tied=options.get("tie_word_embeddings", False),
    )


def opt(**options: Any) -> Model:
    sizes = SIZES | {"ffn_dim": 32, "num_hidden_layers": 2, "max_position_embeddings": 16}
    narrow = "word_embed_proj_dim" in options
    start = ("decoder.embed_tokens.weight", *(["decoder.project_in.weight"] if narrow else []))
    return Model(
        "opt",
        "model.",
        "decoder.layers",
        opt_block,
        start,
        {**sizes, "word_embed_proj_dim": 24, **options},
        outputs=("decoder.project_out.weight",) if narrow else (),
        tied=True,
    )


def moe(*, shared: bool, **options: Any) -> Model:
    return Model(
        "moe",
        "model.",
        "layers",
        lambda start: moe_block(start, 3, names="stacked", shared=shared),
        ("embed_tokens.weight",),
        {**GROUPED, "num_experts_per_tok": 2, **options},
        grouped=True,
    )


def neox(**options: Any) -> Model:
    return Model(
        "gpt_neox",
        "gpt_neox.",
        "layers",
        neox_block,
        ("embed_in.weight",),
        {**SIZES, "intermediate_size": 32, "num_hidden_layers": 2, **options},
        interleaved=True,
        parallel=options.get("use_parallel_residual", True),
    )


TIED = {"tie_word_embeddings": True}
MODELS: dict[str, Model] = {
    "GPTNeoX": neox(),
    "GPTNeoX, one after the other": neox(use_parallel_residual=False),
    "GPT2": Model(
        "gpt2",
        "transformer.",
        "h",
        gpt2_block,
        ("wte.weight",),
        {"vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16},
        tied=True,
    ),
    "Llama": llama(),
    "Llama, tied": llama(**TIED),
    "Mistral": llama(),
    "Qwen2": llama(num_key_value_heads=4),
    "Qwen3": llama(head_dim=8),
    "Gemma": llama(head_dim=8, **TIED),
    "Gemma2": llama(head_dim=8, **TIED),
    "Gemma3Text": llama(head_dim=8, **TIED),
    "Olmo": llama(),
    "Olmo2": llama(),
    "Olmo3": llama(),
    "Phi3": Model("phi3", "model.", "layers", phi3_block, ("embed_tokens.weight",), GROUPED, grouped=True),
    "OPT": opt(),
    "OPT, narrow embedding": opt(word_embed_proj_dim=16),
    "Mixtral": moe(shared=False, num_local_experts=3),
    "Qwen2Moe": moe(shared=True, num_experts=3, moe_intermediate_size=12, shared_expert_intermediate_size=20),
    "Qwen3Moe": moe(shared=False, num_experts=3, moe_intermediate_size=12, head_dim=8),
    "Olmoe": moe(shared=False, num_experts=3),
}


def configuration(name: str) -> PretrainedConfig:
    import transformers

    cls: type[PretrainedConfig] = getattr(transformers, f"{name.partition(',')[0]}Config")
    return cls(**TOKENS, **MODELS[name].options)


def built(name: str, auto: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model without memory for its weights, and its config.json as it would be saved."""
    import transformers

    config = configuration(name)
    with torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, auto).from_config(config)
    return model, {**config.to_dict(), "architectures": [type(model).__name__]}


def inventory_of(model: torch.nn.Module, config: dict[str, Any] | None, *drop: str) -> Inventory:
    tensors = {
        name: TensorInfo(name, tuple(value.shape), "float32")
        for name, value in model.state_dict().items()
        if name not in drop
    }
    return take_inventory(tensors, ordered=True, config=config)


def families_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


@pytest.mark.parametrize("name", MODELS)
class TestLibrary:
    def test_a_language_model(self, name: str) -> None:
        expected = MODELS[name]
        model, config = built(name, "AutoModelForCausalLM")
        inventory = inventory_of(model, config)
        assert families_of(inventory) == [expected.family]
        assert inventory.unfitted == []
        output = expected.prefix + expected.inputs[0] if expected.tied else "lm_head.weight"
        assert units_of(inventory) == without_model(expected.expected(expected.prefix, output), inventory)

    def test_a_language_model_without_config_json(self, name: str) -> None:
        expected = MODELS[name]
        model, _ = built(name, "AutoModelForCausalLM")
        inventory = inventory_of(model, None)
        assert families_of(inventory) == [expected.family]
        assert inventory.unfitted == []
        if expected.parallel or expected.family != "gpt_neox":  # config.json tells the two kinds of blocks apart
            assert units_of(inventory) == expected.expected(expected.prefix, "lm_head.weight", known_heads=False)

    def test_a_tied_model_saved_without_its_copy(self, name: str) -> None:
        expected = MODELS[name]
        model, config = built(name, "AutoModelForCausalLM")
        inventory = inventory_of(model, config, "lm_head.weight")
        output = expected.prefix + expected.inputs[0] if expected.tied else ""
        assert families_of(inventory) == [expected.family]
        assert units_of(inventory) == without_model(expected.expected(expected.prefix, output), inventory)

    def test_a_base_model(self, name: str) -> None:
        """Without prefix and output layer; that the library ties the two makes no output of the embedding."""
        expected = MODELS[name]
        model, config = built(name, "AutoModel")
        inventory = inventory_of(model, config)
        assert families_of(inventory) == [expected.family]
        assert inventory.unfitted == []
        assert units_of(inventory) == expected.expected("", "")


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("Olmo")])  # of which there is none
def test_a_classifier_is_what_the_last_block_feeds(name: str) -> None:
    """And not the embedding that the language model is tied to."""
    expected = MODELS[name]
    model, config = built(name, "AutoModelForSequenceClassification")
    inventory = inventory_of(model, config)
    assert families_of(inventory) == [expected.family]
    assert inventory.unfitted == []
    assert units_of(inventory) == expected.expected(expected.prefix, "score.weight")


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("GPTNeoX", "gpt_neox, parallel"),
        ("GPT2", "gpt2"),
        ("Llama", "llama"),
        ("Phi3", "phi3"),
        ("OPT", "opt"),
    ],
)
def test_rows_of_a_value_head_are_what_they_are_said_to_be(name: str, decoder: str) -> None:
    """By the library's forward: where they are zero, columns of the query heads that share them get nothing."""
    import transformers

    small = DENSE[decoder]
    sizes = {"hidden_size": WIDTH, "n_embd": WIDTH, "word_embed_proj_dim": WIDTH, "num_key_value_heads": KEY_HEADS}
    options = {key: sizes.get(key, value) for key, value in MODELS[name].options.items()}
    config = getattr(transformers, f"{name}Config")(**TOKENS, **options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    block = small.block(0)
    seen: list[torch.Tensor] = []
    output = model.get_submodule(block.output.removesuffix(".weight"))
    output.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().reshape(-1, WIDTH)))
    stored = model.get_parameter(block.value).detach()
    (stored.T if small.in_out != ("no such name",) else stored)[small.rows("value", 1)] = 0
    model(torch.arange(5).reshape(1, 5))
    silent = (seen[0].abs().amax(0) == 0).nonzero().flatten().tolist()
    assert silent == list(range(small.group * HEAD, 2 * small.group * HEAD))


def without_model(
    connections: dict[tuple[str, str, str], str], inventory: Inventory
) -> dict[tuple[str, str, str], str]:
    """Without the ``model.`` that is dropped where all names have it."""
    prefix = "" if any(spec.tensor.name == spec.parameter for spec in inventory.matrices) else "model."
    return {
        (connection, up.removeprefix(prefix), down.removeprefix(prefix)): units
        for (connection, up, down), units in connections.items()
    }
