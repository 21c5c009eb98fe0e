"""The commands as functions that return DataFrames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import pandas as pd

from spectra_cli.analyses.pruning import VARIANTS, Pruning, listed_variants
from spectra_cli.execution.evaluation.pairfile import given_pairs
from spectra_cli.execution.evaluation.preparation import prepare_barrier, prepare_prune_eval
from spectra_cli.execution.incremental.request import TableRequest
from spectra_cli.execution.notebook.frames import Common, Shared, check_arguments, divided, frames_of, paths_of, silent
from spectra_cli.execution.planning.options import ExecutionOptions, Options, PathLike, TaskOptions, listed
from spectra_cli.execution.trajectory.preparation import prepare_trajectory

TABLES = ("rank", "align", "sva")


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
        **shared: which checkpoints and matrices, how and where the work is done, and what becomes of a table that is
            there: the keywords of :class:`Shared` and :class:`Common`.

    Returns:
        One row per matrix and checkpoint; columns as `spectra columns rank` lists them, types as Arrow has them.
        Matrices and checkpoints that could not be used are rows whose ``status`` says why, and a warning each.

    Raises:
        SpectraError: if nothing could be analysed or an argument is wrong.
        TypeError: if there is no such argument.
    """
    check_arguments(rank, shared, Shared)
    given, execution = divided(shared)
    return _frames(path, {"rank": out}, Options.chosen(**given), execution)["rank"]


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
        TypeError: if there is no such argument.
    """
    check_arguments(align, shared, Shared)
    given, execution = divided(shared)
    options = Options.chosen(heads=heads, kv_heads=kv_heads, full=full, **given)
    return _frames(path, {"align": out}, options, execution)["align"]


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
        TypeError: if there is no such argument.
    """
    check_arguments(sva, shared, Shared)
    given, execution = divided(shared)
    return _frames(path, {"sva": out}, Options.chosen(reference=reference, against=against, **given), execution)["sva"]


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
        TypeError: if there is no such argument.
    """
    check_arguments(analyze, shared, Shared)
    given, execution = divided(shared)
    options = Options.chosen(reference=reference, against=against, heads=heads, kv_heads=kv_heads, full=full, **given)
    directory = None if out is None else os.fspath(out)
    outs = {table: None if directory is None else f"{directory.rstrip('/')}/{table}.parquet" for table in TABLES}
    return Analysis(**_frames(path, outs, options, execution, directory=directory))


def prune_eval(
    path: PathLike | Sequence[PathLike],
    *,
    task: str | None = None,
    settings: Mapping[str, Any] | None = None,
    split: str | Sequence[str] = (),
    keep: float = 0.5,
    mask_keep: float = 0.05,
    mask_seed: int = 0,
    variants: str | Sequence[str] = VARIANTS,
    batch_norm: str = "reestimate",
    output_layer: str | None = None,
    out: PathLike | None = None,
    sva_out: PathLike | None = None,
    **shared: Unpack[Shared],
) -> pd.DataFrame:
    """Evaluate every checkpoint with parts of its weights, as `spectra prune-eval` does.

    Args:
        path: as for :func:`rank`.
        task: name of the task, or ``path/to/file.py:callable``, whose code is then run; that of the run.json if None.
        settings: options of the task, such as ``{"prime": 59, "data": "cifar10"}``.
        split: parts of the data; all of the task's if none is named.
        keep: fraction of the singular components of every matrix that ``top`` keeps; ``bottom`` has the others.
        mask_keep: fraction of the entries that the masks keep.
        mask_seed: of the random masks.
        variants: which of ``full``, ``top``, ``bottom``, ``magnitude`` and ``random``: a list, or text with commas.
        batch_norm: ``"reestimate"`` takes running statistics anew from the training split for every set of weights;
            ``"stored"`` leaves them as they stand.
        output_layer: glob of the parameters that are left as they are; told from the model if None.
        out: also write the table to this Parquet file.
        sva_out: also write the agreement of every pruned matrix with the whole one to this Parquet file.
        **shared: as for :func:`rank`.

    Returns:
        One row per checkpoint, variant, split and metric; columns as `spectra columns prune_eval` lists them.

    Raises:
        SpectraError: if nothing could be evaluated, an argument is wrong or the code of the task raises.
        TypeError: if there is no such argument.
    """
    check_arguments(prune_eval, shared, Shared)
    given, execution = divided(shared)
    task_options = TaskOptions(task, dict(settings or {}), listed(split), batch_norm, output_layer)
    pruning = Pruning(listed_variants(listed(variants)), keep, mask_keep, mask_seed)
    outs = {"prune_eval": out} | ({} if sva_out is None else {"sva": sva_out})
    paths, request = paths_of(path), TableRequest(Options.chosen(**given), outs, execution)
    prepared = prepare_prune_eval(paths, task_options, pruning, request, silent)
    return frames_of(prepared, ["prune_eval", *map(str, paths)])["prune_eval"]


def barrier(
    a: PathLike | None = None,
    b: PathLike | None = None,
    *,
    pairs: PathLike | Sequence[tuple[PathLike, PathLike]] | None = None,
    task: str | None = None,
    settings: Mapping[str, Any] | None = None,
    split: str | Sequence[str] = (),
    alphas: int = 11,
    batch_norm: str = "reestimate",
    out: PathLike | None = None,
    spectra_out: PathLike | None = None,
    sva_out: PathLike | None = None,
    **common: Unpack[Common],
) -> pd.DataFrame:
    """Evaluate a model along the line between two checkpoints, as `spectra barrier` does.

    Args:
        a: a checkpoint file, ``RUN@STEP``, or a run, whose last checkpoint is taken.
        b: another one.
        pairs: many pairs in one table, instead of `a` and `b`; or a CSV file of two PATHs a line, whose further
            columns, named in its first line as ``a,b,NAME``, become columns of the table.
        task: as for :func:`prune_eval`.
        settings: as for :func:`prune_eval`.
        split: as for :func:`prune_eval`.
        alphas: points on the line, both ends among them.
        batch_norm: as for :func:`prune_eval`.
        out: also write the table to this Parquet file.
        spectra_out: also write the rank statistics of every matrix at every alpha to this Parquet file.
        sva_out: also write the agreement of every matrix of B with that of A to this Parquet file.
        **common: the keywords of :class:`Common`; those that choose matrices concern `spectra_out` and `sva_out`.

    Returns:
        One row per pair, split, metric and alpha; columns as `spectra columns barrier` lists them. Pairs that could not
        be used are rows whose ``status`` says why, and a warning each.

    Raises:
        SpectraError: if nothing could be evaluated, or an argument is wrong.
        TypeError: if there is no such argument.
    """
    check_arguments(barrier, common, Common)
    shared, execution = divided(common)
    given, options = given_pairs(a, b, pairs), Options.chosen(**shared)
    task_options = TaskOptions(task, dict(settings or {}), listed(split), batch_norm)
    further = {"barrier_spectra": spectra_out, "sva": sva_out}
    outs = {"barrier": out} | {table: path for table, path in further.items() if path is not None}
    prepared = prepare_barrier(given, task_options, alphas, TableRequest(options, outs, execution), silent)
    named = [path for pair in given.pairs for path in pair]
    return frames_of(prepared, ["barrier", *named])["barrier"]


def _frames(
    path: PathLike | Sequence[PathLike],
    outs: Mapping[str, PathLike | None],
    options: Options,
    execution: ExecutionOptions,
    *,
    directory: str | None = None,
) -> dict[str, pd.DataFrame]:
    paths, request = paths_of(path), TableRequest(options, outs, execution, directory)
    name = "analyze" if len(outs) > 1 else next(iter(outs))
    return frames_of(prepare_trajectory(paths, request, silent), [name, *map(str, paths)])
