"""Runs side by side of which some lack a matrix, or have a smaller one: what is drawn of all, and what is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import pandas as pd

from spectra_cli.figures.rows.gathered import POSITION
from spectra_cli.figures.rows.series import NAME
from spectra_cli.shortening import shortened

RUN_COLUMNS, NAME_COLUMNS, STATUS_COLUMNS = 48, 160, 48
"""Limits for names and statuses in a notice."""

MOST_TOLD = 8
"""Runs that have a notice each."""


def names_in_all(known: pd.DataFrame, frame: pd.DataFrame | None = None) -> frozenset[str]:
    """Matrices or connections that have a number in every run that can be drawn.

    Args:
        known: ``run`` and ``name`` of the rows that have a number.
        frame: ``run`` and ``x`` of all rows, where runs with one checkpoint are not drawn.
    """
    if frame is not None:
        places = frame.groupby("run")[POSITION].nunique()
        known = known[known.run.isin(places.index[places > 1])]
    by_run = [frozenset(names) for _, names in known.groupby("run")[NAME]]
    return frozenset.intersection(*by_run) if by_run else frozenset()


def runs_without(name: str, drawn: Collection[str], frame: pd.DataFrame) -> list[str]:
    """Notices on runs that a figure of one matrix or connection leaves out, and why.

    Args:
        name: of it.
        drawn: the runs that have it.
        frame: ``run``, ``x``, ``name`` (null in rows of a whole checkpoint) and ``status`` of all rows.
    """
    told = []
    for run, rows in frame[~frame.run.isin(list(drawn))].groupby("run", sort=False):
        own = rows[rows[NAME].isna() | (rows[NAME] == name)]
        failed = own[own.status != "ok"].drop_duplicates(POSITION)
        counts = Counter(failed.status.astype(str)).most_common(3)
        why = ", ".join(f"{count} {shortened(status, STATUS_COLUMNS)}" for status, count in counts)
        what = f"no {'numbers of ' * (not own.empty)}{shortened(name, NAME_COLUMNS)}{f' ({why})' if why else ''}"
        told.append(f"{shortened(str(run), RUN_COLUMNS)} is left out: it has {what}")
    more = [f"the same of {len(told) - MOST_TOLD} more runs"] if len(told) > MOST_TOLD else []
    return [*told[:MOST_TOLD], *more]


def cut_short(lengths: Sequence[int], what: str) -> tuple[str, ...]:
    """A notice on what the mean over runs leaves out, as not all runs have so many.

    Args:
        lengths: how many each run has.
        what: they are, in the plural.
    """
    least, most = min(lengths), max(lengths)
    return (f"the mean is of the first {least} of up to {most} {what}, as not all runs have more",) * (least < most)
