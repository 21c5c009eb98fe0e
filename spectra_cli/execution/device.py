"""Which device the work runs on."""

from __future__ import annotations

import warnings

import torch

from spectra_cli.errors import InputError, UsageError


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
