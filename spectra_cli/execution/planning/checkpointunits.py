"""Checkpoints as units of work: what names each in tables and in messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import InputError
from spectra_cli.execution.work.units import Unit
from spectra_cli.tables.entries import Key, stored_key

CHECKPOINT_KEY = ("run", "checkpoint")
"""Columns that name a checkpoint."""


def identity_of(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    """The columns that name a checkpoint."""
    return {"run": run.name, "checkpoint": checkpoint.name, "step": checkpoint.step, "epoch": checkpoint.epoch}


def checkpoint_label(key: Key) -> str:
    """Name of a checkpoint of which only the key is known: the values of the columns ``CHECKPOINT_KEY``."""
    return "/".join(part for part in key if part not in {None, "", "."})


def checkpoint_units(runs: Sequence[Run]) -> list[Unit]:
    """A unit for every checkpoint.

    Raises:
        InputError: if a table could not tell two of them apart.
    """
    pairs = [(run, checkpoint) for run in runs for checkpoint in run.checkpoints]
    units = [
        Unit(index, (run.name, checkpoint.name), run.name, str(checkpoint.path))
        for index, (run, checkpoint) in enumerate(pairs)
    ]
    met: dict[Key, Unit] = {}
    for unit in units:
        other = met.setdefault(stored_key(unit.key), unit)
        if other is not unit:
            raise InputError(
                "a table cannot tell this checkpoint from another one, as their names are written alike in it",
                where=unit.label,
                remedy="Rename one of the two",
            )
    return units
