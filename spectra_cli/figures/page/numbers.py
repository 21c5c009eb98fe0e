"""Numbers as a page embeds them: in few bytes, and so that each reads as four significant digits of the one given."""

from __future__ import annotations

import base64
from decimal import ROUND_HALF_UP, Context, Decimal

import numpy as np
import numpy.typing as npt

CELL_BYTES = 3
"""A float32 without the lowest byte of its fraction: 16 significant bits, and four characters of base64 to a value."""

SMALLEST, GREATEST = 2.0**-126, 3.39e38
"""Range in which a float32 has its full precision; the upper end leaves room for rounding."""

MOST_WHOLE = 65_536
"""Largest number up to which 16 bits hold whole numbers exactly; the page shows them whole."""

LEAST_ROUNDED = 10_000
"""Least number of those that lose digits before the decimal point if they are not whole."""

SPACING = np.uint32(1 << 8 * (4 - CELL_BYTES))
"""Distance between neighbouring numbers of :data:`CELL_BYTES` bytes, in the bits of a float32."""

NEAR_HALF = 1e-6
"""How near to the middle of two numbers of four digits arithmetic in binary is not trusted to round."""

AS_SCRIPTS_ROUND = Context(prec=4, rounding=ROUND_HALF_UP)
"""Rounding of ``Number.prototype.toExponential``; Python rounds ties to even digits."""

Floats64 = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint32]


def numbers(values: npt.ArrayLike) -> str | list[float | str | None]:
    """Values as JSON has them in a page: packed, or as they are where a float32 cannot hold them all.

    Args:
        values: any shape, flattened row by row.

    Returns:
        As :func:`packed`; or a list in which null is NaN, the names that JavaScript has for them are infinities, and
        numbers have four significant digits, but for small whole ones.
    """
    exact = np.asarray(values, dtype=np.float64).ravel()
    sizes = np.abs(exact[np.isfinite(exact) & (exact != 0)])
    if bool(((sizes < SMALLEST) | (sizes > GREATEST)).any()):
        return [_listed(value) for value in exact.tolist()]
    return packed(exact)


def packed(values: npt.ArrayLike) -> str:
    """Base64 of the upper three bytes of each value as a little-endian float32.

    Four decimal digits need 15 bits (D. W. Matula, "In-and-out conversions", 1968), so that among the numbers of 16 one
    is always near that is written with the same four digits as the value: the nearest, or the one next to it.

    Args:
        values: any shape, flattened row by row; NaN, infinite, 0, or of a size from :data:`SMALLEST` to
            :data:`GREATEST`. The relative error is at most 2^-15. Whole numbers up to :data:`MOST_WHOLE` are exact, and
            others from :data:`LEAST_ROUNDED` up to there are rounded to four digits, as they would be shown whole.
    """
    exact = np.asarray(values, dtype=np.float64).ravel()
    words = _nearest(exact)
    kept = (exact == np.trunc(exact)) & (np.abs(exact) <= MOST_WHOLE)
    others = np.isfinite(exact) & ~kept
    near = words.view("<f4").astype(np.float64)
    looks_whole = others & (near == np.trunc(near)) & (np.abs(near) >= LEAST_ROUNDED) & (np.abs(near) <= MOST_WHOLE)
    words[looks_whole] = _nearest(np.array([_four_digits(value) for value in exact[looks_whole].tolist()]))
    for index in np.flatnonzero(others & ~looks_whole)[_may_differ(exact, near, others & ~looks_whole)].tolist():
        told = abs(AS_SCRIPTS_ROUND.create_decimal(Decimal(float(near[index]))))
        wanted = abs(Decimal(f"{exact[index]:.3e}"))
        if told > wanted:
            words[index] -= SPACING
        elif told < wanted:
            words[index] += SPACING
    upper = words.view(np.uint8).reshape(-1, 4)[:, 4 - CELL_BYTES :]
    return base64.b64encode(upper.tobytes()).decode("ascii")


def _nearest(exact: Floats64) -> Words:
    """The bits of the nearest numbers of 16 significant bits, as those of a float32."""
    single = exact.astype("<f4")
    single[np.isnan(single)] = np.nan  # one NaN only, and not one that rounds to infinity
    words = single.view("<u4")
    return np.where(np.isfinite(single), (words + SPACING // 2) & ~(SPACING - 1), words).astype("<u4")


def _may_differ(exact: Floats64, near: Floats64, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of the chosen pairs may be written with different digits: a few of a hundred."""
    sizes = np.abs(np.stack([exact[chosen], near[chosen]]))
    units = 10.0 ** (np.floor(np.log10(sizes)) - 3)
    digits = sizes / units
    doubtful = np.abs(digits % 1 - 0.5) < NEAR_HALF
    written = np.rint(digits) * units
    differ: npt.NDArray[np.bool_] = doubtful.any(axis=0) | (written[0] != written[1])
    return differ


def _listed(value: float) -> float | str | None:
    if np.isnan(value):
        return None
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) <= MOST_WHOLE:
        return int(value)
    rounded = _four_digits(value)
    return rounded if np.isfinite(rounded) else value  # 1.7976e308 has no four digits that a float64 holds


def _four_digits(value: float) -> float:
    return float(f"{value:.3e}")
