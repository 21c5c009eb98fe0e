"""`--watch` follows runs that go on: rows come with checkpoints, half-written ones are waited for, bad ones are named.

Time passes only between the looks of a script: what happens to the run between two looks is a step of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spectra_cli.cli import watching
from spectra_cli.execution.executors import placement
from spectra_cli.execution.incremental.filling import Filling
from spectra_cli.execution.incremental.ledger import Ledger
from spectra_cli.execution.incremental.patience import ATTEMPTS
from spectra_cli.execution.incremental.tableoutput import TableOutput
from spectra_cli.execution.trajectory import openedcheckpoints
from spectra_cli.tables.journal import Journal
from tests.analyses.formulas import chain, save
from tests.cli.test_altered_rows import rewritten, with_cell
from tests.cli.trajectories import (
    SIZES,
    AtCheckpoint,
    assert_same,
    counted,
    listed,
    outputs,
    read,
    rewrite,
    start,
    states,
    step,
    trajectory,
    until,
)

Fixture = Callable[..., Any]
Step = Callable[[], object]
MATRICES = len(SIZES) - 1
ALTERED_AND_GONE = "what the table has of it is not as spectra wrote it"


def nothing() -> None:
    """Nothing happens between two looks."""


@pytest.fixture
def watched(spectra: Fixture, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    """Watch with one step of a script after each look, and Ctrl-C after the last; not where it is to end by itself."""

    def watch(script: Sequence[Step], *line: str | Path, ends_itself: bool = False) -> Any:
        steps = iter(script)

        def sleep(seconds: float) -> None:
            assert seconds == 60
            happens = next(steps, None)
            if happens is None and ends_itself:
                pytest.fail("it waits for another look")
            if happens is None:
                raise KeyboardInterrupt
            happens()

        monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=sleep, strftime=time.strftime))
        done = spectra(*line, "--watch", "60")
        assert next(steps, None) is None, f"it ended before the script: {done}"
        assert "fault of spectra" not in done.err
        return done

    return watch


def warnings(done: Any) -> list[str]:
    """Lines that warn."""
    return [line for line in done.err.splitlines() if line.startswith("Warning: ")]


def progress(done: Any) -> list[str]:
    """What is told of looks that have found something, without the time."""
    return [
        line.partition(" ")[2] for line in done.err.splitlines() if re.match(r"\d\d:\d\d:\d\d \d+ checkpoint", line)
    ]


def steps_in(path: str | Path) -> set[int]:
    """Steps of which there are rows."""
    return set(read(Path(path))["step"].to_pylist()) if Path(path).exists() else set()


def rows(path: str | Path) -> list[dict[str, Any]]:
    """Of a table."""
    found: list[dict[str, Any]] = read(Path(path)).to_pylist()
    return found


def statuses_of(path: str, number: int) -> list[str]:
    """Of the rows of a step."""
    return [row["status"] for row in rows(path) if row["step"] == number]


# A run that goes on


@pytest.mark.parametrize(
    "line",
    [["rank"], ["align"], ["sva", "--reference", "first"], ["analyze", "--reference", "previous"]],
    ids=["rank", "align", "sva", "analyze"],
)
def test_rows_come_with_checkpoints(spectra: Fixture, watched: Fixture, line: list[str]) -> None:
    """Each is opened once, and the references again; when it ends, the table is that of a fresh run."""
    run, seen = trajectory(), list[set[int]]()
    first = next(iter(outputs(line[0], "out").values()))
    with counted() as work:

        def another(number: int) -> Step:
            def happen() -> None:
                seen.append(steps_in(first))
                rewrite(run, number, seed=number)
                work.forget()

            return happen

        def check() -> None:
            seen.append(steps_in(first))
            assert work.opened.count(step(run, 500).name) == 1
            assert len(work.opened) <= 2
            work.forget()

        done = watched([another(400), another(500), check, nothing], *line, run, "--out", "out", "--json")
        assert work.opened == []
    assert done.status == 0
    assert [500 in each for each in seen] == [False, False, True]
    assert [400 in each for each in seen] == [False, True, True]
    assert progress(done) == [
        "4 checkpoints done, 4 in all",
        "1 checkpoint done, 5 in all",
        "1 checkpoint done, 6 in all",
    ]
    assert "out" in done.err.splitlines()[-1]
    assert json.loads(done.out)
    assert warnings(done) == []
    assert spectra(*line, run, "--out", "fresh").status == 0
    assert_same(line[0], "out", "fresh")
    assert not [name for name in [*listed("."), *(listed("out") if line[0] == "analyze" else [])] if name[0] == "."]


def test_a_look_that_finds_nothing_new_leaves_the_files_alone(watched: Fixture) -> None:
    run, before = trajectory(), list[Any]()
    watched(
        [lambda: before.append(states("analyze", "out")), nothing, lambda: before.append(states("analyze", "out"))],
        *("analyze", run, "--reference", "first", "--out", "out"),
    )
    assert before[0] == before[1] == states("analyze", "out")


def test_it_begins_before_there_is_a_checkpoint(spectra: Fixture, watched: Fixture) -> None:
    """No directory, an empty one, one with a log: told once each, until there is something."""
    run = Path("run")
    script = [nothing, run.mkdir, nothing, lambda: (run / "log.txt").write_text("epoch 0"), nothing]
    script += [lambda: save(step(run, 0), chain(SIZES, seed=1))]
    done = watched([*script, nothing], "rank", run, "--out", "out")
    assert done.status == 0
    assert len(warnings(done)) == len(set(warnings(done))) >= 2
    assert all("Looking again every 60 s." in line for line in warnings(done))
    assert progress(done) == ["1 checkpoint done, 1 in all"]
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


@pytest.mark.parametrize("line", [["sva", "--reference", "previous"], ["sva", "--reference", "100"]])
def test_it_begins_before_there_is_a_reference(spectra: Fixture, watched: Fixture, line: list[str]) -> None:
    run = trajectory(steps=(0,))
    done = watched([nothing, lambda: rewrite(run, 100, seed=3), nothing], *line, run, "--out", "out")
    assert done.status == 0
    assert len(warnings(done)) == 1
    assert spectra(*line, run, "--out", "fresh").status == 0
    assert_same("sva", "out", "fresh")


def test_checkpoints_that_a_run_removes_are_no_trouble(spectra: Fixture, watched: Fixture) -> None:
    """One that keeps its last three; also where one goes between being found and being opened."""
    run = trajectory(steps=(0, 1, 2))
    open_one, gone = openedcheckpoints.open_checkpoint, list[str]()

    def opening(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == step(run, 4).name and not gone:
            gone.append(path.name)
            path.unlink()
        return open_one(path, *arguments, **named)

    def rotate(number: int) -> Step:
        def happen() -> None:
            rewrite(run, number, seed=number)
            step(run, number - 3).unlink(missing_ok=True)

        return happen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openedcheckpoints, "open_checkpoint", opening)
        done = watched([rotate(number) for number in range(3, 8)], "rank", run, "--out", "out")
    assert gone
    assert (done.status, warnings(done)) == (0, [])
    assert progress(done)[-1].endswith("7 in all")
    assert [row["step"] for row in rows("out")] == sorted(row["step"] for row in rows("out"))
    assert steps_in("out") == {0, 1, 2, 3, 5, 6, 7}, "rows of checkpoints that are gone cannot be made again"
    for number in range(4):
        rewrite(run, number, seed=number)
    assert spectra("rank", run, "--out", "fresh").status == 0
    seeds_of_the_first = {0, 1, 2}
    made = [[row for row in rows(out) if row["step"] not in seeds_of_the_first] for out in ("out", "fresh")]
    assert made[0] == made[1]


def test_without_watching_rows_of_checkpoints_that_are_gone_go_and_that_is_told(spectra: Fixture) -> None:
    """The same where fewer are selected."""
    run = trajectory()
    assert spectra("rank", run, "--out", "out").status == 0
    step(run, 100).unlink()
    done = spectra("rank", run, "--out", "out", "--json")
    assert "1 checkpoint in the table is not among those of this command" in done.err
    assert step(run, 100).name in done.err
    assert json.loads(done.out)["dropped"] == 1
    again = spectra("rank", run, "--steps", "final", "--out", "out", "--json")
    assert "2 checkpoints in the table are not among those of this command" in again.err
    assert json.loads(again.out)["dropped"] == 2
    assert json.loads(spectra("rank", run, "--steps", "final", "--out", "out", "--json").out)["dropped"] == 0


@pytest.mark.parametrize("column", ["singular_values", "stable_rank"])
def test_rows_of_a_checkpoint_that_is_gone_are_kept_only_as_they_were_written(
    spectra: Fixture, watched: Fixture, column: str
) -> None:
    """Else they go, which is told, whether or not a summary looks at the column: they cannot be made again."""
    run = trajectory()

    def change() -> None:
        step(run, 100).unlink()
        rewritten(Path("out"), with_cell(column, MATRICES, [1.0] if column == "singular_values" else 0.125))
        rewrite(run, 400, seed=4)

    done = watched([change, nothing], "rank", run, "--out", "out")
    assert done.status == 0
    (told,) = [line for line in done.err.splitlines() if ALTERED_AND_GONE in line]
    assert told.endswith(f"its rows go: {step(run, 100).name}.")
    assert progress(done) == ["4 checkpoints done, 4 in all", "1 checkpoint done, 4 in all"]
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_a_run_that_is_removed_is_told_and_waited_for(spectra: Fixture, watched: Fixture) -> None:
    run = trajectory()
    script = [lambda: run.rename("away"), nothing, lambda: Path("away").rename(run), nothing]
    done = watched(script, "rank", run, "--out", "out")
    assert done.status == 0
    assert len(warnings(done)) == 1
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


# Checkpoints that are not whole


def halves(path: Path, pieces: int) -> list[Step]:
    """A checkpoint that is written in several pieces, one after each look."""
    whole = save(Path("elsewhere") / path.name, chain(SIZES, seed=17)).read_bytes()
    size = -(-len(whole) // pieces)
    return [lambda until=until: path.write_bytes(whole[:until]) for until in range(size, len(whole) + size, size)]


def test_a_checkpoint_that_grows_is_not_named(spectra: Fixture, watched: Fixture) -> None:
    """However many looks it takes."""
    run, seen = trajectory(), list[set[int]]()
    script: list[Step] = []
    for piece in halves(step(run, 400), pieces=6):
        script += [piece, lambda: seen.append(steps_in("out"))]
    done = watched(script, "rank", run, "--out", "out", "--json")
    assert (done.status, warnings(done), json.loads(done.out)["problems"]) == (0, [], [])
    assert [400 in steps for steps in seen] == [False] * 5 + [True]
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_a_checkpoint_whose_shards_come_one_by_one_is_not_named(spectra: Fixture, watched: Fixture) -> None:
    """The index comes first; with it every shard is promised."""
    run, sharded, weights = trajectory(), Path("run/step_400"), chain(SIZES, seed=5)
    index = {name: f"{place}.safetensors" for place, name in enumerate(weights)}

    def begin() -> None:
        sharded.mkdir()
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))

    shards = [lambda name=name: save(sharded / index[name], {name: weights[name]}) for name in weights]
    line = ["analyze", "--reference", "first"]
    done = watched([begin, nothing, *shards, nothing], *line, run, "--out", "out")
    assert (done.status, warnings(done)) == (0, [])
    assert spectra(*line, run, "--out", "fresh").status == 0
    assert_same("analyze", "out", "fresh")


@pytest.mark.parametrize(
    "line",
    [["rank"], ["sva", "--reference", "first"], ["analyze", "--reference", "previous"]],
    ids=lambda line: line[0],
)
def test_a_bad_checkpoint_is_named_once_and_gets_its_row(spectra: Fixture, watched: Fixture, line: list[str]) -> None:
    """After some looks at files that do not change; then it is let be until they do."""
    run, named = trajectory(), list[int]()
    step(run, 100).write_bytes(b"\xff" * 100)
    table = outputs(line[0], "out")[line[0] if line[0] != "analyze" else "rank"]
    times, opened = list[int](), list[int]()
    with counted() as work:

        def look() -> None:
            named.append(100 in steps_in(table))
            times.append(table.stat().st_mtime_ns)
            opened.append(work.opened.count(step(run, 100).name))

        done = watched([look] * (ATTEMPTS + 3), *line, run, "--out", "out", "--json")
    assert named == [False] * (ATTEMPTS - 1) + [True] * 4
    assert len(set(times[ATTEMPTS - 1 :])) == 1
    assert len(set(opened[ATTEMPTS - 1 :])) == 1
    assert done.status == 3
    of_it = [line for line in warnings(done) if step(run, 100).name in line and "cannot be used" not in line]
    assert len(of_it) == 1
    assert len(warnings(done)) == len(set(warnings(done)))
    assert progress(done)[0] == "3 checkpoints done, 3 in all; 1 checkpoint not complete yet, waited for"
    assert progress(done)[-1].endswith("1 checkpoint given up, until the files change")
    assert 2 <= len(progress(done)) <= ATTEMPTS
    again = spectra(*line, run, "--out", "fresh", "--json")
    assert again.status == 3
    assert_same(line[0], "out", "fresh")
    assert json.loads(done.out)["problems"] == json.loads(again.out)["problems"]


def test_a_bad_checkpoint_stays_a_problem_as_long_as_it_has_its_row(watched: Fixture) -> None:
    """Whatever comes later, and when its file is gone; not when it has been mended."""
    run, other = trajectory(), Path("other")
    trajectory(other)
    for bad in (step(run, 100), step(other, 100)):
        bad.write_bytes(b"\xff" * 100)
    script = [nothing] * ATTEMPTS + [lambda: rewrite(run, 400, seed=4), step(run, 100).unlink]
    done = watched([*script, nothing, lambda: rewrite(other, 100, seed=5), nothing], "rank", run, other, "--json")
    (problem,) = json.loads(done.out)["problems"]
    assert problem.startswith(f"{step(run, 100)}: ")
    assert done.status == 3


def test_what_was_wrong_with_a_checkpoint_that_was_mended_does_not_come_back_when_it_goes(watched: Fixture) -> None:
    """Its rows are kept, and they are good."""
    run = trajectory()
    step(run, 100).write_bytes(b"\xff" * 100)
    script = [nothing] * ATTEMPTS + [lambda: rewrite(run, 100, seed=4), step(run, 100).unlink, nothing]
    done = watched(script, "rank", run, "--out", "out", "--json")
    assert (done.status, json.loads(done.out)["problems"]) == (0, [])
    assert steps_in("out") == {0, 100, 200, 300}
    assert {row["status"] for row in rows("out")} == {"ok"}


def test_a_bad_checkpoint_that_is_mended_gets_its_rows(spectra: Fixture, watched: Fixture) -> None:
    run = trajectory()
    step(run, 100).write_bytes(b"\xff" * 100)
    done = watched([nothing] * ATTEMPTS + [lambda: rewrite(run, 100, seed=4), nothing], "rank", run, "--out", "out")
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")
    assert done.status == 0


@pytest.mark.parametrize("line", [["rank"], ["analyze", "--reference", "first"]], ids=["rank", "analyze"])
def test_a_first_checkpoint_that_is_bad_does_not_end_it(spectra: Fixture, watched: Fixture, line: list[str]) -> None:
    """Nothing can be done with it alone; it is named, and the next ones are waited for."""
    run = trajectory(steps=(0,))
    step(run, 0).write_bytes(b"\xff" * 100)
    script = [nothing] * (ATTEMPTS + 1) + [lambda: rewrite(run, 100, seed=4), nothing]
    done = watched(script, *line, run, "--out", "out")
    assert done.status == 3
    assert any(step(run, 0).name in line for line in warnings(done))
    assert len(warnings(done)) == len(set(warnings(done)))
    assert spectra(*line, run, "--out", "fresh").status == 3
    assert_same(line[0], "out", "fresh")


def test_a_checkpoint_that_is_waited_for_and_goes_is_forgotten(watched: Fixture) -> None:
    run = trajectory()
    step(run, 100).write_bytes(b"\xff" * 100)
    script = [lambda: step(run, 100).unlink(), lambda: rewrite(run, 400, seed=4), nothing]
    done = watched(script, "rank", run, "--out", "out")
    assert (done.status, warnings(done)) == (0, [])
    assert progress(done) == [
        "3 checkpoints done, 3 in all; 1 checkpoint not complete yet, waited for",
        "1 checkpoint done, 4 in all",
    ]


def test_nothing_but_checkpoints_that_are_waited_for_makes_no_table(watched: Fixture) -> None:
    """When it ends then, it says that there is none."""
    run = trajectory(steps=(0,))
    step(run, 0).write_bytes(b"\xff" * 100)
    done = watched([nothing], "rank", run, "--out", "out")
    assert done.status == 130
    assert "no table was written" in done.err
    assert listed(".") == ["run"]


# Its end


def test_ctrl_c_in_the_midst_of_a_look_ends_with_the_last_table(spectra: Fixture, watched: Fixture) -> None:
    """What that look has finished is kept for the next run."""
    run = trajectory()
    put, count = Journal.put, 0

    def putting(self: Journal, *arguments: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        put(self, *arguments, **named)
        if count == 6:
            raise KeyboardInterrupt

    def three_more() -> None:
        for number in (400, 500, 600):
            rewrite(run, number, seed=number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "put", putting)
        done = watched([three_more], "rank", run, "--out", "out", "--json")
    assert done.status == 0
    assert json.loads(done.out)["rows"] == 4 * MATRICES
    assert steps_in("out") == {0, 100, 200, 300}
    with counted() as work:
        assert spectra("rank", run, "--out", "out").status == 0
    assert len(work.opened) in {1, 2}  # the sixth that was put may not have been told
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_ctrl_c_after_a_look_has_written_its_tables_ends_with_those(
    spectra: Fixture, watched: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal in the midst of their being put into their places waits until all are there; no look comes after."""
    run, line = trajectory(), ["analyze", "--reference", "first"]
    publish, published = TableOutput.publish, 0

    def publishing(self: TableOutput) -> None:
        nonlocal published
        publish(self)
        published += 1
        if published == 4:  # the first of the second look
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableOutput, "publish", publishing)
        script = [lambda: rewrite(run, 400, seed=4)]
        done = watched(script, *line, run, "--out", "out", "--json", ends_itself=True)
    assert done.status == 0
    assert next(table["rows"] for table in json.loads(done.out)["tables"]) == 5 * MATRICES
    assert "rows from 5 checkpoints" in done.err.splitlines()[-1]
    assert all(400 in steps_in(path) for path in outputs("analyze", "out").values())
    assert spectra(*line, run, "--out", "fresh").status == 0
    assert_same("analyze", "out", "fresh")


def test_ctrl_c_when_all_is_written_does_not_say_that_it_is_not(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Ledger) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "settle", interrupt)
    done = spectra("rank", trajectory(), "--out", "out")
    assert done.status == 130
    assert "interrupted: the tables are written, with 4 of 4 checkpoints.\n" in done.err
    assert steps_in("out") == {0, 100, 200, 300}


def test_ctrl_c_when_nothing_but_failures_is_finished_does_not_ask_to_go_on_from_there(
    spectra: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried again the next time, so that nothing is gained."""
    run, put, count = trajectory(), Filling._put, 0
    for number in (0, 100, 200):
        step(run, number).write_bytes(b"\xff" * 100)

    def putting(self: Filling, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        put(self, *arguments)

    monkeypatch.setattr(Filling, "_put", putting)
    done = spectra("rank", run, "--out", "out")
    assert (done.status, count) == (130, 3)
    assert done.err.splitlines()[-1] == "Error: interrupted: nothing new is finished."


def test_ctrl_c_before_there_is_a_table_says_so(watched: Fixture) -> None:
    done = watched([nothing], "rank", "run", "--out", "out")
    assert done.status == 130
    assert "interrupted: no table was written" in done.err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_that_watches_a_growing_run(spectra: Fixture, sent: int) -> None:
    """Status 0 and the closing table; meanwhile, somebody writes slowly, renames, and writes in place."""
    run = Path("run")
    command = start("rank", run, "--watch", "0.05", "--out", "out", "--json")
    until(lambda: "Looking again" in command.err)
    for number in range(4):
        whole = save(Path("elsewhere") / f"{number}", chain(SIZES, seed=number + 1)).read_bytes()
        run.mkdir(exist_ok=True)
        if number % 2:
            with step(run, number).open("wb") as file:
                for start_of in range(0, len(whole), 500):
                    file.write(whole[start_of : start_of + 500])
                    file.flush()
                    time.sleep(0.01)
        else:
            (run / ".partial").write_bytes(whole)
            (run / ".partial").rename(step(run, number))
        until(lambda number=number: f", {number + 1} in all" in command.err)
        until(lambda number=number: statuses_of("out", number) == ["ok"] * MATRICES)  # it may have been bad for a while
    command.send(sent)
    assert command.ended() == 0
    assert "out: 12 rows from 4 checkpoints" in command.err
    assert json.loads(command.printed.read_text())["rows"] == 4 * MATRICES
    assert "Traceback" not in command.err
    assert listed(".") == ["elsewhere", "out", "run"]
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


# What it does not do


@pytest.mark.parametrize(
    "line",
    [
        ["sva"],
        ["analyze"],
        ["sva", "--reference", "final"],
        ["rank", "--fresh"],
    ],
    ids=" ".join,
)
def test_what_would_be_made_anew_at_every_look_is_a_usage_error(spectra: Fixture, line: list[str]) -> None:
    done = spectra(*line, trajectory(), "--watch", "60")
    assert done.status == 2
    assert "--watch" in done.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_seconds_that_are_none_are_a_usage_error(spectra: Fixture, seconds: str) -> None:
    assert spectra("rank", trajectory(), "--watch", seconds).status == 2


def test_a_table_that_is_being_made_is_left_to_its_maker(
    spectra: Fixture, watched: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first look that is the end; later, somebody may have been faster than the next look, and is done soon."""
    monkeypatch.setattr(Ledger, "held", lambda _: nullcontext())
    run = trajectory()
    command = start("rank", run, "--out", "out", befalls=AtCheckpoint(2, "wait"))
    until(Path("waiting").exists)
    done = spectra("rank", run, "--out", "out", "--watch", "60")
    assert done.status == 1
    assert f"process {command.process.pid} on " in done.err
    Path("go").touch()
    assert command.ended() == 0
    with ExitStack() as stack:

        def taken() -> None:
            stack.enter_context(
                Journal.open(Path(".out.journal").resolve(), "rank", {"command": "spectra rank", "match": {}})
            )
            rewrite(run, 400, seed=4)

        done = watched([taken, nothing, stack.close, nothing], "rank", run, "--out", "out")
    assert done.status == 0
    assert len(warnings(done)) == 1
    assert f"process {os.getpid()} on " in warnings(done)[0]
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")


def test_another_command_is_kept_away_between_two_looks(spectra: Fixture, watched: Fixture) -> None:
    """It would make rows of what is waited for, and the two would take turns with other settings."""
    run, said = trajectory(), list[str]()

    def come_between() -> None:
        said.append(spectra("rank", run, "--out", "out").err)

    assert watched([come_between, lambda: rewrite(run, 400, seed=4), nothing], "rank", run, "--out", "out").status == 0
    assert "is being made by" in said[0]
    assert steps_in("out") == {0, 100, 200, 300, 400}
    assert not list(Path().glob(".*.journal"))


def test_what_is_known_of_the_machine_is_asked_and_told_once(
    spectra: Fixture, watched: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every look: a cluster or a device is surveyed, and people are told that workers are idle."""
    run, place, asked = trajectory(steps=(0,)), placement.placement_of, list[str]()
    assert spectra("rank", run, "--out", "out").status == 0

    def placing(device: str, *arguments: Any) -> Any:
        asked.append(device)
        return place(device, *arguments)

    monkeypatch.setattr(placement, "placement_of", placing)
    done = watched([nothing] * 3, "rank", run, "--out", "out", "--workers", "2")
    assert (done.status, asked) == (0, ["auto"])
    assert done.err.count("--workers 2: there is 1 checkpoint") == 1


def test_quiet_is_quiet(watched: Fixture) -> None:
    run = trajectory()
    done = watched([lambda: rewrite(run, 400, seed=4), nothing], "rank", run, "--out", "out", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_a_table_that_somebody_removes_is_made_again(spectra: Fixture, watched: Fixture) -> None:
    run = trajectory()
    script = [lambda: Path("out").unlink(), nothing, lambda: shutil.copy(step(run, 0), step(run, 400)), nothing]
    assert watched(script, "rank", run, "--out", "out").status == 0
    assert spectra("rank", run, "--out", "fresh").status == 0
    assert_same("rank", "out", "fresh")
