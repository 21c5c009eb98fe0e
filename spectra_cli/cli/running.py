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
from spectra_cli.cli.summaries import RunView, print_summaries
from spectra_cli.cli.watching import LookResult, check_watchable, watch
from spectra_cli.shortening import counted

if TYPE_CHECKING:
    from spectra_cli.analyses.summary import Summary
    from spectra_cli.analyses.visits import Row
    from spectra_cli.cli.progress import Shown
    from spectra_cli.execution.executors.placement import Placement
    from spectra_cli.execution.incremental.filling import Filling, PreparedWork, Take
    from spectra_cli.execution.incremental.patience import Patience
    from spectra_cli.execution.incremental.writing import Filled
    from spectra_cli.execution.planning.options import Options
    from spectra_cli.execution.planning.plan import Plan
    from spectra_cli.execution.work.jobs import TableJob
    from spectra_cli.execution.work.units import Unit


def run_tables(
    invocation: Invocation,
    paths: Sequence[str],
    chosen: Options,
    outs: Mapping[str, str],
    *,
    directory: str | None = None,
) -> None:
    """Make tables of checkpoints, write them and say what they hold.

    Args:
        invocation: how to go about it.
        paths: PATHs.
        chosen: by the user.
        outs: the file of each table.
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
    write_tables(invocation, prepare, _views)


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

        job, listener = job_of(plan, placement().device)
        tell_idle_workers(invocation, job, listener)
        writing = writing_of(outs, chosen.tags, leave_out, invocation.execution, directory)
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
    views: Callable[[], Mapping[str, RunView]],
    *,
    closing: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: (),
) -> None:
    """Do the work, write its tables and say what they hold.

    Args:
        invocation: how to go about it.
        prepare: plans the work.
        views: how each table is shown.
        closing: lines on what the job has found beside the rows.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """

    def look(patience: Patience | None) -> LookResult:
        prepared = prepare()

        from spectra_cli.analyses.summary import Summary

        shown = views()
        summaries: dict[str, Summary[Any]] = {table: Summary(shown[table].of_run) for table in prepared.writing.outs}

        def add(_unit: Unit, tables: Mapping[str, list[Row]], _facts: Mapping[str, Any]) -> None:
            for table, rows in tables.items():
                summaries[table].add(rows)

        filling = filling_of(invocation, prepared, patience)
        stopped = False
        try:
            fill_tables(prepared, filling, add)
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
        print_summaries(summaries, views(), outs, kept=filled.kept, elapsed_s=elapsed_s)
        for line in closing(filled.found):
            output.stderr_console().print(output.plain(line), soft_wrap=True)
    if not filled.usable:
        raise typer.Exit(3)


def filling_of(invocation: Invocation, prepared: PreparedWork[Any], patience: Patience | None = None) -> Filling:
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


def fill_tables(prepared: PreparedWork[Any], filling: Filling, take: Take) -> Filled:
    """Do the work and write its tables; they appear when all of it is done.

    Args:
        prepared: the work.
        filling: of its tables.
        take: shown every unit when all of them are done.

    Raises:
        InterruptedWorkError: if a signal stops it.
        SpectraError: if nothing could be done.
    """
    with prepared.listener, stopping_told(filling):
        return filling.fill(take)


def _views() -> dict[str, RunView]:
    from spectra_cli.analyses.align_summary import RunAlignment
    from spectra_cli.analyses.rank_summary import RunRanks
    from spectra_cli.analyses.sva_summary import RunAgreement
    from spectra_cli.cli.align import print_alignments
    from spectra_cli.cli.rank import print_ranks
    from spectra_cli.cli.sva import print_agreements

    return {
        "rank": RunView(RunRanks, print_ranks),
        "align": RunView(RunAlignment, print_alignments),
        "sva": RunView(RunAgreement, print_agreements),
    }


def _json(outs: Mapping[str, Any], summaries: Mapping[str, Summary[Any]]) -> dict[str, Any]:
    """One table says what it is; several are listed."""
    each = [{"table": table, "out": str(out), **summaries[table].as_json()} for table, out in outs.items()]
    return each[0] if len(each) == 1 else {"tables": each}
