"""Tables with planted values: one row of each kind, and those of a whole transformer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spectra_cli.figures.rows.gathered import Gathered
from spectra_cli.tables.reader import open_table
from spectra_cli.tables.writer import TableWriter


def write(path: Path, table: str, rows: Iterable[Mapping[str, Any]], **options: Any) -> Path:
    """Write a table as spectra does; columns that a row does not name are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    leave_out = {"align": ("alignment",), "sva": ("variant",)}.get(table, ())
    with TableWriter(path, table, leave_out=options.pop("leave_out", leave_out), **options) as writer:
        for row in rows:
            writer.write([row])  # as a command writes a checkpoint: row groups end between two calls
    return path


def gathered(*paths: Path) -> Gathered:
    """Tables brought together."""
    return Gathered([open_table(path) for path in paths])


def rank_row(step: int | None, parameter: str, share: float = 0.5, **other: Any) -> dict[str, Any]:
    """A row of rank of a 4 x 3 matrix whose singular values are 3, 2, 1 times (1 + step)."""
    scale = 1.0 + (step or 0)
    return {
        **{"run": "a", "checkpoint": f"step_{step}", "step": step, "depth": 0, "parameter": parameter},
        **{"kind": "linear", "rows": 4, "cols": 3, "dtype": "float32", "spectral_norm": 3.0 * scale},
        **{"effective_rank": 3 * share, "effective_rank_normalized": share, "stable_rank": 1.5, "numerical_rank": 3},
        **{"condition_number": 3.0, "singular_values": [3 * scale, 2 * scale, scale], "singular_value_error": 1e-7},
        **{"method": "gram_float64", "digest": f"digest of {parameter} at {step}", "status": "ok"},
        **other,
    }


def failed(status: str, **named: Any) -> dict[str, Any]:
    """A row without numbers."""
    return {"run": "a", "status": status, **named}


def sva_row(step: int | None, parameter: str, score: float | None, **other: Any) -> dict[str, Any]:
    """A row of sva whose diagonal is the score, half of it, a quarter of it."""
    return {
        **{"run": "a", "checkpoint": f"step_{step}", "step": step, "depth": 0, "parameter": parameter},
        **{"reference_run": "a", "reference_checkpoint": "step_9", "reference_step": 9, "score": score},
        **{"diagonal": None if score is None else [score, score / 2, score / 4], "min_gap": 0.1, "status": "ok"},
        **other,
    }


def align_row(step: int | None, up: str, down: str, score: float | None, **other: Any) -> dict[str, Any]:
    """A row of align, of the connection `sequential`, whose diagonal is the score and half of it."""
    return {
        **{"run": "a", "checkpoint": f"step_{step}", "step": step, "depth": 0, "connection": "sequential"},
        **{"upstream": up, "downstream": down, "unit": "whole", "primary": True, "score": score},
        **{"diagonal": None if score is None else [score, score / 2], "min_gap": 0.2, "status": "ok"},
        **other,
    }


LAYERS, WIDTH = 12, 768
PARTS = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down")


def transformer(home: Path, checkpoints: int = 150) -> list[Path]:
    """Tables rank, align and sva of a transformer of 12 layers, width 768: 76 matrices and 62 connections.

    Values come from one random block each, so that writing is fast; they cannot be compressed.
    """
    generator = np.random.default_rng(0)
    values = np.sort(generator.random((checkpoints, WIDTH), np.float32))[:, ::-1]
    entries = generator.random((checkpoints, 100), np.float32)
    names = [
        "embed",
        *(f"model.layers.{i}.{part}.weight" for i in range(LAYERS) for part in PARTS),
        "norm",
        "head",
        "x",
    ]
    ends = list(pairwise(names))[:62]
    steps = [10 * index for index in range(checkpoints)]
    shared = {"rows": 3072, "cols": WIDTH, "digest": "0" * 64}
    rank = (
        rank_row(
            step,
            name,
            float(entries[at, depth]),
            depth=depth,
            singular_values=values[(at + depth) % checkpoints],
            **shared,
        )
        for at, step in enumerate(steps)
        for depth, name in enumerate(names)
    )
    sva = (
        sva_row(step, name, float(entries[at, depth]), depth=depth, diagonal=entries[(at + depth) % checkpoints])
        for at, step in enumerate(steps)
        for depth, name in enumerate(names)
    )
    align = (
        align_row(step, up, down, float(entries[at, depth]), depth=depth, diagonal=entries[(at + depth) % checkpoints])
        for at, step in enumerate(steps)
        for depth, (up, down) in enumerate(ends)
    )
    made = {"rank": rank, "sva": sva, "align": align}
    return [write(home / f"{table}.parquet", table, rows) for table, rows in made.items()]
