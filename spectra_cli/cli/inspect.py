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
    architecture: options.Architecture = None,
    heads: options.Heads = None,
    kv_heads: options.KvHeads = None,
    transposed: options.Transposed = None,
    as_json: options.Json = False,
) -> None:
    """Show runs, checkpoints, matrices, and everything that is skipped and why. Reads headers only.

    Example: spectra inspect runs/a
    """
    from spectra_cli.analyses.contents import contents_of
    from spectra_cli.checkpoints.selection import Selection
    from spectra_cli.execution.plan import find_runs
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
            _print_run(console, contents, selected)
    if any(contents.problem for run in opened for contents in run.checkpoints):
        raise typer.Exit(3 if any(run.typical for run in opened) else 1)


def _print_run(console: Console, contents: RunContents, selected: Callable[[Inventory], dict[int, MatrixSpec]]) -> None:
    run = contents.run
    console.rule(f"[bold]run {output.plain(run.name)}[/]", align="left")
    typical = contents.typical
    if contents.architecture:
        console.print(f"architecture {output.plain(contents.architecture)} (config.json)")
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
    from spectra_cli.spectrum.memory import readable_bytes

    console.print(_matrix_table(contents, matrices))
    for explanation in sorted({explanation for spec in matrices.values() if (explanation := _explanation(spec))}):
        console.print(output.plain(explanation))
    prefix = _removed_prefix(matrices.values())
    if prefix:
        console.print(f"names are shown without the prefix '{output.plain(prefix)}'")
    needed = readable_bytes(working_memory_bytes(matrices.values()))
    console.print(f"working memory for `spectra rank`: about {needed} beyond the interpreter")
    console.print()
    inventory = contents.inventory
    if inventory is not None and inventory.skipped:
        others = ((item.reason, item.name.removeprefix(prefix)) for item in inventory.skipped)
        console.print(_grouped("tensors that are not matrices", others))
    for note in contents.notes:
        output.warn(note, console)


def _plain_table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _checkpoint_table(contents: RunContents) -> Table:
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
        table.add_row(output.plain(item.checkpoint.name), *moment, item.format or "", item.status)
    return table


def _matrix_table(contents: CheckpointContents, matrices: dict[int, MatrixSpec]) -> Table:
    total = len(contents.inventory.matrices) if contents.inventory else 0
    count = f"{total} matri{'x' if total == 1 else 'ces'}"
    if len(matrices) < total:
        count = f"{len(matrices)} of {count}"
    table = _plain_table(output.plain(f"{count} (as in {contents.checkpoint.name})"))
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
    """In a word and a sentence, how a tensor is read that is not read as it is stored."""
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


def _grouped(title: str, items: Iterable[tuple[str, str]]) -> Table:
    """One line per reason, with how many there are and the first names."""
    names: dict[str, list[str]] = defaultdict(list)
    for reason, name in items:
        names[reason].append(name)
    table = _plain_table(f"{title}: {sum(map(len, names.values()))}")
    table.add_column("why", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("which", overflow="fold")
    for reason, group in names.items():
        more = ", ..." if len(group) > SHOWN_NAMES else ""
        table.add_row(output.plain(reason), str(len(group)), output.plain(", ".join(group[:SHOWN_NAMES])) + more)
    return table
