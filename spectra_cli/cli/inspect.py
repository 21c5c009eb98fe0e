"""`spectra inspect`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectra_cli.analyses.contents import CheckpointContents, RunContents
    from spectra_cli.layers.inventory import Inventory
    from spectra_cli.layers.matricize import MatrixSpec

SHOWN_CHECKPOINTS = 20
SHOWN_NAMES = 3


def inspect(
    paths: options.Paths,
    steps: options.Steps = None,
    every: options.Every = None,
    log_spaced: options.LogSpaced = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    transposed: options.Transposed = None,
    as_json: options.Json = False,
) -> None:
    """Show runs, checkpoints, matrices, and everything that is skipped and why. Reads headers only.

    Example: spectra inspect runs/a
    """
    from spectra_cli.analyses.contents import contents_of
    from spectra_cli.checkpoints.selection import Selection
    from spectra_cli.execution.plan import find_runs

    runs = find_runs(paths, Selection(steps, every, log_spaced))

    def selected(inventory: Inventory) -> dict[int, MatrixSpec]:
        return inventory.selected(tuple(include or ()), tuple(exclude or ()))

    opened = [contents_of(run, tuple(transposed or ()), lambda: None) for run in runs]
    if as_json:
        output.json_line({"runs": [contents.as_json(selected) for contents in opened]})
    else:
        console = output.stdout_console()
        for contents in opened:
            _print_run(console, contents, selected)
    if any(contents.problem for run in opened for contents in run.checkpoints):
        raise typer.Exit(3 if any(run.typical for run in opened) else 1)


def _print_run(console: Console, contents: RunContents, selected: Callable[[Inventory], dict[int, MatrixSpec]]) -> None:
    from rich.markup import escape

    run = contents.run
    console.rule(f"[bold]run {escape(run.name)}[/]", align="left")
    typical = contents.typical
    if contents.architecture:
        console.print(f"architecture {escape(contents.architecture)} (config.json)")
    console.print(_checkpoint_table(contents))
    for problem in [checkpoint.problem for checkpoint in contents.checkpoints if checkpoint.problem]:
        output.warn(problem, console)
    for name, difference in list(contents.differing.items())[:SHOWN_NAMES]:
        output.warn(f"{name} {difference}, unlike {typical.checkpoint.name if typical else ''}", console)
    if typical is not None and typical.inventory is not None:
        _print_inventory(console, typical, selected(typical.inventory))
    if run.passed_over:
        console.print(_grouped("passed over", ((item.reason, item.name) for item in run.passed_over)))
    console.print()


def _print_inventory(console: Console, contents: CheckpointContents, matrices: dict[int, MatrixSpec]) -> None:
    from spectra_cli.analyses.contents import working_memory_bytes
    from spectra_cli.spectrum.memory import to_mebibytes

    console.print(_matrix_table(contents, matrices))
    needed = to_mebibytes(working_memory_bytes(matrices.values()))
    console.print(f"working memory for `spectra rank`: at most {needed} MiB beyond the interpreter")
    inventory = contents.inventory
    if inventory is not None and inventory.skipped:
        console.print(_grouped("not matrices", ((item.reason, item.name) for item in inventory.skipped)))
    for note in contents.notes:
        output.warn(note, console)


def _plain_table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _checkpoint_table(contents: RunContents) -> Table:
    from rich.markup import escape

    checkpoints = contents.checkpoints
    table = _plain_table(f"{len(checkpoints)} checkpoint{'' if len(checkpoints) == 1 else 's'}")
    table.add_column("checkpoint", overflow="fold")
    for heading in ("step", "epoch"):
        table.add_column(heading, justify="right")
    table.add_column("format")
    table.add_column("status")
    half = SHOWN_CHECKPOINTS // 2
    cut = len(checkpoints) > SHOWN_CHECKPOINTS
    shown = [*checkpoints[:half], *checkpoints[-half:]] if cut else list(checkpoints)
    for place, item in enumerate(shown):
        if cut and place == half:
            table.add_row(f"... {len(checkpoints) - SHOWN_CHECKPOINTS} between", "", "", "", "")
        moment = ("" if number is None else str(number) for number in (item.checkpoint.step, item.checkpoint.epoch))
        table.add_row(escape(item.checkpoint.name), *moment, item.format or "", item.status)
    return table


def _matrix_table(contents: CheckpointContents, matrices: dict[int, MatrixSpec]) -> Table:
    from rich.markup import escape

    total = len(contents.inventory.matrices) if contents.inventory else 0
    count = f"{total} matri{'x' if total == 1 else 'ces'}"
    if len(matrices) < total:
        count = f"{len(matrices)} of {count}"
    table = _plain_table(escape(f"{count} (as in {contents.checkpoint.name})"))
    table.add_column("depth", justify="right")
    table.add_column("parameter", overflow="fold")
    table.add_column("kind")
    table.add_column("rows x cols", justify="right", no_wrap=True)
    table.add_column("dtype")
    remarks = {depth: _remark(spec) for depth, spec in matrices.items()}
    if any(remarks.values()):
        table.add_column("read as", overflow="fold")
    for depth, spec in matrices.items():
        cells = [str(depth), escape(spec.parameter), spec.kind, f"{spec.rows} x {spec.cols}", spec.tensor.dtype]
        table.add_row(*cells, *([escape(remarks[depth])] if any(remarks.values()) else []))
    return table


def _remark(spec: MatrixSpec) -> str:
    if not spec.tensor.is_floating:
        return "not analysed: complex"
    return f"{spec.layout}: {spec.reason}" if spec.reason else ""


def _grouped(title: str, items: Iterable[tuple[str, str]]) -> Table:
    """One line per reason, with how many there are and the first names."""
    from rich.markup import escape

    names: dict[str, list[str]] = defaultdict(list)
    for reason, name in items:
        names[reason].append(name)
    table = _plain_table(f"{sum(map(len, names.values()))} {title}")
    table.add_column("why", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("which", overflow="fold")
    for reason, group in names.items():
        more = ", ..." if len(group) > SHOWN_NAMES else ""
        table.add_row(escape(reason), str(len(group)), escape(", ".join(group[:SHOWN_NAMES])) + more)
    return table
