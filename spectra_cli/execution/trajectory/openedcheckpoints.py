"""Checkpoints opened one after the other, each while the one before it is worked on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from spectra_cli.analyses.contents import inventory_of
from spectra_cli.analyses.demands import WorkPlace
from spectra_cli.analyses.references import Reference
from spectra_cli.analyses.upcoming import OpenedAhead, Primed, Room
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.layers.inventory import Inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.storage.places import Place


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """An opened checkpoint, what it holds, and what of that is selected."""

    reader: Primed
    inventory: Inventory
    specs: Mapping[int, MatrixSpec]


class OpenedCheckpoints:
    """Opens the checkpoints of a plan, and its references.

    Args:
        plan: whose.
        place: where their matrices are going to be factorized.

    Attributes:
        following: the one that is opened next, so that it is read ahead; None where that is not known.
    """

    def __init__(self, plan: Plan, place: WorkPlace) -> None:
        self.following: Place | None = None
        self._plan = plan
        self._place = place
        self._owners = {each.path: Reference(run, each) for run in plan.runs for each in run.checkpoints}
        for references in plan.references:
            self._owners |= {each.checkpoint.path: each for each in references.values()}
        self._ahead = OpenedAhead(self._open, self._prime)

    def opened(self, path: Place) -> AbstractContextManager[OpenedCheckpoint]:
        """A checkpoint, open for as long as the context lasts.

        Raises:
            CheckpointError: if it cannot be used.
        """
        return self._ahead.opened(path)

    def on_room(self, room_bytes: int) -> None:
        """Let so many bytes of the one that follows be in memory; see :meth:`OpenedAhead.on_room`."""
        self._ahead.on_room(room_bytes)

    def expect_following(self) -> None:
        """Begin to open the one that follows."""
        if self.following is not None:
            self._ahead.expect(self.following)

    def close(self) -> None:
        """Let go of what was opened ahead."""
        self._ahead.close()

    @contextmanager
    def _open(self, path: Place) -> Iterator[OpenedCheckpoint]:
        """Open a checkpoint; while another one is worked on, so that nothing of this object is changed.

        Raises:
            CheckpointError: if it cannot be used.
        """
        if path in self._plan.incomplete:
            raise self._plan.incomplete[path]
        owner, options = self._owners[path], self._plan.options
        with open_checkpoint(path) as reader:
            inventory = inventory_of(reader, owner.run, owner.checkpoint, options.transposed, options.structure)
            yield OpenedCheckpoint(Primed(reader), inventory, inventory.selected(options.include, options.exclude))

    def _prime(self, opened: OpenedCheckpoint, room: Room) -> None:
        opened.reader.prime(opened.specs, self._place, room)
