"""`spectra prune-eval`: what a model does with parts of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from spectra_cli.analyses.models import ModelMatrices, State, StateReader, put_matrix, split_each
from spectra_cli.analyses.pruning import BOTTOM, FULL, MAGNITUDE, RANDOM, TOP, Pruning
from spectra_cli.analyses.sva import KeepVectors, SvaRows
from spectra_cli.analyses.vectorstore import VectorStore
from spectra_cli.analyses.visits import Analysis, OnProblem, Row, WorkPlace, visit
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.prune import Split, magnitude_masks, random_masks
from spectra_cli.tables.statuses import NOTHING_SELECTED
from spectra_cli.tasks.evaluation import Value

HARMLESS = frozenset({"ok"})
"""Statuses of rows that say all there is to say; any other makes the exit status 3."""

Values = Mapping[str, Mapping[str, Value]]
"""Metrics by split, then by name."""


@dataclass(frozen=True, slots=True)
class PrunedWeights:
    """One variant of a model's weights, or the reason why there is none.

    Attributes:
        variant: one of :data:`spectra_cli.analyses.pruning.VARIANTS`.
        specs: the matrices that it prunes, by depth.
        changes: the tensors of the state dict that it changes; empty unless `status` is ``ok``.
        faults: status of the matrices that keep it from being made, by depth.
    """

    variant: str
    specs: Mapping[int, MatrixSpec] = field(default_factory=dict)
    changes: Mapping[str, Tensor] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """``ok``, that of the first fault, or ``nothing_selected``."""
        if self.faults:
            return self.faults[min(self.faults)]
        return "ok" if self.variant == FULL or self.specs else NOTHING_SELECTED


def pruned_weights(
    state: Mapping[str, Tensor],
    matrices: ModelMatrices,
    pruning: Pruning,
    place: WorkPlace,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    on_problem: OnProblem,
) -> Iterator[PrunedWeights]:
    """Make the variants of a model's weights, one after the other.

    Memory, beside the state: both halves of all matrices while ``top`` is looked at, for they come from one
    factorization; then the other half; then one copy of what a mask cuts, and the mask, a byte per number. Who asks for
    a variant should have let go of the one before.

    Args:
        state: of the model, on the CPU.
        matrices: among its weights.
        pruning: which variants.
        place: device and memory of the factorizations.
        include: globs of parameters to prune.
        exclude: globs of parameters to leave as they are.
        on_problem: told of a matrix for which the memory does not suffice.
    """
    if FULL in pruning.variants:
        yield PrunedWeights(FULL)
    specs = matrices.prunable(include, exclude)
    halves = [variant for variant in (TOP, BOTTOM) if variant in pruning.variants]
    if halves:
        split = split_each(state, specs, pruning.keep, place, on_problem=on_problem)
        made, faults = _halves(state, specs, halves, split)
        for variant in halves:
            yield PrunedWeights(variant, specs, made.pop(variant), faults)
    maskable = set(matrices.maskable(include, exclude))
    masked = {depth: spec for depth, spec in specs.items() if spec.tensor.name in maskable}
    asked = [variant for variant in (MAGNITUDE, RANDOM) if variant in pruning.variants]
    if asked:
        yield from _masked(state, masked, asked, pruning)


def _halves(
    state: Mapping[str, Tensor],
    specs: Mapping[int, MatrixSpec],
    halves: Sequence[str],
    splits: Iterable[tuple[int, Split]],
) -> tuple[dict[str, State], dict[int, str]]:
    """Tensors of the top and of the bottom, and the matrices that cannot be split."""
    names = list(dict.fromkeys(spec.tensor.name for spec in specs.values()))
    made = {variant: {name: state[name].clone() for name in names} for variant in halves}
    faults: dict[int, str] = {}
    for depth, split in splits:
        for variant, half in ((TOP, split.top), (BOTTOM, split.bottom)):
            if half is None:
                faults[depth] = split.status
            elif variant in made:
                put_matrix(made[variant], specs[depth], half)
    return ({variant: {} for variant in halves} if faults else made), faults


def _masked(
    state: Mapping[str, Tensor], specs: Mapping[int, MatrixSpec], asked: Sequence[str], pruning: Pruning
) -> Iterator[PrunedWeights]:
    weights = {spec.tensor.name: state[spec.tensor.name] for spec in specs.values()}
    faults = {depth: status for depth, spec in specs.items() if (status := _not_maskable(weights[spec.tensor.name]))}
    if faults:
        for variant in asked:
            yield PrunedWeights(variant, specs, faults=faults)
        return
    masks = magnitude_masks(weights, pruning.mask_keep)
    for variant in asked:
        if variant == RANDOM:
            masks = random_masks(masks, pruning.mask_seed)
        changes = {name: torch.where(mask, weights[name], 0) for name, mask in masks.items()}
        yield PrunedWeights(variant, specs, changes)
        del changes


def _not_maskable(tensor: Tensor) -> str | None:
    if not tensor.is_floating_point():
        return "complex_dtype"
    return None if bool(tensor.isfinite().all()) else "not_finite"


def value_rows(
    evaluated: Sequence[tuple[PrunedWeights, Values | None]], pruning: Pruning, splits: Sequence[str]
) -> list[Row]:
    """The rows of one checkpoint, without the columns that name it.

    Args:
        evaluated: the variants and their metrics; None for one that could not be made, whose rows name the metrics that
            others have.
        pruning: what their columns say of them.
        splits: that were to be evaluated.
    """
    known: Values = next((values for _, values in evaluated if values is not None), {split: {} for split in splits})
    rows: list[Row] = []
    for pruned, values in evaluated:
        named = {
            "variant": pruned.variant,
            "keep": pruning.kept(pruned.variant),
            "seed": pruning.seed(pruned.variant),
        }
        if values is None:
            rows += [
                {**named, "split": split, "metric": metric, "status": pruned.status}
                for split, metrics in known.items()
                for metric in metrics or [None]
            ]
            continue
        rows += [
            {**named, "split": split, "metric": metric, **_columns(value)}
            for split, metrics in values.items()
            for metric, value in metrics.items()
        ]
    return rows


def _columns(value: Value) -> Row:
    return {
        "value": value.value if value.status == "ok" else None,
        "count": value.count,
        "status": value.status,
    }


class PrunedAgreement:
    """Compares the pruned matrices of one checkpoint with the unpruned ones.

    Args:
        store: keeps vectors of the unpruned matrices.
        named: columns that name the checkpoint, as the reference.
        place: device and memory.
        on_problem: told of every matrix that could not be used.

    Attributes:
        rows: of all variants so far, without the columns that name the checkpoint.
    """

    def __init__(
        self, store: VectorStore, named: Mapping[str, object], place: WorkPlace, on_problem: OnProblem
    ) -> None:
        self._store = store
        self._named = dict(named)
        self._place = place
        self._on_problem = on_problem
        self.rows: list[Row] = []

    def keep(self, state: Mapping[str, Tensor], specs: Mapping[int, MatrixSpec]) -> None:
        """Factorize the unpruned matrices."""
        self._visit(state, specs, KeepVectors(self._store))

    def add(self, pruned: PrunedWeights) -> None:
        """Compare a variant; of one that could not be made, the matrices at fault have a row."""
        named = {**self._named, "variant": pruned.variant}
        if pruned.status == "ok":
            making = SvaRows(self._store, named)
            self._visit(pruned.changes, pruned.specs, making)
            self.rows += [row for row in making.rows() if "depth" in row]  # others are left alone by this variant
        else:
            self.rows += [
                {"depth": depth, "parameter": pruned.specs[depth].parameter, **named, "status": status}
                for depth, status in sorted(pruned.faults.items())
            ]

    def _visit(self, state: Mapping[str, Tensor], specs: Mapping[int, MatrixSpec], analysis: Analysis) -> None:
        reader = StateReader(state)
        visit(reader, specs, [analysis], self._place, on_problem=self._on_problem, on_matrix=lambda _: None)
