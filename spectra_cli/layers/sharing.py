"""Which of several parts of a model has an embedding or an output layer that stands outside all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from spectra_cli.layers.architecture import Architecture
from spectra_cli.layers.matching import Fit
from spectra_cli.layers.matricize import MatrixSpec


def first_block(fit: Fit) -> int:
    """Index of the first matrix of its blocks, by which parts are in the order of the model."""
    return min(_in_blocks(fit) or fit.claimed)


def shared_between(fits: Sequence[Fit], specs: Sequence[MatrixSpec]) -> dict[int, int]:
    """Matrices outside the blocks of several parts that each could have them, and whose they are.

    What feeds blocks belongs to the part whose blocks come first, what they feed to the one whose blocks come last. A
    matrix that only one part has in its own module, and one without which a family does not fit, stay where they are.

    Args:
        fits: of the parts, each with all that it could have.
        specs: the matrices of the model.

    Returns:
        Index of a matrix -> index of a fit.
    """
    claims: dict[int, dict[int, str]] = defaultdict(dict)
    for number, fit in enumerate(fits):
        for role, places in fit.roles.items():
            if not fit.chains[role]:
                for index in places.values():
                    claims[index][number] = role
    in_blocks = {index for fit in fits for index in _in_blocks(fit)}
    return {
        index: max(roles, key=lambda number: first_block(fits[number]) * (-1 if _feeds(fits, roles) else 1))
        for index, roles in claims.items()
        if len(roles) > 1
        and index not in in_blocks
        and not any(specs[index].parameter.startswith(fits[number].prefix) for number in roles)
        and not any(fits[number].architecture.parameters[role].required for number, role in roles.items())
    }


def without(fit: Fit, indices: Collection[int]) -> Fit:
    """A fit that lacks matrices outside its blocks."""
    return (fit.besides(indices) or fit) if indices else fit


def _in_blocks(fit: Fit) -> set[int]:
    return {index for role, places in fit.roles.items() if fit.chains[role] for index in places.values()}


def _feeds(fits: Sequence[Fit], roles: Mapping[int, str]) -> bool:
    return all(_is_input(fits[number].architecture, role) for number, role in roles.items())


def _is_input(architecture: Architecture, role: str) -> bool:
    given = {upstream for rule in architecture.rules if rule.name == "embedding-input" for upstream, _ in rule.pairs}
    return role in given or architecture.parameters[role].kind == "embedding"
