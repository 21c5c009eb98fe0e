"""What commands say when a signal stops them: where they were, and what there is to go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spectra_cli.errors import SpectraError

if TYPE_CHECKING:
    from spectra_cli.execution.incremental.filling import Filling

INTERRUPTED, TERMINATED, HUNG_UP = (128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
"""Exit statuses, as shells have them."""

WORDS = {INTERRUPTED: "interrupted", TERMINATED: "terminated", HUNG_UP: "terminated (the terminal is gone)"}
"""Words for what a signal did, by the exit status of the command that it stops."""


ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command as Ctrl-C does: at the end of a job's time, and when its terminal goes."""


class InterruptedWorkError(SpectraError):
    """A signal stopped the work."""

    status = "interrupted"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None, exit_status: int) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.exit_status = exit_status


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as batch systems and terminals send them: nothing takes it for an error of a task.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.exit_status = 128 + number


@contextmanager
def termination_told() -> Iterator[None]:
    """Have SIGTERM and SIGHUP come as an exception of their own, but for one that is ignored, as `nohup` has it.

    Only the main thread may choose what signals do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        raise Terminated(number)

    before = {number: handler for number in ENDING if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stopping_told(filling: Filling) -> Iterator[None]:
    """Have whatever stops the making of tables come as an error that says how far they are.

    Raises:
        InterruptedWorkError: if a signal comes.
    """

    def error_of(signal_sent: KeyboardInterrupt) -> InterruptedWorkError:
        remedy = "Run the same command again to go on from there" if filling.safe else None
        return stopped(signal_sent, filling.progress, remedy)

    with signal_told(error_of):
        try:
            yield
        except SpectraError as error:
            if filling.safe:
                error.what = f"{error.what.rstrip('.')} ({filling.safe})"
            raise


@contextmanager
def signal_told(error_of: Callable[[KeyboardInterrupt], InterruptedWorkError]) -> Iterator[None]:
    """Have a signal that stops a work come as an error.

    Args:
        error_of: makes it of Ctrl-C, or of :class:`Terminated`.

    Raises:
        InterruptedWorkError: if a signal comes.
    """
    with termination_told():
        try:
            yield
        except KeyboardInterrupt as signal_sent:
            raise error_of(signal_sent) from None


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
    """A word for what a signal did, and the exit status of the command that it stops."""
    status = signal_sent.exit_status if isinstance(signal_sent, Terminated) else INTERRUPTED
    return WORDS[status], status
