"""Heat maps of all matrices, or all connections, of a run against steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spectra_cli.figures.canvas import axes
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, StepScale
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.metriccurves import LOOK_AT_STATUS
from spectra_cli.figures.rows.series import NAME, Floats, Overview, connection_names, mean_overview, overviews
from spectra_cli.shortening import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

ROW_IN, TALLEST_IN, LEAST_IN, FURNITURE_IN = 0.17, 40.0, 1.6, 1.2
"""Height of a row; bounds of the height of all rows; and what title and axis take."""

PANEL_IN, BAR_IN = 3.8, 0.8
"""Width of a panel without the names beside it, and of the colour scale."""

COLOURS = {
    "effective_rank": "effective rank / R",
    "alignment_score": "alignment score",
    "agreement_score": "agreement score",
}
"""Meaning of the colours, by kind of figure."""

RUN_COLUMNS = 48
"""Limit for the name of a run, above a panel that is no wider than that."""

MORE_CHECKPOINTS = "Analyse more checkpoints of the run: give the command the directory they are in"

NO_ROWS = "there are no rows of the runs that are drawn"

OTHER_RUNS = "Choose others with --run, or leave it out"


def draw_effective_rank(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """Effective rank / R of all matrices, the first on top; a panel for each run.

    Raises:
        NothingToDraw: if no run has two checkpoints, or no row has a value.
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    frame, clock = gathered.evolving("rank", ["parameter", "depth", "effective_rank_normalized", "status"])
    frame[NAME] = frame.parameter
    found = overviews(frame, "effective_rank_normalized")
    return _drawn("effective_rank", found, clock, choice, COLOURS["effective_rank"])


def draw_alignment_score(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """Alignment scores of all connections in the order of depth, heads averaged; a panel for each run.

    Raises:
        NothingToDraw: as of :func:`draw_effective_rank`.
        UsageError: likewise.
    """
    frame, clock = primary_connections(gathered, ["depth", "score", "status"])
    return _drawn("alignment_score", overviews(frame, "score"), clock, choice, COLOURS["alignment_score"])


def draw_agreement_score(gathered: Gathered, choice: Choice) -> list[Drawn]:
    """Agreement scores of all matrices with their reference, the first on top; a panel for each run.

    Raises:
        NothingToDraw: as of :func:`draw_effective_rank`.
        UsageError: likewise.
    """
    frame, clock = gathered.evolving("sva", ["parameter", "depth", "score", "status"])
    frame[NAME] = frame.parameter
    what = f"agreement score{with_reference(gathered)}"
    return _drawn("agreement_score", overviews(frame, "score"), clock, choice, what)


def with_reference(gathered: Gathered) -> str:
    """What sva compares with, for a title: `` with the final checkpoint``; empty unless all tables say the same."""
    said = {_reference_of(file.settings) for file in gathered.of_kind("sva")}
    return f" with {said.pop()}" if len(said) == 1 and "" not in said else ""


def _reference_of(settings: Mapping[str, Any]) -> str:
    reference, against = settings.get("reference"), settings.get("against")
    if "reference" not in settings:
        return ""
    if against is not None:
        return "another run"
    if reference in {None, "final", "first", "previous"}:
        return f"the {reference or 'final'} checkpoint"
    step = str(reference)[:20]
    return f"step {step}" if step.isdecimal() and step.isascii() else ""


def primary_connections(
    gathered: Gathered, columns: Sequence[str], where: dict[str, list[str]] | None = None
) -> tuple[pd.DataFrame, str]:
    """Rows of align that the papers' figures use, with names of their connections, and what ``x`` is.

    Args:
        gathered: the tables.
        columns: to read besides.
        where: as of :meth:`Gathered.evolving`.
    """
    named = ["connection", "upstream", "downstream", "primary"]
    frame, clock = gathered.evolving("align", [*named, *columns], where)
    frame[NAME] = connection_names(frame).where(frame.connection.notna())
    return frame[frame.primary.fillna(value=True).astype(bool)], clock  # null: a whole checkpoint that failed


def check_rows(frame: pd.DataFrame) -> None:
    """Check that there is anything to draw of.

    Raises:
        NothingToDraw: if there are no rows.
    """
    if frame.empty:
        raise NothingToDraw(NO_ROWS, remedy=OTHER_RUNS)


def with_two_checkpoints(
    runs: Sequence[str], places: Sequence[Sequence[float]], clock: str
) -> tuple[list[bool], tuple[str, ...]]:
    """Which runs have more than one checkpoint, and notices on the others.

    Args:
        runs: their names.
        places: in training, of each.
        clock: what the places are.

    Raises:
        NothingToDraw: if none has.
    """
    if not runs:
        raise NothingToDraw(NO_ROWS, remedy=OTHER_RUNS)
    kept = [len(x) > 1 for x in places]
    lacking = [
        f"{'the run' if run == '.' else shortened(run, RUN_COLUMNS)} has one checkpoint only"
        + (f" ({clock} {x[0]:g})" if len(x) and clock != "checkpoint" else "")
        for run, x, keeps in zip(runs, places, kept, strict=True)
        if not keeps
    ]
    if not any(kept):
        raise NothingToDraw(f"{lacking[0]}, and a figure over training needs two", remedy=MORE_CHECKPOINTS)
    return kept, tuple(lacking)


def draw_map(axis: Axes, shown: Overview, clock: str, scale: StepScale, what: str) -> tuple[ScalarMappable, int]:
    """Draw an overview on an axis.

    Args:
        axis: to draw on.
        shown: the numbers, from 0 to 1.
        clock: what x is.
        scale: of x.
        what: stands above the name of the run; may be empty.

    Returns:
        What a colour bar takes, and how many places a logarithmic axis cannot show.
    """
    colours = axes.heat_map(axis, shown.x, shown.values, scale, labels=shown.names)
    unseen = axes.step_axis(axis, shown.x, clock, scale)
    axes.title(axis, what, shortened(shown.run, RUN_COLUMNS))
    name_rows(axis, shown.names)
    return colours, unseen


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Say what the rows of a heat map are, beside the first panel of a row only."""
    place = axis.get_subplotspec()
    if place is None or place.is_first_col() or not axis.get_shared_y_axes().get_siblings(axis)[1:]:
        noun = "connection" if any(": " in name for name in names) else "matrix"
        axis.set_ylabel(f"{noun} (depth downwards)")


def map_panels(
    count: int,
    names: Sequence[str],
    rows: int,
    *,
    columns: int | None = None,
    alike: bool = True,
    width_in: float = PANEL_IN,
) -> tuple[Figure, list[Axes]]:
    """Panels for heat maps of named rows, as high as these need, with room for the names.

    Args:
        count: of panels.
        names: of all rows of all panels.
        rows: of the panel that has the most.
        columns: panels in a row, as of :func:`spectra_cli.figures.canvas.axes.panels`.
        alike: whether all panels have the same rows, named beside the first of each row of panels only.
        width_in: of a panel, in inches, without the names.
    """
    figure, grid = axes.panels(count, columns=columns, width_in=width_in, height_in=rows_in(rows), share_y=alike)
    place = grid[0].get_subplotspec()
    across = place.get_gridspec().ncols if place is not None else 1
    figure.set_figwidth(figure.get_figwidth() + axes.names_in(names) * (1 if alike else across) + BAR_IN)
    return figure, grid


def empty_cells(shown: Overview) -> tuple[str, ...]:
    """A notice on cells without a number, and why."""
    statuses = Counter(shown.statuses.values())
    if not statuses:
        return ()
    told = ", ".join(f"{count} {shortened(status, RUN_COLUMNS)}" for status, count in statuses.most_common(3))
    run = "" if shown.run == "." else f" of {shortened(shown.run, RUN_COLUMNS)}"
    return (f"{statuses.total()} cells{run} are empty ({told})",)


def rows_in(rows: int) -> float:
    """Height of a heat map of named rows with its title and axis, in inches."""
    return float(np.clip(rows * ROW_IN, LEAST_IN, TALLEST_IN)) + FURNITURE_IN


def _drawn(kind: str, found: Sequence[Overview], clock: str, choice: Choice, what: str) -> list[Drawn]:
    kept, lacking = with_two_checkpoints([each.run for each in found], [list(each.x) for each in found], clock)
    used = [each for each, keeps in zip(found, kept, strict=True) if keeps]
    if not any(np.isfinite(each.values).any() for each in used):
        raise NothingToDraw(f"no row has an {COLOURS[kind].removesuffix(' / R')}", remedy=LOOK_AT_STATUS)
    shown = [mean_overview(used)] if choice.over else used
    if not any(np.isfinite(each.values).any() for each in shown):
        raise NothingToDraw("nothing has a number in all runs", remedy="Leave --over out, or choose runs with --run")
    names = list(dict.fromkeys(name for each in shown for name in each.names))
    alike = len({each.names for each in shown}) == 1
    figure, grid = map_panels(len(shown), names, max(len(each.names) for each in shown), alike=alike)
    above = "" if len(shown) > 1 else what
    drawn = [draw_map(axis, each, clock, choice.x_scale, above) for axis, each in zip(grid, shown, strict=True)]
    axes.colour_bar(figure, drawn[0][0], grid, COLOURS[kind])
    if len(shown) > 1:
        figure.suptitle(what, fontsize=axes.TITLE_SIZE)
    nouns = "connections" if kind == "alignment_score" else "matrices"
    runs = shortened(shown[0].run, RUN_COLUMNS) if len(shown) == 1 else f"{len(shown)} runs"
    about = f"{what} of {len(names)} {nouns}{'' if runs == '.' else f', {runs}'}"
    notices = [*lacking, *(notice for each in shown for notice in empty_cells(each))]
    notices += not_averaged([each.x for each in used], shown[0].x, clock) if choice.over else ()
    notices += not_in_all([each.names for each in used], nouns) if choice.over else ()
    return [Drawn(kind, figure, about, (*notices, *axes.left_out(max(unseen for _, unseen in drawn), clock)))]


def not_averaged(places: Sequence[Floats], shared: Floats, clock: str) -> tuple[str, ...]:
    """A notice on places that the mean over runs leaves out, as not all runs have them."""
    everything = len(np.unique(np.concatenate(list(places))))
    lacking = everything - len(shared)
    return (f"{lacking} of {everything} {clock}s are left out, as not all runs have them",) if lacking else ()


def not_in_all(names: Sequence[Sequence[str]], nouns: str) -> tuple[str, ...]:
    """A notice on what has no mean over runs, as not all runs have it.

    Args:
        names: of each run.
        nouns: what they are names of, in the plural.
    """
    everything = set().union(*names)
    lacking = len(everything) - len(everything.intersection(*names))
    return (f"{lacking} of {len(everything)} {nouns} have no mean, as not all runs have them",) if lacking else ()
