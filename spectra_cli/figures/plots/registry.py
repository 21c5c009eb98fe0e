"""Every kind of figure that `spectra plot` knows. Drawing one imports matplotlib, this list does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from spectra_cli.figures.choice import Choice, Drawn

if TYPE_CHECKING:
    from spectra_cli.figures.rows.gathered import Gathered


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure.

    Attributes:
        name: as in ``--figure NAME`` and in names of files.
        needs: the kinds of rows that it is drawn of, keys of :data:`spectra_cli.figures.rows.kinds.KINDS`; all of
            them.
        meaning: what it shows, in a line.
        module: of the package `plots`, where its function of the same name ``draw_NAME`` is.
        either: kinds of rows of which it needs one besides; none if empty.
        against_tag: whether it is drawn only where :attr:`Choice.x` names a tag.
    """

    name: str
    needs: tuple[str, ...]
    meaning: str
    module: str
    either: tuple[str, ...] = ()
    against_tag: bool = False

    def offered(self, gathered: Gathered, choice: Choice) -> bool:
        """Whether the tables and the choice have what it takes."""
        has_rows = all(kind in gathered for kind in self.needs)
        return (
            has_rows
            and (not self.either or any(kind in gathered for kind in self.either))
            and (choice.x is not None or not self.against_tag)
        )

    def draw(self, gathered: Gathered, choice: Choice) -> Sequence[Drawn]:
        """Draw it.

        Args:
            gathered: the tables; it has all that :attr:`needs` names, and one of :attr:`either`.
            choice: of the user.

        Raises:
            NothingToDraw: if there is nothing to draw of these rows.
            SpectraError: if a file is damaged, or the choice matches nothing.
        """
        function = getattr(import_module(f"spectra_cli.figures.plots.{self.module}"), f"draw_{self.name}")
        return cast(Callable[["Gathered", Choice], Sequence[Drawn]], function)(gathered, choice)


_ALL = (
    FigureKind("singular_values", ("rank",), "singular values of one matrix against steps", "evolving"),
    FigureKind("effective_rank", ("rank",), "effective rank / R of all matrices against steps", "overview"),
    FigureKind("alignment_diagonal", ("align",), "A_ii of one connection against steps", "evolving"),
    FigureKind("alignment_score", ("align",), "alignment scores of all connections against steps", "overview"),
    FigureKind("agreement_diagonal", ("sva",), "S_ii of one matrix against steps", "evolving"),
    FigureKind("agreement_score", ("sva",), "agreement scores of all matrices against steps", "overview"),
    FigureKind("metrics", ("metrics",), "training and validation metrics against steps", "metrics"),
    FigureKind(
        "pruning", ("prune_eval",), "metrics of the full model and its pruned variants against steps", "metrics"
    ),
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
"""Kinds of figures by name, in the order in which they are drawn."""
