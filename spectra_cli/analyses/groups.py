"""Matrices of a checkpoint in groups of one shape, and in how many lanes those are worked on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from spectra_cli.analyses.demands import WorkPlace
from spectra_cli.analyses.lanes import MOST_LANES, flops_of, heaviest_first, lane_count
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import working_bytes
from spectra_cli.spectrum.subspaces import MOST

BATCH_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Limit for float64 weights and Gram matrices in a batch: batching saves calls on a CPU, and fills a GPU."""

Item = TypeVar("Item")
Group = list[tuple[int, MatrixSpec]]
"""Matrices that are read and worked on together, by depth."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How the matrices of a checkpoint are gone through.

    Attributes:
        groups: in the order in which they are read.
        lanes: how many are worked on at a time.
        threads: of each lane, for matrix products.
    """

    groups: list[Group]
    lanes: int
    threads: int


def arranged(
    specs: Mapping[int, MatrixSpec],
    alike: Callable[[int], Hashable],
    place: WorkPlace,
) -> Arrangement:
    """Arrange the matrices of a checkpoint.

    Args:
        specs: matrices by depth.
        alike: what else than shape and dtype must be equal for two depths to come together.
        place: where they will be worked on.
    """
    groups = groups_of_equal_shape(specs, alike, place.device, place.budget_bytes)
    work = [sum(flops_of(spec) for _, spec in group) for group in groups]
    needed = max((working_bytes(spec.rows, spec.cols, 0, vectors=MOST) for spec in specs.values()), default=1)
    affordable = max((n for n in range(1, MOST_LANES + 1) if place.share(n).working_bytes >= needed), default=1)
    cores = torch.get_num_threads() if place.device.type == "cpu" else 1
    lanes = lane_count(work, cores, affordable)
    if lanes == 1:
        return Arrangement(groups, 1, cores)
    return Arrangement(heaviest_first(groups, work, lanes), lanes, cores // lanes)


def groups_of_equal_shape(
    specs: Mapping[int, MatrixSpec], alike: Callable[[int], Hashable], device: torch.device, budget_bytes: int
) -> list[Group]:
    """Put matrices of one shape and dtype together, as far as a batch of them is small.

    Args:
        specs: matrices by depth.
        alike: what else must be equal for two depths to come together.
        device: where they will be worked on.
        budget_bytes: of working memory; a batch takes a fraction of it.

    Returns:
        Groups in the order of their first matrix.
    """
    groups: list[Group] = []
    growing: dict[Hashable, Group] = {}
    for depth, spec in specs.items():
        key = (spec.rows, spec.cols, spec.tensor.dtype, alike(depth))
        group = growing.get(key)
        if group is None or len(group) >= batch_size((spec.rows, spec.cols), device, budget_bytes):
            group = growing[key] = []
            groups.append(group)
        group.append((depth, spec))
    return groups


def batches(
    items: Sequence[Item], shape: tuple[int, int], device: torch.device, budget_bytes: int
) -> Iterator[Sequence[Item]]:
    """Cut what stands for matrices of one shape into batches that are small."""
    size = batch_size(shape, device, budget_bytes)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def batch_size(shape: tuple[int, int], device: torch.device, budget_bytes: int) -> int:
    """How many matrices of a shape are worked on together, at least one."""
    limit = min(BATCH_BYTES.get(device.type, BATCH_BYTES["cpu"]), budget_bytes // 8)
    return max(1, limit // (8 * (shape[0] * shape[1] + 3 * min(shape) ** 2)))
