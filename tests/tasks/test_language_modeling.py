"""Language modeling: windows that tell every token once, metrics exact over them, the papers' sizes and recipe."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from scipy.special import log_softmax
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn

from spectra_cli.errors import InputError, UsageError
from spectra_cli.tasks.base import Recipe, TrainableTask
from spectra_cli.tasks.data.text import embedded_text
from spectra_cli.tasks.evaluation import evaluate
from spectra_cli.tasks.language_modeling import LanguageModeling
from spectra_cli.tasks.loading import load_strictly
from spectra_cli.tasks.next_token import NO_TOKEN

TINY = {"context": 8, "d_model": 12, "num_heads": 2, "num_layers": 2, "mlp": 16}
UNKNOWN = "<unk>"
TEXT = "The quick brown fox jumps over the lazy dog; 5 wizards quickly vex 12 jumping frogs.\n"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """85 bytes for training, 30 for validation."""
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "valid.txt").write_text(TEXT[20:50])
    return str(tmp_path)


def bytes_of(folder: str, split: str) -> list[int]:
    return list(Path(folder, {"train": "train.txt", "val": "valid.txt"}[split]).read_bytes())


class Reader(nn.Module):
    """Logits that depend on a token alone, by a table; and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(256, 256, generator=torch.Generator().manual_seed(2)) * 3)
        self.seen: list[list[int]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.seen += tokens.tolist()
        return self.table[tokens]


@pytest.mark.parametrize("context", [1, 4, 8, 28, 29, 30, 2000])
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_token_but_the_first_is_told_once(folder: str, split: str, context: int) -> None:
    """Whatever the window, also one as long as the text or longer; from the token before it."""
    task = LanguageModeling(**{**TINY, "context": context}, data=folder, eval_batch_size=3)
    told = []
    for tokens, targets in task.batches(split):
        assert tokens.shape == targets.shape
        assert tokens.shape[0] <= 3
        assert tokens.shape[1] <= context
        for window, following in zip(tokens.tolist(), targets.tolist(), strict=True):
            kept = following.index(NO_TOKEN) if NO_TOKEN in following else len(following)
            assert set(following[kept:]) <= {NO_TOKEN}
            assert window[1:kept] == following[: kept - 1]
            told += list(zip(window[:kept], following[:kept], strict=True))
    row = bytes_of(folder, split)
    assert told == list(pairwise(row))


@pytest.mark.parametrize("eval_batch_size", [1, 3, 100, None])
def test_metrics_are_those_of_a_plain_loop(folder: str, eval_batch_size: int | None) -> None:
    """One token after the other in float64, whatever the batches; the last window is shorter in both splits."""
    task, model = LanguageModeling(**TINY, data=folder, eval_batch_size=eval_batch_size), Reader()
    table = model.table.detach().numpy().astype(np.float64)
    for split in task.splits:
        row = bytes_of(folder, split)
        losses = [-log_softmax(table[one])[following] for one, following in pairwise(row)]
        wrong = [table[one].argmax() != following for one, following in pairwise(row)]
        values = evaluate(task, model, split)
        assert values["loss"].value == pytest.approx(np.mean(losses), rel=1e-6)
        assert values["perplexity"].value == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
        assert values["error"].value == pytest.approx(np.mean(wrong), abs=1e-12)
        assert {value.count for value in values.values()} == {len(row) - 1}
        assert len(losses) % task.context


def test_padding_does_not_reach_the_metrics_of_a_transformer(folder: str) -> None:
    """A window alone and without padding gives the same losses."""
    task = LanguageModeling(**TINY, data=folder)
    torch.manual_seed(0)
    model = task.model()
    row, total = torch.tensor(bytes_of(folder, "val")), 0.0
    with torch.no_grad():
        for start in range(0, len(row) - 1, 8):
            following = row[start + 1 : start + 9]
            logits = model(row[start : start + len(following)][None])[0].numpy().astype(np.float64)
            total -= log_softmax(logits, axis=1)[np.arange(len(following)), following.numpy()].sum()
    assert evaluate(task, model, "val")["loss"].value == pytest.approx(total / (len(row) - 1), rel=1e-6)


def test_training_takes_whole_windows(folder: str) -> None:
    task = LanguageModeling(**TINY, data=folder)
    row = bytes_of(folder, "train")
    assert task.training_count == 84 // 8
    tokens, targets = task.training_batch(torch.tensor([9, 0]), torch.Generator())
    assert tokens.tolist() == [row[72:80], row[0:8]]
    assert targets.tolist() == [row[73:81], row[1:9]]


@pytest.mark.parametrize("length", [9, 10, 16, 17])
def test_a_text_of_one_or_two_windows(tmp_path: Path, length: int) -> None:
    """A window of 8 takes 9 tokens, two of them 17."""
    (tmp_path / "train.txt").write_text("x" * length)
    (tmp_path / "valid.txt").write_text("xy")
    task = LanguageModeling(**TINY, data=str(tmp_path))
    assert task.training_count == (2 if length == 17 else 1)
    _, targets = task.training_batch(torch.arange(task.training_count), torch.Generator())
    assert NO_TOKEN not in targets


def test_metrics_over_a_drawn_part(folder: str) -> None:
    """So many windows, other ones than the first, the same ones every time and for every model."""
    task = LanguageModeling(**TINY, data=folder, eval_examples=5, eval_batch_size=3)
    windows = [row for tokens, _ in LanguageModeling(**TINY, data=folder).batches("train") for row in tokens.tolist()]
    drawn = [[row for tokens, _ in task.batches("train") for row in tokens.tolist()] for _ in range(2)]
    assert drawn[0] == drawn[1]
    places = [windows.index(window) for window in drawn[0]]
    assert len(places) == 5
    assert places == sorted(set(places))
    assert places != [0, 1, 2, 3, 4]


def test_batches_do_not_depend_on_the_global_generator(folder: str) -> None:
    task = LanguageModeling(**TINY, data=folder, eval_examples=4)
    torch.manual_seed(1)
    first = [tokens.tolist() for tokens, _ in task.batches("train")]
    torch.manual_seed(2)
    assert [tokens.tolist() for tokens, _ in task.batches("train")] == first


def test_so_many_windows_at_once_as_have_8192_tokens() -> None:
    def sizes(context: int) -> list[int]:
        task = LanguageModeling(**{**TINY, "context": context}, eval_examples=None)
        return [len(tokens) for tokens, _ in task.batches("val")]

    assert sizes(2048) == [4, 4]  # 14,841 tokens
    assert sizes(64)[0] == 128
    assert sizes(10_000) == [1, 1]


def gradients(task: LanguageModeling, parts: list[tuple[Tensor, Tensor]]) -> tuple[float, list[Tensor], list[int]]:
    """The mean loss of parts of a batch, its gradient, and how many windows every pass through the model took."""
    torch.manual_seed(0)
    model, sizes = task.model().double(), []
    model.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    windows = sum(len(tokens) for tokens, _ in parts)
    torch.manual_seed(1)  # of dropout
    loss = sum(task.loss(model, part) * len(part[0]) for part in parts) / windows
    torch.autograd.backward(loss)
    return loss.item(), [parameter.grad for parameter in model.parameters()], sizes


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_large_batch_is_computed_in_parts(folder: str, dropout: float) -> None:
    """The same loss and gradient as of 3 windows at a time; each part drops again what it dropped at first."""
    tokens, targets = LanguageModeling(**TINY, data=folder).training_batch(torch.arange(10), torch.Generator())
    parts = list(zip(tokens.split(3), targets.split(3), strict=True))
    expected, slopes, _ = gradients(LanguageModeling(**TINY, dropout=dropout), parts)
    actual, own, sizes = gradients(LanguageModeling(**TINY, dropout=dropout, micro_batch=3), [(tokens, targets)])
    assert actual == pytest.approx(expected, rel=1e-12)
    for one, other in zip(own, slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    assert sizes[:4] == [3, 3, 3, 1]
    assert sorted(sizes[4:]) == [1, 3, 3, 3]  # once more, for the gradient


def test_a_batch_that_fits_is_computed_at_once(folder: str) -> None:
    """And gives what the same batch gives in parts."""
    task = LanguageModeling(**TINY, data=folder)
    tokens, targets = task.training_batch(torch.arange(10), torch.Generator())
    expected, slopes, _ = gradients(task, list(zip(tokens.split(3), targets.split(3), strict=True)))
    actual, own, sizes = gradients(task, [(tokens, targets)])
    assert sizes == [10]
    assert actual == pytest.approx(expected, rel=1e-12)
    for one, other in zip(own, slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_sizes_are_the_papers() -> None:
    """Parameters counted by hand: 12 layers of width 768, an MLP of 768, and 256 tokens."""
    with torch.device("meta"):
        model = LanguageModeling().model()
    layer = (4 * 768 * 768 + 4 * 768) + (2 * 768 * 768 + 2 * 768) + 2 * 2 * 768
    assert sum(parameter.numel() for parameter in model.parameters()) == 12 * layer + 2 * 256 * 768 + 256
    assert LanguageModeling().context == 2048
    assert LanguageModeling().config["num_attention_heads"] == 12


def test_the_recipe_is_the_papers() -> None:
    assert LanguageModeling().recipe == Recipe(
        "adamw",
        6e-4,
        weight_decay=0.1,
        batch_size=256,
        epochs=10,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        schedule="cosine",
        warmup_steps=200,
        final_fraction=0.1,
    )


def test_the_model_needs_no_data(tmp_path: Path) -> None:
    """Data are looked for when batches are asked for."""
    task = LanguageModeling(**TINY, data=str(tmp_path / "absent.txt"))
    assert task.model()(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 256)
    with pytest.raises(InputError, match=r"absent\.txt: there is no such file"):
        next(iter(task.batches("val")))


def test_without_data_the_text_is_the_embedded_one_and_the_user_is_told(folder: str) -> None:
    task = LanguageModeling(**TINY)
    assert task.training_count == (len(embedded_text()) - len(embedded_text()) // 10 - 1) // 8
    assert "Alice's Adventures in Wonderland" in (task.notice or "")
    assert LanguageModeling(**TINY, data=folder).notice is None


def test_a_tokenizer_decides_the_vocabulary(folder: str) -> None:
    words = {word: number for number, word in enumerate([UNKNOWN, *sorted(set(TEXT.lower().split()))])}
    tokenizer = tokenizers.Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(Path(folder, "tokenizer.json")))
    task = LanguageModeling(**TINY, data=folder, tokenizer=folder)
    tokens, targets = task.training_batch(torch.arange(task.training_count), torch.Generator())
    expected = [words.get(word, 0) for word in TEXT.split()]
    assert torch.cat([tokens[0, :1], targets.flatten()]).tolist() == expected[:9]
    assert task.model()(tokens).shape[-1] == len(words)


def test_the_papers_filter_of_the_text(folder: str) -> None:
    task = LanguageModeling(**TINY, data=folder, text_filter="alphanumeric", eval_batch_size=100)
    tokens, targets = next(iter(task.batches("train")))
    row = torch.cat([tokens[0, :1], targets.flatten()])
    assert bytes(row[row != NO_TOKEN].tolist()).decode() == TEXT.lower().replace(";", "").replace(".", "")


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("12345678", "xy", "the text for training has 8 tokens, and a window takes 8 and one to follow"),
        ("", "xy", "train.txt: holds no text"),
        ("x" * 9, "x", "the split 'val' has 1 tokens, and to tell one takes 2"),
    ],
)
def test_a_text_that_is_too_short_is_named(tmp_path: Path, train: str, val: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "valid.txt").write_text(val)
    task = LanguageModeling(**TINY, data=str(tmp_path))
    with pytest.raises(InputError) as caught:
        _ = task.training_count, next(iter(task.batches("val")))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads is 5 and does not divide d_model, 768"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"mlp": -1}, "mlp is -1"),
        ({"context": 0}, "context is 0"),
        ({"eval_examples": 0}, "eval_examples is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"micro_batch": 0}, "micro_batch is 0"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"dropout": math.nan}, "dropout is nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        LanguageModeling(**options)
    assert message in str(caught.value)
    assert str(caught.value).startswith("task language-modeling: ")


def test_it_can_be_trained(folder: str) -> None:
    """Thirty steps of AdamW on all windows lower the loss on them."""
    task = LanguageModeling(**TINY, data=folder)
    assert isinstance(task, TrainableTask)
    torch.manual_seed(0)
    model = task.model()
    before = evaluate(task, model, "train")["loss"].value
    assert before == pytest.approx(math.log(256), rel=0.2)  # all tokens about as likely
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=task.recipe.betas)
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(
            task.loss(model, task.training_batch(torch.arange(task.training_count), torch.Generator()))
        )
        optimizer.step()
    assert evaluate(task, model, "train")["loss"].value < 0.7 * before


def test_a_checkpoint_of_the_papers_code_can_be_loaded(folder: str) -> None:
    """It holds the sinusoids as well."""
    task = LanguageModeling(**TINY, data=folder)
    source, target = task.model(), task.model()
    load_strictly(task, target, [{**source.state_dict(), "pos_encoder.pe": torch.zeros(5000, 1, 12)}])
    tokens, _ = next(iter(task.batches("val")))
    assert torch.equal(source(tokens), target(tokens))
