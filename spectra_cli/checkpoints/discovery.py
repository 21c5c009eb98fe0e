"""Finds the runs of a PATH on the command line, and their checkpoints in the order of training."""

from __future__ import annotations

import difflib
import glob
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from spectra_cli.checkpoints.aliases import Peek, settle
from spectra_cli.checkpoints.filenames import MODEL_SUFFIXES
from spectra_cli.checkpoints.listing import HIDDEN, is_part, list_directory, may_be_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, PassedOver, Run, distinct, in_order
from spectra_cli.checkpoints.scan import Candidate, FoundRun, Walk
from spectra_cli.checkpoints.selection import Selection
from spectra_cli.checkpoints.steps import moment_of, natural_key
from spectra_cli.errors import CheckpointError, InputError, UsageError
from spectra_cli.storage.connection import credentials_remedy
from spectra_cli.storage.places import (
    Place,
    entries_of,
    is_directory,
    is_present,
    location,
    matching,
    normalized,
    place_of,
    real,
    relative_name,
)
from spectra_cli.storage.remote import RemotePath
from spectra_cli.storage.secrets import without_secrets

__all__ = ["Checkpoint", "PassedOver", "Peek", "Run", "Spec"]
__all__ += ["discover", "discover_all", "discover_as_given", "stored_moment"]

Spec = str | os.PathLike[str]
"""A PATH as the user gives it: a path of this machine, or a URL that fsspec knows, such as ``s3://bucket/runs/a``."""

_Found = tuple[Place, list[Run]]

_AT_STEP = re.compile(r"first|final|[0-9]+|[0-9]+(\.[0-9]+)?[kKmM]")
_DULL = frozenset({HIDDEN, "not a checkpoint by its name"})
_REMEDY = "Give a checkpoint, a directory of checkpoints or a directory of such runs"


def discover(spec: Spec, *, peek: Peek | None = None) -> list[Run]:
    """Find the runs behind one PATH.

    A PATH is a checkpoint file, a checkpoint directory, a run (a directory of checkpoints), or a directory of runs at
    any depth; ``PATH@STEP`` picks one step (``runs/a@400``, ``runs/a@10k``, ``runs/a@first``, ``runs/a@final``). A path
    that exists as written wins. A pattern (``runs/*``) that the shell did not expand is expanded here, and its runs are
    named as in :func:`discover_all`.

    Args:
        spec: the PATH.
        peek: says what a checkpoint tells of itself, ``step`` and ``epoch``; asked only where the name tells neither.
            Default: :func:`stored_moment`.

    Returns:
        At least one run, in natural order of names. Every run holds at least one checkpoint, except that with ``@STEP``
        a run which has not that step, beside others which have it, holds none.

    Raises:
        InputError: if there is no such path, no checkpoint in it, or no such step in any of its runs.
        UsageError: if what follows ``@`` is no step.
    """
    found, is_pattern = _resolve(os.fspath(spec), peek or stored_moment)
    return distinct(_merged(found) if is_pattern else found[0][1])


def discover_all(specs: Iterable[Spec], *, peek: Peek | None = None) -> list[Run]:
    """Find the runs behind several PATHs.

    One PATH gives what :func:`discover` gives. With several, a run is named by the PATH as it was given, joined with
    the path of the run in it, so that names stay distinct; PATHs that pick single checkpoints of one run
    (``runs/a/step_*.pt``, ``runs/a@first runs/a@final``) give one run, named by the directory.

    Args:
        specs: the PATHs.
        peek: as for :func:`discover`.

    Raises:
        InputError: as for :func:`discover`.
        UsageError: as for :func:`discover`, or if no PATH is given.
    """
    specs = list(specs)
    if not specs:
        raise UsageError("no PATH was given", remedy=_REMEDY)
    if len(specs) == 1:
        return discover(specs[0], peek=peek)
    return distinct(_merged([pair for spec in specs for pair in _resolve(os.fspath(spec), peek or stored_moment)[0]]))


def discover_as_given(spec: Spec, *, peek: Peek | None = None) -> list[Run]:
    """Find the runs behind one PATH, named as among several: by the PATH as it was given, joined with the path in it.

    Args:
        spec: the PATH; a run that a ``@STEP`` or a checkpoint file picks from is named by its directory.
        peek: as for :func:`discover`.

    Raises:
        InputError: as for :func:`discover`.
        UsageError: as for :func:`discover`.
    """
    return distinct(_merged(_resolve(os.fspath(spec), peek or stored_moment)[0]))


def stored_moment(path: Place) -> Mapping[str, Any]:
    """What a checkpoint says of itself; nothing where it cannot be read, which is reported when it is analysed."""
    from spectra_cli.checkpoints.open import open_checkpoint  # noqa: PLC0415 - names mostly suffice, without the readers

    try:
        with open_checkpoint(path) as reader:
            return dict(reader.metadata)
    except CheckpointError:
        return {}


def _resolve(spec: str, peek: Peek) -> tuple[list[_Found], bool]:
    """The runs behind one PATH by the path they were found at, and whether the PATH was a pattern of several paths."""
    path, step = _split_step(spec)
    is_pattern = glob.has_magic(location(path)) and not is_present(path)
    found = _runs_matching(path, peek) if is_pattern else [(path, _runs_at(path, peek))]
    if step is not None:
        try:
            chosen = iter(Selection(steps=step).apply_all([run for _, runs in found for run in runs]))
        except InputError as error:
            error.where = without_secrets(spec)
            raise
        found = [(match, [next(chosen) for _ in runs]) for match, runs in found]
    return found, is_pattern


def _split_step(spec: str) -> tuple[Place, str | None]:
    """Split ``PATH@STEP``, unless a path of that whole name exists."""
    path, at, step = spec.rpartition("@")
    if not at or not path or "/" in step or is_present(place_of(spec)):
        return _from_home(spec), None
    if _AT_STEP.fullmatch(step):
        return _from_home(path), step
    if is_present(_from_home(path)):
        raise UsageError(f"'@{step}' is not a step", where=without_secrets(spec), remedy="Write @400, @first or @final")
    return place_of(spec), None


def _from_home(text: str) -> Place:
    """The place that is meant, with ``~`` for the home directory unless a path of that name exists."""
    place = place_of(text)
    return Path(os.path.expanduser(text)) if text.startswith("~") and not is_present(place) else place


def _runs_matching(pattern: Place, peek: Peek) -> list[_Found]:
    """The runs at every path that matches; a match without checkpoints is passed over where another has some."""
    matches = sorted(matching(pattern), key=lambda match: natural_key(str(match)))
    found: list[_Found] = []
    empty: list[tuple[Place, InputError]] = []
    for match in matches:
        if may_be_checkpoint(match.name, is_directory=is_directory(match)):
            try:
                found.append((match, _runs_at(match, peek)))
            except InputError as error:
                empty.append((match, error))
    if found:
        first = found[0][1][0]
        strays = [PassedOver(match, relative_name(match, first.root), why.what) for match, why in empty]
        found[0][1][0] = replace(first, passed_over=(*first.passed_over, *strays))
        return found
    if len(matches) == len(empty) == 1:
        raise empty[0][1]
    names = [str(match) for match in matches]
    what = f"nothing that matches holds a checkpoint: {_some(names)}" if names else "nothing matches this pattern"
    raise InputError(what, where=str(pattern), remedy=_REMEDY)


def _runs_at(given: Place, peek: Peek) -> list[Run]:
    path = given
    if path.name in {"", ".."}:
        path = path.resolve()  # a checkpoint directory is called by its name
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            directory = _directory_of_part(path)
            if directory is None:
                file = Candidate(path, moment_of(path.name), (status.st_dev, status.st_ino))
                return [settle(FoundRun(path, path.parent, [file]), ".", peek)]
            path = directory
        walk = Walk()
        found = walk.runs_in(list_directory(path))
    except PermissionError as error:
        raise _denied(given, error) from error
    except OSError as error:
        raise _missing(path, error) from error
    if not found:
        raise _no_checkpoints(path, walk)
    found[0].passed_over += walk.strays
    return [settle(run, relative_name(run.path, path), peek) for run in found]


def _denied(path: Place, error: PermissionError) -> InputError:
    if isinstance(path, RemotePath):
        return InputError(str(error.strerror), where=str(path), remedy=credentials_remedy(path.url))
    return InputError("permission denied", where=str(path), remedy="Ask for the right to read it")


def _directory_of_part(path: Place) -> Place | None:
    """The directory whose checkpoint the file is only a part of; None for a file that stands for itself."""
    if not is_part(path.name):
        return None
    layout = list_directory(path.parent).layout
    return path.parent if layout is not None and layout.kind != "file" else None


def _missing(path: Place, error: OSError) -> InputError:
    if isinstance(path, Path) and path.is_symlink():
        return InputError(
            f"a link to {os.readlink(path)}, which does not exist", where=str(path), remedy="Restore what it leads to"
        )
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="Check the path and its permissions"
        )
    absent = path
    while not (is_bucket := isinstance(absent, RemotePath) and absent.is_bucket) and not is_directory(absent.parent):
        absent = absent.parent
    parent = absent.parent
    if is_bucket:
        remedy = f"Check the name of the bucket or repository. {credentials_remedy(str(path))}"
        return InputError("does not exist, or is private", where=str(path), remedy=remedy)
    place = "the working directory" if parent == Path() else str(parent)
    try:
        entries = [entry.name for entry in entries_of(parent)]
        names = sorted((name for name in entries if not name.startswith(".")), key=natural_key)
    except OSError:
        names = []
    what = "does not exist" if path == absent else f"does not exist: {place} holds no '{absent.name}'"
    if similar := difflib.get_close_matches(absent.name, names, n=3):
        remedy = f"Similar names: {', '.join(str(parent / name) for name in similar)}"
    else:
        holder = "The working directory" if parent == Path() else f"The directory {parent}"
        remedy = f"{holder} holds {_some(names)}"
    return InputError(what, where=str(path), remedy=remedy)


def _no_checkpoints(path: Place, walk: Walk) -> InputError:
    listing = list_directory(path)
    seen = [entry.name for entry in listing.files] + [f"{entry.name}/" for entry in listing.directories]
    telling = (stray for stray in (*listing.passed_over, *walk.strays) if stray.reason not in _DULL)
    reasons = [f"{stray.path.name} ({stray.reason})" for stray in dict.fromkeys(telling)]
    what = f"no checkpoint here, but {_some(seen)}" if seen else "no checkpoint here: the directory is empty"
    if reasons:
        what += f"; passed over: {', '.join(reasons[:3])}"
    suffixes = ", ".join(MODEL_SUFFIXES[:5])
    return InputError(what, where=str(path), remedy=f"{_REMEDY}: {suffixes} or shards")


def _some(names: Sequence[str], limit: int = 3) -> str:
    listed = ", ".join(names[:limit])
    if len(names) <= limit:
        return listed or "nothing"
    return f"{len(names)} names, among them {listed}"


def _merged(found: Iterable[_Found]) -> list[Run]:
    """Name runs by the PATHs as given, and join what was picked of one run by several PATHs."""
    same: defaultdict[str, list[Run]] = defaultdict(list)
    for given, runs in found:
        for run in runs:
            name = _name_among_several(given, run)
            same[real(name)].append(replace(run, name=name.as_posix()))  # one run, however it is spelled
    return sorted(map(_joined, same.values()), key=lambda run: natural_key(run.name))


def _name_among_several(given: Place, run: Run) -> Place:
    picked = [checkpoint for checkpoint in run.checkpoints if checkpoint.path == given]
    is_part_of_run = picked and (moment_of(given.name).explicit or not is_directory(given))
    base = normalized(given).parent if is_part_of_run else given
    return normalized(base / run.name)


def _joined(runs: Sequence[Run]) -> Run:
    first = runs[0]
    if len(runs) == 1:
        return first
    root = first.root.absolute()
    passed_over: dict[str, PassedOver] = {}
    for run in runs:
        for passed in run.passed_over:
            name = relative_name(passed.path.absolute(), root)
            passed_over.setdefault(name, replace(passed, name=name))
    return replace(
        first,
        checkpoints=_united(root, (run.checkpoints for run in runs)),
        passed_over=tuple(passed_over.values()),
        trajectory=_united(root, (run.trajectory for run in runs)),
    )


def _united(root: Place, several: Iterable[Iterable[Checkpoint]]) -> tuple[Checkpoint, ...]:
    """Checkpoints of one run that came by several PATHs, each once, named from the run's root."""
    checkpoints: dict[str, Checkpoint] = {}
    for checkpoint in chain.from_iterable(several):
        name = relative_name(checkpoint.path.absolute(), root)
        checkpoints.setdefault(real(checkpoint.path), replace(checkpoint, name=name))
    return in_order(checkpoints.values())
