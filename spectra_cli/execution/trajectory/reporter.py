"""What goes wrong is told once, and counted where it goes wrong again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spectra_cli.analyses.references import PREVIOUS, Reference, shares_steps
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.execution.planning import messages
from spectra_cli.execution.planning.plan import Plan
from spectra_cli.execution.trajectory.facts import LACKING, TRANSPOSED, texts
from spectra_cli.execution.work.events import Remark
from spectra_cli.execution.work.listener import Listener
from spectra_cli.execution.work.units import Outcome
from spectra_cli.shortening import counted
from spectra_cli.storage.places import Place


@dataclass(slots=True)
class Tally:
    """What has been done so far.

    Attributes:
        done: checkpoints that could be used.
        matched: those of them that have matrices of the selection.
        compared: those that there was a reference for.
        first_error: of a checkpoint that could not be used.
        seen: parameters of the first checkpoint.
        lacking: paths of checkpoints without a matrix of the selection.
        unmatched: globs of ``--transposed`` that no parameter has matched yet.
    """

    done: int = 0
    matched: int = 0
    compared: int = 0
    first_error: SpectraError | None = None
    seen: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


class CheckpointReporter:
    """Counts the checkpoints that are done, and reports to a listener what people should know, once.

    Args:
        plan: what is to be done.
        listener: told.

    Attributes:
        tally: what has been done so far.
    """

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self._plan = plan
        self._listener = listener
        self._met_again: dict[tuple[str, str], list[str]] = {}  # checkpoints after the first, by run and message
        self._unusable: dict[tuple[str, str], list[str]] = {}  # the same of those that could not be used
        self._once: set[object] = set()
        self._noticed: set[str] = set()
        self._left = Counter(run.name for run in plan.runs for _ in run.checkpoints)
        self.tally = Tally(unmatched=list(plan.options.transposed))

    def once(self, message: str, matter: object = None) -> None:
        """Tell something that has not been told before.

        Args:
            message: for people.
            matter: what it is about; the message itself if None.
        """
        key = message if matter is None else matter
        if key not in self._once:
            self._once.add(key)
            self._listener.problem(message)

    def notice(self, message: str) -> None:
        """Tell what people may like to know, where it has not been told before."""
        if message not in self._noticed:
            self._noticed.add(message)
            self._listener.notice(message)

    def of_checkpoint(self, run: Run, checkpoint: Checkpoint, message: str) -> None:
        """Tell what may be the same in many checkpoints of a run: of the first now, of the others at the run's end."""
        if self._is_first(self._met_again, run, checkpoint, message):
            self._listener.problem(f"{checkpoint.path}: {message}")

    def unusable(self, run: Run, checkpoint: Checkpoint, error: SpectraError) -> None:
        """Tell why a checkpoint could not be used, as :meth:`of_checkpoint`: each is named."""
        if self._is_first(self._unusable, run, checkpoint, error.message):
            self._listener.problem(str(error))

    def _is_first(self, met: dict[tuple[str, str], list[str]], run: Run, checkpoint: Checkpoint, message: str) -> bool:
        """Whether a message is met in a run for the first time; else the checkpoint is noted beside it."""
        if (again := met.get((run.name, message))) is not None:
            again.append(checkpoint.name)
            return False
        met[run.name, message] = []
        return True

    def remark(self, run: Run, checkpoint: Checkpoint, remark: Remark) -> None:
        """Tell what a worker has remarked at a checkpoint."""
        match remark.kind:
            case "once":
                self.once(remark.message, remark.matter)
            case "checkpoint":
                self.of_checkpoint(run, checkpoint, remark.message)
            case "notice":
                self.notice(remark.message)
            case "problem":
                self._listener.problem(remark.message)

    def before(self) -> None:
        """Tell what is known before the work begins."""
        if missed := messages.missed(self._plan.runs):
            self._listener.problem(missed)

    def unpaired(self, run: Run, references: Mapping[Place, Reference]) -> None:
        """Tell which checkpoints of a run have nothing to be compared with, or only themselves."""
        against = self._plan.against
        if against is not None and not shares_steps(run, against):
            pair = f"{run.checkpoints[-1].path} with {against.checkpoints[-1].path}"
            self._listener.problem(f"the two runs have no step in common; only their last are compared: {pair}.")
        elif self._plan.references and self._plan.options.reference != PREVIOUS:
            alone = [str(checkpoint.path) for checkpoint in run.checkpoints if checkpoint.path not in references]
            if alone:
                named = messages.shown(alone)
                self._listener.problem(f"there is no checkpoint of the same step to compare with {named}.")
        if against is not None and run.root.resolve() == against.root.resolve():
            self._listener.problem(f"{run.root} is compared with itself.")

    def _after(self, run: Run) -> None:
        """Tell how often in a run what has been told was met again."""
        for (name, message), again in self._met_again.items():
            if name == run.name and again:
                more = f"the same in {len(again)} more of its checkpoints: {messages.repeated(message)}"
                self._listener.problem(f"{run.root}: {more}")
        for (name, message), again in self._unusable.items():
            if name == run.name and again:
                more = f"the same of {counted(len(again), 'more checkpoint')}, {', '.join(again)}: {message}"
                self._listener.problem(f"{run.root}: {more}")

    def outcome(self, run: Run, checkpoint: Checkpoint, outcome: Outcome) -> None:
        """Tell what came of a checkpoint.

        Raises:
            CheckpointError: if it is the only one and could not be used.
        """
        for remark in outcome.remarks:
            self.remark(run, checkpoint, remark)
        if outcome.error is None:
            self._count(outcome.facts)
            if LACKING in outcome.facts:
                self.tally.seen = self.tally.seen or texts(outcome.facts, LACKING)
                self.tally.lacking.append(str(checkpoint.path))
            else:
                self.tally.matched += 1
        else:
            self.tally.first_error = self.tally.first_error or outcome.error
            if self._plan.checkpoint_count == 1:
                raise outcome.error
            self.unusable(run, checkpoint, outcome.error)
        self._one_less(run)

    def kept(self, run: Run, facts: Mapping[str, Any]) -> None:
        """Take note of a checkpoint whose rows are kept; if it had no matrix of the selection, they would not be."""
        self.tally.matched += 1
        self._count(facts)
        self._one_less(run)

    def _count(self, facts: Mapping[str, Any]) -> None:
        """One more checkpoint could be used, now or in an earlier run."""
        self.tally.done += 1
        matched = texts(facts, TRANSPOSED)
        self.tally.unmatched = [glob for glob in self.tally.unmatched if glob not in matched]

    def _one_less(self, run: Run) -> None:
        """One more checkpoint of a run is done: at its end, tell what was met again in it."""
        self._left[run.name] -= 1
        if not self._left[run.name]:
            self._after(run)

    def at_the_end(self) -> None:
        """Tell what is only known at the end.

        Raises:
            SpectraError: if nothing could be done.
        """
        tally = self.tally
        for glob in tally.unmatched:
            self._listener.problem(f"--transposed {glob} matches no parameter.")
        if tally.done == 0 and tally.first_error is not None:
            raise InputError(
                f"none of the {self._plan.checkpoint_count} checkpoints could be used; each is named above"
            ) from tally.first_error
        if tally.matched == 0:
            raise messages.nothing_selected(self._plan.options, tally.seen)
        if self._plan.tables == ("sva",) and tally.compared == 0:
            raise InputError(
                "there was nothing to compare with; see above", remedy="Choose another --reference"
            ) from tally.first_error
        if tally.lacking:
            self._listener.problem(f"no matrix is left by --include and --exclude in {messages.shown(tally.lacking)}.")
