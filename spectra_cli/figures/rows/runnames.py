"""What runs are called that stand in several tables: each has one name, and no two the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from spectra_cli.figures.rows import prunedruns
from spectra_cli.figures.rows.kinds import kind_of
from spectra_cli.tables.reader import TableFile


def runs_in(file: TableFile) -> list[str]:
    """Names of the runs in a table, in its order."""
    found: dict[str, None] = {}
    for batch in file.batches(["run"]):
        found |= dict.fromkeys(name for name in batch.column(0).unique().to_pylist() if name is not None)
    return list(found)


def labels_of(found: Mapping[TableFile, Sequence[str]]) -> tuple[dict[TableFile, dict[str, str]], bool]:
    """Labels of the runs of each table; and whether several tables of one kind have a run in common."""
    recorded = {file: {run: _known_as(file, run) for run in runs} for file, runs in found.items()}
    uses: dict[tuple[str, str], list[tuple[TableFile, str]]] = {}
    for file, labels in recorded.items():
        for run, label in labels.items():
            uses.setdefault((kind_of(file), label), []).append((file, run))
    twice = {key: own for key, own in uses.items() if len(own) > 1}
    if all(kind == "prune_eval" and prunedruns.of_one_run(own) for (kind, _), own in twice.items()):
        return recorded, bool(twice)
    of_files = fronts(list(found))
    apart = {
        file: {run: of_files[file] if run == "." else f"{of_files[file]}/{run}" for run in runs}
        for file, runs in found.items()
    }
    return apart, False


def _known_as(file: TableFile, run: str) -> str:
    """What a run is called: the name of its directory where PATH itself was the run, if that is on record."""
    if run != ".":
        return run
    names = file.settings.get("runs")
    name = names.get(run) if isinstance(names, dict) else None
    return name if isinstance(name, str) and name else run


def fronts(files: Sequence[TableFile]) -> dict[TableFile, str]:
    """A name for each file that tells it from others of its kind: its directory, its own name, or both."""
    directories = {file: _tail(file.path.parent, [each.path.parent for each in files]) for file in files}
    both = {file: f"{directory}/{file.path.stem}" for file, directory in directories.items()}
    for named in (directories, {file: file.path.stem for file in files}, both):
        if len({(kind_of(file), front) for file, front in named.items()}) == len(files):
            return named
    return {file: f"{front} ({number})" for number, (file, front) in enumerate(both.items(), 1)}


def _tail(path: Path, others: Sequence[Path]) -> str:
    """The last components of a path, as many as tell it from the others."""
    whole = {other.resolve() for other in others}
    parts = path.resolve().parts
    for length in range(1, len(parts)):
        tail = parts[-length:]
        if sum(other.parts[-length:] == tail for other in whole) <= 1:
            return "/".join(tail)
    return os.fspath(path)


def labels_of_metrics(
    files: Sequence[TableFile], known: Sequence[str]
) -> tuple[dict[TableFile, dict[str, str]], tuple[str, ...]]:
    """What the runs are called whose directories these metrics stand in, and remarks on what was taken for granted.

    That is the name of a run in other tables whose last components are those of the directory, or the only one there.
    """
    labels = {}
    remarks = []
    known = list(dict.fromkeys(known))
    parents = {file: file.path.resolve().parent for file in files}
    for file, parent in parents.items():
        same = [label for label in known if label != "." and _ends_with(parent, PurePath(label))]
        if len(same) == 1:
            labels[file] = same[0]
        elif len(known) == 1 and len(files) == 1:
            labels[file] = known[0]
            if known[0] != ".":
                remarks.append(f"the metrics in {parent.name} are taken for those of the run {known[0]}, the only one")
        else:
            labels[file] = _tail(parent, list(parents.values()))
    uses = Counter(labels.values())
    tails = {file: _tail(parent, list(parents.values())) for file, parent in parents.items()}
    return {file: {".": label if uses[label] == 1 else tails[file]} for file, label in labels.items()}, tuple(remarks)


def _ends_with(path: Path, end: PurePath) -> bool:
    return path.parts[-len(end.parts) :] == end.parts
