"""The order of parameters in a model, where the checkpoint does not keep it: from their names."""

from __future__ import annotations

import re
from functools import lru_cache

ORDER = (
    # What comes first among its siblings.
    r"\w*stem|conv_stem|feature_(extractor|projection)|input(_layer|_proj)?|inp|conv_in|conv_proj|init_conv|inc|patch_emb\w*|word_embed\w*|tok_emb\w*|embed_tokens|embed_in|to_patch\w*|proj_in|token_emb\w*|wte|embed|shared",
    r"wpe|\w*pos_?emb\w*|\w*pos_?enc\w*|\w*position\w*|embed_positions|cls_token|class_token|pe|W_pos",
    r"(\w*_)?emb(ed(s|der|dings?)?)?|embeddings?\w*|\w*_embeddings?|time_(mlp|embed\w*)|embed_(?!out)\w+|W_E|project_in",
    # Parts of a model that are passed one after the other.
    r"encoder\d*|backbone|features|downsampling_layer|visual|vision_model|input_blocks|downs?\d*|down_blocks?|conv\d*|Conv2d_\w+",
    # Attention.
    r"layernorm_before|q|q_proj|query|wq|to_q|q_lin|q_attn|query_key_value|qkv\w*|w_?qkv|c_attn|in_proj\w*|W_Q|q_[ab]_proj",
    r"k|k_proj|key|wk|to_k|k_lin|kv_a_proj\w*|to_kv|kv_proj|W_K",
    r"v|v_proj|value|wv|to_v|v_lin|kv_b_proj|W_V",
    r"conv\d+d|x_proj",
    r"A_log|dt_proj",
    r"o|o_proj|out_proj|out_lin|to_out|W_O",
    r"self|self_?att\w*|attn|attention|temporal_attn|attn1|resnets|mlp_tokens",
    r"multihead_attn|encoder_attn|enc_?dec_?att\w*|cross_?att\w*|attn2|attentions",
    # Inverted residuals.
    r"conv_pw|_?expand_conv|conv_reduce",
    r"conv_dw|_?depthwise_conv|conv_expand",
    r"se|_?se_reduce",
    r"_?se_expand",
    r"conv_pwl|_?project_conv",
    # Feed-forward networks.
    r"router|gate|gate_proj|w1|wi|wi_0|W_in|W_gate|gate_up_proj|c_fc|fc_in|dense_h_to_4h|intermediate|up_gate_proj"
    r"|linear_?in|in_layers|lin",
    r"up_proj|w3|wi_1",
    None,
    r"(fc|lin|linear|dense)_?\d+",
    r"down_proj|w2|wo|W_out|c_proj|fc_out|dense_4h_to_h|linear_?out|out_layers|x_proj",
    r"mlp\w*|ffn?|feed_?forward|ffn_output|DenseReluDense|ff|block_sparse_moe|\w*moe",
    r"shared_experts?|shared_expert_gate|downsample(rs?)?|upsample(rs?)?|\w*shortcut",
    # What comes last.
    r"mid\w*|bottleneck|bot|bridge|AuxLogits|middle_block",
    r"ups?\d*|up_blocks?|decoder\d*|output_blocks|text_model",
    r"project_out|\w*_head_conv|conv_head|final_(res\w*|layer\w*|block\w*)|pooler|pre_(logits|classifier)|transform|neck|rpn",
    r"(\w+_)?heads?\d*|cls|predictions|embed_out|unembed\w*|W_U|outc?|output\w*|fc|score|classifier|logits?|conv_out|final_conv"
    r"|qa_outputs|projector|head_\w+|seq_relationship|proj_out|out_conv",
)
"""Order of siblings, by the name of a component; None stands for all that no line names."""

PATTERNS = tuple(re.compile(names, re.IGNORECASE) if names else None for names in ORDER)
UNNAMED = ORDER.index(None)
WORD = re.compile(r"\w+")
RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l([0-9]{1,9}))?(_reverse)?(?:_\w+)?")

UP_BLOCK = re.compile(r"\d+|up\w*\d", re.IGNORECASE)
UPSAMPLING = re.compile(r"up|up_?conv|tconv|deconv", re.IGNORECASE)
"""Within a block of a UNet the upsampling comes first, while among the blocks of the model the upward path is last."""

DIGITS = frozenset("0123456789")
LONGEST_NUMBER = 18

Key = tuple[int, int, str, tuple[tuple[bool, int, str], ...]]


def depth_key(parameter: str) -> tuple[Key, ...]:
    """Sort key that follows the data: embeddings first, numbered blocks in numeric order, output layers last.

    Names are a tree. Siblings are ordered by role (query, key, value, output; encoder, decoder; ...), then by the
    number at their end, then by the rest of the name with its numbers taken as numbers.
    """
    components = parameter.split(".")
    return tuple(map(_component_key, components, ["", *components]))


@lru_cache(maxsize=1 << 14)
def _component_key(component: str, parent: str) -> Key:
    recurrent = RECURRENT.fullmatch(component)
    if recurrent:
        _, gate, layer, reverse = recurrent.groups()
        text = f"{reverse or ''}{('ih', 'hh', 'hr').index(gate)}"
        return UNNAMED, int(layer or 0), text, ()
    stem = component.rstrip("0123456789")
    digits = component[len(stem) :]
    pieces = tuple(
        (piece[0] not in DIGITS, _number(piece), piece) for piece in re.findall(r"[0-9]+|[^0-9]+", component)
    )
    simple = digits and DIGITS.isdisjoint(stem)
    role = 0 if UP_BLOCK.fullmatch(parent) and UPSAMPLING.fullmatch(component) else _role(component, stem)
    return role, _number(digits) if simple else 0, "", pieces


def _number(piece: str) -> int:
    """The number that a piece of a name is, 0 for letters; longer ones than any model has are all the same."""
    if piece[0] not in DIGITS:
        return 0
    return int(piece) if len(piece) <= LONGEST_NUMBER else 10**LONGEST_NUMBER


def _role(component: str, stem: str) -> int:
    """Line of ORDER: of the whole name, else of the name without its number."""
    if not WORD.fullmatch(component):  # no line has other characters, and a `\w*` would look for them again and again
        return UNNAMED
    for name in dict.fromkeys((component, stem.rstrip("_"))):
        for place, pattern in enumerate(PATTERNS):
            if pattern is not None and pattern.fullmatch(name):
                return place
    return UNNAMED
