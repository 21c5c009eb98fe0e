"""A signal comes when what it would break off is done, and not earlier."""

from __future__ import annotations

import signal
import threading

import pytest

from spectra_cli.execution.executors.signalsdeferred import signals_deferred


def test_ctrl_c_comes_when_the_context_is_left() -> None:
    done = []

    def interrupted() -> None:
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["all of it"]


def test_whoever_asks_twice_does_not_wait() -> None:
    """An upload may hang."""
    done = []

    def interrupted() -> None:
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("some of it")
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert done == ["some of it"]
    assert caught.value.__context__ is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_those_of_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals_deferred():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_are_left_alone() -> None:
    """They may not set handlers, and signals do not come to them."""
    done = []

    def work() -> None:
        with signals_deferred():
            done.append("all of it")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["all of it"]


def test_a_signal_that_is_ignored_stays_so_and_loses_no_other() -> None:
    """A shell starts what is in the background with Ctrl-C ignored."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda *_: came.append(15))
    try:
        with signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert came == []
        assert came == [15]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_both_signals_come_where_neither_raises() -> None:
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        with signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert came == [signal.SIGINT, signal.SIGTERM]
        assert came == [signal.SIGINT, signal.SIGTERM]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
