"""The commands as functions that return DataFrames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from spectra_cli.checkpoints.selection import Selection
from spectra_cli.execution.local import RankJob, Silent
from spectra_cli.execution.options import Options, parse_bytes
from spectra_cli.execution.plan import make_plan
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tables.writer import TableWriter, table_of

PathLike = str | os.PathLike[str]


def rank(
    path: PathLike | Sequence[PathLike],
    *,
    steps: str | None = None,
    every: int | None = None,
    log_spaced: int | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    transposed: str | Sequence[str] = (),
    device: str = "auto",
    memory_budget: str | int | None = None,
    skip_incomplete: bool = False,
    tags: Mapping[str, str] | None = None,
    out: PathLike | None = None,
) -> pd.DataFrame:
    """Compute statistics of the singular values of every matrix of every checkpoint, as `spectra rank` does.

    Args:
        path: a checkpoint, a run (a directory of checkpoints), a directory of runs, or several of these.
        steps: such as ``"0,400,first,final,1000:5000"``.
        every: take every N-th checkpoint, and the last.
        log_spaced: take at most N checkpoints, evenly on a logarithmic scale of steps.
        include: globs of parameters to analyse.
        exclude: globs of parameters to leave out.
        transposed: globs of parameters that are transposed convolutions or stored as (in, out).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        memory_budget: working memory, such as ``"2GB"`` or a number of bytes; half of what is free if None.
        skip_incomplete: go on without checkpoints of which a shard is absent.
        tags: constant extra columns.
        out: also write the table to this Parquet file.

    Returns:
        One row per matrix and checkpoint; columns as `spectra columns rank` lists them, types as Arrow has them.
        Matrices and checkpoints that could not be used are rows whose ``status`` says why, and a warning each.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
    """
    options = Options(
        selection=Selection(steps, every, log_spaced),
        include=_listed(include),
        exclude=_listed(exclude),
        transposed=_listed(transposed),
        device=device,
        budget_bytes=parse_bytes(memory_budget) if isinstance(memory_budget, str) else memory_budget,
        skip_incomplete=skip_incomplete,
        tags=dict(tags or {}),
    )
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    job = RankJob(make_plan(paths, options), Silent())
    if out is not None:
        with TableWriter(
            Path(out), job.table, tags=options.tags, metadata=job.metadata(["spectra_cli.rank", *map(str, paths)])
        ) as writer:
            results = []
            for result in job.results():
                writer.write(result.rows)
                results.append(result)
    else:
        results = list(job.results())
    schema = arrow_schema(job.table, options.tags)
    return _data_frame(table_of([{**row, **options.tags} for result in results for row in result.rows], schema))


def _listed(globs: str | Sequence[str]) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _data_frame(table: pa.Table) -> pd.DataFrame:
    """A DataFrame whose integer columns stay integers where some are null."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}
    frame = table.to_pandas(types_mapper=nullable.get)
    assert isinstance(frame, pd.DataFrame)  # noqa: S101 - pyarrow publishes no types
    return frame
