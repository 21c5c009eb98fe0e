"""Who feeds whom: pairs of matrices whose singular vectors live in the same space, and the parts that meet there."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spectra_cli.layers.architecture import Parameter, Rule
from spectra_cli.layers.ends import (
    HEAD_COUNT_MISMATCH,
    MOST_UNITS,
    NO_HEAD_COUNT,
    SHAPE_MISMATCH,
    TOO_MANY_UNITS,
    Connection,
    End,
    Unit,
    given_by,
    length_of,
    meet,
    mismatch,
    read_by,
)
from spectra_cli.layers.matching import Fit, Place
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import (
    Heads,
    Part,
    Ranges,
    fused_head_rows,
    fused_rows,
    head_range,
    takes_heads,
)


def sequential_connections(specs: Sequence[MatrixSpec]) -> list[Connection]:
    """Every matrix to the next one in the order of the model, where nothing better is known."""
    return [
        Connection("sequential", index, index + 1, tuple(meet(given_by(specs, index), read_by(index + 1), specs)))
        for index in range(len(specs) - 1)
    ]


def connections_of(
    fit: Fit, specs: Sequence[MatrixSpec], heads: Heads | None, config: Mapping[str, Any], *, tied: bool
) -> list[Connection]:
    """The connections of a part of a model that belongs to a family.

    Args:
        fit: which matrix plays which role.
        specs: all matrices of the model.
        heads: None if unknown.
        config: the model's ``config.json``.
        tied: whether roles that are absent are those they are tied to.

    Returns:
        By the place of the upstream matrix in the model, then by that of the downstream one.
    """
    building = _Building(fit, specs, heads, tied=tied)
    found: dict[tuple[str, int, int], dict[Unit, None]] = defaultdict(dict)  # parts of one matrix may each meet another
    for connection in itertools.chain.from_iterable(
        building.made_by(rule) for rule in fit.architecture.rules if building.holds(rule, config)
    ):
        found[connection.name, connection.upstream, connection.downstream].update(dict.fromkeys(connection.units))
    connections = [Connection(*key, tuple(units)) for key, units in found.items()]
    return sorted(connections, key=lambda connection: (connection.upstream, connection.downstream))


def rules_without_connection(
    fit: Fit, specs: Sequence[MatrixSpec], config: Mapping[str, Any], *, tied: bool
) -> list[Rule]:
    """The rules of a family that hold for a model and yet connect nothing of it.

    A rule that leads from a block to the next one is none of them where there is a single block.

    Args:
        fit: which matrix plays which role.
        specs: all matrices of the model.
        config: the model's ``config.json``.
        tied: whether roles that are absent are those they are tied to.
    """
    building = _Building(fit, specs, None, tied=tied)
    holding = (rule for rule in fit.architecture.rules if building.holds(rule, config))
    return [rule for rule in holding if not building.lacks_next(rule) and not any(building.made_by(rule))]


def connections_among(connections: Iterable[Connection], depths: Container[int]) -> list[Connection]:
    """Connections of which both ends are among the matrices selected."""
    return [
        connection for connection in connections if connection.upstream in depths and connection.downstream in depths
    ]


class _Building:
    """Makes the connections of one fit."""

    def __init__(self, fit: Fit, specs: Sequence[MatrixSpec], heads: Heads | None, *, tied: bool) -> None:
        self._fit = fit
        self._specs = specs
        self._heads = heads
        self._tied = tied
        self._blocks = {chain: fit.blocks(chain) for chain in set(fit.chains.values()) if chain}
        self._after = {chain: dict(itertools.pairwise(blocks)) for chain, blocks in self._blocks.items()}
        self._widths_read = self._query_widths()

    def places(self, role: str) -> Mapping[Place, int]:
        """Depths of a role, or of what it is tied to, by place."""
        holder = self._holder(role)
        return self._fit.roles.get(holder.role, {}) if holder else {}

    def holds(self, rule: Rule, config: Mapping[str, Any]) -> bool:
        """Whether neither the configuration nor a role that is there rules a rule out."""
        values = {key: self._fit.architecture.setting(config, key, self._fit.prefix) for key in rule.when}
        return values == dict(rule.when) and not any(map(self.places, rule.unless))

    def lacks_next(self, rule: Rule) -> bool:
        """Whether a rule leads to the next of blocks of which there is one only."""
        return rule.next_block and any(
            self.places(upstream) and self.places(downstream) and len(self._blocks.get(self._chain(upstream), ())) == 1
            for upstream, downstream in rule.pairs
        )

    def made_by(self, rule: Rule) -> Iterator[Connection]:
        """All connections that a rule makes."""
        for upstream, downstream in rule.pairs:
            yield from self._between(rule, upstream, downstream)

    def _holder(self, role: str) -> Parameter | None:
        """The parameter that is or holds a role; the one it is tied to where the model has no other."""
        holder = self._fit.architecture.holder_of(role) if role else None
        if holder is not None and holder.tied and holder.role not in self._fit.roles and self._tied:
            return self._fit.architecture.holder_of(holder.tied)
        return holder

    def _between(self, rule: Rule, upstream: str, downstream: str) -> Iterator[Connection]:
        """All connections that a rule makes from one role to another."""
        reading: dict[tuple[tuple[int, ...], int | None], list[tuple[Place, int]]] = defaultdict(list)
        in_block: dict[tuple[int, ...], list[tuple[Place, int]]] = defaultdict(list)
        for place, index in self.places(downstream).items():
            reading[place.block, place.expert].append((place, index))
            in_block[place.block].append((place, index))
        endings = self._has_endings(upstream) and self._has_endings(downstream)
        given: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for place in self.places(upstream):
            given[place.block].add(place.ending)
        for place, index in self.places(upstream).items():
            block = self._block_read(rule, upstream, downstream, place.block)
            if block is None:
                continue
            readers = in_block[block]
            if place.expert is not None and any(other.expert is not None for other, _ in readers):
                readers = reading[block, place.expert]
            if endings:
                readers = _readers_of_ending(rule, place.ending, given[place.block], readers)
            for other, read in readers:
                units = tuple(self._units(rule, (upstream, place, index), (downstream, other, read)))
                yield Connection(rule.name, index, read, units)

    def _has_endings(self, role: str) -> bool:
        holder = self._holder(role)
        return holder is not None and len({template.ending for template in holder.names}) > 1

    def _chain(self, role: str) -> str:
        holder = self._holder(role)
        return self._fit.chains.get(holder.role, "") if holder else ""

    def _block_read(self, rule: Rule, upstream: str, downstream: str, block: tuple[int, ...]) -> tuple[int, ...] | None:
        """The block of the downstream role that reads what the upstream role gives in a block; None if none does."""
        giving, reading = self._chain(upstream), self._chain(downstream)
        if giving and giving == reading:
            return self._after[giving].get(block) if rule.next_block else block
        if giving and block != self._blocks[giving][-1]:
            return None
        return self._blocks[reading][0] if reading else ()

    def _units(self, rule: Rule, giver: tuple[str, Place, int], reader: tuple[str, Place, int]) -> Iterator[Unit]:
        if rule.name == "query-key":
            yield from self._query_key_heads(giver, reader)
        elif rule.name == "value-output":
            yield from self._value_output(giver, reader)
        else:
            yield from self._plain(rule, giver, reader)

    def _plain(self, rule: Rule, giver: tuple[str, Place, int], reader: tuple[str, Place, int]) -> Iterator[Unit]:
        (role, place, index), (_, _, read) = giver, reader
        holder, reads = self._holder(role), read_by(read)
        if holder is None:
            return
        if rule.concatenated:
            cols = self._side_by_side(role, place, read)
            if cols is None:
                yield mismatch()
                return
            reads = replace(reads, part=replace(reads.part, cols=cols))
        if role in holder.split:
            rows = fused_rows(holder, role, self._specs[index].rows, self._heads, None)
            gives = End(Part(index, rows or ()), "left")
            for unit in meet(gives, reads, self._specs) if rows else [self._untold(holder)]:
                yield replace(unit, unit="gate", index=holder.split.index(role)) if unit.status == "ok" else unit
            return
        own = self._fit.architecture.holder_of(role)  # an embedding whose matrix is the tied unembedding is one still
        embeds = "embedding" in {holder.kind, own.kind if own else None}
        gives = End(Part(index), "right") if embeds else given_by(self._specs, index)
        if not holder.gates:
            yield from meet(gives, reads, self._specs)
            return
        height, rest = divmod(self._specs[index].rows, len(holder.gates))
        if rest or height != length_of(reads, self._specs):
            yield mismatch()
            return
        for number, gate in enumerate(holder.gates):
            window = (number * height, (number + 1) * height, 1)
            yield Unit("gate", number, gate == holder.primary_gate, replace(gives, window=window), reads)

    def _side_by_side(self, role: str, place: Place, read: int) -> Ranges | None:
        """Columns of what reads all endings side by side that read one of them, () where there is one only."""
        endings = sorted(other.ending for other in self.places(role) if other.block == place.block)
        if len(endings) == 1:
            return ()
        span = head_range((0, self._specs[read].cols), len(endings), endings.index(place.ending))
        return None if span is None else (span,)

    def _query_key_heads(self, giver: tuple[str, Place, int], reader: tuple[str, Place, int]) -> Iterator[Unit]:
        if self._heads is None:
            yield Unit("head", None, True, status=NO_HEAD_COUNT)
            return
        units = []
        for head in range(self._heads.query):
            query = self._head_rows(giver, head)
            key = self._head_rows(reader, head // self._heads.group)
            if query is None or key is None or query[1] - query[0] != key[1] - key[0]:
                yield Unit("head", None, True, status=HEAD_COUNT_MISMATCH)
                return
            if self._heads.query > MOST_UNITS:
                yield Unit("whole", None, True, status=TOO_MANY_UNITS)
                return
            ends = (End(Part(giver[2], (query,)), "left"), End(Part(reader[2], (key,)), "left"))
            units.append(Unit("head", head, True, *ends))
        yield from units

    def _value_output(self, giver: tuple[str, Place, int], reader: tuple[str, Place, int]) -> Iterator[Unit]:
        index, read = giver[2], reader[2]
        if self._heads is None or self._heads.group == 1:  # else several query heads read one value head
            for unit in self._whole_value_output(giver, read):
                yield replace(unit, primary=False)
        if self._heads is None:
            yield Unit("head", None, True, status=NO_HEAD_COUNT)
            return
        units = []
        for head in range(self._heads.query):
            value = self._head_rows(giver, head // self._heads.group)
            output = head_range((0, self._specs[read].cols), self._heads.query, head)
            if value is None or output is None or value[1] - value[0] != output[1] - output[0]:
                yield Unit("head", None, True, status=HEAD_COUNT_MISMATCH)
                return
            if self._heads.query > MOST_UNITS:
                yield Unit("whole", None, True, status=TOO_MANY_UNITS)
                return
            ends = (End(Part(index, (value,)), "left"), End(Part(read, cols=(output,)), "right"))
            units.append(Unit("head", head, True, *ends))
        yield from units

    def _whole_value_output(self, giver: tuple[str, Place, int], read: int) -> Iterator[Unit]:
        """All value heads against all of what reads them."""
        role, place, index = giver
        holder = self._holder(role)
        rows: Ranges = ()
        if holder is not None and role in holder.split:
            query_rows = self._widths_read.get(place.block)
            told = fused_rows(holder, role, self._specs[index].rows, self._heads, query_rows)
            if told is None:
                yield self._untold(holder)
                return
            rows = told
        for unit in meet(End(Part(index, rows), "left"), read_by(read), self._specs):
            grouped = unit.status == SHAPE_MISMATCH and self._heads is None  # or may be, for all that is known
            yield replace(unit, status=NO_HEAD_COUNT) if grouped else unit

    def _untold(self, holder: Parameter) -> Unit:
        """The unit of a fused matrix of which it cannot be told which rows hold a role."""
        if not takes_heads(holder):
            return mismatch()
        return Unit("whole", None, True, status=NO_HEAD_COUNT if self._heads is None else HEAD_COUNT_MISMATCH)

    def _head_rows(self, giver: tuple[str, Place, int], head: int) -> tuple[int, int] | None:
        role, place, index = giver
        holder, rows = self._holder(role), self._specs[index].rows
        if holder is None or self._heads is None:
            return None
        if role in holder.split:
            query_rows = self._widths_read.get(place.block)
            return fused_head_rows(holder, role, rows, self._heads, head, query_rows=query_rows)
        return head_range((0, rows), self._heads.of(role), head)

    def _query_widths(self) -> dict[tuple[int, ...], int]:
        """Block -> width of what attention gives, which is that of its queries."""
        readers = {
            downstream
            for rule in self._fit.architecture.rules
            if rule.name == "value-output"
            for _, downstream in rule.pairs
        }
        return {place.block: self._specs[index].cols for role in readers for place, index in self.places(role).items()}


def _readers_of_ending(
    rule: Rule, ending: int, given: set[int], readers: Sequence[tuple[Place, int]]
) -> list[tuple[Place, int]]:
    """The readers of an ending in a block: its like; side by side with the others also what has no like.

    Args:
        rule: says whether all endings are read side by side.
        ending: which one.
        given: all endings upstream.
        readers: all of the block.
    """
    read = {place.ending for place, _ in readers}
    return [
        (place, index)
        for place, index in readers
        if place.ending == ending or (rule.concatenated and (ending not in read or place.ending not in given))
    ]
