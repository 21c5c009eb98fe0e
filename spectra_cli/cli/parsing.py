"""The options of a command line, parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_cli.errors import UsageError

if TYPE_CHECKING:
    import typer

    from spectra_cli.cli.invocation import Invocation
    from spectra_cli.execution.planning.options import Options, TaskOptions


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
    from spectra_cli.execution.planning.options import Options, parse_bytes, parse_tags
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


def chosen_task(
    *,
    task: str | None,
    settings: Sequence[str] | None,
    data: str | None,
    split: Sequence[str] | None,
    batch_norm: str,
    output_layer: str | None = None,
) -> TaskOptions:
    """The options of a command line that are about the task, parsed.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.execution.planning.options import TaskOptions
    from spectra_cli.tasks.options import split_settings

    given = [*(settings or ()), *([] if data is None else [f"data={data}"])]
    return TaskOptions(task, split_settings(given), tuple(split or ()), batch_norm, output_layer)


def invocation_of(
    context: typer.Context,
    *,
    workers: int | None,
    scheduler: str | None,
    fresh: bool,
    verify: bool,
    watch: float | None = None,
    quiet: bool,
    as_json: bool,
) -> Invocation:
    """How a command is to go about it, as its options say.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.cli.invocation import Invocation
    from spectra_cli.execution.planning.options import ExecutionOptions

    if watch is not None and not watch > 0:
        raise UsageError(f"--watch {watch:g} is no time", remedy="Give seconds, such as 60")
    if watch is not None and fresh:
        raise UsageError("--watch and --fresh exclude each other", remedy="Start over once, then watch")
    execution = ExecutionOptions(workers, scheduler, fresh=fresh, verify=verify)
    return Invocation(tuple(context.obj or ()), execution, quiet=quiet, as_json=as_json, watch_s=watch)
