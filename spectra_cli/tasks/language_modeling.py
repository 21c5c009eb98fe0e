"""Language modeling: a pre-norm transformer tells the next token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.errors import UsageError
from spectra_cli.tasks.base import Metric, Recipe
from spectra_cli.tasks.data.text import EMBEDDED, letters_digits_and_space, read_splits
from spectra_cli.tasks.data.tokens import Tokenizer, open_tokenizer
from spectra_cli.tasks.memory import model_fits
from spectra_cli.tasks.models.transformer import TransformerLM, check_heads, without_positions
from spectra_cli.tasks.next_token import NO_TOKEN, RECIPE, Batch, Windows, mean_loss
from spectra_cli.tasks.options import CONTEXTS, COUNTS, LAYERS, WIDTHS, in_range

TOKENS_AT_ONCE = 8192
"""Tokens whose activations are in memory at once unless an option says otherwise: the papers' 4 windows of 2048."""

WHERE = "task language-modeling"


@dataclass(frozen=True, kw_only=True)
class LanguageModeling:
    """Language modeling by a pre-norm transformer: every token of a text is told from those before it in its window.

    A split is the tokens of its texts in a row, cut into windows of `context` tokens that do not overlap; what the last
    token of a window is to tell is the first of the next. So every token but the first of the split is told once, and a
    mean over a split is over exactly those: its last window, which may be shorter, is padded and the padding left out.
    Training takes whole windows only.

    Sizes and training are the papers' (there on WikiText-103 with the tokenizer of GPT-NeoX): 12 layers of width 768
    whose MLPs are as wide; AdamW with betas (0.9, 0.95), learning rate 6e-4 warmed up over 200 steps and brought down
    to a tenth along half a cosine, weight decay 0.1, batches of 256 windows, gradients clipped to norm 1, 10 epochs.
    Other than there, the cosine ends with the training (the papers' is laid over 30 epochs and left after 10), and all
    is computed in float32.

    Attributes:
        data: a text file in UTF-8, a Parquet file with a column ``text``, or a directory of them that are named after
            their splits; a single file's last tenth is for validation. None for the embedded text, "Alice's Adventures
            in Wonderland".
        tokenizer: ``bytes``, those of UTF-8; or the path of a ``tokenizer.json`` or its directory.
        text_filter: ``none``; or ``alphanumeric``, lower case without anything but letters, digits and white space, as
            the papers have it.
        context: tokens that a window has, and the model sees.
        d_model: width of the transformer.
        num_heads: of its attention; a divisor of `d_model`.
        num_layers: number of its layers.
        mlp: width of the hidden layers of its MLPs.
        dropout: fraction of activations that are dropped in training.
        eval_examples: windows of each split that metrics are taken over, drawn once and for all, 1000 in the papers;
            None for all.
        eval_batch_size: windows whose metrics are taken at once; None for as many as have 8192 tokens, at least 1.
        micro_batch: windows of a training batch whose activations are in memory at once, the gradient being the same;
            where a batch has more, each part is computed a second time for its gradient. None as for `eval_batch_size`.

    Raises:
        UsageError: if an option is out of its range.
    """

    data: str | None = None
    tokenizer: str = "bytes"
    text_filter: Literal["none", "alphanumeric"] = "none"
    context: int = 2048
    d_model: int = 768
    num_heads: int = 12
    num_layers: int = 12
    mlp: int = 768
    dropout: float = 0.0
    eval_examples: int | None = 1000
    eval_batch_size: int | None = None
    micro_batch: int | None = None

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    recipe: ClassVar[Recipe] = RECIPE

    def __post_init__(self) -> None:
        """Check the options."""
        in_range(
            WHERE,
            d_model=(self.d_model, WIDTHS),
            num_heads=(self.num_heads, WIDTHS),
            num_layers=(self.num_layers, LAYERS),
            mlp=(self.mlp, WIDTHS),
            context=(self.context, CONTEXTS),
            eval_examples=(self.eval_examples, COUNTS),
            eval_batch_size=(self.eval_batch_size, COUNTS),
            micro_batch=(self.micro_batch, COUNTS),
        )
        check_heads(WHERE, self.d_model, self.num_heads)
        if not 0 <= self.dropout < 1:
            raise UsageError(
                f"dropout is {self.dropout:g}", where=WHERE, remedy="Give a fraction of at least 0 and below 1"
            )

    @property
    def notice(self) -> str | None:
        """What a user should know before looking at numbers."""
        return f"language-modeling: no --data was given; the text is {EMBEDDED}" if self.data is None else None

    @property
    def config(self) -> dict[str, Any]:
        """What readers of the checkpoints need to know of the model."""
        return {"model_type": "transformer_lm", "num_attention_heads": self.num_heads}

    @property
    def training_count(self) -> int:
        """Number of whole windows of the training split.

        Raises:
            InputError: if there is none.
        """
        return self._windows.whole("train")

    @model_fits(WHERE)
    def model(self) -> TransformerLM:
        """The transformer; it takes tokens (batch, length) to logits (batch, length, vocabulary)."""
        return TransformerLM(
            self._tokenizer.vocabulary,
            self.d_model,
            self.num_heads,
            self.mlp,
            self.num_layers,
            dropout_rate=self.dropout,
        )

    def batches(self, split: str) -> Iterator[Batch]:
        """The windows of a split in the order of the text, or as many of them as `eval_examples` says.

        Raises:
            InputError: if the split has no token to tell.
        """
        at_once = self.eval_batch_size or self._windows_at_once
        return self._windows.evaluated(split, self.eval_examples, at_once, seed=self.splits.index(split))

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Metric]:
        """``loss``, nats per token; ``perplexity``, its exponential; ``error``, the fraction of tokens told wrongly."""
        tokens, targets = batch
        logits = model(tokens).flatten(0, 1)
        told = targets.flatten()
        count = (told != NO_TOKEN).sum()
        losses = cross_entropy(logits, told, ignore_index=NO_TOKEN, reduction="none")
        total = losses.sum(dtype=torch.float64)
        wrong = ((logits.argmax(dim=1) != told) & (told != NO_TOKEN)).sum()
        return {
            "loss": Metric(total, count),
            "perplexity": Metric(total, count, scale="exp"),
            "error": Metric(wrong, count),
        }

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> Batch:  # noqa: ARG002 - nothing is random
        """The whole windows of these indices."""
        return self._windows.at("train", indices)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per token."""
        return mean_loss(_summed_loss, model, batch, self.micro_batch or self._windows_at_once)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict without the sinusoids that the papers' own checkpoints hold."""
        return without_positions(state)

    @property
    def _windows_at_once(self) -> int:
        return max(1, TOKENS_AT_ONCE // self.context)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return open_tokenizer(self.tokenizer)

    @cached_property
    def _tokens(self) -> dict[str, Tensor]:
        """The tokens of each split in a row, as narrow as the tokenizer makes them."""
        found = {}
        for split, texts in read_splits(self.data).items():
            kept = map(letters_digits_and_space, texts) if self.text_filter == "alphanumeric" else texts
            found[split] = self._tokenizer.tokens(list(kept))
        return found

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self._tokens, self.context, self.data or EMBEDDED)


def _summed_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over all tokens."""
    return cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="sum")
