"""One schema per table: every column with its type, unit and meaning.

`spectra columns`, the column reference in the README and the Arrow schema of the files all come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from spectra_cli.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"
"""Written into every file; raised when a column changes its meaning or type."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `type` is Arrow's name of it, `unit` is empty for text and pure numbers."""

    name: str
    type: str
    unit: str
    meaning: str


PER_CHECKPOINT = (
    Column(
        "run",
        "string",
        "",
        "path of the run relative to the PATH given; . for PATH itself; with several PATHs, as given",
    ),
    Column("checkpoint", "string", "", "path of the checkpoint relative to its run"),
    Column("step", "int64", "optimizer steps", "from the checkpoint's name or contents; null if unknown"),
    Column("epoch", "int64", "epochs", "from the checkpoint's name or contents; null if unknown"),
)

RANK = (
    *PER_CHECKPOINT,
    Column("depth", "int32", "", "place of the matrix in the model, from 0"),
    Column("parameter", "string", "", "name of the weight, without wrapper prefixes; name[e] for expert e of a stack"),
    Column("kind", "string", "", "linear, conv, conv_transpose, embedding, recurrent, attention or other"),
    Column("rows", "int64", "", "output side of the matrix"),
    Column("cols", "int64", "", "input side of the matrix; all kernel positions of a convolution"),
    Column("dtype", "string", "", "type of the weights as stored"),
    Column("spectral_norm", "double", "weight", "s_1, the largest singular value"),
    Column("frobenius_norm", "double", "weight", "sqrt(sum s_i^2)"),
    Column("nuclear_norm", "double", "weight", "sum s_i"),
    Column("entropy", "double", "nats", "-sum p_i ln p_i with p_i = s_i / sum s (EffRank as the papers print it)"),
    Column("entropy_normalized", "double", "nats", "entropy / R with R = min(rows, cols) (NormEffRank as printed)"),
    Column("effective_rank", "double", "", "exp(entropy), from 1 to R (Roy and Vetterli 2007)"),
    Column("effective_rank_normalized", "double", "", "effective_rank / R, from 0 to 1: the papers' colour scale"),
    Column("stable_rank", "double", "", "sum s_i^2 / s_1^2"),
    Column("rank_90", "int64", "", "least k with s_1 + ... + s_k >= 0.9 sum s"),
    Column("numerical_rank", "int64", "", "number of s_i > s_1 * max(rows, cols) * eps of the stored dtype"),
    Column("condition_number", "double", "", "s_1 / s_R; infinite if s_R = 0"),
    Column("gini", "double", "", "Gini index of the s_i: 0 if all are equal"),
    Column("singular_values", "list<float>", "weight", "all R singular values, descending"),
    Column("singular_value_error", "double", "weight", "bound on abs(error) of any of the singular values"),
    Column("method", "string", "", "gram_float32, gram_float64 or qr_float64: how the values were computed"),
    Column("digest", "string", "", "SHA-256 of dtype, shape and bytes of the stored tensor"),
    Column(
        "status",
        "string",
        "",
        "ok, or why numbers are null: all_zero, not_finite, out_of_range, empty, complex_dtype, no_convergence, "
        "over_memory_budget; and for a whole "
        "checkpoint unreadable, corrupt, incomplete, unsupported_format, refused, no_matrices, nothing_selected",
    ),
)

TABLES: Mapping[str, tuple[Column, ...]] = MappingProxyType({"rank": RANK})
"""Every table that spectra writes, by name."""


def arrow_schema(table: str, tags: Mapping[str, str] | None = None) -> pa.Schema:
    """Arrow schema of a table, with constant string columns for tags at its end.

    Args:
        table: a key of :data:`TABLES`.
        tags: names and values of extra columns.

    Raises:
        UsageError: if a tag has the name of a column.
    """
    clash = sorted((tags or {}).keys() & {column.name for column in TABLES[table]})
    if clash:
        raise UsageError(f"--tag {clash[0]}: the table has a column of that name", remedy="Choose another name")
    import pyarrow as pa  # noqa: PLC0415 - `spectra columns` needs no Arrow

    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "list<float>": pa.list_(pa.float32()),
    }
    fields = [pa.field(column.name, types[column.type]) for column in TABLES[table]]
    return pa.schema(fields + [pa.field(name, pa.string()) for name in tags or {}])


def markdown_reference(table: str) -> str:
    """The columns of a table as a Markdown table, for the README.

    Args:
        table: a key of :data:`TABLES`.
    """
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in TABLES[table]:
        cells = (f"`{column.name}`", f"`{column.type}`", column.unit, column.meaning.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
