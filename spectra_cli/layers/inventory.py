"""Everything a checkpoint holds: the matrices in the order of the model, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from spectra_cli.layers.depth import depth_key
from spectra_cli.layers.matricize import MatrixSpec, matrices_of
from spectra_cli.layers.weights import Skipped, model_weights
from spectra_cli.tensors import TensorInfo


@dataclass(frozen=True, slots=True)
class Inventory:
    """The matrices of a model by depth (their place in the list), and the tensors that are none."""

    matrices: tuple[MatrixSpec, ...]
    skipped: tuple[Skipped, ...]

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
) -> Inventory:
    """Find the matrices of a checkpoint.

    Args:
        tensors: what the checkpoint holds.
        ordered: whether their order is the model's; if not, depth is told from names.
        config: the model's ``config.json``, if there is one.
        transposed: globs of parameters stored as (in, out, ...), whatever their names say.
    """
    weights, left_out = model_weights(tensors, config)
    if not ordered:
        weights = sorted(weights, key=lambda weight: depth_key(weight.parameter))
    specs, others = matrices_of(weights, transposed)
    return Inventory(tuple(specs), tuple(left_out + others))
