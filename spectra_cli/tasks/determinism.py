"""Computation that gives the same bits again: seeded generators, and algorithms without races."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of a device, in a hundredth of what ``torch.manual_seed`` takes.

    Args:
        seed: 0 to 2**63 - 1.
        device: whose generator is seeded besides that of the CPU.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators of its own for what happens within, seeded; afterwards they are as before.

    Args:
        seed: 0 to 2**63 - 1.
        device: that the work runs on.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_everything(seed, device)
        yield


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms and global generators of its own for what happens within; afterwards all is as before.

    Where an operation has no deterministic algorithm, torch warns and goes on. Caveat: the same bits are promised by
    the same torch on the same processor with the same number of threads only.

    Args:
        device: that the work runs on.
    """
    settings: Any = torch.utils.deterministic  # a module with properties, which its types do not tell
    backend = torch.backends.cudnn
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill, benchmark = settings.fill_uninitialized_memory, backend.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # would take time to show faults of torch itself
    backend.benchmark = False
    if device.type == "cuda":  # without it products of matrices may differ; cuBLAS reads it once, so it stays
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        settings.fill_uninitialized_memory = fill
        backend.benchmark = benchmark
