"""What a footer claims is read as pyarrow reads it, where that can be asked, and no damage of it ends the process."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spectra_cli.tables.footer import claims_of_columns
from spectra_cli.tables.schemas import TABLES
from spectra_cli.tables.writer import TableWriter
from tests.tables.anyrows import rank_rows

ROOT = Path(__file__).parents[2]


def claims_according_to_pyarrow(path: Path) -> list[tuple[str, int, int]]:
    footer = pq.ParquetFile(path).metadata
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
    return [(each.path_in_schema.split(".")[0], each.num_values, each.total_uncompressed_size) for each in chunks]


@pytest.mark.parametrize("table", TABLES)
def test_claims_are_those_that_pyarrow_tells(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectra_cli.tables.writer.ROW_GROUP_VALUES", 100)
    path = tmp_path / "t.parquet"
    with TableWriter(path, table) as writer:
        writer.write([{"status": "ok" * number, "diagonal": [0.5] * number} for number in range(20)])
    with path.open("rb") as file:
        assert list(claims_of_columns(file)) == claims_according_to_pyarrow(path)


def test_claims_are_read_of_what_others_write_too(tmp_path: Path) -> None:
    """More than fifteen fields and groups, names that are long, statistics, bloom filters, page indexes."""
    columns = {f"{'long' * 20}{number}": pa.array(range(64), pa.int64()) for number in range(20)}
    columns["nested"] = pa.array([[[1.0], []], None] * 32, pa.list_(pa.list_(pa.float32())))
    columns["flags"] = pa.array([True, None] * 32)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=2, write_page_index=True, store_decimal_as_integer=True)
    with path.open("rb") as file:
        assert list(claims_of_columns(file)) == claims_according_to_pyarrow(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"\0" * 8, b"PAR1\xff\xff\xff\xffPAR1", b"PAR1\x00\x00\x00\x00PAR1", b"\x15\x02\x00\x03\0\0\0PAR1"],
)
def test_what_is_no_footer_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="footer"):
        list(claims_of_columns(io.BytesIO(content)))


def framed(footer: bytes) -> io.BytesIO:
    return io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    "footer",
    [
        b"\x4c" * 100_000,  # a structure within a structure, and so on
        b"\x49\xfc\xff\xff\xff\xff\x0f",  # a list of four thousand million structures
        b"\x48\xff\xff\xff\xff\x7f",  # text of 32 gibibytes
        b"\x16" + b"\xff" * 100,  # a number of as many digits as there are
        b"\x4b\x01\x55",  # a map
        b"\x00",  # nothing
        b"\x46\x02\x00",  # a number in the place of the row groups
    ],
)
def test_a_hostile_footer_is_a_value_error(footer: bytes) -> None:
    with pytest.raises(ValueError, match="footer"):
        list(claims_of_columns(framed(footer)))


def column_footer(values: bytes) -> bytes:
    """A footer of one column "a", with so many values, given as digits of Thrift, in 1 byte."""
    column = b"\x39\x18\x01a" + b"\x26" + values + b"\x16\x02\x00"
    return b"\x49\x1c" + b"\x19\x1c" + b"\x3c" + column + b"\x00\x00\x00"


def test_numbers_have_64_bits_and_the_file_an_end_of_its_own() -> None:
    """Neither a number beyond that nor a footer without the magic behind it is believed."""
    assert list(claims_of_columns(framed(column_footer(b"\x0e")))) == [("a", 7, 1)]
    whole = framed(column_footer(b"\x0e")).getvalue()
    for damaged in (framed(column_footer(b"\x8e" + b"\x80" * 9 + b"\x01")), io.BytesIO(whole[:-4] + b"PAR2")):
        with pytest.raises(ValueError, match="footer"):
            list(claims_of_columns(damaged))


DAMAGING = """
import sys
from pathlib import Path
import numpy as np
from spectra_cli.errors import InputError
from spectra_cli.tables.kept import KeptTable
path = Path(sys.argv[1])
content = path.read_bytes()
footer = int.from_bytes(content[-8:-4], "little")
draw, refused = np.random.default_rng(5), 0
for _ in range(400):
    damaged = bytearray(content)
    for place in draw.integers(len(content) - 8 - footer, len(content) - 8, 2):
        damaged[place] = draw.integers(256)
    path.write_bytes(damaged)
    try:
        with KeptTable.open(path, "rank", ("run", "checkpoint")) as kept:
            for key in kept.keys_in_order:
                kept.rows(key)
    except InputError:
        refused += 1
print("refused", refused > 50)
"""


def test_no_damage_of_the_footer_ends_the_process(tmp_path: Path) -> None:
    """Which pyarrow does where the metadata of a column contradict themselves, so another process is risked here."""
    with TableWriter(tmp_path / "t.parquet", "rank") as writer:
        writer.write(rank_rows("a", singular_values=np.ones(3, np.float32)))
    done = subprocess.run(
        [sys.executable, "-c", DAMAGING, str(tmp_path / "t.parquet")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("refused True\n", "", 0)
