"""Every malformed checkpoint of a large corpus reads or is refused in words: quickly, in little memory, inertly.

What is watched: exceptions that are no SpectraError, messages without what, where or remedy, crashes, hangs, memory,
and whatever code in a file would do. That each of these is noticed where it happens is tested as well.
"""

from __future__ import annotations

import pickle
import shutil
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.checkpoints import faulty_readers
from tests.checkpoints.malformed import Case, cases, corpus, good_checkpoints, mutations, readers, write
from tests.checkpoints.malformed_pickles import CANARY, PAYLOADS, call
from tests.checkpoints.watched import FINE, MODULE, Report, Watched

SEED = 1729
CASES_OF_A_MUTATION = 3
FEWEST_CASES = 300
COMMAND_EVERY = 7  # of the cases with one of each mutation, for each of the two commands
STARTING_S = 120.0  # what imports libraries may take

Results = list[tuple[Case, Report]]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A process that has imported what reading takes, from good checkpoints of every kind."""
    with Watched(tmp_path / "watched", counting=True) as process:
        yield process


def readers_of_good_checkpoints(watched: Watched, directory: Path, action: str) -> dict[str, set[str]]:
    """The functions of the product that read the good checkpoints, by the one that they are for."""
    entered: dict[str, set[str]] = {}
    for reader, goods in good_checkpoints().items():
        for number, good in enumerate(goods):
            path = write(good, directory / f"{reader}_{number}")
            report = watched.report(path, f"{MODULE}:{action}", loading=True, limit_s=STARTING_S)
            assert report.outcome == "read", f"{reader}, {good.name}: {report}"
            entered.setdefault(reader, set()).update(report.entered)
    return entered


def results_of(watched: Watched, cases: Iterable[Case], directory: Path, action: str, *, strictly: bool) -> Results:
    """Read every case; where `strictly`, nothing outside its directory may be opened, nothing compiled or imported."""
    results = []
    for case in cases:
        path = write(case, directory)
        readable = directory if strictly else None
        results.append((case, watched.report(path, f"{MODULE}:{action}", readable=readable, loading=not strictly)))
        shutil.rmtree(directory)
    return results


def faults_in(results: Results) -> list[str]:
    return [f"{case.name}: {report.outcome}: {report.detail}" for case, report in results if report.outcome not in FINE]


def counts_by(results: Results, key: Callable[[Case], str]) -> str:
    """How many were read and refused, of each kind."""
    total, read = Counter(key(case) for case, _ in results), Counter[str]()
    read.update(key(case) for case, report in results if report.outcome == "read")
    words = "; ".join(f"{kind} {read[kind]} + {total[kind] - read[kind]}" for kind in sorted(total))
    return textwrap.fill(words, 116, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def outcomes_of(results: Results, elapsed_s: float) -> str:
    """How many there were, what they took at most, and how many ended in each way."""
    details = Counter(report.detail if report.outcome in FINE else report.outcome for _, report in results)
    peak = max(report.peak_bytes for _, report in results) >> 20
    slowest = max(report.processor_s for _, report in results)
    return "\n".join(
        (
            f"{len(results)} malformed checkpoints in {elapsed_s:.0f} s; most for one: {slowest:.1f} s, {peak} MiB",
            *(f"  {count:5} {detail}" for detail, count in details.most_common()),
        )
    )


def test_every_reader_of_the_product_is_mutated() -> None:
    """A new ``open_…`` under `formats` needs good checkpoints and mutations of its own."""
    assert set(readers()) == set(mutations()) == set(good_checkpoints())


def test_the_corpus_is_a_function_of_its_seed() -> None:
    once, again, other = ([case.files for case in corpus(1, seed)] for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_every_mutation_damages() -> None:
    """A mutation that leaves checkpoints as they are would show nothing; one that does so now and then is lucky."""
    for reader, ways in mutations().items():
        for name, mutate in ways.items():
            good = good_checkpoints()[reader][0]
            dice = Random(0)  # noqa: S311 - mutations, not secrets
            assert any(mutate(good.files, dice) != good.files for _ in range(5)), (reader, name)


def test_every_malformed_checkpoint_reads_or_is_refused_in_words(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Headers and every tensor, by the functions that are meant to read them."""
    started = time.monotonic()
    for reader, entered in readers_of_good_checkpoints(watched, tmp_path, "read_checkpoint").items():
        assert reader in entered
    results = results_of(
        watched, corpus(CASES_OF_A_MUTATION, SEED), tmp_path / "case", "read_checkpoint", strictly=True
    )
    with capsys.disabled():
        print(f"\n{outcomes_of(results, time.monotonic() - started)}")
        print(f"by reader, read + refused:\n{counts_by(results, lambda case: case.reader)}")
        print(f"by mutation, read + refused:\n{counts_by(results, lambda case: case.mutation)}")
    assert faults_in(results) == []
    assert len(results) >= FEWEST_CASES
    for reader in readers():
        mine = [report for case, report in results if case.reader == reader]
        assert {report.outcome for report in mine} == FINE, "neither all good nor all bad"
        assert sum(reader in report.entered for report in mine) > len(mine) / 2, "most of them reach the reader"


@pytest.mark.parametrize("command", ["inspect", "rank"])
def test_commands_end_in_a_status_and_no_traceback(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A sample of the corpus; every status is one that the design names."""
    started = time.monotonic()
    readers_of_good_checkpoints(watched, tmp_path, command)
    sample = list(corpus(1, SEED))[::COMMAND_EVERY]
    results = results_of(watched, sample, tmp_path / "case", command, strictly=False)
    with capsys.disabled():
        print(f"\nspectra {command}: {outcomes_of(results, time.monotonic() - started)}")
    assert faults_in(results) == []
    assert {"status 0", "status 1"} <= {report.detail for _, report in results}


FAULTS = [(reader.__name__, outcome) for outcome, bad in faulty_readers.FAULTS.items() for reader in bad]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A process with a time limit that tests can wait for; it starts again after every fault that ends it."""
    with Watched(tmp_path_factory.mktemp("quick") / "watched", limit_s=0.5, patience_s=2.0) as process:
        yield process


@pytest.mark.parametrize(("reader", "outcome"), FAULTS)
def test_what_watches_notices_every_fault(quick: Watched, tmp_path: Path, reader: str, outcome: str) -> None:
    """A check that cannot fail is none: readers that hang, crash, hoard, run things or speak badly are told apart."""
    directory = tmp_path / "case"
    directory.mkdir()
    path = directory / "file"
    path.write_bytes(b"x")
    limit_s = None if outcome == "hang" else STARTING_S  # touching a gigabyte takes a while
    report = quick.report(path, f"{faulty_readers.__name__}:{reader}", readable=directory, limit_s=limit_s)
    assert report.outcome == outcome, report


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: f"{payload[0]}.{payload[1]}")
def test_every_payload_of_the_corpus_would_run_and_be_noticed(
    quick: Watched, tmp_path: Path, payload: tuple[str, str, str]
) -> None:
    """By what it leaves, and by what is heard where it leaves nothing."""
    path = tmp_path / "payload"
    path.write_bytes(b"\x80\x02" + call(payload) + b".")
    report = quick.report(path, f"{faulty_readers.__name__}:unpickle", limit_s=STARTING_S)
    assert report.outcome == "executed"
    assert f"made {CANARY}" in report.detail
    hidden = quick.report(path, f"{faulty_readers.__name__}:unpickle_and_hide", limit_s=STARTING_S)
    assert hidden.outcome == "executed"
    assert "made" not in hidden.detail
    assert "heard" in hidden.detail


def test_payloads_are_in_the_corpus() -> None:
    """Whole, for every reader of pickles; over many seeds, each of them."""
    for reader in ("open_archive", "open_legacy", "open_distributed"):
        for mutation in (name for name in mutations()[reader] if name.endswith(("a call inserted", "but a call"))):
            contents = [b"".join(case.files.values()) for case in cases(reader, mutation, 50, SEED)]
            for payload in PAYLOADS:
                assert any(call(payload) in content for content in contents), (reader, mutation, payload)
            once = contents[:CASES_OF_A_MUTATION]
            assert all(any(call(payload) in content for payload in PAYLOADS) for content in once)


def test_a_plain_pickle_is_heard_as_one(quick: Watched, tmp_path: Path) -> None:
    """Even where it calls nothing, a global that an unpickler imports is told."""
    path = tmp_path / "harmless"
    path.write_bytes(pickle.dumps(Path))
    assert quick.report(path, f"{faulty_readers.__name__}:unpickle").outcome == "executed"
