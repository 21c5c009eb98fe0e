"""The start of `prune-eval` and of `barrier`, as the command line and notebooks ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from spectra_cli.analyses.pruning import Pruning
from spectra_cli.checkpoints.discovery import Spec
from spectra_cli.execution.evaluation.pairfile import GivenPairs
from spectra_cli.execution.evaluation.pairs import BarrierPlan, make_barrier_plan
from spectra_cli.execution.incremental.request import TableRequest
from spectra_cli.execution.planning.options import TaskOptions
from spectra_cli.execution.planning.plan import Plan, make_plan

if TYPE_CHECKING:
    from spectra_cli.execution.incremental.filling import PreparedWork, Told
    from spectra_cli.execution.work.jobs import TableJob


def prepare_prune_eval(
    paths: Iterable[Spec],
    task: TaskOptions,
    pruning: Pruning,
    request: TableRequest,
    listener_of: Callable[[Plan], Told],
) -> PreparedWork[Told]:
    """Plan the evaluation of checkpoints with parts of their weights.

    Args:
        paths: PATHs of checkpoints, runs or directories of runs.
        task: what the user says of the task.
        pruning: the parts.
        request: what is asked for: ``prune_eval``, and ``sva`` for the agreement of pruned matrices with whole ones.
        listener_of: makes who is told how the work goes on.

    Raises:
        SpectraError: if there is nothing to evaluate, or it cannot be done as it is asked for.
    """
    plan = make_plan(paths, request.options, request.tables)

    def job_of(listener: Told, device: str) -> TableJob:
        from spectra_cli.execution.evaluation.prune_eval import PruneEvalJob  # noqa: PLC0415 - torch

        return PruneEvalJob(plan, task, pruning, listener, device, written=request.written)

    return request.begun(job_of, listener_of(plan), tags=request.options.tags, leave_out=())


def prepare_barrier(
    given: GivenPairs,
    task: TaskOptions,
    alphas: int,
    request: TableRequest,
    listener_of: Callable[[BarrierPlan], Told],
) -> PreparedWork[Told]:
    """Plan the evaluation of models along the lines between checkpoints.

    The singular vectors of the ends are compared wherever that is told or kept. A file of barriers keeps it with the
    rows, so that a second run of the command, which evaluates nothing, tells it as well. For a table that is only in
    memory, where it is neither told nor kept, that work is left out.

    Args:
        given: the pairs.
        task: what the user says of the task.
        alphas: number of points on each line.
        request: what is asked for: ``barrier``, and ``barrier_spectra`` and ``sva`` for the matrices.
        listener_of: makes who is told how the work goes on.

    Raises:
        SpectraError: if there is nothing to evaluate, or it cannot be done as it is asked for.
    """
    plan = make_barrier_plan(given.pairs, request.options, task, alphas, given.tags)

    def job_of(listener: Told, device: str) -> TableJob:
        from spectra_cli.execution.evaluation.barrier import BarrierJob  # noqa: PLC0415 - torch
        from spectra_cli.execution.evaluation.interpolator import BARRIER  # noqa: PLC0415 - torch

        kept = request.outs[BARRIER] is not None
        written = request.written
        return BarrierJob(plan, listener, device, tables=request.tables, agreement=kept, written=written)

    return request.begun(job_of, listener_of(plan), tags=plan.tags, leave_out=request.options.columns_left_out)
