"""The process in which malformed checkpoints are read: it may hang, crash or be made to run things.

Takes one request a line and answers each with a line of JSON; what else happens is for :mod:`watched` to tell. What the
interpreter is asked to run, import, connect to or write is heard through an audit hook, which no code can remove.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import importlib
import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUNNING = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.", "pty.")
RUNNING += ("exec", "compile", "import", "pickle.", "marshal.", "code.", "ctypes.", "socket.", "urllib.", "webbrowser.")
CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")
CHANGING += ("shutil.", "tempfile.", "sys.addaudithook", "sys.setprofile", "sys.settrace")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Listener:
    """What an audit hook hears while a case is read.

    Attributes:
        heard: what no reading of a checkpoint may do, once each.
        readable: the directory in which files may be opened, None where any may be.
        writable: the directory in which they may be made.
        loading: whether modules may be imported and source compiled.
    """

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self.on = False
        self.readable: str | None = None
        self.writable: str | None = None
        self.loading = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        self.on = False  # what it does itself is not heard
        try:
            if event == "open":
                self._opening(*arguments)
            elif event.startswith(RUNNING) and not (
                self.loading and event in {"exec", "compile", "import", "marshal.loads"}
            ):
                self.heard[f"{event} {arguments!r:.80}"] += 1
            elif event.startswith(CHANGING) and isinstance(arguments[0], int):
                pass  # an open file: its opening was heard
            elif event.startswith(CHANGING) and not self._within(self.writable, str(arguments[0])):
                self.heard[f"{event} {arguments!r:.80}"] += 1
        finally:
            self.on = True

    def _opening(self, path: Any, _mode: Any, flags: int) -> None:
        if isinstance(path, int):
            return
        place = os.fsdecode(path)
        if flags & WRITING and place != os.devnull and not self._within(self.writable, place):
            self.heard[f"open for writing {place:.80}"] += 1
        elif self.readable is not None and not self._within(self.readable, place):
            self.heard[f"open elsewhere {place:.80}"] += 1

    @staticmethod
    def _within(directory: str | None, place: str) -> bool:
        return directory is not None and f"{os.path.abspath(place)}{os.sep}".startswith(f"{directory}{os.sep}")

    @contextlib.contextmanager
    def listening(self, **settings: Any) -> Iterator[None]:
        """Hear what happens in between."""
        self.heard.clear()
        for name, value in settings.items():
            setattr(self, name, value)
        self.on = True
        try:
            yield
        finally:
            self.on = False


def peak_bytes(*, reset: bool = False) -> int:
    """The most memory that the process has had, since the last reset where the system can do that.

    Not ``ru_maxrss`` where there is another way: on Linux that starts with what the parent had.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])


def limit_memory(most_bytes: int) -> None:
    """Let the process allocate what is left of `most_bytes`: what asks for more is told so before others suffer."""
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere the limit is not kept anyway
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        data, resident = (1024 * int(fields[name].split()[0]) for name in ("VmData", "VmRSS"))
        resource.setrlimit(resource.RLIMIT_DATA, (data + most_bytes - resident, resource.RLIM_INFINITY))


def read_checkpoint(path: Path) -> str:
    """Read every header and every tensor, whole and in part, as the product does."""
    from spectra_cli.checkpoints.open import check_complete, open_checkpoint
    from spectra_cli.errors import SpectraError

    early: SpectraError | None = None
    try:
        check_complete(path)
    except SpectraError as error:
        early = error
    with open_checkpoint(path) as reader:
        for name, info in reader.tensors.items():
            tensor = reader.read(name)
            if (tuple(tensor.shape), str(tensor.dtype)) != (info.shape, f"torch.{info.dtype}"):
                raise AssertionError(f"{name!r} is {tensor.dtype} {tuple(tensor.shape)}, not {info}")
            if info.shape:
                reader.read(name, slice(1, 3), slice(1, 2))
        if early:
            raise AssertionError(f"it opens, and yet it is not complete: {early}")
        return f"read: {reader.format}"


def inspect(path: Path) -> str:
    """Run the command, without a table to write."""
    return _command("inspect", str(path))


def rank(path: Path) -> str:
    """Run the command; its table lies in the one directory that may be written to."""
    return _command("rank", str(path), "--out", str(Path("out", "rank.parquet").resolve()), "--device", "cpu")


def _command(*line: str) -> str:
    from spectra_cli.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(line)
    told = out.getvalue() + err.getvalue()
    if status not in {0, 1, 2, 3} or "Traceback" in told or "fault of spectra" in told or (status and not told.strip()):
        raise AssertionError(f"status {status}: {told}")
    return f"status {status}"


def unclear(error: Any) -> str:
    """What a message lacks of what, where and remedy, "" if nothing."""
    lacking = [part for part in ("what", "where", "remedy") if not getattr(error, part, None)]
    if lacking:
        return f"no {' and no '.join(lacking)}: {error}"
    return "" if str(error).isprintable() and len(str(error)) < 6000 else f"not fit to be printed: {str(error)!r:.300}"


def outcome_of(error: BaseException, path: Path) -> tuple[str, str]:
    """How reading ended, and what is known of that: ``refused``, or one of the faults that raise an exception."""
    from spectra_cli.errors import SpectraError

    if isinstance(error, SpectraError):
        lacking = unclear(error.at(str(path)))  # as every command does
        return ("unclear", lacking) if lacking else ("refused", type(error).__name__)
    return "memory" if isinstance(error, MemoryError) else "foreign", "".join(traceback.format_exception(error))


def count_readers() -> set[str]:
    """Note from now on which functions open files, wherever in the product they are called."""
    entered: set[str] = set()

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*arguments: Any) -> Any:
            entered.add(name)
            return function(*arguments)

        return opened

    import torch  # noqa: F401 - loading it is no part of reading the first file

    from spectra_cli.checkpoints import open as _opening  # noqa: F401 - what calls the readers
    from tests.checkpoints.malformed import readers

    for name, function in readers().items():
        for module in [value for key, value in sys.modules.items() if key.startswith("spectra_cli.checkpoints")]:
            if getattr(module, name, None) is function:
                setattr(module, name, noting(name, function))
    return entered


def main(most_bytes: int, counting: bool) -> None:
    """Answer requests; each names an action as ``module:function``, a path, and what may be done meanwhile."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed is no answer
    for codec in (
        "unicode-escape",
        "raw-unicode-escape",
        "cp437",
    ):  # of names in messages and in archives: modules that are loaded when used
        codecs.lookup(codec)
    entered = count_readers() if counting else set()
    listener = Listener()
    sys.addaudithook(listener)
    limit_memory(most_bytes)
    for line in sys.stdin:
        entered.clear()
        answers.write(json.dumps(answer_to(json.loads(line), listener) | {"entered": sorted(entered)}) + "\n")
        answers.flush()


def answer_to(request: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """Do what is asked, and say how it ended; past its time limits the process ends instead.

    The limit is one of processor time, since other work on the machine is not the subject; who waits uses none, and has
    a limit of time on the wall. Both are kept from outside the interpreter, which may be busy with one instruction.
    """
    module, _, name = request["action"].partition(":")
    action, path = getattr(importlib.import_module(module), name), Path(request["path"])
    permissions = {
        "readable": request["readable"],
        "writable": str(Path("out").resolve()),
        "loading": request["loading"],
    }
    error: BaseException | None = None
    detail = ""
    peak_bytes(reset=True)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, request["limit_s"])
    faulthandler.dump_traceback_later(request["patience_s"], exit=True)
    with listener.listening(**permissions):
        try:
            detail = action(path)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, the answer is that it happened
            error = caught
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_PROF, 0)
    processor_s, peak = time.process_time() - started, peak_bytes()
    outcome, detail = ("read", detail) if error is None else outcome_of(error, path)
    heard = sorted(listener.heard)
    return {"outcome": outcome, "detail": detail, "processor_s": processor_s, "peak_bytes": peak, "heard": heard}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # says where, then ends the process as the signal does by itself
    main(int(sys.argv[1]), sys.argv[2] == "counting")
