"""Folders of utterances as LibriSpeech has them: ``SUBSET/SPEAKER/CHAPTER/*.flac`` and one ``*.trans.txt`` per chapter.

Other corpora that keep to this form (16 kHz, one transcript per line) are read as well, also as WAV.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.regularfile import open_regular
from spectra_cli.tasks.base import place_generator
from spectra_cli.tasks.data.mel import LEAST_SAMPLES, SAMPLE_RATE
from spectra_cli.tasks.data.transcripts import foreign_characters, normalized_transcript

SUFFIXES = (".flac", ".wav")
"""Suffixes of audio files."""

PARTS = ("train", "dev", "test")
"""What the names of LibriSpeech's subsets begin with, as in ``train-clean-100``."""

VAL_FRACTION = 0.1
"""Share of the speakers (with fewer than ten, of the utterances), where there is no dev or test subset."""

LONGEST_S = 300.0
"""Seconds of the longest utterance that is read; LibriSpeech's longest are 35 s. A header can claim anything."""

MOST_CHANNELS = 8
MOST_UTTERANCES = 2_000_000
MOST_TRANSCRIPT_BYTES = 16 * 2**20
"""Limit for the transcripts of one chapter; LibriSpeech's longest are some 30 kB."""


@dataclass(frozen=True, slots=True)
class Recording:
    """An utterance on disk.

    Attributes:
        path: of the audio file.
        text: what is said: capitals, apostrophe and single spaces.
        speaker: name of the speaker's folder.
    """

    path: Path
    text: str
    speaker: str

    def waveform(self) -> Tensor:
        """The mean of the channels, (samples,) float32 in [-1, 1] at 16 kHz.

        Raises:
            InputError: if the file is no audio, is cut off, is shorter than 20 ms or longer than 5 minutes, has another
                sample rate, or has samples that are not finite.
            MissingExtraError: if `soundfile` is not installed.
        """
        soundfile = _soundfile()
        if not self.path.is_file():
            raise InputError("is no file", where=str(self.path), remedy=_RESTORE)
        try:
            with soundfile.SoundFile(str(self.path)) as file:
                _check_header(self.path, file.samplerate, file.frames, file.channels)
                samples = file.read(dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:  # soundfile's own errors are RuntimeErrors
            raise InputError(f"cannot be read as audio ({error})", where=str(self.path), remedy=_RESTORE) from error
        waveform = torch.from_numpy(samples).mean(dim=1)
        if not bool(waveform.isfinite().all()):
            raise InputError("has samples that are not finite", where=str(self.path), remedy=_RESTORE)
        return waveform


_RESTORE = "Restore the file, or remove it together with its line in the transcript"


def _soundfile() -> Any:  # the module: the package is optional
    try:
        import soundfile  # noqa: PLC0415 - an extra
    except (ImportError, OSError) as error:  # OSError: libsndfile itself is missing
        raise MissingExtraError(
            "reading audio files needs soundfile", remedy="pip install 'spectra-weights[audio]'"
        ) from error
    return soundfile


def _check_header(path: Path, sample_rate: int, samples: int, channels: int) -> None:
    if sample_rate != SAMPLE_RATE:
        raise InputError(
            f"has {sample_rate} samples per second, not {SAMPLE_RATE}",
            where=str(path),
            remedy="Resample the corpus to 16 kHz, as with: ffmpeg -i IN.flac -ar 16000 OUT.flac",
        )
    if samples < LEAST_SAMPLES:
        raise InputError(f"holds {samples} samples: no audio, or less than 20 ms", where=str(path), remedy=_RESTORE)
    if samples > LONGEST_S * SAMPLE_RATE or channels > MOST_CHANNELS:
        raise InputError(
            f"claims {samples / SAMPLE_RATE:.0f} s in {channels} channels; utterances are at most {LONGEST_S:.0f} s",
            where=str(path),
            remedy="Cut long recordings into utterances, each with its own line in the transcript",
        )


def read_recordings(path: Path) -> dict[str, tuple[Recording, ...]]:
    """The utterances for training and for validation; no audio is read.

    Args:
        path: a folder that holds LibriSpeech's subsets (``train-*``, ``dev-*``, ``test-*``), itself or in its folder
            ``LibriSpeech``; or one subset. All ``train-*`` subsets together are ``train``; ``dev-*`` are ``val``, or
            ``test-*`` where there is no dev. Where this leaves one of the two without any subset, a tenth of the
            speakers of all subsets is ``val`` (a tenth of the utterances where there are fewer than ten speakers),
            always the same ones.

    Returns:
        ``train`` and ``val``, each in the order of the paths.

    Raises:
        InputError: if there are no such folders, an audio file has no transcript, or a transcript has a character other
            than letters A to Z, apostrophe and space. Lines of a transcript without an audio file are passed over: a
            part of a corpus is a corpus.
    """
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise InputError(what, where=str(path), remedy="Give --data the folder of LibriSpeech, or of one subset")
    subsets = _subsets(path)
    if not subsets and (path / "LibriSpeech").is_dir():
        subsets = _subsets(path / "LibriSpeech")
    by_part = {part: [subset for subset in subsets if subset.name.startswith(f"{part}-")] for part in PARTS}
    held_out = by_part["dev"] or by_part["test"]
    if by_part["train"] and held_out:
        return {"train": _recordings(by_part["train"], path), "val": _recordings(held_out, path)}
    return _divided(_recordings(by_part["train"] or subsets or [path], path), path)


def _subsets(path: Path) -> list[Path]:
    found = (child for child in path.iterdir() if child.name.startswith(tuple(f"{part}-" for part in PARTS)))
    return sorted(child for child in found if child.is_dir())


def _recordings(subsets: Sequence[Path], path: Path) -> tuple[Recording, ...]:
    found: list[Recording] = []
    for subset in subsets:
        for chapter in sorted(subset.glob("*/*/")):
            found += _chapter(chapter)
            if len(found) > MOST_UTTERANCES:
                raise InputError(f"holds more than {MOST_UTTERANCES} utterances", where=str(path))
    if not found:
        raise InputError(
            "holds no SPEAKER/CHAPTER/*.flac with transcripts",
            where=", ".join(map(str, subsets)),
            remedy="Give --data the folder of LibriSpeech (with train-clean-100, dev-clean, ...), or of one subset",
        )
    return tuple(found)


def _chapter(folder: Path) -> Iterator[Recording]:
    """The utterances of a chapter, by name; of the same utterance in two formats, the first suffix counts."""
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))  # "._*" are macOS' own
    audio: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for file in files:
            if file.suffix.lower() == suffix:
                audio.setdefault(file.stem, file)
    if not audio:
        return
    texts: dict[str, str] = {}
    for file in files:
        if file.name.endswith(".trans.txt"):
            texts |= _transcripts(file)
    for name in sorted(audio):
        if not texts.get(name):
            raise InputError(
                "has no line with a text in a *.trans.txt beside it",
                where=str(audio[name]),
                remedy="Restore the transcript, or remove the audio file",
            )
        yield Recording(audio[name], texts[name], folder.parent.name)


def _transcripts(file: Path) -> dict[str, str]:
    """The normalized text of every utterance that a file of lines ``UTTERANCE TEXT`` names."""
    try:
        with open_regular(file) as stream:
            content = stream.read(MOST_TRANSCRIPT_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=str(file), remedy="Restore the transcript"
        ) from error
    if len(content) > MOST_TRANSCRIPT_BYTES:
        raise InputError(f"is larger than {MOST_TRANSCRIPT_BYTES} bytes: no transcript of a chapter", where=str(file))
    try:
        lines = content.decode("utf-8-sig").split("\n")  # splitlines() would also cut at characters within a line
    except UnicodeDecodeError as error:
        raise InputError("is no UTF-8 text", where=str(file), remedy="Convert it with iconv") from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        texts[name] = normalized_transcript(text)
        if foreign := foreign_characters(texts[name]):
            raise InputError(
                f"line {number} has characters that a transcript cannot have: {foreign[:20]!r}",
                where=str(file),
                remedy="Write numbers and signs as words, in the letters A to Z, apostrophe and space",
            )
    return texts


def _divided(recordings: tuple[Recording, ...], path: Path) -> dict[str, tuple[Recording, ...]]:
    """Train and val by speakers, or by utterances where there are fewer than ten speakers."""
    speakers = sorted({recording.speaker for recording in recordings})
    by_speaker = len(speakers) >= round(1 / VAL_FRACTION)
    keys = [recording.speaker if by_speaker else str(recording.path) for recording in recordings]
    names = sorted(set(keys))
    if len(names) < 2:
        raise InputError("holds one utterance; two are the least, for train and val", where=str(path))
    order = torch.randperm(len(names), generator=place_generator(0)).tolist()
    held_out = {names[place] for place in order[: math.ceil(VAL_FRACTION * len(names))]}
    both = list(zip(recordings, keys, strict=True))
    return {
        "train": tuple(recording for recording, key in both if key not in held_out),
        "val": tuple(recording for recording, key in both if key in held_out),
    }
