"""`spectra rank`: the statistics of the singular values of every matrix."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from spectra_cli.analyses.known import KnownMatrices, key_of
from spectra_cli.analyses.visits import Analysis, Demand, Row, Visited
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.statistics import summarize

OUT_OF_RANGE = "out_of_range"
"""Status where the largest singular value is beyond what float32, the type of the column, can hold: then the column is
null, and the statistics, which are in float64, stand."""

NORMS = ("spectral_norm", "frobenius_norm", "nuclear_norm")

HARMLESS = frozenset({"ok", "all_zero", "empty"})
"""Statuses of rows that say all there is to say; any other makes the exit status 3."""


class RankRows(Analysis):
    """Makes the rows of one checkpoint, without the columns that name the checkpoint.

    The row of a matrix that is known has ``known``, which is True, in place of its numbers; its status is ``ok``.

    Args:
        known: matrices of which somebody has the numbers, so that they are not to be found again.
    """

    def __init__(self, known: KnownMatrices | None = None) -> None:
        self._known = known
        self._rows: dict[int, Row] = {}

    def demand(self, depth: int) -> Demand:  # noqa: ARG002 - the same of every matrix
        """The values of every matrix."""
        return Demand(whole=True)

    def settles(self, depth: int, spec: MatrixSpec, digest: str) -> bool:  # noqa: ARG002 - nor does this depend on it
        """Whether the matrix is known."""
        return self._known is not None and key_of(spec, digest) in self._known

    def take(self, visited: Visited) -> None:
        """Make a row."""
        depth, spec, digest = visited.depth, visited.spec, visited.digest
        if digest is not None and self.settles(depth, spec, digest):
            self._rows[depth] = {**spec.described(depth), "digest": digest, "known": True, "status": "ok"}
        else:
            self._rows[depth] = _row_of(visited)

    def rows(self) -> list[Row]:
        """One row per matrix, by depth."""
        return [self._rows[depth] for depth in sorted(self._rows)]


def _row_of(visited: Visited) -> Row:
    spec, factors = visited.spec, visited.whole
    assert factors is not None  # noqa: S101 - demanded of every matrix
    if factors.spectrum is None:
        return _row(visited, status=factors.status)
    spectrum = factors.spectrum
    values = spectrum.singular_values
    dtype = getattr(torch, spec.tensor.dtype)
    numbers = asdict(summarize(values, spec.rows, spec.cols, torch.finfo(dtype).eps))
    undefined = {name for name, number in numbers.items() if np.isnan(number)}
    undefined |= {name for name in NORMS if np.isinf(numbers[name])}
    columns: Row = {name: None if name in undefined else number for name, number in numbers.items()}
    single = np.finfo(np.float32)
    if values[0] > single.max or 0.0 < values[0] < single.tiny:  # float64 weights may be; see OUT_OF_RANGE
        columns |= {"singular_value_error": spectrum.error, "method": spectrum.method}
        return _row(visited, status=OUT_OF_RANGE, **columns)
    stored = values.astype(np.float32)
    rounding = float(np.abs(stored.astype(np.float64) - values).max())
    return _row(
        visited,
        status=factors.status,
        **columns,
        singular_values=stored,
        singular_value_error=spectrum.error + rounding,
        method=spectrum.method,
    )


def _row(visited: Visited, *, status: str, **columns: Any) -> Row:
    return {**visited.spec.described(visited.depth), "digest": visited.digest, **columns, "status": status}
