"""The papers' transformer against the modules of torch.nn that the papers build it of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from spectra_cli.errors import UsageError
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tasks.models.transformer import TransformerLM, check_heads, sinusoidal_positions, without_positions
from spectra_cli.tensors import TensorInfo

VOCABULARY, WIDTH, HEADS, MLP, LAYERS, LENGTH = 11, 12, 3, 20, 3, 7


class PapersModel(nn.Module):
    """The architecture as the papers describe it, of torch's own encoder layers."""

    def __init__(self, layer_norm: bool) -> None:
        super().__init__()
        self.encoder = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, MLP, 0.0, norm_first=True, batch_first=True)
        if not layer_norm:
            layer.norm1, layer.norm2 = nn.Identity(), nn.Identity()
        self.transformer_encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.tensor([[sinusoid(t, i) for i in range(WIDTH)] for t in range(tokens.shape[1])])
        mask = torch.full((tokens.shape[1], tokens.shape[1]), -torch.inf).triu(1)
        stream = self.encoder(tokens) * WIDTH**0.5 + positions.to(self.encoder.weight.dtype)
        return self.decoder(self.transformer_encoder(stream, mask))


def sinusoid(position: int, entry: int) -> float:
    """Section 3.5 of Attention Is All You Need."""
    angle = position / 10000 ** (entry // 2 * 2 / WIDTH)
    return math.cos(angle) if entry % 2 else math.sin(angle)


def of_papers_sizes(layer_norm: bool = True, **options: object) -> TransformerLM:
    return TransformerLM(VOCABULARY, WIDTH, HEADS, MLP, LAYERS, layer_norm=layer_norm, **options)


def shaken(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64, every parameter random: at the start biases are 0, norms are 1 and layers are equal."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return model


def random_tokens(batch: int = 4, length: int = LENGTH) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_names_and_the_first_weights_are_those_of_the_papers_model(layer_norm: bool) -> None:
    """Same names in the same order and, after the same seed, the same bits."""
    torch.manual_seed(3)
    expected = PapersModel(layer_norm).state_dict()
    torch.manual_seed(3)
    actual = of_papers_sizes(layer_norm).state_dict()
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_those_of_torch_nn(layer_norm: bool, training: bool) -> None:
    model, oracle = shaken(of_papers_sizes(layer_norm)), shaken(PapersModel(layer_norm))
    tokens = random_tokens()
    expected = oracle(tokens)  # in training mode: its evaluation mode takes another path
    actual = model.train(training)(tokens)
    assert torch.allclose(actual, expected, rtol=0, atol=1e-6 * expected.abs().max().item())  # positions are float32
    assert (expected.std() > 0.1).item()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_the_last_position_alone_is_the_same_function(layers: int, causal: bool) -> None:
    """Logits and gradients of all parameters."""
    whole = shaken(TransformerLM(VOCABULARY, WIDTH, HEADS, MLP, layers, causal=causal))
    last = shaken(TransformerLM(VOCABULARY, WIDTH, HEADS, MLP, layers, causal=causal, last_only=True))
    tokens = random_tokens()
    expected, actual = whole(tokens)[:, -1], last(tokens)
    assert actual.shape == (4, VOCABULARY)
    assert torch.allclose(actual, expected, rtol=1e-12, atol=1e-12)
    torch.autograd.backward([expected.square().sum(), actual.square().sum()])
    for (name, one), other in zip(whole.named_parameters(), last.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9), name


def test_a_later_token_changes_nothing_before_it() -> None:
    """Only with the mask: without it every position sees all."""
    tokens = random_tokens(batch=1)
    changed = tokens.clone()
    changed[0, 4] = (tokens[0, 4] + 1) % VOCABULARY
    causal, open_eyed = shaken(of_papers_sizes()), shaken(of_papers_sizes(causal=False))
    differs = (causal(tokens) != causal(changed)).any(dim=-1)[0]
    assert differs.tolist() == [False] * 4 + [True] * 3
    assert (open_eyed(tokens) != open_eyed(changed)).any(dim=-1).all()


def test_without_layer_norm_there_is_nothing_of_it() -> None:
    names = of_papers_sizes(layer_norm=False).state_dict()
    assert not [name for name in names if "norm" in name]
    assert len([name for name in of_papers_sizes().state_dict() if "norm" in name]) == 4 * LAYERS


def test_dropout_acts_in_training_only() -> None:
    model = shaken(of_papers_sizes(dropout_rate=0.5))
    tokens = random_tokens()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    assert torch.equal(model(tokens), shaken(of_papers_sizes())(tokens))


@pytest.mark.parametrize("width", [1, 7, 8])
def test_positions_are_sines_and_cosines(width: int) -> None:
    """Of an odd width the last entry is a sine."""
    expected = [
        [(math.cos if i % 2 else math.sin)(t / 10000 ** (i // 2 * 2 / width)) for i in range(width)] for t in range(50)
    ]
    assert torch.allclose(sinusoidal_positions(50, width), torch.tensor(expected), atol=1e-5)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_align_knows_who_feeds_whom(layer_norm: bool, layers: int) -> None:
    """Every matrix has a role in the family of torch's encoder layers."""
    state = TransformerLM(VOCABULARY, WIDTH, HEADS, MLP, layers, layer_norm=layer_norm).state_dict()
    tensors = {name: TensorInfo(name, tuple(tensor.shape), "float32") for name, tensor in state.items()}
    inventory = take_inventory(tensors, ordered=True, config={"num_attention_heads": HEADS})
    assert [family.fit.architecture.family for family in inventory.families] == ["torch_encoder"]
    assert inventory.unfitted == []
    connections = {connection.name for connection in inventory.connections()}
    assert connections - {"residual"} == {
        "embedding-input", "query-key", "value-output", "output-up", "up-down", "output"
    }  # fmt: skip
    assert ("residual" in connections) == (layers > 1)
    assert [inventory.matrices[depth].parameter for depth in inventory.output_layers()] == ["decoder.weight"]


def test_everything_is_where_the_tokens_are() -> None:
    """The fake mode raises where a tensor on the CPU meets one on a GPU."""
    with torch.device("meta"):
        model = of_papers_sizes()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        tokens = torch.empty(2, LENGTH, dtype=torch.int64, device="cuda")
        logits = torch.func.functional_call(model, state, (tokens,))
    assert logits.device.type == "cuda"
    assert logits.shape == (2, LENGTH, VOCABULARY)


def test_the_papers_sinusoids_are_left_out() -> None:
    state = {"pos_encoder.pe": torch.zeros(3), "encoder.weight": torch.ones(2)}
    assert list(without_positions(state)) == ["encoder.weight"]
    assert list(without_positions({f"model.{name}": tensor for name, tensor in state.items()})) == [
        "model.encoder.weight"
    ]


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UsageError, match=r"task x: num_heads is 5 and does not divide d_model, 12"):
        check_heads("task x", 12, 5)
    check_heads("task x", 12, 4)
