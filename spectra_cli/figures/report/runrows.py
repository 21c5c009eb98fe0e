"""Rows that belong to a checkpoint, without their lists: by run, in the order of depth, with what changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from spectra_cli.figures.page.document import Axis
from spectra_cli.figures.rows.gathered import CLOCK_LABELS, POSITION, Gathered
from spectra_cli.figures.rows.kinds import PRUNED
from spectra_cli.figures.rows.series import NAME, Floats, connection_names

MATRIX = ("parameter", "depth", "status")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "rank": (
        *MATRIX,
        *("kind", "rows", "cols", "dtype", "effective_rank", "effective_rank_normalized", "spectral_norm"),
        *("stable_rank", "numerical_rank", "condition_number", "singular_value_error", "method", "digest"),
    ),
    "align": ("connection", "upstream", "downstream", "unit", "primary", "depth", "status", "score", "min_gap"),
    "sva": (*MATRIX, "score", "min_gap", "reference_run", "reference_checkpoint", "reference_step"),
    PRUNED: (*MATRIX, "score", "variant"),
}
"""What is read of the rows of a kind."""

VALUES: Mapping[str, str] = {"rank": "effective_rank_normalized", "align": "score", "sva": "score", PRUNED: "score"}
"""The number that heat maps show."""


@dataclass(frozen=True)
class Ends:
    """The first and the last number of a matrix or connection.

    Attributes:
        start: place of the first.
        stop: place of the last.
        first: the number, a mean over heads where there are several.
        last: likewise.
    """

    start: float
    stop: float
    first: float
    last: float

    @property
    def change(self) -> float:
        """Change from the first to the last."""
        return self.last - self.first


@dataclass(frozen=True, eq=False)
class RunRows:
    """Rows of one kind and run.

    Attributes:
        run: its name.
        value: the column that heat maps show.
        clock: what places are: ``step``, ``epoch`` or ``checkpoint``.
        frame: the rows, with columns ``x`` and ``name``; the name is null where a row stands for a whole checkpoint.
    """

    run: str
    value: str
    clock: str
    frame: pd.DataFrame

    @cached_property
    def places(self) -> Floats:
        """(columns,), ascending."""
        return np.unique(self.frame[POSITION].to_numpy(float))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the matrices or connections, in the order of depth."""
        named = self.frame.loc[self.frame[NAME].notna(), [NAME, "depth"]]
        return tuple(named.sort_values("depth", kind="stable")[NAME].drop_duplicates())

    @cached_property
    def known(self) -> pd.DataFrame:
        """Rows that are ok and have a number, in the order of their places."""
        frame = self.frame
        told = frame[NAME].notna() & (frame.status == "ok") & np.isfinite(frame[self.value].to_numpy(float))
        return pd.DataFrame(frame[told].sort_values(POSITION, kind="stable"))

    @cached_property
    def ends(self) -> dict[str, Ends]:
        """Numbers, by name, of the first and the last checkpoint at which the matrix itself has one."""
        means = self.known.groupby([NAME, POSITION], sort=True)[self.value].mean().reset_index()
        first, last = means.drop_duplicates(NAME), means.drop_duplicates(NAME, keep="last")
        columns = [part[name].to_numpy() for part in (first, last) for name in (POSITION, self.value)]
        found = zip(first[NAME], *(column.tolist() for column in columns), strict=True)
        return {str(name): Ends(start, stop, one, other) for name, start, one, stop, other in found}

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """All names, that with the largest absolute change first, those without a change last; ties by depth."""
        change = {name: abs(ends.change) for name, ends in self.ends.items()}
        return tuple(sorted(self.names, key=lambda name: -change.get(name, -1.0)))

    @cached_property
    def first_records(self) -> dict[str, dict[str, Any]]:
        """Row of the first checkpoint at which a name is ok, by name."""
        return _records(self.known.drop_duplicates(NAME))

    @cached_property
    def last_records(self) -> dict[str, dict[str, Any]]:
        """Row of the last checkpoint at which a name is ok, by name."""
        return _records(self.known.drop_duplicates(NAME, keep="last"))

    @cached_property
    def any_records(self) -> dict[str, dict[str, Any]]:
        """First row of a name, of any status, by name."""
        return _records(self.frame[self.frame[NAME].notna()].drop_duplicates(NAME))

    @cached_property
    def checkpoints(self) -> dict[float, str]:
        """Name of the first checkpoint at each place, by place."""
        first = self.frame.drop_duplicates(POSITION)
        return {float(place): str(name) for place, name in zip(first[POSITION], first.checkpoint, strict=True)}

    @property
    def label(self) -> str:
        """Label of an axis of places."""
        return CLOCK_LABELS[self.clock]

    def axis(self, places: Floats) -> Axis:
        """The columns of a heat map at some places: numbers, or names of checkpoints where no step is known."""
        if self.clock == "checkpoint":
            return Axis(label=self.clock, values=[self.checkpoints[float(place)] for place in places])
        return Axis(label=self.clock, values=[float(place) for place in places])

    def at(self, place: float) -> str:
        """A place in words: ``step 500``."""
        if self.clock == "checkpoint":
            return f"checkpoint {self.checkpoints.get(float(place), place)}"
        return f"{self.clock} {whole(place)}"

    def scores(self, name: str) -> str:
        """The first and the last number of a name in words; empty if it has none."""
        if name not in self.ends:
            return ""
        ends = self.ends[name]
        said = [
            f"{four_digits(ends.first)} at {self.at(ends.start)}",
            f"{four_digits(ends.last)} at {self.at(ends.stop)}",
        ]
        return ", ".join(dict.fromkeys(said))

    def narrowed(self, names: Sequence[str], places: Floats) -> pd.DataFrame:
        """The rows of some names, and of whole checkpoints, at some places."""
        named = self.frame[NAME]
        frame = self.frame
        if len(names) < len(self.names):
            frame = frame[named.isna() | named.isin(list(names))]
        return frame if len(places) == len(self.places) else frame[frame[POSITION].isin(places)]


def four_digits(number: float) -> str:
    """A number with four significant digits."""
    return f"{number:.4g}"


def whole(number: float) -> str:
    """A step as it is written: without a fraction where it has none."""
    return str(int(number)) if float(number).is_integer() else f"{number:.6g}"


def rows_by_run(gathered: Gathered, kind: str) -> dict[str, RunRows]:
    """The rows of a kind by run, in the order of :attr:`Gathered.runs`; runs without any are left out.

    Args:
        gathered: the tables.
        kind: a key of :data:`COLUMNS`.

    Raises:
        InputError: if a file is damaged.
    """
    if kind not in gathered:
        return {}
    frame, clock = gathered.evolving(kind, COLUMNS[kind])
    if kind == "align":
        frame = frame[frame.primary.isin([True]) | frame.connection.isna()]
        frame = frame.assign(**{NAME: connection_names(frame).where(frame.connection.notna(), None)})
    else:
        frame = frame.rename(columns={"parameter": NAME})
    found = {str(run): rows for run, rows in frame.groupby("run", sort=False)}
    return {run: RunRows(run, VALUES[kind], clock, found[run]) for run in gathered.runs if run in found}


def _records(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {str(record[NAME]): cast(dict[str, Any], record) for record in frame.to_dict("records")}
