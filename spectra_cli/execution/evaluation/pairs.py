"""Pairs of checkpoints, told before torch is imported: which they are, and whether a line leads from A to B."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.discovery import discover_as_given
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError, InputError, SpectraError, UsageError
from spectra_cli.execution.planning.options import Options, TaskOptions
from spectra_cli.execution.planning.plan import only_run
from spectra_cli.execution.planning.workingdirectory import WorkingDirectory
from spectra_cli.layers.weights import model_weights
from spectra_cli.tasks.names import same_task
from spectra_cli.tensors import by

LEAST_ALPHAS = 2

SHOWN_OPTIONS = 3
"""Options that differ, of those that an error names."""


class ShapeMismatchError(CheckpointError):
    """Two checkpoints whose tensors differ in names or shapes: there is no line from one to the other."""

    status = "shape_mismatch"


class TaskMismatchError(InputError):
    """Two runs that were trained on different tasks, or with different options of one."""

    status = "task_mismatch"


@dataclass(frozen=True, slots=True)
class End:
    """A checkpoint that a pair names.

    Attributes:
        run: named by the PATH as given.
        checkpoint: the last of those that the PATH selects.
    """

    run: Run
    checkpoint: Checkpoint

    def found_from(self, directory: WorkingDirectory) -> End:
        """The end as this process finds it, which may work in another directory."""
        return End(directory.run(self.run), directory.checkpoint(self.checkpoint))

    def columns(self, side: str) -> dict[str, Any]:
        """The columns of a table that name it, with the side ``a`` or ``b`` in their names."""
        return {
            f"run_{side}": self.run.name,
            f"checkpoint_{side}": self.checkpoint.name,
            f"step_{side}": self.checkpoint.step,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Two checkpoints, or the reason why they cannot be used.

    Attributes:
        given: the two PATHs.
        ends: A and B, as far as they were found.
        error: None if both were found and their tensors have the same names and shapes.
        tags: extra columns of its rows.
    """

    given: tuple[str, str]
    ends: tuple[End | None, End | None]
    error: SpectraError | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return " and ".join(self.given)

    def found_from(self, directory: WorkingDirectory) -> Pair:
        """The pair as this process finds it, which may work in another directory."""
        a, b = (None if end is None else end.found_from(directory) for end in self.ends)
        return replace(self, ends=(a, b))

    def placed(self, error: SpectraError) -> SpectraError:
        """An error that is about the pair with the place where it arose; one about the command line as it is."""
        return error if isinstance(error, UsageError) else error.at(str(self))

    @property
    def identity(self) -> dict[str, Any]:
        """The columns of a table that name the pair."""
        named: dict[str, Any] = {}
        for side, path, end in zip("ab", self.given, self.ends, strict=True):
            named |= {f"run_{side}": path} if end is None else end.columns(side)
        return named

    @property
    def found(self) -> tuple[End, End]:
        """A and B.

        Raises:
            SpectraError: if the pair cannot be used.
        """
        a, b = self.ends
        if a is None or b is None or self.error is not None:
            raise self.error or InputError("an end of the pair was not found", where=str(self))
        return a, b


@dataclass(frozen=True, slots=True)
class BarrierPlan:
    """The pairs to look between.

    Attributes:
        pairs: at least one, in the order in which they were given.
        options: what the user chose.
        task: what the user says of the task.
        alphas: number of points on each line, both ends among them.
    """

    pairs: tuple[Pair, ...]
    options: Options
    task: TaskOptions
    alphas: int

    @property
    def tags(self) -> dict[str, str | None]:
        """The extra columns of the tables: those of all pairs, and of each pair, whose rows say their values."""
        return {**dict.fromkeys(name for pair in self.pairs for name in pair.tags), **self.options.tags}

    @property
    def runs_read(self) -> tuple[Run, ...]:
        """The runs of all ends that were found, each with the checkpoint at that end."""
        ends = (end for pair in self.pairs for end in pair.ends if end is not None)
        return tuple(replace(end.run, checkpoints=(end.checkpoint,)) for end in ends)

    def found_from(self, directory: WorkingDirectory) -> BarrierPlan:
        """The plan as this process finds it, which may work in another directory."""
        return replace(
            self,
            pairs=tuple(pair.found_from(directory) for pair in self.pairs),
            options=directory.options(self.options),
            task=directory.task(self.task),
        )

    def recorded(self) -> dict[str, Any]:
        """The options as they are recorded in the metadata of a table."""
        unused = ("steps", "every", "log_spaced", "skip_incomplete", "full", "reference", "against")
        shared = {name: value for name, value in self.options.recorded().items() if name not in unused}
        return {**shared, **self.task.recorded(), "alphas": self.alphas, "pairs": [pair.given for pair in self.pairs]}


def make_barrier_plan(
    pairs: Sequence[tuple[str, str]],
    options: Options,
    task: TaskOptions,
    alphas: int,
    tags: Sequence[Mapping[str, str]] = (),
) -> BarrierPlan:
    """Find the checkpoints of all pairs, and compare the names and shapes of their tensors, from headers alone.

    Args:
        pairs: PATHs of A and of B, each of one checkpoint: a file, ``RUN@STEP``, or a run, which stands for its last.
        options: what the user chose.
        task: what the user says of the task.
        alphas: number of points on each line.
        tags: extra columns of each pair; none if empty.

    Raises:
        UsageError: if there are too few points, no pair, or one name for two extra columns.
        SpectraError: if there is one pair only and it cannot be used.
    """
    if alphas < LEAST_ALPHAS:
        raise UsageError(f"--alphas {alphas} leaves no room for both ends", remedy=f"Give at least {LEAST_ALPHAS}")
    options.structure.families()  # a family that does not exist is told before any work
    twice = options.tags.keys() & {name for each in tags for name in each}
    if twice:
        raise UsageError(f"--tag {min(twice)}: --pairs has a column of that name", remedy="Leave one of them out")
    finder = _Finder(task)
    each_tags = tags or [{}] * len(pairs)
    planned = tuple(finder.pair(a, b, each) for (a, b), each in zip(pairs, each_tags, strict=True))
    if not planned:
        raise UsageError("no pair was given", remedy="Give two PATHs, or --pairs FILE")
    if len(planned) == 1 and planned[0].error is not None:
        raise planned[0].placed(planned[0].error)
    return BarrierPlan(planned, options, task, alphas)


Given = TypeVar("Given")
Found = TypeVar("Found")


class _Finder:
    """Finds pairs; a checkpoint that several of them name is looked up and opened once."""

    def __init__(self, task: TaskOptions) -> None:
        self._task = task
        self._known: dict[object, Any] = {}

    def pair(self, a: str, b: str, tags: Mapping[str, str]) -> Pair:
        """Two checkpoints, or why they cannot be used."""
        ends: list[End | None] = []
        error: SpectraError | None = None
        for given in (a, b):
            try:
                ends.append(self._once(given, _end, given))
            except SpectraError as caught:
                ends.append(None)
                error = error or caught
        one, other = ends
        if one is not None and other is not None:
            try:
                shapes = [self._once(end.checkpoint.path, _shapes, end) for end in (one, other)]
                check_same_shapes(*shapes)
            except ShapeMismatchError as caught:
                error = _mismatch_of_tasks(one, other, self._task, caught) or caught
            except SpectraError as caught:
                error = caught
        return Pair((a, b), (one, other), error, tags)

    def _once(self, key: object, find: Callable[[Given], Found], what: Given) -> Found:
        if key not in self._known:
            try:
                self._known[key] = find(what)
            except SpectraError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, SpectraError):
            raise known
        return cast("Found", known)


def _end(given: str) -> End:
    """The checkpoint that a PATH names.

    Raises:
        SpectraError: if there is none, or it holds several runs.
    """
    run = only_run([run for run in discover_as_given(given) if run.checkpoints], given)
    return End(run, run.checkpoints[-1])


@dataclass(frozen=True, slots=True)
class Shapes:
    """Names and shapes of the tensors of a model as a checkpoint has them.

    Attributes:
        of: by name without wrapper prefixes, in the order of the checkpoint.
        tied: further names of tensors in `of`, which another checkpoint of the model may hold or lack.
    """

    of: Mapping[str, tuple[int, ...]]
    tied: frozenset[str] = frozenset()


def _shapes(end: End) -> Shapes:
    """What the headers of a checkpoint say.

    Raises:
        CheckpointError: if it cannot be read.
    """
    path = end.checkpoint.path
    try:
        with open_checkpoint(path) as reader:
            weights, left_out = model_weights(reader.tensors, read_config(path, end.run.root))
    except CheckpointError as error:
        raise error.at(str(path)) from None
    prefixes = {weight.tensor.name.removesuffix(weight.parameter) for weight in weights}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    tied = (skipped.name.removeprefix(prefix) for skipped in left_out if skipped.status == "tied")
    return Shapes({weight.parameter: weight.tensor.shape for weight in weights}, frozenset(tied))


def check_same_shapes(a: Shapes, b: Shapes) -> None:
    """Check that two checkpoints have the same tensors.

    Raises:
        ShapeMismatchError: if not; names the first that differs, in the order of A.
    """
    different = None
    for name, shape in a.of.items():
        if name in b.of and b.of[name] != shape:
            different = f"'{name}' is {by(shape)} in A and {by(b.of[name])} in B"
        elif name not in b.of and name not in b.tied:
            different = f"B has no '{name}'"
        if different:
            break
    else:
        lacking = next((name for name in b.of if name not in a.of and name not in a.tied), None)
        different = lacking and f"A has no '{lacking}'"
    if different:
        raise ShapeMismatchError(different, remedy="Give two checkpoints of one architecture")


def _mismatch_of_tasks(a: End, b: End, options: TaskOptions, shapes: ShapeMismatchError) -> TaskMismatchError | None:
    """What the run.json of two runs say that explains different shapes; None if nothing does, or the user overrules it.

    Only options that both name are compared: no task is made, and no code of one is run.
    """
    from spectra_cli.execution.evaluation.taskruns import record_of  # noqa: PLC0415 - torch, for this error only

    try:
        ours, theirs = (record_of(end.run, end.checkpoint) for end in (a, b))
    except InputError:
        return None
    if ours is None or theirs is None:
        return None
    if not same_task(ours.task, theirs.task):
        said = [] if options.task is not None else [f"A was trained on {ours.task}, B on {theirs.task}"]
    elif options.task is not None and not same_task(options.task, ours.task):
        said = []
    else:
        names = [name for name in ours.options if name in theirs.options and name not in options.settings]
        said = [
            f"the option {name} of {ours.task} is {ours.options[name]!r} for A and {theirs.options[name]!r} for B"
            for name in names
            if ours.options[name] != theirs.options[name]
        ]
    if not said:
        return None
    told = "; ".join(said[:SHOWN_OPTIONS]) + (f" and {len(said) - SHOWN_OPTIONS} more" if said[SHOWN_OPTIONS:] else "")
    return TaskMismatchError(f"{told}; so {shapes.what}", remedy="Give two runs of one task with the same options")
