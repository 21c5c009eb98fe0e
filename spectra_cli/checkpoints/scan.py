"""Walks directories and tells the runs in them by names alone; no file is opened."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from spectra_cli.checkpoints.filenames import CANONICAL_NAMES, STEP_NUMBER, Layout
from spectra_cli.checkpoints.listing import Listing, Stray, is_part, list_directory, never_a_model
from spectra_cli.checkpoints.steps import Moment, is_alias_directory, moment_of, natural_key
from spectra_cli.storage.places import Entry, Place, within

DEPTH = 8
"""How many directories below PATH a checkpoint is looked for."""

TOO_DEEP = f"more than {DEPTH} directories below PATH: not looked into"

_PARTITION = re.compile(r"(mp|tp|pp|tensor|pipeline|model_parallel)_?(rank)?_?[0-9]+(_[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be a checkpoint by its name: a file or a directory, the moment its name says, and whether it is a link.

    `identity` is the device and the inode of what is behind every link.
    """

    path: Place
    moment: Moment
    identity: tuple[int, int]
    is_link: bool = False


@dataclass(slots=True)
class FoundRun:
    """A run as the names tell it.

    Attributes:
        path: what the run is called after.
        root: the directory that the names of its checkpoints are relative to.
        candidates: in natural order.
        passed_over: in no order.
    """

    path: Place
    root: Place
    candidates: list[Candidate] = field(default_factory=list)
    passed_over: list[Stray] = field(default_factory=list)


@dataclass(slots=True)
class _Visit:
    """What a directory holds, while it is looked through.

    Attributes:
        listing: of the directory.
        depth: directories between it and PATH.
        own: the run that it may be.
        found: each directory in it that is named after a step and is no checkpoint itself, and the runs below that.
        bare: those without a model, and why it is not read.
    """

    listing: Listing
    depth: int
    own: FoundRun
    found: list[tuple[Place, Moment, list[FoundRun]]] = field(default_factory=list)
    bare: list[tuple[Candidate, Stray]] = field(default_factory=list)

    def are_runs(self) -> bool:
        """Whether the numbers count runs: the same moments lie in several (Hydra's ``multirun/0``, ``multirun/1``).

        A bare number does not say what it counts; where a word does (``epoch_1/step_100``), it belongs to the moment.
        """
        seen: dict[Moment, Place] = {}
        for path, moment, runs in self.found:
            outer = Moment() if path.name.isdecimal() else moment
            for inner in (candidate.moment for run in runs for candidate in run.candidates if candidate.moment.known):
                if seen.setdefault(_dated(outer, inner), path) != path:
                    return True
        return False


class Walk:
    """Finds the runs in a directory; every directory is visited once, whatever the links.

    Attributes:
        strays: what belongs to no run and the user should hear of.
    """

    def __init__(self) -> None:
        self.strays: list[Stray] = []
        self._visited: set[tuple[int, int]] = set()
        self._links: list[tuple[Place, int]] = []

    def runs_in(self, listing: Listing) -> list[FoundRun]:
        """Every run in the directory and below it, in natural order; links are followed after all else."""
        self._visited.add(listing.identity)
        if listing.layout is not None and moment_of(listing.path.name).explicit:
            return [_whole(listing, listing.layout)]
        runs = self._visit(listing, 0, given=True)
        while self._links:
            runs += self._enter(*self._links.pop(0))
        # The last state of a component lies beside its checkpoints: out/unet and out/checkpoint-500/unet.
        by_path: dict[Place, FoundRun] = {}
        for run in runs:
            same = by_path.setdefault(run.path, run)
            if same is not run:
                same.root = min(same.root, run.root, key=lambda root: len(root.parts))
                same.candidates += run.candidates
                same.passed_over += run.passed_over
        return sorted(by_path.values(), key=lambda run: natural_key(str(run.path)))

    def _visit(self, listing: Listing, depth: int, *, given: bool = False) -> list[FoundRun]:
        own = FoundRun(listing.path, listing.path, passed_over=list(listing.passed_over))
        here = _Visit(listing, depth, own)
        runs: list[FoundRun] = []
        for entry in listing.directories:
            moment = moment_of(entry.name)
            if moment.explicit or is_alias_directory(entry.name):
                runs += self._take(entry, moment, here)
            else:
                runs += self._descend(entry, listing.path, depth)
        parts: dict[PurePath, list[Candidate]] = {}
        if here.are_runs():
            runs += [run for _, _, found in here.found for run in found]
        else:
            parts = _join(here)
        if len(parts) == 1:
            own.candidates += parts.popitem()[1]
        bare = _as_checkpoints(here)
        own.passed_over += bare
        components = [FoundRun(listing.path / part, listing.path, found) for part, found in parts.items()]
        if run := _own_run(listing, own, given=given):
            runs.append(run)
        elif components:
            components[0].passed_over = own.passed_over
        else:
            self.strays += [*listing.missed, *bare]
        return runs + components

    def _take(self, entry: Entry, moment: Moment, here: _Visit) -> list[FoundRun]:
        """Take a directory that is named like a checkpoint into `here`; returns its runs where they stand apart."""
        path = here.listing.path / entry.name
        try:
            child = list_directory(path)
        except OSError as error:
            if moment.explicit:
                candidate = Candidate(path, moment, (here.listing.device, entry.inode()), entry.is_symlink())
                here.bare.append((candidate, _unlisted(path, error)))
            else:
                self.strays.append(_unlisted(path, error))
            return []
        layout = child.layout
        candidate = Candidate(child.path, moment, child.identity, entry.is_symlink())
        if layout is not None and (moment.explicit or not child.is_run):
            here.own.candidates.append(candidate)
            here.own.passed_over += _beside(child, layout)
            return []
        if not moment.explicit:
            return self._descend(entry, here.listing.path, here.depth)
        ranks = [each.name for each in child.directories if _PARTITION.fullmatch(each.name)]
        if len(ranks) > 1:
            reason = f"one model split over {len(ranks)} ranks ({ranks[0]}, {ranks[1]}, …), which are not joined here"
            here.bare.append((candidate, Stray(path, reason, notable=True)))
            return []
        queued = len(self._links)
        found = self._look_into(child, here.depth + 1)
        if found:
            here.found.append((path, moment, found))
        elif found is not None and queued == len(self._links):
            here.bare.append((candidate, Stray(path, "no model in it", notable=_is_left_over(child))))
        return []

    def _descend(self, entry: Entry, parent: Place, depth: int) -> list[FoundRun]:
        if entry.is_symlink():
            self._links.append((parent / entry.name, depth + 1))
            return []
        return self._enter(parent / entry.name, depth + 1)

    def _enter(self, path: Place, depth: int) -> list[FoundRun]:
        try:
            return self._look_into(list_directory(path), depth) or []
        except OSError as error:
            self.strays.append(_unlisted(path, error))
            return []

    def _look_into(self, listing: Listing, depth: int) -> list[FoundRun] | None:
        """The runs in a directory below PATH; None where it is left out."""
        if listing.identity in self._visited:
            self.strays.append(Stray(listing.path, "a link to a directory that was looked into"))
            return None
        if depth > DEPTH:
            self.strays.append(Stray(listing.path, TOO_DEEP, notable=True))
            return None
        self._visited.add(listing.identity)
        return self._visit(listing, depth)


def _join(here: _Visit) -> dict[PurePath, list[Candidate]]:
    """Add what lies in the directories of steps to the run of these steps.

    Returns:
        What has no step of its own: each component of the models (``checkpoint-500/unet``) through the steps, by its
        path in them.
    """
    parts: defaultdict[PurePath, list[Candidate]] = defaultdict(list)
    for path, moment, runs in here.found:
        for run in runs:
            here.own.passed_over += run.passed_over
            for candidate in run.candidates:
                dated = replace(candidate, moment=_dated(moment, candidate.moment))
                if candidate.moment.known:
                    here.own.candidates.append(dated)
                else:
                    parts[within(candidate.path, path)].append(dated)
    return parts


def _as_checkpoints(here: _Visit) -> list[Stray]:
    """Add directories without a model to the checkpoints if they are named like one: they are missed in the table.

    Returns:
        The others.
    """

    def form(candidate: Candidate) -> str:
        return STEP_NUMBER.sub("#", within(candidate.path, here.listing.path).parts[0])

    forms = {form(candidate) for candidate in here.own.candidates}
    here.own.candidates += [candidate for candidate, _ in here.bare if form(candidate) in forms]
    return [stray for candidate, stray in here.bare if form(candidate) not in forms]


def _is_left_over(listing: Listing) -> bool:
    """Whether a directory without a model looks like what is left of a checkpoint: optimizer state, shards, nothing."""
    if any(is_part(entry.name) or never_a_model(entry.name) for entry in listing.files):
        return True
    return bool(listing.missed) or not (listing.files or listing.directories)


def _dated(outer: Moment, inner: Moment) -> Moment:
    step = outer.step if inner.step is None else inner.step
    epoch = outer.epoch if inner.epoch is None else inner.epoch
    return Moment(step, epoch, explicit=True)


def _unlisted(path: Place, error: OSError) -> Stray:
    return Stray(path, f"cannot be listed: {error.strerror or error}", notable=True)


def _own_run(listing: Listing, own: FoundRun, *, given: bool) -> FoundRun | None:
    """The run that a directory is, by its own files and the checkpoint directories in it; None if it is none."""
    layout = listing.layout
    files = [_file_candidate(entry, listing) for entry in listing.models]
    if layout is not None and not own.candidates and _is_one_checkpoint(listing, layout, given=given):
        return _whole(listing, layout)
    if layout is not None and layout.kind != "file":
        # The final model of a run, in shards, beside the directories of its checkpoints.
        own.candidates.append(Candidate(listing.path, Moment(), listing.identity))
        unread = [candidate for candidate in files if not candidate.moment.known]
        own.passed_over += [Stray(candidate.path, f"beside {layout.files[0]}, which is read") for candidate in unread]
        files = [candidate for candidate in files if candidate.moment.known]
    own.candidates += files
    return own if own.candidates else None


def _whole(listing: Listing, layout: Layout) -> FoundRun:
    """A run of one checkpoint, which is the directory."""
    moment = moment_of(listing.path.name)
    candidate = Candidate(listing.path, moment if moment.explicit else Moment(), listing.identity)
    return FoundRun(listing.path, listing.path.parent, [candidate], _beside(listing, layout))


def _is_one_checkpoint(listing: Listing, layout: Layout, *, given: bool) -> bool:
    """Whether the directory is called a checkpoint, and not a run that so far has a single one."""
    if layout.kind != "file":
        return not any(moment_of(entry.name).known for entry in listing.models)
    return layout.files[0] in CANONICAL_NAMES or (given and is_alias_directory(listing.path.name))


def _file_candidate(entry: Entry, listing: Listing) -> Candidate:
    path, moment, is_link = listing.path / entry.name, moment_of(entry.name), entry.is_symlink()
    if is_link:
        with suppress(OSError):  # what it led to is gone since it was listed, as is told when it is opened
            status = entry.stat()
            return Candidate(path, moment, (status.st_dev, status.st_ino), is_link)
    return Candidate(path, moment, (listing.device, entry.inode()), is_link)


def _beside(listing: Listing, layout: Layout) -> list[Stray]:
    """Files in a checkpoint directory that are not the checkpoint and could be taken for a model."""
    reasons = dict.fromkeys(layout.passed_over, f"beside {layout.files[0]}, which is read")
    for entry in listing.files:
        if reason := never_a_model(entry.name):
            reasons[entry.name] = reason
    missed = [replace(stray, notable=False) for stray in listing.missed]  # nothing is missed: the model is read
    return [*(Stray(listing.path / name, reason) for name, reason in reasons.items()), *missed]
