"""The page of `spectra report` from tables: what is shown of them, and what is left out so that it stays small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from spectra_cli.errors import InputError
from spectra_cli.figures.page.document import Chart, Detail, Document, Grid, Lines, RunView
from spectra_cli.figures.report.betweenruns import across
from spectra_cli.figures.report.budget import (
    BUDGET_BYTES,
    MOST_RUNS,
    PLACE_BYTES,
    VALUE_BYTES,
    DetailPolicy,
    MapPolicy,
    MapSize,
    detail_policy,
    map_bytes,
    map_policy,
)
from spectra_cli.figures.report.curves import metric_curves, pruning_curves
from spectra_cli.figures.report.details import Opened, details_of
from spectra_cli.figures.report.grids import ALWAYS_ROWS, Map, grid_of, maps_of, overview_of, size_of
from spectra_cli.figures.report.runrows import COLUMNS, RunRows, rows_by_run, whole
from spectra_cli.figures.report.skipped import skipped_table
from spectra_cli.figures.report.sources import analysed_table, making_table, passed_over_table
from spectra_cli.figures.report.tables import changed_table, digest_table
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.kinds import KINDS, PRUNED
from spectra_cli.figures.rows.series import Overview
from spectra_cli.shortening import counted

Rows = Mapping[str, Mapping[str, RunRows]]
"""Rows of tables, by kind and run."""

MOST_TITLED = 3
"""Runs that a title names."""


def make_document(gathered: Gathered, *, title: str, passed_over: Sequence[tuple[str, str]] = ()) -> Document:
    """Bring tables into the form of a page.

    The page is bounded for tables of any size, see :mod:`spectra_cli.figures.report.budget`; what is left out is said
    in :attr:`Document.limits`. Lists are read some thousand rows at a time.

    Args:
        gathered: the tables.
        title: heading of the page; what the runs are called if it is empty.
        passed_over: files of the directory that are no tables of spectra, with the reason.

    Raises:
        InputError: if no table has a row, or a file is damaged.
    """
    if not any(file.rows for file in gathered.files):
        raise InputError(
            "no table has a row" if gathered.files else "there is no table",
            remedy="Make tables with spectra analyze RUN --out DIR, and give that directory",
        )
    rows = {kind: rows_by_run(gathered, kind) for kind in COLUMNS}
    metrics, limits_of_metrics = metric_curves(gathered)
    pruning, limits_of_pruning = pruning_curves(gathered)
    between, barriers, limits_of_pairs = across(gathered)
    curves = {run: [*metrics.get(run, ()), *pruning.get(run, ())] for run in gathered.runs}
    told = [run for run in gathered.runs if curves[run] or any(True for _ in maps_of(run, rows))]
    runs = told[:MOST_RUNS]
    taken = sum(map(_bytes, [*between, *(chart for run in runs for chart in curves[run])]))
    views, limits = _views(gathered, {run: list(maps_of(run, rows)) for run in runs}, rows, curves, taken)
    digests, limits_of_digests = digest_table(rows["rank"])
    if len(told) > len(runs):
        limits = [f"{len(runs)} of {len(told)} runs are shown, the first ones.", *limits]
    return Document(
        title=title or _title(gathered),
        lead=_lead(gathered, rows),
        runs=views,
        across=between,
        tables=[
            *([changed_table(rows["rank"], rows["sva"], _targets(views))] if rows["rank"] else []),
            *barriers,
            skipped_table(gathered),
            *([passed_over_table(passed_over)] if passed_over else []),
            analysed_table(gathered),
            making_table(gathered),
            *([digests] if digests.rows else []),
        ],
        limits=[
            *map(_sentence, gathered.remarks),
            *dict.fromkeys(f"{told}." for kind in KINDS for told in gathered.at_one_place(kind)),
            *limits,
            *limits_of_metrics,
            *limits_of_pruning,
            *limits_of_pairs,
            *limits_of_digests,
        ],
    )


def _views(
    gathered: Gathered,
    maps: Mapping[str, Sequence[Map]],
    rows: Rows,
    curves: Mapping[str, Sequence[Lines]],
    taken_bytes: float,
) -> tuple[list[RunView], list[str]]:
    """All that is shown of each run, and what was left out."""
    sizes = [size_of(each) for own in maps.values() for each in own]
    policy = map_policy(sizes)
    drawn = {run: [(each, overview_of(each.rows, policy)) for each in own] for run, own in maps.items()}
    opened = [_opened(run, rows, own) for run, own in drawn.items()]
    wanted = [size for each in opened for size in each.sizes()]
    bounds = detail_policy(wanted, BUDGET_BYTES - taken_bytes - map_bytes(sizes, policy))
    narrowed = [each.narrowed(bounds.per_run) for each in opened]
    details, thinned = details_of(gathered, narrowed, bounds)
    views = [_view(each, drawn[each.run], curves[each.run], own) for each, own in zip(narrowed, details, strict=True)]
    return views, [*_limits_of_maps(sizes, policy), *thinned, *_limits_of_details(opened, bounds)]


def _opened(run: str, rows: Rows, drawn: Sequence[tuple[Map, Overview]]) -> Opened:
    """What the rows of heat maps may open."""
    of_kind = {each.kind: overview.names for each, overview in drawn if each.kind != PRUNED}
    return Opened(
        run,
        **{kind: rows[kind].get(run) if kind in of_kind else None for kind in ("rank", "align", "sva")},
        matrices=list(dict.fromkeys([*of_kind.get("rank", ()), *of_kind.get("sva", ())])),
        connections=of_kind.get("align", ()),
    )


def _view(each: Opened, drawn: Sequence[tuple[Map, Overview]], curves: Sequence[Lines], own: list[Detail]) -> RunView:
    matrices = {name: index for index, name in enumerate(each.matrices)}
    connections = {name: index + len(matrices) for index, name in enumerate(each.connections)}
    of_matrices, of_connections = each.changed
    ordered = [*(matrices[name] for name in of_matrices), *(connections[name] for name in of_connections)]
    return RunView(
        name=each.run,
        grids=[grid_of(one, overview, connections if one.kind == "align" else matrices) for one, overview in drawn],
        lines=curves,
        details=own,
        opened=ordered[0] if ordered else None,
    )


def _targets(views: Sequence[RunView]) -> dict[tuple[str, str], tuple[int, int]]:
    """Numbers of the run and the detail that a cell opens, by run and matrix."""
    return {
        (view.name, name): (number, index)
        for number, view in enumerate(views)
        for grid in view.grids
        if grid.key == "effective_rank"
        for name, index in zip(grid.names, grid.details, strict=False)
        if index is not None
    }


def _bytes(chart: Chart) -> float:
    """An estimate of the JSON of a chart."""
    if isinstance(chart, Grid):
        return chart.values.size * VALUE_BYTES + len(chart.notes) * PLACE_BYTES + sum(map(len, chart.names))
    bands = sum(len(series.x) for series in chart.series if series.band is not None)
    return sum(len(series.x) for series in chart.series) * (VALUE_BYTES + PLACE_BYTES) + bands * VALUE_BYTES


def _limits_of_maps(sizes: Sequence[MapSize], policy: MapPolicy) -> Iterator[str]:
    rows, steps = (max((getattr(size, what) for size in sizes), default=0) for what in ("rows", "steps"))
    if steps > policy.steps:
        yield (
            f"Heat maps have {policy.steps} of up to {steps} checkpoints of a run: the first, the last, and evenly "
            "spaced ones between."
        )
    if rows > policy.rows:
        yield (
            f"Heat maps have {policy.rows} of up to {rows} rows: the {min(ALWAYS_ROWS, policy.rows)} most changed, and "
            "others evenly spaced in depth."
        )


def _limits_of_details(opened: Sequence[Opened], policy: DetailPolicy) -> Iterator[str]:
    steps = max(
        (len(rows.places) for each in opened for kind in ("rank", "sva", "align") if (rows := each.rows(kind))),
        default=0,
    )
    if steps > policy.steps:
        yield f"{policy.steps} of up to {steps} checkpoints are drawn in each detail, evenly spaced."
    for what, counts in (
        ("matrices", [len(each.matrices) for each in opened]),
        ("connections", [len(each.connections) for each in opened]),
    ):
        if max(counts, default=0) > policy.per_run:
            yield (
                f"{policy.per_run} of up to {max(counts)} {what} of a run open their singular values or diagonals: "
                "those that changed most."
            )


def _title(gathered: Gathered) -> str:
    more = f" and {len(gathered.runs) - MOST_TITLED} more" if len(gathered.runs) > MOST_TITLED else ""
    return f"{', '.join(gathered.runs[:MOST_TITLED])}{more}" or "Between runs"


def _lead(gathered: Gathered, rows: Rows) -> str:
    """What was analysed, in a sentence."""
    of_runs = next((rows[kind] for kind in ("rank", "sva", "align", PRUNED) if rows[kind]), {})
    parts = [counted(len(gathered.files), "table")]
    if gathered.runs:
        parts.append(counted(len(gathered.runs), "run"))
    if of_runs:
        checkpoints = sum(own.frame.checkpoint.nunique() for own in of_runs.values())
        first, last = (pick(own.places[end] for own in of_runs.values()) for pick, end in ((min, 0), (max, -1)))
        clock = next(iter(of_runs.values())).clock
        span = f" ({clock}s {whole(first)} to {whole(last)})" if clock != "checkpoint" and last > first else ""
        parts.append(f"{counted(checkpoints, 'checkpoint')}{span}")
    matrices = {name for own in (rows["rank"] or rows["sva"]).values() for name in own.names}
    if matrices:
        parts.append(f"{len(matrices)} {'matrices' if len(matrices) > 1 else 'matrix'}")
    return f"Made of {', '.join(parts)}."


def _sentence(remark: str) -> str:
    return f"{remark[0].upper()}{remark[1:]}."
