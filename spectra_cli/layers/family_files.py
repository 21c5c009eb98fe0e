"""Families of architectures from TOML files: those that come with spectra, and those of users."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from spectra_cli.errors import UsageError
from spectra_cli.layers.architecture import (
    CONNECTIONS,
    ENDING,
    PLACEHOLDER,
    Architecture,
    Layout,
    Order,
    Parameter,
    Rule,
    Template,
    template_of,
)
from spectra_cli.layers.kinds import Kind

LARGEST_FILE_BYTES = 1 << 20
SUFFIX = ".toml"


@lru_cache(maxsize=1)
def known_architectures() -> tuple[Architecture, ...]:
    """The families that come with spectra, by name."""
    found = sorted((entry for entry in _folder().iterdir() if entry.name.endswith(SUFFIX)), key=lambda each: each.name)
    return tuple(parse_architecture(entry.read_text("utf-8"), entry.name.removesuffix(SUFFIX)) for entry in found)


def describes_family(name: str | os.PathLike[str]) -> bool:
    """Whether an architecture is given as a TOML file, not by a name."""
    return os.fspath(name).lower().endswith(SUFFIX)


def find_architecture(name: str | os.PathLike[str]) -> Architecture:
    """A family by its name, or from a TOML file.

    Args:
        name: of a family that comes with spectra, or a path that ends in ``.toml``.

    Raises:
        UsageError: if there is none of that name, or the file does not describe one.
    """
    name = os.fspath(name)
    if not describes_family(name):
        return _known(name)
    try:
        with Path(name).open("rb") as file:
            text = file.read(LARGEST_FILE_BYTES + 1)
        if len(text) > LARGEST_FILE_BYTES:
            raise UsageError(f"--architecture {name}: larger than a megabyte", remedy=_example())
        return parse_architecture(text.decode("utf-8"), Path(name).stem, where=f"--architecture {name}")
    except OSError as error:
        raise UsageError(f"--architecture {name}: {error.strerror}", remedy=_example()) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--architecture {name} is not UTF-8 text", remedy="Save it as UTF-8") from error


def _known(name: str) -> Architecture:
    for architecture in known_architectures():
        if architecture.family == name:
            return architecture
    if os.path.isfile(name):
        raise UsageError(f"--architecture {name} is a file, but not a .toml", remedy=_example())
    families = ", ".join(architecture.family for architecture in known_architectures())
    raise UsageError(
        f"--architecture {name}: no family of that name",
        remedy=f"Give a file in .toml, 'sequential', or one of {families}",
    )


def _example() -> str:
    """What to do where a file describes no family."""
    return f"Give a TOML file such as {_folder().joinpath('llama.toml')}"


def _folder() -> Traversable:
    return files("spectra_cli.layers").joinpath("architectures")


def parse_architecture(text: str, family: str, where: str = "") -> Architecture:
    """A family from TOML.

    Args:
        text: the file.
        family: its name.
        where: for errors; the name of the family if empty.

    Raises:
        UsageError: if it is not TOML, has a key of no meaning, or names a role that it does not have.
    """
    reading = _Reading(where or f"{family}.toml")
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise reading.error(f"not TOML: {error}") from error
    known = {"title", "model_types", "heads", "parameters", "connections", "endings", "absent", "defaults"}
    known |= {"not_model_types"}
    reading.only(data, known, "the file")
    endings = reading.strings(reading.table(data, "endings").get(ENDING, [""]), "endings.d")
    entries = reading.table(data, "parameters")
    parameters = {role: _parameter(reading, role, entry, endings) for role, entry in entries.items()}
    if not any(parameter.required for parameter in parameters.values()):
        raise reading.error("no parameter is required, so that the family would fit every model")
    heads = reading.table(data, "heads")
    reading.only(heads, {"query", "key_value"}, "heads")
    connections = data.get("connections", [])
    if not isinstance(connections, list):
        raise reading.error("connections must be written [[connections]]")
    if not connections:
        raise reading.error("has no [[connections]], so nothing could be aligned")
    architecture = Architecture(
        family=family,
        title=reading.string(data.get("title", family), "title"),
        parameters=parameters,
        rules=tuple(_rule(reading, entry, number) for number, entry in enumerate(connections, 1)),
        heads={kind: reading.strings(keys, f"heads.{kind}") for kind, keys in heads.items()},
        model_types=reading.strings(data.get("model_types", []), "model_types"),
        not_model_types=reading.strings(data.get("not_model_types", []), "not_model_types"),
        absent=tuple(
            template
            for name in reading.strings(data.get("absent", []), "absent")
            for template in _templates(reading, name, endings)
        ),
        defaults=reading.table(data, "defaults"),
    )
    _check_roles(reading, architecture)
    _check_numbers(reading, architecture)
    return architecture


def _check_roles(reading: _Reading, architecture: Architecture) -> None:
    parameters = architecture.parameters.values()
    holders = Counter(role for parameter in parameters for role in (parameter.role, *parameter.split))
    twice = next((role for role, count in holders.items() if count > 1), None)
    if twice is not None:
        said = [f"parameters.{twice}"] if twice in architecture.parameters else []
        said += [
            f"parameters.{parameter.role}.split"
            for parameter in parameters
            for role in parameter.split
            if role == twice
        ]
        raise reading.error(f"role '{twice}' is told twice: by {' and '.join(said)}")
    named = [(role, f"connection '{rule.name}'") for rule in architecture.rules for pair in rule.pairs for role in pair]
    named += [(role, f"unless of connection '{rule.name}'") for rule in architecture.rules for role in rule.unless]
    named += [(parameter.tied, f"parameters.{parameter.role}.tied") for parameter in parameters if parameter.tied]
    for role, what in named:
        if architecture.holder_of(role) is None:
            roles = ", ".join(role for parameter in parameters for role in (parameter.role, *parameter.split))
            raise reading.error(f"{what} names '{role}', which is no role; roles are {roles}")


def _check_numbers(reading: _Reading, architecture: Architecture) -> None:
    """Raise where the elements of one list have two letters, which would be two lists that never meet."""
    letters: dict[str, tuple[str, str]] = {}
    for parameter in architecture.parameters.values():
        for text in dict.fromkeys(template.text for template in parameter.names):
            for match in PLACEHOLDER.finditer(text):
                before, letter = text[: match.start()], match[1]
                other, first = letters.setdefault(before, (letter, text))
                if letter not in {other, ENDING} and other != ENDING:
                    raise reading.error(f"'{first}' and '{text}' number the same list by {{{other}}} and {{{letter}}}")


def _parameter(reading: _Reading, role: str, entry: Any, endings: Sequence[str]) -> Parameter:
    what = f"parameters.{role}"
    known = {"name", "kind", "layout", "required", "split", "order", "gates", "primary_gate", "tied"}
    if not isinstance(entry, dict):
        raise reading.error(f"{what} must be a table")
    reading.only(entry, known, what)
    names = reading.strings(entry.get("name", []), f"{what}.name")
    if not names:
        raise reading.error(f"{what} has no name")
    templates = tuple(template for name in names for template in _templates(reading, name, endings))
    if len({template.chain for template in templates}) > 1:
        raise reading.error(f"{what}.name: all names of a role must number its blocks by the same placeholder, or none")
    gates = reading.strings(entry.get("gates", []), f"{what}.gates")
    primary_gate = reading.string(entry.get("primary_gate", gates[0] if gates else ""), f"{what}.primary_gate")
    if gates and primary_gate not in gates:
        raise reading.error(f"{what}.primary_gate is '{primary_gate}', which is none of its gates")
    return Parameter(
        role=role,
        names=templates,
        kind=reading.choice(entry.get("kind"), (None, *get_args(Kind)), f"{what}.kind"),
        layout=reading.choice(entry.get("layout"), (None, *get_args(Layout)), f"{what}.layout"),
        required=reading.choice(entry.get("required", False), (True, False), f"{what}.required"),
        split=reading.strings(entry.get("split", []), f"{what}.split"),
        order=reading.choice(entry.get("order", "contiguous"), get_args(Order), f"{what}.order"),
        gates=gates,
        primary_gate=primary_gate,
        tied=reading.string(entry.get("tied", ""), f"{what}.tied"),
    )


def _rule(reading: _Reading, entry: Any, number: int) -> Rule:
    if not isinstance(entry, dict):
        raise reading.error(f"connection {number} must be a table")
    what = f"connection '{entry.get('name', '')}'"
    reading.only(entry, {"name", "from", "to", "path", "next", "concatenated", "when", "unless"}, what)
    name = entry.get("name")
    if name not in CONNECTIONS:
        named = "has no name" if name is None else f"is named {name!r}"
        raise reading.error(f"connection {number} {named}; names are {', '.join(CONNECTIONS)}")
    path = reading.strings(entry.get("path", []), f"path of {what}")
    upstream, downstream = (reading.strings(entry.get(end, []), f"{end} of {what}") for end in ("from", "to"))
    if bool(path) == bool(upstream and downstream):
        raise reading.error(f"{what} needs either from and to, or a path")
    pairs = pairwise(path) if path else ((one, two) for one in upstream for two in downstream)
    return Rule(
        name=name,
        pairs=tuple(pairs),
        next_block=reading.choice(entry.get("next", False), (True, False), f"next of {what}"),
        concatenated=reading.choice(entry.get("concatenated", False), (True, False), f"concatenated of {what}"),
        when=reading.table(entry, "when"),
        unless=reading.strings(entry.get("unless", []), f"unless of {what}"),
    )


def _templates(reading: _Reading, text: str, endings: Sequence[str]) -> list[Template]:
    """One template for each ending, or one without."""
    if f"{{{ENDING}}}" not in text:
        endings = [""]
    named = [text.replace(f"{{{ENDING}}}", ending) for ending in endings]
    templates = [template_of(text, name, place) for place, name in enumerate(named)]
    if None in templates:
        raise reading.error(
            f"name '{text}': placeholders are single letters, such as {{i}}, each at most once, "
            "with more than digits between any two"
        )
    return [template for template in templates if template is not None]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Takes values out of a TOML file, with errors that name the file and the key."""

    where: str

    def error(self, what: str) -> UsageError:
        return UsageError(f"{self.where}: {what}", remedy=f"Compare it with {_folder().joinpath('llama.toml')}")

    def only(self, table: Mapping[str, Any], known: set[str], what: str) -> None:
        unknown = sorted(set(table) - known)
        if unknown:
            raise self.error(
                f"{what} has a key '{unknown[0]}', which means nothing; keys are {', '.join(sorted(known))}"
            )

    def table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"{key} must be a table")
        return value

    def string(self, value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise self.error(f"{what} must be text")
        return value

    def strings(self, value: Any, what: str) -> tuple[str, ...]:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            raise self.error(f"{what} must be text or a list of texts")
        return tuple(listed)

    def choice(self, value: Any, allowed: Sequence[Any], what: str) -> Any:
        if not any(value is item or (isinstance(value, str) and value == item) for item in allowed):
            listed = ", ".join(str(item).lower() for item in allowed if item is not None)
            raise self.error(f"{what} is {value!r}; it can be {listed}")
        return value
