"""How much of the evaluations of one unit is done, as it is told while they go on."""

from __future__ import annotations

from spectra_cli.execution.work.events import Evaluated
from spectra_cli.execution.work.units import Hears


class Shares:
    """Tells of the evaluations of a unit, whose shares are 1 together.

    Args:
        unit: what it is called while it is evaluated; "" where there is no other.
        hears: told.
    """

    def __init__(self, unit: str, hears: Hears) -> None:
        self._unit = self._what = unit
        self._hears = hears
        self._left = 1.0

    def begin(self, what: str) -> None:
        """A part of it is evaluated from now on, in a word or two for people."""
        self._what = f"{self._unit}, {what}" if self._unit else what
        self._hears.hear(Evaluated(self._what, 0.0))

    def done(self, share: float) -> None:
        """Some more is done."""
        share = min(share, self._left)
        self._left -= share
        self._hears.hear(Evaluated(self._what, share))

    def end(self) -> None:
        """Nothing more will be done, whether or not all could be."""
        self.done(self._left)
