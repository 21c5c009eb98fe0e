"""Hugging Face causal language models: the model's own loss, the ways that checkpoints name weights, and no network."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spectra_cli.errors import InputError, MissingExtraError, UsageError
from spectra_cli.tasks.base import TrainableTask
from spectra_cli.tasks.data.vocabulary import open_vocabulary
from spectra_cli.tasks.evaluation import evaluate
from spectra_cli.tasks.hf_causal_lm import HuggingFaceCausalLM
from spectra_cli.tasks.loading import StateMismatchError, load_strictly

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
safetensors_torch = pytest.importorskip("safetensors.torch")

LETTERS = "abcdefghij"
VOCABULARY = ["[UNK]", *LETTERS, "."]
SIZES: dict[str, int | None] = {"vocab_size": 12, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=32, **SIZES),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32,
        tie_word_embeddings=False, **SIZES,
    ),
    "llama": lambda: transformers.LlamaConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=32, **SIZES,
    ),
    "mixtral": lambda: transformers.MixtralConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=32, num_local_experts=3, **SIZES,
    ),
}  # fmt: skip
EVERY = tuple(CONFIGS)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object, **_keywords: object) -> None:
        raise AssertionError("a connection was asked for")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(autouse=True)
def _settings_of_transformers_are_given_back() -> Iterator[None]:
    from huggingface_hub import constants

    logging = transformers.utils.logging
    before = (constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled())
    yield
    assert (constants.HF_HUB_OFFLINE, logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def write_tokenizer(directory: Path) -> None:
    """One token per letter; ``[UNK]`` for all else."""
    places = {token: place for place, token in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(places, unk_token=VOCABULARY[0]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(directory / "tokenizer.json"))


def text_of(count: int, seed: int = 0) -> str:
    places = torch.randint(len(LETTERS), (count,), generator=torch.Generator().manual_seed(seed))
    return "".join(LETTERS[place] for place in places.tolist())


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models as ``save_pretrained`` writes them, each with its tokenizer, and a text."""
    root = tmp_path_factory.mktemp("models")
    transformers.utils.logging.disable_progress_bar()
    for name, config in CONFIGS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(config()).save_pretrained(root / name)
        write_tokenizer(root / name)
    transformers.utils.logging.enable_progress_bar()
    (root / "text.txt").write_text(text_of(400))
    return root


@pytest.fixture
def copied(checkpoints: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(checkpoints / name, tmp_path / name))

    return copy


def task_of(directory: Path, **options: Any) -> HuggingFaceCausalLM:
    data = options.pop("data", str(directory.parent / "text.txt"))
    return HuggingFaceCausalLM(config=str(directory), data=data, **{"context": 16, **options})


def stored(directory: Path) -> dict[str, Tensor]:
    return dict(safetensors_torch.load_file(directory / "model.safetensors"))


def as_transformers_loads(directory: Path) -> Any:
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    transformers.utils.logging.enable_progress_bar()
    return model.eval()


@pytest.mark.parametrize("name", EVERY)
def test_the_loss_is_the_models_own(checkpoints: Path, name: str) -> None:
    """By its ``labels=``, on windows cut by hand, the last one shorter: 40 tokens of which 39 are told."""
    task = task_of(checkpoints / name, eval_batch_size=2)
    model = task.model()
    load_strictly(task, model, [stored(checkpoints / name)])
    reference = as_transformers_loads(checkpoints / name)
    tokens = torch.tensor([[VOCABULARY.index(letter) for letter in text_of(400)[360:]]])
    total = 0.0
    with torch.no_grad():
        for start in (0, 16, 32):
            window = tokens[:, start : start + 17]
            total += float(reference(input_ids=window, labels=window).loss) * (window.shape[1] - 1)
    found = evaluate(task, model, "val")
    assert (found["loss"].count, found["perplexity"].count) == (39, 39)
    assert found["loss"].value == pytest.approx(total / 39, rel=1e-5)
    assert found["perplexity"].value == pytest.approx(math.exp(total / 39), rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_what_a_checkpoint_stores_is_what_the_model_holds(checkpoints: Path, name: str) -> None:
    """Tensor for tensor as transformers itself loads it, and no random number is drawn."""
    task = task_of(checkpoints / name)
    model = task.model()
    before = torch.get_rng_state()
    load_strictly(task, model, [stored(checkpoints / name)])
    assert torch.equal(torch.get_rng_state(), before)
    expected = as_transformers_loads(checkpoints / name).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", EVERY)
def test_the_names_of_the_model_stay(checkpoints: Path, name: str) -> None:
    """As `spectra train` saves them: nothing to adapt."""
    task = task_of(checkpoints / name)
    state = task.model().state_dict()
    assert task.adapt(state).keys() == state.keys()


def test_a_checkpoint_of_the_base_model_gets_its_prefix(checkpoints: Path, copied: Callable[[str], Path]) -> None:
    """As the hub's gpt2: no ``transformer.``, with masks as buffers, without the output layer that is tied."""
    directory = copied("gpt2")
    state = {name.removeprefix("transformer."): tensor for name, tensor in stored(directory).items()}
    assert "wte.weight" in state
    assert "lm_head.weight" not in state
    for layer in range(2):
        state[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        state[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    task = task_of(directory, data=None)
    adapted = task.adapt(state)
    assert adapted.keys() == stored(checkpoints / "gpt2").keys()
    model = task.model()
    load_strictly(task, model, [state])
    assert torch.equal(model.get_parameter("transformer.h.1.mlp.c_fc.weight"), state["h.1.mlp.c_fc.weight"])
    assert torch.equal(model.get_parameter("lm_head.weight"), state["wte.weight"])


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_buffers_of_old_releases_are_left_out(checkpoints: Path, name: str) -> None:
    state = stored(checkpoints / name)
    layer = {"gpt_neox": "gpt_neox.layers.0.attention", "llama": "model.layers.0.self_attn"}[name]
    stale = {f"{layer}.rotary_emb.inv_freq": torch.ones(2), f"{layer}.masked_bias": torch.tensor(-1e9)}
    stale[f"{layer}.bias"] = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    task = task_of(checkpoints / name)
    assert task.adapt({**state, **stale}).keys() == task.adapt(state).keys()


def test_what_is_wrong_stays_for_the_loader_to_say(checkpoints: Path) -> None:
    """A missing weight, a foreign one and a wrong shape, also where transformers renames the rest."""
    task = task_of(checkpoints / "gpt_neox")
    state = stored(checkpoints / "gpt_neox")
    lacking = {name: tensor for name, tensor in state.items() if name != "embed_out.weight"}
    needed = task.model().state_dict().keys()
    before = torch.get_rng_state()
    assert task.adapt(lacking).keys() == needed - {"lm_head.weight", "embed_out.weight"}
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(StateMismatchError, match=r"lacks 1 of the model's tensors: (lm_head|embed_out)\.weight"):
        load_strictly(task, task.model(), [lacking])
    with pytest.raises(StateMismatchError, match=r"has 1 that the model has not: gpt_neox\.layers\.0\.extra"):
        load_strictly(task, task.model(), [{**state, "gpt_neox.layers.0.extra": torch.ones(2)}])
    with pytest.raises(StateMismatchError, match="is 12 x 9 in the checkpoint and 12 x 8"):
        load_strictly(task, task.model(), [{**state, "embed_out.weight": torch.ones(12, 9)}])
    with pytest.raises(StateMismatchError, match=r"'gpt_neox\.embed_in\.weight' is 12 x 9"):
        load_strictly(task, task.model(), [{**state, "gpt_neox.embed_in.weight": torch.ones(12, 9)}])


@pytest.mark.parametrize("known", [False, True])
def test_remote_code_is_refused_and_never_run(copied: Callable[[str], Path], known: bool) -> None:
    """Also where the model calls itself a Llama, but its class is the checkpoint's own."""
    directory = copied("llama")
    mark = directory / "ran"
    (directory / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass OwnConfig: pass\nclass OwnModel: pass\n")
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config["architectures"] = ["OwnModel"]
    config["model_type"] = "llama" if known else "own"
    (directory / "config.json").write_text(json.dumps(config))
    task = task_of(directory)
    with pytest.raises(InputError, match="code of its own"):
        task.model()
    with pytest.raises(InputError, match="code of its own"):
        next(iter(task.batches("val")))
    assert not mark.exists()


def test_a_model_of_transformers_that_came_with_code_once_is_made_without_it(copied: Callable[[str], Path]) -> None:
    directory = copied("llama")
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    assert type(task_of(directory).model()) is transformers.LlamaForCausalLM


def changed(**values: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | values))

    return change


def replaced(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda directory: (directory / "config.json").unlink(), "cannot be read: No such file"),
        (lambda directory: (directory / "config.json").write_text("{"), "not JSON"),
        (lambda directory: (directory / "config.json").write_text("[" * 100_000), "not JSON"),
        (lambda directory: (directory / "config.json").write_bytes(b" " * (8 * 2**20 + 1)), "larger than"),
        (lambda directory: (directory / "config.json").write_text("[]"), "names no model_type"),
        (lambda directory: replaced(directory / "config.json", os.mkfifo), "this is a pipe"),
        (lambda directory: replaced(directory / "config.json", os.mkdir), "this is a pipe, a device or a directory"),
        (changed(architectures=5), "architectures are no list"),
        (changed(model_type="llama9000"), "unknown to transformers"),
        (changed(model_type="vit"), "transformers cannot use it"),
        (changed(quantization_config={"quant_method": "gptq", "bits": 4}), "quantized"),
        (changed(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
        (changed(num_hidden_layers=-5), "num_hidden_layers is -5"),
        (changed(num_experts=10**6), "num_experts is 1000000"),
        (changed(hidden_size="wide"), "transformers cannot use it"),
        (changed(hidden_size=10**9, vocab_size=10**9), "describes a model of 2e\\+18 numbers"),
    ],
    ids=[
        "absent",
        "broken",
        "deep",
        "large",
        "list",
        "pipe",
        "directory",
        "architectures",
        "unknown",
        "vision",
        "quantized",
        "layers",
        "negative",
        "experts",
        "text",
        "huge",
    ],
)
def test_a_config_that_makes_no_language_model(
    copied: Callable[[str], Path], change: Callable[[Path], None], what: str
) -> None:
    directory = copied("llama")
    change(directory)
    with pytest.raises(InputError, match=what) as caught:
        task_of(directory).model()
    assert str(directory) in str(caught.value)
    assert caught.value.remedy


def test_the_hub_is_offline_while_a_model_is_made(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for what a model fetches as it is made, such as kernels: `local_files_only` does not reach them."""
    from huggingface_hub import is_offline_mode

    seen: list[bool] = []
    made = transformers.AutoModelForCausalLM.from_config

    def making(*args: Any, **keywords: Any) -> Any:
        seen.append(is_offline_mode())
        return made(*args, **keywords)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", making)
    task_of(checkpoints / "gpt2").model()
    assert seen
    assert all(seen)


def test_no_attention_kernel_is_fetched_because_a_config_says_so(copied: Callable[[str], Path]) -> None:
    directory = copied("llama")
    changed(attn_implementation="someone/kernel", _attn_implementation="someone/kernel")(directory)
    assert task_of(directory).model().config._attn_implementation == "eager"


def test_without_a_tokenizer_there_is_an_error(copied: Callable[[str], Path]) -> None:
    """A model can be made all the same: its weights need no text."""
    directory = copied("gpt2")
    (directory / "tokenizer.json").unlink()
    task = task_of(directory)
    task.model()
    with pytest.raises(InputError, match="holds no tokenizer") as caught:
        next(iter(task.batches("val")))
    assert caught.value.where == str(directory)


def test_a_tokenizer_of_another_model_is_refused(copied: Callable[[str], Path]) -> None:
    directory = copied("gpt2")
    changed(vocab_size=6)(directory)
    with pytest.raises(InputError, match="gives token 11, and its model has 6 tokens"):
        next(iter(task_of(directory, data=None).batches("val")))


def test_both_forms_of_a_tokenizer_give_the_same_tokens(tmp_path: Path) -> None:
    """Byte pairs in ``tokenizer.json``, and in the older ``vocab.json`` and ``merges.txt``."""
    trained = tokenizers.ByteLevelBPETokenizer()
    text = "the cat sat on the mat, the cat sat; \N{GREEK SMALL LETTER PI}\n\nthat cat\n"
    trained.train_from_iterator([text], vocab_size=280, show_progress=False)
    for form in ("old", "new"):
        (tmp_path / form).mkdir()
        CONFIGS["gpt2"]().save_pretrained(tmp_path / form)
    trained.save_model(str(tmp_path / "old"))
    trained.save(str(tmp_path / "new" / "tokenizer.json"))
    texts = [text, "on that mat", ""]
    old, new = (open_vocabulary(tmp_path / form).tokens(texts) for form in ("old", "new"))
    assert old.tolist() == new.tolist() == [token for text in texts for token in trained.encode(text).ids]


def test_windows_tell_every_token_once(checkpoints: Path) -> None:
    task = task_of(checkpoints / "gpt2", eval_batch_size=3)
    tokens = torch.tensor([VOCABULARY.index(letter) for letter in text_of(400)[:360]])
    batches = list(task.batches("train"))
    told = torch.cat([targets.flatten() for _, targets in batches])
    assert torch.equal(told[told != -100], tokens[1:])
    assert sum(len(windows) for windows, _ in batches) == 23  # 359 tokens to tell, 16 at a time
    assert isinstance(task, TrainableTask)
    assert task.training_count == 22
    windows, targets = task.training_batch(torch.tensor([21, 0]), torch.Generator())
    assert torch.equal(windows, torch.stack([tokens[336:352], tokens[:16]]))
    assert torch.equal(targets, torch.stack([tokens[337:353], tokens[1:17]]))


def test_the_first_examples_are_the_same_every_time_and_not_the_files_first(checkpoints: Path) -> None:
    (one,), (again,) = (list(task_of(checkpoints / "gpt2", eval_examples=4).batches("train")) for _ in range(2))
    assert torch.equal(one[0], again[0])
    every = torch.cat([windows for windows, _ in task_of(checkpoints / "gpt2").batches("train")])
    assert all(any(torch.equal(window, other) for other in every) for window in one[0])
    assert not torch.equal(one[0], every[:4])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_parts_of_a_training_batch_give_the_gradient_of_the_whole(checkpoints: Path, name: str) -> None:
    whole, parts = task_of(checkpoints / name, micro_batch=5), task_of(checkpoints / name, micro_batch=2)
    model = whole.model().eval()  # without dropout
    batch = whole.training_batch(torch.arange(5), torch.Generator())
    gradients, losses = [], []
    for task in (whole, parts):
        loss = task.loss(model, batch)
        losses.append(float(loss.detach()))
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    with torch.no_grad():
        metric = whole.metrics(model, batch)["loss"]
    assert losses == pytest.approx([float(metric.total) / int(metric.count)] * 2, rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_context_is_at_most_what_the_model_sees(checkpoints: Path) -> None:
    windows, _ = next(iter(task_of(checkpoints / "llama", context=None).batches("train")))
    assert windows.shape[1] == 32
    with pytest.raises(UsageError, match="the model sees 32 tokens"):
        next(iter(task_of(checkpoints / "llama", context=33).batches("train")))


def test_texts_that_are_too_short(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("abcdefghij")
    task = task_of(checkpoints / "gpt2", data=str(tmp_path / "short.txt"))
    with pytest.raises(InputError, match="the text for training has 9 tokens, and a window takes 16"):
        _ = task.training_count
    with pytest.raises(InputError, match="the split 'val' has 1 tokens"):
        next(iter(task.batches("val")))


def test_the_config_beside_new_checkpoints_says_their_type(copied: Callable[[str], Path]) -> None:
    directory = copied("llama")
    changed(torch_dtype="bfloat16")(directory)
    config = task_of(directory).config
    assert config["torch_dtype"] == "float32"
    assert config["num_key_value_heads"] == 1
    assert task_of(directory).model().state_dict()["lm_head.weight"].dtype == torch.float32


def test_the_directory_of_the_checkpoint_is_an_option() -> None:
    assert HuggingFaceCausalLM.checkpoint_option == "config"
    for name in ("context", "eval_examples", "eval_batch_size", "micro_batch"):
        with pytest.raises(UsageError, match=f"{name} is 0"):
            HuggingFaceCausalLM(config=".", **{name: 0})


def test_without_transformers_the_error_names_the_extra(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"spectra-weights\[hf\]"):
        task_of(checkpoints / "gpt2").model()
