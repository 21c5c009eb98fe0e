"""`spectra rank`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.rank_summary import RankSummary, RunSummary

SHOWN_RUNS = 4
SHOWN_MATRICES = 3
NAME_WIDTH = 38
NUMBERS_WIDTH = 42


def rank(
    context: typer.Context,
    paths: options.Paths,
    steps: options.Steps = None,
    every: options.Every = None,
    log_spaced: options.LogSpaced = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    transposed: options.Transposed = None,
    skip_incomplete: options.SkipIncomplete = False,
    device: options.Device = "auto",
    memory_budget: options.MemoryBudget = None,
    out: options.RankOut = Path("rank.parquet"),
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compute the singular values of every weight matrix of every checkpoint, and statistics of them.

    Example: spectra rank runs/a --log-spaced 20 --out rank.parquet
    """
    from spectra_cli.checkpoints.selection import Selection
    from spectra_cli.execution.options import Options, parse_bytes, parse_tags
    from spectra_cli.execution.plan import make_plan

    started = time.monotonic()
    chosen = Options(
        selection=Selection(steps, every, log_spaced),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        transposed=tuple(transposed or ()),
        device=device,
        budget_bytes=parse_bytes(memory_budget) if memory_budget else None,
        skip_incomplete=skip_incomplete,
        tags=parse_tags(tag or ()),
    )
    plan = make_plan(paths, chosen)

    from spectra_cli.analyses.rank_summary import RankSummary
    from spectra_cli.cli.progress import ProgressListener
    from spectra_cli.execution.local import RankJob
    from spectra_cli.tables.writer import TableWriter

    summary = RankSummary()
    usable = True
    listener = ProgressListener(plan.checkpoint_count, quiet=quiet)
    job = RankJob(plan, listener)
    with (
        TableWriter(
            out, job.table, tags=chosen.tags, metadata=job.metadata(["spectra", *(context.obj or ())])
        ) as writer,
        listener,
    ):
        for result in job.results():
            writer.write(result.rows)
            summary.add(result.rows)
            usable = usable and result.usable
    if as_json:
        output.json_line({"table": job.table, "out": str(out), **summary.as_json(), "problems": listener.problems})
    if not quiet:
        _print_summary(summary, out, elapsed_s=time.monotonic() - started)
    if not usable:
        raise typer.Exit(3)


def _print_summary(summary: RankSummary, out: Path, *, elapsed_s: float) -> None:
    console = output.stderr_console()
    for name, run in list(summary.runs.items())[:SHOWN_RUNS]:
        _print_run(console, name, run)
    if len(summary.runs) > SHOWN_RUNS:
        console.print(f"... and {len(summary.runs) - SHOWN_RUNS} more runs")
    checkpoints = sum(run.checkpoints for run in summary.runs.values())
    console.print(
        f"{output.plain(str(out))}: {_count(summary.rows, 'row')} from {_count(checkpoints, 'checkpoint')} "
        f"in {elapsed_s:.1f} s",
        soft_wrap=True,
    )
    skipped = {status: count for status, count in summary.statuses.items() if status != "ok"}
    if skipped:
        each = ", ".join(f"{status} ({count})" for status, count in skipped.items())
        total = sum(skipped.values())
        console.print(f"{total} of {_count(summary.rows, 'row')} not ok: {each}; see the column status")


def _print_run(console: Console, name: str, run: RunSummary) -> None:
    from rich.table import Table

    ranked = run.by_compression()
    if not ranked:
        return
    moved = run.first_checkpoint != run.last_checkpoint
    console.print(output.plain(_title(name, run)), style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    name_width = max(NAME_WIDTH, console.width - NUMBERS_WIDTH)
    table.add_column("matrix (most compressed on top)", no_wrap=True, max_width=name_width)
    table.add_column("of R", justify="right")
    if moved:
        table.add_column("first", justify="right")
    table.add_column("last" if moved else "effective rank", justify="right")
    table.add_column("last/R" if moved else "divided by R", justify="right")
    if moved:
        table.add_column("change", justify="right")
    gap = len(ranked) > 2 * SHOWN_MATRICES + 1  # a line for one more matrix is better spent on the matrix
    shown = [*ranked[:SHOWN_MATRICES], None, *ranked[-SHOWN_MATRICES:]] if gap else list(ranked)
    for change in shown:
        if change is None:
            table.add_row(f"... {len(ranked) - 2 * SHOWN_MATRICES} between")
            continue
        cells = [output.plain(output.shortened(change.parameter, name_width)), str(min(change.rows, change.cols))]
        in_first, in_last = change.first_in == run.first_checkpoint, change.last_in == run.last_checkpoint
        cells += [f"{change.first:.1f}" if in_first else "-"] if moved else []
        cells += [f"{change.last:.1f}", f"{change.share:.3f}"] if in_last else ["-", "-"]
        whole = f"{round(change.last / change.first - 1.0, 2) + 0.0:+.0%}" if in_first and in_last else "-"
        cells += [whole] if moved else []
        table.add_row(*cells)
    console.print(table)
    console.print()


def _title(name: str, run: RunSummary) -> str:
    """One line of at most 80 columns: names are shortened only where they do not fit."""
    names = {"run": name, "first": run.first_checkpoint, "last": run.last_checkpoint}
    form = "Effective rank" if name == "." else "Effective rank in {run}"
    form += ", {last}" if run.first_checkpoint == run.last_checkpoint else ", {first} to {last}"
    title = form.format(**names)
    if output.width_of(title) <= output.NARROWEST:
        return title
    room = output.NARROWEST - len(form.format(run="", first="", last=""))
    return form.format(**{key: output.shortened(text, room // form.count("{")) for key, text in names.items()})


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
