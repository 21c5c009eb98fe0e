"""Parts of a model that have an embedding or an output layer between them: whose it is, and who is tied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tensors import TensorInfo

from .planted import inventory_of, random_weights

Shape = tuple[int, ...]
INPUTS, HIDDEN, TOKENS, WIDTH = 14, 12, 17, 16


def shapes_of(**modules: nn.Module) -> dict[str, Shape]:
    return {
        f"{name}.{key}": tuple(value.shape)
        for name, module in modules.items()
        for key, value in module.state_dict().items()
        if value.dim() > 1
    }


def edges(shapes: Mapping[str, Shape], *names: str) -> set[tuple[str, str]]:
    inventory = inventory_of(random_weights(shapes))
    parameters = [spec.parameter for spec in inventory.matrices]
    return {
        (parameters[found.upstream], parameters[found.downstream])
        for found in inventory.connections()
        if found.name in names
    }


@pytest.mark.parametrize("layers", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_first_part_has_the_embedding_and_the_last_one_the_output(
    kind: type[nn.RNNBase], layers: tuple[int, int]
) -> None:
    """Whichever of the two has more matrices."""
    shapes = shapes_of(
        embedding=nn.Embedding(TOKENS, INPUTS),
        enc_rnn=kind(INPUTS, HIDDEN, layers[0]),
        dec_rnn=kind(INPUTS, HIDDEN, layers[1]),
        out=nn.Linear(HIDDEN, TOKENS),
    )
    assert edges(shapes, "embedding-input") == {("embedding.weight", "enc_rnn.weight_ih_l0")}
    last = layers[1] - 1
    assert edges(shapes, "output") == {(f"dec_rnn.weight_{one}_l{last}", "out.weight") for one in ("ih", "hh")}


def test_a_stack_before_a_single_layer_does_not_feed_the_output() -> None:
    shapes = shapes_of(lstm1=nn.LSTM(INPUTS, HIDDEN, 2), lstm2=nn.LSTM(HIDDEN, HIDDEN, 1), fc=nn.Linear(HIDDEN, TOKENS))
    assert edges(shapes, "output") == {(f"lstm2.weight_{one}_l0", "fc.weight") for one in ("ih", "hh")}


def test_what_does_not_meet_its_part_meets_none() -> None:
    """The output layer reads as many channels as the first stack gives, whose neighbour it is not."""
    shapes = shapes_of(
        embedding=nn.Embedding(TOKENS, HIDDEN),  # meets the second stack only
        lstm1=nn.LSTM(INPUTS, HIDDEN, 2),
        lstm2=nn.LSTM(HIDDEN, HIDDEN + 1, 2),
        fc=nn.Linear(HIDDEN, TOKENS),
    )
    assert edges(shapes, "output", "embedding-input") == set()
    inventory = inventory_of(random_weights(shapes))
    assert {spec.parameter for spec in inventory.unfitted} == {"embedding.weight", "fc.weight"}
    assert {unit.status for found in inventory.connections() for unit in found.units} == {"ok"}


def test_what_stands_within_a_part_is_its_own() -> None:
    """The first part has an output layer of its own; the other one has that outside."""
    parts = nn.ModuleDict({"body": nn.LSTM(INPUTS, HIDDEN), "fc": nn.Linear(HIDDEN, TOKENS)})
    shapes = shapes_of(a=parts, b=nn.ModuleDict({"body": nn.LSTM(INPUTS, HIDDEN)}), fc=nn.Linear(HIDDEN, TOKENS))
    found = {(up.partition(".")[0], down) for up, down in edges(shapes, "output")}
    assert found == {("a", "a.fc.weight"), ("b", "fc.weight")}


def decoder(prefix: str) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{prefix}embed_tokens.weight": (TOKENS, WIDTH)}
    shapes |= {f"{prefix}layers.0.self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkvo"}
    return shapes | {f"{prefix}layers.0.mlp.{one}_proj.weight": (WIDTH, WIDTH) for one in ("gate", "up", "down")}


TIED = {"tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("prefixes", "tied"),
    [
        (("",), [True]),
        (("encoder.",), [False]),
        (("model.encoder.",), [False]),
        (("text_encoder.",), [True]),
        (("encoder.", "decoder."), [False, True]),
        (("first.", "second."), [False, True]),
    ],
)
def test_the_last_part_is_tied_and_an_encoder_never(prefixes: tuple[str, ...], tied: list[bool]) -> None:
    shapes: dict[str, Shape] = {name: shape for prefix in prefixes for name, shape in decoder(prefix).items()}
    shapes["other.weight"] = (3, 3)  # so that no prefix is a wrapper's
    inventory = inventory_of(random_weights(shapes), TIED)
    assert [family.fit.prefix for family in inventory.families] == list(prefixes)
    assert [family.tied for family in inventory.families] == tied


def test_a_tie_within_a_part_is_its_own() -> None:
    """Two models, each of which has its embedding twice."""
    tensors: dict[str, TensorInfo] = {}
    for prefix in ("student.", "teacher."):
        tensors |= {name: TensorInfo(name, shape, "float32", "", name) for name, shape in decoder(prefix).items()}
        head = f"{prefix}lm_head.weight"
        tensors[head] = TensorInfo(head, (TOKENS, WIDTH), "float32", "", f"{prefix}embed_tokens.weight")
    config: dict[str, Any] = {}
    inventory = take_inventory(tensors, ordered=True, config=config)
    assert [item.status for item in inventory.skipped] == ["tied", "tied"]
    assert [family.tied for family in inventory.families] == [True, True]
