"""Checkpoints that cannot be used yet: a run that goes on may be writing them."""

from __future__ import annotations

from spectra_cli.tables.entries import Key, stored_key

ATTEMPTS = 3
"""Attempts with unchanged files after which a checkpoint is bad and not unfinished."""


class Patience:
    """Remembers, from one look at a run to the next, which checkpoints could not be used.

    A key may be that of a plan or, for a checkpoint that is gone, that of a table.
    """

    def __init__(self) -> None:
        self._attempts: dict[Key, tuple[str, int]] = {}  # the state of the files, and how many attempts have met it
        self._errors: dict[Key, str] = {}

    def holds(self, key: Key, state: str) -> bool:
        """Whether to wait longer for a checkpoint that could not be used.

        Args:
            key: of the checkpoint.
            state: of its files when it was read.
        """
        before, count = self._attempts.get(stored_key(key), (state, 0))
        count = count + 1 if before == state else 1
        self._attempts[stored_key(key)] = (state, count)
        return count < ATTEMPTS

    def is_bad(self, key: Key, state: str) -> bool:
        """Whether a checkpoint was found to be bad, and its files are what they were then.

        Args:
            key: of the checkpoint.
            state: of its files; "" where it cannot be told, as some are absent still.
        """
        before, count = self._attempts.get(stored_key(key), ("", 0))
        return count >= ATTEMPTS and state in {before, ""}

    def gave_up(self, key: Key, error: str) -> None:
        """A checkpoint is bad, and its rows say so.

        Args:
            key: of the checkpoint.
            error: what was said of it, for as long as it has these rows.
        """
        self._errors[stored_key(key)] = error

    def error(self, key: Key) -> str | None:
        """What was said of a checkpoint whose rows say that it is bad; None of any other."""
        return self._errors.get(stored_key(key))

    def done(self, key: Key) -> None:
        """A checkpoint could be used after all."""
        self._attempts.pop(stored_key(key), None)
        self._errors.pop(stored_key(key), None)
