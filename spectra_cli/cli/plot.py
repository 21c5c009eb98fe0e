"""`spectra plot`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spectra_cli.cli import options, output
from spectra_cli.cli.interruption import InterruptedWorkError, signal_told, stopped
from spectra_cli.execution.executors.signalsdeferred import signals_deferred
from spectra_cli.figures.plots.registry import FIGURES
from spectra_cli.shortening import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spectra_cli.figures.choice import Drawn, NothingToDraw
    from spectra_cli.figures.plots.registry import FigureKind

WHAT = "Which figures"
LOOK = "How they are drawn"


def plot(
    tables: options.Tables,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"A kind of figure: {', '.join(FIGURES)}. Repeatable. Default: all that the tables offer.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Matrices, for figures of one matrix; one figure each. Repeatable. Default: the middle one of the "
            "model.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    connection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Connections, by their kind or one of the two matrices, for figures of one connection. Repeatable. "
            "Default: the middle one.",
            rich_help_panel=WHAT,
            show_default=False,
        ),
    ] = None,
    run: options.RunGlobs = None,
    over: Annotated[
        Literal["run"] | None,
        typer.Option(
            help="Draw the mean over runs (seeds), with a band of one standard deviation. Default: runs side by side.",
            rich_help_panel=LOOK,
            show_default=False,
        ),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x",
            metavar="TAG",
            help="Draw barriers, and the agreement of their ends, against this --tag of the tables, which is a number "
            "there, or step_a or step_b.",
            rich_help_panel=LOOK,
            show_default=False,
        ),
    ] = None,
    x_scale: Annotated[
        Literal["linear", "log", "symlog"], typer.Option(help="Scale of steps.", rich_help_panel=LOOK)
    ] = "linear",
    y_scale: Annotated[
        Literal["auto", "linear", "log"],
        typer.Option(
            help="Scale of singular values and metrics; auto: logarithmic for losses and perplexities that are "
            "positive and span a factor of 100.",
            rich_help_panel=LOOK,
        ),
    ] = "auto",
    image_format: Annotated[
        Literal["png", "svg", "pdf"],
        typer.Option("--format", help="Kind of image file.", rich_help_panel=options.RESULT),
    ] = "png",
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Directory for the images, made if need be.", rich_help_panel=options.RESULT),
    ] = Path("figures"),
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Draw the figures of the papers from tables: spectra, effective rank, alignment, agreement, losses, barriers.

    Example: spectra plot tables/rank.parquet tables/align.parquet --out figures --over run
    """
    started = time.monotonic()
    from spectra_cli.figures.canvas.style import import_without_configuration
    from spectra_cli.figures.choice import Choice
    from spectra_cli.figures.plots.drawing import draw_all, prepare

    import_without_configuration()
    choice = Choice(tuple(parameter or ()), tuple(connection or ()), over, x, x_scale, y_scale)
    prepared = prepare(tables, choice, runs=run or (), names=figure or ())
    for problem in prepared.problems:
        output.warn(problem)
    saving = _Saving(out, image_format, quiet=quiet)
    with signal_told(saving.stopped):
        for kind, drawn in draw_all(prepared.gathered, choice, prepared.kinds):
            saving.take(kind, drawn)
    saving.finish()
    if as_json:
        output.json_line({"out": str(out), "figures": saving.saved, "problems": [*prepared.problems, *saving.problems]})
    if not quiet:
        console = output.stderr_console()
        source = f"from {counted(len(prepared.gathered.files), 'table')} in {time.monotonic() - started:.1f} s"
        console.print(f"{counted(len(saving.saved), 'figure')} {source}")
    if not prepared.complete or saving.lacking:
        raise typer.Exit(3)


class _Saving:
    """Figures that go to files, and what is told of each."""

    def __init__(self, directory: Path, image_format: Literal["png", "svg", "pdf"], *, quiet: bool) -> None:
        self._directory, self._format, self._quiet = directory, image_format, quiet
        self.saved: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.lacking: list[NothingToDraw] = []

    def take(self, kind: FigureKind, drawn: Sequence[Drawn] | NothingToDraw) -> None:
        """Save the figures of a kind, or keep the reason why there is none."""
        from spectra_cli.figures.canvas.saving import save
        from spectra_cli.figures.choice import NothingToDraw
        from spectra_cli.tables.directories import make_directory

        if isinstance(drawn, NothingToDraw):
            self.lacking.append(drawn)
            self.problems.append(f"{kind.name}: {drawn}")
            return
        for each in drawn:
            if not self.saved:
                make_directory(self._directory, parents=True)
            with signals_deferred():  # so that a figure that is there is among those that are told
                path = save(each, self._directory, self._format)
                told = {"file": str(path), "figure": kind.name, "about": each.about, "notices": [*each.notices]}
                self.saved.append(told)
            self.problems += [f"{path.name}: {notice}" for notice in each.notices]
            if not self._quiet:
                output.stderr_console().print(output.plain(f"{path}: {each.about}"), soft_wrap=True)

    def stopped(self, signal_sent: KeyboardInterrupt) -> InterruptedWorkError:
        """The error of a signal: it says how many figures are there."""
        if not self.saved:
            return stopped(signal_sent, "no figure was written")
        figures = f"{counted(len(self.saved), 'figure')} {'is' if len(self.saved) == 1 else 'are'}"
        return stopped(signal_sent, f"{figures} written to {self._directory}")

    def finish(self) -> None:
        """Say what was left out.

        Raises:
            NothingToDraw: if that is everything.
        """
        if not self.saved and self.lacking:
            raise self.lacking[0]
        for problem in self.problems:
            output.warn(problem)
