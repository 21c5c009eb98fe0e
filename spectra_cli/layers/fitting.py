"""The families that a model's parts belong to: chosen by what they explain, then by what meets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spectra_cli.errors import UsageError
from spectra_cli.layers.architecture import Architecture, Parameter
from spectra_cli.layers.connections import SHAPE_MISMATCH, Connection, connections_of, sequential_connections
from spectra_cli.layers.family_files import find_architecture, known_architectures
from spectra_cli.layers.matching import Fit, Names, candidates
from spectra_cli.layers.matricize import MatrixSpec, declared
from spectra_cli.layers.parts import Heads, heads_from_config
from spectra_cli.layers.weights import Skipped

SEQUENTIAL = "sequential"
"""Stands for no family: every matrix feeds the next one."""

TIES = "tie_word_embeddings"
"""Key of config.json."""

LEAST_SHARE = 0.5
"""Of the matrices under its prefix that a family must explain, unless the user says that the model is one."""


@dataclass(frozen=True, slots=True)
class StructureOptions:
    """What the user says of a model's structure.

    Attributes:
        architecture: a family's name, a TOML file, or ``sequential``; None to choose among the families.
        heads: number of attention heads, None for that of config.json.
        kv_heads: number of key and value heads, None for that of config.json.
    """

    architecture: str | None = None
    heads: int | None = None
    kv_heads: int | None = None

    def __post_init__(self) -> None:
        for option, count in (("--heads", self.heads), ("--kv-heads", self.kv_heads)):
            if count is not None and count < 1:
                raise UsageError(f"{option} {count} is no number of heads", remedy="Give a number of at least 1")
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads != 0:
            raise UsageError(
                f"--heads {self.heads} is no multiple of --kv-heads {self.kv_heads}",
                remedy="Every key head serves the same number of query heads",
            )

    def families(self) -> tuple[Architecture, ...]:
        """Those to choose among.

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
    are among what is left; an embedding or an output layer that two towers share belongs to the first one.

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
    fits = [
        fit
        for architecture in question.families
        for fit in candidates(architecture, names)
        if question.options.architecture or len(fit.claimed) >= LEAST_SHARE * names.under(fit.prefix)
    ]
    chosen: list[FittedFamily] = []
    taken: set[int] = set()
    for fit in sorted(fits, key=lambda fit: _merit(fit, question, rivals=len(fits) > 1), reverse=True):
        rest = fit.besides(taken)
        if rest is not None:
            taken |= rest.claimed
            chosen.append(_fitted(rest, question))
    return tuple(sorted(chosen, key=lambda family: min(family.fit.claimed)))


def _merit(fit: Fit, question: _Question, *, rivals: bool) -> tuple[int, int, bool]:
    if not rivals:
        return 0, 0, False
    family = _fitted(fit, question)
    specs = structured(question.specs, [family])
    units = [unit for connection in all_connections(specs, [family], question.config) for unit in connection.units]
    meeting = sum(unit.status == "ok" for unit in units) - sum(unit.status == SHAPE_MISMATCH for unit in units)
    return len(fit.claimed), meeting, question.config.get("model_type") in fit.architecture.model_types


def _fitted(fit: Fit, question: _Question) -> FittedFamily:
    options = question.options
    heads = heads_from_config(fit.architecture, question.config, options.heads, options.kv_heads)
    return FittedFamily(fit, heads, _ties(fit, question))


def _ties(fit: Fit, question: _Question) -> bool:
    """Whether the output layer is the embedding, where the checkpoint holds only one of them."""
    architecture, config = fit.architecture, question.config
    tying = [parameter for parameter in architecture.parameters.values() if parameter.tied]
    if any(_names(parameter, item) for parameter in tying for item in question.skipped if item.status == "tied"):
        return True
    said = architecture.setting(config, TIES)
    classes = config.get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    headless = first.endswith("Model") and "Head" not in first  # GPT2Model, not GPT2LMHeadModel
    return said is True and not headless


def _names(parameter: Parameter, item: Skipped) -> bool:
    return any(template.pattern.fullmatch(item.name) for template in parameter.names)
