"""`spectra prune-eval`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_cli.cli import options, output, parsing, running, summaries
from spectra_cli.shortening import counted, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.prune_summary import RunPrunedAgreement, RunPruning
    from spectra_cli.analyses.pruning import Pruning
    from spectra_cli.cli.invocation import Invocation
    from spectra_cli.cli.progress import Shown
    from spectra_cli.execution.incremental.filling import PreparedWork
    from spectra_cli.execution.planning.options import Options, TaskOptions
    from spectra_cli.execution.planning.plan import Plan

PRUNING = "What is left of the weights"
SHOWN_STEPS = 5
SHOWN_OTHERS = 6
SHOWN_ROWS = 25
"""Rows of a summary; with what stands around them, it has 30 lines."""

METRIC_WIDTH, STEP_WIDTH = 16, 8

Keep = Annotated[
    float,
    typer.Option(
        metavar="FRACTION",
        help="Singular components that top keeps of every matrix, such as 0.5, rounded up; bottom has the others.",
        rich_help_panel=PRUNING,
    ),
]
MaskKeep = Annotated[
    float,
    typer.Option(
        metavar="FRACTION",
        help="Entries that the two masks keep, such as 0.05, rounded up.",
        rich_help_panel=PRUNING,
    ),
]
MaskSeed = Annotated[int, typer.Option(metavar="N", help="Seed of the random masks.", rich_help_panel=PRUNING)]
Variants = Annotated[
    str, typer.Option(metavar="LIST", help="What to evaluate, separated by commas.", rich_help_panel=PRUNING)
]
SvaOut = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Also write how the singular vectors of every pruned matrix agree with those of the whole one, as a table "
        "sva with the column variant.",
        rich_help_panel=options.RESULT,
        show_default=False,
    ),
]


def prune_eval(
    context: typer.Context,
    paths: options.Paths,
    task: options.Task = None,
    settings: options.Set = None,
    data: options.Data = None,
    split: options.Split = None,
    batch_norm: options.BatchNorm = "reestimate",
    keep: Keep = 0.5,
    mask_keep: MaskKeep = 0.05,
    mask_seed: MaskSeed = 0,
    variants: Variants = "full,top,bottom,magnitude,random",
    steps: options.Steps = None,
    every: options.Every = None,
    log_spaced: options.LogSpaced = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    output_layer: options.OutputLayer = None,
    architecture: options.Architecture = None,
    transposed: options.Transposed = None,
    skip_incomplete: options.SkipIncomplete = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
    watch: options.Watch = None,
    memory_budget: options.MemoryBudget = None,
    out: options.Out = "prune_eval.parquet",
    sva_out: SvaOut = None,
    fresh: options.Fresh = False,
    verify: options.Verify = False,
    tag: options.Tag = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Evaluate every checkpoint with parts of its weights: singular components, the largest entries, random ones.

    Example: spectra prune-eval runs/a --keep 0.5 --out prune_eval.parquet
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
    task_options = parsing.chosen_task(
        task=task, settings=settings, data=data, split=split, batch_norm=batch_norm, output_layer=output_layer
    )
    from spectra_cli.analyses.pruning import Pruning, listed_variants

    pruning = Pruning(listed_variants([variants]), keep, mask_keep, mask_seed)
    outs = {"prune_eval": out} | ({} if sva_out is None else {"sva": sva_out})
    _evaluate(invocation, paths, chosen, task_options, pruning, outs)


def _evaluate(
    invocation: Invocation,
    paths: Sequence[str],
    chosen: Options,
    task_options: TaskOptions,
    pruning: Pruning,
    outs: Mapping[str, str],
) -> None:
    """Do the work, write its tables and say what they hold.

    Raises:
        typer.Exit: with status 3 if something could not be used.
        SpectraError: if nothing could be done.
    """
    from spectra_cli.execution.evaluation.preparation import prepare_prune_eval

    request = running.request_of(invocation, chosen, outs)

    def listener_of(plan: Plan) -> Shown:
        from spectra_cli.cli.progress import EvaluationProgress

        return EvaluationProgress(plan.checkpoint_count, quiet=invocation.quiet, told=invocation.told)

    def prepare() -> PreparedWork[Shown]:
        return prepare_prune_eval(paths, task_options, pruning, request, listener_of)

    def summaries_of() -> summaries.RunSummaries:
        known = views()
        return summaries.RunSummaries({table: known[table] for table in outs})

    running.write_tables(invocation, prepare, summaries_of, closing=left_alone)


def views() -> dict[str, summaries.RunView]:
    """How the tables are shown."""
    from spectra_cli.analyses.prune_summary import RunPrunedAgreement, RunPruning

    return {
        "prune_eval": summaries.RunView(RunPruning, print_pruning),
        "sva": summaries.RunView(RunPrunedAgreement, print_agreement),
    }


def print_pruning(console: Console, name: str, run: RunPruning) -> None:
    """Print the metrics of every variant at some checkpoints of a run; of many, those but the loss at the last only."""
    from rich.table import Table

    moments = run.shown(SHOWN_STEPS)
    if not moments:
        return
    summaries.print_title(console, "Pruned weights", name, moments[0].checkpoint, moments[-1].checkpoint)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("step", no_wrap=True)
    for variant in run.variants:
        table.add_column(variant, justify="right", no_wrap=True)
    leading, others = run.metrics()
    all_fit = len(moments) * (len(leading) + len(others)) <= SHOWN_ROWS
    shown = others if all_fit else others[:SHOWN_OTHERS]
    for split, metric in [*leading, *shown]:
        label = output.plain(shortened(f"{split} {metric}", METRIC_WIDTH))
        for moment in moments if all_fit or (split, metric) in leading else moments[-1:]:
            when = output.plain(shortened(moment.name, STEP_WIDTH))
            values = moment.values.get((split, metric), {})
            table.add_row(label, when, *(output.number(values.get(variant)) for variant in run.variants))
            label = ""
    console.print(table)
    if more := _more(run.checkpoints - len(moments), len(others) - len(shown), all_fit=all_fit):
        console.print(f"... {more} in the table")
    if kept := _kept(run.variants):
        console.print(kept, soft_wrap=True)
    console.print()


def _more(steps: int, metrics: int, *, all_fit: bool) -> str:
    """What is not shown."""
    said = ["more steps"] if steps or not all_fit else []
    said += [counted(metrics, "more metric")] if metrics else []
    return " and ".join(said)


def _kept(variants: Mapping[str, float]) -> str:
    """What the variants keep, in a line."""
    said = [f"top {variants['top']:g} of the components"] if "top" in variants else []
    if "bottom" in variants:
        said.append("bottom the rest" if said else f"bottom all but {variants['bottom']:g} of the components")
    masks = [variants[mask] for mask in ("magnitude", "random") if mask in variants]
    said += [f"masks {keep:g} of the entries" for keep in masks[:1]]
    return f"kept: {', '.join(said)}" if said else ""


def print_agreement(console: Console, name: str, run: RunPrunedAgreement) -> None:
    """Print how far the pruned matrices of the last checkpoint agree with the whole ones."""
    if not run.scores:
        return
    summaries.print_title(console, "Agreement with the whole matrices", name, run.last_checkpoint, run.last_checkpoint)
    each = (f"{variant} {score:.3f}" for variant, score in run.scores.items())
    console.print(f"mean score: {', '.join(each)}", soft_wrap=True)
    console.print()


def left_alone(found: Mapping[str, Any]) -> Iterable[str]:
    """One line on the output layers, for each of those that differ."""
    from spectra_cli.execution.planning.messages import shown

    runs: dict[tuple[str, ...], list[str]] = {}
    for name, parameters in found["output_layers"].items():
        runs.setdefault(tuple(parameters), []).append(name)
    for parameters, names in runs.items():
        which = f" in {shown(names, 3)}" if len(runs) > 1 else ""
        yield f"left as it is{which}: {shown(parameters, 3)}"
