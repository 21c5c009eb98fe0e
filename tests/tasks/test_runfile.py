"""A run.json comes back as it was written; what is none is an error that names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectra_cli.errors import InputError
from spectra_cli.tasks.runfile import LARGEST_BYTES, RunRecord, read_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        RunRecord,
        st.text(min_size=1),
        st.dictionaries(st.text(), JSON, max_size=3),
        st.none() | st.integers(),
        st.none() | st.text(),
        st.none() | st.integers(0),
        st.dictionaries(st.text(), JSON, max_size=3),
    )
)
def test_a_record_survives_the_disk(tmp_path: Path, record: RunRecord) -> None:
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "absent") is None
    (tmp_path / "run.json").mkdir()
    assert read_record(tmp_path) is None


def test_what_is_not_said_is_empty_and_what_is_not_known_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"task": "x", "options": null, "future": [1]}')
    assert read_record(tmp_path) == RunRecord("x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this does not describe a run"),
        (b"{", "this does not describe a run"),
        (b"[]", "it is no JSON object"),
        (b"null", "it is no JSON object"),
        (b"{}", "it names no task"),
        (b'{"task": ""}', "it names no task"),
        (b'{"task": ["x"]}', "it names no task"),
        (b'{"task": "x", "options": [1]}', r"'options' is \[1\]"),
        (b'{"task": "x", "options": []}', r"'options' is \[\]"),
        (b'{"task": "x", "seed": "1"}', "'seed' is \"1\""),
        (b'{"task": "x", "seed": true}', "'seed' is true"),
        (b'{"task": "x", "trunk": 3}', "'trunk' is 3"),
        (b'{"task": "x", "split_step": 1.5}', "'split_step' is 1.5"),
        (b'{"task": "x", "training": "y"}', "'training' is \"y\""),
        (b"\xff\xfe\x00", "this does not describe a run"),
        (b"[" * 100_000, "this does not describe a run"),
        (b'{"task": "x", "seed": ' + b"9" * 10_000 + b"}", "this does not describe a run"),
        (b" " * LARGEST_BYTES + b"{}", "it is larger than 1 MiB"),
    ],
)
def test_what_is_no_record_is_an_error_with_the_file_and_the_way_out(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_record(tmp_path)
    assert str(tmp_path / "run.json") in str(caught.value)
    assert "or pass --task" in str(caught.value)


def test_a_file_of_the_right_size_is_read(tmp_path: Path) -> None:
    content = json.dumps({"task": "x"}).encode()
    (tmp_path / "run.json").write_bytes(content + b" " * (LARGEST_BYTES - len(content)))
    assert read_record(tmp_path) == RunRecord("x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"task": "x"}')
    (tmp_path / "run.json").chmod(0)
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        read_record(tmp_path)
