"""Blocks of a matrix, read from a checkpoint, are the blocks of the tensor that torch permutes and reshapes whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.layers import matricize
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec, in_stored_layout
from spectra_cli.tensors import TensorInfo

SIZES = st.integers(1, 5)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.float8_e4m3fn])


def counted(tensor: torch.Tensor) -> torch.Tensor:
    """Distinct numbers, as far as the dtype tells them apart."""
    return torch.arange(tensor.numel()).reshape(tensor.shape).to(tensor.dtype)


class StoredTensor:
    """What a reader does: blocks of (shape[0], rest), and how many numbers were asked for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.numbers = 0
        self.largest = 0

    def read(self, rows: slice, cols: slice) -> torch.Tensor:
        flat = self.tensor.reshape(self.tensor.shape[0], -1)
        block = flat[rows, cols].clone()
        self.numbers += block.numel()
        self.largest = max(self.largest, block.numel())
        whole = block.shape[1] == flat.shape[1]
        return block.reshape(block.shape[0], *self.tensor.shape[1:]) if whole else block


def specs_of(name: str, tensor: torch.Tensor, transposed: Sequence[str] = ()) -> Sequence[MatrixSpec]:
    info = TensorInfo(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    return take_inventory({name: info}, ordered=True, transposed=transposed).matrices


LAYOUTS: dict[str, tuple[str, int, bool, Callable[[torch.Tensor], list[torch.Tensor]]]] = {
    "stored": ("fc.weight", 2, False, lambda t: [t]),
    "convolution": ("conv.weight", 4, False, lambda t: [t.flatten(1)]),
    "transposed": ("fc.weight", 2, True, lambda t: [t.T]),
    "swapped": ("tconv.weight", 4, False, lambda t: [t.transpose(0, 1).flatten(1)]),
    "swapped 1d": ("tconv.weight", 3, False, lambda t: [t.transpose(0, 1).flatten(1)]),
    "experts": ("experts.w", 3, False, list),
    "transposed experts": ("experts.w", 3, True, lambda t: [one.T for one in t]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None)  # machines that run tests are busy
@given(data=st.data(), dtype=DTYPES)
def test_every_block_is_that_of_the_permuted_tensor(layout: str, data: st.DataObject, dtype: torch.dtype) -> None:
    """All layouts, sizes down to 1, empty and whole ranges, several dtypes."""
    name, axes, forced, oracle = LAYOUTS[layout]
    tensor = counted(torch.empty([data.draw(SIZES) for _ in range(axes)], dtype=dtype))
    specs = specs_of(name, tensor, ["*"] if forced else [])
    expected = oracle(tensor)
    assert len(specs) == len(expected)
    for spec, matrix in zip(specs, expected, strict=True):
        lazy = LazyMatrix(spec, StoredTensor(tensor).read, torch.device("cpu"))
        assert (lazy.shape, lazy.dtype) == (tuple(matrix.shape), matrix.dtype)
        rows, cols = (slice(*sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2)))) for size in matrix.shape)
        for part in ((rows, cols), (rows, slice(None)), (slice(None), cols), (slice(None), slice(None))):
            block, wanted = lazy.block(*part), matrix[part]
            assert block.shape == wanted.shape
            assert torch.equal(block.double(), wanted.double())


@pytest.mark.parametrize("shape", [(1, 5, 7), (5, 1, 7), (1, 4, 4, 6), (1, 6, 4, 4)])
def test_learned_positions_lose_their_axis_of_one(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (spec,) = specs_of("pos_embed", tensor)
    channels_last = shape[-1] != shape[-2]
    expected = tensor.reshape(-1, shape[-1]) if channels_last else tensor.reshape(shape[1], -1)
    lazy = LazyMatrix(spec, StoredTensor(tensor).read, torch.device("cpu"))
    assert torch.equal(lazy.block(), expected)
    assert torch.equal(lazy.block(slice(2, 4), slice(1, 3)), expected[2:4, 1:3])


def test_a_transposed_convolution_has_the_spectrum_of_its_permutation() -> None:
    """Against the linear map itself: output channel by output channel, from torch's own layer."""
    layer = torch.nn.ConvTranspose2d(6, 4, 3, dtype=torch.float64)
    weight = layer.weight.detach()
    (spec,) = specs_of("up.deconv.weight", weight)
    matrix = LazyMatrix(spec, StoredTensor(weight).read, torch.device("cpu")).block()
    # With one input position per kernel tap the layer is this matrix: taps (in, kh, kw) -> out at a single pixel.
    taps = torch.zeros(54, 6, 3, 3, dtype=torch.float64)
    for column in range(54):
        channel, row, col = column // 9, column // 3 % 3, column % 3
        taps[column, channel, 2 - row, 2 - col] = 1.0
    with torch.no_grad():
        columns = layer(taps)[:, :, 2, 2] - layer.bias
    assert torch.allclose(torch.linalg.svdvals(matrix), torch.linalg.svdvals(columns.T), atol=1e-12)
    assert torch.allclose(matrix, columns.T, atol=1e-12)


def test_no_more_is_read_than_the_block_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a transposed convolution only the kernels that the block touches; of an expert strips of bounded size."""
    conv = torch.randn(10, 12, 3, 3, generator=torch.Generator().manual_seed(0))
    stored = StoredTensor(conv)
    LazyMatrix(specs_of("tconv.weight", conv)[0], stored.read, torch.device("cpu")).block(slice(2, 5), slice(10, 20))
    assert stored.numbers == 3 * 2 * 9  # 3 outputs, 2 inputs
    monkeypatch.setattr(matricize, "STRIP_BYTES", 4 * 50 * 8)
    experts = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    stored = StoredTensor(experts)
    block = LazyMatrix(specs_of("experts.w", experts)[1], stored.read, torch.device("cpu")).block(cols=slice(7, 9))
    assert torch.equal(block, experts[1, :, 7:9])
    assert (stored.largest, stored.numbers) == (8 * 50, 40 * 50)


def test_the_device_is_where_blocks_arrive() -> None:
    """The matrix moved to another device keeps all else; `meta` stands for a device here."""
    tensor = torch.ones(3, 2)
    lazy = LazyMatrix(specs_of("a.weight", tensor)[0], StoredTensor(tensor).read, torch.device("cpu"))
    moved = lazy.on(torch.device("meta"))
    assert (moved.block(slice(0, 2)).device.type, lazy.block().device.type) == ("meta", "cpu")
    assert moved.block(slice(0, 2)).shape == (2, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4), (4, 3)])
def test_a_matrix_goes_back_to_where_it_was_taken_from(layout: str, shape: tuple[int, int]) -> None:
    """Every number of every matrix of the tensor is back in its place."""
    name, dims, transposed, _ = LAYOUTS[layout]
    tensor = counted(torch.empty(*shape, *range(2, dims)))
    restored = torch.full_like(tensor, torch.nan)
    for spec in specs_of(name, tensor, [name] if transposed else ()):
        matrix = LazyMatrix(spec, StoredTensor(tensor).read, torch.device("cpu")).block()
        (restored if spec.expert is None else restored[spec.expert]).copy_(in_stored_layout(spec, matrix))
    assert torch.equal(restored, tensor)


OUTPUT_LAYERS = {
    "the last matrix where no family says": (["a.weight", "b.weight"], {"b.weight"}),
    "where an output connection leads": (
        ["decoder.weight", "layers.0.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"],
        {"decoder.weight"},
    ),
}


@pytest.mark.parametrize("case", OUTPUT_LAYERS)
def test_the_output_layer_is_found(case: str) -> None:
    names, expected = OUTPUT_LAYERS[case]
    shapes = {"decoder.weight": (10, 4), "lstm.weight_ih_l0": (16, 4), "lstm.weight_hh_l0": (16, 4)}
    tensors = {name: TensorInfo(name, shapes.get(name, (6, 6)), "float32") for name in names}
    inventory = take_inventory(tensors, ordered=True)
    assert {inventory.matrices[depth].parameter for depth in inventory.output_layers()} == expected


def test_a_model_without_matrices_has_no_output_layer() -> None:
    assert take_inventory({}, ordered=True).output_layers() == frozenset()
