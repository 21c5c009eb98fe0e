"""The style of all figures: matplotlib's own defaults, whatever the user's configuration says."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any


def import_without_configuration() -> None:
    """Import matplotlib, if it is there, so that it reads no configuration and opens no display.

    For a process that is all ours, before anything else imports it: a ``matplotlibrc`` in the working directory is read
    on import, and one that is damaged, or an unknown ``MPLBACKEND``, would end it.
    """
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # fonts that it does not find, directories it cannot write
    with chdir(Path(__file__).parent), suppress(ModuleNotFoundError):
        import_module("matplotlib")


@contextmanager
def own_style(**settings: Any) -> Iterator[None]:
    """Have matplotlib's defaults while something is drawn or saved.

    The same tables give the same image everywhere. A ``matplotlibrc`` may say, for example, that all text goes through
    LaTeX, and text here comes from untrusted files.

    Args:
        **settings: on top of the defaults, with underscores for dots: ``svg_hashsalt``.
    """
    import matplotlib as mpl  # noqa: PLC0415 - an extra

    parameters: Any = mpl.rcParams  # its stubs know literal names only
    with mpl.rc_context():
        mpl.rcdefaults()
        parameters.update({name.replace("_", ".", 1): value for name, value in settings.items()})
        yield
