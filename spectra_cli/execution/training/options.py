"""What a user may choose of a training, checked before torch is imported."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from spectra_cli.errors import UsageError

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Noise:
    """``--perturb ETA@STEP``.

    Attributes:
        eta: Frobenius norm of the noise on every matrix, as a multiple of the matrix's own.
        step: at which it is added.
    """

    eta: float
    step: int


@dataclass(frozen=True, slots=True)
class MaskChoice:
    """``--mask KIND:KEEP --mask-from RUN@STEP --mask-seed S``.

    Attributes:
        kind: ``magnitude`` keeps the largest weights under one threshold for all layers; ``random`` as many of every
            layer as that would, anywhere in it.
        keep: fraction of the weights that are kept.
        source: PATH of the checkpoint whose weights decide.
        seed: of random masks.
    """

    kind: Literal["magnitude", "random"]
    keep: float
    source: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The options of `spectra train`.

    Attributes:
        task: name, or ``file.py:callable``.
        out: directory of the run.
        settings: options of the task as text.
        seed: of initialization, data order and all other randomness; None for the trunk's, or 0 without one.
        steps: length of the training; None for the recipe's, as with the next ones.
        epochs: the same in passes over the data; not with `steps`.
        lr: peak learning rate.
        weight_decay: of all parameters.
        batch_size: examples per step.
        save_every: steps between checkpoints.
        log_saves: checkpoints evenly spaced in log(step) instead.
        save_optimizer: keep the optimizer's state of every checkpoint.
        branch_from: ``RUN@STEP`` to go on from.
        perturb: noise at some step.
        mask: weights that stay 0.
        rewind: ``RUN@STEP`` whose weights the mask is put on; None for this run's own initialization.
        output_layer: glob of the parameters that masks and noise leave alone; None to tell it from the model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: of the CPU; None for torch's choice, or what the run began with.

    Raises:
        UsageError: if options exclude each other or a number is out of range.
    """

    task: str
    out: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    batch_size: int | None = None
    save_every: int | None = None
    log_saves: int | None = None
    save_optimizer: bool = False
    branch_from: str | None = None
    perturb: Noise | None = None
    mask: MaskChoice | None = None
    rewind: str | None = None
    output_layer: str | None = None
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for one, other in (("steps", "epochs"), ("save_every", "log_saves")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise UsageError(f"{_flag(one)} and {_flag(other)} exclude each other", remedy="Give one of them")
        for name in ("steps", "epochs", "batch_size", "save_every", "threads"):
            _at_least(_flag(name), getattr(self, name), 1)
        _at_least("--log-saves", self.log_saves, 2)
        for name in ("lr", "weight_decay"):
            _at_least(_flag(name), getattr(self, name), 0)
        _check_seed("--seed", self.seed)
        if self.rewind is not None and self.mask is None:
            raise UsageError("--rewind without --mask", remedy="Give --branch-from to go on from a checkpoint unmasked")
        if self.mask is not None and self.branch_from is not None:
            raise UsageError(
                "--mask and --branch-from exclude each other", remedy="Give --rewind in place of --branch-from"
            )

    @property
    def begins_from(self) -> tuple[str, str] | None:
        """The option that names a checkpoint of another run to begin from, and its value."""
        if self.branch_from is not None:
            return "--branch-from", self.branch_from
        return None if self.rewind is None else ("--rewind", self.rewind)


def parse_noise(text: str) -> Noise:
    """Noise from ``ETA@STEP``.

    Raises:
        UsageError: if it is none.
    """
    eta, at, step = text.partition("@")
    scale = _number(eta)
    if not at or scale is None or not re.fullmatch(r"[0-9]{1,18}", step.strip()):
        raise UsageError(f"--perturb {text} is not ETA@STEP", remedy="Write it as --perturb 0.1@400")
    _at_least("--perturb", scale, 0)
    return Noise(scale, int(step))


def parse_mask(text: str | None, source: str | None, seed: int | None) -> MaskChoice | None:
    """A mask from ``--mask``, ``--mask-from`` and ``--mask-seed``; None without a mask.

    Raises:
        UsageError: if one of them is missing or means nothing.
    """
    if text is None:
        for flag, value in (("--mask-from", source), ("--mask-seed", seed)):
            if value is not None:
                raise UsageError(f"{flag} without --mask", remedy="Give --mask magnitude:0.05 or random:0.05")
        return None
    kind, _, fraction = text.partition(":")
    keep = _number(fraction)
    if kind not in {"magnitude", "random"} or keep is None or not 0.0 < keep <= 1.0:
        raise UsageError(
            f"--mask {text} is neither magnitude:KEEP nor random:KEEP with KEEP above 0 and at most 1",
            remedy="Write it as --mask magnitude:0.05 to keep 5 % of the weights",
        )
    if source is None:
        decides = "whose weights decide"
        if kind == "random":
            decides = f"of whose layers it keeps as many weights as magnitude:{fraction} would, but any of them"
        raise UsageError(f"--mask {text} without --mask-from", remedy=f"Give --mask-from RUN@final, {decides}")
    if seed is not None and kind != "random":
        raise UsageError("--mask-seed: a magnitude mask has nothing random", remedy="Leave it out")
    _check_seed("--mask-seed", seed)
    return MaskChoice(cast(Literal["magnitude", "random"], kind), keep, source, seed or 0)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _at_least(flag: str, value: float | None, least: float) -> None:
    if value is not None and not (math.isfinite(value) and value >= least):
        raise UsageError(f"{flag} {value:g} is below {least}" if value < least else f"{flag} {value} is not a number")


def _check_seed(flag: str, seed: int | None) -> None:
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"{flag} {seed} is no seed", remedy=f"Give a number from 0 to {LARGEST_SEED}")
