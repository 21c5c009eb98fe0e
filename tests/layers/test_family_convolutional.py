"""Convolutional families: which layer reads what another gives, and at which position of its kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spectra_cli.checkpoints.open import open_checkpoint
from spectra_cli.layers.fitting import StructureOptions
from spectra_cli.layers.inventory import Inventory, take_inventory
from tests.layers.planted import Array, UnitKey, aligned, inventory_of, plant, random_weights, scores

FIXTURES = Path(__file__).parents[2] / "fixtures"
CLASSES = 13
Edge = tuple[str, str, str]
"""Connection, upstream, downstream."""


class Affine(nn.Module):
    """A convolution under the name ``conv``, as open_lth has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, images: Tensor) -> Tensor:
        normed: Tensor = self.bn(self.conv(images))
        return normed.relu()


class LotteryVGG(nn.Module):
    """VGG under the names of open_lth: ``layers.{i}.conv`` with pooling in between, and ``fc``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Affine(3, 12), Affine(12, 14), nn.MaxPool2d(2), Affine(14, 16))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layers(images).mean((2, 3)))
        return logits


class TorchVGG(nn.Module):
    """VGG under the names of torchvision: ``features.{i}``, and ``classifier`` as one layer or several."""

    def __init__(self, classifier: nn.Module, *, pooled: int = 1, norms: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((3, 12, 14, 16)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *[nn.BatchNorm2d(outputs)] * norms, nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(pooled))
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def dense_layers(inputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 18), nn.ReLU(), nn.Dropout(), nn.Linear(18, 15), nn.ReLU(), nn.Linear(15, CLASSES)
    )


class Block(nn.Module):
    """A residual block: basic with two widths after the first, a bottleneck with three."""

    def __init__(self, widths: tuple[int, ...], shortcut: str) -> None:
        super().__init__()
        kernels = (3, 3) if len(widths) == 3 else (1, 3, 1)
        for place, ((inputs, outputs), kernel) in enumerate(zip(pairwise(widths), kernels, strict=True), 1):
            setattr(self, f"conv{place}", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False))
            setattr(self, f"bn{place}", nn.BatchNorm2d(outputs))
        self.depth, self.way = len(kernels), shortcut
        if widths[0] != widths[-1]:
            setattr(self, shortcut, nn.Sequential(nn.Conv2d(widths[0], widths[-1], 1), nn.BatchNorm2d(widths[-1])))

    def forward(self, images: Tensor) -> Tensor:
        branch = images
        for place in range(1, self.depth + 1):
            branch = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(branch))
            branch = branch.relu() if place < self.depth else branch
        stream: Tensor = getattr(self, self.way, nn.Identity())(images)
        return (branch + stream).relu()


def blocks_of(kind: str, shortcut: str) -> list[list[Block]]:
    """Two stages of two blocks each: with a bottleneck the first one widens as well."""
    stages: list[list[tuple[int, ...]]]
    if kind == "basic":
        stages = [[(12, 12, 12), (12, 12, 12)], [(12, 16, 16), (16, 16, 16)]]
    else:
        stages = [[(12, 13, 13, 20), (20, 13, 13, 20)], [(20, 14, 14, 24), (24, 14, 14, 24)]]
    return [[Block(widths, shortcut) for widths in stage] for stage in stages]


class ResNet(nn.Module):
    """A residual network under the names of torchvision, of kuangliu's or of open_lth's CIFAR networks."""

    def __init__(self, style: str, kind: str) -> None:
        super().__init__()
        stages = blocks_of(kind, "downsample" if style == "torchvision" else "shortcut")
        setattr(self, "conv" if style == "open_lth" else "conv1", nn.Conv2d(3, 12, 3, padding=1, bias=False))
        self.bn1 = nn.BatchNorm2d(12)
        if style == "open_lth":
            self.blocks = nn.Sequential(*[block for stage in stages for block in stage])
        else:
            self.layer1, self.layer2 = (nn.Sequential(*stage) for stage in stages)
        setattr(self, "linear" if style == "kuangliu" else "fc", nn.Linear(16 if kind == "basic" else 24, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        stem, *body, last = [child for child in self.children() if not isinstance(child, nn.BatchNorm2d)]
        if isinstance(body[-1], nn.Linear):
            last, body = body[-1], body[:-1]
        hidden = self.bn1(stem(images)).relu()
        for part in body:
            hidden = part(hidden)
        logits: Tensor = last(hidden.mean((2, 3)))
        return logits


class Dense(nn.Module):
    """A dense layer whose outputs are added at every place of an image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, times: Tensor) -> Tensor:
        added: Tensor = self.dense(times)[..., None, None]
        return added


class Fourier(nn.Module):
    """Fixed random frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(width // 2), requires_grad=False)

    def forward(self, times: Tensor) -> Tensor:
        phase = times[:, None] * self.W
        return torch.cat([phase.sin(), phase.cos()], 1)


class UNet(nn.Module):
    """The papers' UNet with other widths: what the way down gives is added on the way up."""

    def __init__(self, widths: tuple[int, int, int, int] = (12, 13, 14, 15), embedded: int = 16) -> None:
        super().__init__()
        one, two, three, four = widths
        self.time_embed = nn.Sequential(Fourier(embedded), nn.Linear(embedded, embedded))
        self.conv1 = nn.Conv2d(1, one, 3, bias=False)
        self.conv2 = nn.Conv2d(one, two, 3, stride=2, bias=False)
        self.conv3 = nn.Conv2d(two, three, 3, stride=2, bias=False)
        self.conv4 = nn.Conv2d(three, four, 3, stride=2, bias=False)
        self.tconv4 = nn.ConvTranspose2d(four, three, 3, stride=2, bias=False)
        self.tconv3 = nn.ConvTranspose2d(three, two, 3, stride=2, bias=False, output_padding=1)
        self.tconv2 = nn.ConvTranspose2d(two, one, 3, stride=2, bias=False, output_padding=1)
        self.tconv1 = nn.ConvTranspose2d(one, 1, 3)
        for place, width in enumerate((one, two, three, four, three, two, one), 1):
            setattr(self, f"dense{place}", Dense(embedded, width))
            setattr(self, f"gnorm{place}", nn.GroupNorm(1, width))

    def forward(self, images: Tensor) -> Tensor:
        times = self.time_embed(torch.linspace(0.1, 1, len(images))).relu()

        def conditioned(hidden: Tensor, place: int) -> Tensor:
            dense, norm = getattr(self, f"dense{place}"), getattr(self, f"gnorm{place}")
            normed: Tensor = norm(hidden + dense(times))
            return normed.relu()

        down = [images]
        for place in (1, 2, 3, 4):
            down.append(conditioned(getattr(self, f"conv{place}")(down[-1]), place))
        hidden = conditioned(self.tconv4(down[4]), 5)
        hidden = conditioned(self.tconv3(hidden + down[3]), 6)
        hidden = conditioned(self.tconv2(hidden + down[2]), 7)
        cleaned: Tensor = self.tconv1(hidden + down[1])
        return cleaned


def fed_by(model: nn.Module, images: Tensor) -> set[tuple[str, str]]:
    """Who feeds whom as the forward pass has it, by the names of their weights.

    One layer's outputs are disturbed while all other layers keep giving what they gave: whoever now reads something
    else reads that layer.
    """
    model.eval()
    torch.manual_seed(0)
    layers = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if hasattr(module, "in_channels") or isinstance(module, nn.Linear)
    }
    given: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    disturbed = ""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            read[name] = inputs[0]
            known = given.setdefault(name, output)
            return known + torch.randn_like(known) if name == disturbed else known

        return keep

    for name, module in layers.items():
        module.register_forward_hook(hook(name))
    with torch.no_grad():
        model(images)
        before, found = dict(read), set()
        for disturbed in layers:
            model(images)
            found |= {(disturbed, name) for name in layers if not torch.equal(read[name], before[name])}
    return found


def weights_of(model: nn.Module) -> dict[str, Array]:
    return random_weights({name: tuple(value.shape) for name, value in model.state_dict().items() if value.dim() > 1})


def edges_of(inventory: Inventory) -> set[Edge]:
    return {
        (connection.name, *(inventory.matrices[end].parameter for end in ends))  # type: ignore[misc]  # two ends
        for connection in inventory.connections()
        for ends in [(connection.upstream, connection.downstream)]
    }


def units_of(edges: set[Edge], weights: Mapping[str, Array]) -> set[UnitKey]:
    """Every kernel position of what reads, or the whole of it."""
    found: set[UnitKey] = set()
    for edge in edges:
        positions = math.prod(weights[edge[2]].shape[2:])
        convolution = weights[edge[2]].ndim > 2
        found |= {(*edge, "position", place) for place in range(positions)} if convolution else {(*edge, "whole", None)}
    return found


def family_of(inventory: Inventory) -> list[str]:
    return [family.fit.architecture.family for family in inventory.families]


def chain(name: str, *parameters: str) -> set[Edge]:
    return {(name, f"{one}.weight", f"{two}.weight") for one, two in pairwise(parameters)}


def resnet_edges(style: str, kind: str) -> set[Edge]:
    """Stem, blocks one after the other whatever their stage, output layer."""
    stem = "conv" if style == "open_lth" else "conv1"
    output = "linear" if style == "kuangliu" else "fc"
    way = "downsample.0" if style == "torchvision" else "shortcut.0"
    blocks = (
        [f"blocks.{i}" for i in range(4)] if style == "open_lth" else [f"layer{s}.{i}" for s in (1, 2) for i in (0, 1)]
    )
    depth = 2 if kind == "basic" else 3
    with_shortcut = {blocks[2]} if kind == "basic" else {blocks[0], blocks[2]}
    found: set[Edge] = set()
    giving, name = [stem], "sequential"
    for block in blocks:
        reading = [f"{block}.conv1"] + [f"{block}.{way}"] * (block in with_shortcut)
        found |= {(name, f"{one}.weight", f"{two}.weight") for one in giving for two in reading}
        found |= chain("sequential", *(f"{block}.conv{place}" for place in range(1, depth + 1)))
        giving, name = [f"{block}.conv{depth}", *reading[1:]], "residual"
    return found | {("output", f"{one}.weight", f"{output}.weight") for one in giving}


def unet_edges() -> set[Edge]:
    """As the papers' appendix has it."""
    path = ("conv1", "conv2", "conv3", "conv4", "tconv4", "tconv3", "tconv2", "tconv1")
    time = "1-conv2 1-tconv1 2-conv3 2-tconv2 3-conv4 3-tconv3 4-tconv4 5-tconv3 6-tconv2 7-tconv1"
    found = chain("sequential", *path)
    found |= {edge for place in (1, 2, 3) for edge in chain("skip", f"conv{place}", f"tconv{place}")}
    for dense, reader in (pair.split("-") for pair in time.split()):
        found.add(("conditioning", f"dense{dense}.dense.weight", f"{reader}.weight"))
    return found


FEATURES = chain("sequential", "features.0", "features.3", "features.6")
DENSE = chain("sequential", "features.6", "classifier.0", "classifier.3", "classifier.5")
MODELS: dict[str, tuple[str, Callable[[], nn.Module], set[Edge]]] = {
    "vgg of open_lth": (
        "vgg",
        LotteryVGG,
        chain("sequential", "layers.0.conv", "layers.1.conv", "layers.3.conv") | chain("output", "layers.3.conv", "fc"),
    ),
    "vgg of torchvision": ("vgg", lambda: TorchVGG(dense_layers(16)), FEATURES | DENSE),
    "vgg with one output layer": (
        "vgg",
        lambda: TorchVGG(nn.Linear(16, CLASSES)),
        FEATURES | chain("output", "features.6", "classifier"),
    ),
    "vgg without norms": (
        "vgg",
        lambda: TorchVGG(dense_layers(16), norms=False),
        chain("sequential", "features.0", "features.2", "features.4", "classifier.0", "classifier.3", "classifier.5"),
    ),
    "unet": ("unet", UNet, unet_edges()),
} | {
    f"resnet of {style}, {kind}": (
        "resnet",
        lambda style=style, kind=kind: ResNet(style, kind),
        resnet_edges(style, kind),
    )
    for style in ("torchvision", "kuangliu", "open_lth")
    for kind in ("basic", "bottleneck")
}
IMAGES = {"unet": (2, 1, 28, 28)}


@pytest.mark.parametrize("name", MODELS)
def test_connections_and_their_units(name: str) -> None:
    """Every connection of the definition, one unit for every kernel position, and all dimensions meet."""
    _, make, edges = MODELS[name]
    weights = weights_of(make())
    found = scores(weights)
    assert set(found) == units_of(edges, weights)
    assert all(isinstance(score, float) and score < 0.99 for score in found.values())


@pytest.mark.parametrize("name", [name for name, (family, _, _) in MODELS.items() if family != "resnet"])
def test_connections_are_those_of_the_forward_pass(name: str) -> None:
    """Also those through the skips of the UNet; its time embedding before the dense layers has no connection."""
    _, make, edges = MODELS[name]
    fed = fed_by(make(), torch.randn(IMAGES.get(name, (2, 3, 8, 8))))
    time = {pair for pair in fed if pair[0] == "time_embed.1.weight"}
    assert len(time) in {0, 7}
    assert {edge[1:] for edge in edges} == fed - time


@pytest.mark.parametrize("name", [name for name, (family, _, _) in MODELS.items() if family == "resnet"])
def test_connections_of_residual_networks_are_the_nearest_ones_of_the_forward_pass(name: str) -> None:
    """What a block adds reaches all later blocks; the family has the first of them."""
    _, make, edges = MODELS[name]
    model = make()
    fed = fed_by(model, torch.randn(2, 3, 8, 8))
    weights = [key for key in model.state_dict() if key in weights_of(model)]
    block = {key: key.split(".conv")[0].split(".downsample")[0].split(".shortcut")[0] for key in weights}
    nearest = set()
    for giver in weights:
        readers = [key for key in weights if (giver, key) in fed]
        nearest |= {(giver, key) for key in readers if block[key] == block[readers[0]]}
    assert {edge[1:] for edge in edges} == nearest


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrapper", ["", "net.", "backbone.net."])
def test_family_alone_and_nothing_left_over(name: str, wrapper: str) -> None:
    family, make, edges = MODELS[name]
    inventory = inventory_of({wrapper + key: value for key, value in weights_of(make()).items()})
    assert family_of(inventory) == [family]
    assert inventory.unfitted == []
    assert edges_of(inventory) == {(edge[0], wrapper + edge[1], wrapper + edge[2]) for edge in edges}


def given_by(weights: Mapping[str, Array], name: str) -> Array:
    """A copy of a weight as output x input; transposed convolutions are stored the other way round."""
    weight = weights[name].swapaxes(0, 1) if "tconv" in name else weights[name]
    return weight.reshape(len(weight), -1).copy()


def plant_edge(weights: dict[str, Array], upstream: str, downstream: str, position: tuple[int, ...]) -> None:
    """Let what one layer gives be what another reads at one place of its kernel, and read nothing elsewhere."""
    giver, reader = given_by(weights, upstream), weights[downstream]
    reader[:] = 0
    at: Any = (slice(None), slice(None), *position)
    matrix = reader[at]
    plant(giver, matrix.T if "tconv" in downstream else matrix)
    weight = weights[upstream]
    if "tconv" in upstream:
        weight[:] = giver.reshape(weight.swapaxes(0, 1).shape).swapaxes(0, 1)
    else:
        weight[:] = giver.reshape(weight.shape)


def primary_of(inventory: Inventory, edge: Edge) -> list[int | None]:
    return [
        unit.index
        for connection in inventory.connections()
        for unit in connection.units
        if unit.primary
        and edge
        == (
            connection.name,
            inventory.matrices[connection.upstream].parameter,
            inventory.matrices[connection.downstream].parameter,
        )
    ]


EDGES = [
    (name, edge)
    for name in ("vgg of torchvision", "resnet of torchvision, basic", "resnet of open_lth, bottleneck", "unet")
    for edge in sorted(MODELS[name][2])
]


@pytest.mark.parametrize(("name", "edge"), EDGES, ids=str)
def test_planted_edge_is_aligned_at_its_position_only(name: str, edge: Edge) -> None:
    """Corner of the kernel: row 0, column 2 of a 3 x 3 one has index 2."""
    weights = weights_of(MODELS[name][1]())
    kernel = weights[edge[2]].shape[2:]
    position = {(3, 3): (0, 2), (1, 1): (0, 0), (): ()}[kernel]
    plant_edge(weights, edge[1], edge[2], position)
    unit = {(3, 3): ("position", 2), (1, 1): ("position", 0), (): ("whole", None)}[kernel]
    assert aligned(scores(weights)) == {(*edge, *unit)}
    assert primary_of(inventory_of(weights), edge) == [{(3, 3): 4, (1, 1): 0, (): None}[kernel]]


@pytest.mark.parametrize(
    ("kernel", "position", "index", "centre"),
    [
        ((3, 5), (0, 0), 0, 7),
        ((3, 5), (1, 2), 7, 7),
        ((3, 5), (2, 1), 11, 7),  # columns first it would be 5
        ((2, 4), (1, 2), 6, 6),
        ((5,), (3,), 3, 2),
        ((2, 3, 3), (1, 0, 2), 11, 13),
    ],
)
def test_position_is_row_times_width_plus_column(
    kernel: tuple[int, ...], position: tuple[int, ...], index: int, centre: int
) -> None:
    """And the centre is at size // 2 along every axis."""
    weights = random_weights({"features.0.weight": (12, 3, *kernel), "features.2.weight": (14, 12, *kernel)})
    plant_edge(weights, "features.0.weight", "features.2.weight", position)
    edge = ("sequential", "features.0.weight", "features.2.weight")
    assert aligned(scores(weights)) == {(*edge, "position", index)}
    assert primary_of(inventory_of(weights), edge) == [centre]


def other_convention(folder: Path, family: str, old: str, new: str) -> StructureOptions:
    """The same family with something said otherwise."""
    text = files("spectra_cli.layers").joinpath("architectures", f"{family}.toml").read_text("utf-8")
    assert old in text
    path = folder / "other.toml"
    path.write_text(text.replace(old, new), "utf-8")
    return StructureOptions(architecture=str(path))


@pytest.mark.parametrize(
    ("family", "layout", "edge"),
    [
        ("unet", "in,out", ("skip", "conv2.weight", "tconv2.weight")),
        ("unet", "in,out", ("sequential", "tconv4.weight", "tconv3.weight")),
        ("unet", "out,in", ("sequential", "conv2.weight", "conv3.weight")),
        ("vgg", "out,in", ("sequential", "features.0.weight", "features.1.weight")),
        ("resnet", "out,in", ("residual", "layer1.0.conv2.weight", "layer1.1.conv1.weight")),
    ],
)
def test_the_other_layout_loses_the_alignment(family: str, layout: str, edge: Edge, tmp_path: Path) -> None:
    """All widths are equal, so that shapes do not tell."""
    wide = (12, 12, 3, 3)
    weights = {
        "unet": lambda: weights_of(UNet((12, 12, 12, 12))),
        "vgg": lambda: random_weights({f"features.{i}.weight": wide for i in range(3)}),
        "resnet": lambda: random_weights({f"layer1.{i}.conv{j}.weight": wide for i in range(2) for j in (1, 2)}),
    }[family]()
    plant_edge(weights, edge[1], edge[2], (1, 1))
    assert aligned(scores(weights)) == {(*edge, "position", 4)}
    turned = {"in,out": "out,in", "out,in": "in,out"}[layout]
    other = other_convention(tmp_path, family, f'layout = "{layout}"', f'layout = "{turned}"')
    assert not aligned(scores(weights, structure=other))


def test_flattened_positions_do_not_meet_what_the_last_convolution_gives() -> None:
    """Said as a unit of its own; all other connections stand."""
    weights = weights_of(TorchVGG(dense_layers(16 * 4), pooled=2))
    found = scores(weights)
    wrong = ("sequential", "features.6.weight", "classifier.0.weight")
    assert {key[:3]: score for key, score in found.items() if not isinstance(score, float)} == {wrong: "shape_mismatch"}
    assert {key[:3] for key in found} == FEATURES | DENSE


def test_output_layer_after_fully_connected_ones_reads_the_last_of_them() -> None:
    """And not the last convolution, though the widths would meet."""
    shapes = {"features.0.weight": (12, 3, 3, 3), "classifier.0.weight": (12, 12), "fc.weight": (CLASSES, 12)}
    path = chain("sequential", "features.0", "classifier.0") | chain("output", "classifier.0", "fc")
    assert edges_of(inventory_of(random_weights(shapes))) == path


def test_stages_follow_each_other_by_number_and_not_by_text() -> None:
    """Block 10 comes after block 9, stage 2 after the last block of stage 1."""
    shapes = {f"layer{s}.{i}.conv{j}.weight": (12, 12, 3, 3) for s in (1, 2) for i in range(11) for j in (1, 2)}
    residual = {edge for edge in edges_of(inventory_of(random_weights(shapes))) if edge[0] == "residual"}
    order = [(s, i) for s in (1, 2) for i in range(11)]
    assert residual == {
        ("residual", f"layer{s}.{i}.conv2.weight", f"layer{t}.{k}.conv1.weight") for (s, i), (t, k) in pairwise(order)
    }


def transformers_resnet(layer_type: str, depths: list[int], *, head: bool) -> tuple[dict[str, Array], dict[str, Any]]:
    from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel

    config = ResNetConfig(embedding_size=12, hidden_sizes=[16, 24], depths=depths, layer_type=layer_type)
    return weights_of((ResNetForImageClassification if head else ResNetModel)(config)), config.to_dict()  # type: ignore[no-untyped-call]  # not annotated there


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_resnets_of_transformers(layer_type: str, head: bool) -> None:
    """Names of their own; a shortcut wherever the width changes."""
    weights, config = transformers_resnet(layer_type, [2, 1], head=head)
    for told in (config, None):
        inventory = inventory_of(weights, told)
        assert family_of(inventory) == ["resnet"]
        assert inventory.unfitted == []
    found = scores(weights)
    assert all(isinstance(score, float) for score in found.values())
    names = [key[0] for key in dict.fromkeys(key[:3] for key in found)]
    branch = 1 if layer_type == "basic" else 2
    # Blocks 0 and 2 have shortcuts: they give twice and read twice.
    assert {name: names.count(name) for name in set(names)} == {
        "sequential": 2 + 3 * branch,
        "residual": 2 * 1 + 1 * 2,
    } | ({"output": 2} if head else {})
    prefix = "resnet." * head
    last = f"{prefix}encoder.stages.0.layers.1.layer.{branch}.convolution.weight"
    shortcut = f"{prefix}encoder.stages.1.layers.0.shortcut.convolution.weight"
    plant_edge(weights, last, shortcut, (0, 0))
    assert aligned(scores(weights)) == {("residual", last, shortcut, "position", 0)}


def test_trained_cnn_fits() -> None:
    """The fixture: its output layer reads 2 x 2 positions of the last convolution, and all else meets."""
    with open_checkpoint(FIXTURES / "cnn" / "last.ckpt") as reader:
        inventory = take_inventory(reader.tensors, ordered=reader.ordered)
    assert family_of(inventory) == ["vgg"]
    assert inventory.unfitted == []
    statuses = [(connection.name, {unit.status for unit in connection.units}) for connection in inventory.connections()]
    assert statuses == [("sequential", {"ok"})] * 3 + [("output", {"shape_mismatch"})]


def test_fully_connected_networks_are_chains_without_a_family() -> None:
    """The papers' MLP has ``layers.{i}``: consecutive layers meet, and no family claims them."""
    sizes = {0: (20, 16), 2: (18, 20), 4: (CLASSES, 18)}
    weights = random_weights({f"layers.{i}.weight": shape for i, shape in sizes.items()})
    assert inventory_of(weights).families == ()
    plant(weights["layers.0.weight"], weights["layers.2.weight"])
    found = scores(weights)
    assert {key[:3] for key in found} == chain("sequential", "layers.0", "layers.2", "layers.4")
    assert aligned(found) == {("sequential", "layers.0.weight", "layers.2.weight", "whole", None)}


def test_fully_connected_features_are_not_called_convolutions() -> None:
    """A name that a family has for its convolutions does not make one of a matrix."""
    inventory = inventory_of({"features.0.weight": np.zeros((12, 9)), "features.2.weight": np.zeros((5, 12))})
    assert [spec.kind for spec in inventory.matrices] == ["linear", "linear"]
