"""BERT, RoBERTa, DistilBERT, and vision transformers under three sets of names: who feeds whom, by which rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tensors import TensorInfo

from .planted import Array, UnitKey, aligned, inventory_of, plant, random_weights, scores

Shapes = dict[str, tuple[int, ...]]

WIDTH, INNER, TOKENS, HEADS, BLOCKS = 24, 40, 60, 2, 3
SIZE = WIDTH // HEADS  # of a head
PATCH = 2


@dataclass(frozen=True)
class Naming:
    """What a family calls its matrices; blocks are ``{i}``."""

    query: str
    key: str
    value: str
    attention_output: str
    up: str
    down: str
    embedding: str
    others: dict[str, tuple[int, ...]]
    ends: list[tuple[str, str]]  # connections after the last block; "down" stands for its matrix
    heads_key: str = ""

    @property
    def fused(self) -> bool:
        return self.query == self.key

    def of_block(self, block: int) -> dict[str, str]:
        roles = ("query", "key", "value", "attention_output", "up", "down")
        return {role: getattr(self, role).replace("{i}", str(block)) for role in roles}

    def shapes(self) -> Shapes:
        patches = (WIDTH, 3, PATCH, PATCH)
        found: Shapes = {self.embedding: (TOKENS, WIDTH) if "word_embeddings" in self.embedding else patches}
        found |= {name: shape for name, shape in self.others.items() if "pos" in name or "token_type" in name}
        for block in range(BLOCKS):
            names = self.of_block(block)
            sizes = {"query": WIDTH * (3 if self.fused else 1), "up": INNER}
            found |= {
                names[role]: (sizes.get(role, WIDTH), INNER if role == "down" else WIDTH)
                for role in (("query", "attention_output", "up", "down") if self.fused else names)
            }
        return found | {name: shape for name, shape in self.others.items() if name not in found}

    def expected(self) -> set[UnitKey]:
        """Every unit, from the definition of the model."""
        found: set[UnitKey] = set()
        for block in range(BLOCKS):
            names = self.of_block(block)
            reading = {names["query"], names["key"], names["value"]}
            if block == 0:
                found |= {("embedding-input", self.embedding, reader, "whole", None) for reader in reading}
            else:
                giver = self.of_block(block - 1)["down"]
                found |= {("residual", giver, reader, "whole", None) for reader in reading}
            for head in range(HEADS):
                found.add(("query-key", names["query"], names["key"], "head", head))
                found.add(("value-output", names["value"], names["attention_output"], "head", head))
            found.add(("value-output", names["value"], names["attention_output"], "whole", None))
            found.add(("output-up", names["attention_output"], names["up"], "whole", None))
            found.add(("up-down", names["up"], names["down"], "whole", None))
        last = self.of_block(BLOCKS - 1)["down"]
        return found | {
            ("output", last if giver == "down" else giver, reader, "whole", None) for giver, reader in self.ends
        }


def bert_blocks(layer: str, **rest: Any) -> Naming:
    return Naming(
        query=f"{layer}.attention.self.query.weight",
        key=f"{layer}.attention.self.key.weight",
        value=f"{layer}.attention.self.value.weight",
        attention_output=f"{layer}.attention.output.dense.weight",
        up=f"{layer}.intermediate.dense.weight",
        down=f"{layer}.output.dense.weight",
        heads_key="num_attention_heads",
        **rest,
    )


SQUARE = (WIDTH, WIDTH)
POSITIONS = (16, WIDTH)

NAMINGS = {
    "bert": bert_blocks(
        "bert.encoder.layer.{i}",
        embedding="bert.embeddings.word_embeddings.weight",
        others={
            "bert.embeddings.position_embeddings.weight": POSITIONS,
            "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
            "bert.pooler.dense.weight": SQUARE,
            "cls.predictions.transform.dense.weight": SQUARE,
            "cls.predictions.decoder.weight": (TOKENS, WIDTH),
            "cls.seq_relationship.weight": (2, WIDTH),
        },
        ends=[
            ("down", "bert.pooler.dense.weight"),
            ("bert.pooler.dense.weight", "cls.seq_relationship.weight"),
            ("down", "cls.predictions.transform.dense.weight"),
            ("cls.predictions.transform.dense.weight", "cls.predictions.decoder.weight"),
        ],
    ),
    "roberta": bert_blocks(
        "roberta.encoder.layer.{i}",
        embedding="roberta.embeddings.word_embeddings.weight",
        others={
            "roberta.embeddings.position_embeddings.weight": POSITIONS,
            "roberta.embeddings.token_type_embeddings.weight": (1, WIDTH),
            "lm_head.dense.weight": SQUARE,
            "lm_head.decoder.weight": (TOKENS, WIDTH),
        },
        ends=[("down", "lm_head.dense.weight"), ("lm_head.dense.weight", "lm_head.decoder.weight")],
    ),
    "distilbert": Naming(
        query="distilbert.transformer.layer.{i}.attention.q_lin.weight",
        key="distilbert.transformer.layer.{i}.attention.k_lin.weight",
        value="distilbert.transformer.layer.{i}.attention.v_lin.weight",
        attention_output="distilbert.transformer.layer.{i}.attention.out_lin.weight",
        up="distilbert.transformer.layer.{i}.ffn.lin1.weight",
        down="distilbert.transformer.layer.{i}.ffn.lin2.weight",
        embedding="distilbert.embeddings.word_embeddings.weight",
        others={
            "distilbert.embeddings.position_embeddings.weight": POSITIONS,
            "vocab_transform.weight": SQUARE,
            "vocab_projector.weight": (TOKENS, WIDTH),
        },
        ends=[("down", "vocab_transform.weight"), ("vocab_transform.weight", "vocab_projector.weight")],
        heads_key="n_heads",
    ),
    "vit": Naming(
        query="vit.encoder.layer.{i}.attention.attention.query.weight",
        key="vit.encoder.layer.{i}.attention.attention.key.weight",
        value="vit.encoder.layer.{i}.attention.attention.value.weight",
        attention_output="vit.encoder.layer.{i}.attention.output.dense.weight",
        up="vit.encoder.layer.{i}.intermediate.dense.weight",
        down="vit.encoder.layer.{i}.output.dense.weight",
        embedding="vit.embeddings.patch_embeddings.projection.weight",
        others={
            "vit.embeddings.cls_token": (1, 1, WIDTH),
            "vit.embeddings.position_embeddings": (1, 17, WIDTH),
            "classifier.weight": (10, WIDTH),
        },
        ends=[("down", "classifier.weight")],
        heads_key="num_attention_heads",
    ),
    "vit_timm": Naming(
        query="blocks.{i}.attn.qkv.weight",
        key="blocks.{i}.attn.qkv.weight",
        value="blocks.{i}.attn.qkv.weight",
        attention_output="blocks.{i}.attn.proj.weight",
        up="blocks.{i}.mlp.fc1.weight",
        down="blocks.{i}.mlp.fc2.weight",
        embedding="patch_embed.proj.weight",
        others={
            "cls_token": (1, 1, WIDTH),
            "pos_embed": (1, 17, WIDTH),
            "head.weight": (10, WIDTH),
            "head_dist.weight": (10, WIDTH),
        },
        ends=[("down", "head.weight"), ("down", "head_dist.weight")],
    ),
    "vit_torchvision": Naming(
        query="encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
        key="encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
        value="encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight",
        attention_output="encoder.layers.encoder_layer_{i}.self_attention.out_proj.weight",
        up="encoder.layers.encoder_layer_{i}.mlp.0.weight",
        down="encoder.layers.encoder_layer_{i}.mlp.3.weight",
        embedding="conv_proj.weight",
        others={
            "class_token": (1, 1, WIDTH),
            "encoder.pos_embedding": (1, 17, WIDTH),
            "heads.head.weight": (10, WIDTH),
        },
        ends=[("down", "heads.head.weight")],
    ),
}
FAMILIES = {name: "bert" if name == "roberta" else name for name in NAMINGS}
IMAGES = ("vit", "vit_timm", "vit_torchvision")
FUSED = ("vit_timm", "vit_torchvision")
TEXTS = ("bert", "roberta", "distilbert")


def families_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


def given_heads(name: str) -> tuple[dict[str, Any], StructureOptions]:
    """The head count where the family has it: in config.json, or on the command line."""
    key = NAMINGS[name].heads_key
    return ({key: HEADS}, StructureOptions()) if key else ({}, StructureOptions(heads=HEADS))


def scores_of(name: str, weights: dict[str, Array]) -> dict[UnitKey, float | str]:
    return scores(weights, *given_heads(name))


@pytest.mark.parametrize("name", NAMINGS)
def test_the_connections_are_those_of_the_model(name: str) -> None:
    """All of them and no other, from the model's definition, and every matrix has a role."""
    naming = NAMINGS[name]
    weights = random_weights(naming.shapes())
    inventory = inventory_of(weights, *given_heads(name))
    assert families_of(inventory) == [FAMILIES[name]]
    assert inventory.unfitted == []
    found = scores_of(name, weights)
    assert set(found) == naming.expected()
    assert {key for key, score in found.items() if isinstance(score, str)} == set()
    assert aligned(found, 0.5) == set()


@pytest.mark.parametrize("name", NAMINGS)
def test_primary_are_the_heads_where_there_are_heads(name: str) -> None:
    inventory = inventory_of(random_weights(NAMINGS[name].shapes()), *given_heads(name))
    units = [(found.name, unit) for found in inventory.connections() for unit in found.units]
    assert all(unit.primary == (unit.unit == "head") for name, unit in units if name == "value-output")
    assert all(unit.primary for name, unit in units if name != "value-output")


@pytest.mark.parametrize("name", NAMINGS)
def test_without_a_head_count_the_heads_say_so_and_the_rest_stands(name: str) -> None:
    found = scores(random_weights(NAMINGS[name].shapes()), config=None)
    assert set(found) == {(*key[:4], None) for key in NAMINGS[name].expected()}
    assert {key for key, score in found.items() if isinstance(score, str)} == {key for key in found if key[3] == "head"}
    assert {score for score in found.values() if isinstance(score, str)} == {"no_head_count"}


# Rows and columns of a head as the forward passes split them: query.view(batch, length, heads, size), and where the
# three are fused qkv.reshape(batch, length, 3, heads, size), which torch.nn.MultiheadAttention's chunks are as well.


def head_rows(weights: dict[str, Array], name: str, block: int, role: str, head: int) -> Array:
    matrix = weights[NAMINGS[name].of_block(block)[role]]
    start = head * SIZE + ("query", "key", "value").index(role) * WIDTH * NAMINGS[name].fused
    return matrix[start : start + SIZE]


def plant_query_key(weights: dict[str, Array], name: str, block: int = 1, head: int = 1) -> UnitKey:
    query, key = (head_rows(weights, name, block, role, head) for role in ("query", "key"))
    plant(query, key.T)
    names = NAMINGS[name].of_block(block)
    return ("query-key", names["query"], names["key"], "head", head)


def plant_value_output(weights: dict[str, Array], name: str, block: int = 1, head: int = 1) -> UnitKey:
    names = NAMINGS[name].of_block(block)
    columns = weights[names["attention_output"]][:, head * SIZE : (head + 1) * SIZE]
    plant(head_rows(weights, name, block, "value", head), columns)
    return ("value-output", names["value"], names["attention_output"], "head", head)


def plant_first_value(weights: dict[str, Array], name: str) -> UnitKey:
    return plant_value_output(weights, name, head=0)


def plant_whole_value(weights: dict[str, Array], name: str, block: int = 1) -> UnitKey:
    names = NAMINGS[name].of_block(block)
    plant(weights[names["value"]][-WIDTH:], weights[names["attention_output"]])
    return ("value-output", names["value"], names["attention_output"], "whole", None)


def plant_output_up(weights: dict[str, Array], name: str, block: int = 1) -> UnitKey:
    names = NAMINGS[name].of_block(block)
    plant(weights[names["attention_output"]], weights[names["up"]])
    return ("output-up", names["attention_output"], names["up"], "whole", None)


def plant_up_down(weights: dict[str, Array], name: str, block: int = 1) -> UnitKey:
    names = NAMINGS[name].of_block(block)
    plant(weights[names["up"]], weights[names["down"]])
    return ("up-down", names["up"], names["down"], "whole", None)


def plant_residual(weights: dict[str, Array], name: str, role: str = "query", block: int = 1) -> UnitKey:
    giver, reader = NAMINGS[name].of_block(block)["down"], NAMINGS[name].of_block(block + 1)[role]
    plant(weights[giver], weights[reader])
    return ("residual", giver, reader, "whole", None)


def plant_residual_value(weights: dict[str, Array], name: str) -> UnitKey:
    return plant_residual(weights, name, "value", 0)


def plant_embedding(weights: dict[str, Array], name: str) -> UnitKey:
    """Tokens are rows of an embedding; the patches are what a convolution reads."""
    embedding, reader = NAMINGS[name].embedding, NAMINGS[name].of_block(0)["key"]
    matrix = weights[embedding]
    plant(matrix.reshape(WIDTH, -1) if name in IMAGES else matrix.T, weights[reader])
    return ("embedding-input", embedding, reader, "whole", None)


def plant_end(weights: dict[str, Array], name: str, place: int = -1) -> UnitKey:
    giver, reader = NAMINGS[name].ends[place]
    giver = NAMINGS[name].of_block(BLOCKS - 1)["down"] if giver == "down" else giver
    plant(weights[giver], weights[reader])
    return ("output", giver, reader, "whole", None)


def plant_first_end(weights: dict[str, Array], name: str) -> UnitKey:
    return plant_end(weights, name, 0)


PLANTS = (
    plant_query_key,
    plant_value_output,
    plant_output_up,
    plant_up_down,
    plant_residual,
    plant_residual_value,
    plant_embedding,
    plant_end,
    plant_first_end,
)


@pytest.mark.parametrize("planting", PLANTS)
@pytest.mark.parametrize("name", NAMINGS)
def test_planted_alignment_is_found_on_exactly_that_unit(name: str, planting: Callable[..., UnitKey]) -> None:
    weights = random_weights(NAMINGS[name].shapes())
    planted = planting(weights, name)
    assert aligned(scores_of(name, weights)) == {planted}


@pytest.mark.parametrize("name", NAMINGS)
def test_where_all_values_are_planted_every_head_follows(name: str) -> None:
    """With equal singular values on both sides, U_h S has the same left vectors in either."""
    weights = random_weights(NAMINGS[name].shapes())
    planted = plant_whole_value(weights, name)
    assert aligned(scores_of(name, weights)) == {planted, *((*planted[:3], "head", head) for head in range(HEADS))}


@pytest.mark.parametrize(("block", "head"), [(0, 0), (2, 1)])
@pytest.mark.parametrize("name", NAMINGS)
def test_every_block_and_head_has_its_own_rows(name: str, block: int, head: int) -> None:
    weights = random_weights(NAMINGS[name].shapes())
    planted = {plant_query_key(weights, name, block, head), plant_value_output(weights, name, block, head)}
    assert aligned(scores_of(name, weights)) == planted


def test_what_the_tied_unembedding_reads_is_what_the_embedding_has_as_columns() -> None:
    """Where the decoder is the embedding, the transformed output meets the right vectors of that."""
    for name in TEXTS:
        naming = NAMINGS[name]
        transform, decoder = naming.ends[-1]
        shapes = {name: shape for name, shape in naming.shapes().items() if name != decoder}
        weights = random_weights(shapes)
        plant(weights[transform], weights[naming.embedding])
        found = scores_of(name, weights)
        assert aligned(found) == {("output", transform, naming.embedding, "whole", None)}
        untied = scores(weights, {naming.heads_key: HEADS, "tie_word_embeddings": False})
        assert set(found) - set(untied) == aligned(found)


def otherwise(tmp_path: Path, name: str, old: str, new: str) -> StructureOptions:
    """The family with another convention."""
    text = files("spectra_cli.layers").joinpath("architectures", f"{FAMILIES[name]}.toml").read_text("utf-8")
    assert old in text
    path = tmp_path / f"{name}.toml"
    path.write_text(text.replace(old, new), "utf-8")
    return StructureOptions(architecture=str(path), heads=HEADS)


SPLIT = 'split = ["query", "key", "value"]'


@pytest.mark.parametrize(
    ("planting", "wrong"),
    [
        (plant_query_key, f'{SPLIT}\norder = "interleaved"'),
        (plant_first_value, f'{SPLIT}\norder = "interleaved"'),
        (plant_query_key, 'split = ["query", "value", "key"]'),
        (plant_value_output, 'split = ["query", "value", "key"]'),
        (plant_whole_value, 'split = ["value", "key", "query"]'),
    ],
)
@pytest.mark.parametrize("name", FUSED)
def test_another_order_of_the_fused_rows_misses_what_is_planted(
    name: str, planting: Callable[..., UnitKey], wrong: str, tmp_path: Path
) -> None:
    """All queries, then all keys, then all values: any other order finds nothing."""
    weights = random_weights(NAMINGS[name].shapes())
    planted = planting(weights, name)
    found = scores(weights, structure=otherwise(tmp_path, name, SPLIT, wrong))
    assert planted in found
    assert aligned(found) == set()


@pytest.mark.parametrize("planting", [plant_query_key, plant_value_output, plant_residual, plant_output_up])
@pytest.mark.parametrize("name", [name for name in NAMINGS if name not in FUSED])
def test_the_other_layout_misses_what_is_planted(name: str, planting: Callable[..., UnitKey], tmp_path: Path) -> None:
    """Attention is square here, so that shapes do not tell rows from columns."""
    weights = random_weights(NAMINGS[name].shapes())
    planted = planting(weights, name)
    wrong = 'kind = "attention"\nlayout = "in,out"'
    found = scores(weights, structure=otherwise(tmp_path, name, wrong.replace("in,out", "out,in"), wrong))
    assert planted in found
    assert aligned(found) == set()


@pytest.mark.parametrize("name", IMAGES)
def test_the_right_vectors_of_the_patch_embedding_meet_nothing(name: str, tmp_path: Path) -> None:
    """It is no table of tokens, and no model fits a family that says so."""
    weights = random_weights(NAMINGS[name].shapes())
    planted = plant_embedding(weights, name)
    assert planted in scores(weights)
    structure = otherwise(tmp_path, name, 'kind = "conv"', 'kind = "embedding"')
    assert inventory_of(weights, structure=structure).families == ()


@pytest.mark.parametrize("name", [name for name in NAMINGS if name not in FUSED])
def test_heads_are_runs_of_rows_and_not_every_other_row(name: str) -> None:
    weights = random_weights(NAMINGS[name].shapes())
    names = NAMINGS[name].of_block(1)
    plant(weights[names["query"]][1::HEADS], weights[names["key"]][1::HEADS].T)
    assert aligned(scores_of(name, weights)) == set()


# Prefixes and heads.


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.bert.", "model.text.bert.", "0.auto_model.", "towers.3."])
@pytest.mark.parametrize("name", NAMINGS)
def test_any_prefix_is_the_same_model(name: str, prefix: str) -> None:
    """With the family's own prefix replaced in the blocks, and in front of everything."""
    own = NAMINGS[name].embedding.partition("embeddings.")[0] if name not in FUSED else ""
    shapes = NAMINGS[name].shapes()
    renamed = {shape: prefix + shape.removeprefix(own) for shape in shapes}
    stored = {renamed[old]: shape for old, shape in shapes.items()}
    inventory = inventory_of(random_weights(stored), *given_heads(name))
    assert families_of(inventory) == [FAMILIES[name]]
    assert inventory.unfitted == []
    units = sum(len(found.units) for found in inventory.connections())
    assert units == len(NAMINGS[name].expected())


def encoder(name: str, *without: str) -> Shapes:
    return {key: shape for key, shape in NAMINGS[name].shapes().items() if not key.startswith(without)}


SQUARES = {
    "a pooler and classes": (
        encoder("bert", "cls.") | {"classifier.weight": (3, WIDTH)},
        [("down", "bert.pooler.dense.weight"), ("bert.pooler.dense.weight", "classifier.weight")],
    ),
    "classes of tokens": (
        encoder("bert", "cls.", "bert.pooler") | {"classifier.weight": (3, WIDTH)},
        [("down", "classifier.weight")],
    ),
    "spans": (
        encoder("bert", "cls.", "bert.pooler") | {"qa_outputs.weight": (2, WIDTH)},
        [("down", "qa_outputs.weight")],
    ),
    "the base model": (encoder("bert", "cls."), [("down", "bert.pooler.dense.weight")]),
    "RoBERTa's classes": (
        encoder("roberta", "lm_head") | {"classifier.dense.weight": SQUARE, "classifier.out_proj.weight": (3, WIDTH)},
        [("down", "classifier.dense.weight"), ("classifier.dense.weight", "classifier.out_proj.weight")],
    ),
    "DistilBERT's classes": (
        encoder("distilbert", "vocab") | {"pre_classifier.weight": SQUARE, "classifier.weight": (3, WIDTH)},
        [("down", "pre_classifier.weight"), ("pre_classifier.weight", "classifier.weight")],
    ),
    "DistilBERT's classes of tokens": (
        encoder("distilbert", "vocab") | {"classifier.weight": (3, WIDTH)},
        [("down", "classifier.weight")],
    ),
    "ViT's pooler": (
        encoder("vit", "classifier") | {"vit.pooler.dense.weight": SQUARE},
        [("down", "vit.pooler.dense.weight")],
    ),
    "timm's representation layer": (
        encoder("vit_timm", "head") | {"pre_logits.fc.weight": SQUARE, "head.weight": (10, WIDTH)},
        [("down", "pre_logits.fc.weight"), ("pre_logits.fc.weight", "head.weight")],
    ),
    "torchvision's representation layer": (
        encoder("vit_torchvision", "heads") | {"heads.pre_logits.weight": SQUARE, "heads.head.weight": (10, WIDTH)},
        [("down", "heads.pre_logits.weight"), ("heads.pre_logits.weight", "heads.head.weight")],
    ),
}


@pytest.mark.parametrize("head", SQUARES)
def test_output_layers_follow_one_another(head: str) -> None:
    """Also under config.json that ties what is not there: a head without an unembedding has no such connection."""
    shapes, ends = SQUARES[head]
    last = [name for name in shapes if f".{BLOCKS - 1}." in name or f"_{BLOCKS - 1}." in name][-1]
    inventory = inventory_of(random_weights(shapes), {"tie_word_embeddings": True})
    assert len(inventory.families) == 1
    assert inventory.unfitted == []
    names = [spec.parameter for spec in inventory.matrices]
    found = {(names[c.upstream], names[c.downstream]) for c in inventory.connections() if c.name == "output"}
    assert found == {(last if giver == "down" else giver, reader) for giver, reader in ends}


def test_a_narrow_embedding_passes_its_projection() -> None:
    """ELECTRA's generator: tokens, projection, blocks, and back to the width of the tokens."""
    narrow = 16
    shapes: Shapes = {
        key.replace("bert.", "electra."): shape
        for key, shape in encoder("bert", "cls.", "bert.pooler", "bert.embeddings").items()
    }
    embedding, projection = "electra.embeddings.word_embeddings.weight", "electra.embeddings_project.weight"
    back = "generator_predictions.dense.weight"
    weights = random_weights(
        {embedding: (TOKENS, narrow), projection: (WIDTH, narrow)} | shapes | {back: (narrow, WIDTH)}
    )
    key = "electra.encoder.layer.0.attention.self.key.weight"
    plant(weights[embedding].T, weights[projection])
    found = scores(weights, {"num_attention_heads": HEADS})
    assert aligned(found) == {("embedding-input", embedding, projection, "whole", None)}
    assert ("embedding-input", projection, key, "whole", None) in found
    assert ("embedding-input", embedding, key, "whole", None) not in found
    assert ("output", back, embedding, "whole", None) in found


def test_gate_and_up_of_the_largest_dinov2_each_feed_down() -> None:
    """weights_in(x).chunk(2): the gate's rows are above the others."""
    naming = NAMINGS["vit"]
    names = {naming.of_block(b)["up"]: f"vit.encoder.layer.{b}.mlp.weights_in.weight" for b in range(BLOCKS)}
    downs = {naming.of_block(b)["down"]: f"vit.encoder.layer.{b}.mlp.weights_out.weight" for b in range(BLOCKS)}
    shapes = {names.get(key, downs.get(key, key)): shape for key, shape in naming.shapes().items()}
    weights = random_weights(shapes | dict.fromkeys(names.values(), (2 * INNER, WIDTH)))
    up, down = "vit.encoder.layer.1.mlp.weights_in.weight", "vit.encoder.layer.1.mlp.weights_out.weight"
    plant(weights[up][INNER:], weights[down])
    found = scores_of("vit", weights)
    assert aligned(found) == {("up-down", up, down, "gate", 1)}
    assert ("up-down", up, down, "gate", 0) in found


# Two towers.


def towers(text: str, image: str) -> Shapes:
    """A text tower and a vision tower in one model."""
    own = {"bert": "bert.", "roberta": "roberta.", "distilbert": "distilbert.", "vit": "vit."}
    shapes: Shapes = {"logit_scale": ()}
    for prefix, name in (("text_model.", text), ("vision_model.", image)):
        inside = {key: shape for key, shape in NAMINGS[name].shapes().items() if key.startswith(own.get(name, ""))}
        shapes |= {prefix + key.removeprefix(own.get(name, "")): shape for key, shape in inside.items()}
    return shapes | {"text_projection.weight": (8, WIDTH), "visual_projection.weight": (8, WIDTH)}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("text", TEXTS)
def test_two_towers_are_two_families_each_with_its_own_heads(text: str, image: str) -> None:
    config = {
        "text_config": {"num_attention_heads": 2, "n_heads": 2},
        "vision_config": {"num_attention_heads": 3},
    }
    inventory = inventory_of(random_weights(towers(text, image)), config)
    assert families_of(inventory) == [FAMILIES[text], FAMILIES[image]]
    assert [family.fit.prefix for family in inventory.families] == ["text_model.", "vision_model."]
    assert {spec.parameter for spec in inventory.unfitted} == {"text_projection.weight", "visual_projection.weight"}
    heads = [family.heads.query if family.heads else None for family in inventory.families]
    assert heads == [2, 3]
    names = [spec.parameter.partition(".")[0] for spec in inventory.matrices]
    assert all(names[found.upstream] == names[found.downstream] for found in inventory.connections())
    blocks = [
        len([c for c in inventory.connections() if c.name == "up-down" and names[c.upstream] == t]) for t in names
    ]
    assert set(blocks[1:-2]) == {BLOCKS}


def test_an_output_layer_outside_two_towers_keeps_neither_from_its_family() -> None:
    """It counts as one tower's, and the other tower has its blocks still."""
    shapes = towers("bert", "vit") | {"classifier.weight": (3, WIDTH)}
    inventory = inventory_of(random_weights(shapes))
    assert families_of(inventory) == ["bert", "vit"]
    assert sum(spec.parameter == "classifier.weight" for spec in inventory.unfitted) == 0


# The models of the transformers library.


@pytest.fixture(scope="module")
def transformers() -> Iterator[Any]:
    with warnings.catch_warnings():
        import transformers as library

        yield library


SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
TEXT = SIZES | {"vocab_size": 50, "max_position_embeddings": 20, "embedding_size": 8}
DISTILLED = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32, "vocab_size": 50}
IMAGE = SIZES | {"image_size": 8, "patch_size": 4, "encoder_stride": 4}
TEXT_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")

MODELS = [
    *(("bert", "Bert", head, TEXT) for head in (*TEXT_HEADS, "ForPreTraining", "ForNextSentencePrediction")),
    *(("bert", "Bert", head, TEXT) for head in ("LMHeadModel", "ForMultipleChoice")),
    *(("bert", "Roberta", head, TEXT) for head in (*TEXT_HEADS, "ForCausalLM")),
    *(("bert", "Electra", head, TEXT) for head in (*TEXT_HEADS, "ForPreTraining")),
    *(("bert", name, "ForMaskedLM", TEXT) for name in ("XLMRoberta", "Camembert")),
    *(("distilbert", "DistilBert", head, DISTILLED) for head in TEXT_HEADS),
    *(("vit", "ViT", head, IMAGE) for head in ("Model", "ForImageClassification", "ForMaskedImageModeling")),
    *(("vit", "DeiT", head, IMAGE) for head in ("Model", "ForImageClassification")),
    ("vit", "DeiT", "ForImageClassificationWithTeacher", IMAGE),
    ("vit", "Beit", "ForImageClassification", IMAGE | {"use_relative_position_bias": True}),
    ("vit", "Beit", "Model", IMAGE | {"use_shared_relative_position_bias": True}),
    ("vit", "Dinov2", "Model", IMAGE),
    ("vit", "Dinov2", "ForImageClassification", IMAGE),
    ("vit", "Dinov2", "Model", IMAGE | {"use_swiglu_ffn": True}),
]


def check(tensors: dict[str, TensorInfo], config: dict[str, Any] | None, family: str) -> list[tuple[str, str, str]]:
    """That a model is wholly understood; connections whose dimensions do not meet."""
    inventory = take_inventory(tensors, ordered=True, config=config)
    assert families_of(inventory) == [family]
    assert inventory.unfitted == []
    heads = inventory.families[0].heads
    assert (heads.query if heads else None) == (4 if config else None)
    names = [spec.parameter for spec in inventory.matrices]
    found = inventory.connections()
    assert {"embedding-input", "query-key", "value-output", "output-up", "up-down", "residual"} <= {
        c.name for c in found
    }
    assert {unit.status for c in found for unit in c.units} <= {
        "ok",
        "shape_mismatch",
        *(() if config else ("no_head_count",)),
    }
    return [
        (c.name, names[c.upstream], names[c.downstream])
        for c in found
        for unit in c.units
        if unit.status == "shape_mismatch"
    ]


@pytest.mark.parametrize(("family", "model", "head", "options"), MODELS)
def test_models_of_transformers_are_understood_wholly(
    family: str, model: str, head: str, options: dict[str, Any], *, transformers: Any, tmp_path: Path
) -> None:
    """As they are in memory and as they are saved, with their config.json and without."""
    from safetensors import safe_open

    settings = getattr(transformers, f"{model}Config")(**options)
    built = getattr(transformers, f"{model}{head}")(settings)
    config = built.config.to_dict() | {"architectures": [type(built).__name__]}
    storages: dict[str, str] = {}
    in_memory: dict[str, TensorInfo] = {}
    for name, tensor in built.state_dict().items():
        storage = storages.setdefault(str(tensor.data_ptr()), name)
        in_memory[name] = TensorInfo(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "", storage)
    built.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    saved = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
    # The classifier reads the class token and the mean of the patches side by side.
    mean = [("output", "classifier.weight")] if (model, head) == ("Dinov2", "ForImageClassification") else []
    for tensors in (in_memory, saved):
        for known in (config, None):
            mismatched = check(tensors, known, family)
            assert [(name, reader) for name, _, reader in mismatched] == mean
    inventory = take_inventory(saved, ordered=True, config=config)
    readers = {inventory.matrices[found.downstream].parameter for found in inventory.connections()}
    decodes = head in {"ForMaskedLM", "ForPreTraining", "LMHeadModel", "ForCausalLM"} and built.get_output_embeddings()
    assert any("word_embeddings" in reader for reader in readers) == bool(decodes)


def test_two_towers_of_transformers_are_two_families(transformers: Any) -> None:
    text = transformers.BertConfig(**TEXT)
    image = transformers.ViTConfig(**(IMAGE | {"num_attention_heads": 2}))
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(image, text, projection_dim=8)
    built = transformers.VisionTextDualEncoderModel(config)
    tensors = {name: TensorInfo(name, tuple(t.shape), "float32") for name, t in built.state_dict().items()}
    inventory = take_inventory(tensors, ordered=True, config=config.to_dict())
    found = {f.fit.prefix: (f.fit.architecture.family, f.heads.query if f.heads else 0) for f in inventory.families}
    assert found == {"text_model.": ("bert", 4), "vision_model.": ("vit", 2)}
    assert {spec.parameter for spec in inventory.unfitted} == {"text_projection.weight", "visual_projection.weight"}
