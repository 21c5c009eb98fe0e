"""The `spectra` command: registers its subcommands and turns errors into a message and an exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from spectra_cli import __version__
from spectra_cli.cli import (
    align,
    analyze,
    barrier,
    columns,
    inspect,
    output,
    plot,
    prune_eval,
    rank,
    report,
    sva,
    tasks,
    train,
)
from spectra_cli.cli.interruption import ENDING, WORDS
from spectra_cli.errors import SpectraError
from spectra_cli.execution.executors.allocation import keep_freed_memory

app = typer.Typer(
    name="spectra",
    help="See what training did to the weights of your neural networks.\n\n"
    "Example: spectra rank ckpts/ --out rank.parquet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect")(inspect.inspect)
app.command("rank")(rank.rank)
app.command("align")(align.align)
app.command("sva")(sva.sva)
app.command("analyze")(analyze.analyze)
app.command("prune-eval")(prune_eval.prune_eval)
app.command("barrier")(barrier.barrier)
app.command("train")(train.train)
app.command("plot")(plot.plot)
app.command("report")(report.report)
app.command("tasks")(tasks.tasks)
app.command("columns")(columns.columns)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"spectra {__version__}")
        raise typer.Exit


@app.callback()
def _spectra(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status; prints errors, raises none of them.

    With SPECTRA_DEBUG=1 in the environment, the traceback comes before the message.

    Args:
        arguments: without the program's name; those of the process if None.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: output.warn(str(message))
            line = sys.argv[1:] if arguments is None else list(arguments)
            app(line, prog_name="spectra", obj=line)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if status in WORDS:  # Typer turns Ctrl-C into its status and says nothing
            output.error(f"{WORDS[status]}.")
        return status
    except SpectraError as error:
        _trace_if_debugging()
        output.error(str(error))
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user who did not ask for it
        _trace_if_debugging()
        output.error(_unexpected(error))
        return 1
    return 0


def main() -> NoReturn:
    """Entry point of the installed command."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that files beside a table are removed
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of any alphabet, on a terminal of any encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run())


def _trace_if_debugging() -> None:
    if os.environ.get("SPECTRA_DEBUG", "") not in {"", "0"}:
        traceback.print_exc()


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}."
    if isinstance(error, MemoryError):
        return "memory ran out. Give a smaller --memory-budget, or leave large matrices out with --exclude."
    return (
        f"{type(error).__name__}: {error}. This is a fault of spectra; please report it with the traceback that "
        "SPECTRA_DEBUG=1 shows."
    )
