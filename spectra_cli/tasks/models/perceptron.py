"""A perceptron with hidden layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with biases and a ReLU between any two, on the flattened input (Yunis et al. 2024, section 4.3).

    Its parameters are ``layers.{i}.weight`` and ``layers.{i}.bias``.

    Args:
        inputs: number of values of one example.
        width: of every hidden layer.
        depth: number of linear layers, at least 1; the last one gives the outputs.
        outputs: number of classes.
    """

    def __init__(self, inputs: int, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        widths = (inputs, *[width] * (depth - 1), outputs)
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(widths))

    def forward(self, examples: Tensor) -> Tensor:
        """Examples (batch, ...) -> logits (batch, outputs)."""
        *hidden, last = self.layers
        values = examples.flatten(1)
        for layer in hidden:
            values = torch.relu(layer(values))
        logits: Tensor = last(values)
        return logits
