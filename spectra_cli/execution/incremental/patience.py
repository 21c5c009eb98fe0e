"""Checkpoints that cannot be used yet: a run that goes on may be writing them."""

from __future__ import annotations

from dataclasses import dataclass, field

from spectra_cli.tables.entries import Key

ATTEMPTS = 3
"""After so many with files that do not change any more, a checkpoint is bad and not unfinished."""


@dataclass
class Patience:
    """Remembers, from one look at a run to the next, which checkpoints could not be used.

    Attributes:
        attempts: by key, the state of the files at the last attempt, and how many attempts have met it.
        errors: by key, as tables have it, what was said of those whose rows say that they are bad.
    """

    attempts: dict[Key, tuple[str, int]] = field(default_factory=dict)
    errors: dict[Key, str] = field(default_factory=dict)

    def holds(self, key: Key, state: str) -> bool:
        """Whether to wait longer for a checkpoint that could not be used.

        Args:
            key: of the checkpoint.
            state: of its files when it was read.
        """
        before, count = self.attempts.get(key, (state, 0))
        count = count + 1 if before == state else 1
        self.attempts[key] = (state, count)
        return count < ATTEMPTS

    def is_bad(self, key: Key, state: str) -> bool:
        """Whether a checkpoint was found to be bad, and its files are what they were then.

        Args:
            key: of the checkpoint.
            state: of its files; "" where it cannot be told, as some are absent still.
        """
        before, count = self.attempts.get(key, ("", 0))
        return count >= ATTEMPTS and state in {before, ""}

    def done(self, key: Key) -> None:
        """A checkpoint could be used after all."""
        self.attempts.pop(key, None)
        self.errors.pop(key, None)
