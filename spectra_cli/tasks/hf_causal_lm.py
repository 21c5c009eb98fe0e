"""`hf-causal-lm`: any causal language model of Hugging Face transformers tells the next token of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.errors import InputError, UsageError
from spectra_cli.tasks.base import Metric, Recipe
from spectra_cli.tasks.data.text import EMBEDDED, read_splits
from spectra_cli.tasks.data.vocabulary import open_vocabulary
from spectra_cli.tasks.models.hugging_face import (
    adapted,
    causal_lm,
    longest_context,
    read_config,
    skeleton,
    vocabulary_size,
)
from spectra_cli.tasks.next_token import NO_TOKEN, RECIPE, Batch, Windows, mean_loss
from spectra_cli.tasks.options import CONTEXTS, COUNTS, in_range, path_option

USUAL_CONTEXT = 1024

TOKENS_AT_ONCE = 4096
"""Tokens whose activations are in memory at once unless an option says otherwise; vocabularies are large."""


class HuggingFaceCausalLM:
    """Language modeling by any causal language model of Hugging Face transformers, from its directory.

    Windows, losses and training are those of the task `language-modeling`: a split is the tokens of its texts in a row,
    cut into windows of `context` tokens that do not overlap; what the last token of a window is to tell is the first of
    the next. Every token but the first of a split is told once, and a mean is over exactly those: what pads the last
    window is left out. Tokens of documents are not marked by tokens of beginning or end.

    The model is made from ``config.json`` by transformers itself, in float32 and without code of the checkpoint's own;
    nothing is ever fetched. Training starts from random weights unless a checkpoint is loaded.

    Args:
        config: directory of a Hugging Face checkpoint, with ``config.json`` and tokenizer.
        data: a text file in UTF-8, a Parquet file with a column ``text``, or a directory of them that are named after
            their splits; a single file's last tenth is for validation. None for the embedded text, "Alice's Adventures
            in Wonderland".
        context: tokens that a window has, and the model sees; None for 1024, or as many as the model can see.
        eval_examples: windows of each split that metrics are taken over, drawn once and for all; None for all.
        eval_batch_size: windows whose metrics are taken at once; None for as many as have 4096 tokens, at least 1.
        micro_batch: windows of a training batch whose activations are in memory at once, the gradient being the same;
            where a batch has more, each part is computed a second time for its gradient. None as for `eval_batch_size`.

    Raises:
        UsageError: if an option is out of its range.
    """

    checkpoint_option: ClassVar[str] = "config"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    recipe: ClassVar[Recipe] = RECIPE

    def __init__(
        self,
        *,
        config: str,
        data: str | None = None,
        context: int | None = None,
        eval_examples: int | None = None,
        eval_batch_size: int | None = None,
        micro_batch: int | None = None,
    ) -> None:
        in_range(
            "task hf-causal-lm",
            context=(context, CONTEXTS),
            eval_examples=(eval_examples, COUNTS),
            eval_batch_size=(eval_batch_size, COUNTS),
            micro_batch=(micro_batch, COUNTS),
        )
        self._directory, self._data = path_option(config), data
        self._asked_context, self._eval_examples = context, eval_examples
        self._eval_batch_size, self._micro_batch = eval_batch_size, micro_batch

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's ``config.json``; the type of the weights is that of the model here.

        Raises:
            InputError: if there is none, or it describes no model that can be made.
        """
        values = read_config(self._directory)
        return values | {key: "float32" for key in ("dtype", "torch_dtype") if key in values}

    @property
    def training_count(self) -> int:
        """Number of whole windows of the training split.

        Raises:
            InputError: if there is none.
        """
        return self._windows.whole("train")

    def model(self) -> nn.Module:
        """The model with random weights; it takes tokens (batch, length) to an output with logits.

        Raises:
            InputError: if the directory describes no model that transformers can make without remote code.
            MissingExtraError: if transformers is not installed.
        """
        return causal_lm(self._directory)

    def batches(self, split: str) -> Iterator[Batch]:
        """The windows of a split in the order of the text, or as many of them as `eval_examples` says.

        Raises:
            InputError: if the split has no token to tell, or the tokenizer is not that of the model.
        """
        at_once = self._eval_batch_size or self._at_once
        return self._windows.evaluated(split, self._eval_examples, at_once, seed=self.splits.index(split))

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> Batch:  # noqa: ARG002 - nothing is random
        """The whole windows of these indices."""
        return self._windows.at("train", indices)

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Metric]:
        """``loss``, nats per token; ``perplexity``, its exponential."""
        tokens, targets = batch
        total = torch.stack([_losses(*window).sum(dtype=torch.float64) for window in _told(model, tokens, targets)])
        count = (targets != NO_TOKEN).sum()
        return {"loss": Metric(total.sum(), count), "perplexity": Metric(total.sum(), count, scale="exp")}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per token."""
        return mean_loss(_summed_loss, model, batch, self._micro_batch or self._at_once)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict under the names of the model; see :func:`spectra_cli.tasks.models.hugging_face.adapted`."""
        return adapted(state, self._skeleton)

    @cached_property
    def _skeleton(self) -> nn.Module:
        return skeleton(self._directory)

    @cached_property
    def _context(self) -> int:
        limit = longest_context(self._skeleton)
        if self._asked_context is None:
            return min(USUAL_CONTEXT, limit or USUAL_CONTEXT)
        if limit is not None and self._asked_context > limit:
            raise UsageError(
                f"context is {self._asked_context}, and the model sees {limit} tokens",
                where="task hf-causal-lm",
                remedy=f"Give at most --set context={limit}",
            )
        return self._asked_context

    @property
    def _at_once(self) -> int:
        return max(1, TOKENS_AT_ONCE // self._context)

    @cached_property
    def _tokens(self) -> dict[str, Tensor]:
        """The tokens of each split in a row."""
        known = vocabulary_size(self._skeleton)  # first: a directory without a model is no place for a tokenizer
        tokenizer = open_vocabulary(self._directory)
        found = {split: tokenizer.tokens(texts) for split, texts in read_splits(self._data).items()}
        largest = max((int(row.max()) for row in found.values() if len(row)), default=0)
        if largest >= known:
            raise InputError(
                f"its tokenizer gives token {largest}, and its model has {known} tokens",
                where=str(self._directory),
                remedy="Put the model's own tokenizer there",
            )
        return found

    @cached_property
    def _windows(self) -> Windows:
        return Windows(self._tokens, self._context, self._data or EMBEDDED)


def _told(model: nn.Module, tokens: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets of one window after the other: of all at once, the losses would take twice the memory."""
    yield from zip(model(input_ids=tokens).logits, targets, strict=True)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits, targets, ignore_index=NO_TOKEN, reduction="none")


def _summed_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over all tokens."""
    return torch.stack([_losses(*window).sum() for window in _told(model, tokens, targets)]).sum()
