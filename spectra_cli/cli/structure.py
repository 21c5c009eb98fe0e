"""What `spectra inspect` says of a model's structure: families, connections, and what has no part in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_cli.cli import output
from spectra_cli.cli.listings import GAP, grouped, plain_table
from spectra_cli.cli.repeated import patterns_of, skeleton_of
from spectra_cli.shortening import WITHOUT_PREFIX, counted, fitted_names, level_needed, width_of, without_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectra_cli.layers.ends import Connection
    from spectra_cli.layers.fitting import FittedFamily, StructureOptions
    from spectra_cli.layers.inventory import Inventory
    from spectra_cli.layers.matricize import MatrixSpec

MOST_LISTED = 200
"""Connections of a model that are listed one by one; of more, those that repeat share a line."""


def print_families(console: Console, inventory: Inventory, structure: StructureOptions) -> None:
    """Print a line for every family that the model belongs to, or that there is none, and what is amiss with them."""
    from spectra_cli.layers.fitting import SEQUENTIAL

    if structure.architecture == SEQUENTIAL:
        console.print("matrices are taken one after the other (--architecture sequential)")
    elif not inventory.families:
        console.print("no family fits: matrices are taken one after the other (sequential)")
    for family in inventory.families:
        console.print(output.plain(_family_in_words(family, inventory, structure)))
    for remark in inventory.remarks:
        output.warn(remark, console)


def print_connections(console: Console, inventory: Inventory, matrices: Mapping[int, MatrixSpec]) -> None:
    """Print every connection of which both ends are selected, and the matrices that have no role.

    Args:
        console: where to.
        inventory: of the checkpoint.
        matrices: those selected.
    """
    from spectra_cli.analyses.contents import unfitted_matrices
    from spectra_cli.layers.connections import connections_among

    every = inventory.connections()
    connections = connections_among(every, matrices)
    selection = f"{len(connections)} of " if len(connections) < len(every) else ""
    title = selection + counted(len(every), "connection")
    if not connections:
        console.print(f"{title}: none of the matrices feeds another one" if not every else f"{title} selected")
    elif len(connections) > MOST_LISTED:
        console.print(_repeated_table(connections, inventory, title, console.width))
    else:
        console.print(_connection_table(connections, inventory, title, console.width))
    unfitted = unfitted_matrices(inventory, matrices)
    if unfitted:
        others = ((spec.kind, spec.parameter) for spec in unfitted)
        console.print(grouped("matrices without a role", others, console.width, "kind"))


def _family_in_words(family: FittedFamily, inventory: Inventory, structure: StructureOptions) -> str:
    architecture, prefix = family.fit.architecture, family.fit.prefix
    line = f"family {architecture.family}: {architecture.title}"
    if prefix:
        line += f"; under '{prefix}'"
    if family.needs_heads:
        line += f"; {_heads_in_words(family, inventory, structure)}"
    return line


def _heads_in_words(family: FittedFamily, inventory: Inventory, structure: StructureOptions) -> str:
    from spectra_cli.layers.parts import heads_from_config

    heads = family.heads
    if heads is None:
        known = heads_from_config(
            family.fit.architecture, inventory.config, structure.heads, 1, prefix=family.fit.prefix
        )
        if known is not None:
            return f"{counted(known.query, 'head')}, no multiple of the key-value heads: per-head rows need --kv-heads"
        return "number of heads unknown: per-head rows need --heads"
    words, sources = counted(heads.query, "head"), ["--heads" if structure.heads else "config.json"]
    if heads.key_value != heads.query:
        words += f", {counted(heads.key_value, 'key-value head')}"
        sources.append("--kv-heads" if structure.kv_heads else "config.json")
    return f"{words} ({', '.join(dict.fromkeys(sources))})"


def _connection_table(connections: Sequence[Connection], inventory: Inventory, title: str, width: int) -> Table:
    """A line for each connection."""
    specs = inventory.matrices
    units = [units_in_words(connection, specs) for connection in connections]
    digits = len(str(len(specs) - 1))
    ends = [[specs[connection.upstream].parameter for connection in connections]]
    ends.append([specs[connection.downstream].parameter for connection in connections])
    wanted = [max(map(width_of, names)) for names in ends]
    least = sum(max(width_of(without_words(name, 1)) for name in names) for names in ends)
    first_width = max(width_of(name) for name in ("connection", *(item.name for item in connections)))
    room = width - 2 - 3 * GAP - first_width - 2 * (digits + 1)
    units_width = min(max(map(len, units)), max(width // 4, room - least))
    widths = _shared(room - units_width, wanted)
    fitted = [fitted_names(names, side, _prefix(inventory)) for names, side in zip(ends, widths, strict=True)]
    table = plain_table(title)
    table.add_column("connection")
    table.add_column("upstream", overflow="fold")
    table.add_column("downstream", overflow="fold")
    table.add_column("units", overflow="fold", max_width=units_width)
    for connection, upstream, downstream, words in zip(connections, *fitted, units, strict=True):
        cells = (f"{connection.upstream:>{digits}} {upstream}", f"{connection.downstream:>{digits}} {downstream}")
        table.add_row(output.plain(connection.name), *map(output.plain, cells), words)
    return table


def _prefix(inventory: Inventory) -> str:
    """Prefix that names are shown without, as it is told beside the family."""
    return inventory.families[0].fit.prefix if len(inventory.families) == 1 else ""


def _shared(room: int, wanted: Sequence[int]) -> list[int]:
    """Widths of two columns: half of the room each, or what the other one leaves."""
    return [min(own, max(room // 2, room - other)) for own, other in zip(wanted, reversed(wanted), strict=True)]


def _repeated_table(connections: Sequence[Connection], inventory: Inventory, title: str, width: int) -> Table:
    """A line for all connections that are the same but for the numbers of blocks and experts."""
    specs = inventory.matrices
    alike: dict[tuple[str, str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for connection in connections:
        upstream, downstream = specs[connection.upstream].parameter, specs[connection.downstream].parameter
        words = units_in_words(connection, specs)
        alike[connection.name, skeleton_of(upstream), skeleton_of(downstream), words].append((upstream, downstream))
    patterns = [patterns_of(pairs) for pairs in alike.values()]
    first_width = max(len("connection, units"), *(max(width_of(name), len(words) + 2) for name, _, _, words in alike))
    room = width - 2 - 2 * GAP - first_width - len("count") - len("-> ")
    prefix = _prefix(inventory)
    least = min(WITHOUT_PREFIX, level_needed((name for pattern in patterns for name in pattern), room, prefix))
    fitted = [fitted_names(pattern, room, prefix, least) for pattern in patterns]
    table = plain_table(f"{title}, those that repeat in one line (--json lists each)")
    table.add_column("connection, units", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("upstream -> downstream", overflow="fold")
    for (name, _, _, words), pairs, (above, below) in zip(alike, alike.values(), fitted, strict=True):
        ends = f"{output.plain(above)}\n-> {output.plain(below)}"
        table.add_row(f"{output.plain(name)}\n  {words}", str(len(pairs)), ends)
    return table


def units_in_words(connection: Connection, specs: Sequence[MatrixSpec]) -> str:
    """What of two matrices meets: ``12 heads and whole``, or why it does not."""
    usable = Counter(unit.unit for unit in connection.units if unit.status == "ok")
    parts = [counted(count, unit) for unit, count in usable.items() if unit != "whole"]
    if usable["whole"]:
        parts.append("whole" if usable["whole"] == 1 else f"{usable['whole']} x whole")
    return ", ".join([*([" and ".join(parts)] if parts else []), *_reasons(connection, specs)])


def _reasons(connection: Connection, specs: Sequence[MatrixSpec]) -> Iterator[str]:
    """Why there are units that cannot be told."""
    from spectra_cli.layers.ends import HEAD_COUNT_MISMATCH, NO_HEAD_COUNT, SHAPE_MISMATCH

    statuses = {unit.status for unit in connection.units}
    lengths = list(dict.fromkeys(map(str, _lengths(connection, specs))))
    if SHAPE_MISMATCH in statuses:
        what = "not whole" if "ok" in statuses else "do not meet"
        yield what if len(lengths) == 1 else f"{what}: {lengths[0]} and {lengths[1]}"
    if HEAD_COUNT_MISMATCH in statuses:
        yield f"heads do not fit {' and '.join(lengths)}"
    if NO_HEAD_COUNT in statuses:
        yield "heads unknown"


def _lengths(connection: Connection, specs: Sequence[MatrixSpec]) -> tuple[int, int]:
    """Sides that should meet: rows of what gives, columns (channels of a convolution) of what reads.

    An embedding gives its columns, and keys meet queries by their rows.
    """
    from spectra_cli.layers.parts import positions_of

    upstream, downstream = specs[connection.upstream], specs[connection.downstream]
    if connection.name == "query-key":
        return upstream.rows, downstream.rows
    embeds = upstream.kind == "embedding" or connection.name == "embedding-input"
    return upstream.cols if embeds else upstream.rows, downstream.cols // max(1, positions_of(downstream))
