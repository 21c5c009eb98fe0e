"""Every kind of figure that `spectra plot` knows. Drawing one imports matplotlib, this list does not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spectra_cli.figures.choice import FigureKind

_ALL = (
    FigureKind("singular_values", ("rank",), "singular values of one matrix against steps", "evolving"),
    FigureKind("effective_rank", ("rank",), "effective rank / R of all matrices against steps", "overview"),
    FigureKind("alignment_diagonal", ("align",), "A_ii of one connection against steps", "evolving"),
    FigureKind("alignment_score", ("align",), "alignment scores of all connections against steps", "overview"),
    FigureKind("agreement_diagonal", ("sva",), "S_ii of one matrix against steps", "evolving"),
    FigureKind("agreement_score", ("sva",), "agreement scores of all matrices against steps", "overview"),
    FigureKind("metrics", ("metrics",), "training and validation metrics against steps", "metric"),
    FigureKind("pruning", ("prune_eval",), "metrics of the full model and its pruned variants against steps", "metric"),
    FigureKind(
        "grokking",
        ("rank", "align"),
        "error, singular values, effective rank and alignment in one figure",
        "grokking",
        either=("metrics", "prune_eval"),
    ),
    FigureKind("pruned_agreement", ("sva_pruned",), "agreement of pruned with whole matrices against steps", "pruned"),
    FigureKind("pruned_diagonal", ("sva_pruned",), "S_ii of one matrix, pruned against whole, at the end", "pruned"),
    FigureKind("barrier_line", ("barrier",), "metrics along the line between two checkpoints", "barriers"),
    FigureKind(
        "barrier_against", ("barrier",), "barriers of many pairs against a tag (--x)", "barriers", against_tag=True
    ),
    FigureKind("ends_agreement", ("sva_ends",), "agreement of the ends of pairs against a tag (--x)", "ends"),
)

FIGURES: Mapping[str, FigureKind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""By name, in the order in which they are drawn."""
