"""How fast `spectra analyze` is, as the ratio to one full float32 `torch.linalg.svd` per use, and its memory.

A use is each of the two matrices of every pair of the alignment (a head is a matrix of its own), and each matrix once
more for the agreement. Run by hand, on an otherwise idle machine: python -m tests.benchmarks.analyze
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from spectra_cli.cli.main import run
from spectra_cli.layers.ends import End
from spectra_cli.layers.inventory import Inventory, take_inventory
from spectra_cli.layers.parts import Part
from spectra_cli.tensors import TensorInfo

from .rank import seconds
from .synthetic import peak_anonymous_mebibytes, save_run

CONFIG = {"model_type": "gpt_neox", "num_attention_heads": 12}
CHECKPOINTS = 3
MOST = 100


def inventory_of(weights: dict[str, Tensor]) -> Inventory:
    """The matrices and connections of the model."""
    tensors = {name: TensorInfo(name, tuple(weight.shape), "float32") for name, weight in weights.items()}
    return take_inventory(tensors, ordered=True, config=CONFIG)


def cut(weight: Tensor, part: Part) -> Tensor:
    """The rows and columns of a part."""
    rows = torch.cat([torch.arange(*span) for span in part.rows or ((0, weight.shape[0]),)])
    cols = torch.cat([torch.arange(*span) for span in part.cols or ((0, weight.shape[1]),)])
    return weight if part.is_whole else weight[rows][:, cols]


def vectors(weight: Tensor, end: End) -> Tensor:
    """The leading vectors of an end, from an SVD of its own."""
    left, _, right = torch.linalg.svd(cut(weight, end.part), full_matrices=False)
    return left[:, :MOST] if end.side == "left" else right[:MOST].T


def one_svd_per_use(checkpoint: Path, reference: dict[str, tuple[Tensor, Tensor]], inventory: Inventory) -> int:
    """Values, alignments and agreements of one checkpoint; returns the number of SVDs."""
    weights = list(load_file(checkpoint).items())
    uses = 0
    for connection in inventory.connections():
        for unit in connection.units:
            if unit.upstream is not None and unit.downstream is not None:
                upstream, downstream = (
                    vectors(weights[end.part.depth][1], end) for end in (unit.upstream, unit.downstream)
                )
                (upstream.T @ downstream).abs().diagonal()[:10].mean()
                uses += 2
    for name, weight in weights:
        left, _, right = torch.linalg.svd(weight, full_matrices=False)
        other_left, other_right = reference[name]
        ((left[:, :MOST].T @ other_left) * (right[:MOST] @ other_right)).abs().diagonal()
        uses += 1
    return uses


def references(checkpoint: Path) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Leading vectors of every matrix; computed once per run and not timed."""
    for name, weight in load_file(checkpoint).items():
        left, _, right = torch.linalg.svd(weight, full_matrices=False)
        yield name, (left[:, :MOST], right[:MOST].T)


def main() -> None:
    """Print everything."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as parent:
        directory = save_run(Path(parent) / "run", CHECKPOINTS)
        (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        first, final = (directory / f"step_{step}.safetensors" for step in (0, CHECKPOINTS - 1))
        inventory = inventory_of(load_file(first))
        known = dict(references(final))
        out = str(Path(parent) / "tables")
        command = ["analyze", str(directory), "--quiet", "--out", out]
        run([*command, "--steps", "0"])
        times = [seconds(lambda: run(command)) / CHECKPOINTS for _ in range(3)]
        start = time.perf_counter()
        uses = one_svd_per_use(first, known, inventory)
        theirs = time.perf_counter() - start
        times += [seconds(lambda: run(command)) / CHECKPOINTS for _ in range(3)]
        mine = statistics.median(times)
        print(f"one full SVD per use: {theirs:.1f} s per checkpoint, {uses} SVDs")
        print(f"spectra analyze: {mine:.2f} s per checkpoint (read, hash, factorize, write; {CHECKPOINTS} of them)")
        print(f"ratio {theirs / mine:.1f} (goal 10)")
        for budget in ("8GB", "512MiB"):
            used = peak_anonymous_mebibytes([*command, "--memory-budget", budget])
            print(f"anonymous memory with --memory-budget {budget}: {used} MiB")


if __name__ == "__main__":
    main()
