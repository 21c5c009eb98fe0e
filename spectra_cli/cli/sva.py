"""`spectra sva`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output, parsing, running
from spectra_cli.cli.summaries import RunView
from spectra_cli.shortening import fitted_names, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.sva_summary import RunAgreement

SHOWN_MATRICES = 8
NAME_WIDTH = 38
NUMBERS_WIDTH = 42


def sva(
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
    transposed: options.Transposed = None,
    skip_incomplete: options.SkipIncomplete = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    watch: options.Watch = None,
    memory_budget: options.MemoryBudget = None,
    out: options.Out = "sva.parquet",
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare the singular vectors of every matrix with those of a reference checkpoint: their agreement.

    Example: spectra sva runs/a --reference first --out sva.parquet
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
        reference=reference,
        against=against,
    )
    running.run_tables(invocation, paths, chosen, {"sva": out}, views)


def views() -> dict[str, RunView]:
    """How the table is shown."""
    from spectra_cli.analyses.sva_summary import RunAgreement

    return {"sva": RunView(RunAgreement, print_agreements)}


def print_agreements(console: Console, name: str, run: RunAgreement) -> None:
    """Print since when the vectors of the matrices of a run agree with the reference."""
    from rich.table import Table

    from spectra_cli.analyses.sva_summary import BANDS, SETTLED

    matrices = list(run.matrices.values())
    if not matrices:
        return
    moved = run.first_checkpoint != run.last_checkpoint
    console.print(output.plain(shortened(_title(name, run), output.NARROWEST)), style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    name_width = max(NAME_WIDTH, console.width - NUMBERS_WIDTH)
    table.add_column("matrix", no_wrap=True, max_width=name_width)
    table.add_column("first" if moved else "score", justify="right")
    if moved:
        table.add_column("last", justify="right")
        for start, stop in BANDS:
            table.add_column(f"i={start}" if start == stop else f"{start}-{stop}", justify="right")
    shown = matrices[:SHOWN_MATRICES]
    names = fitted_names([matrix.parameter for matrix in shown], name_width)
    for fitted, matrix in zip(names, shown, strict=True):
        cells = [output.plain(fitted), f"{matrix.first:.3f}"]
        if moved:
            cells.append(f"{matrix.last:.3f}")
            cells += [output.plain("-" if since is None else since) for since in matrix.since]
        table.add_row(*cells)
    if len(matrices) > SHOWN_MATRICES:
        table.add_row(f"... and {len(matrices) - SHOWN_MATRICES} more")
    console.print(table)
    if moved:
        ends = f"first ({run.first_checkpoint}), last ({run.last_checkpoint}): mean S_ii over i <= 10"
        console.print(output.plain(ends), soft_wrap=True)
        console.print(f"i=1, 2-10, 11-100: the step since which these S_ii are {SETTLED} on average; -: never")
    console.print()


def _title(name: str, run: RunAgreement) -> str:
    in_run = "" if name == "." else f" in {name}"
    if len(run.references) == 1:
        owner = "" if run.reference_run == name else f" of {run.reference_run}"
        return f"Agreement with {run.reference}{owner}{in_run}"
    if run.reference_run != name:
        return f"Agreement with {run.reference_run}, step by step{in_run}"
    return f"Agreement with the checkpoint before{in_run}"
