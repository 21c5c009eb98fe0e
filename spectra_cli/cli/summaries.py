"""What the commands that write tables print when they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_cli.cli import output
from spectra_cli.shortening import counted, shortened, width_of

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.summary import RunSummary, Summary

SHOWN_RUNS = 4
SHOWN_STATUS = 40


@dataclass(frozen=True)
class RunView:
    """How the rows of a table are shown.

    Attributes:
        of_run: makes what gathers those of one run.
        show: prints that, under the name of the run.
    """

    of_run: Callable[[], RunSummary]
    show: Callable[[Console, str, Any], None]


def print_summaries(
    summaries: Mapping[str, Summary[Any]],
    views: Mapping[str, RunView],
    outs: Mapping[str, Any],
    *,
    kept: int,
    elapsed_s: float,
) -> None:
    """Print what the tables hold of the first runs, and a closing line for each table.

    Args:
        summaries: of the tables, by name.
        views: how each is shown.
        outs: the file of each.
        kept: units that were there already.
        elapsed_s: since the command began.
    """
    console = output.stderr_console()
    shown = max(1, SHOWN_RUNS // len(summaries))
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary.runs))
    for name in names[:shown]:
        for table, summary in summaries.items():
            if name in summary.runs:
                views[table].show(console, name, summary.runs[name])
    if len(names) > shown:
        console.print(f"... and {counted(len(names) - shown, 'more run')}")
    for table, summary in summaries.items():
        last = table == list(summaries)[-1]
        checkpoints = sum(run.checkpoints for run in summary.runs.values())
        elapsed = f" in {elapsed_s:.1f} s" if last else ""
        source = f"from {counted(checkpoints, 'checkpoint')}{kept_of(kept)}{elapsed}"
        print_closing(console, outs[table], summary.statuses, source)


def kept_of(kept: int) -> str:
    """How many units were there already, for a closing line."""
    return f" ({kept} kept)" if kept else ""


def print_closing(console: Console, out: Any, statuses: Mapping[str, int], source: str) -> None:
    """Print how many rows went to a file, and how many of them are not ok.

    Args:
        console: for people.
        out: the file.
        statuses: how many rows have each.
        source: what the rows are from, for the end of the line.
    """
    rows = counted(sum(statuses.values()), "row")
    console.print(f"{output.plain(str(out))}: {rows} {source}", soft_wrap=True)
    skipped = {status: count for status, count in statuses.items() if status != "ok"}
    if skipped:
        each = ", ".join(f"{shortened(str(status), SHOWN_STATUS)} ({count})" for status, count in skipped.items())
        told = f"{sum(skipped.values())} of {rows} not ok: {each}; see the column status"
        console.print(output.plain(told))


def print_title(console: Console, what: str, name: str, first: str, last: str) -> None:
    """Print what a table shows, of which run and checkpoints, in a line of at most 80 columns.

    Names are shortened only where they do not fit.
    """
    names = {"run": name, "first": first, "last": last}
    form = what.replace("{", "{{").replace("}", "}}") + ("" if name == "." else " in {run}")
    form += ", {last}" if first == last else ", {first} to {last}"
    title = form.format(**names)
    if width_of(title) > output.NARROWEST:
        room = output.NARROWEST - len(form.format(run="", first="", last=""))
        title = form.format(**{key: shortened(text, room // form.count("{")) for key, text in names.items()})
    console.print(output.plain(title), style="bold", soft_wrap=True)
