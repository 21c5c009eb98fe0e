"""What commands say when a signal stops them: where they were, and what there is to go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_cli.errors import SpectraError

if TYPE_CHECKING:
    from spectra_cli.cli.trainshow import TrainingProgress
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
            goes_on = filled.finished > filled.failed and not filled.published
            remedy = "Run the same command again to go on from there" if goes_on else None
            raise stopped(signal_sent, filling.progress, remedy) from None


def stopped(signal_sent: KeyboardInterrupt, progress: str, remedy: str | None = None) -> InterruptedWorkError:
    """The error of a work that a signal has stopped.

    Args:
        signal_sent: Ctrl-C, or :class:`Terminated`.
        progress: how far the work is.
        remedy: what to do about it.
    """
    how, status = _of(signal_sent)
    return InterruptedWorkError(f"{how}: {progress}", remedy=remedy, exit_status=status)


def _of(signal_sent: KeyboardInterrupt) -> tuple[str, int]:
    """What has come, in a word, and the exit status of a command that it stops."""
    return ("terminated", TERMINATED) if isinstance(signal_sent, Terminated) else ("interrupted", INTERRUPTED)


def interrupted(progress: TrainingProgress, out: Path, signal_sent: KeyboardInterrupt) -> InterruptedWorkError:
    """What a signal stopped, and what there is to go on from.

    Weights come before what it takes to go on from them: the last ones may be there for reading only.

    Args:
        progress: what the user has been told of the training.
        out: directory of the run.
        signal_sent: Ctrl-C, or :class:`Terminated`.
    """
    from spectra_cli.tasks.states import StateFiles

    how, status = _of(signal_sent)
    steps = StateFiles(out).steps() if out.is_dir() else []
    at = "" if progress.step is None else f" at step {progress.step}"
    remedy = "Run the same command again"
    if not steps:
        what = f"{how} before a checkpoint was saved"
        remedy += ", which begins anew"
    elif progress.saved_step is None and progress.step is not None:
        what = f"{how}{at}; only the weights of step {steps[-1]} are saved, without their metrics"
        remedy += ", which begins anew"
    else:
        saved = steps[-1] if progress.saved_step is None else progress.saved_step
        only = f"only the checkpoint at step {saved} is saved"
        what = f"{how}{at}; " + (only if steps[0] >= saved else f"the checkpoints until step {saved} stay")
        remedy += " to go on from there"
    return InterruptedWorkError(what, where=str(out), remedy=remedy, exit_status=status)
