"""Files appear whole or not at all, and nothing else in the directory is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from spectra_cli.atomicfile import replace_file


def write(path: Path) -> None:
    path.write_text("new")


def test_what_is_written_appears_with_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    replace_file(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "new"
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.txt")}
    assert len(modes) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "plain"]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "a.txt", fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_what_others_have_put_there_is_neither_written_through_nor_waited_for(tmp_path: Path) -> None:
    """A link and a pipe of the names that a partial file might have."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".a.txt.partial").symlink_to("victim")
    os.mkfifo(tmp_path / ".b.txt.partial")
    for name in ("a.txt", "b.txt"):
        replace_file(tmp_path / name, write)
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / ".a.txt.partial").is_symlink()
    assert (tmp_path / ".b.txt.partial").exists()


def test_a_link_of_that_name_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.txt").symlink_to("victim")
    replace_file(tmp_path / "a.txt", write)
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "a.txt").is_symlink()


def test_names_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "n" * 250 + ".html"
    replace_file(tmp_path / name, write)
    assert [path.name for path in tmp_path.iterdir()] == [name]
