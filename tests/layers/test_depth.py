"""The order told from names: a total order that takes numbers for numbers and follows the data through the model."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.layers.depth import depth_key
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tensors import TensorInfo

COMPONENTS = st.sampled_from(
    [
        "model",
        "layers",
        "h",
        "0",
        "1",
        "9",
        "10",
        "100",
        "conv1",
        "conv10",
        "layer2",
        "fc",
        "wte",
        "q_proj",
        "up",
        "weight",
        "weight_ih_l0",
        "weight_hh_l0_reverse",
        "weight_ih_l10",
        "encoder",
        "decoder",
        "lm_head",
        "W_E",
        "é",
        "²",
        "٣",
        "9" * 5000,
    ]
)
NAMES = st.lists(st.lists(COMPONENTS, min_size=1, max_size=5).map(".".join), min_size=1, max_size=12, unique=True)


@settings(deadline=None)  # machines that run tests are busy
@given(NAMES, st.randoms(use_true_random=False))
def test_depth_does_not_depend_on_the_order_of_the_tensors(names: list[str], random: Random) -> None:
    """Any state dict, shuffled in any way, yields the same list."""
    shuffled = list(names)
    random.shuffle(shuffled)

    def order(of: list[str]) -> list[str]:
        tensors = {name: TensorInfo(name, (3, 2), "float32") for name in of}
        return [spec.parameter for spec in take_inventory(tensors, ordered=False).matrices]

    assert order(shuffled) == order(names)
    assert len({depth_key(name) for name in names}) == len(names)


@settings(deadline=None)  # machines that run tests are busy
@given(
    st.integers(0, 500), st.integers(0, 500), st.sampled_from(["h.{}.w", "layer{}.w", "block_{}.w", "weight_ih_l{}"])
)
def test_numbered_blocks_are_in_numeric_order(first: int, second: int, pattern: str) -> None:
    """Block 10 comes after block 9, whatever holds the number."""
    keys = depth_key(pattern.format(first)), depth_key(pattern.format(second))
    assert (keys[0] < keys[1]) == (first < second)


def test_a_checkpoint_that_keeps_the_order_of_the_model_is_not_reordered() -> None:
    names = ["head.weight", "layers.10.weight", "layers.2.weight", "embed.weight"]
    tensors = {name: TensorInfo(name, (3, 2), "float32") for name in names}
    assert [spec.parameter for spec in take_inventory(tensors, ordered=True).matrices] == names


ORDERS = {
    "UNet of diffusers": """conv_in time_embedding.linear_1 down_blocks.0.resnets.0.conv1
        down_blocks.0.attentions.0.proj_in down_blocks.0.downsamplers.0.conv mid_block.resnets.0.conv1
        up_blocks.0.resnets.0.conv1 conv_out""",
    "autoencoder of latent diffusion": """encoder.conv_in encoder.down.0.block.0.conv1 encoder.mid.block_1.conv1
        decoder.mid.block_1.conv1 decoder.up.0.block.0.conv1 decoder.conv_out""",
    "UNet of denoising diffusion": """init_conv time_mlp.1 downs.0.0.block1.proj mid_block1.block1.proj
        ups.0.0.block1.proj final_conv""",
    "MobileNet": "features.0.0 features.1.conv.0.0 features.18.0 classifier.1",
    "MobileNet of timm": """conv_stem blocks.1.0.conv_pw blocks.1.0.conv_dw blocks.1.0.se.conv_reduce
        blocks.1.0.se.conv_expand blocks.1.0.conv_pwl conv_head classifier""",
    "Inception": "Conv2d_1a_3x3.conv Conv2d_2b_3x3.conv Mixed_5b.branch1x1.conv Mixed_6a.branch3x3.conv fc",
    "DeepSeek": """wte h.0.self_attn.q_a_proj h.0.self_attn.q_b_proj h.0.self_attn.kv_a_proj_with_mqa
        h.0.self_attn.kv_b_proj h.0.self_attn.o_proj h.0.mlp.gate h.0.mlp.experts.0.up_proj lm_head""",
    "Mamba": """embeddings layers.0.mixer.in_proj layers.0.mixer.conv1d layers.0.mixer.x_proj layers.0.mixer.dt_proj
        layers.0.mixer.out_proj lm_head""",
    "ViT of torchvision": "conv_proj encoder.pos_embedding encoder.layers.encoder_layer_2.mlp.0 heads.head",
    "perceptron": "input hidden.0 hidden.10 output",
    "sequence": "0 2 10",
}


@pytest.mark.parametrize("model", ORDERS)
def test_the_order_follows_the_data(model: str) -> None:
    """Architectures that are no family of their own in the other tests."""
    order = ORDERS[model].split()
    alphabetical = sorted(order)
    assert sorted(alphabetical, key=lambda module: depth_key(f"{module}.weight")) == order
