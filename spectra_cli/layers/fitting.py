"""The families that a model's parts belong to: chosen by what they explain, then by what meets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from spectra_cli.errors import UsageError
from spectra_cli.layers.architecture import Architecture, Parameter
from spectra_cli.layers.configuration import model_types
from spectra_cli.layers.connections import connections_of, sequential_connections
from spectra_cli.layers.ends import HEAD_COUNT_MISMATCH, SHAPE_MISMATCH, Connection
from spectra_cli.layers.family_files import describes_family, find_architecture, known_architectures
from spectra_cli.layers.matching import Fit, Names, candidates
from spectra_cli.layers.matricize import MatrixSpec, declared
from spectra_cli.layers.parts import Heads, heads_from_config
from spectra_cli.layers.sharing import first_block, shared_between, without
from spectra_cli.layers.weights import Skipped

SEQUENTIAL = "sequential"
"""Stands for no family: every matrix feeds the next one."""

TIES = "tie_word_embeddings"
"""Key of config.json."""

LEAST_SHARE = 0.5
"""Share of the matrices under its prefix that a family must explain, unless the user says that the model is one."""


@dataclass(frozen=True, slots=True)
class StructureOptions:
    """What the user says of a model's structure.

    Attributes:
        architecture: a family's name, the path of a TOML file, or ``sequential``; None to choose among the families.
            Kept as text.
        heads: number of attention heads, None for that of config.json.
        kv_heads: number of key and value heads, None for that of config.json.
    """

    architecture: str | os.PathLike[str] | None = None
    heads: int | None = None
    kv_heads: int | None = None

    def __post_init__(self) -> None:
        if self.architecture is not None:  # as it is written into tables
            object.__setattr__(self, "architecture", os.fspath(self.architecture))
        for option, count in (("--heads", self.heads), ("--kv-heads", self.kv_heads)):
            if count is not None and count < 1:
                raise UsageError(f"{option} {count} is no number of heads", remedy="Give a number of at least 1")
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads != 0:
            raise UsageError(
                f"--heads {self.heads} is no multiple of --kv-heads {self.kv_heads}",
                remedy="Every key head serves the same number of query heads",
            )

    @property
    def named_family(self) -> str | None:
        """The family that the user says the model is, in words; None where the families are all asked or none is."""
        if self.architecture is None or self.architecture == SEQUENTIAL:
            return None
        return Path(self.architecture).name if self.is_own else f"family {self.architecture}"

    @property
    def is_own(self) -> bool:
        """Whether the family comes from a file of the user's."""
        return self.architecture is not None and describes_family(self.architecture)

    def families(self) -> tuple[Architecture, ...]:
        """Families to choose among.

        Raises:
            UsageError: if there is none of that name, or the file does not describe one.
        """
        if self.architecture is None:
            return known_architectures()
        return () if self.architecture == SEQUENTIAL else (find_architecture(self.architecture),)


@dataclass(frozen=True, slots=True)
class FittedFamily:
    """A family, and the part of the model that belongs to it.

    Attributes:
        fit: which matrix plays which role.
        heads: None where they are not known.
        tied: whether absent roles are those they are tied to.
    """

    fit: Fit
    heads: Heads | None
    tied: bool

    @property
    def needs_heads(self) -> bool:
        """Whether the family has attention."""
        return any(rule.name in {"query-key", "value-output"} for rule in self.fit.architecture.rules)


def choose_families(
    specs: Sequence[MatrixSpec], skipped: Sequence[Skipped], config: Mapping[str, Any], options: StructureOptions
) -> tuple[FittedFamily, ...]:
    """Find the families of a model's parts.

    Of all families that fit, the one that explains most matrices comes first; of those that explain the same, the one
    with most connections whose dimensions meet; then the one that config.json names. Others follow where their blocks
    are among what is left. What several parts share is given out by :mod:`spectra_cli.layers.sharing`.

    Args:
        specs: the matrices of the model.
        skipped: its other tensors, among which are tied ones.
        config: the model's ``config.json``.
        options: what the user says.

    Raises:
        UsageError: if the user names a family that does not exist.
    """
    question = _Question(tuple(specs), tuple(skipped), config, options, options.families())
    return _answer(question)


def structured(specs: Sequence[MatrixSpec], families: Sequence[FittedFamily]) -> list[MatrixSpec]:
    """The matrices with the kinds and layouts that their families declare."""
    found = list(specs)
    for family in families:
        architecture = family.fit.architecture
        told: set[int] = set()
        for role, places in family.fit.roles.items():
            parameter = architecture.parameters[role]
            for index in set(places.values()) - told:
                found[index] = declared(found[index], parameter.kind, parameter.layout, architecture.family)
                told.add(index)
    return found


def all_connections(
    specs: Sequence[MatrixSpec], families: Sequence[FittedFamily], config: Mapping[str, Any]
) -> list[Connection]:
    """The connections of every family, or consecutive matrices where there is none.

    Args:
        specs: as :func:`structured` gives them.
        families: as :func:`choose_families` gives them.
        config: the model's ``config.json``.
    """
    if not families:
        return sequential_connections(specs)
    found = [
        connection
        for family in families
        for connection in connections_of(family.fit, specs, family.heads, config, tied=family.tied)
    ]
    return sorted(found, key=lambda connection: (connection.upstream, connection.downstream))


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What a choice depends on; equal for the checkpoints of one run, which are asked about one after the other."""

    specs: tuple[MatrixSpec, ...]
    skipped: tuple[Skipped, ...]
    config: Mapping[str, Any]
    options: StructureOptions
    families: tuple[Architecture, ...]

    def _key(self) -> tuple[Any, ...]:
        matrices = tuple((spec.parameter, spec.tensor.shape, spec.layout, spec.kind) for spec in self.specs)
        ties = tuple(skipped.name for skipped in self.skipped if skipped.status == "tied")
        return matrices, ties, repr(self.config), self.options, tuple(map(id, self.families))

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self._key() == other._key()


@lru_cache(maxsize=8)
def _answer(question: _Question) -> tuple[FittedFamily, ...]:
    names = Names(question.specs)
    named = question.options.architecture is not None
    types = set(model_types(question.config))
    fits = [
        fit
        for architecture in question.families
        if named or types.isdisjoint(architecture.not_model_types)
        for fit in candidates(architecture, names)
        if named or len(fit.claimed) >= LEAST_SHARE * names.under(fit.prefix)
    ]
    chosen: list[tuple[Fit, Fit]] = []
    taken: set[int] = set()
    for fit in sorted(fits, key=lambda fit: _merit(fit, question, rivals=len(fits) > 1), reverse=True):
        rest = fit.besides(taken)
        if rest is not None:
            taken |= rest.claimed
            chosen.append((fit, rest))
    parts = sorted(_shared_out(chosen, question), key=first_block)
    return tuple(_tied_apart([_fitted(fit, question) for fit in parts], question))


def _shared_out(chosen: Sequence[tuple[Fit, Fit]], question: _Question) -> list[Fit]:
    """The parts of a model, what they share given to the one whose neighbour it is, or to none where it does not meet.

    Args:
        chosen: of each part what it could have, and what it has beside those that explain more.
        question: for the dimensions.
    """
    owners = shared_between([fit for fit, _ in chosen], question.specs)
    parts = []
    for number, (fit, rest) in enumerate(chosen):
        own = {index for index, owner in owners.items() if owner == number}
        part = without(fit, (fit.claimed - rest.claimed | owners.keys()) - own)
        parts.append(without(part, own - _meeting(part, question) if own else ()))
    return parts


def _meeting(fit: Fit, question: _Question) -> set[int]:
    """Matrices of a part that meet others of it."""
    family = _fitted(fit, question)
    connections = all_connections(structured(question.specs, [family]), [family], question.config)
    return {
        index
        for connection in connections
        if any(unit.status != SHAPE_MISMATCH for unit in connection.units)
        for index in (connection.upstream, connection.downstream)
    }


def _tied_apart(families: Sequence[FittedFamily], question: _Question) -> list[FittedFamily]:
    """Parts in the order of the model: of those that can be tied the last one is, and those that have their own tie."""
    last = next((family for family in reversed(families) if _tying(family.fit.architecture)), None)
    return [
        family if family is last or _has_own_tie(family.fit, question) else replace(family, tied=False)
        for family in families
    ]


def _merit(fit: Fit, question: _Question, *, rivals: bool) -> tuple[int, int, bool]:
    if not rivals:
        return 0, 0, False
    family = _fitted(fit, question)
    specs = structured(question.specs, [family])
    units = [unit for connection in all_connections(specs, [family], question.config) for unit in connection.units]
    named = model_types(question.config)
    meeting = sum((unit.status == "ok") - (unit.status in {SHAPE_MISMATCH, HEAD_COUNT_MISMATCH}) for unit in units)
    return len(fit.claimed), meeting, not set(named).isdisjoint(fit.architecture.model_types)


def _fitted(fit: Fit, question: _Question) -> FittedFamily:
    options = question.options
    heads = heads_from_config(fit.architecture, question.config, options.heads, options.kv_heads, prefix=fit.prefix)
    return FittedFamily(fit, heads, _ties(fit, question))


def _ties(fit: Fit, question: _Question) -> bool:
    """Whether the output layer is the embedding, where the checkpoint holds only one of them."""
    architecture, config = fit.architecture, question.config
    if f".{fit.prefix}".endswith(".encoder."):  # its decoder has the output layer
        return False
    if any(parameter.describes(name) for parameter in _tying(architecture) for name in _tied_names(question)):
        return True
    said = architecture.setting(config, TIES, fit.prefix)
    classes = config.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    headless = first.endswith("Model") and "Head" not in first  # GPT2Model, not GPT2LMHeadModel
    return said is True and not headless


def _has_own_tie(fit: Fit, question: _Question) -> bool:
    """Whether its output layer is its embedding by the memory that they share, both within the part."""
    within = [name for name in _tied_names(question) if fit.prefix and f".{fit.prefix}" in f".{name}"]
    return any(parameter.describes(name) for parameter in _tying(fit.architecture) for name in within)


def _tying(architecture: Architecture) -> list[Parameter]:
    return [parameter for parameter in architecture.parameters.values() if parameter.tied]


def _tied_names(question: _Question) -> list[str]:
    return [item.name for item in question.skipped if item.status == "tied"]
