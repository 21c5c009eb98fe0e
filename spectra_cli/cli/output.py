"""The one place where spectra prints: people read stderr, programs read stdout."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from spectra_cli.storage.secrets import recorded, without_secrets

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 80


def stderr_console() -> Console:
    """The console for people; 80 columns wide where the width is not known."""
    return _console(stderr=True)


def stdout_console() -> Console:
    """The console for listings that are the output of a command."""
    return _console(stderr=False)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Listing(Console):
        """A console that ends in peace when a reader such as ``head`` has seen enough."""

        def on_broken_pipe(self) -> None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0)

    console = (Console if stderr else Listing)(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    return console


def plain(text: str) -> str:
    """Text for Rich that shows as it is: no markup, no secrets of URLs, escapes for what steers a terminal.

    Everything that comes from a file or its name goes through here.
    """
    from rich.markup import escape

    return escape(
        "".join(c if c.isprintable() else c.encode("unicode-escape").decode("ascii") for c in without_secrets(text))
    )


def error(message: str) -> None:
    """Print one paragraph that says what went wrong, if there still is a terminal to print it on."""
    with suppress(OSError):
        stderr_console().print(f"[bold red]Error:[/] {plain(message)}", soft_wrap=True)


def warn(message: str, console: Console | None = None) -> None:
    """Print one paragraph about something that was left out or done otherwise."""
    (console or stderr_console()).print(f"[yellow]Warning:[/] {plain(message)}", soft_wrap=True)


def json_line(value: Any) -> None:
    """Print one JSON document to stdout, without secrets of URLs."""
    json.dump(recorded(value), sys.stdout, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def number(value: float | None) -> str:
    """A metric with four significant digits, and a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"
