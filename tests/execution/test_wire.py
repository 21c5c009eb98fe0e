"""What travels between processes arrives as it was."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import fields
from typing import get_args

import pytest

import spectra_cli
from spectra_cli.errors import SpectraError, UsageError
from spectra_cli.execution.executors.device import DeviceWarning
from spectra_cli.execution.executors.wire import Raised, Warned, received
from spectra_cli.execution.work.events import Event
from tests.execution.planted_work import Heard, UnreadableByPickleError


def all_errors() -> Iterator[type[SpectraError]]:
    """SpectraError and all that is derived from it anywhere in the package."""
    for module in pkgutil.walk_packages(spectra_cli.__path__, "spectra_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting = [SpectraError]
    while waiting:
        kind = waiting.pop()
        if kind.__module__.startswith("spectra_cli."):
            yield kind
        waiting += kind.__subclasses__()


def test_every_error_travels_whole() -> None:
    """By pickle and by copy, whatever its constructor asks for, with what was set on it later."""
    kinds = list(all_errors())
    assert len(kinds) > 10
    for kind in kinds:
        error = kind.__new__(kind, "it is so")
        SpectraError.__init__(error, "it is so", where="there", remedy="Do this")
        error.exit_status = 77
        for travelled in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(travelled) is kind
            assert str(travelled) == "there: it is so. Do this."
            assert (travelled.args, travelled.exit_status) == (("it is so",), 77)


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_event_is_passed_on(kind: type[Event]) -> None:
    heard, event = Heard(), kind(*range(len(fields(kind))))
    assert received(pickle.loads(pickle.dumps(event)), heard) is None
    assert heard.events == [event]


def test_an_error_that_is_raised_again_shows_where_it_came_from() -> None:
    """The traceback of the worker, with that of the cause, stands above that of the parent."""

    def in_the_worker() -> None:
        try:
            {}["the first"]
        except KeyError as cause:
            raise UsageError("the second") from cause

    with pytest.raises(UsageError) as there:
        in_the_worker()
    message = pickle.loads(pickle.dumps(Raised.of(there.value)))
    with pytest.raises(UsageError, match="the second") as raised:
        received(message, Heard())
    shown = "".join(traceback.format_exception(raised.value))
    assert shown.index("in in_the_worker") < shown.index("KeyError: 'the first'") < shown.index("in received")


@pytest.mark.parametrize("error", [UnreadableByPickleError("this", "that"), ValueError("this and that", lambda: None)])
def test_an_error_that_pickle_cannot_handle_is_told_in_words(error: Exception) -> None:
    message = pickle.loads(pickle.dumps(Raised.of(error)))
    with pytest.raises(RuntimeError, match=type(error).__name__) as raised:
        received(message, Heard())
    assert "this and that" in str(raised.value)


def test_a_warning_keeps_the_nearest_class_that_is_known_everywhere() -> None:
    class LocalWarning(DeviceWarning):
        pass

    class ForeignWarning(FutureWarning):
        pass

    assert Warned.of("so", LocalWarning).category is DeviceWarning
    assert Warned.of("so", ForeignWarning).category is FutureWarning
    with pytest.warns(DeviceWarning, match="so"):
        received(Warned("so", DeviceWarning), Heard())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeviceWarning)
        received(Warned("so", DeviceWarning), Heard())
