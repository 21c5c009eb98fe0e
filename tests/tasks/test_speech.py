"""Speech recognition: CTC and edit distances by definition, features by NumPy, and no result depends on the batch."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spectra_cli.errors import UsageError
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tasks.base import TrainableTask, moved
from spectra_cli.tasks.data import tones
from spectra_cli.tasks.data.mel import mel_filterbank, mel_spectrogram, speech_features
from spectra_cli.tasks.data.transcripts import ALPHABET, CLASSES, collapsed, edit_distance, encoded, least_frames
from spectra_cli.tasks.evaluation import evaluate
from spectra_cli.tasks.models.lstm import SpeechLstm
from spectra_cli.tasks.speech import Speech, SpeechBatch, ctc_losses, greedy_texts
from spectra_cli.tensors import TensorInfo

SMALL = Speech(hidden=6, layers=2, eval_batch_size=4, tone_utterances=20, tone_words=5)


def model_of(task: Speech, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.model()


def batch_of(texts: list[str], frames: list[int], features: Tensor | None = None) -> SpeechBatch:
    return SpeechBatch(
        features=torch.zeros(len(texts), max(frames), 3) if features is None else features,
        frames=torch.tensor(frames),
        texts=nn.utils.rnn.pad_sequence([encoded(text) for text in texts], batch_first=True),
        characters=torch.tensor([len(text) for text in texts]),
        least_frames=torch.tensor([least_frames(text) for text in texts]),
    )


def text_probability(logits: np.ndarray, text: str) -> float:
    """The sum over all paths that say a text, one by one (Graves et al. 2006, Eq. 3)."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    usable = sorted({0, *(1 + ALPHABET.index(character) for character in text)})  # no other class may be on such a path
    total = 0.0
    for path in itertools.product(usable, repeat=len(logits)):
        merged = [place for place, _ in itertools.groupby(path)]
        if "".join(ALPHABET[place - 1] for place in merged if place) == text:
            total += math.prod(probabilities[frame, place] for frame, place in enumerate(path))
    return total


def plain_edit_distance(hypothesis: list[str], reference: list[str]) -> int:
    """The table of Wagner and Fischer, cell by cell."""
    table = {(i, 0): i for i in range(len(hypothesis) + 1)} | {(0, j): j for j in range(len(reference) + 1)}
    for i, said in enumerate(hypothesis, start=1):
        for j, meant in enumerate(reference, start=1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (said != meant))
    return table[len(hypothesis), len(reference)]


def test_the_loss_is_the_probability_of_all_paths_that_say_the_text() -> None:
    """Also of a text that just fits, of equal neighbours, and of an utterance that its batch pads."""
    texts, frames = ["AB", "AA", "A'A", "B"], [5, 3, 3, 4]
    logits = 2.0 * torch.randn(4, 5, CLASSES, generator=torch.Generator().manual_seed(0))
    expected = [
        -math.log(text_probability(logits[place, :count].double().numpy(), text))
        for place, (text, count) in enumerate(zip(texts, frames, strict=True))
    ]
    assert ctc_losses(logits, batch_of(texts, frames)).tolist() == pytest.approx(expected, rel=1e-9)


def test_a_text_that_does_not_fit_has_no_loss_but_its_errors() -> None:
    """Its probability is 0 for every model; AA takes three frames. It counts for CER and WER all the same."""
    batch = batch_of(["AA", "AB"], [2, 2], torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0)))
    model = SpeechLstm(3, 4, 1, CLASSES)
    with torch.no_grad():
        metrics = SMALL.metrics(model.eval(), batch)
        logits = model(batch.features, batch.frames)
    expected = -math.log(text_probability(logits[1].double().numpy(), "AB"))
    assert metrics["loss"].count == 1
    assert float(metrics["loss"].total) == pytest.approx(expected, rel=1e-6)
    assert (metrics["cer"].count, metrics["wer"].count) == (4, 2)
    loss = SMALL.loss(model, batch)
    assert float(loss.detach()) == pytest.approx(expected / 2, rel=1e-6)  # per character of AB alone


def test_a_batch_of_which_nothing_fits_gives_no_gradient() -> None:
    batch = batch_of(["AA"], [2])
    model = SpeechLstm(3, 4, 1, CLASSES)
    loss = SMALL.loss(model, batch)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        assert SMALL.metrics(model, batch)["loss"].count == 0


def test_a_model_that_rules_the_text_out_has_an_infinite_loss() -> None:
    """No policy hides what the model is to blame for."""
    logits = torch.zeros(1, 4, CLASSES)
    logits[..., 1 + ALPHABET.index("A")] = -math.inf
    assert ctc_losses(logits, batch_of(["A"], [4])).tolist() == [math.inf]


@given(st.text("AB ", max_size=12), st.text("AB ", max_size=12))
@settings(max_examples=150, deadline=None)
def test_edit_distance_is_that_of_the_table(hypothesis: str, reference: str) -> None:
    assert edit_distance(list(hypothesis), list(reference)) == plain_edit_distance(list(hypothesis), list(reference))
    words = hypothesis.split(), reference.split()
    assert edit_distance(*words) == plain_edit_distance(*words)


@pytest.mark.parametrize(
    ("path", "text"), [("__A_", "A"), ("AA_A", "AA"), ("AAB_", "AB"), ("____", ""), ("", ""), ("A _B", "A B")]
)
def test_a_path_says_its_changes_without_blanks(path: str, text: str) -> None:
    classes = [0 if character == "_" else 1 + ALPHABET.index(character) for character in path]
    assert collapsed(classes) == text


def test_decoding_reads_no_padding() -> None:
    logits = torch.zeros(1, 3, CLASSES)
    logits[0, 0, 1 + ALPHABET.index("A")] = logits[0, 1:, 1 + ALPHABET.index("B")] = 1.0
    assert greedy_texts(logits, torch.tensor([1])) == ["A"]


def test_metrics_of_a_split_are_those_of_a_plain_loop() -> None:
    """Uneven batches and padding: the same as one utterance after the other, with errors by the table."""
    task = replace(SMALL, eval_examples=3, eval_batch_size=2)
    model = model_of(task).eval()
    utterances = [
        (batch.features[row, :count], "".join(ALPHABET[place - 1] for place in batch.texts[row, :length]))
        for batch in task.batches("val")
        for row, (count, length) in enumerate(zip(batch.frames.tolist(), batch.characters.tolist(), strict=True))
    ]
    assert len(utterances) == 3
    losses, edits, characters, word_edits, words = [], 0, 0, 0, 0
    for features, text in utterances:
        with torch.no_grad():
            logits = model(features[None], torch.tensor([len(features)]))[0]
        log_probabilities = logits.double().log_softmax(dim=-1)
        losses.append(float(nn.CTCLoss(reduction="sum")(log_probabilities, encoded(text), [len(logits)], [len(text)])))
        path = [place for place, _ in itertools.groupby(logits.argmax(dim=-1).tolist())]
        said = "".join(ALPHABET[place - 1] for place in path if place)
        edits, characters = edits + plain_edit_distance(list(said), list(text)), characters + len(text)
        word_edits, words = word_edits + plain_edit_distance(said.split(), text.split()), words + len(text.split())
    found = evaluate(task, model, "val")
    assert found["loss"].value == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert found["loss"].count == 3
    assert (found["cer"].value, found["cer"].count) == (pytest.approx(edits / characters), characters)
    assert (found["wer"].value, found["wer"].count) == (pytest.approx(word_edits / words), words)


def test_an_utterance_alone_and_in_a_padded_batch() -> None:
    """The reverse direction starts at the utterance's own end: to 1e-5, whatever it is batched with."""
    model = model_of(SMALL).eval()
    together = SMALL.training_batch(torch.arange(6), torch.Generator())
    assert len(set(together.frames.tolist())) > 1
    with torch.no_grad():
        batched = ctc_losses(model(together.features, together.frames), together)
        for place in range(6):
            alone = SMALL.training_batch(torch.tensor([place]), torch.Generator())
            loss = ctc_losses(model(alone.features, alone.frames), alone)
            assert float(batched[place]) == pytest.approx(float(loss), abs=1e-5)


def test_training_is_the_same_to_the_bit_and_learns() -> None:
    task = Speech(hidden=16, layers=1, tone_utterances=10, tone_words=2)

    def trained() -> tuple[list[float], dict[str, Tensor]]:
        model = model_of(task)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        losses = []
        for _ in range(60):
            loss = task.loss(model, task.training_batch(torch.arange(8), torch.Generator()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses, model.state_dict()

    (losses, one), (again, other) = trained(), trained()
    assert losses == again
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert losses[-1] < 0.25 * losses[0]


def test_the_matrices_are_those_of_the_family_lstm() -> None:
    """At the papers' size: 4 layers, two directions, 256 units, 40 features, 29 classes."""
    state = Speech().model().state_dict()
    tensors = {name: TensorInfo(name, tuple(tensor.shape), "float32") for name, tensor in state.items()}
    inventory = take_inventory(tensors, ordered=True, config=None)
    assert [family.fit.architecture.family for family in inventory.families] == ["lstm"]
    assert inventory.unfitted == []
    assert state["lstm.weight_ih_l3_reverse"].shape == (4 * 256, 2 * 256)
    assert state["lstm.weight_ih_l0"].shape == (4 * 256, 40)
    assert state["linear.weight"].shape == (29, 2 * 256)


def test_the_task_says_that_its_utterances_are_synthesized() -> None:
    assert isinstance(SMALL, TrainableTask)
    assert SMALL.notice is not None
    assert "synthesized" in SMALL.notice
    assert replace(SMALL, data="somewhere").notice is None


def test_batches_are_the_same_every_time_and_the_first_examples_are_a_part() -> None:
    first, again = list(SMALL.batches("train")), list(replace(SMALL).batches("train"))
    assert [len(batch.frames) for batch in first] == [4, 4, 4, 4]
    assert all(
        torch.equal(x, y) for one, other in zip(first, again, strict=True) for x, y in zip(one, other, strict=True)
    )
    (part,) = replace(SMALL, eval_examples=2).batches("train")
    assert torch.equal(part.characters, first[0].characters[:2])
    assert SMALL.training_count == 16


def test_features_beyond_the_room_for_them_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list(replace(SMALL).batches("val"))
    monkeypatch.setattr("spectra_cli.tasks.speech.KEPT_BYTES", 20_000)  # one utterance or two
    task = replace(SMALL)
    for _ in range(2):
        assert all(torch.equal(x.features, y.features) for x, y in zip(task.batches("val"), kept, strict=True))
    assert 0 < task._kept.total_bytes <= 20_000


@pytest.mark.parametrize(
    "options",
    [{"hidden": 0}, {"layers": 0}, {"eval_examples": 0}, {"tone_words": 1}, {"tone_words": 99}, {"dropout": 1.0},
     {"tone_noise": -0.1}, {"tone_noise": math.nan}, {"mel_features": 150}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Speech(**options)  # type: ignore[arg-type]


def test_dropout_acts_in_training_only() -> None:
    task = replace(SMALL, dropout=0.5)
    model, batch = model_of(task), task.training_batch(torch.arange(2), torch.Generator())
    assert not torch.equal(model(batch.features, batch.frames), model(batch.features, batch.frames))
    model.eval()
    assert torch.equal(model(batch.features, batch.frames), model(batch.features, batch.frames))


def independent_mel(samples: np.ndarray, bands: int) -> np.ndarray:
    """Framing, Fourier transform and triangles with loops in NumPy."""
    padded = np.pad(samples.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.array([padded[start : start + 400] * window for start in range(0, len(padded) - 399, 160)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges_mel = np.arange(bands + 2) * (2595 * np.log10(1 + 8000 / 700)) / (bands + 1)
    edges = 700 * (10 ** (edges_mel / 2595) - 1)
    energies = np.zeros((len(frames), bands))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for place in range(201):
            hertz = 40.0 * place
            if left < hertz < right:
                height = (hertz - left) / (centre - left) if hertz <= centre else (right - hertz) / (right - centre)
                energies[:, band] += power[:, place] * height * 2 / (right - left)
    return energies


@pytest.mark.parametrize("samples", [320, 1601, 5000])
@pytest.mark.parametrize("bands", [13, 40])
def test_mel_features_are_those_of_an_independent_computation(samples: int, bands: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    energies = independent_mel(noise, bands)
    np.testing.assert_allclose(mel_spectrogram(torch.from_numpy(noise), bands), energies, rtol=1e-4)
    for log, values in ((True, np.log(energies)), (False, energies)):
        normalized = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
        expected = [normalized[start : start + 3].mean(axis=0) for start in range(0, len(normalized) - 2, 3)]
        found = speech_features(torch.from_numpy(noise), bands, log=log)
        assert found.shape == ((1 + samples // 160) // 3, bands)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_filters_have_unit_area() -> None:
    """Of a fine grid, so that sums are integrals: 4 Hz a bin."""
    areas = mel_filterbank(40, window=4000).sum(dim=0) * 4.0
    np.testing.assert_allclose(areas, np.ones(40), rtol=5e-3)


def test_silence_gives_finite_features() -> None:
    assert not speech_features(torch.zeros(3200)).any()


def test_audio_that_is_too_short_for_a_frame() -> None:
    assert speech_features(torch.randn(320)).shape == (1, 40)
    with pytest.raises(ValueError, match="at least 320 samples"):
        speech_features(torch.randn(319))


@pytest.mark.parametrize("letter", tones.LETTERS)
def test_the_strongest_frequencies_of_a_letter_are_its_own(letter: str) -> None:
    waveform = tones.ToneUtterance(letter, noise=0.05, seed=0, place=0).waveform().numpy()
    spectrum = np.abs(np.fft.rfft(waveform))
    hertz = np.fft.rfftfreq(len(waveform), 1 / 16_000)
    for expected, band in zip(tones.FREQUENCIES_HZ[letter], (hertz < 1300, hertz >= 1300), strict=True):
        loudest = hertz[band][np.argmax(spectrum[band])]
        assert loudest == pytest.approx(expected, rel=0.04)


def test_tone_words_are_spelled_in_tones_and_fit_their_frames() -> None:
    assert all(set(word) <= set(tones.LETTERS) and least_frames(word) == len(word) for word in tones.WORDS)
    assert len(set(tones.WORDS)) == len(tones.WORDS)
    batch = replace(SMALL, tone_utterances=100, tone_words=24).training_batch(torch.arange(80), torch.Generator())
    assert bool((batch.frames >= batch.least_frames).all())


def test_tone_utterances_are_seeded_and_their_splits_share_no_sentence() -> None:
    def of(seed: int) -> dict[str, tuple[tones.ToneUtterance, ...]]:
        return tones.tone_utterances(60, words=4, noise=0.1, seed=seed)

    one, again, other = of(1), of(1), of(2)
    assert one == again
    assert one != other
    assert {split: len(found) for split, found in one.items()} == {"train": 48, "val": 12}
    texts = {split: {utterance.text for utterance in found} for split, found in one.items()}
    assert not texts["train"] & texts["val"]
    spoken = [utterance.waveform() for utterance in one["train"][:2]]
    assert torch.equal(spoken[0], one["train"][0].waveform())
    assert all(waveform.abs().max() <= 1.0 and len(waveform) < 3 * 16_000 for waveform in spoken)
    assert not torch.equal(spoken[0], replace(one["train"][0], place=99).waveform())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_metrics() -> None:
    model, batch = model_of(SMALL).eval(), next(iter(SMALL.batches("val")))
    with torch.no_grad():
        expected = float(SMALL.metrics(model, batch)["loss"].total)
        found = SMALL.metrics(model.cuda(), moved(batch, torch.device("cuda")))
    assert float(found["loss"].total) == pytest.approx(expected, rel=1e-3)
