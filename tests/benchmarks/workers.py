"""What a second worker gains on small matrices, and what running again costs, in whole processes.

One worker uses several cores by itself, as it factorizes in lanes and reads ahead; what is gained is told against that,
and against one worker that is kept on one core.

Start-up is the same command on two checkpoints of four tiny matrices: interpreter, torch, the workers themselves. Run
by hand, on an otherwise idle machine: python -m tests.benchmarks.workers [CHECKPOINTS]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from .rank import seconds

WIDTH, LAYERS = 256, 4
CHECKPOINTS = 100
REPEATS = 5
ONE_CORE, ONE, TWO = "1 worker on 1 core", "1 worker", "2 workers"
WORKERS: Mapping[str, int] = {ONE_CORE: 1, ONE: 1, TWO: 2}
"""By what it is called, how many workers there are."""

COMMANDS: Mapping[str, Sequence[str]] = {"rank": (), "analyze": ("--reference", "first", "--heads", "8")}


def save_step(directory: Path, step: int, width: int = WIDTH, layers: int = LAYERS) -> None:
    """A checkpoint of a GPT-NeoX without embeddings: 4 matrices a layer, normally distributed."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(step)
    sizes = {
        "attention.query_key_value": (3, 1),
        "attention.dense": (1, 1),
        "mlp.dense_h_to_4h": (4, 1),
        "mlp.dense_4h_to_h": (1, 4),
    }
    weights = {
        f"gpt_neox.layers.{layer}.{name}.weight": torch.randn(rows * width, cols * width, generator=generator) * 0.02
        for layer in range(layers)
        for name, (rows, cols) in sizes.items()
    }
    save_file(weights, directory / f"step_{step}.safetensors")


def elapsed(command: str, run: Path, out: Path, way: str) -> float:
    """Seconds that a command takes as a process of its own."""
    arguments = [command, str(run), "--quiet", "--out", str(out), "--workers", str(WORKERS[way]), *COMMANDS[command]]
    program = [sys.executable, "-m", "spectra_cli"]
    if way == ONE_CORE:
        one = min(os.sched_getaffinity(0))
        kept = f"import os, runpy; os.sched_setaffinity(0, {{{one}}}); runpy.run_module('spectra_cli', alter_sys=True)"
        program = [sys.executable, "-c", kept]
    return seconds(lambda: subprocess.run([*program, *arguments], check=True))


def remove(path: Path) -> None:
    """A table, or a directory of tables."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Times:
    """Medians of what was measured, in turn, by what it is."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str], list[float]] = {}

    def add(self, what: str, way: str, took: float) -> None:
        """One measurement."""
        self._measured.setdefault((what, way), []).append(took)

    def __call__(self, what: str, way: str) -> float:
        return statistics.median(self._measured[what, way])


def measure(command: str, run: Path, tiny: Path, parent: Path, checkpoints: int) -> Times:
    """Start-up, a first run, the same again, and with a checkpoint more; every repetition goes through all of them."""
    times = Times()
    out, small = parent / f"{command}.out", parent / f"{command}.tiny"
    last = run / f"step_{checkpoints - 1}.safetensors"
    aside = parent / last.name
    for _ in range(REPEATS):
        for way in WORKERS:
            remove(out)
            remove(small)
            last.rename(aside)
            times.add("start-up", way, elapsed(command, tiny, small, way))
            times.add("first run", way, elapsed(command, run, out, way))
            times.add("same again", way, elapsed(command, run, out, way))
            aside.rename(last)
            times.add("one more", way, elapsed(command, run, out, way))
    return times


def tell(command: str, times: Times, checkpoints: int) -> None:
    """Print what was measured of a command."""
    print(f"\nspectra {command}, {checkpoints - 1} checkpoints of {4 * LAYERS} matrices of width {WIDTH}")
    beyond = {way: times("first run", way) - times("start-up", way) for way in WORKERS}
    for way, workers in WORKERS.items():
        start_up, first = times("start-up", way), times("first run", way)
        one = beyond[way] / (checkpoints - 1)
        print(f"{way}: {first:.2f} s, of which {start_up:.2f} s start-up; {one:.3f} s a checkpoint")
        if workers == 1:  # what little there is to do again begins fewer worker processes
            again, more = (times(what, way) - start_up for what in ("same again", "one more"))
            print(f"  the same again: {again:.2f} s beyond start-up, {again / beyond[way]:.1%} of the first (goal 5 %)")
            print(f"  with one checkpoint more: {more:.2f} s beyond start-up")
    for way in (ONE, ONE_CORE):
        whole = times("first run", way) / times("first run", TWO)
        gain = beyond[way] / beyond[TWO]
        goal = " (goal 1.5)" if way == ONE else ""
        print(f"{way} to {TWO}: ratio {gain:.2f} beyond start-up{goal}, {whole:.2f} with it")


def main() -> None:
    """Print everything."""
    checkpoints = int(sys.argv[1]) if len(sys.argv) > 1 else CHECKPOINTS
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {REPEATS}")
    with tempfile.TemporaryDirectory() as temporary:
        parent = Path(temporary)
        run, tiny = parent / "run", parent / "tiny"
        for step in range(checkpoints):
            save_step(run, step)
        for step in range(2):
            save_step(tiny, step, width=8, layers=1)
        for command in COMMANDS:
            tell(command, measure(command, run, tiny, parent, checkpoints), checkpoints)


if __name__ == "__main__":
    main()
