"""What people are told of work that could not be done, in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from spectra_cli.analyses.prune_eval import PrunedWeights
from spectra_cli.analyses.visits import Row
from spectra_cli.checkpoints.runs import Run
from spectra_cli.errors import InputError, SpectraError
from spectra_cli.execution.planning.options import Options
from spectra_cli.layers.ends import SHAPE_MISMATCH
from spectra_cli.tables.statuses import NOTHING_SELECTED, OF_REFERENCE

NAMED_PARAMETERS = 6
NAMED_STRAYS = 3

WHY = {
    "not_finite": "they hold NaN or infinity.",
    "complex_dtype": "complex weights are not analysed.",
    "all_zero": "all weights are 0, so that only norms are defined.",
    "empty": "a side has length 0.",
    "out_of_range": "the singular values are beyond what float32 can hold.",
    "no_convergence": "LAPACK found no singular values.",
    "shape_mismatch": "their dimensions do not meet.",
    "no_head_count": "how many heads there are is not known; give --heads, and --kv-heads if they differ.",
    "head_count_mismatch": "the numbers of heads do not fit their dimensions; see --heads and --kv-heads.",
    "too_many_units": "more than 4096 heads or kernel positions are not compared one by one.",
    "missing": "only one of the two checkpoints has them.",
}
"""Explanations of statuses for which the analysis raises no error."""

WHY_NO_STATUS = "the rows do not say what became of them."

WHY_NO_VALUE = {
    "not_finite": "the metrics of the task are NaN or infinite.",
    "empty": "the task has counted nothing to take a mean over.",
}
"""Explanations of statuses of evaluations."""

OTHER_SHAPE = "the two checkpoints have them in different shapes."
"""Why matrices that are compared with those of a reference do not meet, as against two that feed one another."""


def missed(runs: Sequence[Run]) -> str | None:
    """One sentence on what looks like a checkpoint and is passed over; None where nothing does."""
    strays = [stray for run in runs for stray in run.passed_over if stray.notable]
    if not strays:
        return None
    named = [f"{stray.path} ({stray.reason})" for stray in strays]
    count = "1 entry that looks" if len(strays) == 1 else f"{len(strays)} entries that look"
    return f"passed over {count} like a checkpoint: {shown(named, NAMED_STRAYS)}; see `spectra inspect`."


def problems(
    tables: Mapping[str, Sequence[Row]], first_errors: Mapping[str, SpectraError]
) -> Iterator[tuple[str, str]]:
    """One sentence per status that is not ok: how many matrices or connections, which, and why.

    Args:
        tables: the rows of one checkpoint.
        first_errors: by status, the first error that led to it.

    Yields:
        A table and a sentence; what several tables have in common comes with the first of them.
    """
    told: set[str] = set()
    for table, rows in tables.items():
        named: dict[str, list[str]] = {}
        for row in rows:
            if row["status"] not in {"ok", *told} and (name := _name(row)):
                named.setdefault(row["status"], []).append(name)
        for status, names in named.items():
            why = first_errors.get(status) or _why(status)
            noun = "rows" if "connection" in rows[0] else "matrices"
            if status == SHAPE_MISMATCH and noun == "matrices":
                why = OTHER_SHAPE
            yield table, f"{len(names)} of {len(rows)} {noun} {status} ({shown(list(dict.fromkeys(names)))}): {why}"
        told |= named.keys() - {SHAPE_MISMATCH}  # which is another matter in another table


def prune_problems(
    evaluated: Sequence[PrunedWeights], rows: Sequence[Row], first_errors: Mapping[str, SpectraError]
) -> Iterator[str]:
    """What could not be evaluated of one checkpoint, and what came out as no number.

    Args:
        evaluated: the variants.
        rows: of all of them.
        first_errors: by status, the first error that led to it.
    """
    faults = {(depth, status): pruned for pruned in evaluated for depth, status in pruned.faults.items()}
    for status in dict.fromkeys(status for _, status in faults):
        names = [pruned.specs[depth].parameter for (depth, of), pruned in sorted(faults.items()) if of == status]
        halted = [pruned for pruned in evaluated if status in pruned.faults.values()]
        count = max(len(pruned.specs) for pruned in halted)
        without = shown([pruned.variant for pruned in halted])
        why = str(first_errors.get(status) or _why(status))
        yield f"{len(names)} of {count} matrices {status} ({shown(names)}): {why} Not evaluated: {without}."
    if idle := [pruned.variant for pruned in evaluated if pruned.status == NOTHING_SELECTED]:
        yield f"not evaluated: {shown(idle)}, as no linear or convolution weight is left but the output layer's."
    failed = {pruned.variant for pruned in evaluated if pruned.status != "ok"}
    for status, why in WHY_NO_VALUE.items():
        named = [
            f"{row['split']} {row['metric']} of {row['variant']}"
            for row in rows
            if row["status"] == status and row["variant"] not in failed
        ]
        if named:
            yield f"{len(named)} of {len(rows)} values {status} ({shown(named)}): {why}"


def _why(status: str | None) -> str:
    if status is None:
        return WHY_NO_STATUS
    if status.startswith(OF_REFERENCE):
        return f"in the reference, {WHY.get(status.removeprefix(OF_REFERENCE), 'they could not be used.')}"
    return WHY.get(status, "see the column status.")


def repeated(message: str) -> str:
    """The message without the names in it, for when it has been told in full."""
    return re.sub(r" \(.*\): ", ": ", message, count=1, flags=re.DOTALL)


def _name(row: Row) -> str:
    """Which matrix or connection a row is about; "" if it is about a whole checkpoint."""
    if row.get("connection") is not None:
        return f"{row['upstream']} -> {row['downstream']}"
    return row.get("parameter") or ""


def shown(names: Sequence[str], most: int = NAMED_PARAMETERS) -> str:
    """The first names of a list."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nothing_selected(options: Options, parameters: Sequence[str]) -> InputError:
    """The error of a selection that selects nothing in any checkpoint."""
    globs = [f"--include {glob}" for glob in options.include] + [f"--exclude {glob}" for glob in options.exclude]
    return InputError(
        f"no matrix is left by {' '.join(globs)}", remedy=f"Choose among {shown(parameters)}; quote globs in the shell"
    )
