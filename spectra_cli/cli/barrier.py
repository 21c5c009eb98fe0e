"""`spectra barrier`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_cli.cli import options, output, parsing, running
from spectra_cli.shortening import counted, fitted_names, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.barrier_summary import BarrierSummary, Curve, PairSummary
    from spectra_cli.analyses.visits import Row
    from spectra_cli.cli.progress import Shown
    from spectra_cli.execution.evaluation.pairs import BarrierPlan
    from spectra_cli.execution.incremental.filling import PreparedWork

SHOWN_MATRICES = 5
SHOWN_CURVES = 12
SHOWN_PAIRS = 20
SHOWN_SPLITS = 2
METRIC_WIDTH = 24
NAME_WIDTH = 48
PAIR_WIDTH = 22
SPLIT_WIDTH = 11

TABLE = "barrier"
LINE = "The line between two checkpoints"

A = Annotated[
    str | None,
    typer.Argument(
        metavar="A",
        help="A checkpoint file, RUN@STEP such as runs/a@400, or a run, whose last checkpoint is taken.",
        show_default=False,
    ),
]
B = Annotated[str | None, typer.Argument(metavar="B", help="Another one, as A.", show_default=False)]
Alphas = Annotated[int, typer.Option(metavar="N", help="Points on the line, A and B among them.", rich_help_panel=LINE)]
Pairs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Many pairs in one table instead of A and B: a CSV file of two PATHs a line, relative to the working "
        "directory. With a first line a,b,NAME,... further columns become columns of the table.",
        rich_help_panel=LINE,
        show_default=False,
    ),
]
SpectraOut = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Also write the rank statistics of every matrix at every alpha to this Parquet file.",
        rich_help_panel=options.RESULT,
        show_default=False,
    ),
]
SvaOut = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Also write how the singular vectors of every matrix of B agree with those of A, as a table sva.",
        rich_help_panel=options.RESULT,
        show_default=False,
    ),
]


def barrier(
    context: typer.Context,
    a: A = None,
    b: B = None,
    alphas: Alphas = 11,
    pairs: Pairs = None,
    task: options.Task = None,
    settings: options.Set = None,
    data: options.Data = None,
    split: options.Split = None,
    batch_norm: options.BatchNorm = "reestimate",
    include: options.Include = None,
    exclude: options.Exclude = None,
    architecture: options.Architecture = None,
    transposed: options.Transposed = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    memory_budget: options.MemoryBudget = None,
    out: options.Out = "barrier.parquet",
    spectra_out: SpectraOut = None,
    sva_out: SvaOut = None,
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Evaluate a model along the line between two checkpoints: how high is the loss between them.

    Example: spectra barrier runs/a runs/b --out barrier.parquet
    """
    invocation = parsing.invocation_of(
        context,
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        verify=verify,
        quiet=quiet,
        as_json=as_json,
    )
    from spectra_cli.execution.evaluation.pairfile import given_pairs
    from spectra_cli.execution.evaluation.preparation import prepare_barrier

    given = given_pairs(a, b, pairs)
    chosen = parsing.chosen_options(
        include=include,
        exclude=exclude,
        architecture=architecture,
        transposed=transposed,
        device=device,
        memory_budget=memory_budget,
        tag=tag,
    )
    task_options = parsing.chosen_task(task=task, settings=settings, data=data, split=split, batch_norm=batch_norm)
    further = {"barrier_spectra": spectra_out, "sva": sva_out}
    outs = {TABLE: out} | {table: path for table, path in further.items() if path is not None}
    request = running.request_of(invocation, chosen, outs)

    def listener_of(plan: BarrierPlan) -> Shown:
        from spectra_cli.cli.progress import EvaluationProgress

        return EvaluationProgress(len(plan.pairs), quiet=invocation.quiet, told=invocation.told)

    def prepare() -> PreparedWork[Shown]:
        return prepare_barrier(given, task_options, alphas, request, listener_of)

    running.write_tables(invocation, prepare, PairSummaries)


class PairSummaries:
    """Tables whose rows are shown pair by pair."""

    def __init__(self) -> None:
        from spectra_cli.analyses.barrier_summary import BarrierSummary

        self._barriers = BarrierSummary()
        self._statuses: dict[str, Counter[str]] = {}

    def add(self, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> None:
        """Take in a pair."""
        from spectra_cli.execution.evaluation.barrier import agreement_of

        self._barriers.add(tables[TABLE], agreement_of(facts))
        for table, rows in tables.items():
            self._statuses.setdefault(table, Counter()).update(row["status"] for row in rows)

    def as_json(self, table: str) -> dict[str, Any]:
        """What a table holds, for programs; that of barriers, the agreement of the ends as well."""
        if table == TABLE:
            return self._barriers.as_json()
        statuses = self.statuses(table)
        return {"rows": sum(statuses.values()), "statuses": dict(statuses)}

    def show(self, console: Console) -> None:
        """Print the barriers."""
        print_barriers(console, self._barriers)

    def statuses(self, table: str) -> Mapping[str, int]:
        """How many rows of a table have each status."""
        return self._statuses.get(table, Counter())

    def units(self, _table: str) -> str:
        """How many pairs there are, each with rows in every table."""
        return counted(len(self._barriers.pairs), "pair")


def print_barriers(console: Console, summary: BarrierSummary) -> None:
    """Print the barriers: of one pair every curve, of several a line for each."""
    usable = [pair for pair in summary.pairs if pair.curves]
    if len(summary.pairs) > 1:
        _print_pairs(console, usable)
    elif usable:
        _print_pair(console, usable[0])


def _print_pair(console: Console, pair: PairSummary) -> None:
    from rich.table import Table

    room = (output.NARROWEST - len("Barrier between  and ")) // 2
    a, b = (output.plain(shortened(label, room)) for label in pair.labels)
    console.print(f"Barrier between {a} and {b}", style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    middle = pair.curves[0].middle
    between = [] if middle is None else [f"at {middle:.2g}"]
    for heading in ("at A", *between, "at B", "barrier", "over midpoint"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in pair.curves[:SHOWN_CURVES]:
        inside = [] if middle is None else [curve.at_middle]
        numbers = (curve.at_a, *inside, curve.at_b, curve.barrier, curve.barrier_midpoint)
        table.add_row(_metric(curve, METRIC_WIDTH), *map(output.number, numbers))
    if len(pair.curves) > SHOWN_CURVES:
        table.add_row(f"... and {len(pair.curves) - SHOWN_CURVES} more")
    console.print(table)
    console.print("barrier: max of value - chord; over midpoint: max of value - mean of the ends")
    console.print()
    if pair.agreement:
        _print_agreement(console, pair)


def _print_agreement(console: Console, pair: PairSummary) -> None:
    from rich.table import Table

    shown = pair.agreement[:SHOWN_MATRICES]
    over = "1 matrix" if len(pair.agreement) == 1 else f"{len(pair.agreement)} matrices"
    console.print(f"Agreement of A and B: mean score {pair.mean_agreement:.3f} over {over}", style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("matrix", no_wrap=True)
    table.add_column("rows x cols", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    names = fitted_names([row["parameter"] for row in shown], NAME_WIDTH)
    for fitted, row in zip(names, shown, strict=True):
        table.add_row(output.plain(fitted), f"{row['rows']} x {row['cols']}", f"{row['score']:.3f}")
    if len(pair.agreement) > len(shown):
        table.add_row(f"... and {counted(len(pair.agreement) - len(shown), 'smaller one')}")
    console.print(table)
    console.print()


def _print_pairs(console: Console, pairs: Sequence[PairSummary]) -> None:
    """One line for each pair: the barrier of the first metric of each split, and the mean agreement of the ends."""
    from rich.table import Table

    leading: dict[str, Curve] = {}
    for curve in (curve for pair in pairs for curve in pair.curves):
        leading.setdefault(curve.split, curve)
    columns = list(leading.values())[:SHOWN_SPLITS]
    if not columns:
        return
    console.print("Barriers, and mean agreement of A and B", style="bold")
    table = Table(box=None, pad_edge=False)
    for side in "AB":
        table.add_column(side, no_wrap=True)
    for curve in columns:
        table.add_column(_metric(curve, SPLIT_WIDTH), justify="right", no_wrap=True)
    table.add_column("agreement", justify="right", no_wrap=True)
    for pair in pairs[:SHOWN_PAIRS]:
        barriers = {(curve.split, curve.metric): curve.barrier for curve in pair.curves}
        names = (output.plain(shortened(label, PAIR_WIDTH)) for label in pair.labels)
        numbers = (output.number(barriers.get((curve.split, curve.metric))) for curve in columns)
        table.add_row(*names, *numbers, "-" if pair.mean_agreement is None else f"{pair.mean_agreement:.3f}")
    if len(pairs) > SHOWN_PAIRS:
        table.add_row(f"... and {len(pairs) - SHOWN_PAIRS} more")
    console.print(table)
    console.print()


def _metric(curve: Curve, width: int) -> str:
    return output.plain(shortened(f"{curve.split} {curve.metric}", width))
