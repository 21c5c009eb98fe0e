"""Averaged copies of a model inside its own state dict: EMA, SWA, and how they are told from modules of such a name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

Shape = tuple[int, ...]

AVERAGED = re.compile(
    r"((?P<before>.*)_)?(ema|swa|averaged?|avg|shadow|polyak)(_(?P<after>.*))?"
    r"|(ema|swa|averaged|shadow)(?P<capital>[A-Z].*)|(?P<camel>[a-z].*)(EMA|Ema|SWA)",
)
NUMBERED = frozenset({"shadow_params", "collected_params"})
"""Lists of parameters without their names, as diffusers and torch_ema keep them."""

MOST_PLACES = 64
"""Limit for places to look for an original, among those with a matrix named like the copy's least common one."""


@lru_cache(maxsize=4096)
def is_averaged(component: str) -> bool:
    """Whether this is what an averaged copy is called."""
    return component in NUMBERED or AVERAGED.fullmatch(component) is not None


@dataclass(frozen=True, slots=True)
class _Member:
    """A tensor below a component that is called averaged: its full name, the name below it without dots, its shape."""

    name: str
    below: str
    shape: Shape

    @property
    def matters(self) -> bool:
        return len(self.shape) > 1


def averaged_copies(shapes: Mapping[str, Shape], wrappers: Collection[str]) -> set[str]:
    """Names of the tensors that are averaged copies of others.

    The name of a module is not enough (``ema_gate.weight`` may be a weight of its own): every matrix below it must have
    its original, of the same name and shape, in one other place.

    Args:
        shapes: of every tensor of the state dict, by name.
        wrappers: components that a copy may have before its names, or its original before its own.
    """
    members: defaultdict[str, list[_Member]] = defaultdict(list)
    originals: dict[str, Shape] = {}
    for name, shape in shapes.items():
        components = name.split(".")
        place = next((at for at, component in enumerate(components[:-1]) if is_averaged(component)), None)
        if place is None:
            originals[name] = shape
        else:
            below = components[place + 1 :]
            while len(below) > 1 and below[0] in wrappers:
                below = below[1:]
            members[".".join(components[: place + 1])].append(_Member(name, "".join(below), shape))
    if not originals:
        return set()
    known = _Originals(originals)
    copies: set[str] = set()
    for root, group in members.items():
        matrices = [member for member in group if member.matters] or [m for m in group if m.shape not in {(), (1,)}]
        if known.include(root, matrices, wrappers):
            copies |= {member.name for member in group}
    return copies


class _Originals:
    """The tensors that may have been averaged, by name without dots (LitEma takes the dots from its names)."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = {name.replace(".", ""): shape for name, shape in shapes.items()}
        self._counts = Counter(shapes.values())
        self._places: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """Prefixes of one to three components, without their dots, under which each name is found."""
        for name in shapes:
            components = name.split(".")
            for depth in range(1, min(len(components), 4)):
                self._places["".join(components[depth:])]["".join(components[:depth])] = None

    def include(self, root: str, matrices: Sequence[_Member], wrappers: Collection[str]) -> bool:
        """Whether every matrix below a root has its original, of the same name and shape, in one other place."""
        if root.rpartition(".")[2] in NUMBERED:
            counts = Counter(member.shape for member in matrices)
            return all(count <= self._counts[shape] for shape, count in counts.items())
        return bool(matrices) and any(
            all(self._shapes.get(place + member.below) == member.shape for member in matrices)
            for place in self._candidates(root, matrices, wrappers)
        )

    def _candidates(self, root: str, matrices: Sequence[_Member], wrappers: Collection[str]) -> Iterator[str]:
        parent, _, component = root.rpartition(".")
        parent = parent.replace(".", "")
        matched = AVERAGED.fullmatch(component)
        named = [part for part in matched.groupdict().values() if part] if matched else []
        for part in ("", *named, *(part.lower() for part in named), *wrappers):
            yield parent + part
            yield part
        if (
            len(matrices) > 1
        ):  # one matrix may have the name and shape of another by chance; several in a place have not
            places = min((self._places.get(member.below, {}) for member in matrices), key=len)
            yield from islice(places, MOST_PLACES)
