"""Which axis of a stored weight is the output: PyTorch's layers keep (out, in), some keep (in, out)."""

from __future__ import annotations

import re
from functools import lru_cache

from spectra_cli.layers.kinds import Kind, Shapes, bias_shape, leaf_of, plain_name

TRANSPOSED_CONV = re.compile(
    r"tconv|conv_?t(\d?d)?\d*$|convt(rans)?|deconv|trans(posed?)?_?conv|conv\dd_?t|conv_?trans(posed?)?|up_?conv",
    re.IGNORECASE,
)
CONV1D_MODULES = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
"""Modules of GPT-2 that are (in, out) in Hugging Face's checkpoints and (out, in) in others, under the same names."""

BIAS_TELLS = "its bias has the length of the second axis"


def stores_in_out(shapes: Shapes) -> bool:
    """Whether a GPT-2 is Hugging Face's, by its widening layers: c_attn is (d, 3 d) there and (3 d, d) elsewhere."""
    for module in ("c_attn", "c_fc"):
        widening = [shape for name, shape in shapes.items() if name.endswith(f"{module}.weight") and len(shape) == 2]
        if widening:
            return all(shape[1] > shape[0] for shape in widening)
    return False


def why_transposed(parameter: str, shapes: Shapes, kind: Kind, *, conv1d: bool) -> str:
    """Why a two-dimensional weight is taken for (in, out), "" if it is not.

    Args:
        parameter: its name.
        shapes: of all parameters.
        kind: of layer.
        conv1d: what :func:`stores_in_out` says of the model.
    """
    shape, components = shapes[parameter], plain_name(parameter).split(".")
    if conv1d and components[-1] == "weight" and len(components) > 1 and components[-2] in CONV1D_MODULES:
        return "GPT-2's Conv1D stores (in, out)"
    if kind not in {"recurrent", "embedding"} and _last_axis_is_output(shape, bias_shape(parameter, shapes)):
        return BIAS_TELLS
    if kind not in {"recurrent", "embedding"} and leaf_of(parameter) == "kernel":
        return "a 'kernel' (Flax, Keras) stores (in, out)"
    return ""


def _last_axis_is_output(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> bool:
    return shape[0] != shape[1] and bias == (shape[1],)


def why_stack_transposed(parameter: str, shapes: Shapes) -> str:
    """Why every matrix of a stack (count, ., .) is taken for (in, out), "" if it is not.

    GPT-OSS and Llama 4 keep experts so, Mixtral and Qwen do not. The biases tell, else the widths of the gated pair:
    the width of ``gate_up_proj`` is twice that of what ``down_proj`` reads.
    """
    shape = shapes[parameter]
    bias = bias_shape(parameter, shapes)
    if bias is not None and len(bias) == 2 and shape[1] != shape[2]:
        return "its bias has the length of the last axis" if bias[1] == shape[2] else ""
    prefix, _, leaf = parameter.rpartition(".")
    up, down = shapes.get(f"{prefix}.gate_up_proj", ()), shapes.get(f"{prefix}.down_proj", ())
    if leaf not in {"gate_up_proj", "down_proj"} or len(up) != 3 or len(down) != 3:
        return ""
    return "gate_up_proj and down_proj fit as (in, out)" if up[2] == 2 * down[1] else ""


def why_swapped(parameter: str, shapes: Shapes) -> str:
    """Why a convolution (., ., kernel...) is taken for a transposed one, stored (in, out, kernel...); "" if it is not.

    Its bias or the batch norm after it in a sequence tells, else its name.
    """
    shape = shapes[parameter]
    outputs = bias_shape(parameter, shapes)
    told_by = BIAS_TELLS
    if outputs is None:
        outputs, told_by = _norm_after(parameter, shapes), "the norm after it has the length of the second axis"
    if outputs is not None and len(outputs) == 1 and shape[0] != shape[1]:
        if outputs[0] == shape[1]:
            return told_by
        if outputs[0] == shape[0]:  # whatever its name: an `upconv` may be a convolution after upsampling
            return ""
    matching = next((part for part in parameter.split(".") if _names_transposed_conv(part)), None)
    return f"'{matching}' names a transposed convolution" if matching else ""


@lru_cache(maxsize=4096)
def _names_transposed_conv(component: str) -> bool:
    upward = "transpose" in component.lower().partition("up")[2]
    return upward or TRANSPOSED_CONV.search(component) is not None


def _norm_after(parameter: str, shapes: Shapes) -> tuple[int, ...] | None:
    """Shape of the batch norm that follows as the next module of a sequence."""
    module = plain_name(parameter).rpartition(".")[0]
    parent, dot, place = module.rpartition(".")
    numbered = place.isdecimal() and len(place) < 10
    return shapes.get(f"{parent}{dot}{int(place) + 1}.running_mean") if numbered else None
