"""What a user says of a structure and has no effect is told, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.layers.fitting import SEQUENTIAL, StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tensors import TensorInfo
from tests.layers.planted import inventory_of, random_weights

Shapes = dict[str, tuple[int, ...]]

MINE = """
[parameters.embedding]
name = "tokens.weight"
kind = "embedding"

[parameters.up]
name = "blocks.{i}.up.weight"
required = true

[parameters.down]
name = ["blocks.{i}.down.weight", "blocks.{i}.low.weight"]

[[connections]]
name = "embedding-input"
from = "embedding"
to = "up"

[[connections]]
name = "up-down"
from = "up"
to = "down"

[[connections]]
name = "residual"
from = "down"
to = "up"
next = true
"""


def mlp(blocks: int = 2) -> Shapes:
    shapes: Shapes = {"tokens.weight": (20, 8)}
    for block in range(blocks):
        shapes |= {f"blocks.{block}.up.weight": (12, 8), f"blocks.{block}.down.weight": (8, 12)}
    return shapes


def llama(key_rows: int = 16, prefix: str = "") -> Shapes:
    shapes: Shapes = {}
    for block in range(2):
        attention, dense = f"{prefix}layers.{block}.self_attn", f"{prefix}layers.{block}.mlp"
        shapes |= {f"{attention}.{one}_proj.weight": (64, 64) for one in "qo"}
        shapes |= {f"{attention}.{one}_proj.weight": (key_rows, 64) for one in "kv"}
        shapes |= {f"{dense}.{one}_proj.weight": (96, 64) for one in ("gate", "up")}
        shapes[f"{dense}.down_proj.weight"] = (64, 96)
    return shapes


def inventory(shapes: Shapes, config: Mapping[str, Any] | None = None, **structure: Any) -> Inventory:
    tensors = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
    return take_inventory(tensors, ordered=True, config=config, structure=StructureOptions(**structure))


def own(folder: Path, text: str = MINE) -> Path:
    path = folder / "my.toml"
    path.write_text(text, "utf-8")
    return path


class TestOwnFile:
    def test_a_file_that_fits_wholly_is_not_remarked(self, tmp_path: Path) -> None:
        assert inventory(mlp(), architecture=own(tmp_path)).remarks == ()

    def test_a_name_that_matches_nothing_is_told_with_the_connections_that_lack_it(self, tmp_path: Path) -> None:
        shapes = {name.replace("down", "lower"): shape for name, shape in mlp().items()}
        (remark,) = inventory(shapes, architecture=own(tmp_path)).remarks
        names = "'blocks.{i}.down.weight' or 'blocks.{i}.low.weight'"
        assert remark == (
            f"my.toml: parameter 'down' ({names}) matches no weight; connections up-down and residual are empty"
        )

    def test_a_name_that_matches_what_is_no_matrix_is_told_so(self, tmp_path: Path) -> None:
        text = MINE.replace("tokens.weight", "norm.weight")
        (remark,) = inventory(mlp() | {"norm.weight": (8,)}, architecture=own(tmp_path, text)).remarks
        assert "parameter 'embedding' ('norm.weight') matches only 'norm.weight', which is no matrix (" in remark
        assert remark.endswith("; connection embedding-input is empty")

    def test_a_name_that_stands_elsewhere_or_is_of_another_kind_is_told_so(self, tmp_path: Path) -> None:
        elsewhere = {f"net.{name}": shape for name, shape in mlp().items() if "tokens" not in name}
        (remark,) = inventory(elsewhere | {"other.tokens.weight": (20, 8)}, architecture=own(tmp_path)).remarks
        assert "matches only 'other.tokens.weight' (20 x 8), which is of another kind or module" in remark

    def test_one_block_has_no_next_one(self, tmp_path: Path) -> None:
        assert inventory(mlp(1), architecture=own(tmp_path)).remarks == ()

    def test_a_rule_that_connects_nothing_is_told_although_its_roles_are_there(self, tmp_path: Path) -> None:
        """Blocks of two lists, of which none follows another's; the second of its name has its number."""
        text = MINE + '[[connections]]\nname = "residual"\nfrom = "side"\nto = "up"\n'
        text += '[parameters.side]\nname = "sides.{j}.weight"\n'
        shapes = mlp() | {"sides.0.weight": (8, 8)}
        assert inventory(shapes, architecture=own(tmp_path, text)).remarks == ()  # last of one list, first of another
        del shapes["sides.0.weight"]
        (remark,) = inventory(shapes, architecture=own(tmp_path, text)).remarks
        assert remark.endswith("; connection residual (number 4) is empty")

    @pytest.mark.parametrize("ruling", ["when = { parallel = true }", 'unless = "embedding"'])
    def test_a_rule_that_is_ruled_out_is_not_remarked(self, ruling: str, tmp_path: Path) -> None:
        text = MINE.replace("[parameters.up]", '[parameters.absent]\nname = "no.weight"\n[parameters.up]')
        text += '[[connections]]\nname = "skip"\nfrom = "absent"\nto = "up"\n'
        shapes = mlp()
        (remark,) = inventory(shapes, architecture=own(tmp_path, text)).remarks
        assert remark.endswith("('no.weight') matches no weight; connection skip is empty")
        (remark,) = inventory(shapes, architecture=own(tmp_path, text + ruling)).remarks
        assert remark.endswith("('no.weight') matches no weight")

    def test_a_tied_parameter_is_there(self, tmp_path: Path) -> None:
        text = MINE + '[[connections]]\nname = "output"\nfrom = "down"\nto = "head"\n'
        text += '[parameters.head]\nname = "head.weight"\ntied = "embedding"\n'
        assert len(inventory(mlp(), architecture=own(tmp_path, text)).remarks) == 1
        assert inventory(mlp(), {"tie_word_embeddings": True}, architecture=own(tmp_path, text)).remarks == ()

    def test_what_one_of_two_copies_has_is_there(self, tmp_path: Path) -> None:
        one, two = ({f"{side}.{name}": shape for name, shape in mlp().items()} for side in ("left", "right"))
        two = {name: shape for name, shape in two.items() if "down" not in name}
        found = inventory(one | two, architecture=own(tmp_path))
        assert len(found.families) == 2
        assert found.remarks == ()

    def test_families_that_come_with_spectra_are_not_remarked(self) -> None:
        """They know more parameters than any model has."""
        assert inventory(llama(64)).remarks == inventory(llama(64), architecture="llama").remarks == ()


class TestHeads:
    @pytest.mark.parametrize(
        ("structure", "why"),
        [
            ({}, "matrices are taken one after the other (no family fits)"),
            ({"architecture": SEQUENTIAL}, "matrices are taken one after the other (--architecture sequential)"),
        ],
    )
    def test_without_a_family_heads_have_no_effect(self, structure: dict[str, Any], why: str) -> None:
        shapes: Shapes = {"a.weight": (4, 4), "b.weight": (4, 4)}
        assert inventory(shapes, heads=2, **structure).remarks == (f"--heads has no effect: {why}",)
        assert inventory(shapes, kv_heads=2, **structure).remarks == (f"--kv-heads has no effect: {why}",)
        both = inventory(shapes, heads=4, kv_heads=2, **structure).remarks
        assert both == (f"--heads and --kv-heads have no effect: {why}",)
        assert inventory(shapes, {"num_attention_heads": 2}, **structure).remarks == ()

    def test_a_family_without_attention_is_named(self, tmp_path: Path) -> None:
        assert inventory(mlp(), architecture=own(tmp_path), heads=2).remarks == (
            "--heads has no effect: my has no attention",
        )

    @pytest.mark.parametrize(("heads", "key_heads"), [(8, 2), (4, 1), (16, 4)])
    def test_heads_that_fit_are_not_remarked(self, heads: int, key_heads: int) -> None:
        assert inventory(llama(), heads=heads, kv_heads=key_heads).remarks == ()
        config = {"num_attention_heads": heads, "num_key_value_heads": key_heads}
        assert inventory(llama(), config).remarks == ()

    def test_heads_that_do_not_fit_are_told_once(self) -> None:
        """However many blocks there are; key heads that are not told are as many as query heads."""
        expected = "8 query and 8 key-value heads do not fit 64 and 16 rows; see --heads and --kv-heads"
        assert inventory(llama(), heads=8).remarks == (f"llama: {expected}",)
        assert inventory(llama(), {"num_attention_heads": 8}).remarks == (f"llama: {expected}",)

    def test_of_a_fused_matrix_its_rows_are_told(self) -> None:
        shapes: Shapes = {}
        for block in range(2):
            layer = f"layers.{block}"
            shapes |= {
                f"{layer}.attention.query_key_value.weight": (48, 16),
                f"{layer}.attention.dense.weight": (16, 16),
            }
            shapes |= {f"{layer}.mlp.dense_h_to_4h.weight": (40, 16), f"{layer}.mlp.dense_4h_to_h.weight": (16, 40)}
        (remark,) = inventory(shapes, heads=5).remarks
        assert remark == "gpt_neox: 5 query and 5 key-value heads do not fit 48 rows; see --heads and --kv-heads"

    def test_unknown_heads_are_not_remarked(self) -> None:
        assert inventory(llama()).remarks == ()


class TestGroupedQueries:
    def units(self, found: Inventory) -> dict[str, set[tuple[str, str]]]:
        names = ("query-key", "value-output")
        return {
            name: {(unit.unit, unit.status) for each in found.connections() if each.name == name for unit in each.units}
            for name in names
        }

    def test_only_heads_meet_where_values_are_shared(self) -> None:
        heads = {("head", "ok")}
        assert self.units(inventory(llama(), heads=8, kv_heads=2)) == {"query-key": heads, "value-output": heads}

    def test_that_values_may_be_shared_is_unknown_heads(self) -> None:
        """Where widths are the same, the whole stands."""
        unknown = {("head", "no_head_count")}
        whole = ("whole", "no_head_count")
        assert self.units(inventory(llama())) == {"query-key": unknown, "value-output": unknown | {whole}}
        whole = ("whole", "ok")
        assert self.units(inventory(llama(64))) == {"query-key": unknown, "value-output": unknown | {whole}}


LLAMA = {
    "layers.0.self_attn.q_proj.weight": (8, 8),
    "layers.0.self_attn.k_proj.weight": (8, 8),
    "layers.0.self_attn.v_proj.weight": (8, 8),
    "layers.0.self_attn.o_proj.weight": (8, 8),
    "layers.0.mlp.gate_proj.weight": (16, 8),
    "layers.0.mlp.up_proj.weight": (16, 8),
    "layers.0.mlp.down_proj.weight": (8, 16),
}


@pytest.mark.parametrize(("model_type", "told"), [("llama", False), ("brandnew", True), (None, False)])
def test_a_model_type_that_the_family_does_not_list_is_remarked_on(model_type: str | None, *, told: bool) -> None:
    """Many models have Llama's names; only some are built as it is."""
    config = {"num_attention_heads": 2} | ({"model_type": model_type} if model_type else {})
    remarks = inventory_of(random_weights(LLAMA), config).remarks
    assert any("'brandnew'" in remark for remark in remarks) == told


def test_attention_that_fits_no_family_is_remarked_on_unless_the_user_says_sequential() -> None:
    weights = random_weights({f"blocks.{block}.attn.{part}.weight": (8, 8) for block in range(2) for part in "qkv"})
    assert any("no family fits" in remark for remark in inventory_of(weights).remarks)
    assert not inventory_of(weights, structure=StructureOptions("sequential")).remarks
    layers = random_weights({f"layers.{layer}.weight": (8, 8) for layer in range(3)})
    assert not inventory_of(layers).remarks, "a plain stack of layers is sequential"
