"""The one task that both checkpoints of a pair are evaluated with."""

from __future__ import annotations

from typing import Any

from spectra_cli.execution.evaluation.pairs import Pair, TaskMismatchError
from spectra_cli.execution.evaluation.taskruns import ChosenTask, task_of_run
from spectra_cli.execution.planning.options import TaskOptions
from spectra_cli.tasks.options import bound_options, option_parameters
from spectra_cli.tasks.registry import find_task


def task_of_pair(pair: Pair, options: TaskOptions) -> ChosenTask:
    """The task of both ends; one that wants the directory of a checkpoint gets that of A.

    Raises:
        TaskMismatchError: if the two runs say different tasks or options, and the user does not say which.
        SpectraError: if the pair cannot be used, or there is no such task.
    """
    a, b = (task_of_run(end.run, end.checkpoint, options) for end in pair.found)
    if a.name != b.name:
        raise TaskMismatchError(f"A was trained on {a.name}, B on {b.name}", remedy="Name one with --task")
    ours, theirs = _all_options(a), _all_options(b)
    for name in dict.fromkeys([*ours, *theirs]):
        if name != a.checkpoint_option and (name not in theirs or name not in ours or ours[name] != theirs[name]):
            said = [f"{given[name]!r}" if name in given else "not given" for given in (ours, theirs)]
            raise TaskMismatchError(
                f"the option {name} of {a.name} is {said[0]} for A and {said[1]} for B",
                remedy=f"Say which with --set {name}=VALUE",
            )
    return a


def _all_options(chosen: ChosenTask) -> dict[str, Any]:
    """The options of a task as it gets them, its defaults among them."""
    make, _ = find_task(chosen.name, files_allowed=chosen.files_allowed, source=chosen.source)
    defaults = {
        name: parameter.default
        for name, parameter in option_parameters(make).items()
        if parameter.default is not parameter.empty
    }
    return {**defaults, **bound_options(make, chosen.settings, where=f"task {chosen.name}")}
