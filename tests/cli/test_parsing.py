"""KEY=VALUE, wherever a command line takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spectra_cli.cli.parsing import key_values
from spectra_cli.errors import UsageError

Fixture = Callable[..., Any]


def test_a_name_ends_at_the_first_equals_sign() -> None:
    assert key_values(["a=1", "b=c=d", "e="], "--set") == {"a": "1", "b": "c=d", "e": ""}


@pytest.mark.parametrize("flag", ["--set", "--tag"])
@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["prime"], "{0} prime is not KEY=VALUE. Write it as {0} prime=VALUE."),
        (["=1"], "{0} =1 is not KEY=VALUE. Write it as {0} KEY=1."),
        (["a=1", "a=2"], "{0} a is given twice. Give one of them."),
    ],
)
def test_what_says_nothing_or_two_things_is_refused(items: list[str], said: str, flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        key_values(items, flag)
    assert str(caught.value) == said.format(flag)


@pytest.mark.parametrize(
    "command", [("train", "modular-addition", "--out", "run"), ("prune-eval", "run"), ("barrier", "a", "b")]
)
def test_data_is_an_option_of_the_task_and_is_given_once(command: tuple[str, ...], spectra: Fixture) -> None:
    """Every command that takes both says so in the same words, before it looks at a PATH."""
    outcome = spectra(*command, "--data", "here", "--set", "data=there")
    assert outcome.status == 2
    assert outcome.err == "Error: --data and --set data exclude each other. Give one of them.\n"
