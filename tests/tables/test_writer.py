"""A table is complete under its final name or not there; what was there before survives every failure."""

from __future__ import annotations

import io
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spectra_cli.tables.writer as writer_module
from spectra_cli.errors import InputError, UsageError
from spectra_cli.tables.journal import Journal
from spectra_cli.tables.kept import KeptTable
from spectra_cli.tables.rows import table_of
from spectra_cli.tables.schemas import TABLES, arrow_schema
from spectra_cli.tables.writer import TableWriter
from tests.tables.anyrows import rank_rows, rank_table, rows_strategy


def old_table(name: str | None = "rank") -> bytes:
    """A Parquet file, of spectra's if it has the name of a table."""
    metadata = {} if name is None else {"spectra.schema": f"{name}/1"}
    file = io.BytesIO()
    pq.write_table(pa.table({"was": ["there before"]}).replace_schema_metadata(metadata), file)
    return file.getvalue()


OLD = old_table()


def row(depth: int, **columns: Any) -> dict[str, Any]:
    return {"run": ".", "checkpoint": "step_1.pt", "depth": depth, "status": "ok", **columns}


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_written_file_has_the_schema_and_the_rows(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "rank.parquet", "rank") as table:
        table.write([row(0, singular_values=[2.0, 1.0]), row(1)])
        table.write([row(2, step=400)])
    read = pq.read_table(tmp_path / "rank.parquet")
    assert read.schema.equals(arrow_schema("rank"))
    assert read.column("depth").to_pylist() == [0, 1, 2]
    assert read.column("singular_values").to_pylist() == [[2.0, 1.0], None, None]
    assert read.column("step").to_pylist() == [None, None, 400]
    assert read.column("gini").null_count == 3
    assert names_in(tmp_path) == ["rank.parquet"]


def test_a_table_without_rows_still_has_its_schema(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "rank.parquet", "rank", tags={"seed": "1"}):
        pass
    read = pq.read_table(tmp_path / "rank.parquet")
    assert read.num_rows == 0
    assert read.schema.equals(arrow_schema("rank", {"seed": "1"}))


def test_row_groups_do_not_change_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are streamed in groups of bounded size, in the order they came."""
    monkeypatch.setattr(writer_module, "ROW_GROUP_VALUES", 100)
    values = [[float(n) for n in range(depth, 0, -1)] for depth in range(40)]
    with TableWriter(tmp_path / "rank.parquet", "rank") as table:
        for depth in range(40):
            table.write([row(depth, singular_values=values[depth])])
    file = pq.ParquetFile(tmp_path / "rank.parquet")
    assert file.num_row_groups > 5
    assert file.read().column("singular_values").to_pylist() == values


def test_metadata_says_which_schema_and_whatever_was_given(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "rank.parquet", "rank", metadata={"spectra.command": "spectra rank größe"}):
        pass
    metadata = pq.read_schema(tmp_path / "rank.parquet").metadata
    assert metadata[b"spectra.schema"] == b"rank/1"
    assert metadata[b"spectra.command"].decode() == "spectra rank größe"


def test_tags_are_constant_columns(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "rank.parquet", "rank", tags={"seed": "1", "Größe": "=x="}) as table:
        table.write([row(0), row(1)])
    read = pq.read_table(tmp_path / "rank.parquet")
    assert read.column("seed").to_pylist() == ["1", "1"]
    assert read.column("Größe").to_pylist() == ["=x=", "=x="]


def test_bytes_that_are_no_text_become_escapes(tmp_path: Path) -> None:
    """Names of files may hold any bytes; Arrow's strings are UTF-8."""
    name = os.fsdecode(b"step_1_\xff.pt")
    with TableWriter(tmp_path / "t.parquet", "rank", tags={"tag": name}, metadata={"command": name}) as table:
        table.write([row(0, checkpoint=name)])
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.column("checkpoint").to_pylist() == read.column("tag").to_pylist() == [r"step_1_\udcff.pt"]
    assert read.schema.metadata[b"command"] == rb"step_1_\udcff.pt"


def test_a_tag_that_is_a_column_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "rank.parquet").write_bytes(OLD)
    with pytest.raises(UsageError, match="--tag status"):
        TableWriter(tmp_path / "rank.parquet", "rank", tags={"status": "x"})
    assert names_in(tmp_path) == ["rank.parquet"]
    assert (tmp_path / "rank.parquet").read_bytes() == OLD


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "rank.parquet"
    path.write_bytes(OLD)

    def fail() -> None:
        with TableWriter(path, "rank") as table:
            table.write([row(0)])
            assert len(names_in(tmp_path)) == 2  # the old file, and the partial one beside it
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(tmp_path) == ["rank.parquet"]
    assert path.read_bytes() == OLD


def test_rows_that_do_not_fit_the_schema_leave_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """The failure comes when the writer closes, not while rows are given to it."""
    path = tmp_path / "rank.parquet"
    path.write_bytes(OLD)
    with pytest.raises(pa.ArrowException), TableWriter(path, "rank") as table:
        table.write([row(0, step="not a number")])
    assert names_in(tmp_path) == ["rank.parquet"]
    assert path.read_bytes() == OLD


def test_success_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rank.parquet"
    path.write_bytes(OLD)
    with TableWriter(path, "rank") as table:
        table.write([row(0)])
        assert path.read_bytes() == OLD  # until the end
    assert pq.read_table(path).num_rows == 1


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    """SIGKILL runs no cleanup: only writing elsewhere first can keep a half file from the final name."""
    code = (
        "import pathlib, sys, time\n"
        "from spectra_cli.tables import writer\n"
        "writer.ROW_GROUP_VALUES = 1\n"
        "with writer.TableWriter(pathlib.Path(sys.argv[1]), 'rank') as table:\n"
        "    table.write([{'run': '.', 'status': 'ok'}])\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    path = tmp_path / "rank.parquet"
    command = [sys.executable, "-c", code, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    assert all(name.startswith(".rank.parquet.") and name.endswith(".partial") for name in names_in(tmp_path))


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """A private temporary file must not become a table that a colleague cannot read."""
    (tmp_path / "plain").write_bytes(b"")
    with TableWriter(tmp_path / "rank.parquet", "rank"):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "rank.parquet")}
    assert len(modes) == 1


def test_a_directory_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.*No such file or directory.*--out"):
        TableWriter(tmp_path / "absent" / "rank.parquet", "rank")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_to_is_an_input_error(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"locked.*Permission denied.*--out"):
        TableWriter(locked / "rank.parquet", "rank")


def test_a_refused_partial_file_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as above where tests run as root, to whom no directory is closed."""

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(InputError, match=r"rank.parquet.*Permission denied.*--out"):
        TableWriter(tmp_path / "rank.parquet", "rank")


def test_a_directory_in_the_place_of_the_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is a directory"):
        TableWriter(tmp_path, "rank")
    assert names_in(tmp_path) == []


def test_table_of_keeps_integers_that_a_double_cannot_hold() -> None:
    table = table_of([{"step": 2**60 + 1}, {}], arrow_schema("rank"))
    assert table.column("step").to_pylist() == [2**60 + 1, None]


def test_a_link_to_a_table_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.parquet", tmp_path / "link.parquet"
    link.symlink_to(real)
    with TableWriter(link, "rank") as writer:
        writer.write([{"status": "ok"}])
    assert link.is_symlink()
    assert pq.read_table(real).num_rows == 1


def test_a_pipe_is_not_replaced_by_a_table(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.parquet"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="a pipe or a device"):
        TableWriter(pipe, "rank")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_name_that_promises_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Parquet"):
        TableWriter(tmp_path / "rank.csv", "rank")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (old_table("metrics"), "this file is a table metrics; a table rank does not replace it"),
        (old_table("barrier_spectra"), "this file is a table barrier_spectra;"),
        (old_table(None), "this Parquet file is none that spectra wrote"),
        (old_table()[:-12] + b"\xff\xff\x00\x00" + old_table()[-8:], "this Parquet file is damaged"),
        (old_table()[:-5], "this Parquet file is cut off"),
        (b"PAR1 and no more", "this Parquet file is cut off"),
        (b"my notes", "this file is no Parquet table"),
    ],
)
def test_nothing_but_an_older_table_of_the_same_name_is_replaced(tmp_path: Path, content: bytes, said: str) -> None:
    """`--out runs/a/metrics.parquet` must not cost the metrics of a run; a link to them neither."""
    real, link = tmp_path / "real.parquet", tmp_path / "link.parquet"
    real.write_bytes(content)
    link.symlink_to(real)
    for path in (real, link):
        with pytest.raises(InputError, match=said) as caught:
            TableWriter(path, "rank")
        assert caught.value.where == str(path)
        assert "--out another name" in str(caught.value)
    assert real.read_bytes() == content
    assert names_in(tmp_path) == ["link.parquet", "real.parquet"]


@pytest.mark.parametrize("content", [b"", old_table(), old_table().replace(b"rank/1", b"rank/0")])
def test_an_empty_file_and_a_table_of_an_older_version_are_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rank.parquet"
    path.write_bytes(content)
    with TableWriter(path, "rank") as table:
        table.write([row(0)])
    assert pq.read_table(path).num_rows == 1


TAGS = {"trial": "1", "note": None}
KEY_COLUMNS = {"barrier": ("run_a",), "barrier_spectra": ("run_a",), "metrics": ("split",)}


@given(data=st.data(), table=st.sampled_from(list(TABLES)))
@settings(max_examples=30)
def test_equal_rows_make_equal_files_however_they_come(
    data: st.DataObject, table: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Byte for byte: as rows, as tables, through a journal, from an older table, and in any mixture of them."""
    units = [data.draw(rows_strategy(table, ("trial",), most=3)) for _ in range(data.draw(st.integers(1, 4)))]
    columns = KEY_COLUMNS.get(table, ("checkpoint",))
    for number, rows in enumerate(units):
        for each in rows:
            each[columns[0]] = str(number)
    ways = data.draw(st.lists(st.sampled_from("rtjk"), min_size=len(units), max_size=len(units)))
    directory = tmp_path_factory.mktemp("writer")
    schema = arrow_schema(table, TAGS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer_module, "ROW_GROUP_VALUES", data.draw(st.sampled_from([1, 60, 1 << 20])))
        with TableWriter(directory / "direct.parquet", table, tags=TAGS) as writer:
            for rows in units:
                writer.write(rows)
        with (
            KeptTable.open(directory / "direct.parquet", table, columns) as kept,
            Journal.open(directory / "j", table, {}) as journal,
            TableWriter(directory / "again.parquet", table, tags=TAGS) as writer,
        ):
            for number, (rows, way) in enumerate(zip(units, ways, strict=True)):
                journal.put((str(number),), table_of(rows, schema, TAGS), fingerprint="")
                if way == "r":
                    writer.write(rows)
                elif way == "t":
                    writer.write_table(table_of(rows, schema, TAGS))
                elif way == "j":
                    writer.write_table(journal.rows((str(number),)))
                elif rows:
                    writer.write_table(kept.rows((str(number),)))
    assert (directory / "again.parquet").read_bytes() == (directory / "direct.parquet").read_bytes()


def test_a_table_of_some_columns_in_any_order_is_written_as_its_rows_would_be(tmp_path: Path) -> None:
    """Tags that it lacks have their values, those that it has stay, null as well; texts may be dictionaries."""
    rows = pa.table(
        {
            "note": pa.array(["own", None]),
            "no such column": pa.array([1, 2]),
            "status": pa.array(["ok", None]).dictionary_encode(),
            "checkpoint": pa.array(["a", "b"], pa.large_string()),
            "depth": pa.array([1, 2], pa.int64()),
            "singular_values": pa.array([[1.5], []], pa.list_(pa.float32())),
        }
    )
    with TableWriter(tmp_path / "t.parquet", "rank", tags={"note": "given", "seed": "1"}) as writer:
        writer.write_table(rows)
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.schema.equals(arrow_schema("rank", ["note", "seed"]))
    assert [{name: value for name, value in row.items() if value is not None} for row in read.to_pylist()] == [
        {"note": "own", "seed": "1", "status": "ok", "checkpoint": "a", "depth": 1, "singular_values": [1.5]},
        {"seed": "1", "checkpoint": "b", "depth": 2, "singular_values": []},
    ]


def test_a_value_that_the_column_cannot_hold_is_not_made_to_fit(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid), TableWriter(tmp_path / "t.parquet", "rank") as writer:
        writer.write_table(pa.table({"depth": [2**40]}))
    assert names_in(tmp_path) == []


@given(
    sizes=st.lists(st.integers(0, 30), max_size=20),
    calls=st.lists(st.integers(1, 7), max_size=10),
    limit=st.integers(1, 300),
)
@settings(max_examples=40)
def test_a_row_group_ends_with_the_row_that_fills_it(
    sizes: list[int], calls: list[int], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against counting cell by cell: columns, numbers in lists and characters."""
    path = tmp_path_factory.mktemp("groups") / "t.parquet"
    rows = [
        {"run": "é" * (size % 4), "diagonal": [0.5] * size, "alignment": [[1.0] * 3] * (size % 5)} for size in sizes
    ]
    columns = len(arrow_schema("align"))
    expected: list[int] = []
    open_rows = values = 0
    for size in sizes:
        open_rows += 1
        values += columns + size % 4 + size + 3 * (size % 5)
        if values >= limit:
            expected.append(open_rows)
            open_rows = values = 0
    expected += [open_rows] * (open_rows > 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(writer_module, "ROW_GROUP_VALUES", limit)
        with TableWriter(path, "align") as writer:
            rest = rows
            for count in [*calls, len(rows)]:
                writer.write(rest[:count])
                rest = rest[count:]
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == expected


def test_all_tables_can_be_finished_before_the_first_is_published(tmp_path: Path) -> None:
    writers = [TableWriter(tmp_path / f"{table}.parquet", table) for table in ("rank", "sva")]
    for writer in writers:
        writer.write([row(0)])
        writer.finish()
        writer.finish()
    assert all(name.endswith(".partial") for name in names_in(tmp_path))
    whole = {pq.read_table(path).num_rows for path in tmp_path.iterdir()}
    assert whole == {1}
    writers[0].publish()
    assert [name for name in names_in(tmp_path) if not name.startswith(".")] == ["rank.parquet"]
    writers[1].discard()
    for writer in writers:
        writer.close()
        writer.discard()
    assert names_in(tmp_path) == ["rank.parquet"]


def test_a_table_is_on_the_disk_before_it_has_its_name_and_then_so_is_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure could leave an empty file under the name of the older table, or lose a finished one."""
    events: list[object] = []
    fsync, replace = os.fsync, Path.replace

    def syncing(handle: int) -> None:
        events.append(
            (os.fstat(handle).st_ino, os.fstat(handle).st_size if stat.S_ISREG(os.fstat(handle).st_mode) else 0)
        )
        fsync(handle)

    def renaming(partial: Path, target: Path) -> Path:
        events.append("renamed")
        return replace(partial, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", renaming)
    path = tmp_path / "t.parquet"
    with TableWriter(path, "rank") as writer:
        writer.write([row(0)])
    assert events == [(path.stat().st_ino, path.stat().st_size), "renamed", (tmp_path.stat().st_ino, 0)]


def test_what_is_not_finished_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finished before"), TableWriter(tmp_path / "t.parquet", "rank") as writer:
        writer.publish()
    assert names_in(tmp_path) == []


def test_a_published_table_survives_what_goes_wrong_afterwards(tmp_path: Path) -> None:

    def fail() -> None:
        with TableWriter(tmp_path / "t.parquet", "rank") as writer:
            writer.close()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names_in(tmp_path) == ["t.parquet"]


@pytest.mark.parametrize("content", [b"my notes", old_table("metrics"), old_table(None), old_table()[:-5]])
def test_with_fresh_any_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with TableWriter(tmp_path / "t.parquet", "rank", fresh=True) as writer:
        writer.write([row(0)])
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 1


def test_not_even_with_fresh_anything_else_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "directory.parquet").mkdir()
    for name in ("pipe", "directory"):
        with pytest.raises(InputError, match="this is a directory, a pipe or a device"):
            TableWriter(tmp_path / f"{name}.parquet", "rank", fresh=True)
    with pytest.raises(UsageError, match="Parquet"):
        TableWriter(tmp_path / "model.safetensors", "rank", fresh=True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_disk_that_fills_up_is_an_input_error_and_leaves_the_old_table(tmp_path: Path, share: float) -> None:
    """Wherever in the file that happens: the system's limit on the size of files stands for the size of the disk."""
    path = tmp_path / "t.parquet"
    rows = rank_rows("a", 200, singular_values=np.random.default_rng(0).random(500).astype(np.float32))
    with TableWriter(path, "rank") as writer:
        writer.write(rows)
    size = path.stat().st_size
    path.write_bytes(OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), hard))
    try:
        said = r"t.parquet: the table cannot be written: .*File too large.*ulimit -f"
        with pytest.raises(InputError, match=said), TableWriter(path, "rank") as writer:
            writer.write(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == ["t.parquet"]
    assert path.read_bytes() == OLD


def test_a_large_table_comes_back_from_a_journal_as_it_was(tmp_path: Path) -> None:
    """More than one row group, in one unit."""
    rows = rank_table("a", 3000, singular_values=np.arange(400, dtype=np.float32))
    with Journal.open(tmp_path / "j", "rank", {}) as journal:
        journal.put(("a",), rows, fingerprint="")
        for name, table in (("direct", rows), ("again", journal.rows(("a",)))):
            with TableWriter(tmp_path / f"{name}.parquet", "rank") as writer:
                writer.write_table(table)
    assert pq.ParquetFile(tmp_path / "again.parquet").num_row_groups == 2
    assert (tmp_path / "direct.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_a_table_whose_columns_have_names_that_are_no_text_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"abcdefgh": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xff\xfeabcdef"))
    with pytest.raises(InputError, match="this Parquet file is damaged"):
        TableWriter(path, "rank")
