"""Secrets in URLs: requests are made with them, and nothing that is printed or written down has them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import save

from spectra_cli.checkpoints.discovery import discover_all
from spectra_cli.cli.main import run
from spectra_cli.errors import CheckpointError, InputError, SpectraError
from spectra_cli.execution.planning.provenance import provenance
from spectra_cli.storage.connection import connect, storage_errors
from spectra_cli.storage.places import location, place_of
from spectra_cli.storage.secrets import recorded, shown_url, without_secrets
from spectra_cli.tables.locations import location_of
from spectra_cli.tables.remotetable import RemoteTable

PASSWORD, TOKEN = "pa55word", "t0ken/with+signs=="


pytestmark = pytest.mark.usefixtures("storage")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/run/step_1.pt", "s3://bucket/run/step_1.pt"),
        (f"https://me:{PASSWORD}@host/a", "https://***@host/a"),
        ("https://gh0tok@host:80/a@400", "https://***@host:80/a@400"),
        (f"s3://KEY:{PASSWORD}@bucket/a", "s3://***@bucket/a"),
        ("abfs://container@account.dfs/a", "abfs://container@account.dfs/a"),
        ("s3://bucket@400", "s3://bucket@400"),
        (f"https://h/a?X-Amz-Signature={TOKEN}&v=1;w=2#t=3", "https://h/a?X-Amz-Signature=...&v=...;w=...#t=..."),
        ("s3://bucket/step_?.pt", "s3://bucket/step_?.pt"),
        ("s3://bucket/lr=0.1/step_1.pt", "s3://bucket/lr=0.1/step_1.pt"),
        (f"https://h/a?t={PASSWORD} with space", "https://h/a?t=..."),
    ],
)
def test_users_and_values_of_parameters_are_not_shown(url: str, shown: str) -> None:
    """What has been shown is shown the same again."""
    assert shown_url(url) == shown
    assert shown_url(shown) == without_secrets(shown) == shown
    if " " not in url:
        assert without_secrets(url) == shown


def test_in_a_text_what_stands_around_a_url_stays() -> None:
    text = f"cannot reach 'https://me:{PASSWORD}@h/a?t={TOKEN}': (https://h/b?t={TOKEN}, and b/c?t={TOKEN}). Is it a=b?"
    shown = "cannot reach 'https://***@h/a?t=...': (https://h/b?t=..., and b/c?t=...). Is it a=b?"
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


def test_texts_at_any_depth_are_recorded_without() -> None:
    url = f"https://h/a?t={TOKEN}"
    values = {"against": url, "pairs": [(url, 1)], "tags": {url: None}, "full": True}
    shown = "https://h/a?t=..."
    assert recorded(values) == {"against": shown, "pairs": [[shown, 1]], "tags": {shown: None}, "full": True}


def test_provenance_has_the_command_and_settings_without() -> None:
    url = f"https://me:{PASSWORD}@h/a?t={TOKEN}"
    command = ["spectra", "rank", url, "--set", f"config={url}", f"--out={url}"]
    told = provenance(command, {"against": url, "pairs": [[url]]}, "cpu")
    assert PASSWORD not in str(told)
    assert TOKEN not in str(told)
    assert told["spectra.command"].count("https://***@h/a?t=...") == 3


def test_a_path_shows_no_secret_and_asks_with_it(storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://r/step_1.pt?token={PASSWORD}"
    path = place_of(url)
    assert (str(path), location(path)) == ("memory://r/step_1.pt?token=...", url)
    assert PASSWORD not in f"{path} {path!r} {path.as_posix()}"
    assert pickle.loads(pickle.dumps(path)) == path
    asked: list[str] = []

    def info(_: MemoryFileSystem, path: str, **__: object) -> dict[str, Any]:
        asked.append(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    with pytest.raises(FileNotFoundError) as caught:
        path.stat()
    assert asked == [url]
    assert PASSWORD not in str(caught.value)


def test_errors_of_libraries_repeat_no_secret() -> None:
    """Neither in a URL nor by itself."""
    url = f"https://me:{PASSWORD}@h/a?t={TOKEN}"
    for error in (RuntimeError(f"GET {url}: 500; {PASSWORD}; {TOKEN}"), PermissionError(TOKEN), FileNotFoundError(url)):
        with pytest.raises((CheckpointError, OSError)) as caught, storage_errors(url):
            raise error
        told = f"{caught.value} {getattr(caught.value, 'filename', '')}"
        assert "https://***@h/a?t=..." in told
        assert PASSWORD not in told
        assert TOKEN not in told
    with pytest.raises(SpectraError) as refused:
        connect(f"nowhere://h/a?t={TOKEN}")
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize("url", ["https://h/a?v=1", "https://h/a?v=", "https://me:x@h/a?v=501"])
def test_values_too_short_for_a_secret_do_not_tear_messages(url: str) -> None:
    """A version, a number or nothing."""
    with pytest.raises(CheckpointError) as caught, storage_errors(url):
        raise RuntimeError("HTTP 501 after 1 try at max")
    assert caught.value.what == "the storage cannot be read: HTTP 501 after 1 try at max"


def test_tables_hold_no_secret(storage: MemoryFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither rows nor metadata, also not of a table whose own URL has one; a second run keeps what is there."""
    content = save({"w": torch.ones(3, 2)})
    urls = [f"memory://r?key={PASSWORD}/{name}" for name in "ab"]
    for url in urls:
        storage.pipe_file(f"{url}/step_1.safetensors", content)
    for spec in ([urls[0]], [f"{urls[0]}/step_1.safetensors"]):
        out = tmp_path / "rank.parquet"
        assert run(["rank", *spec, "--json", "--device", "cpu", "--out", str(out), "--fresh"]) == 0
        assert pq.read_table(out).num_rows == 1
        assert PASSWORD not in str(pq.read_table(out).to_pylist()) + str(pq.read_metadata(out).metadata)
        assert PASSWORD.encode() not in out.read_bytes()
    place = f"memory://o/rank.parquet?sig={PASSWORD}"
    for _ in range(2):
        assert run(["rank", urls[0], "--json", "--device", "cpu", "--out", place]) == 0
    assert storage.exists(place)  # under the whole name
    assert run(["rank", f"memory://absent?key={PASSWORD}", "--out", str(tmp_path / "none.parquet")]) == 1
    told = capsys.readouterr()
    assert PASSWORD not in told.out + told.err
    assert "o/rank.parquet?sig=..." in told.out


def test_what_only_a_secret_tells_apart_is_refused_together(storage: MemoryFileSystem) -> None:
    """Else rows of two checkpoints would have one name."""
    for number in "12":
        storage.pipe_file(f"memory://r/step_1.pt?id={number}", b"x")
    urls = [f"memory://r/step_1.pt?id={number}" for number in "12"]
    with pytest.raises(InputError, match="several checkpoints have this name"):
        discover_all(urls, peek=lambda _: {})


def test_a_table_in_storage_is_named_without_and_its_journal_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = [location_of(f"memory://b/rank.parquet?sig={PASSWORD}{number}") for number in "12"]
    for place in places:
        assert isinstance(place, RemoteTable)
        assert str(place) == "memory://b/rank.parquet?sig=..."
        assert PASSWORD not in str(place.journal_path)
    assert places[0].journal_path != places[1].journal_path
