"""Steps and epochs are read off names as a person reads them, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_cli.checkpoints.steps import (
    is_alias_directory,
    is_alias_name,
    moment_of,
    natural_key,
    nearest,
    parse_count,
)

NAMED = {
    "checkpoint-500": (500, None),
    "step_1000": (1000, None),
    "step1000": (1000, None),
    "step1000-tokens4B": (1000, None),
    "global_step1000": (1000, None),
    "iter_0000500": (500, None),
    "ckpt-10": (10, None),
    "checkpoint0099.pth": (99, None),
    "model_12.pt": (12, None),
    "model.12.pth.tar": (12, None),
    "mlp_12.pt": (12, None),
    "000100.pt": (100, None),
    "step_10k": (10_000, None),
    "step_1.5M.safetensors": (1_500_000, None),
    "step_1_000": (1000, None),
    "global_step_1_000_000.pt": (1_000_000, None),
    "checkpoint-1,500": (1500, None),
    "epoch_2_step_1_000.pt": (1000, 2),
    "step_1_12_1234": (1, None),
    "epoch=3-step=400.ckpt": (400, 3),
    "epoch=3-step=400-v1.ckpt": (400, 3),
    "checkpoint_epoch_12_step_3400": (3400, 12),
    "ep3_it500": (500, 3),
    "ep0-ba100-rank0.pt": (100, 0),
    "epoch_3.pt": (None, 3),
    "epoch=02-val_loss=0.32.ckpt": (None, 2),
    "step100-00001-of-00002.safetensors": (100, None),
    "init.pt": (0, 0),
    "model_init.pt": (0, 0),
}
UNNAMED = (
    "llama-7b",
    "gpt2-124M",
    "resnet18",
    "resnet18-5c106cde.pth",
    "vgg16_bn",
    "model-00001-of-00002.safetensors",
    "model_seed_3.pt",
    "version_0",
    "model-val_acc=0.95.ckpt",
    "model_acc_0.95.pt",
    "model_20240113.pt",
    "run_2024-01-13_10-22-05",
    "model_1e-05.pt",
    "timestep=100",
    "step_99999999999999999999",
    "step_1.5B",
    "step_2.5B.pt",
    "checkpoint-1.5B",
    "step_1.5",
    "step_1e3",
    "step-1.0e3",
    "12-30-45",
    "model_00-10-20.pt",
    "last-v1.ckpt",
    "model.safetensors",
)


@pytest.mark.parametrize(("name", "expected"), NAMED.items())
def test_steps_and_epochs_are_read_from_the_names_people_use(
    name: str, expected: tuple[int | None, int | None]
) -> None:
    moment = moment_of(name)
    assert (moment.step, moment.epoch) == expected


@pytest.mark.parametrize("name", UNNAMED)
def test_sizes_scores_dates_hashes_and_shard_numbers_are_no_steps(name: str) -> None:
    moment = moment_of(name)
    assert (moment.step, moment.epoch) == (None, None)


@given(
    word=st.sampled_from(["step", "global_step", "iter", "checkpoint", "ckpt", "model"]),
    separator=st.sampled_from(["_", "-"]),
    step=st.integers(0, 10**15),
    width=st.integers(1, 12),
    suffix=st.sampled_from(["", ".pt", ".ckpt", ".safetensors", ".pth.tar"]),
)
def test_padding_and_suffix_do_not_change_the_step(
    word: str, separator: str, step: int, width: int, suffix: str
) -> None:
    is_date_like = word == "model" and str(step).startswith(("19", "20"))
    moment = moment_of(f"{word}{separator}{step:0{width}d}{suffix}")
    assert moment.step == step or (is_date_like and moment.step is None)


@given(st.text(max_size=40))
def test_any_name_gives_steps_that_fit_the_column(name: str) -> None:
    moment = moment_of(name)
    assert all(value is None or 0 <= value < 2**63 for value in (moment.step, moment.epoch))


@pytest.mark.parametrize(
    ("name", "explicit"),
    [("step_10", True), ("1000", True), ("model_10", True), ("exp_a_10", False), ("mlp_10", False)],
)
def test_a_number_behind_a_name_of_its_own_is_not_explicit(name: str, explicit: bool) -> None:
    assert moment_of(name).explicit is explicit


@pytest.mark.parametrize("name", ["last.ckpt", "last-v1.ckpt", "model_best.pth.tar", "best-step=40.ckpt", "model.pt"])
def test_names_that_may_repeat_a_checkpoint_are_aliases(name: str) -> None:
    assert is_alias_name(name)


@pytest.mark.parametrize("name", ["ema_last.pt", "step_40.pt", "epoch=3.ckpt", "gpt2.pt"])
def test_names_of_other_weights_are_no_aliases(name: str) -> None:
    assert not is_alias_name(name)


def test_a_directory_needs_an_aliases_word_to_belong_to_the_run_around_it() -> None:
    names = ("final", "checkpoint-last", "best_model", "checkpoints", "best_run", "gpt2")
    assert [is_alias_directory(name) for name in names] == [True, True, True, False, False, False]


@given(st.lists(st.integers(0, 10**9), unique=True))
def test_natural_order_is_numeric_order(numbers: list[int]) -> None:
    names = sorted((f"run_{number}x" for number in numbers), key=natural_key)
    assert names == [f"run_{number}x" for number in sorted(numbers)]


@pytest.mark.parametrize(("text", "expected"), [("400", 400), ("10k", 10_000), ("1.5M", 1_500_000), ("007", 7)])
def test_counts_are_read_with_their_scale(text: str, expected: int) -> None:
    assert parse_count(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "1e3", "k", "10kk", "9" * 30, "9" * 400, "9" * 400 + "k", "9" * 400 + ".5M", "9" * 5000]
)
def test_what_is_no_count_is_refused(text: str) -> None:
    assert parse_count(text) is None


@given(wanted=st.integers(0, 1000), available=st.sets(st.integers(0, 1000), min_size=1))
def test_nearest_leaves_out_nothing_closer(wanted: int, available: set[int]) -> None:
    near = nearest(wanted, available, limit=3)
    rest = available - set(near)
    assert len(near) == min(3, len(available))
    assert not rest or max(abs(step - wanted) for step in near) <= min(abs(step - wanted) for step in rest)
