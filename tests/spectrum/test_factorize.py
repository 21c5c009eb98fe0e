"""The promises of DESIGN section 5: values within 1e-5 s_1, effective rank within 1e-4, and a true bound."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.spectrum.factorize import Sides, Spectrum, factorize
from spectra_cli.spectrum.matrix import TensorMatrix
from spectra_cli.spectrum.methods import METHODS
from spectra_cli.spectrum.statistics import effective_rank, numerical_rank

from .planted import exponential_entropy, lapack, planted

GiB = 1 << 30


def one(tensor: torch.Tensor, **options: object) -> Spectrum:
    return factorize([TensorMatrix(tensor)], budget_bytes=GiB, **options)[0]  # type: ignore[arg-type]


def assert_promises(tensor: torch.Tensor, spectrum: Spectrum) -> None:
    true = lapack(tensor)
    errors = np.abs(spectrum.singular_values - true)
    oracle = 1e-14 * true[0]  # LAPACK's own
    assert errors.max() <= 1e-5 * true[0]
    assert errors.max() <= spectrum.error + oracle
    assert spectrum.error <= 1e-5 * true[0]
    assert (np.diff(spectrum.singular_values) <= 0).all()
    if true[0] > 0:
        assert effective_rank(spectrum.singular_values) == pytest.approx(exponential_entropy(true), rel=1e-4)
        eps = torch.finfo(tensor.dtype).eps
        counts = [numerical_rank(values, *tensor.shape, eps) for values in (spectrum.singular_values, true)]
        assert counts[0] == counts[1]


SHAPES = [
    (1, 1),
    (1, 17),
    (17, 1),
    (2, 3),
    (64, 64),
    (65, 64),
    (20000, 64),
    (64, 20000),
    (300, 280),
    (512, 512),
    (260, 700),
]
SPECTRA = {
    "flat": np.ones,
    "linear": lambda count: np.linspace(1, 0.01, count),
    "decaying": lambda count: np.logspace(0, -3, count),
    "steep": lambda count: np.logspace(0, -12, count),
    "tied": lambda count: np.repeat([1.0, 0.5], [(count + 1) // 2, count // 2]),
    "deficient": lambda count: np.concatenate([np.ones((count + 2) // 3), np.zeros(count - (count + 2) // 3)]),
    "rank one": lambda count: np.eye(1, count)[0],
    "outlier": lambda count: np.concatenate([[1e4], np.ones(count - 1)]),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_promises_on_planted_spectra(shape: tuple[int, int], spectrum: str, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(planted(*shape, SPECTRA[spectrum](min(shape)))).to(dtype)
    assert_promises(tensor, one(tensor))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("shape", [(40, 30), (3000, 300)])
def test_promises_at_extreme_scales(scale: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    tensor = torch.randn(shape, generator=generator) * scale
    assert_promises(tensor, one(tensor))
    double = torch.randn(shape, generator=generator, dtype=torch.float64) * scale**8
    if np.isfinite(scale**8) and scale**8 > 0:
        assert_promises(double, one(double))


def test_float64_weights_keep_what_squaring_would_lose() -> None:
    """Values down to 1e-12 s_1 with a relative error below 1e-2."""
    values = np.logspace(0, -12, 60)
    spectrum = one(torch.from_numpy(planted(200, 60, values)))
    assert spectrum.method == "qr_float64"
    np.testing.assert_allclose(spectrum.singular_values, values, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("rows", "cols"), [(4096, 1), (1, 4096), (100_000, 1), (3000, 4), (7, 300)])
def test_the_bound_holds_without_any_slack_where_the_truth_is_known_exactly(
    dtype: torch.dtype, rows: int, cols: int
) -> None:
    """A constant matrix has the one singular value c sqrt(rows cols): in rational numbers, s - e <= that <= s + e."""
    tensor = torch.full((rows, cols), 0.1, dtype=dtype)
    spectrum = one(tensor)
    true_square = Fraction(tensor[0, 0].item()) ** 2 * rows * cols
    value, error = Fraction(float(spectrum.singular_values[0])), Fraction(spectrum.error)
    assert (value - error) ** 2 <= true_square <= (value + error) ** 2
    assert error > 0
    assert (spectrum.singular_values[1:] <= spectrum.error).all()


def test_a_matrix_on_which_lapack_fails_does_not_take_others_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    eigvalsh = torch.linalg.eigvalsh
    tensors = [torch.randn(20, 10) for _ in range(3)]
    bad = (tensors[1].double().mT @ tensors[1].double())[0, 0]

    def failing(matrices: torch.Tensor, **options: str) -> torch.Tensor:
        if (matrices[:, 0, 0] == bad).any():
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return eigvalsh(matrices, **options)

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], budget_bytes=GiB)
    assert [spectrum.method for spectrum in spectra] == ["gram_float64", "qr_float64", "gram_float64"]
    monkeypatch.setattr(torch.linalg, "svdvals", failing_always)
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], budget_bytes=GiB)
    assert [spectrum.status for spectrum in spectra] == ["ok", "no_convergence", "ok"]


def failing_always(_: torch.Tensor) -> torch.Tensor:
    raise torch.linalg.LinAlgError("the algorithm failed to converge")


def test_exact_rank_deficiency_of_integers() -> None:
    """Integer weights: the Gram matrix is exact, and the rank is known without any numerics."""
    generator = np.random.default_rng(0)
    factors = generator.integers(-3, 4, (200, 7)), generator.integers(-3, 4, (7, 150))
    tensor = torch.from_numpy((factors[0] @ factors[1]).astype(np.float32))
    spectrum = one(tensor)
    assert numerical_rank(spectrum.singular_values, 200, 150, torch.finfo(torch.float32).eps) == 7
    assert_promises(tensor, spectrum)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(900, 100), (100, 900)])
def test_every_method_bounds_its_error_even_where_it_is_not_the_right_one(method: str, shape: tuple[int, int]) -> None:
    for name, spectrum_of in SPECTRA.items():
        tensor = torch.from_numpy(planted(*shape, spectrum_of(100))).float()
        spectrum = one(tensor, method=method)
        if method == "gram_float32" and spectrum.status != "ok":
            continue
        true = lapack(tensor)
        assert np.abs(spectrum.singular_values - true).max() <= spectrum.error + 1e-14 * true[0], name


def test_the_cheapest_sufficient_method_is_used() -> None:
    good = torch.randn(4000, 300)
    tall_but_ill = torch.from_numpy(planted(4000, 300, np.logspace(0, -4, 300))).float()
    deficient = torch.from_numpy(planted(4000, 300, np.eye(1, 300)[0])).float()
    square = torch.randn(300, 300)
    assert [one(t).method for t in (good, tall_but_ill, deficient, square, good.double())] == [
        "gram_float32",
        "gram_float64",
        "qr_float64",
        "gram_float64",
        "qr_float64",
    ]


def test_each_matrix_of_a_batch_gets_the_method_it_needs() -> None:
    tensors = [
        torch.randn(300, 280),
        torch.from_numpy(planted(300, 280, np.eye(1, 280)[0])).float(),
        torch.full((300, 280), float("nan")),
        torch.zeros(300, 280),
        torch.randn(300, 280),
    ]
    tensors[4][3, 7] = float("-inf")
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], budget_bytes=GiB)
    assert [s.status for s in spectra] == ["ok", "ok", "not_finite", "ok", "not_finite"]
    assert spectra[0].method == "gram_float64"
    assert spectra[1].method == "qr_float64"
    assert not spectra[3].singular_values.any()
    assert spectra[3].error == 0
    for index in (0, 1, 3):
        assert_promises(tensors[index], spectra[index])
        alone = one(tensors[index])
        np.testing.assert_allclose(alone.singular_values, spectra[index].singular_values, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_a_side_of_length_zero_is_empty(shape: tuple[int, int]) -> None:
    assert one(torch.empty(shape)).status == "empty"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(30, 20), (4000, 300)])
def test_non_finite_weights_are_said_so_wherever_they_are(
    value: float, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    tensor[-1, -1] = value
    spectrum = one(tensor)
    assert (spectrum.status, len(spectrum.singular_values)) == ("not_finite", 0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_as_the_numbers_it_stands_for(dtype: torch.dtype) -> None:
    tensor = torch.randn(60, 50).to(dtype)
    spectrum = one(tensor)
    true = lapack(tensor)
    np.testing.assert_allclose(spectrum.singular_values, true, atol=1e-5 * true[0])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000), st.integers(20_000, 400_000))
def test_values_do_not_depend_on_the_budget(rows: int, cols: int, seed: int, budget: int) -> None:
    tensor = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    small_squares = 8 * 5 * min(rows, cols) ** 2 + 16 * 2 * min(rows, cols)
    tight = factorize([TensorMatrix(tensor)], budget_bytes=max(budget, small_squares))[0]
    np.testing.assert_allclose(tight.singular_values, one(tensor).singular_values, atol=1e-6 * tight.singular_values[0])


def test_the_same_input_gives_the_same_bits() -> None:
    tensor = torch.randn(4000, 300)
    assert one(tensor).singular_values.tobytes() == one(tensor).singular_values.tobytes()


@pytest.mark.parametrize("shape", [(200, 120), (120, 200), (3000, 300), (50, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("spectrum", ["linear", "decaying", "tied", "outlier"])
def test_vectors_rebuild_the_leading_part_of_the_matrix(
    shape: tuple[int, int], dtype: torch.dtype, spectrum: str
) -> None:
    """The rank-k part is compared where s_k and s_{k+1} differ, against NumPy's SVD; signs cancel in the product."""
    tensor = torch.from_numpy(planted(*shape, SPECTRA[spectrum](min(shape)))).to(dtype)
    k = (min(shape) + 1) // 2
    result = one(tensor, vectors=k)
    assert result.left is not None
    assert result.right is not None
    left, right = result.left.numpy(), result.right.numpy()
    assert (left.shape, right.shape) == ((shape[0], k), (shape[1], k))
    np.testing.assert_allclose(left.T @ left, np.eye(k), atol=1e-6)
    np.testing.assert_allclose(right.T @ right, np.eye(k), atol=1e-6)
    u, s, vh = np.linalg.svd(tensor.double().numpy(), full_matrices=False)
    gap = (s[k - 1] - s[k]) / s[0]
    part = (left * result.singular_values[:k]) @ right.T
    np.testing.assert_allclose(part, (u[:, :k] * s[:k]) @ vh[:k], atol=1e-9 * s[0] / max(gap, 1e-9) + 1e-12)
    assert_promises(tensor, result)


@pytest.mark.parametrize("shape", [(200, 120), (120, 200)])
def test_vectors_of_a_rank_deficient_matrix_are_orthonormal_and_right_where_defined(shape: tuple[int, int]) -> None:
    values = np.concatenate([np.linspace(2, 1, 5), np.zeros(115)])
    tensor = torch.from_numpy(planted(*shape, values)).float()
    result = one(tensor, vectors=20)
    assert result.left is not None
    assert result.right is not None
    left, right = result.left.numpy(), result.right.numpy()
    np.testing.assert_allclose(left.T @ left, np.eye(20), atol=1e-6)
    np.testing.assert_allclose(right.T @ right, np.eye(20), atol=1e-6)
    matrix = tensor.double().numpy()
    np.testing.assert_allclose((left[:, :5] * result.singular_values[:5]) @ right[:, :5].T, matrix, atol=1e-6)


def test_transposition_exchanges_left_and_right() -> None:
    tensor = torch.from_numpy(planted(80, 50, np.linspace(2, 1, 50))).float()
    straight, turned = one(tensor, vectors=10), one(tensor.T.contiguous(), vectors=10)
    for a, b in ((straight.left, turned.right), (straight.right, turned.left)):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(np.abs((a.T @ b).numpy()), np.eye(10), atol=1e-6)


@pytest.mark.parametrize("shape", [(200, 40), (40, 200), (60, 60), (9000, 30), (30, 9000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 4])
def test_a_side_asked_for_alone_is_the_same_as_both(shape: tuple[int, int], dtype: torch.dtype, count: int) -> None:
    """And the other is None; for one matrix and for a batch, in one slab and in several; compared as projectors."""
    tensors = [
        torch.from_numpy(planted(*shape, np.linspace(2, 1, min(shape)), seed)).to(dtype) for seed in range(count)
    ]
    matrices = [TensorMatrix(tensor) for tensor in tensors]
    both, left, right = (
        factorize(matrices, vectors=12, sides=sides, budget_bytes=GiB) for sides in ("both", "left", "right")
    )
    neither = factorize(matrices, vectors=0, sides="left", budget_bytes=GiB)
    for index, tensor in enumerate(tensors):
        assert (left[index].right, right[index].left) == (None, None)
        assert (neither[index].left, neither[index].right) == (None, None)
        u, _, vh = np.linalg.svd(tensor.double().numpy(), full_matrices=False)
        for spectra, side, expected in ((left, "left", u[:, :12]), (right, "right", vh[:12].T)):
            alone, together = (getattr(some[index], side).numpy() for some in (spectra, both))
            np.testing.assert_allclose(np.abs(alone.T @ together), np.eye(12), atol=1e-9)
            np.testing.assert_allclose(np.abs(alone.T @ expected), np.eye(12), atol=1e-6)
        for spectra in (left, right):
            np.testing.assert_array_equal(spectra[index].singular_values, both[index].singular_values)


@pytest.mark.parametrize("shape", [(80, 50), (50, 80)])
@pytest.mark.parametrize("sides", ["left", "right"])
def test_each_matrix_of_a_batch_gets_its_own_vectors_whatever_the_others_need(
    shape: tuple[int, int], sides: Sides
) -> None:
    """Among a singular one, one that is not finite and one that is zero."""
    good = [torch.from_numpy(planted(*shape, np.linspace(2, 1, 50), seed)).float() for seed in range(2)]
    singular = torch.from_numpy(planted(*shape, np.append(np.linspace(2, 1, 5), np.zeros(45)))).float()
    tensors = [good[0], singular, torch.full(shape, float("nan")), torch.zeros(shape), good[1]]
    spectra = factorize([TensorMatrix(tensor) for tensor in tensors], vectors=8, sides=sides, budget_bytes=GiB)
    assert [spectrum.status for spectrum in spectra] == ["ok", "ok", "not_finite", "ok", "ok"]
    for index, count in ((0, 8), (1, 5), (3, 0), (4, 8)):
        vectors = getattr(spectra[index], sides).numpy()
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-6)
        u, _, vh = np.linalg.svd(tensors[index].double().numpy(), full_matrices=False)
        expected = (u if sides == "left" else vh.T)[:, :count]
        np.testing.assert_allclose(np.abs(vectors[:, :count].T @ expected), np.eye(count), atol=1e-5)


@pytest.mark.parametrize("vectors", [0, 10])
@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_a_value_next_to_the_cutoff_of_the_numerical_rank_is_not_left_to_a_gram_matrix(
    shape: tuple[int, int], vectors: int
) -> None:
    """The cutoff is that of the stored dtype, with vectors too; a diagonal matrix has values known exactly."""
    tensor = torch.eye(*shape)
    tensor[199, 199] = 300 * torch.finfo(torch.float32).eps * (1 + 1e-4)
    spectrum = one(tensor, vectors=vectors)
    assert spectrum.method == "qr_float64"
    assert_promises(tensor, spectrum)
    tensor[199, 199] *= 3
    assert one(tensor, vectors=vectors).method == "gram_float64"


@pytest.mark.parametrize("scale", [1e-309, 1e-307, 1e-200, 1e200, 1e305])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_vectors_do_not_depend_on_the_scale(scale: float, shape: tuple[int, int]) -> None:
    """Not even where squares of singular values overflow or vanish."""
    tensor = torch.from_numpy(planted(*shape, np.linspace(2, 1, 20)))
    plain, scaled = one(tensor, vectors=20), one(tensor * scale, vectors=20)
    for side in ("left", "right"):
        vectors, expected = getattr(scaled, side), getattr(plain, side)
        np.testing.assert_allclose(np.abs((vectors.T @ expected).numpy()), np.eye(20), atol=1e-9)


def test_more_vectors_than_there_are_gives_all() -> None:
    result = one(torch.randn(7, 5), vectors=100)
    assert result.left is not None
    assert result.left.shape == (7, 5)


def test_matrices_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        factorize([TensorMatrix(torch.ones(2, 3)), TensorMatrix(torch.ones(3, 2))])
    assert factorize([]) == []


def test_tf32_is_not_used_whatever_the_host_program_has_set() -> None:
    before = torch.get_float32_matmul_precision()
    tensor = torch.randn(4000, 300)
    try:
        torch.set_float32_matmul_precision("medium")
        assert one(tensor).method == "gram_float32"
        assert_promises(tensor, one(tensor))
    finally:
        torch.set_float32_matmul_precision(before)
