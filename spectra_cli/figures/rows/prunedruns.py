"""Tables of prune-eval that are of one run, evaluated once more with other fractions kept or other masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from spectra_cli.tables.reader import TableFile

KEYS = ("checkpoint", "variant", "keep", "seed", "split", "metric")
"""What tells the rows of a run apart, whichever table they are in."""

OF_VARIANTS = frozenset({"keep", "mask_keep", "mask_seed", "variants"})
"""Settings that say which variants were evaluated, and not of what."""

TOLERANCE = 1e-5
"""Relative, of one evaluation made twice: sums of float32 come in another order on another machine."""


def of_one_run(runs: Sequence[tuple[TableFile, str]]) -> bool:
    """Whether runs of one name in several tables of prune-eval are the same run.

    They are if the commands differed in nothing but the variants, the checkpoints have the same names, and values that
    the tables share, such as those of the full model, agree. Tables that share no value may be of any runs.

    Args:
        runs: table and name of the run in it.

    Raises:
        InputError: if a file is damaged.
    """
    settings = [_besides_variants(file.settings) for file, _ in runs]
    if not all(settings) or any(each != settings[0] for each in settings[1:]):
        return False
    parts = [_rows_of(file, run).assign(table=number) for number, (file, run) in enumerate(runs)]
    if len({frozenset(part.checkpoint) for part in parts}) > 1:
        return False
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[np.isfinite(rows.value.astype(float))]
    linked = set(rows[rows.duplicated(list(KEYS))].table)
    ends = rows.groupby(list(KEYS), dropna=False).value.agg(["min", "max"])
    return linked == set(range(1, len(runs))) and bool(np.isclose(ends["min"], ends["max"], rtol=TOLERANCE).all())


def without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows, each once where several tables of one run have it.

    Args:
        frame: with ``run`` and :data:`KEYS`.
    """
    return frame.drop_duplicates(["run", *KEYS], ignore_index=True)


def _besides_variants(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What else was set; empty where settings are not on record."""
    return {name: value for name, value in settings.items() if name not in OF_VARIANTS}


def _rows_of(file: TableFile, run: str) -> pd.DataFrame:
    frame = file.read(["run", *KEYS, "value"]).to_pandas().astype({"run": object})
    texts = dict.fromkeys(("checkpoint", "variant", "split", "metric"), object)
    return pd.DataFrame(frame[frame.run == run].astype(texts))
