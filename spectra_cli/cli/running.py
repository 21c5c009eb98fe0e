"""What the commands that write tables have in common: progress, files, and the closing lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectra_cli.cli import output
from spectra_cli.shortening import shortened, width_of

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.summary import RunSummary, Summary
    from spectra_cli.cli.progress import EvaluationProgress, ProgressListener
    from spectra_cli.execution.jobs import Results, TableJob
    from spectra_cli.execution.options import Options

SHOWN_RUNS = 4


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
class Writing:
    """Where tables go.

    Attributes:
        outs: the file of each table.
        tags: extra columns, with the value of rows that do not say their own.
        leave_out: columns that only come when they are asked for, and were not.
        directory: to make for the files.
    """

    outs: Mapping[str, Path]
    tags: Mapping[str, str | None]
    leave_out: Sequence[str] = ()
    directory: Path | None = None


def run_tables(
    context: typer.Context,
    paths: Sequence[str],
    chosen: Options,
    outs: Mapping[str, Path],
    *,
    quiet: bool,
    as_json: bool,
    directory: Path | None = None,
) -> None:
    """Make tables, write them and say what they hold.

    Args:
        context: of the command; its object is the command line.
        paths: PATHs.
        chosen: by the user.
        outs: the file of each table.
        quiet: print problems only.
        as_json: print a summary to standard output.
        directory: to make for the files, once it is known that there is something to do.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """
    started = time.monotonic()
    from spectra_cli.execution.plan import make_plan

    plan = make_plan(paths, chosen, tuple(outs))

    from spectra_cli.cli.progress import ProgressListener
    from spectra_cli.execution.local import Job

    listener = ProgressListener(plan.pass_count, quiet=quiet)
    job = Job(plan, listener)
    writing = Writing(outs, chosen.tags, chosen.columns_left_out, directory)
    write_tables(context, job, listener, writing, _ways(), quiet=quiet, as_json=as_json, started=started)


def write_tables(
    context: typer.Context,
    job: TableJob,
    listener: ProgressListener | EvaluationProgress,
    writing: Writing,
    ways: Mapping[str, Way],
    *,
    quiet: bool,
    as_json: bool,
    started: float,
    closing: Callable[[Mapping[str, Any]], Iterable[str]] = lambda _: (),
) -> None:
    """Do the work, write its tables and say what they hold.

    Args:
        context: of the command; its object is the command line.
        job: the work.
        listener: that the job tells how it goes on.
        writing: where the tables go.
        ways: how each is told.
        quiet: print problems only.
        as_json: print a summary to standard output.
        started: when the command began, as ``time.monotonic`` has it.
        closing: lines on what the job has found beside the rows.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """
    from spectra_cli.analyses.summary import Summary

    summaries: dict[str, Summary[Any]] = {table: Summary(ways[table].of_run) for table in writing.outs}

    def add(result: Results) -> None:
        for table, rows in result.tables.items():
            summaries[table].add(rows)

    usable, found = fill_tables(context, job, listener, writing, add)
    if as_json:
        output.json_line({**_json(writing.outs, summaries), **found, "problems": list(listener.problems)})
    if not quiet:
        _print_summaries(summaries, ways, writing.outs, elapsed_s=time.monotonic() - started)
        for line in closing(found):
            output.stderr_console().print(output.plain(line), soft_wrap=True)
    if not usable:
        raise typer.Exit(3)


def fill_tables(
    context: typer.Context,
    job: TableJob,
    listener: ProgressListener | EvaluationProgress,
    writing: Writing,
    take: Callable[[Any], None],
) -> tuple[bool, Mapping[str, Any]]:
    """Do the work and write its tables; they appear when all of it is done.

    Args:
        context: of the command; its object is the command line.
        job: the work.
        listener: that the job tells how it goes on.
        writing: where the tables go.
        take: shown every result when its rows have been written.

    Returns:
        Whether all could be used, and what the job has found beside the rows.

    Raises:
        SpectraError: if nothing could be done.
    """
    from spectra_cli.tables.writer import TableWriter, make_directory

    if writing.directory is not None:
        make_directory(writing.directory)
    usable = True
    metadata = job.metadata(["spectra", *(context.obj or ())])
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(
                TableWriter(out, table, tags=writing.tags, metadata=metadata, leave_out=writing.leave_out)
            )
            for table, out in writing.outs.items()
        }
        stack.enter_context(listener)
        for result in job.results():
            for table, rows in result.tables.items():
                writers[table].write(rows)
            take(result)
            usable = usable and result.usable
        found = job.found()
        for writer in writers.values():
            writer.annotate({f"spectra.{key}": json.dumps(value) for key, value in found.items()})
    return usable, found


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


def _json(outs: Mapping[str, Path], summaries: Mapping[str, Summary[Any]]) -> dict[str, Any]:
    """One table says what it is; several are listed."""
    each = [{"table": table, "out": str(out), **summaries[table].as_json()} for table, out in outs.items()]
    return each[0] if len(each) == 1 else {"tables": each}


def _print_summaries(
    summaries: Mapping[str, Summary[Any]], ways: Mapping[str, Way], outs: Mapping[str, Path], *, elapsed_s: float
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
        print_closing(console, outs[table], summary.statuses, f"from {counted(checkpoints, 'checkpoint')}{elapsed}")


def print_closing(console: Console, out: Path, statuses: Mapping[str, int], source: str) -> None:
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
        each = ", ".join(f"{status} ({count})" for status, count in skipped.items())
        console.print(f"{sum(skipped.values())} of {rows} not ok: {each}; see the column status")


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


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
