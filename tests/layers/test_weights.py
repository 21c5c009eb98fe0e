"""Which tensors of a file are the model's: nothing of the model is lost, nothing of the trainer is taken for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_cli.layers.inventory import take_inventory
from spectra_cli.layers.weights import model_weights
from spectra_cli.tensors import TensorInfo

MODEL = {"embed.weight": (50, 8), "layers.0.fc.weight": (32, 8), "layers.0.fc.bias": (32,), "head.weight": (50, 8)}
MATRICES = [name for name, shape in MODEL.items() if len(shape) == 2]


def flat(names: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Any]:
    """A dictionary as safetensors keeps it: names, and no dictionaries around them."""
    return {f"{prefix}{name}": shape for name, shape in names.items()}


def saved(nested: Mapping[str, Any], path: str = "") -> dict[str, TensorInfo]:
    """What a reader makes of nested dictionaries of shapes: dotted names, and the dictionary each tensor was in."""
    tensors: dict[str, TensorInfo] = {}
    for key, value in nested.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, tuple):
            tensors[name] = TensorInfo(name, value, "float32", path)
        elif isinstance(value, list):  # a list is no dictionary
            tensors |= {
                f"{name}.{place}": TensorInfo(f"{name}.{place}", v, "float32", path) for place, v in enumerate(value)
            }
        else:
            tensors |= saved(value, name)
    return tensors


def found(nested: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Parameters of all matrices, and the status of every skipped tensor of two axes or more."""
    inventory = take_inventory(saved(nested), ordered=True)
    return (
        [spec.parameter for spec in inventory.matrices],
        {item.name: item.status for item in inventory.skipped if len(item.shape) > 1},
    )


ADAM = {"state": {0: {"step": (), "exp_avg": (50, 8), "exp_avg_sq": (50, 8)}, 1: {"exp_avg": (32, 8)}}}
SHAMPOO = {"state": {0: {"preconditioner": (50, 50)}, 1: {"GG": (32, 32), "Q": (8, 8)}}}


def with_text_keys(nested: Any) -> Any:
    return {str(k): with_text_keys(v) for k, v in nested.items()} if isinstance(nested, dict) else nested


WRAPPED: dict[str, Mapping[str, Any]] = {
    "bare": MODEL,
    "DDP": flat(MODEL, "module."),
    "torch.compile": flat(MODEL, "_orig_mod."),
    "Lightning with torch.compile": {"state_dict": flat(MODEL, "model._orig_mod."), "epoch": ()},
    "DDP of torch.compile": flat(MODEL, "module._orig_mod."),
    "FSDP within": {
        name.replace("layers.0.", "layers.0._fsdp_wrapped_module."): shape for name, shape in MODEL.items()
    },
    "activation checkpointing": {
        name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."): shape for name, shape in MODEL.items()
    },
    "PEFT": {name.replace("fc.", "fc.base_layer."): shape for name, shape in MODEL.items()},
    "with Adam": {"model": MODEL, "optimizer": ADAM, "step": ()},
    "with Shampoo": {"model": MODEL, "opt": SHAMPOO},
    "optimizer first": {"optimizer_state_dict": ADAM, "model_state_dict": MODEL},
    "optimizer of any name": {"model": MODEL, "adam_G": SHAMPOO},
    "Lightning": {
        "state_dict": flat(MODEL, "model."),
        "optimizer_states": {"0": ADAM},
        "callbacks": {"EMA": {"ema_weights": MODEL}},
        "loops": {"fit": {"seen": (3, 3)}},
    },
    "distributed": {"model": MODEL, "optim": {"state": {name: {"exp_avg": s} for name, s in MODEL.items()}}},
    "distributed, flat": flat(MODEL, "model.") | {f"optim.state.{name}.exp_avg": s for name, s in MODEL.items()},
    "distributed, within app": {"app": {"model": MODEL, "optim": ADAM}},
    "Composer": {"state": {"model": flat(MODEL, "module."), "optimizers": {"Muon": SHAMPOO}, "rng": [(5000, 2)]}},
    "DeepSpeed-like": {
        "module": MODEL,
        "optimizer": {"fp32_groups": [(50, 8), (32, 8)]},
        "lr_scheduler": {"x": (2, 2)},
    },
    "timm with EMA": {"state_dict": MODEL, "state_dict_ema": MODEL, "arch": {}},
    "EMA with a wrapper": {"model": MODEL, "ema": flat(MODEL, "module.")},
    "list of shadow parameters": {"model": MODEL, "ema": {"shadow_params": [*MODEL.values()], "decay": ()}},
    "second copy": {"model": MODEL, "best_model": flat(MODEL, "module."), "train_data": (97, 3)},
    "AveragedModel": flat(MODEL, "module.") | {"n_averaged": ()},
    "only EMA": {"ema": MODEL, "step": ()},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrappers_optimizers_and_copies_do_not_change_what_is_found(how: str) -> None:
    matrices, _ = found(with_text_keys(WRAPPED[how]))
    assert matrices == MATRICES


EMA_INSIDE: dict[str, Mapping[str, Any]] = {
    "ema_model beside model": flat(MODEL, "model.") | flat(MODEL, "ema_model."),
    "SWA with a wrapper": flat(MODEL, "model.") | flat(MODEL, "swa_model.module.") | {"swa_model.n_averaged": ()},
    "LitEma": flat(MODEL, "model.")
    | {f"model_ema.{name.replace('.', '')}": shape for name, shape in MODEL.items()}
    | {"model_ema.decay": (), "model_ema.num_updates": ()},
    "lucidrains": flat(MODEL, "online_model.") | flat(MODEL, "ema_model.") | {"initted": (1,)},
    "of one module": flat(MODEL, "net.encoder.") | flat(MODEL, "net.ema_encoder.") | {"net.head.weight": (2, 8)},
    "of one matrix": {"gate.weight": (8, 8), "ema_gate.weight": (8, 8)},
    "shadow_params": flat(MODEL, "net.") | {f"shadow_params.{n}": s for n, s in enumerate(MODEL.values())},
    "StyleGAN": flat(MODEL, "g.") | flat(MODEL, "g_ema.") | {"d.weight": (4, 4)},
}


@pytest.mark.parametrize("how", EMA_INSIDE)
def test_averaged_copies_inside_a_state_dict_are_left_out(how: str) -> None:
    """Every matrix that is a copy is skipped as such, and no other is."""
    copies = {
        name
        for name, shape in EMA_INSIDE[how].items()
        if len(shape) > 1 and any(part in name for part in ("ema", "swa_", "shadow_params"))
    }
    matrices, skipped = found(EMA_INSIDE[how])
    assert skipped == dict.fromkeys(copies, "averaged_copy")
    assert len(matrices) == sum(len(shape) > 1 for shape in EMA_INSIDE[how].values()) - len(copies)


WEIGHTS_OF_SUSPICIOUS_NAME: dict[str, Mapping[str, Any]] = {
    "an OPT in a module": {"opt.layers.0.weight": (8, 8), "head.weight": (2, 8)},
    "an OPT in a dictionary": {"opt": {"layers.0.weight": (8, 8)}, "head": {"weight": (2, 8)}},
    "an OPT and a counter": {"opt": {"layers.0.weight": (8, 8)}, "step": ()},
    "optimizer_embedding": {"optimizer_embedding.weight": (8, 8), "head.weight": (2, 8)},
    "optimizer": {"optimizer.net.0.weight": (8, 8), "head.weight": (2, 8)},  # a learned optimizer
    "scheduler_net": {"scheduler_net.weight": (8, 8), "scheduler.weight": (8, 8), "scaler.weight": (2, 8)},
    "ema_gate": {"ema_gate.weight": (8, 8), "attn.weight": (8, 8)},
    "shadow_net": {"shadow_net.0.weight": (8, 8), "shadow_net.2.weight": (8, 8), "net.0.weight": (8, 8)},
    "ema_net of other sizes": {
        "net.0.weight": (8, 8),
        "net.2.weight": (8, 8),
        "ema_net.0.weight": (4, 8),
        "ema_net.2.weight": (4, 4),
    },
    "loops": {"loops.0.weight": (8, 8), "callbacks.weight": (8, 8), "rng.weight": (8, 8), "amp.weight": (8, 8)},
    "GAN": {"generator": {"a.weight": (8, 8)}, "discriminator": {"a.weight": (8, 8)}},
    "model and its head": {"model": {"a.weight": (8, 8)}, "head": {"weight": (2, 8)}},
    "student and teacher": {"student": {"a.weight": (8, 8)}, "teacher": {"a.weight": (8, 8)}},
    "flattened positions": {"query_bias_net.weight": (8, 8), "mask_net.weight": (8, 8), "norm.linear.weight": (16, 8)},
    "one letter": {"b_proj": (8, 8), "bias_table": (8, 8), "w": (8, 8)},
    "one output": {"fc.weight": (1, 8), "conv.weight": (1, 8, 1, 1)},
    "module and model": {"module.a.weight": (8, 8), "model.a.weight": (8, 8)},
    "names that meet": {"a._orig_mod.weight": (8, 8), "a.weight": (8, 8)},
}


@pytest.mark.parametrize("what", WEIGHTS_OF_SUSPICIOUS_NAME)
def test_no_weight_is_lost_for_its_name(what: str) -> None:
    """A wrongly skipped weight is the worse fault: it is not seen in any table."""
    tensors = saved(WEIGHTS_OF_SUSPICIOUS_NAME[what])
    inventory = take_inventory(tensors, ordered=True)
    expected = [name for name, tensor in tensors.items() if len(tensor.shape) > 1]
    assert [spec.tensor.name for spec in inventory.matrices] == expected
    assert len({spec.parameter for spec in inventory.matrices}) == len(expected)


@pytest.mark.parametrize(
    "alone",
    [ADAM, SHAMPOO, {"optimizer": ADAM}, {f"optimizer.state.{name}.exp_avg": shape for name, shape in MODEL.items()}],
)
def test_an_optimizer_alone_is_no_model(alone: Mapping[str, Any]) -> None:
    matrices, skipped = found(with_text_keys(alone))
    assert matrices == []
    assert set(skipped.values()) == {"optimizer_state"}


def test_data_beside_a_model_is_not_its_weight() -> None:
    matrices, skipped = found({"model": MODEL, "features": (100, 8), "queue": {"keys": (64, 8)}})
    assert matrices == MATRICES
    assert skipped == {"features": "other_state_dict", "queue.keys": "other_state_dict"}


def test_the_prefix_that_remains_tells_the_other_module_apart() -> None:
    """The model's names are its own; another state dict of the same names keeps its key."""
    matrices, _ = found({"model": {"a.weight": (8, 8)}, "head": {"a.weight": (2, 8)}, "optimizer": ADAM})
    assert matrices == ["a.weight", "head.a.weight"]


def test_flattened_parameters_of_fsdp_are_named() -> None:
    tensors = saved({"_fsdp_wrapped_module._flat_param": (1000,), "head.weight": (2, 8)})
    (skipped,) = take_inventory(tensors, ordered=True).skipped
    assert skipped.status == "flat_parameter"


def tied(names: Mapping[str, str]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, (50, 8), "float32", "", storage) for name, storage in names.items()}


def test_a_tied_weight_counts_once_the_first_time() -> None:
    """By the identity of the bytes; equal shapes alone tie nothing."""
    weights, left_out = model_weights(tied({"wte.weight": "a", "h.weight": "b", "lm_head.weight": "a"}))
    assert [weight.parameter for weight in weights] == ["wte.weight", "h.weight"]
    assert [(item.name, item.status, item.reason) for item in left_out] == [
        ("lm_head.weight", "tied", "the same tensor as 'wte.weight'")
    ]


def test_a_tie_does_not_change_the_names() -> None:
    """torch.save keeps both names of a tied weight, safetensors one: the parameters are called the same."""
    both = tied({"model.embed_tokens.weight": "a", "model.layers.0.weight": "b", "lm_head.weight": "a"})
    one = {name: TensorInfo(name, (50, 8), "float32") for name in both if name != "lm_head.weight"}
    names = [[weight.parameter for weight in model_weights(tensors)[0]] for tensors in (both, one)]
    assert names[0] == names[1] == ["embed_tokens.weight", "layers.0.weight"]


@pytest.mark.parametrize(
    ("config", "output_shape", "matrices"),
    [
        ({"tie_word_embeddings": True}, (50, 8), 2),
        ({"text_config": {"tie_word_embeddings": True}}, (50, 8), 2),
        ({"tie_word_embeddings": True}, (52, 8), 3),
        ({"tie_word_embeddings": False}, (50, 8), 3),
        ({}, (50, 8), 3),
    ],
)
def test_a_saved_copy_counts_once_where_config_json_ties_it(
    config: dict[str, Any], output_shape: tuple[int, int], matrices: int
) -> None:
    shapes = {"model.embed_tokens.weight": (50, 8), "model.layers.0.weight": (8, 8), "lm_head.weight": output_shape}
    inventory = take_inventory(saved(shapes), ordered=False, config=config)
    assert len(inventory.matrices) == matrices
    assert [item.name for item in inventory.skipped] == ["lm_head.weight"] * (3 - matrices)


def test_optimizer_state_of_torch_is_recognised_as_torch_saves_it() -> None:
    """Adam, AdamW with amsgrad, SGD with momentum, Adagrad, Adadelta, Adamax, Rprop: no tensor of any is a weight."""
    layer = torch.nn.Linear(4, 3)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(layer.parameters()),
        torch.optim.AdamW(layer.parameters(), amsgrad=True),
        torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9),
        torch.optim.Adagrad(layer.parameters()),
        torch.optim.Adadelta(layer.parameters()),
        torch.optim.Adamax(layer.parameters()),
        torch.optim.Rprop(layer.parameters()),
    ]
    for optimizer in optimizers:
        layer(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        state = {
            str(number): {name: tuple(value.shape) for name, value in entries.items() if torch.is_tensor(value)}
            for number, entries in optimizer.state_dict()["state"].items()
        }
        assert any(len(shape) == 2 for entries in state.values() for shape in entries.values())
        assert found({"net": {"weight": (3, 4)}, "o": {"state": state}})[0] == ["weight"]


COMPONENTS = st.sampled_from(
    [
        "model",
        "module",
        "_orig_mod",
        "state_dict",
        "ema",
        "swa_model",
        "shadow_params",
        "opt",
        "optim",
        "state",
        "0",
        "1",
        "optimizer",
        "experts",
        "pos_embed",
        "W_Q",
        "conv",
        "9" * 5000,
        "²",
        "net",
        "weight",
        "bias",
    ]
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
ANYTHING = st.dictionaries(st.lists(COMPONENTS, min_size=1, max_size=5).map(".".join), SHAPES, max_size=10)


@settings(deadline=None)  # machines that run tests are busy
@given(ANYTHING, st.booleans(), st.booleans())
def test_every_tensor_is_accounted_for_once(shapes: dict[str, tuple[int, ...]], nested: bool, ordered: bool) -> None:
    """As matrices or as one skipped tensor, and no two matrices have the same name, whatever the names are."""
    tensors = {
        name: TensorInfo(name, shape, "float32", name.rpartition(".")[0] if nested else "")
        for name, shape in shapes.items()
    }
    inventory = take_inventory(tensors, ordered=ordered)
    kept = {spec.tensor.name for spec in inventory.matrices}
    skipped = [item.name for item in inventory.skipped]
    assert len(skipped) == len(set(skipped))
    assert not kept & set(skipped)
    assert kept | set(skipped) == set(shapes)
    parameters = [spec.parameter for spec in inventory.matrices]
    assert len(parameters) == len(set(parameters))


@pytest.mark.parametrize("ordered", [True, False])
def test_thousands_of_tensors_take_no_time(ordered: bool) -> None:
    """5,000 tensors and as many averaged copies well under half a second, even on a busy machine."""
    shapes = {f"layers.{block}.mlp.experts.{expert}.w1.weight": (8, 4) for block in range(50) for expert in range(100)}
    tensors = saved(flat(shapes, "model.") | flat(shapes, "ema_model."))
    times = []
    for _ in range(3):
        start = time.process_time()
        inventory = take_inventory(tensors, ordered=ordered)
        times.append(time.process_time() - start)
    assert len(inventory.matrices) == 5000
    assert min(times) < 0.5
