"""What is to be done, told before torch is imported: errors in a command line come at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spectra_cli.analyses.references import FINAL, Reference, ReferenceChoice
from spectra_cli.checkpoints.discovery import Spec, discover_all
from spectra_cli.checkpoints.open import check_complete
from spectra_cli.checkpoints.runs import Run
from spectra_cli.checkpoints.selection import Selection
from spectra_cli.errors import CheckpointError, IncompleteCheckpointError, InputError, UsageError
from spectra_cli.execution.planning.options import Options
from spectra_cli.storage.places import Place, place_of


@dataclass(frozen=True, slots=True)
class Plan:
    """The checkpoints to analyse.

    Attributes:
        runs: each with at least one checkpoint.
        options: what the user chose.
        incomplete: checkpoints to go on without, by path.
        tables: what to make, keys of ``tables.schemas.TABLES``.
        references: run by run, the references of its checkpoints by path; empty unless agreement is asked for.
        against: the other run that references are in, if they are.
    """

    runs: tuple[Run, ...]
    options: Options
    incomplete: Mapping[Place, IncompleteCheckpointError]
    tables: tuple[str, ...] = ("rank",)
    references: tuple[Mapping[Place, Reference], ...] = ()
    against: Run | None = None

    @property
    def checkpoint_count(self) -> int:
        """Checkpoints to analyse, in all runs."""
        return sum(len(run.checkpoints) for run in self.runs)

    @property
    def runs_read(self) -> tuple[Run, ...]:
        """The runs to analyse, and those that references are in."""
        compared = (reference.run for references in self.references for reference in references.values())
        return (*self.runs, *compared)

    @property
    def pass_count(self) -> int:
        """Checkpoints to read: those to analyse, and references that are none of them."""
        extra = 0
        for run, references in zip(self.runs, self.references, strict=False):
            own = {checkpoint.path for checkpoint in run.checkpoints}
            extra += len({reference.checkpoint.path for reference in references.values()} - own)
        return self.checkpoint_count + extra


def find_runs(paths: Iterable[Spec], selection: Selection) -> tuple[Run, ...]:
    """The runs behind PATHs, with the checkpoints selected; those without any are left out.

    Raises:
        SpectraError: if a PATH or the selection is wrong.
    """
    return tuple(run for run in selection.apply_all(discover_all(paths)) if run.checkpoints)


def only_run(runs: Sequence[Run], given: str) -> Run:
    """The run behind a PATH that must hold one.

    Raises:
        InputError: if it holds several.
    """
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs[:6])
        raise InputError(f"this holds {len(runs)} runs", where=given, remedy=f"Name one of them: {names}")
    return runs[0]


def make_plan(paths: Iterable[Spec], options: Options, tables: Sequence[str]) -> Plan:
    """Find the checkpoints and check all sharded ones: an hour later is too late to learn of an absent file.

    Args:
        paths: PATHs of checkpoints, runs or directories of runs.
        options: what the user chose.
        tables: what to make.

    Raises:
        SpectraError: if there is nothing to analyse, or a checkpoint is incomplete and may not be skipped.
    """
    options.structure.families()  # a family that does not exist is told before any work
    runs = find_runs(paths, options.selection)
    choice = _reference_choice(options) if "sva" in tables and "prune_eval" not in tables else None  # that has its own
    if choice is not None:
        choice.check(runs)
    references = tuple(choice.of(run) for run in runs) if choice is not None else ()
    compared = [reference.checkpoint for mapping in references for reference in mapping.values()]
    checkpoints = {checkpoint.path for run in runs for checkpoint in run.checkpoints}
    checkpoints |= {checkpoint.path for checkpoint in compared}
    incomplete = _incomplete(sorted(checkpoints, key=str), skip=options.skip_incomplete)
    return Plan(runs, options, incomplete, tuple(tables), references, choice.against if choice else None)


def _reference_choice(options: Options) -> ReferenceChoice:
    if options.against is None:
        return ReferenceChoice(options.reference or FINAL)
    if options.reference is not None:
        raise UsageError(
            f"--reference {options.reference} and --against exclude each other",
            remedy="Compare with a checkpoint of the same run, or with another run",
        )
    others = discover_all([options.against])
    if len(others) != 1:
        names = ", ".join(run.name for run in others[:6])
        raise UsageError(f"--against {options.against} holds {len(others)} runs", remedy=f"Name one of them: {names}")
    name = place_of(options.against).as_posix() if others[0].name == "." else others[0].name
    return ReferenceChoice(against=replace(others[0], name=name))


def _incomplete(paths: Sequence[Place], *, skip: bool) -> dict[Place, IncompleteCheckpointError]:
    """The incomplete ones of several checkpoints.

    Raises:
        IncompleteCheckpointError: if there is one and it may not be skipped.
    """
    found: dict[Place, IncompleteCheckpointError] = {}
    for path in paths:
        try:
            check_complete(path)
        except IncompleteCheckpointError as error:
            error.at(str(path))
            error.remedy = "Restore the missing files"
            if not skip:
                if len(paths) > 1:
                    error.remedy += ", or pass --skip-incomplete"
                raise
            found[path] = error
        except CheckpointError:
            continue  # a row of its own when its turn comes
    return found
