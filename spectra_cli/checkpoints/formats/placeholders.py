"""What stands in a pickle's result for everything that is not plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Global:
    """A name that an unpickler would import."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """``module.name``."""
        return f"{self.module}.{self.name}"


_NO_STATE: Mapping[Any, Any] = MappingProxyType({})


class Object:
    """What stands where an unpickler would have made an instance or called a function.

    Attributes:
        kind: what would have been called or instantiated, usually a :class:`Global`.
        parts: everything that went in, in order: arguments, states, items, keys and values.
        state: the last dictionary of attributes it was given; not to be changed.
    """

    __slots__ = ("kind", "parts", "state")

    def __init__(self, kind: Any, *parts: Any) -> None:
        self.kind = kind
        self.parts: Sequence[Any] = parts  # a list once something is added: millions of objects hold nothing
        self.state: Mapping[Any, Any] = _NO_STATE

    def add(self, values: Iterable[Any]) -> None:
        """Put more into it."""
        if not isinstance(self.parts, list):
            self.parts = list(self.parts)
        self.parts.extend(values)

    @property
    def path(self) -> str:
        """Dotted name of the class or function, as far as it is known."""
        return self.kind.path if isinstance(self.kind, Global) else type(self.kind).__name__


class Key:
    """A dictionary key that is not hashed by value: hashing a nested tuple can take exponential time."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def as_key(key: Any) -> Any:
    """The key itself where it is a short scalar, else a :class:`Key` around it."""
    if isinstance(key, str | bool | float | None | bytes) or (isinstance(key, int) and key.bit_length() <= 64):
        return key
    return Key(key)
