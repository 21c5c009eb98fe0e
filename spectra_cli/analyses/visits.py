"""One pass over the matrices of a checkpoint, for several analyses: each matrix is read once and factorized once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from spectra_cli.analyses.lanes import as_completed, blas_threads, heaviest_first, lane_count, work_of
from spectra_cli.analyses.loading import LoadedMatrix, OneAtATime, ahead, batches, groups_of_equal_shape, load
from spectra_cli.checkpoints.reader import Reader
from spectra_cli.errors import MemoryBudgetError, SpectraError
from spectra_cli.layers.matricize import MatrixSpec
from spectra_cli.layers.parts import Part, Side
from spectra_cli.spectrum.factorize import Sides, Spectrum, factorize
from spectra_cli.spectrum.gram import full_float32
from spectra_cli.spectrum.matrix import Matrix, SubMatrix
from spectra_cli.spectrum.memory import resident_bytes, working_bytes
from spectra_cli.spectrum.subspaces import MOST

Row = dict[str, Any]
OnProblem = Callable[[SpectraError, str], None]
"""Called with an error and the parameter concerned."""


@dataclass(frozen=True, slots=True)
class WorkPlace:
    """Where matrices are factorized and how much memory that may take.

    Attributes:
        device: where the work is done.
        budget_bytes: for everything.
        kept_bytes: of it, for the vectors of reference checkpoints.
    """

    device: torch.device
    budget_bytes: int
    kept_bytes: int = 0

    @property
    def working_bytes(self) -> int:
        """What is left of the budget beside kept vectors and this and the next matrix in memory."""
        return self.budget_bytes - self.kept_bytes - 2 * resident_bytes(self.budget_bytes)


@dataclass(frozen=True, slots=True)
class Demand:
    """What an analysis needs of one matrix.

    Attributes:
        whole: whether the matrix itself is to be factorized.
        sides: whose leading singular vectors are needed of the whole matrix.
        parts: what else is to be factorized, and the sides needed of each.
    """

    whole: bool = False
    sides: frozenset[Side] = frozenset()
    parts: Mapping[Part, frozenset[Side]] = field(default_factory=dict)

    def __or__(self, other: Demand) -> Demand:
        parts = dict(self.parts)
        for part, sides in other.parts.items():
            parts[part] = parts.get(part, frozenset()) | sides
        return Demand(self.whole or other.whole, self.sides | other.sides, parts)


@dataclass(frozen=True, slots=True)
class Factors:
    """The factorization of a matrix or a part, or the reason why there is none.

    Attributes:
        status: ``ok``, ``all_zero``, or why there is no spectrum.
        spectrum: None unless `status` is ``ok`` or ``all_zero``.
    """

    status: str
    spectrum: Spectrum | None = None


@dataclass(frozen=True, slots=True)
class Visited:
    """A matrix, and what was asked about it.

    Attributes:
        depth: place in the model.
        spec: which matrix.
        digest: of its bytes; None where they could not be read.
        whole: None unless asked for.
        parts: those asked for.
    """

    depth: int
    spec: MatrixSpec
    digest: str | None
    whole: Factors | None
    parts: Mapping[Part, Factors]


class Analysis(Protocol):
    """Makes rows of what it is shown, matrix by matrix, in any order."""

    def demand(self, depth: int) -> Demand:
        """What it needs of a matrix."""
        ...

    def take(self, visited: Visited) -> None:
        """Take in a matrix."""
        ...


def visit(
    reader: Reader,
    specs: Mapping[int, MatrixSpec],
    analyses: Sequence[Analysis],
    place: WorkPlace,
    *,
    on_problem: OnProblem,
    on_matrix: Callable[[MatrixSpec], None],
) -> None:
    """Show every matrix of a checkpoint that one of the analyses asks for to all of them.

    Args:
        reader: the opened checkpoint.
        specs: matrices by depth.
        analyses: in the order in which they are to see each matrix.
        place: device and memory.
        on_problem: told of every matrix that could not be used.
        on_matrix: told of every matrix that is done.
    """
    usable: dict[int, MatrixSpec] = {}
    demands: dict[int, Demand] = {}
    for depth, spec in specs.items():
        demand = Demand()
        for analysis in analyses:
            demand |= analysis.demand(depth)
        status = _unusable(spec)
        if not demand.whole and not demand.parts:
            on_matrix(spec)  # nobody asks for it: it need not be read
        elif status is None:
            usable[depth], demands[depth] = spec, demand
        else:
            _show(_failed(depth, spec, None, demand, status), analyses)
            on_matrix(spec)
    errors: dict[int, SpectraError] = {}
    for visited, failed in _visited(reader, usable, demands, place):
        errors |= failed
        for matrix in visited:
            _show(matrix, analyses)
            on_matrix(matrix.spec)
        del visited  # before the one after the next is read
    for depth in sorted(errors):
        on_problem(errors[depth], specs[depth].parameter)


Results = tuple[list[Visited], dict[int, SpectraError]]
"""Of a group: its matrices, and errors by depth."""


def _visited(
    reader: Reader, specs: Mapping[int, MatrixSpec], demands: Mapping[int, Demand], place: WorkPlace
) -> Iterator[Results]:
    """Read and factorize in several lanes; with one lane, a group is read while another is worked on."""
    groups = groups_of_equal_shape(specs, lambda depth: demands[depth].sides, place.device, place.budget_bytes)
    work = [sum(work_of(spec) for _, spec in group) for group in groups]
    needed = max((working_bytes(spec.rows, spec.cols, spec.nbytes, vectors=MOST) for spec in specs.values()), default=1)
    cores = torch.get_num_threads() if place.device.type == "cpu" else 1
    lanes = lane_count(work, cores, place.working_bytes // needed)
    if lanes == 1:
        for loaded in ahead(groups, lambda group: load(reader, group, place.device, place.budget_bytes)):
            yield _visit_group(loaded, demands, place)
            del loaded
        return
    share = replace(place, budget_bytes=place.budget_bytes // lanes, kept_bytes=place.kept_bytes // lanes)
    shared = OneAtATime(reader)

    def read_and_visit(group: list[tuple[int, MatrixSpec]]) -> Results:
        return _visit_group(load(shared, group, share.device, share.budget_bytes), demands, share)

    with full_float32(), blas_threads(cores // lanes):  # around all lanes, as both are settings of the process
        yield from as_completed(heaviest_first(groups, work, lanes), read_and_visit, lanes)


def _show(visited: Visited, analyses: Iterable[Analysis]) -> None:
    for analysis in analyses:
        analysis.take(visited)


def _unusable(spec: MatrixSpec) -> str | None:
    if spec.rows == 0 or spec.cols == 0:
        return "empty"
    return None if spec.tensor.is_floating else "complex_dtype"


def _failed(depth: int, spec: MatrixSpec, digest: str | None, demand: Demand, status: str) -> Visited:
    failure = Factors(status)
    return Visited(depth, spec, digest, failure if demand.whole else None, dict.fromkeys(demand.parts, failure))


def _visit_group(group: list[LoadedMatrix], demands: Mapping[int, Demand], place: WorkPlace) -> Results:
    readable: list[tuple[LoadedMatrix, Matrix]] = []
    visited: list[Visited] = []
    errors: dict[int, SpectraError] = {}
    for loaded in group:
        if loaded.error is not None:
            errors[loaded.depth] = loaded.error
            demand = demands[loaded.depth]
            visited.append(_failed(loaded.depth, loaded.spec, loaded.digest, demand, loaded.error.status))
        elif loaded.matrix is not None:
            readable.append((loaded, loaded.matrix))

    whole: dict[int, Factors] = {}
    asked = [(loaded, matrix) for loaded, matrix in readable if demands[loaded.depth].whole]
    if asked:
        sides = demands[asked[0][0].depth].sides  # the same in a group
        for (loaded, _), factors in zip(
            asked, _factorize_each([matrix for _, matrix in asked], sides, place), strict=True
        ):
            whole[loaded.depth] = _noted(factors, loaded, errors)
    parts = _factorize_parts(readable, demands, place, errors)
    for loaded, _ in readable:
        found = Visited(loaded.depth, loaded.spec, loaded.digest, whole.get(loaded.depth), parts[loaded.depth])
        visited.append(found)
    return visited, errors


def _factorize_parts(
    readable: Sequence[tuple[LoadedMatrix, Matrix]],
    demands: Mapping[int, Demand],
    place: WorkPlace,
    errors: dict[int, SpectraError],
) -> dict[int, dict[Part, Factors]]:
    """Factorize the parts that are asked for, those of one shape together."""
    alike: dict[tuple[tuple[int, int], frozenset[Side]], list[tuple[LoadedMatrix, Part, Matrix]]] = defaultdict(list)
    for loaded, matrix in readable:
        for part, sides in demands[loaded.depth].parts.items():
            cut = SubMatrix(matrix, part.rows, part.cols)
            alike[cut.shape, sides].append((loaded, part, cut))
    found: dict[int, dict[Part, Factors]] = {loaded.depth: {} for loaded, _ in readable}
    for (shape, sides), items in alike.items():
        for batch in batches(items, shape, place.device, place.budget_bytes):
            results = _factorize_each([cut for _, _, cut in batch], sides, place)
            for (loaded, part, _), factors in zip(batch, results, strict=True):
                found[loaded.depth][part] = _noted(factors, loaded, errors)
    return found


def _noted(factors: Factors | SpectraError, loaded: LoadedMatrix, errors: dict[int, SpectraError]) -> Factors:
    if isinstance(factors, Factors):
        return factors
    errors.setdefault(loaded.depth, factors)
    return Factors(factors.status)


def _factorize_each(
    matrices: Sequence[Matrix], sides: frozenset[Side], place: WorkPlace
) -> list[Factors | SpectraError]:
    """Factorize matrices of one shape; one that fails takes no other with it."""
    chosen: Sides = "both" if len(sides) != 1 else next(iter(sides))
    try:
        spectra = factorize(matrices, vectors=MOST if sides else 0, sides=chosen, budget_bytes=place.working_bytes)
    except (SpectraError, MemoryError) as caught:
        if len(matrices) > 1:
            return [factors for matrix in matrices for factors in _factorize_each([matrix], sides, place)]
        return [caught if isinstance(caught, SpectraError) else MemoryBudgetError("memory ran out on this matrix")]
    return [_factors(spectrum) for spectrum in spectra]


def _factors(spectrum: Spectrum) -> Factors:
    if spectrum.status != "ok":
        return Factors(spectrum.status)
    return Factors("all_zero" if spectrum.singular_values[0] == 0.0 else "ok", spectrum)
