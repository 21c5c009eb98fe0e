"""What the commands that write tables print when they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from spectra_cli.cli import output
from spectra_cli.shortening import counted, shortened, width_of

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.analyses.summary import RunSummary
    from spectra_cli.analyses.visits import Row

SHOWN_RUNS = 4
SHOWN_STATUS = 40


class TableSummaries(Protocol):
    """What the tables of a command say in a few lines, gathered unit by unit."""

    def add(self, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> None:
        """Take in a unit.

        Args:
            tables: its rows, without bulky columns.
            facts: about it.
        """
        ...

    def as_json(self, table: str) -> dict[str, Any]:
        """What a table holds, for programs."""
        ...

    def show(self, console: Console) -> None:
        """Print what the tables hold."""
        ...

    def statuses(self, table: str) -> Mapping[str, int]:
        """How many rows of a table have each status."""
        ...

    def units(self, table: str) -> str:
        """How many units a table has rows of, in words."""
        ...


@dataclass(frozen=True)
class RunView:
    """How the rows of a table are shown.

    Attributes:
        of_run: makes what gathers those of one run.
        show: prints that, under the name of the run.
    """

    of_run: Callable[[], RunSummary]
    show: Callable[[Console, str, Any], None]


class RunSummaries:
    """Tables whose rows are shown run by run.

    Args:
        views: how each table is shown, in order.
    """

    def __init__(self, views: Mapping[str, RunView]) -> None:
        from spectra_cli.analyses.summary import Summary

        self._views = views
        self._summaries = {table: Summary(view.of_run) for table, view in views.items()}

    def add(self, tables: Mapping[str, Sequence[Row]], _facts: Mapping[str, Any]) -> None:
        """Take in a checkpoint."""
        for table, rows in tables.items():
            self._summaries[table].add(rows)

    def as_json(self, table: str) -> dict[str, Any]:
        """What a table holds, for programs."""
        return self._summaries[table].as_json()

    def show(self, console: Console) -> None:
        """Print what the tables hold of the first runs."""
        shown = max(1, SHOWN_RUNS // len(self._summaries))
        names = list(dict.fromkeys(name for summary in self._summaries.values() for name in summary.runs))
        for name in names[:shown]:
            for table, summary in self._summaries.items():
                if name in summary.runs:
                    self._views[table].show(console, name, summary.runs[name])
        if len(names) > shown:
            console.print(f"... and {counted(len(names) - shown, 'more run')}")

    def statuses(self, table: str) -> Mapping[str, int]:
        """How many rows of a table have each status."""
        return self._summaries[table].statuses

    def units(self, table: str) -> str:
        """How many checkpoints a table has rows of, in words."""
        return counted(sum(run.checkpoints for run in self._summaries[table].runs.values()), "checkpoint")


def print_summaries(
    summaries: TableSummaries, outs: Mapping[str, Any], *, kept: Mapping[str, int], elapsed_s: float
) -> None:
    """Print what the tables hold, and a closing line for each.

    Args:
        summaries: of the tables.
        outs: the file of each.
        kept: by table, units whose rows were there already.
        elapsed_s: since the command began.
    """
    console = output.stderr_console()
    summaries.show(console)
    for table, out in outs.items():
        elapsed = f" in {elapsed_s:.1f} s" if table == list(outs)[-1] else ""
        kept_of = f" ({kept[table]} kept)" if kept[table] else ""
        source = f"from {summaries.units(table)}{kept_of}{elapsed}"
        print_closing(console, out, summaries.statuses(table), source)


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
