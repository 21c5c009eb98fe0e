"""How a command is to go about its work, as its command line says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra_cli.execution.planning.options import ExecutionOptions


@dataclass(frozen=True)
class Invocation:
    """How a command is to go about it.

    Attributes:
        command: the command line.
        execution: where the work is done, and what becomes of tables that are there.
        quiet: print problems only.
        as_json: print a summary to standard output.
        watch_s: seconds between two looks at the runs; None to look once.
        started: when the command began, as ``time.monotonic`` has it.
        told: what has been told already, and need not be told again at every look.
    """

    command: Sequence[str]
    execution: ExecutionOptions
    quiet: bool
    as_json: bool
    watch_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)
