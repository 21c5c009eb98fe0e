"""Weights that a model computes from other parameters, such as those of weight and spectral normalization."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spectra_cli.errors import InputError


def parametrized_weights(model: nn.Module) -> list[str]:
    """Names of the weights that are computed anew from other parameters whenever they are used.

    Those of ``torch.nn.utils.parametrize`` and of the older hooks of ``weight_norm`` and ``spectral_norm``.
    """
    return [f"{path}.{name}" if path else name for path, module in model.named_modules() for name in _names(module)]


def folded(model: nn.Module) -> nn.Module:
    """A model that computes the same with weights of its own in the place of computed ones.

    Args:
        model: left as it is; itself the answer if it computes none.

    Returns:
        Else a copy on the same device, in evaluation mode: its state dict has ``weight`` where that of the model has
        ``parametrizations.weight.original`` or ``weight_v``.

    Raises:
        InputError: if a weight cannot be computed.
    """
    names = parametrized_weights(model)
    if not names:
        return model
    try:
        _forget_graphs(model)
        copied = copy.deepcopy(model).eval()
        for module in list(copied.modules()):
            _fold(module)
    except Exception as error:  # parametrizations are the user's code
        raise InputError(
            f"the weights that the model computes from others cannot be computed ({', '.join(names[:3])}): {error}",
            remedy="Evaluate --variants full with a model that holds them as parameters",
        ) from error
    return copied


def _names(module: nn.Module) -> Iterator[str]:
    if parametrize.is_parametrized(module):
        yield from module.parametrizations  # type: ignore[misc]  # a ModuleDict
    yield from (hook.name for hook in _hooks(module))


def _hooks(module: nn.Module) -> list[WeightNorm | SpectralNorm]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))]


def _forget_graphs(model: nn.Module) -> None:
    """Weights that a hook has left behind with gradients to come cannot be copied."""
    for module in model.modules():
        for hook in _hooks(module):
            value = getattr(module, hook.name)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                setattr(module, hook.name, value.detach())


def _fold(module: nn.Module) -> None:
    for hook in _hooks(module):
        (remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm)(module, hook.name)
    if not parametrize.is_parametrized(module):
        return
    # Not by remove_parametrizations: copies of a module have one class, from which that would delete.
    originals = dict(module.parametrizations.items())  # type: ignore[union-attr,operator]  # a ModuleDict
    with torch.no_grad():
        values = {name: getattr(module, name).detach().clone() for name in originals}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        if any(True for _ in originals[name].parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(value, requires_grad=value.is_floating_point()))
        else:
            module.register_buffer(name, value)
