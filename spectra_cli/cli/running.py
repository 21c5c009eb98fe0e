"""What the commands that write tables have in common: options, progress, files, and the closing lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectra_cli.cli import output

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.summary import Summary
    from spectra_cli.execution.options import Options

SHOWN_RUNS = 4


def chosen_options(
    *,
    steps: str | None,
    every: int | None,
    log_spaced: int | None,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    architecture: str | None,
    transposed: Sequence[str] | None,
    skip_incomplete: bool,
    device: str,
    memory_budget: str | None,
    tag: Sequence[str] | None,
    heads: int | None = None,
    kv_heads: int | None = None,
    full: bool = False,
    reference: str | None = None,
    against: str | None = None,
) -> Options:
    """The options of a command line, parsed.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.checkpoints.selection import Selection
    from spectra_cli.execution.options import Options, parse_bytes, parse_tags
    from spectra_cli.layers.fitting import StructureOptions

    return Options(
        selection=Selection(steps, every, log_spaced),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        transposed=tuple(transposed or ()),
        device=device,
        budget_bytes=parse_bytes(memory_budget) if memory_budget else None,
        skip_incomplete=skip_incomplete,
        tags=parse_tags(tag or ()),
        structure=StructureOptions(architecture, heads, kv_heads),
        full=full,
        reference=reference,
        against=against,
    )


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
    from spectra_cli.tables.writer import TableWriter, make_directory

    if directory is not None:
        make_directory(directory)
    summaries = _summaries(tuple(outs))
    usable = True
    listener = ProgressListener(plan.pass_count, quiet=quiet)
    job = Job(plan, listener)
    metadata = job.metadata(["spectra", *(context.obj or ())])
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(
                TableWriter(out, table, tags=chosen.tags, metadata=metadata, leave_out=chosen.columns_left_out)
            )
            for table, out in outs.items()
        }
        stack.enter_context(listener)
        for result in job.results():
            for table, rows in result.tables.items():
                writers[table].write(rows)
                summaries[table].add(rows)
            usable = usable and result.usable
    if as_json:
        output.json_line(_json(outs, summaries, listener.problems))
    if not quiet:
        _print_summaries(summaries, outs, elapsed_s=time.monotonic() - started)
    if not usable:
        raise typer.Exit(3)


def _summaries(tables: Sequence[str]) -> dict[str, Summary[Any]]:
    from spectra_cli.analyses.align_summary import RunAlignment
    from spectra_cli.analyses.rank_summary import RunRanks
    from spectra_cli.analyses.summary import Summary
    from spectra_cli.analyses.sva_summary import RunAgreement

    made: dict[str, type[Any]] = {"rank": RunRanks, "align": RunAlignment, "sva": RunAgreement}
    return {table: Summary(made[table]) for table in tables}


def _json(outs: Mapping[str, Path], summaries: Mapping[str, Summary[Any]], problems: Sequence[str]) -> dict[str, Any]:
    """One table says what it is; several are listed."""
    each = [{"table": table, "out": str(out), **summaries[table].as_json()} for table, out in outs.items()]
    return {**(each[0] if len(each) == 1 else {"tables": each}), "problems": list(problems)}


def _print_summaries(summaries: Mapping[str, Summary[Any]], outs: Mapping[str, Path], *, elapsed_s: float) -> None:
    from spectra_cli.cli.align import print_alignments
    from spectra_cli.cli.rank import print_ranks
    from spectra_cli.cli.sva import print_agreements

    console = output.stderr_console()
    printers: dict[str, Any] = {"rank": print_ranks, "align": print_alignments, "sva": print_agreements}
    shown = max(1, SHOWN_RUNS // len(summaries))
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary.runs))
    for name in names[:shown]:
        for table, summary in summaries.items():
            if name in summary.runs:
                printers[table](console, name, summary.runs[name])
    if len(names) > shown:
        console.print(f"... and {counted(len(names) - shown, 'more run')}")
    for table, summary in summaries.items():
        last = table == list(summaries)[-1]
        _print_closing(console, summary, outs[table], f" in {elapsed_s:.1f} s" if last else "")


def _print_closing(console: Console, summary: Summary[Any], out: Path, elapsed: str) -> None:
    checkpoints = sum(run.checkpoints for run in summary.runs.values())
    console.print(
        f"{output.plain(str(out))}: {counted(summary.rows, 'row')} from {counted(checkpoints, 'checkpoint')}{elapsed}",
        soft_wrap=True,
    )
    skipped = {status: count for status, count in summary.statuses.items() if status != "ok"}
    if skipped:
        each = ", ".join(f"{status} ({count})" for status, count in skipped.items())
        total = sum(skipped.values())
        console.print(f"{total} of {counted(summary.rows, 'row')} not ok: {each}; see the column status")


def print_title(console: Console, what: str, name: str, first: str, last: str) -> None:
    """Print what a table shows, of which run and checkpoints, in a line of at most 80 columns.

    Names are shortened only where they do not fit.
    """
    names = {"run": name, "first": first, "last": last}
    form = what.replace("{", "{{").replace("}", "}}") + ("" if name == "." else " in {run}")
    form += ", {last}" if first == last else ", {first} to {last}"
    title = form.format(**names)
    if output.width_of(title) > output.NARROWEST:
        room = output.NARROWEST - len(form.format(run="", first="", last=""))
        title = form.format(**{key: output.shortened(text, room // form.count("{")) for key, text in names.items()})
    console.print(output.plain(title), style="bold", soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """A number with its noun, which takes an s unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
