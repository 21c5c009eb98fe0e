"""Moments in which a signal must not break off what another library does halfway."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP wait until the context is left; a second one does not wait.

    Only the main thread is ever broken off by them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in DEFERRED if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    came: list[int] = []

    def restore() -> None:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)  # none comes between the two
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def note(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) > 1:  # whoever asks twice does not want to wait
            restore()
            _raise_all(came)

    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
        _raise_all(came)


def _raise_all(came: list[int]) -> None:
    """Have signals come that were noted, each kind once, the last one first."""
    numbers = list(dict.fromkeys(reversed(came)))
    came.clear()
    for number in numbers:
        signal.raise_signal(number)
