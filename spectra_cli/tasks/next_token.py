"""Telling every token of a text from those before it: windows of tokens, and the sums that losses are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Recipe, place_generator, slices

Batch = tuple[Tensor, Tensor]
"""Tokens, (batch, length) int64; and what follows each of them, the same shape, NO_TOKEN where nothing does."""

NO_TOKEN = -100
"""A target that is none: it is left out of losses, errors and counts."""

RECIPE = Recipe(
    optimizer="adamw",
    lr=6e-4,
    weight_decay=0.1,
    batch_size=256,
    epochs=10,
    betas=(0.9, 0.95),
    clip_norm=1.0,
    schedule="cosine",
    warmup_steps=200,
    final_fraction=0.1,
)
"""The papers' training of language models."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The tokens of each split in a row, cut into windows that do not overlap.

    What the last token of a window is to tell is the first of the next one, so that every token but the first of a
    split is told once. The last window of a split may be shorter; it is padded, and the padding has NO_TOKEN to tell.

    Attributes:
        tokens: (n,) integers by split.
        context: tokens that a window has.
        source: of the text, for errors.
    """

    tokens: Mapping[str, Tensor]
    context: int
    source: str

    def whole(self, split: str) -> int:
        """Number of whole windows of a split.

        Raises:
            InputError: if there is none.
        """
        told = len(self.tokens[split]) - 1
        if told < self.context:
            raise InputError(
                f"the text for training has {told + 1} tokens, and a window takes {self.context} and one to follow",
                where=self.source,
                remedy="Give a longer text, or a shorter --set context",
            )
        return told // self.context

    def evaluated(self, split: str, most: int | None, at_once: int, *, seed: int) -> Iterator[Batch]:
        """The windows of a split in the order of the text, or some of them.

        Args:
            split: one of those of `tokens`.
            most: number of windows, drawn once and for all; None for all.
            at_once: windows per batch.
            seed: of the drawing.

        Raises:
            InputError: if the split has no token to tell.
        """
        told = len(self.tokens[split]) - 1
        if told < 1:
            raise InputError(
                f"the split '{split}' has {told + 1} tokens, and to tell one takes 2",
                where=self.source,
                remedy="Give a longer text",
            )
        windows = torch.randperm(-(-told // self.context), generator=place_generator(seed))
        chosen = windows[:most].sort().values
        for places in slices(len(chosen), at_once):
            yield self.at(split, chosen[places])

    def at(self, split: str, indices: Tensor) -> Batch:
        """The windows of these indices."""
        row = self.tokens[split]
        width = min(self.context, len(row) - 1)  # of a split that is shorter than a window
        places = indices[:, None] * self.context + torch.arange(width + 1)
        tokens = row[places.clamp(max=len(row) - 1)].long()
        targets = tokens[:, 1:].masked_fill(places[:, 1:] >= len(row), NO_TOKEN)
        return tokens[:, :-1], targets


SummedLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Model, tokens and targets -> cross-entropy in nats, summed over all tokens."""


def mean_loss(summed: SummedLoss, model: nn.Module, batch: Batch, at_once: int) -> Tensor:
    """Mean cross-entropy per token of a batch of whole windows, in nats.

    Args:
        summed: the sum over some of the windows.
        model: in training mode.
        batch: of whole windows.
        at_once: windows whose activations are in memory at once. Of more, each part is computed a second time for its
            gradient, which is the same.
    """
    tokens, targets = batch
    if len(tokens) <= at_once:
        return summed(model, tokens, targets) / targets.numel()
    parts: Sequence[tuple[Tensor, Tensor]] = list(
        zip(torch.split(tokens, at_once), torch.split(targets, at_once), strict=True)
    )
    sums = [checkpoint(summed, model, *part, use_reentrant=False) for part in parts]
    return torch.stack(sums).sum() / targets.numel()
