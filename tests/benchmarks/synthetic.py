"""The checkpoint of the figures: a GPT-NeoX of 4 layers, width 768, vocabulary 50304, in float32 (390 MB)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, VOCABULARY, LAYERS = 768, 50304, 4


def state_dict(layers: int = LAYERS, vocabulary: int = VOCABULARY, seed: int = 0) -> dict[str, torch.Tensor]:
    """Normally distributed weights: 4 matrices a layer and two of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)

    def weight(rows: int, cols: int) -> torch.Tensor:
        return torch.randn(rows, cols, generator=generator) * 0.02

    weights = {"gpt_neox.embed_in.weight": weight(vocabulary, WIDTH)}
    for layer in range(layers):
        prefix = f"gpt_neox.layers.{layer}"
        weights[f"{prefix}.attention.query_key_value.weight"] = weight(3 * WIDTH, WIDTH)
        weights[f"{prefix}.attention.dense.weight"] = weight(WIDTH, WIDTH)
        weights[f"{prefix}.mlp.dense_h_to_4h.weight"] = weight(4 * WIDTH, WIDTH)
        weights[f"{prefix}.mlp.dense_4h_to_h.weight"] = weight(WIDTH, 4 * WIDTH)
    return {**weights, "embed_out.weight": weight(vocabulary, WIDTH)}


def save_run(directory: Path, checkpoints: int, **sizes: int) -> Path:
    """A run of `checkpoints` checkpoints in safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    for step in range(checkpoints):
        save_file(state_dict(seed=step, **sizes), directory / f"step_{step}.safetensors")
    return directory


_MEASURE = """
import sys, threading, time
import torch
from spectra_cli.cli.main import run

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:")) // 1024

torch.ones(64, 64) @ torch.ones(64, 64)
base, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
status = run(sys.argv[1:])
done.set()
watcher.join()
print(max(peak, anonymous()) - base)
sys.exit(status)
"""


def peak_anonymous_mebibytes(arguments: Sequence[str]) -> int:
    """Largest anonymous memory of `spectra ARGUMENTS` beyond the interpreter with torch imported (Linux), in MiB."""
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], check=True, stdout=subprocess.PIPE, text=True, timeout=600
    )
    return int(result.stdout.split()[-1])
