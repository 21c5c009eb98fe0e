"""The columns of every table: type, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: of the column.
        type: Arrow's name of it.
        unit: empty for text and pure numbers.
        meaning: for people.
        optional: whether it only comes when it is asked for.
    """

    name: str
    type: str
    unit: str
    meaning: str
    optional: bool = False


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

UNUSABLE = "unreadable, corrupt, incomplete, unsupported_format, refused, no_matrices, architecture_mismatch"
WORKER_DIED = "worker_died (its worker processes died, three times)"
WHOLE_CHECKPOINT = f"for a whole checkpoint {UNUSABLE}, nothing_selected, {WORKER_DIED}"
MATRIX_FAILURES = "not_finite, out_of_range, empty, complex_dtype, no_convergence, over_memory_budget"

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
        f"over_memory_budget; and {WHOLE_CHECKPOINT}",
    ),
)

MIN_GAP = Column(
    "min_gap", "double", "", "least (s_i - s_{i+1}) / s_i, i <= 10, over both spectra: near 0, vectors are arbitrary"
)

ALIGN = (
    *PER_CHECKPOINT,
    Column("depth", "int32", "", "place of the upstream matrix in the model, from 0"),
    Column(
        "connection",
        "string",
        "",
        "embedding-input, query-key, value-output, output-up, up-down, residual, sequential, recurrent, skip, "
        "conditioning or output",
    ),
    Column("upstream", "string", "", "name of the weight whose output is read; for query-key that of the queries"),
    Column("downstream", "string", "", "name of the weight that reads it; for query-key that of the keys"),
    Column("unit", "string", "", "whole, head, gate or position: which parts of the two matrices meet"),
    Column(
        "unit_index",
        "int32",
        "",
        "query head, gate (i f g o, or r z n; of a fused gate_up, gate and up), or kernel position row*kw+col, from 0; "
        "null for whole",
    ),
    Column(
        "primary",
        "bool",
        "",
        "whether the papers' figures use the row: the centre position, gate g, whole, and for query-key and "
        "value-output the heads, to be averaged",
    ),
    Column("score", "double", "", "mean of A_ii over i <= 10 (Eq. 4): 1 if the leading vectors agree pair by pair"),
    Column(
        "diagonal",
        "list<float>",
        "",
        "A_ii = abs(<u_i of the upstream matrix, v_i of the downstream one>), i <= 100 (Eq. 3); u against u for "
        "query-key, v instead of u for an embedding; of the coordinates that meet",
    ),
    MIN_GAP,
    Column("chance", "double", "", "the score that random vectors of as many coordinates have on average"),
    Column(
        "status",
        "string",
        "",
        "ok, or why numbers are null: shape_mismatch (the dimensions do not meet), no_head_count, "
        f"head_count_mismatch, too_many_units, all_zero, {MATRIX_FAILURES}; and {WHOLE_CHECKPOINT}, no_connections (no "
        "matrix feeds another)",
    ),
    Column(
        "alignment",
        "list<list<float>>",
        "",
        "only with --full: A_jk, j and k <= 100, one list per upstream vector j",
        optional=True,
    ),
)

SVA = (
    *PER_CHECKPOINT,
    Column("depth", "int32", "", "place of the matrix in the model, from 0; null if the checkpoint has no such matrix"),
    Column("parameter", "string", "", "name of the weight, without wrapper prefixes; name[e] for expert e of a stack"),
    Column(
        "reference_run",
        "string",
        "",
        "run of the checkpoint that this one is compared with; with barrier --sva-out this one is B of a pair and that "
        "one is A",
    ),
    Column("reference_checkpoint", "string", "", "path of that checkpoint relative to its run"),
    Column("reference_step", "int64", "optimizer steps", "step of that checkpoint; null if unknown"),
    Column("score", "double", "", "mean of S_ii over i <= 10: 1 if the leading vectors are the same"),
    Column(
        "diagonal",
        "list<float>",
        "",
        "S_ii = abs(<u_i, u'_i>) * abs(<v_i, v'_i>) with the vectors u', v' of the reference, i <= 100 (Eq. 5)",
    ),
    MIN_GAP,
    Column(
        "status",
        "string",
        "",
        "ok, or why numbers are null: missing (only one of the two has the matrix, or there is no checkpoint to "
        f"compare with), shape_mismatch; all_zero, {MATRIX_FAILURES}, and for a whole checkpoint {UNUSABLE}, all of "
        "these with reference_ in front where it is the reference's; for a whole checkpoint also nothing_selected, "
        f"{WORKER_DIED}, with prune-eval --sva-out state_mismatch; with barrier --sva-out, for a whole pair as in the "
        "table barrier",
    ),
    Column(
        "variant",
        "string",
        "",
        "only of prune-eval --sva-out: top, bottom, magnitude or random, what is left of the matrix; the reference is "
        "the whole of it",
        optional=True,
    ),
)

SPLIT = Column("split", "string", "", "part of the data, such as train or val")
METRIC = Column("metric", "string", "", "loss, error or whatever else the task measures")
VALUE = Column(
    "value",
    "double",
    "of the metric",
    "mean over the split, the model in evaluation mode: loss in nats per example or token, errors and rates from 0; "
    "null unless status is ok",
)
COUNT = Column("count", "int64", "", "examples, tokens or characters that the mean is over")

PRUNE_EVAL = (
    *PER_CHECKPOINT,
    Column(
        "variant",
        "string",
        "",
        "full, nothing is changed; top, the first singular components of every matrix but the output layer; bottom, "
        "the others; magnitude, the largest entries of all linear and convolution weights but the output layer's; "
        "random, as many entries of each, at random",
    ),
    Column(
        "keep",
        "double",
        "",
        "1 of full; of top and bottom the fraction of components that top keeps and bottom lacks; of a mask the "
        "fraction of entries",
    ),
    Column("seed", "int64", "", "of the random mask; null of other variants"),
    SPLIT,
    METRIC,
    VALUE,
    COUNT,
    Column(
        "status",
        "string",
        "",
        "ok, or why the value is null: not_finite (the value, or a matrix that the variant prunes), empty (there was "
        "nothing to take a mean over), nothing_selected (the variant would prune nothing), complex_dtype, "
        f"out_of_range, no_convergence, over_memory_budget; and {WHOLE_CHECKPOINT}, state_mismatch (it does not fit "
        "the task's model)",
    ),
)

METRICS = (
    Column("step", "int64", "optimizer steps", "updates made before the evaluation"),
    Column("epoch", "double", "epochs", "passes over the training data until then: step / steps of an epoch"),
    SPLIT,
    METRIC,
    VALUE,
    COUNT,
    Column("status", "string", "", "ok, not_finite, or empty where there was nothing to take a mean over"),
)

PAIR = tuple(
    Column(f"{name}_{side}", kind, unit, meaning.format(X=side.upper()))
    for side in "ab"
    for name, kind, unit, meaning in (
        ("run", "string", "", "run of {X}: its PATH as given, without @STEP; of a checkpoint file the directory"),
        ("checkpoint", "string", "", "path of {X} relative to its run; null if it was not found"),
        ("step", "int64", "optimizer steps", "step of {X}; null if unknown"),
    )
)

ALPHA = Column("alpha", "double", "", "place on the line (1 - alpha) A + alpha B: 0 at A, 1 at B")

OF_PAIR = (
    "no_input (a PATH leads to no checkpoint, to several runs, or to a run.json that cannot be used), usage (a PATH, "
    "the task or one of its options means nothing), shape_mismatch (A and B have tensors of other names or shapes), "
    "task_mismatch (their tasks, or options of them, differ), state_mismatch (they are not the task's model), "
    "task_failed (the task's own code raised an exception), error (it raised a SpectraError), missing_extra, "
    f"over_memory_budget, {WORKER_DIED}; unreadable, corrupt, incomplete, unsupported_format, refused, "
    "architecture_mismatch, nothing_selected as for a checkpoint"
)

BARRIER = (
    *PAIR,
    SPLIT,
    METRIC,
    ALPHA,
    Column(
        "value",
        "double",
        "of the metric",
        "mean over the split at this place, the model in evaluation mode; null if not finite",
    ),
    Column(
        "chord",
        "double",
        "of the metric",
        "(1 - alpha) value at A + alpha value at B; null if one of the two, or the value here, is not finite",
    ),
    Column("excess", "double", "of the metric", "value - chord; null where the chord is"),
    Column(
        "barrier",
        "double",
        "of the metric",
        "maximum of excess over all alpha (Eq. 6): 0 or more, as it is 0 at both ends; like the next two the same in "
        "all rows of a pair, split and metric, and null if any of their values is: the maximum over the unknown is "
        "unknown",
    ),
    Column(
        "barrier_interior",
        "double",
        "of the metric",
        "maximum of excess over 0 < alpha < 1, which may be negative (the papers' code); null if no alpha is between",
    ),
    Column(
        "barrier_midpoint",
        "double",
        "of the metric",
        "maximum of value over all alpha - mean of the values at A and B (Ainsworth et al. 2023, Definition 2.1)",
    ),
    COUNT,
    Column(
        "status",
        "string",
        "",
        "ok, or why numbers are null: not_finite, empty (nothing to take a mean over), end_not_ok (the value at A or B "
        f"is one of these); for a whole pair {OF_PAIR}",
    ),
)

BARRIER_SPECTRA = (
    *PAIR,
    ALPHA,
    *RANK[len(PER_CHECKPOINT) : -1],
    Column(
        "status",
        "string",
        "",
        f"ok, or why numbers are null: all_zero, {MATRIX_FAILURES}; for a whole pair no_matrices, {OF_PAIR}",
    ),
)
