"""Draws figures from tables: which kinds the tables offer, and what could not be drawn of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from spectra_cli.errors import InputError, MissingExtraError, UsageError
from spectra_cli.figures.canvas.style import own_style
from spectra_cli.figures.choice import Choice, Drawn, NothingToDraw, with_notices
from spectra_cli.figures.plots.registry import FIGURES, FigureKind
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.kinds import ENDS, KINDS, OF_PAIRS
from spectra_cli.figures.rows.pairs import remedy_for_tag, tags_of
from spectra_cli.tables.finding import find_tables
from spectra_cli.tables.reader import TableFile


@dataclass(frozen=True)
class Prepared:
    """What is to be drawn.

    Attributes:
        gathered: the tables that have rows.
        kinds: of figures.
        problems: what was passed over or taken for granted, each a sentence without a full stop.
        complete: whether all tables that were found have rows.
    """

    gathered: Gathered
    kinds: tuple[FigureKind, ...]
    problems: tuple[str, ...]
    complete: bool


def prepare(paths: Sequence[Path], choice: Choice, *, runs: Sequence[str] = (), names: Sequence[str] = ()) -> Prepared:
    """Find tables, and the figures that they offer.

    Args:
        paths: of tables, and of directories of tables.
        choice: of the user.
        runs: globs of runs to take; all if there is none.
        names: as of :func:`kinds_to_draw`.

    Raises:
        SpectraError: if there is no table with rows, no run matches, or nothing can be drawn of what there is.
    """
    found = find_tables(paths)
    files, empty = _filled(found.tables)
    gathered = Gathered(files, runs)
    kinds = kinds_to_draw(gathered, choice, names)
    problems = [f"{path}: {reason}; passed over" for path, reason in found.passed_over]
    problems += [f"{file.path}: the table has no rows; passed over" for file in empty]
    return Prepared(gathered, tuple(kinds), (*problems, *gathered.remarks), not empty)


def _filled(files: Sequence[TableFile]) -> tuple[list[TableFile], list[TableFile]]:
    """The tables that have rows, and those that have none.

    Raises:
        InputError: if none has any.
    """
    with_rows = [file for file in files if file.rows]
    without = [file for file in files if not file.rows]
    if not with_rows:
        raise InputError(
            "the table has no rows" if len(files) == 1 else f"none of the {len(files)} tables has rows",
            where=str(files[0].path) if len(files) == 1 else None,
            remedy="Make it again of a PATH that has checkpoints; spectra inspect PATH says what is in it",
        )
    return with_rows, without


OF_ONE_MATRIX = frozenset({"singular_values", "agreement_diagonal", "pruned_diagonal", "grokking", "ends_agreement"})
OF_ONE_CONNECTION = frozenset({"alignment_diagonal"})
"""Figures for which --parameter and --connection choose."""


def kinds_to_draw(gathered: Gathered, choice: Choice, names: Sequence[str] = ()) -> list[FigureKind]:
    """The kinds of figures to draw.

    Args:
        gathered: the tables.
        choice: of the user.
        names: kinds asked for, keys of :data:`~spectra_cli.figures.plots.registry.FIGURES`; all that are offered if
            none is.

    Raises:
        UsageError: if a name is unknown, or there is a tag to draw against and nothing that would be.
        InputError: if the tables lack what a figure that is asked for needs, or offer none at all.
        MissingExtraError: if matplotlib is not installed.
    """
    for name in names:
        if name not in FIGURES:
            close = difflib.get_close_matches(name, FIGURES, n=1)
            meant = f"Did you mean {close[0]}?" if close else f"Figures: {', '.join(FIGURES)}"
            raise UsageError(f"there is no figure '{name}'", remedy=meant)
    if choice.x is not None and "barrier" not in gathered and ENDS not in gathered:
        raise UsageError(f"--x {choice.x}: no table of barrier is among these", remedy="Give one, or leave --x out")
    _check_tag(gathered, choice.x)
    kinds = [FIGURES[name] for name in dict.fromkeys(names)]
    for kind in kinds:
        _check_offered(kind, gathered)
    kinds = kinds or [kind for kind in FIGURES.values() if kind.offered(gathered, choice)]
    if not kinds:
        held = ", ".join(sorted({file.table for file in gathered.files}))
        raise InputError(f"no figure is drawn of {held} alone", remedy="Give the other tables of the command as well")
    for option, globs, of_one in (
        ("--parameter", choice.parameter, OF_ONE_MATRIX),
        ("--connection", choice.connection, OF_ONE_CONNECTION),
    ):
        if globs and not any(kind.name in of_one for kind in kinds):
            raise UsageError(
                f"{option} {globs[0]}: none of these figures is of one",
                remedy=f"Leave it out, or ask for {', '.join(sorted(of_one))}",
            )
    if choice.over and all(OF_PAIRS.issuperset(kind.needs) for kind in kinds):
        raise UsageError("--over run: pairs are not averaged over runs", remedy="Leave it out; --x averages over pairs")
    if find_spec("matplotlib") is None:
        raise MissingExtraError("figures need matplotlib", remedy="pip install 'spectra-weights[plot]'")
    return kinds


def draw_all(
    gathered: Gathered, choice: Choice, kinds: Sequence[FigureKind]
) -> Iterator[tuple[FigureKind, Sequence[Drawn] | NothingToDraw]]:
    """Draw figures, kind after kind, in the same style everywhere: no matplotlibrc has a say.

    Yields:
        Each kind with its figures, or with the reason why there is none.

    Raises:
        SpectraError: if the choice matches nothing, or a file is damaged.
    """
    for kind in kinds:
        drawn: Sequence[Drawn] | NothingToDraw
        try:
            with own_style():
                figures = kind.draw(gathered, choice)
            told = [each for need in kind.needs for each in (*gathered.unplaced(need), *gathered.at_one_place(need))]
            drawn = with_notices(figures, list(dict.fromkeys(told)))
        except NothingToDraw as reason:
            drawn = reason
        yield kind, drawn


def _check_tag(gathered: Gathered, tag: str | None) -> None:
    """Check that a tag to draw against is one of some table of pairs.

    Raises:
        UsageError: if it is not.
    """
    known = tags_of(gathered)
    if tag is not None and tag not in known and tag not in {"step_a", "step_b"}:
        raise UsageError(f"--x {tag}: no table has a tag of that name", remedy=remedy_for_tag(known))


def _check_offered(kind: FigureKind, gathered: Gathered) -> None:
    """Check that there is what a figure needs.

    Raises:
        InputError: if there is not.
    """
    makers = " and ".join(dict.fromkeys(KINDS[need] for need in kind.needs if need not in gathered))
    if not makers and kind.either and not any(each in gathered for each in kind.either):
        makers = " or ".join(KINDS[each] for each in kind.either)
    if makers:
        raise InputError(
            f"the figure {kind.name} needs a table that is not among these", remedy=f"Give the one of {makers} as well"
        )
