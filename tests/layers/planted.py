"""Models with known weights: alignment planted between two matrices, and all scores of a model by the formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra_cli.layers.ends import End, Unit
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.layers.matricize import LazyMatrix
from spectra_cli.tensors import TensorInfo

Array = NDArray[np.float64]
UnitKey = tuple[str, str, str, str, int | None]
"""Connection, upstream, downstream, unit, index."""


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    """Gaussian weights: no two matrices are aligned."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def plant(giver: Array, reader: Array, seed: int = 1) -> None:
    """Overwrite two matrices so that what one gives is what the other reads, with separated singular values.

    Args:
        giver: (n, a), output x input; its left vectors become the right ones of `reader`. Views of parts will do.
        reader: (b, n).
        seed: of the shared vectors.
    """
    rng = np.random.default_rng(seed)
    (shared_side, inputs), (outputs, read) = giver.shape, reader.shape
    assert shared_side == read, f"{giver.shape} does not feed {reader.shape}"
    shared = np.linalg.qr(rng.standard_normal((shared_side, shared_side)))[0]
    for matrix, rows, cols in ((giver, shared, inputs), (reader, outputs, shared)):
        left = rows if isinstance(rows, np.ndarray) else np.linalg.qr(rng.standard_normal((rows, rows)))[0]
        right = cols if isinstance(cols, np.ndarray) else np.linalg.qr(rng.standard_normal((cols, cols)))[0]
        rank = min(left.shape[0], right.shape[0])
        matrix[:] = (left[:, :rank] * (4.0 * 0.6 ** np.arange(rank) + 0.01)) @ right[:, :rank].T


def inventory_of(
    weights: Mapping[str, Array], config: Mapping[str, Any] | None = None, structure: StructureOptions | None = None
) -> Inventory:
    """The matrices of a model and who feeds whom."""
    tensors = {name: TensorInfo(name, array.shape, "float64") for name, array in weights.items()}
    return take_inventory(tensors, ordered=True, config=config, structure=structure)


def scores(
    weights: Mapping[str, Array], config: Mapping[str, Any] | None = None, structure: StructureOptions | None = None
) -> dict[UnitKey, float | str]:
    """Alignment score of every unit by Equations 3 and 4 in NumPy, or its status where there is none."""
    inventory = inventory_of(weights, config, structure)
    found: dict[UnitKey, float | str] = {}
    for connection in inventory.connections():
        names = (inventory.matrices[connection.upstream].parameter, inventory.matrices[connection.downstream].parameter)
        for unit in connection.units:
            key = (connection.name, *names, unit.unit, unit.index)
            assert key not in found, f"{key} twice"
            found[key] = score_of(unit, inventory, weights) if unit.status == "ok" else unit.status
    return found


def score_of(unit: Unit, inventory: Inventory, weights: Mapping[str, Array]) -> float:
    """Mean of A_ii over i <= 10."""
    assert unit.upstream is not None
    assert unit.downstream is not None
    upstream, downstream = (vectors_of(end, inventory, weights) for end in (unit.upstream, unit.downstream))
    count = min(10, upstream.shape[1], downstream.shape[1])
    return float(np.abs((upstream[:, :count] * downstream[:, :count]).sum(0)).mean())


def vectors_of(end: End, inventory: Inventory, weights: Mapping[str, Array]) -> Array:
    """The singular vectors of an end, cut to its window."""
    spec = inventory.matrices[end.part.depth]
    stored = torch.from_numpy(np.ascontiguousarray(weights[spec.tensor.name])).reshape(spec.tensor.shape[0], -1)
    matrix = LazyMatrix(spec, lambda rows, cols: stored[rows, cols], torch.device("cpu")).block().numpy()
    for axis, ranges in enumerate((end.part.rows, end.part.cols)):
        if ranges:
            matrix = matrix.take(np.concatenate([np.arange(*span) for span in ranges]), axis)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    vectors = left if end.side == "left" else right.T
    return vectors[slice(*end.window)] if end.window else vectors


def aligned(found: Mapping[UnitKey, float | str], least: float = 0.999) -> set[UnitKey]:
    """The units whose vectors agree."""
    return {key for key, score in found.items() if isinstance(score, float) and score > least}
