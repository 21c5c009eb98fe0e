"""`spectra tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_cli.cli import options, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from spectra_cli.tasks.described import TaskDescription


def tasks(
    task: Annotated[
        str | None,
        typer.Argument(
            help="A task, whose options are then listed: a name, or path/to/file.py:callable, whose code is run.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the tasks, or the options of one: types, defaults and meanings, and how it is trained.

    Example: spectra tasks modular-addition
    """
    from spectra_cli.errors import SpectraError
    from spectra_cli.tasks.described import describe_task
    from spectra_cli.tasks.registry import task_names

    described = []
    for name in [task] if task else task_names():
        try:
            described.append(describe_task(name))
        except SpectraError as error:
            if task:
                raise
            output.warn(str(error))  # one broken plug-in hides no other task
    if as_json:
        output.json_line({one.name: one.as_json() for one in described})
        return
    console = output.stdout_console()
    if task is None:
        _print_names(console, described)
    else:
        _print_options(console, described[0])


def _print_names(console: Console, described: Sequence[TaskDescription]) -> None:
    shown = _table("task", "what it is")
    for one in described:
        shown.add_row(output.plain(one.name), output.plain(one.summary))
    console.print(shown)
    console.print("spectra tasks TASK lists the options of one")


def _print_options(console: Console, one: TaskDescription) -> None:
    console.print(output.plain(f"{one.name}: {one.summary}" if one.summary else one.name))
    shown = _table("option", "default", "meaning")
    for option in one.options:
        default = "(needed)" if option.default is None else option.default
        meaning = option.meaning if option.type in {"text", "text or none"} else f"{option.meaning} [{option.type}]"
        shown.add_row(*(output.plain(cell) for cell in (option.name, default, meaning.strip())))
    console.print(shown)
    if one.recipe is not None:
        words = ", ".join(f"{key} {_in_words(value)}" for key, value in one.recipe.items())
        console.print(output.plain(f"trained with: {words}"))


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_in_words(one) for one in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(*headings: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in {"meaning", "what it is"})
    return table
