"""`spectra train` as a command: what it prints, its exit statuses, signals, and one task of the papers to the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from spectra_cli.cli.interruption import Terminated
from spectra_cli.cli.main import run
from spectra_cli.cli.trainshow import TrainingProgress, _spread, interrupted, readable_bytes
from spectra_cli.errors import UsageError
from spectra_cli.execution.training.options import MaskChoice, Noise, TrainOptions, parse_mask, parse_noise
from spectra_cli.execution.training.saver import Beginning
from spectra_cli.tasks.states import StateFiles
from tests.cli.trajectories import PATIENCE_S, until
from tests.tasks import tiny_training

Fixture = Callable[..., Any]
ROOT = Path(__file__).parents[2]
TINY = f"{tiny_training.__file__}:make"
NOT_FINITE = f"{tiny_training.__file__}:make_not_finite"


def test_a_run_is_told_in_80_columns(spectra: Fixture) -> None:
    Path("tiny.py").write_text("from tests.tasks.tiny_training import make")
    outcome = spectra("train", "tiny.py", "--out", "runs/a", "--save-every", "5")
    assert (outcome.status, outcome.out) == (0, "")
    assert outcome.widest <= 80
    lines = outcome.err.splitlines()
    assert lines[0] == "Training from step 0 to 25: 171 parameters, 10 checkpoints of 756 B"
    assert "seed 0" in outcome.err
    assert [line.split()[0] for line in lines if line.lstrip()[:1].isdigit()] == [
        *("0", "5", "10", "15", "20", "25"),
        "6",
    ]
    assert "6 of 10 checkpoints; all are in metrics.parquet" in lines
    assert any(line.startswith("runs/a: 10 checkpoints to step 25 in ") for line in lines)
    assert lines[-2:] == ["Next: spectra rank runs/a", "      spectra prune-eval runs/a --task tiny.py"]
    suggested = lines[-1].split()[1:]
    assert spectra(*suggested, "--keep", "0.5", "--quiet").status == 0


def test_the_metrics_of_validation_are_shown_first(spectra: Fixture) -> None:
    Path("wide.py").write_text(
        "from tests.tasks.tiny_training import SGD, TinyTask\n"
        "class Wide(TinyTask):\n"
        "    def __init__(self): super().__init__(SGD)\n"
        "    def metrics(self, model, batch):\n"
        "        found = super().metrics(model, batch)\n"
        "        return {'loss': found['loss'], 'perplexity': found['loss'], 'error': found['error']}\n"
    )
    outcome = spectra("train", "wide.py:Wide", "--out", "a", "--steps", "4")
    splits, names = (line.split() for line in outcome.err.splitlines()[2:4])
    assert list(zip(splits, names[2:], strict=True)) == [
        ("train", "loss"),
        ("val", "loss"),
        ("val", "perplexity"),
        ("train", "error"),
        ("val", "error"),
    ]
    assert "5 of 6 metrics; all are in metrics.parquet" in outcome.err


def test_rows_are_spread_evenly_over_the_steps() -> None:
    saved = [0, 2, 4, 6, 8, *range(10, 101, 10)]
    assert _spread(saved, saved, 6) == [0, 20, 40, 60, 80, 100]
    assert _spread([0, 1, 3, 10, 30, 100], range(6), 6) == [0, 1, 3, 10, 30, 100]
    assert _spread([0, 1, 3, 10, 30, 100, 300], range(7), 4) == [0, 3, 30, 300]
    assert _spread([0, 1, 2, 3, 1000], [0, 1, 2, 3, 1000], 4) == [0, 3, 1000]  # no step comes twice
    assert _spread([3], [3], 6) == [3]


def test_the_checkpoints_can_be_analysed(spectra: Fixture, table: Fixture) -> None:
    assert spectra("train", TINY, "--out", "a", "--steps", "4", "--quiet").status == 0
    assert spectra("rank", "a", "--quiet").status == 0
    assert {row["step"] for row in table()} == {0, 1, 2, 3, 4}
    assert {row["parameter"] for row in table()} == {"0.weight", "4.weight", "6.weight"}


def test_quiet_prints_nothing_and_json_prints_a_summary(spectra: Fixture) -> None:
    outcome = spectra("train", TINY, "--out", "a", "--steps", "4", "--quiet", "--json", "--seed", "3")
    assert (outcome.status, outcome.err) == (0, "")
    summary = json.loads(outcome.out)
    rows = pq.read_table("a/metrics.parquet").to_pylist()
    last = {(row["split"], row["metric"]): row["value"] for row in rows if row["step"] == 4}
    metrics = summary.pop("metrics")
    assert {(split, metric): metrics[split][metric] for split, metric in last} == last
    assert summary == {
        "out": "a",
        "task": TINY,
        "seed": 3,
        "steps": 4,
        "started_at": 0,
        "checkpoints": [0, 1, 2, 3, 4],
        "problems": [],
    }


def test_the_same_command_again_says_that_nothing_is_left(spectra: Fixture) -> None:
    arguments = ("train", TINY, "--out", "a", "--steps", "4")
    spectra(*arguments)
    again = spectra(*arguments, "--json")
    assert again.status == 0
    assert json.loads(again.out)["started_at"] is None
    assert "a: finished before, nothing to do; 5 checkpoints to step 4" in again.err
    longer = spectra("train", TINY, "--out", "a", "--steps", "6")
    assert longer.err.startswith("Going on from step 4 to 6: 171 parameters, 2 checkpoints")


def test_a_metric_that_is_not_finite_is_a_warning_and_null(spectra: Fixture) -> None:
    outcome = spectra("train", NOT_FINITE, "--out", "a", "--steps", "4", "--json")
    assert outcome.status == 0
    assert outcome.err.count("Warning: ") == 2
    assert "Warning: step 0: train broken is nan (not_finite)." in outcome.err
    summary = json.loads(outcome.out)
    assert summary["metrics"]["val"]["broken"] is None
    assert len(summary["problems"]) == 2


def test_a_loss_that_is_nan_is_one_message_with_a_remedy(spectra: Fixture) -> None:
    outcome = spectra("train", NOT_FINITE, "--out", "a", "--save-every", "5", "--quiet")
    assert outcome.status == 1
    (line,) = [line for line in outcome.err.splitlines() if not line.startswith("Warning")]
    assert line.startswith("Error: ")
    assert "loss is nan at step 8; what was saved until step 5 stays. Try a smaller --lr than 0.05" in line


USAGE: list[tuple[list[str], str]] = [
    (["--steps", "3", "--epochs", "1"], "--steps and --epochs exclude each other"),
    (["--save-every", "3", "--log-saves", "5"], "--save-every and --log-saves exclude each other"),
    (["--steps", "0"], "--steps 0 is below 1"),
    (["--lr", "-1"], "--lr -1 is below 0"),
    (["--lr", "nan"], "--lr nan is not a number"),
    (["--log-saves", "1"], "--log-saves 1 is below 2"),
    (["--seed", "-1"], "--seed -1 is no seed"),
    (["--perturb", "0.1"], "--perturb 0.1 is not ETA@STEP"),
    (
        ["--mask", "magnitude:0.05"],
        "--mask magnitude:0.05 without --mask-from. Give --mask-from RUN@final, whose weights",
    ),
    (["--mask", "random:0.05"], "it keeps as many weights as magnitude:0.05 would"),
    (["--mask-from", "x"], "--mask-from without --mask"),
    (["--mask", "largest:0.05", "--mask-from", "x"], "neither magnitude:KEEP nor random:KEEP"),
    (["--mask", "random:1.5", "--mask-from", "x"], "neither magnitude:KEEP nor random:KEEP"),
    (["--mask", "magnitude:0.5", "--mask-from", "x", "--mask-seed", "1"], "nothing random"),
    (["--rewind", "x@3"], "--rewind without --mask"),
    (["--mask", "random:0.5", "--mask-from", "x", "--branch-from", "x@3"], "--mask and --branch-from exclude"),
    (["--set", "width"], "--set width is not KEY=VALUE"),
    (["--set", "data=x", "--data", "y"], "--data and --set data exclude each other"),
    (["--set", "widht=9"], "no option 'widht'. Did you mean width"),
    (["--data", "x"], "no option 'data'"),
    (["--output-layer", "nothing.*", "--perturb", "0.1@0"], "--output-layer nothing.* matches no matrix"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(arguments) for arguments, _ in USAGE])
def test_usage_errors_are_2_and_one_paragraph(arguments: list[str], message: str, spectra: Fixture) -> None:
    outcome = spectra("train", TINY, "--out", "a", *arguments)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("Error: ")
    assert message in line


@pytest.mark.parametrize(
    ("task", "status", "message"),
    [
        ("modular-adition", 2, "there is no task 'modular-adition'. Did you mean modular-addition"),
        ("absent.py:make", 2, "no such file"),
        (f"{tiny_training.__file__}:OnlyEvaluated", 1, "cannot be trained: it has no recipe"),
    ],
)
def test_a_task_that_is_none_or_cannot_be_trained(task: str, status: int, message: str, spectra: Fixture) -> None:
    outcome = spectra("train", task, "--out", "a")
    assert outcome.status == status
    assert message in outcome.err
    assert not Path("a").exists()


def test_a_missing_out_is_a_usage_error(spectra: Fixture) -> None:
    outcome = spectra("train", TINY)
    assert outcome.status == 2
    assert "--out" in outcome.err


def test_noise_is_read_from_its_text() -> None:
    assert parse_noise("0.1@400") == Noise(0.1, 400)
    assert parse_noise("1e-3@0") == Noise(1e-3, 0)
    for text in ("0.1@", "@4", "0.1@-4", "x@4", "0.1@4.5", "inf@4", "-1@4"):
        with pytest.raises(UsageError, match="--perturb"):
            parse_noise(text)


def test_a_mask_is_read_from_its_text() -> None:
    assert parse_mask("magnitude:0.05", "runs/a@final", None) == MaskChoice("magnitude", 0.05, "runs/a@final", 0)
    assert parse_mask("random:1", "runs/a", 7) == MaskChoice("random", 1.0, "runs/a", 7)
    assert parse_mask(None, None, None) is None


def test_every_option_reaches_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is forgotten between the command line and the plan would be ignored without a word."""
    seen: list[TrainOptions] = []

    def look(chosen: TrainOptions) -> None:
        seen.append(chosen)
        raise UsageError("enough")

    monkeypatch.setattr("spectra_cli.execution.training.plan.plan_training", look)
    line = "train T --out O --seed 1 --steps 2 --lr 3 --weight-decay 4 --batch-size 5 --save-every 6 --save-optimizer "
    line += "--set a=b --data D --perturb 7@8 --mask random:0.5 --mask-from M --mask-seed 9 --rewind R@1 "
    assert run([*line.split(), "--output-layer", "L", "--device", "cpu", "--threads", "10"]) == 2
    assert run(["train", "T", "--out", "O", "--epochs", "2", "--log-saves", "6", "--branch-from", "B@1"]) == 2
    assert seen == [
        TrainOptions(
            "T",
            Path("O"),
            {"a": "b", "data": "D"},
            seed=1,
            steps=2,
            lr=3.0,
            weight_decay=4.0,
            batch_size=5,
            save_every=6,
            save_optimizer=True,
            perturb=Noise(7.0, 8),
            mask=MaskChoice("random", 0.5, "M", 9),
            rewind="R@1",
            output_layer="L",
            device="cpu",
            threads=10,
        ),
        TrainOptions("T", Path("O"), epochs=2, log_saves=6, branch_from="B@1"),
    ]


# Progress


def test_where_there_is_no_terminal_a_line_comes_every_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = TrainingProgress(100, quiet=False)
    progress.began(Beginning(10, 100, True, 5, 3, 1000))
    for step in range(11, 41):
        clock[0] += 5.0
        progress.progress(step, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Going on from step 10 to 100: 5 parameters, 3 checkpoints of 1.0 kB"
    assert [line.partition(" ")[2] for line in lines[1:]] == [
        "step 22/100, loss 0.5; 22% done, about 0:06:30 left",
        "step 34/100, loss 0.5; 34% done, about 0:05:30 left",
    ]


def test_sizes_are_readable() -> None:
    assert [readable_bytes(count) for count in (0, 999, 1000, 1_250_000, 7 * 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "7000.0 TB",
    ]


# Signals, and a task of the papers


def started(*arguments: str, site: str = "") -> subprocess.Popen[str]:
    """`spectra train` in a process of its own, in which Python does something else first."""
    (directory := Path("site").absolute()).mkdir()
    (directory / "sitecustomize.py").write_text(site)
    return subprocess.Popen(
        [sys.executable, "-m", "spectra_cli", "train", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])},
    )


KILLED = """
import os, signal
from spectra_cli.tasks.states import StateFiles

save_optimizer = StateFiles.save_optimizer

def saving(files, step, model, optimizer):
    if step == 100:
        os.kill(os.getpid(), signal.SIGKILL)
    save_optimizer(files, step, model, optimizer)

StateFiles.save_optimizer = saving
"""
"""Has a training die when weights are saved, and what it takes to go on from them is not."""


SAVED = """
from pathlib import Path
from spectra_cli.execution.training.saver import Saver

save = Saver.save

def saving(saver, step, model, optimizer):
    save(saver, step, model, optimizer)
    Path(f"saved_{step}").touch()

Saver.save = saving
"""
"""Has a training tell that a step is saved for good, with what the optimizer remembers."""


@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_is_told_with_the_way_to_go_on(sent: signal.Signals, status: int, word: str) -> None:
    """Ctrl-C, and what SLURM sends at the end of the time."""
    arguments = (TINY, "--out", "a", "--steps", "5000000", "--save-every", "50000")  # more than it can ever make
    with started(*arguments, site=SAVED) as process:
        try:
            until(lambda: Path("saved_5").exists() or process.poll() is not None)
            process.send_signal(sent)
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == status
    assert "Traceback" not in said
    steps = StateFiles(Path("a")).steps()
    error = said.splitlines()[-1]
    assert error.startswith(f"Error: a: {word} at step ")
    assert error.endswith("stay. Run the same command again to go on from there.")
    saved = next(step for step in steps[-2:] if f"the checkpoints until step {step} stay" in error)
    assert int(error.partition(" at step ")[2].partition(";")[0]) >= saved
    assert not list(Path("a").glob(".*.partial"))


@pytest.mark.parametrize(
    ("on_disk", "at", "saved", "said"),
    [
        ([], None, None, "interrupted before a checkpoint was saved. Run the same command again."),
        (
            [0],
            0,
            None,
            "at step 0; only the weights of step 0 are saved, without their metrics. Run .*, which begins anew",
        ),
        ([0], 7, 0, "interrupted at step 7; only the checkpoint at step 0 is saved. Run .* to go on from there"),
        ([0, 1], 1, 0, "interrupted at step 1; only the checkpoint at step 0 is saved. Run .* to go on from there"),
        ([0, 5, 10], 10, 5, "interrupted at step 10; the checkpoints until step 5 stay. Run .* to go on from there"),
        ([0, 5, 10], None, None, "interrupted; the checkpoints until step 10 stay. Run .* to go on from there"),
    ],
)
def test_an_interruption_says_what_there_is_to_go_on_from(
    on_disk: list[int], at: int | None, saved: int | None, said: str
) -> None:
    """The weights of a step come before what it takes to go on from them."""
    Path("a").mkdir()
    for step in on_disk:
        StateFiles(Path("a")).weights_path(step).touch()
    progress = TrainingProgress(100, quiet=True)
    progress.step, progress.saved_step = at, saved
    error = interrupted(progress, Path("a"), KeyboardInterrupt())
    assert re.search(said, str(error))
    assert error.exit_status == 130
    terminated = interrupted(progress, Path("a"), Terminated())
    assert (str(terminated), terminated.exit_status) == (str(error).replace("interrupted", "terminated"), 143)


def test_modular_addition_is_killed_and_goes_on_bit_for_bit(spectra: Fixture) -> None:
    """The issue's own promise, with the installed task."""
    sizes = ["--set", "prime=11", "--set", "d_model=16", "--set", "mlp=16", "--steps", "400", "--save-every", "50"]
    with started("modular-addition", *sizes, "--out", "killed", site=KILLED) as process:
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    assert StateFiles(Path("killed")).steps()[-2:] == [50, 100]
    assert spectra("train", "modular-addition", *sizes, "--out", "killed", "--quiet").status == 0
    assert spectra("train", "modular-addition", *sizes, "--out", "whole", "--quiet").status == 0
    names = sorted(path.name for path in Path("whole").glob("step_*"))
    assert len(names) == 10
    assert sorted(path.name for path in Path("killed").glob("step_*")) == names
    assert all(Path("whole", name).read_bytes() == Path("killed", name).read_bytes() for name in names)
    assert pq.read_table("whole/metrics.parquet").equals(pq.read_table("killed/metrics.parquet"))
    record = json.loads(Path("whole/run.json").read_text())
    assert (record["task"], record["options"]["prime"]) == ("modular-addition", 11)


def test_what_the_help_says_of_devices_is_what_training_takes(spectra: Fixture) -> None:
    """One: the help of commands that take several says so."""
    helps = {command: " ".join(spectra(command, "--help").out.split()) for command in ("train", "rank")}
    assert ["has a worker" in text for text in helps.values()] == [False, True]
    assert "auto, cpu, cuda, cuda:N or mps" in helps["train"]
    outcome = spectra("train", TINY, "--out", "a", "--device", "cpu,cpu")
    assert (outcome.status, Path("a").exists()) == (2, False)
    assert outcome.err == "Error: --device cpu,cpu: one device is needed here. Give one of them.\n"
