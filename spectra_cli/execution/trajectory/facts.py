"""Facts about a checkpoint or a pair that stand in no row: people are told them at the end, and files keep them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spectra_cli.execution.planning import messages
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec

TRANSPOSED = "transposed"
"""Globs of ``--transposed`` that a parameter has matched."""

LACKING = "parameters"
"""The parameters of which none is selected: those that a message names, and one to say that there are more."""


def transposed_facts(inventory: Inventory, globs: Sequence[str]) -> dict[str, Any]:
    """Which globs of ``--transposed`` match a parameter; nothing where none is given."""
    return {TRANSPOSED: [glob for glob in globs if inventory.selected([glob], ())]} if globs else {}


def lacking_facts(specs: Iterable[MatrixSpec]) -> dict[str, Any]:
    """The parameters of which none is selected."""
    return {LACKING: [spec.parameter for spec in specs][: messages.NAMED_PARAMETERS + 1]}


def texts(facts: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts among facts, which come from a file; what is none is left out."""
    found = facts.get(name)
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []
