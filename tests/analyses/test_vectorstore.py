"""Kept vectors come back as they were put, whether they stay in memory or wait in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.analyses.vectorstore import KEPT_VALUES, Leading, VectorStore, compact


def leading(rows: int, cols: int, count: int, seed: int) -> Leading:
    rng = np.random.default_rng(seed)
    left, right = (torch.from_numpy(rng.standard_normal((side, count))).float() for side in (rows, cols))
    return Leading("ok", (rows, cols), rng.standard_normal(KEPT_VALUES), left, right)


def assert_same(found: Leading | None, put: Leading) -> None:
    assert found is not None
    assert (found.status, found.shape) == (put.status, put.shape)
    np.testing.assert_array_equal(found.values, put.values)
    for ours, theirs in ((found.left, put.left), (found.right, put.right)):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.dtype == torch.float32
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The temporary files that are made."""
    made: list[IO[bytes]] = []
    original = tempfile.TemporaryFile

    def temporary(*arguments: Any, **options: Any) -> IO[bytes]:
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    return made


SIDE = st.integers(1, 9)


@settings(deadline=None, max_examples=60)
@given(shapes=st.lists(st.tuples(SIDE, SIDE), max_size=6), room=st.integers(0, 2000), order=st.randoms())
def test_what_is_put_comes_back_in_any_order_whatever_the_room(
    shapes: list[tuple[int, int]], room: int, order: Any
) -> None:
    kept = {f"m{place}": leading(*shape, min(shape), place) for place, shape in enumerate(shapes)}
    with VectorStore(room) as store:
        for name, vectors in kept.items():
            store.put(name, vectors)
        assert (store.parameters(), len(store)) == (list(kept), len(kept))
        asked = list(kept) * 2
        order.shuffle(asked)
        for name in asked:
            assert name in store
            assert_same(store.get(name), kept[name])
        assert store.get("absent") is None
        assert "absent" not in store


def test_vectors_go_to_a_file_when_the_room_is_full(files: list[IO[bytes]]) -> None:
    """Those that fit stay; also one that comes after a large one which did not."""
    small, large = leading(5, 4, 4, 0), leading(50, 40, 40, 1)
    with VectorStore(2 * 4 * (5 + 4) * 4) as store:
        store.put("small", small)
        assert not files
        store.put("large", large)
        store.put("other", small)
        store.put("last", large)
        (file,) = files
        assert file.seek(0, 2) == 2 * 4 * (50 + 40) * 40
        for name, put in (("small", small), ("large", large), ("other", small), ("last", large)):
            assert_same(store.get(name), put)
        spilt = store._kept["large"]
        assert spilt.left is None
        assert spilt.right is None
    assert file.closed


def test_a_status_takes_no_room(files: list[IO[bytes]]) -> None:
    with VectorStore(0) as store:
        failed = Leading("not_finite", (3, 4), np.empty(0))
        store.put("failed", failed)
        assert_same(store.get("failed"), failed)
    assert not files


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has no name, not even while it is open."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with VectorStore(0) as store:
        store.put("m", leading(5, 4, 4, 0))
        assert list(tmp_path.iterdir()) == []
    assert len(store) == 0
    assert store.get("m") is None


def test_what_is_kept_is_its_own_memory() -> None:
    """Of a batch of vectors, or of all of them, only those asked for stay alive."""
    batch = torch.randn(3, 40, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for vectors in (batch[1][:, :10], batch[1][:, :10].float(), batch[1].float()[:, :10]):
        kept = compact(vectors)
        assert kept is not None
        assert kept.untyped_storage().nbytes() == 4 * 40 * 10
        torch.testing.assert_close(kept.double(), batch[1][:, :10], rtol=1e-6, atol=0)
    assert compact(None) is None
