"""`--watch`: looks at runs that go on again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra_cli.cli import output
from spectra_cli.cli.interruption import InterruptedWorkError, stopped, termination_told
from spectra_cli.cli.invocation import Invocation
from spectra_cli.errors import CheckpointError, InputError, UsageError
from spectra_cli.shortening import counted

if TYPE_CHECKING:
    from spectra_cli.cli.summaries import TableSummaries
    from spectra_cli.execution.incremental.patience import Patience
    from spectra_cli.execution.incremental.writing import Filled
    from spectra_cli.execution.planning.options import Options


@dataclass(frozen=True)
class LookResult:
    """What has come of a look at the checkpoints.

    Attributes:
        filled: the tables.
        outs: the file of each.
        summaries: of all of them.
        problems: what could not be used.
        held: keeps other commands away from the tables.
        stopped: whether a signal came when the tables were written already.
    """

    filled: Filled
    outs: Mapping[str, str | None]
    summaries: TableSummaries
    problems: Sequence[str]
    held: Callable[[], AbstractContextManager[None]]
    stopped: bool = False


def check_watchable(chosen: Options, tables: Mapping[str, object]) -> None:
    """Check that what is made of a run that goes on is not made anew with every checkpoint.

    Raises:
        UsageError: if it is.
    """
    from spectra_cli.analyses.references import FINAL

    if "sva" in tables and chosen.against is None and (chosen.reference or FINAL) == FINAL:
        raise UsageError(
            "--watch: a run that goes on has another final checkpoint every time, and with it another agreement of all",
            remedy="Give --reference first, previous or a step; compare with the final one when the run is done",
        )


def watch(invocation: Invocation, look: Callable[[Patience], LookResult]) -> LookResult:
    """Look at the runs until a signal ends it.

    Args:
        invocation: how to go about it.
        look: does what is new and writes the tables.

    Returns:
        What the last look has found that was complete, with all that it was to write.

    Raises:
        InterruptedWorkError: if a signal comes before there is a table.
        TableInUseError: if another process makes the table when this one comes to it.
        UsageError: if the command line is wrong.
    """
    from spectra_cli.execution.incremental.patience import Patience
    from spectra_cli.tables.lockedfile import TableInUseError

    patience, told, last, dropped, waiting = Patience(), set[str](), None, 0, 0
    with termination_told():
        try:
            while True:
                held: AbstractContextManager[None] = nullcontext()
                try:
                    looked = look(patience)
                    dropped += looked.filled.dropped if looked.filled.published else 0
                    last = looked if looked.filled.finished else last
                    if looked.stopped:
                        break
                    held = looked.held()
                    if not invocation.quiet:
                        _tell(looked.filled, waited_for=waiting)
                    waiting = looked.filled.waiting
                except (InputError, CheckpointError, TableInUseError) as error:
                    if last is None and isinstance(error, TableInUseError):
                        raise  # later, somebody may have it for a while
                    if str(error) not in told:
                        told.add(str(error))
                        output.warn(f"{error} Looking again every {invocation.watch_s:g} s.")
                with held:
                    time.sleep(invocation.watch_s or 0.0)
        except InterruptedWorkError:
            if last is None:
                raise
        except KeyboardInterrupt as signal_sent:
            if last is None:
                raise stopped(signal_sent, "no table was written") from None
    assert last is not None  # noqa: S101 - else it has raised
    last.filled.dropped = dropped
    return last


def _tell(filled: Filled, *, waited_for: int) -> None:
    """Print a line if something has come.

    Args:
        filled: the tables.
        waited_for: how many checkpoints could not be used yet when that was told last.
    """
    given_up, new = filled.unusable, filled.finished - filled.kept - filled.unusable
    said = []
    if new:
        said.append(f"{counted(new, 'checkpoint')} done, {filled.finished + filled.gone} in all")
    if given_up:
        said.append(f"{counted(given_up, 'checkpoint')} given up, until the files change")
    if filled.waiting and (said or filled.waiting != waited_for):
        said.append(f"{counted(filled.waiting, 'checkpoint')} not complete yet, waited for")
    if said:
        output.stderr_console().print(output.plain(f"{time.strftime('%H:%M:%S')} {'; '.join(said)}"), soft_wrap=True)
