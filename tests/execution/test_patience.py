"""How long a checkpoint is waited for that cannot be read yet."""

from __future__ import annotations

from spectra_cli.execution.incremental.patience import ATTEMPTS, Patience

KEY = ("run", "step_1.safetensors")


def test_files_that_do_not_change_are_waited_for_so_often_and_then_bad() -> None:
    patience = Patience()
    assert [patience.holds(KEY, "same") for _ in range(ATTEMPTS)] == [True] * (ATTEMPTS - 1) + [False]
    assert patience.is_bad(KEY, "same")


def test_files_that_change_are_waited_for_as_long_as_they_do() -> None:
    patience = Patience()
    assert all(patience.holds(KEY, str(look)) for look in range(5 * ATTEMPTS))


def test_files_that_have_changed_are_waited_for_as_long_as_new_ones() -> None:
    """However long they were what they were before: a slow disk may stand still twice."""
    patience = Patience()
    for state in ("a half", "all but the end", "whole"):
        assert [patience.holds(KEY, state) for _ in range(ATTEMPTS - 1)] == [True] * (ATTEMPTS - 1)
    assert not patience.holds(KEY, "whole")


def test_a_bad_checkpoint_is_looked_at_again_when_its_files_change() -> None:
    patience = Patience()
    for _ in range(ATTEMPTS):
        patience.holds(KEY, "cut short")
    assert not patience.is_bad(KEY, "whole")


def test_a_bad_checkpoint_whose_files_cannot_be_told_stays_bad() -> None:
    """An absent shard that stays absent is not analysed again and again."""
    patience = Patience()
    for _ in range(ATTEMPTS):
        patience.holds(KEY, "a shard is absent")
    assert patience.is_bad(KEY, "")


def test_what_could_be_used_begins_anew() -> None:
    patience = Patience()
    for _ in range(ATTEMPTS - 1):
        patience.holds(KEY, "same")
    patience.done(KEY)
    assert patience.holds(KEY, "same")
    assert not patience.is_bad(KEY, "same")


def test_what_is_wrong_with_a_checkpoint_is_known_until_it_could_be_used() -> None:
    """By its key in the plan and in the table, which escapes bytes that are no text."""
    patience, odd, stored = Patience(), ("run", "step\udcff.pt"), ("run", "step\\udcff.pt")
    assert patience.error(odd) is None
    patience.gave_up(odd, "cut short")
    assert patience.error(odd) == patience.error(stored) == "cut short"
    assert patience.error(KEY) is None
    patience.done(odd)
    assert patience.error(odd) is patience.error(stored) is None
