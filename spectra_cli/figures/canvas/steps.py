"""Axes of steps: scales, ticks that are whole numbers, and the edges of cells between uneven places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.scale import LogTransform, SymmetricalLogTransform
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import IdentityTransform, Transform

from spectra_cli.figures.canvas.lettering import panel_in, plain
from spectra_cli.figures.choice import StepScale
from spectra_cli.figures.rows.gathered import CLOCK_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

FEW_DECADES = 2
"""Decades up to which a logarithmic axis has ticks at 2 and 5 times the powers of ten, too."""

MOST_TICKS = 5

TICK_IN = 0.8
"""Width of a panel, in inches, that a tick takes on a logarithmic axis."""

ROUND = (1, 2, 2.5, 5, 10)
"""Distances between ticks of a linear axis, times a power of ten."""

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

LONG_NUMBER = 1e5
"""The largest tick from which on an axis has units."""


class WholeNumbers(Formatter):
    """Ticks of steps: ``0``, ``500``, ``20000``; where the largest is 100 000 or more ``50k``, ``100k``; no offset."""

    def __call__(self, x: float, pos: int | None = None) -> str:  # noqa: ARG002 - matplotlib passes it
        """The text of a tick that stands alone."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The texts of all ticks of an axis: all in units or none, those below 1000 aside; whole if they need be."""
        units = UNITS if max(map(abs, values), default=0.0) >= LONG_NUMBER else ()
        found = [next(((s, unit) for s, unit in units if abs(value) >= s), (1.0, "")) for value in values]
        texts = [f"{value / size:.6g}{unit}" for value, (size, unit) in zip(values, found, strict=True)]
        return texts if len(set(texts)) == len(set(values)) else [f"{value:.15g}" for value in values]


def shown(x: Floats, scale: StepScale) -> npt.NDArray[np.bool_]:
    """Which places the scale can show: all, but for 0 and less on a logarithmic axis."""
    return np.isfinite(x) & ((x > 0) | (scale != "log"))


def threshold(x: Floats) -> float:
    """Place where a symlog axis stops being linear: the smallest positive one; 1 if there is none."""
    positive = x[x > 0]
    return float(positive.min()) if len(positive) else 1.0


def cell_edges(x: Floats, scale: StepScale) -> Floats:
    """Edges of cells around places, halfway between neighbours in the coordinates of the scale.

    Args:
        x: (n,), ascending, all of which the scale shows.
        scale: of the axis.

    Returns:
        (n + 1,). A single place gets a cell from a half less to a half more, or on a log axis to either side of it.
    """
    transform = _transform(x, scale)
    places = np.asarray(transform.transform(x.reshape(-1, 1)), float).ravel()
    gaps = np.diff(places) if len(places) > 1 else np.array([1.0])
    middles = (places[:-1] + places[1:]) / 2
    edges = np.concatenate([[places[0] - gaps[0] / 2], middles, [places[-1] + gaps[-1] / 2]])
    return np.asarray(transform.inverted().transform(edges.reshape(-1, 1)), float).ravel()


def step_axis(axis: Axes, x: npt.ArrayLike, label: str, scale: StepScale) -> int:
    """Make the horizontal axis one of steps; call it after drawing.

    Args:
        axis: to be changed.
        x: all places that are drawn, in any order.
        label: ``step``, ``epoch`` or ``checkpoint``, which get their units, or another text, which is made plain.
        scale: symlog is linear up to the smallest positive place.

    Returns:
        How many different places cannot be shown, being 0 or less on a log axis.
    """
    places = np.unique(np.asarray(x, float))
    axis.set_xlabel(CLOCK_LABELS.get(label) or plain(label))
    if axis.get_autoscalex_on():
        axis.margins(x=0.02)
    visible = places[shown(places, scale)]
    most = max(2, min(MOST_TICKS, int(panel_in(axis)[0] / TICK_IN)))
    whole = bool((visible == np.round(visible)).all())
    if scale == "linear" or not len(visible):
        axis.xaxis.set_major_locator(MaxNLocator(MOST_TICKS, steps=ROUND, integer=whole, min_n_ticks=1))
    elif scale == "log":
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(_powers(visible, most)))
        axis.xaxis.set_minor_locator(LogLocator(subs="auto", numticks=100))
    else:
        axis.set_xscale("symlog", linthresh=threshold(visible))
        axis.xaxis.set_major_locator(FixedLocator(_symlog_ticks(visible, most)))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(WholeNumbers())
    axis.xaxis.set_minor_formatter(NullFormatter())
    return len(places) - len(visible)


def _transform(x: Floats, scale: StepScale) -> Transform:
    if scale == "log":
        return LogTransform(10)
    return SymmetricalLogTransform(10, threshold(x), 1) if scale == "symlog" else IdentityTransform()


def _multiples(x: Floats) -> tuple[float, ...]:
    """Which multiples of powers of ten get ticks."""
    return (1.0, 2.0, 5.0) if np.log10(x.max() / x.min()) <= FEW_DECADES else (1.0,)


def _symlog_ticks(x: Floats, most_ticks: int) -> list[float]:
    """0 where it is reached, and ticks as of :func:`_powers` from the threshold on."""
    least, most = threshold(x), max(float(np.abs(x).max()), threshold(x))
    reached = _powers(np.array([least, most]), most_ticks)
    mirrored = [-tick for tick in reversed(reached)] if x.min() <= -least else []
    return [*mirrored, *([0.0] if x.min() <= 0 else []), *reached]


def _powers(x: Floats, most_ticks: int) -> list[float]:
    """Powers of ten between positive places, thinned to a few, with multiples if there are few; else both ends."""
    least, most = float(x.min()), float(x.max())
    powers = np.arange(np.floor(np.log10(least)), np.floor(np.log10(most)) + 1)
    ticks = sorted(10.0**power * multiple for power in powers for multiple in _multiples(x))
    reached = [tick for tick in ticks if least <= tick <= most]
    if len(reached) < 2:
        return sorted({least, most})
    return reached[:: -(-len(reached) // (most_ticks + 1))]
