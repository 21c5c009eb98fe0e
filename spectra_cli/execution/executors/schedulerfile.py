"""Where a Dask scheduler is: an address, or the file that it writes its address to when it begins."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.executors.lostworkers import LOOK_S
from spectra_cli.regularfile import open_regular

TOLD_S = 10.0
"""Seconds that a part of a cluster may be away before people are told."""

WRITING_S = 10.0
"""Seconds for which a file may not be JSON yet: the scheduler may be writing it."""

FILE_BYTES = 1 << 20
"""Most that is read of a file with an address."""

EXAMPLE = "such as tcp://head:8786, or the .json file that it writes"


class NoSchedulerFileWarning(UserWarning):
    """The scheduler has not begun, or writes its address elsewhere."""


def is_scheduler_file(address: str) -> bool:
    """Whether what was given is the path of a file with an address, and not the address itself."""
    return address.endswith(".json")


def check_address(address: str) -> None:
    """Check that a scheduler may have such an address, whether or not there is one; needs distributed.

    Raises:
        UsageError: if none ever has.
    """
    from distributed.comm.addressing import parse_address  # noqa: PLC0415 - an extra
    from distributed.comm.registry import get_backend  # noqa: PLC0415 - an extra

    if is_scheduler_file(address):
        return
    try:
        scheme, location = parse_address(address)
        backend: Any = get_backend(scheme)  # typed in parts
        backend.get_address_host_port(location)
    except NotImplementedError:
        pass  # addresses of this scheme have no port
    except ValueError as error:
        raise UsageError(
            f"--scheduler '{address}' is no address: {error}", remedy=f"Give that of the scheduler, {EXAMPLE}"
        ) from error


def address_in(path: str, patience_s: float) -> str:
    """The address in a file that is waited for, as the jobs of a batch system begin at the same time.

    Args:
        path: of the file.
        patience_s: how long to wait for it.

    Raises:
        InputError: if it does not come, or something else stands there.
    """
    began, told, patience = time.monotonic(), False, in_minutes(patience_s)
    half_s, half_written = began, None
    while not isinstance(address := _read(path), str):
        now = time.monotonic()
        waited_s = now - began
        if address != half_written:
            half_s, half_written = now, address
        elif half_written is not None and now - half_s >= WRITING_S:
            raise _no_scheduler_file(path, "it is no JSON, and does not change")
        if waited_s >= patience_s:
            raise InputError(
                f"no Dask scheduler has written its address to this file for {patience}",
                where=path,
                remedy="Begin the scheduler with --scheduler-file and this path",
            )
        if not told and waited_s >= min(TOLD_S, patience_s):
            told = True
            warnings.warn(
                f"{path}: no Dask scheduler has written its address to this file: waiting up to {patience} for one",
                NoSchedulerFileWarning,
                stacklevel=2,
            )
        time.sleep(LOOK_S / 4)
    return address


def in_minutes(seconds: float) -> str:
    """A time that is waited, for people."""
    return f"{seconds / 60:.3g} minutes"


def _read(path: str) -> str | bytes | None:
    """The address in a file; None if it is not there yet, and what is there if that is not whole yet.

    Raises:
        InputError: if something else stands there.
    """
    try:
        with open_regular(Path(path)) as file:
            text = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _no_scheduler_file(path, error.strerror or str(error)) from error
    if len(text) > FILE_BYTES:
        raise _no_scheduler_file(path, f"the file is larger than {FILE_BYTES >> 20} MiB, and no scheduler writes such")
    try:
        found = json.loads(text)
    except ValueError:
        return text or None  # which is empty may be of a scheduler that has not begun
    except RecursionError as error:
        raise _no_scheduler_file(path, "it is nested too deeply") from error
    address = found.get("address") if isinstance(found, dict) else None
    if not isinstance(address, str):
        raise _no_scheduler_file(path, "it holds no address")
    return address


def _no_scheduler_file(path: str, why: str) -> InputError:
    return InputError(
        f"this is not what a Dask scheduler writes: {why}",
        where=path,
        remedy="Give the path that the scheduler has as its --scheduler-file",
    )
