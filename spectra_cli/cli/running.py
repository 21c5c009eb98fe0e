"""What the commands that write tables have in common: progress, files, and the closing lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import typer

from spectra_cli.cli import output
from spectra_cli.cli.interruption import stopping_told
from spectra_cli.cli.watching import check_watchable, watch
from spectra_cli.shortening import counted, shortened, width_of

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.summary import RunSummary, Summary
    from spectra_cli.analyses.visits import Row
    from spectra_cli.cli.progress import ProgressListener
    from spectra_cli.execution.executors.placement import Doing, Where
    from spectra_cli.execution.incremental.filling import Begun, Filling, Take
    from spectra_cli.execution.incremental.patience import Patience
    from spectra_cli.execution.incremental.writing import Filled
    from spectra_cli.execution.planning.options import Options
    from spectra_cli.execution.work.units import Unit

SHOWN_RUNS = 4
SHOWN_STATUS = 40


@dataclass(frozen=True)
class Way:
    """How the rows of a table are told.

    Attributes:
        of_run: makes what gathers those of one run.
        show: prints that, under the name of the run.
    """

    of_run: Callable[[], RunSummary]
    show: Callable[[Console, str, Any], None]


@dataclass(frozen=True)
class Asked:
    """How a command is to go about it.

    Attributes:
        command: the command line.
        doing: where the work is done, and what becomes of tables that are there.
        quiet: print problems only.
        as_json: print a summary to standard output.
        watch_s: seconds between two looks at the runs; None to look once.
        started: when the command began, as ``time.monotonic`` has it.
        told: what has been told already, and need not be told again at every look.
    """

    command: Sequence[str]
    doing: Doing
    quiet: bool
    as_json: bool
    watch_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Looked:
    """What has come of a look at the checkpoints.

    Attributes:
        filled: the tables.
        outs: the file of each.
        summaries: of each.
        problems: what could not be used.
        held: keeps other commands away from the tables.
    """

    filled: Filled
    outs: Mapping[str, str | None]
    summaries: Mapping[str, Summary[Any]]
    problems: Sequence[str]
    held: Callable[[], AbstractContextManager[None]]


def run_tables(
    asked: Asked,
    paths: Sequence[str],
    chosen: Options,
    outs: Mapping[str, str],
    *,
    directory: str | None = None,
) -> None:
    """Make tables of checkpoints, write them and say what they hold.

    Args:
        asked: how to go about it.
        paths: PATHs.
        chosen: by the user.
        outs: the file of each table.
        directory: to make for the files, once it is known that there is something to do.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """
    if asked.watch_s is not None:
        check_watchable(chosen, outs)
        chosen = replace(chosen, skip_incomplete=True)  # it may be complete the next time
    places: list[Where] = []

    def begin() -> Begun[ProgressListener]:
        from spectra_cli.execution.planning.plan import make_plan

        plan = make_plan(paths, chosen, tuple(outs))

        from spectra_cli.cli.progress import ProgressListener
        from spectra_cli.execution.executors.placement import where_of
        from spectra_cli.execution.incremental.filling import Begun
        from spectra_cli.execution.incremental.writing import writing_of
        from spectra_cli.execution.trajectory.job import TrajectoryJob

        if not places:
            places.append(where_of(chosen.device, asked.doing))  # once for all looks
        where = places[0]
        listener = ProgressListener(plan.pass_count, quiet=asked.quiet, told=asked.told)
        job = TrajectoryJob(plan, listener, where.device)
        writing = writing_of(outs, chosen.tags, chosen.columns_left_out, asked.doing, directory)
        return Begun(job, listener, where, writing)

    write_tables(asked, begin, _ways)


def write_tables(
    asked: Asked,
    begin: Callable[[], Begun[Any]],
    ways: Callable[[], Mapping[str, Way]],
    *,
    closing: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: (),
) -> None:
    """Do the work, write its tables and say what they hold.

    Args:
        asked: how to go about it.
        begin: plans the work.
        ways: how each table is told.
        closing: lines on what the job has found beside the rows.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """

    def look(patience: Patience | None) -> Looked:
        begun = begin()

        from spectra_cli.analyses.summary import Summary

        told = ways()
        summaries: dict[str, Summary[Any]] = {table: Summary(told[table].of_run) for table in begun.writing.outs}

        def add(_unit: Unit, tables: Mapping[str, list[Row]], _facts: Mapping[str, Any]) -> None:
            for table, rows in tables.items():
                summaries[table].add(rows)

        filling = filling_of(asked, begun, patience)
        filled = fill_tables(begun, filling, add)
        return Looked(filled, begun.writing.outs, summaries, tuple(begun.listener.problems), filling.held)

    looked = look(None) if asked.watch_s is None else watch(asked, look)
    filled, outs, summaries = looked.filled, looked.outs, looked.summaries
    if asked.as_json:
        counts = {"kept": filled.kept, "dropped": filled.dropped, "problems": list(looked.problems)}
        said = {**_json(outs, summaries), **filled.found, **counts}
        output.json_line(said)
    if not asked.quiet:
        elapsed_s = time.monotonic() - asked.started
        _print_summaries(summaries, ways(), outs, kept=filled.kept, elapsed_s=elapsed_s)
        for line in closing(filled.found):
            output.stderr_console().print(output.plain(line), soft_wrap=True)
    if not filled.usable:
        raise typer.Exit(3)


def filling_of(asked: Asked, begun: Begun[Any], patience: Patience | None = None) -> Filling:
    """What fills the tables of a work.

    Args:
        asked: how to go about it.
        begun: the work.
        patience: with checkpoints that a run may be writing; None to take every one as it is.
    """
    from spectra_cli.execution.incremental.filling import Filling

    command = ["spectra", *asked.command]
    return Filling(begun.job, begun.writing, begun.where, begun.listener, command=command, patience=patience)


def fill_tables(begun: Begun[Any], filling: Filling, take: Take) -> Filled:
    """Do the work and write its tables; they appear when all of it is done.

    Args:
        begun: the work.
        filling: of its tables.
        take: shown every unit when all of them are done.

    Raises:
        InterruptedWorkError: if a signal stops it.
        SpectraError: if nothing could be done.
    """
    with begun.listener, stopping_told(filling):
        return filling.fill(take)


def _ways() -> dict[str, Way]:
    from spectra_cli.analyses.align_summary import RunAlignment
    from spectra_cli.analyses.rank_summary import RunRanks
    from spectra_cli.analyses.sva_summary import RunAgreement
    from spectra_cli.cli.align import print_alignments
    from spectra_cli.cli.rank import print_ranks
    from spectra_cli.cli.sva import print_agreements

    return {
        "rank": Way(RunRanks, print_ranks),
        "align": Way(RunAlignment, print_alignments),
        "sva": Way(RunAgreement, print_agreements),
    }


def _json(outs: Mapping[str, Any], summaries: Mapping[str, Summary[Any]]) -> dict[str, Any]:
    """One table says what it is; several are listed."""
    each = [{"table": table, "out": str(out), **summaries[table].as_json()} for table, out in outs.items()]
    return each[0] if len(each) == 1 else {"tables": each}


def _print_summaries(
    summaries: Mapping[str, Summary[Any]],
    ways: Mapping[str, Way],
    outs: Mapping[str, Any],
    *,
    kept: int,
    elapsed_s: float,
) -> None:
    console = output.stderr_console()
    shown = max(1, SHOWN_RUNS // len(summaries))
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary.runs))
    for name in names[:shown]:
        for table, summary in summaries.items():
            if name in summary.runs:
                ways[table].show(console, name, summary.runs[name])
    if len(names) > shown:
        console.print(f"... and {counted(len(names) - shown, 'more run')}")
    for table, summary in summaries.items():
        last = table == list(summaries)[-1]
        checkpoints = sum(run.checkpoints for run in summary.runs.values())
        elapsed = f" in {elapsed_s:.1f} s" if last else ""
        source = f"from {counted(checkpoints, 'checkpoint')}{kept_of(kept)}{elapsed}"
        print_closing(console, outs[table], summary.statuses, source)


def kept_of(kept: int) -> str:
    """How many units were there already, for a closing line."""
    return f" ({kept} kept)" if kept else ""


def print_closing(console: Console, out: Any, statuses: Mapping[str, int], source: str) -> None:
    """Print how many rows went to a file, and how many of them are not ok.

    Args:
        console: for people.
        out: the file.
        statuses: how many rows have each.
        source: what the rows are from, for the end of the line.
    """
    rows = counted(sum(statuses.values()), "row")
    console.print(f"{output.plain(str(out))}: {rows} {source}", soft_wrap=True)
    skipped = {status: count for status, count in statuses.items() if status != "ok"}
    if skipped:
        each = ", ".join(f"{shortened(str(status), SHOWN_STATUS)} ({count})" for status, count in skipped.items())
        told = f"{sum(skipped.values())} of {rows} not ok: {each}; see the column status"
        console.print(output.plain(told))


def print_title(console: Console, what: str, name: str, first: str, last: str) -> None:
    """Print what a table shows, of which run and checkpoints, in a line of at most 80 columns.

    Names are shortened only where they do not fit.
    """
    names = {"run": name, "first": first, "last": last}
    form = what.replace("{", "{{").replace("}", "}}") + ("" if name == "." else " in {run}")
    form += ", {last}" if first == last else ", {first} to {last}"
    title = form.format(**names)
    if width_of(title) > output.NARROWEST:
        room = output.NARROWEST - len(form.format(run="", first="", last=""))
        title = form.format(**{key: shortened(text, room // form.count("{")) for key, text in names.items()})
    console.print(output.plain(title), style="bold", soft_wrap=True)
