"""`spectra rank`: the statistics of the singular values of every matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from spectra_cli.analyses.loading import LoadedMatrix, ahead, groups_of_equal_shape, load
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import MemoryBudgetError, SpectraError
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.memory import resident_bytes
from spectra_cli.spectrum.statistics import summarize

Row = dict[str, Any]
OnProblem = Callable[[SpectraError, str], None]
"""Called with an error and the parameter concerned."""

OUT_OF_RANGE = "out_of_range"
"""Status where the largest singular value is beyond what float32, the type of the column, can hold: then the column is
null, and the statistics, which are in float64, stand."""

NORMS = ("spectral_norm", "frobenius_norm", "nuclear_norm")

HARMLESS = frozenset({"ok", "all_zero", "empty"})
"""Statuses of rows that say all there is to say; any other makes the exit status 3."""


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """Where matrices are factorized and how much memory that may take."""

    device: torch.device
    budget_bytes: int

    @property
    def working_bytes(self) -> int:
        """What is left of the budget beside this and the next matrix in memory."""
        return self.budget_bytes - 2 * resident_bytes(self.budget_bytes)


def rank_rows(
    reader: Reader,
    specs: Mapping[int, MatrixSpec],
    place: WorkPlace,
    *,
    on_problem: OnProblem,
    on_matrix: Callable[[MatrixSpec], None] = lambda _: None,
) -> list[Row]:
    """Compute the rows of one checkpoint, without the columns that name the checkpoint.

    Args:
        reader: the opened checkpoint.
        specs: matrices by depth.
        place: device and memory.
        on_problem: told of every matrix that could not be used.
        on_matrix: told of every matrix that is done.

    Returns:
        One row per matrix, by depth.
    """
    rows: dict[int, Row] = {}
    usable: dict[int, MatrixSpec] = {}
    for depth, spec in specs.items():
        status = _unusable(spec)
        if status is None:
            usable[depth] = spec
        else:
            rows[depth] = _row(depth, spec, status=status)
            on_matrix(spec)
    groups = groups_of_equal_shape(usable, place.device, place.budget_bytes)
    for group in ahead(groups, lambda group: load(reader, group, place.device, place.budget_bytes)):
        for row in _rows_of_group(group, place, on_problem):
            rows[row["depth"]] = row
            on_matrix(usable[row["depth"]])
        del group  # before the one after the next is read
    return [rows[depth] for depth in sorted(rows)]


def _rows_of_group(group: list[LoadedMatrix], place: WorkPlace, on_problem: OnProblem) -> list[Row]:
    rows = []
    for loaded, spectrum, error in _factorize_group(group, place):
        if error is not None:
            on_problem(error, loaded.spec.parameter)
            rows.append(_row(loaded.depth, loaded.spec, status=error.status, digest=loaded.digest))
        elif spectrum is not None:
            rows.append(_row_of_spectrum(loaded, spectrum))
    return rows


def _unusable(spec: MatrixSpec) -> str | None:
    if spec.rows == 0 or spec.cols == 0:
        return "empty"
    return None if spec.tensor.is_floating else "complex_dtype"


def _factorize_group(
    group: list[LoadedMatrix], place: WorkPlace
) -> list[tuple[LoadedMatrix, Spectrum | None, SpectraError | None]]:
    """Factorize those of a group that could be read; a matrix that fails takes no other with it."""
    results: list[tuple[LoadedMatrix, Spectrum | None, SpectraError | None]] = [
        (loaded, None, loaded.error) for loaded in group if loaded.error is not None
    ]
    readable = [(loaded, loaded.matrix) for loaded in group if loaded.matrix is not None]
    try:
        spectra = factorize([matrix for _, matrix in readable], budget_bytes=place.working_bytes)
        results += [(loaded, spectrum, None) for (loaded, _), spectrum in zip(readable, spectra, strict=True)]
    except (SpectraError, MemoryError) as caught:
        error = caught if isinstance(caught, SpectraError) else MemoryBudgetError("memory ran out on this matrix")
        if len(readable) == 1:
            results.append((readable[0][0], None, error))
        else:
            results += [result for loaded, _ in readable for result in _factorize_group([loaded], place)]
    return results


def _row_of_spectrum(loaded: LoadedMatrix, spectrum: Spectrum) -> Row:
    spec = loaded.spec
    if spectrum.status != "ok":
        return _row(loaded.depth, spec, status=spectrum.status, digest=loaded.digest)
    values = spectrum.singular_values
    dtype = getattr(torch, spec.tensor.dtype)
    numbers = asdict(summarize(values, spec.rows, spec.cols, torch.finfo(dtype).eps))
    undefined = {name for name, number in numbers.items() if np.isnan(number)}
    undefined |= {name for name in NORMS if np.isinf(numbers[name])}
    columns: Row = {name: None if name in undefined else number for name, number in numbers.items()}
    single = np.finfo(np.float32)
    if values[0] > single.max or 0.0 < values[0] < single.tiny:  # float64 weights may be; see OUT_OF_RANGE
        columns |= {"singular_value_error": spectrum.error, "method": spectrum.method}
        return _row(loaded.depth, spec, status=OUT_OF_RANGE, digest=loaded.digest, **columns)
    stored = values.astype(np.float32)
    rounding = float(np.abs(stored.astype(np.float64) - values).max())
    return _row(
        loaded.depth,
        spec,
        status="all_zero" if values[0] == 0.0 else "ok",
        digest=loaded.digest,
        **columns,
        singular_values=stored,
        singular_value_error=spectrum.error + rounding,
        method=spectrum.method,
    )


def _row(depth: int, spec: MatrixSpec, *, status: str, **columns: Any) -> Row:
    return {**spec.described(depth), **columns, "status": status}
