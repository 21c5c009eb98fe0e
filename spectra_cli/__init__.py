"""See what training did to the weights of neural networks.

``spectra_cli.rank(path)`` does what ``spectra rank`` does and returns a pandas DataFrame; so do ``align``, ``sva``,
``prune_eval`` and ``barrier``, and ``analyze`` returns three tables. ``plot`` returns figures of tables in files, and
``report`` makes a page of them. Importing this package loads neither torch nor pandas; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectra_cli.execution.notebook.figures import plot as plot
    from spectra_cli.execution.notebook.figures import report as report
    from spectra_cli.execution.notebook.functions import align as align
    from spectra_cli.execution.notebook.functions import analyze as analyze
    from spectra_cli.execution.notebook.functions import barrier as barrier
    from spectra_cli.execution.notebook.functions import prune_eval as prune_eval
    from spectra_cli.execution.notebook.functions import rank as rank
    from spectra_cli.execution.notebook.functions import sva as sva

__version__ = "0.1.0"

_NOTEBOOK = "spectra_cli.execution.notebook"
_PUBLIC = {
    **dict.fromkeys(("align", "analyze", "barrier", "prune_eval", "rank", "sva"), f"{_NOTEBOOK}.functions"),
    **dict.fromkeys(("plot", "report"), f"{_NOTEBOOK}.figures"),
}

__all__ = ["__version__", "align", "analyze", "barrier", "plot", "prune_eval", "rank", "report", "sva"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'spectra_cli' has no attribute '{name}'")
    from importlib import import_module  # noqa: PLC0415 - only when something is asked for

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
