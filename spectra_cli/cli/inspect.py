"""`spectra inspect`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

import typer

from spectra_cli.cli import options, output
from spectra_cli.cli.listings import SHOWN_NAMES, grouped, plain_table
from spectra_cli.cli.structure import print_connections, print_families

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectra_cli.analyses.contents import CheckpointContents, RunContents
    from spectra_cli.layers.fitting import StructureOptions
    from spectra_cli.layers.inventory import Inventory
    from spectra_cli.layers.matricize import MatrixSpec

SHOWN_CHECKPOINTS = 20


def inspect(
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
    as_json: options.Json = False,
) -> None:
    """Show runs, checkpoints, matrices, who feeds whom, and everything that is skipped and why. Reads headers only.

    Example: spectra inspect runs/a
    """
    from spectra_cli.analyses.contents import contents_of
    from spectra_cli.checkpoints.selection import Selection
    from spectra_cli.execution.planning.plan import find_runs
    from spectra_cli.layers.fitting import StructureOptions

    runs = find_runs(paths, Selection(steps, every, log_spaced))

    def selected(inventory: Inventory) -> dict[int, MatrixSpec]:
        return inventory.selected(tuple(include or ()), tuple(exclude or ()))

    structure = StructureOptions(architecture, heads, kv_heads)
    structure.families()
    opened = [contents_of(run, tuple(transposed or ()), structure) for run in runs]
    if as_json:
        output.json_line({"runs": [contents.as_json(selected) for contents in opened]})
    else:
        console = output.stdout_console()
        for contents in opened:
            _print_run(console, contents, selected, structure)
    if any(contents.problem for run in opened for contents in run.checkpoints):
        raise typer.Exit(3 if any(run.typical for run in opened) else 1)


def _print_run(
    console: Console,
    contents: RunContents,
    selected: Callable[[Inventory], dict[int, MatrixSpec]],
    structure: StructureOptions,
) -> None:
    run, checkpoints = contents.run, contents.checkpoints
    console.rule(f"[bold]run {output.plain(run.name)}[/]", align="left")
    typical = contents.typical
    if contents.architecture:
        console.print(f"architecture in config.json: {output.plain(contents.architecture)}")
    console.print(_checkpoint_table(contents))
    for problem in [checkpoint.problem for checkpoint in checkpoints if checkpoint.problem]:
        output.warn(problem, console)
    for name, difference in list(contents.differing.items())[:SHOWN_NAMES]:
        output.warn(f"{name} {difference}, unlike {typical.checkpoint.name if typical else ''}", console)
    if typical is not None and typical.inventory is not None:
        print_families(console, typical.inventory, structure)
        console.print()
        _print_inventory(console, typical, selected(typical.inventory), several=len(checkpoints) > 1)
    if run.passed_over:
        console.print(grouped("passed over", ((item.reason, item.name) for item in run.passed_over), console.width))
    console.print()


def _print_inventory(
    console: Console, contents: CheckpointContents, matrices: dict[int, MatrixSpec], *, several: bool
) -> None:
    console.print(_matrix_table(contents, matrices))
    for explanation in sorted({explanation for spec in matrices.values() if (explanation := _explanation(spec))}):
        console.print(output.plain(explanation))
    prefix = _removed_prefix(matrices.values())
    if prefix:
        console.print(f"names are shown without the prefix '{output.plain(prefix)}'")
    _print_memory(console, matrices.values(), several=several)
    console.print()
    inventory = contents.inventory
    if inventory is not None:
        print_connections(console, inventory, matrices)
    if inventory is not None and inventory.skipped:
        others = ((item.reason, item.name.removeprefix(prefix)) for item in inventory.skipped)
        console.print(grouped("tensors that are not matrices", others, console.width))
    for note in contents.notes:
        output.warn(note, console)


def _print_memory(console: Console, matrices: Collection[MatrixSpec], *, several: bool) -> None:
    from spectra_cli.analyses.contents import read_ahead_bytes, reference_vector_bytes, working_memory_bytes
    from spectra_cli.spectrum.memory import LEADING_VECTORS, readable_bytes

    for_values, for_vectors = (
        readable_bytes(working_memory_bytes(matrices, vectors)) for vectors in (0, LEADING_VECTORS)
    )
    kept = readable_bytes(reference_vector_bytes(matrices))
    console.print(f"working memory for `spectra rank`: about {for_values} beyond the interpreter")
    console.print(
        f"for `spectra analyze`: about {for_vectors}, and as far as the memory budget allows {kept} each for the "
        "vectors of the reference and of the checkpoint before"
    )
    if several:
        console.print(f"the next checkpoint, which is read ahead: up to {readable_bytes(read_ahead_bytes(matrices))}")


def _checkpoint_table(contents: RunContents) -> Table:
    checkpoints = contents.checkpoints
    table = plain_table(f"{len(checkpoints)} checkpoint{'' if len(checkpoints) == 1 else 's'}")
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
        table.add_row(output.plain(item.checkpoint.name), *moment, item.format or "", item.status)
    return table


def _matrix_table(contents: CheckpointContents, matrices: dict[int, MatrixSpec]) -> Table:
    total = len(contents.inventory.matrices) if contents.inventory else 0
    count = f"{total} matri{'x' if total == 1 else 'ces'}"
    if len(matrices) < total:
        count = f"{len(matrices)} of {count}"
    table = plain_table(output.plain(f"{count} (as in {contents.checkpoint.name})"))
    table.add_column("depth", justify="right")
    table.add_column("parameter", overflow="fold")
    table.add_column("kind")
    table.add_column("rows x cols", justify="right", no_wrap=True)
    table.add_column("dtype")
    remarks = any(_explanation(spec) for spec in matrices.values())
    if remarks:
        table.add_column("read as")
    for depth, spec in matrices.items():
        cells = [str(depth), output.plain(spec.parameter), spec.kind, f"{spec.rows} x {spec.cols}", spec.tensor.dtype]
        remark = _explanation(spec).partition(":")[0]
        table.add_row(*cells, *([output.plain(remark)] if remarks else []))
    return table


def _explanation(spec: MatrixSpec) -> str:
    """A word and a sentence on how a tensor is read, where that is not as it is stored."""
    if not spec.tensor.is_floating:
        return "not analysed: complex weights"
    layout = "squeezed" if spec.layout == "expert" and spec.tensor.shape[0] == 1 else spec.layout
    return f"{layout}: {spec.reason}" if spec.reason else ""


def _removed_prefix(matrices: Iterable[MatrixSpec]) -> str:
    """What all names have in front in the file and not in the tables, such as Lightning's ``state_dict.model.``."""
    prefixes = set()
    for spec in matrices:
        shown = (
            spec.parameter.rpartition("[")[0] if spec.expert is not None and "[" in spec.parameter else spec.parameter
        )
        stored = spec.tensor.name
        prefixes.add(stored[: -len(shown)] if stored.endswith(shown) else "")
    return prefixes.pop() if len(prefixes) == 1 else ""
