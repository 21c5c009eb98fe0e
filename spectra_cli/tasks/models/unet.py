"""The papers' UNet for diffusion: additive skip connections, transposed convolutions, Fourier features of the time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

CHANNELS = (64, 128, 256, 512)
PER_GROUP = (16, 4, 8, 16, 8, 4, 2)
"""Least number of channels in a group of group norm, on the way down and then up: that of the papers at CHANNELS, which
makes 4 groups in the first norm and 32 in all others."""

FREQUENCY_SCALE = 30.0
"""Standard deviation of the frequencies of the time embedding, in turns per step."""

LEAST_SIDE = 17
"""Pixels that leave one at the bottom: 17, 15, 7, 3, 1. Smaller images are padded."""


class FourierEmbedding(nn.Module):
    """Sines and cosines of a time at random frequencies that are not trained (Tancik et al. 2020; Song et al. 2021).

    The frequencies are a buffer, ``W``, so that a checkpoint holds them.

    Args:
        width: number of features, even.
    """

    W: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("W", torch.randn(width // 2) * FREQUENCY_SCALE)

    def forward(self, times: Tensor) -> Tensor:
        """Times (batch,) -> (batch, width): sin and then cos of 2 pi W t."""
        phases = times.unsqueeze(1) * self.W * 2 * math.pi  # in the papers' order: large phases are rounded alike
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class Conditioning(nn.Module):
    """A linear layer whose outputs are added to every position of an image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, embedded: Tensor) -> Tensor:
        """Embedded times (batch, inputs) -> (batch, outputs, 1, 1)."""
        added: Tensor = self.dense(embedded)
        return added.unsqueeze(2).unsqueeze(3)


class UNet(nn.Module):
    """Predicts the noise in an image (Yunis et al. 2024, after the score model of Song's tutorial).

    Four convolutions down (3 x 3, without padding, the last three with stride 2) and four transposed ones up. What a
    convolution of the way down gives is added to what the transposed one of the way up gives, after both have been
    normalized in groups and passed swish; so is, before the norm, a linear function of the embedded time.

    The transposed convolutions give the sizes of the way down back, whatever they are. Images with a side of less than
    17 pixels are padded with zeros to 17, and what comes out is cut to their size: the convolutions have nothing left
    otherwise. The papers' images are of 28 x 28 pixels.

    Its state dict holds ``time_embed.0.W`` (a buffer), ``time_embed.1``, ``conv1`` to ``conv4``, ``tconv4`` to
    ``tconv1``, ``dense1.dense`` to ``dense7.dense``, ``gnorm1`` to ``gnorm4`` and ``tgnorm4`` to ``tgnorm2``.

    Args:
        image_channels: 1 for grey images, 3 for coloured ones.
        channels: of the four convolutions of the way down.
        embedding: width of the embedded time, even.
    """

    def __init__(self, image_channels: int = 1, channels: Sequence[int] = CHANNELS, embedding: int = 512) -> None:
        super().__init__()
        one, two, three, four = channels
        self.time_embed = nn.Sequential(FourierEmbedding(embedding), nn.Linear(embedding, embedding))
        self.conv1 = nn.Conv2d(image_channels, one, 3, bias=False)
        self.dense1 = Conditioning(embedding, one)
        self.gnorm1 = _norm(one, 0)
        self.conv2 = nn.Conv2d(one, two, 3, stride=2, bias=False)
        self.dense2 = Conditioning(embedding, two)
        self.gnorm2 = _norm(two, 1)
        self.conv3 = nn.Conv2d(two, three, 3, stride=2, bias=False)
        self.dense3 = Conditioning(embedding, three)
        self.gnorm3 = _norm(three, 2)
        self.conv4 = nn.Conv2d(three, four, 3, stride=2, bias=False)
        self.dense4 = Conditioning(embedding, four)
        self.gnorm4 = _norm(four, 3)

        self.tconv4 = nn.ConvTranspose2d(four, three, 3, stride=2, bias=False)
        self.dense5 = Conditioning(embedding, three)
        self.tgnorm4 = _norm(three, 4)
        self.tconv3 = nn.ConvTranspose2d(three, two, 3, stride=2, bias=False)
        self.dense6 = Conditioning(embedding, two)
        self.tgnorm3 = _norm(two, 5)
        self.tconv2 = nn.ConvTranspose2d(two, one, 3, stride=2, bias=False)
        self.dense7 = Conditioning(embedding, one)
        self.tgnorm2 = _norm(one, 6)
        self.tconv1 = nn.ConvTranspose2d(one, image_channels, 3)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """Noisy images (batch, channels, height, width) and times (batch,) -> the noise, of the images' shape."""
        sizes = images.shape[-2:]
        lacking = [max(0, LEAST_SIDE - size) for size in sizes]
        top, left = (missing // 2 for missing in lacking)
        padded = pad(images, (left, lacking[1] - left, top, lacking[0] - top)) if any(lacking) else images

        embedded = silu(self.time_embed(times))
        down1 = silu(self.gnorm1(self.conv1(padded) + self.dense1(embedded)))
        down2 = silu(self.gnorm2(self.conv2(down1) + self.dense2(embedded)))
        down3 = silu(self.gnorm3(self.conv3(down2) + self.dense3(embedded)))
        down4 = silu(self.gnorm4(self.conv4(down3) + self.dense4(embedded)))

        up = self.tconv4(down4, output_size=down3.shape[-2:])
        up = silu(self.tgnorm4(up + self.dense5(embedded)))
        up = self.tconv3(up + down3, output_size=down2.shape[-2:])
        up = silu(self.tgnorm3(up + self.dense6(embedded)))
        up = self.tconv2(up + down2, output_size=down1.shape[-2:])
        up = silu(self.tgnorm2(up + self.dense7(embedded)))
        noise: Tensor = self.tconv1(up + down1)
        return noise.narrow(2, top, sizes[0]).narrow(3, left, sizes[1])


def _norm(channels: int, place: int) -> nn.GroupNorm:
    """Group norm with the most groups that are equal and have as many channels as the papers' have, or more."""
    fitting = [groups for groups in range(1, channels + 1) if channels % groups == 0]
    groups = max((count for count in fitting if channels // count >= PER_GROUP[place]), default=1)
    return nn.GroupNorm(groups, channels)
