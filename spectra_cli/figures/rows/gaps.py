"""Checkpoints that could not be used: gaps in what is drawn of one matrix, which no line and no cell may cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from spectra_cli.figures.rows.gathered import POSITION
from spectra_cli.figures.rows.series import NAME, Evolution
from spectra_cli.shortening import shortened

TEXT_COLUMNS = 48
"""Limit for the name of a run, and for a status."""


@dataclass(frozen=True)
class Followed:
    """One matrix or connection through training, and why numbers are missing.

    Attributes:
        evolution: its numbers; nan at places where there are none.
        why: status and number of such places, for people.
    """

    evolution: Evolution
    why: str = ""


def with_gaps(found: Sequence[Evolution], statuses: pd.DataFrame) -> list[Followed]:
    """Add the places of checkpoints that could not be used, so that no line and no cell covers them.

    Args:
        found: of all runs.
        statuses: ``run``, ``x``, ``name`` (null in rows of a whole checkpoint) and ``status`` of all rows.
    """
    failed = statuses[statuses.status != "ok"]
    followed = []
    for each in found:
        of_run = failed[(failed.run == each.run) & (failed[NAME].isna() | (failed[NAME] == each.name))]
        x = np.union1d(each.x, of_run[POSITION].to_numpy(float))
        values = np.full((len(x), each.values.shape[1]), np.nan)
        values[np.searchsorted(x, each.x)] = each.values
        empty = of_run[of_run[POSITION].isin(x[~np.isfinite(values).any(axis=1)])].drop_duplicates(POSITION)
        told = [f"{count} {shortened(str(why), TEXT_COLUMNS)}" for why, count in Counter(empty.status).most_common(3)]
        followed.append(Followed(replace(each, x=x, values=values), ", ".join(told)))
    return followed


def gap_notice(followed: Followed) -> str:
    """A notice on places without numbers."""
    run = followed.evolution.run
    return f"checkpoints{'' if run == '.' else f' of {shortened(run, TEXT_COLUMNS)}'} are empty ({followed.why})"
