"""The heat maps of a report: one number of all matrices, or connections, of a run against steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spectra_cli.figures.page.document import Grid
from spectra_cli.figures.report.budget import MapPolicy, MapSize, spread
from spectra_cli.figures.report.runrows import RunRows
from spectra_cli.figures.rows.kinds import PRUNED
from spectra_cli.figures.rows.series import NAME, Floats, Overview, overviews
from spectra_cli.shortening import counted, fitted_names

NAME_BYTES = 80
"""Size of the shortened forms of a name."""

LONGEST_NAME = 300
"""Characters of a name that are embedded; as JSON one takes up to six bytes."""

WORDS_WIDTH = 40
"""Columns of a name in a sentence."""

ALWAYS_ROWS = 20
"""Number of the most changed matrices that have a row even where only some have one."""

MOST_VARIANTS = 8
"""Heat maps of pruned matrices in a run."""


@dataclass(frozen=True)
class Map:
    """A heat map to be made.

    Attributes:
        key: as in :class:`Grid`.
        kind: of the rows.
        title: heading.
        value_label: as in :class:`Grid`.
        noun: what the rows are, in the singular and in the plural.
        rows: to draw.
        note: a sentence for its summary.
    """

    key: str
    kind: str
    title: str
    value_label: str
    noun: tuple[str, str]
    rows: RunRows
    note: str = ""


MATRICES, CONNECTIONS = ("matrix", "matrices"), ("connection", "connections")


def maps_of(run: str, rows: Mapping[str, Mapping[str, RunRows]]) -> Iterator[Map]:
    """The heat maps of a run, of those kinds that have a matrix or connection in it.

    Args:
        run: its name.
        rows: by kind and run.
    """
    if own := _named(rows, "rank", run):
        yield Map("effective_rank", "rank", "Effective rank", "effective rank / R", MATRICES, own)
    if own := _named(rows, "align", run):
        yield Map("alignment", "align", "Alignment of connected matrices", "alignment score", CONNECTIONS, own)
    if own := _named(rows, "sva", run):
        title, note = "Agreement of singular vectors", reference_note(own)
        yield Map("agreement", "sva", title, "agreement score", MATRICES, own, note)
    if own := _named(rows, PRUNED, run):
        for number, variant in enumerate(own.frame.variant.dropna().unique()[:MOST_VARIANTS]):
            part = replace(own, frame=own.frame[(own.frame.variant == variant) | own.frame.variant.isna()])
            title = f"Agreement of pruned with whole matrices: {variant}"
            if part.names:
                yield Map(f"pruned_{number}", PRUNED, title, "agreement score", MATRICES, part)


def _named(rows: Mapping[str, Mapping[str, RunRows]], kind: str, run: str) -> RunRows | None:
    own = rows.get(kind, {}).get(run)
    return own if own is not None and own.names else None


def reference_note(rows: RunRows) -> str:
    """What the checkpoints of a run are compared with, as a sentence."""
    columns = ["reference_run", "reference_checkpoint", "reference_step"]
    references = rows.frame[columns].dropna(subset=["reference_checkpoint"]).drop_duplicates()
    if len(references) != 1:
        return "Each checkpoint has a reference of its own." if len(references) else ""
    run, checkpoint, step = references.iloc[0]
    place = f"step {int(step)}" if np.isfinite(step) else str(checkpoint)
    same = run in {None, ".", rows.run} or rows.run.endswith(f"/{run}")
    return f"The reference is {place}{'' if same else f' of {run}'}."


def size_of(each: Map) -> MapSize:
    """What a heat map would take if it were drawn whole."""
    names, frame = each.rows.names, each.rows.frame
    failed = frame[frame.status != "ok"]
    whole = int(failed[NAME].isna().sum())
    cells = max(len(names) * len(each.rows.places), 1)
    empty = (len(failed) - whole + whole * len(names)) / cells
    all_names = sum(name_bytes(name) + NAME_BYTES for name in names)
    return MapSize(len(names), len(each.rows.places), all_names, min(empty, 1.0))


def name_bytes(name: str) -> int:
    """Size of a name as JSON."""
    return len(json.dumps(name[:LONGEST_NAME]))


def overview_of(rows: RunRows, policy: MapPolicy) -> Overview:
    """The numbers of a heat map, of as many rows and columns as the policy lets it have."""
    places = rows.places[spread(len(rows.places), policy.steps)]
    names = drawn_names(rows, policy.rows)
    return overviews(rows.narrowed(names, places), rows.value)[0]


def drawn_names(rows: RunRows, most: int) -> Sequence[str]:
    """Names that have a row: those that changed most, and of the others evenly many at all depths."""
    if len(rows.names) <= most:
        return rows.names
    always = set(rows.changed[: min(ALWAYS_ROWS, most)])
    others = [name for name in rows.names if name not in always]
    room = most - len(always)
    chosen = always | {others[index] for index in spread(len(others), room)[:room]}
    return [name for name in rows.names if name in chosen]


def grid_of(each: Map, overview: Overview, details: Mapping[str, int]) -> Grid:
    """The heat map.

    Args:
        each: what is shown.
        overview: its numbers.
        details: by name, which detail of the run it opens.
    """
    opened = [details.get(name) for name in overview.names]
    return Grid(
        key=each.key,
        title=each.title,
        value_label=each.value_label,
        x=each.rows.axis(overview.x),
        y_label=f"{each.noun[0]} (depth downwards)",
        names=overview.names,
        values=overview.values,
        domain=(0.0, 1.0),
        summary=_summary(each, overview),
        notes=overview.statuses,
        details=opened if any(index is not None for index in opened) else (),
    )


def _summary(each: Map, overview: Overview) -> str:
    """Facts on what is drawn: how many, the means at both ends, and the least and the largest at the last."""
    drawn, there = len(overview.names), len(each.rows.names)
    of = f"{drawn} of {there}" if drawn < there else str(there)
    noun = each.noun[there != 1]
    over = counted(len(overview.x), "checkpoint")
    begin = f"{each.value_label[0].upper()}{each.value_label[1:]} of {of} {noun} at {over}"
    known = np.flatnonzero(np.isfinite(overview.values).any(axis=0))
    if not len(known):
        return f"{begin}: there is no value."
    means = [
        f"{_mean(overview.values[:, column]):.2f} at {each.rows.at(overview.x[column])}" for column in known[[0, -1]]
    ]
    end = overview.values[:, known[-1]]
    low, high = int(np.nanargmin(end)), int(np.nanargmax(end))
    last = (
        f"Lowest there: {_short(overview.names[low])}, {end[low]:.2f}; highest: {_short(overview.names[high])}, "
        f"{end[high]:.2f}."
    )
    told = f"{begin}: mean {', '.join(dict.fromkeys(means))}."
    return " ".join(part for part in (told, last if f"{end[low]:.2f}" != f"{end[high]:.2f}" else "", each.note) if part)


def _short(name: str) -> str:
    """A name as short as a sentence likes it: both ends of a connection lose components, its kind goes."""
    ends = name.partition(": ")[2].split(" -> ") if " -> " in name else [name]
    return " -> ".join(fitted_names(ends, WORDS_WIDTH))


def _mean(values: Floats) -> float:
    return float(values[np.isfinite(values)].mean())
