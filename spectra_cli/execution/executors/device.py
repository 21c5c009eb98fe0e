"""Which device the work runs on."""

from __future__ import annotations

import warnings

import torch

from spectra_cli.analyses.visits import WorkPlace
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.planning.options import Options
from spectra_cli.spectrum.memory import DEFAULT_SHARE, default_budget_bytes

KNOWN_SHARE = 0.125
"""Share of the budget for factors of matrices that the next checkpoint may have unchanged."""

KEPT_SHARE = 0.25
"""Share of the budget for the vectors of reference checkpoints; what does not fit goes to a temporary file."""


class DeviceWarning(UserWarning):
    """The work runs elsewhere than was asked for."""


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is there.

    ``auto`` is the first CUDA device if there is one, else the CPU. ``mps`` is accepted and means the CPU, with a
    warning: Apple's GPUs have no float64, without which no error bound can be given.

    Raises:
        UsageError: if the name is none of these.
        InputError: if the device is not there.
    """
    if "," in name:
        raise UsageError(f"--device {name}: one device is needed here", remedy="Give one of them")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        warnings.warn(
            "Apple GPUs have no float64, which the error bound needs: the work runs on the CPU",
            DeviceWarning,
            stacklevel=2,
        )
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise UsageError(f"--device {name} is unknown", remedy="Give auto, cpu, cuda, cuda:N or mps")
    if not torch.cuda.is_available():
        raise InputError(
            f"--device {name}: torch {torch.__version__} finds no CUDA device",
            remedy="Give --device cpu, or install a CUDA build of torch",
        )
    if int(index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0",
            remedy="Give a smaller number",
        )
    return torch.device("cuda", int(index or 0))


def work_place_of(
    options: Options, device: str, *, sharing: int = 1, keeps_vectors: bool = False, knows_factors: bool = False
) -> WorkPlace:
    """Where a worker does its work, and how much memory that may take.

    Args:
        options: what the user chose; the memory budget is that of all workers.
        device: name of the worker's device.
        sharing: how many workers share the memory.
        keeps_vectors: whether vectors of reference checkpoints are kept.
        knows_factors: whether factors are kept for the next checkpoint.

    Raises:
        SpectraError: if the device is not there.
    """
    found = resolve_device(device)
    if options.budget_bytes is not None:
        budget_bytes = options.budget_bytes // sharing
    elif found.type == "cuda":
        budget_bytes = int(DEFAULT_SHARE * torch.cuda.mem_get_info(found)[0]) // sharing
    else:
        budget_bytes = default_budget_bytes() // sharing
    kept_bytes = int(KEPT_SHARE * budget_bytes) if keeps_vectors else 0
    return WorkPlace(found, budget_bytes, kept_bytes, int(KNOWN_SHARE * budget_bytes) if knows_factors else 0)


def described(device: torch.device) -> str:
    """A device as the files record it, with the name of the hardware where it has one."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
