"""The papers' transformer: one architecture for modular addition and for language modeling."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, relu, scaled_dot_product_attention

from spectra_cli.errors import UsageError


def sinusoidal_positions(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Position encodings of Vaswani et al. 2017, section 3.5: sin(t / 10000^(2i/width)) at 2i, its cosine at 2i + 1.

    Args:
        length: number of positions t, from 0.
        width: of a position's vector; of an odd one the last entry is a sine.
        device: where to compute them.

    Returns:
        (length, width) float32, in [-1, 1].
    """
    even = torch.arange(0, width, 2, dtype=torch.float32, device=device)
    frequencies = torch.exp(even * (-math.log(10000.0) / width))
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).narrow(1, 0, width)


class SelfAttention(nn.Module):
    """Multi-head self-attention; parameters and their initialization are those of ``torch.nn.MultiheadAttention``.

    That class computes other roundings in evaluation mode than in training mode, and not for the last position alone.

    Args:
        width: of a position's vector.
        heads: a divisor of `width`.
        dropout_rate: of the attention weights, while training.
        causal: whether a position sees only itself and what comes before it.
    """

    def __init__(self, width: int, heads: int, dropout_rate: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout_rate, self.causal = heads, dropout_rate, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, hidden: Tensor, *, last_only: bool = False) -> Tensor:
        """Hidden states (batch, length, width) -> what is to be added to them.

        With `last_only` to the last of them: (batch, 1, width).
        """
        sizes = [hidden.shape[-1], 2 * hidden.shape[-1]]
        (of_query, of_others), (query_bias, other_bias) = (
            torch.split(parameter, sizes) for parameter in (self.in_proj_weight, self.in_proj_bias)
        )
        query = linear(_last(hidden) if last_only else hidden, of_query, query_bias)
        key, value = linear(hidden, of_others, other_bias).chunk(2, dim=-1)
        met = scaled_dot_product_attention(
            self._by_head(query),
            self._by_head(key),
            self._by_head(value),
            dropout_p=self.dropout_rate if self.training else 0.0,
            is_causal=self.causal and not last_only,  # the last position sees all
        )
        added: Tensor = self.out_proj(met.transpose(1, 2).flatten(2))
        return added

    def _by_head(self, vectors: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, width / heads)."""
        return vectors.reshape(*vectors.shape[:2], self.heads, -1).transpose(1, 2)


class Layer(nn.Module):
    """A pre-norm transformer layer; parameters and initialization are those of ``torch.nn.TransformerEncoderLayer``.

    Args:
        width: of a position's vector.
        heads: of the attention.
        mlp: width of the hidden layer of the MLP, whose nonlinearity is ReLU.
        layer_norm: whether there is any normalization; without it there are no parameters of it.
        dropout_rate: of attention weights, of the hidden layer of the MLP and of what is added, while training.
        causal: whether a position sees only itself and what comes before it.
    """

    def __init__(
        self, width: int, heads: int, mlp: int, *, layer_norm: bool, dropout_rate: float, causal: bool
    ) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self.self_attn = SelfAttention(width, heads, dropout_rate, causal)
        self.linear1 = nn.Linear(width, mlp)
        self.linear2 = nn.Linear(mlp, width)
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()

    def forward(self, hidden: Tensor, *, last_only: bool = False) -> Tensor:
        """Hidden states (batch, length, width) -> the next ones.

        With `last_only` the last of them: (batch, 1, width).
        """
        stream = _last(hidden) if last_only else hidden
        stream = stream + self._dropped(self.self_attn(self.norm1(hidden), last_only=last_only))
        inner = self._dropped(relu(self.linear1(self.norm2(stream))))
        return stream + self._dropped(self.linear2(inner))

    def _dropped(self, values: Tensor) -> Tensor:
        return dropout(values, self.dropout_rate, self.training)


class TransformerLM(nn.Module):
    """Tokens to logits of what comes next, as in the papers' experiments.

    Embeddings times sqrt(d_model) plus sinusoidal positions; pre-norm layers with ReLU, without a normalization after
    the last; an output layer with a bias, not tied to the embedding. Names of parameters, initialization and order of
    random draws are those of the papers' model, which is built of ``torch.nn.TransformerEncoder``: embedding and output
    layer are uniform in [-0.1, 0.1], and, as that class copies the first layer, *all layers start with the same
    weights*. The positions are computed where they are needed and are not in the state dict.

    Source: Yunis et al. 2024, "Approaching Deep Learning through the Spectral Dynamics of Weights", and its code.

    Args:
        vocabulary: number of tokens, of the input and of the output.
        d_model: width of a position's vector.
        heads: of the attention; a divisor of `d_model`.
        mlp: width of the hidden layer of the MLP.
        layers: number of them.
        layer_norm: whether there is any normalization.
        dropout_rate: as a fraction, while training; after the positions and within the layers.
        causal: whether a position sees only itself and what comes before it.
        last_only: whether only the last position is asked for. The last layer then computes that one alone, the same
            numbers up to rounding.
    """

    def __init__(
        self,
        vocabulary: int,
        d_model: int,
        heads: int,
        mlp: int,
        layers: int,
        *,
        layer_norm: bool = True,
        dropout_rate: float = 0.0,
        causal: bool = True,
        last_only: bool = False,
    ) -> None:
        super().__init__()
        self.dropout_rate, self.last_only = dropout_rate, last_only
        self.encoder = nn.Embedding(vocabulary, d_model)
        first = Layer(d_model, heads, mlp, layer_norm=layer_norm, dropout_rate=dropout_rate, causal=causal)
        self.transformer_encoder = nn.Module()
        self.transformer_encoder.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        self.decoder = nn.Linear(d_model, vocabulary)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens -> logits.

        Args:
            tokens: (batch, length), int64.

        Returns:
            (batch, length, vocabulary); with `last_only` (batch, vocabulary).
        """
        hidden: Tensor = self.encoder(tokens)
        width = hidden.shape[-1]
        positions = sinusoidal_positions(tokens.shape[1], width, tokens.device).to(hidden.dtype)
        hidden = dropout(hidden * math.sqrt(width) + positions, self.dropout_rate, self.training)
        stack = cast(nn.ModuleList, self.transformer_encoder.layers)
        for layer in stack[:-1]:
            hidden = layer(hidden)
        hidden = stack[-1](hidden, last_only=self.last_only)
        logits: Tensor = self.decoder(hidden.squeeze(1) if self.last_only else hidden)
        return logits


def _last(hidden: Tensor) -> Tensor:
    """(batch, length, width) -> (batch, 1, width)."""
    return hidden.narrow(1, hidden.shape[1] - 1, 1)


def check_heads(where: str, d_model: int, num_heads: int) -> None:
    """Refuse heads that do not divide the width of a position's vector.

    Args:
        where: the task, for errors.
        d_model: the width.
        num_heads: of the attention.

    Raises:
        UsageError: if they do not.
    """
    if d_model % num_heads:
        raise UsageError(
            f"num_heads is {num_heads} and does not divide d_model, {d_model}",
            where=where,
            remedy="Give a width that is a multiple of the number of heads",
        )


def without_positions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the sinusoids: the papers' own checkpoints hold them, where this model computes them."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("pos_encoder.pe")}
