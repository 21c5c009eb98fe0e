"""Which parameters of a model play which role of a family, wherever in the model it stands."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from spectra_cli.layers.architecture import EXPERT, Architecture, Parameter, Template, skeleton_of
from spectra_cli.layers.kinds import Kind
from spectra_cli.layers.matricize import MatrixSpec

LISTED_NAMES = 6
"""Names in a message."""


class Place(NamedTuple):
    """Where in the model a parameter stands.

    Attributes:
        block: numbers of its stage and block, empty outside blocks.
        expert: its number, None without experts.
        ending: which of the family's endings its name has.
    """

    block: tuple[int, ...] = ()
    expert: int | None = None
    ending: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """A family that a model, or a part of one, belongs to.

    Attributes:
        architecture: the family.
        prefix: what its blocks' names have in front.
        roles: role -> place -> index of the matrix.
        chains: role -> the placeholder that numbers its blocks, "" outside blocks.
    """

    architecture: Architecture
    prefix: str
    roles: Mapping[str, Mapping[Place, int]]
    chains: Mapping[str, str]

    @property
    def claimed(self) -> frozenset[int]:
        """Indices of the matrices that have a role."""
        return frozenset(index for places in self.roles.values() for index in places.values())

    def besides(self, taken: Collection[int]) -> Fit | None:
        """The rest of it where other families have some matrices; None if these are of its blocks or required."""
        roles: dict[str, dict[Place, int]] = {}
        for role, places in self.roles.items():
            left = {place: index for place, index in places.items() if index not in taken}
            if len(left) < len(places) and (self.chains[role] or self.architecture.parameters[role].required):
                return None
            if left:
                roles[role] = left
        return replace(self, roles=roles)

    def blocks(self, chain: str) -> list[tuple[int, ...]]:
        """The blocks that a placeholder numbers, in order."""
        return sorted(
            {
                place.block
                for role, places in self.roles.items()
                for place in places
                if self.chains[role] == chain and place.block
            }
        )


class _Hit(NamedTuple):
    rank: int
    place: Place
    depth: int


class Names:
    """The parameters of a model by what their names are without numbers; a large model has few such names."""

    def __init__(self, specs: Sequence[MatrixSpec]) -> None:
        self._specs = specs
        self._names = [spec.parameter for spec in specs]
        self._sorted = sorted(self._names)
        self._by_end: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, name in enumerate(self._names):
            skeleton = skeleton_of(name)
            for end in _ends(skeleton):
                self._by_end[end][skeleton].append(index)

    def matches(self, template: Template) -> Iterator[tuple[str, Place, int]]:
        """Prefix, place and index of every parameter that a template describes."""
        ending = f".{template.skeleton}"
        for skeleton, indices in self._by_end.get(_ends(template.skeleton)[-1], {}).items():
            if skeleton != template.skeleton and not skeleton.endswith(ending):
                continue
            for index in indices:
                match = template.pattern.fullmatch(self._names[index])
                if match is not None:
                    numbers = {letter: int(text) for letter, text in match.groupdict().items() if letter != "prefix"}
                    expert = numbers.pop(EXPERT, None)
                    yield match["prefix"], Place(tuple(numbers.values()), expert, template.ending), index

    def can_be(self, index: int, kind: Kind | None) -> bool:
        """Whether a matrix has the axes of a kind of layer; one of a stack has them."""
        spec = self._specs[index]
        axes = len(spec.tensor.shape)
        if kind in {"conv", "conv_transpose"}:
            return axes > 2
        if spec.kind == "embedding":  # learned tokens may have an axis of one
            return axes == 2 or kind in {None, "other", "embedding"}
        return kind in {None, "other"} or axes == 2 or spec.expert is not None

    def under(self, prefix: str) -> int:
        """How many parameters have a prefix."""
        after = f"{prefix[:-1]}/"  # "/" comes right after the "." at the end of a prefix
        return bisect_left(self._sorted, after) - bisect_left(self._sorted, prefix) if prefix else len(self._names)


def _ends(skeleton: str) -> tuple[str, ...]:
    """Last component of a skeleton, and last two if it has as many: keys to find few among many skeletons."""
    before, dot, last = skeleton.rpartition(".")
    return (last, f"{before.rpartition('.')[2]}.{last}") if dot else (last,)


def candidates(architecture: Architecture, names: Names) -> Iterator[Fit]:
    """Every part of a model that has the required parameters of a family.

    Args:
        architecture: the family.
        names: of the model's parameters.
    """
    parameters = architecture.parameters
    hits = {role: _hits(parameter, names) for role, parameter in parameters.items()}
    required = [role for role, parameter in parameters.items() if parameter.required]
    if not all(hits[role] for role in required):
        return
    anchor = next((role for role in required if _chain(parameters[role])), required[0])
    forbidden = {prefix for template in architecture.absent for prefix, _, _ in names.matches(template)}
    for prefix in sorted(hits[anchor].keys() - forbidden):
        inside, around = (prefix,), (prefix, *_around(prefix))
        roles = {
            role: _best(hits[role], inside if _chain(parameter) else around) for role, parameter in parameters.items()
        }
        if all(roles[role] for role in required):
            present = {role: places for role, places in roles.items() if places}
            yield Fit(architecture, prefix, present, {role: _chain(parameters[role]) for role in present})


def misfit(architecture: Architecture, specs: Sequence[MatrixSpec]) -> str:
    """Why no part of a model belongs to a family.

    Args:
        architecture: the family, of which there is no candidate.
        specs: the matrices of the model.

    Returns:
        What is amiss, in words to follow the name of the family.
    """
    names = Names(specs)
    required = [parameter for parameter in architecture.parameters.values() if parameter.required]
    absent = [parameter for parameter in required if not _hits(parameter, names)]
    listed = f"weights are {_listed(_examples(specs))}"
    for parameter in absent:
        other = next((spec for spec in specs if parameter.describes(spec.parameter)), None)
        if other is not None:
            shape = " x ".join(map(str, other.tensor.shape))
            return f"required {parameter.in_words} is {parameter.kind}, and '{other.parameter}' is {shape}"
    if absent:
        verb = "matches" if len(absent) == 1 else "match"
        return f"required {_listed([parameter.in_words for parameter in absent])} {verb} no weight; {listed}"
    for template in architecture.absent:
        found = next(iter(names.matches(template)), None)
        if found is not None:
            return f"it has no '{template.text}', and the model has '{specs[found[2]].parameter}'"
    return f"{_listed([parameter.in_words for parameter in required])} match weights of different modules; {listed}"


def _examples(specs: Sequence[MatrixSpec]) -> list[str]:
    """The first of all names that are the same but for numbers."""
    return list({skeleton_of(spec.parameter): spec.parameter for spec in reversed(specs)}.values())[::-1]


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - LISTED_NAMES} more"] if len(names) > LISTED_NAMES else []
    return ", ".join([*names[:LISTED_NAMES], *more])


def _chain(parameter: Parameter) -> str:
    return parameter.names[0].chain


def _hits(parameter: Parameter, names: Names) -> dict[str, list[_Hit]]:
    """What a parameter's templates describe and can be of its kind, by prefix."""
    found: dict[str, list[_Hit]] = defaultdict(list)
    for rank, template in enumerate(parameter.names):
        for prefix, place, index in names.matches(template):
            if names.can_be(index, parameter.kind):
                found[prefix].append(_Hit(rank, place, index))
    return found


def _around(prefix: str) -> Iterator[str]:
    """The prefixes of the modules around one, from the innermost.

    What stands in blocks has the very prefix of its part of the model; an embedding or an output layer may stand
    further out, but not outside a list of parts: it belongs to none of them.
    """
    outer = prefix.removesuffix(".")
    while outer and not outer.rpartition(".")[2].isdecimal():
        outer = outer.rpartition(".")[0]
        yield f"{outer}." if outer else ""


def _best(hits: Mapping[str, Sequence[_Hit]], prefixes: Iterable[str]) -> dict[Place, int]:
    """The best hit for each place: under the first of the prefixes, then of the preferred name."""
    best: dict[Place, _Hit] = {}
    for prefix in prefixes:
        here: dict[Place, _Hit] = {}
        for hit in hits.get(prefix, ()):
            if hit.place not in here or hit.rank < here[hit.place].rank:
                here[hit.place] = hit
        best = here | best
    return {place: hit.depth for place, hit in best.items()}
