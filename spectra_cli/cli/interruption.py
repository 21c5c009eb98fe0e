"""What commands say when a signal stops them: where they were, and what there is to go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spectra_cli.errors import SpectraError

if TYPE_CHECKING:
    from spectra_cli.execution.incremental.filling import Filling

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses, as shells have them."""


class InterruptedWorkError(SpectraError):
    """A signal stopped the work."""

    status = "interrupted"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None, exit_status: int) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.exit_status = exit_status


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it at the end of the time: nothing takes it for an error of a task."""


@contextmanager
def termination_told() -> Iterator[None]:
    """Have SIGTERM come as an exception of its own; only the main thread may choose what signals do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def stopping_told(filling: Filling) -> Iterator[None]:
    """Have a signal that stops the making of tables come as an error that says how far they are.

    Raises:
        InterruptedWorkError: if a signal comes.
    """
    with termination_told():
        try:
            yield
        except KeyboardInterrupt as signal_sent:
            filled = filling.filled
            goes_on = filled.finished > filled.to_repeat and not filled.published
            remedy = "Run the same command again to go on from there" if goes_on else None
            raise stopped(signal_sent, filling.progress, remedy) from None


def stopped(signal_sent: KeyboardInterrupt, progress: str, remedy: str | None = None) -> InterruptedWorkError:
    """The error of a work that a signal has stopped.

    Args:
        signal_sent: Ctrl-C, or :class:`Terminated`.
        progress: how far the work is.
        remedy: what to do about it.
    """
    how, status = word_and_status(signal_sent)
    return InterruptedWorkError(f"{how}: {progress}", remedy=remedy, exit_status=status)


def word_and_status(signal_sent: KeyboardInterrupt) -> tuple[str, int]:
    """What has come, in a word, and the exit status of a command that it stops."""
    return ("terminated", TERMINATED) if isinstance(signal_sent, Terminated) else ("interrupted", INTERRUPTED)
