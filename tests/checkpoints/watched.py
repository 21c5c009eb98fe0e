"""Reads files in a process of its own and says how that ended, also where the process did not live to tell."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHILD = Path(__file__).with_name("watched_child.py")
LIMIT_S = 5.0
"""Of processor time for one file; on a machine that does nothing else, that is the time on the wall."""

PATIENCE_S = 60.0
"""On the wall, for one that waits for something and uses no processor."""

MOST_BYTES = 1 << 30
FINE = frozenset({"read", "refused"})
"""Outcomes that a malformed file may have; all others are faults of the reader."""

_GRACE_S = 60.0  # to start, and to die: the limit of a case is kept by the child itself
MODULE = "tests.checkpoints.watched_child"


@dataclass(frozen=True)
class Report:
    """How reading one file ended.

    Attributes:
        outcome: one of :data:`FINE`, or ``hang``, ``crash``, ``memory``, ``executed``, ``foreign`` (an exception that
            is no :class:`~spectra_cli.errors.SpectraError`), ``unclear`` (one that lacks what, where or remedy).
        detail: class of the error, or what is known of the fault.
        processor_s: time that it took of one core.
        peak_bytes: most memory that the process had meanwhile.
        entered: the functions of the product that opened files, where they are counted.
    """

    outcome: str
    detail: str
    processor_s: float = 0.0
    peak_bytes: int = 0
    entered: Sequence[str] = ()


class Watched:
    """A long-lived process that reads files, started again where it dies.

    Args:
        directory: an empty one; what appears in it, besides ``out``, was made by code in a file.
        limit_s: of processor time that one file may take.
        patience_s: of time on the wall.
        most_bytes: of memory that the process may have.
        counting: whether to note which readers open files.
    """

    def __init__(
        self,
        directory: Path,
        limit_s: float = LIMIT_S,
        patience_s: float = PATIENCE_S,
        most_bytes: int = MOST_BYTES,
        *,
        counting: bool = False,
    ) -> None:
        self._directory, self._limit_s, self._patience_s = directory, limit_s, patience_s
        self._most_bytes, self._counting = most_bytes, counting
        self._errors = directory.with_name(f"{directory.name}.stderr")
        (directory / "out").mkdir(parents=True)
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def report(
        self,
        path: Path,
        action: str = f"{MODULE}:read_checkpoint",
        *,
        readable: Path | None = None,
        loading: bool = False,
        limit_s: float | None = None,
    ) -> Report:
        """Have one file read.

        Args:
            path: what to give to the action.
            action: ``module:function`` that takes a path.
            readable: the only directory in which files may be opened, if any directory will not do.
            loading: whether modules may be imported and source compiled, as commands do that read their own signatures.
            limit_s: where this one may take longer, of the processor and on the wall.
        """
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        place = None if readable is None else str(readable.resolve())
        limits = {"limit_s": limit_s or self._limit_s, "patience_s": max(limit_s or 0.0, self._patience_s)}
        request = {"path": str(path), "action": action, "readable": place, "loading": loading, **limits}
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
        alive = select.select([child.stdout], [], [], limits["patience_s"] + _GRACE_S)[0]
        line = child.stdout.readline() if alive else ""
        report = self._judged(json.loads(line), limits["limit_s"]) if line else self._post_mortem()
        made = sorted(entry.name for entry in self._directory.iterdir() if entry.name != "out")
        for name in made:
            place_made = self._directory / name
            place_made.rmdir() if place_made.is_dir() else place_made.unlink()
        if made:
            return Report("executed", f"made {', '.join(made)}; {report.outcome}: {report.detail}")
        return report

    def _start(self) -> subprocess.Popen[str]:
        with self._errors.open("w") as errors:
            return subprocess.Popen(
                [sys.executable, CHILD, str(self._most_bytes), "counting" * self._counting],
                cwd=self._directory,
                env={**os.environ, "OMP_NUM_THREADS": "1", "SPECTRA_DEBUG": ""},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def _judged(self, answer: dict[str, Any], limit_s: float) -> Report:
        outcome, detail = answer["outcome"], answer["detail"]
        if answer["peak_bytes"] > self._most_bytes:
            outcome, detail = "memory", f"{answer['peak_bytes'] >> 20} MiB; {outcome}: {detail}"
        if answer["processor_s"] > limit_s:
            outcome, detail = "hang", f"{answer['processor_s']:.1f} s; {outcome}: {detail}"
        if answer["heard"]:
            outcome, detail = "executed", f"heard {'; '.join(answer['heard'])}; {outcome}: {detail}"
        return Report(outcome, detail, answer["processor_s"], answer["peak_bytes"], answer["entered"])

    def _post_mortem(self) -> Report:
        assert self._child is not None
        child = self._child
        self._end()
        told = self._errors.read_text()
        if child.returncode == -signal.SIGPROF or "Timeout (" in told:
            return Report("hang", told[-3000:])
        return Report("crash", f"exit status {child.returncode}: {told[-3000:]}")

    def _end(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
