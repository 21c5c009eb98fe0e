"""The start of `rank`, `align`, `sva` and `analyze`, as the command line and notebooks ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from spectra_cli.checkpoints.discovery import Spec
from spectra_cli.execution.incremental.request import TableRequest
from spectra_cli.execution.planning.plan import Plan, make_plan

if TYPE_CHECKING:
    from spectra_cli.execution.incremental.filling import PreparedWork, Told
    from spectra_cli.execution.work.jobs import TableJob


def prepare_trajectory(
    paths: Iterable[Spec], request: TableRequest, listener_of: Callable[[Plan], Told]
) -> PreparedWork[Told]:
    """Plan what the checkpoints of runs are analysed for.

    Args:
        paths: PATHs of checkpoints, runs or directories of runs.
        request: what is asked for.
        listener_of: makes who is told how the work goes on.

    Raises:
        SpectraError: if there is nothing to analyse, or it cannot be done as it is asked for.
    """
    plan = make_plan(paths, request.options, request.tables)

    def job_of(listener: Told, device: str) -> TableJob:
        from spectra_cli.execution.trajectory.job import TrajectoryJob  # noqa: PLC0415 - torch

        return TrajectoryJob(plan, listener, device)

    options = request.options
    return request.begun(job_of, listener_of(plan), tags=options.tags, leave_out=options.columns_left_out)
