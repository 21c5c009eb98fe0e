"""How fast `spectra rank` is, as ratios to `torch.linalg.svdvals` in the same process, and how much memory it takes.

Run by hand, on an otherwise idle machine: python -m tests.benchmarks.rank
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from spectra_cli.cli.main import run
from spectra_cli.spectrum.factorize import factorize
from spectra_cli.spectrum.matrix import TensorMatrix

from .synthetic import peak_anonymous_mebibytes, save_run, state_dict

SHAPES = [
    *((side, side) for side in (64, 96, 128, 192, 256, 384, 512, 768, 1024)),
    *((128, 64), (64, 128), (512, 64), (1024, 128), (128, 1024), (4096, 256), (256, 4096), (20000, 64)),
    *((2304, 768), (3072, 768), (768, 3072), (50304, 768)),
]
BUDGET_BYTES = 1 << 30


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(baseline: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median times of both, called in turn, and the median of their ratios pair by pair."""
    baseline(), ours()
    pairs = [(seconds(baseline), seconds(ours)) for _ in range(repeats)]
    ratios = statistics.median(theirs / mine for theirs, mine in pairs)
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs), ratios


def single_shapes() -> None:
    """One matrix at a time, and as many as a model of 16 layers has of one shape, where they are small."""
    print(f"{'shape':>12}  {'matrices':>8}  {'svdvals ms':>10}  {'spectra ms':>10}  {'ratio':>5}")
    for rows, cols in SHAPES:
        elements = rows * cols
        repeats = max(3, min(200, 5_000_000 // (elements * min(rows, cols) // 50 + 1)))
        for count in (1, 16) if elements <= 1 << 18 else (1,):
            tensors = [torch.randn(rows, cols) for _ in range(count)]
            matrices = [TensorMatrix(tensor) for tensor in tensors]
            theirs, mine, ratio = compare(
                lambda tensors=tensors: [torch.linalg.svdvals(tensor) for tensor in tensors],
                lambda matrices=matrices: factorize(matrices, budget_bytes=BUDGET_BYTES),
                max(3, repeats // count),
            )
            print(f"{rows:>6}x{cols:<5}  {count:>8}  {theirs * 1e3:>10.2f}  {mine * 1e3:>10.2f}  {ratio:>5.2f}")


def all_values() -> None:
    """All 18 matrices in memory, values only."""
    tensors = list(state_dict().values())
    matrices = [TensorMatrix(tensor) for tensor in tensors]
    theirs, mine, ratio = compare(
        lambda: [torch.linalg.svdvals(tensor) for tensor in tensors],
        lambda: [factorize([matrix], budget_bytes=BUDGET_BYTES) for matrix in matrices],
        5,
    )
    print(f"values of 18 matrices: svdvals {theirs:.2f} s, spectra {mine:.2f} s, ratio {ratio:.2f} (goal 2.5)")


def whole_command(directory: Path) -> None:
    """Read, hash, factorize, derive statistics and write, against reading and svdvals."""
    checkpoint = next(directory.iterdir())
    out = directory.parent / "rank.parquet"
    theirs, mine, ratio = compare(
        lambda: [torch.linalg.svdvals(tensor) for tensor in load_file(checkpoint).values()],
        lambda: run(["rank", str(checkpoint), "--quiet", "--out", str(out)]),
        5,
    )
    print(f"whole command: load and svdvals {theirs:.2f} s, spectra rank {mine:.2f} s, ratio {ratio:.2f}")


def start_up() -> None:
    """`spectra --help` and `--version`, beside an interpreter that does nothing."""
    for argument in ("--help", "--version"):
        theirs, mine, _ = compare(
            lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            lambda argument=argument: subprocess.run(
                [sys.executable, "-m", "spectra_cli", argument], check=True, stdout=subprocess.DEVNULL
            ),
            7,
        )
        print(f"spectra {argument}: {mine:.2f} s (goal 0.4), of which the interpreter {theirs:.2f} s")


def memory(directory: Path) -> None:
    """Anonymous memory beyond the interpreter with torch imported."""
    for budget in ("8GB", "256MiB", "64MiB"):
        used = peak_anonymous_mebibytes(
            ["rank", str(directory), "--quiet", "--out", str(directory.parent / "m.parquet"), "--memory-budget", budget]
        )
        print(f"anonymous memory with --memory-budget {budget}: {used} MiB (goal 600)")


def main() -> None:
    """Print everything."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    start_up()
    all_values()
    with tempfile.TemporaryDirectory() as parent:
        directory = save_run(Path(parent) / "run", 1)
        whole_command(directory)
        memory(directory)
    single_shapes()


if __name__ == "__main__":
    main()
