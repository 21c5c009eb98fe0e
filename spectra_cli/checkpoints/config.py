"""The ``config.json`` that Hugging Face keeps beside a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST_CONFIG_BYTES = 16 << 20


def read_config(checkpoint: Path, run_root: Path) -> dict[str, Any]:
    """Read the config.json of a checkpoint: its own, else that of the directory it lies in, else that of its run.

    Args:
        checkpoint: file or directory.
        run_root: directory of the run.

    Returns:
        The configuration, empty where there is none or where it is not a JSON object.
    """
    places = [checkpoint if checkpoint.is_dir() else checkpoint.parent, run_root]
    for place in places:
        path = place / "config.json"
        try:
            if path.stat().st_size > LARGEST_CONFIG_BYTES:
                continue
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(config, dict):
            return config
    return {}
