"""What an interrupted or a watched work keeps, tells and counts of its units, unit by unit and table by table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spectra_cli.analyses.visits import Row
from spectra_cli.errors import InputError, UsageError
from spectra_cli.execution.executors.lostworkers import WorkerDiedError
from spectra_cli.execution.executors.placement import Placement
from spectra_cli.execution.incremental import ledger
from spectra_cli.execution.incremental.filling import Filling
from spectra_cli.execution.incremental.patience import ATTEMPTS, Patience
from spectra_cli.execution.incremental.tableoutput import TableOutput
from spectra_cli.execution.incremental.writing import Writing
from spectra_cli.execution.work.units import Assignment, Chunk, Outcome, Unit
from tests.cli.test_altered_rows import rewritten, with_cell
from tests.execution.jobs_done import Heard
from tests.execution.test_statuses_kept import Noting, PlantedError, PlantedJob

ALTERED = "not as spectra wrote them"
ODD = "b\udcff"
"""Name of a file that is no text."""


@dataclass(frozen=True)
class NamedUnits(PlantedJob):
    """Checkpoints that do as a test says.

    Attributes:
        names: of the checkpoints.
        makes: the tables.
        says: statuses of the rows of a checkpoint in a table, where they are not one ``ok``.
        states: of the files of a checkpoint for a table, where they are not the first; "" where they cannot be told.
        fails: why a checkpoint cannot be used.
        tags: further columns of the rows of a checkpoint.
        content: what the weights hash to, after the name of a checkpoint.
        asked: for which content a checkpoint was to be left as it is.
        begins: told the name of a checkpoint before its rows are made.
        kept: the statuses that were found, by the name of a checkpoint that was kept.
    """

    names: Sequence[str] = "abc"
    makes: tuple[str, ...] = ("rank",)
    says: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)  # type: ignore[assignment]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    content: str = "0"
    asked: list[str | None] = field(default_factory=list)
    begins: Callable[[str], None] = str
    kept: dict[str, list[str]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        return "planted"

    @property
    def tables(self) -> tuple[str, ...]:
        return self.makes

    @property
    def units(self) -> list[Unit]:
        return [
            Unit(index, ("run", name), "run", name, self.tags.get(name, {})) for index, name in enumerate(self.names)
        ]

    def fingerprint(self, unit: Unit, table: str) -> str:
        return self.states.get((unit.label, table), "first")

    def outcomes(self, chunk: Chunk) -> Iterator[Outcome]:
        for assignment in chunk:
            unit = self.units[assignment.index]
            self.begins(unit.label)
            self.asked.append(assignment.content)
            rows = {
                table: [
                    {**self.identity(unit, table), "status": status}
                    for status in self.says.get((unit.label, table), ["ok"])
                ]
                for table in assignment.tables
            }
            yield Outcome(assignment.index, rows, content=unit.label + self.content, error=self.fails.get(unit.label))  # type: ignore[arg-type]

    def remade(self, missing: Collection[str]) -> tuple[str, ...]:
        return tuple(table for table in self.tables if table in missing)

    def label(self, key: Sequence[str | None]) -> str:
        return str(key[1])

    def take_kept(self, unit: Unit, tables: Mapping[str, Sequence[Row]], *_: object) -> None:
        self.kept[unit.label] = [str(row["status"]) for rows in tables.values() for row in rows]


@dataclass
class Looked:
    """What has come of a work.

    Attributes:
        filling: of the tables.
        done: names of the checkpoints whose rows were made.
        heard: what was told.
    """

    filling: Filling
    done: list[str]
    heard: Heard

    @property
    def told(self) -> list[str]:
        """Notices and problems."""
        return [*self.heard.notices, *self.heard.problems]


def look(
    job: NamedUnits,
    out: Path,
    *,
    patience: Patience | None = None,
    executor: Noting | None = None,
    stops: bool = False,
    verify: bool = False,
) -> Looked:
    """Make the tables, unless it is interrupted."""
    noting, heard = executor or Noting(), Heard()
    tags = dict.fromkeys(tag for unit in job.units for tag in unit.tags)
    writing = Writing({table: str(out / table) for table in job.tables}, tags, verify=verify)
    filling = Filling(job, writing, Placement(noting, 1, 1, "cpu"), heard, command=["planted"], patience=patience)
    with suppress(KeyboardInterrupt) if stops else nullcontext():
        filling.fill(lambda *_: None)
    return Looked(filling, [job.names[index] for index in noting.given], heard)


def interrupt_at(name: str) -> Callable[[str], None]:
    def interrupt(begun: str) -> None:
        if begun == name:
            raise KeyboardInterrupt

    return interrupt


def rows_in(path: Path) -> list[tuple[str, str]]:
    """Checkpoint and status of the rows of a table."""
    return [(row["checkpoint"], row["status"]) for row in pq.read_table(path).to_pylist()]


# What an interrupted run has left


def test_what_is_wrong_with_rows_that_an_interrupted_run_has_left_is_told_when_it_goes_on(tmp_path: Path) -> None:
    """Else the end of the work would be silent about a checkpoint that the same command names when it is run again."""
    says = {("b", "rank"): ["ok", "not_finite"]}
    look(NamedUnits("rank", "", says=says, begins=interrupt_at("c")), tmp_path, stops=True)
    again = NamedUnits("rank", "", says=says)
    looked = look(again, tmp_path)
    assert looked.filling.filled.kept == 2
    assert again.kept["b"] == ["ok", "not_finite"]


def test_a_unit_of_which_an_interrupted_run_has_made_no_rows_is_done_and_does_not_count_as_kept_rows(
    tmp_path: Path,
) -> None:
    says = {("b", "rank"): list[str]()}
    look(NamedUnits("rank", "", says=says, begins=interrupt_at("c")), tmp_path, stops=True)
    looked = look(NamedUnits("rank", "", says=says), tmp_path)
    assert (looked.filling.filled.kept, looked.filling.filled.kept_of["rank"]) == (2, 1)


def test_rows_that_an_interrupted_run_has_left_are_made_anew_where_they_are_not_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not have the sums that are on record beside them."""
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "row_sums", lambda _: [1, "of other", "rows"])
        look(NamedUnits("rank", "", begins=interrupt_at("c")), tmp_path, stops=True)
    looked = look(NamedUnits("rank", ""), tmp_path)
    (told,) = looked.told
    assert told.startswith(f"{tmp_path / 'rank'}: 2 checkpoints are made anew")
    assert ALTERED in told
    assert sorted(rows_in(tmp_path / "rank")) == [("a", "ok"), ("b", "ok"), ("c", "ok")]
    assert look(NamedUnits("rank", ""), tmp_path).done == []


def test_rows_that_an_interrupted_run_has_left_do_not_stand_for_a_file_that_has_become_unreadable(
    tmp_path: Path,
) -> None:
    """Its new rows are not kept for another time, and are those of the table all the same."""
    look(NamedUnits("rank", "", begins=interrupt_at("c")), tmp_path, stops=True)
    broken = NamedUnits("rank", "", says={("b", "rank"): ["unreadable"]}, states={("b", "rank"): "second"})
    assert look(broken, tmp_path).done == ["b", "c"]
    assert rows_in(tmp_path / "rank") == [("a", "ok"), ("b", "unreadable"), ("c", "ok")]


def test_an_interrupted_run_that_has_finished_nothing_to_keep_leaves_nothing(tmp_path: Path) -> None:
    """Its rows are made again in any case; a journal of them would keep other settings away."""
    job = NamedUnits("rank", "", says={("a", "rank"): ["unreadable"]}, begins=interrupt_at("b"))
    looked = look(job, tmp_path, stops=True)
    assert (looked.filling.filled.finished, looked.filling.filled.to_repeat) == (1, 1)
    assert list(tmp_path.iterdir()) == []


# What is done again the next time


def test_rows_of_files_that_were_written_to_while_they_were_read_are_not_told_as_kept(tmp_path: Path) -> None:
    """They may be of the one state or of the other."""
    states = dict[tuple[str, str], str]()

    def write(name: str) -> None:
        if name == "b":
            states["b", "rank"] = "second"

    looked = look(NamedUnits("rank", "", states=states, begins=write), tmp_path)
    assert (looked.filling.filled.finished, looked.filling.filled.to_repeat) == (3, 1)
    assert look(NamedUnits("rank", "", states=states), tmp_path).done == ["b"]
    assert look(NamedUnits("rank", "", states=states), tmp_path).done == []


@pytest.mark.parametrize("bad", ["rank", "align"])
def test_a_unit_is_done_again_where_the_rows_of_one_of_its_tables_are(tmp_path: Path, bad: str) -> None:
    """Whichever it is: nobody is told that all of it is kept."""
    job = NamedUnits("rank", "", makes=("rank", "align"), says={("a", bad): ["unreadable"]})
    looked = look(job, tmp_path)
    assert (looked.filling.filled.finished, looked.filling.filled.to_repeat) == (3, 1)
    assert look(job, tmp_path).done == ["a"]


def test_weights_that_are_verified_are_those_of_all_tables(tmp_path: Path) -> None:
    """Where two tables were made of other weights each, nothing is left as it is, whatever is found."""
    names = [f"step {number}" for number in range(20)]
    look(NamedUnits("rank", "", names=names), tmp_path)
    look(NamedUnits("rank", "", names=names, makes=("rank", "align"), content="1"), tmp_path)
    verified = NamedUnits("rank", "", names=names, makes=("rank", "align"), content="1")
    for expected in ([""] * len(names), [f"{name}1" for name in names]):
        verified.asked.clear()
        look(verified, tmp_path, verify=True)
        assert verified.asked == expected


def test_a_tag_that_cannot_be_is_told_before_any_work(tmp_path: Path) -> None:
    """And not when hours of it are done."""
    noting = Noting()
    with pytest.raises(UsageError, match="a column of that name"):
        look(NamedUnits("rank", "", tags={"a": {"gini": "1"}}), tmp_path, executor=noting)
    assert noting.given == []


def test_no_table_is_put_into_its_place_before_all_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full at the last: those that are there are of one state of the run."""
    tables, finish = ("rank", "align"), TableOutput.finish
    look(NamedUnits("rank", "", makes=tables), tmp_path)
    finished = list[TableOutput]()

    def fail_at_last(output: TableOutput) -> None:
        if finished:
            raise InputError("the disk is full", where="align", remedy="Make room")
        finished.append(output)
        finish(output)

    with monkeypatch.context() as patch:
        patch.setattr(TableOutput, "finish", fail_at_last)
        with pytest.raises(InputError, match="the disk is full"):
            look(NamedUnits("rank", "", names="abcd", makes=tables), tmp_path)
    assert [len(rows_in(tmp_path / table)) for table in tables] == [3, 3]
    assert look(NamedUnits("rank", "", names="abcd", makes=tables), tmp_path).done == []
    assert [len(rows_in(tmp_path / table)) for table in tables] == [4, 4]


# Workers that die


class Dying(Noting):
    """Has the workers of each unit die; they could not say of which."""

    def outcomes(self, work: Any, chunks: Sequence[Chunk], sink: Any) -> Iterator[Outcome]:
        del work, sink
        for assignment in (each for chunk in chunks for each in chunk):
            yield self.lost(assignment)

    def lost(self, assignment: Assignment) -> Outcome:
        error = WorkerDiedError("its worker died", remedy="Give it more memory")
        return Outcome(assignment.index, {each: [{"status": error.status}] for each in assignment.tables}, error=error)


def test_a_unit_that_took_its_workers_down_is_named_in_its_rows_and_its_error(tmp_path: Path) -> None:
    told = list[str]()

    class Listening(NamedUnits):
        def take(self, outcome: Outcome) -> None:
            told.append(str(outcome.error))

    look(Listening("rank", "", makes=("rank", "sva")), tmp_path, executor=Dying())
    assert told == [f"{name}: its worker died. Give it more memory." for name in "abc"]
    for table in ("rank", "sva"):
        assert rows_in(tmp_path / table) == [(name, "worker_died") for name in "abc"]


# A run that is watched


def test_a_checkpoint_whose_error_changes_is_waited_for_where_its_files_cannot_be_told(tmp_path: Path) -> None:
    """A shard after the other may be coming; also where they can be told for one of the tables."""
    patience, fails = Patience(), dict[str, Exception]()
    states = {("b", "align"): ""}
    job = NamedUnits(
        "rank",
        fails,
        makes=("rank", "align"),
        says={("b", table): ["incomplete"] for table in ("rank", "align")},
        states=states,
        fails=fails,
    )
    for number in range(ATTEMPTS + 2):
        fails["b"] = PlantedError(f"{9 - number} shards are not there")
        looked = look(job, tmp_path, patience=patience)
        assert looked.filling.filled.waiting == 1
        assert rows_in(tmp_path / "rank") == [("a", "ok"), ("c", "ok")]
    for _ in range(ATTEMPTS):
        looked = look(job, tmp_path, patience=patience)
    assert looked.filling.filled.waiting == 0
    assert rows_in(tmp_path / "align") == [("a", "ok"), ("b", "incomplete"), ("c", "ok")]


def test_a_checkpoint_whose_rows_tell_of_another_one_is_not_waited_for(tmp_path: Path) -> None:
    """It could be used; its reference could not."""
    job = NamedUnits("sva", "", makes=("sva",), says={("b", "sva"): ["reference_unreadable"]})
    for done in (["a", "b", "c"], ["b"]):
        looked = look(job, tmp_path, patience=Patience())
        assert (looked.done, looked.filling.filled.waiting) == (done, 0)
        assert rows_in(tmp_path / "sva")[1] == ("b", "reference_unreadable")


def test_as_long_as_no_checkpoint_can_be_used_there_is_no_table(tmp_path: Path) -> None:
    fails: dict[str, Exception] = {"a": PlantedError("it is cut short")}
    job = NamedUnits("rank", "", names="a", says={("a", "rank"): ["unreadable"]}, fails=fails)
    assert look(job, tmp_path, patience=Patience()).filling.filled.waiting == 1
    assert list(tmp_path.iterdir()) == []


def found_bad(name: str, patience: Patience, out: Path) -> NamedUnits:
    """A watched run of which a checkpoint has been found to be bad, in two tables."""
    tables = ("rank", "align")
    job = NamedUnits(
        "rank",
        "",
        names=["a", name, "c"],
        makes=tables,
        says={(name, table): ["unreadable"] for table in tables},
        fails={name: PlantedError("it is cut short", where="there")},
    )
    for _ in range(ATTEMPTS):
        assert look(job, out, patience=patience).done.count(name) == 1
    return job


@pytest.mark.parametrize("name", ["b", ODD], ids=["text", "no text"])
def test_a_bad_checkpoint_is_let_be_and_its_error_told_at_each_look(tmp_path: Path, name: str) -> None:
    """Also at those after it has gone."""
    patience = Patience()
    job = found_bad(name, patience, tmp_path)
    looked = look(job, tmp_path, patience=patience)
    assert (looked.done, looked.heard.problems) == ([], ["there: it is cut short."])
    gone = NamedUnits("rank", "", names="ac", makes=("rank", "align"))
    assert look(gone, tmp_path, patience=patience).heard.problems == ["there: it is cut short."]


def test_a_bad_checkpoint_whose_rows_somebody_has_removed_from_one_table_gets_them_again(tmp_path: Path) -> None:
    patience = Patience()
    job = found_bad("b", patience, tmp_path)
    (tmp_path / "align").unlink()
    assert "b" in look(job, tmp_path, patience=patience).done
    for _ in range(ATTEMPTS):
        look(job, tmp_path, patience=patience)
    expected = [("a", "ok"), ("b", "unreadable"), ("c", "ok")]
    assert rows_in(tmp_path / "align") == rows_in(tmp_path / "rank") == expected


# Units that are kept in another order


def test_units_in_another_order_have_their_rows_in_that_order(tmp_path: Path) -> None:
    """As pairs of which a file has them so; nothing is done for it."""
    look(NamedUnits("rank", "", names="abc"), tmp_path)
    looked = look(NamedUnits("rank", "", names="cab"), tmp_path)
    assert (looked.done, [name for name, _ in rows_in(tmp_path / "rank")]) == ([], ["c", "a", "b"])


def test_tags_of_units_that_have_changed_come_to_rows_that_are_kept(tmp_path: Path) -> None:
    """As those of pairs, of which a file says something else by now."""
    for notes in ("xyz", "xyy"):
        tags = {name: {"note": note} for name, note in zip("abc", notes, strict=True)}
        looked = look(NamedUnits("rank", "", tags=tags), tmp_path)
        assert pq.read_table(tmp_path / "rank")["note"].to_pylist() == list(notes)
    assert looked.done == []


# Units that are gone


@pytest.mark.parametrize(
    ("there", "now", "expected"),
    [
        ("abcd", "cd", "abcd"),
        ("abcd", "ad", "abcd"),
        ("abcd", "ab", "abcd"),
        ("abcd", "bxc", "abxcd"),
        ("abcd", "cb", "acdb"),
        (["a", ODD, "c"], ["a", ODD], ["a", r"b\udcff", "c"]),
    ],
    ids=["first", "middle", "last", "new", "order", "no text"],
)
def test_rows_of_a_checkpoint_that_is_gone_stay_behind_those_of_the_one_before_it(
    tmp_path: Path, there: Sequence[str], now: Sequence[str], expected: Sequence[str]
) -> None:
    look(NamedUnits("rank", "", names=there), tmp_path)
    looked = look(NamedUnits("rank", "", names=now), tmp_path, patience=Patience())
    assert [name for name, _ in rows_in(tmp_path / "rank")] == list(expected)
    gone = len(there) - len([name for name in now if name in there])
    assert (looked.filling.filled.gone, looked.filling.filled.dropped) == (gone, 0)
    assert looked.filling.filled.kept_of["rank"] == len(there)
    assert looked.told == []


def test_a_checkpoint_that_is_gone_keeps_its_rows_behind_one_that_loses_them(tmp_path: Path) -> None:
    """Of those of the one, a status was changed."""
    look(NamedUnits("rank", "", names="abcd"), tmp_path)
    rewritten(tmp_path / "rank", with_cell("status", 1, "changed"))
    looked = look(NamedUnits("rank", "", names="ad"), tmp_path, patience=Patience())
    assert [name for name, _ in rows_in(tmp_path / "rank")] == ["a", "c", "d"]
    assert (looked.filling.filled.gone, looked.filling.filled.dropped) == (1, 1)
    (told,) = looked.told
    assert told.endswith("what the table has of it is not as spectra wrote it, and its rows go: b.")


def test_a_checkpoint_that_is_gone_loses_its_rows_where_a_table_has_none_of_it(tmp_path: Path) -> None:
    """Which is told apart from rows that were altered."""
    tables = ("rank", "align", "sva")
    look(NamedUnits("rank", "", names="abcd", makes=tables), tmp_path)
    rewritten(tmp_path / "rank", with_cell("status", 2, "changed"))
    rewritten(tmp_path / "align", lambda rows: rows.filter([name != "b" for name in rows["checkpoint"].to_pylist()]))
    looked = look(NamedUnits("rank", "", names="ad", makes=tables), tmp_path, patience=Patience())
    for table in tables:
        assert [name for name, _ in rows_in(tmp_path / table)] == ["a", "d"]
    assert (looked.filling.filled.gone, looked.filling.filled.dropped) == (0, 2)
    told = [each.partition(" any more, and ")[2] for each in looked.told if "rows go" in each]
    assert told == [
        "what the table has of it is not as spectra wrote it, and its rows go: c.",
        "not all tables have rows of it, and its rows go: b.",
    ]


@pytest.mark.parametrize("absent", ["rank", "align"])
def test_rows_that_go_are_told_whichever_table_has_them_in_order(tmp_path: Path, absent: str) -> None:
    there = "abcdefgh"
    look(NamedUnits("rank", "", names=there, makes=("rank", "align")), tmp_path)
    (tmp_path / absent).unlink()
    looked = look(NamedUnits("rank", "", names="a", makes=("rank", "align")), tmp_path)
    assert looked.filling.filled.dropped == len(there) - 1
    (told,) = looked.told
    assert told.startswith("7 checkpoints in the table are not ")
    assert "and their rows go: b, c" in told
