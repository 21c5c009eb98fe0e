"""Connections of more heads or kernel positions than are compared one by one."""

from __future__ import annotations

import time

import pytest

from spectra_cli.layers.ends import MOST_UNITS, TOO_MANY_UNITS, Unit
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tensors import TensorInfo

Shape = tuple[int, ...]


def units(shapes: dict[str, Shape], heads: int, connection: str) -> list[Unit]:
    tensors = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
    inventory = take_inventory(tensors, ordered=True, config={"num_attention_heads": heads})
    (found,) = [found for found in inventory.connections() if found.name == connection]
    return list(found.units)


def llama(width: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"layers.0.self_attn.{one}_proj.weight": (width, width) for one in "qkvo"}
    return shapes | {f"layers.0.mlp.{one}_proj.weight": (8, width) for one in ("gate", "up")}


@pytest.mark.parametrize("connection", ["query-key", "value-output"])
def test_as_many_heads_as_allowed_are_compared_and_one_more_is_a_row(connection: str) -> None:
    """The whole value matrix is compared in any case."""
    shapes = llama(2 * (MOST_UNITS + 1)), llama(2 * MOST_UNITS)
    found = [unit for unit in units(shapes[1], MOST_UNITS, connection) if unit.unit == "head"]
    assert [(unit.index, unit.status) for unit in found] == [(head, "ok") for head in range(MOST_UNITS)]
    *others, last = units(shapes[0], MOST_UNITS + 1, connection)
    assert last == Unit("whole", None, True, status=TOO_MANY_UNITS)
    assert [unit.status for unit in others] == (["ok"] if connection == "value-output" else [])


@pytest.mark.parametrize(("kernel", "count"), [((64, 64), MOST_UNITS), ((17, 241), 1), ((1 << 20, 1 << 20), 1)])
def test_as_many_kernel_positions_as_allowed_are_compared_and_more_are_a_row(kernel: Shape, count: int) -> None:
    """Whatever a header claims, without counting."""
    shapes: dict[str, Shape] = {"a.weight": (12, 3, 3, 3), "b.weight": (14, 12, *kernel)}
    start = time.process_time()
    found = units(shapes, 1, "sequential")
    assert time.process_time() - start < 1
    assert len(found) == count
    if count == 1:
        assert found == [Unit("whole", None, True, status=TOO_MANY_UNITS)]
    else:
        assert sum(unit.primary for unit in found) == 1


def test_heads_that_do_not_fit_do_not_fit_however_many() -> None:
    assert [unit.status for unit in units(llama(16), 10**9, "query-key")] == ["head_count_mismatch"]
