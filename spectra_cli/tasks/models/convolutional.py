"""Convolutional networks for small images, under the names of parameters that the papers' checkpoints have.

All take images of any size: those of 8 x 8, 28 x 28 and 32 x 32 pixels with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, pad

POOLING = 0
"""Stands for a pooling among the numbers of channels of a VGG."""

VGG16 = (64, 64, POOLING, 128, 128, POOLING, *[256] * 3, POOLING, *[512] * 3, POOLING, *[512] * 3)
"""Configuration D of Simonyan and Zisserman 2015, adapted to CIFAR-10: its fifth pooling is the mean at the end."""

LENET = (6, 16, 120, 84)
"""Channels of the two convolutions, units of the two hidden layers: LeNet-5 (LeCun et al. 1998)."""

LENET_SIDE = 32
"""Height and width of what LeNet-5 reads."""


class ConvModule(nn.Module):
    """A 3 x 3 convolution with a bias, batch norm and a ReLU; the size of the image stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, inputs, height, width) -> (batch, outputs, height, width)."""
        return torch.relu(self.bn(self.conv(images)))


class Pooling(nn.Module):
    """Max pooling over 2 x 2 pixels, as long as both sides are longer than 1; smaller images stay as they are."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> (batch, channels, height // 2, width // 2)."""
        return images if min(images.shape[-2:]) < 2 else max_pool2d(images, 2)


class VGG(nn.Module):
    """Convolutions with batch norm, poolings in between, the mean over positions, and one linear layer.

    That is the network of the papers and of the lottery ticket hypothesis (Frankle and Carbin 2019) on CIFAR-10, where
    32 x 32 pixels become 2 x 2 and then their mean. 8 x 8 pixels become 1 x 1 at the third pooling: later ones do
    nothing.

    Its parameters are ``layers.{i}.conv``, ``layers.{i}.bn`` and ``fc``, each with a weight and a bias; poolings count.

    Args:
        image_channels: 1 for grey images, 3 for coloured ones.
        channels: of every convolution, and :data:`POOLING` for every pooling.
        outputs: number of classes.
    """

    def __init__(self, image_channels: int, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        given = image_channels
        for count in channels:
            layers.append(Pooling() if count == POOLING else ConvModule(given, count))
            given = count or given
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(given, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, outputs)."""
        logits: Tensor = self.fc(self.layers(images).mean(dim=(2, 3)))
        return logits


def scaled_vgg16(width: int) -> tuple[int, ...]:
    """Channels and poolings of VGG-16 whose first convolution has `width` channels, and the others in proportion."""
    return tuple(max(1, width * count // VGG16[0]) if count != POOLING else POOLING for count in VGG16)


class LeNet(nn.Module):
    """Two 5 x 5 convolutions, each followed by a ReLU and by max pooling over 2 x 2 pixels, and three linear layers.

    LeNet-5 (LeCun et al. 1998) as it is taught with PyTorch and used in the papers' code. It reads 32 x 32 pixels.
    Smaller images are magnified by the largest whole number that leaves room for them, each pixel becoming a square,
    and their border is continued: 8 x 8 pixels are magnified by 4, and 28 x 28 ones get two more on each side. Larger
    ones are averaged over squares, of the least whole number of pixels a side with which they fit.

    Its parameters are ``conv1``, ``conv2``, ``fc1``, ``fc2`` and ``fc3``, each with a weight and a bias.

    Args:
        image_channels: 1 for grey images, 3 for coloured ones.
        width: channels of the first convolution; all other numbers are in proportion.
        outputs: number of classes.
    """

    def __init__(self, image_channels: int, width: int, outputs: int) -> None:
        super().__init__()
        one, two, three, four = (max(1, width * count // LENET[0]) for count in LENET)
        side = ((LENET_SIDE - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(image_channels, one, 5)
        self.conv2 = nn.Conv2d(one, two, 5)
        self.fc1 = nn.Linear(two * side * side, three)
        self.fc2 = nn.Linear(three, four)
        self.fc3 = nn.Linear(four, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, outputs)."""
        values = max_pool2d(torch.relu(self.conv1(fitted(images, LENET_SIDE))), 2)
        values = max_pool2d(torch.relu(self.conv2(values)), 2).flatten(1)
        values = torch.relu(self.fc2(torch.relu(self.fc1(values))))
        logits: Tensor = self.fc3(values)
        return logits


def fitted(images: Tensor, side: int) -> Tensor:
    """Images on a square: magnified or averaged by a whole number, in the middle, their border continued.

    Args:
        images: (batch, channels, height, width).
        side: height and width of what is returned.
    """
    longest = max(images.shape[-2:])
    if longest > side:
        # Rows and columns that fill no whole square are averaged over what there is.
        images = avg_pool2d(images, math.ceil(longest / side), ceil_mode=True)
    else:
        images = images.repeat_interleave(side // longest, dim=2).repeat_interleave(side // longest, dim=3)
    rows, cols = (side - size for size in images.shape[-2:])
    return pad(images, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2), mode="replicate")


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, added to the stream (He et al. 2016, Figure 2).

    Where the stream gets wider, it is halved in height and width, and a 1 x 1 convolution with batch norm carries it
    over: option B of their section 3.3. Their own networks for CIFAR-10 have option A, without parameters.
    """

    def __init__(self, inputs: int, outputs: int, *, halving: bool) -> None:
        super().__init__()
        stride = 2 if halving else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        carried = [nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)]
        self.shortcut = nn.Sequential(*carried * halving)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, inputs, height, width) -> (batch, outputs, height, width), or half the sides rounded up."""
        branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(images)))))
        return torch.relu(branch + self.shortcut(images))


class ResNet(nn.Module):
    """A residual network for small images (He et al. 2016, section 4.2), with convolutions as shortcuts.

    Its parameters are ``conv``, ``bn``, ``blocks.{i}.conv1``, ``bn1``, ``conv2``, ``bn2``, ``shortcut.0`` and
    ``shortcut.1`` of the first block of the second and third stage, and ``fc``.

    Args:
        image_channels: 1 for grey images, 3 for coloured ones.
        width: channels of the first of three stages; they double twice.
        blocks: in each stage; 3 in ResNet-20.
        outputs: number of classes.
    """

    def __init__(self, image_channels: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(image_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        given = width
        for stage in range(3):
            for place in range(blocks):
                self.blocks.append(Block(given, width << stage, halving=stage > 0 and place == 0))
                given = width << stage
        self.fc = nn.Linear(given, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) -> logits (batch, outputs)."""
        values = self.blocks(torch.relu(self.bn(self.conv(images))))
        logits: Tensor = self.fc(values.mean(dim=(2, 3)))
        return logits
