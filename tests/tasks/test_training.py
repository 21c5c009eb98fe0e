"""The loop is a plain loop, whatever is saved on the way and wherever it begins; masks, noise and what goes wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from spectra_cli.errors import InputError
from spectra_cli.tasks.base import Recipe, place_generator
from spectra_cli.tasks.losses import DivergedError, LossWatch
from spectra_cli.tasks.training import (
    Course,
    Perturbation,
    make_optimizer,
    new_model,
    perturb,
    train,
    trainable,
)
from tests.tasks.tiny_training import ADAMW, BATCH_SIZE, SGD, STEPS_PER_EPOCH, TRAINING_COUNT, NotFinite, TinyTask

SEED = 5
State = dict[str, Tensor]


class Keeper:
    """Keeps every state in memory."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}
        self.memories: dict[int, dict[str, object]] = {}
        self.told: list[tuple[int, float]] = []

    def save(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.states[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.memories[step] = copy.deepcopy(optimizer.state_dict())
        torch.rand(3)  # whoever saves may draw numbers

    def progress(self, step: int, loss: float) -> None:
        self.told.append((step, loss))


def trained(
    task: TinyTask,
    *,
    saved: Collection[int] | None = None,
    seed: int = SEED,
    masks: Mapping[str, Tensor] | None = None,
    noise: Perturbation | None = None,
) -> Keeper:
    total = task.recipe.total_steps(TRAINING_COUNT)
    model = new_model(task, seed)
    steps = range(total + 1) if saved is None else saved
    course = Course(task.recipe, TRAINING_COUNT, total, seed, steps, masks or {}, noise)
    keeper = Keeper()
    train(task, model, make_optimizer(task.recipe, model), course, keeper)
    return keeper


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plain_loop(task: TinyTask, *, fused: bool) -> list[State]:
    """The states before every step and after the last, by a loop that anyone would write."""
    recipe, states = task.recipe, []
    torch.manual_seed(SEED)
    model = task.model()
    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(model.parameters(), betas=recipe.betas, **settings)
    else:
        optimizer = torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **settings)
    total = 24 if recipe is ADAMW else 5 * STEPS_PER_EPOCH
    for step in range(total):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        if recipe is ADAMW:  # 4 steps of warm-up, then a cosine to a tenth
            falling = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 4) / 20)) / 2
            optimizer.param_groups[0]["lr"] = 0.02 * (step / 4 if step < 4 else falling)
        epoch, place = divmod(step, STEPS_PER_EPOCH)
        order = torch.randperm(TRAINING_COUNT, generator=place_generator(SEED, 1, epoch))
        indices = order[BATCH_SIZE * place : BATCH_SIZE * (place + 1)]
        batch = task.training_batch(indices, place_generator(SEED, 2, step))
        torch.manual_seed(place_generator(SEED, 3, step).initial_seed())
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
    return [*states, dict(model.state_dict())]


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_every_step_is_that_of_a_plain_loop_bit_for_bit(recipe: Recipe) -> None:
    task = TinyTask(recipe)
    expected = plain_loop(task, fused=True)
    found = trained(task).states
    assert list(found) == list(range(len(expected)))
    assert all(equal(found[step], state) for step, state in enumerate(expected))
    assert not equal(expected[4], expected[5])


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_a_fused_optimizer_does_what_the_other_does(recipe: Recipe) -> None:
    """To rounding, which a training multiplies: the first steps."""
    task = TinyTask(recipe)
    for one, other in zip(plain_loop(task, fused=True)[:6], plain_loop(task, fused=False)[:6], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_is_saved_changes_nothing() -> None:
    often, seldom = trained(TinyTask(ADAMW)), trained(TinyTask(ADAMW), saved=[0, 24])
    assert list(seldom.states) == [0, 24]
    assert equal(often.states[24], seldom.states[24])


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_going_on_from_a_state_gives_the_states_after_it(recipe: Recipe) -> None:
    task, whole = TinyTask(recipe), trained(TinyTask(recipe))
    total = max(whole.states)
    for start in (7, 10):  # within an epoch, and at the end of one
        model, keeper = new_model(task, 99), Keeper()
        model.load_state_dict(whole.states[start])
        optimizer = make_optimizer(recipe, model)
        optimizer.load_state_dict(whole.memories[start])
        course = Course(recipe, TRAINING_COUNT, total, SEED, range(total + 1))
        train(task, model, optimizer, course, keeper, start=start, resumed=True)
        assert list(keeper.states) == list(range(start + 1, total + 1))
        assert all(equal(keeper.states[step], whole.states[step]) for step in keeper.states)


def test_another_seed_is_another_training() -> None:
    one, other = trained(TinyTask(SGD), seed=1), trained(TinyTask(SGD), seed=2)
    assert not equal(one.states[0], other.states[0])


def test_full_batches_are_in_the_order_of_their_indices() -> None:
    met = []

    class Recording(TinyTask):
        def training_batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            met.append(indices.tolist())
            return super().training_batch(indices, generator)

    trained(Recording(replace(SGD, batch_size=None, epochs=3)))
    assert met == [list(range(TRAINING_COUNT))] * 3


def test_every_epoch_meets_every_example_once() -> None:
    met: list[list[int]] = []

    class Recording(TinyTask):
        def training_batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            met.append(indices.tolist())
            return super().training_batch(indices, generator)

    trained(Recording(SGD))
    epochs = [tuple(chain(*met[start : start + STEPS_PER_EPOCH])) for start in range(0, len(met), STEPS_PER_EPOCH)]
    assert all(sorted(epoch) == list(range(TRAINING_COUNT)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs) == 5
    assert [len(batch) for batch in met[:STEPS_PER_EPOCH]] == [5, 5, 5, 5, 3]


def test_generators_and_settings_of_the_program_around_are_left_as_they_were() -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    trained(TinyTask(SGD))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # a property of a module


def test_within_training_algorithms_are_deterministic() -> None:
    seen = []

    class Looking(TinyTask):
        def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            seen.append((torch.are_deterministic_algorithms_enabled(), model.training))
            return super().loss(model, batch)

    trained(Looking(SGD))
    assert set(seen) == {(True, True)}


# Masks


def some_masks(task: TinyTask) -> dict[str, Tensor]:
    state = new_model(task, SEED).state_dict()
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(state[name].shape, generator=generator) < 0.4 for name in ("0.weight", "4.weight")}


@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_masked_weights_are_zero_in_every_state_and_the_others_train(recipe: Recipe) -> None:
    task = TinyTask(recipe)
    masks = some_masks(task)
    states = trained(task, masks=masks).states
    for state in states.values():
        for name, mask in masks.items():
            assert torch.count_nonzero(state[name][~mask]) == 0
    initial = new_model(task, SEED).state_dict()
    for name, mask in masks.items():
        assert torch.equal(states[0][name][mask], initial[name][mask])
        assert (states[max(states)][name][mask] != initial[name][mask]).all()


def test_what_a_mask_removes_has_no_part_in_the_norm_of_the_gradient() -> None:
    """Training a masked model is training the model that lacks those weights."""

    class Thinned(nn.Module):
        """The first layer without its last three inputs."""

        def __init__(self, whole: nn.Module) -> None:
            super().__init__()
            self.first = nn.Linear(3, 8)
            self.rest = whole[1:]  # type: ignore[index]
            self.first.load_state_dict({"weight": whole[0].weight[:, :3], "bias": whole[0].bias})  # type: ignore[index]

        def forward(self, points: Tensor) -> Tensor:
            return self.rest(self.first(points[:, :3]))  # type: ignore[no-any-return]

    class ThinnedTask(TinyTask):
        def model(self) -> nn.Module:
            return Thinned(super().model())

    mask = torch.zeros(8, 6, dtype=torch.bool)
    mask[:, :3] = True
    recipe = replace(ADAMW, clip_norm=0.05)
    masked = trained(TinyTask(recipe), masks={"0.weight": mask}).states[24]
    thinned = trained(ThinnedTask(recipe)).states[24]
    torch.testing.assert_close(masked["0.weight"][:, :3], thinned["first.weight"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(masked["4.weight"], thinned["rest.4.weight"], rtol=1e-4, atol=1e-5)


def test_batch_norm_is_estimated_anew_for_masked_weights() -> None:
    task = TinyTask(SGD)
    masks = some_masks(task)
    state = trained(task, masks=masks).states[0]
    means = [
        (task.points["train"][part] @ state["0.weight"].mT + state["0.bias"]).mean(0)
        for part in torch.arange(TRAINING_COUNT).split(7)
    ]
    torch.testing.assert_close(state["1.running_mean"], torch.stack(means).mean(0))


# Perturbation


def test_the_noise_on_each_matrix_has_its_share_of_the_norm() -> None:
    task, noise = TinyTask(SGD), Perturbation(0.3, 7, [("0.weight", None), ("4.weight", None)])
    plain, noisy = trained(task), trained(task, noise=noise)
    assert all(equal(plain.states[step], noisy.states[step]) for step in range(7))
    before, after = plain.states[7], noisy.states[7]
    for name in ("0.weight", "4.weight"):
        change = (after[name].double() - before[name].double()).norm().item()
        assert change == pytest.approx(0.3 * before[name].double().norm().item(), rel=1e-6)
    assert equal({"6": before["6.weight"]}, {"6": after["6.weight"]})
    assert torch.equal(before["0.bias"], after["0.bias"])
    assert not equal(plain.states[8], noisy.states[8])


def test_noise_on_a_stack_is_scaled_matrix_by_matrix() -> None:
    state = {"experts": torch.stack([torch.eye(4), 100 * torch.eye(4)])}
    before = state["experts"].clone()
    perturb(state, Perturbation(0.5, 0, [("experts", 0), ("experts", 1)]), seed=1)
    changes = (state["experts"] - before).flatten(1).norm(dim=1)
    torch.testing.assert_close(changes, 0.5 * before.flatten(1).norm(dim=1))


def test_noise_leaves_a_matrix_of_zeros_and_an_eta_of_zero_alone() -> None:
    state = {"zero": torch.zeros(3, 3), "eye": torch.eye(3)}
    perturb(state, Perturbation(0.5, 0, [("zero", None)]), seed=1)
    perturb(state, Perturbation(0.0, 0, [("eye", None)]), seed=1)
    assert torch.equal(state["zero"], torch.zeros(3, 3))
    assert torch.equal(state["eye"], torch.eye(3))


def test_noise_on_a_masked_matrix_is_within_the_mask_and_has_its_share_of_the_norm() -> None:
    """Were it scaled over all entries and masked afterwards, it would have a share of sqrt(0.4) of that."""
    task, noise = TinyTask(SGD), Perturbation(0.3, 7, [("0.weight", None), ("4.weight", None)])
    masks = some_masks(task)
    before, after = (trained(task, masks=masks, noise=added).states[7] for added in (None, noise))
    for name, mask in masks.items():
        change = after[name].double() - before[name].double()
        assert change.norm().item() == pytest.approx(0.3 * before[name].double().norm().item(), rel=1e-6)
        assert torch.count_nonzero(change[~mask]) == 0
        assert torch.count_nonzero(change[mask]) == torch.count_nonzero(mask)


def test_noise_on_a_masked_stack_takes_the_mask_of_each_matrix_and_leaves_an_empty_one_alone() -> None:
    mask = torch.stack([torch.eye(4).bool(), torch.zeros(4, 4).bool()])
    state = {"experts": torch.stack([3 * torch.eye(4), torch.ones(4, 4)])}
    before = state["experts"].clone()
    perturb(state, Perturbation(0.5, 0, [("experts", 0), ("experts", 1)]), seed=1, masks={"experts": mask})
    change = state["experts"] - before
    assert torch.equal(change[1], torch.zeros(4, 4))
    assert torch.count_nonzero(change[0]) == torch.count_nonzero(change[0].diagonal()) == 4
    assert change[0].norm().item() == pytest.approx(0.5 * before[0].norm().item(), rel=1e-6)


def test_noise_on_a_complex_matrix_is_refused_and_changes_nothing() -> None:
    state = {"real": torch.eye(3), "wave": torch.full((3, 3), 2 + 5j)}
    with pytest.raises(InputError, match=r"'wave' is complex \(complex64\).*--perturb"):
        perturb(state, Perturbation(0.5, 0, [("real", None), ("wave", None)]), seed=1)
    assert torch.equal(state["real"], torch.eye(3))
    assert torch.equal(state["wave"], torch.full((3, 3), 2 + 5j))


def test_noise_does_not_depend_on_what_else_is_perturbed_after_it() -> None:
    one, both = ({"a": torch.eye(3), "b": torch.eye(3)} for _ in range(2))
    perturb(one, Perturbation(1.0, 0, [("a", None)]), seed=1)
    perturb(both, Perturbation(1.0, 0, [("a", None), ("b", None)]), seed=1)
    assert torch.equal(one["a"], both["a"])
    assert not torch.equal(both["a"], both["b"])


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_training_and_what_was_saved_stays() -> None:
    keeper, task = Keeper(), NotFinite(SGD, after=8)
    model = new_model(task, SEED)
    course = Course(SGD, TRAINING_COUNT, 25, SEED, [0, 5, 10, 25])
    with pytest.raises(DivergedError, match=r"loss is nan at step 8; what was saved until step 5 stays\..*--lr"):
        train(task, model, make_optimizer(SGD, model), course, keeper)
    assert list(keeper.states) == [0, 5]
    assert not torch.are_deterministic_algorithms_enabled()


def test_losses_on_a_gpu_are_looked_at_before_anything_is_saved() -> None:
    """They wait on the device, and the error still names the first step."""
    losses = LossWatch(torch.device("cuda"), SGD)
    for step, value in enumerate([1.0, 2.0, math.inf, math.nan]):
        losses.add(step, torch.tensor(value))
    assert math.isnan(losses.latest)
    with pytest.raises(DivergedError, match="inf at step 2"):
        losses.check()


def test_losses_on_a_gpu_are_looked_at_every_few_dozen_steps() -> None:
    losses, added = LossWatch(torch.device("cuda"), SGD), []

    def add_many() -> None:
        for step in range(1000):
            added.append(step)
            losses.add(step, torch.tensor(math.nan))

    with pytest.raises(DivergedError, match="nan at step 0"):
        add_many()
    assert 10 < len(added) < 100


def test_a_batch_of_one_is_told_with_the_layer_that_cannot_normalize_it() -> None:
    recipe = replace(SGD, batch_size=22)
    with pytest.raises(InputError, match=r"layer '1' \(BatchNorm1d\) cannot normalize a batch of one.*--batch-size"):
        trained(TinyTask(recipe))


def test_a_batch_of_one_with_many_positions_is_trained_on() -> None:
    class Positions(TinyTask):
        def model(self) -> nn.Module:
            return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.BatchNorm1d(1), nn.Flatten(), nn.Linear(6, 3))

    states = trained(Positions(replace(SGD, batch_size=22))).states
    assert not equal(states[1], states[2])


def test_a_task_that_cannot_be_trained_is_told_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"task x: cannot be trained: it has no recipe, training_count, .*loss"):
        trainable(object(), "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(("member", "value"), [("recipe", {"lr": 1}), ("training_count", 0), ("training_count", "1")])
def test_members_of_the_wrong_type_are_told(member: str, value: object) -> None:
    task = TinyTask(SGD)
    setattr(task, member, value)
    with pytest.raises(InputError, match=member):
        trainable(task, "x")


def test_a_model_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="no parameter"):
        make_optimizer(SGD, nn.Sequential(nn.Flatten()))


# On a GPU


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_on_a_gpu_the_same_training_gives_the_same_bits_and_follows_the_cpu(recipe: Recipe) -> None:
    def on_gpu(start: int, state: State | None, memory: dict[str, object] | None) -> Keeper:
        task = TinyTask(recipe)
        model = new_model(task, SEED)
        if state is not None:
            model.load_state_dict(state)
        model.cuda()
        optimizer, keeper = make_optimizer(recipe, model), Keeper()
        if memory is not None:
            optimizer.load_state_dict(memory)
        total = recipe.total_steps(TRAINING_COUNT)
        course = Course(recipe, TRAINING_COUNT, total, SEED, range(total + 1), some_masks(task))
        train(task, model, optimizer, course, keeper, start=start, resumed=start > 0)
        return keeper

    whole = on_gpu(0, None, None)
    again = on_gpu(7, whole.states[7], whole.memories[7])
    assert all(equal(again.states[step], whole.states[step]) for step in again.states)
    on_cpu = trained(TinyTask(recipe), masks=some_masks(TinyTask(recipe)), saved=[0, 1])
    first = {name: tensor.cpu() for name, tensor in whole.states[0].items()}
    torch.testing.assert_close(first, on_cpu.states[0], rtol=1e-5, atol=1e-6)


def test_an_interruption_is_told_with_the_step_it_came_at() -> None:
    """Reports of progress are rare, and the last one may be of long before."""

    class Interrupted(TinyTask):
        asked = 0

        def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            self.asked += 1
            if self.asked == 8:
                raise KeyboardInterrupt
            return super().loss(model, batch)

    task = Interrupted(SGD)
    model, keeper = new_model(task, SEED), Keeper()
    course = Course(task.recipe, TRAINING_COUNT, 25, SEED, [0, 5, 25])
    with pytest.raises(KeyboardInterrupt):
        train(task, model, make_optimizer(task.recipe, model), course, keeper)
    assert keeper.told[-1][0] == 7
    assert list(keeper.states) == [0, 5]
