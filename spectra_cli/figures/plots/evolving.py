"""Figures of one matrix, or one connection, through training: its singular values, and diagonals of its vectors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spectra_cli.errors import UsageError
from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, with_notices
from spectra_cli.figures.plots.metrics import bounded, file_name, heading
from spectra_cli.figures.plots.overview import (
    RUN_COLUMNS,
    check_rows,
    not_averaged,
    primary_connections,
    with_reference,
    with_two_checkpoints,
)
from spectra_cli.figures.rows.acrossruns import cut_short, names_in_all, runs_without
from spectra_cli.figures.rows.gaps import Followed, gap_notice, with_gaps
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.metriccurves import LOOK_AT_STATUS, value_scale
from spectra_cli.figures.rows.series import NAME, Evolution, evolutions, matching, mean_evolution, middle
from spectra_cli.shortening import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FIGURES = 200
"""Limit for one kind, where a glob asks for many."""

SHOWN_NAMES = 6
"""Limit for the names listed in one message."""

NAME_COLUMNS = 160
"""Limit for a name in an error, a notice or :attr:`Drawn.about`."""

ENDS = ": | -> "
"""Separators in names of connections, as :func:`spectra_cli.figures.rows.series.connection_names` makes them."""


@dataclass(frozen=True)
class Selected:
    """The matrices or connections that are drawn.

    Attributes:
        names: of them.
        how: why these, for :attr:`Drawn.about`; empty if the user said so.
        total: how many match.
    """

    names: list[str]
    how: str
    total: int


def select(names: Sequence[str], globs: Sequence[str], noun: str, of_all: Collection[str] = ()) -> Selected:
    """The names that match, or else the middle one.

    Args:
        names: in the order of depth, of those that have a number.
        globs: of the user.
        noun: ``matrix`` or ``connection``, in the singular.
        of_all: those that all runs have, of which the middle one is taken; if there are none, of all names.

    Raises:
        NothingToDraw: if there is no name at all.
        UsageError: if one of the globs matches none.
    """
    plural = "matrices" if noun == "matrix" else f"{noun}s"
    if not names:
        raise NothingToDraw(f"no {noun} has a number", remedy=LOOK_AT_STATUS)
    if not globs:
        shared = [name for name in names if name in of_all] or names
        of_runs = " that all runs have" * (len(shared) < len(names))
        how = f"the only {noun}" if of_runs and len(shared) == 1 else f"the middle one of {len(shared)} {plural}"
        return Selected([middle(shared)], f"{how}{of_runs}", 1)
    for glob in globs:
        if not matching(names, [glob]):
            option = "--parameter" if noun == "matrix" else "--connection"
            raise UsageError(f"no {noun} matches {option} {glob}", remedy=f"There are {_near(names, glob)}")
    found = matching(names, globs)
    return Selected(found[:MOST_FIGURES], "", len(found))


def _near(names: Sequence[str], glob: str) -> str:
    """Names for an error: those like what was asked for, or with an end like it, in front."""
    ends = {part: name for name in reversed(names) for part in re.split(ENDS, name)}
    near = difflib.get_close_matches(glob.strip("*"), [*ends], n=3, cutoff=0.3)
    listed = list(dict.fromkeys([*(ends[part] for part in near), *names]))[:SHOWN_NAMES]
    more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
    return f"{', '.join(shortened(name, NAME_COLUMNS) for name in listed)}{more}"


def draw_singular_values(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """All singular values of one matrix, a line each, coloured by index; a panel for each run.

    Raises:
        NothingToDraw: if no run has two checkpoints, or no matrix has singular values.
        UsageError: if no matrix matches, or a mean over runs is wanted of runs that have no step in common.
    """
    frame, _ = gathered.evolving("rank", ["parameter", "depth", "rows", "cols", "status"])
    check_rows(frame)
    frame[NAME] = frame.parameter
    ok = frame[(frame.status == "ok") & (frame[["rows", "cols"]].min(axis=1) > 1)]
    selected = select(_names(ok), choice.parameter, "matrix", names_in_all(ok, frame))
    rows, clock = gathered.evolving("rank", ["parameter", "singular_values"], {"parameter": selected.names})
    rows[NAME] = rows.parameter
    scale = value_scale("singular value", np.empty(0), choice.y_scale)

    def draw(shown: Sequence[Evolution]) -> Panels:
        figure, grid = axes.panels(len(shown))
        most = max(each.values.shape[1] for each in shown)
        hidden = 0
        for axis, each in zip(grid, shown, strict=True):
            hidden += axes.index_lines(
                axis, each.x, each.values, each.deviation, choice.x_scale, scale, bar=False, most=most
            )
        axes.index_bar(figure, grid)
        return Panels(figure, grid, "singular value (weight)", axes.left_out(hidden, "singular value"))

    kind = Kind("singular_values", "singular values", "matrices", entries="singular values", banded=True)
    found = with_gaps(evolutions(rows, "singular_values"), frame)
    return _figures(kind, found, selected, clock, statuses=frame, choice=choice, draw=draw)


def draw_alignment_diagonal(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """A_ii of one connection, heads averaged, as a heat map of i against steps; a panel for each run.

    Raises:
        NothingToDraw: if no run has two checkpoints, or no connection has vectors.
        UsageError: if none matches, or a mean over runs is wanted of runs that have no step in common.
    """
    frame, _ = primary_connections(gathered, ["depth", "status"])
    check_rows(frame)
    ok = frame[frame.status == "ok"]
    selected = select(_names(ok), choice.connection, "connection", names_in_all(ok, frame))
    ends = frame[frame[NAME].isin(selected.names)]
    where = {end: sorted(set(ends[end].astype(str))) for end in ("upstream", "downstream")}
    rows, clock = primary_connections(gathered, ["diagonal"], where)
    kind = Kind("alignment_diagonal", "alignment of singular vectors", "connections")
    draw = _maps("alignment A_ii", choice)
    found = with_gaps(evolutions(rows, "diagonal"), frame)
    return _figures(kind, found, selected, clock, statuses=frame, choice=choice, draw=draw)


def draw_agreement_diagonal(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """S_ii of one matrix with its reference, as a heat map of i against steps; a panel for each run.

    Raises:
        NothingToDraw: if no run has two checkpoints, or no matrix has vectors.
        UsageError: if none matches, or a mean over runs is wanted of runs that have no step in common.
    """
    frame, _ = gathered.evolving("sva", ["parameter", "depth", "status"])
    check_rows(frame)
    frame[NAME] = frame.parameter
    ok = frame[frame.status == "ok"]
    selected = select(_names(ok), choice.parameter, "matrix", names_in_all(ok, frame))
    rows, clock = gathered.evolving("sva", ["parameter", "diagonal"], {"parameter": selected.names})
    rows[NAME] = rows.parameter
    what = f"agreement of singular vectors{with_reference(gathered)}"
    kind = Kind("agreement_diagonal", what, "matrices")
    draw = _maps("agreement S_ii", choice)
    found = with_gaps(evolutions(rows, "diagonal"), frame)
    return _figures(kind, found, selected, clock, statuses=frame, choice=choice, draw=draw)


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes:
        name: of it.
        what: it shows.
        plural: what there is one figure each of.
        entries: what a matrix or connection has of it, in the plural.
        banded: whether it shows the deviation of a mean over runs.
    """

    name: str
    what: str
    plural: str
    entries: str = "entries of a diagonal"
    banded: bool = False


@dataclass(frozen=True)
class Panels:
    """Panels on which everything is drawn but titles and axes of steps.

    Attributes:
        figure: that holds them.
        grid: a panel for each run.
        y_label: of the vertical axis that they share.
        notices: on what was left out.
    """

    figure: Figure
    grid: Sequence[Axes]
    y_label: str
    notices: tuple[str, ...] = ()


def _maps(label: str, choice: Choice) -> Callable[[Sequence[Evolution]], Panels]:
    """A function that draws diagonals as heat maps, i downwards; `label` says what the colours are."""

    def draw(shown: Sequence[Evolution]) -> Panels:
        figure, grid = axes.panels(len(shown), width_in=5.2)
        rows = max(each.values.shape[1] for each in shown)
        for axis, each in zip(grid, shown, strict=True):
            values = np.full((rows, len(each.x)), np.nan)
            values[: each.values.shape[1]] = each.values.T  # of runs whose matrices differ in size
            colours = axes.heat_map(axis, each.x, values, choice.x_scale)
        axes.colour_bar(figure, colours, grid, label)
        return Panels(figure, grid, "index i")

    return draw


def _figures(
    kind: Kind,
    found: Sequence[Followed],
    selected: Selected,
    clock: str,
    *,
    statuses: pd.DataFrame,
    choice: Choice,
    draw: Callable[[Sequence[Evolution]], Panels],
) -> list[Drawn]:
    """A figure for each of the selected that has two checkpoints.

    Raises:
        NothingToDraw: if none has.
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    drawn: list[Drawn] = []
    lacking: list[tuple[str, NothingToDraw]] = []
    for name, group in _by_name(found, selected.names):
        try:
            used, notices = _usable(group, clock)
        except NothingToDraw as reason:
            lacking.append((name, reason))
            continue
        notices += tuple(runs_without(name, [each.evolution.run for each in group], statuses))
        notices += tuple(gap_notice(each) for each in group if each.why)
        shown = [mean_evolution(used)] if choice.over else used
        panels = draw(shown)
        _name_panels(panels, kind, name, shown)
        unseen = max(
            axes.step_axis(axis, each.x, clock, choice.x_scale) for axis, each in zip(panels.grid, shown, strict=True)
        )
        more = (*axes.left_out(unseen, clock), *panels.notices, *_not_in_mean(kind, used, shown, clock))
        about = _about(kind.what, name, selected, shown)
        of_file = file_name(kind.name, *(re.split(ENDS, name) if kind.plural == "connections" else [name]))
        drawn.append(Drawn(of_file, panels.figure, about, (*notices, *more)))
    if not drawn:
        nothing = NothingToDraw(f"there are no {kind.plural} with numbers", remedy=LOOK_AT_STATUS)
        raise lacking[0][1] if lacking else nothing
    told = [f"{shortened(name, NAME_COLUMNS)} is left out: {reason.what}" for name, reason in lacking[:SHOWN_NAMES]]
    return with_notices(bounded(drawn, selected.total - len(lacking), kind.plural), told)


def _name_panels(panels: Panels, kind: Kind, name: str, shown: Sequence[Evolution]) -> None:
    """Titles of panels and of the whole figure; the label of the vertical axis in the first panel of each row."""
    for axis, each in zip(panels.grid, shown, strict=True):
        banded = kind.banded and each.deviation is not None
        axes.title(axis, "", f"{each.run}, band: 1 standard deviation" if banded else each.run)
        place = axis.get_subplotspec()
        if place is None or place.is_first_col():
            axis.set_ylabel(panels.y_label)
    heading(panels.figure, kind.what, *_lines(name, axes.heading_columns(panels.figure)))


def _lines(name: str, width: int) -> list[str]:
    """A name in a title: of a connection that is too long, the ends stand in a line each."""
    kind, colon, ends = name.partition(": ")
    if len(name) <= width or not colon:
        return [axes.fitted_name(name, width)]
    up, _, down = ends.partition(" -> ")
    room = width - len(kind) - len(": ")
    return [f"{kind}: {axes.fitted_name(up, room)}", f"→ {axes.fitted_name(down, room)}"]


def _names(rows: pd.DataFrame) -> list[str]:
    """Names in the order of depth."""
    return list(rows[rows[NAME].notna()].sort_values("depth", kind="stable")[NAME].drop_duplicates())


def _by_name(found: Sequence[Followed], names: Sequence[str]) -> list[tuple[str, list[Followed]]]:
    """Evolutions with values, by name; each name has those of one run after the other."""
    groups: dict[str, list[Followed]] = {name: [] for name in names}
    for each in found:
        if each.evolution.name in groups and each.evolution.values.size:
            groups[each.evolution.name].append(each)
    return [(name, group) for name, group in groups.items() if group]


def _usable(group: Sequence[Followed], clock: str) -> tuple[list[Evolution], tuple[str, ...]]:
    found = [each.evolution for each in group]
    kept, lacking = with_two_checkpoints([each.run for each in found], [list(each.x) for each in found], clock)
    return [each for each, keeps in zip(found, kept, strict=True) if keeps], lacking


def _not_in_mean(kind: Kind, used: Sequence[Evolution], shown: Sequence[Evolution], clock: str) -> tuple[str, ...]:
    """Notices on what the mean over runs leaves out."""
    if len(shown) == len(used):
        return ()
    lengths = [each.values.shape[1] for each in used]
    return (*not_averaged([each.x for each in used], shown[0].x, clock), *cut_short(lengths, kind.entries))


def _about(what: str, name: str, selected: Selected, shown: Sequence[Evolution]) -> str:
    how = f" ({selected.how})" if selected.how else ""
    run = shortened(shown[0].run, RUN_COLUMNS) if len(shown) == 1 else f"{len(shown)} runs"
    return f"{what}: {shortened(name, NAME_COLUMNS)}{how}{'' if run == '.' else f', {run}'}"
