"""What the commands that write tables have in common: planning, doing the work, and saying what has come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
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
    from spectra_cli.execution.executors.placement import Placement
    from spectra_cli.execution.incremental.filling import Filling, PreparedWork
    from spectra_cli.execution.incremental.patience import Patience
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

    def job_of(plan: Plan, device: str) -> tuple[TableJob, Shown]:
        from spectra_cli.cli.progress import ProgressListener
        from spectra_cli.execution.trajectory.job import TrajectoryJob

        listener = ProgressListener(plan.pass_count, quiet=invocation.quiet, told=invocation.told)
        return TrajectoryJob(plan, listener, device), listener

    leave_out = chosen.columns_left_out
    prepare = preparation(invocation, paths, chosen, outs, job_of, leave_out=leave_out, directory=directory)
    write_tables(invocation, prepare, lambda: RunSummaries(views()))


def preparation(
    invocation: Invocation,
    paths: Sequence[str],
    chosen: Options,
    outs: Mapping[str, str],
    job_of: Callable[[Plan, str], tuple[TableJob, Shown]],
    *,
    leave_out: Sequence[str] = (),
    directory: str | None = None,
) -> Callable[[], PreparedWork[Shown]]:
    """What prepares every look at the checkpoints: it plans anew, and the work of all looks is done in one place.

    Args:
        invocation: how to go about it.
        paths: PATHs.
        chosen: by the user.
        outs: the file of each table.
        job_of: makes the job of a plan on a device, as files record it, and whoever is told of it.
        leave_out: columns that only come when they are asked for, and were not.
        directory: to make for the files.
    """
    if invocation.watch_s is not None:
        chosen = replace(chosen, skip_incomplete=True)  # it may be complete the next time

    @cache
    def placement() -> Placement:
        from spectra_cli.execution.executors.placement import placement_of

        return placement_of(chosen.device, invocation.execution)

    def prepare() -> PreparedWork[Shown]:
        from spectra_cli.execution.planning.plan import make_plan

        plan = make_plan(paths, chosen, tuple(outs))  # before torch is imported, as PATHs may be wrong

        from spectra_cli.execution.incremental.filling import PreparedWork
        from spectra_cli.execution.incremental.writing import writing_of

        writing = writing_of(outs, chosen.tags, leave_out, invocation.execution, directory)
        job, listener = job_of(plan, placement().device)
        tell_idle_workers(invocation, job, listener)
        return PreparedWork(job, listener, placement(), writing)

    return prepare


def tell_idle_workers(invocation: Invocation, job: TableJob, listener: Shown) -> None:
    """Say once where there are more workers than units, as cores and memory are shared out to all workers.

    What is kept does not count: whoever runs a command again for a new checkpoint has not made a slip.
    """
    workers, units = invocation.execution.workers, len(job.units)
    matter = f"--workers {workers}"
    if workers is None or workers <= units or matter in invocation.told:
        return
    invocation.told.add(matter)
    there_are = f"there {'is' if units == 1 else 'are'} {counted(units, job.noun)}"
    listener.notice(
        f"{matter}: {there_are}, and no more workers are begun; of fewer, each has more threads and memory."
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
    filled, outs, summaries = looked.filled, looked.outs, looked.summaries
    if invocation.as_json:
        counts = {"kept": filled.kept, "dropped": filled.dropped, "problems": list(looked.problems)}
        said = {**_json(outs, summaries), **filled.found, **counts}
        output.json_line(said)
    if not invocation.quiet:
        elapsed_s = time.monotonic() - invocation.started
        print_summaries(summaries, outs, kept=filled.kept_of, elapsed_s=elapsed_s)
        for line in closing(filled.found):
            output.stderr_console().print(output.plain(line), soft_wrap=True)
    if not filled.usable:
        raise typer.Exit(3)


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
