"""Moments in which a signal must not break off what another library does halfway."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait until the context is left; a second one does not wait.

    Only the main thread is ever broken off by them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) > 1:  # whoever asks twice does not want to wait
            restore()
            came.clear()
            signal.raise_signal(number)

    before = {number: signal.signal(number, note) for number in DEFERRED}
    try:
        yield
    finally:
        restore()
        for number in came:
            signal.raise_signal(number)
