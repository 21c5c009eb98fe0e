"""What a user chooses of figures, and what drawing one gives back. Needs no matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from spectra_cli.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StepScale = Literal["linear", "log", "symlog"]
ValueScale = Literal["auto", "linear", "log"]


@dataclass(frozen=True)
class Choice:
    """How figures are drawn.

    Attributes:
        parameter: globs of matrices, for figures of one matrix; the middle one of the model if there is none.
        connection: globs of connections, their kinds or ends, for figures of one connection; the middle one likewise.
        over: ``run`` draws the mean over runs with a band of one standard deviation; None draws runs side by side.
        x: the tag that barriers, and the agreement of their ends, are drawn against.
        x_scale: of axes of steps.
        y_scale: of singular values and metrics. ``auto`` is logarithmic for a loss or perplexity of which all values
            are positive and the largest is at least 100 times the smallest, else linear.
    """

    parameter: tuple[str, ...] = ()
    connection: tuple[str, ...] = ()
    over: Literal["run"] | None = None
    x: str | None = None
    x_scale: StepScale = "linear"
    y_scale: ValueScale = "auto"


@dataclass(frozen=True)
class Drawn:
    """A figure with the name of its file.

    Attributes:
        name: letters that any file system takes, without a suffix, such as ``singular_values-encoder.weight``.
        figure: to be saved.
        about: what it shows, in a line for people, such as which matrix was taken.
        notices: what was left out and why, each a sentence without a full stop.
    """

    name: str
    figure: Figure
    about: str
    notices: tuple[str, ...] = ()


def with_notices(drawn: Sequence[Drawn], notices: Sequence[str]) -> list[Drawn]:
    """Figures of which the first has further notices, that are about all of them."""
    first, *others = drawn
    return [replace(first, notices=(*notices, *first.notices)), *others]


class NothingToDraw(InputError):  # noqa: N818 - it is a reason, and an error only where nothing else was drawn
    """A figure cannot be drawn of these tables: one checkpoint only, no row that is ok, no match."""
