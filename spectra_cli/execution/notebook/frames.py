"""What the functions for notebooks share: their arguments, and DataFrames of what a job makes."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import pandas as pd
import pyarrow as pa

from spectra_cli.execution.incremental.filling import Filling, PreparedWork
from spectra_cli.execution.planning.options import ExecutionOptions, PathLike
from spectra_cli.execution.work.listener import Silent

Globs = str | Sequence[str]


class Common(TypedDict, total=False):
    """What all functions take, by keyword.

    Attributes:
        include: globs of parameters to analyse.
        exclude: globs of parameters to leave out.
        architecture: the model's family, the path of a TOML file, or ``"sequential"``; told from the names if None.
        transposed: globs of parameters that are transposed convolutions or stored as (in, out).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; of several between commas, each has a worker.
        memory_budget: working memory, such as ``"2GB"`` or a number of bytes; half of what is free if None.
        tags: constant extra columns.
        workers: processes that share the work, the cores and the memory budget; one for each device if None.
        scheduler: address of a Dask cluster that does the work.
        fresh: start over, whatever stands where tables are written, instead of doing only what is new.
        verify: read and hash all weights again, instead of trusting size and time of unchanged files.
    """

    include: Globs
    exclude: Globs
    architecture: PathLike | None
    transposed: Globs
    device: str
    memory_budget: str | int | None
    tags: Mapping[str, str] | None
    workers: int | None
    scheduler: str | None
    fresh: bool
    verify: bool


HOW = frozenset({"workers", "scheduler", "fresh", "verify"})
"""Arguments that say how the work is done."""


class Shared(Common, total=False):
    """What all functions take that go through the checkpoints of runs, beside :class:`Common`.

    Attributes:
        steps: such as ``"0,400,first,final,1000:5000"``, a step, or several of these.
        every: take every N-th checkpoint, and the last.
        log_spaced: take at most N checkpoints, evenly on a logarithmic scale of steps.
        skip_incomplete: go on without checkpoints of which a shard is absent.
    """

    steps: str | int | Sequence[str | int] | None
    every: int | None
    log_spaced: int | None
    skip_incomplete: bool


def check_arguments(function: Callable[..., object], given: Mapping[str, object], known: type[Common]) -> None:
    """Check what a function of a notebook was given by keywords that its signature does not name.

    Args:
        function: whose own arguments may be meant as well.
        given: by keyword.
        known: what the keywords may be.

    Raises:
        TypeError: if one is another; says which it may have been meant to be.
    """
    parameters = inspect.signature(function).parameters.values()
    own = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in given:
        if name not in known.__annotations__:
            close = difflib.get_close_matches(name, [*own, *known.__annotations__], n=1)
            meant = f". Did you mean {close[0]}?" if close else ""
            raise TypeError(f"{function.__name__}() has no argument {name!r}{meant}")


def divided(given: Mapping[str, Any]) -> tuple[dict[str, Any], ExecutionOptions]:
    """The keywords of a function without those that say how the work is done, and these.

    Raises:
        UsageError: if one means nothing.
    """
    how = {name: value for name, value in given.items() if name in HOW}
    return {name: value for name, value in given.items() if name not in HOW}, ExecutionOptions(**how)


def silent(_plan: object) -> Silent:
    """Listener for a work in a notebook, whatever its plan."""
    return Silent()


def frames_of(prepared: PreparedWork[Any], command: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The tables of a job, also written where a file is named.

    Args:
        prepared: the work.
        command: the function called and its arguments, for the metadata of files.

    Raises:
        SpectraError: if nothing could be done.
    """
    line = [f"spectra_cli.{command[0]}", *command[1:]]
    filling = Filling(prepared.job, prepared.writing, prepared.placement, prepared.listener, command=line)
    filled = filling.fill(lambda *_: None, whole=True)
    return {table: _data_frame(rows) for table, rows in filled.tables.items()}


def paths_of(path: PathLike | Sequence[PathLike]) -> list[PathLike]:
    """The given paths as a list; one may stand by itself."""
    return [path] if isinstance(path, (str, os.PathLike)) else list(path)


def _data_frame(table: pa.Table) -> pd.DataFrame:
    """A DataFrame whose integer columns stay integers where some are null."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame = table.to_pandas(types_mapper=nullable.get)
    assert isinstance(frame, pd.DataFrame)  # noqa: S101 - pyarrow publishes no types
    return frame
