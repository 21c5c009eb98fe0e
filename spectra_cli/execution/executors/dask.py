"""A Dask cluster that is there already: on SLURM, on Kubernetes, or one worker per GPU."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_cli.errors import MissingExtraError, SpectraError, UsageError
from spectra_cli.execution.executors.lostworkers import with_retries
from spectra_cli.execution.executors.schedulerfile import check_address
from spectra_cli.execution.work.units import Chunk, EventSink, Outcome, Work
from spectra_cli.storage.places import Place

if TYPE_CHECKING:
    from spectra_cli.execution.executors.clusterworkers import ClusterWorkers

PATIENCE_S = 600.0
"""How long there may be no workers: jobs wait in queues."""

REMEDY = "Give the workers more memory, or fewer threads each, or set a --memory-budget"


@dataclass(frozen=True, slots=True)
class Survey:
    """What a cluster has.

    Attributes:
        threads: of all workers, each of which does a chunk at a time.
        sharing: how many of them share the memory of one machine, or of one GPU.
        device: what they work on, as files record it.
    """

    threads: int
    sharing: int
    device: str


class DaskCluster:
    """Sends chunks to the workers of a Dask cluster, those that join later as well.

    Outcomes come chunk by chunk, and events with them. What a worker that is lost had not finished is done again by
    Dask; a chunk that Dask gives up, as several workers died with it, is done again by assignments.

    Args:
        address: of the scheduler, such as ``tcp://head:8786``, or path of the file, ``.json``, that it writes it to.
        device: name of the device that each worker works on.
        patience_s: how long to wait for that file, for a scheduler that falls silent, and where there are no workers.

    Raises:
        MissingExtraError: if distributed is not installed.
        UsageError: if no scheduler ever has such an address.
    """

    def __init__(self, address: str, device: str = "auto", patience_s: float = PATIENCE_S) -> None:
        if find_spec("distributed") is None:
            raise MissingExtraError("a Dask cluster needs distributed", remedy="pip install 'spectra-weights[dask]'")
        check_address(address)
        self._address = address
        self._device = device
        self._patience_s = patience_s
        self._silent: set[str] = set()

    def survey(self) -> Survey:
        """Look at the workers that are there now.

        Raises:
            UsageError: if some of them would work on GPUs and others on CPUs.
            SpectraError: if the device is not there, or there is no cluster that can be used.
        """
        from spectra_cli.execution.executors import clusterworkers, daskclient, daskworker  # noqa: PLC0415 - an extra

        with daskclient.connected(self._address, self._patience_s, self._silent) as (_, workers):
            devices = []
            limit = clusterworkers.IMPORT_S
            for found in workers.ask(daskworker.device_here, self._device, limit_s=limit).values():
                if isinstance(found, SpectraError):
                    raise found
                devices += [found] if isinstance(found, str) else []  # what else is wrong, its first chunk says
            threads = workers.threads_each()
        if len({device.partition(":")[0] for device in devices}) > 1:
            raise UsageError(
                "some of the Dask workers have GPUs and others have none, and numbers of one table are made by one "
                "kind of device",
                remedy="Give --device cpu",
            )
        hosts: Counter[str] = Counter()
        for worker, count in threads.items():
            hosts[worker.rpartition(":")[0] if devices[:1] == ["cpu"] else worker] += count
        said = ", ".join(dict.fromkeys(devices)) or self._device
        return Survey(max(sum(threads.values()), 1), max(hosts.values(), default=1), said)

    def outcomes(self, work: Work, chunks: Sequence[Chunk], sink: EventSink) -> Generator[Outcome, None, None]:
        """Do the work of all chunks; closing the iterator cancels what is queued, and workers stop soon.

        Raises:
            SpectraError: if there is no cluster that can be used, or what a worker raises.
        """
        from spectra_cli.execution.executors import daskclient  # noqa: PLC0415 - an extra

        if not chunks:
            return
        read = _read_by(work)
        with daskclient.connected(self._address, self._patience_s, self._silent) as (client, workers):
            _check_seen(workers, [*read.roots, *read.firsts])
            with daskclient.shared(client, work, self._device, read.roots, workers) as name:
                submitted = daskclient.Submitted(client, name, workers, sink)
                yield from with_retries(chunks, submitted.outcomes, lambda: "see the log of the scheduler", REMEDY)


@dataclass(frozen=True, slots=True)
class _Read:
    """Absolute paths of some of what a work reads.

    Attributes:
        roots: of its runs.
        firsts: the first checkpoint of each.
    """

    roots: Sequence[str] = ()
    firsts: Sequence[str] = ()


def _read_by(work: Work) -> _Read:
    """Paths of a work's runs that exist here; URLs are left out, as they are the same everywhere."""
    runs = work.runs_read()
    return _Read(
        _present(run.root for run in runs), _present(run.checkpoints[0].path for run in runs if run.checkpoints)
    )


def _present(places: Iterable[Place]) -> list[str]:
    absolute = dict.fromkeys(os.path.abspath(place) for place in places if isinstance(place, Path))
    return [path for path in absolute if os.path.exists(path)]


def _check_seen(workers: ClusterWorkers, paths: Sequence[str]) -> None:
    """Check that all workers see some paths.

    Raises:
        InputError: naming one that does not.
    """
    from spectra_cli.execution.executors import daskworker  # noqa: PLC0415 - an extra

    if not paths:
        return
    for worker, absent in workers.ask(daskworker.absent_here, paths).items():
        for path in absent if isinstance(absent, list) else ():
            raise daskworker.not_seen(worker, path)
