"""The output layer is told by the order of the computation, and running the model leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from spectra_cli.tasks.base import Metric
from spectra_cli.tasks.outputs import called_last


class Summing:
    """A task of one batch."""

    splits = ("train", "val")

    def __init__(self, make: Callable[[], nn.Module], batch: Tensor) -> None:
        self.model, self.batch = make, batch

    def batches(self, split: str) -> Iterator[Tensor]:
        assert split == "train"
        yield self.batch

    def metrics(self, model: nn.Module, batch: Tensor) -> dict[str, Metric]:
        return {"loss": Metric(model(batch).sum(), 1)}


class HeadFirst(nn.Module):
    """Registered in another order than that of the computation; with all that a run could change."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.a = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout()
        self.b = nn.Linear(5, 5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]  # a tensor
        noise = torch.randn(5)
        result: Tensor = self.head(self.drop(self.b(self.norm(self.a(x)) + noise)))
        return result


class TiedModel(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.layers = nn.ModuleList([nn.Linear(12, 12), nn.Linear(12, 12)])
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        result: Tensor = self.head(hidden)
        return result


class Bare(nn.Module):
    """All matrices belong to one module."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(4, 5))
        self.b = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a @ self.b


def test_the_module_that_is_called_last_counts_and_not_that_registered_last() -> None:
    task, model = Summing(HeadFirst, torch.ones(6, 4)), HeadFirst()
    assert called_last(task, model, ["head.weight", "a.weight", "b.weight"]) == ["head.weight"]
    assert called_last(task, model, ["a.weight", "b.weight"]) == ["b.weight"]


def test_a_tied_tensor_has_the_name_that_was_asked_for() -> None:
    task, model = Summing(TiedModel, torch.arange(6)), TiedModel()
    names = ["embed.weight", "layers.0.weight", "layers.1.weight"]
    assert called_last(task, model, names) == ["embed.weight"]
    assert called_last(task, model, ["head.weight", *names[1:]]) == ["head.weight"]


@pytest.mark.parametrize("training", [True, False])
def test_running_leaves_the_model_and_the_random_numbers_as_they_were(training: bool) -> None:
    task, model = Summing(HeadFirst, torch.ones(6, 4)), HeadFirst().train(training)
    model.b.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    numbers = torch.get_rng_state()
    assert called_last(task, model, ["head.weight", "a.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [model.training, model.b.training] == [training, False]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_batch_that_fails_tells_nothing_and_leaves_no_hooks() -> None:
    model = HeadFirst()
    assert called_last(Summing(HeadFirst, torch.ones(6, 7)), model, ["head.weight", "a.weight"]) == []
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_module_that_owns_everything_tells_nothing() -> None:
    assert called_last(Summing(Bare, torch.ones(2, 4)), Bare(), ["a", "b"]) == []


class Attentive(nn.Module):
    """A linear layer, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.first(hidden)
        attended: Tensor = self.last(hidden, hidden, hidden)[0]
        return attended


def test_attention_ends_with_its_output_projection() -> None:
    """Though that module is not called: torch hands its weight to a function."""
    model = Attentive()
    names = ["first.weight", "last.in_proj_weight", "last.out_proj.weight"]
    assert called_last(Summing(lambda: model, torch.randn(2, 3, 8)), model, names) == ["last.out_proj.weight"]
