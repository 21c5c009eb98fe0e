"""What a worker in another process sends beside the outcomes, and what becomes of it where it arrives."""

from __future__ import annotations

import pickle
import traceback
import warnings
from dataclasses import dataclass

from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, Evaluated, Event, MatrixDone
from spectra_cli.execution.work.units import EventSink, Outcome

KNOWN_EVERYWHERE = {"builtins", "spectra_cli"}
"""Packages whose classes of warnings are there wherever a message arrives."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A Python warning.

    Attributes:
        text: of the warning.
        category: its class, or the nearest of those that it is derived from which is known everywhere.
    """

    text: str
    category: type[Warning]

    @classmethod
    def of(cls, message: Warning | str, category: type[Warning]) -> Warned:
        """What :func:`warnings.showwarning` is called with."""
        known = (base for base in category.__mro__ if base.__module__.partition(".")[0] in KNOWN_EVERYWHERE)
        return cls(str(message), next(known))


@dataclass(frozen=True, slots=True)
class Events:
    """Events in the order in which they happened."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that ends the work.

    Attributes:
        pickled: the exception; None if it cannot be pickled.
        described: it in a line, for where its class is not known.
        trace: its traceback, with those of its causes.
    """

    pickled: bytes | None
    described: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Raised:
        """An exception as it can travel."""
        described = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        try:
            return cls(pickle.dumps(error), described, trace)
        except Exception:  # noqa: BLE001 - exceptions hold what they please, and pickling runs their code
            return cls(None, described, trace)

    def again(self) -> Exception:
        """The exception as it was, its cause the traceback of the worker; else a RuntimeError with its words."""
        error: object = None
        if self.pickled is not None:
            try:
                error = pickle.loads(self.pickled)  # noqa: S301 - a process of our own wrote it
            except Exception:  # noqa: BLE001 - of a class that is not here, or whose constructor asks for more
                error = None
        raised = error if isinstance(error, Exception) else RuntimeError(self.described)
        raised.__cause__ = WorkerTraceback(self.trace)
        return raised


class WorkerTraceback(Exception):  # noqa: N818 - never raised: it stands in tracebacks as the cause of what is
    """Where in a worker an exception was raised."""

    def __str__(self) -> str:
        return f"in a worker:\n\n{self.args[0]}"


Message = Outcome | Event | Events | Warned | Raised


def received(message: Message, sink: EventSink) -> Outcome | None:
    """Do with a message what it is for: pass on an event, warn, raise; or give back an outcome.

    Raises:
        Exception: that a worker has raised.
    """
    match message:
        case Outcome():
            return message
        case CheckpointOpened() | MatrixDone() | Evaluated() | CheckpointDone():
            sink.hear(message)
        case Events():
            for event in message.events:
                sink.hear(event)
        case Warned():
            warnings.warn(message.text, message.category, stacklevel=2)
        case Raised():
            raise message.again()
    return None
