"""What libraries of storages say when something goes wrong, and what becomes of it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from spectra_cli.checkpoints.config import files_considered, read_config
from spectra_cli.checkpoints.discovery import discover
from spectra_cli.checkpoints.fingerprints import fingerprint_files
from spectra_cli.errors import CheckpointError
from spectra_cli.storage.connection import StorageError, storage_errors
from spectra_cli.storage.places import place_of


def test_errors_of_a_library_become_those_of_a_checkpoint(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line that a terminal can show, whatever the library says."""

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no route\nto host\x1b[31m " + "x" * 10_000)

    storage.pipe_file("memory://r/step_1.pt", b"x")
    monkeypatch.setattr(MemoryFileSystem, "ls", failing)
    with pytest.raises(CheckpointError, match=r"^memory://r: the storage cannot be read: no route to host\?") as caught:
        discover("memory://r")
    assert len(str(caught.value)) < 500
    assert isinstance(caught.value, StorageError)
    assert str(caught.value).startswith(f"memory://r: the storage cannot be read: {caught.value.reason}")
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason  # as from another process


class AnswerError(Exception):
    """As libraries of the web raise it: the status of an answer under one of several names."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("no")
        for name, value in attributes.items():
            setattr(self, name, value)


class Response:
    status_code = 403


DENIALS = {
    "system": PermissionError("no"),
    "word": OSError("Forbidden: b/run"),
    "status": AnswerError(status=403),
    "unknown": AnswerError(status=401),
    "code": AnswerError(code=403),
    "response": AnswerError(response=Response()),
    "unanswered": NotImplementedError("no"),
}


@pytest.mark.parametrize("error", DENIALS.values(), ids=DENIALS.keys())
def test_a_denial_is_one_in_whatever_way_it_is_said(error: Exception) -> None:
    with pytest.raises(PermissionError) as caught, storage_errors("gs://b/run"):
        raise error
    assert caught.value.filename == "gs://b/run"


FAILURES = {
    "timeout": TimeoutError("timed out"),
    "answer": AnswerError(status=503, code=503),
    "none": AnswerError(status=None, code=None, response=None),
    "later": OSError("is Forbidden"),
}


@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES.keys())
def test_what_is_no_denial_is_no_answer(error: Exception) -> None:
    with pytest.raises(StorageError, match="the storage cannot be read"), storage_errors("gs://b/run"):
        raise error


@pytest.mark.parametrize("error", DENIALS.values(), ids=DENIALS.keys())
def test_a_configuration_that_may_not_be_read_is_none(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Storages deny access to what is absent where one may not list."""
    storage.pipe_file("memory://r/step_1.safetensors", b"x")
    monkeypatch.setattr(MemoryFileSystem, "_open", failing_with(error))
    assert read_config(place_of("memory://r/step_1.safetensors"), place_of("memory://r")) == {}


@pytest.mark.parametrize("error", FAILURES.values(), ids=FAILURES.keys())
def test_no_checkpoint_is_read_as_if_it_had_no_configuration(
    storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """While its storage does not say whether it has one: heads are counted by it."""
    for name in ("config.json", "step_1.safetensors"):
        storage.pipe_file(f"memory://r/{name}", b"{}")
    monkeypatch.setattr(MemoryFileSystem, "_open", failing_with(error))
    for ask in (read_config, files_considered, fingerprint_files):
        with pytest.raises(StorageError):
            ask(place_of("memory://r/step_1.safetensors"), place_of("memory://r"))


def failing_with(error: Exception) -> Any:
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing
