"""`spectra rank`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output, parsing, running, summaries
from spectra_cli.cli.summaries import RunView
from spectra_cli.shortening import fitted_names

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.rank_summary import RunRanks

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
    architecture: options.Architecture = None,
    transposed: options.Transposed = None,
    skip_incomplete: options.SkipIncomplete = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    watch: options.Watch = None,
    memory_budget: options.MemoryBudget = None,
    out: options.Out = "rank.parquet",
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compute the singular values of every weight matrix of every checkpoint, and statistics of them.

    Example: spectra rank runs/a --log-spaced 20 --out rank.parquet
    """
    invocation = parsing.invocation_of(
        context,
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        verify=verify,
        watch=watch,
        quiet=quiet,
        as_json=as_json,
    )
    chosen = parsing.chosen_options(
        steps=steps,
        every=every,
        log_spaced=log_spaced,
        include=include,
        exclude=exclude,
        architecture=architecture,
        transposed=transposed,
        skip_incomplete=skip_incomplete,
        device=device,
        memory_budget=memory_budget,
        tag=tag,
    )
    running.run_tables(invocation, paths, chosen, {"rank": out}, views)


def views() -> dict[str, RunView]:
    """How the table is shown."""
    from spectra_cli.analyses.rank_summary import RunRanks

    return {"rank": RunView(RunRanks, print_ranks)}


def print_ranks(console: Console, name: str, run: RunRanks) -> None:
    """Print the most and the least compressed matrices of a run."""
    from rich.table import Table

    ranked = run.by_compression()
    if not ranked:
        return
    moved = run.first_checkpoint != run.last_checkpoint
    summaries.print_title(console, "Effective rank", name, run.first_checkpoint, run.last_checkpoint)
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
    names = iter(fitted_names([change.parameter for change in shown if change is not None], name_width))
    for change in shown:
        if change is None:
            table.add_row(f"... {len(ranked) - 2 * SHOWN_MATRICES} between")
            continue
        cells = [output.plain(next(names)), str(min(change.rows, change.cols))]
        in_first, in_last = change.first_in == run.first_checkpoint, change.last_in == run.last_checkpoint
        cells += [f"{change.first:.1f}" if in_first else "-"] if moved else []
        cells += [f"{change.last:.1f}", f"{change.share:.3f}"] if in_last else ["-", "-"]
        whole = _percent(change.last / change.first - 1.0) if in_first and in_last else "-"
        cells += [whole] if moved else []
        table.add_row(*cells)
    console.print(table)
    console.print()


def _percent(change: float) -> str:
    """A change in whole percents, without a sign where it rounds to none."""
    rounded = round(change, 2)
    return f"{rounded:+.0%}" if rounded else "0%"
