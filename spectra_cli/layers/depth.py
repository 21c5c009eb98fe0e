"""The order of parameters in a model, where the checkpoint does not keep it: from their names."""

from __future__ import annotations

import re

FIRST = re.compile(
    r"(\w*_)?(emb(ed(s|dings?)?)?|embeddings?)(_\w+)?|wte|wpe|tok_embeddings|\w*pos_emb\w*|stem|conv_in|patch_embed\w*",
    re.I,
)
LAST = re.compile(
    r"lm_head|embed_out|unembed(ding)?|(\w*_)?head|classifier|score|output|fc|out|conv_out|final\w*|cls|predictions|pooler",
    re.I,
)
ROLES = (
    re.compile(r"encoder|down(_blocks|s)?|conv1|features", re.I),
    re.compile(r"q|q_proj|query|wq|to_q|q_attn|query_key_value|qkv\w*|c_attn|in_proj\w*|weight_ih\w*", re.I),
    re.compile(r"k|k_proj|key|wk|to_k|weight_hh\w*", re.I),
    re.compile(r"v|v_proj|value|wv|to_v", re.I),
    re.compile(r"o|o_proj|out_proj|wo|to_out", re.I),
    re.compile(r"(self_?)?attn\w*|(self_?)?attention\w*|mid(_block)?|bottleneck", re.I),
    re.compile(r"cross_?att\w*|gate(_proj)?|linear1|fc1|fc_in|w1|c_fc|dense_h_to_4h|intermediate|conv2", re.I),
    re.compile(r"up(_proj|_blocks|s)?|gate_up_proj|w3|conv3", re.I),
    re.compile(r"down_proj|linear2|fc2|fc_out|w2|c_proj|dense_4h_to_h|downsample|shortcut", re.I),
    re.compile(r"mlp|ffn?|feed_?forward|decoder|output", re.I),
)
"""What comes first within a block, by the name of a component; what is not named here comes in the middle."""

UNNAMED = 4.5


def depth_key(parameter: str) -> tuple[object, ...]:
    """Sort key that puts embeddings first, numbered blocks in numeric order, output layers last."""
    components = parameter.split(".")
    modules = components[:-1] if len(components) > 1 else components
    before_numbers = []
    for component in modules:
        if component.isdigit():
            break
        before_numbers.append(component)
    numbered = len(before_numbers) < len(modules)
    stage = 1
    if any(LAST.fullmatch(component) for component in before_numbers) or (not numbered and modules[-1] == "decoder"):
        stage = 2
    elif any(FIRST.fullmatch(component) for component in before_numbers):
        stage = 0
    return (stage, tuple(_component_key(component) for component in components))


def _component_key(component: str) -> tuple[float, tuple[tuple[bool, int, str], ...]]:
    rank = next((float(place) for place, role in enumerate(ROLES) if role.fullmatch(component)), UNNAMED)
    pieces = re.findall(r"\d+|\D+", component)
    return rank, tuple((not piece.isdigit(), int(piece) if piece.isdigit() else 0, piece) for piece in pieces)
