"""Checkpoints of one run at one place in training, of which one is drawn: no figure shows a mean of two models."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

Shared = Mapping[tuple[str, float], list[str]]
"""Checkpoints that share a place, by run and place: at least two, of which the last in the list is drawn."""


def superseded(frame: pd.DataFrame, clock: str) -> dict[tuple[str, float], list[str]]:
    """Places with several checkpoints, such as a model saved anew at the same step.

    The last in the order of the table is drawn, of those that have a number if any has one.

    Args:
        frame: ``run``, ``checkpoint``, ``status`` and the clock of all rows of a kind.
        clock: ``step`` or ``epoch``; rows without one are passed over.
    """
    known = frame[frame[clock].notna() & frame.checkpoint.notna()]
    known = known.assign(checkpoint=known.checkpoint.astype(str), ok=known.status == "ok")
    single = known.groupby(["run", clock, "checkpoint"], sort=False).ok.any().reset_index()
    several = single[single.duplicated(["run", clock], keep=False)].sort_values("ok", kind="stable")
    shared: dict[tuple[str, float], list[str]] = {}
    for run, place, name in several[["run", clock, "checkpoint"]].itertuples(index=False, name=None):
        shared.setdefault((str(run), float(place)), []).append(name)
    return dict(sorted(shared.items(), key=lambda each: each[0]))


def told_of(shared: Shared, clock: str, most: int) -> tuple[str, ...]:
    """Notices on such places.

    Args:
        shared: as of :func:`superseded`.
        clock: of the places.
        most: places that have a notice each.
    """
    told = [
        f"{run}: {len(names)} checkpoints have {clock} {place:.15g}; {names[-1]} is drawn"
        for (run, place), names in shared.items()
    ]
    more = [f"the same at {len(told) - most} more places"] if len(told) > most else []
    return (*told[:most], *more)
