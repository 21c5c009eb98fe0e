"""``run.json``: what a run was trained on, beside its checkpoints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from spectra_cli.atomicfile import replace_file
from spectra_cli.errors import InputError
from spectra_cli.storage.files import read_small
from spectra_cli.storage.places import Place
from spectra_cli.storage.remote import RemotePath, remote_path
from spectra_cli.storage.secrets import URL, shown_url

NAME = "run.json"
LARGEST_BYTES = 1 << 20

DATA = "data"
"""The option of a task that is a path: what --data sets."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What `spectra train` notes of a run.

    Attributes:
        task: name of the task, or ``/path/to/file.py:callable``.
        options: of the task, as JSON has them.
        seed: of initialization and data order; None where it is not known.
        trunk: the run that this one branched from, relative to this run's directory; None without one.
        split_step: step of the trunk at which they parted; None without a trunk.
        training: everything else that says how it was trained: the recipe, perturbation, mask, versions.
    """

    task: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    trunk: str | None = None
    split_step: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def write(self, run: Path) -> None:
        """Write ``run.json`` into the directory of a run, at once or not at all."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_file(run / NAME, lambda partial: _write(partial, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def read_record(run: Place) -> RunRecord | None:
    """What the ``run.json`` in a directory says; None where there is none.

    Raises:
        InputError: if it is not the JSON of a run.
        CheckpointError: if a remote storage does not answer.
    """
    path = run / NAME
    try:
        if not path.is_file():
            return None
        content = read_small(path, LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        return _record(content)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"this does not describe a run: {error}", where=str(path), remedy="Restore it, or pass --task"
        ) from error


def check_own_storage(options: Mapping[str, Any], given: Collection[str], root: Place, source: str) -> None:
    """Check that the options of a run.json name no remote storage but below the run: others may have written it.

    Args:
        options: of the run.json.
        given: names of those that the user says, which are not looked at.
        root: directory of the run.
        source: the run.json, for errors.

    Raises:
        InputError: if one does.
    """
    for name, value in options.items():
        foreign = next((url for url in _urls(value) if not _is_own(url, root)), None)
        if name not in given and foreign is not None:
            shown = shown_url(foreign)
            raise InputError(
                f"names remote storage with {name}={shown}: what a file says is fetched only from below the run",
                where=source,
                remedy=f"If you trust it, pass --set {shlex.quote(f'{name}={shown}')}",
            )


def _urls(value: Any) -> Iterator[str]:
    """Texts that name what is not on this machine, at any depth of a value of JSON."""
    if isinstance(value, str):
        match = URL.fullmatch(value)
        of_this_machine = match is not None and match["scheme"].lower() in {"file", "local"}
        if "::" in value.partition("://")[0] or ("://" in value and not of_this_machine):
            yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _urls(name)
            yield from _urls(each)
    elif isinstance(value, list):
        for each in value:
            yield from _urls(each)


def _is_own(url: str, root: Place) -> bool:
    if not isinstance(root, RemotePath) or URL.fullmatch(url) is None or "::" in url:
        return False
    plain = not {".", ".."} & set(unquote(url).replace("\\", "/").split("/"))  # a server may follow what is encoded
    return plain and remote_path(url).is_relative_to(root)


def _record(content: bytes) -> RunRecord:
    if len(content) > LARGEST_BYTES:
        raise ValueError("it is larger than 1 MiB")
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as all that is wrong with the file's content
    if not isinstance(values.get("task"), str) or not values["task"]:
        raise ValueError("it names no task")
    for key, kinds in {"options": dict, "training": dict, "seed": int, "trunk": str, "split_step": int}.items():
        value = values.get(key)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise ValueError(f"'{key}' is {json.dumps(value)[:40]}")
    return RunRecord(
        values["task"],
        values.get("options") or {},
        values.get("seed"),
        values.get("trunk"),
        values.get("split_step"),
        values.get("training") or {},
    )
