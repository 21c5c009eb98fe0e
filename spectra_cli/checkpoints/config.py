"""The ``config.json`` that Hugging Face keeps beside a model's weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from spectra_cli.checkpoints.smallfile import read_small_file
from spectra_cli.errors import CheckpointError
from spectra_cli.storage.connection import StorageError
from spectra_cli.storage.places import Place, is_directory
from spectra_cli.storage.remote import RemotePath

NAME = "config.json"
LARGEST_CONFIG_BYTES = 4 << 20


def read_config(checkpoint: Place, run_root: Place) -> dict[str, Any]:
    """Read the config.json of a checkpoint: its own, else that of the directory it lies in, else that of its run.

    Args:
        checkpoint: file or directory.
        run_root: directory of the run.

    Returns:
        The configuration, empty where there is none, where a storage denies access, or where it is not a JSON object.

    Raises:
        CheckpointError: if there is one on this machine that may not be read, or a storage does not say whether there
            is one.
    """
    return next((config for _, config in _considered(checkpoint, run_root) if config is not None), {})


def files_considered(checkpoint: Place, run_root: Place) -> list[Place]:
    """Files that :func:`read_config` looks at, in its order: those absent or not usable, then the one that it takes.

    Raises:
        CheckpointError: as :func:`read_config`.
    """
    looked_at = []
    for file, config in _considered(checkpoint, run_root):
        looked_at.append(file)
        if config is not None:
            break
    return looked_at


def _considered(checkpoint: Place, run_root: Place) -> Iterator[tuple[Place, dict[str, Any] | None]]:
    own = checkpoint if is_directory(checkpoint) else checkpoint.parent
    for place in dict.fromkeys([own, run_root]):
        yield place / NAME, _read(place / NAME)


def _read(file: Place) -> dict[str, Any] | None:
    try:
        config = json.loads(read_small_file(file, LARGEST_CONFIG_BYTES))
    except StorageError:
        raise  # there may be one, without which the numbers of heads would be others
    except CheckpointError as error:
        if isinstance(error.__cause__, PermissionError) and not isinstance(file, RemotePath):
            raise
        return None  # many a storage denies access to what is absent
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None
