"""The repository keeps to its own rules: imports go down, help needs no torch, nothing ships undocumented."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from spectra_cli.cli.main import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spectra_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS = {
    "errors": 0,
    "atomicfile": 0,
    "regularfile": 0,
    "canonicaljson": 0,
    "shortening": 0,
    "tensors": 0,
    "storage": 1,
    "spectrum": 2,
    "layers": 2,
    "checkpoints": 2,
    "tables": 2,
    "tasks": 2,
    "analyses": 3,
    "figures": 3,
    "execution": 4,
    "cli": 5,
    "__init__": 6,
    "__main__": 6,
}
"""A room may use what lies below it and itself, nothing on its own floor or above."""

ALLOWED_AT_TOP = {"pyproject.toml", "spectra_cli", "tests", "fixtures", "README.md", "CHANGELOG.md", "LICENSE"}
HEAVY = {"torch", "pandas", "pyarrow"}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group, as Typer builds it


def imports_of(source: str) -> Iterator[str]:
    """Dotted names of all that is imported anywhere in a module, also in functions and for type checking only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tracked_files() -> list[Path]:
    """What git holds, and what it would take in."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(module: Path) -> None:
    """Never up, and never sideways between rooms of one floor."""
    room = room_of(module)
    for name in imports_of(module.read_text()):
        if not name.startswith("spectra_cli.") or name == "spectra_cli.__version__":
            continue
        used = name.split(".")[1]
        assert used == room or FLOORS[used] < FLOORS[room], f"{room} imports {name}"


BELOW: dict[str, dict[str, set[str]]] = {
    "figures": {
        "choice": set(),
        "rows": {"choice"},
        "canvas": {"choice", "rows"},
        "plots": {"choice", "rows", "canvas"},
        "page": set(),
        "report": {"choice", "rows", "page"},
    },
    "execution": {
        "work": set(),
        "planning": {"work"},
        "executors": {"work", "planning"},
        "incremental": {"work", "planning", "executors"},
        "trajectory": {"work", "planning", "executors", "incremental"},
        "evaluation": {"work", "planning", "executors", "incremental", "trajectory"},
        "training": {"work", "planning", "executors", "evaluation"},
        "notebook": {"work", "planning", "executors", "incremental", "trajectory", "evaluation"},
    },
}
"""What the parts of a room may use beside themselves.

In `figures`, the page knows no table, and the report no matplotlib; in `execution`, those that do work anywhere know no
command, and what keeps tables knows not what is in them.
"""


@pytest.mark.parametrize(
    "module",
    [module for room in BELOW for module in sorted((PACKAGE / room).rglob("*.py"))],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_parts_of_a_room_use_what_lies_below_them(module: Path) -> None:
    room, *parts = module.relative_to(PACKAGE).parts
    part = parts[0].removesuffix(".py")
    for name in imports_of(module.read_text()):
        if name.startswith(f"spectra_cli.{room}.") and part != "__init__":
            used = name.split(".")[2]
            assert used == part or used in BELOW[room][part], f"{room}/{part} imports {name}"


def test_the_import_test_sees_every_form_of_import() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from e.f import g\nif TYPE_CHECKING:\n    import h"
    assert sorted(imports_of(source)) == ["a.b", "c.d", "e.f.g", "h"]


def test_the_work_of_a_notebook_does_not_need_the_face() -> None:
    """`spectra_cli.rank` works without Typer."""
    code = "import sys; sys.modules['typer'] = None; import spectra_cli; spectra_cli.rank"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


ABSENT = [[name, "absent"] for name in ("rank", "align", "sva", "analyze", "prune-eval")]
ABSENT += [["barrier", "absent", "absent"]]
"""Command lines whose PATH is wrong, which is told at once."""

LIGHT = {
    "import": "import spectra_cli, spectra_cli.cli.main",
    "help": "from spectra_cli.cli.main import run; assert run(['--help']) == 0",
    "version": "from spectra_cli.cli.main import run; assert run(['--version']) == 0",
    "columns": "from spectra_cli.cli.main import run; assert run(['columns']) == 0",
    **{
        f"help of {name}": f"from spectra_cli.cli.main import run; assert run(['{name}', '--help']) == 0"
        for name in COMMANDS
    },
    "inspect": "from spectra_cli.cli.main import run; assert run(['inspect', 'fixtures/formats']) in {0, 3}",
    **{" ".join(line): f"from spectra_cli.cli.main import run; assert run({line}) == 1" for line in ABSENT},
}


@pytest.mark.parametrize("task", LIGHT)
def test_what_reads_no_weights_imports_no_heavy_library(task: str) -> None:
    """Neither torch nor pandas nor pyarrow, whose imports take a second."""
    report = f"import sys; print('loaded:', *sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{LIGHT[task]}\n{report}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_the_top_level_holds_what_it_may_hold() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    assert {name for name in top if not name.startswith(".")} <= ALLOWED_AT_TOP


def test_no_file_names_a_place_on_a_developers_machine() -> None:
    """Neither this checkout's path nor a home directory stands in any file, be it text or a fixture."""
    homes = re.compile(rb"(?<![\w.~-])/(home|Users|root|work|scratch|mnt)/\w")
    for path in tracked_files():
        content = path.read_bytes()
        assert str(ROOT).encode() not in content, path
        found = homes.search(content)
        assert found is None, f"{path}: {content[found.start() : found.start() + 60]!r}" if found else path


@pytest.mark.parametrize(
    "module", [*MODULES, *sorted((ROOT / "fixtures").glob("*.py"))], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_module_says_what_it_is_for(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example_that_parses(name: str) -> None:
    """An imperative sentence, then one example whose options exist and whose values are of their types."""
    command = COMMANDS[name]
    sentence, _, rest = (command.help or "").partition("\n")
    assert re.fullmatch(r"[A-Z][a-z]+ .*\.", sentence)
    (example,) = [line.strip() for line in rest.splitlines() if line.strip().startswith("Example: spectra ")]
    _, program, called, *arguments = shlex.split(example)
    assert (program, called) == ("spectra", name)
    context = command.make_context(name, arguments)
    assert all(value is not None for key, value in context.params.items() if key in {"paths", "out"})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", "").endswith("."), parameter.name
