"""What a caller may choose, for the command line and for notebooks alike."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict, Unpack

from spectra_cli.checkpoints.selection import Selection
from spectra_cli.errors import UsageError
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.tables.schemas import TABLES, optional_columns

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

PathLike = str | os.PathLike[str]


class ChosenOptions(TypedDict, total=False):
    """What a caller may say of :class:`Options`, each of the types that a command line or a notebook has it in.

    What is not said, or None, is as the class has it.
    """

    steps: str | int | Sequence[str | int] | None
    every: int | None
    log_spaced: int | None
    include: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    transposed: str | Sequence[str] | None
    device: str
    memory_budget: str | int | None
    skip_incomplete: bool
    tags: Mapping[str, str] | None
    architecture: PathLike | None
    heads: int | None
    kv_heads: int | None
    full: bool
    reference: str | int | None
    against: PathLike | None


@dataclass(frozen=True, slots=True)
class Options:
    """The options shared by the commands that analyse checkpoints.

    Attributes:
        selection: which checkpoints of each run.
        include: globs of parameters to analyse; all if empty.
        exclude: globs of parameters to leave out.
        transposed: globs of parameters stored as (in, out, ...), whatever their names say.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        budget_bytes: working memory; None for half of what is free.
        skip_incomplete: go on without checkpoints of which a shard is absent.
        tags: constant extra columns.
        structure: what the user says of the model's structure.
        full: whether alignments come with the leading block of A.
        reference: what agreement is measured with: ``final``, ``first``, ``previous`` or a step.
        against: PATH of another run to measure agreement with.
    """

    selection: Selection = field(default_factory=Selection)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    transposed: Sequence[str] = ()
    device: str = "auto"
    budget_bytes: int | None = None
    skip_incomplete: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    structure: StructureOptions = field(default_factory=StructureOptions)
    full: bool = False
    reference: str | None = None
    against: str | None = None

    @classmethod
    def chosen(cls, **said: Unpack[ChosenOptions]) -> Options:
        """The options that a caller has chosen.

        Raises:
            UsageError: if one means nothing.
        """
        memory_budget, reference = said.get("memory_budget"), said.get("reference")
        return cls(
            selection=Selection(_steps(said.get("steps")), said.get("every"), said.get("log_spaced")),
            include=listed(said.get("include")),
            exclude=listed(said.get("exclude")),
            transposed=listed(said.get("transposed")),
            device=said.get("device") or "auto",
            budget_bytes=None if memory_budget is None else parse_bytes(str(memory_budget)),
            skip_incomplete=said.get("skip_incomplete", False),
            tags=dict(said.get("tags") or {}),
            structure=StructureOptions(_path(said.get("architecture")), said.get("heads"), said.get("kv_heads")),
            full=said.get("full", False),
            reference=None if reference is None else str(reference),
            against=_path(said.get("against")),
        )

    def worker_budget_bytes(self, sharing: int) -> int | None:
        """The memory budget of each worker, if the user has set one.

        Args:
            sharing: how many workers share the memory of one machine or device.
        """
        return None if self.budget_bytes is None else self.budget_bytes // sharing

    @property
    def columns_left_out(self) -> tuple[str, ...]:
        """Columns that only come when they are asked for, and were not."""
        asked_for = {"alignment"} if self.full else set()
        return tuple(sorted(frozenset().union(*map(optional_columns, TABLES)) - asked_for))

    def recorded(self) -> dict[str, Any]:
        """The options as they are recorded in the metadata of a table."""
        values = {name: value for name, value in asdict(self).items() if name not in {"selection", "structure", "tags"}}
        return {**asdict(self.selection), **asdict(self.structure), **values, "tags": dict(self.tags)}


REESTIMATE, STORED = "reestimate", "stored"


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What the user says of the task of a run, and of the model under it.

    Attributes:
        task: name, or ``file.py:callable``; None to take that of the run's ``run.json``, with its options.
        settings: options of the task, which replace single ones of the run.json: text as on a command line, or values.
        splits: that are asked for; all of the task's if empty.
        batch_norm: ``reestimate`` takes the running statistics of batch normalization anew from the training split
            before every evaluation; ``stored`` leaves them as they stand.
        output_layer: glob of the parameters that nothing changes; None to tell it from the model.
    """

    task: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    splits: Sequence[str] = ()
    batch_norm: str = REESTIMATE
    output_layer: str | None = None

    def __post_init__(self) -> None:
        if self.batch_norm not in {REESTIMATE, STORED}:
            raise UsageError(
                f"--batch-norm {self.batch_norm} is no policy", remedy=f"Give {REESTIMATE} (the default) or {STORED}"
            )

    @property
    def reestimates(self) -> bool:
        """Whether statistics of batch normalization are taken anew."""
        return self.batch_norm == REESTIMATE

    def recorded(self) -> dict[str, Any]:
        """The choice as it is recorded in the metadata of a table."""
        return {
            "task": self.task,
            "task_settings": dict(self.settings),
            "splits": list(self.splits),
            "batch_norm": self.batch_norm,
            "output_layer": self.output_layer,
        }


@dataclass(frozen=True)
class ExecutionOptions:
    """How a command is to do its work.

    Attributes:
        workers: processes; None for one for each device.
        scheduler: address of a Dask scheduler, whose workers do the work.
        fresh: whether to start over, whatever is there.
        verify: whether to look at the bytes of weights where files seem to be unchanged.
    """

    workers: int | None = None
    scheduler: str | None = None
    fresh: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers} does nothing", remedy="Give at least 1")
        if self.workers is not None and self.scheduler is not None:
            raise UsageError(
                "--workers and --scheduler exclude each other", remedy="The cluster has workers of its own"
            )
        if self.fresh and self.verify:
            raise UsageError("--fresh and --verify exclude each other", remedy="A fresh start has nothing to verify")


LEAST_PLAIN_BYTES = 10_000
"""A smaller size without a unit is a slip: no spectrum takes so little."""


def parse_bytes(text: str) -> int:
    """Bytes from ``2GB``, ``512MiB`` or ``1500000``.

    Raises:
        UsageError: if it is no size, or a small one without a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    count = 0
    if match is not None and match[2].lower() in UNITS:
        count = int(float(match[1]) * UNITS[match[2].lower()])
    if count < 1:
        raise UsageError(f"--memory-budget {text} is not a size", remedy="Write it as 512MiB or 2GB")
    if match is not None and not match[2] and count < LEAST_PLAIN_BYTES:
        raise UsageError(f"--memory-budget {text} has no unit and would be bytes", remedy=f"Write {text.strip()}GB")
    return count


def listed(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The given names as a tuple; one may stand by itself."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def _steps(steps: str | int | Sequence[str | int] | None) -> str | None:
    """Steps as a command line has them: ``0,400,final``."""
    if steps is None or isinstance(steps, str):
        return steps
    return str(steps) if isinstance(steps, int) else ",".join(map(str, steps))


def _path(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)
