"""What a client of a Dask cluster makes of the differences between its workers."""

from __future__ import annotations

from spectra_cli.execution.executors.dask import DaskCluster
from tests.execution.cluster import Cluster
from tests.execution.planted_work import Heard, PlantedWork, chunks_of


def test_libraries_of_other_versions_than_here_are_no_matter(cluster: Cluster) -> None:
    """Dask warns of each that it knows; the work uses none of them beside Dask, which sees to itself."""

    def differ() -> None:
        from distributed import versions

        message = {"warning": "Mismatched versions found: msgpack", "error": ""}

        def found(*_: object, **__: object) -> dict[str, str]:
            return message

        found.before = versions.error_message  # type: ignore[attr-defined]
        versions.error_message = found

    def agree() -> None:
        from distributed import versions

        versions.error_message = versions.error_message.before  # type: ignore[attr-defined]

    with cluster.client() as looking:
        looking.run_on_scheduler(differ)
        try:
            (outcome,) = DaskCluster(cluster.address, "cpu").outcomes(PlantedWork(), chunks_of(1), Heard())
        finally:
            looking.run_on_scheduler(agree)
    assert outcome.error is None
