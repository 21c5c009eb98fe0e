"""What a user should know of a structure that is understood only in part, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spectra_cli.layers.architecture import Architecture, Parameter
from spectra_cli.layers.configuration import model_types
from spectra_cli.layers.connections import connections_of, rules_without_connection
from spectra_cli.layers.ends import HEAD_COUNT_MISMATCH, Connection
from spectra_cli.layers.fitting import SEQUENTIAL, FittedFamily, StructureOptions
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import Heads, takes_heads
from spectra_cli.layers.weights import Skipped


def remarks_of(
    specs: Sequence[MatrixSpec],
    skipped: Sequence[Skipped],
    families: Sequence[FittedFamily],
    config: Mapping[str, Any],
    structure: StructureOptions,
) -> Iterator[str]:
    """What the user has said of the structure and has no effect, and numbers of heads that do not fit.

    Args:
        specs: the matrices of the model.
        skipped: its other tensors.
        families: that its parts belong to.
        config: the model's ``config.json``.
        structure: what the user says.
    """
    if structure.is_own and families and (unused := _unused(specs, skipped, families, config)):
        yield f"{structure.named_family}: {unused}"
    options = [("--heads", structure.heads), ("--kv-heads", structure.kv_heads)]
    given = [option for option, count in options if count is not None]
    if given and not any(_uses_heads(family) for family in families):
        verb = "has" if len(given) == 1 else "have"
        yield f"{' and '.join(given)} {verb} no effect: {_without_attention(families, structure)}"
    if structure.architecture is None:
        yield from _told_from_names(specs, families, config)
    told = (_misfit_of_heads(family, specs, config) for family in families)
    yield from dict.fromkeys(sentence for sentence in told if sentence)


def _told_from_names(
    specs: Sequence[MatrixSpec], families: Sequence[FittedFamily], config: Mapping[str, Any]
) -> Iterator[str]:
    """Remarks that connections are a guess: config.json names a model of no family, or attention fits none."""
    types = model_types(config)
    for architecture in {family.fit.architecture.family: family.fit.architecture for family in families}.values():
        if types and architecture.model_types and not set(types) & set(architecture.model_types):
            yield (
                f"config.json says '{types[0]}', which is none of the models of the family {architecture.family}: "
                "connections are told from names alone"
            )
    if not families and any(spec.kind == "attention" for spec in specs):
        yield (
            "no family fits a model with attention: matrices are compared one after the other, which is not how they "
            "feed one another; describe it with --architecture"
        )


def _unused(
    specs: Sequence[MatrixSpec],
    skipped: Sequence[Skipped],
    families: Sequence[FittedFamily],
    config: Mapping[str, Any],
) -> str:
    """The parameters of the user's family that are nowhere in the model, and the rules that connect nothing."""
    architecture = families[0].fit.architecture  # of which there may be several copies in the model
    unmatched = [
        _unmatched(parameter, specs, skipped)
        for role, parameter in architecture.parameters.items()
        if not any(role in family.fit.roles or (parameter.tied and family.tied) for family in families)
    ]
    each = [rules_without_connection(family.fit, specs, config, tied=family.tied) for family in families]
    empty = [rule for rule in each[0] if all(rule in rules for rules in each)]
    names = _names_of_rules(architecture, [architecture.rules.index(rule) for rule in empty])
    said = list(unmatched)
    if names:
        said.append(f"connection{'s'[: len(names) > 1]} {_and(names)} {'are' if len(names) > 1 else 'is'} empty")
    return "; ".join(said)


def _unmatched(parameter: Parameter, specs: Sequence[MatrixSpec], skipped: Sequence[Skipped]) -> str:
    found = "no weight"
    for item in skipped:
        if parameter.describes(item.name):
            found = f"only '{item.name}', which is no matrix ({item.reason})"
    for spec in specs:
        if parameter.describes(spec.parameter):
            shape = " x ".join(map(str, spec.tensor.shape))
            found = f"only '{spec.parameter}' ({shape}), which is of another kind or module"
    return f"parameter '{parameter.role}' ({parameter.in_words}) matches {found}"


def _names_of_rules(architecture: Architecture, places: Sequence[int]) -> list[str]:
    """The names of rules, with their numbers where several have one name."""
    uses = Counter(rule.name for rule in architecture.rules)
    names = ((architecture.rules[place].name, place + 1) for place in places)
    return [name if uses[name] == 1 else f"{name} (number {number})" for name, number in names]


def _uses_heads(family: FittedFamily) -> bool:
    return family.needs_heads or any(map(takes_heads, family.fit.architecture.parameters.values()))


def _without_attention(families: Sequence[FittedFamily], structure: StructureOptions) -> str:
    if families:
        names = list(dict.fromkeys(family.fit.architecture.family for family in families))
        return f"{_and(names)} {'has' if len(names) == 1 else 'have'} no attention"
    why = "--architecture sequential" if structure.architecture == SEQUENTIAL else "no family fits"
    return f"matrices are taken one after the other ({why})"


def _misfit_of_heads(family: FittedFamily, specs: Sequence[MatrixSpec], config: Mapping[str, Any]) -> str:
    """A remark that the head counts of a family do not fit its matrices; "" if they do or are unknown."""
    heads, architecture = family.heads, family.fit.architecture
    if heads is None:
        return ""
    rules = tuple(rule for rule in architecture.rules if rule.name in {"query-key", "value-output"})
    attention = replace(family.fit, architecture=replace(architecture, rules=rules))
    for connection in connections_of(attention, specs, heads, config, tied=family.tied):
        if any(unit.status == HEAD_COUNT_MISMATCH for unit in connection.units):
            what = f"{_heads_in_words(heads)} do not fit {_sides(connection, specs)}"
            return f"{architecture.family}: {what}; see --heads and --kv-heads"
    return ""


def _heads_in_words(heads: Heads) -> str:
    return f"{heads.query} query and {heads.key_value} key-value heads"


def _sides(connection: Connection, specs: Sequence[MatrixSpec]) -> str:
    upstream, downstream = specs[connection.upstream], specs[connection.downstream]
    if connection.name == "value-output":
        return f"{upstream.rows} rows and {downstream.cols} columns"
    return " and ".join(dict.fromkeys((str(upstream.rows), str(downstream.rows)))) + " rows"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
