"""`spectra align`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output, parsing, running, summaries
from spectra_cli.cli.summaries import RunView

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.align_summary import RunAlignment


def align(
    context: typer.Context,
    paths: options.Paths,
    steps: options.Steps = None,
    every: options.Every = None,
    log_spaced: options.LogSpaced = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    architecture: options.Architecture = None,
    heads: options.Heads = None,
    kv_heads: options.KvHeads = None,
    transposed: options.Transposed = None,
    skip_incomplete: options.SkipIncomplete = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    watch: options.Watch = None,
    memory_budget: options.MemoryBudget = None,
    out: options.Out = "align.parquet",
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    full: options.Full = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare what each matrix gives with what the next one reads: alignment of their singular vectors.

    Example: spectra align runs/a --steps first,final --out align.parquet
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
        heads=heads,
        kv_heads=kv_heads,
        full=full,
    )
    running.run_tables(invocation, paths, chosen, {"align": out}, views)


def views() -> dict[str, RunView]:
    """How the table is shown."""
    from spectra_cli.analyses.align_summary import RunAlignment

    return {"align": RunView(RunAlignment, print_alignments)}


def print_alignments(console: Console, name: str, run: RunAlignment) -> None:
    """Print the mean score of every kind of connection of a run."""
    from rich.table import Table

    connections = run.by_connection()
    if not connections:
        return
    moved = run.first_checkpoint != run.last_checkpoint
    summaries.print_title(console, "Alignment score", name, run.first_checkpoint, run.last_checkpoint)
    table = Table(box=None, pad_edge=False)
    table.add_column("connection", no_wrap=True)
    for heading in ("pairs", "first", "last", "chance") if moved else ("pairs", "score", "chance"):
        table.add_column(heading, justify="right")
    for kind in connections:
        scores = [kind.first, kind.last, kind.chance] if moved else [kind.last, kind.chance]
        cells = ["-" if number is None else f"{number:.3f}" for number in scores]
        table.add_row(output.plain(kind.connection), str(kind.pairs), *cells)
    console.print(table)
    console.print("mean over pairs and their heads; chance: what random vectors would give")
    console.print()
