"""Tasks of a few hundred weights, as a user writes them: for ``--task tests/analyses/tiny_tasks.py:mlp``.

Every last batch is smaller than the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spectra_cli.tasks.base import Metric

CLASSES = 5
COUNTS = {"train": 22, "val": 13}


class Classification:
    """Random inputs with random labels."""

    splits = ("train", "val")

    def __init__(self, make: Callable[[], nn.Module], inputs: Callable[[int, torch.Generator], Tensor], batch: int = 8):
        self._make, self._batch = make, batch
        generator = torch.Generator().manual_seed(7)
        self.data = {
            split: (inputs(count, generator), torch.randint(CLASSES, (count,), generator=generator))
            for split, count in COUNTS.items()
        }

    def model(self) -> nn.Module:
        return self._make()

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = self.data[split]
        yield from zip(torch.split(inputs, self._batch), torch.split(labels, self._batch), strict=True)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Metric]:
        inputs, labels = batch
        logits = model(inputs).double()
        return {
            "loss": Metric(cross_entropy(logits, labels, reduction="sum"), len(labels)),
            "error": Metric((logits.argmax(1) != labels).sum(), len(labels)),
        }


class Network(nn.Module):
    """Two hidden layers and an output layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.second = nn.Linear(width, 9)
        self.output = nn.Linear(9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return logits


class Convolutional(nn.Module):
    """A convolution, a transposed one, batch normalization after both, and an output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.grow = nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.output = nn.Linear(4 * 8 * 8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        logits: Tensor = self.output(torch.relu(self.norm2(self.grow(x))).flatten(1))
        return logits


class Recurrent(nn.Module):
    """An embedding, an LSTM and an output layer that reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.output = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.lstm(self.tokens(x))[0][:, -1])
        return logits


class Tied(nn.Module):
    """Two layers that share their weights, in front of the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.output = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(self.second(torch.tanh(self.first(torch.tanh(self.enter(x)))))))
        return logits


class Spare(Network):
    """A network with a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__(7)
        output = self.output
        del self.output
        self.spare = nn.Linear(4, 3)
        self.output = output  # the last of the model again


def _vectors(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 6, generator=generator)


def _images(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, 4, 4, generator=generator)


def _sentences(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(11, (count, 5), generator=generator)


def mlp(width: int = 7) -> Classification:
    return Classification(lambda: Network(width), _vectors)


def double() -> Classification:
    task = Classification(lambda: Network(7).double(), _vectors)
    task.data = {split: (inputs.double(), labels) for split, (inputs, labels) in task.data.items()}
    return task


def cnn() -> Classification:
    return Classification(Convolutional, _images)


def recurrent() -> Classification:
    return Classification(Recurrent, _sentences)


def tied() -> Classification:
    return Classification(Tied, _vectors)


def spare() -> Classification:
    return Classification(Spare, _vectors)
