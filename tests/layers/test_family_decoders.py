"""Decoders with known weights: what meets in the model's forward is what aligns, under no other convention."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spectra_cli.layers.family_files import find_architecture
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory

from .decoders import (
    DENSE,
    HEAD,
    HEADS,
    HIDDEN,
    KEY_HEADS,
    MIXTURES,
    WIDTH,
    Block,
    Connections,
    Decoder,
    contiguous_rows,
    encoder_block,
    expected_connections,
    llama_block,
    moe_block,
    units_of,
)
from .planted import Array, UnitKey, aligned, inventory_of, plant, random_weights, score_of, scores

DECODERS = DENSE | MIXTURES
PLANTED = [(name, key) for name, decoder in DECODERS.items() for key in decoder.planted(decoder.weights())]


def label(value: object) -> str:
    """Of a test: connection and parameters, short."""
    parts = value if isinstance(value, tuple) else (value,)
    return " ".join(re.sub(r"\.weight|model\.|layers\.", "", str(part)) for part in parts if part is not None)


def with_planted(decoder: Decoder, key: UnitKey) -> dict[str, Array]:
    """Random weights but for what meets in one unit."""
    weights = decoder.weights()
    plant(*decoder.planted(weights)[key])
    return weights


def altered(family: str, folder: Path, *changes: tuple[str, str]) -> StructureOptions:
    """A family with another convention: its file, changed, as a user's own."""
    text = _text(family)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "altered.toml"
    path.write_text(text, "utf-8")
    return StructureOptions(architecture=str(path))


def _text(family: str) -> str:
    return files("spectra_cli.layers").joinpath(f"architectures/{family}.toml").read_text("utf-8")


def score_at(
    key: UnitKey, weights: Mapping[str, Array], decoder: Decoder, structure: StructureOptions | None = None
) -> float | str:
    """Score of one unit; its status, or ``no such unit``, where there is none."""
    inventory = inventory_of(weights, decoder.config, structure)
    for connection in inventory.connections():
        ends = (inventory.matrices[connection.upstream].parameter, inventory.matrices[connection.downstream].parameter)
        for unit in connection.units:
            if key == (connection.name, *ends, unit.unit, unit.index):
                return score_of(unit, inventory, weights) if unit.status == "ok" else unit.status
    return "no such unit"


def is_aligned(score: float | str) -> bool:
    return isinstance(score, float) and score > 0.999


def families_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


@pytest.mark.parametrize("name", DECODERS)
class TestStructure:
    def test_the_family_is_found_and_explains_every_matrix(self, name: str) -> None:
        decoder = DECODERS[name]
        for config in (decoder.config, None):
            inventory = inventory_of(decoder.weights(), config)
            assert families_of(inventory) == [decoder.family]
            assert inventory.unfitted == []

    def test_connections_are_those_of_the_models_definition(self, name: str) -> None:
        decoder = DECODERS[name]
        assert units_of(inventory_of(decoder.weights(), decoder.config)) == decoder.connections()

    def test_random_weights_align_nowhere(self, name: str) -> None:
        decoder = DECODERS[name]
        found = scores(decoder.weights(), decoder.config)
        assert max(score for score in found.values() if isinstance(score, float)) < 0.6


@pytest.mark.parametrize(("name", "key"), PLANTED, ids=label)
class TestPlanted:
    def test_vectors_planted_in_one_unit_align_there_and_nowhere_else(self, name: str, key: UnitKey) -> None:
        decoder = DECODERS[name]
        assert aligned(scores(with_planted(decoder, key), decoder.config)) == {key}

    def test_they_do_not_align_if_either_matrix_is_read_in_the_other_layout(
        self, name: str, key: UnitKey, tmp_path: Path
    ) -> None:
        decoder = DECODERS[name]
        weights = with_planted(decoder, key)
        assert is_aligned(score_at(key, weights, decoder, altered(decoder.family, tmp_path)))
        _, upstream, downstream, *_ = key
        turned = 0
        for parameter in find_architecture(decoder.family).parameters.values():
            names = {upstream, downstream}
            if parameter.layout and any(
                template.pattern.fullmatch(end) for template in parameter.names for end in names
            ):
                other = "out,in" if parameter.layout == "in,out" else "in,out"
                section = _section(decoder.family, parameter.role)
                change = (section, section.replace(f'layout = "{parameter.layout}"', f'layout = "{other}"'))
                assert not is_aligned(score_at(key, weights, decoder, altered(decoder.family, tmp_path, change)))
                turned += 1
        assert turned >= 1 or all(name.endswith("]") for name in (upstream, downstream))  # whose shapes tell


def _section(family: str, role: str) -> str:
    """The table of a role in a family's file."""
    tables = re.split(r"\n(?=\[)", _text(family))
    return next(table for table in tables if table.startswith(f"[parameters.{role}]"))


def unwrapped(connections: Connections) -> Connections:
    """Without the ``model.`` that all names have where the output layer is left out."""
    names = [name for key in connections for name in key[1:]]
    prefix = "model." if all(name.startswith("model.") for name in names) else ""
    return {(key[0], *(name.removeprefix(prefix) for name in key[1:])): units for key, units in connections.items()}


class TestFusedMatrices:
    """Which rows of a fused matrix are which head of what."""

    @pytest.mark.parametrize("connection", ["query-key", "value-output"])
    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("gpt_neox, parallel", ('order = "interleaved"', 'order = "contiguous"')),
            ("gpt2", ('split = ["query", "key", "value"]', 'split = ["query", "key", "value"]\norder = "interleaved"')),
            (
                "nanogpt",
                ('split = ["query", "key", "value"]', 'split = ["query", "key", "value"]\norder = "interleaved"'),
            ),
            ("phi3", ('split = ["query", "key", "value"]', 'split = ["query", "key", "value"]\norder = "interleaved"')),
            (
                "torch_encoder",
                ('split = ["query", "key", "value"]', 'split = ["query", "key", "value"]\norder = "interleaved"'),
            ),
            *(
                (name, ('["query", "key", "value"]', '["value", "query", "key"]'))
                for name in ("gpt_neox, parallel", "gpt2", "nanogpt", "phi3", "torch_encoder")
            ),
        ],
    )
    def test_heads_do_not_align_under_another_order_of_rows(
        self, name: str, change: tuple[str, str], connection: str, tmp_path: Path
    ) -> None:
        decoder = DECODERS[name]
        weights = decoder.weights()
        key, ends = next(case for case in decoder.planted(weights, head=1).items() if case[0][0] == connection)
        plant(*ends)
        assert is_aligned(score_at(key, weights, decoder))
        assert not is_aligned(score_at(key, weights, decoder, altered(decoder.family, tmp_path, change)))

    @pytest.mark.parametrize("name", ["phi3", "stacked"])
    def test_gate_and_up_are_halves_not_every_other_row(self, name: str) -> None:
        decoder = DECODERS[name]
        weights = decoder.weights()
        up, down, _ = decoder.blocks[0].up_down[0]
        plant(decoder.matrix(weights, up)[::2], decoder.matrix(weights, down))
        assert aligned(scores(weights, decoder.config)) == set()

    @pytest.mark.parametrize("name", ["gpt2", "nanogpt", "torch_encoder", "gpt_neox, parallel"])
    def test_all_values_meet_the_output_projection_as_a_whole(self, name: str) -> None:
        decoder = DECODERS[name]
        weights, block = decoder.weights(), decoder.blocks[0]
        fused, output = decoder.matrix(weights, block.value), decoder.matrix(weights, block.output)
        rows = np.concatenate([np.arange(len(fused))[decoder.rows("value", head)] for head in range(HEADS)])
        values = fused[rows]
        plant(values, output)
        fused[rows] = values
        key = ("value-output", block.value, block.output)
        follow = {(*key, "head", head) for head in range(HEADS)}  # the two were given the same singular values
        assert aligned(scores(weights, decoder.config)) == {(*key, "whole", None)} | follow


class TestGroupedQueries:
    """Which key and value head a query head meets."""

    @pytest.mark.parametrize("name", ["llama", "phi3", "qwen2_moe"])
    def test_consecutive_query_heads_share_a_key_head(self, name: str) -> None:
        """Query heads 0 and 1 meet key head 0, 2 and 3 key head 1; not 0 and 2, 1 and 3."""
        decoder = DECODERS[name]
        block = decoder.blocks[0]
        met = {}
        for query in range(HEADS):
            for key in range(KEY_HEADS):
                weights = decoder.weights()
                keys = decoder.of_head(weights, block, "key", key)
                plant(decoder.of_head(weights, block, "query", query), keys.T)
                met[query, key] = aligned(scores(weights, decoder.config))
        expected = {
            (query, key): {("query-key", block.query, block.key, "head", query)} if key == query // 2 else set()
            for query, key in met
        }
        assert met == expected

    @pytest.mark.parametrize("name", ["llama", "phi3", "qwen2_moe"])
    def test_a_wrong_number_of_key_heads_is_a_mismatch_and_no_wrong_number(self, name: str) -> None:
        decoder = DECODERS[name]
        inventory = inventory_of(decoder.weights(), {}, StructureOptions(heads=HEADS))
        units = [unit for each in inventory.connections() if each.name == "query-key" for unit in each.units]
        assert {unit.status for unit in units} == {"head_count_mismatch"}


class TestHeadCounts:
    @pytest.mark.parametrize("name", DECODERS)
    def test_options_supply_what_config_json_does_not_say(self, name: str) -> None:
        decoder = DECODERS[name]
        rest = {key: value for key, value in decoder.config.items() if "head" not in key}
        without = inventory_of(decoder.weights(), rest)
        heads = [unit for each in without.connections() for unit in each.units if unit.unit == "head"]
        assert {(unit.index, unit.status) for unit in heads} == {(None, "no_head_count")}
        given = StructureOptions(heads=HEADS, kv_heads=HEADS // decoder.group)
        assert units_of(inventory_of(decoder.weights(), rest, given)) == decoder.connections()

    @pytest.mark.parametrize("name", ["gpt2", "nanogpt", "torch_encoder", "opt"])
    def test_the_whole_of_value_and_output_needs_none_where_values_stand_together(self, name: str) -> None:
        decoder = DECODERS[name]
        found = units_of(inventory_of(decoder.weights()))
        block = decoder.blocks[0]
        assert found["value-output", block.value, block.output] == "1 head no_head_count + 1 whole"


class TestTiedEmbeddings:
    @pytest.mark.parametrize("name", DECODERS)
    def test_the_embedding_is_what_the_last_block_feeds(self, name: str) -> None:
        decoder = DECODERS[name]
        weights = decoder.weights()
        del weights[decoder.outputs[-1]]
        tied = {**decoder.config, "tie_word_embeddings": True}
        outputs = (*decoder.outputs[:-1], decoder.inputs[0])
        expected = expected_connections(
            decoder.inputs, decoder.blocks, outputs, whole=decoder.whole, parallel=decoder.parallel
        )
        assert units_of(inventory_of(weights, tied)) == unwrapped(expected)
        giver = decoder.outputs[0] if len(decoder.outputs) > 1 else decoder.blocks[-1].up_down[-1][1]
        plant(decoder.matrix(weights, giver), weights[decoder.inputs[0]])
        (found,) = aligned(scores(weights, tied))
        assert {found[:3]: "1 whole"} == unwrapped({("output", giver, decoder.inputs[0]): "1 whole"})

    @pytest.mark.parametrize("name", DECODERS)
    def test_without_an_output_layer_nothing_is_made_up(self, name: str) -> None:
        decoder = DECODERS[name]
        weights = decoder.weights()
        del weights[decoder.outputs[-1]]
        config = {**decoder.config, "tie_word_embeddings": False}
        expected = expected_connections(
            decoder.inputs, decoder.blocks, decoder.outputs[:-1], whole=decoder.whole, parallel=decoder.parallel
        )
        assert units_of(inventory_of(weights, config)) == unwrapped(expected)

    def test_gemma_ties_where_config_json_does_not_say_and_llama_does_not(self) -> None:
        decoder = DECODERS["llama"]
        weights = decoder.weights()
        del weights["lm_head.weight"]
        outputs = {
            kind: {
                key
                for key in units_of(inventory_of(weights, {**decoder.config, "model_type": kind}))
                if key[0] == "output"
            }
            for kind in ("gemma", "gemma2", "gemma3_text", "llama", "mistral")
        }
        tied = {("output", "layers.1.mlp.down_proj.weight", "embed_tokens.weight")}
        assert outputs == dict.fromkeys(("gemma", "gemma2", "gemma3_text"), tied) | {"llama": set(), "mistral": set()}


class TestLayoutsOfGpt2:
    @pytest.mark.parametrize("name", ["gpt2", "nanogpt"])
    def test_dimensions_that_meet_tell_more_than_config_json(self, name: str) -> None:
        inventory = inventory_of(DECODERS[name].weights(), {"n_head": HEADS, "model_type": "gpt2"})
        assert families_of(inventory) == [name]


class TestParallelResidual:
    def test_what_both_add_feeds_all_that_the_next_block_reads(self) -> None:
        decoder = DECODERS["gpt_neox, parallel"]
        found = units_of(inventory_of(decoder.weights(), decoder.config))
        assert sum(name == "residual" for name, _, _ in found) == 4
        assert not any(name == "output-up" for name, _, _ in found)

    def test_it_goes_without_saying(self) -> None:
        decoder = DECODERS["gpt_neox, parallel"]
        assert units_of(inventory_of(decoder.weights(), {"num_attention_heads": HEADS})) == decoder.connections()


class TestMixtures:
    def test_blocks_with_a_plain_mlp_stand_among_those_with_experts(self) -> None:
        def block(number: int) -> Block:
            start = f"model.layers.{number}"
            return llama_block(start) if number == 0 else moe_block(start, 2, names="qwen")

        sparse, dense = DECODERS["qwen2_moe"], DECODERS["llama"]
        weights = {
            name: array for name, array in sparse.weights().items() if ".0.mlp." not in name and "shared" not in name
        }
        weights |= {name: array for name, array in dense.weights().items() if ".0.mlp." in name}
        inventory = inventory_of(weights, sparse.config)
        assert families_of(inventory) == ["moe"]
        assert inventory.unfitted == []
        blocks = [block(0), block(1)]
        assert units_of(inventory) == expected_connections(sparse.inputs, blocks, sparse.outputs, whole=sparse.whole)

    def test_an_expert_of_a_stack_connects_with_its_like_only(self) -> None:
        found = units_of(inventory_of(DECODERS["stacked"].weights(), DECODERS["stacked"].config))
        pairs = [(up[-2], down[-2]) for name, up, down in found if name == "up-down" and "experts" in up]
        assert sorted(pairs) == [("0", "0"), ("0", "0"), ("1", "1"), ("1", "1")]


class TestTorchEncoder:
    """torch.nn.TransformerEncoder, by PyTorch's own module."""

    def test_names_and_shapes_are_those_of_the_module(self) -> None:
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True)
        stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        shapes = {f"transformer_encoder.{name}": tuple(value.shape) for name, value in stack.state_dict().items()}
        decoder = DECODERS["torch_encoder"]
        shapes |= {name: shape for name, shape in decoder.shapes.items() if "layers" not in name}
        assert units_of(inventory_of(random_weights(shapes), decoder.config)) == decoder.connections()

    def test_rows_of_in_proj_are_all_queries_then_keys_then_values(self) -> None:
        """By the module's forward: without values of head 2 attention gives nothing in the columns of head 2."""
        torch.manual_seed(0)
        attention = torch.nn.MultiheadAttention(WIDTH, HEADS, bias=False, batch_first=True)
        with torch.no_grad():
            attention.in_proj_weight[contiguous_rows("value", 2)] = 0
            attention.out_proj.weight.copy_(torch.eye(WIDTH))
        given = attention(*[torch.randn(1, 5, WIDTH)] * 3)[0]
        silent = (given.abs().amax((0, 1)) == 0).nonzero().flatten().tolist()
        assert silent == list(range(2 * HEAD, 3 * HEAD))

    def test_a_decoder_that_attends_to_an_encoder_is_none(self) -> None:
        model = torch.nn.Transformer(WIDTH, HEADS, 2, 2, HIDDEN, batch_first=True)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        inventory = inventory_of(random_weights(shapes), {"nhead": HEADS})
        assert [family.fit.prefix for family in inventory.families] == ["encoder."]
        assert all(spec.parameter.startswith("decoder.") for spec in inventory.unfitted)
        assert len(inventory.unfitted) == 2 * 6
        expected = expected_connections((), [encoder_block(f"encoder.layers.{number}") for number in (0, 1)], ())
        assert units_of(inventory) == expected

    def test_the_grokking_fixture_is_one(self) -> None:
        run = Path(__file__).parents[2] / "fixtures" / "grokking" / "seed_0"
        config = json.loads((run / "config.json").read_text("utf-8"))
        weights = {name: value.double().numpy() for name, value in load_file(run / "step_0.safetensors").items()}
        inventory = inventory_of(weights, config)
        assert families_of(inventory) == ["torch_encoder"]
        assert inventory.unfitted == []
        block = encoder_block("transformer_encoder.layers.0")
        expected = expected_connections(("encoder.weight",), [block], ("decoder.weight",))
        assert units_of(inventory) == expected
