"""Which examples a training meets when, and a digest that tells whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from spectra_cli.tasks.base import Batch, Recipe, TrainableTask, place_generator
from spectra_cli.tasks.determinism import seeded


class DataOrder:
    """The order of the examples: a permutation of each epoch; that of the indices where batches are full.

    Args:
        recipe: whose batches.
        training_count: number of training examples.
        seed: of the run.
    """

    def __init__(self, recipe: Recipe, training_count: int, seed: int) -> None:
        self._count, self._seed = training_count, seed
        self._size = recipe.batch_size
        self._steps = recipe.steps_per_epoch(training_count)
        self._epoch = -1
        self._order = torch.arange(training_count)

    def indices(self, step: int) -> Tensor:
        """(batch,) int64; the last batch of an epoch may be smaller."""
        if self._size is None:
            return self._order
        epoch, place = divmod(step, self._steps)
        if epoch != self._epoch:
            self._order = torch.randperm(self._count, generator=place_generator(self._seed, 1, epoch))
            self._epoch = epoch
        return self._order[place * self._size : (place + 1) * self._size]


def first_batch_digest(task: TrainableTask, recipe: Recipe, seed: int) -> str:
    """SHA-256 of the batch that a training from step 0 meets first.

    It is that of types, shapes and bytes of its tensors, in order; what is no tensor does not count. torch's global
    generators are seeded for it, and given back as they were.

    Caveat: floating point numbers that a task computes may have other last bits with another torch or processor.

    Args:
        task: whose batch.
        recipe: whose batches.
        seed: of the run.
    """
    indices = DataOrder(recipe, task.training_count, seed).indices(0)
    with seeded(seed, torch.device("cpu")):
        batch = task.training_batch(indices, place_generator(seed, 2, 0))
    digest = hashlib.sha256()
    for tensor in _tensors_of(batch):
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        values = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
        values = values.cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors_of(batch: Batch) -> Iterator[Tensor]:
    """The tensors within tuples, lists and dictionaries."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, (Mapping, tuple, list)):
        for value in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors_of(value)
