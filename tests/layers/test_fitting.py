"""How families are chosen, and what stands where none fits: whatever the names, shapes and configuration say."""

from __future__ import annotations

import math
import random
import time
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_cli.errors import UsageError
from spectra_cli.layers import fitting
from spectra_cli.layers.family_files import known_architectures, parse_architecture
from spectra_cli.layers.fitting import SEQUENTIAL, StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tensors import TensorInfo

from .planted import UnitKey, aligned, inventory_of, plant, random_weights, scores, vectors_of

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

WIDTH, INNER, TOKENS = 16, 28, 40


def tensors_of(shapes: Mapping[str, Shape]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}


def families_of(inventory: Inventory) -> list[tuple[str, str]]:
    """Family and prefix."""
    return [(family.fit.architecture.family, family.fit.prefix) for family in inventory.families]


def statuses(inventory: Inventory, name: str, unit: str | None = None) -> set[str]:
    """Of the units of the connections of a name."""
    return {
        found.status
        for connection in inventory.connections()
        if connection.name == name
        for found in connection.units
        if unit is None or found.unit == unit
    }


def pairs(inventory: Inventory, *names: str) -> set[tuple[str, str, str]]:
    """Connections as their name and those of their matrices."""
    parameters = [spec.parameter for spec in inventory.matrices]
    return {
        (found.name, parameters[found.upstream], parameters[found.downstream])
        for found in inventory.connections()
        if not names or found.name in names
    }


def llama(prefix: str = "", blocks: int = 2, *, head: bool = True) -> Shapes:
    shapes: Shapes = {f"{prefix}embed_tokens.weight": (TOKENS, WIDTH)}
    for block in range(blocks):
        layer = f"{prefix}layers.{block}"
        shapes |= {f"{layer}.self_attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "qkvo"}
        shapes |= {f"{layer}.mlp.{one}_proj.weight": (INNER, WIDTH) for one in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
    return shapes | ({"lm_head.weight": (TOKENS, WIDTH)} if head else {})


def gpt_neox(blocks: int = 2) -> Shapes:
    shapes: Shapes = {"embed_in.weight": (TOKENS, WIDTH)}
    for block in range(blocks):
        shapes |= {
            f"layers.{block}.attention.query_key_value.weight": (3 * WIDTH, WIDTH),
            f"layers.{block}.attention.dense.weight": (WIDTH, WIDTH),
            f"layers.{block}.mlp.dense_h_to_4h.weight": (INNER, WIDTH),
            f"layers.{block}.mlp.dense_4h_to_h.weight": (WIDTH, INNER),
        }
    return shapes | {"embed_out.weight": (TOKENS, WIDTH)}


def gpt2(*, head: bool = False) -> Shapes:
    shapes: Shapes = {"wte.weight": (TOKENS, WIDTH), "wpe.weight": (20, WIDTH)}
    for block in range(2):
        shapes |= {
            f"h.{block}.attn.c_attn.weight": (WIDTH, 3 * WIDTH),
            f"h.{block}.attn.c_proj.weight": (WIDTH, WIDTH),
            f"h.{block}.mlp.c_fc.weight": (WIDTH, INNER),
            f"h.{block}.mlp.c_proj.weight": (INNER, WIDTH),
        }
    return shapes | ({"lm_head.weight": (TOKENS, WIDTH)} if head else {})


# Where no family fits: every matrix to the next one.


def test_consecutive_matrices_are_connected_and_those_that_do_not_meet_say_so() -> None:
    """One connection for each pair of neighbours, each of one unit; planted alignment is found on its pair."""
    weights = random_weights({"a.weight": (16, 20), "b.weight": (24, 16), "c.weight": (12, 12), "d.weight": (8, 12)})
    plant(weights["a.weight"], weights["b.weight"])
    found = scores(weights)
    assert list(found) == [
        ("sequential", "a.weight", "b.weight", "whole", None),
        ("sequential", "b.weight", "c.weight", "whole", None),
        ("sequential", "c.weight", "d.weight", "whole", None),
    ]
    assert aligned(found) == {("sequential", "a.weight", "b.weight", "whole", None)}
    assert found["sequential", "b.weight", "c.weight", "whole", None] == "shape_mismatch"
    inventory = inventory_of(weights)
    assert (inventory.families, inventory.unfitted) == ((), [])
    assert all(unit.primary for connection in inventory.connections() for unit in connection.units)


@pytest.mark.parametrize("shapes", [{}, {"only.weight": (3, 4)}, {"a.bias": (3,), "b.weight": (3, 4)}])
def test_a_model_of_less_than_two_matrices_has_no_connections(shapes: Shapes) -> None:
    assert take_inventory(tensors_of(shapes), ordered=True).connections() == []


def test_an_embedding_gives_its_right_vectors() -> None:
    """Its rows are tokens, its columns what comes out."""
    weights = random_weights({"embedding.weight": (TOKENS, WIDTH), "a.weight": (WIDTH, WIDTH)})
    plant(weights["embedding.weight"].T, weights["a.weight"])
    assert aligned(scores(weights)) == {("sequential", "embedding.weight", "a.weight", "whole", None)}


KERNELS = [(3,), (4,), (1,), (3, 3), (2, 2), (3, 4), (5, 2), (1, 1), (3, 3, 3), (2, 3, 4), (2, 2, 2)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_convolution_reads_at_every_position_and_the_centre_is_primary(kernel: Shape) -> None:
    """The middle one of odd sizes, the one after the middle of even ones; numbered as the last axis runs fastest."""
    shapes = {"conv1.weight": (12, 3, *kernel), "conv2.weight": (14, 12, *kernel)}
    (connection,) = take_inventory(tensors_of(shapes), ordered=True).connections()
    assert {unit.unit for unit in connection.units} == {"position"}
    assert [unit.index for unit in connection.units] == list(range(math.prod(kernel)))
    centre = int(np.ravel_multi_index([size // 2 for size in kernel], kernel))
    assert [unit.index for unit in connection.units if unit.primary] == [centre]


@pytest.mark.parametrize("position", [(0, 0), (0, 1), (1, 0), (1, 2), (0, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_what_meets_one_position_of_a_kernel_is_found_there(position: Shape, *, transposed: bool) -> None:
    """Planted at (row, column) of a kernel of 2 x 4 that is zero elsewhere."""
    row, column = position
    name = "conv_transpose.weight" if transposed else "conv2.weight"
    shape = (12, 14, 2, 4) if transposed else (14, 12, 2, 4)  # stored (in, out, ...) or (out, in, ...)
    weights = random_weights({"conv1.weight": (12, 3, 3, 3), name: shape})
    weights[name][:] = 0
    at = weights[name][:, :, row, column]
    plant(weights["conv1.weight"].reshape(12, -1), at.T if transposed else at)
    assert aligned(scores(weights)) == {("sequential", "conv1.weight", name, "position", 4 * row + column)}


def test_a_transposed_convolution_gives_its_second_axis() -> None:
    """It is stored (in, out, ...); next to a layer of as many inputs as it has outputs it is found there."""
    weights = random_weights({"conv_transpose.weight": (10, 12, 2, 2), "fc.weight": (11, 12)})
    giver = weights["conv_transpose.weight"].transpose(1, 0, 2, 3).reshape(12, -1)
    plant(giver, weights["fc.weight"])
    weights["conv_transpose.weight"][:] = giver.reshape(12, 10, 2, 2).transpose(1, 0, 2, 3)
    assert aligned(scores(weights)) == {("sequential", "conv_transpose.weight", "fc.weight", "whole", None)}


@pytest.mark.parametrize(
    ("giver", "reader"),
    [((12, 3, 3, 3), (14, 13, 3, 3)), ((12, 3, 3, 3), (10, 12 * 16)), ((12, 7), (14, 13, 3)), ((5, 4), (3, 4))],
)
def test_channels_that_do_not_meet_are_one_unit(giver: Shape, reader: Shape) -> None:
    """However many positions the kernel has; also a convolution before what its flattened maps are given to."""
    inventory = take_inventory(tensors_of({"a.weight": giver, "b.weight": reader}), ordered=True)
    (connection,) = inventory.connections()
    (unit,) = connection.units
    assert (unit.status, unit.unit, unit.index, unit.primary) == ("shape_mismatch", "whole", None, True)
    assert (unit.upstream, unit.downstream) == (None, None)


def test_sequential_can_be_forced() -> None:
    """Whatever family fits."""
    shapes = llama()
    assert families_of(take_inventory(tensors_of(shapes), ordered=True)) == [("llama", "")]
    forced = take_inventory(tensors_of(shapes), ordered=True, structure=StructureOptions(architecture=SEQUENTIAL))
    assert (forced.families, forced.unfitted) == ((), [])
    found = [(connection.name, connection.upstream, connection.downstream) for connection in forced.connections()]
    assert found == [("sequential", depth, depth + 1) for depth in range(len(shapes) - 1)]
    assert statuses(forced, "sequential") == {"ok", "shape_mismatch"}


# Which family.


def test_a_family_that_explains_less_than_half_under_its_prefix_is_not_taken() -> None:
    """Half is enough; what stands elsewhere does not count; and who names the family has it anyway."""
    explained = llama("decoder.", head=False)

    def with_strangers(count: int, prefix: str = "decoder.") -> dict[str, TensorInfo]:
        return tensors_of(explained | {f"{prefix}stranger{number}.weight": (3, 3) for number in range(count)})

    half = len(explained)
    assert families_of(take_inventory(with_strangers(half), ordered=True)) == [("llama", "decoder.")]
    assert families_of(take_inventory(with_strangers(half + 1), ordered=True)) == []
    elsewhere = take_inventory(with_strangers(half + 1, ""), ordered=True)
    assert families_of(elsewhere) == [("llama", "decoder.")]
    assert len(elsewhere.unfitted) == half + 1
    named = take_inventory(with_strangers(half + 1), ordered=True, structure=StructureOptions(architecture="llama"))
    assert families_of(named) == [("llama", "decoder.")]


BLOCK = """
[parameters.one]
name = "layers.{i}.one.weight"
kind = "linear"
layout = "out,in"
required = true

[parameters.two]
name = "layers.{i}.two.weight"
kind = "linear"
layout = "LAYOUT"

[[connections]]
name = "up-down"
from = "one"
to = "two"
"""


def family(name: str, text: str = BLOCK, *, layout: str = "out,in", model_type: str = "") -> Any:
    lines = f'model_types = ["{model_type}"]\n' if model_type else ""
    return parse_architecture(lines + text.replace("LAYOUT", layout), name)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_family_that_explains_more_then_meets_more_then_is_named_is_taken(
    monkeypatch: pytest.MonkeyPatch, *, backwards: bool
) -> None:
    """In this order, whichever comes first among the known ones."""

    def taken(families: list[Any], config: dict[str, Any] | None = None) -> list[tuple[str, str]]:
        known = tuple(reversed(families) if backwards else families)
        monkeypatch.setattr(fitting, "known_architectures", lambda: known)
        shapes: Shapes = {"layers.0.one.weight": (12, 8), "layers.0.two.weight": (9, 12)}
        return families_of(take_inventory(tensors_of(shapes), ordered=True, config=config))

    less = family("less", BLOCK.replace("two.weight", "other.weight"), model_type="named")
    more, meets_not = family("more"), family("meets_not", layout="in,out", model_type="named")
    assert taken([less, family("more", layout="in,out")], {"model_type": "named"}) == [("more", "")]
    assert taken([meets_not, more], {"model_type": "named"}) == [("more", "")]
    assert taken([more, family("same", model_type="named")], {"model_type": "named"}) == [("same", "")]


def test_what_stands_outside_a_list_of_models_belongs_to_none_of_them() -> None:
    """An embedding beside one model within a module is its own; one beside a list of them is not."""
    inside = take_inventory(tensors_of(llama("wrapped.model.", head=True)), ordered=True)
    assert ("output", "wrapped.model.layers.1.mlp.down_proj.weight", "lm_head.weight") in pairs(inside, "output")
    several = llama("models.0.") | llama("models.1.")
    listed = take_inventory(tensors_of(several), ordered=True)
    assert families_of(listed) == [("llama", "models.0."), ("llama", "models.1.")]
    assert [spec.parameter for spec in listed.unfitted] == ["lm_head.weight"]
    assert len(pairs(listed, "embedding-input")) == 6


@pytest.mark.parametrize("backwards", [False, True])
def test_the_innermost_matrix_then_the_first_of_its_names_has_the_role(tmp_path: Path, *, backwards: bool) -> None:
    """Whatever their order; blocks choose each for itself, and the other matrices have no role."""
    outside = '[parameters.head]\nname = ["new_head.weight", "old_head.weight"]\n'
    path = tmp_path / "mine.toml"
    two = '["layers.{i}.new.weight", "layers.{i}.two.weight"]'
    path.write_text(outside + BLOCK.replace('"layers.{i}.two.weight"', two).replace("LAYOUT", "out,in"), "utf-8")
    roles = ["m.old_head.weight", "m.layers.0.one.weight", "m.layers.0.new.weight", "m.layers.1.two.weight"]
    others = ["new_head.weight", "m.layers.0.two.weight"]
    shapes: Shapes = dict.fromkeys(sorted(roles + others, reverse=backwards), (4, 4))
    structure = StructureOptions(architecture=str(path))
    inventory = take_inventory(tensors_of(shapes), ordered=True, structure=structure)
    assert families_of(inventory) == [("mine", "m.")]
    assert {spec.parameter for spec in inventory.unfitted} == set(others)
    shapes["m.new_head.weight"] = (4, 4)
    inventory = take_inventory(tensors_of(shapes), ordered=True, structure=structure)
    assert {spec.parameter for spec in inventory.unfitted} == {*others, "m.old_head.weight"}


def test_two_models_that_share_what_is_outside_are_both_understood() -> None:
    """The output layer belongs to one of them."""
    inventory = take_inventory(tensors_of(llama("left.") | llama("right.")), ordered=True)
    assert families_of(inventory) == [("llama", "left."), ("llama", "right.")]
    assert inventory.unfitted == []
    assert len(pairs(inventory, "output")) == 1


# Heads.


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"heads": 0}, "--heads 0"),
        ({"heads": -2}, "--heads -2"),
        ({"kv_heads": 0}, "--kv-heads 0"),
        ({"kv_heads": -1}, "--kv-heads -1"),
        ({"heads": 6, "kv_heads": 4}, "--heads 6"),
        ({"heads": 2, "kv_heads": 4}, "--heads 2"),
    ],
)
def test_impossible_head_counts_are_errors_of_usage(options: dict[str, int], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        StructureOptions(**options)


def test_a_family_that_does_not_exist_is_an_error_that_lists_those_that_do() -> None:
    with pytest.raises(UsageError, match="no such thing") as error:
        take_inventory(tensors_of(llama()), ordered=True, structure=StructureOptions(architecture="no such thing"))
    assert all(architecture.family in str(error.value.remedy) for architecture in known_architectures())


def test_the_command_line_counts_for_more_than_the_configuration() -> None:
    config = {"num_attention_heads": 4, "num_key_value_heads": 4}
    structure = StructureOptions(heads=8, kv_heads=2)
    (chosen,) = take_inventory(tensors_of(llama()), ordered=True, config=config, structure=structure).families
    assert chosen.heads is not None
    assert (chosen.heads.query, chosen.heads.key_value) == (8, 2)
    (chosen,) = take_inventory(tensors_of(llama()), ordered=True, config=config).families
    assert chosen.heads is not None
    assert (chosen.heads.query, chosen.heads.key_value) == (4, 4)


@pytest.mark.parametrize("heads", [3, 5, 7, WIDTH + 1, 10**9])
@pytest.mark.parametrize("model", [llama, gpt_neox, gpt2])
def test_heads_that_do_not_divide_are_a_mismatch_and_take_no_time(model: Callable[[], Shapes], heads: int) -> None:
    """One unit for each connection of heads, however many heads are claimed; everything without heads stands."""
    config = {"num_attention_heads": heads, "n_head": heads}
    start = time.process_time()
    inventory = take_inventory(tensors_of(model()), ordered=True, config=config)
    assert statuses(inventory, "query-key") == {"head_count_mismatch"}
    assert statuses(inventory, "value-output", "head") == {"head_count_mismatch"}
    assert sum(len(found.units) for found in inventory.connections() if found.name == "query-key") == 2
    assert time.process_time() - start < 0.5
    for name in ("up-down", "residual", "embedding-input"):
        assert statuses(inventory, name) == {"ok"}


def test_heads_that_do_not_divide_leave_the_whole_value_matrix() -> None:
    inventory = take_inventory(tensors_of(llama()), ordered=True, config={"num_attention_heads": 5})
    assert statuses(inventory, "value-output", "whole") == {"ok"}
    assert statuses(inventory, "value-output", "head") == {"head_count_mismatch"}


LIES: list[Any] = ["4", -4, 0, True, False, None, 4.0, [4], {"num_attention_heads": 4}, "", float("nan"), "4" * 1000]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: repr(lie)[:20])
def test_a_configuration_that_lies_is_one_that_does_not_tell(lie: Any) -> None:
    """A head count that is no number above 0, or an object where a nested one should be."""
    silent = take_inventory(tensors_of(llama()), ordered=True)
    assert statuses(silent, "query-key") == {"no_head_count"}
    assert statuses(silent, "value-output", "whole") == {"ok"}
    for config in ({"num_attention_heads": lie}, {"text_config": lie}, {"text_config": {"num_attention_heads": lie}}):
        if config == {"text_config": {"num_attention_heads": 4}}:
            continue  # no lie
        for other in ({}, {"num_key_value_heads": 4}) if config.get("text_config") is None else ({},):
            inventory = take_inventory(tensors_of(llama()), ordered=True, config=config | other)
            assert inventory.connections() == silent.connections()


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: repr(lie)[:20])
@pytest.mark.parametrize("key", ["model_type", "architectures", "tie_word_embeddings", "use_parallel_residual"])
@pytest.mark.parametrize("model", [llama, gpt_neox, gpt2])
def test_no_value_of_the_configuration_is_an_error(model: Callable[[], Shapes], key: str, lie: Any) -> None:
    inventory = take_inventory(tensors_of(model()), ordered=True, config={key: lie})
    assert len(inventory.families) == 1
    assert {"query-key", "up-down"} <= {found.name for found in inventory.connections()}


def test_key_value_heads_that_do_not_divide_the_query_heads_are_unknown() -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": 3}
    inventory = take_inventory(tensors_of(llama()), ordered=True, config=config)
    assert [chosen.heads for chosen in inventory.families] == [None]
    assert statuses(inventory, "query-key") == {"no_head_count"}


# Tied embeddings.

LAST = {"llama": "layers.1.mlp.down_proj.weight", "gpt2": "h.1.mlp.c_proj.weight"}


def output_of(inventory: Inventory) -> set[str]:
    return {reader for _, _, reader in pairs(inventory, "output")}


def test_an_unembedding_that_is_the_embedding_in_memory_is_tied() -> None:
    """A tensor of its own name that has the bytes of the embedding; the configuration says nothing."""
    tensors = tensors_of(llama())
    tensors["lm_head.weight"] = TensorInfo("lm_head.weight", (TOKENS, WIDTH), "float32", "", "bytes")
    assert output_of(take_inventory(tensors, ordered=True)) == {"lm_head.weight"}
    tensors["embed_tokens.weight"] = TensorInfo("embed_tokens.weight", (TOKENS, WIDTH), "float32", "", "bytes")
    inventory = take_inventory(tensors, ordered=True)
    assert [item.status for item in inventory.skipped] == ["tied"]
    assert pairs(inventory, "output") == {("output", LAST["llama"], "embed_tokens.weight")}


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, False),
        ({"tie_word_embeddings": False}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"]}, True),
        ({"tie_word_embeddings": True, "architectures": ["LlamaModel"]}, False),
        ({"tie_word_embeddings": True, "architectures": []}, True),
        ({"tie_word_embeddings": "yes"}, False),
    ],
)
def test_a_missing_unembedding_is_the_embedding_where_the_configuration_ties_them(
    config: dict[str, Any], *, tied: bool
) -> None:
    """Not in a model without an output layer, whose class is called ...Model."""
    inventory = take_inventory(tensors_of(llama(head=False)), ordered=True, config=config)
    assert output_of(inventory) == ({"embed_tokens.weight"} if tied else set())


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, True),
        ({"architectures": ["GPT2LMHeadModel"]}, True),
        ({"architectures": ["GPT2DoubleHeadsModel"]}, True),
        ({"architectures": ["GPT2Model"]}, False),
        ({"tie_word_embeddings": False}, False),
    ],
)
def test_a_family_that_ties_by_default_does_so_where_the_configuration_does_not_say(
    config: dict[str, Any], *, tied: bool
) -> None:
    inventory = take_inventory(tensors_of(gpt2()), ordered=True, config=config)
    assert output_of(inventory) == ({"wte.weight"} if tied else set())


def test_an_unembedding_of_its_own_is_the_one_that_is_read() -> None:
    """Where config.json does not tie them."""
    inventory = take_inventory(tensors_of(gpt2(head=True)), ordered=True, config={"tie_word_embeddings": False})
    assert output_of(inventory) == {"lm_head.weight"}


def test_a_copy_of_the_embedding_counts_as_the_embedding() -> None:
    """Both are in the file, and config.json says that they are one."""
    inventory = take_inventory(tensors_of(llama()), ordered=True, config={"tie_word_embeddings": True})
    assert [item.status for item in inventory.skipped] == ["tied"]
    assert output_of(inventory) == {"embed_tokens.weight"}


def test_an_embedding_kept_under_the_name_of_the_unembedding_gives_its_right_vectors() -> None:
    """Some savers keep the last of two tied tensors; its rows are tokens all the same."""
    shapes = {name: shape for name, shape in gpt_neox().items() if name != "embed_in.weight"}
    weights = random_weights(shapes)
    qkv = "layers.0.attention.query_key_value.weight"
    plant(weights["embed_out.weight"].T, weights[qkv])
    found = scores(weights, {"tie_word_embeddings": True, "use_parallel_residual": False})
    assert aligned(found) == {("embedding-input", "embed_out.weight", qkv, "whole", None)}
    assert ("output", "layers.1.mlp.dense_4h_to_h.weight", "embed_out.weight", "whole", None) in found


# Any model of any family.


def synthetic(name: str, blocks: int = 2) -> Shapes:
    """A model with every parameter of a family, under the first of its names; all sizes are alike."""
    data = tomllib.loads(files("spectra_cli.layers").joinpath("architectures", f"{name}.toml").read_text("utf-8"))
    endings = data.get("endings", {}).get("d", [""])
    found: Shapes = {}
    for entry in data["parameters"].values():
        template = entry["name"] if isinstance(entry["name"], str) else entry["name"][0]
        names = [template.replace("{d}", ending) for ending in endings]
        for letter in "isjek":
            numbers = range(blocks) if f"{{{letter}}}" in template else range(1)
            names = [text.replace(f"{{{letter}}}", str(number)) for text in names for number in numbers]
        kernel = (3, 3) if str(entry.get("kind")).startswith("conv") else ()
        found |= dict.fromkeys(names, (12, 12, *kernel))
    return found


FAMILIES = [architecture.family for architecture in known_architectures()]


def outcome(inventory: Inventory) -> tuple[set[tuple[str, str]], set[UnitKey], dict[str, str]]:
    """Families, units with their statuses and the matrices of no family, without any order."""
    names = [spec.parameter for spec in inventory.matrices]
    units = {
        (found.name, names[found.upstream], names[found.downstream], f"{unit.unit} {unit.status}", unit.index)
        for found in inventory.connections()
        for unit in found.units
    }
    rest = {spec.parameter: spec.layout for spec in inventory.unfitted}
    return set(families_of(inventory)), units, rest


@pytest.mark.parametrize("name", FAMILIES)
def test_the_order_of_the_tensors_does_not_matter_to_a_family(name: str) -> None:
    """Also beside another model; only the depths follow the order given."""
    shapes = {f"first.{key}": shape for key, shape in synthetic(name).items()} | llama("second.", head=False)
    expected = outcome(take_inventory(tensors_of(shapes), ordered=True))
    assert ("llama", "second.") in expected[0]
    for seed in range(3):
        shuffled = list(shapes)
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
        inventory = take_inventory(tensors_of({key: shapes[key] for key in shuffled}), ordered=True)
        assert [spec.parameter for spec in inventory.matrices if spec.expert is None] == [
            key for key in shuffled if key in {spec.parameter for spec in inventory.matrices}
        ]
        assert outcome(inventory) == expected
        depths = [(found.upstream, found.downstream) for found in inventory.connections()]
        assert depths == sorted(depths)


SIDES = (1, 2, 4, 6, 12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_both_ends_of_every_unit_live_in_one_space_whatever_the_shapes(name: str, seed: int) -> None:
    """Random sizes, and now and then a tensor of another number of axes; what does not meet has a status."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311 - sizes, not a secret
    shapes: Shapes = {}
    for key, shape in synthetic(name, blocks=2).items():
        axes = rng.choice([*[len(shape)] * 12, 1, 2, 3, 4])
        few = SIDES if seed else (rng.choice(SIDES),) * 8 + SIDES
        shapes[key] = tuple(rng.choice(few) for _ in range(axes))
    weights = random_weights(shapes)
    config = {"num_attention_heads": 2, "n_head": 2, "num_key_value_heads": rng.choice([1, 2])}
    inventory = inventory_of(weights, config, StructureOptions(architecture=rng.choice([None, name])))
    for connection in inventory.connections():
        assert connection.units
        assert len(set(connection.units)) == len(connection.units)
        for unit in connection.units:
            assert unit.status in {"ok", "shape_mismatch", "no_head_count", "head_count_mismatch"}
            if unit.upstream is None or unit.downstream is None:
                assert unit.status != "ok"
                assert (unit.upstream, unit.downstream) == (None, None)
            else:
                given, read = (vectors_of(end, inventory, weights) for end in (unit.upstream, unit.downstream))
                assert unit.status == "ok"
                assert len(given) == len(read) > 0


# Names made to harm.

HOSTILE = [
    *("." * count for count in (1, 2, 50)),
    *("0" * count for count in (1, 9, 10, 5000)),
    "1.2.3",
    "\n",
    "layers.0.mlp\n.down_proj.weight",
    "layers.0.mlp.down_proj.weight\n",
    "\nlayers.0.mlp.down_proj.weight",
    "layers.00.mlp.down_proj.weight",
    "layers.\u0663.mlp.down_proj.weight",
    f"layers.{'9' * 400}.mlp.down_proj.weight",
    "layers.999999999.mlp.down_proj.weight",
    "layers.-1.mlp.down_proj.weight",
    "layers..mlp.down_proj.weight",
    "layers.{i}.mlp.down_proj.weight",
    "#.layers.#.mlp.down_proj.weight",
    f"{'a.' * 2000}layers.0.mlp.down_proj.weight",
    f"{'layers.0.' * 1000}mlp.down_proj.weight",
    f"layers.0.mlp.{'down_proj.' * 1000}weight",
    "\ud800.weight",
    "\x00",
    "(?P<prefix>.*)+$.weight",
    "",
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:30])
def test_no_name_is_an_error_or_keeps_the_rest_from_its_family(name: str) -> None:
    """A model with one such name; and several made of it alone, which are of no family."""
    model = llama()
    inventory = take_inventory(tensors_of({name: (WIDTH, WIDTH)} | model), ordered=True)
    assert ("llama", "") in families_of(inventory)
    assert len(inventory.unfitted) <= 1
    assert inventory.connections()
    alone = take_inventory(tensors_of({name * count: (WIDTH, WIDTH) for count in range(1, 8)}), ordered=False)
    assert len(alone.matrices) == (7 if name else 1)
    assert len(alone.connections()) == len(alone.matrices) - 1


SECONDS = 3  # one at most on one core that is not busy; what is quadratic takes more than ten


def blocks_of_one_model() -> Shapes:
    return llama(blocks=2857)


def thousands_of_models() -> Shapes:
    return {key: shape for number in range(2000) for key, shape in llama(f"m{number}.", 1, head=False).items()}


def one_ending() -> Shapes:
    return {f"{number:x}.layers.x.self_attn.q_proj.weight": (2, 2) for number in range(20_000)}


def no_two_alike() -> Shapes:
    letters = random.Random(0)  # noqa: S311 - names, not secrets
    return {"".join(letters.choices("abcdefgh._", k=24)) + ".weight": (2, 2) for _ in range(20_000)}


def experts() -> Shapes:
    expert = "layers.{}.mlp.experts.{}.{}_proj.weight"
    found = llama(blocks=4, head=False)
    found = {key: shape for key, shape in found.items() if ".mlp." not in key}
    found |= {f"layers.{block}.mlp.gate.weight": (1600, WIDTH) for block in range(4)}
    return found | {
        expert.format(block, number, one): (4, WIDTH) if one != "down" else (WIDTH, 4)
        for block in range(4)
        for number in range(1600)
        for one in ("gate", "up", "down")
    }


def numbers() -> Shapes:
    return {".".join(str(number)): (2, 2) for number in range(100_000, 120_000)}


@pytest.mark.parametrize(
    "model", [blocks_of_one_model, thousands_of_models, one_ending, no_two_alike, experts, numbers]
)
def test_twenty_thousand_parameters_take_a_second(model: Callable[[], Shapes]) -> None:
    """Families, kinds and layouts of a model; what is left is linear in its connections."""
    tensors = tensors_of(model())
    assert len(tensors) > 15_000
    start = time.process_time()
    inventory = take_inventory(tensors, ordered=True)
    assert time.process_time() - start < SECONDS
    start = time.process_time()
    assert len(inventory.connections()) > 10_000
    assert time.process_time() - start < SECONDS


def test_models_of_models_take_no_time() -> None:
    """Every prefix is that of another family member, and all share what stands outside."""
    prefixes = ["m" + ".m" * depth + "." for depth in range(150)]
    shapes = {key: shape for prefix in prefixes for key, shape in llama(prefix, 1).items()}
    start = time.process_time()
    inventory = take_inventory(tensors_of(shapes), ordered=True)
    assert inventory.connections()
    assert time.process_time() - start < 1


def test_a_family_of_the_user_may_have_any_name_of_a_role(tmp_path: Path) -> None:
    """Roles called as Python or regular expressions would not like."""
    path = tmp_path / "mine.toml"
    path.write_text(BLOCK.replace("LAYOUT", "out,in").replace("one]", '"(.*"]').replace('"one"', '"(.*"'), "utf-8")
    shapes: Shapes = {"x.layers.0.one.weight": (12, 8), "x.layers.0.two.weight": (9, 12)}
    inventory = take_inventory(tensors_of(shapes), ordered=True, structure=StructureOptions(architecture=str(path)))
    assert pairs(inventory) == {("up-down", *shapes)}


def test_asking_twice_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer for one checkpoint is kept for the next one, though not where shapes or the configuration differ."""
    asked = []
    ask = fitting.candidates
    monkeypatch.setattr(fitting, "candidates", lambda *given: asked.append(given) or ask(*given))
    shapes = llama(blocks=3)
    config = {"num_attention_heads": 4, "told": "only here"}
    first = take_inventory(tensors_of(shapes), ordered=True, config=config)
    count = len(asked)
    second = take_inventory(tensors_of(dict(shapes)), ordered=True, config=dict(config))
    assert len(asked) == count > 0
    assert first.connections() == second.connections()
    other = take_inventory(tensors_of(shapes), ordered=True, config=config | {"num_attention_heads": 2})
    assert len(asked) == 2 * count
    assert other.connections() != first.connections()
