"""One cluster for all tests that send work to one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.execution.cluster import ROOT, Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of one thread each."""
    with Cluster.of_two(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By worker processes, which look where this one does."""
    monkeypatch.syspath_prepend(ROOT)
