"""A Dask cluster that is there already: on SLURM, on Kubernetes, or one worker per GPU."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from spectra_cli.errors import InputError, MissingExtraError, SpectraError, UsageError
from spectra_cli.execution.lostworkers import in_rounds
from spectra_cli.execution.units import Chunk, Hears, Outcome, Work

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
        patience_s: how long to wait where there are no workers.

    Raises:
        MissingExtraError: if distributed is not installed.
    """

    def __init__(self, address: str, device: str = "auto", patience_s: float = PATIENCE_S) -> None:
        if find_spec("distributed") is None:
            raise MissingExtraError("a Dask cluster needs distributed", remedy="pip install 'spectra-weights[dask]'")
        self._address = address
        self._device = device
        self._patience_s = patience_s

    def check_visible(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        """Check that all workers see some paths, relative to the working directory of this process.

        Raises:
            SpectraError: if one does not see one of them, or there is no cluster that can be used.
        """
        from spectra_cli.execution import daskclient, daskworker  # noqa: PLC0415 - an extra

        absolute = [os.path.abspath(path) for path in paths]
        with daskclient.connected(self._address, self._patience_s) as (client, _):
            for worker, absent in client.run(daskworker.absent_here, absolute, on_error="return").items():
                if isinstance(absent, list) and absent:
                    raise InputError(
                        f"the Dask worker {worker} does not see it",
                        where=absent[0],
                        remedy="Put it on storage that all workers see at this path, or leave out --scheduler",
                    )

    def survey(self) -> Survey:
        """Look at the workers that are there now.

        Raises:
            UsageError: if some of them would work on GPUs and others on CPUs.
            SpectraError: if the device is not there, or there is no cluster that can be used.
        """
        from spectra_cli.execution import daskclient, daskworker  # noqa: PLC0415 - an extra

        with daskclient.connected(self._address, self._patience_s) as (client, _):
            threads = client.nthreads()
            devices = []
            for found in client.run(daskworker.device_here, self._device, on_error="return").values():
                if isinstance(found, SpectraError):
                    raise found
                devices += [found] if isinstance(found, str) else []  # else it is not there any more
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

    def outcomes(self, work: Work, chunks: Sequence[Chunk], hears: Hears) -> Generator[Outcome, None, None]:
        """Do the work of all chunks; closing the iterator cancels what is queued, and workers stop soon.

        Raises:
            SpectraError: if there is no cluster that can be used, or what a worker raises.
        """
        from spectra_cli.execution import daskclient  # noqa: PLC0415 - an extra

        if not chunks:
            return
        with (
            daskclient.connected(self._address, self._patience_s) as (client, presence),
            daskclient.shared(client, work, self._device) as name,
        ):
            submitted = daskclient.Submitted(client, name, presence, hears)
            yield from in_rounds(chunks, submitted.outcomes, lambda: "see the log of the scheduler", REMEDY)
