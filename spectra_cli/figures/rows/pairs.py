"""Rows that belong to two checkpoints: which pair each is of, what the pair is called, and where a tag puts it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from types import MappingProxyType

import pandas as pd

from spectra_cli.errors import UsageError
from spectra_cli.figures.choice import NothingToDraw
from spectra_cli.figures.rows.gathered import POSITION, Gathered
from spectra_cli.figures.rows.kinds import ENDS, OF_PAIRS
from spectra_cli.figures.rows.runnames import fronts
from spectra_cli.tables.reader import TableFile

ENDS_OF_PAIR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "barrier": ("run_a", "checkpoint_a", "step_a", "run_b", "checkpoint_b", "step_b"),
        "barrier_spectra": ("run_a", "checkpoint_a", "step_a", "run_b", "checkpoint_b", "step_b"),
        ENDS: ("reference_run", "reference_checkpoint", "reference_step", "run", "checkpoint", "step"),
    }
)
"""Columns that name A and B, by kind of rows."""

STEPS_OF_PAIR: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "barrier": {"step_a": "step_a", "step_b": "step_b"},
        ENDS: {"step_a": "reference_step", "step_b": "step"},
    }
)
"""Columns that pairs can be drawn against besides tags: by kind of rows, then by what the user calls them."""

PAIR, LABEL, TABLE = "pair", "label", "table"
"""Columns that :func:`paired` adds: number of the pair, what it is called, number of the table it is from."""

STEP_LABELS: Mapping[str, str] = MappingProxyType(
    {"step_a": "step of A (optimizer steps)", "step_b": "step of B (optimizer steps)"}
)
"""Labels of axes, for places that are no tags."""

SHOWN_NAMES = 8


def paired(gathered: Gathered, kind: str, columns: Sequence[str], place: str | None = None) -> pd.DataFrame:
    """Rows of pairs, told apart also where two tables have the same one.

    Args:
        gathered: the tables.
        kind: a key of :data:`ENDS_OF_PAIR`.
        columns: to read besides those that name the pair.
        place: another one, a tag or a step; where a file lacks it, it is null.

    Returns:
        The rows in the order of the tables, with columns ``pair``, ``label`` and ``table``, and ``x`` for what is in
        `place`, whatever a tag is called. Labels are ``A@step to B@step``, without the directories that all runs share,
        and with tags where two pairs would have one label. No two pairs have one: where tags do not tell them apart,
        their checkpoints, or else the directories or names of their tables, do.
    """
    ends = ENDS_OF_PAIR[kind]
    tags = tags_of(gathered, [kind])
    wanted = list(dict.fromkeys([*ends, *columns]))
    parts, named = [], []
    for number, file in enumerate(gathered.of_kind(kind)):
        read = Gathered([file]).frame(kind, list(dict.fromkeys([*wanted, *tags, *([place] if place else [])])))
        part = read[wanted].copy()
        part[POSITION] = read[place] if place else None
        part[TABLE] = number
        parts.append(part)
        named.append(read[[*ends, *tags]].assign(**{TABLE: number}))
    keys = pd.concat(named, ignore_index=True)[[TABLE, *ends, *tags]].astype(object)
    keys = keys.where(keys.notna(), None)
    numbers, pairs = pd.factorize(pd.Series(list(keys.itertuples(index=False, name=None)), dtype=object))
    labels = _labels([pair[1 : len(ends) + 1] for pair in pairs])
    if len(set(labels)) < len(labels):  # the same checkpoints once more, as with other perturbations
        told = _varying(tags, [pair[len(ends) + 1 :] for pair in pairs])
        labels = [f"{label}{more}" for label, more in zip(labels, told, strict=True)]
    of_tables = list(fronts(gathered.of_kind(kind)).values())
    labels = _told_apart(
        labels, [f" ({pair[2]} to {pair[5]})" for pair in pairs], [f" ({of_tables[pair[0]]})" for pair in pairs]
    )
    frame = pd.concat(parts, ignore_index=True)
    frame[PAIR] = numbers
    frame[LABEL] = [labels[number] for number in numbers]
    return frame


def placed(gathered: Gathered, kind: str, columns: Sequence[str], tag: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows of pairs with a column ``x``: their tag as a number.

    Args:
        gathered: the tables.
        kind: a key of :data:`ENDS_OF_PAIR`.
        columns: as of :func:`paired`.
        tag: its name, or ``step_a`` or ``step_b``.

    Returns:
        The rows that have such a number, and notices on those that have not.

    Raises:
        UsageError: if no table of pairs has such a tag, or a value of it is no number.
        NothingToDraw: if the tables of this kind lack it and others have it, or no pair has a value.
    """
    files = gathered.of_kind(kind)
    tagged = any(tag in file.tags for file in files)
    if not tagged and tag not in STEPS_OF_PAIR[kind]:
        raise _no_such_tag(gathered, kind, tag)
    frame = paired(gathered, kind, columns, tag if tagged else STEPS_OF_PAIR[kind][tag])
    known = frame[POSITION].notna()
    lacking = frame[~known].groupby(TABLE)[PAIR].nunique()
    notices = [
        f"{files[int(number)].path.name} has no {tag}, so its pairs ({count}) are left out"
        for number, count in zip(lacking.index, lacking, strict=True)
    ]
    if not known.any():
        raise NothingToDraw(f"no pair has {tag}", remedy="Choose another --x, or leave it out")
    frame = frame[known].reset_index(drop=True)
    return frame.assign(**{POSITION: _numbers(frame, tag, files)}), notices


def tags_of(gathered: Gathered, kinds: Iterable[str] = OF_PAIRS) -> list[str]:
    """Names of the tags that tables of pairs have."""
    return list(dict.fromkeys(tag for kind in sorted(kinds) for file in gathered.of_kind(kind) for tag in file.tags))


def remedy_for_tag(tags: Sequence[str]) -> str:
    """What to do about a tag that there is not."""
    if tags:
        return (
            f"Give --x with a tag of the tables: {', '.join(tags[:SHOWN_NAMES])}{', ...' * (len(tags) > SHOWN_NAMES)}"
        )
    return "Make the tables with --tag NAME=NUMBER, or give --x step_b"


def _no_such_tag(gathered: Gathered, kind: str, tag: str) -> UsageError | NothingToDraw:
    everything = tags_of(gathered)
    if tag in everything:
        return NothingToDraw(f"these tables have no tag {tag}", remedy=remedy_for_tag(tags_of(gathered, [kind])))
    return UsageError(f"--x {tag}: no table has a tag of that name", remedy=remedy_for_tag(everything))


def _numbers(frame: pd.DataFrame, tag: str, files: Sequence[TableFile]) -> list[float]:
    """The values of a tag as numbers.

    Raises:
        UsageError: if one is none.
    """
    found: dict[object, float] = {}
    for value, table in frame[[POSITION, TABLE]].drop_duplicates(POSITION).itertuples(index=False, name=None):
        try:
            found[value] = float(value)
        except ValueError:
            found[value] = math.nan
        if not math.isfinite(found[value]):
            raise UsageError(
                f"--x {tag}: its value '{str(value)[:40]}' is no number",
                where=str(files[table].path),
                remedy=f"Make the table again with a number, such as --tag {tag}=1, or leave this table out",
            )
    return [found[value] for value in frame[POSITION]]


def _labels(pairs: Sequence[Sequence[object]]) -> list[str]:
    """What pairs of (run, checkpoint, step) of A and of B are called."""
    runs = list(dict.fromkeys(str(run) for pair in pairs for run in (pair[0], pair[3])))
    short = dict(zip(runs, _without_common_directories(runs), strict=True))
    return [
        " to ".join(_end(short[str(run)], checkpoint, step) for run, checkpoint, step in (pair[:3], pair[3:]))
        for pair in pairs
    ]


def _told_apart(labels: Sequence[str], *more: Sequence[str]) -> list[str]:
    """Labels of which no two are the same.

    Args:
        labels: of pairs.
        more: what may be appended to each, tried in this order where labels are the same and this differs; after that
            numbers are.
    """
    told = list(labels)
    for ends in (*more, [f" ({number})" for number in range(1, len(told) + 1)]):
        same: dict[str, list[int]] = {}
        for place, label in enumerate(told):
            same.setdefault(label, []).append(place)
        for places in same.values():
            if len({ends[place] for place in places}) > 1:
                for place in places:
                    told[place] += ends[place]
    return told


def _varying(names: Sequence[str], values: Sequence[Sequence[object]]) -> list[str]:
    """Text on each pair, with those of its tags that differ between pairs: ``, split_step 129``."""
    differing = [place for place in range(len(names)) if len({each[place] for each in values}) > 1][:MOST_TAGS]
    return ["".join(f", {names[i]} {each[i]}" for i in differing if each[i] is not None) for each in values]


MOST_TAGS = 3
"""Limit for one label."""


def _end(run: str, checkpoint: object, step: object) -> str:
    """One end of a pair: its run, and its step or else its checkpoint."""
    if step is not None:
        return f"{run}@{int(float(str(step)))}"
    return run if checkpoint is None else f"{run}/{checkpoint}"


def _without_common_directories(runs: Sequence[str]) -> list[str]:
    """Paths without the directories that all of them begin with, each with a component left at least."""
    parts = [run.split("/") for run in runs]
    directories = zip(*(each[:-1] for each in parts), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, directories))
    return ["/".join(each[common:]) for each in parts]


def failures(rows: pd.DataFrame) -> list[str]:
    """Notices on pairs that have no numbers at all.

    Args:
        rows: that stand for whole pairs.
    """
    single = rows.drop_duplicates(PAIR)
    told = [f"{label}: {status}" for label, status in zip(single[LABEL], single.status, strict=True)]
    return [*told[:SHOWN_NAMES], *([f"{len(told) - SHOWN_NAMES} more pairs failed"] if len(told) > SHOWN_NAMES else [])]


def too_many(count: int, most: int, what: str) -> list[str]:
    """A notice where not all are drawn."""
    return [f"only the first {most} of {count} {what} are drawn"] if count > most else []
