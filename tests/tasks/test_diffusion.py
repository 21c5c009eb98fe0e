"""The UNet is the papers', at any size of images; noise is the same for every model; the loss is an exact mean."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional

from spectra_cli.errors import InputError, UsageError
from spectra_cli.layers.inventory import take_inventory
from spectra_cli.tasks.base import TrainableTask, place_generator
from spectra_cli.tasks.diffusion import Diffusion, DiffusionBatch, betas
from spectra_cli.tasks.models.unet import UNet
from spectra_cli.tasks.options import bound_options
from spectra_cli.tensors import TensorInfo

CHANNELS = (4, 8, 8, 12)
DENSE = {1: 0, 2: 1, 3: 2, 4: 3, 5: 2, 6: 1, 7: 0}
"""Which of the channels each dense layer gives."""


def tiny(**options: Any) -> Diffusion:
    return Diffusion(**{"channels": CHANNELS, "embedding": 16, **options})


def unet(image_channels: int = 1) -> UNet:
    torch.manual_seed(0)
    return UNet(image_channels, CHANNELS, 16)


# The network


def test_parameter_count_at_the_papers_sizes() -> None:
    """Eight convolutions, the last one with a bias; dense layers and norms for seven levels; the embedding.

    The 256 frequencies are not trained: a buffer, as the papers' checkpoints have them.
    """
    with torch.device("meta"):
        model = Diffusion(image_channels=1).model()
    levels = (64, 128, 256, 512, 256, 128, 64)
    convolutions = 2 * 9 * sum(one * other for one, other in pairwise((1, 64, 128, 256, 512))) + 1
    conditioning = sum(513 * level for level in levels)
    norms = 2 * sum(levels)
    expected = convolutions + conditioning + norms + 513 * 512
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 4_085_505
    assert [tuple(buffer.shape) for _, buffer in model.named_buffers()] == [(256,)]


def test_groups_of_the_norms_at_the_papers_sizes() -> None:
    with torch.device("meta"):
        model = Diffusion(image_channels=1).model()
    groups = {name: module.num_groups for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
    assert groups == {"gnorm1": 4} | dict.fromkeys(("gnorm2", "gnorm3", "gnorm4", "tgnorm4", "tgnorm3", "tgnorm2"), 32)


def test_state_dict_is_that_of_the_papers() -> None:
    """Names in the order in which they are passed."""
    convolutions = ("conv1", "conv2", "conv3", "conv4", "tconv4", "tconv3", "tconv2")
    norms = ("gnorm1", "gnorm2", "gnorm3", "gnorm4", "tgnorm4", "tgnorm3", "tgnorm2")
    names = ["time_embed.0.W", "time_embed.1.weight", "time_embed.1.bias"]
    for place, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True), 1):
        names += [f"{convolution}.weight", f"dense{place}.dense.weight", f"dense{place}.dense.bias"]
        names += [f"{norm}.weight", f"{norm}.bias"]
    assert list(unet().state_dict()) == [*names, "tconv1.weight", "tconv1.bias"]


def swish(values: Tensor) -> Tensor:
    return values * torch.sigmoid(values)


def written_out(model: UNet, images: Tensor, times: Tensor) -> Tensor:
    """The papers' network on 28 x 28 pixels, from the weights alone; output paddings 0, 1 and 1 as in their code."""
    weights = model.state_dict()
    groups = {name: module.num_groups for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
    phases = 2 * math.pi * times[:, None].double() * weights["time_embed.0.W"].double()
    features = torch.cat([phases.sin(), phases.cos()], dim=1).float()
    embedded = swish(functional.linear(features, weights["time_embed.1.weight"], weights["time_embed.1.bias"]))

    def conditioned(values: Tensor, place: int, norm: str) -> Tensor:
        added = functional.linear(embedded, weights[f"dense{place}.dense.weight"], weights[f"dense{place}.dense.bias"])
        values = values + added[:, :, None, None]
        return swish(functional.group_norm(values, groups[norm], weights[f"{norm}.weight"], weights[f"{norm}.bias"]))

    down = [images]
    for place in (1, 2, 3, 4):
        values = functional.conv2d(down[-1], weights[f"conv{place}.weight"], stride=1 if place == 1 else 2)
        down.append(conditioned(values, place, f"gnorm{place}"))
    assert [values.shape[-1] for values in down] == [28, 26, 12, 5, 2]
    values = conditioned(functional.conv_transpose2d(down[4], weights["tconv4.weight"], stride=2), 5, "tgnorm4")
    for place, dense in ((3, 6), (2, 7)):
        weight = weights[f"tconv{place}.weight"]
        values = functional.conv_transpose2d(values + down[place], weight, stride=2, output_padding=1)
        values = conditioned(values, dense, f"tgnorm{place}")
    return functional.conv_transpose2d(values + down[1], weights["tconv1.weight"], weights["tconv1.bias"])


def test_the_network_is_the_papers_on_28_pixels() -> None:
    """Small times, where phases in float32 are exact enough for the comparison."""
    model = unet().eval()
    images, times = torch.randn(3, 1, 28, 28), torch.tensor([0, 1, 7])
    with torch.no_grad():
        torch.testing.assert_close(model(images, times), written_out(model, images, times), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (16, 17), (17, 17), *[(side, side) for side in range(18, 36)], (9, 40)]
)
@pytest.mark.parametrize("image_channels", [1, 3])
def test_noise_has_the_shape_of_the_images(size: tuple[int, int], image_channels: int) -> None:
    """Whatever the strides leave over; and every weight has a gradient."""
    model = unet(image_channels)
    noise = model(torch.randn(2, image_channels, *size), torch.tensor([0, 999]))
    assert noise.shape == (2, image_channels, *size)
    torch.autograd.backward(noise.square().sum())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_images_that_are_too_small_are_padded_with_zeros_in_the_middle() -> None:
    """8 pixels: 4 before and 5 behind; the noise is cut from the same place."""
    model = unet()
    images, times = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    padded = torch.zeros(2, 1, 17, 17)
    padded[:, :, 4:12, 4:12] = images
    with torch.no_grad():
        assert torch.equal(model(images, times), model(padded, times)[:, :, 4:12, 4:12])


def test_each_image_is_conditioned_on_its_own_time() -> None:
    model = unet()
    images = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    with torch.no_grad():
        noise = model(images, torch.tensor([4, 4, 5]))
    torch.testing.assert_close(noise[0], noise[1])
    assert not torch.allclose(noise[0], noise[2], atol=1e-3)


def test_frequencies_are_stored_and_not_trained() -> None:
    """Standard deviation 30; loaded strictly into another model, they make it the same."""
    torch.manual_seed(0)
    first, second = UNet(embedding=2048), UNet(embedding=2048)
    assert float(first.time_embed[0].W.std()) == pytest.approx(30, rel=0.1)
    assert not first.time_embed[0].W.requires_grad
    second.load_state_dict(first.state_dict(), strict=True)
    images, times = torch.randn(1, 1, 17, 17), torch.tensor([600])
    with torch.no_grad():
        assert torch.equal(first(images, times), second(images, times))


@pytest.mark.parametrize("ordered", [True, False])
def test_the_family_is_the_unet_and_transposed_convolutions_are_recognised(ordered: bool) -> None:
    state = unet().state_dict()
    tensors = {
        name: TensorInfo(name, tuple(state[name].shape), "float32") for name in (state if ordered else sorted(state))
    }
    inventory = take_inventory(tensors, ordered=ordered)
    assert [found.fit.architecture.family for found in inventory.families] == ["unet"]
    assert inventory.unfitted == []
    kinds = {spec.parameter: (spec.kind, spec.rows, spec.cols) for spec in inventory.matrices}
    for place, (inputs, outputs) in enumerate(pairwise((1, *CHANNELS)), 1):
        assert kinds[f"conv{place}.weight"] == ("conv", outputs, 9 * inputs)
        assert kinds[f"tconv{place}.weight"] == ("conv_transpose", inputs, 9 * outputs)
    for place, level in DENSE.items():
        assert kinds[f"dense{place}.dense.weight"] == ("linear", CHANNELS[level], 16)
    counts = dict.fromkeys(("sequential", "skip", "conditioning"), 0)
    for connection in inventory.connections():
        counts[connection.name] += 1
    assert counts == {"sequential": 7, "skip": 3, "conditioning": 10}


# Noise


def test_the_schedule_is_the_papers() -> None:
    """From 0.00001 to 0.005 as a sigmoid from -6 to 6; after 1000 steps 8 % of the signal's variance are left."""
    sigmoid = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000)))
    np.testing.assert_allclose(betas(1000), sigmoid * (0.5e-2 - 1e-5) + 1e-5, rtol=1e-12)
    assert float((1 - betas(1000)).prod()) == pytest.approx(0.0812, abs=1e-4)


def test_batches_are_images_and_noise_mixed_by_the_schedule() -> None:
    """sqrt(a_t) x + sqrt(1 - a_t) e in float64 NumPy, undone: what is left are the standardized digits."""
    task = tiny(eval_batch_size=200)
    kept = np.cumprod(1 - betas(1000).numpy())
    clean = []
    for batch in task.batches("train"):
        a = kept[batch.times.numpy()][:, None, None, None]
        clean.append((batch.noisy.double().numpy() - np.sqrt(1 - a) * batch.noise.double().numpy()) / np.sqrt(a))
    images = np.concatenate(clean)
    assert images.shape == (1347, 1, 8, 8)
    assert abs(images.mean()) < 1e-5
    assert abs(images.std() - 1) < 1e-5
    assert len(np.unique(images.round(3))) == 17  # the levels of the digits, one for each number of black pixels


def test_times_are_uniform_and_noise_is_standard_normal() -> None:
    batches = list(tiny(eval_batch_size=500).batches("train"))
    times = torch.cat([batch.times for batch in batches]).double()
    noise = torch.cat([batch.noise for batch in batches]).double()
    assert (times.min() >= 0, times.max() <= 999) == (True, True)
    assert abs(float(times.mean()) - 499.5) < 4 * 1000 / math.sqrt(12 * 1347)
    assert abs(float(noise.mean())) < 4 / math.sqrt(noise.numel())
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def equal(one: DiffusionBatch, other: DiffusionBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_any_two_models_meet_the_same_noise() -> None:
    """Whatever torch's global generator does, and the evaluation leaves it alone; each batch has noise of its own."""
    task, again = tiny(eval_batch_size=150), tiny(eval_batch_size=150, channels=(8, 8, 8, 8))
    assert isinstance(task, TrainableTask)
    before = torch.get_rng_state()
    first = list(task.batches("val"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert all(equal(one, other) for one, other in zip(first, again.batches("val"), strict=True))
    assert [len(batch.times) for batch in first] == [150, 150, 150]
    of_training = next(iter(tiny(eval_batch_size=150).batches("train")))
    noises = [batch.noise[:100] for batch in [*first, of_training]]
    assert all(not torch.equal(one, other) for place, one in enumerate(noises) for other in noises[:place])


def test_training_noise_comes_from_the_generator_alone() -> None:
    task = tiny()
    indices = torch.tensor([4, 0, 1000])
    first = task.training_batch(indices, place_generator(0, 1))
    torch.rand(3)
    assert equal(task.training_batch(indices, place_generator(0, 1)), first)
    assert not torch.equal(task.training_batch(indices, place_generator(0, 2)).noise, first.noise)


# Metrics and training


def test_the_loss_is_a_mean_over_images_of_means_over_pixels() -> None:
    """Against a loop over images in float64 NumPy, with batches of 4, 4 and 3 images."""
    task = tiny(eval_examples=11, eval_batch_size=4)
    model = unet().eval()
    total, count, errors, sizes = 0.0, 0, [], []
    with torch.no_grad():
        for batch in task.batches("val"):
            metric = task.metrics(model, batch)["loss"]
            total, count = total + float(metric.total), count + int(metric.count)
            sizes.append(len(batch.times))
            for noisy, time, noise in zip(*batch, strict=True):
                told = model(noisy[None], time[None])[0].double().numpy()
                errors.append(np.mean((told - noise.double().numpy()) ** 2))
    assert (count, sizes) == (11, [4, 4, 3])
    assert total / count == pytest.approx(np.mean(errors), rel=1e-6)


def test_the_training_loss_is_the_mean_of_all_squared_errors() -> None:
    task, model = tiny(), unet()
    batch = task.training_batch(torch.arange(5), place_generator(0))
    with torch.no_grad():
        expected = np.mean((model(batch.noisy, batch.times).double() - batch.noise.double()).numpy() ** 2)
        assert float(task.loss(model, batch)) == pytest.approx(expected, rel=1e-6)


def test_a_model_that_tells_the_noise_has_no_loss() -> None:
    task = tiny()
    batch = task.training_batch(torch.arange(5), place_generator(0))
    assert float(task.loss(lambda *_: batch.noise, batch)) == 0  # type: ignore[arg-type]  # called as a module is
    assert float(task.loss(lambda *_: 0 * batch.noise, batch)) == pytest.approx(1, abs=0.3)  # type: ignore[arg-type]


def test_training_lowers_the_loss() -> None:
    """Forty steps of the recipe's optimizer at a higher rate, to below what telling no noise at all costs: 1."""
    torch.manual_seed(0)
    task = tiny(channels=(8, 16, 16, 16), eval_examples=100)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=task.recipe.betas)
    generator = torch.Generator().manual_seed(0)
    for step in range(40):
        indices = torch.randint(task.training_count, (64,), generator=generator)
        loss = task.loss(model, task.training_batch(indices, place_generator(0, step)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        (batch,) = task.batches("val")
        assert float(task.metrics(model, batch)["loss"].total) / 100 < 0.8


def test_everything_stays_on_the_device_of_the_model() -> None:
    """FakeTensorMode raises where devices meet."""
    task, model = tiny(), unet()
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: torch.empty(tensor.shape, device="cuda") for name, tensor in model.state_dict().items()}
        images, times = torch.empty(4, 1, 8, 8, device="cuda"), torch.empty(4, dtype=torch.int64, device="cuda")

        def placed(*inputs: Tensor) -> Tensor:
            noise: Tensor = functional_call(model, state, inputs)
            return noise

        batch = DiffusionBatch(images, times, images)
        assert task.loss(placed, batch).device.type == "cuda"  # type: ignore[arg-type]  # called as a module is
        assert set(task.metrics(placed, batch)) == {"loss"}  # type: ignore[arg-type]


def test_the_recipe_is_the_papers() -> None:
    recipe = Diffusion().recipe
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.betas) == ("adamw", 3e-4, 0, (0.9, 0.999))
    assert (recipe.batch_size, recipe.epochs, recipe.schedule, recipe.clip_norm) == (128, 100, "constant", None)
    assert Diffusion().timesteps == 1000


# Options and checkpoints


def test_options_as_text() -> None:
    """As `--set` gives them."""
    settings = {"channels": "4,8,8,12", "embedding": "16", "timesteps": "10", "image_channels": "3"}
    task = Diffusion(**bound_options(Diffusion, settings, "task"))
    assert task.model().conv1.weight.shape == (4, 3, 3, 3)
    grey = Diffusion(**bound_options(Diffusion, settings | {"image_channels": "none"}, "task"))
    assert int(next(iter(grey.batches("val"))).times.max()) == 9


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"channels": (8, 8, 8)}, "channels is 8,8,8.*four"),
        ({"channels": (8, 0, 8, 8)}, "channels is 8,0,8,8"),
        ({"channels": ()}, "channels is empty"),
        ({"embedding": 15}, "embedding is 15.*even"),
        ({"embedding": 0}, "embedding is 0"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"image_channels": 0}, "image_channels is 0"),
        ({"eval_examples": 0}, "eval_examples is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=f"task diffusion: {reason}"):
        Diffusion(**options)


def test_data_are_read_when_they_are_needed(tmp_path: Path) -> None:
    """A model does not need them where the number of channels is given; data that contradict it are refused."""
    assert tiny(data="nowhere", image_channels=3).model().conv1.weight.shape[1] == 3
    with pytest.raises(InputError, match="nowhere: there is no such file"):
        list(tiny(data="nowhere").batches("val"))
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 7, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.zeros(20, int))
    path = str(tmp_path / "x.npz")
    assert tiny(data=path).model()(*next(iter(tiny(data=path).batches("val")))[:2]).shape == (2, 3, 9, 7)
    with pytest.raises(InputError, match=r"x.npz: the images have 3 channels, and image_channels is 1"):
        list(tiny(data=path, image_channels=1).batches("val"))


def test_the_notice_says_what_the_images_are() -> None:
    assert tiny().notice.startswith("diffusion: no --data was given; 1797 handwritten digits of 8 x 8 pixels")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_papers_checkpoints_fit(prefix: str) -> None:
    """They hold the noise schedule beside the weights, and are wrapped by Lightning."""
    state = unet().state_dict()
    schedule = ("betas", "alphas", "alphas_bar_sqrt", "one_minus_alphas_bar_sqrt")
    stored = {name: torch.zeros(1000) for name in schedule} | {prefix + name: tensor for name, tensor in state.items()}
    assert tiny().adapt(stored).keys() == state.keys()
    assert tiny().adapt(state).keys() == state.keys()
