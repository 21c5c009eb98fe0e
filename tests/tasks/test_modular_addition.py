"""Modular addition: the pairs, the metrics and the recipes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from spectra_cli.errors import UsageError
from spectra_cli.tasks.base import Recipe, TrainableTask
from spectra_cli.tasks.evaluation import evaluate
from spectra_cli.tasks.loading import load_strictly
from spectra_cli.tasks.modular_addition import ModularAddition
from spectra_cli.tasks.options import bound_options

TINY = {"prime": 7, "d_model": 8, "num_heads": 2, "mlp": 12}


def examples(task: ModularAddition, split: str) -> list[tuple[int, int, int, int]]:
    """The first and the second number, the third token and the answer, of every example."""
    found = []
    for tokens, sums in task.batches(split):
        found += [(*row, answer) for row, answer in zip(tokens.tolist(), sums.tolist(), strict=True)]
    return found


class Confident(nn.Module):
    """Logits that grow with the weight: margin for the right sum over all others."""

    def __init__(self, modulus: int, margin: float) -> None:
        super().__init__()
        self.modulus, self.margin = modulus, nn.Parameter(torch.tensor(margin))

    def forward(self, tokens: Tensor) -> Tensor:
        sums = (tokens[:, 0] + tokens[:, 1]) % self.modulus
        return nn.functional.one_hot(sums, self.modulus + 1) * self.margin


@pytest.mark.parametrize("prime", [2, 7, 12])
def test_the_splits_are_disjoint_and_complete(prime: int) -> None:
    """Every pair stands in exactly one of them, with the equals sign and its sum; also modulo a composite number."""
    task = ModularAddition(prime=prime, data_fraction=0.5, eval_batch_size=5)
    train, val = examples(task, "train"), examples(task, "val")
    expected = {(a, b, prime, (a + b) % prime) for a in range(prime) for b in range(prime)}
    assert len(train) + len(val) == prime**2
    assert set(train) | set(val) == expected
    assert len(train) == task.training_count == prime**2 // 2


def test_training_examples_are_those_of_the_training_split() -> None:
    task = ModularAddition(**TINY, data_fraction=0.6, eval_batch_size=4)
    tokens, sums = task.training_batch(torch.tensor([3, 0, 9]), torch.Generator())
    train = examples(task, "train")
    assert [(*row, answer) for row, answer in zip(tokens.tolist(), sums.tolist(), strict=True)] == [
        train[3], train[0], train[9]
    ]  # fmt: skip


def test_the_split_depends_on_the_data_seed_alone() -> None:
    """Not on torch's global generator, which the seed of a run sets; and batches are the same every time."""
    torch.manual_seed(1)
    task = ModularAddition(**TINY, data_seed=4)
    first = examples(task, "train")
    torch.manual_seed(2)
    assert examples(task, "train") == first
    assert examples(ModularAddition(**TINY, data_seed=4, eval_batch_size=2), "train") == first
    assert examples(ModularAddition(**TINY, data_seed=5), "train") != first


@pytest.mark.parametrize("eval_batch_size", [1, 4, 1000])
def test_metrics_are_those_of_a_plain_loop(eval_batch_size: int) -> None:
    task = ModularAddition(**TINY, data_fraction=0.3, eval_batch_size=eval_batch_size)
    torch.manual_seed(0)
    model = task.model()
    with torch.no_grad():
        model.decoder.weight.mul_(20)  # losses and errors that differ from pair to pair
    for split in task.splits:
        losses, wrong = [], []
        for a, b, equals, answer in examples(task, split):
            with torch.no_grad():
                logits = model(torch.tensor([[a, b, equals]]))[0].numpy().astype(np.float64)
            losses.append(-log_softmax(logits)[answer])
            wrong.append(int(logits.argmax()) != answer)
        values = evaluate(task, model, split)
        assert values["loss"].value == pytest.approx(np.mean(losses), rel=1e-5)
        assert values["error"].value == pytest.approx(np.mean(wrong), abs=1e-12)
        assert values["loss"].count == values["error"].count == len(losses)
        assert np.std(losses) > 0.1
        assert 0 < np.mean(wrong) < 1 or split == "train"


def test_a_loss_that_float32_rounds_to_nothing_is_told_and_trained_on() -> None:
    """Of a margin m over 7 others it is ln(1 + 7 exp(-m)); in float32 as in the papers, 0 and no gradient."""
    task, papers = ModularAddition(**TINY), ModularAddition(**TINY, loss_dtype="float32")
    model = Confident(7, margin=30.0)
    expected = math.log1p(7 * math.exp(-30.0))
    assert evaluate(task, model, "val")["loss"].value == pytest.approx(expected, rel=1e-2, abs=0)
    batch = task.training_batch(torch.arange(10), torch.Generator())
    loss = task.loss(model, batch)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected, rel=1e-2, abs=0)
    assert papers.loss(model, batch).item() == 0.0
    torch.autograd.backward(loss)
    assert model.margin.grad.item() == pytest.approx(-7 * math.exp(-30.0), rel=1e-2, abs=0)


def test_sizes_are_the_papers() -> None:
    """Parameters of embedding, attention, MLP and output layer, counted by hand."""
    with torch.device("meta"):
        grokking, slingshot = ModularAddition().model(), ModularAddition(setting="slingshot").model()
    attention = 4 * 128 * 128 + 4 * 128
    mlp = 128 * 512 + 512 + 512 * 128 + 128
    ends = {prime: 2 * (prime + 1) * 128 + prime + 1 for prime in (113, 97)}
    norms = 2 * 2 * 128
    assert sum(parameter.numel() for parameter in grokking.parameters()) == attention + mlp + ends[113]
    assert sum(parameter.numel() for parameter in slingshot.parameters()) == attention + mlp + ends[97] + norms


def test_the_recipes_are_the_papers() -> None:
    betas = (0.9, 0.98)
    grokking, slingshot = ModularAddition(), ModularAddition(setting="slingshot")
    assert grokking.recipe == Recipe("adamw", 1e-3, weight_decay=1.0, batch_size=None, steps=40_000, betas=betas)
    assert slingshot.recipe == Recipe(
        "adamw", 1e-3, weight_decay=0.0, batch_size=512, steps=100_000, betas=betas, warmup_steps=10
    )
    assert (grokking.modulus, grokking.training_count) == (113, 3830)  # 0.3 x 12769 = 3830.7
    assert (slingshot.modulus, slingshot.training_count) == (97, 6586)  # 0.7 x 9409 = 6586.3
    one = (torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert grokking.loss(grokking.model(), one).dtype == torch.float64
    assert slingshot.loss(slingshot.model(), one).dtype == torch.float32


def test_what_is_given_wins_over_the_setting() -> None:
    task = ModularAddition(
        **TINY, setting="slingshot", data_fraction=0.5, layer_norm=False, loss_dtype="float64", num_layers=2
    )
    assert (task.modulus, task.training_count) == (7, 24)
    names = list(task.model().state_dict())
    assert not [name for name in names if "norm" in name]
    assert [name for name in names if "layers.1." in name]
    loss = task.loss(task.model(), task.training_batch(torch.arange(3), torch.Generator()))
    assert loss.dtype == torch.float64
    assert task.recipe.batch_size == 512


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prime": 1}, "prime is 1. Give a modulus from 2 to 4096"),
        ({"prime": 4097}, "prime is 4097"),
        ({"data_fraction": 0.0}, "data_fraction is 0"),
        ({"data_fraction": 1.0}, "data_fraction is 1"),
        ({"data_fraction": math.nan}, "data_fraction is nan"),
        ({"prime": 3, "data_fraction": 0.1}, "data_fraction 0.1 of 9 pairs leaves none for training"),
        ({"data_seed": -1}, "data_seed is -1"),
        ({"num_heads": 3}, "num_heads is 3 and does not divide d_model, 128"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModularAddition(**options)
    assert message in str(caught.value)
    assert str(caught.value).startswith("task modular-addition: ")


def test_options_come_as_text() -> None:
    """As `--set` gives them."""
    settings = {"setting": "slingshot", "prime": "11", "data_fraction": "0.25", "layer_norm": "false", "mlp": "none"}
    with pytest.raises(UsageError, match="mlp"):
        bound_options(ModularAddition, settings, "task modular-addition")
    bound = bound_options(ModularAddition, settings | {"mlp": "32", "loss_dtype": "none"}, "task modular-addition")
    assert ModularAddition(**bound) == ModularAddition(
        setting="slingshot", prime=11, data_fraction=0.25, layer_norm=False, mlp=32
    )


def test_it_can_be_trained() -> None:
    """Thirty steps of AdamW on the full batch lower the loss on it."""
    task = ModularAddition(**TINY, data_fraction=0.5)
    assert isinstance(task, TrainableTask)
    torch.manual_seed(0)
    model = task.model()
    before = evaluate(task, model, "train")["loss"].value
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=task.recipe.betas)
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(
            task.loss(model, task.training_batch(torch.arange(task.training_count), torch.Generator()))
        )
        optimizer.step()
    assert evaluate(task, model, "train")["loss"].value < 0.8 * before


def test_a_checkpoint_of_the_papers_code_can_be_loaded() -> None:
    """It holds the sinusoids as well."""
    task = ModularAddition(**TINY)
    source, target = task.model(), task.model()
    state = {**source.state_dict(), "pos_encoder.pe": torch.zeros(5000, 1, 8)}
    load_strictly(task, target, [state])
    tokens, _ = next(iter(task.batches("val")))
    assert torch.equal(source(tokens), target(tokens))


def test_readers_of_a_checkpoint_are_told_of_the_heads() -> None:
    assert ModularAddition(**TINY).config == {
        "model_type": "modular_addition_transformer", "modulus": 7, "num_attention_heads": 2
    }  # fmt: skip
