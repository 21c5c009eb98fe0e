"""What need not be factorized again: matrices whose rows are in a table, and factors found a checkpoint ago.

Layers are frozen, weights are tied by copying them, and checkpoints are copied. Equal bytes have an equal digest.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from threading import Lock
from typing import Protocol

from spectra_cli.analyses.factors import Factors
from spectra_cli.analyses.loading import LoadedMatrix
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec
from spectra_cli.layers.parts import Part, Ranges, Side

ENTRY_BYTES = 1 << 10
"""What an entry takes beside its numbers."""

MatrixKey = tuple[str, str, int, int]
"""Digest, kind, rows and cols of a matrix, as its row in a table has them."""


class KnownMatrices(Protocol):
    """Matrices of which the numbers are known; any set or mapping of their keys is one."""

    def __contains__(self, key: object, /) -> bool:
        """Whether a :data:`MatrixKey` is among them."""
        ...


def key_of(spec: MatrixSpec, digest: str) -> MatrixKey | None:
    """What tells one matrix from every other in a table; None where a digest does not.

    A digest stands for bytes, shape and dtype, and not for the order in which a matrix has its axes. Where the first
    two sizes differ, rows and columns say that. Of a square matrix and its transpose the singular values are the same,
    to the bit as :func:`valued` has it. What remains are tensors with a kernel and as many inputs as outputs: read as
    (out, in, kernel...) they have other singular values than read as (in, out, kernel...), and only a ``conv`` is
    always the first.

    Args:
        spec: which matrix.
        digest: of its bytes.
    """
    sizes = spec.tensor.shape if spec.expert is None else spec.tensor.shape[1:]
    if len(sizes) > 2 and sizes[0] == sizes[1] and spec.kind != "conv":
        return None
    return (digest, spec.kind, spec.rows, spec.cols)


def valued(matrix: LazyMatrix) -> LazyMatrix:
    """The matrix to factorize for the singular values of another, where no vectors are asked for.

    For a square matrix that is stored transposed, this is its transpose. Rounding in the matrix itself would give
    other last digits than in one of the same bytes that is stored as it is, and no table tells the two apart.
    """
    spec = matrix.spec
    if spec.rows != spec.cols or spec.layout not in {"transposed", "expert_transposed"}:
        return matrix
    return replace(matrix, spec=replace(spec, layout="stored" if spec.expert is None else "expert"))


Owner = tuple[str, Ranges, Ranges]
"""A parameter, and the rows and columns that are a part of it."""


def owner_of(spec: MatrixSpec, part: Part) -> Owner:
    """Identity of the part of a matrix that factors belong to."""
    return (spec.parameter, part.rows, part.cols)


def factors_key(loaded: LoadedMatrix, part: Part, sides: frozenset[Side], together: int) -> Hashable:
    """What factors depend on beside the place where they are found.

    Args:
        loaded: the matrix.
        part: of it.
        sides: whose vectors are found with the values.
        together: how many are worked on at once, where that changes the last bits; else 0.
    """
    spec = loaded.spec
    turned = spec.layout in {"transposed", "expert_transposed", "swapped"}
    return (loaded.digest, turned, spec.rows, spec.cols, part.rows, part.cols, sides, together)


class KnownFactors:
    """Factors of the matrices of the checkpoint visited last, for those that have not changed in the next.

    Every matrix and part owns the factors last found of it; matrices of equal bytes own the same. Factors without an
    owner are dropped, and so are those of a matrix that the last checkpoint did not have. Where memory is full,
    nothing more is kept. Several threads may ask.

    Args:
        memory_bytes: of factors to keep.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._room = memory_bytes
        self._terms: Hashable = None
        self._factors: dict[Hashable, Factors] = {}
        self._owned: dict[Owner, Hashable] = {}
        self._owners: dict[Hashable, set[Owner]] = {}
        self._met: set[Owner] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._factors)

    def begin(self, terms: Hashable) -> None:
        """A checkpoint is to be visited: let go of what the last one did not have.

        Args:
            terms: device, memory and threads of the work. Others than the last time make other last bits: nothing that
                was found under those counts.
        """
        with self._lock:
            for owner in list(self._owned):
                if terms != self._terms or owner not in self._met:
                    self._release(owner)
            self._terms = terms
            self._met.clear()

    def get(self, owner: Owner, key: Hashable) -> Factors | None:
        """Factors that are known, from now on those of this owner."""
        with self._lock:
            factors = self._factors.get(key)
            if factors is not None:
                self._own(owner, key)
            return factors

    def put(self, owner: Owner, key: Hashable, factors: Factors) -> None:
        """Keep what was found, if there is room."""
        size = _size(factors)
        with self._lock:
            if self._owned.get(owner) != key:
                self._release(owner)
            if key not in self._factors:
                if size > self._room:
                    return
                self._room -= size
                self._factors[key] = factors
            self._own(owner, key)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            for owner in list(self._owned):
                self._release(owner)

    def _own(self, owner: Owner, key: Hashable) -> None:
        self._met.add(owner)
        if self._owned.get(owner) != key:
            self._owners.setdefault(key, set()).add(owner)
            self._release(owner)
            self._owned[owner] = key

    def _release(self, owner: Owner) -> None:
        key = self._owned.pop(owner, None)
        if key is None:
            return
        owners = self._owners[key]
        owners.discard(owner)
        if not owners:
            del self._owners[key]
            self._room += _size(self._factors.pop(key))


def _size(factors: Factors) -> int:
    spectrum = factors.spectrum
    if spectrum is None:
        return ENTRY_BYTES
    sides = [side.nbytes for side in (spectrum.left, spectrum.right) if side is not None]
    return ENTRY_BYTES + spectrum.singular_values.nbytes + sum(sides)
