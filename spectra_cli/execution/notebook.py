"""The commands as functions that return DataFrames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

import pandas as pd
import pyarrow as pa

from spectra_cli.checkpoints.selection import Selection
from spectra_cli.execution.listener import Silent
from spectra_cli.execution.local import Job
from spectra_cli.execution.options import Options, parse_bytes
from spectra_cli.execution.plan import make_plan
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.tables.schemas import arrow_schema
from spectra_cli.tables.writer import TableWriter, make_directory, table_of

PathLike = str | os.PathLike[str]
Globs = str | Sequence[str]
TABLES = ("rank", "align", "sva")


class Shared(TypedDict, total=False):
    """What all functions take, by keyword.

    Attributes:
        steps: such as ``"0,400,first,final,1000:5000"``, a step, or several of these.
        every: take every N-th checkpoint, and the last.
        log_spaced: take at most N checkpoints, evenly on a logarithmic scale of steps.
        include: globs of parameters to analyse.
        exclude: globs of parameters to leave out.
        architecture: the model's family, the path of a TOML file, or ``"sequential"``; told from the names if None.
        transposed: globs of parameters that are transposed convolutions or stored as (in, out).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        memory_budget: working memory, such as ``"2GB"`` or a number of bytes; half of what is free if None.
        skip_incomplete: go on without checkpoints of which a shard is absent.
        tags: constant extra columns.
    """

    steps: str | int | Sequence[str | int] | None
    every: int | None
    log_spaced: int | None
    include: Globs
    exclude: Globs
    architecture: PathLike | None
    transposed: Globs
    device: str
    memory_budget: str | int | None
    skip_incomplete: bool
    tags: Mapping[str, str] | None


class Analysis(NamedTuple):
    """The tables of :func:`analyze`."""

    rank: pd.DataFrame
    align: pd.DataFrame
    sva: pd.DataFrame


def rank(path: PathLike | Sequence[PathLike], *, out: PathLike | None = None, **shared: Unpack[Shared]) -> pd.DataFrame:
    """Compute statistics of the singular values of every matrix of every checkpoint, as `spectra rank` does.

    Args:
        path: a checkpoint, a run (a directory of checkpoints), a directory of runs, or several of these.
        out: also write the table to this Parquet file.
        **shared: steps, every, log_spaced, include, exclude, architecture, transposed, device, memory_budget,
            skip_incomplete, tags: as :class:`Shared` says.

    Returns:
        One row per matrix and checkpoint; columns as `spectra columns rank` lists them, types as Arrow has them.
        Matrices and checkpoints that could not be used are rows whose ``status`` says why, and a warning each.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
    """
    return _frames(path, {"rank": out}, _options(**shared))["rank"]


def align(
    path: PathLike | Sequence[PathLike],
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    full: bool = False,
    out: PathLike | None = None,
    **shared: Unpack[Shared],
) -> pd.DataFrame:
    """Compute the alignment of singular vectors along the connections of the model, as `spectra align` does.

    Args:
        path: as for :func:`rank`.
        heads: number of attention heads; that of config.json if None.
        kv_heads: number of key and value heads; that of config.json if None.
        full: add the column ``alignment``, the leading 100 x 100 block of A.
        out: also write the table to this Parquet file.
        **shared: as for :func:`rank`.

    Returns:
        One row per connection, unit and checkpoint; columns as `spectra columns align` lists them.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
    """
    options = _options(heads=heads, kv_heads=kv_heads, full=full, **shared)
    return _frames(path, {"align": out}, options)["align"]


def sva(
    path: PathLike | Sequence[PathLike],
    *,
    reference: str | int | None = None,
    against: PathLike | None = None,
    out: PathLike | None = None,
    **shared: Unpack[Shared],
) -> pd.DataFrame:
    """Compute the agreement of singular vectors with a reference checkpoint, as `spectra sva` does.

    Args:
        path: as for :func:`rank`.
        reference: ``"final"`` (the default), ``"first"``, ``"previous"`` or a step of the same run.
        against: a run whose checkpoints of the same steps are the references.
        out: also write the table to this Parquet file.
        **shared: as for :func:`rank`.

    Returns:
        One row per matrix and checkpoint; columns as `spectra columns sva` lists them.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
    """
    return _frames(path, {"sva": out}, _options(reference=reference, against=against, **shared))["sva"]


def analyze(
    path: PathLike | Sequence[PathLike],
    *,
    reference: str | int | None = None,
    against: PathLike | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    full: bool = False,
    out: PathLike | None = None,
    **shared: Unpack[Shared],
) -> Analysis:
    """Make the tables of :func:`rank`, :func:`align` and :func:`sva` in one pass, as `spectra analyze` does.

    Args:
        path: as for :func:`rank`.
        reference: as for :func:`sva`.
        against: as for :func:`sva`.
        heads: as for :func:`align`.
        kv_heads: as for :func:`align`.
        full: as for :func:`align`.
        out: also write the tables into this directory, made if need be.
        **shared: as for :func:`rank`.

    Returns:
        The three tables, by name and in this order.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
    """
    options = _options(reference=reference, against=against, heads=heads, kv_heads=kv_heads, full=full, **shared)
    outs = {table: None if out is None else Path(out) / f"{table}.parquet" for table in TABLES}
    return Analysis(**_frames(path, outs, options, directory=None if out is None else Path(out)))


def _options(
    *,
    steps: str | int | Sequence[str | int] | None = None,
    every: int | None = None,
    log_spaced: int | None = None,
    include: Globs = (),
    exclude: Globs = (),
    architecture: PathLike | None = None,
    transposed: Globs = (),
    device: str = "auto",
    memory_budget: str | int | None = None,
    skip_incomplete: bool = False,
    tags: Mapping[str, str] | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    full: bool = False,
    reference: str | int | None = None,
    against: PathLike | None = None,
) -> Options:
    return Options(
        selection=Selection(_steps(steps), every, log_spaced),
        include=_listed(include),
        exclude=_listed(exclude),
        transposed=_listed(transposed),
        device=device,
        budget_bytes=parse_bytes(memory_budget) if isinstance(memory_budget, str) else memory_budget,
        skip_incomplete=skip_incomplete,
        tags=dict(tags or {}),
        structure=StructureOptions(None if architecture is None else os.fspath(architecture), heads, kv_heads),
        full=full,
        reference=None if reference is None else str(reference),
        against=None if against is None else os.fspath(against),
    )


def _frames(
    path: PathLike | Sequence[PathLike],
    outs: Mapping[str, PathLike | None],
    options: Options,
    *,
    directory: Path | None = None,
) -> dict[str, pd.DataFrame]:
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    job = Job(make_plan(paths, options, tuple(outs)), Silent())
    if directory is not None:
        make_directory(directory)
    name = "analyze" if len(outs) > 1 else next(iter(outs))
    metadata = job.metadata([f"spectra_cli.{name}", *map(str, paths)])
    gathered: dict[str, list[dict[str, object]]] = {table: [] for table in outs}
    left_out = options.columns_left_out
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(
                TableWriter(Path(out), table, tags=options.tags, metadata=metadata, leave_out=left_out)
            )
            for table, out in outs.items()
            if out is not None
        }
        for result in job.results():
            for table, rows in result.tables.items():
                gathered[table] += [{**row, **options.tags} for row in rows]
                if table in writers:
                    writers[table].write(rows)
    return {
        table: _data_frame(table_of(rows, arrow_schema(table, options.tags, left_out)))
        for table, rows in gathered.items()
    }


def _steps(steps: str | int | Sequence[str | int] | None) -> str | None:
    if steps is None or isinstance(steps, str):
        return steps
    return str(steps) if isinstance(steps, int) else ",".join(map(str, steps))


def _listed(globs: Globs) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(globs)


def _data_frame(table: pa.Table) -> pd.DataFrame:
    """A DataFrame whose integer columns stay integers where some are null."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame = table.to_pandas(types_mapper=nullable.get)
    assert isinstance(frame, pd.DataFrame)  # noqa: S101 - pyarrow publishes no types
    return frame
