"""Names and shapes made to take time: every question about them is answered in time linear in what is there."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.matricize import MOST_STACKED
from spectra_cli.tensors import TensorInfo

LENGTH = 1 << 14  # far longer than a reader lets through, so that what is quadratic takes seconds


def tensors(shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, shape, dtype) for name, shape in shapes.items()}


def seconds_of(checkpoint: dict[str, TensorInfo]) -> float:
    start = time.process_time()
    take_inventory(checkpoint, ordered=False)
    return time.process_time() - start


FRAGMENTS = ("up", "up_", "emb_", "proj_", "pos_emb", "experts_", "conv", "conv_t", "attn_", "optim_", "ema_", "bias_")


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_no_name_takes_more_than_its_length_in_time(fragment: str) -> None:
    """Names in which what a pattern looks for is found again and again, and which match nothing in the end."""
    ways = [f"{fragment}" * LENGTH, f"{fragment}1" * LENGTH, fragment + "1" * LENGTH]
    for name in [way[: LENGTH - 1] + end for way in ways for end in ("!", "a")]:
        checkpoint = tensors({name: (4, 3), f"{name}.weight": (4, 3, 2), f"x.{name}": (5, 2, 1)})
        assert any(
            seconds_of(checkpoint) < 0.5 for _ in range(5)
        )  # a busy machine is slow once, a quadratic way always


def test_twenty_thousand_tensors_with_scales_take_no_time() -> None:
    shapes = {f"layers.{index}.weight": (2, 2) for index in range(20_000)}
    checkpoint = tensors(shapes, "float8_e4m3fn") | tensors({f"{name}_scale": (2, 2) for name in shapes})
    start = time.process_time()
    inventory = take_inventory(checkpoint, ordered=True)
    assert time.process_time() - start < 2
    assert {item.status for item in inventory.skipped} == {"quantized", "buffer"}


@pytest.mark.parametrize("below", ["{}.w", "{}.shadow_params.0", "{}.a.b.c"])
def test_thousands_of_modules_called_averaged_take_no_time(below: str) -> None:
    """None is a copy where its two matrices are in no other place."""
    count = 10_000
    shapes = {below.format(f"m{index}") + end: (2, 2) for index in range(count) for end in ("x", "y")}
    shapes |= {below.format(f"ema_{index}") + end: (3, 2) for index in range(count) for end in ("x", "y")}
    start = time.process_time()
    take_inventory(tensors(shapes), ordered=True)
    assert time.process_time() - start < 5


def test_a_stack_of_empty_matrices_is_empty_and_one_of_millions_is_skipped_with_a_status() -> None:
    """Neither makes a matrix per place; a stack beside them is still one."""
    shapes = {
        "mlp.experts.empty": (1 << 40, 0, 4),
        "mlp.experts.up_proj": (2_000_000, 1, 1),
        "mlp.experts.down_proj": (3, 4, 5),
    }
    inventory = take_inventory(tensors(shapes), ordered=True)
    assert {item.name.rpartition(".")[2]: item.status for item in inventory.skipped} == {
        "empty": "empty",
        "up_proj": "too_many_matrices",
    }
    assert len(inventory.matrices) == 3


def test_stacks_are_counted_together() -> None:
    """Many stacks, none too large alone."""
    shapes = {f"layers.{index}.experts.up_proj": (MOST_STACKED // 2, 1, 1) for index in range(4)}
    inventory = take_inventory(tensors(shapes), ordered=True)
    assert len(inventory.matrices) == MOST_STACKED
    assert [item.status for item in inventory.skipped] == ["too_many_matrices"] * 2
