"""Weights that a model computes are folded: the same function, with the effective weights as parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations

from spectra_cli.analyses.models import matrices_of_model
from spectra_cli.analyses.parametrized import folded, parametrized_weights


def _old(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    def quiet(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return wrap(layer)

    return quiet


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
    "old spectral norm": _old(utils.spectral_norm),
    "old weight norm": _old(utils.weight_norm),
}


def network(way: str, frozen: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    wrap = WAYS[way]
    model = nn.Sequential(wrap(nn.Linear(4, 6)), nn.Tanh(), wrap(nn.Linear(6, 5)), nn.Linear(5, 3))
    for _ in range(3):
        model(torch.randn(7, 4)).sum().backward()  # leaves weights behind that have a graph
    return model.requires_grad_(not frozen)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_folded_model_computes_the_same_with_weights_of_its_own(way: str, frozen: bool) -> None:
    model = network(way, frozen).eval()
    assert parametrized_weights(model) == ["0.weight", "2.weight"]
    inputs = torch.randn(9, 4)
    expected, names = model(inputs).detach(), list(model.state_dict())
    fold = folded(model)
    assert parametrized_weights(fold) == []
    assert {name for name, _ in fold.named_parameters()} == {
        f"{i}.{kind}" for i in "023" for kind in ("weight", "bias")
    }
    torch.testing.assert_close(fold(inputs), expected, rtol=1e-6, atol=1e-6)
    assert set(dict(fold.state_dict())) == set(dict(fold.named_parameters()))
    # The model itself goes on as it was, also after a second time and through a copy of it.
    folded(copy.deepcopy(folded(model)))
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(inputs).detach(), expected, rtol=0, atol=0)
    torch.testing.assert_close(folded(model)(inputs), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_pruned_is_what_the_layer_multiplies_by(way: str) -> None:
    fold = folded(network(way).eval())
    prunable = [spec.parameter for spec in matrices_of_model(fold).prunable().values()]
    assert prunable == ["0.weight", "2.weight"]
    with torch.no_grad():
        fold.get_parameter("0.weight").zero_()
    model = nn.Sequential(*list(fold.children())[1:])
    expected = model(fold.get_parameter("0.bias").detach().expand(2, -1))
    torch.testing.assert_close(fold(torch.randn(2, 4)), expected)


def test_a_model_without_computed_weights_is_itself() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    assert folded(model) is model
