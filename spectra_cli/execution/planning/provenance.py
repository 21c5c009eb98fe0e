"""What a file records about its making."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spectra_cli import __version__
from spectra_cli.canonicaljson import canonical_json
from spectra_cli.checkpoints.runs import Run
from spectra_cli.storage.secrets import recorded


def provenance(command: Sequence[str], settings: Mapping[str, Any], device: str) -> dict[str, str]:
    """What the files of a command record about their making, besides their schema; no secrets that stand in URLs.

    Args:
        command: the command line, or the function called and its arguments.
        settings: what was chosen, with the defaults of what was not; as JSON may have it.
        device: where the work was done, as :func:`spectra_cli.execution.executors.device.described` says it.
    """
    import torch  # noqa: PLC0415 - nothing else of planning needs it

    return {
        "spectra.version": __version__,
        "spectra.command": shlex.join(map(recorded, command)),
        "spectra.settings": canonical_json(recorded(settings)),
        "spectra.device": device,
        "spectra.torch": torch.__version__,
    }


def directories_of(runs: Iterable[Run]) -> dict[str, str]:
    """Names of the directories of runs that the tables call ``.``, as PATH itself was the run."""
    return {run.name: run.root.resolve().name for run in runs if run.name == "."}
