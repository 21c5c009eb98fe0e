"""Reading the next checkpoint overlaps with work on this one; nothing else changes."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spectra_cli.analyses import groups, visits
from spectra_cli.analyses.demands import Row, WorkPlace
from spectra_cli.analyses.lanes import blas_threads
from spectra_cli.analyses.rank import RankRows
from spectra_cli.analyses.upcoming import OpenedAhead, Primed, Room
from spectra_cli.analyses.visits import visit
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import CheckpointError, CorruptCheckpointError, SpectraError
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum import memory
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import Matrix

PLACE = WorkPlace(torch.device("cpu"), 1 << 30)
PATIENCE_S = 120.0


class Slow:
    """A reader as of a network disk; it says what it reads."""

    def __init__(self, reader: Reader, read: Callable[[str], None], delay_s: float = 0.0) -> None:
        self._reader = reader
        self._read = read
        self._delay_s = delay_s
        self._busy = threading.Lock()
        self.closed = False

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        assert self._busy.acquire(blocking=False), "two threads read at the same time"
        try:
            assert not self.closed
            self._read(name)
            time.sleep(self._delay_s)
            return self._reader.read(name, rows, cols)
        finally:
            self._busy.release()


@dataclass
class Opened:
    """What a worker has of a checkpoint."""

    reader: Primed
    specs: dict[int, MatrixSpec]


class Checkpoints:
    """Opens checkpoints, and notes what happens to them."""

    def __init__(self, *, delay_s: float = 0.0, place: WorkPlace = PLACE) -> None:
        self.delay_s = delay_s
        self.place = place
        self.events: list[tuple[str, str]] = []
        self.reads: Counter[tuple[str, str]] = Counter()
        self.readers: list[Slow] = []
        self.on_read: Callable[[str, str], None] = lambda _path, _name: None
        self.problems: list[str] = []

    @contextmanager
    def open(self, path: Path) -> Iterator[Opened]:
        self.events.append(("opened", path.stem))
        with open_checkpoint(path) as reader:
            specs = take_inventory(reader.tensors, ordered=reader.ordered).selected((), ())
            slow = Slow(reader, lambda name: self._reading(path.stem, name), self.delay_s)
            self.readers.append(slow)
            try:
                yield Opened(Primed(slow), specs)
            finally:
                slow.closed = True
                self.events.append(("closed", path.stem))

    def _reading(self, path: str, name: str) -> None:
        self.events.append(("read", path))
        self.reads[path, name] += 1
        self.on_read(path, name)

    def prime(self, opened: Opened, room: Room) -> None:
        opened.reader.prime(opened.specs, self.place, room)

    def rows(self, opened: Opened, on_room: Callable[[int], None] = lambda _: None) -> list[Row]:
        ranks = RankRows()

        def on_problem(error: SpectraError, parameter: str) -> None:
            self.problems.append(f"{parameter}: {error.status}")

        visit(
            opened.reader, opened.specs, [ranks], self.place,
            on_problem=on_problem, on_matrix=lambda _: None, on_room=on_room,
        )  # fmt: skip
        return ranks.rows()

    def along(self, paths: Sequence[Path]) -> list[list[Row]]:
        """The rows of checkpoints, each opened while the one before is visited."""
        found = []
        with OpenedAhead(self.open, self.prime) as ahead:
            for place, path in enumerate(paths):
                with ahead.opened(path) as opened:
                    if place + 1 < len(paths):
                        ahead.expect(paths[place + 1])
                    found.append(self.rows(opened, ahead.on_room))
        return found


def trajectory(directory: Path, checkpoints: int = 3) -> list[Path]:
    """Matrices of several shapes, in groups of one and more."""
    paths = []
    for step in range(checkpoints):
        generator = torch.Generator().manual_seed(step)
        shapes = [(30, 12), (30, 12), (12, 30), (40, 9), (21, 21), (40, 9)]
        weights = {f"layers.{at}.weight": torch.randn(*shape, generator=generator) for at, shape in enumerate(shapes)}
        weights["experts.up_proj"] = torch.randn(3, 8, 6, generator=generator)
        paths.append(directory / f"step_{step}.safetensors")
        save_file(weights, paths[-1])
    return paths


def comparable(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        for row in rows
    ]


def threads_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("spectra")]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_next_checkpoint_is_read_before_the_last_matrix_of_this_one_is_done(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last factorization of the first checkpoint waits until the second is read: in vain, if that came later."""
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints(delay_s=0.001)
    being_read = threading.Event()
    checkpoints.on_read = lambda path, _: being_read.set() if path == "step_1" else None
    done: list[bool] = []

    def waiting(matrices: Sequence[Matrix], **options: Any) -> list[Spectrum]:
        first = checkpoints.events.count(("closed", "step_0")) == 0
        last = first and sum(count for (path, _), count in checkpoints.reads.items() if path == "step_0") == 9
        if last and not done:
            done.append(being_read.wait(PATIENCE_S))
        return factorize(matrices, **options)

    monkeypatch.setattr(visits, "factorize", waiting)
    with blas_threads(threads):
        found = checkpoints.along(paths)
    assert done
    assert all(done)
    assert checkpoints.events.index(("read", "step_1")) < checkpoints.events.index(("closed", "step_0"))
    monkeypatch.setattr(visits, "factorize", factorize)
    plain = Checkpoints()
    with blas_threads(threads):
        for path, rows in zip(paths, found, strict=True):
            with plain.open(path) as opened:
                assert comparable(plain.rows(opened)) == comparable(rows)
    assert checkpoints.reads == plain.reads


def test_nothing_of_the_next_checkpoint_is_read_before_there_is_room(tmp_path: Path) -> None:
    """It is opened at once; its bytes come when all of this one have been read."""
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints()
    opened_next = threading.Event()
    original = checkpoints.open

    @contextmanager
    def opening(path: Path) -> Iterator[Opened]:
        with original(path) as opened:
            if path == paths[1]:
                opened_next.set()
            yield opened

    with OpenedAhead(opening, checkpoints.prime) as ahead, ahead.opened(paths[0]) as opened:
        ahead.expect(paths[1])
        assert opened_next.wait(PATIENCE_S)
        checkpoints.rows(opened, ahead.on_room)
    reads = [path for event, path in checkpoints.events if event == "read"]
    assert reads[:9] == ["step_0"] * 9


def test_an_error_of_the_next_checkpoint_comes_up_in_its_turn(tmp_path: Path) -> None:
    paths = trajectory(tmp_path, 3)
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    checkpoints = Checkpoints()
    found: list[int | str] = []
    with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead:
        for place, path in enumerate(paths):
            try:
                with ahead.opened(path) as opened:
                    if place < 2:
                        ahead.expect(paths[place + 1])
                    time.sleep(0.02)
                    found.append(len(checkpoints.rows(opened, ahead.on_room)))
            except CorruptCheckpointError as error:
                found.append(error.status)
    assert found == [9, "corrupt", 9]
    assert threads_alive() == []


def test_what_cannot_be_read_ahead_is_a_row_in_its_turn(tmp_path: Path) -> None:
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints()

    def failing(path: str, name: str) -> None:
        if (path, name) == ("step_1", "layers.0.weight"):
            raise CheckpointError("reading failed at byte 7")

    checkpoints.on_read = failing
    one, other = checkpoints.along(paths)
    assert {row["status"] for row in one} == {"ok"}
    assert {row["parameter"]: row["status"] for row in other if row["status"] != "ok"} == {
        "layers.0.weight": "unreadable"
    }
    assert checkpoints.problems == ["layers.0.weight: unreadable"]


@pytest.mark.parametrize("room_bytes", [0, 500, 1 << 20])
def test_closing_early_leaves_no_thread_and_no_open_file(tmp_path: Path, room_bytes: int) -> None:
    """While it waits for room, has filled it, or has read everything."""
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints()
    with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead:
        ahead.on_room(room_bytes)
        ahead.expect(paths[0])
        ahead.expect(paths[0])
        ahead.expect(paths[1])
    assert threads_alive() == []
    assert [reader.closed for reader in checkpoints.readers] == [True, True]
    assert checkpoints.events.count(("opened", "step_0")) == 1


def test_an_item_that_was_not_expected_is_opened_here_and_the_other_stays(tmp_path: Path) -> None:
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints()
    with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead:
        ahead.expect(paths[1])
        for path in paths:
            with ahead.opened(path) as opened:
                assert len(checkpoints.rows(opened)) == 9
    opened_each = [path for event, path in checkpoints.events if event == "opened"]
    assert sorted(opened_each) == ["step_0", "step_1"]


def test_an_error_amid_the_work_closes_everything(tmp_path: Path) -> None:
    paths = trajectory(tmp_path, 2)
    checkpoints = Checkpoints()

    def stop() -> None:
        with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead, ahead.opened(paths[0]):
            ahead.expect(paths[1])
            raise KeyError("stop")

    with pytest.raises(KeyError):
        stop()
    assert threads_alive() == []
    assert all(reader.closed for reader in checkpoints.readers)


class Closed:
    """An item that notes whether it has been closed, by whoever opened it and not by the end of its life."""

    def __init__(self) -> None:
        self.times = 0

    def __enter__(self) -> Closed:
        return self

    def __exit__(self, *_: object) -> None:
        self.times += 1


def test_what_is_opened_is_closed_once() -> None:
    """Whether its turn comes or not, and where nobody else lets go of it."""
    used, unused = Closed(), Closed()
    with OpenedAhead[Closed, Closed](lambda item: item) as ahead:
        ahead.expect(used)
        with ahead.opened(used) as opened:
            assert opened is used
            ahead.expect(unused)
        assert used.times == 1
    assert (used.times, unused.times) == (1, 1)


def in_time(work: Callable[[], bool]) -> bool:
    """What work that must not wait says; False if it waits."""
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return said == [True]


def test_room_is_for_so_many_bytes_and_not_one_more() -> None:
    """It is not made smaller; and closing it sends those away who wait."""
    room, taken = Room(), threading.Event()
    room.grow(10)
    room.grow(5)
    assert in_time(lambda: room.take(4))
    assert in_time(lambda: room.take(6))
    waiting = threading.Thread(target=lambda: room.take(1) or taken.set(), daemon=True)
    waiting.start()
    assert not taken.wait(0.05)
    room.close()
    assert taken.wait(PATIENCE_S)


def test_room_that_is_there_before_an_item_is_expected_is_for_it(tmp_path: Path) -> None:
    """As where the last matrix of a checkpoint has been read before the next one is known."""
    paths = trajectory(tmp_path, 1)
    checkpoints, all_read = Checkpoints(), threading.Event()
    checkpoints.on_read = lambda *_: all_read.set() if checkpoints.reads.total() == 9 else None
    with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead:
        ahead.on_room(1 << 20)
        ahead.expect(paths[0])
        assert all_read.wait(PATIENCE_S)


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_is_too_large_to_be_held_is_not_read_ahead(
    tmp_path: Path, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be read again, slab by slab; each of several lanes holds less."""
    monkeypatch.setattr(groups, "lane_count", lambda *_: lanes)
    paths = []
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        shapes = [(400, 30), (399, 30), (398, 30), (190, 30), (30, 30), (20, 30)]
        weights = {f"layers.{at}.weight": torch.randn(*shape, generator=generator) for at, shape in enumerate(shapes)}
        paths.append(tmp_path / f"step_{step}.safetensors")
        save_file(weights, paths[-1])
    largest = 400 * 30 * 4
    place = WorkPlace(torch.device("cpu"), 8 * (largest - 1) * lanes)
    assert memory.resident_bytes(place.budget_bytes // lanes) == largest - 1
    ahead, plain = Checkpoints(place=place), Checkpoints(place=place)
    with blas_threads(lanes):
        found = ahead.along(paths)
        for path, rows in zip(paths, found, strict=True):
            assert {row["status"] for row in rows} == {"ok"}
            with plain.open(path) as opened:
                assert comparable(plain.rows(opened)) == comparable(rows)
    assert ahead.reads == plain.reads
    assert plain.reads["step_1", "layers.0.weight"] > 1, "it was held: the test says nothing"
    early, room = Checkpoints(place=place), Room()
    room.grow(1 << 20)
    with blas_threads(lanes), early.open(paths[0]) as opened:
        early.prime(opened, room)
    assert {name for _, name in early.reads} == {f"layers.{at}.weight" for at in range(1, 6)}


def test_where_memory_runs_out_nothing_more_is_read_ahead(tmp_path: Path) -> None:
    """The visit, which begins when the other checkpoint is let go of, finds that there is enough."""
    (path,) = trajectory(tmp_path, 1)
    checkpoints = Checkpoints()
    failed = threading.Event()

    def failing(*_: str) -> None:
        if not failed.is_set():
            failed.set()
            raise MemoryError

    checkpoints.on_read = failing
    with OpenedAhead(checkpoints.open, checkpoints.prime) as ahead:
        ahead.on_room(1 << 20)
        ahead.expect(path)
        assert failed.wait(PATIENCE_S)
        with ahead.opened(path) as opened:
            assert {row["status"] for row in checkpoints.rows(opened)} == {"ok"}
    assert checkpoints.reads.total() == 9 + 1


def test_a_part_of_what_was_read_ahead_is_that_part(tmp_path: Path) -> None:
    """And what was read stays there for whoever asks for all of it."""
    (path,) = trajectory(tmp_path, 1)
    checkpoints, room = Checkpoints(), Room()
    room.grow(1 << 20)
    with checkpoints.open(path) as opened, open_checkpoint(path) as plain:
        checkpoints.prime(opened, room)
        before = checkpoints.reads.total()
        name = "layers.0.weight"
        whole = plain.read(name)
        assert torch.equal(opened.reader.read(name, cols=slice(2, 5)), whole[:, 2:5])
        assert torch.equal(opened.reader.read(name, slice(1, 4)), whole[1:4])
        assert checkpoints.reads.total() == before + 2
        assert torch.equal(opened.reader.read(name), whole)
        assert checkpoints.reads.total() == before + 2


def test_an_interpreter_ends_although_nobody_asks_for_what_is_expected() -> None:
    """Nor closes it: what waits for room must not wait for ever."""
    code = (
        "from contextlib import nullcontext\n"
        "from spectra_cli.analyses.upcoming import OpenedAhead\n"
        "OpenedAhead(nullcontext, lambda opened, room: room.take(1)).expect(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


class InMemoryBytes:
    """A reader that counts the bytes of all tensors that it has handed out and that are still alive."""

    alive = 0
    most = 0

    def __init__(self, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        self._tensors = tensors

    def read(self, name: str, rows: slice = slice(None), cols: slice = slice(None)) -> Tensor:
        array = self._tensors[name][rows][:, cols].copy()
        kind = type(self)
        kind.alive += array.nbytes
        kind.most = max(kind.most, kind.alive)
        weakref.finalize(array, kind.dies, array.nbytes)
        return torch.from_numpy(array)  # keeps the array alive as long as its memory is in use

    @classmethod
    def dies(cls, count: int) -> None:
        cls.alive -= count


@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [5, 1, 1, 5, 1], [1] * 12, [5, 1, 5, 2], [1, 2, 3, 4, 5]], ids=str)
def test_no_more_than_two_matrices_as_large_as_can_be_are_in_memory(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this checkpoint and the next together: what the budget counts."""
    monkeypatch.setattr(InMemoryBytes, "alive", 0)
    monkeypatch.setattr(InMemoryBytes, "most", 0)
    generator = np.random.default_rng(0)
    tensors = {f"l{at:02}.weight": generator.normal(size=(100 * rows, 4)) for at, rows in enumerate(sizes)}
    save = {name: torch.from_numpy(array) for name, array in tensors.items()}

    @contextmanager
    def opening(_: int) -> Iterator[Opened]:
        from spectra_cli.tensors import TensorInfo

        infos = {name: TensorInfo(name, tuple(tensor.shape), "float64") for name, tensor in save.items()}
        yield Opened(Primed(InMemoryBytes(tensors)), take_inventory(infos, ordered=True).selected((), ()))

    largest = 500 * 4 * 8
    gc.collect()
    checkpoints = Checkpoints(place=WorkPlace(torch.device("cpu"), 8 * largest))
    assert memory.resident_bytes(8 * largest) == largest
    with OpenedAhead(opening, checkpoints.prime) as ahead:
        for item in range(4):
            with ahead.opened(item) as opened:
                ahead.expect(item + 1)
                rows = checkpoints.rows(opened, ahead.on_room)
                assert [row["status"] for row in rows] == ["ok"] * len(sizes)
    assert largest < InMemoryBytes.most <= 2 * largest
