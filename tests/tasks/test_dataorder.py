"""The digest of the first batch tells all that a model could tell apart, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from spectra_cli.tasks.base import Recipe, moved
from spectra_cli.tasks.dataorder import DataOrder, first_batch_digest
from tests.tasks.tiny_training import SGD, TRAINING_COUNT, TinyTask


class Giving(TinyTask):
    """Gives a batch of any kind."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__(SGD)
        self.make = make

    def training_batch(self, indices: object, generator: object) -> Any:  # noqa: ARG002 - always the same
        return self.make()


def digest(make: Callable[[], Any]) -> str:
    return first_batch_digest(Giving(make), SGD, 0)


MATRIX = torch.arange(6.0).reshape(2, 3)
BATCHES: dict[str, Any] = {
    "matrix": MATRIX,
    "one bit": MATRIX + torch.tensor([1e-7, 0.0, 0.0]),
    "minus zero": torch.where(MATRIX == 0, -0.0, MATRIX),
    "float64": MATRIX.double(),
    "bfloat16": MATRIX.bfloat16(),
    "complex": torch.complex(MATRIX, MATRIX),
    "conjugate": torch.complex(MATRIX, MATRIX).conj(),
    "shape": MATRIX.reshape(3, 2),
    "transposed": MATRIX.mT,
    "sparse": (MATRIX + 1).to_sparse(),
    "scalar": torch.tensor(1.0),
    "empty": torch.zeros(0, 3),
    "two": (MATRIX, MATRIX + 1),
    "two, the other way round": (MATRIX + 1, MATRIX),
    "nested": {"x": [MATRIX], "y": (MATRIX, {"z": MATRIX})},
}


def test_batches_that_differ_have_other_digests() -> None:
    assert len({digest(lambda batch=batch: batch) for batch in BATCHES.values()}) == len(BATCHES)


@pytest.mark.parametrize("name", BATCHES)
def test_what_is_the_same_batch_has_the_same_digest(name: str) -> None:
    """Whatever stands beside it that is no tensor."""
    batch = BATCHES[name]
    expected = digest(lambda: batch)
    assert digest(lambda: moved(batch, torch.device("cpu"))) == expected
    assert digest(lambda: {"text": object(), "batch": [batch]}) == expected


def test_where_a_tensor_lies_in_memory_does_not_count() -> None:
    assert digest(lambda: MATRIX.mT.contiguous().mT) == digest(lambda: MATRIX)
    assert digest(lambda: torch.cat([MATRIX, MATRIX])[2:]) == digest(lambda: MATRIX)


def test_the_digest_is_of_the_batch_that_the_recipe_and_the_seed_give() -> None:
    task = TinyTask(SGD)
    cases: list[tuple[Recipe, int]] = [(SGD, 0), (SGD, 1), (replace(SGD, batch_size=7), 0)]
    cases += [(replace(SGD, batch_size=None), 0)]
    assert len({first_batch_digest(task, *case) for case in cases}) == len(cases)
    assert first_batch_digest(TinyTask(SGD), replace(SGD, lr=1.0, epochs=1), 0) == first_batch_digest(task, SGD, 0)


def test_drawing_from_the_global_generator_is_repeated_and_leaves_it_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = digest(lambda: torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert digest(lambda: torch.rand(3)) == first


def test_steps_may_be_asked_for_in_any_order() -> None:
    forth, back = (DataOrder(SGD, TRAINING_COUNT, 3) for _ in range(2))
    steps = range(12)
    found = {step: back.indices(step).tolist() for step in reversed(steps)}
    assert [forth.indices(step).tolist() for step in steps] == [found[step] for step in steps]
