"""The code that comes with a file of Python: the modules below its directory that it imports, with none of them run."""

from __future__ import annotations

import ast
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterator
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from itertools import islice
from pathlib import Path

from spectra_cli.regularfile import open_regular

MOST_FILES = 1000
"""Limit for files of code that are looked at; of more, those that are found first."""

MOST_DIRECTORIES = 10_000
"""Limit for directories that are searched for code, where any of it may be imported."""

LARGEST_PARSED_BYTES = 1 << 22
"""Limit for a file that is searched for imports; a larger one holds data, and counts by its bytes alone."""

_LOADERS = frozenset({"importlib", "imp", "pkgutil", "runpy"})
_HARMLESS = frozenset({"importlib.metadata", "importlib.resources"})
"""Modules that look at what is installed, and import nothing."""

_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # as Python looks for them
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
_MARKS_OF_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")


def hashes_of_code(file: Path) -> dict[str, str]:
    """Hashes of a file of Python and of the local modules that it imports, and those import in turn.

    A module is local if it lies in the directory of the file or below it. Imports are read from the source, wherever
    they stand in it; all that they may mean counts. What imports by other means than the statement (``importlib``,
    ``runpy``, ``__import__``, ``exec``, another ``sys.path``) may import anything: then all files of Python below the
    directory count, but for those in hidden directories and in environments. Files that cannot be parsed count by their
    bytes, like all others; what they import is not known.

    Args:
        file: whose directory Python looks for modules in when it is run.

    Returns:
        By the path relative to the directory of the file, with forward slashes; nothing if there is no such file.
    """
    file = Path(os.path.realpath(file))
    home = file.parent
    hashes: dict[Path, str] = {}
    waiting, dynamic = deque([file]), False
    while waiting and len(hashes) < MOST_FILES:
        module = waiting.popleft()
        if module in hashes or (read := _read(module)) is None:
            continue
        hashes[module], source = read
        tree = _parsed(source) if module.suffix == ".py" else None
        if tree is not None:
            dynamic = dynamic or any(map(_is_dynamic, ast.walk(tree)))
            waiting.extend(_imported(tree, module, home))
    for module in _all_below(home) if dynamic else ():
        if len(hashes) >= MOST_FILES:
            break
        if module not in hashes and (read := _read(module)) is not None:
            hashes[module] = read[0]
    return {module.relative_to(home).as_posix(): hashes[module] for module in sorted(hashes)}


def _read(module: Path) -> tuple[str, bytes] | None:
    """The hash of a file, and as much of it as is searched for imports; None of what cannot be read."""
    try:
        with open_regular(module) as file:
            source = file.read(LARGEST_PARSED_BYTES + 1)
            digest = hashlib.sha256(source)
            while more := file.read(LARGEST_PARSED_BYTES):
                digest.update(more)
    except OSError:  # whoever runs it will say so
        return None
    return digest.hexdigest()[:16], source


def _parsed(source: bytes) -> ast.Module | None:
    if len(source) > LARGEST_PARSED_BYTES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the user's code; Python tells them where it runs it
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _is_dynamic(node: ast.AST) -> bool:
    """Whether code may import what no statement of it names."""
    match node:
        case ast.Import(names=names):
            return any(_may_load(alias.name) for alias in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            return any(_may_load(f"{module}.{alias.name}") for alias in names)
        case ast.Name(id="__import__" | "exec") | ast.Attribute(attr="__import__"):
            return True
        case ast.Attribute(value=ast.Name(id="sys"), attr="path"):
            return True
    return False


def _may_load(name: str) -> bool:
    """Whether what is imported by a dotted name may import other things."""
    first, *rest = name.split(".")
    return name == "sys.path" or (first in _LOADERS and ".".join([first, *rest[:1]]) not in _HARMLESS)


def _imported(tree: ast.Module, module: Path, home: Path) -> Iterator[Path]:
    """The files of the local modules that a module's statements may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(home, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = module.parents[: node.level]
            base = above[-1] if node.level else home
            if len(above) < node.level or not base.is_relative_to(home):
                continue
            package = node.module.split(".") if node.module else []
            for alias in node.names:
                if alias.name == "*":  # which imports those that __all__ names
                    within = sorted(path.stem for path in base.joinpath(*package).glob("*.py"))
                else:
                    within = [alias.name]
                yield from _files_of(base, package)
                for name in within:
                    yield from _files_of(base, [*package, name])


def _files_of(base: Path, names: list[str]) -> Iterator[Path]:
    """The files that run where a dotted name is imported from a directory; its last parts may be no modules."""
    place = base
    for name in names:
        place /= name
        package, alone = _file(place / "__init__"), _file(place)
        if package is not None:
            yield package
        elif alone is not None:
            yield alone
            return


def _file(stem: Path) -> Path | None:
    paths = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _all_below(home: Path) -> Iterator[Path]:
    """All files of Python in a directory and below it; links to directories are not followed."""
    for parent, directories, names in islice(os.walk(home), MOST_DIRECTORIES):
        directories[:] = sorted(name for name in directories if not _is_foreign(parent, name))
        yield from (Path(parent, name) for name in sorted(names) if name.endswith(".py") and name[0] != ".")


def _is_foreign(parent: str, name: str) -> bool:
    """Whether a directory is hidden or holds code that was installed."""
    marks = (os.path.join(parent, name, mark) for mark in _MARKS_OF_ENVIRONMENTS)
    return name.startswith(".") or name in _SKIPPED or any(map(os.path.exists, marks))
