"""`spectra analyze`."""

from __future__ import annotations

import typer

from spectra_cli.cli import align, options, parsing, rank, running, sva
from spectra_cli.cli.summaries import RunView


def analyze(
    context: typer.Context,
    paths: options.Paths,
    reference: options.Reference = None,
    against: options.Against = None,
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
    out: options.OutDirectory = "analyze",
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    full: options.Full = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make the tables of rank, align and sva in one pass: every matrix is read once and factorized once.

    Example: spectra analyze runs/a --out tables
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
        reference=reference,
        against=against,
    )
    outs = {table: f"{out.rstrip('/')}/{table}.parquet" for table in ("rank", "align", "sva")}
    running.run_tables(invocation, paths, chosen, outs, views, directory=out)


def views() -> dict[str, RunView]:
    """How each of the tables is shown."""
    return {**rank.views(), **align.views(), **sva.views()}
