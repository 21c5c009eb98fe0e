"""The code that comes with a file: what Python itself loads when it runs the file, told without running it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from spectra_cli.tasks import localmodules
from spectra_cli.tasks.localmodules import hashes_of_code

TREE = {
    "task.py": "import json, beside, pack.inner as i\nfrom pack import leaf, VALUE\nfrom space.deep.mod import X\n"
    "from stars import *\nfrom both import x\ndef late():\n    import lazy\nlate()\n",
    "beside.py": "try:\n    import absent\nexcept ImportError:\n    pass\n",
    "both.py": "x = 1\n",
    "lazy.py": "from once import again\n",
    "once.py": "import once\nagain = 1\n",
    "pack/__init__.py": "VALUE = 1\n",
    "pack/inner.py": "from . import sibling\nfrom .sub.own import A\n",
    "pack/sibling.py": "from pack import inner\n",
    "pack/leaf.py": "from .sub import own as o\n",
    "pack/sub/__init__.py": "",
    "pack/sub/own.py": "from ..third import B\nA = 1\n",
    "pack/third.py": "B = 1\n",
    "space/deep/mod.py": "X = 1\n",
    "stars/__init__.py": "__all__ = ['shine']\n",
    "stars/shine.py": "",
}
"""A file that imports in every form, what it imports, and so on."""

UNUSED = {
    "other.py": "",
    "pack/unused.py": "",
    "json/other.py": "",
    "space/other.py": "",
    "deep/mod.py": "",
    "both/x.py": "",
}

LOADED = """
import json, runpy, sys
from pathlib import Path
home = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(home))
runpy.run_path(str(home / "task.py"))
files = {getattr(module, "__file__", None) for module in sys.modules.values()} - {None}
print(json.dumps(sorted(Path(file).relative_to(home).as_posix() for file in files if home in Path(file).parents)))
"""


def written(home: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    return home / "task.py"


def test_the_code_is_what_python_loads(tmp_path: Path) -> None:
    file = written(tmp_path, TREE | UNUSED)
    done = subprocess.run([sys.executable, "-B", "-c", LOADED, tmp_path], capture_output=True, text=True, check=True)
    assert sorted(hashes_of_code(file)) == sorted(["task.py", *json.loads(done.stdout)]) == sorted(TREE)


@pytest.mark.parametrize("changed", TREE)
def test_a_change_in_any_file_changes_its_hash_alone(changed: str, tmp_path: Path) -> None:
    file = written(tmp_path, TREE)
    before = hashes_of_code(file)
    (tmp_path / changed).write_text(TREE[changed] + "# changed\n")
    after = hashes_of_code(file)
    assert [name for name in before if after[name] != before[name]] == [changed]


@pytest.mark.parametrize(
    "code",
    [
        "import importlib",
        "import importlib.util as util",
        "from importlib import import_module as load",
        "from runpy import run_path",
        "def late(name):\n    return __import__(name)",
        "exec(open('other.py').read())",
        "import sys\nsys.path.insert(0, 'space')",
        "from sys import path",
        "import builtins\nbuiltins.__import__('other')",
    ],
)
@pytest.mark.parametrize("where", ["task.py", "pack/third.py"])
def test_where_any_module_may_be_imported_all_count(code: str, where: str, tmp_path: Path) -> None:
    """But for those that were installed, hidden, or lie elsewhere."""
    foreign = dict.fromkeys(("env/lib/x.py", ".git/x.py", "lib/site-packages/x.py", "conda/x.py", "../x.py"), "")
    marks = {"env/pyvenv.cfg": "", "conda/conda-meta/history": "", "notes.txt": ""}
    file = written(tmp_path / "home", TREE | UNUSED | foreign | marks | {where: f"{TREE[where]}\n{code}\n"})
    assert sorted(hashes_of_code(file)) == sorted(TREE | UNUSED)


@pytest.mark.parametrize(
    "code",
    [
        "import importlib.metadata, importlib.resources",
        "from importlib import metadata",
        "import sys\nsys.argv",
        "import os\nos.path.join('a')",
        "model.exec(path)",
        "'importlib'  # exec(x)",
        "from .. import other",
    ],
)
def test_what_imports_nothing_else_leaves_other_files_out(code: str, tmp_path: Path) -> None:
    file = written(tmp_path / "home", {"task.py": code, "other.py": "", "../other.py": ""})
    assert list(hashes_of_code(file)) == ["task.py"]


def test_what_cannot_be_parsed_counts_by_its_bytes(tmp_path: Path) -> None:
    """Also a module that is no source."""
    file = written(tmp_path, {"task.py": "import broken, fast, null", "broken.py": "def", "null.py": "\0"})
    (tmp_path / "fast.abi3.so").write_bytes(b"\x7fELF")
    assert list(hashes_of_code(file)) == ["broken.py", "fast.abi3.so", "null.py", "task.py"]
    before = hashes_of_code(file)
    (tmp_path / "broken.py").write_text("def x")
    assert hashes_of_code(file)["broken.py"] != before["broken.py"]
    assert hashes_of_code(tmp_path / "absent.py") == {}


def test_code_without_end_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a large file is hashed to its end, though it is not searched for imports."""
    monkeypatch.setattr(localmodules, "MOST_FILES", 3)
    for start in ("", "exec('')\n"):
        file = written(tmp_path, {"task.py": start + "import m0", **{f"m{n}.py": f"import m{n + 1}" for n in range(9)}})
        assert list(hashes_of_code(file)) == ["m0.py", "m1.py", "task.py"]
    monkeypatch.setattr(localmodules, "LARGEST_PARSED_BYTES", 20)
    file = written(tmp_path, {"task.py": "import m0" + " " * 50})
    before = hashes_of_code(file)
    written(tmp_path, {"task.py": "import m0" + " " * 49 + "#"})
    assert list(before) == ["task.py"]
    assert hashes_of_code(file) != before


def test_a_link_to_the_file_has_the_code_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "there", TREE)
    (tmp_path / "task.py").symlink_to(file)
    assert hashes_of_code(tmp_path / "task.py") == hashes_of_code(file)
