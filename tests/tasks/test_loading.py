"""A checkpoint goes into a model completely or not at all, and a misfit is told with names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Metric
from spectra_cli.tasks.loading import StateMismatchError, load_strictly


class Bare:
    """A task without members beyond the interface."""

    splits = ("train",)

    def model(self) -> nn.Module:
        return network()

    def batches(self, split: str) -> list[Tensor]:  # noqa: ARG002 - as the interface has it
        return []

    def metrics(self, model: nn.Module, batch: Tensor) -> dict[str, Metric]:  # noqa: ARG002 - as above
        return {}


class Adapting(Bare):
    """A task that knows checkpoints under older names."""

    def adapt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("old.", ""): tensor for name, tensor in state.items() if name != "positions"}


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.output = nn.Linear(3, 5, bias=False)
        self.output.weight = self.embedding.weight


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"scale": 3}

    def set_extra_state(self, state: Any) -> None: ...


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in copy.deepcopy(model.state_dict()).items() if isinstance(tensor, Tensor)}


def assert_state(model: nn.Module, expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_weights_and_buffers_are_copied_and_cast() -> None:
    state = state_of(network(1))
    state["1.num_batches_tracked"] += 7
    model = network(2)
    load_strictly(Bare(), model, [state])
    assert_state(model, state)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    load_strictly(Bare(), model, [half])
    assert_state(model, {name: tensor.to(state[name].dtype) for name, tensor in half.items()})
    assert model[0].weight.dtype == torch.float32
    assert model[0].weight.requires_grad


def test_a_misfit_names_what_is_missing_with_the_nearest_and_what_is_unexpected() -> None:
    state = state_of(network())
    state["0.wieght"] = state.pop("0.weight")
    state["optimizer"] = torch.ones(1)
    model, before = network(3), state_of(network(3))
    with pytest.raises(StateMismatchError) as caught:
        load_strictly(Bare(), model, [state])
    said = str(caught.value)
    assert "lacks 1 of the model's tensors: 0.weight (nearest: 0.wieght)" in said
    assert "has 2 that the model has not: 0.wieght, optimizer" in said
    assert "--set KEY=VALUE" in said
    assert caught.value.status == "state_mismatch"
    assert_state(model, before)


def test_long_lists_are_cut() -> None:
    with pytest.raises(StateMismatchError) as caught:
        load_strictly(Bare(), network(), [{f"layer.{index}": torch.ones(1) for index in range(9)}])
    said = str(caught.value)
    assert "lacks 9 of the model's tensors: 0.weight, 0.bias, 1.weight, 1.bias and 5 more" in said
    assert "has 9 that the model has not: layer.0, layer.1, layer.2, layer.3 and 5 more" in said


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("0.weight", torch.ones(4, 5), "'0.weight' is 4 x 5 in the checkpoint and 4 x 3 in the task's model"),
        ("0.bias", torch.ones(()), "'0.bias' is a scalar in the checkpoint and 4 in the task's model"),
        ("2.bias", torch.ones(1), "'2.bias' is 1 in the checkpoint and 2 in the task's model"),
    ],
)
def test_a_shape_that_differs_is_named_and_nothing_is_changed(name: str, tensor: Tensor, said: str) -> None:
    """Not even one that could be broadcast is taken."""
    model, before = network(3), state_of(network(3))
    with pytest.raises(StateMismatchError, match=said):
        load_strictly(Bare(), model, [{**state_of(network()), name: tensor}])
    assert_state(model, before)


def test_of_the_names_that_tensors_may_go_by_those_that_fit_best_count() -> None:
    """A model of which a part is called "model" keeps its prefix; a wrapped one loses it."""
    state = state_of(network(1))
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    for candidates in ([state, wrapped], [wrapped, state]):
        model = network(2)
        load_strictly(Bare(), model, candidates)
        assert_state(model, state)


def test_a_task_may_rename_what_it_reads() -> None:
    state = state_of(network(1))
    older = {f"old.{name}": tensor for name, tensor in state.items()} | {"positions": torch.ones(3)}
    model = network(2)
    load_strictly(Adapting(), model, [older])
    assert_state(model, state)
    with pytest.raises(StateMismatchError):
        load_strictly(Bare(), model, [older])


@pytest.mark.parametrize("kept", [("embedding.weight",), ("output.weight",), ("embedding.weight", "output.weight")])
def test_one_name_of_a_tied_tensor_is_enough(kept: tuple[str, ...]) -> None:
    weight = torch.arange(15.0).reshape(5, 3)
    model = Tied()
    load_strictly(Bare(), model, [{name: weight.clone() for name in kept}])
    assert torch.equal(model.embedding.weight, weight)
    assert model.output.weight is model.embedding.weight


def test_tied_tensors_that_differ_in_the_checkpoint_are_a_misfit() -> None:
    """Else the one that comes last would win unseen."""
    weight = torch.arange(15.0).reshape(5, 3)
    model = Tied()
    before = state_of(model)
    with pytest.raises(StateMismatchError, match=r"'embedding\.weight' and 'output\.weight' differ in the checkpoint"):
        load_strictly(Bare(), model, [{"embedding.weight": weight, "output.weight": weight + 1}])
    assert_state(model, before)
    spoiled = weight.clone()
    spoiled[0, 0] = torch.nan
    load_strictly(Bare(), model, [{"embedding.weight": spoiled, "output.weight": spoiled.clone()}])
    assert torch.equal(model.output.weight.isnan(), spoiled.isnan())


def test_what_modules_save_beside_tensors_is_not_asked_for() -> None:
    model = WithExtraState(3, 2)
    load_strictly(Bare(), model, [{"weight": torch.ones(2, 3), "bias": torch.ones(2)}])
    assert torch.equal(model.weight, torch.ones(2, 3))


class Scaled(nn.Linear):
    """Its scale is extra state, of which the state dict has a new tensor every time."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.scale = [1.0]

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.scale)

    def set_extra_state(self, state: Tensor) -> None:
        self.scale = state.tolist()


def test_tensors_that_modules_save_beside_weights_are_loaded_by_them() -> None:
    """Of whatever length."""
    model = Scaled()
    load_strictly(Bare(), model, [{**state_of(Scaled()), "_extra_state": torch.tensor([2.0, 5.0])}])
    assert model.scale == [2.0, 5.0]


class Older(nn.Linear):
    """Knows a state dict of its first version, which is one without a version."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") is None:
            state[f"{prefix}weight"] = -state[f"{prefix}weight"]
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_a_checkpoint_is_of_the_version_of_the_model() -> None:
    model = Older(3, 2)
    load_strictly(Bare(), model, [{"weight": torch.ones(2, 3), "bias": torch.ones(2)}])
    assert torch.equal(model.weight, torch.ones(2, 3))


def test_a_lazy_module_is_refused_by_its_name() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(
        InputError, match=r"'0\.weight' is not initialized.* run a batch through the model in model\(\)"
    ):
        load_strictly(Bare(), model, [state_of(network())])


def test_an_empty_checkpoint_lacks_everything() -> None:
    with pytest.raises(StateMismatchError, match="the checkpoint lacks 9 of the model's tensors"):
        load_strictly(Bare(), network(), [{}])
