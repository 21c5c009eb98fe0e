"""Weights reach a CUDA device through page-locked memory, as they are and before their buffer is used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from spectra_cli.analyses import pinning, visits
from spectra_cli.analyses.align import AlignRows
from spectra_cli.analyses.demands import Row, WorkPlace
from spectra_cli.analyses.known import KnownFactors
from spectra_cli.analyses.pinning import ALIGNMENT, PinnedSlots, slot_bytes_for
from spectra_cli.analyses.rank import RankRows
from spectra_cli.analyses.sva import KeepVectors, SvaRows
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import visit
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec
from spectra_cli.spectrum.factorize import Spectrum, factorize
from spectra_cli.spectrum.matrix import Matrix, part
from spectra_cli.tensors import TensorInfo

CUDA = torch.device("cuda:0")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Copies:
    """Stands for the copies out of a buffer that a device has queued: done when somebody waits for them."""

    log: list[str]

    def __init__(self) -> None:
        self._number = len([entry for entry in self.log if entry.startswith("queued")])

    def record(self, _stream: object) -> None:
        self.log.append(f"queued {self._number}")

    def synchronize(self) -> None:
        self.log.append(f"done {self._number}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to copies, with ordinary memory in place of page-locked."""
    monkeypatch.setattr(pinning, "_page_locked", lambda count: [torch.zeros(count, dtype=torch.uint8) for _ in "ab"])
    monkeypatch.setattr(torch.cuda, "Event", Copies)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    monkeypatch.setattr(Copies, "log", [], raising=False)
    return Copies.log


def test_a_buffer_is_not_written_to_before_the_copies_out_of_it_are_done(log: list[str]) -> None:
    """Groups are read one ahead of the work, and the copies of one are awaited when its buffer's turn comes again."""
    slots = PinnedSlots(CUDA, 1024)
    slots.next_group()
    for group in range(4):
        slots.next_group()
        log.append(f"written {group + 1}")
        slots.group_done()
    assert log == [
        "written 1", "queued 0",
        "done 0", "written 2", "queued 1",
        "done 1", "written 3", "queued 2",
        "done 2", "written 4", "queued 3",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_copies_are_equal_and_do_not_overlap(log: list[str], dtype: torch.dtype) -> None:
    tensors = [torch.randn(shape).to(dtype) for shape in ((3, 5), (), (7,), (2, 3, 4))]
    slots = PinnedSlots(CUDA, 8 * ALIGNMENT)
    for _ in range(3):
        slots.next_group()
        copies = [slots.pinned(tensor) for tensor in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            assert copy is not None
            assert (copy.shape, copy.dtype) == (tensor.shape, tensor.dtype)
            assert torch.equal(copy.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
            assert copy.data_ptr() != tensor.data_ptr()
        slots.group_done()


def test_what_has_no_room_stays_where_it_is(log: list[str]) -> None:
    slots = PinnedSlots(CUDA, 2 * ALIGNMENT)
    slots.next_group()
    assert slots.pinned(torch.zeros(ALIGNMENT)) is None
    assert slots.pinned(torch.zeros(3)) is not None
    assert slots.pinned(torch.zeros(ALIGNMENT // 4 + 1)) is None
    assert slots.pinned(torch.zeros(3)) is not None
    assert slots.pinned(torch.zeros(3)) is None


def test_a_buffer_is_used_to_its_last_byte(log: list[str]) -> None:
    slots = PinnedSlots(CUDA, ALIGNMENT)
    slots.next_group()
    assert slots.pinned(torch.zeros(ALIGNMENT, dtype=torch.uint8)) is not None


def test_where_work_is_done_on_the_cpu_nothing_is_copied(log: list[str]) -> None:
    slots = PinnedSlots(torch.device("cpu"), 4 * ALIGNMENT)
    slots.next_group()
    assert slots.pinned(torch.zeros(3)) is None


@given(st.lists(st.lists(st.integers(1, 5000), max_size=6), max_size=5), st.integers(0, 20_000))
def test_a_buffer_holds_any_group_as_far_as_it_may(groups: list[list[int]], most: int) -> None:
    size = slot_bytes_for(groups, most)
    assert size <= most
    slots = PinnedSlots(torch.device("cpu"), 0)
    slots._slots = [torch.zeros(size, dtype=torch.uint8) for _ in "ab"]
    for group in groups:
        slots.next_group()
        copies = [slots.pinned(torch.zeros(count, dtype=torch.uint8)) for count in group]
        if size < most:
            assert None not in copies


def test_without_page_locked_memory_everything_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver, or the system locks no more."""
    empty = torch.empty

    def refuse(*sizes: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*sizes, **options)

    monkeypatch.setattr(torch, "empty", refuse)
    for device in (CUDA, torch.device("cpu")):
        slots = PinnedSlots(device, 1 << 20)
        slots.next_group()
        assert slots.pinned(torch.zeros(3)) is None
        slots.group_done()


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("stored", (6, 4)),
        ("transposed", (4, 6)),
        ("swapped", (2, 6, 2)),
        ("expert", (3, 6, 4)),
        ("expert_transposed", (3, 4, 6)),
    ],
)
def test_blocks_of_every_layout_arrive_on_the_device(layout: Any, shape: tuple[int, ...], pinned: bool) -> None:
    """Whole, by rows and by columns. FakeTensorMode computes shapes and raises where devices meet."""
    info = TensorInfo("a.weight", shape, "float32")
    spec = MatrixSpec("a.weight", "linear", 6, 4, info, layout, 1 if layout.startswith("expert") else None)
    with FakeTensorMode():
        flat = torch.empty(shape[0], int(np.prod(shape[1:])))
        lazy = LazyMatrix(spec, lambda rows, cols: part(part(flat, 0, rows), 1, cols), CUDA, pinned)
        for rows, cols in ((slice(None), slice(None)), (slice(1, 3), slice(None)), (slice(None), slice(2, 4))):
            block = lazy.block(rows, cols)
            assert block.device.type == "cuda"
            assert block.shape == (len(range(6)[rows]), len(range(4)[cols]))
        assert lazy.on(torch.device("cpu")).block().device.type == "cpu"


@pytest.mark.parametrize("pinned", [False, True])
def test_only_copies_out_of_page_locked_memory_are_not_awaited(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    original = Tensor.to

    def to(tensor: Tensor, *args: Any, non_blocking: bool = False, **options: Any) -> Tensor:
        asked.append(non_blocking)
        return original(tensor, *args, **options)

    monkeypatch.setattr(Tensor, "to", to)
    spec = MatrixSpec("a.weight", "linear", 6, 4, TensorInfo("a.weight", (6, 4), "float32"))
    stored = torch.zeros(6, 4)
    LazyMatrix(spec, lambda rows, cols: stored[rows, cols], torch.device("cpu"), pinned).block()
    assert asked == [pinned]


# On a GPU


def save(path: Path, seed: int = 0) -> Path:
    """Matrices of all layouts, in batches and alone, of which some are read in several slabs."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {f"layers.{place}.weight": normal(96, 64) for place in range(24)}
    weights |= {f"wide.{place}.weight": normal(40, 6000).bfloat16() for place in range(3)}
    weights |= {"tall.weight": normal(9000, 300), "conv.weight": normal(32, 16, 3, 3), "tconv.weight": normal(8, 12, 3)}
    weights |= {"experts.up_proj": normal(4, 24, 32), "big.weight": normal(1500, 1200), "double.weight": normal(50, 40)}
    weights["double.weight"] = weights["double.weight"].double()
    save_file(weights, path)
    return path


def tables(
    path: Path, device: torch.device, *, known: KnownFactors | None = None, store: VectorStore | None = None
) -> Mapping[str, list[Row]]:
    """The rows of all tables; agreement with itself unless vectors to compare with are given."""
    place = WorkPlace(device, 1 << 30, known_bytes=1 << 27)
    with open_checkpoint(path) as reader:
        inventory = take_inventory(reader.tensors, ordered=True, transposed=["tconv.weight", "layers.1.weight"])
        specs = inventory.selected((), ())
        options: dict[str, Any] = {"on_problem": pytest.fail, "on_matrix": lambda _: None}
        if store is None:
            store = VectorStore(1 << 28)
            visit(reader, specs, [KeepVectors(store)], place, **options)
        making = {
            "rank": RankRows(),
            "align": AlignRows(inventory.connections(), specs, full=False),
            "sva": SvaRows(store, {}),
        }
        visit(reader, specs, list(making.values()), place, known=known, **options)
        values = RankRows()
        visit(reader, specs, [values], place, known=KnownFactors(1 << 20) if known else None, **options)
    return {table: made.rows() for table, made in making.items()} | {"values": values.rows()}


def bits(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    return value.hex() if isinstance(value, float) else value


def exactly(found: Mapping[str, Sequence[Row]]) -> Mapping[str, list[dict[str, Any]]]:
    return {
        table: [{name: bits(value) for name, value in row.items()} for row in rows] for table, rows in found.items()
    }


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether what is copied to the device lies in page-locked memory, copy by copy of a whole block."""
    found: list[bool] = []
    original = LazyMatrix.block

    def block(matrix: LazyMatrix, *args: Any, **options: Any) -> Tensor:
        read: Callable[..., Tensor] = matrix.read

        def noted(rows: slice, cols: slice) -> Tensor:
            stored = read(rows, cols)
            found.append(stored.is_pinned())
            return stored

        return original(LazyMatrix(matrix.spec, noted, matrix.device, matrix.pinned), *args, **options)

    monkeypatch.setattr(LazyMatrix, "block", block)
    return found


@pytest.mark.cuda
@needs_cuda
def test_page_locked_and_pageable_memory_give_the_same_tables(
    tmp_path: Path, sources: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "model.safetensors")
    pinned = exactly(tables(path, CUDA))
    assert sources
    assert all(sources)
    sources.clear()
    monkeypatch.setattr(pinning, "_page_locked", lambda _: [])
    pageable = exactly(tables(path, CUDA))
    assert sources
    assert not any(sources)
    assert pinned == pageable


@pytest.mark.cuda
@needs_cuda
def test_a_device_that_is_late_gets_what_was_there_when_the_copy_was_queued() -> None:
    """It is kept busy before the copy, while two further groups are read."""
    slots = PinnedSlots(CUDA, 4 << 20)
    first = torch.arange(1 << 20, dtype=torch.float32)
    slots.next_group()
    source = slots.pinned(first)
    assert source is not None
    assert source.is_pinned()
    torch.cuda._sleep(1 << 29)  # type: ignore[no-untyped-call]  # some tenths of a second
    arrived = source.to(CUDA, non_blocking=True)
    slots.group_done()
    for value in (1.0, 2.0):
        slots.next_group()
        assert slots.pinned(torch.full((1 << 20,), value)) is not None
        slots.group_done()
    assert torch.equal(arrived.cpu(), first)
    assert torch.equal(source, torch.full((1 << 20,), 2.0)), "the buffer was not used again: the test says nothing"


@pytest.mark.cuda
@needs_cuda
def test_rows_on_cuda_do_not_depend_on_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy, and a checkpoint of which one matrix of each batch has changed: that takes its batch with it."""
    counts: list[int] = []

    def counting(matrices: Sequence[Matrix], **options: Any) -> list[Spectrum]:
        counts.append(len(matrices))
        return factorize(matrices, **options)

    monkeypatch.setattr(visits, "factorize", counting)
    one, copy, other = (save(tmp_path / f"{name}.safetensors") for name in ("one", "copy", "other"))
    from safetensors.torch import load_file

    weights = load_file(other)
    weights["layers.3.weight"] += 1.0
    save_file(weights, other)
    with VectorStore(1 << 28) as store:
        expected = [exactly(tables(path, CUDA, store=store)) for path in (one, copy, other)]
        without = sum(counts)
        counts.clear()
        known = KnownFactors(1 << 27)
        assert [exactly(tables(path, CUDA, store=store, known=known)) for path in (one, copy, other)] == expected
    assert sum(counts) < without


@pytest.mark.cuda
@needs_cuda
def test_rows_on_cuda_are_within_their_bounds_of_lapack(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = save(tmp_path / "model.safetensors")
    weights = load_file(path)
    on_cuda, on_cpu = (tables(path, torch.device(name)) for name in ("cuda", "cpu"))
    checked = 0
    for rows in (on_cuda["rank"], on_cuda["values"]):
        assert {row["status"] for row in rows} == {"ok"}
        for row in rows:
            stored = weights.get(row["parameter"])
            if stored is not None and "tconv" not in row["parameter"]:
                exact = np.linalg.svd(stored.double().reshape(stored.shape[0], -1).numpy(), compute_uv=False)
                error = np.abs(row["singular_values"].astype(np.float64) - exact).max()
                assert error <= row["singular_value_error"] + 1e-14 * exact[0], row["parameter"]
                assert error <= 1e-5 * exact[0]
                checked += 1
    assert checked > 50
    for table, column in (("align", "score"), ("sva", "score")):
        for ours, theirs in zip(on_cuda[table], on_cpu[table], strict=True):
            if ours["status"] == "ok" and ours["min_gap"] > 1e-4:
                assert ours[column] == pytest.approx(theirs[column], abs=1e-5)
