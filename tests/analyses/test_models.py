"""The weights of a model in memory: the matrices among them, what pruning leaves alone, and putting them back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spectra_cli.analyses.models import (
    StateReader,
    copied,
    matrices_of_model,
    matrix_in,
    put_matrix,
    split_each,
    stored_states,
)
from spectra_cli.analyses.visits import WorkPlace
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.errors import SpectraError, UsageError
from spectra_cli.layers.fitting import StructureOptions
from tests.analyses.tiny_tasks import Convolutional, Network, Recurrent, Tied

PLACE = WorkPlace(torch.device("cpu"), 1 << 30)


def names(model: nn.Module, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return [spec.parameter for spec in matrices_of_model(model).prunable(include, exclude).values()]


class Experts(nn.Module):
    """A stack of matrices in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ParameterDict({"gate_proj": nn.Parameter(torch.randn(3, 4, 5))})
        self.output = nn.Linear(5, 2)


# Which matrices


@pytest.mark.parametrize(
    ("make", "prunable", "maskable"),
    [
        (lambda: Network(7), ["first.weight", "second.weight"], ["first.weight", "second.weight"]),
        (Convolutional, ["conv.weight", "grow.weight"], ["conv.weight", "grow.weight"]),
        (
            Recurrent,
            ["tokens.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"],
            ["lstm.weight_ih_l0", "lstm.weight_hh_l0"],
        ),
        (Tied, ["enter.weight", "first.weight"], ["enter.weight", "first.weight"]),
    ],
    ids=["mlp", "cnn", "lstm", "tied"],
)
def test_the_output_layer_is_left_alone_and_masks_leave_embeddings(
    make: Callable[[], nn.Module], prunable: list[str], maskable: list[str]
) -> None:
    matrices = matrices_of_model(make())
    assert matrices.output_names == ["output.weight"]
    assert [spec.parameter for spec in matrices.prunable().values()] == prunable
    assert matrices.maskable() == maskable


def test_an_embedding_is_told_by_its_module_whatever_its_name() -> None:
    model = nn.ModuleDict({"lookup": nn.Embedding(9, 4), "dense": nn.Linear(4, 4), "out": nn.Linear(4, 2)})
    assert matrices_of_model(model).maskable() == ["dense.weight"]


def test_a_transposed_convolution_is_told_by_its_module() -> None:
    """(in, out, kernel) = (6, 4, 2, 2): 4 rows, whatever the name."""
    (spec,) = (spec for spec in matrices_of_model(Convolutional()).prunable().values() if "grow" in spec.parameter)
    assert (spec.rows, spec.cols, spec.kind) == (4, 24, "conv_transpose")


def test_globs_choose_among_the_prunable() -> None:
    assert names(Network(7), include=("first*", "output*")) == ["first.weight"]
    assert names(Network(7), exclude=("first*",)) == ["second.weight"]


def test_the_user_says_which_is_the_output_layer() -> None:
    matrices = matrices_of_model(Network(7), output_layer="fir*")
    assert matrices.output_names == ["first.weight"]
    assert [spec.parameter for spec in matrices.prunable().values()] == ["second.weight", "output.weight"]
    with pytest.raises(UsageError, match=r"--output-layer head matches no matrix.*output\.weight"):
        matrices_of_model(Network(7), output_layer="head")


def test_a_family_that_the_user_names_is_asked() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        matrices_of_model(Network(7), structure=StructureOptions("nonsense"))


def test_a_model_without_weights_has_no_matrices() -> None:
    matrices = matrices_of_model(nn.ReLU())
    assert (matrices.output_names, matrices.prunable(), matrices.maskable()) == ([], {}, [])


def test_a_model_on_the_meta_device_will_do() -> None:
    with torch.device("meta"):
        model = Convolutional()
    assert names(model) == ["conv.weight", "grow.weight"]


class LanguageModel(nn.Module):
    """Two layers between an embedding and an output layer that is the embedding."""

    def __init__(self, embedding: str, output: str) -> None:
        super().__init__()
        self.add_module(embedding, nn.Embedding(20, 12))
        self.layers = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])
        self.norm = nn.LayerNorm(12)
        head = nn.Linear(12, 20, bias=False)
        head.weight = self.get_parameter(f"{embedding}.weight")
        self.add_module(output, head)


@pytest.mark.parametrize(
    ("embedding", "output"),
    [
        ("embed", "head"),
        ("embedding", "lm_head"),
        ("token_embedding", "output"),
        ("tok", "unembed"),
        ("wte", "decoder"),
        ("emb", "out"),
    ],
)
def test_a_tied_output_layer_is_left_alone_and_every_layer_is_pruned(embedding: str, output: str) -> None:
    matrices = matrices_of_model(LanguageModel(embedding, output))
    assert matrices.output_names == [f"{embedding}.weight"]
    assert [spec.parameter for spec in matrices.prunable().values()] == ["layers.0.weight", "layers.1.weight"]


def test_buffers_are_no_matrices() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    model[0].register_buffer("sinusoids", torch.randn(9, 12))
    model[2].register_buffer("table", torch.randn(5, 5))
    matrices = matrices_of_model(model)
    assert matrices.output_names == ["2.weight"]
    assert matrices.maskable() == names(model) == ["0.weight", "1.weight"]


def test_what_is_called_last_is_asked_for_only_where_nothing_else_says() -> None:
    asked: list[list[str]] = []

    def called_last(among: Collection[str]) -> list[str]:
        asked.append(list(among))
        return ["0.weight"]

    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    assert matrices_of_model(model, called_last=called_last).output_names == ["0.weight"]
    assert asked == [["0.weight", "1.weight"]]
    assert matrices_of_model(model, output_layer="1.*", called_last=called_last).output_names == ["1.weight"]
    assert matrices_of_model(Recurrent(), called_last=lambda _: []).output_names == ["output.weight"]
    known = nn.ModuleDict({"decoder": nn.Linear(4, 10), "lstm": nn.LSTM(4, 4)})  # a family says it
    assert matrices_of_model(known, called_last=called_last).output_names == ["decoder.weight"]
    assert len(asked) == 1


# Reading and writing


@pytest.mark.parametrize("make", [Convolutional, Recurrent, Experts], ids=["cnn", "lstm", "experts"])
def test_a_matrix_goes_back_to_where_it_was_taken_from(make: Callable[[], nn.Module]) -> None:
    """Twice the matrix in its place is twice the tensor; in other tensors nothing moves."""
    model = make()
    before = copied(model.state_dict())
    state = copied(before)
    specs = matrices_of_model(model).prunable()
    for spec in specs.values():
        put_matrix(state, spec, 2 * matrix_in(state, spec).block())
    touched = {spec.tensor.name for spec in specs.values()}
    for name, tensor in before.items():
        torch.testing.assert_close(state[name], 2 * tensor if name in touched else tensor, rtol=0, atol=0)


def test_a_transposed_convolution_is_seen_with_its_outputs_as_rows() -> None:
    model = Convolutional()
    spec = next(spec for spec in matrices_of_model(model).prunable().values() if "grow" in spec.parameter)
    weight = model.grow.weight.detach()
    expected = weight.transpose(0, 1).reshape(4, 24)
    assert torch.equal(matrix_in(model.state_dict(), spec).block(), expected)


def test_a_state_reads_as_a_checkpoint_does(tmp_path: Path) -> None:
    """The same tensors and blocks as from a file; what the reader hands out is the caller's own."""
    state = {name: tensor.contiguous() for name, tensor in Convolutional().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    reader = StateReader(state)
    with open_checkpoint(tmp_path / "model.safetensors") as stored:
        assert reader.tensors.keys() == stored.tensors.keys()
        for name, info in reader.tensors.items():
            assert (info.shape, info.dtype) == (stored.tensors[name].shape, stored.tensors[name].dtype)
            assert torch.equal(reader.read(name), stored.read(name))
        part = (slice(1, 4), slice(2, 7))
        assert torch.equal(reader.read("conv.weight", *part), stored.read("conv.weight", *part))
    reader.read("conv.weight").zero_()
    assert state["conv.weight"].any()


def test_tied_tensors_stay_tied_in_a_copy_and_views_are_not_tied() -> None:
    shared, whole = torch.ones(3, 2), torch.arange(8.0)
    state = {"a": shared, "b": shared, "first": whole[:4], "all": whole}
    copy = copied(state)
    copy["a"][0] = 5
    assert torch.equal(copy["b"], copy["a"])
    assert torch.equal(shared, torch.ones(3, 2))
    copy["first"][0] = 9
    assert copy["all"][0] == 0


def test_what_is_no_tensor_is_passed_over() -> None:
    state = {"weight": torch.ones(2, 3), "_extra_state": {"scale": 3}}
    assert list(copied(state)) == list(StateReader(state).tensors) == ["weight"]


# A checkpoint under the names of its model


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model._orig_mod."])
def test_wrapper_prefixes_are_stripped_and_kept(prefix: str) -> None:
    """The first state has the model's names; the names as stored come second where they differ."""
    state = Network(3).state_dict()
    states = stored_states(StateReader({prefix + name: tensor for name, tensor in state.items()}))
    assert states[0].keys() == state.keys()
    assert [set(each) for each in states[1:]] == ([{prefix + name for name in state}] if prefix else [])
    assert all(torch.equal(states[0][name], state[name]) for name in state)


def test_a_tied_tensor_is_there_under_both_names() -> None:
    state = Tied().state_dict()
    states = stored_states(StateReader({f"module.{name}": tensor for name, tensor in state.items()}))
    assert states[0].keys() == state.keys()


def test_optimizer_state_is_no_part_of_the_model(tmp_path: Path) -> None:
    model = Network(3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "step_1.pt")
    with open_checkpoint(tmp_path / "step_1.pt") as reader:
        assert stored_states(reader)[0].keys() == model.state_dict().keys()


# Halves


def leading(matrix: Tensor, count: int) -> Tensor:
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.from_numpy((left[:, :count] * values[:count]) @ right[:count]).to(matrix.dtype)


def unexpected(error: SpectraError, parameter: str) -> None:
    raise AssertionError(f"{parameter}: {error}")


@pytest.mark.parametrize("make", [Convolutional, Recurrent, Experts], ids=["cnn", "lstm", "experts"])
def test_every_matrix_is_split(make: Callable[[], nn.Module]) -> None:
    model = make()
    state, specs = model.state_dict(), matrices_of_model(model).prunable()
    found = dict(split_each(state, specs, 0.5, PLACE, on_problem=unexpected))
    assert found.keys() == specs.keys()
    for depth, split in found.items():
        matrix = matrix_in(state, specs[depth]).block()
        assert split.top is not None
        torch.testing.assert_close(split.top, leading(matrix, -(-min(matrix.shape) // 2)), rtol=1e-5, atol=1e-6)


def test_matrices_beyond_the_budget_have_no_halves_and_the_others_do() -> None:
    model = nn.Sequential(nn.Linear(150, 150), nn.Linear(150, 150), nn.Linear(150, 3), nn.Linear(3, 2))
    problems: list[tuple[str, str]] = []

    def note(error: SpectraError, parameter: str) -> None:
        problems.append((parameter, error.status))

    specs = matrices_of_model(model).prunable()
    place = WorkPlace(torch.device("cpu"), 200_000)
    statuses = {
        depth: split.status for depth, split in split_each(model.state_dict(), specs, 0.5, place, on_problem=note)
    }
    assert statuses == {0: "over_memory_budget", 1: "over_memory_budget", 2: "ok"}
    assert problems == [("0.weight", "over_memory_budget"), ("1.weight", "over_memory_budget")]


def test_complex_matrices_have_no_halves() -> None:
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on complex modules
        specs = matrices_of_model(model).prunable()
    found = dict(split_each(model.state_dict(), specs, 0.5, PLACE, on_problem=unexpected))
    assert {depth: split.status for depth, split in found.items()} == {0: "complex_dtype"}
