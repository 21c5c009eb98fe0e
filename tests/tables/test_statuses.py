"""What may stand in the columns `status` is known in one place, and is what the columns are said to hold."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import spectra_cli
from spectra_cli.errors import SpectraError
from spectra_cli.tables.schemas import TABLES
from spectra_cli.tables.statuses import OF_REFERENCE, STATUSES

NOT_STATUSES = {"reference_"}


@pytest.mark.parametrize("table", TABLES)
def test_every_status_that_the_columns_tell_of_is_known(table: str) -> None:
    (meaning,) = [column.meaning for column in TABLES[table] if column.name == "status"]
    told = set(re.findall(r"[a-z]+(?:_[a-z]+)+", meaning)) - NOT_STATUSES
    assert told - {"barrier_spectra"} <= STATUSES[table]
    assert {"ok"} <= STATUSES[table]


def _subclasses(kind: type[SpectraError]) -> set[type[SpectraError]]:
    return {kind, *(each for below in kind.__subclasses__() for each in _subclasses(below))}


def test_every_error_has_a_status_that_rows_may_have() -> None:
    """But for those that end a command before there are rows."""
    for package in ("analyses", "checkpoints", "execution", "layers", "tables"):
        for module in pkgutil.iter_modules(importlib.import_module(f"spectra_cli.{package}").__path__):
            importlib.import_module(f"spectra_cli.{package}.{module.name}")
    known = frozenset().union(*STATUSES.values())
    own = {each for each in _subclasses(SpectraError) if each.__module__.startswith(spectra_cli.__name__)}
    assert len(own) > 10
    assert {each.status for each in own} - known <= {"in_use", "interrupted"}


def test_of_agreement_every_status_may_be_the_references() -> None:
    own = {status for status in STATUSES["sva"] if not status.startswith(OF_REFERENCE)}
    assert STATUSES["sva"] == own | {OF_REFERENCE + status for status in own}
