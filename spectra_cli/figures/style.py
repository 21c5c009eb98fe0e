"""The style of all figures: matplotlib's own defaults, whatever the user's configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def own_style(**settings: Any) -> Iterator[None]:
    """Have matplotlib's defaults while something is drawn or saved.

    The same tables give the same image everywhere. A ``matplotlibrc`` may say, for example, that all text goes through
    LaTeX, and text here comes from strangers' files.

    Args:
        **settings: on top of the defaults, with underscores for dots: ``svg_hashsalt``.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra

    parameters: Any = mpl.rcParams  # its stubs know literal names only
    with mpl.rc_context():
        mpl.rcdefaults()
        parameters.update({name.replace("_", ".", 1): value for name, value in settings.items()})
        yield
