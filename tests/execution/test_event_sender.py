"""What a worker process tells of its work: all of it, in order, and not in a message for each small matrix."""

from __future__ import annotations

from collections.abc import Sequence

from spectra_cli.execution.executors.wire import Events, Message, received
from spectra_cli.execution.executors.workerprocess import EventSender
from spectra_cli.execution.work.events import CheckpointOpened, Evaluated, Event, MatrixDone
from tests.execution.planted_work import Heard


def test_events_in_quick_succession_travel_together_and_in_order() -> None:
    sent: list[Message] = []
    sender = EventSender(sent.append)
    events: list[Event] = [MatrixDone(float(work)) for work in range(100)]
    for event in events:
        sender.hear(event)
    assert sent[0] == Events((events[0],))  # at once, as nothing was told before
    sender.flush()
    sender.flush()  # and nothing is told twice
    assert len(sent) < 10
    assert told(sent) == events


def test_what_begins_is_told_at_once() -> None:
    """The bar shows what is being done: the next matrix may take an hour."""
    sent: list[Message] = []
    sender = EventSender(sent.append)
    for event in (
        MatrixDone(1.0),
        MatrixDone(1.0),
        CheckpointOpened(2, 2.0),
        Evaluated("train", 0.5),
        Evaluated("test", 0.0),
    ):
        sender.hear(event)
        if not isinstance(event, MatrixDone):
            assert told(sent)[-1] == event
    assert len(told(sent)) == 5


def told(messages: Sequence[Message]) -> list[Event]:
    """What arrives of some messages."""
    heard = Heard()
    for message in messages:
        received(message, heard)
    return heard.events
