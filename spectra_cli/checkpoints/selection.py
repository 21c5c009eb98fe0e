"""Which checkpoints of a run are analysed: ``--steps``, ``--every`` and ``--log-spaced``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.checkpoints.steps import nearest, parse_count
from spectra_cli.errors import InputError, UsageError

STEPS_REMEDY = "Write steps as 400, first, final or 100:900, separated by commas"


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice among the checkpoints of every run; the three parts apply one after the other.

    Where a run is ordered by epochs (no steps are known), epochs are meant wherever steps are written here.

    Attributes:
        steps: comma-separated steps (``400``, ``10k``), ``first``, ``final`` and inclusive ranges (``100:900``,
            ``:900``, ``100:``). None selects every checkpoint.
        every: N selects every N-th checkpoint in order, starting with the first, and always the last.
        log_spaced: N selects at most N checkpoints spaced geometrically in step, the first and the last always among
            them. A checkpoint of step 0 counts as one of the N and the geometry starts at the next.

    Raises:
        UsageError: if a value means nothing.
    """

    steps: str | None = None
    every: int | None = None
    log_spaced: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            _parse(self.steps)
        if self.every is not None and self.every < 1:
            raise UsageError(f"--every {self.every} selects nothing", remedy="Give a number of at least 1")
        if self.log_spaced is not None and self.log_spaced < 2:
            raise UsageError(
                f"--log-spaced {self.log_spaced} cannot hold the first and the last checkpoint",
                remedy="Give a number of at least 2",
            )

    def apply(self, run: Run) -> Run:
        """Select among the checkpoints of one run.

        Raises:
            InputError: if a step is asked for that the run has not.
        """
        return self.apply_all([run])[0]

    def apply_all(self, runs: Sequence[Run]) -> list[Run]:
        """Select among the checkpoints of several runs.

        Returns:
            As many runs as were given. A run which has none of the steps stays, without checkpoints.

        Raises:
            InputError: if a step is asked for that none of the runs has.
        """
        chosen = [run.checkpoints for run in runs] if self.steps is None else _at_steps(runs, _parse(self.steps))
        if self.every is not None:
            chosen = [_every(checkpoints, self.every) for checkpoints in chosen]
        selected = [replace(run, checkpoints=checkpoints) for run, checkpoints in zip(runs, chosen, strict=True)]
        if self.log_spaced is not None:
            selected = [replace(run, checkpoints=_log_spaced(run, self.log_spaced)) for run in selected]
        return selected


@dataclass(frozen=True, slots=True)
class _Term:
    """One part of ``--steps``: a word, or an inclusive range of steps with open ends as None."""

    text: str
    low: int | None = None
    high: int | None = None

    def picks(self, run: Run) -> list[int]:
        """Indices of the checkpoints of the run that are meant."""
        last = len(run.checkpoints) - 1
        if self.text in {"first", "final"}:
            return [] if last < 0 else [0 if self.text == "first" else last]
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return [index for index, time in enumerate(run.times) if time is not None and low <= time <= high]


def _parse(steps: str) -> list[_Term]:
    return [_parse_term(text.strip(), steps) for text in steps.split(",")]


def _parse_term(text: str, steps: str) -> _Term:
    if text in {"first", "final"}:
        return _Term(text)
    start, colon, stop = text.partition(":")
    low, high = parse_count(start.strip()), parse_count(stop.strip())
    unreadable = (start.strip() and low is None) or (stop.strip() and high is None)
    if unreadable or (low is None and high is None):
        what = f"'{text}' is not a step" if text else "a step is missing"
        raise UsageError(f"--steps {steps}: {what}", remedy=STEPS_REMEDY)
    if not colon:
        return _Term(text, low, low)
    if low is not None and high is not None and low > high:
        raise UsageError(f"--steps {steps}: the range '{text}' ends before it starts", remedy=STEPS_REMEDY)
    return _Term(text, low, high)


def _at_steps(runs: Sequence[Run], terms: Sequence[_Term]) -> list[tuple[Checkpoint, ...]]:
    picks: list[set[int]] = [set() for _ in runs]
    for term in terms:
        found = [term.picks(run) for run in runs]
        if not any(found):
            raise _no_such_step(term, runs)
        for indices, more in zip(picks, found, strict=True):
            indices.update(more)
    return [
        tuple(run.checkpoints[index] for index in sorted(indices)) for run, indices in zip(runs, picks, strict=True)
    ]


def _no_such_step(term: _Term, runs: Sequence[Run]) -> InputError:
    clock = "epoch" if runs and all(run.clock == "epoch" for run in runs) else "step"
    available = {time for run in runs for time in run.times if time is not None}
    where = runs[0].name if len(runs) == 1 and runs[0].name != "." else None
    what = f"no checkpoint has {clock} {term.text}"
    if not available:
        return InputError(f"{what}: no {clock} is known", where=where, remedy="Select with first, final or --every")
    wanted = term.low if term.low is not None else term.high
    steps = nearest(wanted, available) if wanted is not None else sorted(available)[:5]
    listed = ", ".join(str(step) for step in steps)
    more = f" of {len(available)} available" if len(available) > len(steps) else " available"
    return InputError(what, where=where, remedy=f"Choose among the nearest{more}: {listed}")


def _every(checkpoints: tuple[Checkpoint, ...], stride: int) -> tuple[Checkpoint, ...]:
    last = len(checkpoints) - 1
    return tuple(checkpoint for index, checkpoint in enumerate(checkpoints) if index % stride == 0 or index == last)


def _log_spaced(run: Run, count: int) -> tuple[Checkpoint, ...]:
    times = run.times
    if all(time is None for time in times):
        times = tuple(range(1, len(times) + 1))  # only the order is known
    if len(times) <= 2:
        return run.checkpoints
    positive = [(math.log(time), index) for index, time in enumerate(times) if time]
    ends = {0, len(times) - 1}
    outside = ends - {index for _, index in positive}  # step 0, or a last checkpoint of unknown step
    free = count - len(outside)
    targets: list[float] = []
    if positive and free > 0:
        start, stop = positive[0][0], positive[-1][0]
        targets = [stop - (stop - start) * part / max(free - 1, 1) for part in range(free)]
    # The ends are chosen already, also where another checkpoint has the same step.
    targets = targets[len(times) - 1 not in outside :]
    targets = targets if 0 in outside else targets[:-1]
    spaced = {min(positive, key=lambda known: (abs(known[0] - target), known[1]))[1] for target in targets}
    return tuple(run.checkpoints[index] for index in sorted(spaced | ends))
