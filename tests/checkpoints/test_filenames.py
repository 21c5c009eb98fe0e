"""What file names say: which are never models, and which of several is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spectra_cli.checkpoints.filenames import MODEL_SUFFIXES, SHARD_NAME, directory_layout, not_a_model
from spectra_cli.checkpoints.listing import list_directory, may_be_checkpoint
from spectra_cli.checkpoints.steps import is_alias_name, moment_of, natural_key, parse_count

WORDS = (
    "optim", "optimizer_state", "optimizer_", "rng_state_", "random_states", "sampler", "loader_state", "dl_state_dict",
    "zero_pp_rank_0_mp_rank_0_", "events.out.tfevents", "tokenizer", "sched", "scaler", "mp_rank_0", "step_", "epoch=",
    "checkpoint-", "model-00001-of-00002", "2024-01-13_", "10-22-05",
)  # fmt: skip
REPEATED = ("1", "1_", "_1", "-", ".", "_", "1.", "state", "_state", "s", "1_000", "00001-of-", "20240113", "e-1")
LENGTH = 250


@pytest.mark.parametrize(
    "read", [not_a_model, SHARD_NAME.fullmatch, moment_of, is_alias_name, natural_key, parse_count],
    ids=["not_a_model", "SHARD_NAME", "moment_of", "is_alias_name", "natural_key", "parse_count"],
)  # fmt: skip
def test_no_name_takes_long(read: Callable[[str], object]) -> None:
    """Names of the greatest length, which match at first and fail at the end."""
    names = [
        (word + repeated * LENGTH)[: LENGTH - len(end)] + end
        for word in (*WORDS, "")
        for repeated in (*REPEATED, *WORDS)
        for end in (".json", ".pt", "!", "")
    ]
    start = time.process_time()  # other work on the machine is not the subject
    for name in names:
        read(name)
    assert time.process_time() - start < 0.001 * len(names)  # an exponential pattern does not end at all


@pytest.mark.parametrize(
    "name",
    ["rng_state_0.pth", "random_states_0.pkl", "rng-state-1-2.pt", "optimizer.pt", "optimizer_state_7.pt", "optim.1.pt",
     "model_optimizer_states.bin", "dl_state_dict_3_1.pt", "sampler12.pt", "loader.state.2.pt"],
)  # fmt: skip
def test_numbered_states_are_no_models(name: str) -> None:
    assert not_a_model(name) is not None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["model.safetensors"], True),
        (["model.safetensors", "model_10.safetensors"], False),  # a run with its final model
        (["last.ckpt"], True),
        (["model.pt", "model.safetensors"], True),
        (["model.fp16.safetensors", "model.safetensors"], True),
        ([".metadata", "__0_0.distcp"], True),
        ([".metadata"], False),  # many a tool writes a file of this name
        (["model-00001-of-00002.safetensors"], True),  # incomplete, to be said when it is opened
        (["model-00001-of-00002.safetensors", "other-00001-of-00002.safetensors"], False),
        (["pytorch_model-00001-of-00001.bin", "model-00001-of-00001.safetensors"], True),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"], True),
        (["weights.safetensors", "tmp_model.pt", "weights.pt.tmp", ".hidden.pt"], True),  # only one is a model
        (["optimizer.pt"], False),
        (["README.md"], False),
        ([], False),
    ],
)
def test_names_alone_tell_whether_a_directory_is_one_checkpoint(
    tmp_path: Path, files: list[str], expected: bool
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert (list_directory(tmp_path).layout is not None) is expected


def test_a_file_called_metadata_without_tensors_does_not_hide_the_model() -> None:
    layout = directory_layout([".metadata", "model.safetensors"])
    assert layout is not None
    assert (layout.kind, layout.files) == ("file", ("model.safetensors",))


def test_of_one_model_in_all_formats_they_are_preferred_as_listed_and_pickles_last() -> None:
    names = [f"model{suffix}" for suffix in MODEL_SUFFIXES if suffix != ".safetensors"]
    layout = directory_layout([name.replace("model", "weights") for name in names])
    assert layout is not None
    assert layout.files == ("weights.pt",)
    assert MODEL_SUFFIXES[-1] == ".pkl"


@pytest.mark.parametrize(("name", "expected"), [("a.pt", True), ("a.pt.tmp", False), ("notes.txt", False)])
def test_names_tell_what_may_be_a_checkpoint(name: str, expected: bool) -> None:
    assert may_be_checkpoint(name, is_directory=False) is expected
