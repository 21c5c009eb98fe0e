"""`spectra barrier`: a model's metrics along the line between two sets of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from spectra_cli.analyses.models import StateReader
from spectra_cli.analyses.rank import RankRows
from spectra_cli.analyses.sva import KeepVectors, SvaRows
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Analysis, Row, WorkPlace, visit
from spectra_cli.errors import SpectraError
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.tasks.evaluation import Value

Weights = tuple[float, float]
"""How much of A and of B is in a point of the line: (1 - alpha, alpha)."""

HARMLESS = frozenset({"ok"})
"""Statuses of rows that say all there is to say; any other makes the exit status 3."""

END_NOT_OK = "end_not_ok"
"""Status of a value that is fine itself, where the one at A or at B is not: there is no chord to measure it from."""

SLAB = 1 << 22
"""Entries that are interpolated at once: 32 MB in float64."""

ABSENT = Value(float("nan"), 0)
"""Value of a metric that the task gives only at other points of the line."""

Point = Mapping[str, Mapping[str, Value]]
"""The metrics at one point of the line, by split, then by metric."""


def grid(count: int) -> list[Weights]:
    """Equally spaced points from A to B, both ends among them.

    Both weights of a point are rounded quotients, so that the points from B to A are exactly the same in reverse.

    Args:
        count: of points, at least 2.
    """
    last = count - 1
    return [((last - index) / last, index / last) for index in range(count)]


def between(a: Tensor, b: Tensor, weights: Weights) -> Tensor:
    """A tensor on the line between two: (1 - alpha) a + alpha b, in float64 and rounded once to the dtype of `a`.

    At the ends it is exactly `a` and `b`, and where `a` and `b` are equal it is `a` at every point. Tensors of integers
    are not interpolated: they are `a`.

    Args:
        a: of any shape and dtype.
        b: of the same shape and dtype.
        weights: 1 - alpha and alpha.

    Returns:
        `a` or `b` itself, or a new tensor on their device.
    """
    weight_a, weight_b = weights
    if weight_b == 0.0 or not (a.is_floating_point() or a.is_complex()):
        return a
    if weight_a == 0.0:
        return b
    wide = torch.complex128 if a.is_complex() else torch.float64
    mixed = torch.empty(a.shape, dtype=a.dtype, device=a.device)
    flat_a, flat_b, flat = a.detach().reshape(-1), b.detach().reshape(-1), mixed.view(-1)
    for start in range(0, flat.numel(), SLAB):
        slab = slice(start, start + SLAB)
        one, other = flat_a[slab].to(wide), flat_b[slab].to(wide)
        flat[slab] = _rounded(torch.where(one == other, one, weight_a * one + weight_b * other), a.dtype)
    return mixed


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Float64 values in another dtype, each rounded once to the nearest.

    torch converts float64 to float16 and bfloat16 by way of float32, which rounds twice: 1 + 2**-11 + 2**-30 becomes 1.
    Rounding to odd in the middle step mends that (Boldo and Melquiond 2008).
    """
    if values.is_complex() or dtype in {torch.float64, torch.float32}:
        return values.to(dtype)
    single = values.to(torch.float32)
    back = single.to(torch.float64)
    bits = single.view(torch.int32)
    odd = torch.where(back.abs() > values.abs(), bits - 1, bits) | 1  # towards zero, then to the odd neighbour
    inexact = (back != values) & values.isfinite()
    return torch.where(inexact, odd.view(torch.float32), single).to(dtype)


def state_between(a: Mapping[str, Tensor], b: Mapping[str, Tensor], weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """A state dict on the line between two of one model, tensor by tensor; integer buffers are those of A."""
    for name, tensor in a.items():
        yield name, between(tensor, b[name], weights)


def curve_rows(points: Sequence[Point]) -> list[Row]:
    """The rows of one pair, without the columns that name it.

    Args:
        points: the metrics at every point of :func:`grid`, in its order.

    Returns:
        By split, metric and alpha, in the order in which the task gives them.
    """
    names = dict.fromkeys((split, metric) for point in points for split, metrics in point.items() for metric in metrics)
    rows = []
    for split, metric in names:
        values = [point.get(split, {}).get(metric, ABSENT) for point in points]
        rows += [{"split": split, "metric": metric, **row} for row in _curve(values)]
    return rows


def _curve(values: Sequence[Value]) -> list[Row]:
    """The rows of one metric on one split, from A to B."""
    rows = [
        _point(value, values[0], values[-1], weights) for value, weights in zip(values, grid(len(values)), strict=True)
    ]
    if any(row["status"] != "ok" for row in rows):
        return rows  # the maximum over what is not known is not known
    excesses = [row["excess"] for row in rows]
    columns = {
        "barrier": max(excesses),
        "barrier_interior": max(excesses[1:-1], default=None),
        "barrier_midpoint": _over_midpoint([value.value for value in values]),
    }
    return [{**row, **columns} for row in rows]


def _point(value: Value, a: Value, b: Value, weights: Weights) -> Row:
    row: Row = {"alpha": weights[1], "count": value.count, "status": value.status}
    if value.status != "ok":
        return row
    row["value"] = value.value
    if a.status != "ok" or b.status != "ok":
        return {**row, "status": END_NOT_OK}
    chord = float(between(_scalar(a.value), _scalar(b.value), weights))
    return {**row, "chord": chord, "excess": value.value - chord}


def _scalar(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


def _over_midpoint(values: Sequence[float]) -> float:
    """Maximum less the mean of both ends (the barrier of Ainsworth et al. 2023, "Git Re-Basin", Definition 2.1)."""
    return max(values) - float(between(_scalar(values[0]), _scalar(values[-1]), (0.5, 0.5)))


class MatricesAlong:
    """The matrices of a model at every point of a line: their spectra, and at its end the agreement with its beginning.

    Args:
        specs: matrices by depth; the names of their tensors are those of the model's state dict.
        place: device and memory of the factorizations.
        spectra: whether the statistics of singular values are wanted.

    Attributes:
        rows: of statistics, point after point.
        agreement: of the singular vectors of B with those of A: rows as `spectra sva` makes them, with the ``rows`` and
            ``cols`` of the matrix.
        first_errors: by status, the first error that led to it.
    """

    def __init__(self, specs: Mapping[int, MatrixSpec], place: WorkPlace, *, spectra: bool) -> None:
        self._specs, self._place, self._spectra = specs, place, spectra
        self._store: VectorStore | None = None
        self.rows: list[Row] = []
        self.agreement: list[Row] = []
        self.first_errors: dict[str, SpectraError] = {}

    def compare_with(self, store: VectorStore) -> None:
        """Have the vectors of the beginning kept in a store, and those of the end compared with them."""
        self._store = store

    def look(self, model: nn.Module, alpha: float) -> None:
        """Take in the weights of a model at one point of the line."""
        ranks = RankRows() if self._spectra else None
        kept = KeepVectors(self._store) if self._store is not None and alpha == 0.0 else None
        compared = SvaRows(self._store, {}) if self._store is not None and alpha == 1.0 else None
        analyses: list[Analysis] = [analysis for analysis in (ranks, kept, compared) if analysis is not None]
        if not analyses or not self._specs:
            return
        reader = StateReader(model.state_dict())
        visit(reader, self._specs, analyses, self._place, on_problem=self._note, on_matrix=lambda _: None)
        if ranks is not None:
            self.rows += [{"alpha": alpha, **row} for row in ranks.rows()]
        if compared is not None:
            sizes = {spec.parameter: {"rows": spec.rows, "cols": spec.cols} for spec in self._specs.values()}
            self.agreement = [{**row, **sizes[row["parameter"]]} for row in compared.rows()]

    def _note(self, error: SpectraError, _parameter: str) -> None:
        self.first_errors.setdefault(error.status, error)
