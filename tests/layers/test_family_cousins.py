"""Models that have the names of a family: those that belong to it in another way, and those that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tensors import TensorInfo

from .planted import Array, aligned, inventory_of, plant, random_weights, scores

Shape = tuple[int, ...]
WIDTH, INNER, TOKENS, EXPERTS = 16, 28, 40, 2
SIZES = {"vocab_size": 50, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2}


def families_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


def edges(inventory: Inventory, *names: str) -> set[tuple[str, str]]:
    """Who feeds whom in the connections of some names."""
    parameters = [spec.parameter.removeprefix("model.") for spec in inventory.matrices]
    return {
        (parameters[found.upstream], parameters[found.downstream])
        for found in inventory.connections()
        if found.name in names
    }


def statuses(inventory: Inventory) -> set[str]:
    return {unit.status for found in inventory.connections() for unit in found.units}


def of_library(name: str, auto: str = "AutoModelForCausalLM", **options: Any) -> Inventory:
    """A tiny model of the transformers library, with its config.json."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**options)
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config)
    tensors = {key: TensorInfo(key, tuple(value.shape), "float32") for key, value in model.state_dict().items()}
    said = {**config.to_dict(), "architectures": [type(model).__name__]}
    return take_inventory(tensors, ordered=True, config=said)


# Experts in stacks.


def gpt_oss(inner: int = WIDTH, *, in_out: bool = True) -> dict[str, Shape]:
    """Two blocks of two experts; as many hidden units as channels, where not otherwise asked for."""
    shapes: dict[str, Shape] = {"embed_tokens.weight": (TOKENS, WIDTH)}
    for block in range(2):
        layer = f"layers.{block}"
        shapes |= {f"{layer}.self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkvo"}
        up, down = (2 * inner, WIDTH), (WIDTH, inner)
        shapes |= {
            f"{layer}.mlp.router.weight": (EXPERTS, WIDTH),
            f"{layer}.mlp.experts.gate_up_proj": (EXPERTS, *(up[::-1] if in_out else up)),
            f"{layer}.mlp.experts.down_proj": (EXPERTS, *(down[::-1] if in_out else down)),
        }
    return shapes | {"lm_head.weight": (TOKENS, WIDTH)}


@pytest.mark.parametrize("inner", [WIDTH, INNER])
@pytest.mark.parametrize("in_out", [False, True])
@pytest.mark.parametrize("planted", ["output-up", "residual"])
def test_stacked_experts_of_gpt_oss_are_read_as_their_shapes_say(inner: int, in_out: bool, planted: str) -> None:
    """Also where hidden units and channels are as many, so that a down matrix meets its neighbours either way."""
    weights = random_weights(gpt_oss(inner, in_out=in_out))
    stack = weights[f"layers.0.mlp.experts.{'gate_up' if planted == 'output-up' else 'down'}_proj"]
    expert = stack[1].T if in_out else stack[1]
    if planted == "output-up":
        giver, reader = "layers.0.self_attn.o_proj.weight", "layers.0.mlp.experts.gate_up_proj[1]"
        plant(weights[giver], expert)
    else:
        giver, reader = "layers.0.mlp.experts.down_proj[1]", "layers.1.self_attn.k_proj.weight"
        plant(expert, weights[reader])
    config = {"model_type": "gpt_oss", "num_attention_heads": 4}
    assert families_of(inventory_of(weights, config)) == ["gpt_oss"]
    assert inventory_of(weights, config).unfitted == []
    assert aligned(scores(weights, config)) == {(planted, giver, reader, "whole", None)}


def test_rows_that_alternate_between_gate_and_up_connect_with_nothing() -> None:
    inventory = inventory_of(random_weights(gpt_oss()), {"num_attention_heads": 4})
    assert edges(inventory, "up-down") == set()
    assert ("layers.0.mlp.experts.down_proj[0]", "layers.1.self_attn.q_proj.weight") in edges(inventory, "residual")
    assert statuses(inventory) == {"ok"}


def test_experts_packed_to_four_bits_leave_the_rest_of_the_model() -> None:
    """As the released weights of GPT-OSS are."""
    weights = {name: array for name, array in random_weights(gpt_oss()).items() if ".experts." not in name}
    inventory = inventory_of(weights, {"num_attention_heads": 4})
    assert families_of(inventory) == ["gpt_oss"]
    assert {found.name for found in inventory.connections()} == {"embedding-input", "query-key", "value-output"}


@pytest.mark.parametrize("in_out", [False, True])
def test_stacked_experts_with_gate_above_up_are_read_as_their_shapes_say(*, in_out: bool) -> None:
    weights: dict[str, Array] = random_weights(
        {name.replace("mlp.router", "mlp.gate"): shape for name, shape in gpt_oss(INNER, in_out=in_out).items()}
    )
    up, down = (weights[f"layers.0.mlp.experts.{one}_proj"][1] for one in ("gate_up", "down"))
    plant((up.T if in_out else up)[INNER:], down.T if in_out else down)
    config = {"num_attention_heads": 4}
    assert families_of(inventory_of(weights, config)) == ["moe"]
    names = [f"layers.0.mlp.experts.{one}_proj[1]" for one in ("gate_up", "down")]
    assert aligned(scores(weights, config)) == {("up-down", *names, "gate", 1)}


def test_the_librarys_gpt_oss() -> None:
    inventory = of_library("GptOss", **SIZES, **GROUPED, num_local_experts=3, num_experts_per_tok=2, head_dim=8)
    assert families_of(inventory) == ["gpt_oss"]
    assert inventory.unfitted == []
    assert statuses(inventory) == {"ok"}


def test_experts_shared_by_all_tokens_under_the_name_of_several() -> None:
    options = {"num_experts_per_tok": 2, "n_routed_experts": 3, "moe_intermediate_size": 12, "head_dim": 8}
    inventory = of_library("Glm4Moe", **SIZES, **GROUPED, **options, first_k_dense_replace=0)
    assert families_of(inventory) == ["moe"]
    assert inventory.unfitted == []
    shared = "layers.0.mlp.shared_experts"
    assert (f"{shared}.up_proj.weight", f"{shared}.down_proj.weight") in edges(inventory, "up-down")


# Parallel blocks.


@pytest.mark.parametrize("name", ["Cohere", "Cohere2", "StableLm"])
def test_decoders_with_parallel_blocks(name: str) -> None:
    """Attention and MLP read the same stream and add to it: no output-up, and twice the residual connections."""
    options = {"use_parallel_residual": True} if name == "StableLm" else {}
    inventory = of_library(name, **SIZES, **GROUPED, **options)
    assert families_of(inventory) == ["llama"]
    assert inventory.unfitted == []
    assert edges(inventory, "output-up") == set()
    readers = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"}
    givers = {"layers.0.self_attn.o_proj.weight", "layers.0.mlp.down_proj.weight"}
    assert edges(inventory, "residual") == {(giver, f"layers.1.{one}.weight") for giver in givers for one in readers}
    assert edges(inventory, "embedding-input") == {("embed_tokens.weight", f"layers.0.{one}.weight") for one in readers}
    output = "lm_head.weight" if name == "StableLm" else "embed_tokens.weight"
    last = {giver.replace("layers.0", "layers.1") for giver in givers}
    assert edges(inventory, "output") == {(giver, output) for giver in last}


@pytest.mark.parametrize(("name", "parallel"), [("cohere", True), ("cohere2", True), ("stablelm", False), ("", False)])
def test_blocks_are_parallel_where_it_goes_without_saying(name: str, *, parallel: bool) -> None:
    """By the model_type, at the top level or in the configuration of the language model."""
    shapes: dict[str, Shape] = {"embed_tokens.weight": (TOKENS, WIDTH)}
    shapes |= {f"layers.0.self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkvo"}
    shapes |= {f"layers.0.mlp.{one}_proj.weight": (INNER, WIDTH) for one in ("gate", "up")}
    shapes["layers.0.mlp.down_proj.weight"] = (WIDTH, INNER)
    for config in ({"model_type": name}, {"model_type": "some_vlm", "text_config": {"model_type": name}}):
        inventory = inventory_of(random_weights(shapes), config)
        assert (edges(inventory, "output-up") == set()) == parallel
        tied = {"embed_tokens.weight"} if name.startswith("cohere") else set()
        assert {reader for _, reader in edges(inventory, "output")} == tied


def test_the_japanese_neox_has_one_after_the_other() -> None:
    inventory = of_library("GPTNeoXJapanese", **SIZES, hidden_size=24, num_hidden_layers=2)
    assert families_of(inventory) == ["gpt_neox"]
    layers = [f"layers.{block}" for block in range(2)]
    found = {tuple(name.partition(".")[2] for name in edge) for edge in edges(inventory, "output-up")}
    assert found == {(f"{layer}.attention.dense.weight", f"{layer}.mlp.dense_h_to_4h.weight") for layer in layers}
    assert {up.rpartition(".mlp.")[2] for up, _ in edges(inventory, "residual")} == {"dense_4h_to_h.weight"}


def test_the_first_gpt_has_its_embeddings() -> None:
    inventory = of_library("OpenAIGPT", vocab_size=50, n_embd=24, n_layer=2, n_head=4, n_positions=16)
    assert families_of(inventory) == ["gpt2"]
    assert inventory.unfitted == []
    start = "transformer."
    assert edges(inventory, "embedding-input") == {(f"{start}tokens_embed.weight", f"{start}h.0.attn.c_attn.weight")}
    assert edges(inventory, "output") == {(f"{start}h.1.mlp.c_proj.weight", f"{start}tokens_embed.weight")}


# Names of a family, and another structure.

LLAMA_LIKE = [name for one in "qkvo" for name in [f"layers.0.self_attn.{one}_proj.weight"]]


def llama(prefix: str = "", *others: str) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{prefix}{name}": (WIDTH, WIDTH) for name in (*LLAMA_LIKE, *others)}
    shapes |= {f"{prefix}layers.0.mlp.{one}_proj.weight": (WIDTH, WIDTH) for one in ("gate", "up", "down")}
    return shapes


def gpt2() -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"h.0.attn.c_attn.weight": (3 * WIDTH, WIDTH), "h.0.attn.c_proj.weight": (WIDTH, WIDTH)}
    return shapes | {"h.0.mlp.c_fc.weight": (INNER, WIDTH), "h.0.mlp.c_proj.weight": (WIDTH, INNER)}


def bert(*others: str) -> dict[str, Shape]:
    layer = "encoder.layer.0"
    attention = ("self.query", "self.key", "self.value", "output.dense", *others)
    shapes: dict[str, Shape] = {f"{layer}.attention.{one}.weight": (WIDTH, WIDTH) for one in attention}
    return shapes | {
        f"{layer}.intermediate.dense.weight": (INNER, WIDTH),
        f"{layer}.output.dense.weight": (WIDTH, INNER),
    }


@pytest.mark.parametrize(
    ("shapes", "family", "other"),
    [
        (llama(), "llama", "diffllama"),
        (llama(), "llama", "t5gemma"),
        (gpt2(), "nanogpt", "gpt_bigcode"),
        (bert(), "bert", "convbert"),
    ],
)
def test_a_cousin_is_of_no_family_unless_the_user_says_so(shapes: dict[str, Shape], family: str, other: str) -> None:
    """Only its model_type tells, at the top level or in the configuration of the language model."""
    weights = random_weights(shapes)
    assert families_of(inventory_of(weights)) == [family]
    for config in ({"model_type": other}, {"model_type": "some_vlm", "text_config": {"model_type": other}}):
        assert families_of(inventory_of(weights, config)) == []
        assert families_of(inventory_of(weights, config, StructureOptions(architecture=family))) == [family]


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (llama("", "layers.0.cross_attn.q_proj.weight"), "llama"),
        (llama("decoder.", "layers.0.encoder_attn.q_proj.weight"), "llama"),
        (bert("self.conv_kernel_layer"), "bert"),
    ],
)
def test_a_matrix_that_no_model_of_a_family_has(shapes: dict[str, Shape], family: str) -> None:
    """Without config.json."""
    stranger = next(name for name in shapes if "cross_attn" in name or "encoder_attn" in name or "conv_kernel" in name)
    assert families_of(inventory_of(random_weights(shapes))) == []
    assert families_of(inventory_of(random_weights({k: v for k, v in shapes.items() if k != stranger}))) == [family]


def test_heads_that_are_mixed_are_no_heads_of_a_vision_transformer() -> None:
    """CaiT's talking heads."""
    shapes: dict[str, Shape] = {"patch_embed.proj.weight": (WIDTH, 3, 4, 4)}
    shapes |= {"blocks.0.attn.qkv.weight": (3 * WIDTH, WIDTH), "blocks.0.attn.proj.weight": (WIDTH, WIDTH)}
    assert families_of(inventory_of(random_weights(shapes))) == ["vit_timm"]
    shapes["blocks.0.attn.proj_l.weight"] = (4, 4)
    assert families_of(inventory_of(random_weights(shapes))) == []


# Kinds and axes.


@pytest.mark.parametrize(
    ("kind", "shape", "matches"),
    [
        ("linear", (WIDTH, WIDTH), True),
        ("linear", (WIDTH, WIDTH, 3, 3), False),
        ("attention", (WIDTH, WIDTH, 1), False),
        ("recurrent", (WIDTH, WIDTH, 3), False),
        ("embedding", (WIDTH, WIDTH), True),
        ("embedding", (WIDTH, WIDTH, 3), False),
        ("conv", (WIDTH, WIDTH), False),
        ("conv", (WIDTH, WIDTH, 3), True),
        ("conv_transpose", (WIDTH, WIDTH), False),
        ("other", (WIDTH, WIDTH, 3), True),
        ("other", (WIDTH, WIDTH), True),
    ],
)
def test_a_role_has_the_axes_of_its_kind(tmp_path: Any, kind: str, shape: Shape, *, matches: bool) -> None:
    text = f"""
[parameters.one]
name = "layers.{{i}}.one.weight"
kind = "{kind}"
required = true

[[connections]]
name = "sequential"
from = "one"
to = "one"
next = true
"""
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    shapes = {f"layers.{block}.one.weight": shape for block in range(2)}
    inventory = inventory_of(random_weights(shapes), structure=StructureOptions(architecture=str(path)))
    assert families_of(inventory) == (["mine"] if matches else [])


@pytest.mark.parametrize("shape", [(1, 9, WIDTH), (9, 1, WIDTH), (9, WIDTH)])
def test_learned_positions_may_have_an_axis_of_one(shape: Shape) -> None:
    name = "pos_encoder.pe"
    shapes: dict[str, Shape] = {name: shape, "encoder.weight": (TOKENS, WIDTH)}
    shapes |= {"layers.0.self_attn.in_proj_weight": (3 * WIDTH, WIDTH)}
    shapes |= {"layers.0.self_attn.out_proj.weight": (WIDTH, WIDTH), "layers.0.linear1.weight": (INNER, WIDTH)}
    inventory = inventory_of(random_weights(shapes))
    assert families_of(inventory) == ["torch_encoder"]
    assert inventory.unfitted == []


def test_a_classifier_that_is_a_convolution_has_no_part_in_a_linear_one() -> None:
    """Its name alone makes it no neighbour of the last block."""
    shapes = bert() | {"classifier.weight": (5, WIDTH, 3, 3)}
    inventory = inventory_of(random_weights(shapes))
    assert [spec.parameter for spec in inventory.unfitted] == ["classifier.weight"]


# Language models around torch.nn.TransformerEncoder.


@pytest.mark.parametrize("embedding", ["encoder", "embedding", "token_embedding", "embed", "wte"])
@pytest.mark.parametrize("output", ["decoder", "fc", "linear", "classifier", "lm_head", "fc_out"])
def test_an_encoder_has_an_embedding_and_an_output_layer_whatever_they_are_called(embedding: str, output: str) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, embedding, torch.nn.Embedding(TOKENS, WIDTH))
            layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, INNER)
            self.body = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            setattr(self, output, torch.nn.Linear(WIDTH, TOKENS))

    weights: Mapping[str, Array] = {
        name: np.zeros(tuple(value.shape)) for name, value in Model().state_dict().items() if value.dim() > 1
    }
    inventory = inventory_of(weights)
    assert families_of(inventory) == ["torch_encoder"]
    assert inventory.unfitted == []
    start = "body.layers"
    assert edges(inventory, "embedding-input") == {(f"{embedding}.weight", f"{start}.0.self_attn.in_proj_weight")}
    assert edges(inventory, "output") == {(f"{start}.1.linear2.weight", f"{output}.weight")}
