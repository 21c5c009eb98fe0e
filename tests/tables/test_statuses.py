"""What may stand in the columns `status` is known in one place, and is what the columns are said to hold."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest

import spectra_cli
from spectra_cli.errors import CheckpointError, SpectraError
from spectra_cli.tables.schemas import TABLES
from spectra_cli.tables.statuses import OF_REFERENCE, STATUSES

ENDS_COMMANDS = {"in_use", "interrupted", "diverged"}
"""Statuses of errors that end a command before there are rows; the last, training."""

EVERY_STATUS = frozenset().union(*STATUSES.values()) | ENDS_COMMANDS

OF_BOTH = ", all of these with reference_ in front where it is the reference's"
AS_IN_ANOTHER = re.compile(r"for a whole pair as in the table (\w+)")


def meaning_of_status(table: str) -> str:
    """What the column `status` of a table is said to hold, without what stands in brackets."""
    (meaning,) = [column.meaning for column in TABLES[table] if column.name == "status"]
    return re.sub(r" \([^)]*\)", "", meaning)


def statuses_in(text: str) -> set[str]:
    """The statuses that a text names: all that is written with an underscore, and single words that are statuses."""
    words = set(re.findall(r"[a-z]+(?:_[a-z]+)*", text))
    return {word for word in words if "_" in word or word in EVERY_STATUS}


def documented(table: str) -> set[str]:
    """The statuses that the column `status` of a table is said to hold, with those of another table it refers to."""
    told = set()
    for clause in meaning_of_status(table).split(";"):
        another = AS_IN_ANOTHER.search(clause)
        if another is not None:
            told |= statuses_in(meaning_of_status(another[1]).partition("for a whole pair")[2])
        named = statuses_in(AS_IN_ANOTHER.sub("", clause).removesuffix(OF_BOTH))
        told |= named | ({OF_REFERENCE + status for status in named} if clause.endswith(OF_BOTH) else set())
    return told


@pytest.mark.parametrize("table", TABLES)
def test_the_statuses_of_a_table_are_those_that_its_column_is_said_to_hold(table: str) -> None:
    assert documented(table) == STATUSES[table]


def _subclasses(kind: type[SpectraError]) -> set[type[SpectraError]]:
    return {kind, *(each for below in kind.__subclasses__() for each in _subclasses(below))}


def test_every_error_about_a_checkpoint_can_be_told_again_with_more_about_the_place() -> None:
    """As readers of formats do that consist of many files."""
    importlib.import_module("spectra_cli.storage.connection")
    for kind in _subclasses(CheckpointError):
        again = kind("a chunk: what", where="here", remedy="Mend it")
        assert (again.what, again.where, again.remedy) == ("a chunk: what", "here", "Mend it")


def test_every_error_has_a_status_that_rows_may_have() -> None:
    """But for those that end a command before there are rows."""
    for name in ("analyses", "checkpoints", "execution", "layers", "tables", "tasks"):
        package = importlib.import_module(f"spectra_cli.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    own = {each for each in _subclasses(SpectraError) if each.__module__.startswith(spectra_cli.__name__)}
    statuses = {each.status for each in own}
    assert {"worker_died", "diverged"} <= statuses  # of modules of packages within packages
    assert statuses <= EVERY_STATUS


def test_what_a_reference_is_said_to_be_is_a_status_of_a_checkpoint_as_well() -> None:
    of_reference = {status for status in STATUSES["sva"] if status.startswith(OF_REFERENCE)}
    assert of_reference
    assert {status.removeprefix(OF_REFERENCE) for status in of_reference} < STATUSES["rank"]
