"""Parts of matrices against LAPACK, and masks against sorted lists."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode

from spectra_cli.spectrum import prune
from spectra_cli.spectrum.matrix import TensorMatrix
from spectra_cli.spectrum.prune import (
    kept_count,
    magnitude_masks,
    projected,
    random_masks,
    split_spectrum,
)
from tests.spectrum.planted import planted

SHAPES = [(30, 12), (12, 30), (15, 15), (1, 9), (9, 1), (200, 3)]


def separated(rows: int, cols: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(planted(rows, cols, 0.8 ** np.arange(min(rows, cols)), seed))


def leading(matrix: torch.Tensor, count: int) -> NDArray[np.float64]:
    """The sum of the first singular components, by LAPACK in float64."""
    left, values, right = np.linalg.svd(matrix.to(torch.float64).numpy(), full_matrices=False)
    return np.asarray((left[:, :count] * values[:count]) @ right[:count])


# How many


@pytest.mark.parametrize(
    ("keep", "total", "expected"),
    [
        (0.55, 20, 11),  # 0.55 * 20 is 11.000000000000002 in float64
        (0.5, 7, 4),
        (0.5, 8, 4),
        (0.1, 30, 3),  # 3.0000000000000004
        (1.0, 9, 9),
        (1e-12, 9, 1),
        (0.3, 0, 0),
    ],
)
def test_fractions_are_rounded_up_but_for_the_rounding_of_the_product(keep: float, total: int, expected: int) -> None:
    assert kept_count(keep, total) == expected


@given(st.integers(1, 100), st.integers(1, 5000))
def test_percentages_are_rounded_up_as_written(percent: int, total: int) -> None:
    assert kept_count(percent / 100, total) == math.ceil(Fraction(percent, 100) * total)


# Top and bottom


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0, 1e-9])
def test_halves_are_the_sums_of_components(shape: tuple[int, int], dtype: torch.dtype, keep: float) -> None:
    """In the dtype of the matrix: as near to LAPACK's as numbers of that type can be."""
    matrix = separated(*shape).to(dtype)
    (split,) = split_spectrum([TensorMatrix(matrix)], keep)
    assert split.status == "ok"
    assert split.top is not None
    assert split.bottom is not None
    count = math.ceil(keep * min(shape))
    expected = leading(matrix, count)
    rest = matrix.double().numpy() - expected
    eps = torch.finfo(dtype).eps
    for half, sums in ((split.top, expected), (split.bottom, rest)):
        assert (half.dtype, half.shape) == (dtype, matrix.shape)
        np.testing.assert_allclose(half.double().numpy(), sums, rtol=eps, atol=1e-12)


def test_everything_is_exactly_everything() -> None:
    matrix = torch.randn(40, 13, generator=torch.Generator().manual_seed(0))
    (split,) = split_spectrum([TensorMatrix(matrix)], 1.0)
    assert split.top is not None
    assert torch.equal(split.top, matrix)
    assert split.bottom is not None
    assert not split.bottom.any()


@pytest.mark.parametrize("shape", [(700, 40), (40, 700)], ids=str)
def test_slabs_do_not_change_the_halves(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a length that does not divide the long side."""
    matrix = TensorMatrix(separated(*shape).float())
    whole = split_spectrum([matrix], 0.4)[0]
    monkeypatch.setattr(prune, "LONGEST_SLAB", 37)
    cut = split_spectrum([matrix], 0.4)[0]
    for one, other in ((whole.top, cut.top), (whole.bottom, cut.bottom)):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_each_of_a_batch_gets_its_own_halves() -> None:
    matrices = [separated(20, 8, seed).float() for seed in range(3)]
    for matrix, split in zip(matrices, split_spectrum(list(map(TensorMatrix, matrices)), 0.5), strict=True):
        assert split.top is not None
        np.testing.assert_allclose(split.top.numpy(), leading(matrix, 4), rtol=1e-6, atol=1e-7)


def test_a_matrix_that_is_not_finite_has_no_halves_and_spoils_no_other() -> None:
    bad = torch.ones(6, 4)
    bad[2, 1] = math.nan
    splits = split_spectrum([TensorMatrix(bad), TensorMatrix(separated(6, 4).float())], 0.5)
    assert [split.status for split in splits] == ["not_finite", "ok"]
    assert splits[0].top is None
    assert splits[0].bottom is None
    assert splits[1].top is not None


def test_a_matrix_without_a_side_is_empty() -> None:
    assert [split.status for split in split_spectrum([TensorMatrix(torch.empty(0, 4))], 0.5)] == ["empty"]
    assert split_spectrum([], 0.5) == []


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.01, math.nan])
def test_a_fraction_out_of_range_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep is"):
        split_spectrum([TensorMatrix(torch.ones(2, 2))], keep)
    with pytest.raises(ValueError, match="keep is"):
        magnitude_masks({"a": torch.ones(2)}, keep)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_halves_are_made_on_the_device(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """FakeTensorMode raises where devices meet; the halves go where they are wanted."""
    with FakeTensorMode():
        matrix = TensorMatrix(torch.empty(shape, dtype=dtype, device="cuda"))
        basis = torch.empty(min(shape), max(1, min(shape) // 2), dtype=torch.float64, device="cuda")
        halves = projected(matrix, basis, torch.device("cuda"))
        elsewhere = projected(matrix, basis, torch.device("cpu"))
        assert {str(half.device) for half in halves} == {"cuda:0"}
        assert {str(half.device) for half in elsewhere} == {"cpu"}
        assert {(half.shape, half.dtype) for half in (*halves, *elsewhere)} == {(shape, dtype)}


def test_halves_are_not_made_of_what_is_on_two_devices() -> None:
    """Or else the test above would say nothing."""
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        projected(TensorMatrix(torch.empty(9, 4, device="cuda")), torch.empty(4, 2).double(), torch.device("cuda"))


# Masks


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (7, 5), "b": (4, 3, 2, 2), "c": (60,)}
    return {
        name: (place + 1) * torch.randn(shape, generator=generator)
        for place, (name, shape) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("keep", [0.05, 0.3, 1.0, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_largest_of_all_tensors_are_kept(keep: float, dtype: torch.dtype) -> None:
    """The first ceil(keep * N) of a stable list sorted by magnitude: of equals, as in bfloat16, the first."""
    weights = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    every = [
        (name, place, abs(number))
        for name, tensor in weights.items()
        for place, number in enumerate(tensor.flatten().tolist())
    ]
    expected = {name: torch.zeros(tensor.numel(), dtype=torch.bool) for name, tensor in weights.items()}
    for name, place, _ in sorted(every, key=lambda entry: -entry[2])[: math.ceil(keep * len(every))]:
        expected[name][place] = True
    for name, mask in magnitude_masks(weights, keep).items():
        assert (mask.dtype, mask.shape) == (torch.bool, weights[name].shape)
        assert torch.equal(mask.flatten(), expected[name])


def test_of_equals_the_first_are_kept() -> None:
    """In the order of the tensors, then row by row, whatever the strides."""
    masks = magnitude_masks({"a": torch.tensor([1.0, -2.0, 2.0, 0.5]), "b": torch.tensor([[2.0, 3.0]])}, 0.5)
    assert masks["a"].tolist() == [False, True, True, False]
    assert masks["b"].tolist() == [[False, True]]
    signs = torch.tensor([[0.1, -0.1], [-0.1, 0.1], [0.1, 0.1]])
    assert magnitude_masks({"a": signs}, 0.5)["a"].tolist() == [[True, True], [True, False], [False, False]]
    assert magnitude_masks({"a": signs.T}, 0.5)["a"].tolist() == [[True, True, True], [False, False, False]]


def test_of_weights_of_one_magnitude_as_many_are_kept_as_asked() -> None:
    masks = magnitude_masks({name: 0.1 * tensor.sign() for name, tensor in tensors().items()}, 0.05)
    assert sum(int(mask.sum()) for mask in masks.values()) == math.ceil(0.05 * (35 + 48 + 60))


def test_zeros_are_never_kept() -> None:
    for keep in (0.5, 1.0):
        masks = magnitude_masks({"a": torch.tensor([0.0, 1.0, -0.0, 0.0])}, keep)
        assert masks["a"].tolist() == [False, True, False, False]


def test_a_threshold_of_one_type_counts_for_tensors_of_another() -> None:
    """1 + 2**-40 is the largest of all, which float32 cannot tell from 1."""
    masks = magnitude_masks({"a": torch.ones(2), "b": torch.tensor([1 + 2.0**-40], dtype=torch.float64)}, 0.3)
    assert [masks[name].tolist() for name in "ab"] == [[False, False], [True]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_entry_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        magnitude_masks({"a": torch.tensor([1.0, bad])}, 0.5)


def test_weights_are_left_as_they_are() -> None:
    """The selection in place is of a copy."""
    weights = tensors()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    magnitude_masks(weights, 0.3)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def test_nothing_has_empty_masks() -> None:
    assert magnitude_masks({}, 0.5) == {}
    assert magnitude_masks({"a": torch.empty(0, 3)}, 0.5)["a"].shape == (0, 3)


def test_random_masks_keep_as_many_of_every_tensor() -> None:
    masks = magnitude_masks(tensors(), 0.3)
    drawn = random_masks(masks, 0)
    assert {name: int(mask.sum()) for name, mask in drawn.items()} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }
    assert {name: mask.shape for name, mask in drawn.items()} == {name: mask.shape for name, mask in masks.items()}
    assert any(not torch.equal(drawn[name], masks[name]) for name in masks)


def test_a_seed_gives_the_same_mask_and_another_seed_another_one() -> None:
    masks = magnitude_masks(tensors(), 0.3)
    one, again, other = (random_masks(masks, seed) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in masks)
    assert any(not torch.equal(one[name], other[name]) for name in masks)


def test_random_masks_do_not_depend_on_the_global_generator() -> None:
    masks = magnitude_masks(tensors(), 0.3)
    torch.manual_seed(1)
    one = random_masks(masks, 0)
    torch.manual_seed(2)
    assert all(torch.equal(mask, random_masks(masks, 0)[name]) for name, mask in one.items())


def test_every_entry_is_equally_likely() -> None:
    """Over 400 seeds, an entry of 20 with 5 kept is there 100 times, give or take 5 standard deviations of 8.7."""
    mask = {"a": torch.arange(20) < 5}
    counts = sum(random_masks(mask, seed)["a"].long() for seed in range(400))
    assert isinstance(counts, torch.Tensor)
    assert int(counts.sum()) == 2000
    assert (counts - 100).abs().max() < 44
