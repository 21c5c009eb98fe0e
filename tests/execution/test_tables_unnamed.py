"""What keeps tables knows not what is in them: the job says which are made together, and which may be used again."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from spectra_cli.execution.trajectory.job import remade
from spectra_cli.tables.schemas import TABLES
from tests.test_house import PACKAGE

MODULES = sorted((PACKAGE / "execution" / "incremental").glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_no_table_is_named_where_tables_are_kept(module: Path) -> None:
    source = module.read_text()
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert not texts & set(TABLES)


def test_only_the_agreement_is_made_alone() -> None:
    """Another reference changes it and nothing else; the rest shares factorizations."""
    tables = ("rank", "align", "sva")
    assert remade(tables, {"sva"}) == ("sva",)
    for missing in ({"rank"}, {"align", "sva"}, set(tables)):
        assert remade(tables, missing) == tables
