"""`prune-eval` and `barrier` again: what is kept, what is done anew and why, and what a fresh run would have made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import spectra_cli
from spectra_cli.analyses.barrier import MatricesAlong
from spectra_cli.execution.evaluation.interpolator import Interpolator
from spectra_cli.execution.evaluation.pruner import Pruner
from spectra_cli.execution.work.units import Chunk, Outcome
from tests.analyses import tiny_tasks

Fixture = Callable[..., Any]

CODE = """
from pathlib import Path
from tests.analyses import tiny_tasks

def note(what):
    with Path("log.txt").open("a") as file:
        file.write(what)

class Noted(tiny_tasks.Classification):
    def metrics(self, model, batch):
        note("e")
        return super().metrics(model, batch)

def make(width: int = 7, data: str = "", scale: float = 1.0):
    note("M")
    return Noted(lambda: tiny_tasks.Network(width), tiny_tasks._vectors)
"""

BATCHES = 2
"""Of the split val."""

PRUNE = ("prune-eval", "run", "--task", "own.py:make", "--split", "val", "--variants", "full,top")
PRUNE_SVA = (*PRUNE, "--sva-out", "sva.parquet")
PAIRS = ("barrier", "--pairs", "pairs.csv", "--task", "own.py:make", "--split", "val", "--alphas", "3")
PAIRS_ALL = (*PAIRS, "--sva-out", "sva.parquet", "--spectra-out", "spectra.parquet")

TABLES = {PRUNE_SVA: ("prune_eval.parquet", "sva.parquet")}
TABLES |= {PAIRS_ALL: ("barrier.parquet", "spectra.parquet", "sva.parquet")}
BOTH = pytest.mark.parametrize("command", list(TABLES), ids=["prune-eval", "barrier"])


def save(step: int, seed: int | None = None) -> Path:
    torch.manual_seed(step if seed is None else seed)
    path = Path("run", f"step_{step}.pt")
    torch.save(tiny_tasks.mlp().model().state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def _surroundings(_plain_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of three checkpoints, three pairs of them, and a task that notes what is done with it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    torch.set_num_threads(1)
    Path("run").mkdir()
    for step in (0, 10, 20):
        save(step)
    Path("own.py").write_text(CODE)
    Path("pairs.csv").write_text("run@0,run@10\nrun@10,run@20\nrun@0,run@20\n")


def noted() -> str:
    """What has been done with the task since this was asked before: M where it was made, e for each evaluated batch."""
    log = Path("log.txt")
    text = log.read_text() if log.exists() else ""
    log.unlink(missing_ok=True)
    return text


def contents(command: tuple[str, ...]) -> list[Any]:
    return [pq.read_table(name).to_pylist() for name in TABLES[command]]


def fresh(spectra: Fixture, command: tuple[str, ...]) -> list[Any]:
    """The tables of a fresh run; those that were there are gone."""
    assert spectra(*command, "--fresh").status in {0, 3}
    noted()
    return contents(command)


def closing(text: str) -> list[str]:
    """What is printed, without how long it took and what was kept."""
    return [re.sub(r"( \(\d+ kept\))?( in [\d.]+ s)?$", "", line) for line in text.splitlines()]


# kept


@BOTH
def test_a_second_run_makes_no_task_and_says_the_same(command: tuple[str, ...], spectra: Fixture) -> None:
    first = spectra(*command)
    assert noted().count("M") == 1
    before = [(Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in TABLES[command]]
    second = spectra(*command)
    assert noted() == ""
    assert [(Path(name).read_bytes(), Path(name).stat().st_mtime_ns) for name in TABLES[command]] == before
    assert second.status == first.status == 0
    assert closing(second.err) == closing(first.err)
    assert "(3 kept)" in second.err


@BOTH
def test_what_could_not_be_used_is_told_again_with_the_same_exit_status(
    command: tuple[str, ...], spectra: Fixture
) -> None:
    """A checkpoint that holds NaN is not evaluated again for that."""
    state = torch.load("run/step_10.pt")
    state["second.weight"][0, 0] = torch.nan
    torch.save(state, "run/step_10.pt")
    first = spectra(*command)
    done = noted()
    second = spectra(*command)
    assert (first.status, second.status) == (3, 3)
    assert "not_finite" in second.err
    assert sorted(closing(second.err)) == sorted(closing(first.err))
    assert (done[0], noted()) == ("M", "")


@BOTH
def test_the_summary_for_programs_is_that_of_the_first_run(command: tuple[str, ...], spectra: Fixture) -> None:
    first, second = (json.loads(spectra(*command, "--json", "--quiet").out) for _ in range(2))
    assert (first.pop("kept"), second.pop("kept")) == (0, 3)
    assert first == second


def test_a_pair_is_kept_with_the_agreement_of_its_ends_where_no_table_of_it_is_made(spectra: Fixture) -> None:
    """Also where nobody read it the first time."""
    Path("pairs.csv").write_text("run@0,run@10\n")
    assert spectra(*PAIRS, "--quiet").err == ""
    kept = spectra(*PAIRS)
    assert "Agreement of A and B: mean score 0." in kept.err
    assert closing(kept.err) == closing(spectra(*PAIRS, "--fresh").err)


def test_a_file_that_a_notebook_writes_has_the_agreement_that_the_command_tells(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table in memory has none on record and nobody to tell: for it, the ends are not compared."""
    compare, compared = MatricesAlong.compare_with, 0

    def comparing(self: MatricesAlong, *arguments: Any) -> None:
        nonlocal compared
        compared += 1
        compare(self, *arguments)

    monkeypatch.setattr(MatricesAlong, "compare_with", comparing)
    asked = {"task": "own.py:make", "split": "val", "alphas": 3}
    frame = spectra_cli.barrier("run@0", "run@10", **asked)
    assert compared == 0
    assert frame.equals(spectra_cli.barrier("run@0", "run@10", **asked, out="barrier.parquet"))
    assert compared == 1
    noted()
    Path("pairs.csv").write_text("run@0,run@10\n")
    told = spectra(*PAIRS).err
    assert (noted(), compared) == ("", 1)
    assert "(1 kept)" in told
    assert "Agreement of A and B: mean score 0." in told


# new


def test_one_more_checkpoint_is_one_evaluation(spectra: Fixture) -> None:
    spectra(*PRUNE_SVA)
    noted()
    save(15)
    outcome = spectra(*PRUNE_SVA)
    assert noted() == "M" + "e" * (BATCHES * 2 + 1), "two variants, and a batch to tell the output layer"
    assert "from 4 checkpoints (3 kept)" in outcome.err
    assert contents(PRUNE_SVA) == fresh(spectra, PRUNE_SVA)


def test_one_more_pair_is_one_line(spectra: Fixture) -> None:
    spectra(*PAIRS_ALL)
    noted()
    Path("pairs.csv").write_text("run@20,run@0\nrun@0,run@10\nrun@10,run@20\nrun@0,run@20\n")
    outcome = spectra(*PAIRS_ALL)
    assert noted() == "M" + "e" * BATCHES * 3
    assert "from 4 pairs (3 kept)" in outcome.err
    assert contents(PAIRS_ALL) == fresh(spectra, PAIRS_ALL)


@BOTH
def test_a_checkpoint_that_has_changed_is_done_again(command: tuple[str, ...], spectra: Fixture) -> None:
    spectra(*command)
    noted()
    save(20, seed=77)
    outcome = spectra(*command)
    assert "(2 kept)" in outcome.err if command == PRUNE_SVA else "(1 kept)" in outcome.err
    assert contents(command) == fresh(spectra, command)


@BOTH
def test_a_table_of_agreement_that_is_asked_for_later_needs_no_evaluation(
    command: tuple[str, ...], spectra: Fixture
) -> None:
    without = {PRUNE_SVA: PRUNE, PAIRS_ALL: (*PAIRS, "--spectra-out", "spectra.parquet")}[command]
    spectra(*without)
    noted()
    outcome = spectra(*command)
    assert noted().count("e") <= 3, "batches to tell the output layer"
    again = spectra(*command)
    assert (noted(), again.status) == ("", outcome.status)
    assert "(3 kept)" in again.err
    assert contents(command) == fresh(spectra, command)


# changed


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--keep", "0.3"), "--keep was 0.5 and is 0.3"),
        (("--mask-keep", "0.3"), "--mask-keep was 0.05 and is 0.3"),
        (("--mask-seed", "3"), "--mask-seed was 0 and is 3"),
        (("--variants", "full"), "--variants was full, top and is full"),
        (("--set", "scale=2"), "--set was not given and is scale=2"),
        (("--data", "run"), "--data was not given and is run"),
        (("--split", "train"), "--split was val and is train, val"),
        (("--batch-norm", "stored"), "--batch-norm was reestimate and is stored"),
        (("--exclude", "first.*"), "--exclude was not given and is first.*"),
        (("--transposed", "first.*"), "--transposed was not given and is first.*"),
        (("--output-layer", "second.*"), "--output-layer was not given and is second.*"),
    ],
)
def test_an_option_that_has_changed_is_named(option: tuple[str, str], said: str, spectra: Fixture) -> None:
    command = ["run@final" if part == "run" else part for part in PRUNE]
    spectra(*command)
    noted()
    outcome = spectra(*command, *option)
    assert f"prune_eval.parquet: all of it is made anew, as {said}." in outcome.err
    assert noted()[0] == "M"
    assert "kept)" not in outcome.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--alphas", "4"), "--alphas was 3 and is 4"),
        (("--set", "scale=2"), "--set was not given and is scale=2"),
        (("--batch-norm", "stored"), "--batch-norm was reestimate and is stored"),
        (("--include", "first.*"), "--include was not given and is first.*"),
    ],
)
def test_an_option_of_barrier_that_has_changed_is_named(option: tuple[str, str], said: str, spectra: Fixture) -> None:
    Path("pairs.csv").write_text("run@0,run@10\n")
    spectra(*PAIRS)
    noted()
    outcome = spectra(*PAIRS, *option)
    assert f"barrier.parquet: all of it is made anew, as {said}." in outcome.err
    assert noted()[0] == "M"


@BOTH
def test_code_that_has_changed_is_named(command: tuple[str, ...], spectra: Fixture) -> None:
    spectra(*command)
    Path("own.py").write_text(CODE.replace("class Noted", "# better\nclass Noted"))
    outcome = spectra(*command)
    assert "all of it is made anew, as the code of --task has changed: own.py." in outcome.err
    assert "M" in noted()[1:], "the first was the first run's"


@pytest.mark.parametrize("option", [(), ("--verify",)], ids=["by time", "verified"])
def test_a_module_that_the_code_imports_is_code_and_others_are_not(option: tuple[str, ...], spectra: Fixture) -> None:
    Path("parts").mkdir()
    konst = Path("parts/konst.py")
    konst.write_text("K = 1")
    Path("own.py").write_text(f"from parts.konst import K\n{CODE}")
    spectra(*PRUNE)
    noted()
    Path("other.py").write_text("K = 3")
    Path("parts/other.py").write_text("K = 3")
    assert "(3 kept)" in spectra(*PRUNE, *option).err
    assert noted() == ""
    konst.write_text("K = 2")
    assert "made anew, as the code of --task has changed: parts/konst.py." in spectra(*PRUNE, *option).err
    assert noted() == "M" + "e" * sum(_evaluations(PRUNE_SVA))
    Path("own.py").write_text(f"from other import K\n{CODE}")
    told = spectra(*PRUNE, *option).err
    assert "the code of --task has changed: own.py; has new: other.py; lacks now: parts/konst.py." in told


def test_an_unrelated_file_beside_the_code_does_not_keep_an_interrupted_run_from_going_on(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped_after(1, spectra, PRUNE_SVA, monkeypatch)
    noted()
    Path("notes.py").write_text("K = 3")
    assert spectra(*PRUNE_SVA).status == 0
    assert noted() == "M" + "e" * sum(_evaluations(PRUNE_SVA)[1:])


def test_an_interrupted_run_whose_code_has_changed_is_told_by_its_file(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stopped_after(1, spectra, PRUNE_SVA, monkeypatch)
    Path("own.py").write_text(f"# better\n{CODE}")
    outcome = spectra(*PRUNE_SVA)
    assert outcome.status == 1
    assert "the code of --task has changed: own.py. Give the settings that it had" in outcome.err


def test_a_file_deep_in_the_data_and_one_that_an_option_names_are_looked_at(spectra: Fixture) -> None:
    """The name of a file in the working directory has no slash."""
    deep = Path("data/speaker/chapter/one.txt")
    deep.parent.mkdir(parents=True)
    deep.write_text("1")
    Path("table.json").write_text("1")
    Path("own.py").write_text(CODE.replace("scale: float = 1.0", 'table: str = ""'))
    line = (*PRUNE, "--data", "data", "--set", "table=table.json")
    for changed in (deep, Path("table.json")):
        spectra(*line)
        noted()
        assert "(3 kept)" in spectra(*line).err
        changed.write_text("22")
        assert "kept)" not in spectra(*line).err
        assert noted()[0] == "M"


@BOTH
def test_a_step_that_is_told_by_another_file_is_not_stale(command: tuple[str, ...], spectra: Fixture) -> None:
    """Columns that name a checkpoint depend on more than the bytes of its weights."""
    best = Path("run/best")
    best.mkdir()
    Path("run/step_20.pt").rename(best / "pytorch_model.bin")
    Path("pairs.csv").write_text("run@0,run/best\n")
    for step in (100, 999):
        (best / "trainer_state.json").write_text(json.dumps({"global_step": step, "epoch": 1.0}))
        assert spectra(*command).status == 0
    again = contents(command)
    assert again == fresh(spectra, command)
    steps = {value for row in again[0] for name, value in row.items() if name in {"step", "step_b"}}
    assert 999 in steps


def test_the_same_file_by_another_path_is_the_same_task(spectra: Fixture) -> None:
    spectra(*PRUNE)
    noted()
    other = [str(Path("own.py").resolve()) + ":make" if part == "own.py:make" else part for part in PRUNE]
    assert "(3 kept)" in spectra(*other).err
    assert noted() == ""


def test_a_run_json_that_has_changed_is_heard_for_its_run_only(spectra: Fixture) -> None:
    """What else stands in it than the task, its options and the seed is no matter."""
    Path("runs").mkdir()
    Path("run").rename("runs/a")
    Path("runs/b").mkdir()
    Path("runs/b/step_0.pt").write_bytes(Path("runs/a/step_0.pt").read_bytes())
    said = {"task": "own.py:make", "options": {"scale": 1}, "training": {"torch": "2.6"}}
    for run in "ab":
        Path(f"runs/{run}/run.json").write_text(json.dumps(said))
    command = ("prune-eval", "runs", *PRUNE[2:])
    assert spectra(*command).status == 0
    noted()
    Path("runs/a/run.json").write_text(json.dumps(said | {"training": {"torch": "2.7"}}))
    assert "(4 kept)" in spectra(*command).err
    for change in ({"options": {"scale": 3}}, {"seed": 4}):
        said |= change
        Path("runs/b/run.json").write_text(json.dumps(said))
        assert "from 4 checkpoints (3 kept)" in spectra(*command).err
        assert noted().count("M") == 1


@BOTH
@pytest.mark.parametrize("directory", [False, True])
def test_data_that_have_changed_are_evaluated_on_again(
    command: tuple[str, ...], directory: bool, spectra: Fixture
) -> None:
    """A file by its size and time, a directory by what lies in it."""
    data = Path("data/numbers.txt")
    data.parent.mkdir()
    data.write_text("1")
    command = (*command, "--data", "data" if directory else str(data))
    assert spectra(*command).status == 0
    noted()
    assert "(3 kept)" in spectra(*command).err
    data.write_text("12")
    assert "kept)" not in spectra(*command).err
    assert noted()[0] == "M"


# verified


@BOTH
def test_verify_finds_weights_that_have_changed_under_the_same_size_and_time(
    command: tuple[str, ...], spectra: Fixture
) -> None:
    path = Path("run/step_10.pt")
    spectra(*command)
    before = path.stat()
    save(10, seed=77)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    noted()
    assert "(3 kept)" in spectra(*command).err
    outcome = spectra(*command, "--verify")
    assert noted().count("M") == 1
    assert "(2 kept)" in outcome.err if command == PRUNE_SVA else "(1 kept)" in outcome.err
    assert "(3 kept)" in spectra(*command, "--verify").err
    assert noted() == "", "what is as it was is told without the task"
    assert contents(command) == fresh(spectra, command)


# interrupted


@BOTH
@pytest.mark.parametrize("finished", [0, 1, 2])
def test_what_was_finished_before_an_interruption_is_not_done_again(
    command: tuple[str, ...], finished: int, spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(spectra, command)
    for name in TABLES[command]:
        Path(name).unlink()
    outcome = _stopped_after(finished, spectra, command, monkeypatch)
    noun = "checkpoints" if command == PRUNE_SVA else "pairs"
    said = f"{finished} of 3 {noun} are finished and kept" if finished else "nothing new is finished"
    assert f"Error: interrupted: {said}" in outcome.err
    assert not any(Path(name).exists() for name in TABLES[command])
    noted()
    again = spectra(*command)
    assert again.status == 0
    assert noted() == "M" + "e" * sum(_evaluations(command)[finished:])
    assert contents(command) == expected


def _stopped_after(finished: int, spectra: Fixture, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a command did that was interrupted when it had finished some of its units."""
    worker: Any = Pruner if command == PRUNE_SVA else Interpolator
    work = worker.outcomes

    def stopped(self: Any, chunk: Chunk) -> Iterator[Outcome]:
        for number, outcome in enumerate(work(self, chunk)):
            if number == finished:
                raise KeyboardInterrupt
            yield outcome

    with monkeypatch.context() as patch:
        patch.setattr(worker, "outcomes", stopped)
        outcome = spectra(*command)
    assert outcome.status == 130
    return outcome


def _evaluations(command: tuple[str, ...]) -> list[int]:
    """Batches that each unit takes; the output layer of a model is told with one."""
    return [2 * BATCHES + 1] * 3 if command == PRUNE_SVA else [3 * BATCHES] * 3


# elsewhere


@BOTH
def test_two_workers_make_the_rows_of_one(command: tuple[str, ...], spectra: Fixture) -> None:
    """Each of a few processes; the task's code is loaded in each, from the path on the command line."""
    expected = fresh(spectra, command)
    outcome = spectra(*command, "--fresh", "--workers", "2")
    assert outcome.status == 0
    assert noted().count("M") in {1, 2}
    assert contents(command) == expected
    assert "(3 kept)" in spectra(*command).err


def test_a_task_that_raises_in_a_worker_ends_the_work_with_its_own_line(spectra: Fixture) -> None:
    Path("own.py").write_text(CODE.replace("return super", "return batch.nope and super"))
    outcome = spectra(*PRUNE, "--workers", "2")
    assert outcome.status == 1
    assert re.search(r"own\.py, line 12, in metrics: return batch\.nope .*AttributeError", outcome.err)
    assert not Path("prune_eval.parquet").exists()


def test_a_run_that_goes_on_is_followed(spectra: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every look, only what is new is evaluated."""
    looks: list[str] = []

    def sleep(_seconds: float) -> None:
        looks.append(noted())
        if len(looks) == 3:
            raise KeyboardInterrupt
        save(20 + 10 * len(looks))

    monkeypatch.setattr("spectra_cli.cli.watching.time.sleep", sleep)
    outcome = spectra(*PRUNE_SVA, "--watch", "60")
    assert outcome.status == 0
    one = "e" * (2 * BATCHES + 1)
    assert looks == ["M" + 3 * one, "M" + one, "M" + one]
    assert contents(PRUNE_SVA) == fresh(spectra, PRUNE_SVA)


# pairs of one name


def test_a_pair_that_is_listed_twice_has_its_rows_twice_however_often_it_is_run(spectra: Fixture) -> None:
    """Whichever lines the file had before."""
    once, twice = "run@0,run@10\nrun@10,run@20\n", "run@0,run@10\nrun@10,run@20\nrun@0,run@10\n"
    Path("pairs.csv").write_text(twice)
    expected = {twice: fresh(spectra, PAIRS_ALL)}
    Path("pairs.csv").write_text(once)
    expected[once] = fresh(spectra, PAIRS_ALL)
    barriers = [expected[content][0] for content in (once, twice)]
    assert barriers[1] == barriers[0] + barriers[0][: len(barriers[0]) // 2]
    for content, kept in ((twice, 1), (twice, 1), (once, 1), (once, 2), (twice, 1)):
        Path("pairs.csv").write_text(content)
        outcome = spectra(*PAIRS_ALL)
        assert f"({kept} kept)" in outcome.err
        assert contents(PAIRS_ALL) == expected[content]


def test_a_pair_that_could_not_be_used_is_looked_at_again(spectra: Fixture) -> None:
    Path("pairs.csv").write_text("run@0,run@10\nrun@10,later.pt\n")
    first = spectra(*PAIRS_ALL)
    assert (first.status, first.err.count("Warning: later.pt")) == (3, 1)
    again = spectra(*PAIRS_ALL)
    assert (again.status, again.err.count("Warning: later.pt")) == (3, 1)
    assert "(1 kept)" in again.err
    Path("later.pt").write_bytes(Path("run/step_20.pt").read_bytes())
    noted()
    assert spectra(*PAIRS_ALL).status == 0
    assert noted() == "M" + "e" * 3 * BATCHES
    assert contents(PAIRS_ALL) == fresh(spectra, PAIRS_ALL)


def test_columns_that_a_file_of_pairs_adds_come_to_rows_that_are_kept(spectra: Fixture) -> None:
    lines = Path("pairs.csv").read_text().splitlines()
    spectra(*PAIRS_ALL)
    noted()
    Path("pairs.csv").write_text("a,b,note\n" + "".join(f"{line},{number}\n" for number, line in enumerate(lines)))
    assert "(3 kept)" in spectra(*PAIRS_ALL).err
    assert noted() == ""
    for rows in contents(PAIRS_ALL):
        assert list(dict.fromkeys(row["note"] for row in rows)) == ["0", "1", "2"]
    assert contents(PAIRS_ALL) == fresh(spectra, PAIRS_ALL)


def test_pairs_whose_rows_go_are_counted_and_named_as_pairs(spectra: Fixture) -> None:
    """Also one of which a checkpoint was never found, by its PATH."""
    lines = Path("pairs.csv").read_text()
    Path("pairs.csv").write_text(f"{lines}run@0,absent.pt\n")
    assert json.loads(spectra(*PAIRS, "--json").out)["dropped"] == 0
    Path("pairs.csv").write_text(lines)
    done = spectra(*PAIRS, "--json")
    assert json.loads(done.out)["dropped"] == 1
    assert "its rows go: run@step_0.pt and absent.pt." in done.err
    Path("pairs.csv").write_text("run@10,run@20\n")
    done = spectra(*PAIRS, "--json")
    told = json.loads(done.out)
    assert (told["kept"], told["dropped"]) == (1, 2)
    assert [problem.partition(" ")[0] for problem in told["problems"]] == ["2"]
    names = ("run@step_0.pt and run@step_10.pt", "run@step_0.pt and run@step_20.pt")
    assert f"their rows go: {', '.join(names)}." in done.err


@BOTH
def test_a_summary_for_programs_counts_the_same_of_checkpoints_as_of_pairs(
    command: tuple[str, ...], spectra: Fixture
) -> None:
    told = json.loads(spectra(*command, "--json").out)
    assert {"kept", "dropped", "problems"} < told.keys()
    assert [each["table"] for each in told["tables"]] == [
        name.replace("spectra.", "barrier_spectra.").removesuffix(".parquet") for name in TABLES[command]
    ]
