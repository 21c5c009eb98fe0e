"""A PATH becomes the runs a person sees in it: every checkpoint once, in the order of training."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spectra_cli.checkpoints import discovery
from spectra_cli.checkpoints.config import read_config
from spectra_cli.checkpoints.discovery import Run, discover, discover_all
from spectra_cli.checkpoints.listing import Listing, list_directory
from spectra_cli.errors import InputError, UsageError

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def never(path: Path) -> Mapping[str, Any]:
    """A peek for tests in which every name says enough."""
    raise AssertionError(f"{path} was opened")


def silent(_path: Path) -> Mapping[str, Any]:
    """A peek into files that say nothing of themselves."""
    return {}


def make(root: Path, *names: str) -> Path:
    """Files which each hold their own name, so that no two are the same."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(run: Run) -> list[str]:
    return [checkpoint.name for checkpoint in run.checkpoints]


def steps(run: Run) -> list[int | None]:
    return [checkpoint.step for checkpoint in run.checkpoints]


def reasons(run: Run) -> dict[str, str]:
    return {passed.name: passed.reason for passed in run.passed_over}


def by_name(runs: list[Run]) -> dict[str, list[str]]:
    """Checkpoints by run; fails where two runs share a name or where a name does not lead to its path."""
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        for checkpoint in run.checkpoints:
            assert (run.root / checkpoint.name).samefile(checkpoint.path)
    return {run.name: names(run) for run in runs}


# Order


def test_files_are_ordered_by_number_and_not_opened(tmp_path: Path) -> None:
    numbers = random.Random(0).sample(range(100_000), 50)  # noqa: S311 - data, not a secret
    make(tmp_path, *(f"model_{number}.pt" for number in numbers))
    (run,) = discover(tmp_path, peek=never)
    assert (run.name, run.root, steps(run)) == (".", tmp_path, sorted(numbers))


def test_a_run_of_epochs_is_ordered_by_epoch(tmp_path: Path) -> None:
    make(tmp_path, "epoch_10.pt", "epoch_9.pt", "epoch_100.pt")
    (run,) = discover(tmp_path, peek=never)
    assert [checkpoint.epoch for checkpoint in run.checkpoints] == [9, 10, 100]
    assert steps(run) == [None, None, None]


def test_a_last_checkpoint_with_a_step_stays_last_among_epochs(tmp_path: Path) -> None:
    make(tmp_path, "epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt")
    (run,) = discover(tmp_path, peek=lambda _: {"step": 5, "epoch": 2})
    assert names(run) == ["epoch=0.ckpt", "epoch=1.ckpt", "last.ckpt"]


def test_what_says_no_step_is_peeked_into_and_comes_last_if_that_does_not_help(tmp_path: Path) -> None:
    make(tmp_path, "alpha.pt", "beta.pt", "step_2.pt", "init.pt")
    (run,) = discover(tmp_path, peek=lambda path: {"step": 1} if path.name == "beta.pt" else {})
    assert list(zip(names(run), steps(run), strict=True)) == [
        ("init.pt", 0),
        ("beta.pt", 1),
        ("step_2.pt", 2),
        ("alpha.pt", None),
    ]


@pytest.mark.parametrize("nonsense", [True, -1, "400", 2**70, 1.5, None])
def test_a_file_which_tells_nonsense_of_its_step_has_none(tmp_path: Path, nonsense: object) -> None:
    (run,) = discover(make(tmp_path, "alpha.pt"), peek=lambda _: {"step": nonsense})
    assert steps(run) == [None]


# Layouts


def test_a_trainer_output_directory_is_one_run_whose_final_model_counts_once(tmp_path: Path) -> None:
    beside = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "trainer_state.json")
    for step in (1000, 500, 20):
        make(tmp_path / f"checkpoint-{step}", "model.safetensors", "config.json", *beside)
        make(tmp_path / f"checkpoint-{step}" / f"global_step{step}", "mp_rank_00_model_states.pt")
    make(tmp_path, "model.safetensors", "training_args.bin", "config.json")
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1000}')
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["checkpoint-20", "checkpoint-500", "checkpoint-1000"]
    assert reasons(run)["model.safetensors"] == "step 1000, the same as checkpoint-1000"
    assert reasons(run)["training_args.bin"] == "training arguments"
    assert {f"checkpoint-20/{name}" for name in beside} <= set(reasons(run))


@pytest.mark.parametrize("files", [("model.safetensors",), (*SHARDS, INDEX), SHARDS])
def test_a_later_final_model_is_a_checkpoint_of_the_run(tmp_path: Path, files: tuple[str, ...]) -> None:
    make(tmp_path, "checkpoint-500/model.safetensors", *files)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 750}')
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["checkpoint-500", "model.safetensors" if len(files) == 1 else "."]
    assert steps(run) == [500, 750]


def test_a_damaged_trainer_state_is_no_more_than_an_unknown_step(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-500/model.safetensors", "model.safetensors", "trainer_state.json")
    (run,) = discover(tmp_path, peek=silent)
    assert steps(run) == [500, None]


def test_lightning_versions_are_runs(tmp_path: Path) -> None:
    make(tmp_path, *(f"version_{v}/checkpoints/epoch={e}-step={40 * e}.ckpt" for v in (10, 9) for e in (11, 2)))
    make(tmp_path, "version_9/hparams.yaml", "version_9/metrics.csv")
    assert by_name(discover(tmp_path, peek=never)) == {
        f"version_{version}/checkpoints": ["epoch=2-step=80.ckpt", "epoch=11-step=440.ckpt"] for version in (9, 10)
    }
    assert [run.name.split("/")[0] for run in discover(tmp_path, peek=never)] == ["version_9", "version_10"]


@pytest.mark.parametrize(
    "layout",
    [
        ("global_step{}/mp_rank_00_model_states.pt", "global_step{}/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        ("step-{}/.metadata", "step-{}/__0_0.distcp", "step-{}/__1_0.distcp"),
        ("{}/model.pt",),
        ("iter_{:07d}/" + SHARDS[0], "iter_{:07d}/" + SHARDS[1], "iter_{:07d}/" + INDEX),
    ],
)
def test_directories_named_after_steps_are_checkpoints(tmp_path: Path, layout: tuple[str, ...]) -> None:
    make(tmp_path, *(name.format(step) for name in layout for step in (1000, 300, 20)))
    (run,) = discover(tmp_path, peek=never)
    assert steps(run) == [20, 300, 1000]
    assert all(checkpoint.path.is_dir() for checkpoint in run.checkpoints)


def test_a_model_deeper_in_the_directory_of_its_step_belongs_to_that_step(tmp_path: Path) -> None:
    make(tmp_path, *(f"iter_{step:07d}/mp_rank_00/model_optim_rng.pt" for step in (1000, 300)))
    assert steps(discover(tmp_path, peek=never)[0]) == [300, 1000]


def test_components_saved_at_every_step_are_runs_of_their_own(tmp_path: Path) -> None:
    weights = "diffusion_pytorch_model.safetensors"
    make(tmp_path, *(f"checkpoint-{step}/{part}/{weights}" for step in (10, 5) for part in ("unet", "vae")))
    make(tmp_path, f"unet/{weights}")
    assert by_name(discover(tmp_path, peek=silent)) == {
        "unet": ["checkpoint-5/unet", "checkpoint-10/unet", "unet"],
        "vae": ["checkpoint-5/vae", "checkpoint-10/vae"],
    }


def test_a_model_split_over_ranks_is_never_taken_for_several(tmp_path: Path) -> None:
    make(tmp_path, *(f"iter_10/mp_rank_0{rank}/model_optim_rng.pt" for rank in (0, 1)))
    with pytest.raises(InputError, match=r"iter_10 \(one model split over 2 ranks"):
        discover(tmp_path, peek=never)


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        (
            "multirun/{}/step_{}.pt",
            {"multirun/0": ["step_0.pt", "step_100.pt"], "multirun/1": ["step_0.pt", "step_100.pt"]},
        ),
        (
            "multirun/{}/checkpoints/step_{}.pt",
            {f"multirun/{job}/checkpoints": ["step_0.pt", "step_100.pt"] for job in (0, 1)},
        ),
        (
            "multirun/{}/checkpoint-{}/model.safetensors",
            {f"multirun/{job}": ["checkpoint-0", "checkpoint-100"] for job in (0, 1)},
        ),
    ],
)
def test_numbered_directories_in_which_the_same_steps_recur_are_runs(
    tmp_path: Path, files: str, runs: dict[str, list[str]]
) -> None:
    """Hydra's sweeps."""
    make(tmp_path, *(files.format(job, step) for job in (0, 1) for step in (0, 100)), "multirun/multirun.yaml")
    assert by_name(discover(tmp_path, peek=never)) == runs


def test_numbered_directories_in_which_the_same_epochs_recur_are_runs(tmp_path: Path) -> None:
    make(tmp_path, *(f"multirun/{job}/epoch={epoch}.ckpt" for job in (0, 1) for epoch in (0, 5)))
    files = ["epoch=0.ckpt", "epoch=5.ckpt"]
    assert by_name(discover(tmp_path, peek=never)) == {"multirun/0": files, "multirun/1": files}


def test_other_formats_beside_a_model_that_is_read_are_not_missed(tmp_path: Path) -> None:
    make(tmp_path / "gpt2", "model.safetensors", "flax_model.msgpack", "tf_model.h5")
    (run,) = discover(tmp_path, peek=silent)
    assert set(reasons(run)) == {"gpt2/flax_model.msgpack", "gpt2/tf_model.h5"}
    assert notable(run) == set()


def test_directories_named_after_a_time_are_runs(tmp_path: Path) -> None:
    """Hydra's single runs."""
    times = ("12-30-45", "13-10-20")
    make(tmp_path, *(f"outputs/2024-01-01/{at}/step_{step}.pt" for at in times for step in (0, 100)))
    expected = {f"outputs/2024-01-01/{at}": ["step_0.pt", "step_100.pt"] for at in times}
    assert by_name(discover(tmp_path, peek=never)) == expected
    assert by_name(discover(tmp_path / "outputs/2024-01-01", peek=never)) == {
        at: ["step_0.pt", "step_100.pt"] for at in times
    }


def test_steps_that_start_again_in_every_epoch_are_one_run(tmp_path: Path) -> None:
    make(tmp_path, *(f"epoch_{epoch}/step_{step}.pt" for epoch in (1, 2) for step in (0, 100)))
    (run,) = discover(tmp_path, peek=never)
    assert sorted((each.epoch, each.step) for each in run.checkpoints) == [(1, 0), (1, 100), (2, 0), (2, 100)]


def test_seeds_and_models_in_one_directory_are_runs(tmp_path: Path) -> None:
    make(tmp_path, "seed_0/step_1.pt", "seed_0/step_2.pt", "seed_1/step_1.pt", "README.md", ".hidden/step_1.pt")
    make(tmp_path, "__pycache__/step_1.pt", "gpt2/model.safetensors", "exp_7/model.pt")
    assert by_name(discover(tmp_path, peek=silent)) == {
        "exp_7": ["model.pt"],
        "gpt2": ["gpt2"],
        "seed_0": ["step_1.pt", "step_2.pt"],
        "seed_1": ["step_1.pt"],
    }


@pytest.mark.parametrize("given", [".", SHARDS[0], INDEX])
def test_shards_are_one_checkpoint_however_they_are_pointed_at(tmp_path: Path, given: str) -> None:
    directory = make(tmp_path / "gpt2", *SHARDS, INDEX, "config.json")
    assert by_name(discover(directory / given, peek=silent)) == {".": ["gpt2"]}


def test_a_checkpoint_directory_given_by_a_dot_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path / "checkpoint-500", "model.safetensors"))
    (run,) = discover(".", peek=never)
    assert (run.name, names(run), steps(run)) == (".", ["checkpoint-500"], [500])


@pytest.mark.parametrize("name", ["step_7.pt", "anything", "optimizer.pt", "weights.npz"])
def test_a_file_given_is_a_checkpoint_whatever_its_name(tmp_path: Path, name: str) -> None:
    (run,) = discover(make(tmp_path, name, "step_9.pt") / name, peek=silent)
    assert (run.name, run.root, names(run)) == (".", tmp_path, [name])


# What does not count


def test_a_model_in_a_foreign_format_beside_runs_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "a/step_1.pt", "b/model.gguf", "c/step_1.pt.tmp", "notes.txt")
    (run,) = discover(tmp_path, peek=never)
    assert set(reasons(run)) == {"../b/model.gguf", "../c/step_1.pt.tmp"}


def test_what_is_no_model_is_passed_over_with_a_reason(tmp_path: Path) -> None:
    others = (
        "optimizer.pt",
        "rng_state_0.pth",
        "metrics.csv",
        "model.gguf",
        "step_2.pt.tmp",
        ".step_3.pt",
        "step_4.pt~",
    )
    make(tmp_path, "step_1.pt", *others, "tmp-checkpoint-5/model.safetensors", "step_6.pt.incomplete")
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["step_1.pt"]
    assert reasons(run) == {
        "optimizer.pt": "optimizer state",
        "rng_state_0.pth": "random-number state",
        "metrics.csv": "not a checkpoint by its name",
        "model.gguf": "a format that is not read (.gguf)",
        ".step_3.pt": "hidden",
        "step_2.pt.tmp": "half-written or temporary by its name",
        "step_4.pt~": "half-written or temporary by its name",
        "step_6.pt.incomplete": "half-written or temporary by its name",
        "tmp-checkpoint-5": "half-written or temporary by its name",
    }


def test_links_to_a_checkpoint_count_once_and_keep_the_name_with_the_step(tmp_path: Path) -> None:
    make(tmp_path, "step_10.pt", "step_20.pt", "newest.pt", "checkpoint-30/model.safetensors")
    (tmp_path / "a.pt").symlink_to("step_10.pt")
    (tmp_path / "b.pt").hardlink_to(tmp_path / "step_20.pt")
    (tmp_path / "step_40.pt").symlink_to("newest.pt")
    (tmp_path / "latest").symlink_to("checkpoint-30", target_is_directory=True)
    (tmp_path / "gone.pt").symlink_to("step_99.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["step_10.pt", "step_20.pt", "checkpoint-30", "step_40.pt"]
    assert reasons(run) == {
        "a.pt": "a link to step_10.pt",
        "b.pt": "the same file as step_20.pt",
        "newest.pt": "the same file as step_40.pt",
        "latest": "a link to checkpoint-30",
        "gone.pt": "a link to step_99.pt, which does not exist",
        "loop.pt": "a link to loop.pt, which does not exist",
    }


def test_links_to_files_elsewhere_are_checkpoints(tmp_path: Path) -> None:
    blobs = make(tmp_path / "blobs", "one.pt", "two.pt")
    run_path = tmp_path / "run"
    run_path.mkdir()
    (run_path / "step_1.pt").symlink_to(blobs / "one.pt")
    (run_path / "step_2.pt").symlink_to(blobs / "two.pt")
    assert by_name(discover(run_path, peek=never)) == {".": ["step_1.pt", "step_2.pt"]}


def test_linked_directories_are_visited_once_and_cycles_end(tmp_path: Path) -> None:
    make(tmp_path, "z/step_1.pt", "z/deeper/step_1.pt")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)
    (tmp_path / "z" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert by_name(discover(tmp_path, peek=never)) == {"z": ["step_1.pt"], "z/deeper": ["step_1.pt"]}


def test_a_copy_is_passed_over_by_the_step_it_tells(tmp_path: Path) -> None:
    make(tmp_path, "epoch=0-step=40.ckpt", "epoch=1-step=80.ckpt", "last.ckpt", "best-epoch=0-step=40.ckpt")
    (run,) = discover(tmp_path, peek=lambda _: {"step": 80, "epoch": 1})
    assert names(run) == ["epoch=0-step=40.ckpt", "epoch=1-step=80.ckpt"]
    assert reasons(run) == {
        "last.ckpt": "step 80, the same as epoch=1-step=80.ckpt",
        "best-epoch=0-step=40.ckpt": "step 40, the same as epoch=0-step=40.ckpt",
    }


def test_a_last_checkpoint_later_than_the_others_is_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "epoch=0-step=40.ckpt", "epoch=1-step=80.ckpt", "last.ckpt")
    (run,) = discover(tmp_path, peek=lambda _: {"step": 100, "epoch": 2})
    assert steps(run) == [40, 80, 100]


def test_weights_averaged_at_the_same_step_are_not_the_same(tmp_path: Path) -> None:
    (run,) = discover(make(tmp_path, "step_40.pt", "ema_last.pt"), peek=lambda _: {"step": 40})
    assert sorted(names(run)) == ["ema_last.pt", "step_40.pt"]


@pytest.mark.parametrize("differs_at", [None, 0, 300_000, 799_999])
def test_a_copy_which_tells_nothing_is_passed_over_only_if_every_byte_agrees(
    tmp_path: Path, differs_at: int | None
) -> None:
    content = bytearray(random.Random(1).randbytes(800_000))  # noqa: S311 - data, not a secret
    (tmp_path / "step_1.pt").write_bytes(bytes(800_000))
    (tmp_path / "step_2.pt").write_bytes(content)
    if differs_at is not None:
        content[differs_at] ^= 1
    (tmp_path / "final.pt").write_bytes(content)
    (run,) = discover(tmp_path, peek=silent)
    copied = differs_at is None
    assert names(run) == ["step_1.pt", "step_2.pt", *([] if copied else ["final.pt"])]
    assert reasons(run) == ({"final.pt": "the same bytes as step_2.pt"} if copied else {})


def test_a_directory_which_copies_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        make(tmp_path / f"checkpoint-{step}", *SHARDS, INDEX)
        (tmp_path / f"checkpoint-{step}" / SHARDS[1]).write_bytes(bytes([step]))
    shutil.copytree(tmp_path / "checkpoint-2", tmp_path / "final")
    (run,) = discover(tmp_path, peek=silent)
    assert names(run) == ["checkpoint-1", "checkpoint-2"]
    assert reasons(run) == {"final": "the same bytes as checkpoint-2"}


def test_of_two_formats_safetensors_are_read(tmp_path: Path) -> None:
    make(tmp_path, "step_1.pt", "step_1.safetensors", "step_2.pt")
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["step_1.safetensors", "step_2.pt"]
    assert reasons(run) == {"step_1.pt": "step_1.safetensors in another format"}


def test_a_pickle_does_not_hide_the_checkpoint_of_its_name(tmp_path: Path) -> None:
    (run,) = discover(make(tmp_path, "step_1.pkl", "step_1.pt", "step_1.pickle"), peek=never)
    assert names(run) == ["step_1.pt"]


# What its owner would miss


def notable(run: Run) -> set[str]:
    return {passed.name for passed in run.passed_over if passed.notable}


@pytest.mark.parametrize("left", ["__0_0.distcp", ".metadata", "optimizer.pt", "model.pt.tmp", "config.json", None])
def test_a_directory_of_a_step_without_a_model_is_a_checkpoint_beside_others(tmp_path: Path, left: str | None) -> None:
    make(tmp_path, "checkpoint-1/model.safetensors", "checkpoint-3/model.safetensors")
    (tmp_path / "checkpoint-2").mkdir()
    if left is not None:
        make(tmp_path, f"checkpoint-2/{left}")
    (run,) = discover(tmp_path, peek=never)
    assert list(zip(names(run), steps(run), strict=True)) == [(f"checkpoint-{step}", step) for step in (1, 2, 3)]


def test_a_directory_called_otherwise_is_no_checkpoint_without_a_model(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-1/model.safetensors", "step_1/sample.png", "step_2.pt", "epoch_1/optimizer.pt")
    (tmp_path / "2024").mkdir()
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["checkpoint-1", "step_2.pt"]
    assert {"step_1", "2024", "epoch_1"} <= set(reasons(run))
    assert notable(run) == {"2024", "epoch_1"}  # what they hold may be left of a checkpoint


def test_a_directory_of_a_step_that_cannot_be_listed_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "checkpoint-1/model.safetensors", "checkpoint-2/model.safetensors")
    scandir = os.scandir

    def guarded(path: Path) -> Any:  # a superuser could read it whatever its mode
        if Path(path).name == "checkpoint-2":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["checkpoint-1", "checkpoint-2"]


def test_a_link_whose_target_is_deleted_meanwhile_stays_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = make(tmp_path / "blobs", "one.pt", "two.pt")
    run_path = tmp_path / "run"
    run_path.mkdir()
    for step, blob in enumerate(("one.pt", "two.pt")):
        (run_path / f"step_{step}.pt").symlink_to(blobs / blob)

    def and_delete(path: Path) -> Listing:
        listing = list_directory(path)
        (blobs / "two.pt").unlink()
        return listing

    monkeypatch.setattr(discovery, "list_directory", and_delete)
    (run,) = discover(run_path, peek=never)
    assert names(run) == ["step_0.pt", "step_1.pt"]


def test_several_sets_of_shards_in_one_directory_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    shards = [f"step_{step}-0000{part}-of-00002.safetensors" for step in (100, 200) for part in (1, 2)]
    make(tmp_path, "a/step_1.pt", *(f"b/{shard}" for shard in shards))
    (run,) = discover(tmp_path, peek=never)
    assert notable(run) == {f"../b/{shard}" for shard in shards}
    with pytest.raises(InputError, match="several sets of shards"):
        discover(tmp_path / "b", peek=never)


def test_what_lies_too_deep_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "a/step_1.pt", "/".join("bcdefghijk") + "/step_1.pt")
    (run,) = discover(tmp_path, peek=never)
    assert names(run) == ["step_1.pt"]
    assert notable(run) == {"../" + "/".join("bcdefghij")}
    assert "not looked into" in str(reasons(run).values())


def test_a_pipe_in_place_of_a_small_file_is_not_waited_for(tmp_path: Path) -> None:
    """A hint that cannot be read is none; nothing hangs."""
    make(tmp_path, "checkpoint-500/model.safetensors", "model.safetensors")
    os.mkfifo(tmp_path / "trainer_state.json")
    os.mkfifo(tmp_path / "config.json")
    (run,) = discover(tmp_path, peek=silent)
    assert steps(run) == [500, None]
    assert read_config(tmp_path / "model.safetensors", tmp_path) == {}


def test_a_pipe_in_a_directory_is_not_compared(tmp_path: Path) -> None:
    make(tmp_path, "checkpoint-500/model.safetensors", "final/model.safetensors")
    for directory in ("checkpoint-500", "final"):
        os.mkfifo(tmp_path / directory / "extra.pt")
    (run,) = discover(tmp_path, peek=silent)
    assert steps(run) == [500, None]


def test_the_step_of_a_long_trainer_state_is_found(tmp_path: Path) -> None:
    """The log of a long run is larger than what is parsed with care, and comes after the step."""
    make(tmp_path, "checkpoint-500/model.safetensors", "model.safetensors")
    log = [{"epoch": 1.0, "loss": 0.5, "step": step} for step in range(20_000)]
    state = json.dumps({"best_global_step": 3, "global_step": 750, "log_history": log}, indent=2, sort_keys=True)
    (tmp_path / "trainer_state.json").write_text(state)
    (run,) = discover(tmp_path, peek=never)
    assert steps(run) == [500, 750]


def test_a_real_checkpoint_tells_its_own_step(tmp_path: Path) -> None:
    """Without a peek of the caller, the file is opened by spectra's own readers."""
    import torch

    for step in (40, 80):
        torch.save({"state_dict": {"w": torch.full((2, 2), step)}, "global_step": step}, tmp_path / f"step_{step}.ckpt")
    torch.save({"state_dict": {"w": torch.zeros(2, 2)}, "global_step": 80, "epoch": 1}, tmp_path / "last.ckpt")
    torch.save({"state_dict": {"w": torch.zeros(2, 2)}, "global_step": 95, "epoch": 1}, tmp_path / "alpha.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    (run,) = discover(tmp_path)
    assert list(zip(names(run), steps(run), strict=True)) == [
        ("step_40.ckpt", 40),
        ("step_80.ckpt", 80),
        ("alpha.ckpt", 95),
        ("broken.ckpt", None),
    ]
    assert reasons(run) == {"last.ckpt": "step 80, the same as step_80.ckpt"}


# PATH@STEP, patterns and several PATHs


@pytest.mark.parametrize(("at", "expected"), [("first", 5), ("final", 2000), ("40", 40), ("2k", 2000)])
def test_at_picks_one_step(tmp_path: Path, at: str, expected: int) -> None:
    make(tmp_path, "a/step_5.pt", "a/step_40.pt", "a/step_2000.pt")
    (run,) = discover(f"{tmp_path}/a@{at}", peek=never)
    assert steps(run) == [expected]


def test_a_path_that_exists_as_written_wins_over_at(tmp_path: Path) -> None:
    make(tmp_path, "a/step_5.pt", "a@5/step_7.pt")
    assert steps(discover(tmp_path / "a@5", peek=never)[0]) == [7]


def test_a_run_without_the_step_stays_empty_beside_one_which_has_it(tmp_path: Path) -> None:
    make(tmp_path, "a/step_5.pt", "b/step_7.pt")
    assert by_name(discover(f"{tmp_path}@7", peek=never)) == {"a": [], "b": ["step_7.pt"]}


def test_a_step_that_no_run_has_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    make(tmp_path, "step_5.pt", "step_7.pt")
    with pytest.raises(InputError, match=r"@6: no checkpoint has step 6\. .* 5, 7"):
        discover(f"{tmp_path}@6", peek=never)


@pytest.mark.parametrize("step", ["9" * 400, "9" * 400 + "k"])
def test_a_step_beyond_all_numbers_is_a_usage_error(tmp_path: Path, step: str) -> None:
    make(tmp_path, "step_5.pt")
    with pytest.raises(UsageError, match="is not a step"):
        discover(f"{tmp_path}@{step}", peek=never)


def test_what_follows_at_must_be_a_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'@latest' is not a step"):
        discover(f"{make(tmp_path, 'step_5.pt')}@latest", peek=never)


def test_several_paths_name_runs_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "x/a/step_1.pt", "x/b/step_1.pt", "y/step_1.pt", "z/a/step_1.pt")
    monkeypatch.chdir(tmp_path)
    runs = by_name(discover_all(["x", "./y/", "z/a", str(tmp_path / "x" / "a")], peek=never))
    assert runs == {name: ["step_1.pt"] for name in ("x/a", "x/b", "y", "z/a")}
    assert by_name(discover_all(["x/a"], peek=never)) == {".": ["step_1.pt"]}


def test_checkpoints_picked_from_one_run_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"a/step_{step}.pt" for step in (1, 20, 3)), "b/checkpoint-5/model.safetensors", "c/model.pt")
    make(tmp_path, "b/checkpoint-40/model.safetensors", "gpt2/model.safetensors", "bert/model.safetensors")
    monkeypatch.chdir(tmp_path)
    picked = [
        "a/step_20.pt",
        "a/step_3.pt",
        "a@first",
        "b/checkpoint-40",
        "b/checkpoint-5",
        "gpt2",
        "bert",
        "c/model.pt",
    ]
    assert by_name(discover_all(picked, peek=silent)) == {
        "a": ["step_1.pt", "step_3.pt", "step_20.pt"],
        "b": ["checkpoint-5", "checkpoint-40"],
        "bert": ["bert"],
        "c": ["model.pt"],
        "gpt2": ["gpt2"],
    }


def test_a_pattern_the_shell_left_alone_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "runs/a/step_1.pt", "runs/a/step_2.pt", "runs/b/step_2.pt", "runs/plots/x.png", "runs/README.md")
    monkeypatch.chdir(tmp_path)
    everything = {"runs/a": ["step_1.pt", "step_2.pt"], "runs/b": ["step_2.pt"]}
    runs = discover("runs/*", peek=never)
    assert by_name(runs) == everything
    assert reasons(runs[0])["../plots"].startswith("no checkpoint here")
    assert by_name(discover("runs/a/*.pt", peek=never)) == {"runs/a": everything["runs/a"]}
    assert by_name(discover("runs/*@final", peek=never)) == {"runs/a": ["step_2.pt"], "runs/b": ["step_2.pt"]}
    assert by_name(discover_all(["runs/?", "runs/a"], peek=never)) == everything


# Errors


def test_a_missing_path_names_similar_ones(tmp_path: Path) -> None:
    make(tmp_path, "seed_1/step_1.pt")
    with pytest.raises(InputError, match=r"seed_2: does not exist\. Similar names: .*seed_1\."):
        discover(tmp_path / "seed_2", peek=never)
    with pytest.raises(InputError, match=r"holds no 'other'\. .* holds seed_1\."):
        discover(tmp_path / "other" / "seed_1", peek=never)


def test_a_directory_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "runs/x/step_1.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        discover("runs/nothing", peek=never)
    assert str(caught.value) == "runs/nothing: does not exist. The directory runs holds x."
    with pytest.raises(InputError, match=r"nothing: does not exist\. The working directory holds runs\."):
        discover("nothing", peek=never)


def test_a_dead_link_says_where_it_led(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("moved")
    with pytest.raises(InputError, match="a link to moved, which does not exist"):
        discover(tmp_path / "run", peek=never)


def test_a_directory_without_checkpoints_says_what_it_holds_and_what_is_looked_for(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.txt", "model.gguf", "step_1.pt.part")
    with pytest.raises(InputError) as caught:
        discover(tmp_path, peek=never)
    message = str(caught.value)
    for part in ("a.txt, b.txt, model.gguf", "step_1.pt.part (half-written", ".safetensors"):
        assert part in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the directory is empty"):
        discover(tmp_path / "empty", peek=never)


def test_a_pattern_without_matches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing matches"):
        discover(tmp_path / "run*", peek=never)


def test_no_path_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no PATH"):
        discover_all([])


def test_an_unreadable_directory_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/step_1.pt", "b/step_1.pt")
    scandir = os.scandir

    def guarded(path: Path) -> Any:  # a superuser could read it whatever its mode
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    (run,) = discover(tmp_path, peek=never)
    assert (run.name, reasons(run)) == ("a", {"../b": "cannot be listed: Permission denied"})
    with pytest.raises(InputError, match="permission denied"):
        discover(tmp_path / "b", peek=never)


# Speed


def test_ten_thousand_checkpoints_are_found_in_seconds(tmp_path: Path) -> None:
    for step in range(10_000):
        (tmp_path / f"step_{step}.pt").touch()
    start = time.process_time()
    (run,) = discover(tmp_path, peek=never)
    elapsed_s = time.process_time() - start
    assert steps(run) == list(range(10_000))
    assert elapsed_s < 5  # about half a second on an idle machine
