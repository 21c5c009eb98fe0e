"""The ``config.json`` that Hugging Face keeps beside a model's weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from spectra_cli.checkpoints.smallfile import read_small_file
from spectra_cli.errors import CheckpointError

LARGEST_CONFIG_BYTES = 4 << 20


def read_config(checkpoint: Path, run_root: Path) -> dict[str, Any]:
    """Read the config.json of a checkpoint: its own, else that of the directory it lies in, else that of its run.

    Args:
        checkpoint: file or directory.
        run_root: directory of the run.

    Returns:
        The configuration, empty where there is none or where it is not a JSON object.
    """
    places = [checkpoint if os.path.isdir(checkpoint) else checkpoint.parent, run_root]
    for place in places:
        try:
            config = json.loads(read_small_file(place / "config.json", LARGEST_CONFIG_BYTES))
        except (CheckpointError, ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            return config
    return {}
