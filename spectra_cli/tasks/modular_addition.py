"""Addition modulo a prime, learned by a small transformer: grokking, and the slingshot mechanism."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.errors import UsageError
from spectra_cli.tasks.base import Metric, Recipe, place_generator, slices
from spectra_cli.tasks.memory import model_fits
from spectra_cli.tasks.models.transformer import TransformerLM, check_heads, without_positions
from spectra_cli.tasks.options import COUNTS, LAYERS, SEEDS, WIDTHS, in_range, shortened

Batch = tuple[Tensor, Tensor]
"""Tokens ``a b =``, (batch, 3) int64; and (a + b) modulo the prime, (batch,) int64."""

LARGEST = 4096
"""Largest modulus: 16.8 million pairs, whose order takes 134 MB."""

WHERE = "task modular-addition"


@dataclass(frozen=True)
class Setting:
    """An experiment of the papers: the options that it decides, and how it is trained."""

    prime: int
    data_fraction: float
    layer_norm: bool
    loss_dtype: torch.dtype
    recipe: Recipe


SETTINGS = {
    "grokking": Setting(
        prime=113,
        data_fraction=0.3,
        layer_norm=False,
        loss_dtype=torch.float64,
        recipe=Recipe("adamw", lr=1e-3, weight_decay=1.0, steps=40_000, betas=(0.9, 0.98)),
    ),
    "slingshot": Setting(
        prime=97,
        data_fraction=0.7,
        layer_norm=True,
        loss_dtype=torch.float32,
        # The papers' sweep says 100,000 epochs of batches of 512; their loader makes one step of every epoch.
        recipe=Recipe("adamw", lr=1e-3, batch_size=512, steps=100_000, betas=(0.9, 0.98), warmup_steps=10),
    ),
}


@dataclass(frozen=True, kw_only=True)
class ModularAddition:
    """Addition modulo a prime by a small transformer: grokking, and the slingshot mechanism.

    The tokens ``a b =`` are read, and (a + b) modulo the prime is told from the last one.

    Settings, each with the defaults of the papers' experiment of that name (what is given explicitly wins):

    - ``grokking`` (Nanda et al. 2023): prime 113, 30 % of all pairs for training, no layer norm, weight decay 1, full
      batches, 40,000 steps.
    - ``slingshot`` (Thilak et al. 2022): prime 97, 70 %, pre-norm, no weight decay, batches of 512, learning rate
      warmed up over 10 steps, 100,000 steps.

    Both with AdamW, betas (0.9, 0.98) and learning rate 0.001. The transformer has one output more than there are sums,
    as its tokens are the numbers and the equals sign. Metrics are ``loss`` (nats) and ``error`` (the fraction of sums
    told wrongly), over all pairs of a split and in float64.

    The precision of the *training* loss decides what is seen without weight decay. In float32 losses below 1e-7 are
    rounded to nothing, the gradients of a pair's logits no longer sum to 0, and training jumps (Prieto et al. 2025,
    "Grokking at the Edge of Numerical Stability"): slingshots owe to that, and the papers' code computes in float32. In
    float64 training goes on undisturbed.

    Attributes:
        setting: ``grokking`` or ``slingshot``.
        prime: the modulus, 2 to 4096 (it need not be a prime); None for the setting's.
        data_fraction: of all pairs, for training, in (0, 1); all others are for validation. None for the setting's.
        d_model: width of the transformer.
        num_heads: of its attention; a divisor of `d_model`.
        mlp: width of the hidden layers of its MLPs.
        num_layers: number of its layers.
        layer_norm: whether they normalize; None for the setting's.
        loss_dtype: in which the training loss is computed from the logits; None for the setting's: ``float64`` of
            grokking, ``float32`` of slingshot.
        data_seed: decides which pairs are for training; the seed of a run does not.
        eval_batch_size: pairs whose metrics are taken at once.

    Raises:
        UsageError: if an option is out of its range.
    """

    setting: Literal["grokking", "slingshot"] = "grokking"
    prime: int | None = None
    data_fraction: float | None = None
    d_model: int = 128
    num_heads: int = 4
    mlp: int = 512
    num_layers: int = 1
    layer_norm: bool | None = None
    loss_dtype: Literal["float32", "float64"] | None = None
    data_seed: int = 0
    eval_batch_size: int = 4096

    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    def __post_init__(self) -> None:
        """Check the options."""
        in_range(
            WHERE,
            d_model=(self.d_model, WIDTHS),
            num_heads=(self.num_heads, WIDTHS),
            mlp=(self.mlp, WIDTHS),
            num_layers=(self.num_layers, LAYERS),
            data_seed=(self.data_seed, SEEDS),
            eval_batch_size=(self.eval_batch_size, COUNTS),
        )
        check_heads(WHERE, self.d_model, self.num_heads)
        if not 2 <= self.modulus <= LARGEST:
            raise UsageError(
                f"prime is {shortened(self.modulus)}",
                where=WHERE,
                remedy=f"Give a modulus from 2 to {LARGEST}; 113 is usual",
            )
        if not 0 < self._fraction < 1:
            raise UsageError(
                f"data_fraction is {self._fraction:g}", where=WHERE, remedy="Give a number above 0 and below 1"
            )
        if not 0 < self.training_count < self.modulus**2:
            part = "training" if self.training_count == 0 else "validation"
            raise UsageError(
                f"data_fraction {self._fraction:g} of {self.modulus**2} pairs leaves none for {part}",
                where=WHERE,
                remedy="Give another fraction or a larger modulus",
            )

    @property
    def modulus(self) -> int:
        """What is added modulo: `prime`, or that of the setting."""
        return SETTINGS[self.setting].prime if self.prime is None else self.prime

    @property
    def training_count(self) -> int:
        """Training pairs: the fraction of all, rounded down as in the papers."""
        return int(self._fraction * self.modulus**2)

    @property
    def recipe(self) -> Recipe:
        """How the setting is trained."""
        return SETTINGS[self.setting].recipe

    @property
    def config(self) -> dict[str, Any]:
        """What readers of the checkpoints need to know of the model."""
        return {
            "model_type": "modular_addition_transformer",
            "modulus": self.modulus,
            "num_attention_heads": self.num_heads,
        }

    @model_fits(WHERE)
    def model(self) -> TransformerLM:
        """The transformer; it takes tokens (batch, 3) to logits (batch, modulus + 1)."""
        return TransformerLM(
            self.modulus + 1,
            self.d_model,
            self.num_heads,
            self.mlp,
            self.num_layers,
            layer_norm=SETTINGS[self.setting].layer_norm if self.layer_norm is None else self.layer_norm,
            last_only=True,
        )

    def batches(self, split: str) -> Iterator[Batch]:
        """All pairs of a split, in a fixed random order."""
        pairs = self._pairs[split]
        for indices in slices(len(pairs), self.eval_batch_size):
            yield self._examples(pairs[indices])

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Metric]:
        """``loss`` and ``error`` of the pairs of a batch."""
        tokens, sums = batch
        logits = model(tokens).double()
        return {
            "loss": Metric(cross_entropy(logits, sums, reduction="sum"), len(sums)),
            "error": Metric((logits.argmax(dim=1) != sums).sum(), len(sums)),
        }

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> Batch:  # noqa: ARG002 - nothing is random
        """The training pairs of these indices."""
        return self._examples(self._pairs["train"][indices])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats, in the precision of `loss_dtype`."""
        tokens, sums = batch
        dtypes = {None: SETTINGS[self.setting].loss_dtype, "float32": torch.float32, "float64": torch.float64}
        return cross_entropy(model(tokens).to(dtypes[self.loss_dtype]), sums)

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict without the sinusoids that the papers' own checkpoints hold."""
        return without_positions(state)

    @property
    def _fraction(self) -> float:
        return SETTINGS[self.setting].data_fraction if self.data_fraction is None else self.data_fraction

    @cached_property
    def _pairs(self) -> dict[str, Tensor]:
        """All pairs, a * modulus + b each, in a seeded order and cut in two."""
        pairs = torch.randperm(self.modulus**2, generator=place_generator(self.data_seed))
        return {"train": pairs[: self.training_count], "val": pairs[self.training_count :]}

    def _examples(self, pairs: Tensor) -> Batch:
        first, second = pairs // self.modulus, pairs % self.modulus
        equals = torch.full_like(pairs, self.modulus)
        return torch.stack([first, second, equals], dim=1), (first + second) % self.modulus
