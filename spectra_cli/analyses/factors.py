"""What is found of a matrix, as it is kept and handed on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spectra_cli.spectrum.factorize import Spectrum


@dataclass(frozen=True, slots=True)
class Factors:
    """The factorization of a matrix or a part, or the reason why there is none.

    Attributes:
        status: ``ok``, ``all_zero``, or why there is no spectrum.
        spectrum: None unless `status` is ``ok`` or ``all_zero``. Its vectors are as :func:`compact` gives them; they
            may be shared, and are not written to.
    """

    status: str
    spectrum: Spectrum | None = None


def factors_of(spectrum: Spectrum) -> Factors:
    """Factors as they are kept, of a factorization on any device."""
    if spectrum.status != "ok":
        return Factors(spectrum.status)
    values = spectrum.singular_values.copy()  # of this matrix alone, and not of its batch
    kept = replace(spectrum, singular_values=values, left=compact(spectrum.left), right=compact(spectrum.right))
    return Factors("all_zero" if spectrum.singular_values[0] == 0.0 else "ok", kept)


def compact(vectors: Tensor | None) -> Tensor | None:
    """Vectors as they are kept: float32, on the CPU. Those that are so already are returned as they are."""
    return None if vectors is None else vectors.to("cpu", torch.float32).contiguous()
