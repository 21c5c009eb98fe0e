"""Tells which candidates of a run repeat another one: links, second formats, and copies such as ``last.ckpt``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from spectra_cli.checkpoints.filenames import CANONICAL_NAMES, DCP_SUFFIX, MODEL_SUFFIXES, format_rank, may_be_model
from spectra_cli.checkpoints.listing import Stray
from spectra_cli.checkpoints.runs import Checkpoint, PassedOver, Run, in_order
from spectra_cli.checkpoints.scan import Candidate, FoundRun
from spectra_cli.checkpoints.smallfile import read_small_file
from spectra_cli.checkpoints.steps import LARGEST_STEP, is_alias_name, natural_key
from spectra_cli.errors import CheckpointError
from spectra_cli.storage.files import StoredFile, open_file
from spectra_cli.storage.places import Place, content_tag, entries_of, is_directory, relative_name, require_file

Peek = Callable[[Place], Mapping[str, Any]]
"""Says what a checkpoint tells of itself: ``step`` and ``epoch`` where it holds them."""

TRAINER_STATE = "trainer_state.json"
"""File in which Hugging Face's Trainer writes ``global_step``."""

LARGEST_TRAINER_STATE_BYTES = 64 << 20
"""Limit for that file, which keeps every line of the log and so grows with the run; it is searched, not parsed."""

SAMPLES = 16
SAMPLE_BYTES = 4096
COMPARED_BYTES = 1 << 20

_GLOBAL_STEP = re.compile(rb'"global_step"\s*:\s*([0-9]{1,18})(?![0-9.eE])')


def settle(found: FoundRun, name: str, peek: Peek) -> Run:
    """Make a run of what was found: every checkpoint once, in the order of training.

    Args:
        found: candidates by their names.
        name: what the run is to be called.
        peek: asked only where a name says neither step nor epoch.
    """
    run = _Settling(found.root, peek)
    run.passed_over += [run.named(stray) for stray in found.passed_over]
    candidates = run.without_second_formats(run.without_links(found.candidates))
    for candidate in sorted(candidates, key=run.may_repeat):  # originals first
        run.add(candidate)
    passed_over = sorted(run.passed_over, key=lambda passed: natural_key(passed.name))
    return Run(name, found.root, in_order(run.checkpoints), tuple(passed_over))


@dataclass(slots=True)
class _Settling:
    """A run while it is made."""

    root: Place
    peek: Peek
    checkpoints: list[Checkpoint] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    by_step: dict[int, Checkpoint] = field(default_factory=dict)
    by_epoch: dict[int, Checkpoint] = field(default_factory=dict)

    def named(self, stray: Stray) -> PassedOver:
        return PassedOver(stray.path, relative_name(stray.path, self.root), stray.reason, stray.notable)

    def pass_over(self, path: Place, reason: str) -> None:
        self.passed_over.append(self.named(Stray(path, reason)))

    def without_links(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Keep one name of every file: one with a step before one without, a file before a link to it."""
        same: defaultdict[tuple[int, int], list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            same[candidate.identity].append(candidate)
        kept = []
        for names in same.values():
            first, *others = sorted(
                names, key=lambda one: (not one.moment.known, one.is_link, natural_key(one.path.as_posix()))
            )
            kept.append(first)
            for other in others:
                kind = "a link to" if other.is_link else "the same file as"
                self.pass_over(other.path, f"{kind} {relative_name(first.path, self.root)}")
        return kept

    def without_second_formats(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Keep safetensors where ``step_100.pt`` or ``pytorch_model.bin`` repeats it in another format."""
        same: defaultdict[tuple[Place, str], list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            name = candidate.path.name
            stem = "model" if name in CANONICAL_NAMES else _unsuffixed(name)
            same[candidate.path.parent, stem].append(candidate)
        kept = []
        for twins in same.values():
            first, *others = sorted(twins, key=lambda twin: format_rank(twin.path.name))
            kept.append(first)
            for other in others:
                self.pass_over(other.path, f"{relative_name(first.path, self.root)} in another format")
        return kept

    def may_repeat(self, candidate: Candidate) -> bool:
        """Whether the candidate may be a copy: by its name, or as the final model at the top of the run."""
        return candidate.path == self.root or is_alias_name(candidate.path.name)

    def add(self, candidate: Candidate) -> None:
        """Take a candidate as a checkpoint, unless it may repeat one that was taken and does."""
        named = candidate.moment
        step, epoch = (named.step, named.epoch) if named.known else self._stored_moment(candidate.path)
        checkpoint = Checkpoint(candidate.path, relative_name(candidate.path, self.root), step, epoch)
        if self.may_repeat(candidate):
            if original := self._of_same_moment(checkpoint):
                time = f"epoch {epoch}" if original.step is None or step is None else f"step {step}"
                self.pass_over(candidate.path, f"{time}, the same as {original.name}")
                return
            if not named.known and (original := self._of_same_bytes(checkpoint)):
                self.pass_over(candidate.path, f"the same bytes as {original.name}")
                return
        self.checkpoints.append(checkpoint)
        if step is not None:
            self.by_step.setdefault(step, checkpoint)
        if epoch is not None:
            self.by_epoch.setdefault(epoch, checkpoint)

    def _stored_moment(self, path: Place) -> tuple[int | None, int | None]:
        directory = path if is_directory(path) else path.parent
        if directory == path or path.name in CANONICAL_NAMES:
            step = _trainer_step(directory / TRAINER_STATE)
            if step is not None:
                return step, None
        told = self.peek(path)
        return _count(told.get("step")), _count(told.get("epoch"))

    def _of_same_moment(self, alias: Checkpoint) -> Checkpoint | None:
        if alias.step is not None and (original := self.by_step.get(alias.step)):
            return original
        original = self.by_epoch.get(alias.epoch) if alias.epoch is not None else None
        comparable = original is not None and (alias.step is None or original.step is None)
        return original if comparable else None

    def _of_same_bytes(self, alias: Checkpoint) -> Checkpoint | None:
        # An alias mostly repeats the end of the run, so that is compared first.
        for checkpoint in reversed(in_order(self.checkpoints)):
            if _same_content(alias.path, checkpoint.path):
                return checkpoint
        return None


def _unsuffixed(name: str) -> str:
    suffix = next((suffix for suffix in MODEL_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)].removesuffix(".pth")


def _trainer_step(path: Place) -> int | None:
    try:
        told = _GLOBAL_STEP.search(read_small_file(path, LARGEST_TRAINER_STATE_BYTES))
    except CheckpointError:
        return None  # it is a hint; the checkpoint is good without it
    return int(told[1]) if told else None


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST_STEP else None


def _model_files(path: Place) -> list[Place]:
    if not path.is_dir():
        return [path]
    names = sorted(entry.name for entry in entries_of(path))
    return [path / name for name in names if may_be_model(name) or name.endswith(DCP_SUFFIX)]


def _same_content(first: Place, second: Place) -> bool:
    try:
        mine, theirs = _model_files(first), _model_files(second)
        sizes = [[require_file(file).st_size for file in files] for files in (mine, theirs)]
        return sizes[0] == sizes[1] and sizes[0] != [] and all(map(_same_bytes, mine, theirs))
    except OSError:
        return False  # the reader says what is wrong with it


def _same_bytes(first: Place, second: Place) -> bool:
    """Compare two files of one size, a few samples before the whole: checkpoints may share long beginnings.

    Remote files are not fetched for it where their storage tells what changes with their content.
    """
    tags = content_tag(first), content_tag(second)
    if all(tags):
        return tags[0] == tags[1]
    with open_file(first) as one, open_file(second) as other:
        size = min(one.size_bytes, other.size_bytes)
        samples = ((max(size - SAMPLE_BYTES, 0) * sample // (SAMPLES - 1), SAMPLE_BYTES) for sample in range(SAMPLES))
        everything = ((offset, COMPARED_BYTES) for offset in range(0, size, COMPARED_BYTES))
        return all(_part(one, *part) == _part(other, *part) for part in chain(samples, everything))


def _part(file: StoredFile, offset: int, size_bytes: int) -> bytes:
    part = bytearray(min(size_bytes, file.size_bytes - offset))
    return bytes(part[: file.read_at(offset, memoryview(part))])
