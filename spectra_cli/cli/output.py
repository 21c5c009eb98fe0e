"""The one place where spectra prints: people read stderr, programs read stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 80


def stderr_console() -> Console:
    """The console for people; 80 columns wide where the width is not known."""
    from rich.console import Console

    return _console(Console(stderr=True, highlight=False))


def stdout_console() -> Console:
    """The console for listings that are the output of a command."""
    from rich.console import Console

    return _console(Console(highlight=False))


def _console(console: Console) -> Console:
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    return console


def error(message: str) -> None:
    """Print one paragraph that says what went wrong."""
    from rich.markup import escape

    stderr_console().print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


def warn(message: str, console: Console | None = None) -> None:
    """Print one paragraph about something that was left out or done otherwise."""
    from rich.markup import escape

    (console or stderr_console()).print(f"[yellow]Warning:[/] {escape(message)}", soft_wrap=True)


def json_line(value: Any) -> None:
    """Print one JSON document to stdout."""
    json.dump(value, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def width_of(text: str) -> int:
    """Columns that the text takes on a terminal: two for each Chinese character, for example."""
    from rich.cells import cell_len

    return cell_len(text)


def shortened(text: str, width: int) -> str:
    """The text, with an ellipsis in its middle where it takes more than `width` columns."""
    from rich.cells import set_cell_size

    if width_of(text) <= width:
        return text
    left = (width - 1) // 2
    end = set_cell_size(text[::-1], width - 1 - left)[::-1]
    return f"{set_cell_size(text, left)}…{end}"
