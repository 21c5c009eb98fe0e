"""Which parts of a model's weights are kept, told before torch is imported."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from spectra_cli.errors import UsageError

FULL, TOP, BOTTOM, MAGNITUDE, RANDOM = "full", "top", "bottom", "magnitude", "random"

VARIANTS = (FULL, TOP, BOTTOM, MAGNITUDE, RANDOM)
"""All variants, in the order of the table."""

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Pruning:
    """Variants of a model's weights, and how much of them each keeps.

    Attributes:
        variants: of :data:`VARIANTS`, in that order: ``full``, nothing is changed; ``top``, the leading singular
            components of every matrix; ``bottom``, the others; ``magnitude``, the entries of largest magnitude of all
            matrices together; ``random``, as many entries of every matrix, anywhere in it.
        keep: fraction of singular components in the top, in (0, 1].
        mask_keep: fraction of entries under a mask, in (0, 1].
        mask_seed: of the random masks.

    Raises:
        UsageError: if a value means nothing.
    """

    variants: tuple[str, ...] = VARIANTS
    keep: float = 0.5
    mask_keep: float = 0.05
    mask_seed: int = 0

    def __post_init__(self) -> None:
        for option, fraction in (("--keep", self.keep), ("--mask-keep", self.mask_keep)):
            if not 0.0 < fraction <= 1.0:
                raise UsageError(f"{option} {fraction:g} is no fraction", remedy="Give a number above 0, at most 1")
        if not 0 <= self.mask_seed <= LARGEST_SEED:
            raise UsageError(f"--mask-seed {self.mask_seed} is no seed", remedy="Give a number from 0 to 2**63 - 1")
        for variant in self.variants:
            if variant not in VARIANTS:
                near = difflib.get_close_matches(variant, VARIANTS, n=1) or VARIANTS
                raise UsageError(f"--variants: there is no '{variant}'", remedy=f"Give {', '.join(near)}")
        if not self.variants:
            raise UsageError("--variants names none", remedy=f"Give some of {','.join(VARIANTS)}")

    def kept(self, variant: str) -> float:
        """The fraction that a variant is about; of the bottom, that which is missing."""
        if variant == FULL:
            return 1.0
        return self.keep if variant in {TOP, BOTTOM} else self.mask_keep

    def seed(self, variant: str) -> int | None:
        """Seed of a variant's mask; None if nothing in it is random."""
        return self.mask_seed if variant == RANDOM else None


def listed_variants(named: Sequence[str]) -> tuple[str, ...]:
    """Each variant once, in the order of the table; unknown ones last.

    Args:
        named: variants, each a name or several separated by commas.
    """
    names = [name.strip() for several in named for name in several.split(",") if name.strip()]
    known = [variant for variant in VARIANTS if variant in names]
    return (*known, *(name for name in dict.fromkeys(names) if name not in VARIANTS))
