"""Networks of the literature's sizes on images of any size, metrics that are exact means, labels that are random."""

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
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.tasks.base import TrainableTask, place_generator
from spectra_cli.tasks.image_classification import RECIPES, ImageClassification, flipped_and_shifted
from spectra_cli.tasks.models.convolutional import VGG, ResNet, fitted, scaled_vgg16
from spectra_cli.tasks.models.perceptron import MLP
from spectra_cli.tasks.options import bound_options
from spectra_cli.tensors import TensorInfo

MODELS = ("vgg16", "mlp", "lenet", "resnet20")
TINY: dict[str, dict[str, Any]] = {
    "vgg16": {"channels": (8, 0, 12, 0, 16)},
    "mlp": {"width": 24, "depth": 3},
    "lenet": {"width": 4},
    "resnet20": {"width": 4, "depth": 8},
}
CIFAR: dict[str, Any] = {"image_shape": (3, 32, 32), "num_classes": 10, "data": "nowhere"}


def count_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tiny(model: str, **options: Any) -> ImageClassification:
    return ImageClassification(model=model, **{**TINY[model], **options})  # type: ignore[arg-type]  # one of MODELS


def save_images(folder: Path, train: int, val: int, shape: tuple[int, ...] = (6, 6), classes: int = 3) -> str:
    rng = np.random.default_rng(0)
    splits = {"train": train, "test": val}
    images = {f"x_{split}": rng.integers(0, 256, (count, *shape), np.uint8) for split, count in splits.items()}
    labels = {f"y_{split}": np.arange(count) % classes for split, count in splits.items()}
    np.savez(folder / "images.npz", **images, **labels)
    return str(folder / "images.npz")


# The networks


def test_parameter_counts_are_those_of_the_literature() -> None:
    """On 32 x 32 pixels in colour with ten classes; LeNet-5 on grey ones.

    VGG-16 with batch norm has 14,728,266 with one linear layer. ResNet-20 has 269,722 with shortcuts that have no
    parameters (0.27 million: He et al. 2016, Table 6); two 1 x 1 convolutions and their norms come in addition. LeNet-5
    has 61,706.
    """
    with torch.device("meta"):
        counts = {name: count_of(ImageClassification(model=name, **CIFAR).model()) for name in MODELS}
        grey = count_of(ImageClassification(model="lenet", image_shape=(1, 28, 28), num_classes=10).model())
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    perceptron = sum((inputs + 1) * outputs for inputs, outputs in pairwise((3 * 32 * 32, 256, 256, 256, 10)))
    expected = {"vgg16": 14_728_266, "resnet20": 269_722 + shortcuts, "lenet": 61_706 + 2 * 6 * 25, "mlp": perceptron}
    assert counts == expected
    assert grey == 61_706


def test_vgg_16_layer_by_layer() -> None:
    """Thirteen convolutions of 3 x 3 with biases, each with a batch norm, and one linear layer."""
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    convolutions = sum(9 * inputs * outputs + outputs for inputs, outputs in pairwise(widths))
    assert convolutions + 2 * sum(widths[1:]) + 513 * 10 == 14_728_266


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 13, 21), (1, 1, 1), (3, 64, 40)], ids=str)
def test_images_of_any_size_give_logits_and_gradients_everywhere(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = tiny(name, image_shape=shape, num_classes=7).model()
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 7)
    torch.autograd.backward(logits.square().sum())
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
def test_weights_do_not_depend_on_the_size_of_images(name: str) -> None:
    shapes = [
        {
            key: tuple(value.shape)
            for key, value in tiny(name, image_shape=(1, side, side), num_classes=10).model().state_dict().items()
        }
        for side in (8, 28, 32)
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def normed(values: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch norm in evaluation mode."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight / (variance + norm.eps).sqrt()
    return values * scale[:, None, None] + (norm.bias - mean * scale)[:, None, None]


def disturbed(model: nn.Module) -> nn.Module:
    """With norms that are not the identity, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    return model.eval()


def test_vgg_16_as_the_papers_have_it_on_32_pixels() -> None:
    """Four max poolings, then the average over 2 x 2; written out."""
    torch.manual_seed(0)
    model = disturbed(VGG(3, scaled_vgg16(4), 10))
    assert isinstance(model, VGG)
    images = torch.randn(2, 3, 32, 32)
    values = images
    for place in (0, 1, "M", 3, 4, "M", 6, 7, 8, "M", 10, 11, 12, "M", 14, 15, 16):
        if isinstance(place, str):
            values = functional.max_pool2d(values, 2, stride=2)
            continue
        module = model.get_submodule(f"layers.{place}")
        convolution, norm = module.conv, module.bn
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        values = functional.conv2d(values, convolution.weight, convolution.bias, padding=1)
        values = functional.relu(normed(values, norm))
    assert values.shape == (2, 32, 2, 2)
    expected = functional.linear(functional.avg_pool2d(values, 2).flatten(1), model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(images), expected)


def test_vgg_pools_while_both_sides_are_longer_than_one() -> None:
    """8 x 8 pixels: to 4, 2 and 1; the fourth pooling of VGG-16 does nothing."""
    sizes: list[tuple[int, ...]] = []
    model = VGG(1, scaled_vgg16(1), 10).eval()
    for module in model.layers:
        module.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[2:])))
    model(torch.randn(1, 1, 8, 8))
    assert sizes == [(8, 8)] * 2 + [(4, 4)] * 3 + [(2, 2)] * 4 + [(1, 1)] * 8


def test_resnet_as_the_papers_have_it() -> None:
    """Stream and branches written out, with a convolution of stride 2 as shortcut where the stream widens."""
    torch.manual_seed(0)
    model = disturbed(ResNet(3, 4, 2, 10))
    assert isinstance(model, ResNet)
    images = torch.randn(2, 3, 32, 32)
    stream = functional.relu(normed(functional.conv2d(images, model.conv.weight, padding=1), model.bn))
    for place in range(6):
        block = model.get_submodule(f"blocks.{place}")
        modules = {name: block.get_submodule(name) for name, _ in block.named_modules() if name}
        weight = {name: module.weight for name, module in modules.items() if isinstance(module, nn.Conv2d)}
        norm = {name: module for name, module in modules.items() if isinstance(module, nn.BatchNorm2d)}
        stride = 2 if place in {2, 4} else 1
        branch = functional.relu(
            normed(functional.conv2d(stream, weight["conv1"], stride=stride, padding=1), norm["bn1"])
        )
        branch = normed(functional.conv2d(branch, weight["conv2"], padding=1), norm["bn2"])
        assert ("shortcut.0" in weight) == (stride == 2)
        if stride == 2:
            stream = normed(functional.conv2d(stream, weight["shortcut.0"], stride=2), norm["shortcut.1"])
        stream = functional.relu(branch + stream)
    assert stream.shape == (2, 16, 8, 8)
    expected = functional.linear(functional.avg_pool2d(stream, 8).flatten(1), model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(images), expected)


def test_the_perceptron_written_out() -> None:
    """A ReLU between any two layers, none after the last one."""
    torch.manual_seed(0)
    model = MLP(12, 7, 3, 5)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    images = torch.randn(4, 3, 2, 2)
    values = images.numpy().reshape(4, 12)
    for place in range(3):
        values = values @ weights[f"layers.{place}.weight"].T + weights[f"layers.{place}.bias"]
        values = np.maximum(values, 0) if place < 2 else values
    with torch.no_grad():
        np.testing.assert_allclose(model(images), values, rtol=1e-5, atol=1e-6)


def test_lenet_reads_32_by_32_pixels_of_any_image() -> None:
    """8 x 8 magnified by 4; 28 x 28 with its border continued by 2; 64 x 64 as means over 2 x 2; 33 x 9 within."""
    torch.manual_seed(0)
    small, digit, large, odd = (torch.randn(2, 3, *size) for size in ((8, 8), (28, 28), (64, 64), (33, 9)))
    np.testing.assert_array_equal(fitted(small, 32), np.kron(small, np.ones((4, 4), np.float32)))
    np.testing.assert_array_equal(fitted(digit, 32), np.pad(digit, ((0, 0), (0, 0), (2, 2), (2, 2)), "edge"))
    np.testing.assert_allclose(fitted(large, 32), large.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)), rtol=0, atol=1e-6)
    assert fitted(odd, 32).shape == (2, 3, 32, 32)
    last_row = (
        odd[:, :, 32, :8].reshape(2, 3, 4, 2).mean(3)
    )  # of 17 rows from the 8th on, and 5 columns from the 14th on
    np.testing.assert_allclose(fitted(odd, 32)[:, :, 7 + 16, 13:17], last_row, rtol=0, atol=1e-6)
    same = torch.randn(2, 3, 32, 32)
    assert torch.equal(fitted(same, 32), same)


# Names, and who feeds whom


def inventory_of(model: nn.Module, *, ordered: bool) -> Inventory:
    state = model.state_dict()
    names = state if ordered else sorted(state)
    tensors = {name: TensorInfo(name, tuple(state[name].shape), str(state[name].dtype)[6:]) for name in names}
    return take_inventory(tensors, ordered=ordered)


def edges_of(inventory: Inventory) -> set[tuple[str, str, str]]:
    names = [spec.parameter.removesuffix(".weight") for spec in inventory.matrices]
    return {(edge.name, names[edge.upstream], names[edge.downstream]) for edge in inventory.connections()}


CHAINS = {
    "vgg16": ("vgg", ["layers.0.conv", "layers.2.conv", "layers.4.conv", "fc"], "output"),
    "mlp": (None, ["layers.0", "layers.1", "layers.2"], "sequential"),
    "lenet": (None, ["conv1", "conv2", "fc1", "fc2", "fc3"], "sequential"),
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("name", CHAINS)
def test_layers_of_a_chain_feed_each_other(name: str, ordered: bool) -> None:
    """Also where a checkpoint does not keep their order."""
    family, layers, last = CHAINS[name]
    inventory = inventory_of(tiny(name, image_shape=(1, 8, 8), num_classes=10).model(), ordered=ordered)
    assert [spec.parameter for spec in inventory.matrices] == [f"{layer}.weight" for layer in layers]
    assert [found.fit.architecture.family for found in inventory.families] == ([family] if family else [])
    kinds = ["sequential"] * (len(layers) - 2) + [last]
    assert edges_of(inventory) == {(kind, *pair) for kind, pair in zip(kinds, pairwise(layers), strict=True)}


@pytest.mark.parametrize("ordered", [True, False])
def test_blocks_and_shortcuts_of_a_resnet_feed_each_other(ordered: bool) -> None:
    """With the fifth block's shortcut: what block 1 adds, it reads; what it gives, block 3 reads."""
    model = tiny("resnet20", depth=14, image_shape=(1, 8, 8), num_classes=10).model()
    inventory = inventory_of(model, ordered=ordered)
    assert [found.fit.architecture.family for found in inventory.families] == ["resnet"]
    assert inventory.unfitted == []
    shortcuts = {"blocks.2.shortcut.0", "blocks.4.shortcut.0"}
    assert shortcuts == {
        spec.parameter.removesuffix(".weight") for spec in inventory.matrices if "shortcut" in spec.parameter
    }
    edges = edges_of(inventory)
    assert ("residual", "blocks.1.conv2", "blocks.2.shortcut.0") in edges
    assert ("residual", "blocks.2.shortcut.0", "blocks.3.conv1") in edges
    assert ("sequential", "conv", "blocks.0.conv1") in edges
    assert ("output", "blocks.5.conv2", "fc") in edges


# Data


def test_splits_and_batches_are_the_same_every_time() -> None:
    """All images of a split once, standardized, with their labels; whatever torch's global generator does."""
    task = tiny("mlp", eval_batch_size=400)
    assert isinstance(task, TrainableTask)
    for split, count in (("train", 1347), ("val", 450)):
        first = list(task.batches(split))
        torch.rand(7)
        again = list(task.batches(split))
        assert [len(labels) for _, labels in first] == {"train": [337, 337, 337, 336], "val": [225, 225]}[split]
        assert all(
            torch.equal(x, y) for one, other in zip(first, again, strict=True) for x, y in zip(one, other, strict=True)
        )
        images = torch.cat([images for images, _ in first])
        assert images.dtype == torch.float32
        assert len(images.unique(dim=0)) == count == len(images)
    train = torch.cat([images for images, _ in task.batches("train")])
    assert (train.mean().abs() < 1e-5, (train.std(correction=0) - 1).abs() < 1e-5) == (True, True)


def test_a_training_batch_holds_the_images_asked_for() -> None:
    task = tiny("mlp")
    indices = torch.tensor([5, 0, 1346])
    images, labels = task.training_batch(indices, torch.Generator())
    whole, all_labels = task.training_batch(torch.arange(task.training_count), torch.Generator())
    assert torch.equal(images, whole[indices])
    assert labels.tolist() == all_labels[indices].tolist()


def test_fewer_examples_for_metrics_leave_training_alone() -> None:
    task = tiny("mlp", eval_examples=30)
    assert sum(len(labels) for _, labels in task.batches("train")) == 30
    assert task.training_count == 1347


def all_labels(task: ImageClassification, split: str) -> Tensor:
    return torch.cat([labels for _, labels in task.batches(split)])


def test_random_labels_are_of_the_training_split_and_always_the_same() -> None:
    """Whatever the seed of a run; about one in ten is right by chance, and all classes are equally frequent."""
    true, random = tiny("mlp"), tiny("mlp", random_labels=True)
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        drawn.append(all_labels(tiny("mlp", random_labels=True), "train"))
    assert torch.equal(drawn[0], drawn[1])
    indices = torch.arange(1347)
    of_training = random.training_batch(indices, place_generator(3))[1]
    assert torch.equal(of_training.sort().values, drawn[0].sort().values)
    right = int((of_training == true.training_batch(indices, place_generator(3))[1]).sum())
    assert abs(right - 134.7) < 4 * math.sqrt(1347 * 0.1 * 0.9)
    counts = of_training.bincount(minlength=10).double()
    assert float(((counts - 134.7) ** 2 / 134.7).sum()) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    assert torch.equal(all_labels(random, "val"), all_labels(true, "val"))


def test_random_labels_are_of_all_classes_that_there_are(tmp_path: Path) -> None:
    data = save_images(tmp_path, 600, 5)
    task = tiny("mlp", data=data, random_labels=True)
    assert all_labels(task, "train").unique().tolist() == [0, 1, 2]
    wider = tiny("mlp", data=data, random_labels=True, num_classes=6)
    assert all_labels(wider, "train").unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_augmented_images_are_shifted_and_flipped_each_on_its_own() -> None:
    """Each is a window of the padded image or of its mirror image, by at most 1 of 8 rows and 2 of 16 columns."""
    images = torch.randn(400, 2, 8, 16)
    found = flipped_and_shifted(images, place_generator(0))
    seen = set()
    for image, result in zip(images, found, strict=True):
        windows = {
            (flip, down, right): np.pad(turned, ((0, 0), (1, 1), (2, 2)))[:, down : down + 8, right : right + 16]
            for flip, turned in ((False, image.numpy()), (True, image.numpy()[..., ::-1]))
            for down in range(3)
            for right in range(5)
        }
        (which,) = [key for key, window in windows.items() if np.array_equal(window, result)]
        seen.add(which)
    assert len(seen) == 2 * 3 * 5


def test_augmentation_is_drawn_from_the_generator_alone_and_only_where_asked_for() -> None:
    indices = torch.arange(64)
    augmented, plain = tiny("mlp", augment=True), tiny("mlp")
    one = augmented.training_batch(indices, place_generator(1))
    torch.manual_seed(5)
    assert torch.equal(augmented.training_batch(indices, place_generator(1))[0], one[0])
    assert not torch.equal(augmented.training_batch(indices, place_generator(2))[0], one[0])
    assert not torch.equal(plain.training_batch(indices, place_generator(1))[0], one[0])
    assert torch.equal(plain.training_batch(indices, place_generator(1))[1], one[1])
    for split in ("train", "val"):
        assert torch.equal(next(iter(augmented.batches(split)))[0], next(iter(plain.batches(split)))[0])


# Metrics and training


@pytest.mark.parametrize("name", MODELS)
def test_metrics_are_means_over_examples(name: str) -> None:
    """Against a loop over images in float64 NumPy, with batches of 16 and 15 images."""
    torch.manual_seed(0)
    task = tiny(name, eval_examples=31, eval_batch_size=16)
    model = disturbed(task.model())
    totals = {"loss": 0.0, "error": 0.0}
    counts = {"loss": 0, "error": 0}
    losses, errors = [], []
    with torch.no_grad():
        for images, labels in task.batches("val"):
            for key, metric in task.metrics(model, (images, labels)).items():
                totals[key] += float(metric.total)
                counts[key] += int(metric.count)
                assert metric.scale == "mean"
            for image, label in zip(images, labels.tolist(), strict=True):
                logits = model(image[None])[0].double().numpy()
                losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
                errors.append(float(np.argmax(logits) != label))
    assert counts == {"loss": 31, "error": 31}
    assert totals["loss"] / 31 == pytest.approx(np.mean(losses), rel=1e-6)
    assert totals["error"] / 31 == np.mean(errors)


def test_an_image_without_a_number_for_a_logit_is_told_wrongly() -> None:
    task = tiny("mlp")
    logits = torch.tensor([[math.nan, 0.0], [0.0, math.nan], [1.0, 0.0]])
    model = nn.Identity()
    found = task.metrics(model, (logits, torch.tensor([0, 1, 0])))
    assert (int(found["error"].total), found["error"].count) == (2, 3)
    assert math.isnan(float(found["loss"].total))


@pytest.mark.parametrize("name", MODELS)
def test_training_lowers_the_loss(name: str) -> None:
    """Thirty steps of the recipe's optimizer, to less than four fifths. LeNet starts slowly: it has more channels."""
    torch.manual_seed(0)
    task = tiny(name, eval_examples=200, **({"width": 12} if name == "lenet" else {}))
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=task.recipe.momentum)

    def validation_loss() -> float:
        model.eval()
        with torch.no_grad():
            metrics = [task.metrics(model, batch)["loss"] for batch in task.batches("val")]
        model.train()
        return sum(float(metric.total) for metric in metrics) / sum(int(metric.count) for metric in metrics)

    before = validation_loss()
    assert before == pytest.approx(math.log(10), abs=0.3)
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        indices = torch.randint(task.training_count, (64,), generator=generator)
        loss = task.loss(model, task.training_batch(indices, place_generator(0, step)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert validation_loss() < 0.8 * before


def test_a_training_batch_of_one_image_says_what_to_do() -> None:
    """Where batch norm has one value per channel; the same batch does in evaluation."""
    task = tiny("vgg16", channels=(4, 0, 4, 0, 4, 0, 4))
    model = task.model()
    batch = task.training_batch(torch.tensor([3]), torch.Generator())
    with pytest.raises(UsageError, match=r"one image.* --batch-size"):
        task.loss(model, batch)
    with torch.no_grad():
        assert math.isfinite(float(task.metrics(model.eval(), batch)["loss"].total))


@pytest.mark.parametrize("name", MODELS)
def test_everything_stays_on_the_device_of_the_model(name: str) -> None:
    """FakeTensorMode raises where devices meet. Without CUDA it cannot update the statistics of batch norm."""
    task = tiny(name, image_shape=(1, 8, 8), num_classes=10)
    model = task.model().eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {
            key: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
            for key, tensor in model.state_dict().items()
        }
        batch = (torch.empty(4, 1, 8, 8, device="cuda"), torch.empty(4, dtype=torch.int64, device="cuda"))

        def placed(images: Tensor) -> Tensor:
            logits: Tensor = functional_call(model, state, (images,))
            return logits

        assert task.loss(placed, batch).device.type == "cuda"  # type: ignore[arg-type]  # called as a module is
        assert set(task.metrics(placed, batch)) == {"loss", "error"}  # type: ignore[arg-type]


def test_recipes_are_the_papers() -> None:
    """Learning rates fall after epochs 82, 123 and 160 of 164; the perceptron's stays, and it has no weight decay."""
    for name in MODELS:
        recipe = tiny(name).recipe
        assert recipe == RECIPES[name]
        assert (recipe.optimizer, recipe.momentum, recipe.batch_size) == ("sgd", 0.9, 128)
    vgg, perceptron = RECIPES["vgg16"], RECIPES["mlp"]
    assert (vgg.lr, vgg.weight_decay, vgg.epochs, vgg.schedule, vgg.gamma) == (0.1, 1e-4, 164, "step", 0.1)
    per_epoch = vgg.steps_per_epoch(45_000)
    boundaries = [fraction * vgg.total_steps(45_000) for fraction in vgg.milestones]
    assert boundaries == pytest.approx([epoch * per_epoch for epoch in (82, 123, 160)], abs=1e-6)
    assert (perceptron.lr, perceptron.weight_decay, perceptron.epochs, perceptron.schedule) == (
        0.001,
        0,
        300,
        "constant",
    )


# Options


def test_options_as_text() -> None:
    """As `--set` gives them."""
    settings = {
        "model": "vgg16",
        "channels": "4,0,8",
        "random_labels": "true",
        "image_shape": "3,9,9",
        "num_classes": "5",
        "width": "none",
    }
    task = ImageClassification(**bound_options(ImageClassification, settings, "task"))
    model = task.model()
    assert [tuple(value.shape) for value in model.parameters() if value.ndim == 4] == [(4, 3, 3, 3), (8, 4, 3, 3)]
    assert model(torch.randn(2, 3, 9, 9)).shape == (2, 5)


def test_widths_scale_all_layers() -> None:
    """Each layer has the share of the whole width that it has by default."""
    for name, whole, width in (("vgg16", 64, 16), ("lenet", 6, 3), ("resnet20", 16, 4)):
        with torch.device("meta"):
            wide, narrow = (
                ImageClassification(model=name, width=size, image_shape=(1, 8, 8), num_classes=10).model()  # type: ignore[arg-type]
                for size in (whole, width)
            )
        assert count_of(wide) == count_of(
            ImageClassification(model=name, image_shape=(1, 8, 8), num_classes=10).model()
        )  # type: ignore[arg-type]
        for one, other in zip(wide.parameters(), narrow.parameters(), strict=True):
            if one.ndim == 4 and one.shape[1] > 1:
                assert (one.shape[0] * width, one.shape[1] * width) == (other.shape[0] * whole, other.shape[1] * whole)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "vgg61"}, "there is no model 'vgg61'.*vgg16"),
        ({"model": "vgg16", "depth": 3}, "depth says nothing of vgg16"),
        ({"model": "mlp", "channels": (3,)}, "channels says nothing of mlp"),
        ({"model": "vgg16", "width": 3, "channels": (3,)}, "both width and channels"),
        ({"model": "vgg16", "channels": ()}, "channels is empty"),
        ({"model": "vgg16", "channels": (0, 0)}, "channels is 0,0"),
        ({"model": "vgg16", "channels": (8, -1)}, "channels is 8,-1"),
        ({"model": "resnet20", "depth": 18}, "depth is 18.*6n \\+ 2"),
        ({"model": "resnet20", "depth": 2}, "depth is 2"),
        ({"width": 0}, "width is 0"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"image_shape": (1, 0, 8)}, "image_shape is 1,0,8"),
        ({"eval_examples": 0}, "eval_examples is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=f"task image-classification: {reason}"):
        ImageClassification(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_classes": 2}, "image of class 2, and num_classes is 2.*give 3 or more"),
        ({"image_shape": (3, 6, 6)}, "images are of 1 x 6 x 6 .* image_shape is 3 x 6 x 6"),
    ],
)
def test_data_that_contradict_the_options_are_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    data = save_images(tmp_path, 9, 4)
    with pytest.raises(InputError, match=f"images.npz: .*{reason}"):
        list(tiny("mlp", data=data, **options).batches("val"))


def test_data_are_read_when_they_are_needed() -> None:
    """A model does not need them where classes and shape are given."""
    task = ImageClassification(model="mlp", **CIFAR)
    assert task.model()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(InputError, match="nowhere: there is no such file"):
        list(task.batches("val"))


def test_models_take_classes_and_shape_from_the_data(tmp_path: Path) -> None:
    task = tiny("mlp", data=save_images(tmp_path, 9, 4, (5, 7, 3)))
    assert task.model()(next(iter(task.batches("train")))[0]).shape == (9, 3)


def test_the_notice_says_what_the_images_are(tmp_path: Path) -> None:
    assert tiny("mlp").notice.startswith("image-classification: no --data was given; 1797 handwritten digits")
    path = save_images(tmp_path, 9, 4)
    assert (
        tiny("mlp", data=path).notice
        == f"image-classification: the images of {path}, trained on 'x_train' and validated on 'x_test'"
    )
