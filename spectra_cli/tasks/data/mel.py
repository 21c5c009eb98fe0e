"""Mel features of speech, as the papers' speech recognizer reads them: 40 mel bands every 30 ms.

The papers' settings: 16 kHz; Hann window of 400 samples (25 ms) every 160 (10 ms), centred, the ends reflected; power
spectrum; triangular filters on the HTK mel scale from 0 Hz to half the sample rate, each of unit area in Hz ("Slaney"
normalization); every band of an utterance shifted and scaled to mean 0 and standard deviation 1; the mean of every
three consecutive frames. Their code takes no logarithm of the energies; most recognizers do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
"""Samples per second of all audio."""

WINDOW = 400
"""Samples of a short-time Fourier transform: 25 ms."""

HOP = 160
"""Samples from one frame to the next: 10 ms."""

AVERAGED = 3
"""Consecutive frames of which the mean is taken."""

LEAST_SAMPLES = (AVERAGED - 1) * HOP
"""Samples of the shortest audio that gives a frame: 20 ms."""

FLOOR = 1e-10
"""Least energy before the logarithm: digital silence has none."""

LEAST_DEVIATION = 1e-5
"""Least deviation that a band is divided by: a band that does not vary stays 0."""


def speech_features(waveform: Tensor, mel_features: int = 40, *, log: bool = True) -> Tensor:
    """Mel features of an utterance: normalized over the utterance, then every three frames averaged.

    Args:
        waveform: (samples,) float32 at 16 kHz, in [-1, 1]; at least 320 samples.
        mel_features: number of bands.
        log: whether the logarithm of the energies is taken (the papers' code does not).

    Returns:
        (frames, mel_features) float32, frames = (1 + samples // 160) // 3, on the waveform's device.

    Raises:
        ValueError: if the waveform is too short for one frame.
    """
    if waveform.dim() != 1 or len(waveform) < LEAST_SAMPLES:
        raise ValueError(f"needs at least {LEAST_SAMPLES} samples in one dimension, not {tuple(waveform.shape)}")
    energies = mel_spectrogram(waveform, mel_features)
    spectrogram = energies.clamp(min=FLOOR).log() if log else energies
    centred = spectrogram - spectrogram.mean(dim=0)
    normalized = centred / spectrogram.std(dim=0).clamp(min=LEAST_DEVIATION)
    frames = len(normalized) // AVERAGED
    return normalized[: frames * AVERAGED].reshape(frames, AVERAGED, mel_features).mean(dim=1)


def mel_spectrogram(waveform: Tensor, mel_features: int = 40) -> Tensor:
    """Energies in mel bands.

    Args:
        waveform: (samples,) float at 16 kHz, more than 200 samples.
        mel_features: number of bands.

    Returns:
        (1 + samples // 160, mel_features), the waveform's type and device.
    """
    window = torch.hann_window(WINDOW, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(
        waveform, WINDOW, HOP, window=window, center=True, pad_mode="reflect", onesided=True, return_complex=True
    )
    return spectrum.abs().square().mT @ mel_filterbank(mel_features).to(waveform)


def mel_filterbank(mel_features: int = 40, *, sample_rate: int = SAMPLE_RATE, window: int = WINDOW) -> Tensor:
    """Triangular filters, equally wide on the mel scale, each of unit area over the frequency in Hz.

    The scale is HTK's: mel(f) = 2595 log10(1 + f / 700) (The HTK Book, version 3.4, section 5.4); the normalization is
    that of Slaney's Auditory Toolbox (1998): a filter from f_1 to f_3 is scaled by 2 / (f_3 - f_1).

    Args:
        mel_features: number of filters.
        sample_rate: samples per second; the filters end at half of it.
        window: samples of the Fourier transform.

    Returns:
        (window // 2 + 1, mel_features) float64; what a bin adds to every band.
    """
    bins_hz = torch.linspace(0.0, sample_rate / 2, window // 2 + 1, dtype=torch.float64)
    top_mel = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges_mel = torch.linspace(0.0, top_mel, mel_features + 2, dtype=torch.float64)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - left) / (centre - left)
    falling = (right - bins_hz[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0) * (2.0 / (right - left))
