"""What a worker process tells of its work: all of it, in order, and not in a message for each small matrix."""

from __future__ import annotations

from spectra_cli.execution.executors.wire import Events, Message, received
from spectra_cli.execution.executors.workerprocess import EventSender
from spectra_cli.execution.work.events import CheckpointDone, Event, MatrixDone
from tests.execution.planted_work import Heard


def test_events_in_quick_succession_travel_together_and_in_order() -> None:
    sent: list[Message] = []
    sender = EventSender(sent.append)
    events: list[Event] = [*(MatrixDone(float(work)) for work in range(100)), CheckpointDone()]
    for event in events:
        sender.hear(event)
    assert sent[0] == Events((events[0],))  # at once, as nothing was told before
    sender.flush()
    sender.flush()  # and nothing is told twice
    assert len(sent) < 10
    heard = Heard()
    for message in sent:
        received(message, heard)
    assert heard.events == events
