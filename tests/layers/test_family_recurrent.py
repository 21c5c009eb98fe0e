"""Recurrent families: which gate, which direction and which layer meet what, as torch.nn computes it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.layers.family_files import find_architecture
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from tests.layers.planted import Array, UnitKey, aligned, inventory_of, plant, random_weights, scores

FIXTURES = Path(__file__).parents[2] / "fixtures"
INPUTS, HIDDEN, CLASSES, TOKENS = 14, 12, 13, 17
"""Twelve hidden units can be cut into three gates and into four."""

MODULES: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": ""}
PRIMARY = {"lstm": "g", "gru": "n"}
GATED = ("lstm", "gru")
EVERY = ("lstm", "gru", "rnn")


class Model(nn.Module):
    """A recurrent stack, with or without an embedding before it and an output layer after it."""

    def __init__(
        self, family: str, layers: int = 2, *, both: bool = False, ends: bool = True, proj_size: int = 0
    ) -> None:
        super().__init__()
        if ends:
            self.embedding = nn.Embedding(TOKENS, INPUTS)
        more = {"proj_size": proj_size} if proj_size else {}
        self.body = MODULES[family](INPUTS, HIDDEN, num_layers=layers, bidirectional=both, **more)
        if ends:
            self.classifier = nn.Linear((proj_size or HIDDEN) * (1 + both), CLASSES)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if tensor.dim() > 1}


def weights_of(model: nn.Module) -> dict[str, Array]:
    return random_weights(shapes_of(model))


def family_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


def expected(family: str, layers: int, *, both: bool, ends: bool, projected: bool) -> set[UnitKey]:
    """The units of a model by its definition: within a direction, from the gates, or from the projection."""
    gates: list[tuple[str, int | None]] = [("gate", number) for number in range(len(GATES[family]))] or [
        ("whole", None)
    ]
    found: set[UnitKey] = set()
    for layer in range(layers):
        for ending in ("", "_reverse") if both else ("",):
            of_inputs, of_hidden, projection = (f"body.weight_{kind}_l{layer}{ending}" for kind in ("ih", "hh", "hr"))
            if ends and layer == 0:
                found.add(("embedding-input", "embedding.weight", of_inputs, "whole", None))
            if projected:
                found |= {("recurrent", giver, projection, *gate) for giver in (of_inputs, of_hidden) for gate in gates}
                found.add(("recurrent", projection, of_hidden, "whole", None))
            else:
                found |= {("recurrent", of_inputs, of_hidden, *gate) for gate in gates}
            givers = (
                [(projection, ("whole", None))]
                if projected
                else [(w, g) for w in (of_inputs, of_hidden) for g in gates]
            )
            if layer + 1 < layers:
                found |= {("recurrent", w, f"body.weight_ih_l{layer + 1}{ending}", *gate) for w, gate in givers}
            elif ends:
                found |= {("output", w, "classifier.weight", *gate) for w, gate in givers}
    return found


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_connections_of_a_stack(family: str, layers: int, both: bool, ends: bool) -> None:
    model = Model(family, layers, both=both, ends=ends)
    found = scores(weights_of(model))
    assert set(found) == expected(family, layers, both=both, ends=ends, projected=False)
    assert all(isinstance(score, float) and score < 0.5 for score in found.values())  # nothing is aligned by chance


@pytest.mark.parametrize("both", [False, True])
def test_connections_of_a_stack_with_projections(both: bool) -> None:
    """What leaves a layer, and what comes back to it, has gone through the projection."""
    found = scores(weights_of(Model("lstm", both=both, proj_size=5)))
    assert set(found) == expected("lstm", 2, both=both, ends=True, projected=True)
    assert all(isinstance(score, float) for score in found.values())


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("wrapper", ["", "net.", "net.encoder."])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_gates_tell_the_families_apart(family: str, wrapper: str, ends: bool, layers: int) -> None:
    """All three have the same names; each is found alone, whatever it is wrapped in, with nothing left over."""
    shapes = shapes_of(Model(family, layers, ends=ends, both=True))
    inventory = inventory_of(random_weights({wrapper + name: shape for name, shape in shapes.items()}))
    assert family_of(inventory) == [family]
    assert inventory.unfitted == []


@pytest.mark.parametrize("family", EVERY)
def test_bare_stack(family: str) -> None:
    """The state dict of the recurrent module itself has no prefix at all."""
    inventory = inventory_of(weights_of(MODULES[family](INPUTS, HIDDEN, 2)))
    assert family_of(inventory) == [family]
    assert {spec.kind for spec in inventory.matrices} == {"recurrent"}


@pytest.mark.parametrize("family", GATED)
def test_gates_are_in_the_order_in_which_torch_computes(family: str) -> None:
    """A step by the formulas, with each gate's rows taken from where the family says, is the step of torch."""
    torch.manual_seed(0)
    module = MODULES[family](INPUTS, HIDDEN).double()
    inputs, before, cell = (torch.randn(1, 1, size, dtype=torch.float64) for size in (INPUTS, HIDDEN, HIDDEN))
    state = (before, cell) if family == "lstm" else before
    output = module(inputs, state)[0][0, 0]

    parameter = find_architecture(family).parameters["input"]
    assert parameter.gates == find_architecture(family).parameters["hidden"].gates
    assert parameter.primary_gate == PRIMARY[family]

    def rows(of: str) -> dict[str, Tensor]:
        return dict(zip(parameter.gates, dict(module.named_parameters())[of].chunk(len(parameter.gates)), strict=True))

    kinds = [rows(f"{kind}_{of}_l0") for of in ("ih", "hh") for kind in ("weight", "bias")]
    x = {gate: kinds[0][gate] @ inputs[0, 0] + kinds[1][gate] for gate in parameter.gates}
    h = {gate: kinds[2][gate] @ before[0, 0] + kinds[3][gate] for gate in parameter.gates}
    if family == "lstm":
        i, f, o = (torch.sigmoid(x[gate] + h[gate]) for gate in "ifo")
        expected_output = o * torch.tanh(f * cell[0, 0] + i * torch.tanh(x["g"] + h["g"]))
    else:
        r, z = (torch.sigmoid(x[gate] + h[gate]) for gate in "rz")
        expected_output = (1 - z) * torch.tanh(x["n"] + r * h["n"]) + z * before[0, 0]
    torch.testing.assert_close(output, expected_output)


@pytest.mark.parametrize(("family", "proj_size"), [("lstm", 0), ("lstm", 5), ("gru", 0), ("rnn", 0)])
@pytest.mark.parametrize("alive", ["", "_reverse"])
def test_columns_of_a_direction_are_those_that_it_feeds(family: str, alive: str, proj_size: int) -> None:
    """With the other direction dead, torch's output depends on the columns that the family gives to the living one."""
    torch.manual_seed(0)
    model = Model(family, 2, both=True, proj_size=proj_size).double()
    body, parameters = model.body, dict(model.body.named_parameters())
    dead = {"": "_reverse", "_reverse": ""}[alive]
    for name, parameter in parameters.items():
        if name.endswith(f"l0{dead}"):
            nn.init.zeros_(parameter)
    inputs = torch.randn(3, 1, INPUTS, dtype=torch.float64)
    reader = parameters[f"weight_ih_l1{alive}"]

    def outputs_without(column: int) -> Tensor:
        kept = reader.detach()[:, column].clone()
        with torch.no_grad():
            reader[:, column] = 0
            output: Tensor = body(inputs)[0]
            reader[:, column] = kept
        return output

    full = body(inputs)[0].detach()
    read = {column for column in range(reader.shape[1]) if not torch.equal(outputs_without(column), full)}

    inventory = inventory_of(weights_of(model))
    spans = {
        unit.downstream.part.cols
        for connection in inventory.connections()
        if inventory.matrices[connection.downstream].parameter == f"body.weight_ih_l1{alive}"
        for unit in connection.units
        if unit.downstream is not None
    }
    assert [{*range(*span)} for (span,) in spans] == [read]


@pytest.mark.parametrize("family", EVERY)
def test_output_layer_reads_the_forward_direction_first(family: str) -> None:
    """What torch gives of two directions has the forward one first, as the family says of the columns after it."""
    model = Model(family, 1, both=True)
    for name, parameter in model.body.named_parameters():
        if name.endswith("_reverse"):
            nn.init.zeros_(parameter)
    alive = model.body(torch.randn(3, 1, INPUTS))[0][0, 0] != 0
    inventory = inventory_of(weights_of(model))
    spans = {
        unit.downstream.part.cols
        for connection in inventory.connections()
        if connection.name == "output" and not inventory.matrices[connection.upstream].parameter.endswith("_reverse")
        for unit in connection.units
        if unit.downstream is not None
    }
    assert spans == {((0, HIDDEN),)}
    assert alive.tolist() == [column < HIDDEN for column in range(2 * HIDDEN)]


def gate_rows(family: str, weights: dict[str, Array], name: str, gate: str) -> Array:
    """Rows of one gate in torch's order, all of them without gates; the rows of the others are made zero."""
    if not gate:
        return weights[name]
    weights[name][:] = 0
    place = GATES[family].index(gate)
    return weights[name][place * HIDDEN : (place + 1) * HIDDEN]


def units_at(family: str, gate: str) -> tuple[str, int | None]:
    return ("gate", GATES[family].index(gate)) if gate else ("whole", None)


def primary_units(weights: dict[str, Array], structure: StructureOptions | None = None) -> set[UnitKey]:
    inventory = inventory_of(weights, structure=structure)
    found: set[UnitKey] = set()
    for connection in inventory.connections():
        upstream, downstream = (
            inventory.matrices[end].parameter for end in (connection.upstream, connection.downstream)
        )
        found |= {(connection.name, upstream, downstream, u.unit, u.index) for u in connection.units if u.primary}
    return found


CASES = [(family, gate) for family in EVERY for gate in GATES[family] or [""]]


@pytest.mark.parametrize(("family", "gate"), CASES)
def test_input_weights_feed_hidden_weights_gate_by_gate(family: str, gate: str) -> None:
    """Only the planted gate is aligned, and it is primary if it makes the new state."""
    weights = weights_of(Model(family))
    plant(gate_rows(family, weights, "body.weight_ih_l0", gate), weights["body.weight_hh_l0"])
    key = ("recurrent", "body.weight_ih_l0", "body.weight_hh_l0", *units_at(family, gate))
    assert aligned(scores(weights)) == {key}
    assert (key in primary_units(weights)) == (gate == PRIMARY.get(family, ""))


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("ending", ["", "_reverse"])
@pytest.mark.parametrize("kind", ["ih", "hh"])
@pytest.mark.parametrize("reader", ["body.weight_ih_l1", "classifier.weight"])
def test_a_direction_feeds_its_half_of_what_comes_next(family: str, ending: str, kind: str, reader: str) -> None:
    """Input and hidden weights of a layer to the next layer's input weights of their direction, or the output layer."""
    weights = weights_of(Model(family, both=True))
    last = reader == "classifier.weight"
    reader = reader if last else f"{reader}{ending}"
    giver, gate = f"body.weight_{kind}_l{int(last)}{ending}", PRIMARY.get(family, "")
    half = slice(HIDDEN) if ending == "" else slice(HIDDEN, None)
    plant(gate_rows(family, weights, giver, gate), weights[reader][:, half])
    key = ("output" if last else "recurrent", giver, reader, *units_at(family, gate))
    assert aligned(scores(weights)) == {key}


@pytest.mark.parametrize("family", EVERY)
def test_embedding_feeds_input_weights(family: str) -> None:
    weights = weights_of(Model(family, both=True))
    plant(weights["embedding.weight"].T, weights["body.weight_ih_l0_reverse"])
    key = ("embedding-input", "embedding.weight", "body.weight_ih_l0_reverse", "whole", None)
    assert aligned(scores(weights)) == {key}


PROJECTED = HIDDEN - 1
"""The widest projection that torch takes."""


@pytest.mark.parametrize(
    ("reader", "columns"),
    [
        ("body.weight_hh_l0_reverse", slice(None)),
        ("body.weight_ih_l1_reverse", slice(PROJECTED, None)),
    ],
)
def test_projection_feeds_what_reads_the_layer(reader: str, columns: slice) -> None:
    weights = weights_of(Model("lstm", both=True, proj_size=PROJECTED))
    plant(weights["body.weight_hr_l0_reverse"], weights[reader][:, columns])
    assert aligned(scores(weights)) == {("recurrent", "body.weight_hr_l0_reverse", reader, "whole", None)}


@pytest.mark.parametrize("gate", "ifgo")
def test_gates_feed_the_projection(gate: str) -> None:
    weights = weights_of(Model("lstm", proj_size=PROJECTED))
    plant(gate_rows("lstm", weights, "body.weight_hh_l1", gate), weights["body.weight_hr_l1"])
    key = ("recurrent", "body.weight_hh_l1", "body.weight_hr_l1", "gate", "ifgo".index(gate))
    assert aligned(scores(weights)) == {key}


def other_convention(folder: Path, family: str, old: str, new: str) -> StructureOptions:
    """The same family with something said otherwise."""
    text = files("spectra_cli.layers").joinpath("architectures", f"{family}.toml").read_text("utf-8")
    assert old in text
    path = folder / "other.toml"
    path.write_text(text.replace(old, new), "utf-8")
    return StructureOptions(architecture=str(path))


@pytest.mark.parametrize(
    ("family", "right", "wrong"),
    [
        ("lstm", '["i", "f", "g", "o"]', '["i", "f", "o", "g"]'),
        ("lstm", '["i", "f", "g", "o"]', '["i", "g", "f", "o"]'),
        ("gru", '["r", "z", "n"]', '["n", "r", "z"]'),
        ("gru", '["r", "z", "n"]', '["r", "n", "z"]'),
    ],
)
def test_another_order_of_gates_loses_the_primary_one(family: str, right: str, wrong: str, tmp_path: Path) -> None:
    weights = weights_of(Model(family))
    plant(gate_rows(family, weights, "body.weight_ih_l0", PRIMARY[family]), weights["body.weight_hh_l0"])
    assert len(aligned(scores(weights)) & primary_units(weights)) == 1
    other = other_convention(tmp_path, family, right, wrong)
    assert not aligned(scores(weights, structure=other)) & primary_units(weights, other)


@pytest.mark.parametrize("family", EVERY)
def test_another_order_of_directions_loses_the_alignment(family: str, tmp_path: Path) -> None:
    weights = weights_of(Model(family, both=True))
    gate = PRIMARY.get(family, "")
    plant(gate_rows(family, weights, "body.weight_hh_l0", gate), weights["body.weight_ih_l1"][:, :HIDDEN])
    assert len(aligned(scores(weights))) == 1
    other = other_convention(tmp_path, family, 'd = ["", "_reverse"]', 'd = ["_reverse", ""]')
    assert not aligned(scores(weights, structure=other))


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("name", ["rnns.{i}", "layers.{i}", "rnn{i}", "{family}s.{i}", "{family}{i}"])
def test_numbered_modules_of_one_layer_each_are_a_stack(family: str, name: str) -> None:
    """What every module gives, the next one reads."""
    stack = [name.format(family=family, i=place) for place in (1, 2, 3)]
    modules = {"encoder": nn.Embedding(TOKENS, INPUTS), "decoder": nn.Linear(HIDDEN, TOKENS)}
    shapes = shapes_of(nn.ModuleDict(modules))
    for place, size in zip(stack, (INPUTS, HIDDEN, HIDDEN), strict=True):
        shapes |= {f"{place}.{key}": shape for key, shape in shapes_of(MODULES[family](size, HIDDEN)).items()}
    weights = random_weights(shapes)
    inventory = inventory_of(weights)
    assert family_of(inventory) == [family]
    assert inventory.unfitted == []
    found = scores(weights)
    assert all(isinstance(score, float) for score in found.values())
    edges = {key[:3] for key in found}
    both = [(place, kind) for place in range(3) for kind in ("ih", "hh")]
    assert edges == {("embedding-input", "encoder.weight", f"{stack[0]}.weight_ih_l0")} | {
        ("recurrent", f"{module}.weight_ih_l0", f"{module}.weight_hh_l0") for module in stack
    } | {
        ("recurrent", f"{stack[place]}.weight_{kind}_l0", f"{stack[place + 1]}.weight_ih_l0")
        for place, kind in both
        if place < 2
    } | {("output", f"{stack[2]}.weight_{kind}_l0", "decoder.weight") for kind in ("ih", "hh")}


def test_stacks_of_several_layers_in_a_list_are_no_chain_of_single_layers() -> None:
    """Layer 0 of one stack does not feed layer 0 of the next one past layer 1."""
    weights = weights_of(nn.ModuleDict({"layers": nn.ModuleList([nn.LSTM(HIDDEN, HIDDEN, 2) for _ in range(3)])}))
    found = scores(weights)
    assert {key[1].split(".")[1] for key in found} == {"0", "1", "2"}
    assert all(key[1].split(".")[1] == key[2].split(".")[1] for key in found)


def test_encoder_and_decoder_are_two_parts() -> None:
    """A GRU that reads and an LSTM that writes, each with its embedding."""
    parts = {"encoder": Model("gru", 1), "decoder": Model("lstm", 1)}
    del parts["encoder"].classifier
    inventory = inventory_of(weights_of(nn.ModuleDict(parts)))
    assert family_of(inventory) == ["gru", "lstm"]
    assert inventory.unfitted == []
    names = [
        (inventory.matrices[connection.upstream].parameter, inventory.matrices[connection.downstream].parameter)
        for connection in inventory.connections()
    ]
    assert ("encoder.embedding.weight", "encoder.body.weight_ih_l0") in names
    assert all(one.split(".")[0] == two.split(".")[0] for one, two in names)


def test_tied_output_layer_is_the_embedding() -> None:
    """The language model of the PyTorch examples: its decoder is its encoder, and the checkpoint has it once."""
    weights = random_weights(
        {
            "encoder.weight": (TOKENS, HIDDEN),
            "rnn.weight_ih_l0": (4 * HIDDEN, HIDDEN),
            "rnn.weight_hh_l0": (4 * HIDDEN, HIDDEN),
        }
    )
    plant(gate_rows("lstm", weights, "rnn.weight_hh_l0", "g"), weights["encoder.weight"])
    found = scores(weights, {"tie_word_embeddings": True})
    assert aligned(found) == {("output", "rnn.weight_hh_l0", "encoder.weight", "gate", 2)}


def test_output_layer_that_reads_one_direction_only_is_no_match() -> None:
    """Its width is not that of two directions: said, not guessed."""
    weights = weights_of(Model("lstm", 1, both=True)) | {"classifier.weight": np.zeros((CLASSES, HIDDEN))}
    assert {status for key, status in scores(weights).items() if key[0] == "output"} == {"shape_mismatch"}


def test_trained_lstm_fits() -> None:
    """The fixture: two layers, two directions, an output layer of both."""
    with open_checkpoint(FIXTURES / "lstm" / "checkpoint-1000") as reader:
        inventory = take_inventory(reader.tensors, ordered=reader.ordered)
    assert family_of(inventory) == ["lstm"]
    assert inventory.unfitted == []
    units = [(connection.name, unit.status) for connection in inventory.connections() for unit in connection.units]
    # Per direction: input to hidden in 2 layers, 2 matrices to the next layer, 2 to the output; 4 gates each.
    assert sorted(units) == [("output", "ok")] * 2 * 2 * 4 + [("recurrent", "ok")] * 2 * (2 + 2) * 4


def test_names_of_the_papers() -> None:
    """Their speech model has ``lstm`` and ``linear``."""
    model = nn.ModuleDict({"lstm": nn.LSTM(INPUTS, HIDDEN, 2), "linear": nn.Linear(HIDDEN, CLASSES)})
    weights = weights_of(model)
    plant(gate_rows("lstm", weights, "lstm.weight_hh_l1", "g"), weights["linear.weight"])
    assert inventory_of(weights).unfitted == []
    assert aligned(scores(weights)) == {("output", "lstm.weight_hh_l1", "linear.weight", "gate", 2)}


def numbered(*modules: nn.RNNBase, output: int = 0) -> dict[str, Array]:
    """Modules of one layer each, one after the other, and a layer that reads the last one."""
    name = type(modules[0]).__name__.lower()
    parts: dict[str, nn.Module] = {f"{name}{place}": module for place, module in enumerate(modules, 1)}
    return weights_of(nn.ModuleDict(parts | ({"fc": nn.Linear(output, CLASSES)} if output else {})))


@pytest.mark.parametrize("family", GATED)
@pytest.mark.parametrize("ending", ["", "_reverse"])
@pytest.mark.parametrize("kind", ["ih", "hh"])
def test_both_directions_feed_a_layer_of_one(family: str, ending: str, kind: str) -> None:
    """Each its own half of the columns, as torch puts them side by side."""
    module = MODULES[family]
    weights = numbered(module(INPUTS, HIDDEN, bidirectional=True), module(2 * HIDDEN, HIDDEN), output=HIDDEN)
    giver, reader = f"{family}1.weight_{kind}_l0{ending}", f"{family}2.weight_ih_l0"
    half = slice(HIDDEN) if ending == "" else slice(HIDDEN, None)
    plant(gate_rows(family, weights, giver, PRIMARY[family]), weights[reader][:, half])
    assert family_of(inventory_of(weights)) == [family]
    assert aligned(scores(weights)) == {("recurrent", giver, reader, *units_at(family, PRIMARY[family]))}
    assert all(isinstance(score, float) for score in scores(weights).values())


@pytest.mark.parametrize("family", GATED)
@pytest.mark.parametrize("ending", ["", "_reverse"])
def test_a_layer_of_one_direction_feeds_both_of_the_next(family: str, ending: str) -> None:
    module = MODULES[family]
    weights = numbered(module(INPUTS, HIDDEN), module(HIDDEN, HIDDEN, bidirectional=True), output=2 * HIDDEN)
    giver, reader = f"{family}1.weight_hh_l0", f"{family}2.weight_ih_l0{ending}"
    plant(gate_rows(family, weights, giver, PRIMARY[family]), weights[reader])
    assert aligned(scores(weights)) == {("recurrent", giver, reader, *units_at(family, PRIMARY[family]))}
    assert all(isinstance(score, float) for score in scores(weights).values())


def test_directions_do_not_meet_within_a_layer() -> None:
    """A checkpoint that lacks the hidden weights of a direction has no connections between the two."""
    weights = weights_of(nn.LSTM(INPUTS, HIDDEN, bidirectional=True))
    del weights["weight_hh_l0_reverse"]
    assert {key[1:3] for key in scores(weights)} == {("weight_ih_l0", "weight_hh_l0")}
