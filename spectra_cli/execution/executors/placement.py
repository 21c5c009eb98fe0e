"""Where the work of a command is done, as the user chooses it."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

from spectra_cli.analyses.lanes import usable_cores
from spectra_cli.errors import UsageError
from spectra_cli.execution.executors.device import described, resolve_device
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.planning.options import ExecutionOptions
from spectra_cli.execution.work.units import Executor

WORKERS_PER_CORE = 2
"""Limit above which workers compete for cores even if storage is slow."""


class CrowdedCoresWarning(UserWarning):
    """Many more workers are asked for than there are cores."""


@dataclass(frozen=True)
class Placement:
    """Where work is done.

    Attributes:
        executor: does it.
        workers: how many units are worked on at a time.
        sharing: how many workers share the memory of one machine or device.
        device: what they work on, as files record it; its class is the part before ``:``.
    """

    executor: Executor
    workers: int
    sharing: int
    device: str


def placement_of(device: str, execution: ExecutionOptions) -> Placement:
    """Choose the executor.

    Args:
        device: name of a device, or of several between commas, each for a worker of its own.
        execution: what the user chose.

    Raises:
        UsageError: if the devices, or the workers, do not go together.
        SpectraError: if a device is not there, or no scheduler answers.
    """
    names = [name.strip() for name in device.split(",")]
    if not all(names):
        raise UsageError(f"--device '{device}' has an empty name", remedy="Give auto, cpu, cuda, cuda:N or mps")
    if execution.scheduler is not None:
        from spectra_cli.execution.executors.dask import DaskCluster  # noqa: PLC0415 - an extra

        if len(names) > 1:
            raise UsageError(
                f"--device {device}: a worker of a cluster has one device", remedy="Give auto, cpu or cuda"
            )
        cluster = DaskCluster(execution.scheduler, names[0])
        found = cluster.survey()
        return Placement(cluster, found.threads, found.sharing, found.device)
    devices = [resolve_device(name) for name in names]
    if len({each.type for each in devices}) > 1:
        raise UsageError(f"--device {device}: numbers of one table are made by one kind of device")
    workers = execution.workers or len(devices)
    if workers < len(devices):
        raise UsageError(
            f"--workers {workers} is less than the {len(devices)} devices",
            remedy=f"Give --workers {len(devices)} or more",
        )
    _warn_where_crowded(workers, on_cpu=devices[0].type == "cpu")
    said = ", ".join(dict.fromkeys(map(described, devices)))
    if workers == 1:
        return Placement(InProcess(names[0]), 1, 1, said)
    from spectra_cli.execution.executors.processes import Processes  # noqa: PLC0415 - only where there are several

    sharing = max(Counter(devices[index % len(devices)] for index in range(workers)).values())
    return Placement(Processes(workers, names), workers, sharing, said)


def _warn_where_crowded(workers: int, *, on_cpu: bool) -> None:
    """Warn of more workers than are of use; cores and memory are shared out to all of them, as the user has said."""
    cores = usable_cores()
    if on_cpu and workers > WORKERS_PER_CORE * cores:
        has = "1 core" if cores == 1 else f"{cores} cores"
        warnings.warn(
            f"--workers {workers} on {has}: each has a share of 1 in {workers} of the memory budget, and more than "
            f"{WORKERS_PER_CORE * cores} gain nothing",
            CrowdedCoresWarning,
            stacklevel=3,
        )
