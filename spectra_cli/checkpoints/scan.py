"""Walks directories and tells the runs in them by names alone; no file is opened."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from spectra_cli.checkpoints.filenames import CANONICAL_NAMES, Layout
from spectra_cli.checkpoints.listing import Listing, list_directory, never_a_model
from spectra_cli.checkpoints.steps import Moment, is_alias_directory, moment_of, natural_key

DEPTH = 8
"""How many directories below PATH a checkpoint is looked for."""

_PARTITION = re.compile(r"(mp|tp|pp|tensor|pipeline|model_parallel)_?(rank)?_?[0-9]+(_[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be a checkpoint by its name: a file or a directory, the moment its name says, and whether it is a link.

    `identity` is the device and the inode of what is behind every link.
    """

    path: Path
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
        passed_over: paths and reasons.
    """

    path: Path
    root: Path
    candidates: list[Candidate] = field(default_factory=list)
    passed_over: list[tuple[Path, str]] = field(default_factory=list)


class Walk:
    """Finds the runs in a directory; every directory is visited once, whatever the links.

    Attributes:
        strays: paths and reasons of what belongs to no run and the user should hear of.
    """

    def __init__(self) -> None:
        self.strays: list[tuple[Path, str]] = []
        self._visited: set[tuple[int, int]] = set()
        self._links: list[tuple[Path, int]] = []

    def runs_in(self, listing: Listing) -> list[FoundRun]:
        """Every run in the directory and below it, in natural order; links are followed after all else."""
        self._visited.add(listing.identity)
        if listing.layout is not None and moment_of(listing.path.name).explicit:
            return [_whole(listing, listing.layout)]
        runs = self._visit(listing, 0, given=True)
        while self._links:
            runs += self._enter(*self._links.pop(0))
        # The last state of a component lies beside its checkpoints: out/unet and out/checkpoint-500/unet.
        by_path: dict[Path, FoundRun] = {}
        for run in runs:
            same = by_path.setdefault(run.path, run)
            if same is not run:
                same.root = min(same.root, run.root, key=lambda root: len(root.parts))
                same.candidates += run.candidates
                same.passed_over += run.passed_over
        return sorted(by_path.values(), key=lambda run: natural_key(str(run.path)))

    def _visit(self, listing: Listing, depth: int, *, given: bool = False) -> list[FoundRun]:
        own = FoundRun(listing.path, listing.path, passed_over=list(listing.passed_over))
        runs: list[FoundRun] = []
        parts: defaultdict[Path, list[Candidate]] = defaultdict(list)
        for entry in listing.directories:
            moment = moment_of(entry.name)
            if not moment.explicit and not is_alias_directory(entry.name):
                runs += self._descend(entry, listing.path, depth)
                continue
            child = self._list(listing.path / entry.name)
            if child is None:
                continue
            layout = child.layout
            if layout is not None and (moment.explicit or not child.is_run):
                own.candidates.append(Candidate(child.path, moment, child.identity, entry.is_symlink()))
                own.passed_over += _beside(child, layout)
            elif moment.explicit:
                self._split(child, moment, depth, own, parts)
            else:
                runs += self._descend(entry, listing.path, depth)
        if len(parts) == 1:
            own.candidates += parts.popitem()[1]
        components = [FoundRun(listing.path / part, listing.path, found) for part, found in parts.items()]
        if here := _own_run(listing, own, given=given):
            runs.append(here)
        elif components:
            components[0].passed_over = own.passed_over
        else:
            self.strays += listing.missed
        return runs + components

    def _split(
        self, child: Listing, moment: Moment, depth: int, own: FoundRun, parts: defaultdict[Path, list[Candidate]]
    ) -> None:
        """Take what lies below a directory that is named after a step and is no checkpoint itself.

        What has no step of its own is one component of that step's model (``checkpoint-500/unet``): `parts` gathers
        each component through the steps.
        """
        ranks = [entry.name for entry in child.directories if _PARTITION.fullmatch(entry.name)]
        if len(ranks) > 1:
            reason = f"one model split over {len(ranks)} ranks ({ranks[0]}, {ranks[1]}, …), which are not joined here"
            self.strays.append((child.path, reason))
            return
        if child.identity in self._visited or depth >= DEPTH:
            own.passed_over.append((child.path, "a link to a directory that was looked into, or too deep"))
            return
        self._visited.add(child.identity)
        for run in self._visit(child, depth + 1):
            own.passed_over += run.passed_over
            for candidate in run.candidates:
                inner = candidate.moment
                dated = Moment(
                    moment.step if inner.step is None else inner.step,
                    moment.epoch if inner.epoch is None else inner.epoch,
                    explicit=True,
                )
                merged = Candidate(candidate.path, dated, candidate.identity, candidate.is_link)
                if inner.known:
                    own.candidates.append(merged)
                else:
                    parts[candidate.path.relative_to(child.path)].append(merged)

    def _descend(self, entry: os.DirEntry[str], parent: Path, depth: int) -> list[FoundRun]:
        if entry.is_symlink():
            self._links.append((parent / entry.name, depth + 1))
            return []
        return self._enter(parent / entry.name, depth + 1)

    def _enter(self, path: Path, depth: int) -> list[FoundRun]:
        if depth > DEPTH or (listing := self._list(path)) is None or listing.identity in self._visited:
            return []
        self._visited.add(listing.identity)
        return self._visit(listing, depth)

    def _list(self, path: Path) -> Listing | None:
        try:
            return list_directory(path)
        except OSError as error:
            self.strays.append((path, f"cannot be listed: {error.strerror or error}"))
            return None


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
        own.passed_over += [(candidate.path, f"beside {layout.files[0]}, which is read") for candidate in unread]
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


def _file_candidate(entry: os.DirEntry[str], listing: Listing) -> Candidate:
    if not entry.is_symlink():
        return Candidate(listing.path / entry.name, moment_of(entry.name), (listing.device, entry.inode()))
    status = entry.stat()
    return Candidate(listing.path / entry.name, moment_of(entry.name), (status.st_dev, status.st_ino), is_link=True)


def _beside(listing: Listing, layout: Layout) -> list[tuple[Path, str]]:
    """What a checkpoint directory holds besides the checkpoint and could be taken for a model."""
    reasons = dict.fromkeys(layout.passed_over, f"beside {layout.files[0]}, which is read")
    for entry in listing.files:
        if reason := never_a_model(entry.name):
            reasons[entry.name] = reason
    return [*((listing.path / name, reason) for name, reason in reasons.items()), *listing.missed]
