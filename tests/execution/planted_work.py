"""A work whose every unit does what it is told: to end well, to fail, to take its worker down."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spectra_cli.checkpoints.runs import Run
from spectra_cli.errors import CheckpointError, UsageError
from spectra_cli.execution.work.events import CheckpointDone, CheckpointOpened, Event, Remark
from spectra_cli.execution.work.units import Assignment, Chunk, EventSink, Outcome

PATIENCE_S = 120.0
"""How long a slow machine may take for something that takes a moment."""


def chunks_of(units: int, size: int = 1) -> list[Chunk]:
    """So many units in chunks of a size, the last one maybe smaller."""
    assignments = [Assignment(place, ("rank",)) for place in range(units)]
    return [tuple(assignments[start : start + size]) for start in range(0, units, size)]


def let_go(trail: Path) -> None:
    """Let units go on that wait to be let go."""
    (trail / "go").touch()


def attempts(trail: Path, place: int) -> list[Path]:
    """Traces of attempts at a unit, in order."""
    return sorted(trail.glob(f"{place}-*"), key=lambda path: int(path.name.split("-")[1]))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what must come to pass sooner or later."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not come")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    status = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not (Path("/proc/self/stat").exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):  # also where it goes between the two looks
        return False


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def hear(self, event: Event) -> None:
        self.events.append(event)


class UnreadableByPickleError(Exception):
    """Pickles, and cannot be read again: its constructor asks for more than Exception keeps."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


@dataclass(frozen=True)
class PlantedWork:
    """What happens to units.

    Attributes:
        acts: by place, what is done before the unit's outcome; see `PlantedWorker`.
        trail: directory where each attempt at a unit leaves a file `<place>-<attempt>-<pid>`, and each worker one
            when it starts, when it has begun and when it is closed; none if None.
        pause_s: how long each unit takes.
        begins: what is done where a worker gets ready.
        payload_bytes: of an array in every row.
    """

    acts: Mapping[int, str] = field(default_factory=dict)
    trail: Path | None = None
    pause_s: float = 0.0
    begins: str = ""
    payload_bytes: int = 0

    def worker(self, device: str, sink: EventSink) -> PlantedWorker:
        if self.trail is not None:
            (self.trail / f"start-{os.getpid()}").touch()
        if self.begins == "dies" or (self.begins == "dies every other time" and len(self.starts()) % 2):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.begins == "no such device":
            raise UsageError(f"--device {device} is unknown", where="here", remedy="Give another")
        if self.begins == "warns":
            warnings.warn("it runs elsewhere", FutureWarning, stacklevel=1)
        return PlantedWorker(self, device, sink)

    def starts(self) -> list[Path]:
        """Traces of workers that were to get ready."""
        return [] if self.trail is None else list(self.trail.glob("start-*"))

    def runs_read(self) -> Sequence[Run]:
        return ()


class PlantedWorker:
    """Does as the work says, in reverse order within a chunk."""

    def __init__(self, work: PlantedWork, device: str, sink: EventSink) -> None:
        self.work, self.device, self.sink = work, device, sink
        self._leave("begun")

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        for assignment in reversed(chunk):
            self.sink.hear(CheckpointOpened(matrices=1, flops=float(assignment.index)))
            self._leave_a_trace(assignment.index)
            act = self.work.acts.get(assignment.index, "")
            if act == "fails":
                error = CheckpointError("it is broken", where=f"unit {assignment.index}", remedy="Mend it")
                yield Outcome(assignment.index, {"rank": [{"status": error.status}]}, error=error)
                continue
            self._act(act, assignment.index)
            time.sleep(self.work.pause_s)
            self.sink.hear(CheckpointDone())
            yield Outcome(
                assignment.index,
                {"rank": [{"parameter": "w", "values": self._values(assignment.index), "status": "ok"}]},
                content=f"{assignment.index:032x}",
                facts={
                    "pid": os.getpid(),
                    "device": self.device,
                    "threads": self._torch_threads() if act == "tells threads" else None,
                    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
                    "thread": threading.get_ident(),
                },
                remarks=[Remark("told once", "once", matter="it"), Remark(f"of {assignment.index}")],
            )

    def close(self) -> None:
        self._leave("closed")

    def _leave_word_of_company(self, place: int) -> None:
        """Leave a file where another unit is at its third attempt while this one is at its own."""
        if self.work.trail is not None and len(attempts(self.work.trail, place)) == 3:
            time.sleep(0.5)  # in which others would begin
            others = [path for path in self.work.trail.glob("*-3-*") if not path.name.startswith(f"{place}-")]
            if any(alive(int(path.name.rpartition("-")[2])) for path in others):
                (self.work.trail / "company").touch()

    def _leave(self, what: str) -> None:
        if self.work.trail is not None:
            (self.work.trail / f"{what}-{os.getpid()}-{id(self)}").touch()

    def _torch_threads(self) -> int:
        import torch  # takes a second, that most units need not wait for

        return torch.get_num_threads()

    def _values(self, place: int) -> np.ndarray:
        return np.full(max(1, self.work.payload_bytes // 4), place, dtype=np.float32)

    def _leave_a_trace(self, place: int) -> None:
        if self.work.trail is not None:
            attempt = len(attempts(self.work.trail, place)) + 1
            (self.work.trail / f"{place}-{attempt}-{os.getpid()}").touch()

    def _act(self, act: str, place: int) -> None:
        if act == "dies" or (act == "dies once" and len(attempts(self.work.trail, place)) == 1):
            time.sleep(self.work.pause_s)
            self._leave_word_of_company(place)
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "exits":
            os._exit(3)
        elif act == "dies and leaves a child" and len(attempts(self.work.trail, place)) == 1:
            child = subprocess.Popen(["sleep", "3600"], close_fds=False)  # it has the pipe, too
            (self.work.trail / f"child-{child.pid}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "waits to be let go":
            wait_until((self.work.trail / "go").exists)
        elif act.startswith("waits for "):
            awaited = [int(other) for other in act.removeprefix("waits for ").split()]
            wait_until(lambda: all(attempts(self.work.trail, other) for other in awaited))
        elif act == "raises":
            raise UsageError("nobody can do this", where=f"unit {place}", remedy="Ask for less")
        elif act == "raises its own":
            raise UnreadableByPickleError("this", "that")
        elif act == "clings":  # to life, as a library may that has ways of its own with signals
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        elif act == "spins":  # holds Python's lock for long stretches, as a large product of integers does
            while True:
                pow(3, 10**6)
        elif act == "warns":
            warnings.warn(f"beware of {place}", FutureWarning, stacklevel=1)
