"""Tables of a report on matrices: which changed most, and what proves two reports to be of the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from spectra_cli.figures.page.document import TextTable
from spectra_cli.figures.report.budget import spread
from spectra_cli.figures.report.runrows import RunRows
from spectra_cli.figures.rows.gathered import POSITION
from spectra_cli.figures.rows.series import NAME

MOST_CHANGED, LEAST_CHANGED = 24, 3
"""Matrices in the table of the most changed ones, in all and at least of each run."""

MOST_DIGESTS = 400
"""Checkpoints of which digests are shown."""

CHANGED = (
    "matrix",
    "R",
    "rank / R, first",
    "rank / R, last",
    "change",
    "norm, first",
    "norm, last",
    "agreement, first",
)


def changed_table(
    rank: Mapping[str, RunRows], sva: Mapping[str, RunRows], opens: Mapping[tuple[str, str], tuple[int, int]]
) -> TextTable:
    """The matrices whose effective rank changed most.

    Args:
        rank: rows by run.
        sva: likewise.
        opens: by run and matrix, the indices of the run and of the detail that it opens.
    """
    several = len(rank) > 1
    each = max(LEAST_CHANGED, MOST_CHANGED // max(len(rank), 1))
    rows: list[Sequence[str | float | None]] = []
    targets = []
    there = 0
    for run, own in rank.items():
        names = [name for name in own.changed if name in own.ends]
        there += len(names)
        for name in names[:each]:
            rows.append([*([run] if several else []), name, *_numbers_of(own, sva.get(run), name)])
            targets.append(opens.get((run, name)))
    return TextTable(
        heading="Most changed matrices",
        caption="Matrices with the largest change, in either direction, of effective rank / R (0 to 1) between the "
        "first and the last checkpoint at which they have a value; their spectral norm there, and the agreement score "
        "of the first one with its reference.",
        columns=(*(("run",) if several else ()), *CHANGED),
        rows=rows,
        numeric=(*((False,) if several else ()), False, *(True for _ in CHANGED[1:])),
        note=f"{len(rows)} of {there} matrices are shown." if len(rows) < there else "",
        target_column=int(several),
        targets=targets,
    )


def _numbers_of(rank: RunRows, sva: RunRows | None, name: str) -> list[float | None]:
    first, last = rank.first_records[name], rank.last_records[name]
    ends = rank.ends[name]
    agreement = sva.ends[name].first if sva is not None and name in sva.ends else None
    sides = [first["rows"], first["cols"]]
    numbers = (
        *(min(sides), ends.first, ends.last, ends.change),
        *(first["spectral_norm"], last["spectral_norm"], agreement),
    )
    return [None if pd.isna(number) else float(number) for number in numbers]


def digest_table(rank: Mapping[str, RunRows]) -> tuple[TextTable, list[str]]:
    """A digest of the weights of each checkpoint, and what was left out.

    Args:
        rank: rows by run.
    """
    several = len(rank) > 1
    each = max(2, MOST_DIGESTS // max(len(rank), 1))
    rows: list[Sequence[str | float | None]] = []
    there = 0
    for run, own in rank.items():
        known = own.frame[own.frame.digest.notna() & own.frame[NAME].notna()]
        checkpoints = known.groupby("checkpoint", sort=False)
        order = checkpoints[POSITION].first().sort_values(kind="stable")
        there += len(order)
        for index in spread(len(order), each):
            checkpoint, place = order.index[index], float(order.to_numpy()[index])
            step = str(checkpoint) if own.clock == "checkpoint" else place
            part = checkpoints.get_group(checkpoint)
            rows.append([*([run] if several else []), step, float(len(part)), combined_digest(part)])
    clocks = list(dict.fromkeys(own.clock for own in rank.values()))
    table = TextTable(
        heading="Digests",
        caption="One digest for each checkpoint: SHA-256 over a line of each matrix, its name, a space and the digest "
        "in the table of spectra rank, in the order of depth. Equal digests mean equal weights.",
        columns=(*(("run",) if several else ()), clocks[0] if len(clocks) == 1 else "place", "matrices", "SHA-256"),
        rows=rows,
        numeric=(*((False,) if several else ()), clocks != ["checkpoint"], True, False),
        note=f"{len(rows)} of {there} checkpoints are shown." if len(rows) < there else "",
    )
    limits = [f"Digests of {len(rows)} of {there} checkpoints are shown."] if len(rows) < there else []
    return table, limits


def combined_digest(rows: pd.DataFrame) -> str:
    """SHA-256 over the lines ``name digest`` of the matrices of a checkpoint, in the order of depth.

    Args:
        rows: with ``name``, ``digest`` and ``depth``; matrices of one depth in the order of the rows.
    """
    depth = rows.depth.to_numpy(float)
    ordered = rows.iloc[np.argsort(depth, kind="stable")]
    lines = "".join(f"{name} {digest}\n" for name, digest in zip(ordered[NAME], ordered.digest, strict=True))
    return hashlib.sha256(lines.encode("utf-8", "backslashreplace")).hexdigest()
