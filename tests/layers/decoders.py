"""Small decoders written by hand: names, shapes, which rows are which head, who feeds whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from spectra_cli.layers.inventory import Inventory

from .planted import Array, UnitKey, random_weights

WIDTH, HEADS, KEY_HEADS, HIDDEN, TOKENS = 48, 4, 2, 60, 50
HEAD = WIDTH // HEADS
KEYS = KEY_HEADS * HEAD

Connections = dict[tuple[str, str, str], str]
"""Connection, upstream, downstream -> its units, such as ``4 head + 1 whole``."""


class Block(NamedTuple):
    """Names in one block.

    Attributes:
        attention: what reads the stream before attention.
        query: the matrix that holds queries; likewise `key` and `value`.
        output: of attention.
        mlp: what reads the stream before the MLP.
        up_down: (gives, reads, parts): within the MLP; of how many parts one below the other the giver consists.
    """

    attention: tuple[str, ...]
    query: str
    key: str
    value: str
    output: str
    mlp: tuple[str, ...]
    up_down: tuple[tuple[str, str, int], ...]


def units_of(inventory: Inventory) -> Connections:
    """What a model's connections are, by our code."""
    found: Connections = {}
    for connection in inventory.connections():
        names = (inventory.matrices[end].parameter for end in (connection.upstream, connection.downstream))
        counts = Counter(f"{unit.unit} {unit.status}".removesuffix(" ok") for unit in connection.units)
        key = (connection.name, *names)
        assert key not in found, f"{key} twice"
        found[key] = " + ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    return found


def expected_connections(
    inputs: Sequence[str],
    blocks: Sequence[Block],
    outputs: Sequence[str],
    *,
    heads: int | None = HEADS,
    whole: str = "1 whole",
    parallel: bool = False,
) -> Connections:
    """What a decoder's connections are, by the definition of the model.

    Args:
        inputs: the embedding and what follows it before the first block.
        blocks: in order.
        outputs: what follows the last block.
        heads: None if unknown.
        whole: the unit of value and output that is no head; "" for none.
        parallel: whether attention and MLP read the same stream.
    """
    by_head = f"{heads} head" if heads else "1 head no_head_count"
    found: Connections = {}
    for one, two in pairwise(inputs):
        found["embedding-input", one, two] = "1 whole"
    for reader in blocks[0].attention + (blocks[0].mlp if parallel else ()):
        if inputs:
            found["embedding-input", inputs[-1], reader] = "1 whole"
    for place, block in enumerate(blocks):
        found["query-key", block.query, block.key] = by_head
        found["value-output", block.value, block.output] = f"{by_head} + {whole}" if whole else by_head
        for up, down, parts in block.up_down:
            found["up-down", up, down] = "1 whole" if parts == 1 else f"{parts} gate"
        givers = dict.fromkeys(down for _, down, _ in block.up_down)
        if parallel:
            givers[block.output] = None
        else:
            found |= {("output-up", block.output, reader): "1 whole" for reader in block.mlp}
        for giver in givers:
            if place + 1 < len(blocks):
                after = blocks[place + 1]
                readers = after.attention + (after.mlp if parallel else ())
                found |= {("residual", giver, reader): "1 whole" for reader in readers}
            elif outputs:
                found["output", giver, outputs[0]] = "1 whole"
    for one, two in pairwise(outputs):
        found["output", one, two] = "1 whole"
    return found


def own_rows(_role: str, head: int) -> slice:
    """A matrix for each role, head below head."""
    return slice(head * HEAD, (head + 1) * HEAD)


def contiguous_rows(role: str, head: int) -> slice:
    """All of the query, then the key, then the value: (3, heads, width of a head)."""
    start = {"query": 0, "key": WIDTH, "value": 2 * WIDTH}[role] + head * HEAD
    return slice(start, start + HEAD)


def grouped_rows(role: str, head: int) -> slice:
    """The same with fewer key and value heads than query heads."""
    start = {"query": 0, "key": WIDTH, "value": WIDTH + KEYS}[role] + head * HEAD
    return slice(start, start + HEAD)


def interleaved_rows(role: str, head: int) -> slice:
    """Query, key and value of the first head, then those of the second: (heads, 3, width of a head)."""
    start = (3 * head + {"query": 0, "key": 1, "value": 2}[role]) * HEAD
    return slice(start, start + HEAD)


@dataclass(frozen=True)
class Decoder:
    """A small model of a family.

    Attributes:
        family: its name.
        block: names in block i, without prefix.
        shapes: of everything, as stored.
        rows: those of a role's head in the matrix that holds it.
        inputs: the embedding and what follows it before the first block.
        outputs: what follows the last block.
        config: the model's ``config.json``.
        group: query heads that share a key head.
        in_out: ends of the names of matrices stored as (in, out).
        parallel: whether attention and MLP read the same stream.
    """

    family: str
    block: Callable[[int], Block]
    shapes: Mapping[str, tuple[int, ...]]
    rows: Callable[[str, int], slice]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("lm_head.weight",)
    config: Mapping[str, Any] = field(default_factory=dict)
    group: int = 1
    in_out: tuple[str, ...] = ("no such name",)
    parallel: bool = False

    @property
    def blocks(self) -> list[Block]:
        """Of which there are two."""
        return [self.block(0), self.block(1)]

    @property
    def whole(self) -> str:
        """The unit of value and output that is no head, of which there is none where query heads share a value head."""
        return "1 whole" if self.group == 1 else ""

    def weights(self) -> dict[str, Array]:
        """Random ones."""
        return random_weights(self.shapes)

    def connections(self) -> Connections:
        """By the definition of the model."""
        return expected_connections(self.inputs, self.blocks, self.outputs, whole=self.whole, parallel=self.parallel)

    def matrix(self, weights: Mapping[str, Array], name: str) -> Array:
        """A view of a matrix, output x input."""
        stored, _, expert = name.partition("[")
        array = weights[stored][int(expert[:-1])] if expert else weights[stored]
        return array.T if name.endswith(self.in_out) or name == self.inputs[0] else array

    def of_head(self, weights: Mapping[str, Array], block: Block, role: str, head: int) -> Array:
        """A view of a head's rows."""
        name: str = getattr(block, role)
        return self.matrix(weights, name)[self.rows(role, head)]

    def planted(self, weights: Mapping[str, Array], head: int = 2) -> dict[UnitKey, tuple[Array, Array]]:
        """Of every kind of unit one or two: what meets, (given, in) and (out, read), as the model's forward has it."""
        last = self.blocks[-1]
        cases: dict[UnitKey, tuple[Array, Array]] = {}
        for name, upstream, downstream in self.connections():
            if name not in {"query-key", "value-output", "up-down"}:
                ends = self.matrix(weights, upstream), self.matrix(weights, downstream)
                cases[name, upstream, downstream, "whole", None] = ends
        for up, down, parts in last.up_down:
            reads = self.matrix(weights, down)
            for part in range(parts):
                rows = self.matrix(weights, up)[part * reads.shape[1] : (part + 1) * reads.shape[1]]
                unit = ("whole", None) if parts == 1 else ("gate", part)
                cases["up-down", up, down, *unit] = (rows, reads)
        key, value = (self.of_head(weights, last, role, head // self.group) for role in ("key", "value"))
        query = self.of_head(weights, last, "query", head)
        columns = self.matrix(weights, last.output)[:, head * HEAD : (head + 1) * HEAD]
        cases["query-key", last.query, last.key, "head", head] = (query, key.T)
        cases["value-output", last.value, last.output, "head", head] = (value, columns)
        return cases


def from_blocks(
    block: Callable[[int], Block], shapes: Mapping[str, tuple[int, ...]], others: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of a model of two blocks.

    Args:
        block: names in block i.
        shapes: by the ends of these names.
        others: by name, outside blocks.
    """
    names = [dict.fromkeys(_names(block(number))) for number in (0, 1)]
    found = {name: next(shape for end, shape in shapes.items() if name.endswith(end)) for one in names for name in one}
    return {**found, **others}


def _names(block: Block) -> Iterable[str]:
    yield from block.attention
    yield from (block.query, block.key, block.value, block.output)
    yield from block.mlp
    yield from (down for _, down, _ in block.up_down)


def separate_block(start: str, output: str, mlp: tuple[str, ...], down: str) -> Block:
    """A block with a matrix for each of query, key and value."""
    attention = tuple(f"{start}.self_attn.{letter}_proj.weight" for letter in "qkv")
    readers = tuple(f"{start}.{name}.weight" for name in mlp)
    pairs = tuple((reader, f"{start}.{down}.weight", 1) for reader in readers)
    return Block(attention, *attention, f"{start}.self_attn.{output}.weight", readers, pairs)


def fused_block(qkv: str, output: str, up: str, down: str, parts: int = 1) -> Block:
    """A block with one matrix for query, key and value."""
    return Block((qkv,), qkv, qkv, qkv, output, (up,), ((up, down, parts),))


def neox_block(start: str) -> Block:
    names = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    return fused_block(*(f"{start}.{name}.weight" for name in names))


def gpt2_block(start: str) -> Block:
    return fused_block(*(f"{start}.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")))


def llama_block(start: str) -> Block:
    return separate_block(start, "o_proj", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")


def phi3_block(start: str) -> Block:
    names = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    return fused_block(*(f"{start}.{name}.weight" for name in names), parts=2)


def opt_block(start: str) -> Block:
    return separate_block(start, "out_proj", ("fc1",), "fc2")


def encoder_block(start: str) -> Block:
    names = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    return fused_block(*(f"{start}.{name}" for name in names))


def moe_block(start: str, experts: int, *, names: str, shared: bool = False) -> Block:
    """A block with experts; `names` is ``mixtral`` or ``qwen`` (a matrix each), or ``stacked``."""
    attention = llama_block(start)
    pairs: list[tuple[str, str, int]] = []
    for expert in range(experts):
        if names == "stacked":
            stack = f"{start}.mlp.experts"
            pairs.append((f"{stack}.gate_up_proj[{expert}]", f"{stack}.down_proj[{expert}]", 2))
        else:
            mixtral = names == "mixtral"
            own = f"{start}.{'block_sparse_moe' if mixtral else 'mlp'}.experts.{expert}"
            gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
            pairs += [(f"{own}.{reader}.weight", f"{own}.{down}.weight", 1) for reader in (gate, up)]
    if shared:
        own = f"{start}.mlp.shared_expert"
        pairs += [(f"{own}.{reader}.weight", f"{own}.down_proj.weight", 1) for reader in ("gate_proj", "up_proj")]
    return attention._replace(mlp=tuple(up for up, _, _ in pairs), up_down=tuple(pairs))


_GROUPED = {"num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS}
_EMBEDDING, _SQUARE = (TOKENS, WIDTH), (WIDTH, WIDTH)
_GATED = {"gate_proj.weight": (HIDDEN, WIDTH), "up_proj.weight": (HIDDEN, WIDTH), "down_proj.weight": (WIDTH, HIDDEN)}
_GROUPED_SHAPES = {
    "q_proj.weight": _SQUARE,
    "k_proj.weight": (KEYS, WIDTH),
    "v_proj.weight": (KEYS, WIDTH),
    "o_proj.weight": _SQUARE,
}


def neox(*, parallel: bool) -> Decoder:
    def block(number: int) -> Block:
        return neox_block(f"gpt_neox.layers.{number}")

    shapes = {
        "query_key_value.weight": (3 * WIDTH, WIDTH),
        "dense.weight": _SQUARE,
        "dense_h_to_4h.weight": (HIDDEN, WIDTH),
        "dense_4h_to_h.weight": (WIDTH, HIDDEN),
    }
    others = {"gpt_neox.embed_in.weight": _EMBEDDING, "embed_out.weight": _EMBEDDING}
    return Decoder(
        family="gpt_neox",
        block=block,
        shapes=from_blocks(block, shapes, others),
        rows=interleaved_rows,
        inputs=("gpt_neox.embed_in.weight",),
        outputs=("embed_out.weight",),
        config={"num_attention_heads": HEADS, "use_parallel_residual": parallel},
        parallel=parallel,
    )


def gpt2(*, in_out: bool) -> Decoder:
    def block(number: int) -> Block:
        return gpt2_block(f"transformer.h.{number}")

    shapes = {
        "attn.c_attn.weight": (3 * WIDTH, WIDTH),
        "attn.c_proj.weight": _SQUARE,
        "c_fc.weight": (HIDDEN, WIDTH),
        "mlp.c_proj.weight": (WIDTH, HIDDEN),
    }
    stored = {end: shape[::-1] if in_out else shape for end, shape in shapes.items()}
    others = {"transformer.wte.weight": _EMBEDDING, "transformer.wpe.weight": (20, WIDTH), "lm_head.weight": _EMBEDDING}
    return Decoder(
        family="gpt2" if in_out else "nanogpt",
        block=block,
        shapes=from_blocks(block, stored, others),
        rows=contiguous_rows,
        inputs=("transformer.wte.weight",),
        config={"n_head": HEADS},
        in_out=tuple(shapes) if in_out else ("no such name",),
    )


def llama() -> Decoder:
    def block(number: int) -> Block:
        return llama_block(f"model.layers.{number}")

    others = {"model.embed_tokens.weight": _EMBEDDING, "lm_head.weight": _EMBEDDING}
    return Decoder(
        family="llama",
        block=block,
        shapes=from_blocks(block, _GROUPED_SHAPES | _GATED, others),
        rows=own_rows,
        inputs=("model.embed_tokens.weight",),
        config=_GROUPED,
        group=2,
    )


def phi3() -> Decoder:
    def block(number: int) -> Block:
        return phi3_block(f"model.layers.{number}")

    shapes = {
        "qkv_proj.weight": (WIDTH + 2 * KEYS, WIDTH),
        "o_proj.weight": _SQUARE,
        "gate_up_proj.weight": (2 * HIDDEN, WIDTH),
        "down_proj.weight": (WIDTH, HIDDEN),
    }
    others = {"model.embed_tokens.weight": _EMBEDDING, "lm_head.weight": _EMBEDDING}
    return Decoder(
        family="phi3",
        block=block,
        shapes=from_blocks(block, shapes, others),
        rows=grouped_rows,
        inputs=("model.embed_tokens.weight",),
        config=_GROUPED,
        group=2,
    )


def opt(*, narrow: bool) -> Decoder:
    start = "model.decoder"

    def block(number: int) -> Block:
        return opt_block(f"{start}.layers.{number}")

    shapes = {"_proj.weight": _SQUARE, "fc1.weight": (HIDDEN, WIDTH), "fc2.weight": (WIDTH, HIDDEN)}
    tokens = (TOKENS, 24 if narrow else WIDTH)
    others = {f"{start}.embed_tokens.weight": tokens, f"{start}.embed_positions.weight": (20, WIDTH)}
    if narrow:
        others |= {f"{start}.project_in.weight": (WIDTH, 24), f"{start}.project_out.weight": (24, WIDTH)}
    return Decoder(
        family="opt",
        block=block,
        shapes=from_blocks(block, shapes, others | {"lm_head.weight": tokens}),
        rows=own_rows,
        inputs=(f"{start}.embed_tokens.weight", *([f"{start}.project_in.weight"] if narrow else [])),
        outputs=(*([f"{start}.project_out.weight"] if narrow else []), "lm_head.weight"),
        config={"num_attention_heads": HEADS, "tie_word_embeddings": False},
    )


def encoder(start: str = "transformer_encoder.layers") -> Decoder:
    def block(number: int) -> Block:
        return encoder_block(f"{start}.{number}")

    shapes = {
        "in_proj_weight": (3 * WIDTH, WIDTH),
        "out_proj.weight": _SQUARE,
        "linear1.weight": (HIDDEN, WIDTH),
        "linear2.weight": (WIDTH, HIDDEN),
    }
    others = {"encoder.weight": _EMBEDDING, "pos_encoder.pe": (20, 1, WIDTH), "decoder.weight": (TOKENS - 1, WIDTH)}
    return Decoder(
        family="torch_encoder",
        block=block,
        shapes=from_blocks(block, shapes, others),
        rows=contiguous_rows,
        inputs=("encoder.weight",),
        outputs=("decoder.weight",),
        config={"num_attention_heads": HEADS},
    )


def moe(names: str, *, shared: bool) -> Decoder:
    """Two experts; the hidden width of the shared one is 36."""

    def block(number: int) -> Block:
        return moe_block(f"model.layers.{number}", 2, names=names, shared=shared)

    one = {"w1.weight": (HIDDEN, WIDTH), "w3.weight": (HIDDEN, WIDTH), "w2.weight": (WIDTH, HIDDEN)}
    own = {f"shared_expert.{name}": (36, WIDTH) for name in ("gate_proj.weight", "up_proj.weight")}
    own |= {"shared_expert.down_proj.weight": (WIDTH, 36)}
    stacks = {f"_up_proj[{e}]": (2 * HIDDEN, WIDTH) for e in (0, 1)} | {
        f"down_proj[{e}]": (WIDTH, HIDDEN) for e in (0, 1)
    }
    router = "block_sparse_moe.gate.weight" if names == "mixtral" else "mlp.gate.weight"
    others = {"model.embed_tokens.weight": _EMBEDDING, "lm_head.weight": _EMBEDDING}
    for number in (0, 1):
        others[f"model.layers.{number}.{router}"] = (2, WIDTH)
        if shared:
            others[f"model.layers.{number}.mlp.shared_expert_gate.weight"] = (1, WIDTH)
    matrices = from_blocks(block, _GROUPED_SHAPES | own | stacks | one | _GATED, others)
    return Decoder(
        family="moe",
        block=block,
        shapes={
            name.removesuffix("[0]"): (2, *shape) if name.endswith("]") else shape
            for name, shape in matrices.items()
            if not name.endswith("[1]")
        },
        rows=own_rows,
        inputs=("model.embed_tokens.weight",),
        config=_GROUPED,
        group=2,
    )


DENSE: dict[str, Decoder] = {
    "gpt_neox, parallel": neox(parallel=True),
    "gpt_neox, one after the other": neox(parallel=False),
    "gpt2": gpt2(in_out=True),
    "nanogpt": gpt2(in_out=False),
    "llama": llama(),
    "phi3": phi3(),
    "opt": opt(narrow=False),
    "opt, narrow embedding": opt(narrow=True),
    "torch_encoder": encoder(),
    "torch_encoder, own stack": encoder("layers"),
}

MIXTURES: dict[str, Decoder] = {
    "mixtral": moe("mixtral", shared=False),
    "qwen2_moe": moe("qwen", shared=True),
    "stacked": moe("stacked", shared=True),
}
