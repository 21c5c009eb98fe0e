"""What does not fit into memory is told as that."""

from __future__ import annotations

import pytest
import torch

from spectra_cli.errors import MemoryBudgetError
from spectra_cli.tasks.memory import model_fits


@pytest.mark.parametrize("size", [2**46, 2**61])
def test_an_allocation_that_torch_refuses_is_told(size: int) -> None:
    with pytest.raises(MemoryBudgetError, match=r"^task x: the model does not fit into memory"), model_fits("task x"):
        torch.empty(size)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), model_fits("task x"):
        torch.ones(2).reshape(3)
