"""What is on record about units comes back from the metadata of a file, or nothing does."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.tables import entries as entries_module
from spectra_cli.tables.entries import Entry, read_units, stored_key, units_metadata
from tests.tables.anyrows import TEXT, digest_of

FACTS = st.dictionaries(TEXT, st.none() | st.integers() | TEXT | st.lists(st.floats(allow_nan=False)), max_size=3)
ENTRIES = st.builds(Entry, st.text(), st.none() | st.text(), FACTS)
KEYS = st.tuples(st.none() | TEXT, TEXT)


@given(st.dictionaries(KEYS, ENTRIES, max_size=8))
def test_entries_come_back_as_they_were(entries: dict[Any, Entry]) -> None:
    """Under the keys as the columns of the table have them."""
    text = units_metadata(entries)
    text.encode("utf-8")  # as the file holds it
    assert read_units(text) == {stored_key(key): entry for key, entry in entries.items()}


@pytest.mark.parametrize("count", [1, 5, 300])
def test_many_and_few_entries_come_back(count: int) -> None:
    entries = {(".", f"step_{number}"): Entry(digest_of(number), None, {"n": number}) for number in range(count)}
    text = units_metadata(entries)
    assert read_units(text) == entries
    assert text.startswith("zlib:") == (count == 300)


def test_ten_thousand_units_take_about_a_megabyte() -> None:
    entries = {
        (f"run_{number // 100}", f"checkpoints/step_{100 * number}.pt"): Entry(digest_of(number, 0), digest_of(number))
        for number in range(10_000)
    }
    text = units_metadata(entries)
    assert len(text) < 1.05 * 2**20
    assert read_units(text) == entries


def test_bytes_of_names_are_escaped_as_in_the_columns() -> None:
    assert stored_key((None, os.fsdecode(b"step_\xff"))) == (None, r"step_\udcff")


def units(**changes: Any) -> dict[str, Any]:
    good = {"version": 1, "keys": [[".", "a"]], "fingerprints": ["f"], "contents": [None], "facts": {}}
    return {**good, **changes}


def packed(content: bytes) -> str:
    return "zlib:" + base64.b64encode(zlib.compress(content)).decode()


def test_the_format_of_these_tests_is_that_of_entries() -> None:
    for text in (json.dumps(units()), packed(json.dumps(units()).encode())):
        assert read_units(text) == {(".", "a"): Entry("f")}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        "zlib:",
        "zlib:????",
        "zlib:é",
        packed(b"")[:-4],
        packed(b"\xff"),
        *(
            json.dumps(units(**changes))
            for changes in (
                {"version": 2},
                {"keys": [["."], ["b"]]},
                {"keys": ["ab"]},
                {"keys": [[1]]},
                {"keys": 1},
                {"fingerprints": [None]},
                {"contents": [1]},
                {"facts": []},
                {"facts": {"0": 1}},
                {"facts": {"0": json.loads('{"a":' * 30 + "1" + "}" * 30)}},
            )
        ),
    ],
)
def test_what_is_no_record_of_units_is_none(text: str | None) -> None:
    assert read_units(text) == {}


def test_what_unpacks_to_too_much_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "MOST_BYTES", 1000)
    assert read_units(packed(json.dumps(units()).encode())) == {(".", "a"): Entry("f")}
    for size in (1000, 1 << 24):
        long = json.dumps(units()).encode() + b" " * size
        assert read_units(packed(long)) == {}
        assert read_units(long.decode()) == {}


@pytest.mark.parametrize("tiny", ["[],", "{},", '"",', "0,"])
def test_entries_that_are_many_for_their_bytes_cost_no_memory(tiny: str) -> None:
    """Each value of JSON takes some 60 bytes, of which compression leaves next to nothing in the file."""
    plain = json.dumps(units())[:-1] + ', "more": [' + tiny * ((1 << 24) // len(tiny)) + "0]}"
    text = packed(plain.encode())
    tracemalloc.start()
    try:
        assert read_units(text) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


def test_values_are_in_proportion_to_a_text_that_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "ALWAYS_VALUES", 100)
    assert read_units(json.dumps(units(more=[[]] * 20))) == {(".", "a"): Entry("f")}
    assert read_units(json.dumps(units(more=[[]] * 400))) == {}
