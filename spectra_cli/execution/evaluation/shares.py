"""How far the evaluations of units are, as it is told while they go on."""

from __future__ import annotations

from collections.abc import Callable, Generator

from spectra_cli.errors import SpectraError
from spectra_cli.execution.work.events import Evaluated
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome


class Shares:
    """Tells of the evaluations of a unit, whose shares are 1 together.

    Args:
        unit: what it is called while it is evaluated; "" where there is no other.
        sink: told.
    """

    def __init__(self, unit: str, sink: EventSink) -> None:
        self._unit = self._what = unit
        self._sink = sink
        self._left = 1.0

    def begin(self, what: str) -> None:
        """Tell which part is evaluated from now on, in a word or two for people."""
        self._what = f"{self._unit}, {what}" if self._unit else what
        self._sink.hear(Evaluated(self._what, 0.0))

    def done(self, share: float) -> None:
        """Tell that some more is done."""
        share = min(share, self._left)
        self._left -= share
        self._sink.hear(Evaluated(self._what, share))

    def end(self) -> None:
        """Tell that nothing more will be done, whether or not all could be."""
        self.done(self._left)


def passed_over(
    chunk: Chunk, content: Callable[[int], str | None], name: Callable[[int], str], sink: EventSink
) -> Generator[Outcome, None, list[Assignment]]:
    """The outcomes of assignments that are not to be done again, as the weights are those that the rows were made of.

    Args:
        chunk: with the contents that are on record.
        content: what the weights of the unit with an index hash to by now; None where that cannot be told.
        name: what that unit is called while it is evaluated.
        sink: told that they are done.

    Returns:
        The assignments that are to be done.
    """
    to_do = []
    for assignment in chunk:
        try:
            same = bool(assignment.content) and content(assignment.index) == assignment.content
        except SpectraError:
            same = False  # which a row will say
        if same:
            Shares(name(assignment.index), sink).end()
            yield Outcome(assignment.index, content=assignment.content, same=True)
        else:
            to_do.append(assignment)
    return to_do
