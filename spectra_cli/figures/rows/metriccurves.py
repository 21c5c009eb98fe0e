"""Metrics against steps as curves: of training, and of pruned models. Needs no matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from spectra_cli.figures.choice import NothingToDraw, ValueScale
from spectra_cli.figures.rows.gathered import POSITION
from spectra_cli.figures.rows.series import Curve, Floats, mean_curve, mean_of

LOG_WORTHY = ("loss", "perplexity")
"""Metrics that have one of these words in their names are drawn on a logarithmic axis where they span so much."""

LOG_RATIO = 100

LOOK_AT_STATUS = "Look at the column status of the table: it says why"

VARIANTS = ("full", "top", "bottom", "magnitude", "random")
"""All variants, in the order of the legend."""

MOST_CURVES = 40
"""Limit for one panel: more cannot be told apart."""


@dataclass(frozen=True)
class Panel:
    """Curves of one run (or of the mean over runs) on one axis.

    Attributes:
        run: its name.
        part: what tells the panel from others of the run, such as the split; may be empty.
        curves: as many and in the same order in all panels of a figure, so that they look alike; empty ones too.
    """

    run: str
    part: str
    curves: tuple[Curve, ...]


def value_scale(metric: str, values: Floats, chosen: ValueScale) -> Literal["linear", "log"]:
    """Scale of the vertical axis of a metric: what ``auto`` of :class:`spectra_cli.figures.choice.Choice` means.

    Args:
        metric: its name.
        values: all that are drawn, of any shape; what is not finite is passed over.
        chosen: of the user. Values of which none is positive have a linear axis all the same: a logarithmic one would
            be empty.
    """
    if chosen != "auto":
        return "linear" if values.size and not (values > 0).any() else chosen
    known = values[np.isfinite(values)]
    if not len(known) or not any(word in metric.lower() for word in LOG_WORTHY):
        return "linear"
    return "log" if known.min() > 0 and known.max() >= LOG_RATIO * known.min() else "linear"


def in_order_of_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of prune_eval with a column ``curve``: the variant and what it keeps, in the order of a legend.

    ``bottom`` keeps what ``top`` of its row's ``keep`` lacks. Of random masks it says how many seeds of a run there
    are, if more than one; no number where runs differ in that. Every variant and ``keep`` has a curve of its own.
    """
    places = {name: place for place, name in enumerate(VARIANTS)}
    kept = frame.keep.where(frame.variant != "bottom", 1.0 - frame.keep)
    shares = frame[["variant", "keep"]].drop_duplicates().dropna()
    shares = shares[shares.variant != "full"]
    labels: dict[tuple[str, float], str] = {}
    for variant, own in shares.groupby("variant", sort=False).keep:
        labels |= {(str(variant), keep): f"{variant} {share}" for keep, share in _shares(str(variant), own).items()}
    seeds = frame.groupby(["variant", "keep", "run"]).seed.nunique().groupby(["variant", "keep"])
    means = {key: _of_seeds(set(counts)) for key, counts in seeds}
    curves = [
        f"{labels[key]}{means[key]}" if (key := (variant, keep)) in labels else str(variant)
        for variant, keep in zip(frame.variant, frame.keep, strict=True)
    ]
    order = frame.variant.map(lambda name: places.get(name, len(places)))
    return frame.assign(curve=curves, order=order, kept=-kept).sort_values(["order", "kept"], kind="stable")


def _shares(variant: str, keeps: Iterable[float]) -> dict[float, str]:
    """What different ``keep`` of a variant leave, with as many digits, of at least four, as tell them apart."""
    found = list(keeps)
    for digits in range(4, 18):
        texts = [f"{1.0 - keep if variant == 'bottom' else keep:.{digits}g}" for keep in found]
        if len(set(texts)) == len(found):
            break
    else:  # of bottom: all but less than a float can take from 1
        texts = [f"1 - {keep!r}" for keep in found]
    return dict(zip(found, texts, strict=True))


def _of_seeds(counts: Set[int]) -> str:
    """Remark on a curve, for the numbers of seeds that runs have."""
    if max(counts) < 2:
        return ""
    return f" (mean of {max(counts)} seeds)" if len(counts) == 1 else " (mean of seeds)"


def check_places(x: Floats, clock: str) -> None:
    """Check that there is more than one place in training.

    Raises:
        NothingToDraw: if there is not.
    """
    places = np.unique(x)
    if len(places) > 1:
        return
    found = f"there is only one {clock}, {places[0]:.15g}" if len(places) else "there are no rows"
    raise NothingToDraw(found, remedy="Give the table of a run with several checkpoints")


def split_panels(rows: pd.DataFrame, failed: pd.DataFrame, over: str | None) -> list[Panel]:
    """The curves of one metric, by panel.

    Args:
        rows: with ``run``, ``x``, ``part``, ``curve``, ``replicate`` and ``value``. Rows of one run, place, curve and
            replicate are averaged over those that have a value; replicates only where all of them have one.
        failed: rows of whole checkpoints, which are gaps of all curves.
        over: ``run`` for the mean over runs.

    Raises:
        UsageError: if a mean over runs is wanted of runs that have no step in common.
    """
    labels = list(dict.fromkeys(rows.curve))[:MOST_CURVES]
    parts = list(dict.fromkeys(rows.sort_index().part))
    runs = list(dict.fromkeys(rows.sort_index().run))
    gaps = {run: failed[failed.run == run][POSITION].to_numpy(float) for run in runs}
    found = dict(iter(rows.groupby(["run", "part", "curve"], sort=False)))
    empty = rows.iloc[:0]

    def curve(run: str, part: str, label: str) -> Curve:
        return _curve(label, found.get((run, part, label), empty), gaps[run])

    if over is None:
        return [Panel(run, part, tuple(curve(run, part, each) for each in labels)) for run in runs for part in parts]
    return [
        Panel(
            mean_of(len(runs)),
            part,
            tuple(mean_or_nothing([curve(run, part, each) for run in runs]) for each in labels),
        )
        for part in parts
    ]


def _curve(label: str, rows: pd.DataFrame, gaps: Floats) -> Curve:
    """The mean over replicates with one standard deviation, where all of them have a value."""
    if rows.empty:
        return Curve(label, np.empty(0), np.empty(0))
    numbers = rows.value.where(np.isfinite(rows.value.astype(float)))
    table = numbers.groupby([rows[POSITION], rows.replicate]).mean().unstack()
    values = table.reindex(np.union1d(table.index.to_numpy(float), gaps)).to_numpy(float)
    spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
    return Curve(label, np.union1d(table.index.to_numpy(float), gaps), values.mean(axis=1), spread)


def mean_or_nothing(curves: Sequence[Curve]) -> Curve:
    """The mean over runs; empty where one of them has no such curve."""
    if not all(len(each.x) for each in curves):
        return Curve(curves[0].label, np.empty(0), np.empty(0))
    return mean_curve(curves)


def gap_notices(rows: pd.DataFrame, what: str) -> list[str]:
    """How many values are missing, and why.

    Args:
        rows: with ``run``, ``value`` and ``status``.
        what: the values are called.
    """
    unknown = rows[~np.isfinite(rows.value.astype(float))]
    why = unknown.status.astype(str).where(unknown.status != "ok", "not_finite")
    counts = why.groupby([unknown.run.astype(str), why], sort=False).size()
    told = [
        f"{'' if run == '.' else f'{run}: '}{what} missing: {count} ({status})"
        for run, status, count in zip(*map(counts.index.get_level_values, (0, 1)), counts, strict=True)
    ]
    return [*told[:MOST_TOLD], *([f"{len(told) - MOST_TOLD} more such reasons"] if len(told) > MOST_TOLD else [])]


MOST_TOLD = 8
"""Reasons that are told one by one."""
