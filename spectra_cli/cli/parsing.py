"""The options of a command line, parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from spectra_cli.errors import UsageError

if TYPE_CHECKING:
    import typer

    from spectra_cli.cli.invocation import Invocation
    from spectra_cli.execution.planning.options import ChosenOptions, Options, TaskOptions


def chosen_options(*, tag: Sequence[str] | None, **others: Unpack[ChosenOptions]) -> Options:
    """The options of a command line, parsed.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.execution.planning.options import Options

    others["tags"] = key_values(tag or (), "--tag")
    return Options.chosen(**others)


def key_values(items: Sequence[str], flag: str) -> dict[str, str]:
    """Names and values from ``KEY=VALUE``.

    Args:
        items: as they were given; a value may hold further equals signs, or be empty.
        flag: the option, for errors.

    Raises:
        UsageError: if one has no key, or a key comes twice.
    """
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(
                f"{flag} {item} is not KEY=VALUE", remedy=f"Write it as {flag} {key or 'KEY'}={value or 'VALUE'}"
            )
        if key in found:
            raise UsageError(f"{flag} {key} is given twice", remedy="Give one of them")
        found[key] = value
    return found


def task_settings(items: Sequence[str] | None, data: str | None) -> dict[str, str]:
    """The options of the task as text: those of ``--set``, and ``--data``, which is short for one of them.

    Raises:
        UsageError: if one has no key, or is given twice.
    """
    settings = key_values(items or (), "--set")
    if data is not None:
        if "data" in settings:
            raise UsageError("--data and --set data exclude each other", remedy="Give one of them")
        settings["data"] = data
    return settings


def chosen_task(
    *,
    task: str | None,
    settings: Sequence[str] | None,
    data: str | None,
    split: Sequence[str] | None,
    batch_norm: str,
    output_layer: str | None = None,
) -> TaskOptions:
    """The options of a command line that are about the task, parsed.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.execution.planning.options import TaskOptions, listed

    return TaskOptions(task, task_settings(settings, data), listed(split), batch_norm, output_layer)


def invocation_of(
    context: typer.Context,
    *,
    workers: int | None,
    scheduler: str | None,
    fresh: bool,
    verify: bool,
    watch: float | None = None,
    quiet: bool,
    as_json: bool,
) -> Invocation:
    """How a command is to go about it, as its options say.

    Raises:
        UsageError: if one means nothing.
    """
    from spectra_cli.cli.invocation import Invocation
    from spectra_cli.execution.planning.options import ExecutionOptions

    if watch is not None and not watch > 0:
        raise UsageError(f"--watch {watch:g} is no time", remedy="Give seconds, such as 60")
    if watch is not None and fresh:
        raise UsageError("--watch and --fresh exclude each other", remedy="Start over once, then watch")
    execution = ExecutionOptions(workers, scheduler, fresh=fresh, verify=verify)
    return Invocation(tuple(context.obj or ()), execution, quiet=quiet, as_json=as_json, watch_s=watch)
