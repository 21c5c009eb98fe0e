"""What the rows of a table are: its name, but for a table that several commands make."""

from __future__ import annotations

from spectra_cli.tables.reader import TableFile

PRUNED, ENDS = "sva_pruned", "sva_ends"
"""Kinds of `sva` tables by the command that made them: prune-eval --sva-out, and barrier --sva-out."""

KINDS = {
    "rank": "spectra rank",
    "align": "spectra align",
    "sva": "spectra sva",
    "prune_eval": "spectra prune-eval",
    PRUNED: "spectra prune-eval --sva-out",
    "barrier": "spectra barrier",
    ENDS: "spectra barrier --sva-out",
    "barrier_spectra": "spectra barrier --spectra-out",
    "metrics": "spectra train",
}
"""What rows may be, and the command that makes them."""

OF_PAIRS = frozenset({"barrier", ENDS, "barrier_spectra"})
"""Kinds whose rows belong to two runs."""


def kind_of(file: TableFile) -> str:
    """Kind of the rows of a table: its name, but for the two other uses of the table sva."""
    if file.table != "sva":
        return file.table
    if "variant" in file.columns:
        return PRUNED
    return ENDS if "alphas" in file.settings else "sva"


def has_runs(kind: str) -> bool:
    """Whether each row of a kind belongs to one run and says which."""
    return kind not in OF_PAIRS and kind != "metrics"
