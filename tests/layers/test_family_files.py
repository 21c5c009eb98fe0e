"""A user's own family in a TOML file: it works as those that come with spectra, and says what is wrong with it."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from spectra_cli.errors import UsageError
from spectra_cli.layers.architecture import Architecture
from spectra_cli.layers.family_files import LARGEST_FILE_BYTES, find_architecture, known_architectures
from spectra_cli.layers.fitting import SEQUENTIAL, StructureOptions

from .planted import Array, aligned, inventory_of, plant, random_weights, scores

WIDTH, HEADS, HIDDEN = 24, 2, 30

OWN = """
# A decoder of one's own: value, query and key in one matrix, stored as (in, out).
title = "Mine"

[heads]
query = ["model.heads"]

[parameters.qkv]
name = "stack.{i}.mix.weight"
kind = "attention"
layout = "in,out"
split = ["value", "query", "key"]
required = true

[parameters.attention_output]
name = "stack.{i}.mixed.weight"
kind = "attention"
layout = "out,in"

[parameters.up]
name = ["stack.{i}.wide.weight", "stack.{i}.broad.weight"]
kind = "linear"
layout = "out,in"

[parameters.down]
name = "stack.{i}.back.weight"
kind = "linear"
layout = "out,in"

[[connections]]
name = "query-key"
from = "query"
to = "key"

[[connections]]
name = "value-output"
from = "value"
to = "attention_output"

[[connections]]
name = "up-down"
path = ["attention_output", "up", "down"]

[[connections]]
name = "residual"
from = "down"
to = "qkv"
next = true
"""


def written(folder: Path, text: str | bytes, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def own_weights() -> dict[str, Array]:
    """Two blocks, of which the second has another name for its widening layer."""
    shapes = {}
    for number, wide in ((0, "wide"), (1, "broad")):
        start = f"net.stack.{number}"
        shapes |= {
            f"{start}.mix.weight": (WIDTH, 3 * WIDTH),
            f"{start}.mixed.weight": (WIDTH, WIDTH),
            f"{start}.{wide}.weight": (HIDDEN, WIDTH),
            f"{start}.back.weight": (WIDTH, HIDDEN),
        }
    return random_weights({**shapes, "net.other.weight": (5, 7)})


class TestOwnFamily:
    def test_its_conventions_hold(self, tmp_path: Path) -> None:
        structure = StructureOptions(architecture=written(tmp_path, OWN))
        config = {"model": {"heads": HEADS}}
        rows = {"value": slice(12, 24), "query": slice(36, 48), "key": slice(60, 72)}  # of head 1
        mix, mixed = "net.stack.1.mix.weight", "net.stack.1.mixed.weight"
        weights = own_weights()
        plant(weights[mix].T[rows["value"]], weights[mixed][:, 12:])
        plant(weights[mix].T[rows["query"]], weights[mix].T[rows["key"]].T)
        plant(weights["net.stack.0.back.weight"], weights["net.stack.0.mixed.weight"], seed=3)  # not connected
        expected = {("value-output", mix, mixed, "head", 1), ("query-key", mix, mix, "head", 1)}
        assert aligned(scores(weights, config, structure)) == expected
        weights = own_weights()
        plant(weights["net.stack.1.broad.weight"], weights["net.stack.1.back.weight"])
        expected = {("up-down", "net.stack.1.broad.weight", "net.stack.1.back.weight", "whole", None)}
        assert aligned(scores(weights, config, structure)) == expected

    def test_it_is_named_after_its_file_and_leaves_what_it_does_not_know(self, tmp_path: Path) -> None:
        inventory = inventory_of(own_weights(), {}, StructureOptions(architecture=written(tmp_path, OWN)))
        assert [family.fit.architecture.family for family in inventory.families] == ["mine"]
        assert [family.fit.architecture.title for family in inventory.families] == ["Mine"]
        assert [spec.parameter for spec in inventory.unfitted] == ["net.other.weight"]

    def test_it_counts_however_little_of_the_model_it_explains(self, tmp_path: Path) -> None:
        text = '[parameters.one]\nname = "other.weight"\nrequired = true\n'
        text += '[[connections]]\nname = "sequential"\nfrom = "one"\nto = "one"\nnext = true\n'
        inventory = inventory_of(own_weights(), {}, StructureOptions(architecture=written(tmp_path, text)))
        assert [spec.parameter for spec in inventory.matrices if spec not in inventory.unfitted] == ["net.other.weight"]
        (only,) = [depth for depth, spec in enumerate(inventory.matrices) if spec not in inventory.unfitted]
        assert {(each.upstream, each.downstream) for each in inventory.connections()} == {(only, only)}

    def test_it_is_not_asked_unless_it_is_named(self, tmp_path: Path) -> None:
        written(tmp_path, OWN)
        assert inventory_of(own_weights()).families == ()

    def test_a_model_that_it_does_not_fit_is_a_sequence_of_matrices(self, tmp_path: Path) -> None:
        weights = random_weights({"a.weight": (5, 4), "b.weight": (6, 5), "c.weight": (3, 4)})
        own = inventory_of(weights, {}, StructureOptions(architecture=written(tmp_path, OWN)))
        sequential = inventory_of(weights, {}, StructureOptions(architecture=SEQUENTIAL))
        assert own.connections() == sequential.connections()
        units = [(each.name, [unit.status for unit in each.units]) for each in own.connections()]
        assert units == [("sequential", ["ok"]), ("sequential", ["shape_mismatch"])]

    def test_a_copy_of_a_family_that_comes_with_spectra_gives_the_same(self, tmp_path: Path) -> None:
        for architecture in known_architectures():
            text = files("spectra_cli.layers").joinpath(f"architectures/{architecture.family}.toml").read_text("utf-8")
            assert find_architecture(written(tmp_path, text, f"{architecture.family}.toml")) == architecture


def changed(old: str, new: str) -> str:
    assert old in OWN
    return OWN.replace(old, new, 1)


QKV, UP_DOWN = 'name = "stack.{i}.mix.weight"\n', 'path = ["attention_output", "up", "down"]'

MISTAKES = {
    "unknown key": ('flavour = "odd"\n' + OWN, ["'flavour'", "title", "connections"]),
    "unknown key of a parameter": (changed(QKV, QKV + "shape = 3\n"), ["parameters.qkv", "'shape'", "layout", "split"]),
    "unknown key of a connection": (changed(UP_DOWN, UP_DOWN + "\nupto = 1"), ["connection 'up-down'", "'upto'"]),
    "unknown key of heads": (changed("query = [", "querys = ["), ["heads", "'querys'", "key_value, query"]),
    "unknown role": (
        changed('from = "down"', 'from = "dwon"'),
        ["connection 'residual'", "'dwon'", "query, ", ", down"],
    ),
    "unknown role in unless": (
        changed("next = true", 'next = true\nunless = "exit"'),
        ["unless of connection 'residual'", "'exit'"],
    ),
    "unknown role in tied": (changed(QKV, QKV + 'tied = "in"\n'), ["parameters.qkv.tied", "'in'", "attention_output"]),
    "no required parameter": (changed("required = true\n", ""), ["no parameter is required"]),
    "no parameters": ('title = "Empty"', ["no parameter is required"]),
    "bad connection name": (
        changed('name = "residual"', 'name = "skipping"'),
        ["connection 4 is named 'skipping'", "residual"],
    ),
    "no connection name": (changed('name = "residual"\n', ""), ["connection 4 has no name", "residual"]),
    "no connections": (OWN[: OWN.index("[[connections]]")], ["has no [[connections]]", "nothing could be aligned"]),
    "an empty list of connections": (
        "connections = []\n" + OWN[: OWN.index("[[connections]]")],
        ["no [[connections]]"],
    ),
    "two letters for one list": (
        changed("stack.{i}.back", "stack.{j}.back"),
        ["'stack.{i}.mix.weight' and 'stack.{j}.back.weight' number the same list by {i} and {j}"],
    ),
    "a role of its own and of a split": (
        changed('split = ["value", ', 'split = ["up", "value", '),
        ["role 'up' is told twice", "parameters.up and parameters.qkv.split"],
    ),
    "a role twice in a split": (changed('["value", ', '["key", "value", '), ["role 'key'", "parameters.qkv.split"]),
    "a role in two splits": (
        changed('layout = "out,in"\n', 'layout = "out,in"\nsplit = ["key", "rest"]\n'),
        ["role 'key'", "parameters.qkv.split and parameters.attention_output.split"],
    ),
    "both path and from": (changed(UP_DOWN, UP_DOWN + '\nfrom = "up"\nto = "down"'), ["connection 'up-down'", "path"]),
    "to is missing": (changed('to = "qkv"\n', ""), ["connection 'residual'", "from and to"]),
    "connections are no list": (OWN[: OWN.index("[[connections]]")] + "[connections]\n", ["[[connections]]"]),
    "a connection is no table": ("connections = [1]\n" + OWN[: OWN.index("[[connections]]")], ["must be a table"]),
    "bad layout": (changed('"in,out"', '"in-out"'), ["parameters.qkv.layout", "'in-out'", "out,in, in,out"]),
    "bad kind": (changed('kind = "linear"', 'kind = "dense"'), ["parameters.up.kind", "'dense'", "linear, conv"]),
    "bad order": (changed(QKV, QKV + 'order = "mixed"\n'), ["parameters.qkv.order", "'mixed'", "interleaved"]),
    "required is text": (changed("= true", '= "yes"'), ["parameters.qkv.required", "'yes'", "true, false"]),
    "no name": (changed(QKV, ""), ["parameters.qkv", "no name"]),
    "name is a number": (changed(QKV, "name = 3\n"), ["parameters.qkv.name", "text"]),
    "a placeholder twice": (changed("stack.{i}.mix", "stack.{i}.{i}.mix"), ["'stack.{i}.{i}.mix.weight'", "{i}"]),
    "a placeholder of two letters": (changed("stack.{i}.mix", "stack.{no}.mix"), ["'stack.{no}.mix.weight'", "{i}"]),
    "primary gate": (
        changed(QKV, QKV + 'gates = ["a", "b"]\nprimary_gate = "c"\n'),
        ["parameters.qkv.primary_gate", "'c'"],
    ),
    "a parameter is no table": ('[parameters]\nqkv = "stack"\n', ["parameters.qkv", "table"]),
    "heads are no table": ("heads = 2\n" + OWN.replace("[heads]\nquery", "#"), ["heads", "table"]),
    "title is a number": (changed('"Mine"', "4"), ["title", "text"]),
    "not TOML": ("title = \n", ["not TOML", "line 1"]),
    "nested without end": ("a = " + "[" * 10_000, ["not TOML"]),
}


class TestMistakes:
    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_the_error_names_file_and_key_and_says_what_can_be_done(self, mistake: str, tmp_path: Path) -> None:
        text, said = MISTAKES[mistake]
        path = written(tmp_path, text)
        with pytest.raises(UsageError) as caught:
            StructureOptions(architecture=path).families()
        message = str(caught.value)
        assert f"--architecture {path}" in message
        assert [word for word in said if word not in message] == []
        assert caught.value.remedy
        example = Path(caught.value.remedy.rpartition(" ")[2])
        assert example.is_absolute()
        assert find_architecture(example).family == "llama"

    @pytest.mark.parametrize("between", ["", "0", "10"])
    def test_two_numbers_have_more_than_digits_between_them(self, between: str, tmp_path: Path) -> None:
        """Where one ends and the other begins could not be told, and to try takes time; endings are no numbers."""
        text = changed("stack.{i}.mixed", f"list.{{a}}{between}{{i}}.mixed")
        with pytest.raises(UsageError, match="with more than digits between any two"):
            find_architecture(written(tmp_path, text))
        assert find_architecture(written(tmp_path, text.replace(f"}}{between}{{i}}", f"}}_{between}{{i}}")))
        assert any("{i}{d}" in name.text for name in find_architecture("lstm").parameters["input"].names)

    def test_other_lists_may_have_other_letters(self, tmp_path: Path) -> None:
        """Also one within the elements of another, and the elements of one whose name merely begins alike."""
        text = changed("stack.{i}.back", "stack2.{j}.back")
        text = text.replace("stack.{i}.mixed", "stack.{i}.list.{k}.mixed")
        assert find_architecture(written(tmp_path, text)).parameters["down"].names[0].chain == "j"

    def test_the_file_without_mistake_is_good(self, tmp_path: Path) -> None:
        tomllib.loads(OWN)
        assert len(StructureOptions(architecture=written(tmp_path, OWN)).families()) == 1

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("big.toml", b"#" * (LARGEST_FILE_BYTES + 1), "larger than a megabyte"),
            ("latin.toml", 'title = "Größe"'.encode("latin-1"), "UTF-8"),
        ],
    )
    def test_a_file_that_is_no_such_text(self, name: str, text: bytes, said: str, tmp_path: Path) -> None:
        path = written(tmp_path, text, name)
        with pytest.raises(UsageError, match=said) as caught:
            StructureOptions(architecture=path).families()
        assert path in str(caught.value)
        assert caught.value.remedy

    @pytest.mark.parametrize("name", ["mine.tml", "mine", "toml"])
    def test_a_file_of_another_suffix_is_told_to_be_one(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        written(tmp_path, OWN, name)
        with pytest.raises(UsageError, match=f"--architecture {name} is a file, but not a .toml"):
            find_architecture(name)

    def test_a_file_may_have_the_name_of_a_family_that_comes_with_spectra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        written(tmp_path, OWN, "llama")
        assert find_architecture("llama") in known_architectures()

    @pytest.mark.parametrize("name", ["mine.toml", "MINE.TOML"])
    def test_paths_are_as_good_as_text(self, name: str, tmp_path: Path) -> None:
        """And are recorded as text."""
        path = Path(written(tmp_path, OWN, name))
        assert find_architecture(path) == find_architecture(str(path))
        assert StructureOptions(architecture=path) == StructureOptions(architecture=str(path))
        assert find_architecture(path).title == "Mine"

    @pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
    def test_a_name_that_no_file_can_have_is_no_family(self, name: str) -> None:
        with pytest.raises(UsageError, match="no family of that name"):
            find_architecture(name)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "folder.toml").mkdir()
        for name, said in (("absent.toml", "No such file"), ("folder.toml", "directory")):
            with pytest.raises(UsageError, match=said) as caught:
                StructureOptions(architecture=str(tmp_path / name)).families()
            assert name in str(caught.value)
            assert caught.value.remedy

    def test_an_unknown_family_is_told_the_known_ones(self) -> None:
        with pytest.raises(UsageError, match="--architecture lama: no family of that name") as caught:
            StructureOptions(architecture="lama").families()
        families = [architecture.family for architecture in known_architectures()]
        assert [family for family in (*families, ".toml", SEQUENTIAL) if family not in str(caught.value)] == []

    @pytest.mark.parametrize(("heads", "key_heads"), [(0, None), (-1, None), (None, 0), (4, 3)])
    def test_impossible_numbers_of_heads_are_told_with_their_option(
        self, heads: int | None, key_heads: int | None
    ) -> None:
        with pytest.raises(UsageError, match=r"--(kv-)?heads"):
            StructureOptions(heads=heads, kv_heads=key_heads)


@pytest.mark.parametrize("architecture", known_architectures(), ids=lambda architecture: architecture.family)
class TestEveryFamily:
    def test_its_file_begins_with_what_is_particular(self, architecture: Architecture) -> None:
        text = files("spectra_cli.layers").joinpath(f"architectures/{architecture.family}.toml").read_text("utf-8")
        assert text.startswith("# ")
        assert architecture.title != architecture.family

    def test_every_parameter_states_its_kind_and_but_for_embeddings_its_layout(
        self, architecture: Architecture
    ) -> None:
        parameters = architecture.parameters.values()
        assert [parameter.role for parameter in parameters if parameter.kind is None] == []
        unstated = [parameter for parameter in parameters if parameter.layout is None and parameter.kind != "embedding"]
        # Of stacks of experts the shapes tell.
        assert [one.role for one in unstated if not all(name.text.endswith("[{e}]") for name in one.names)] == []

    def test_names_have_no_wrappers_before_them(self, architecture: Architecture) -> None:
        names = [template.text for parameter in architecture.parameters.values() for template in parameter.names]
        wrapped = ("model.", "module.", "gpt_neox.", "bert.", "roberta.", "vit.")
        assert [name for name in names if name.startswith(wrapped)] == []
