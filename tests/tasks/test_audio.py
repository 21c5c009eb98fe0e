"""LibriSpeech folders: which utterance is of which split, and what is said of copies that are broken."""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spectra_cli.errors import InputError, MissingExtraError
from spectra_cli.tasks.data.audio import Recording, read_recordings
from spectra_cli.tasks.evaluation import evaluate
from spectra_cli.tasks.speech import Speech

FLOAT_WAV = struct.Struct("<4sI4s4sIHHIIHH4sI")


def chapter(root: Path, subset: str, speaker: int, texts: list[str], *, audio: bytes = b"") -> list[Path]:
    """A chapter of LibriSpeech; the audio files are there, but hold these bytes."""
    folder = root / subset / str(speaker) / "7" if subset else root / str(speaker) / "7"
    folder.mkdir(parents=True)
    files = [folder / f"{speaker}-7-{number:04}.flac" for number in range(len(texts))]
    for file in files:
        file.write_bytes(audio)
    lines = [f"{file.stem} {text}\n" for file, text in zip(files, texts, strict=True)]
    (folder / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return files


def texts_of(recordings: tuple[Recording, ...]) -> list[str]:
    return [recording.text for recording in recordings]


def speakers_of(recordings: tuple[Recording, ...]) -> set[str]:
    return {recording.speaker for recording in recordings}


@pytest.mark.parametrize("nested", [False, True])
def test_subsets_are_the_splits_by_their_names(tmp_path: Path, nested: bool) -> None:
    """All of train-* together; dev-* for validation, test-* left alone. The root is LibriSpeech or holds it."""
    root = tmp_path / "LibriSpeech" if nested else tmp_path
    chapter(root, "train-clean-100", 3, ["B", "C"])
    chapter(root, "train-clean-100", 1, ["A"])
    chapter(root, "train-other-500", 4, ["D"])
    chapter(root, "dev-clean", 5, ["E"])
    chapter(root, "test-clean", 6, ["F"])
    found = read_recordings(tmp_path)
    assert {split: texts_of(recordings) for split, recordings in found.items()} == {
        "train": ["A", "B", "C", "D"],
        "val": ["E"],
    }


def test_test_subsets_serve_where_there_is_no_dev(tmp_path: Path) -> None:
    chapter(tmp_path, "train-clean-100", 1, ["A"])
    chapter(tmp_path, "test-clean", 6, ["F"])
    assert texts_of(read_recordings(tmp_path)["val"]) == ["F"]


@pytest.mark.parametrize("subset", ["", "dev-clean"])
def test_one_subset_is_cut_by_speakers(tmp_path: Path, subset: str) -> None:
    """A tenth of twenty speakers is two, the same ones every time, and nobody is in both."""
    for speaker in range(20):
        chapter(tmp_path, subset, speaker, ["A", "B"])
    found = read_recordings(tmp_path)
    assert {split: len(recordings) for split, recordings in found.items()} == {"train": 36, "val": 4}
    assert not speakers_of(found["train"]) & speakers_of(found["val"])
    assert read_recordings(tmp_path) == found


def test_few_speakers_are_cut_by_utterances(tmp_path: Path) -> None:
    chapter(tmp_path, "", 1, ["A"] * 15)
    found = read_recordings(tmp_path)
    assert {split: len(recordings) for split, recordings in found.items()} == {"train": 13, "val": 2}
    assert not {one.path for one in found["train"]} & {one.path for one in found["val"]}


def test_transcripts_are_capitals_apostrophes_and_single_spaces(tmp_path: Path) -> None:
    """Files of macOS' own are none of the corpus, and lines without audio are a part that was not copied."""
    files = chapter(tmp_path, "", 1, ["Don\N{RIGHT SINGLE QUOTATION MARK}t  go\t", "THERE", "NOT HERE"])
    files[2].unlink()
    (files[0].parent / "._1-7-0000.flac").write_bytes(b"")
    found = read_recordings(tmp_path)
    assert sorted(texts_of(found["train"] + found["val"])) == ["DON'T GO", "THERE"]


@pytest.mark.parametrize("broken", ["absent", "file", "empty", "no line", "no text", "foreign", "encoding", "one"])
def test_a_broken_copy_is_an_error_that_names_the_place(tmp_path: Path, broken: str) -> None:
    root = tmp_path / "corpus"
    files = chapter(root, "", 1, ["A"] if broken == "one" else ["A", "B", "PAGE 7" if broken == "foreign" else "C"])
    transcript = files[0].parent / "1-7.trans.txt"
    where, what = {
        "absent": (tmp_path / "nowhere", "does not exist"),
        "file": (transcript, "is no folder"),
        "empty": (tmp_path / "bare", "holds no SPEAKER/CHAPTER"),
        "no line": (files[-1], "has no line"),
        "no text": (files[-1], "has no line"),
        "foreign": (transcript, "line 3 has characters that a transcript cannot have: '7'"),
        "encoding": (transcript, "is no UTF-8"),
        "one": (root, "holds one utterance"),
    }[broken]
    (tmp_path / "bare").mkdir()
    if broken == "no line":
        transcript.write_text("1-7-0000 A\n1-7-0001 B\n")
    if broken == "no text":
        transcript.write_text("1-7-0000 A\n1-7-0001 B\n1-7-0002\n")
    if broken == "encoding":
        transcript.write_bytes(b"1-7-0000 \xff\n")
    with pytest.raises(InputError, match=what) as caught:
        read_recordings(where if broken in {"absent", "file", "empty"} else root)
    assert str(where) in str(caught.value)
    assert caught.value.remedy or broken == "one"


def test_without_soundfile_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"spectra-weights\[audio\]"):
        Recording(tmp_path / "a.flac", "A", "1").waveform()


def wave_of(samples: np.ndarray, rate: int = 16_000, *, claimed: int | None = None) -> bytes:
    """A WAV file of float32 samples, (samples, channels), written by its definition."""
    data = samples.astype("<f4").tobytes()
    channels = samples.shape[1]
    size = len(data) if claimed is None else claimed
    header = FLOAT_WAV.pack(
        b"RIFF",
        36 + size,
        b"WAVE",
        b"fmt ",
        16,
        3,
        channels,
        rate,
        rate * 4 * channels,
        4 * channels,
        32,
        b"data",
        size,
    )
    return header + data


def test_a_recording_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    samples = np.random.default_rng(0).uniform(-1, 1, (400, 2)).astype(np.float32)
    file = tmp_path / "a.wav"
    file.write_bytes(wave_of(samples))
    found = Recording(file, "A", "1").waveform()
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, samples.mean(axis=1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "cannot be read as audio"),
        (b"no audio at all", "cannot be read as audio"),
        (wave_of(np.zeros((400, 1)), 8000), "has 8000 samples per second, not 16000"),
        (wave_of(np.zeros((0, 1))), "holds 0 samples"),
        (wave_of(np.zeros((319, 1))), "holds 319 samples"),
        (wave_of(np.full((400, 1), math.nan)), "not finite"),
        (wave_of(np.zeros((400, 9))), "in 9 channels"),
    ],
    ids=["empty", "garbage", "rate", "silent", "short", "nan", "channels"],
)
def test_a_file_that_is_no_utterance_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    pytest.importorskip("soundfile")
    file = tmp_path / "a.wav"
    file.write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        Recording(file, "A", "1").waveform()
    assert caught.value.where == str(file)
    assert caught.value.remedy


def test_a_flac_that_is_cut_off_or_claims_hours_is_refused(tmp_path: Path) -> None:
    """A FLAC header says how many samples follow; what it says is not believed before memory is taken."""
    soundfile = pytest.importorskip("soundfile")
    file = tmp_path / "a.flac"
    noise = np.random.default_rng(0).uniform(-1, 1, 20_000)
    soundfile.write(file, noise, 16_000, subtype="PCM_16")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as audio"):
        Recording(file, "A", "1").waveform()
    header = int.from_bytes(whole[21:26], "big")  # of the STREAMINFO block; its last 36 bits are the count
    assert header & (2**36 - 1) == len(noise)
    for claimed, what in ((2**36 - 1, "utterances are at most 300 s"), (len(noise) + 10, "cannot be read as audio")):
        lying = (header - len(noise) + claimed).to_bytes(5, "big")
        file.write_bytes(whole[:21] + lying + whole[26:])
        with pytest.raises(InputError, match=what):
            Recording(file, "A", "1").waveform()


def test_speech_reads_a_corpus_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLAC keeps 16 bits of every sample: the features are those of the samples that were written."""
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    for subset, speakers in (("train-clean-100", (1, 2)), ("dev-clean", (3,))):
        for speaker in speakers:
            for file in chapter(tmp_path, subset, speaker, ["AB", "BA", "A B"]):
                soundfile.write(
                    file, rng.uniform(-0.5, 0.5, 16 * int(rng.integers(200, 400))), 16_000, subtype="PCM_16"
                )
    task = Speech(hidden=4, layers=1, data=str(tmp_path), eval_batch_size=2)
    model = task.model()
    opened: list[Path] = []
    read = Recording.waveform
    monkeypatch.setattr(Recording, "waveform", lambda self: opened.append(self.path) or read(self))
    batches = task.batches("train")
    first = next(iter(batches))
    assert len(opened) == 2
    assert first.features.shape[2] == 40
    assert task.training_count == 6
    found = evaluate(task, model, "val")
    assert (found["loss"].count, found["cer"].count, found["wer"].count) == (3, 7, 4)


def test_lines_end_at_line_feeds_only_and_a_byte_order_mark_is_no_character(tmp_path: Path) -> None:
    """What Python takes for further ends of lines, such as a form feed, is white space within a transcript."""
    files = chapter(tmp_path, "", 1, ["A", "B"])
    lines = f"\ufeff{files[0].stem} ONE\ftwo\u2028three\r\n{files[1].stem} FOUR"
    (files[0].parent / "1-7.trans.txt").write_bytes(lines.encode("utf-8"))
    found = read_recordings(tmp_path)
    assert sorted(texts_of(found["train"] + found["val"])) == ["FOUR", "ONE TWO THREE"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    files = chapter(tmp_path, "", 1, ["A", "B"])
    files[0].unlink()
    make(files[0])
    with pytest.raises(InputError, match=r"1-7-0000.flac: is no file"):
        Recording(files[0], "A", "1").waveform()
    transcript = files[0].parent / "1-7.trans.txt"
    transcript.unlink()
    make(transcript)
    with pytest.raises(InputError, match=r"trans.txt: cannot be read: this is a pipe, a device or a directory"):
        read_recordings(tmp_path)
