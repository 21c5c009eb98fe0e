"""Parts of matrices that align: fused query, key and value, attention heads, gates, kernel positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spectra_cli.layers.architecture import Architecture, Parameter
from spectra_cli.layers.configuration import sections
from spectra_cli.layers.matricize import MatrixSpec

Ranges = tuple[tuple[int, int], ...]
Side = Literal["left", "right"]

QUERY, KEY, VALUE = "query", "key", "value"


@dataclass(frozen=True, slots=True)
class Part:
    """What is factorized: a matrix, or some of its rows and columns.

    Attributes:
        depth: index of the matrix in the model.
        rows: contiguous ranges (start, stop), ascending; empty for all.
        cols: the same of columns.
    """

    depth: int
    rows: Ranges = ()
    cols: Ranges = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is the matrix itself."""
        return not self.rows and not self.cols


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads of a model.

    Attributes:
        query: how many query heads.
        key_value: how many key and value heads; fewer in grouped-query attention.
    """

    query: int
    key_value: int

    def of(self, role: str) -> int:
        """How many heads the rows of a role are."""
        return self.key_value if role in {KEY, VALUE} else self.query

    @property
    def group(self) -> int:
        """Query heads that share a key head: query head h meets key head h // group."""
        return self.query // self.key_value


def heads_from_config(
    architecture: Architecture, config: Mapping[str, Any], query: int | None, key_value: int | None, *, prefix: str = ""
) -> Heads | None:
    """Head counts of a part of a model.

    Args:
        architecture: says which keys hold them.
        config: the model's ``config.json``.
        query: the number that the user gives, before that of the configuration.
        key_value: the same of key and value heads.
        prefix: what the names of the part have in front.

    Returns:
        None if the number of heads is not known, or is no number of heads.
    """
    places: Sequence[Mapping[str, Any]] = sections(config, prefix, reads_tokens=architecture.reads_tokens)
    if query is None:
        query, places = _counted(config, places, architecture.heads.get("query", ()))
    if key_value is None:  # where the query heads are: elsewhere it is about another part
        key_value, _ = _counted(config, places, architecture.heads.get("key_value", ()))
    key_value = key_value or query
    if query is None or key_value is None or query % key_value != 0:
        return None
    return Heads(query, key_value)


def _counted(
    config: Mapping[str, Any], places: Sequence[Mapping[str, Any]], keys: Sequence[str]
) -> tuple[int | None, Sequence[Mapping[str, Any]]]:
    """A count, and the configurations that speak of the same part: dotted keys lead from the top, others are sought."""
    for key in keys:
        path, _, last = key.rpartition(".")
        for place in [_at(config, path)] if path else places:
            value = place.get(last)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value, [place]
    return None, places


def _at(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """A nested configuration; an empty one where there is none."""
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def takes_heads(parameter: Parameter) -> bool:
    """Whether it takes the head counts to tell which rows of a fused matrix hold which role."""
    return bool(parameter.split) and (parameter.order == "interleaved" or set(parameter.split) == {QUERY, KEY, VALUE})


def fused_rows(
    parameter: Parameter, role: str, rows: int, heads: Heads | None, query_rows: int | None
) -> Ranges | None:
    """Rows of a fused matrix that hold a role.

    Args:
        parameter: the fused one.
        role: one of its split.
        rows: of the matrix.
        heads: None if unknown.
        query_rows: how many rows are queries, told from the width of what attention gives; None if unknown.

    Returns:
        None where it takes the head counts to tell and they are unknown or do not fit.
    """
    split = parameter.split
    if parameter.order == "interleaved":
        known: list[tuple[int, int]] = []
        for head in range(heads.of(role) if heads else 0):
            part = fused_head_rows(parameter, role, rows, heads, head, query_rows=query_rows)
            if part is None:  # as are all others
                return None
            known.append(part)
        return tuple(known) or None
    sizes: list[int] | None = None
    if set(split) == {QUERY, KEY, VALUE}:
        if heads is not None:
            width, rest = divmod(rows, heads.query + 2 * heads.key_value)
            fits = not rest and query_rows in {None, width * heads.query}
            sizes = [width * heads.of(name) for name in split] if fits else None
        elif query_rows is not None and 0 < query_rows < rows and (rows - query_rows) % 2 == 0:
            sizes = [query_rows if name == QUERY else (rows - query_rows) // 2 for name in split]
    elif rows % len(split) == 0:
        sizes = [rows // len(split)] * len(split)
    if sizes is None:
        return None
    start = sum(sizes[: split.index(role)])
    return ((start, start + sizes[split.index(role)]),)


def fused_head_rows(
    parameter: Parameter, role: str, rows: int, heads: Heads | None, head: int, *, query_rows: int | None
) -> tuple[int, int] | None:
    """Rows of one head of a role in a fused matrix; None where the head counts are unknown or do not fit."""
    if heads is None:
        return None
    if parameter.order == "contiguous":
        ranges = fused_rows(parameter, role, rows, heads, query_rows)
        return head_range(ranges[0], heads.of(role), head) if ranges else None
    counts = [heads.group if name == QUERY else 1 for name in parameter.split]  # per key head
    width, rest = divmod(rows, heads.key_value * sum(counts))
    if rest or not width or query_rows not in {None, width * heads.query}:
        return None
    group, within = divmod(head, heads.group) if role == QUERY else (head, 0)
    place = group * sum(counts) + sum(counts[: parameter.split.index(role)]) + within
    return place * width, (place + 1) * width


def head_range(span: tuple[int, int], count: int, head: int) -> tuple[int, int] | None:
    """One of `count` equal parts of a range, None where it does not divide."""
    width, rest = divmod(span[1] - span[0], count)
    return None if rest or not width else (span[0] + head * width, span[0] + (head + 1) * width)


def kernel_of(spec: MatrixSpec) -> tuple[int, ...]:
    """Kernel of a convolution, () for any other matrix."""
    return spec.tensor.shape[2:] if spec.kind in {"conv", "conv_transpose"} else ()


def centre_of(kernel: Sequence[int]) -> int:
    """Index of the middle position of a kernel, counted along its last axis first."""
    centre = 0
    for size in kernel:
        centre = centre * size + size // 2
    return centre


def positions_of(spec: MatrixSpec) -> int:
    """Number of kernel positions, 1 for any other matrix than a convolution."""
    return math.prod(kernel_of(spec))
