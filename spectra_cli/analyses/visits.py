"""One pass over the matrices of a checkpoint, for several analyses: each matrix is read once and factorized once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from spectra_cli.analyses.demands import Analysis, Asked, Demand, OnProblem, Row, Visited, WorkPlace
from spectra_cli.analyses.factors import Factors, factors_of
from spectra_cli.analyses.groups import Arrangement, Group, arranged, batches
from spectra_cli.analyses.known import KnownFactors, factors_key, owner_of, valued
from spectra_cli.analyses.lanes import as_completed, blas_threads
from spectra_cli.analyses.loading import InMemory, LoadedMatrix, OneAtATime, OnRoom, Reads, ahead, load
from spectra_cli.analyses.pinning import PinnedSlots, slot_bytes_for
from spectra_cli.errors import MemoryBudgetError, SpectraError
from spectra_cli.layers.matricize import LazyMatrix, MatrixSpec
from spectra_cli.layers.parts import Part, Side
from spectra_cli.spectrum.factorize import Sides, factorize
from spectra_cli.spectrum.gram import full_float32
from spectra_cli.spectrum.matrix import Matrix, SubMatrix
from spectra_cli.spectrum.memory import resident_bytes
from spectra_cli.spectrum.subspaces import MOST

__all__ = ["Analysis", "Demand", "OnProblem", "Row", "Visited", "WorkPlace", "visit"]  # what an analysis is made with


def visit(
    reader: Reads,
    specs: Mapping[int, MatrixSpec],
    analyses: Sequence[Analysis],
    place: WorkPlace,
    *,
    on_problem: OnProblem,
    on_matrix: Callable[[MatrixSpec], None],
    known: KnownFactors | None = None,
    on_room: OnRoom = lambda _: None,
) -> None:
    """Show every matrix of a checkpoint that one of the analyses asks for to all of them.

    Args:
        reader: the opened checkpoint.
        specs: matrices by depth.
        analyses: in the order in which they are to see each matrix.
        place: device and memory.
        on_problem: told of every matrix that could not be used.
        on_matrix: told of every matrix that is done.
        known: factors of the checkpoint before, which are not found again, and then those of this one. Nothing that the
            analyses are shown depends on it.
        on_room: told how much of another checkpoint may be in memory, once all matrices are read; from any thread.
    """
    usable: dict[int, MatrixSpec] = {}
    asked = Asked(analyses, specs)
    for depth, spec in specs.items():
        demand = asked.of(depth)
        status = _unusable(spec)
        if not demand.whole and not demand.parts:
            on_matrix(spec)  # nobody asks for it: it need not be read
        elif status is None:
            usable[depth] = spec
        else:
            _show(_failed(depth, spec, demand, status), analyses)
            on_matrix(spec)
    errors: dict[int, SpectraError] = {}
    for visited, failed in _visited(reader, usable, asked, place, known=known, on_room=on_room):
        errors |= failed
        for matrix in visited:
            _show(matrix, analyses)
            on_matrix(matrix.spec)
        del visited  # before the one after the next is read
    for depth in sorted(errors):
        on_problem(errors[depth], specs[depth].parameter)


Results = tuple[list[Visited], dict[int, SpectraError]]
"""Matrices of a group, and errors by depth."""


def _visited(
    reader: Reads,
    specs: Mapping[int, MatrixSpec],
    asked: Asked,
    place: WorkPlace,
    *,
    known: KnownFactors | None,
    on_room: OnRoom,
) -> Iterator[Results]:
    """Read and factorize in several lanes; with one lane, a group is read while another is worked on.

    How many lanes there are, and what comes together in a group, follows from all matrices that are asked for, whatever
    is known of them: the last bits of what is found depend on it.
    """
    planned = arranged(specs, lambda depth: asked.of(depth).sides, place)
    share = place if planned.lanes == 1 else place.share(planned.lanes)
    if known is not None:
        known.begin((share, planned.threads))
    held = resident_bytes(share.budget_bytes)
    memory = InMemory(len(planned.groups), resident_bytes(place.budget_bytes), held, on_room)

    def work(loaded: list[LoadedMatrix]) -> Results:
        return _visit_group(loaded, asked, share, known)

    with full_float32():  # once, as it is a setting of the process, and takes its time
        if planned.lanes == 1:
            yield from _one_after_another(reader, planned.groups, work, share, memory)
        else:
            with blas_threads(planned.threads):  # around all lanes, as it is a setting of the process as well
                yield from _in_lanes(reader, planned, work, share, memory)


Work = Callable[[list[LoadedMatrix]], Results]


def _one_after_another(
    reader: Reads, groups: Sequence[Group], work: Work, place: WorkPlace, memory: InMemory
) -> Iterator[Results]:
    sizes = [[spec.nbytes for _, spec in group if memory.holds(spec)] for group in groups]
    slots = PinnedSlots(place.device, slot_bytes_for(sizes, resident_bytes(place.budget_bytes)))

    def read(group: Group) -> list[LoadedMatrix]:
        loaded = load(reader, group, place.device, place.budget_bytes, slots)
        memory.now_holding(loaded)
        return loaded

    before = 0
    for loaded in ahead(groups, read):  # which lets go of the one before
        memory.lets_go_of(before)
        before = memory.size_of(loaded)
        results = work(loaded)
        slots.group_done()
        yield results
        del loaded, results


def _in_lanes(reader: Reads, planned: Arrangement, work: Work, place: WorkPlace, memory: InMemory) -> Iterator[Results]:
    shared = OneAtATime(reader)

    def read_and_work(group: Group) -> Results:
        loaded = load(shared, group, place.device, place.budget_bytes)
        memory.now_holding(loaded)
        size = memory.size_of(loaded)
        try:
            return work(loaded)
        finally:
            del loaded
            memory.lets_go_of(size)

    return as_completed(planned.groups, read_and_work, planned.lanes)


def _show(visited: Visited, analyses: Iterable[Analysis]) -> None:
    for analysis in analyses:
        analysis.take(visited)


def _unusable(spec: MatrixSpec) -> str | None:
    if spec.rows == 0 or spec.cols == 0:
        return "empty"
    return None if spec.tensor.is_floating else "complex_dtype"


def _failed(depth: int, spec: MatrixSpec, demand: Demand, status: str) -> Visited:
    failure = Factors(status)
    return Visited(depth, spec, None, failure if demand.whole else None, dict.fromkeys(demand.parts, failure))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A matrix or a part of it that was asked for.

    Attributes:
        loaded: the matrix.
        part: of it.
        matrix: that part.
        needed: whether it still is.
    """

    loaded: LoadedMatrix
    part: Part
    matrix: Matrix
    needed: bool


def _visit_group(group: list[LoadedMatrix], asked: Asked, place: WorkPlace, known: KnownFactors | None) -> Results:
    visited: list[Visited] = []
    errors: dict[int, SpectraError] = {}
    readable: list[tuple[LoadedMatrix, LazyMatrix, Demand]] = []
    for loaded in group:
        if loaded.error is not None:
            errors[loaded.depth] = loaded.error
            visited.append(_failed(loaded.depth, loaded.spec, asked.of(loaded.depth), loaded.error.status))
        elif loaded.matrix is not None:
            readable.append((loaded, loaded.matrix, asked.needed(loaded)))
    found: dict[int, dict[Part, Factors]] = {loaded.depth: {} for loaded, _, _ in readable}
    for sides, pieces in _batches(readable, asked, place):
        for index, factors in _factorize_needed(pieces, sides, place, known).items():
            depth, part = pieces[index].loaded.depth, pieces[index].part
            if isinstance(factors, SpectraError):
                errors.setdefault(depth, factors)
                found[depth][part] = Factors(factors.status)
            else:
                found[depth][part] = factors
    for loaded, _, _ in readable:
        parts = found[loaded.depth]
        whole = parts.pop(Part(loaded.depth), None)
        visited.append(Visited(loaded.depth, loaded.spec, loaded.digest, whole, parts))
    return visited, errors


def _batches(
    readable: Sequence[tuple[LoadedMatrix, LazyMatrix, Demand]], asked: Asked, place: WorkPlace
) -> Iterator[tuple[frozenset[Side], Sequence[_Piece]]]:
    """What was asked for, whole matrices first, then parts, those of one shape together; with the sides to find."""
    wholes = [
        _Piece(loaded, Part(loaded.depth), matrix if asked.of(loaded.depth).sides else valued(matrix), needed.whole)
        for loaded, matrix, needed in readable
        if asked.of(loaded.depth).whole
    ]
    if wholes:
        yield asked.of(wholes[0].loaded.depth).sides, wholes  # the same in a group
    alike: dict[tuple[tuple[int, int], frozenset[Side]], list[_Piece]] = defaultdict(list)
    for loaded, matrix, needed in readable:
        for part, sides in asked.of(loaded.depth).parts.items():
            cut = SubMatrix(matrix, part.rows, part.cols)
            alike[cut.shape, sides].append(_Piece(loaded, part, cut, part in needed.parts))
    for (shape, sides), pieces in alike.items():
        for batch in batches(pieces, shape, place.device, place.budget_bytes):
            yield sides, batch


def _factorize_needed(
    pieces: Sequence[_Piece], sides: frozenset[Side], place: WorkPlace, known: KnownFactors | None
) -> dict[int, Factors | SpectraError]:
    """Factors of those pieces of a batch that are needed, by their index; found only where they are not known."""
    needed = [index for index, piece in enumerate(pieces) if piece.needed]
    if known is None:
        return _factorize_some(pieces, needed, sides, place)
    together = 0 if place.device.type == "cpu" else len(pieces)
    owners = [owner_of(piece.loaded.spec, piece.part) for piece in pieces]
    keys = [factors_key(piece.loaded, piece.part, sides, together) for piece in pieces]
    results: dict[int, Factors | SpectraError] = {}

    def unknown(indices: Iterable[int]) -> list[int]:
        remembered = ((index, known.get(owners[index], keys[index])) for index in indices if index not in results)
        results.update({index: factors for index, factors in remembered if factors is not None})
        return [index for index in indices if index not in results]

    missing = unknown(needed)
    for some in ({keys[index]: index for index in reversed(missing)}.values(), missing):
        # Equal ones once: the second time, the others are known, or have to be found by themselves all the same.
        for index, factors in _factorize_some(pieces, unknown(sorted(some)), sides, place).items():
            results[index] = factors
            if isinstance(factors, Factors):
                known.put(owners[index], keys[index], factors)
    return results


def _factorize_some(
    pieces: Sequence[_Piece], chosen: Sequence[int], sides: frozenset[Side], place: WorkPlace
) -> dict[int, Factors | SpectraError]:
    """Factors of some of a batch, by index.

    On a CPU what is found of a matrix is the same to the bit whatever it is worked on with. On a GPU it is not: one
    takes the whole batch with it.
    """
    if chosen and place.device.type != "cpu":
        chosen = range(len(pieces))
    found = _factorize_each([pieces[index].matrix for index in chosen], sides, place) if chosen else []
    return dict(zip(chosen, found, strict=True))


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
    return [factors_of(spectrum) for spectrum in spectra]
