"""What checkpoints hold, from their headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from spectra_cli.analyses.lanes import MOST_LANES, available_cores, flops_of, lane_count
from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.checkpoints.runs import Checkpoint, Run
from spectra_cli.errors import CheckpointError
from spectra_cli.layers.connections import connections_among
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.layers.matching import misfit
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.spectrum.memory import LEADING_VECTORS, RESIDENT_BYTES, working_bytes


class NoMatricesError(CheckpointError):
    """A readable checkpoint without a matrix."""

    status = "no_matrices"


class ArchitectureError(CheckpointError):
    """A checkpoint that is not of the family that the user says it is."""

    status = "architecture_mismatch"


def inventory_of(
    reader: Reader, run: Run, checkpoint: Checkpoint, transposed: Sequence[str], structure: StructureOptions
) -> Inventory:
    """The matrices of an opened checkpoint.

    Raises:
        NoMatricesError: if there are none.
        ArchitectureError: if the family that the user names does not fit.
    """
    inventory = take_inventory(
        reader.tensors,
        ordered=reader.ordered,
        config=read_config(checkpoint.path, run.root),
        transposed=transposed,
        structure=structure,
    )
    check_inventory(inventory, where=str(checkpoint.path))
    return inventory


def check_inventory(inventory: Inventory, *, where: str) -> None:
    """Check that a checkpoint has a matrix, and is of the family that the user says it is, if the user says one.

    Raises:
        NoMatricesError: if there is no matrix.
        ArchitectureError: if the family that the user names does not fit.
    """
    if not inventory.matrices:
        why = sorted({skipped.reason for skipped in inventory.skipped})
        raise NoMatricesError(
            f"none of its {len(inventory.skipped)} tensors is a matrix of weights"
            + (f" ({'; '.join(why)})" if why else ""),
            where=where,
            remedy="Leave it out",
        )
    check_named_family(inventory, where=where)


def check_named_family(inventory: Inventory, *, where: str | None = None) -> None:
    """Check that a model is of the family that the user says it is, if the user says one.

    Raises:
        ArchitectureError: if it is not.
    """
    structure = inventory.structure
    if structure.named_family is not None and not inventory.families:
        (architecture,) = structure.families()
        raise ArchitectureError(
            f"{structure.named_family} does not fit: {misfit(architecture, inventory.matrices)}",
            where=where,
            remedy="Mend the name, or leave --architecture out",
        )


@dataclass(frozen=True, slots=True)
class CheckpointContents:
    """One checkpoint: its format and inventory, or what is wrong with it."""

    checkpoint: Checkpoint
    format: str | None = None
    inventory: Inventory | None = None
    notes: tuple[str, ...] = ()
    status: str = "ok"
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RunContents:
    """One run: every checkpoint, and the inventory of the first readable one, which stands for all that equal it."""

    run: Run
    architecture: str | None
    checkpoints: tuple[CheckpointContents, ...]
    differing: dict[str, str] = field(default_factory=dict)

    @property
    def typical(self) -> CheckpointContents | None:
        """The first readable checkpoint."""
        return next((contents for contents in self.checkpoints if contents.inventory is not None), None)

    def as_json(self, selected: Callable[[Inventory], dict[int, MatrixSpec]]) -> dict[str, Any]:
        """JSON form, for programs."""
        typical = self.typical
        inventory = typical.inventory if typical else None
        matrices = selected(inventory) if inventory else {}
        return {
            "run": self.run.name,
            "root": str(self.run.root),
            "architecture": self.architecture,
            "checkpoints": [
                {
                    "checkpoint": contents.checkpoint.name,
                    "step": contents.checkpoint.step,
                    "epoch": contents.checkpoint.epoch,
                    "format": contents.format,
                    "status": contents.status,
                    "problem": contents.problem,
                    "differs": self.differing.get(contents.checkpoint.name),
                }
                for contents in self.checkpoints
            ],
            "matrices": [
                {
                    **spec.described(depth),
                    "stored_as": spec.tensor.name,
                    "layout": spec.layout,
                    "reason": spec.reason,
                }
                for depth, spec in matrices.items()
            ],
            "families": _families(inventory) if inventory else [],
            "connections": _connections(inventory, matrices) if inventory else [],
            "unfitted": [spec.parameter for spec in unfitted_matrices(inventory, matrices)] if inventory else [],
            "skipped": [asdict(skipped) for skipped in inventory.skipped] if inventory else [],
            "remarks": list(inventory.remarks) if inventory else [],
            "notes": list(typical.notes) if typical else [],
            "passed_over": [{"name": item.name, "reason": item.reason} for item in self.run.passed_over],
            "working_memory_bytes": working_memory_bytes(matrices.values()),
            "analyze_memory_bytes": working_memory_bytes(matrices.values(), LEADING_VECTORS),
            "reference_vector_bytes": reference_vector_bytes(matrices.values()),
            "read_ahead_bytes": read_ahead_bytes(matrices.values()) if len(self.checkpoints) > 1 else 0,
        }


def contents_of(run: Run, transposed: Sequence[str], structure: StructureOptions) -> RunContents:
    """Open every checkpoint of a run and take its inventory, from headers alone.

    Args:
        run: with the checkpoints to look into.
        transposed: globs of parameters stored as (in, out, ...).
        structure: what the user says of the model's structure.
    """
    architecture: str | None = None
    opened: list[CheckpointContents] = []
    differing: dict[str, str] = {}
    typical: Inventory | None = None
    for contents in _open_all(run, transposed, structure):
        inventory = contents.inventory
        if inventory is not None:
            architecture = architecture or _architecture(contents.checkpoint, run)
            typical = typical or inventory
            if _outline(typical) == _outline(inventory):  # thousands of equal inventories need not be kept
                inventory = typical
            else:
                differing[contents.checkpoint.name] = _difference(typical, inventory)
        opened.append(replace(contents, inventory=inventory))
    return RunContents(run, architecture, tuple(opened), differing)


def _open_all(run: Run, transposed: Sequence[str], structure: StructureOptions) -> Iterator[CheckpointContents]:
    for checkpoint in run.checkpoints:
        try:
            with open_checkpoint(checkpoint.path) as reader:
                inventory = inventory_of(reader, run, checkpoint, transposed, structure)
                yield CheckpointContents(checkpoint, reader.format, inventory, tuple(reader.notes))
        except CheckpointError as error:
            problem = str(error.at(str(checkpoint.path)))
            yield CheckpointContents(checkpoint, status=error.status, problem=problem)


def _architecture(checkpoint: Checkpoint, run: Run) -> str | None:
    config = read_config(checkpoint.path, run.root)
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    model_type = config.get("model_type")
    return model_type if isinstance(model_type, str) else None


def _outline(inventory: Inventory) -> dict[str, tuple[int, int, str]]:
    return {spec.parameter: (spec.rows, spec.cols, spec.tensor.dtype) for spec in inventory.matrices}


def _difference(typical: Inventory, other: Inventory) -> str:
    """The first difference between two inventories, in words."""
    expected, found = _outline(typical), _outline(other)
    for name in expected:
        if name not in found:
            return f"lacks '{name}'"
        if found[name] != expected[name]:
            rows, cols, dtype = found[name]
            return f"'{name}' is {rows} x {cols} {dtype}"
    return f"has '{next(name for name in found if name not in expected)}' as well"


def unfitted_matrices(inventory: Inventory, matrices: Mapping[int, MatrixSpec]) -> list[MatrixSpec]:
    """The selected matrices that have no role in any family, where there is one."""
    without = {spec.parameter for spec in inventory.unfitted}
    return [spec for spec in matrices.values() if spec.parameter in without]


def _families(inventory: Inventory) -> list[dict[str, Any]]:
    return [
        {
            "family": family.fit.architecture.family,
            "title": family.fit.architecture.title,
            "prefix": family.fit.prefix,
            "heads": family.heads.query if family.heads else None,
            "kv_heads": family.heads.key_value if family.heads else None,
        }
        for family in inventory.families
    ]


def _connections(inventory: Inventory, matrices: Mapping[int, MatrixSpec]) -> list[dict[str, Any]]:
    return [
        {
            "connection": connection.name,
            "upstream": matrices[connection.upstream].parameter,
            "downstream": matrices[connection.downstream].parameter,
            "units": [
                {"unit": unit.unit, "index": unit.index, "primary": unit.primary, "status": unit.status}
                for unit in connection.units
            ],
        }
        for connection in connections_among(inventory.connections(), matrices)
    ]


def working_memory_bytes(specs: Iterable[MatrixSpec], vectors: int = 0) -> int:
    """Memory for the largest of these matrices, one in every lane, beyond the interpreter's; for any larger budget.

    Args:
        specs: matrices.
        vectors: singular vectors of each side that are computed: none by `spectra rank`.
    """
    specs = list(specs)
    lanes = lane_count([flops_of(spec) for spec in specs], available_cores(), MOST_LANES)
    each = (working_bytes(spec.rows, spec.cols, spec.nbytes, vectors=vectors) for spec in specs)
    return sum(sorted(each, reverse=True)[:lanes])


def reference_vector_bytes(specs: Iterable[MatrixSpec]) -> int:
    """Size of what is kept of a reference checkpoint: leading singular vectors of both sides, in float32."""
    return sum(4 * min(LEADING_VECTORS, spec.rows, spec.cols) * (spec.rows + spec.cols) for spec in specs)


def read_ahead_bytes(specs: Iterable[MatrixSpec]) -> int:
    """Most of the next checkpoint that is in memory while one is worked on, within any larger budget."""
    return min(2 * RESIDENT_BYTES, sum(spec.nbytes for spec in specs))
