"""No module imports itself by way of others, whenever that may be: what uses what can be read from top to bottom."""

from __future__ import annotations

from graphlib import TopologicalSorter

from tests.test_house import MODULES, PACKAGE, imports_of


def test_there_is_no_cycle_of_imports() -> None:
    """Nor one that works because an import stands in a function, or is for type checking only."""
    modules = {".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    used: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {
            next((known for known in _prefixes(name) if known in modules), module)
            for name in imports_of(path.read_text())
        }
        used[module] = names - {module}
    assert used["spectra_cli.cli.rank"] >= {"spectra_cli.cli.running", "spectra_cli.cli.summaries"}
    TopologicalSorter(used).prepare()  # raises where there is one, and names it


def _prefixes(name: str) -> list[str]:
    """A dotted name, and those of all that it stands in, the longest first."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
