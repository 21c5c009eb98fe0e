"""`spectra plot` and `spectra report` as functions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from spectra_cli.errors import UsageError
from spectra_cli.execution.notebook.frames import Globs, paths_of
from spectra_cli.execution.planning.options import PathLike, listed
from spectra_cli.figures.choice import Choice, NothingToDraw, StepScale, ValueScale
from spectra_cli.figures.plots.drawing import draw_all, prepare
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.directories import make_directory
from spectra_cli.tables.finding import find_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SCALES = ("linear", "log", "symlog")


def plot(
    tables: PathLike | Sequence[PathLike],
    *,
    figure: Globs = (),
    parameter: Globs = (),
    connection: Globs = (),
    run: Globs = (),
    over: Literal["run"] | None = None,
    x: str | None = None,
    x_scale: StepScale = "linear",
    y_scale: ValueScale = "auto",
    out: PathLike | None = None,
    image_format: Literal["png", "svg", "pdf"] = "png",
) -> dict[str, Figure]:
    """Draw the figures of the papers from tables that spectra wrote, as `spectra plot` does.

    Args:
        tables: a table, a directory of tables, or several of these.
        figure: kinds of figures, keys of ``spectra_cli.figures.plots.registry.FIGURES``; all that the tables offer if
            none.
        parameter: globs of matrices for figures of one matrix; the middle one of the model if none.
        connection: globs of connections, by their kind or one of the two matrices; the middle one if none.
        run: globs of runs to take; all if none.
        over: ``"run"`` draws means over runs with a band of one standard deviation.
        x: the tag that barriers, and the agreement of their ends, are drawn against.
        x_scale: of steps: ``"linear"``, ``"log"`` or ``"symlog"``.
        y_scale: of singular values and metrics: ``"auto"``, ``"linear"`` or ``"log"``.
        out: a directory to save the images in as well, made if need be.
        image_format: of these images: ``"png"``, ``"svg"`` or ``"pdf"``.

    Returns:
        matplotlib figures by name, such as ``effective_rank``; a notebook shows them. What could not be drawn, or was
        left out of a figure, is a warning each.

    Raises:
        SpectraError: if nothing can be drawn or an argument is wrong; MissingExtraError if matplotlib is not installed.
    """
    _check_choices(over=(over, (None, "run")), x_scale=(x_scale, SCALES), y_scale=(y_scale, ("auto", "linear", "log")))
    _check_choices(image_format=(image_format, ("png", "svg", "pdf")))
    choice = Choice(listed(parameter), listed(connection), over, x, x_scale, y_scale)
    prepared = prepare(_table_paths(tables), choice, runs=listed(run), names=listed(figure))
    problems = list(prepared.problems)
    figures: dict[str, Figure] = {}
    reasons: list[NothingToDraw] = []
    for kind, drawn in draw_all(prepared.gathered, choice, prepared.kinds):
        if isinstance(drawn, NothingToDraw):
            reasons.append(drawn)
            problems.append(f"{kind.name}: {drawn}")
            continue
        for each in drawn:
            figures[each.name] = each.figure
            problems += [f"{each.name}: {notice}" for notice in each.notices]
            if out is not None:
                from spectra_cli.figures.canvas.saving import save  # noqa: PLC0415 - needs matplotlib, which is an extra

                make_directory(Path(out), parents=True)
                save(each, Path(out), image_format)
    if reasons and not figures:
        raise reasons[0]
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return figures


def report(
    tables: PathLike | Sequence[PathLike],
    *,
    out: PathLike = "report.html",
    title: str = "",
    run: Globs = (),
) -> Path:
    """Make one self-contained page from tables that spectra wrote, as `spectra report` does.

    Args:
        tables: a directory of tables, a table, or several of these.
        out: the page to write.
        title: its heading; the names of the runs if empty.
        run: globs of runs to take; all if none.

    Returns:
        The path of the page.

    Raises:
        SpectraError: if there is no table with rows, or the page cannot be written.
    """
    from spectra_cli.figures.page.file import check_page_path, write_page  # noqa: PLC0415 - as above
    from spectra_cli.figures.page.rendering import render  # noqa: PLC0415 - `plot` needs none of it
    from spectra_cli.figures.report.composing import make_document  # noqa: PLC0415 - as above

    check_page_path(Path(out))
    found = find_tables(_table_paths(tables))
    passed_over = [(path.name, reason) for path, reason in found.passed_over]
    page = render(make_document(Gathered(found.tables, listed(run)), title=title, passed_over=passed_over))
    write_page(page, Path(out))
    return Path(out)


def _table_paths(tables: PathLike | Sequence[PathLike]) -> list[Path]:
    """Paths of tables.

    Raises:
        UsageError: if they are no paths, such as the DataFrame of a function.
    """
    if isinstance(tables, pd.DataFrame):
        raise UsageError(
            "a DataFrame is no table in a file", remedy="Give the function that made it out=FILE, and FILE"
        )
    return [Path(path) for path in paths_of(tables)]


def _check_choices(**given: tuple[str | None, Sequence[str | None]]) -> None:
    """Check arguments, each with what it may be.

    Raises:
        UsageError: if one is something else.
    """
    for name, (value, known) in given.items():
        if value not in known:
            listed_known = ", ".join(str(each) for each in known)
            raise UsageError(f"{name}={value!r} means nothing", remedy=f"Give one of {listed_known}")
