"""Tables of a report on its sources: which files, what is in them, and how they were made."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from spectra_cli.errors import InputError
from spectra_cli.figures.page.document import TextTable
from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.figures.rows.kinds import KINDS, OF_PAIRS, kind_of
from spectra_cli.regularfile import open_regular
from spectra_cli.tables.reader import TableFile

MOST_FILES = 200
"""Rows of each table."""

MOST_RUNS_TOLD = 4


def analysed_table(gathered: Gathered) -> TextTable:
    """The files, and what is in them.

    Raises:
        InputError: if a file is damaged.
    """
    shown = gathered.files[:MOST_FILES]
    names = file_names(gathered.files)
    return TextTable(
        heading="What was analysed",
        caption="The tables that this page was made of. Their SHA-256 tells whether a file is the same.",
        columns=("table", "made by", "rows", "runs", "checkpoints", "steps", "SHA-256 of the file"),
        rows=[
            [name, KINDS[kind_of(file)], float(file.rows), *_contents(gathered, file), _sha256(file.path)]
            for file, name in zip(shown, names, strict=False)
        ],
        numeric=(False, False, True, False, True, False, False),
        note=f"{len(shown)} of {len(names)} tables are shown." if len(shown) < len(names) else "",
    )


def making_table(gathered: Gathered) -> TextTable:
    """How the files were made: versions, device, command and settings."""
    shown = gathered.files[:MOST_FILES]
    made: dict[tuple[str | None, ...], list[str]] = {}
    for file, name in zip(shown, file_names(gathered.files), strict=False):
        recorded = [file.metadata.get(key) for key in ("version", "torch", "device", "command")]
        told = (None if text is None else without_directories(text) for text in (*recorded, _settings(file)))
        made.setdefault(tuple(told), []).append(name)
    return TextTable(
        heading="How it was made",
        caption="Versions, device, command line and settings that the tables have on record. Settings that are not "
        "set (null, empty or false) are left out.",
        columns=("tables", "spectra", "torch", "device", "command", "settings"),
        rows=[[", ".join(names), *key] for key, names in made.items()],
        numeric=(False,) * 6,
    )


ABSOLUTE = re.compile(r"(?<![\w./~-])(?:/[^/\s'\",;]+){2,}")
"""An absolute path of two components or more; not the end of a relative one or of a URL."""


def without_directories(text: str) -> str:
    """Text with the end of each absolute path only: a page that is sent around names neither users nor machines."""
    return ABSOLUTE.sub(lambda path: f"…/{'/'.join(path[0].split('/')[4:][-2:] or [path[0].split('/')[-1]])}", text)


def passed_over_table(passed_over: Sequence[tuple[str, str]]) -> TextTable:
    """Files that are no tables.

    Args:
        passed_over: names and reasons.
    """
    shown = passed_over[:MOST_FILES]
    return TextTable(
        heading="Files passed over",
        caption="Files of the directory that nothing was taken from.",
        columns=("file", "why"),
        rows=[list(each) for each in shown],
        numeric=(False, False),
        note=f"{len(shown)} of {len(passed_over)} files are shown." if len(shown) < len(passed_over) else "",
    )


def file_names(files: Sequence[TableFile]) -> list[str]:
    """Names of files, with the directories by which they differ."""
    paths = [file.path.resolve() for file in files]
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    front = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(front).as_posix() for path in paths]


def _contents(gathered: Gathered, file: TableFile) -> tuple[str | None, float | None, str | None]:
    """Runs, the number of checkpoints, and the range of steps."""
    kind = kind_of(file)
    if kind in OF_PAIRS:
        return _pairs(file)
    columns = ["step"] if kind == "metrics" else ["run", "checkpoint", "step"]
    found = _distinct(file, columns)
    labels = gathered.names_in(file)
    runs = list(labels.values()) if kind == "metrics" else [labels[run] for run in found.run.dropna().unique()]
    checkpoints = float(len(found[["run", "checkpoint"]].dropna().drop_duplicates())) if "run" in found else None
    return _listed(runs), checkpoints, _range(found.step)


def _pairs(file: TableFile) -> tuple[str | None, float | None, str | None]:
    ends = kind_of(file) == "sva_ends"
    sides = ["reference_run", "run"] if ends else ["run_a", "run_b"]
    steps = ["reference_step", "step"] if ends else ["step_a", "step_b"]
    found = _distinct(file, [*sides, *steps])
    pairs = [" \N{EN DASH} ".join(map(str, pair)) for pair in found[sides].drop_duplicates().to_numpy()]
    return _listed(pairs), None, _range(pd.concat([found[name] for name in steps]))


def _distinct(file: TableFile, columns: Sequence[str]) -> pd.DataFrame:
    """The different rows of some columns, read some thousand at a time."""
    parts = []
    for batch in file.batches(columns):
        arrays = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in batch]
        plain = pa.RecordBatch.from_arrays(arrays, names=list(batch.schema.names))
        parts.append(plain.to_pandas().drop_duplicates())
    return pd.concat(parts).drop_duplicates() if parts else pd.DataFrame(columns=list(columns))


def _listed(names: Sequence[str]) -> str | None:
    more = f", ... ({len(names)})" if len(names) > MOST_RUNS_TOLD else ""
    return f"{', '.join(names[:MOST_RUNS_TOLD])}{more}" or None


def _range(steps: pd.Series) -> str | None:
    known = steps.dropna()
    if not len(known):
        return None
    low, high = int(known.min()), int(known.max())
    return str(low) if low == high else f"{low} to {high}"


def _sha256(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        with open_regular(path) as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), remedy="Make the table again") from error


def _settings(file: TableFile) -> str | None:
    told = _set(file.settings)
    if not isinstance(told, Mapping):
        return None
    return "; ".join(f"{key} = {_plain(value)}" for key, value in told.items()) or None


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _set(value: Any) -> Any:
    """A value without what is null, empty or false in it; null if nothing is left."""
    if isinstance(value, Mapping):
        found = {str(key): _set(part) for key, part in value.items()}
        return {key: part for key, part in found.items() if part is not None} or None
    if isinstance(value, list):
        return [_set(part) for part in value] or None
    if value is False or value == "":
        return None
    return value
