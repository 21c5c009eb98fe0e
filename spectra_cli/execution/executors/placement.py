"""Where the work of a command is done, as the user chooses it."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_cli.errors import UsageError
from spectra_cli.execution.executors.device import described, resolve_device
from spectra_cli.execution.executors.inprocess import InProcess
from spectra_cli.execution.work.units import Executor


@dataclass(frozen=True)
class Doing:
    """How a command is to do its work.

    Attributes:
        workers: processes; None for one for each device.
        scheduler: address of a Dask scheduler, whose workers do the work.
        fresh: whether to start over, whatever is there.
        verify: whether to look at the bytes of weights where files seem to be unchanged.
    """

    workers: int | None = None
    scheduler: str | None = None
    fresh: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers} does nothing", remedy="Give at least 1")
        if self.workers is not None and self.scheduler is not None:
            raise UsageError(
                "--workers and --scheduler exclude each other", remedy="The cluster has workers of its own"
            )
        if self.fresh and self.verify:
            raise UsageError("--fresh and --verify exclude each other", remedy="A fresh start has nothing to verify")


@dataclass(frozen=True)
class Where:
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


def where_of(device: str, doing: Doing) -> Where:
    """Choose the executor.

    Args:
        device: name of a device, or of several between commas, each for a worker of its own.
        doing: what the user chose.

    Raises:
        SpectraError: if a device is not there, or no scheduler answers.
    """
    names = [name.strip() for name in device.split(",")]
    if doing.scheduler is not None:
        from spectra_cli.execution.executors.dask import DaskCluster  # noqa: PLC0415 - an extra

        if len(names) > 1:
            raise UsageError(
                f"--device {device}: a worker of a cluster has one device", remedy="Give auto, cpu or cuda"
            )
        cluster = DaskCluster(doing.scheduler, names[0])
        found = cluster.survey()
        return Where(cluster, found.threads, found.sharing, found.device)
    devices = [resolve_device(name) for name in names]
    if len({each.type for each in devices}) > 1:
        raise UsageError(f"--device {device}: numbers of one table are made by one kind of device")
    workers = doing.workers or len(devices)
    if workers < len(devices):
        raise UsageError(
            f"--workers {workers} are fewer than the {len(devices)} devices", remedy="Give a worker to each device"
        )
    said = ", ".join(dict.fromkeys(map(described, devices)))
    if workers == 1:
        return Where(InProcess(names[0]), 1, 1, said)
    from spectra_cli.execution.executors.processes import Processes  # noqa: PLC0415 - only where there are several

    sharing = workers if devices[0].type == "cpu" else -(-workers // len(set(devices)))
    return Where(Processes(workers, names), workers, sharing, said)
