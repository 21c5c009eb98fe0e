"""Settings as tables record them, so that a change is noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from spectra_cli.canonicaljson import canonical_json


def architecture_setting(architecture: Any) -> Any:
    """A family's name as it is; of a file that describes one, its bytes as well, since they may change."""
    if architecture is None or not Path(architecture).is_file():
        return architecture
    return [str(architecture), hashlib.sha256(Path(architecture).read_bytes()).hexdigest()[:16]]


def hashed(value: Any) -> str:
    """A short hash of what JSON can say."""
    text = canonical_json(value)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:24]
