"""`speech`: characters of utterances, by bidirectional LSTMs and connectionist temporal classification (CTC)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import ctc_loss
from torch.nn.utils.rnn import pad_sequence

from spectra_cli.errors import UsageError
from spectra_cli.tasks.base import Metric, Recipe, place_generator, slices
from spectra_cli.tasks.data.audio import read_recordings
from spectra_cli.tasks.data.mel import mel_filterbank, speech_features
from spectra_cli.tasks.data.tones import WORDS, tone_utterances
from spectra_cli.tasks.data.transcripts import BLANK, CLASSES, collapsed, decoded, edit_distance, encoded, least_frames
from spectra_cli.tasks.memory import model_fits
from spectra_cli.tasks.models.lstm import SpeechLstm
from spectra_cli.tasks.options import COUNTS, LAYERS, SEEDS, WIDTHS, in_range, path_option

NO_DATA = "speech: no --data was given; the utterances are synthesized tone words"

WHERE = "task speech"

MEL_FEATURES = range(1, 2**10 + 1)

UTTERANCES = range(2, 10**6 + 1)
"""Two, for training and for validation, or more."""

KEPT_BYTES = 256 * 2**20
"""Limit for features that are kept in memory; those of other utterances are computed again when they are needed."""


class Utterance(Protocol):
    """What is said, and how it sounds."""

    @property
    def text(self) -> str:
        """Characters of the alphabet."""
        ...

    def waveform(self) -> Tensor:
        """(samples,) float32 at 16 kHz."""
        ...


class SpeechBatch(NamedTuple):
    """Utterances, padded at their ends.

    Attributes:
        features: (batch, longest, mel_features) float32.
        frames: (batch,) int64, of each utterance.
        texts: (batch, longest text) int64, classes of the characters.
        characters: (batch,) int64, of each text.
        least_frames: (batch,) int64, that a CTC path needs to say the text.
    """

    features: Tensor
    frames: Tensor
    texts: Tensor
    characters: Tensor
    least_frames: Tensor


@dataclass
class _Kept:
    """Features by split and place, as long as there is room for them."""

    features: dict[tuple[str, int], Tensor]
    total_bytes: int = 0

    def keep(self, key: tuple[str, int], features: Tensor) -> None:
        if self.total_bytes + features.nbytes <= KEPT_BYTES:
            self.features[key] = features
            self.total_bytes += features.nbytes


@dataclass(frozen=True)
class Speech:
    """Speech recognition by LSTMs, on LibriSpeech or synthesized tone words (Yunis et al. 2024, appendix).

    Metrics, over the utterances of a split:

    - ``loss``: CTC loss in nats, -ln of the probability of the text, per utterance (not per character). The mean is
      over the utterances whose text fits into their frames: the probability of any other is 0 whatever the model.
    - ``cer``: edits from the decoded text to the reference, per character of the reference (spaces are characters).
    - ``wer``: the same of words.

    Decoding is greedy: the likeliest class of every frame, repetitions merged, blanks removed.

    Attributes:
        hidden: units of each direction of each layer.
        layers: bidirectional LSTMs, one above the other.
        mel_features: mel bands.
        log_mel: whether features are logarithms of energies; the papers' code takes energies (``false``).
        dropout: probability, between layers.
        data: folder of LibriSpeech, or of one of its subsets; see
            :func:`spectra_cli.tasks.data.audio.read_recordings`. None for synthesized tone words.
        eval_examples: metrics are over the first so many utterances of each split, in a fixed random order; None: all.
        eval_batch_size: utterances per batch of an evaluation.
        tone_utterances: how many are synthesized; a fifth of them is for validation.
        tone_words: size of their vocabulary.
        tone_noise: standard deviation of their noise; the loudest tone has amplitude 1.
        tone_seed: decides sentences, durations, loudness and noise.
    """

    hidden: int = 256
    layers: int = 4
    mel_features: int = 40
    log_mel: bool = True
    dropout: float = 0.0
    data: str | None = None
    eval_examples: int | None = None
    eval_batch_size: int = 32
    tone_utterances: int = 1000
    tone_words: int = 12
    tone_noise: float = 0.1
    tone_seed: int = 0

    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw", lr=3e-4, weight_decay=0.1, batch_size=32, epochs=50, schedule="cosine", final_fraction=0.0
    )

    def __post_init__(self) -> None:
        """Check the options."""
        in_range(
            WHERE,
            hidden=(self.hidden, WIDTHS),
            layers=(self.layers, LAYERS),
            mel_features=(self.mel_features, MEL_FEATURES),
            eval_examples=(self.eval_examples, COUNTS),
            eval_batch_size=(self.eval_batch_size, COUNTS),
            tone_utterances=(self.tone_utterances, UTTERANCES),
            tone_words=(self.tone_words, range(2, len(WORDS) + 1)),
            tone_seed=(self.tone_seed, SEEDS),
        )
        if not 0.0 <= self.dropout < 1.0 or not 0.0 <= self.tone_noise < float("inf"):
            raise UsageError("dropout is in [0, 1) and tone_noise is not negative", where=WHERE)
        if bool((mel_filterbank(self.mel_features).amax(dim=0) <= 0.0).any()):
            raise UsageError(
                f"{self.mel_features} mel features are narrower than the resolution of 40 Hz",
                where=WHERE,
                remedy="Lower mel_features; 40 is usual",
            )

    @property
    def notice(self) -> str | None:
        """What a user should know before looking at numbers."""
        return NO_DATA if self.data is None else None

    @property
    def training_count(self) -> int:
        """Utterances of the training split."""
        return len(self._utterances["train"])

    @model_fits(WHERE)
    def model(self) -> nn.Module:
        """A new recognizer."""
        return SpeechLstm(self.mel_features, self.hidden, self.layers, CLASSES, self.dropout)

    def batches(self, split: str) -> Iterator[SpeechBatch]:
        """The batches of a split, in a fixed random order of the utterances."""
        count = len(self._utterances[split])
        order = torch.randperm(count, generator=place_generator(self.splits.index(split)))[: self.eval_examples]
        for places in slices(len(order), self.eval_batch_size):
            yield self._batch(split, order[places])

    def training_batch(self, indices: Tensor, generator: torch.Generator) -> SpeechBatch:  # noqa: ARG002 - nothing is random
        """The training utterances of these indices."""
        return self._batch("train", indices)

    def metrics(self, model: nn.Module, batch: SpeechBatch) -> dict[str, Metric]:
        """CTC loss and the errors of greedy decoding."""
        logits = model(batch.features, batch.frames)
        losses = ctc_losses(logits, batch)
        edits = {"cer": 0, "wer": 0}
        counts = {"cer": 0, "wer": 0}
        for hypothesis, reference in zip(greedy_texts(logits, batch.frames), _references(batch), strict=True):
            for name, said, meant in (
                ("cer", list(hypothesis), list(reference)),
                ("wer", hypothesis.split(), reference.split()),
            ):
                edits[name] += edit_distance(said, meant)
                counts[name] += len(meant)
        errors = {name: Metric(float(edits[name]), counts[name]) for name in edits}
        return {"loss": Metric(losses.sum(), len(losses)), **errors}

    def loss(self, model: nn.Module, batch: SpeechBatch) -> Tensor:
        """Mean over utterances of the CTC loss per character, as the papers minimize it.

        Utterances whose text does not fit into their frames give no gradient and do not count.
        """
        logits: Tensor = model(batch.features, batch.frames)
        fitting = _fitting(batch)
        if not bool(fitting.any()):
            return logits.sum() * 0.0
        return (ctc_losses(logits, batch) / batch.characters[fitting]).mean()

    @cached_property
    def _utterances(self) -> Mapping[str, Sequence[Utterance]]:
        if self.data is not None:
            return read_recordings(path_option(self.data))
        return tone_utterances(self.tone_utterances, self.tone_words, self.tone_noise, self.tone_seed)

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept({})

    def _features(self, split: str, place: int) -> Tensor:
        kept = self._kept.features.get((split, place))
        if kept is not None:
            return kept
        waveform = self._utterances[split][place].waveform()
        features = speech_features(waveform, self.mel_features, log=self.log_mel)
        self._kept.keep((split, place), features)
        return features

    def _batch(self, split: str, places: Tensor) -> SpeechBatch:
        chosen = [int(place) for place in places]
        features = [self._features(split, place) for place in chosen]
        spoken = [self._utterances[split][place].text for place in chosen]
        return SpeechBatch(
            features=pad_sequence(features, batch_first=True),
            frames=torch.tensor([len(one) for one in features]),
            texts=pad_sequence([encoded(text) for text in spoken], batch_first=True),
            characters=torch.tensor([len(text) for text in spoken]),
            least_frames=torch.tensor([least_frames(text) for text in spoken]),
        )


def ctc_losses(logits: Tensor, batch: SpeechBatch) -> Tensor:
    """-ln of the probability of the text, of every utterance whose text fits into its frames (Graves et al. 2006).

    In float64: the recursion adds up hundreds of small numbers, and cuDNN's own kernel, which has other results than
    that of the CPU, is for float32 only. Where the device has no such kernel (MPS), or none whose gradient is the same
    every time (CUDA, if deterministic algorithms are asked for), the CPU computes it.

    An infinite loss of an utterance that fits is the model's own, and stays infinite.

    Args:
        logits: (batch, longest, classes).
        batch: on the same device.

    Returns:
        (fitting,) float64, in the order of the batch.
    """
    fitting = _fitting(batch)
    log_probabilities = logits[fitting].to(_ctc_device(logits.device)).to(torch.float64).log_softmax(dim=-1)
    if not len(log_probabilities):
        return log_probabilities.sum(dim=(1, 2))
    texts = batch.texts[fitting].to(log_probabilities.device)
    lengths = (batch.frames[fitting].cpu(), batch.characters[fitting].cpu())
    losses = ctc_loss(log_probabilities.transpose(0, 1), texts, *lengths, blank=BLANK, reduction="none")
    return losses if logits.device.type == "mps" else losses.to(logits.device)  # MPS has no float64


def greedy_texts(logits: Tensor, frames: Tensor) -> list[str]:
    """The likeliest class of every frame, repetitions merged, blanks removed.

    Args:
        logits: (batch, longest, classes).
        frames: (batch,) int64; what lies beyond is not read.
    """
    paths: list[list[int]] = logits.argmax(dim=-1).tolist()
    return [collapsed(path[:count]) for path, count in zip(paths, frames.tolist(), strict=True)]


def _references(batch: SpeechBatch) -> list[str]:
    rows: list[list[int]] = batch.texts.tolist()
    return [decoded(row[:count]) for row, count in zip(rows, batch.characters.tolist(), strict=True)]


def _fitting(batch: SpeechBatch) -> Tensor:
    return batch.frames >= batch.least_frames


def _ctc_device(device: torch.device) -> torch.device:
    without_kernel = device.type == "mps" or (device.type == "cuda" and torch.are_deterministic_algorithms_enabled())
    return torch.device("cpu") if without_kernel else device
