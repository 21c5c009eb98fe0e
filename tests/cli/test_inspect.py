"""`spectra inspect` shows the structure: families, heads, every connection, and what did not fit."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from safetensors.torch import save_file

from spectra_cli.cli.repeated import patterns_of
from spectra_cli.cli.structure import MOST_LISTED
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.shortening import fitted_names
from spectra_cli.spectrum import memory
from spectra_cli.spectrum.subspaces import MOST
from spectra_cli.tensors import TensorInfo

Fixture = Callable[..., Any]
Shapes = dict[str, tuple[int, ...]]
Config = dict[str, Any]
FIXTURES = Path(__file__).parents[2] / "fixtures"


def llama(blocks: int = 2, experts: int = 0) -> Shapes:
    """Grouped-query attention with 4 query heads of 8 on 2 key heads; `experts` as Mixtral names them."""
    shapes: Shapes = {"model.embed_tokens.weight": (50, 32)}
    for block in range(blocks):
        attention, mlp = f"model.layers.{block}.self_attn.", f"model.layers.{block}.mlp."
        shapes |= {f"{attention}q_proj.weight": (32, 32), f"{attention}k_proj.weight": (16, 32)}
        shapes |= {f"{attention}v_proj.weight": (16, 32), f"{attention}o_proj.weight": (32, 32)}
        shapes |= {f"model.layers.{block}.input_layernorm.weight": (32,)}
        if not experts:
            shapes |= {f"{mlp}gate_proj.weight": (48, 32), f"{mlp}up_proj.weight": (48, 32)}
            shapes |= {f"{mlp}down_proj.weight": (32, 48)}
        if experts:
            shapes[f"model.layers.{block}.block_sparse_moe.gate.weight"] = (experts, 32)
        for expert in range(experts):
            name = f"model.layers.{block}.block_sparse_moe.experts.{expert}."
            shapes |= {f"{name}w1.weight": (48, 32), f"{name}w2.weight": (32, 48), f"{name}w3.weight": (48, 32)}
    return shapes | {"lm_head.weight": (50, 32)}


def encoder() -> Shapes:
    """A language model around torch.nn.TransformerEncoder, whose query, key and value are one matrix."""
    shapes: Shapes = {"encoder.weight": (20, 16)}
    for block in range(2):
        name = f"transformer.layers.{block}."
        shapes |= {f"{name}self_attn.in_proj_weight": (48, 16), f"{name}self_attn.out_proj.weight": (16, 16)}
        shapes |= {f"{name}linear1.weight": (24, 16), f"{name}linear2.weight": (16, 24)}
    return shapes | {"decoder.weight": (20, 16)}


def stacked_lstm() -> Shapes:
    layers = {f"lstm.weight_{side}_l{layer}": (48, 12) for layer in range(2) for side in ("ih", "hh")}
    return layers | {"fc.weight": (10, 12)}


def vgg() -> Shapes:
    """The last layer reads a flattened image of 2 x 2."""
    return {"features.0.weight": (8, 3, 3, 3), "features.3.weight": (16, 8, 3, 3), "classifier.0.weight": (10, 64)}


LLAMA_CONFIG = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}
MODELS: dict[str, tuple[Shapes, Config]] = {
    "llama": (llama(), LLAMA_CONFIG | {"architectures": ["LlamaForCausalLM"]}),
    "llama without heads": (llama(), {}),
    "mixtral": (llama(3, experts=8), {**LLAMA_CONFIG, "model_type": "mixtral"}),
    "encoder": (encoder(), {"num_heads": 4}),
    "encoder without heads": (encoder(), {}),
    "lstm": (stacked_lstm(), {}),
    "vgg": (vgg(), {}),
    "no family": ({"a.0.weight": (6, 4), "a.1.weight": (5, 6), "a.2.weight": (7, 4)}, {}),
}


def saved(shapes: Shapes, config: Config, path: str = "model") -> Path:
    directory = Path(path)
    directory.mkdir()
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    if config:
        (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def inventory_of(shapes: Shapes, config: Mapping[str, Any]) -> Inventory:
    tensors = {name: TensorInfo(name, shape, "float32") for name, shape in shapes.items()}
    return take_inventory(tensors, ordered=False, config=config)  # safetensors sorts names


def shown(spectra: Fixture, *arguments: str | Path) -> str:
    outcome = spectra("inspect", *arguments)
    assert (outcome.status, outcome.err) == (0, "")
    return str(outcome.out)


def as_json(spectra: Fixture, *arguments: str | Path) -> dict[str, Any]:
    (run,) = json.loads(shown(spectra, *arguments, "--json"))["runs"]
    return dict(run)


def words(text: str) -> str:
    """Lines joined, however they were wrapped."""
    return " ".join(text.split())


def listed(text: str) -> list[tuple[str, str, str, str]]:
    """Connection, upstream, downstream and units of the lines of the table of connections."""
    row = re.compile(r"^ ([a-z-]+) +(\d+) (\S+) +(\d+) (\S+)  +(\S.*?) *$", re.MULTILINE)
    return [(name, above, below, units) for name, _, above, _, below, units in row.findall(text)]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no name is shortened."""
    monkeypatch.setenv("COLUMNS", "250")


# Connections


@pytest.mark.parametrize("name", MODELS)
def test_what_is_listed_is_every_connection(name: str, spectra: Fixture) -> None:
    shapes, config = MODELS[name]
    inventory = inventory_of(shapes, config)
    expected = [
        {
            "connection": connection.name,
            "upstream": inventory.matrices[connection.upstream].parameter,
            "downstream": inventory.matrices[connection.downstream].parameter,
            "units": [
                {"unit": unit.unit, "index": unit.index, "primary": unit.primary, "status": unit.status}
                for unit in connection.units
            ],
        }
        for connection in inventory.connections()
    ]
    assert len(expected) >= 2
    assert as_json(spectra, saved(shapes, config))["connections"] == expected


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mixtral"])
def test_text_and_json_list_the_same(name: str, spectra: Fixture, wide: None) -> None:
    """Pairs in the same order, and the depths before the names are those of the table of matrices."""
    directory = saved(*MODELS[name])
    text, told = shown(spectra, directory), as_json(spectra, directory)
    pairs = [(item["connection"], item["upstream"], item["downstream"]) for item in told["connections"]]
    assert [row[:3] for row in listed(text)] == pairs
    counted = f"{len(pairs)} connections"
    assert counted in text
    for matrix in told["matrices"]:
        for depth in re.findall(rf"(\d+) {re.escape(matrix['parameter'])}\s", text.split(counted)[1]):
            assert int(depth) == matrix["depth"]


@pytest.mark.parametrize(
    ("model", "connection", "units"),
    [
        ("llama", "query-key", "4 heads"),
        ("llama", "value-output", "4 heads"),
        ("llama", "up-down", "whole"),
        ("llama without heads", "query-key", "heads unknown"),
        ("llama without heads", "value-output", "heads unknown"),
        ("encoder", "query-key", "4 heads"),
        ("encoder", "value-output", "4 heads and whole"),
        ("encoder without heads", "value-output", "whole, heads unknown"),
        ("lstm", "recurrent", "4 gates"),
        ("vgg", "sequential", "9 positions"),
        ("vgg", "sequential", "do not meet: 16 and 64"),
        ("no family", "sequential", "whole"),
        ("no family", "sequential", "do not meet: 5 and 4"),
    ],
)
def test_units_are_said_in_words(model: str, connection: str, units: str, spectra: Fixture, wide: None) -> None:
    rows = listed(shown(spectra, saved(*MODELS[model])))
    assert units in {words for name, _, _, words in rows if name == connection}


def test_heads_that_do_not_divide_are_said(spectra: Fixture, wide: None) -> None:
    rows = listed(shown(spectra, saved(encoder(), {}), "--heads", "5"))
    assert {units for name, _, _, units in rows if name == "query-key"} == {"heads do not fit 48"}
    rows = listed(shown(spectra, saved(llama(), {}, "other"), "--heads", "5"))
    assert {units for name, _, _, units in rows if name == "query-key"} == {"heads do not fit 32 and 16"}


def test_a_convolution_reads_channels(spectra: Fixture, wide: None) -> None:
    shapes: Shapes = {"features.0.weight": (8, 3, 3, 3), "features.3.weight": (16, 7, 3, 3)}
    assert [row[3] for row in listed(shown(spectra, saved(shapes, {})))] == ["do not meet: 8 and 7"]


def expanded(above: str, below: str) -> set[tuple[str, str]]:
    """All pairs that two patterns stand for, where the numbers are without gaps."""
    ranges = {
        letter: range(int(a), int(b) + 1) for letter, a, b in re.findall(r"\{(\w)=(\d+)\.\.(\d+)\}", above + below)
    }

    def filled(pattern: str, values: Mapping[str, int]) -> str:
        return re.sub(
            r"\{(\w)(?:=\d+\.\.\d+|([+-]\d+))?\}", lambda found: str(values[found[1]] + int(found[2] or 0)), pattern
        )

    choices = (dict(zip(ranges, numbers, strict=True)) for numbers in itertools.product(*ranges.values()))
    return {(filled(above, values), filled(below, values)) for values in choices}


@pytest.mark.parametrize(("blocks", "experts"), [(32, 0), (8, 8), (5, 12)])
def test_of_very_many_connections_those_that_repeat_share_a_line(
    blocks: int, experts: int, spectra: Fixture, wide: None
) -> None:
    """A few lines, and their patterns written out are exactly the connections."""
    directory = saved(llama(blocks, experts), {**LLAMA_CONFIG, "model_type": "mixtral" if experts else "llama"})
    connections = as_json(spectra, directory)["connections"]
    assert len(connections) > MOST_LISTED
    (table,) = re.findall(rf"^{len(connections)} connections.*?\n\s*\n(?=\S)", shown(spectra, directory), re.M | re.S)
    rows = re.findall(r"^ ([a-z-]+) +(\d+)  (\S+) *\n +(\S.*?) +-> (\S+) *$", table, re.MULTILINE)
    assert 10 <= len(rows) <= 20
    found: list[tuple[str, str, str]] = []
    for name, count, above, _, below in rows:
        pairs = expanded(above, below)
        assert len(pairs) == int(count)
        found += [(name, *pair) for pair in pairs]
    assert Counter(found) == Counter((item["connection"], item["upstream"], item["downstream"]) for item in connections)
    assert {units for name, _, _, units, _ in rows if name == "query-key"} == {"4 heads"}


def test_patterns_fit_80_columns(spectra: Fixture) -> None:
    """Two lines for each, names shortened rather than wrapped."""
    text = shown(spectra, saved(llama(8, 8), {**LLAMA_CONFIG, "model_type": "mixtral"}))
    table = re.split(r"\n\s*\n", text.partition(" connections, ")[2])[1].splitlines()[2:]
    assert len(table) % 2 == 0
    assert all(re.fullmatch(r" [a-z-]+ +\d+  \S+ *", line) for line in table[::2])
    assert all(re.fullmatch(r"   \S.*  -> \S+ *", line) for line in table[1::2])


def test_patterns_say_which_numbers_go_together() -> None:
    same = [(f"h.{block}.q", f"h.{block}.k") for block in range(12)]
    later = [(f"h.{block}.down", f"h.{block + 1}.q") for block in range(11)]
    free = [(f"h.{block}.o", f"h.{block}.up[{expert}]") for block in range(3) for expert in range(4)]
    uneven = [(f"a.{block}.w1", f"a.{block}.w2") for block in (0, 1, 5, 9)]
    assert patterns_of(same) == ("h.{i=0..11}.q", "h.{i}.k")
    assert patterns_of(later) == ("h.{i=0..10}.down", "h.{i+1}.q")
    assert patterns_of(free) == ("h.{i=0..2}.o", "h.{i}.up[{j=0..3}]")
    assert patterns_of(uneven) == ("a.{i=0,1,5..9}.w1", "a.{i}.w2")
    assert patterns_of([("x.0.w", "x.7.w")]) == ("x.0.w", "x.7.w")
    assert patterns_of([(f"s.{n}.w", "out") for n in (0, 2, 4, 6)]) == ("s.{i=0,2..6}.w", "out")


def test_an_embedding_gives_columns(spectra: Fixture, wide: None) -> None:
    shapes: Shapes = {"a.embedding.weight": (20, 6), "b.0.weight": (5, 7)}
    assert [row[3] for row in listed(shown(spectra, saved(shapes, {})))] == ["do not meet: 6 and 7"]


def test_selected_are_connections_of_which_both_ends_are(spectra: Fixture, wide: None) -> None:
    directory = saved(*MODELS["llama"])
    everything = as_json(spectra, directory)["connections"]
    chosen = ("--include", "*.layers.*", "--exclude", "*.1.*")
    told = as_json(spectra, directory, *chosen)
    inside = {matrix["parameter"] for matrix in told["matrices"]}
    assert told["connections"] == [item for item in everything if {item["upstream"], item["downstream"]} <= inside]
    assert 0 < len(told["connections"]) < len(everything)
    text = shown(spectra, directory, *chosen)
    assert f"{len(told['connections'])} of {len(everything)} connections" in text
    assert len(listed(text)) == len(told["connections"])
    assert f"0 of {len(everything)} connections selected" in shown(spectra, directory, "--include", "lm_head*")


def test_a_single_matrix_has_no_connection(spectra: Fixture) -> None:
    assert "0 connections: none of the matrices feeds another" in shown(spectra, saved({"a.weight": (3, 4)}, {}))


# Families


@pytest.mark.parametrize(
    ("config", "options", "said", "counts"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 2}, (), "4 heads, 2 key-value heads (config.json)", (4, 2)),
        ({"num_attention_heads": 4}, (), "4 heads (config.json)", (4, 4)),
        ({}, ("--heads", "4"), "4 heads (--heads)", (4, 4)),
        ({}, ("--heads", "4", "--kv-heads", "2"), "4 heads, 2 key-value heads (--heads, --kv-heads)", (4, 2)),
        (
            {"num_attention_heads": 4},
            ("--kv-heads", "2"),
            "4 heads, 2 key-value heads (config.json, --kv-heads)",
            (4, 2),
        ),
        ({}, (), "number of heads unknown: per-head rows need --heads", (None, None)),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, (), "per-head rows need --kv-heads", (None, None)),
    ],
)
def test_heads_are_said_with_their_source(
    config: Config, options: tuple[str, ...], said: str, counts: tuple[int | None, int | None], spectra: Fixture
) -> None:
    directory = saved(llama(), config)
    assert said in words(shown(spectra, directory, *options))
    (family,) = as_json(spectra, directory, *options)["families"]
    assert (family["heads"], family["kv_heads"]) == counts


def test_a_family_is_named_beside_what_the_configuration_calls_the_model(spectra: Fixture) -> None:
    directory = saved(*MODELS["llama"])
    text = words(shown(spectra, directory))
    (family,) = as_json(spectra, directory)["families"]
    assert (family["family"], family["prefix"]) == ("llama", "model.")
    assert f"family llama: {family['title']}; under 'model.'" in text
    assert "architecture in config.json: LlamaForCausalLM" in text


def test_a_family_without_attention_needs_no_heads(spectra: Fixture) -> None:
    text = shown(spectra, saved(*MODELS["lstm"]))
    assert "family lstm" in text
    assert "head" not in text


def test_several_families_are_all_named(spectra: Fixture) -> None:
    tower = {f"text.{name}": shape for name, shape in llama().items()}
    directory = saved(tower | {f"image.{name}": shape for name, shape in vgg().items()}, {})
    text = shown(spectra, directory)
    told = {(item["family"], item["prefix"]) for item in as_json(spectra, directory)["families"]}
    assert told == {("llama", "text.model."), ("vgg", "image.")}
    assert all(re.search(rf"family {name}: [^;]*; under '{prefix}'", words(text)) for name, prefix in told)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no family fits: matrices are taken one after the other (sequential)"),
        (("--architecture", "sequential"), "one after the other (--architecture sequential)"),
    ],
)
def test_that_no_family_fits_is_said(options: tuple[str, ...], said: str, spectra: Fixture) -> None:
    directory = saved(*MODELS["no family"])
    assert said in words(shown(spectra, directory, *options))
    told = as_json(spectra, directory, *options)
    assert (told["families"], told["unfitted"]) == ([], [])
    assert {item["connection"] for item in told["connections"]} == {"sequential"}


def test_a_family_that_is_named_and_does_not_fit_is_an_error(spectra: Fixture) -> None:
    """It says what of the family is not there, and what there is."""
    directory = saved(*MODELS["no family"])
    outcome = spectra("inspect", directory, "--architecture", "llama")
    assert outcome.status == 1
    text = words(outcome.out)
    assert "architecture_mismatch" in text
    assert "family llama does not fit: required 'layers.{i}.self_attn.q_proj.weight'" in text
    assert "weights are" in text
    told = json.loads(spectra("inspect", directory, "--architecture", "llama", "--json").out)["runs"][0]
    assert [item["status"] for item in told["checkpoints"]] == ["architecture_mismatch"]
    assert (told["matrices"], told["connections"], told["remarks"]) == ([], [], [])


def test_what_has_no_effect_is_told_in_both_forms(spectra: Fixture) -> None:
    directory = saved(*MODELS["lstm"])
    text, told = (form(spectra, directory, "--heads", "4") for form in (shown, as_json))
    assert told["remarks"] == ["--heads has no effect: lstm has no attention"]
    assert f"Warning: {told['remarks'][0]}" in text
    assert as_json(spectra, directory)["remarks"] == []
    assert "Warning" not in shown(spectra, directory)


def test_heads_shared_by_queries_are_all_that_meets(spectra: Fixture, wide: None) -> None:
    """And nothing of it is a warning; without the number of key heads it is."""
    text = shown(spectra, saved(llama(), {"num_attention_heads": 4, "num_key_value_heads": 2}))
    units = {units for name, _, _, units in listed(text) if name in {"query-key", "value-output"}}
    assert units == {"4 heads"}
    assert "Warning" not in text
    text = shown(spectra, saved(llama(), {"num_attention_heads": 4}, "other"))
    assert "Warning: llama: 4 query and 4 key-value heads do not fit 32 and 16 rows" in text
    assert {units for name, _, _, units in listed(text) if name == "query-key"} == {"heads do not fit 32 and 16"}


def test_matrices_without_a_role_are_said(spectra: Fixture) -> None:
    strange = {f"model.adapter.{number}.weight": (7, 9) for number in range(5)}
    directory = saved(llama() | strange, LLAMA_CONFIG)
    text, told = shown(spectra, directory), as_json(spectra, directory)
    assert sorted(told["unfitted"]) == sorted(strange)
    assert "matrices without a role: 5" in text
    assert "model.adapter.0.weight" in text.partition("matrices without a role")[2]
    fewer = as_json(spectra, directory, "--exclude", "*adapter.0*")["unfitted"]
    assert sorted(fewer) == sorted(strange)[1:]
    assert "without a role" not in shown(spectra, saved(llama(), LLAMA_CONFIG, "other"))


# Memory


def test_the_memory_of_analyze_is_said(spectra: Fixture) -> None:
    """More than that of rank, and the vectors of the reference are what LAPACK gives, cut to 100, in float32."""
    assert memory.LEADING_VECTORS == MOST
    shapes: Shapes = {"wide.weight": (150, 400), "tall.weight": (300, 120), "thin.weight": (500, 3)}
    directory = saved(shapes, {})
    told = as_json(spectra, directory)
    assert told["analyze_memory_bytes"] > told["working_memory_bytes"]
    kept = 0
    for shape in shapes.values():
        left, _, right = np.linalg.svd(np.ones(shape, np.float32), full_matrices=False)
        kept += left[:, :100].nbytes + right[:100].nbytes
    assert told["reference_vector_bytes"] == kept
    text = words(shown(spectra, directory))
    assert "working memory for `spectra rank`: about" in text
    assert f"{-(-kept // 1024)} KiB each for the vectors of the reference and of the checkpoint before" in text
    assert as_json(spectra, directory, "--include", "thin*")["reference_vector_bytes"] == 4 * 3 * 503


# What is printed

HOSTILE = ["a\x1b[31m.weight", "[red]b[/].weight", "c\nError: forged.weight", "[/].weight", "层" * 70 + ".weight"]
HOSTILE += ["v" * 300, "9" * 400 + ".w.weight", "{i=0..3}.{i}.weight", "..weight", ":fire:.weight"]


@pytest.mark.parametrize("columns", ["80", "121"])
@pytest.mark.parametrize("count", [1, 40])
def test_hostile_names_are_harmless(
    columns: str, count: int, spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both forms of the table: nothing steers the terminal, forges a line or is wider than it."""
    monkeypatch.setenv("COLUMNS", columns)
    shapes: Shapes = {f"m{place}.{name}": (4, 4) for place in range(count) for name in HOSTILE}
    config = {"architectures": ["[bold]\x1b[2J"], "model_type": "\x1b[1m"}
    text = shown(spectra, saved(shapes, config))
    assert f"{len(shapes) - 1} connections" in text
    assert "\x1b" not in text
    assert not any(line.startswith("Error") for line in text.splitlines())
    assert max(map(cell_len, text.splitlines())) <= int(columns)
    assert "[red]b[/]" in text.partition(" connections")[2]


def test_a_hostile_family_file_is_harmless(spectra: Fixture) -> None:
    """Its title and its name are text."""
    file = Path("[red]mine.toml")
    roles = "".join(
        f'[parameters.{role}]\nname = "a.{number}.weight"\nrequired = true\n'
        for number, role in enumerate(("first", "second"))
    )
    rule = '[[connections]]\nname = "sequential"\nfrom = "first"\nto = "second"\n'
    file.write_text(f'title = "[/]x\\u001b[2J"\n[heads]\n{roles}{rule}', encoding="utf-8")
    text = shown(spectra, saved(*MODELS["no family"]), "--architecture", str(file))
    assert "family [red]mine: [/]x\\x1b[2J" in text
    assert "1 connection" in text
    assert "matrices without a role: 1" in text


@pytest.mark.parametrize("columns", ["20", "40", "80", "120"])
@pytest.mark.parametrize("name", MODELS)
def test_no_line_is_wider_than_the_terminal(
    name: str, columns: str, spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which a pipe has at least 80 columns."""
    monkeypatch.setenv("COLUMNS", columns)
    text = shown(spectra, saved(*MODELS[name]))
    assert max(map(cell_len, text.splitlines())) <= max(80, int(columns))


@pytest.mark.parametrize("run", ["grokking/seed_0", "lstm", "cnn"])
def test_a_real_run_is_a_family_and_leaves_nothing_over(run: str, spectra: Fixture) -> None:
    told = as_json(spectra, FIXTURES / run)
    assert len(told["families"]) == 1
    assert told["unfitted"] == []
    assert not any(unit["status"] == "no_head_count" for item in told["connections"] for unit in item["units"])
    assert "…" not in shown(spectra, FIXTURES / run).partition(" connections")[2].partition("tensors that")[0]


@given(
    st.lists(st.lists(st.text("ab层0[]{} \x1b", max_size=9), min_size=1, max_size=9).map(".".join), max_size=6),
    st.integers(0, 40),
)
def test_names_are_shortened_only_where_they_must_be(names: list[str], width: int) -> None:
    fitted = fitted_names(names, width)
    assert all(cell_len(name) <= max(width, 8) for name in fitted)
    if all(cell_len(name) <= width for name in names):
        assert fitted == names


def test_names_are_shortened_alike_and_keep_their_numbers() -> None:
    names = [f"model.layers.{block}.self_attn.q_proj.weight" for block in (3, 12)]
    assert fitted_names(names, 33) == ["model.layers.3.self_attn.q_proj", "model.layers.12.self_attn.q_proj"]
    assert fitted_names(names, 31, "model.") == ["layers.3.self_attn.q_proj", "layers.12.self_attn.q_proj"]
    assert fitted_names(names, 22, "model.") == ["l.3.self_attn.q_proj", "l.12.self_attn.q_proj"]
    assert fitted_names([*names, "x" * 90], 22, "model.")[:2] == ["l.3.self_attn.q_proj", "l.12.self_attn.q_proj"]
