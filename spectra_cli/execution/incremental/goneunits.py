"""Units whose rows are in the existing tables, though they are not asked for any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from spectra_cli.execution.incremental.ledger import Ledger
from spectra_cli.execution.planning.messages import shown
from spectra_cli.execution.work.jobs import TableJob
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Unit
from spectra_cli.shortening import counted
from spectra_cli.tables.entries import Key, stored_key


class GoneUnits:
    """The units that are in tables of a job and are none of its units.

    A watched run may keep only its last checkpoints: rows of the others stay. Else rows go, and the listener is told.

    Args:
        job: the work.
        ledgers: of its tables.
        listener: told of units whose rows go.
        watched: whether rows of units that are gone are kept.

    Attributes:
        kept: the units whose rows are kept.
        dropped: how many units have lost theirs.
    """

    def __init__(self, job: TableJob, ledgers: Mapping[str, Ledger], listener: Listener, *, watched: bool) -> None:
        self._job = job
        self._ledgers = ledgers
        self._listener = listener
        self.dropped = 0
        keys = dict.fromkeys(key for ledger in ledgers.values() for key in ledger.gone())
        self.kept = [Unit(-1, key, str(key[0]), job.label(key)) for key in keys]
        if not watched:
            self._drop(self.kept, "not among those of this command")
            self.kept = []

    def drop_lost(self) -> None:
        """Give up the units whose rows cannot be kept in all tables, and say why not."""
        lost = [unit for unit in self.kept if not all(ledger.holds(unit) for ledger in self._ledgers.values())]
        if not lost:
            return
        there = [(ledger, set(ledger.gone())) for ledger in self._ledgers.values()]
        altered, partial = list[Unit](), list[Unit]()
        for unit in lost:
            damaged = any(unit.key in keys and not ledger.holds(unit) for ledger, keys in there)
            (altered if damaged else partial).append(unit)
        self._drop(
            altered,
            "not among those of this command any more, and what the table has of {them} is not as spectra wrote it",
        )
        self._drop(partial, "not among those of this command any more, and not all tables have rows of {them}")
        given_up = {unit.key for unit in lost}
        self.kept = [unit for unit in self.kept if unit.key not in given_up]

    def among(self, units: Sequence[Unit]) -> list[Unit]:
        """Units that are there, with those that are gone inserted after what preceded them."""
        if not self.kept:
            return list(units)
        by_key, after = {unit.key: unit for unit in self.kept}, defaultdict[Key | None, list[Unit]](list)
        before: Key | None = None
        present = {stored_key(unit.key) for unit in units}
        for key in self._ledgers[self._job.tables[0]].keys_there:
            if key in by_key:
                after[before].append(by_key[key])
            elif key in present:
                before = key
        return [*after[None], *(each for unit in units for each in (unit, *after[stored_key(unit.key)]))]

    def _drop(self, units: Sequence[Unit], why: str) -> None:
        """Tell of units whose rows go, quiet people too: where files are gone, nothing brings the rows back."""
        if not units:
            return
        self.dropped += len(units)
        what = f"{counted(len(units), self._job.noun)} in the table"
        are, their, them = ("is", "its", "it") if len(units) == 1 else ("are", "their", "them")
        names = shown([unit.label for unit in units])
        self._listener.problem(f"{what} {are} {why.format(them=them)}, and {their} rows go: {names}.")
