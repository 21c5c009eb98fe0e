"""Everything a checkpoint holds: the matrices in the order of the model, who feeds whom, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from spectra_cli.layers.depth import depth_key
from spectra_cli.layers.ends import Connection
from spectra_cli.layers.fitting import FittedFamily, StructureOptions, all_connections, choose_families, structured
from spectra_cli.layers.matricize import MatrixSpec, matrices_of
from spectra_cli.layers.remarks import remarks_of
from spectra_cli.layers.weights import Skipped, model_weights
from spectra_cli.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Inventory:
    """The matrices of a model by depth (their place in the list), and the tensors that are none.

    Attributes:
        matrices: in the order of the model, with the kinds and layouts that their families declare.
        skipped: all other tensors.
        families: what the model's parts are; none where no family fits.
        config: the model's ``config.json``.
        structure: what the user says of the model's structure.
    """

    matrices: tuple[MatrixSpec, ...]
    skipped: tuple[Skipped, ...]
    families: tuple[FittedFamily, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    structure: StructureOptions = field(default_factory=StructureOptions)

    @property
    def unfitted(self) -> list[MatrixSpec]:
        """Matrices that have no role in any family, where there is one."""
        fitted = {index for family in self.families for index in family.fit.claimed}
        return [spec for index, spec in enumerate(self.matrices) if self.families and index not in fitted]

    def connections(self) -> list[Connection]:
        """Who feeds whom, by the depth of the upstream matrix, then of the downstream one."""
        return all_connections(self.matrices, self.families, self.config)

    def output_layers(self, known: Callable[[], Collection[str]] = tuple) -> frozenset[int]:
        """Depths of the matrices that give the model's output.

        Args:
            known: names of the tensors, as stored, that are known to give it; asked where no connection leads there.

        Returns:
            Where connections lead to an output, else those known, else the last matrix.
        """
        outputs = {connection.downstream for connection in self.connections() if connection.name == "output"}
        if not outputs:
            names = known()
            outputs = {depth for depth, spec in enumerate(self.matrices) if spec.tensor.name in names}
        return frozenset(outputs or ({len(self.matrices) - 1} if self.matrices else set()))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user has said of the structure and has no effect, and numbers of heads that do not fit."""
        return tuple(remarks_of(self.matrices, self.skipped, self.families, self.config, self.structure))

    def selected(self, include: Sequence[str], exclude: Sequence[str]) -> dict[int, MatrixSpec]:
        """The matrices, by depth, that match a glob of `include` (if any is given) and none of `exclude`.

        A glob is held against the name in tables, against the name as stored, and for ``name[0]``, ``name[1]``, ...
        against ``name``.
        """
        return {
            depth: spec
            for depth, spec in enumerate(self.matrices)
            if (not include or _matches(spec, include)) and not _matches(spec, exclude)
        }


def _matches(spec: MatrixSpec, globs: Sequence[str]) -> bool:
    names = {spec.parameter, spec.tensor.name}
    if spec.expert is not None:
        names.add(spec.parameter.removesuffix(f"[{spec.expert}]"))
    return any(glob == name or fnmatchcase(name, glob) for glob in globs for name in names)


def take_inventory(
    tensors: Mapping[str, TensorInfo],
    *,
    ordered: bool,
    config: Mapping[str, Any] | None = None,
    transposed: Sequence[str] = (),
    structure: StructureOptions | None = None,
) -> Inventory:
    """Find the matrices of a checkpoint.

    Args:
        tensors: what the checkpoint holds.
        ordered: whether their order is the model's; if not, depth is told from names.
        config: the model's ``config.json``, if there is one.
        transposed: globs of parameters stored as (in, out, ...), whatever their names say.
        structure: what the user says of the model's structure.

    Raises:
        UsageError: if the user names a family that does not exist.
    """
    weights, left_out = model_weights(tensors, config)
    if not ordered:
        weights = sorted(weights, key=lambda weight: depth_key(weight.parameter))
    specs, others = matrices_of(weights, transposed)
    skipped, config = tuple(left_out + others), config or {}
    structure = structure or StructureOptions()
    families = choose_families(specs, skipped, config, structure)
    return Inventory(tuple(structured(specs, families)), skipped, families, config, structure)
