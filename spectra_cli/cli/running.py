"""What the commands that write tables have in common: planning, doing the work, and saying what has come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from spectra_cli.cli import output
from spectra_cli.cli.interruption import InterruptedWorkError, stopping_told
from spectra_cli.cli.invocation import Invocation
from spectra_cli.cli.summaries import RunSummaries, RunView, TableSummaries, print_summaries
from spectra_cli.cli.watching import LookResult, check_watchable, watch
from spectra_cli.shortening import counted

if TYPE_CHECKING:
    from spectra_cli.analyses.visits import Row
    from spectra_cli.cli.progress import Shown
    from spectra_cli.execution.incremental.filling import Filling, PreparedWork
    from spectra_cli.execution.incremental.patience import Patience
    from spectra_cli.execution.incremental.request import TableRequest
    from spectra_cli.execution.planning.options import Options
    from spectra_cli.execution.planning.plan import Plan
    from spectra_cli.execution.work.jobs import TableJob
    from spectra_cli.execution.work.units import Unit


def run_tables(
    invocation: Invocation,
    paths: Sequence[str],
    chosen: Options,
    outs: Mapping[str, str],
    views: Callable[[], Mapping[str, RunView]],
    *,
    directory: str | None = None,
) -> None:
    """Make tables of checkpoints, write them and say what they hold.

    Args:
        invocation: how to go about it.
        paths: PATHs.
        chosen: by the user.
        outs: the file of each table.
        views: how each is shown.
        directory: to make for the files, once it is known that there is something to do.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """
    if invocation.watch_s is not None:
        check_watchable(chosen, outs)

    from spectra_cli.execution.trajectory.preparation import prepare_trajectory

    request = request_of(invocation, chosen, outs, directory)

    def listener_of(plan: Plan) -> Shown:
        from spectra_cli.cli.progress import ProgressListener

        return ProgressListener(plan.pass_count, quiet=invocation.quiet, told=invocation.told)

    def prepare() -> PreparedWork[Shown]:
        return prepare_trajectory(paths, request, listener_of)

    write_tables(invocation, prepare, lambda: RunSummaries(views()))


def request_of(
    invocation: Invocation, chosen: Options, outs: Mapping[str, str], directory: str | None = None
) -> TableRequest:
    """What a command line asks for; a watching command uses one request for all its looks.

    Args:
        invocation: how to go about it.
        chosen: by the user.
        outs: the file of each table.
        directory: to make for the files, once it is known that there is something to do.
    """
    from spectra_cli.execution.incremental.request import TableRequest

    if invocation.watch_s is not None:
        chosen = replace(chosen, skip_incomplete=True)  # it may be complete the next time
    return TableRequest(chosen, outs, invocation.execution, directory)


def _tell_idle_workers(invocation: Invocation, job: TableJob, listener: Shown) -> None:
    """Say once where there are more workers than units, as cores and memory are shared out to all workers.

    Kept units count as well: a second run of a command, for one new checkpoint, is no mistake.
    """
    workers, units = invocation.execution.workers, len(job.units)
    matter = f"--workers {workers}"
    if workers is None or workers <= units or matter in invocation.told:
        return
    invocation.told.add(matter)
    there_are = f"there {'is' if units == 1 else 'are'} {counted(units, job.noun)}"
    listener.notice(
        f"{matter}: {there_are}, and no more workers are begun; fewer workers would each have more threads and memory."
    )


def write_tables(
    invocation: Invocation,
    prepare: Callable[[], PreparedWork[Shown]],
    summaries_of: Callable[[], TableSummaries],
    *,
    closing: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: (),
) -> None:
    """Do the work, write its tables and say what they hold.

    Args:
        invocation: how to go about it.
        prepare: plans the work.
        summaries_of: makes what gathers the rows of a look.
        closing: lines on what the job has found beside the rows.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """

    def look(patience: Patience | None) -> LookResult:
        prepared = prepare()
        _tell_idle_workers(invocation, prepared.job, prepared.listener)
        summaries = summaries_of()

        def add(_unit: Unit, tables: Mapping[str, list[Row]], facts: Mapping[str, Any]) -> None:
            summaries.add(tables, facts)

        filling = _filling_of(invocation, prepared, patience)
        stopped = False
        try:
            with prepared.listener, stopping_told(filling):
                filling.fill(add)
        except InterruptedWorkError:
            if invocation.watch_s is None or not filling.filled.published:
                raise
            stopped = True  # when all was done
        outs, problems = prepared.writing.outs, tuple(prepared.listener.problems)
        return LookResult(filling.filled, outs, summaries, problems, filling.held, stopped)

    looked = look(None) if invocation.watch_s is None else watch(invocation, look)
    _tell_result(invocation, looked, closing)
    if not looked.filled.usable:
        raise typer.Exit(3)


def _tell_result(
    invocation: Invocation, looked: LookResult, closing: Callable[[Mapping[str, Any]], Iterable[str]]
) -> None:
    """Say what has come of the tables: to programs, and to people."""
    filled, outs, summaries = looked.filled, looked.outs, looked.summaries
    if invocation.as_json:
        counts = {"kept": filled.kept + filled.gone, "dropped": filled.dropped, "problems": list(looked.problems)}
        output.json_line({**_json(outs, summaries), **filled.found, **counts})
    if not invocation.quiet:
        elapsed_s = time.monotonic() - invocation.started
        print_summaries(summaries, outs, kept=filled.kept_of, elapsed_s=elapsed_s)
        for line in closing(filled.found):
            output.stderr_console().print(output.plain(line), soft_wrap=True)


def _filling_of(invocation: Invocation, prepared: PreparedWork[Any], patience: Patience | None) -> Filling:
    """What fills the tables of a work.

    Args:
        invocation: how to go about it.
        prepared: the work.
        patience: with checkpoints that a run may be writing; None to take every one as it is.
    """
    from spectra_cli.execution.incremental.filling import Filling

    command = ["spectra", *invocation.command]
    job, writing = prepared.job, prepared.writing
    return Filling(job, writing, prepared.placement, prepared.listener, command=command, patience=patience)


def _json(outs: Mapping[str, Any], summaries: TableSummaries) -> dict[str, Any]:
    """One table says what it is; several are listed."""
    each = [{"table": table, "out": str(out), **summaries.as_json(table)} for table, out in outs.items()]
    return each[0] if len(each) == 1 else {"tables": each}
