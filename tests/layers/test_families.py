"""State dicts of the common model families, written by hand: every matrix with its kind and size, in the model's order.

The order told from names alone must be that of the model; what is left out must be left out for the right reason.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tensors import TensorInfo

Shape = tuple[int, ...]
Expected = tuple[str, str, int, int]  # parameter, kind, rows, cols


@dataclass(frozen=True)
class Family:
    """Expected matrices in the model's order, all with their stored shapes, and everything else with its status."""

    matrices: list[tuple[str, str, Shape, int, int]]  # stored name, kind, stored shape, rows, cols
    skipped: dict[str, tuple[Shape, str]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)  # shares the bytes of

    def tensors(self, *, storage: bool) -> dict[str, TensorInfo]:
        shapes = {name: shape for name, _, shape, _, _ in self.matrices}
        shapes |= {name: shape for name, (shape, _) in self.skipped.items()}
        return {
            name: TensorInfo(
                name, shape, self.dtypes.get(name, "float32"), "", self.tied.get(name, name) if storage else None
            )
            for name, shape in shapes.items()
        }


def linear(name: str, rows: int, cols: int, kind: str = "linear") -> tuple[str, str, Shape, int, int]:
    return (name, kind, (rows, cols), rows, cols)


def conv1d(name: str, rows: int, cols: int, kind: str = "linear") -> tuple[str, str, Shape, int, int]:
    return (name, kind, (cols, rows), rows, cols)


def conv(name: str, out: int, into: int, kernel: int) -> tuple[str, str, Shape, int, int]:
    return (name, "conv", (out, into, kernel, kernel), out, into * kernel * kernel)


def vectors(**sizes: int) -> dict[str, tuple[Shape, str]]:
    return {name: ((size,), "vector") for name, size in sizes.items()}


def repeat(
    blocks: int, prefix: str, *layers: tuple[str, str, Shape, int, int]
) -> list[tuple[str, str, Shape, int, int]]:
    return [(f"{prefix}.{block}.{name}", *rest) for block in range(blocks) for name, *rest in layers]  # type: ignore[misc]


D, F, V = 8, 32, 50  # width, feed-forward width, vocabulary

GPT2 = Family(
    [
        linear("transformer.wte.weight", V, D, "embedding"),
        linear("transformer.wpe.weight", 16, D, "embedding"),
        *repeat(
            11,
            "transformer.h",
            conv1d("attn.c_attn.weight", 3 * D, D, "attention"),
            conv1d("attn.c_proj.weight", D, D, "attention"),
            conv1d("mlp.c_fc.weight", F, D),
            conv1d("mlp.c_proj.weight", D, F),
        ),
    ],
    {
        "transformer.h.0.attn.bias": ((1, 1, 16, 16), "buffer"),
        "transformer.h.0.attn.masked_bias": ((), "scalar"),
        "transformer.h.0.attn.c_attn.bias": ((3 * D,), "vector"),
        "transformer.ln_f.weight": ((D,), "vector"),
        "lm_head.weight": ((V, D), "tied"),
    },
    tied={"lm_head.weight": "transformer.wte.weight"},
)
NANOGPT = Family(
    [
        linear("transformer.wte.weight", V, D, "embedding"),
        linear("transformer.wpe.weight", 16, D, "embedding"),
        *repeat(
            2,
            "transformer.h",
            linear("attn.c_attn.weight", 3 * D, D, "attention"),
            linear("attn.c_proj.weight", D, D, "attention"),
            linear("mlp.c_fc.weight", F, D),
            linear("mlp.c_proj.weight", D, F),
        ),
        linear("lm_head.weight", V, D),
    ],
)
GPT_NEOX = Family(
    [
        linear("gpt_neox.embed_in.weight", V, D, "embedding"),
        *repeat(
            11,
            "gpt_neox.layers",
            linear("attention.query_key_value.weight", 3 * D, D, "attention"),
            linear("attention.dense.weight", D, D, "attention"),
            linear("mlp.dense_h_to_4h.weight", F, D),
            linear("mlp.dense_4h_to_h.weight", D, F),
        ),
        linear("embed_out.weight", V, D),
    ],
    {
        "gpt_neox.layers.0.attention.bias": ((1, 1, 16, 16), "integer_dtype"),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": ((2,), "vector"),
        "gpt_neox.layers.0.mlp.dense_h_to_4h.bias": ((F,), "vector"),
    },
    dtypes={"gpt_neox.layers.0.attention.bias": "bool"},
)
QKVO = (
    linear("self_attn.q_proj.weight", D, D, "attention"),
    linear("self_attn.k_proj.weight", D // 2, D, "attention"),
    linear("self_attn.v_proj.weight", D // 2, D, "attention"),
    linear("self_attn.o_proj.weight", D, D, "attention"),
)
GATED = (
    linear("mlp.gate_proj.weight", F, D),
    linear("mlp.up_proj.weight", F, D),
    linear("mlp.down_proj.weight", D, F),
)
LLAMA = Family(
    [
        linear("model.embed_tokens.weight", V, D, "embedding"),
        *repeat(11, "model.layers", *QKVO, *GATED),
        linear("lm_head.weight", V, D),
    ],
    {
        "model.norm.weight": ((D,), "vector"),
        "model.layers.0.self_attn.q_proj.bias": ((D,), "vector"),  # Qwen 2
    },
)
LLAMA_OF_META = Family(
    [
        linear("tok_embeddings.weight", V, D, "embedding"),
        *repeat(
            2,
            "layers",
            linear("attention.wq.weight", D, D, "attention"),
            linear("attention.wk.weight", D, D, "attention"),
            linear("attention.wv.weight", D, D, "attention"),
            linear("attention.wo.weight", D, D, "attention"),
            linear("feed_forward.w1.weight", F, D),
            linear("feed_forward.w3.weight", F, D),
            linear("feed_forward.w2.weight", D, F),
        ),
        linear("output.weight", V, D),
    ],
)
PHI3 = Family(
    [
        linear("model.embed_tokens.weight", V, D, "embedding"),
        *repeat(
            2,
            "model.layers",
            linear("self_attn.qkv_proj.weight", 3 * D, D, "attention"),
            linear("self_attn.o_proj.weight", D, D, "attention"),
            linear("mlp.gate_up_proj.weight", 2 * F, D),
            linear("mlp.down_proj.weight", D, F),
        ),
        linear("lm_head.weight", V, D),
    ],
)
OPT = Family(
    [
        linear("model.decoder.embed_tokens.weight", V, 4, "embedding"),
        linear("model.decoder.embed_positions.weight", 18, D, "embedding"),
        linear("model.decoder.project_in.weight", D, 4),
        *repeat(
            2,
            "model.decoder.layers",
            *QKVO[:1],
            linear("self_attn.k_proj.weight", D, D, "attention"),
            linear("self_attn.v_proj.weight", D, D, "attention"),
            linear("self_attn.out_proj.weight", D, D, "attention"),
            linear("fc1.weight", F, D),
            linear("fc2.weight", D, F),
        ),
        linear("model.decoder.project_out.weight", 4, D),
        linear("lm_head.weight", V, 4),
    ],
)
MIXTRAL_BY_NAME = Family(
    [
        linear("model.embed_tokens.weight", V, D, "embedding"),
        *repeat(
            2,
            "model.layers",
            *QKVO,
            linear("block_sparse_moe.gate.weight", 11, D),
            *repeat(
                11,
                "block_sparse_moe.experts",
                linear("w1.weight", F, D),
                linear("w3.weight", F, D),
                linear("w2.weight", D, F),
            ),
        ),
        linear("lm_head.weight", V, D),
    ],
)
BERT = Family(
    [
        linear("bert.embeddings.word_embeddings.weight", V, D, "embedding"),
        linear("bert.embeddings.position_embeddings.weight", 16, D, "embedding"),
        linear("bert.embeddings.token_type_embeddings.weight", 2, D, "embedding"),
        *repeat(
            11,
            "bert.encoder.layer",
            linear("attention.self.query.weight", D, D, "attention"),
            linear("attention.self.key.weight", D, D, "attention"),
            linear("attention.self.value.weight", D, D, "attention"),
            linear("attention.output.dense.weight", D, D, "attention"),
            linear("intermediate.dense.weight", F, D),
            linear("output.dense.weight", D, F),
        ),
        linear("bert.pooler.dense.weight", D, D),
        linear("cls.predictions.transform.dense.weight", D, D),
    ],
    {
        "bert.embeddings.position_ids": ((1, 16), "integer_dtype"),
        "cls.predictions.decoder.weight": ((V, D), "tied"),
        "cls.predictions.bias": ((V,), "vector"),
    },
    dtypes={"bert.embeddings.position_ids": "int64"},
    tied={"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"},
)
T5 = Family(
    [
        linear("shared.weight", V, D, "embedding"),
        linear("encoder.block.0.layer.0.SelfAttention.q.weight", D, D, "attention"),
        linear("encoder.block.0.layer.0.SelfAttention.k.weight", D, D, "attention"),
        linear("encoder.block.0.layer.0.SelfAttention.v.weight", D, D, "attention"),
        linear("encoder.block.0.layer.0.SelfAttention.o.weight", D, D, "attention"),
        linear("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 32, 4, "embedding"),
        linear("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", F, D),
        linear("encoder.block.0.layer.1.DenseReluDense.wi_1.weight", F, D),
        linear("encoder.block.0.layer.1.DenseReluDense.wo.weight", D, F),
        linear("decoder.block.0.layer.0.SelfAttention.q.weight", D, D, "attention"),
        linear("decoder.block.0.layer.1.EncDecAttention.q.weight", D, D, "attention"),
        linear("decoder.block.0.layer.2.DenseReluDense.wi_0.weight", F, D),
        linear("decoder.block.0.layer.2.DenseReluDense.wo.weight", D, F),
        linear("lm_head.weight", V, D),
    ],
)
BART = Family(
    [
        linear("model.shared.weight", V, D, "embedding"),
        linear("model.encoder.embed_positions.weight", 18, D, "embedding"),
        linear("model.encoder.layers.0.self_attn.q_proj.weight", D, D, "attention"),
        linear("model.encoder.layers.0.self_attn.k_proj.weight", D, D, "attention"),
        linear("model.encoder.layers.0.self_attn.out_proj.weight", D, D, "attention"),
        linear("model.encoder.layers.0.fc1.weight", F, D),
        linear("model.encoder.layers.0.fc2.weight", D, F),
        linear("model.decoder.embed_positions.weight", 18, D, "embedding"),
        linear("model.decoder.layers.0.self_attn.q_proj.weight", D, D, "attention"),
        linear("model.decoder.layers.0.encoder_attn.q_proj.weight", D, D, "attention"),
        linear("model.decoder.layers.0.encoder_attn.out_proj.weight", D, D, "attention"),
        linear("model.decoder.layers.0.fc1.weight", F, D),
    ],
    {"final_logits_bias": ((1, V), "bias")},
)
VIT = Family(
    [
        conv("vit.embeddings.patch_embeddings.projection.weight", D, 3, 4),
        ("vit.embeddings.position_embeddings", "embedding", (1, 17, D), 17, D),
        linear("vit.encoder.layer.0.attention.attention.query.weight", D, D, "attention"),
        linear("vit.encoder.layer.0.attention.attention.key.weight", D, D, "attention"),
        linear("vit.encoder.layer.0.attention.attention.value.weight", D, D, "attention"),
        linear("vit.encoder.layer.0.attention.output.dense.weight", D, D, "attention"),
        linear("vit.encoder.layer.0.intermediate.dense.weight", F, D),
        linear("vit.encoder.layer.0.output.dense.weight", D, F),
        linear("classifier.weight", 10, D),
    ],
    {"vit.embeddings.cls_token": ((1, 1, D), "vector")},
)
VIT_OF_TIMM = Family(
    [
        conv("patch_embed.proj.weight", D, 3, 4),
        ("pos_embed", "embedding", (1, 17, D), 17, D),
        *repeat(
            11,
            "blocks",
            linear("attn.qkv.weight", 3 * D, D, "attention"),
            linear("attn.proj.weight", D, D, "attention"),
            linear("mlp.fc1.weight", F, D),
            linear("mlp.fc2.weight", D, F),
        ),
        linear("head.weight", 10, D),
    ],
    {"cls_token": ((1, 1, D), "vector"), "blocks.0.ls1.gamma": ((D,), "vector")},
)
RESNET = Family(
    [
        conv("conv1.weight", 4, 3, 7),
        conv("layer1.0.conv1.weight", 4, 4, 1),
        conv("layer1.0.conv2.weight", 4, 4, 3),
        conv("layer1.0.conv3.weight", 8, 4, 1),
        conv("layer1.0.downsample.0.weight", 8, 4, 1),
        conv("layer1.1.conv1.weight", 4, 8, 1),
        conv("layer2.0.conv1.weight", 8, 8, 1),
        conv("layer10.0.conv1.weight", 8, 8, 1),
        linear("fc.weight", 10, 8),
    ],
    {
        "bn1.running_mean": ((4,), "vector"),
        "bn1.num_batches_tracked": ((), "scalar"),
        "fc.bias": ((10,), "vector"),
    },
    dtypes={"bn1.num_batches_tracked": "int64"},
)
VGG = Family(
    [
        conv("features.0.weight", 4, 3, 3),
        conv("features.3.weight", 8, 4, 3),
        conv("features.10.weight", 8, 8, 3),
        linear("classifier.0.weight", 16, 8),
        linear("classifier.3.weight", 10, 16),
    ],
)
DENSENET = Family(
    [
        conv("features.conv0.weight", 8, 3, 7),
        conv("features.denseblock1.denselayer1.conv1.weight", 8, 8, 1),
        conv("features.denseblock1.denselayer1.conv2.weight", 4, 8, 3),
        conv("features.denseblock1.denselayer2.conv1.weight", 8, 12, 1),
        conv("features.transition1.conv.weight", 6, 12, 1),
        conv("features.denseblock2.denselayer1.conv1.weight", 8, 6, 1),
        linear("classifier.weight", 10, 12),
    ],
)
SMALL_CNN = Family(
    [
        conv("conv1.weight", 4, 3, 3),
        conv("conv2.weight", 8, 4, 3),
        linear("fc1.weight", 32, 64),
        linear("fc2.weight", 16, 32),
        linear("fc3.weight", 16, 16),
        linear("out.weight", 10, 16),
    ],
)
TORCH_TRANSFORMER = Family(
    [
        linear("encoder.layers.0.self_attn.in_proj_weight", 3 * D, D, "attention"),
        linear("encoder.layers.0.self_attn.out_proj.weight", D, D, "attention"),
        linear("encoder.layers.0.linear1.weight", F, D),
        linear("encoder.layers.0.linear2.weight", D, F),
        linear("decoder.layers.0.self_attn.in_proj_weight", 3 * D, D, "attention"),
        linear("decoder.layers.0.self_attn.out_proj.weight", D, D, "attention"),
        linear("decoder.layers.0.multihead_attn.in_proj_weight", 3 * D, D, "attention"),
        linear("decoder.layers.0.multihead_attn.out_proj.weight", D, D, "attention"),
        linear("decoder.layers.0.linear1.weight", F, D),
        linear("decoder.layers.0.linear2.weight", D, F),
    ],
    {
        "encoder.layers.0.self_attn.in_proj_bias": ((3 * D,), "vector"),
        "encoder.layers.0.self_attn.bias_k": ((1, 1, D), "bias"),
    },
)
LSTM_LANGUAGE_MODEL = Family(
    [
        linear("encoder.weight", V, D, "embedding"),  # the decoder has as many rows
        linear("rnn.weight_ih_l0", 24, D, "recurrent"),
        linear("rnn.weight_hh_l0", 24, 3, "recurrent"),
        linear("rnn.weight_hr_l0", 3, 6, "recurrent"),
        linear("rnn.weight_ih_l0_reverse", 24, D, "recurrent"),
        linear("rnn.weight_hh_l0_reverse", 24, 3, "recurrent"),
        linear("rnn.weight_hr_l0_reverse", 3, 6, "recurrent"),
        linear("rnn.weight_ih_l1", 24, 6, "recurrent"),
        linear("rnn.weight_hh_l1", 24, 3, "recurrent"),
        linear("rnn.weight_ih_l10", 24, 3, "recurrent"),
        linear("decoder.weight", V, 6),
    ],
    {"rnn.bias_ih_l0": ((24,), "vector"), "decoder.bias": ((V,), "vector")},
)
AUTOENCODER = Family([linear("encoder.weight", 4, D), linear("decoder.weight", D, 4)])
SQUARE_ENCODER = Family([linear("encoder.weight", D, D), linear("decoder.weight", D, D)])
LINEAR_ENCODER = Family(
    [linear("encoder.weight", D, 4), linear("decoder.weight", D, D)], {"encoder.bias": ((D,), "vector")}
)
GRU_CELL = Family(
    [
        linear("positions", 3, D, "embedding"),
        linear("embedding.weight", V, D, "embedding"),
        linear("cell.weight_ih", 24, D, "recurrent"),
        linear("cell.weight_hh", 24, 8, "recurrent"),
        linear("head.weight", V, 8),
    ],
    {"cell.bias_ih": ((24,), "vector")},
)
UNET = Family(
    [
        conv("inc.double_conv.0.weight", 4, 3, 3),
        conv("down1.conv.0.weight", 8, 4, 3),
        conv("down2.conv.0.weight", 16, 8, 3),
        conv("bottleneck.0.weight", 16, 16, 3),
        ("up1.up.weight", "conv_transpose", (16, 8, 2, 2), 8, 64),
        conv("up1.conv.0.weight", 8, 16, 3),
        ("up2.up.weight", "conv_transpose", (8, 4, 2, 2), 4, 32),
        conv("outc.conv.weight", 2, 4, 1),
    ],
    {"up1.up.bias": ((8,), "vector"), "up2.up.bias": ((4,), "vector"), "outc.conv.bias": ((2,), "vector")},
)
DCGAN = Family(
    [
        ("main.0.weight", "conv_transpose", (10, 16, 4, 4), 16, 160),
        ("main.3.weight", "conv_transpose", (16, 8, 4, 4), 8, 256),
        ("main.6.deconv.weight", "conv_transpose", (8, 8, 4, 4), 8, 128),
    ],
    {
        "main.1.running_mean": ((16,), "vector"),
        "main.1.weight": ((16,), "vector"),
        "main.4.running_mean": ((8,), "vector"),
    },
)
TRANSFORMER_LENS = Family(
    [
        linear("embed.W_E", V, D, "embedding"),
        linear("pos_embed.W_pos", 16, D, "embedding"),
        conv1d("blocks.0.mlp.W_in", F, D),
        conv1d("blocks.0.mlp.W_out", D, F),
        conv1d("unembed.W_U", V, D),
    ],
    {
        "blocks.0.mlp.b_in": ((F,), "vector"),
        "blocks.0.mlp.b_out": ((D,), "vector"),
        "unembed.b_U": ((V,), "vector"),
        "blocks.0.attn.b_Q": ((2, 4), "bias"),
    },
)
REPARAMETRIZED = Family(
    [
        linear("embed.parametrizations.weight.original", V, D, "embedding"),
        linear("layers.0.weight_v", F, D),
        ("layers.1.parametrizations.weight.original1", "conv", (D, F, 3), D, 3 * F),
        linear("layers.2.weight_orig", D, F),
    ],
    {
        "layers.0.weight_g": ((F, 1), "vector"),
        "layers.1.parametrizations.weight.original0": ((D, 1, 1), "vector"),
        "layers.2.weight_mask": ((D, F), "buffer"),
        "layers.3.weight": ((4, 8, 8), "norm"),  # LayerNorm over three axes
        "layers.3.bias": ((4, 8, 8), "bias"),
    },
)
EIGHT_BIT = Family(
    [linear("a.weight", D, F)],
    {
        "b.weight": ((D, F), "quantized"),
        "b.weight_scale_inv": ((1, 2), "buffer"),
        "c.weight": ((D, F), "integer_dtype"),
    },
    dtypes={"a.weight": "float8_e4m3fn", "b.weight": "float8_e4m3fn", "c.weight": "int8"},
)

FAMILIES = {name: value for name, value in globals().items() if isinstance(value, Family)}


def without_wrapper(family: Family, name: str) -> str:
    """DESIGN: a `model.` that stands before every name is a wrapper's."""
    names = [matrix[0] for matrix in family.matrices] + [n for n, (_, why) in family.skipped.items() if why != "tied"]
    return name.removeprefix("model.") if all(other.startswith("model.") for other in names) else name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_family_is_understood_wholly(name: str, ordered: bool) -> None:
    """Kinds, sizes and order of all matrices and the status of all else; unordered ones come shuffled."""
    family = FAMILIES[name]
    tensors = family.tensors(storage=True)
    if not ordered:
        shuffled = [item for item in tensors.items() if item[0] not in family.tied]
        random.Random(name).shuffle(shuffled)  # noqa: S311 - an order, not a secret
        tensors = dict(shuffled) | {tied: tensors[tied] for tied in family.tied}
    inventory = take_inventory(tensors, ordered=ordered)
    expected = [(without_wrapper(family, stored), kind, rows, cols) for stored, kind, _, rows, cols in family.matrices]
    assert [(spec.parameter, spec.kind, spec.rows, spec.cols) for spec in inventory.matrices] == expected
    assert {item.name: item.status for item in inventory.skipped} == {
        stored: status for stored, (_, status) in family.skipped.items()
    }


@pytest.mark.parametrize(
    ("up", "down", "bias", "layout"),
    [
        ((3, 2 * F, D), (3, D, F), None, "expert"),
        ((3, D, 2 * F), (3, F, D), None, "expert_transposed"),
        ((3, D, 2 * F), (3, F, D), (3, 2 * F), "expert_transposed"),
        ((3, 2 * F, 2 * F), (3, 2 * F, F), None, "expert"),  # width = 2 F: only the pair tells
        ((3, 2 * F, 2 * F), (3, F, 2 * F), None, "expert_transposed"),
    ],
)
def test_stacked_experts_are_matrices_of_their_own_output_first(
    up: Shape, down: Shape, bias: Shape | None, layout: str
) -> None:
    """Mixtral keeps (experts, out, in), GPT-OSS and Llama 4 (experts, in, out)."""
    prefix = "model.layers.0.mlp.experts"
    shapes = {f"{prefix}.gate_up_proj": up, f"{prefix}.down_proj": down, "lm_head.weight": (V, D)}
    if bias:
        shapes[f"{prefix}.gate_up_proj_bias"] = bias
    tensors = {name: TensorInfo(name, shape, "bfloat16") for name, shape in shapes.items()}
    inventory = take_inventory(tensors, ordered=True)
    found = {spec.parameter: (spec.layout, spec.rows, spec.cols) for spec in inventory.matrices}
    width = down[1] if layout == "expert" else down[2]
    inner = down[2] if layout == "expert" else down[1]
    expected = {f"{prefix}.gate_up_proj[{e}]": (layout, 2 * inner, width) for e in range(3)}
    expected |= {f"{prefix}.down_proj[{e}]": (layout, width, inner) for e in range(3)}
    assert found == expected | {"lm_head.weight": ("stored", V, D)}
    assert [item.status for item in inventory.skipped] == ["bias"] * bool(bias)


def test_heads_stacked_along_the_first_axis_are_matrices_of_their_own() -> None:
    """TransformerLens keeps W_Q as (heads, in, out) with a bias (heads, out)."""
    shapes: dict[str, Shape] = {"attn.W_Q": (2, D, 4), "attn.b_Q": (2, 4)}
    tensors = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
    found = [(s.parameter, s.kind, s.rows, s.cols) for s in take_inventory(tensors, ordered=True).matrices]
    assert found == [("attn.W_Q[0]", "attention", 4, D), ("attn.W_Q[1]", "attention", 4, D)]


@pytest.mark.parametrize(
    ("name", "shape", "bias", "kind"),
    [
        ("up_conv.weight", (8, 16, 3, 3), (8,), "conv"),  # its bias overrules its name
        ("up_conv.weight", (16, 8, 3, 3), None, "conv_transpose"),
        ("decoder.tconv1.weight", (16, 16, 3, 3), (16,), "conv_transpose"),
        ("upsample.conv.weight", (16, 16, 3, 3), (16,), "conv"),
        ("experts.0.conv.weight", (16, 4, 3), None, "conv"),
        ("experts.0.depthwise.weight", (16, 4, 3), None, "conv"),  # a list of experts is no stack
        ("time_embed.0.weight", (16, 4), (16,), "linear"),
        ("time_emb_proj.weight", (16, 4), None, "linear"),
        ("word_emb.emb_layers.1.weight", (16, 4), None, "embedding"),
        ("output_embeddings.weight", (16, 4), None, "linear"),
        ("lora_A.default.weight", (2, 16), None, "linear"),
        ("bilinear.weight", (5, 4, 3), (5,), "conv"),
    ],
)
def test_name_and_bias_decide_together(name: str, shape: Shape, bias: Shape | None, kind: str) -> None:
    shapes = {name: shape} | ({f"{name.removesuffix('weight')}bias": bias} if bias else {})
    tensors = {key: TensorInfo(key, size, "float32") for key, size in shapes.items()}
    (spec,) = take_inventory(tensors, ordered=True).matrices
    assert spec.kind == kind


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 3), (2, 6, 4)])
def test_the_command_line_decides_over_names(shape: Shape) -> None:
    """`--transposed` turns a linear layer, a convolution or a stack of experts, by the name shown or the one stored."""
    name = "model.experts.w" if len(shape) == 3 else "model.a.weight"
    tensors = {name: TensorInfo(name, shape, "float32")}
    for glob in (name, name.removeprefix("model."), "*"):
        spec = take_inventory(tensors, ordered=True, transposed=[glob]).matrices[0]
        assert (spec.rows, "--transposed" in spec.reason) == (4, True)


def test_globs_choose_by_the_name_shown_the_stored_name_and_the_stack() -> None:
    tensors = {
        name: TensorInfo(name, shape, "float32")
        for name, shape in {"model.experts.w": (3, 4, 5), "model.a.weight": (4, 5)}.items()
    }
    inventory = take_inventory(tensors, ordered=True)
    chosen = {
        glob: [spec.parameter for spec in inventory.selected([glob], []).values()]
        for glob in ("experts.w", "experts.w[1]", "model.a.*", "a.weight", "b*")
    }
    assert chosen == {
        "experts.w": ["experts.w[0]", "experts.w[1]", "experts.w[2]"],
        "experts.w[1]": ["experts.w[1]"],
        "model.a.*": ["a.weight"],
        "a.weight": ["a.weight"],
        "b*": [],
    }
    assert list(inventory.selected([], ["experts.w"])) == [3]
