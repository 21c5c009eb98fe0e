"""How memory is given back to the system that matrices were in."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

MMAP_THRESHOLD_BYTES = 32 << 20
TRIM_THRESHOLD_BYTES = 64 << 20
"""The most that glibc sets for itself, once it has seen blocks that large come and go."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of these parameters in <malloc.h>."""

SETTINGS = {
    "mmap_threshold": (M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
    "trim_threshold": (M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
}
"""Parameters and their values, by their name in ``GLIBC_TUNABLES`` after ``glibc.malloc.``."""


def keep_freed_memory() -> None:
    """Have this process keep some freed memory for what comes next. Only for processes that spectra owns.

    By itself, glibc gives the matrices of each batch back to the system, which clears every page of them again for the
    next batch. What the user has set stays, and other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        for name, (parameter, value) in SETTINGS.items():
            if not _is_set(name):
                mallopt(parameter, value)


def _is_set(name: str) -> bool:
    """Whether the user has set it, in either of the ways that glibc knows."""
    return f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in os.environ.get("GLIBC_TUNABLES", "")
