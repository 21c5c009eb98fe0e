"""Tone words: synthesized utterances for a speech recognizer where there is no corpus.

A letter is two tones at once, as on the keys of a telephone: one of three low and one of three high frequencies. A
word is its letters one after the other, a sentence two or three words with a pause between them. Duration, loudness and
pitch of every letter vary, and there is noise; all of it is drawn from seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from spectra_cli.tasks.base import place_generator
from spectra_cli.tasks.data.mel import SAMPLE_RATE

LETTERS = "AEILNORST"
LOW_HZ = (350.0, 600.0, 1000.0)
HIGH_HZ = (1700.0, 2600.0, 4000.0)
FREQUENCIES_HZ = dict(zip(LETTERS, product(LOW_HZ, HIGH_HZ), strict=True))
"""The two tones of every letter; all are several mel bands apart."""

WORDS = (
    "TEN", "RAIN", "STONE", "ALSO", "IRON", "LATE", "ROSE", "SEA", "LION", "TRAIN", "NOTE", "SALT",
    "EAST", "TONE", "SNAIL", "OR", "LINES", "ART", "STAR", "TEA", "NAIL", "REAL", "SORT", "ITS",
)  # fmt: skip
"""No letter comes twice in a row: a CTC path says such a word without a blank between."""

LETTER_S = (0.06, 0.10)
GAP_S = (0.015, 0.03)
"""Silence after a letter."""

PAUSE_S = (0.08, 0.12)
"""Silence before, between and after words."""

LOUDNESS = (0.4, 1.0)
DETUNING = 0.02
"""Largest relative deviation of a letter's frequencies."""

RAMP_S = 0.005
"""Seconds over which a tone sets in and dies away, so that it does not click."""

VAL_FRACTION = 0.2
PEAK = 0.5


@dataclass(frozen=True, slots=True)
class ToneUtterance:
    """A sentence of tone words; the same arguments give the same samples.

    Attributes:
        text: words of :data:`WORDS` with single spaces.
        noise: standard deviation of the white noise; the loudest tone has amplitude 1.
        seed: of the collection.
        place: of the utterance in the collection.
    """

    text: str
    noise: float
    seed: int
    place: int

    def waveform(self) -> Tensor:
        """(samples,) float32 at 16 kHz, in [-1, 1] (but for rare peaks of strong noise)."""
        generator = place_generator(self.seed, self.place)
        parts = [_silence(PAUSE_S, generator)]
        for word in self.text.split():
            for letter in word:
                parts += [_tone(letter, generator), _silence(GAP_S, generator)]
            parts.append(_silence(PAUSE_S, generator))
        clean = torch.cat(parts)
        noisy = clean + self.noise * torch.randn(len(clean), generator=generator, dtype=clean.dtype)
        return (PEAK / 2 * noisy).to(torch.float32)  # two tones add up to 2


def tone_utterances(count: int, words: int, noise: float, seed: int) -> dict[str, tuple[ToneUtterance, ...]]:
    """Utterances for training and for validation: no sentence of the one is in the other.

    Args:
        count: utterances altogether, at least 2; every fifth is for validation.
        words: how many of :data:`WORDS` are in use, at least 2.
        noise: see :class:`ToneUtterance`.
        seed: decides the sentences and how they sound.

    Returns:
        ``train`` and ``val``.
    """
    vocabulary = WORDS[:words]
    sentences = [" ".join(chosen) for length in (2, 3) for chosen in product(vocabulary, repeat=length)]
    order = torch.randperm(len(sentences), generator=place_generator(seed)).tolist()
    for_val = math.ceil(VAL_FRACTION * len(sentences))
    val_count = max(1, round(VAL_FRACTION * count))
    pools = {"train": order[for_val:], "val": order[:for_val]}
    places = {"train": range(val_count, count), "val": range(val_count)}

    def of(split: str) -> Iterator[ToneUtterance]:
        for number, place in enumerate(places[split]):
            sentence = sentences[pools[split][number % len(pools[split])]]
            yield ToneUtterance(sentence, noise, seed, place)

    return {split: tuple(of(split)) for split in pools}


def _tone(letter: str, generator: torch.Generator) -> Tensor:
    seconds = _uniform(LETTER_S, generator)
    times_s = torch.arange(round(seconds * SAMPLE_RATE), dtype=torch.float64) / SAMPLE_RATE
    pitch = 1.0 + _uniform((-DETUNING, DETUNING), generator)
    phases = torch.rand(2, generator=generator, dtype=torch.float64)
    tones = sum(
        torch.sin(2.0 * math.pi * (pitch * hertz * times_s + phase))
        for hertz, phase in zip(FREQUENCIES_HZ[letter], phases.tolist(), strict=True)
    )
    from_ends_s = torch.minimum(times_s, times_s.flip(0))
    envelope = 0.5 - 0.5 * torch.cos(math.pi * (from_ends_s / RAMP_S).clamp(max=1.0))
    return _uniform(LOUDNESS, generator) * envelope * tones


def _silence(seconds: tuple[float, float], generator: torch.Generator) -> Tensor:
    return torch.zeros(round(_uniform(seconds, generator) * SAMPLE_RATE), dtype=torch.float64)


def _uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))
