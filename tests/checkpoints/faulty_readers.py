"""Readers that do what no reader may do: what watches the real ones must notice each of them."""

from __future__ import annotations

import ctypes
import mmap
import os
import pickle
import socket
import subprocess
import time
from pathlib import Path

from spectra_cli.errors import CheckpointError

HOARD_BYTES = 3 << 30
SHARED_BYTES = 1100 << 20
HELD: list[object] = []


def sleep_on(path: Path) -> str:
    """Wait for what never comes."""
    time.sleep(3600)
    return "slept"


def spin(path: Path) -> str:
    """Compute without end, in one instruction that lets no other thread of Python run."""
    return str(7 ** (10**8))[:1]


def crash(path: Path) -> str:
    return ctypes.string_at(0).decode()


def leave(path: Path) -> str:
    os._exit(0)


def leave_politely(path: Path) -> str:
    raise SystemExit(0)


def hoard(path: Path) -> str:
    """Ask for more memory than there may be."""
    return str(len(bytearray(HOARD_BYTES)))


def hoard_unseen(path: Path) -> str:
    """Take memory that the limit of the process does not count, and give it back."""
    with mmap.mmap(-1, SHARED_BYTES) as pages:
        for at in range(0, SHARED_BYTES, mmap.PAGESIZE):
            pages[at] = 1
    return "hoarded"


def raise_another_error(path: Path) -> str:
    return {}["weight"]  # type: ignore[no-any-return]


def say_no_remedy(path: Path) -> str:
    raise CheckpointError("it is broken")


def say_nothing(path: Path) -> str:
    raise CheckpointError("", remedy="Save it again")


def steer_the_terminal(path: Path) -> str:
    raise CheckpointError("a tensor is named \x1b[2J", remedy="Save it again")


def unpickle(path: Path) -> str:
    """What a reader must not do with a file."""
    return repr(pickle.loads(path.read_bytes()))


def unpickle_and_hide(path: Path) -> str:
    """The call is made and what it left is removed: only hearing tells."""
    pickle.loads(path.read_bytes())
    for left in Path().iterdir():
        if left.name != "out":
            left.rmdir() if left.is_dir() else left.unlink()
    return "hidden"


def run_a_command(path: Path) -> str:
    return str(subprocess.run(["true"], check=False).returncode)


def compile_source(path: Path) -> str:
    return str(eval(path.name and "1 + 1"))  # noqa: S307 - that it is heard is the test


def import_a_module(path: Path) -> str:
    import antigravity_of_nobody  # type: ignore[import-not-found]

    return str(antigravity_of_nobody)


def connect(path: Path) -> str:
    with socket.socket() as connection:
        return str(connection.connect_ex(("127.0.0.1", 9)))


def write_elsewhere(path: Path) -> str:
    return str(path.with_name("elsewhere").write_text("x"))


def write_here(path: Path) -> str:
    return str(Path("here").write_text("x"))


def read_elsewhere(path: Path) -> str:
    return Path(__file__).read_text()[:1]


def remove(path: Path) -> str:
    path.unlink()
    return "removed"


def read_well(path: Path) -> str:
    return str(len(path.read_bytes()))


def refuse_well(path: Path) -> str:
    raise CheckpointError("it is broken", remedy="Save it again")


FAULTS = {
    "hang": (sleep_on, spin),
    "crash": (crash, leave),
    "memory": (hoard, hoard_unseen),
    "foreign": (raise_another_error, leave_politely),
    "unclear": (say_no_remedy, say_nothing, steer_the_terminal),
    "executed": (
        run_a_command,
        compile_source,
        import_a_module,
        connect,
        write_elsewhere,
        write_here,
        read_elsewhere,
        remove,
    ),
    "read": (read_well,),
    "refused": (refuse_well,),
}
"""Readers by what watching them must tell; the last two are good ones."""
