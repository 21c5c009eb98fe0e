"""What people see of a training: progress with the time that is left, a closing summary, what a signal stopped."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from spectra_cli.cli import output
from spectra_cli.cli.interruption import InterruptedWorkError, word_and_status
from spectra_cli.cli.progressbar import ProgressBar
from spectra_cli.shortening import counted, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from spectra_cli.execution.training.plan import TrainingPlan
    from spectra_cli.execution.training.run import TrainingResult
    from spectra_cli.execution.training.saver import Beginning, Row

SHOWN_STEPS = 6
VALUE_WIDTH = 9

UNITS = ("B", "kB", "MB", "GB", "TB")


class TrainingProgress:
    """Shows how a training goes on: a bar on a terminal, a line every minute elsewhere.

    Args:
        total_steps: the last step.
        quiet: show problems only.
    """

    def __init__(self, total_steps: int, *, quiet: bool) -> None:
        self._console = output.stderr_console()
        self._quiet = quiet
        self._bar = ProgressBar("preparing", quiet=quiet, total=total_steps)
        self._total_steps = total_steps
        self.step: int | None = None
        self.saved_step: int | None = None
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def notice(self, message: str) -> None:
        """Print what the task says of itself."""
        if not self._quiet:
            self._console.print(output.plain(message), soft_wrap=True)

    def began(self, beginning: Beginning) -> None:
        """Say how much there is to do."""
        self.step = beginning.start
        if beginning.resumed:
            self.saved_step = beginning.start
        self._bar.begin(beginning.start)
        self._bar.show(f"step {beginning.start}", beginning.start, self._total_steps)
        if not self._quiet:
            verb = "Going on from" if beginning.resumed else "Training from"
            self._console.print(
                f"{verb} step {beginning.start} to {beginning.total_steps}: "
                f"{counted(beginning.parameters, 'parameter')}, {counted(beginning.checkpoints, 'checkpoint')} of "
                f"{readable_bytes(beginning.checkpoint_bytes)}",
                soft_wrap=True,
            )

    def progress(self, step: int, loss: float) -> None:
        """Move the bar."""
        self.step = step
        self._bar.show(f"step {step}/{self._total_steps}, loss {loss:.4g}", step, self._total_steps)

    def saved(self, step: int) -> None:
        """Remember from where the training could go on."""
        self.saved_step = step

    def problem(self, message: str) -> None:
        """Print the problem above the bar and keep it for the summary."""
        self.problems.append(message)
        output.warn(message, self._console)


def interrupted(progress: TrainingProgress, out: Path, signal_sent: KeyboardInterrupt) -> InterruptedWorkError:
    """What a signal stopped, and what there is to go on from.

    Weights come before what it takes to go on from them: the last ones may be there for reading only.

    Args:
        progress: what the user has been told of the training.
        out: directory of the run.
        signal_sent: Ctrl-C, or :class:`spectra_cli.cli.interruption.Terminated`.
    """
    from spectra_cli.tasks.states import StateFiles

    how, status = word_and_status(signal_sent)
    steps = StateFiles(out).steps() if out.is_dir() else []
    at = "" if progress.step is None else f" at step {progress.step}"
    remedy = "Run the same command again"
    if not steps:
        what = f"{how} before a checkpoint was saved"
        remedy += ", which begins anew"
    elif progress.saved_step is None and progress.step is not None:
        what = f"{how}{at}; only the weights of step {steps[-1]} are saved, without their metrics"
        remedy += ", which begins anew"
    else:
        saved = steps[-1] if progress.saved_step is None else progress.saved_step
        only = f"only the checkpoint at step {saved} is saved"
        what = f"{how}{at}; " + (only if steps[0] >= saved else f"the checkpoints until step {saved} stay")
        remedy += " to go on from there"
    return InterruptedWorkError(what, where=str(out), remedy=remedy, exit_status=status)


def readable_bytes(count: int) -> str:
    """A size in decimal units: ``1.2 MB``."""
    place = 0 if count < 1000 else min(int(math.log(count, 1000)), len(UNITS) - 1)
    return f"{count} B" if place == 0 else f"{count / 1000**place:.1f} {UNITS[place]}"


def as_json(plan: TrainingPlan, result: TrainingResult, problems: Sequence[str]) -> dict[str, Any]:
    """A summary for programs; the metrics are those of the last step."""
    metrics: dict[str, dict[str, float | None]] = {}
    for row in result.rows:
        if row["step"] == result.steps[-1]:
            metrics.setdefault(row["split"], {})[row["metric"]] = row["value"]
    return {
        "out": str(plan.options.out),
        "task": plan.record.task,
        "seed": plan.seed,
        "steps": plan.total_steps,
        "started_at": result.start,
        "checkpoints": list(result.steps),
        "metrics": metrics,
        "problems": list(problems),
    }


def print_summary(console: Console, plan: TrainingPlan, result: TrainingResult, *, elapsed_s: float) -> None:
    """Print the metrics of a few steps, where the checkpoints are, and what to try next."""
    from spectra_cli.tasks.names import is_file_task

    out = str(plan.options.out)
    _print_metrics(console, plan, result.rows)
    done = f"{counted(len(result.steps), 'checkpoint')} to step {result.steps[-1]}"
    if result.start is None:
        console.print(f"{output.plain(out)}: finished before, nothing to do; {done}", soft_wrap=True)
    else:
        console.print(f"{output.plain(out)}: {done} in {elapsed_s:.1f} s", soft_wrap=True)
    quoted = output.plain(shlex.quote(out))
    task = f" --task {output.plain(shlex.quote(plan.options.task))}" if is_file_task(plan.options.task) else ""
    console.print(f"Next: spectra rank {quoted}\n      spectra prune-eval {quoted}{task}", soft_wrap=True)


def _print_metrics(console: Console, plan: TrainingPlan, rows: Sequence[Row]) -> None:
    """A table of at most 80 columns: what does not fit is in the file."""
    from rich.table import Table

    values = {(row["step"], row["metric"], row["split"]): row for row in rows}
    saved = sorted({step for step, _, _ in values})
    if not saved:
        return
    # what is spaced in log(step) is even by place
    steps = _spread(saved, list(range(len(saved))) if plan.options.log_saves else saved, SHOWN_STEPS)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    kinds = sorted(dict.fromkeys((row["metric"], row["split"]) for row in rows), key=lambda k: metrics.index(k[0]))
    width = max(4, len(str(steps[-1]))) + 2 + 9
    shown = _fitting(kinds, plan.task.splits[0], output.NARROWEST - width)
    table = Table(box=None, pad_edge=False)
    table.add_column("step", justify="right", vertical="bottom")
    table.add_column("epoch", justify="right")
    for metric, split in shown:
        table.add_column(output.plain(f"{split}") + "\n" + output.plain(metric), justify="right")
    for step in steps:
        first = next(row for (at, _, _), row in values.items() if at == step)
        cells = [f"{step}", f"{first['epoch']:.4g}"]
        for metric, split in shown:
            row = values.get((step, metric, split))
            cells.append("-" if row is None or row["value"] is None else f"{row['value']:.4g}")
        table.add_row(*cells)
    title = f"{plan.options.task}, seed {plan.seed}"
    console.print(output.plain(shortened(title, output.NARROWEST)), style="bold", soft_wrap=True)
    console.print(table)
    parts = []
    if len(steps) < len(saved):
        parts.append(f"{len(steps)} of {counted(len(saved), 'checkpoint')}")
    if len(shown) < len(kinds):
        parts.append(f"{len(shown)} of {counted(len(kinds), 'metric')}")
    if parts:
        console.print(f"{' and '.join(parts)}; all are in metrics.parquet", soft_wrap=True)
    console.print()


def _fitting(kinds: Sequence[tuple[str, str]], training_split: str, width: int) -> list[tuple[str, str]]:
    """The metrics and splits whose columns fit, in the order given; those of the training split are left out first.

    Of the training split a perplexity goes first: it says what the loss says.

    Args:
        kinds: metric and split of each column.
        training_split: the name of that split.
        width: room for all columns, each with two spaces before it.
    """
    kept = list(kinds)
    expendable = [kind for kind in kinds if kind[1] == training_split]
    expendable.sort(key=lambda kind: kind[0] == "perplexity")
    order = [kind for kind in kinds if kind not in expendable] + expendable
    while kept and sum(2 + max(len(metric), len(split), VALUE_WIDTH) for metric, split in kept) > width:
        kept.remove(order.pop())
    return kept


def _spread(steps: Sequence[int], places: Sequence[int], count: int) -> list[int]:
    """At most `count` steps, spread evenly over their places, the first and the last among them.

    Args:
        steps: ascending.
        places: of the steps on the axis that is divided evenly, ascending.
        count: at least 2.
    """
    if len(steps) <= count:
        return list(steps)
    first, last = places[0], places[-1]
    wanted = [first + (last - first) * part / (count - 1) for part in range(count)]
    nearest = {min(range(len(places)), key=lambda at: abs(places[at] - place)) for place in wanted}
    return [steps[at] for at in sorted(nearest)]
