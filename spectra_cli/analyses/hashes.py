"""Hashes of the weights that were read: they tie rows to bytes without the bytes being in the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from spectra_cli.analyses.demands import Analysis, Demand, Visited, united
from spectra_cli.layers.matricize import MatrixSpec


class Hashes(Analysis):
    """Notes the digests of the matrices that other analyses ask for.

    Args:
        instead: analyses whose matrices are to be read, but not factorized; they are shown nothing.
    """

    def __init__(self, instead: Sequence[Analysis] = ()) -> None:
        self._instead = instead
        self._digests: dict[str, str | None] = {}

    def demand(self, depth: int) -> Demand:
        """What the others would ask for."""
        return united(analysis.demand(depth) for analysis in self._instead)

    def settles(self, depth: int, spec: MatrixSpec, digest: str) -> bool:  # noqa: ARG002 - the same of every matrix
        """True: a digest is all it needs."""
        return True

    def take(self, visited: Visited) -> None:
        """Note a digest."""
        self._digests[visited.spec.parameter] = visited.digest

    @property
    def content(self) -> str | None:
        """Hash of all parameters and their digests; None where one could not be read."""
        if None in self._digests.values():
            return None
        return combined(f"{parameter}={digest}" for parameter, digest in sorted(self._digests.items()))


def combined(parts: Iterable[str]) -> str:
    """SHA-256 of some lines, the first 32 hexadecimal digits of it."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:32]
