"""Memory that is freed is kept for the next batch, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from spectra_cli.execution.executors.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    matrices = [np.ones(500_000) for _ in range(4)]  # 4 MB each
    del matrices
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **environment: str) -> int:
    """Pages that the system has cleared while batches of matrices came and went."""
    without = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        env={**without, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_pages_of_freed_matrices_are_used_again() -> None:
    assert faults("kept") < faults("given back") / 4


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize(
    "given_back",
    [
        {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072"},
    ],
    ids=["variables", "tunables"],
)
def test_what_the_user_has_set_stays(given_back: dict[str, str]) -> None:
    assert faults("kept", **given_back) > 4 * faults("kept")
