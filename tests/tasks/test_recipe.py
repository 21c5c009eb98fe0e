"""A recipe that cannot be trained with is refused where it is made."""

from __future__ import annotations

from typing import Any

import pytest

from spectra_cli.errors import UsageError
from spectra_cli.tasks.base import Recipe

NAN = float("nan")


@pytest.mark.parametrize(
    "wrong",
    [{name: value} for name in ("lr", "weight_decay", "momentum", "gamma") for value in (-1, NAN, "x", True, 10**400)]
    + [{name: value} for name in ("batch_size", "steps", "epochs") for value in (0, -1, 1.5, True, 10**30)]
    + [{"optimizer": "rmsprop"}, {"schedule": "linear"}, {"warmup_steps": -5}, {"warmup_steps": 1.5}]
    + [{"final_fraction": -1}, {"clip_norm": -1}, {"clip_norm": 0}, {"clip_norm": float("inf")}, {"lr": None}]
    + [{"betas": value} for value in ((2, 3), (0.9,), 0.9, (0.9, 1.0), (-0.1, 0.9), "ab")]
    + [{"milestones": value} for value in ((0.5, 0.2), (2.0,), (NAN,), None)],
)
def test_values_that_mean_nothing_are_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"^recipe: {name} is "):
        Recipe(**{"optimizer": "sgd", "lr": 0.1, **wrong})
